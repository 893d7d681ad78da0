"""LoRA on language model and encoder: PEFT's own result, checkpoints that PEFT loads, every stage, quantised, and merged."""

import json
import math
import shutil
import sys
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tiny_audio import ASRConfig, ASRModel, embedded, load_audio
from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.export.merge import merge_checkpoint
from tiny_audio.model.encoders import load_encoder
from tiny_audio.model.lora import adapted_parts, adapter_tensors
from tiny_audio.training import compose, train
from tiny_audio.training.build import (
    build_model,
    hold_trained_in_float32,
    new_adapters,
    outline,
    part_sizes,
    quantization_config,
)

CLIP = load_audio(next((embedded("quickstart").parent / "clips").glob("send*.ogg")))
SHORT = ["data.max_train_samples=24", "data.max_eval_samples=4", "training.batch_seconds=12", "training.report_to=none"]


def settings(*overrides: str, experiment: str = "quickstart"):
    return compose(experiment, ["model.pretrained=nano", *SHORT, *overrides])


@pytest.fixture(scope="module")
def adapted(nano, tmp_path_factory) -> Path:
    """nano with LoRA of random weights on both parts, so that it changes what the model says."""
    model = build_model(settings("model.use_lora=true", "model.encoder_lora_rank=4").model)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for part in adapted_parts(model).values():
            for tensor in adapter_tensors(part).values():
                tensor.normal_(0, 0.1)
    folder = tmp_path_factory.mktemp("lora") / "checkpoint"
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model: ASRModel) -> torch.Tensor:
    return model.eval()(**model.processor(CLIP)).logits


def lora_of(folder: Path) -> dict[str, torch.Tensor]:
    files = folder.glob("*adapter/adapter_model.safetensors")
    return {f"{file.parent.name}:{name}": tensor for file in files for name, tensor in load_file(file).items()}


# ---- one checkpoint


def test_new_lora_changes_nothing(nano):
    model = build_model(settings("model.use_lora=true", "model.encoder_lora_rank=4").model)
    assert sorted(adapted_parts(model)) == ["adapter", "encoder_adapter"]
    assert torch.equal(logits(model), logits(ASRModel.from_pretrained(nano, dtype="float32")))


def test_the_forward_pass_is_pefts(adapted):
    """PEFT puts both folders onto the plain parts by itself."""
    model = ASRModel.from_pretrained(adapted)
    plain = AutoModelForCausalLM.from_pretrained(adapted / "decoder", dtype=model.language_model.dtype)
    by_peft = peft.PeftModel.from_pretrained(plain, adapted / "adapter").eval()
    ids = torch.randint(10, 300, (2, 9))
    features, lengths = torch.randn(1, 128, 400), torch.tensor([400])
    with torch.no_grad():
        assert (by_peft(ids).logits - model.language_model(ids).logits).abs().max() < 1e-5
        ours = model.encoder(features, lengths)[0]
        encoder = load_encoder(str(adapted / "encoder"), "masked", dtype=model.encoder.encoder.dtype)
        without = encoder(features, lengths)[0]
        peft.PeftModel.from_pretrained(encoder.encoder, adapted / "encoder_adapter").eval()  # in place
        assert (encoder(features, lengths)[0] - ours).abs().max() < 1e-5 < (without - ours).abs().max()


