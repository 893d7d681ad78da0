"""`ta debug`: gradients, weights, routing and LoRA as they are, what is wrong said in a line, tables and a PNG."""

import hashlib
import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny_audio import ASRConfig, ASRModel
from tiny_audio.cli.main import run
from tiny_audio.debug.gradients import ADAM_EPSILON, EXPLODED, Gradient, gradients_of, verdict
from tiny_audio.debug.lora import Adapter, Delta, base_norm, measure_lora, product_spectrum
from tiny_audio.debug.measures import effective_rank, likeness, singular_values
from tiny_audio.debug.report import FIGURES
from tiny_audio.debug.routing import measure_routing, routing_of
from tiny_audio.debug.subject import training_batches
from tiny_audio.debug.weights import weights_of
from tiny_audio.errors import TinyAudioError
from tiny_audio.model_source import checkpoint_of
from tiny_audio.training.build import add_lora
from tiny_audio.training.initialization import match_embedding_scale

PNG = b"\x89PNG"


@pytest.fixture
def model(tiny_checkpoint) -> ASRModel:
    """A random miniature as training begins with it; a test may spoil its parts."""
    model = ASRModel.from_pretrained(tiny_checkpoint)
    match_embedding_scale(model)
    return model


def few_clips(model: ASRModel, count: int) -> list[dict]:
    """Training batches of the shipped corpus, cut down to three clips."""
    found = list(training_batches(model, "quickstart", count))
    assert len(found) == count
    return [{name: tensor[:3] for name, tensor in batch.items()} for batch in found]


@pytest.fixture(scope="module")
def batches(tiny_checkpoint) -> list[dict]:
    return few_clips(ASRModel.from_pretrained(tiny_checkpoint), 2)


def joined(tiny_parts, kind: str, **settings) -> ASRModel:
    torch.manual_seed(0)
    paths = {"audio_model_id": f"{tiny_parts}/encoder", "text_model_id": f"{tiny_parts}/decoder"}
    return ASRModel.from_parts(ASRConfig(**paths, projector_type=kind, projector_hidden_dim=16, **settings))


