"""FLOPs: what is counted from layers and lengths is what torch counts while the model runs, forward and backward."""

import pytest
import torch
import transformers
from miniatures import ENCODERS, PROJECTORS, WIDTHS
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, SmolLM3Config

from tiny_audio import ASRConfig, ASRModel
from tiny_audio.model.encoders import adapter_for
from tiny_audio.training import compose
from tiny_audio.training.build import add_lora, outline
from tiny_audio.training.distillation import teacher_logits
from tiny_audio.training.flops import Lengths, TrainingFlops

pytestmark = pytest.mark.usefixtures("one_thread")

SHIPPED = ("glmasr", "hubert", "hubert-xlarge")  # the families that tiny_audio/assets/dimensions has
OTHERS = ("whisper", "voxtral", "hubert-group", "wav2vec2", "wavlm")
RELATIVE = ("w2v-bert", "parakeet")  # with relative positions, whose own products are not counted
VOCABULARY, LABELS = 64, 5
SECONDS = (1.0, 2.37)


def built(encoder: str = "glmasr", decoder: type = Qwen3Config, **values) -> ASRModel:
    kind, widths, _ = ENCODERS[encoder]
    larger = getattr(transformers, kind).config_class(**widths)
    audio = adapter_for(larger).encoder_config(larger)
    sizes = {**WIDTHS, "num_key_value_heads": 1, "vocab_size": VOCABULARY, "pad_token_id": 0}
    config = ASRConfig(
        audio_config=audio,
        text_config=decoder(**sizes, tie_word_embeddings=False),
        audio_token_id=1,
        **{"projector_hidden_dim": 48, "qformer_num_heads": 2, "num_experts": 4, **values},
    )
    config.audio_config._attn_implementation = config.text_config._attn_implementation = (
        "eager"  # torch counts no other here
    )
    torch.manual_seed(0)
    return ASRModel(config).train()


def batch_of(model: ASRModel, seconds: float) -> dict[str, torch.Tensor]:
    """One clip: features of noise, as many placeholders as it has audio tokens, a prompt and an answer."""
    length = model.encoder.feature_length(round(seconds * 16_000))
    count = int(model.projector.output_length(model.encoder.output_length(length)))
    ids = torch.tensor([[5, 6, *[1] * count, 7, 8, *[9] * LABELS]])
    labels = torch.where(ids == 9, ids, -100)
    size = model.encoder.feature_length(480_000) if model.encoder.window else length
    bands = getattr(model.encoder.encoder.config, "num_mel_bins", 0) or 160
    shape = (1, size) if model.encoder.input_name == "input_values" else (1, bands, size)
    mask = (torch.arange(size) < length)[None].long()
    audio = {model.encoder.input_name: torch.randn(shape), "audio_attention_mask": mask}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, **audio}


def lengths_of(batches: list[dict[str, torch.Tensor]]) -> Lengths:
    sizes = ("audio_attention_mask", "attention_mask")
    features, tokens = (torch.cat([batch[name].sum(-1) for batch in batches]) for name in sizes)
    return Lengths(features, tokens, torch.full_like(tokens, LABELS))


def measured(model: ASRModel, batches: list[dict[str, torch.Tensor]]) -> float:
    """What torch counts: each clip alone, so that nothing is padded."""
    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            model(**batch).loss.backward()
    return counter.get_total_flops()


def relative_error(model: ASRModel) -> float:
    batches = [batch_of(model, seconds) for seconds in SECONDS]
    counted = sum(TrainingFlops(model)(lengths_of(batches)).values())
    return abs(counted / measured(model, batches) - 1)


@pytest.mark.parametrize("encoder", SHIPPED + OTHERS)
def test_encoders(encoder):
    assert relative_error(built(encoder)) < 0.02


@pytest.mark.parametrize("encoder", RELATIVE)
def test_relative_positions_are_a_part_of_the_encoder_only(encoder):
    assert relative_error(built(encoder)) < 0.15