def test_what_the_folder_holds(adapted, nano):
    assert not (adapted / "adapter_config.json").exists()  # transformers would inject it by itself, wrongly
    for name in ("adapter", "encoder_adapter"):
        assert {file.name for file in (adapted / name).iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }
    assert {name.split(".")[0] for name in load_file(adapted / "model.safetensors")} == {"projector", "ctc_head"}
    config = json.loads((adapted / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (8, 16, "CAUSAL_LM")
    assert torch.equal(logits(ASRModel.from_pretrained(adapted)), logits(ASRModel.from_pretrained(adapted)))


def test_a_published_checkpoint_has_it_in_the_root(adapted, tmp_path):
    folder, model = tmp_path / "published", ASRModel.from_pretrained(adapted)
    model.config.update({"audio_model_id": str(adapted / "encoder"), "text_model_id": str(adapted / "decoder")})
    model.save_pretrained(folder, self_contained=False)
    for file in (folder / "adapter").iterdir():
        shutil.move(file, folder / file.name)
    assert torch.equal(logits(ASRModel.from_pretrained(folder)), logits(ASRModel.from_pretrained(adapted)))


def test_its_own_settings_are_those_of_adapter_config(adapted, tmp_path):
    folder = shutil.copytree(adapted, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "lora_rank": 64, "lora_alpha": 1}))
    assert torch.equal(logits(ASRModel.from_pretrained(folder)), logits(ASRModel.from_pretrained(adapted)))


def test_a_checkpoint_without_its_lora_is_one_line(adapted, tmp_path, capsys):
    folder = shutil.copytree(adapted, tmp_path / "broken")
    tensors = load_file(folder / "adapter/adapter_model.safetensors")
    name = next(iter(tensors))
    save_file(
        {key: value for key, value in tensors.items() if key != name}, folder / "adapter/adapter_model.safetensors"
    )
    with pytest.raises(ValueError, match="missing base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"):
        ASRModel.from_pretrained(folder)
    shutil.rmtree(folder / "adapter")
    assert run(["transcribe", "-m", str(folder), str(embedded("quickstart").parent / "clips")]) == 1
    assert "has no adapter/adapter_config.json" in capsys.readouterr().err


def test_each_part_has_its_own_rank_alpha_and_layers():
    own = {"encoder_lora_rank": 4, "encoder_lora_alpha": 5, "encoder_lora_target_modules": ["k_proj"]}
    config = ASRConfig(audio_model_id="an/encoder", text_model_id="a/decoder", use_lora=True, lora_rank=2,
                       lora_alpha=3, lora_target_modules=["o_proj"], **own)  # fmt: skip
    made = new_adapters(config).values()
    assert [(one.r, one.lora_alpha, one.target_modules, one.base_model_name_or_path) for one in made] == [
        (2, 3, {"o_proj"}, "a/decoder"), (4, 5, {"k_proj"}, "an/encoder"),
    ]  # fmt: skip


def test_layers_that_are_not_there_are_named():
    with pytest.raises(TinyAudioError, match="no layer for LoRA of the name query; its linear layers are .*q_proj"):
        build_model(settings("model.use_lora=true", "model.lora_target_modules=[query]").model)


def test_all_linear_layers_by_name(nano):
    names = "[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]"
    wanted = settings("model.use_lora=true", f"model.lora_target_modules={names}").model
    few, many = (part_sizes(outline(one))[2] for one in (settings("model.use_lora=true").model, wanted))
    assert 0 < few.trainable < many.trainable and few.total - few.trainable == many.total - many.trainable
    assert part_sizes(build_model(wanted))[2] == many


def test_dropout_is_in_training_only(nano):
    model = build_model(settings("model.use_lora=true", "model.lora_dropout=0.5").model)
    for tensor in adapter_tensors(model.language_model).values():
        tensor.normal_(0, 0.5)
    batch = model.processor(CLIP, text="send a message")
    with torch.no_grad():
        assert model.train()(**batch).loss != model.train()(**batch).loss
        assert model.eval()(**batch).loss == model.eval()(**batch).loss
        model.config.freeze_lora = True
        assert model.train()(**batch).loss == model.train()(**batch).loss


def test_lora_on_the_encoder_alone_is_trained():
    sizes = part_sizes(build_model(settings("model.encoder_lora_rank=4").model))
    assert sizes[0].trainable > 0 == sizes[2].trainable