def fingerprint(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


# ---- measures


def test_the_effective_rank_counts_directions():
    torch.manual_seed(0)
    assert effective_rank(singular_values(torch.eye(7))) == pytest.approx(7)
    assert effective_rank(singular_values(torch.outer(torch.randn(5), torch.randn(9)))) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.zeros(4)) == 0


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 2, 3)])
def test_singular_values_are_torchs(shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    torch.testing.assert_close(singular_values(x), torch.linalg.svdvals(x.flatten(1)))


def test_the_likeness_of_tokens_is_the_mean_cosine_of_pairs():
    torch.manual_seed(0)
    tokens = torch.randn(6, 4)
    cosines = [torch.cosine_similarity(a, b, dim=0) for i, a in enumerate(tokens) for b in tokens[i + 1 :]]
    assert likeness(tokens) == pytest.approx(float(torch.stack(cosines).mean()), abs=1e-6)
    assert likeness(torch.eye(5)) == pytest.approx(0, abs=1e-6)


# ---- gradients


def test_gradients_are_those_of_the_training(model, batches):
    report = gradients_of(model.train(), batches)
    for index, batch in enumerate(batches):
        loss = model(**batch).loss
        gradients = torch.autograd.grad(loss, list(model.projector.parameters()))
        assert report.losses[index] == pytest.approx(loss.item())
        norms = [gradient.norms[index] for gradient in report.gradients]
        torch.testing.assert_close(torch.tensor(norms), torch.stack([each.norm() for each in gradients]))
        assert report.part("projector").norms[index] == pytest.approx(math.hypot(*norms))
    assert [gradient.name for gradient in report.gradients] == [
        f"projector.{n}" for n, _ in model.projector.named_parameters()
    ]
    assert report.findings() == ["Nothing stands out: gradients of a usual size reach every trained tensor."]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_the_config_freezes_has_no_gradient(model, batches):
    model.config.freeze_projector, model.config.freeze_language_model = True, False
    model.freeze()
    report = gradients_of(model.train(), batches[:1])
    assert {gradient.name.split(".")[0] for gradient in report.gradients} == {"language_model"}
    rows = {row[0]: row[1:] for row in report.tables()[1].rows}
    assert rows["projector"][1:] == (None,) * 5 and rows["language_model"][1] is not None
    model.config.freeze_language_model = True
    model.freeze()
    with pytest.raises(TinyAudioError, match="freezes every part"):
        gradients_of(model, batches)


def spoiled(model: ASRModel, batches, spoil) -> list[str]:
    with torch.no_grad():
        spoil(model)
    return gradients_of(model.train(), batches[:1]).findings()


def test_a_gradient_that_goes_nowhere_is_named(model, batches):
    *_, sentence = spoiled(model, batches, lambda model: model.projector.norm_2.weight.zero_())
    assert sentence.startswith("3 of 4 trained tensors have gradients that vanish")
    assert sentence.endswith(": projector.linear_1.weight, projector.norm.weight, projector.linear_2.weight.")


def test_an_exploding_gradient_is_named(model, batches):
    (sentence,) = spoiled(model, batches, lambda model: model.projector.norm_2.weight.mul_(1e-6))
    assert sentence.startswith("The gradients of the projector have exploded: norm ")


def test_not_a_number_is_named(model, batches):
    def spoil(model):
        model.projector.norm.weight[0] = float("nan")

    assert spoiled(model, batches, spoil)[0].startswith("NaN or infinity in 4 tensors, first projector.linear_1.weight")


@pytest.mark.parametrize("norm, words", [(0.0, "Nothing reaches"), (1.0, None), (2 * EXPLODED, "have exploded")])
def test_verdicts(norm, words):
    said = verdict(Gradient("projector", 100, 1.0, norms=[norm]))
    assert said is None if words is None else words in said


def test_what_has_no_gradient_by_its_nature_is_not_blamed(tiny_parts):
    from peft import LoraConfig, inject_adapter_in_model

    model = joined(tiny_parts, "qformer", qformer_num_heads=4)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"]), model.language_model)
    found = gradients_of(model.train(), few_clips(model, 1))
    faint = [each.name for each in found.gradients if each.rms < ADAM_EPSILON]
    assert any(name.endswith(".key.bias") for name in faint) and any(".lora_A." in name for name in faint)
    assert found.findings() == ["Nothing stands out: gradients of a usual size reach every trained tensor."]


# ---- weights


def test_weights_by_part_and_tensor(model, batches):
    report = weights_of(model, batches[:1])
    everything = torch.cat([parameter.flatten() for parameter in model.language_model.parameters()])
    assert report.part("language_model").rms == pytest.approx(everything.pow(2).mean().sqrt().item(), rel=1e-4)
    assert report.part("language_model").largest == pytest.approx(everything.abs().max().item())
    by_name = {weight.name: weight for weight in report.weights}
    assert by_name["projector.norm.weight"].rank is None
    assert 16 < by_name["projector.linear_1.weight"].rank <= 32
    assert report.scale == pytest.approx(1, abs=0.01)  # as every new projector
    assert report.findings() == ["Nothing stands out: the projected audio is 1.00 × as large as the token embeddings."]


def test_what_is_wrong_with_weights_is_named(model, batches):
    with torch.no_grad():
        projector, language_model = model.projector, model.language_model
        projector.linear_1.weight.copy_(torch.outer(torch.ones(32), projector.linear_1.weight[0]))
        projector.norm_2.weight.mul_(20)
        language_model.model.layers[0].mlp.up_proj.weight.zero_()
        language_model.model.layers[1].mlp.up_proj.weight[0, 0] = float("inf")
    broken, zero, collapsed, scale = weights_of(model, batches[:1]).findings()
    assert broken == "language_model.model.layers.1.mlp.up_proj.weight holds 1 values that are NaN or infinite."
    assert zero == "language_model.model.layers.0.mlp.up_proj.weight is all zeros."
    assert collapsed == "projector.linear_1.weight has collapsed: effective rank 1.0 of 32."
    assert scale.startswith("The projected audio is 20 × as large")


def test_a_projector_that_hears_nothing_is_named(model, batches):
    last = model.projector.linear_2
    last.register_forward_hook(lambda module, inputs, output: output + 100)  # far from anything that depends on speech
    (sentence,) = weights_of(model, batches[:1]).findings()
    assert sentence.startswith(
        "The projector makes nearly the same of all speech: the mean cosine of two audio tokens is"
    )


# ---- routing


def test_moe_counts_each_token_once(tiny_parts, batches):
    model = joined(tiny_parts, "moe")
    report = routing_of(model, batches)
    lengths = torch.cat([model.processor.adapter.output_length(b["audio_attention_mask"].sum(-1)) for b in batches])
    assert len(report.gates) == int(model.projector.output_length(lengths).sum())
    torch.testing.assert_close(report.gates.sum(-1), torch.ones(len(report.gates)))
    assert ((report.gates > 0).sum(-1) == 2).all()
    assert 0 < report.entropy_per_token <= 1 < report.entropy_of_mean <= 2


def test_dead_experts_are_named(tiny_parts, batches):
    model = joined(tiny_parts, "moe")
    model.projector.router.weight.data.zero_()  # the best two are then always the same
    report = routing_of(model, batches)
    assert len(report.dead) == 2 and report.entropy_per_token == pytest.approx(1)
    assert report.findings()[0].startswith("2 of 4 experts are dead (less than 1 % of the gates):")
    assert [row[-1] for row in report.tables()[0].rows].count("dead") == 2


def test_mosa_uses_all(tiny_parts, batches):
    model = joined(tiny_parts, "mosa", num_experts=8)
    report = routing_of(model, batches)
    assert report.gates.shape[-1] == 8 and (report.gates > 0).all() and not report.dead
    for parameter in model.projector.router.parameters():
        parameter.data.zero_()
    report = routing_of(model, batches)
    assert report.entropy_of_mean == pytest.approx(3) and report.entropy_per_token == pytest.approx(3)
    assert report.findings() == ["The router tells no token from another: all of a token's experts get the same gate."]


def test_another_projector_is_one_line(tiny_checkpoint):
    with pytest.raises(TinyAudioError, match="is 'mlp', and `ta debug moe` reads the routing of 'moe'; expected"):
        measure_routing("moe", str(tiny_checkpoint))


# ---- LoRA


@pytest.fixture
def adapted(tiny_checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "adapted"))


