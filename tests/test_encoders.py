"""Encoder families: each a random miniature that transformers saved, loaded by our code and held against transformers' own forward."""

import numpy as np
import pytest
import torch
import transformers
from miniatures import ENCODERS, encoder_family, extractor_of
from safetensors.torch import load_file, save_file

from tiny_audio import ASRConfig, ASRModel
from tiny_audio.model.encoders import adapter_for, load_encoder
from tiny_audio.training.build import asr_config
from tiny_audio.training.config import compose

FULL_WINDOW = ("whisper", "voxtral")  # they take no mask
MASKED = ("hubert", "wav2vec2", "wavlm", "w2v-bert", "parakeet")  # transformers' own mask is exact
JOINED = (
    "hubert",
    "hubert-group",
    "wav2vec2-adapter",
    "wavlm",
    "w2v-bert",
    "whisper",
    "voxtral",
    "glmasr",
    "parakeet-tdt",
)
NOT_MASKABLE = ("hubert-group", "hubert-batch-norm", "wav2vec2-adapter", "w2v-bert-adapter")
SAMPLES = (5_000, 9_170, 12_345, 16_000, 20_001)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).normal(0.01, 0.1, samples).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """`checkpoint(name)` → (transformers' encoder, its extractor, the folder of the larger checkpoint it is part of)."""
    made = {}

    def make(name: str):
        if name not in made:
            torch.manual_seed(0)
            model = encoder_family(name)
            with torch.no_grad():  # away from zero biases and even attention, which would hide a leak
                for tensor in (
                    *model.parameters(),
                    *(b for n, b in model.named_buffers() if n.endswith("running_mean")),
                ):
                    tensor.add_(0.1 * torch.randn_like(tensor))
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            extractor = extractor_of(name)
            extractor.save_pretrained(folder)
            made[name] = model.get_submodule(ENCODERS[name][2]), extractor, str(folder)
        return made[name]

    return make


@pytest.fixture(scope="module")
def joined(checkpoint, tiny_parts):
    """`joined(name, **config)` → ASRModel of that encoder and a miniature Qwen3."""

    def make(name: str, **config) -> ASRModel:
        torch.manual_seed(0)
        parts = {"audio_model_id": checkpoint(name)[2], "text_model_id": str(tiny_parts / "decoder")}
        return ASRModel.from_parts(ASRConfig(**parts, projector_hidden_dim=32, max_new_tokens=4, **config))

    return make


@pytest.fixture(scope="module")
def model(joined):
    """`model(name)` → the same ASRModel for every test; it is not changed."""
    made: dict[str, ASRModel] = {}
    return lambda name: made.setdefault(name, joined(name)) if name not in made else made[name]