def test_lora_that_is_frozen_is_held_in_float32_too(adapted):
    """A stage that goes on from one that had frozen it does not round it."""
    model = ASRModel.from_pretrained(adapted, dtype="bfloat16")
    model.config.freeze_lora = True
    model.freeze()
    hold_trained_in_float32(model)
    for part in adapted_parts(model).values():
        lora = {tensor.dtype for name, tensor in part.named_parameters() if ".lora_" in name}
        own = {tensor.dtype for name, tensor in part.named_parameters() if ".lora_" not in name}
        assert (lora, own) == ({torch.float32}, {torch.bfloat16})


def test_self_contained_writes_the_plain_weights(adapted, tmp_path):
    """Also where the parts were not loaded from a folder that could be copied."""
    model = ASRModel.from_pretrained(adapted)
    model.sources = ()
    model.save_pretrained(tmp_path / "whole", self_contained=True)
    assert not [
        name for name in load_file(tmp_path / "whole/decoder/model.safetensors") if "lora" in name or "base" in name
    ]
    assert torch.equal(logits(ASRModel.from_pretrained(tmp_path / "whole")), logits(model))


# ---- stages


def run_stage(folder: Path, *overrides: str, resume: str | None = None, experiment: str = "quickstart"):
    values = [*SHORT, f"output_dir={folder}", *overrides]
    return train(compose(experiment, values), resume=resume)


SECOND_STAGE = (
    "model.pretrained=nano", "model.freeze_projector=true", "model.use_lora=true", "model.encoder_lora_rank=2",
    "model.lora_dropout=0.1", "training.max_steps=4", "training.save_steps=2", "training.save_total_limit=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def second_stage(nano, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage2") / "run"
    run_stage(folder, *SECOND_STAGE)
    return folder


def test_the_second_stage_trains_lora_alone(second_stage, nano):
    stage, before = load_file(second_stage / "best/model.safetensors"), load_file(nano / "model.safetensors")
    assert all(torch.equal(stage[name], before[name].to(stage[name].dtype)) for name in before if name in stage)
    assert all(
        tensor.abs().max() > 0 for name, tensor in lora_of(second_stage / "checkpoint-4").items() if "lora_B" in name
    )


def test_a_resumed_run_ends_in_the_same_lora(second_stage):
    whole = lora_of(second_stage / "checkpoint-4")
    run_stage(second_stage, *SECOND_STAGE, resume=str(second_stage / "checkpoint-2"))
    again = lora_of(second_stage / "checkpoint-4")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_third_stage_trains_both(second_stage, tmp_path):
    before = f"model.pretrained={second_stage / 'best'}"
    run_stage(tmp_path / "run", before, "model.use_lora=true", "training.max_steps=2")
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        old, new = load_file(second_stage / "best" / name), load_file(tmp_path / "run/best" / name)
        assert old.keys() == new.keys() and any(not torch.equal(old[key], new[key]) for key in old), name


def test_a_later_stage_keeps_what_was_trained_as_exact_as_it_was(second_stage, tmp_path):
    """Frozen parts in bfloat16 do not round the projector and LoRA of the stage before."""
    stage = second_stage / "best"
    run_stage(tmp_path / "run", f"model.pretrained={stage}", "model.freeze_projector=true", "model.model_dtype=bfloat16",
              "model.use_lora=true", "training.learning_rate=0", "training.max_steps=1")  # fmt: skip
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        old, new = load_file(stage / name), load_file(tmp_path / "run/best" / name)
        assert all(torch.equal(old[key], new[key]) for key in old), name


