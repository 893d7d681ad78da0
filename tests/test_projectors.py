"""Projectors: references, lengths and masks, the scale at the start, the router's loss, and projectors of one's own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import PROJECTORS
from torch.nn import functional as F
from transformers import AutoConfig, GlmAsrConfig, GlmAsrForConditionalGeneration, GraniteSpeechConfig

from tiny_audio import PROJECTOR_CLASSES, ASRConfig, ASRModel, embedded, load_audio
from tiny_audio.model.projectors import build_projector
from tiny_audio.projectors.experts import router_loss
from tiny_audio.training import compose, train
from tiny_audio.training.build import build_model
from tiny_audio.training.initialization import match_embedding_scale

KINDS = {**PROJECTORS, "qformer": {**PROJECTORS["qformer"], "qformer_num_heads": 4}}
every_kind = pytest.mark.parametrize("kind", KINDS)
DOCS = Path(__file__).parents[1] / "docs" / "projectors.md"


def make(kind: str, seed: int = 0, **changes) -> torch.nn.Module:
    torch.manual_seed(seed)
    sizes = {"encoder_dim": 32, "llm_dim": 24, "projector_hidden_dim": 40}
    return build_projector(ASRConfig(**{**sizes, **KINDS[kind], **changes})).eval()


# ---- lengths and masks


@every_kind
def test_padding_changes_nothing_and_lengths_are_exact(kind):
    projector, generator = make(kind), torch.Generator().manual_seed(0)
    lengths = torch.arange(1, 41)
    batch = torch.randn(40, 47, 32, generator=generator)  # what stands in the padding must not matter
    batch[0, 20:] = float("nan")
    mask = torch.arange(47) < lengths[:, None]
    padded, counts = projector(batch, mask), projector.output_length(lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = projector(batch[row : row + 1, :length])[0]
        assert len(alone) == counts[row] == projector.output_length(length) >= 1
        torch.testing.assert_close(padded[row, : counts[row]], alone, atol=1e-5, rtol=0)


@every_kind
def test_every_frame_of_a_whole_group_is_heard(kind):
    projector, size = make(kind), 60
    frames = torch.randn(1, size, 32, requires_grad=True)
    projector(frames).square().sum().backward()
    assert (frames.grad.abs().sum(-1) > 0).all()


def test_heads_that_do_not_divide_the_width_are_named():
    with pytest.raises(ValueError, match="qformer_num_heads is 7; expected a divisor of its width, 32"):
        make("qformer", qformer_num_heads=7)


def test_length_rules():
    counts = {kind: [make(kind).output_length(n) for n in (0, 1, 5, 14, 15, 16, 30)] for kind in KINDS}
    assert counts["mlp-norm"] == counts["moe"] == [1, 1, 1, 3, 3, 4, 7]
    assert counts["mlp-relu"] == counts["swiglu"] == [1, 1, 1, 2, 3, 3, 6]
    assert counts["mosa"] == [1, 1, 2, 4, 4, 4, 8]
    assert counts["qformer"] == [3, 3, 3, 3, 3, 6, 6]


# ---- references


HUBERT_XL_QWEN3_8B = {"projector_pool_stride": 5, "projector_hidden_dim": 8192, "llm_dim": 4096}


@pytest.mark.parametrize(
    "settings, millions",
    [
        ({}, 12.6),
        ({"projector_variant": "relu", "projector_pool_stride": 5, "encoder_dim": 1024, "llm_dim": 2048}, 14.7),
        ({"projector_type": "swiglu", **HUBERT_XL_QWEN3_8B}, 138.4),
        ({"projector_type": "mosa", "projector_hidden_dim": 1024}, 15.5),
        ({"projector_type": "moe", "projector_hidden_dim": 768}, 23.6),
        ({"projector_type": "qformer", "qformer_hidden_size": 704}, 18.2),
    ],
)
def test_parameters_of_the_named_models(settings, millions):
    with torch.device("meta"):
        projector = build_projector(ASRConfig(**{"encoder_dim": 1280, "llm_dim": 1024, **settings}))
    assert round(sum(parameter.numel() for parameter in projector.parameters()) / 1e6, 1) == millions


def test_glm_equals_transformers():
    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"model_type": "llama", "vocab_size": 8, "hidden_size": 24, "intermediate_size": 8, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    model = GlmAsrForConditionalGeneration(GlmAsrConfig(audio_config=sizes, text_config=text, audio_token_id=5)).eval()
    features, mask = torch.randn(2, 128, 80), torch.ones(2, 80)
    reference = model.model.get_audio_features(features, mask).pooler_output
    frames = model.model.audio_tower(features).last_hidden_state
    projector = make("mlp-glm", projector_hidden_dim=48)
    projector.load_state_dict(model.model.multi_modal_projector.state_dict())
    torch.testing.assert_close(projector(frames).flatten(0, 1), reference, atol=1e-5, rtol=0)


def granite_projector():
    from transformers.models.granite_speech.modeling_granite_speech import GraniteSpeechEncoderProjector

    torch.manual_seed(1)
    qformer = AutoConfig.for_model(
        "blip_2_qformer", hidden_size=32, encoder_hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, cross_attention_frequency=1,
    )  # fmt: skip
    config = GraniteSpeechConfig(projector_config=qformer, text_config={"model_type": "granite", "hidden_size": 24})
    return GraniteSpeechEncoderProjector(config).eval()


@pytest.mark.parametrize("frames", [1, 15, 40, 90])
def test_qformer_equals_transformers(frames):
    theirs, ours = granite_projector(), make("qformer", qformer_intermediate_size=64)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, frames, 32)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)


def expert_weights(projector, count: int):
    """One (first, second) pair of matrices an expert."""
    first, second = projector.experts.linear_1.weight, projector.experts.linear_2.weight
    return list(zip(first.chunk(count, 0), second.chunk(count, 1), strict=True))


def test_mosa_equals_a_slow_loop():
    projector, x = make("mosa"), torch.randn(1, 16, 32)
    hidden = F.gelu(projector.conv_2(F.gelu(projector.conv_1(x.transpose(1, 2)))))[0].T
    expected = []
    for token in hidden:
        gates, experts = projector.router(token).softmax(-1), expert_weights(projector, 4)
        outputs = [second @ (first @ token).relu() for first, second in experts]
        expected.append(sum(gate * output for gate, output in zip(gates, outputs, strict=True)))
    torch.testing.assert_close(projector(x)[0], torch.stack(expected), atol=1e-5, rtol=0)


def moe_loop(projector, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(frames, dim) → tokens and auxiliary loss, token by token and expert by expert."""
    outputs, logits, uses = [], [], torch.zeros(4)
    shared, *experts = expert_weights(projector, 5)
    for token in projector.norm(x[: len(x) // 4 * 4].reshape(-1, 128)):
        scores = projector.router.weight @ token
        best = sorted(range(4), key=lambda expert: -scores[expert])[:2]
        total = sum(scores[expert].exp() for expert in best)
        output = shared[1] @ (shared[0] @ token).relu()
        for expert in best:
            first, second = experts[expert]
            output = output + scores[expert].exp() / total * (second @ (first @ token).relu())
            uses[expert] += 1
        outputs.append(projector.norm_2(output))
        logits.append(scores)
    logits = torch.stack(logits)
    balance = 4 * sum(uses / uses.sum() * (logits.exp() / logits.exp().sum(-1, keepdim=True)).mean(0))
    return torch.stack(outputs), balance + 0.1 * (logits.exp().sum(-1).log() ** 2).mean()


def test_moe_equals_a_slow_loop_padding_left_out_of_its_loss():
    projector = make("moe").train()
    x, mask = torch.randn(2, 40, 32), torch.arange(40) < torch.tensor([[40], [22]])
    embeddings = projector(x, mask)
    rows = [moe_loop(projector, x[0]), moe_loop(projector, x[1, :22])]
    torch.testing.assert_close(embeddings[0], rows[0][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(embeddings[1, :5], rows[1][0], atol=1e-5, rtol=0)
    both = torch.cat([x[0], x[1, :20]])
    torch.testing.assert_close(projector.auxiliary_loss, moe_loop(projector, both)[1], atol=1e-5, rtol=0)


# ---- the router of moe


def test_unused_experts_get_zeros_as_gradients():
    projector = make("moe").train()
    with torch.no_grad():
        projector.norm.weight.fill_(1.0)
        projector.router.weight[2:] = 0  # experts 2 and 3 are never among the best two
        projector.router.weight[:2] = 1.0
    x = torch.rand(1, 40, 32) + 0.1
    projector(x).square().sum().backward()
    gradients = [first for first, _ in zip(projector.experts.linear_1.weight.grad.chunk(5), range(5), strict=True)]
    assert [bool(gradient.any()) for gradient in gradients] == [True, True, True, False, False]
    assert all(parameter.grad is not None for parameter in projector.parameters())


def test_router_loss_is_least_when_balanced():
    own = torch.ones(1, 4, dtype=torch.bool)
    balanced = 8 * torch.eye(4)[None]
    lopsided = 8 * torch.eye(4)[None, [0, 0, 0, 0]]
    losses = [float(router_loss(logits, logits, own)) for logits in (balanced, lopsided)]
    z_loss = 0.1 * float(torch.logsumexp(balanced[0, 0], -1)) ** 2
    assert losses[0] == pytest.approx(1 + z_loss, abs=1e-3)
    assert losses[1] == pytest.approx(4 + z_loss, abs=0.01)


# ---- in the model


def parts_config(tiny_parts, kind: str, **changes) -> ASRConfig:
    where = {"audio_model_id": str(tiny_parts / "encoder"), "text_model_id": str(tiny_parts / "decoder")}
    return ASRConfig(**{**where, "projector_hidden_dim": 32, "max_new_tokens": 4, **KINDS[kind], **changes})


def rms(x: torch.Tensor) -> float:
    return float(x.detach().float().pow(2).mean().sqrt())


@every_kind
def test_embeddings_start_at_the_scale_of_the_tokens(kind, tiny_parts):
    torch.manual_seed(0)
    model = ASRModel.from_parts(parts_config(tiny_parts, kind))
    match_embedding_scale(model)
    wanted = rms(model.language_model.get_input_embeddings().weight)
    assert rms(model.projector(torch.randn(4, 60, 32))) == pytest.approx(wanted, rel=0.3)


@pytest.fixture(scope="module")
def nano_model(nano):
    return ASRModel.from_pretrained(nano)


@every_kind
def test_speech_starts_at_the_scale_of_the_tokens(kind, nano_model):
    config = ASRConfig(encoder_dim=192, llm_dim=192, projector_hidden_dim=512, **KINDS[kind])
    nano_model.projector = build_projector(config).eval()
    file = next((embedded("quickstart").parent / "clips").glob("send*.ogg"))
    heard = nano_model.processor(load_audio(file))
    match_embedding_scale(nano_model, lambda: (heard["input_features"], heard["audio_attention_mask"]))
    clips = [load_audio(file) for file in sorted((embedded("quickstart").parent / "clips").glob("*.ogg"))]
    inputs = nano_model.processor(clips)
    features, mask = inputs["input_features"], inputs["audio_attention_mask"]
    embeddings, counts = nano_model.encode_audio(features, mask)
    heard = torch.cat([row[:count] for row, count in zip(embeddings, counts.tolist(), strict=True)])
    wanted = rms(nano_model.language_model.get_input_embeddings().weight)
    assert rms(heard) == pytest.approx(wanted, rel=0.3)


def test_a_norm_at_the_end_needs_no_speech(nano_model):
    """Where the validation split is streamed, its first batch takes long to come."""
    nano_model.projector = build_projector(ASRConfig(encoder_dim=192, llm_dim=192, projector_hidden_dim=512))
    match_embedding_scale(nano_model, lambda: pytest.fail("speech was asked for"))
    wanted = rms(nano_model.language_model.get_input_embeddings().weight)
    assert rms(nano_model.projector.norm_2.weight) == pytest.approx(wanted, rel=1e-3)


@every_kind
def test_saved_and_loaded_with_the_same_text(kind, tiny_parts, tmp_path):
    model = ASRModel.from_parts(parts_config(tiny_parts, kind)).eval()
    clips = [np.random.default_rng(seed).normal(0, 0.1, 9_000 * (1 + seed)).astype(np.float32) for seed in range(2)]
    model.save_pretrained(tmp_path)
    again = ASRModel.from_pretrained(tmp_path)
    assert again.config.projector_file is None
    assert again.transcribe(clips) == model.transcribe(clips) == [model.transcribe(clip) for clip in clips]


BASE = (
    "data.max_train_samples=4", "data.max_eval_samples=1", "training.batch_seconds=8", "training.max_steps=2",
    "training.logging_steps=1", "training.report_to=none", "model.projector_hidden_dim=32",
)  # fmt: skip


@pytest.fixture
def settings_of(tiny_parts, tmp_path):
    """`settings_of(*overrides)` → Settings of two steps with the miniature parts, in `tmp_path / "run"`."""
    parts = [f"model.audio_model_id={tiny_parts}/encoder", f"model.text_model_id={tiny_parts}/decoder"]
    return lambda *overrides: compose(None, [*parts, *BASE, *overrides], output_dir=tmp_path / "run")


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_routers_loss_is_trained_on_and_logged(settings_of, tmp_path):
    train(settings_of("model.projector_type=moe"))
    entries = [entry for entry in log_of(tmp_path / "run") if "loss" in entry]
    assert len(entries) == 2 and all(entry["auxiliary_loss"] >= 1 for entry in entries)
    settings = settings_of("model.projector_type=moe")
    torch.manual_seed(0)
    model = build_model(settings.model).train()
    batch = model.processor(np.ones(16_000, np.float32), text=["one"])
    output = model(**batch)
    model.config.router_aux_loss_coef = 0.0
    plain = model(**batch).loss
    torch.testing.assert_close(output.loss, plain + 0.01 * output.auxiliary_loss)
    assert "auxiliary_loss" not in model.projector.__dict__  # a graph kept alive would be a leak


def test_settings_reach_the_projector(settings_of):
    model = build_model(settings_of("model.projector_type=qformer", "model.qformer_num_layers=1", "model.downsample_rate=3",
                                    "model.qformer_num_heads=4", "model.qformer_hidden_size=16").model)  # fmt: skip
    assert model.projector.queries == 5 and len(model.projector.qformer.encoder.layer) == 1
    assert model.projector.linear.in_features == 16
    assert build_model(settings_of("model.projector_variant=relu").model).projector.linear_1.bias is not None
    experts = build_model(settings_of("model.projector_type=mosa", "model.num_experts=3").model).projector
    assert experts.router.out_features == 3


def test_the_recipe_makes_a_row_of_its_table(tmp_path):
    from recipes.projectors import markdown, measure

    small = ("training.max_steps=1", "training.report_to=none", "data.max_train_samples=4", "data.max_eval_samples=1")
    row = measure("mosa", small, tmp_path, max_samples=2)
    assert row.parameters > 1e5 and row.tokens == 125 and row.gigabytes > 0.1 and row.test_wer > 0
    header, _, line = markdown([row]).splitlines()
    assert header.count("|") == line.count("|") == 8 and line.startswith("| mosa | ") and "| 12.5 |" in line


def test_unknown_variant_names_the_known():
    with pytest.raises(ValueError, match="projector_variant is 'gelu'; expected norm, relu or glm"):
        make("mlp-norm", projector_variant="gelu")


# ---- a user's own


def documented(pattern: str) -> str:
    (found,) = re.findall(pattern, DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    return found


@pytest.fixture
def own_file(tmp_path):
    """The documented projector of one's own, as a file; forgotten after the test."""
    before = dict(PROJECTOR_CLASSES)
    file = tmp_path / "my_projector.py"
    file.write_text(documented(r"cat > my_projector\.py <<'EOF'\n(.*?)EOF\n"))
    yield file
    PROJECTOR_CLASSES.clear()
    PROJECTOR_CLASSES.update(before)
    sys.modules.pop("tiny_audio.model.my_projector", None)


TRANSCRIBE_ALONE = """
import sys
sys.modules["tiny_audio"] = None  # cannot be imported
import numpy as np
from transformers import pipeline
folder, again = sys.argv[1:]
clip = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
recogniser = pipeline("automatic-speech-recognition", folder, trust_remote_code=True)
recogniser.model.save_pretrained(again)
print(type(recogniser.model.projector).__name__)
print(recogniser(clip, generate_kwargs={"max_new_tokens": 4})["text"])
"""


def test_a_projector_of_ones_own_trains_is_exported_and_loads_alone(own_file, settings_of, tmp_path):
    assert len(own_file.read_text().splitlines()) <= 20
    result = train(settings_of("model.projector_type=mine", f"model.projector_file={own_file}", "training.max_steps=1"))
    own_file.unlink()  # what the checkpoint holds must be enough
    PROJECTOR_CLASSES.pop("mine")
    model = ASRModel.from_pretrained(result.model)
    clip = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    expected = model.transcribe(clip, max_new_tokens=4)
    command = [sys.executable, "-c", TRANSCRIBE_ALONE, result.model, tmp_path / "again"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip("\n").split("\n") == [type(model.projector).__name__, expected]
    for saved in (result.model, tmp_path / "again"):  # one written by the exported code is as good
        assert json.loads((saved / "config.json").read_text())["projector_file"] == "my_projector.py"
        assert (saved / "projectors.py").read_text().count("from .my_projector import") == 1
        PROJECTOR_CLASSES.pop("mine", None)
        assert ASRModel.from_pretrained(saved).transcribe(clip, max_new_tokens=4) == expected


def test_code_of_a_hub_checkpoint_does_not_run_unasked(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("raise AssertionError('this ran')")
    config = ASRConfig(encoder_dim=8, llm_dim=8, projector_type="mine", projector_file="someone/model/mine.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match="known: mlp, .*someone/model/mine.py is no file here.*from the Hub: .*trust_remote_code"
    ):
        build_projector(config)


@pytest.mark.parametrize("name", ["config.py", "my-projector.py", "my_projector.txt"])
def test_a_file_that_could_not_lie_in_a_checkpoint_is_refused(name, tmp_path):
    (tmp_path / name).write_text("raise AssertionError('this ran')")
    with pytest.raises(ValueError, match="cannot lie beside .* like my_projector.py"):
        build_projector(ASRConfig(encoder_dim=8, llm_dim=8, projector_type="mine", projector_file=str(tmp_path / name)))


def test_a_class_without_a_file_of_its_own_is_warned_of(tiny_parts, tmp_path, caplog, monkeypatch):
    import __main__

    kind = type("Mine", (PROJECTOR_CLASSES["mlp"],), {"__module__": "__main__"})
    monkeypatch.setattr(__main__, "Mine", kind, raising=False)
    monkeypatch.setitem(PROJECTOR_CLASSES, "mine", kind)
    ASRModel.from_parts(parts_config(tiny_parts, "mlp-norm", projector_type="mine")).save_pretrained(tmp_path)
    assert "Mine is not saved: put it into a file of its own" in caplog.text


def test_granite_weights_load_as_documented(tmp_path):
    from safetensors.torch import save_file

    theirs, ours = granite_projector(), make("qformer", qformer_intermediate_size=64)
    others = {"model.encoder.weight": torch.zeros(2)}
    file = tmp_path / "model.safetensors"
    save_file({**{f"model.projector.{name}": tensor for name, tensor in theirs.state_dict().items()}, **others}, file)
    exec(documented(r"```python\n(.*?)```"), {"file": file, "projector": ours})  # noqa: S102
    x = torch.randn(1, 33, 32)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)