def add_adapter(checkpoint: Path, part: str, folder: str, trained: bool = True, **options) -> None:
    """An adapter as PEFT itself writes it, and a config.json that says so."""
    from peft import LoraConfig, get_peft_model

    model = ASRModel.from_pretrained(checkpoint)
    target = model.encoder.encoder if part == "encoder" else model.language_model
    torch.manual_seed(0)
    adapted = get_peft_model(target, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], **options))
    for name, parameter in adapted.named_parameters():
        if trained and ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(checkpoint / folder)
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"encoder_lora_rank": 4} if part == "encoder" else {"use_lora": True, "lora_rank": 4}
    (checkpoint / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("folder", ["adapter", ""])  # ours, and published checkpoints
def test_lora_is_measured_as_it_acts(tiny_parts, tmp_path, folder):
    adapted = tmp_path / "adapted"
    joined(tiny_parts, "mlp").save_pretrained(adapted)
    layers = ASRModel.from_pretrained(adapted).language_model.model.layers
    add_adapter(adapted, "language_model", folder, alpha_pattern={"v_proj": 16})
    report = measure_lora(str(adapted))
    assert [delta.kind for delta in report.deltas] == ["language_model q_proj"] * 2 + ["language_model v_proj"] * 2
    tensors = load_file(adapted / folder / "adapter_model.safetensors")
    for delta, scale in zip(report.deltas, (2, 2, 4, 4), strict=True):
        a, b = (tensors[f"base_model.model.{delta.module}.lora_{name}.weight"] for name in "AB")
        change = scale * b @ a
        torch.testing.assert_close(delta.spectrum, torch.linalg.svdvals(change)[:4], atol=1e-5, rtol=1e-4)
        base = getattr(layers[delta.layer].self_attn, delta.module.rsplit(".", 1)[-1]).weight
        assert delta.relative == pytest.approx(float(change.norm() / base.norm()), rel=1e-4)
        assert 1 < delta.effective <= delta.rank == 4
    assert report.findings() == ["Nothing stands out: every module has learned, and uses its rank."]


def test_lora_is_measured_as_training_writes_it(tiny_parts, tmp_path):
    """The change that our own loaded layers make to a weight has the same norm."""
    model = joined(tiny_parts, "mlp", use_lora=True, lora_rank=2)
    add_lora(model)
    model.save_pretrained(tmp_path / "lora", self_contained=True)
    assert measure_lora(str(tmp_path / "lora")).findings()[0].startswith("language_model: B is still zero in all 4")
    model = ASRModel.from_pretrained(tmp_path / "lora")
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "lora")
    for delta in measure_lora(str(tmp_path / "lora")).deltas:
        layer = model.language_model.get_submodule(delta.module)
        assert delta.norm == pytest.approx(float(layer.get_delta_weight("default").norm()), rel=1e-4)
        assert delta.base_norm == pytest.approx(float(layer.base_layer.weight.norm()), rel=1e-4)