def test_lora_that_is_not_asked_for_is_kept_as_it_is(second_stage, tmp_path):
    run_stage(tmp_path / "run", f"model.pretrained={second_stage / 'best'}", "training.max_steps=2")
    old, new = lora_of(second_stage / "best"), lora_of(tmp_path / "run/best")
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_a_fine_tuned_language_model_is_kept_when_it_is_frozen_later(nano, tmp_path):
    run_stage(tmp_path / "one", "model.pretrained=nano", "model.freeze_language_model=false", "training.max_steps=2")
    run_stage(tmp_path / "two", f"model.pretrained={tmp_path / 'one/best'}", "model.use_lora=true",
              "training.max_steps=2")  # fmt: skip
    old, new = (load_file(tmp_path / run / "best/model.safetensors") for run in ("one", "two"))
    kept = [name for name in old if name.startswith("language_model.")]
    assert old.keys() == new.keys() and kept and all(torch.equal(old[name], new[name]) for name in kept)
    model = ASRModel.from_pretrained(tmp_path / "two/best")
    assert torch.equal(
        model.language_model.get_input_embeddings().weight, old["language_model.model.embed_tokens.weight"]
    )


def test_each_part_has_its_own_rate_and_decay(tmp_path):
    run_stage(
        tmp_path / "run", "model.pretrained=nano", "model.use_lora=true", "model.encoder_lora_rank=2",
        "training.max_steps=1", "training.learning_rate=1e-3", "training.weight_decay=0",
        "training.language_model_learning_rate=2e-4", "training.language_model_weight_decay=0.5",
        "training.encoder_learning_rate=3e-5",
    )  # fmt: skip
    groups = torch.load(tmp_path / "run/checkpoint-1/optimizer.pt", weights_only=True)["param_groups"]
    found = {(group["initial_lr"], group["weight_decay"]) for group in groups}
    assert found == {(1e-3, 0.0), (2e-4, 0.5), (3e-5, 0.0)}


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_lora_on_a_quantised_language_model(bits, tmp_path):
    """QLoRA: the checkpoint is that of LoRA, and loads without quantisation."""
    overrides = ("model.pretrained=nano", f"model.quantization={bits}", "model.use_lora=true", "training.max_steps=3",
                 "training.logging_steps=1", "training.learning_rate=1e-3")  # fmt: skip
    run_stage(tmp_path / "run", *overrides)
    losses = [json.loads(line).get("loss") for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert all(math.isfinite(loss) for loss in losses if loss is not None)
    assert any(tensor.abs().max() > 0 for name, tensor in lora_of(tmp_path / "run/best").items() if "lora_B" in name)
    model = ASRModel.from_pretrained(tmp_path / "run/best")
    assert {type(module).__name__ for module in model.language_model.modules()}.isdisjoint(
        {"Linear4bit", "Linear8bitLt"}
    )


def test_four_bits_are_qloras():
    """NF4 with quantised constants, computed in the frozen parts' own precision (arXiv 2305.14314)."""
    held = quantization_config(settings("model.quantization=4bit", "model.model_dtype=bfloat16").model)
    assert held.load_in_4bit and held.bnb_4bit_use_double_quant
    assert (held.bnb_4bit_quant_type, held.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)
    assert quantization_config(settings("model.quantization=8bit").model).load_in_8bit


@pytest.mark.parametrize("asked", ["model.use_lora=true", "model.quantization=4bit"])
def test_not_on_a_language_model_that_is_trained_itself(asked):
    with pytest.raises(TinyAudioError, match=f"{asked.split('=')[0]} needs the language model's own weights frozen"):
        settings(asked, "model.freeze_language_model=false")


# ---- merged


def test_merged_weights_say_the_same_without_peft(adapted, tmp_path, monkeypatch):
    merged = tmp_path / "merged"
    assert run(["export", "merge", str(adapted), str(merged)]) == 0
    assert not [*merged.glob("**/adapter*")] and not json.loads((merged / "config.json").read_text())["use_lora"]
    expected, text = (
        logits(ASRModel.from_pretrained(adapted, dtype="float32")),
        ASRModel.from_pretrained(adapted).transcribe(CLIP),
    )
    monkeypatch.setitem(sys.modules, "peft", None)  # importing it now fails
    assert (logits(ASRModel.from_pretrained(merged, dtype="float32")) - expected).abs().max() < 1e-3
    assert ASRModel.from_pretrained(merged).transcribe(CLIP) == text
    with pytest.raises(ValueError, match="pip install peft"):
        ASRModel.from_pretrained(adapted)


def test_nothing_to_merge_and_nothing_overwritten(adapted, tmp_path, capsys):
    assert run(["export", "merge", "nano", str(tmp_path / "new")]) == 1
    assert "has no LoRA adapters" in capsys.readouterr().err
    (tmp_path / "file").write_text("work")
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(TinyAudioError, match="is there already"):
            merge_checkpoint(str(adapted), taken)
    assert (tmp_path / "file").read_text() == "work" and not (tmp_path / "new").exists()


def test_a_merge_is_made_in_float32_and_holds_a_fine_tuned_language_model(nano, tmp_path):
    """The checkpoint's own precision is bfloat16, in which the sum of weight and LoRA would be rounded twice."""
    run_stage(tmp_path / "one", "model.pretrained=nano", "model.freeze_language_model=false", "training.max_steps=2")
    run_stage(tmp_path / "two", f"model.pretrained={tmp_path / 'one'}", "model.use_lora=true", "training.max_steps=2",
              "training.learning_rate=1e-2", "model.encoder_lora_rank=2")  # fmt: skip
    config = tmp_path / "two/best/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_dtype": "bfloat16"}))
    wanted = ASRModel.from_pretrained(tmp_path / "two/best", dtype="float32").language_model.model.layers[0].self_attn
    exact = wanted.q_proj.get_base_layer().weight + wanted.q_proj.get_delta_weight("default")
    merged = ASRModel.from_pretrained(merge_checkpoint(str(tmp_path / "two"), tmp_path / "merged").folder)
    assert torch.equal(merged.language_model.model.layers[0].self_attn.q_proj.weight, exact.to(torch.bfloat16))
    assert not [name for name in load_file(tmp_path / "merged/model.safetensors") if name.startswith("language_model")]