def theirs(name: str, checkpoint, clips: list[np.ndarray], **options):
    """transformers' output for the clips padded by its own extractor."""
    encoder, extractor, _ = checkpoint(name)
    padding = {} if name in (*FULL_WINDOW, "glmasr") else {"padding": True}
    inputs = extractor(clips, sampling_rate=16_000, return_tensors="pt", **padding)
    if name == "glmasr":
        inputs = {"input_features": inputs["input_features"][:, :, : len(clips[0]) // 160]}
    return encoder(**inputs, **options)


@torch.no_grad()
def ours(encoder, inputs):
    return encoder(inputs[encoder.input_name], inputs["audio_attention_mask"].sum(-1))


@pytest.mark.parametrize("name", ENCODERS)
def test_frames_equal_transformers(name, checkpoint, model):
    asr, clip = model(name), noise(20_200)  # an even number of Kaldi frames: no half pair is padded
    frames, lengths = ours(asr.encoder, asr.processor.features([clip]))
    with torch.no_grad():
        reference = theirs(name, checkpoint, [clip]).last_hidden_state
    assert frames.shape[1] == lengths.item() and frames.shape[2] == asr.encoder.dim == asr.config.encoder_dim
    torch.testing.assert_close(frames, reference[:, : lengths.item()], atol=1e-4, rtol=0)
    count = sum(parameter.numel() for parameter in checkpoint(name)[0].parameters())
    assert sum(parameter.numel() for parameter in asr.encoder.parameters()) == count  # nothing else was read


@pytest.mark.parametrize("name", MASKED)
def test_a_padded_batch_equals_transformers_with_its_mask(name, checkpoint, model):
    asr, clips = model(name), [noise(samples) for samples in SAMPLES]
    frames, lengths = ours(asr.encoder, asr.processor.features(clips))
    with torch.no_grad():
        reference = theirs(name, checkpoint, clips).last_hidden_state
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(frames[row, :length], reference[row, :length], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NOT_MASKABLE)
def test_transformers_mask_leaks_where_clips_run_one_by_one(name, checkpoint, model):
    clips = [noise(samples) for samples in SAMPLES]
    length = model(name).encoder.output_length(model(name).processor.adapter.feature_length(SAMPLES[0]))
    with torch.no_grad():
        padded, alone = (theirs(name, checkpoint, batch).last_hidden_state for batch in (clips, clips[:1]))
    assert model(name).encoder.one_by_one
    assert (padded[0, :length] - alone[0, :length]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ENCODERS)
def test_a_clip_in_a_batch_equals_the_clip_alone(name, model):
    asr, clips = model(name), [noise(samples) for samples in SAMPLES]
    batch = asr.processor.features(clips)
    features, mask = batch[asr.encoder.input_name], batch["audio_attention_mask"]
    if name not in FULL_WINDOW:  # what stands in the padding must not matter
        padding = (mask == 0).view(len(clips), *[1] * (features.dim() - 2), -1)
        features += padding * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    frames, lengths = ours(asr.encoder, batch)
    for row, clip in enumerate(clips):
        alone, length = ours(asr.encoder, asr.processor.features([clip]))
        assert length.item() == lengths[row] == alone.shape[1]
        torch.testing.assert_close(frames[row, : lengths[row]], alone[0], atol=1e-4, rtol=0)
        assert not frames[row, lengths[row] :].any()


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_lengths_are_those_of_the_real_layers(name, model):
    encoder = model(name).encoder
    raw = encoder.input_name == "input_values"
    for length in (400, 401, 719, 720, 1_039, 1_040, 3_279, 3_280, 3_281) if raw else (*range(1, 19), 63, 64, 65):
        shape = (1, length) if raw else (1, {"whisper": 80, "voxtral": 128, "glmasr": 128}.get(name, 80), length)
        features = torch.randn(1, 160, length) if name.startswith("w2v") else torch.randn(shape)
        if name in FULL_WINDOW:
            frames = encoder.encoder.conv2(encoder.encoder.conv1(features)).shape[-1]
        else:
            frames = encoder.encode(features, torch.tensor([length])).shape[1]
        assert encoder.output_length(length) == encoder.output_length(torch.tensor(length)) == frames


@pytest.mark.parametrize("name", ["hubert", "w2v-bert", "parakeet"])
def test_feature_lengths_are_those_of_the_extractor(name, checkpoint, model):
    processor, extractor = model(name).processor, checkpoint(name)[1]
    for samples in (560, 561, 719, 720, 721, 880, 16_000, 16_079, 16_080, 16_239, 16_240):
        mask = extractor(noise(samples), sampling_rate=16_000, return_tensors="pt")["attention_mask"]
        assert processor.adapter.feature_length(samples) == mask.sum()


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("samples", [1, 399])
def test_the_shortest_clips_give_a_frame(name, samples, model):
    asr = model(name)
    frames, lengths = ours(asr.encoder, asr.processor.features([noise(samples)]))
    assert lengths.item() == 1 and torch.isfinite(frames).all() and frames.any()
    shortest = asr.encoder.min_samples
    assert asr.processor.adapter.feature_length(1) == asr.processor.adapter.feature_length(shortest)


@pytest.mark.parametrize("name", JOINED)
def test_joined_trained_a_step_generates_and_loads_again(name, joined, tmp_path):
    asr, clips = joined(name), [noise(5_000), noise(16_000)]
    batch = asr.processor(clips, text=["one", "two three"])
    loss = asr.train()(**batch).loss
    loss.backward()
    gradients = {n: parameter.grad for n, parameter in asr.named_parameters() if parameter.grad is not None}
    assert torch.isfinite(loss) and all(n.startswith("projector.") for n in gradients)
    assert all(torch.isfinite(gradient).all() and gradient.any() for gradient in gradients.values())
    assert len(gradients) == len(list(asr.projector.parameters()))

    inputs = asr.eval().processor(clips)
    assert asr.generate(**inputs).shape[0] == 2
    asr.save_pretrained(tmp_path / "saved", self_contained=True)
    again = ASRModel.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(asr(**inputs).logits, again(**again.processor(clips)).logits)


PLAIN = [name for name in ENCODERS if not name.endswith("adapter")]


@pytest.mark.parametrize("name", PLAIN)
def test_layers_are_those_of_transformers(name, checkpoint, model):
    inputs = model(name).processor.features([noise(9_170)])
    with torch.no_grad():
        output = theirs(name, checkpoint, [noise(9_170)], output_hidden_states=True)
    states = [*output.hidden_states[:-1], output.last_hidden_state]
    encoder = load_encoder(checkpoint(name)[2], "masked").eval()
    for layer in (0, 1, -2, 2):
        encoder.layer = layer
        frames, lengths = ours(encoder, inputs)
        torch.testing.assert_close(frames, states[layer][:, : lengths.item()], atol=1e-4, rtol=0)

    encoder = load_encoder(checkpoint(name)[2], "masked", "weighted").eval()
    encoder.layer_weights.data = torch.tensor([0.1, 0.7, 0.2]).log()
    frames, lengths = ours(encoder, inputs)
    mean = 0.1 * states[0] + 0.7 * states[1] + 0.2 * states[2]
    torch.testing.assert_close(frames, mean[:, : lengths.item()], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["hubert", "hubert-group", "glmasr"])
def test_layer_weights_learn_and_are_saved_while_the_encoder_stays_frozen(name, joined, tmp_path):
    asr = joined(name, encoder_layer="weighted")
    batch = asr.processor([noise(5_000), noise(16_000)], text=["one", "two three"])
    trained = [parameter for parameter in asr.parameters() if parameter.requires_grad]
    loss = asr.train()(**batch).loss
    loss.backward()
    assert asr.encoder.layer_weights.grad.any()
    assert all(parameter.grad is None for parameter in asr.encoder.encoder.parameters())
    torch.optim.SGD(trained, lr=0.1).step()
    assert asr.encoder.layer_weights.any() and asr.eval()(**batch).loss < loss

    asr.save_pretrained(tmp_path)
    assert "encoder.layer_weights" in load_file(tmp_path / "model.safetensors")
    again = ASRModel.from_pretrained(tmp_path)
    assert torch.equal(again.encoder.layer_weights, asr.encoder.layer_weights)
    with torch.no_grad():
        assert torch.equal(again(**batch).loss, asr(**batch).loss)


def test_layer_weights_freeze_with_the_projector(joined):
    asr = joined("hubert", encoder_layer="weighted", freeze_projector=True, freeze_language_model=False)
    assert not asr.encoder.layer_weights.requires_grad


def test_a_trained_encoder_gets_gradients(joined):
    asr = joined("hubert")
    asr.encoder.encoder.encoder.layers[0].requires_grad_(True)
    asr(**asr.processor([noise(5_000)], text=["one"])).loss.backward()
    assert asr.encoder.encoder.encoder.layers[0].feed_forward.output_dense.weight.grad.any()


@pytest.mark.parametrize("layer", [3, -4, "last", 1.5])
def test_a_layer_that_is_not_there_says_what_is(layer, checkpoint):
    with pytest.raises(ValueError, match=r"encoder_layer is .*; this encoder has -3, -2, -1, 0, 1, 2, weighted."):
        load_encoder(checkpoint("hubert")[2], "masked", layer)
    with pytest.raises(ValueError, match="this encoder has -1"):
        load_encoder(checkpoint("wav2vec2-adapter")[2], "masked", 1)


def test_old_tensor_names_load_and_the_masking_vector_may_be_missing(checkpoint, model, tmp_path):
    """Published HuBERT and wav2vec 2.0 checkpoints name weight norm's parts `weight_g` and `weight_v`."""
    reference, _, folder = checkpoint("hubert")
    tensors = load_file(f"{folder}/model.safetensors")
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed = {}
    for name, tensor in tensors.items():
        for new_part, old_part in old.items():
            name = name.replace(new_part, old_part)
        renamed[name] = tensor
    assert any(name.endswith("weight_g") for name in renamed)
    del renamed["hubert.masked_spec_embed"]
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    reference.config.save_pretrained(tmp_path)
    inputs = model("hubert").processor.features([noise(9_170)])
    encoder = load_encoder(str(tmp_path), "masked").eval()
    encoder.encoder.save_pretrained(tmp_path / "again")
    for loaded in (encoder, load_encoder(str(tmp_path / "again"), "masked").eval()):
        assert torch.equal(ours(loaded, inputs)[0], ours(model("hubert").encoder, inputs)[0])


@pytest.mark.parametrize("name", ["hubert", "parakeet", "voxtral"])
def test_missing_tensors_are_named(name, checkpoint, tmp_path):
    tensors = load_file(f"{checkpoint(name)[2]}/model.safetensors")
    place = ENCODERS[name][2].replace("model.", "")
    lost = next(key for key in tensors if f"{place}." in key and "layers.1." in key)
    save_file(
        {k: v for k, v in tensors.items() if k != lost}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    transformers.AutoConfig.from_pretrained(checkpoint(name)[2]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"lacks 1 encoder tensors \({lost.split(f'{place}.')[1]}"):
        load_encoder(str(tmp_path), "masked")


@pytest.mark.parametrize("value", [-1, 7, "weighted"])
def test_the_layer_is_an_option_of_training(value):
    settings = compose("transcription", [f"model.encoder_layer={value}"])
    assert asr_config(settings.model).encoder_layer == settings.model.encoder_layer == value


@pytest.mark.parametrize(("name", "wanted", "used"), [("wavlm", "sdpa", "eager"), ("hubert", "eager", "eager")])
def test_attention_is_the_one_asked_for_where_the_encoder_has_it(name, wanted, used, checkpoint):
    encoder = load_encoder(checkpoint(name)[2], "masked", attn_implementation=wanted)
    assert encoder.encoder.config._attn_implementation == used


@pytest.mark.parametrize("name", MASKED)
def test_training_clips_may_have_any_length_and_recordings_are_still_read_in_windows(name, model):
    assert [len(window.waveform) <= 480_000 for window in model(name).windows(noise(70 * 16_000))] == [True] * 3
    assert model(name).processor.max_samples is None
    assert adapter_for(model(name).config.audio_config).max_samples is None