def test_the_scale_of_rslora_and_weights_of_the_same_name():
    assert Adapter("encoder", {"lora_alpha": 8}, {}).scale("q_proj", 4) == 2
    assert Adapter("encoder", {"lora_alpha": 8, "use_rslora": True}, {}).scale("q_proj", 4) == 4
    norms = {"encoder.layers.0.q_proj.weight": 1.0, "language_model.layers.0.q_proj.weight": 2.0}
    delta = Delta("language_model", "layers.0.q_proj", 4, torch.ones(4))
    assert base_norm(norms, delta) == 2


def test_a_folder_with_a_config_of_its_own_is_no_run(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "config.json").touch()
    assert checkpoint_of(str(tmp_path)) == str(tmp_path / "best")
    (tmp_path / "config.json").touch()
    assert checkpoint_of(str(tmp_path)) == str(tmp_path)


def test_lora_that_was_never_trained(adapted):
    add_adapter(adapted, "encoder", "encoder_adapter", trained=False)
    add_adapter(adapted, "language_model", "adapter", use_rslora=True)
    report = measure_lora(str(adapted))
    assert report.findings() == ["encoder: B is still zero in all 4 modules: LoRA was never trained."]
    a, b = (torch.randn(4, 32), torch.randn(16, 4))
    torch.testing.assert_close(product_spectrum(b, a), torch.linalg.svdvals(b @ a)[:4], atol=1e-4, rtol=1e-4)


def test_a_rank_that_is_not_used_is_named(adapted):
    add_adapter(adapted, "language_model", "adapter")
    file = adapted / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if ".lora_B." in name:
            tensor[:, 1:] *= 1e-6
    config = json.loads((adapted / "adapter" / "adapter_config.json").read_text())
    save_file(
        {name: torch.cat([tensor, 0 * tensor], int(".lora_B." in name)) for name, tensor in tensors.items()}, file
    )
    (adapted / "adapter" / "adapter_config.json").write_text(json.dumps({**config, "r": 8}))
    found = measure_lora(str(adapted)).findings()
    assert found[0] == "language_model q_proj uses 1.0 of its 8 directions: a smaller rank would do as much."


def test_lora_without_the_model_it_changes(adapted, capsys):
    add_adapter(adapted, "language_model", "adapter")
    shutil.rmtree(adapted / "decoder")
    report = measure_lora(str(adapted))
    assert all(delta.relative is None and delta.norm > 0 for delta in report.deltas)
    assert capsys.readouterr().err.startswith("Warning: ‖W‖ is unknown, since the model could not be loaded")