@pytest.mark.parametrize("values", PROJECTORS.values(), ids=PROJECTORS)
def test_projectors(values):
    assert relative_error(built(**values)) < 0.02


@pytest.mark.parametrize("decoder", [Qwen3Config, SmolLM3Config])
def test_a_language_model_that_is_trained(decoder):
    assert relative_error(built(decoder=decoder, freeze_language_model=False)) < 0.02


def test_lora_on_both_sides():
    """Gradients go through all of a part that has LoRA; in fact not through its first layer's projections."""
    on_decoder = built(use_lora=True, lora_rank=4)
    add_lora(on_decoder)
    on_decoder.freeze()
    assert relative_error(on_decoder) < 0.02
    on_both = built(use_lora=True, lora_rank=4, encoder_lora_rank=4)
    on_both.config.audio_config.num_hidden_layers = 8
    on_both = ASRModel(on_both.config)
    add_lora(on_both)
    on_both.freeze()
    assert relative_error(on_both) < 0.02


def test_full_windows_and_a_projector_that_looks_at_values(tmp_path):
    assert relative_error(built(encoder_padding="window")) < 0.02
    file = tmp_path / "curious.py"
    file.write_text(CURIOUS)
    assert relative_error(built(projector_type="curious", projector_file=str(file))) < 0.05


CURIOUS = """
import torch
from torch import nn
from tiny_audio.model.projectors import PROJECTOR_CLASSES

class Curious(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.linear = nn.Linear(config.encoder_dim, config.llm_dim)
    def output_length(self, n):
        return n
    def forward(self, x, mask):
        return self.linear(x) if float(x.abs().sum()) >= 0 else x

PROJECTOR_CLASSES["curious"] = Curious
"""


def test_a_teacher_reads_the_transcripts():
    model = built()
    batch = batch_of(model, 1.0)
    spoken = (batch["input_ids"] != model.config.audio_token_id)[0]
    ids = torch.cat([batch["input_ids"][:, spoken], torch.full((1, LABELS - 1), 9)], 1)  # the words, not their end
    labels = torch.full_like(ids, -100)
    labels[:, -LABELS:] = 9
    with FlopCounterMode(display=False) as counter:
        teacher_logits(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    assert TrainingFlops(model, teacher=True)(lengths_of([batch]))["teacher"] == counter.get_total_flops()


def test_a_head_that_is_trained_alone_needs_the_encoder_only():
    model = built(ctc_vocabulary=["", "a"])
    model.requires_grad_(False)
    model.ctc_head.requires_grad_(True)
    batch = batch_of(model, 1.0)
    with FlopCounterMode(display=False) as counter:
        model.encoder(batch["input_features"], batch["audio_attention_mask"].sum(-1))
    assert TrainingFlops(model)(lengths_of([batch])) == {"encoder": counter.get_total_flops()}


def test_the_default_model_is_as_large_as_known():
    """About 100 GFLOP for a second of speech: encoder 64, language model 33, logits 3, by hand from the sizes."""
    model = outline(compose("transcription").model)
    parts = TrainingFlops(model)(Lengths(*(torch.tensor([count]) for count in (1000, 125 + 16 + 40, 40))))
    frames, tokens = 500, 181
    weights = 32 * 1280**2 * (4 + 2 * 4)
    encoder = 2 * (weights * frames + 2 * 32 * 1280 * frames**2 + 3 * 128 * 1280 * 1000 + 3 * 1280**2 * frames)
    assert parts["encoder"] == encoder
    weights = 28 * (1024 * 128 * (16 + 8 + 8 + 16) + 3 * 1024 * 3072)
    assert parts["language_model"] == 4 * weights * tokens + 12 * 28 * 16 * 128 * tokens**2
    assert parts["logits"] == 4 * 1024 * 151_936 * 40
    assert 90e9 < sum(parts.values()) / 10 < 110e9