# ---- what does not fit together


def test_a_tied_output_layer_has_no_lora():
    with pytest.raises(TinyAudioError, match="lm_head shares its weight with the token embedding"):
        build_model(settings("model.use_lora=true", "model.lora_target_modules=[lm_head]").model)


def test_a_fine_tuned_language_model_cannot_be_quantised(tmp_path):
    run_stage(tmp_path / "one", "model.pretrained=nano", "model.freeze_language_model=false", "training.max_steps=1")
    asked = settings(f"model.pretrained={tmp_path / 'one/best'}", "model.quantization=4bit").model
    for build in (build_model, outline):
        with pytest.raises(TinyAudioError, match="trained in full, which model.quantization cannot hold"):
            build(asked)


def test_lora_of_a_checkpoint_keeps_its_rank_and_says_so(second_stage, capsys):
    asked = settings(f"model.pretrained={second_stage}", "model.use_lora=true", "model.lora_rank=32")
    model = build_model(asked.model)  # the folder of a run means its best
    assert "LoRA stays as it was made: lora_rank 8" in capsys.readouterr().err
    assert model.language_model.peft_config["default"].r == 8


@pytest.mark.parametrize("asked", ["model.use_lora=true", "model.encoder_lora_rank=2"])
def test_either_lora_is_trained_without_the_other(asked, second_stage):
    model = build_model(settings(f"model.pretrained={second_stage}", "model.freeze_projector=true", asked).model)
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"language_model" if "use_lora" in asked else "encoder"}


@pytest.mark.parametrize(
    "wrong",
    ["lora_alpha=0", "encoder_lora_alpha=0", "lora_dropout=1.5", "lora_dropout=-1", "lora_rank=0", "quantization=3bit"],
)
def test_numbers_out_of_range_are_one_line(wrong):
    with pytest.raises(TinyAudioError, match=f"model.{wrong.split('=')[0]} is .*; expected"):
        settings(f"model.{wrong}")
