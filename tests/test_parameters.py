"""Parameters of the experiments: the shipped sizes give the known totals, and docs/parameters.md is what the code says."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from tiny_audio import ASRModel, embedded
from tiny_audio.assets import dimensions
from tiny_audio.cli.main import run
from tiny_audio.debug.parameters import millions, model_size, model_sizes
from tiny_audio.training import compose
from tiny_audio.training.build import build_model
from tiny_audio.training.config import config_folders, members

DOCS = Path(__file__).parents[1] / "docs" / "parameters.md"
FILES = sorted((embedded("nano").parent / "dimensions").glob("*.json"))
# of HuBERT and GLM-ASR the encoder alone
TOTALS = {
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "HuggingFaceTB/SmolLM3-3B-Base": 3_075_098_624,
    "facebook/hubert-large-ls960-ft": 315_438_720,
    "facebook/hubert-xlarge-ls960-ft": 962_497_408,
    "zai-org/GLM-ASR-Nano-2512": 635_048_960,
}


@pytest.mark.parametrize("name", TOTALS)
def test_shipped_sizes_give_the_known_totals(name):
    config = AutoConfig.for_model(**dimensions(name))
    model_class = AutoModelForCausalLM if config.model_type in ("qwen3", "smollm3") else AutoModel
    with torch.device("meta"):
        model = model_class.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == TOTALS[name]


def test_every_file_names_its_source():
    assert {file.stem.replace("--", "/") for file in FILES} == set(TOTALS)
    for file in FILES:
        source = json.loads(file.read_text())["source"]
        assert source.startswith(f"https://huggingface.co/{file.stem.replace('--', '/')}/blob/main/config.json")
        assert "source" not in dimensions(file.stem.replace("--", "/"))
    assert dimensions("owner/unknown") is None


def test_the_docs_hold_the_table(capsys):
    assert run(["debug", "parameters", "--markdown"]) == 0
    table = capsys.readouterr().out
    assert table in DOCS.read_text(encoding="utf-8"), "run: ta debug parameters --markdown"
    assert set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE)) - {"experiment"} == set(
        members("experiments", config_folders())
    )


def test_the_sizes_are_those_of_the_real_model(nano, tmp_path):
    (size,) = model_sizes(["quickstart"])
    model = ASRModel.from_pretrained(nano)
    parts = (model.encoder, model.projector, model.language_model)
    assert size.parts == tuple(sum(parameter.numel() for parameter in part.parameters()) for part in parts)
    assert size.trained == size.parts[1] and size.lora == 0
    assert size.checkpoint_bytes == 4 * size.trained
    model.ctc_head = None  # which the experiment has not
    model.save_pretrained(tmp_path, self_contained=False)
    assert 0 < (tmp_path / "model.safetensors").stat().st_size - size.checkpoint_bytes < 2000  # its header


def test_an_experiment_with_a_ctc_head(tmp_path, capsys):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "times.yaml").write_text("# @package _global_\nmodel:\n  ctc_head: true\n")
    assert run(["debug", "parameters", "times", "--config-dir", str(tmp_path)]) == 0
    assert "0.50 M" in capsys.readouterr().out  # 492,224 and 29 · 193 of the head


def test_known_projectors_and_a_trained_language_model():
    default, first, whole = model_sizes(["transcription", "hubert_smollm3", "embedded"])
    assert (millions(default.trained), millions(first.trained)) == ("12.6 M", "14.7 M")
    assert whole.trained == TOTALS["Qwen/Qwen3-0.6B"] + default.trained
    assert default.checkpoint_bytes == 50_343_936  # 48 MiB


def test_lora_is_counted_beside_the_parts():
    (size,) = model_sizes(["course"])
    assert size.parts[::2] == (TOTALS["facebook/hubert-xlarge-ls960-ft"], TOTALS["Qwen/Qwen3-8B"])
    on_encoder, on_decoder = 48 * 2 * 16 * (1280 + 1280), 36 * 8 * (4096 + 4096 + 4096 + 1024)  # q_proj and v_proj
    assert size.lora == on_encoder + on_decoder
    assert size.trained == size.parts[1] + size.lora and millions(size.trained) == "146.2 M"


def test_the_bytes_are_those_of_the_files_that_training_writes(tmp_path):
    """Of a stage that trains LoRA alone, the projector lies there as well, as exact as it was."""
    overrides = ["model.use_lora=true", "model.freeze_projector=true", "model.model_dtype=bfloat16"]
    settings = compose("quickstart", overrides).model
    build_model(settings).save_pretrained(tmp_path, self_contained=False)
    tensors = [tensor for file in tmp_path.rglob("*.safetensors") for tensor in load_file(file).values()]
    assert model_size("", settings).checkpoint_bytes == sum(tensor.nbytes for tensor in tensors)


def test_a_table_and_an_unknown_experiment(capsys):
    assert run(["debug", "parameters", "swiglu"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["experiment", "encoder"] and "swiglu, 28.3 M" in row
    assert run(["debug", "parameters", "swigl"]) == 1
    assert "Did you mean swiglu?" in capsys.readouterr().err


def test_millions():
    assert [millions(count) for count in (0, 492_224, 12_585_984, 8_190_735_360)] == [
        "–",
        "0.49 M",
        "12.6 M",
        "8,190.7 M",
    ]