def test_no_lora_or_half_of_one_is_one_line(adapted):
    with pytest.raises(TinyAudioError, match="has no LoRA; expected adapter_config.json"):
        measure_lora(str(adapted))
    add_adapter(adapted, "language_model", "adapter")
    (adapted / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(OSError, match="has no adapter/adapter_model.safetensors"):
        measure_lora(str(adapted))


# ---- the command


@pytest.mark.parametrize("what", ["gradients", "weights"])
def test_tables_and_a_png_that_leave_the_checkpoint_as_it_was(what, tiny_checkpoint, tmp_path, capsys, monkeypatch):
    run_folder = tmp_path / "run"
    shutil.copytree(tiny_checkpoint, run_folder / "best")
    before = fingerprint(run_folder)
    monkeypatch.chdir(tmp_path)
    shown = []
    for output in ([], ["--output", "figures/one.png"]):
        assert run(["debug", what, "run", "-n", "1", "--device", "cpu", *output]) == 0
        printed = capsys.readouterr()
        shown.append(printed.out)
        assert printed.err.splitlines()[-1] == f"Figure: {output[1] if output else FIGURES / f'{what}-run.png'}"
    assert shown[0] == shown[1] and "projector.linear_1.weight" in shown[0]
    assert Path("figures/one.png").read_bytes()[:4] == (FIGURES / f"{what}-run.png").read_bytes()[:4] == PNG
    assert fingerprint(run_folder) == before


def test_a_checkpoint_of_nan_is_shown_all_the_same(adapted, tmp_path, capsys):
    tensors = load_file(adapted / "model.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, adapted / "model.safetensors")
    for what in ("gradients", "weights"):
        assert run(["debug", what, str(adapted), "-n", "1", "--output", str(tmp_path / f"{what}.png")]) == 0
    shown = capsys.readouterr().out
    assert "NaN or infinity in 4 tensors" in shown and "projector.norm.weight holds 32 values" in shown


def test_every_report_can_be_drawn(tiny_parts, tiny_checkpoint, adapted, tmp_path, capsys):
    for kind in ("moe", "mosa"):
        joined(tiny_parts, kind).save_pretrained(tmp_path / kind, self_contained=True)
        assert run(["debug", kind, str(tmp_path / kind), "-n", "1", "--output", str(tmp_path / f"{kind}.png")]) == 0
    add_adapter(adapted, "language_model", "adapter")
    assert run(["debug", "lora", str(adapted), "--output", str(tmp_path / "lora.png")]) == 0
    assert all((tmp_path / f"{what}.png").read_bytes()[:4] == PNG for what in ("moe", "mosa", "lora"))
    shown = capsys.readouterr().out
    assert "Entropy of the routing, in bits" in shown and "LoRA by kind of module" in shown


def test_without_matplotlib_the_tables_come_all_the_same(adapted, tmp_path, capsys, monkeypatch):
    add_adapter(adapted, "language_model", "adapter")
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)
    assert run(["debug", "lora", str(adapted)]) == 0
    printed = capsys.readouterr()
    assert "LoRA by module" in printed.out and "tiny-audio[debug]" in printed.err
    assert run(["debug", "lora", str(adapted), "--output", "lora.png"]) == 1
    printed = capsys.readouterr()
    assert "LoRA by module" in printed.out
    assert printed.err.splitlines()[-1].startswith("Error: This needs the package 'matplotlib', which is not installed")
    assert not list(tmp_path.glob("**/*.png"))


def test_a_model_that_does_not_exist_is_one_line(capsys):
    for what in ("gradients", "weights", "moe", "lora"):
        assert run(["debug", what, "./nothing"]) == 1
        assert capsys.readouterr().err.startswith("Error: The model ./nothing does not exist; expected")
    assert run(["debug", "lora", "owner/nothing"]) == 1
    assert "is neither a folder here nor readable on the Hugging Face Hub" in capsys.readouterr().err


def test_a_figure_is_never_written_over_another_kind_of_file(tmp_path, capsys):
    settings = tmp_path / "settings.yaml"
    settings.write_text("mine")
    assert run(["debug", "weights", "nano", "--output", str(settings)]) == 2
    assert "expected one that ends in .png" in " ".join(capsys.readouterr().err.split())
    assert settings.read_text() == "mine"
