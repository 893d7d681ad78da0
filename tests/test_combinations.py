"""Every encoder with every projector and decoder that the configs name, and every experiment: trained 20 steps, loaded, evaluated."""

import gc
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import wav_bytes, write_csv
from miniatures import DECODERS, ENCODERS, PROJECTORS, encoder_family, extractor_of, save_decoder_family
from peft import PeftModel
from safetensors.torch import load_file
from training_helpers import log_of, weights_of
from transformers import AutoModelForCausalLM

from tiny_audio import ASRModel
from tiny_audio.data import DataConfig, open_corpus
from tiny_audio.evaluation.run import evaluate
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.export.merge import merge_checkpoint
from tiny_audio.training import Settings, compose, train
from tiny_audio.training.config import config_folders, members
from tiny_audio.training.schema import to_settings

pytestmark = pytest.mark.usefixtures("one_thread", "frozen_heap")

# what the configs name, and the miniature of the same class
ENCODER_OF = {
    "zai-org/GLM-ASR-Nano-2512": "glmasr",
    "facebook/hubert-large-ls960-ft": "hubert",
    "facebook/hubert-xlarge-ls960-ft": "hubert-xlarge",
    "nano/encoder": "glmasr",
}
DECODER_OF = {
    "Qwen/Qwen3-0.6B": "qwen3",
    "Qwen/Qwen3-1.7B": "qwen3",
    "Qwen/Qwen3-8B": "qwen3-8b",
    "HuggingFaceTB/SmolLM3-3B-Base": "smollm3-base",
    "nano/decoder": "qwen3",
}
SMALL = {"projector_hidden_dim": 32, "qformer_hidden_size": 16, "qformer_num_heads": 2, "qformer_intermediate_size": 32}
SHORT = {
    "max_steps": 20, "learning_rate": 1e-2, "warmup_steps": 0, "logging_steps": 1, "batch_seconds": 100,
    "eval_steps": None, "save_steps": None, "num_workers": 0, "report_to": "none",
}  # fmt: skip
STAGES = {"1": "transcription", "2": "mlp_lora"}  # the experiments whose checkpoints the later ones begin with
FOLDERS = config_folders()


def yaml_of(experiment: str) -> str:
    return (FOLDERS[-1] / "experiments" / f"{experiment}.yaml").read_text()


def written(checkpoint: Path, seconds: float = 1.0) -> list[int]:
    """The tokens that a checkpoint writes for a noise."""
    model = ASRModel.from_pretrained(checkpoint, dtype="float32")
    noise = np.random.default_rng(0).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    return model.generate(**model.processor(noise), max_new_tokens=8)[0].tolist()


@pytest.fixture(scope="module")
def frozen_heap():
    """The Trainer collects garbage in every run: a third of the time here, were all that is imported looked through."""
    import tiny_audio.training.run  # noqa: F401

    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Four spoken digits of people, or, without ../shared, four shipped clips; each in every split."""
    digits = Path(__file__).resolve().parents[2] / "shared" / "speech" / "spoken-digits"
    corpus = open_corpus(DataConfig(path=str(digits) if digits.is_dir() else "quickstart"), "train", max_samples=4)
    folder = tmp_path_factory.mktemp("clips")
    for split in ("train", "validation", "test"):
        (folder / split).mkdir()
        rows = []
        for index in range(len(corpus)):
            clip = corpus.load(index)
            (folder / split / f"{index}.wav").write_bytes(wav_bytes(clip.waveform))
            rows.append({"file_name": f"{index}.wav", "text": clip.text, "duration": round(clip.duration, 3)})
        write_csv(folder / split / "metadata.csv", rows)
    return folder


@pytest.fixture(scope="module")
def part(tiny_parts, tmp_path_factory):
    """`part(name)` → the folder of an encoder's or a decoder's miniature."""

    @cache
    def make(name: str) -> str:
        folder = tmp_path_factory.mktemp(name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            if name in ENCODERS:
                encoder_family(name).save_pretrained(folder)
                extractor_of(name).save_pretrained(folder)
            else:
                save_decoder_family(DECODERS[name], tiny_parts / "decoder", folder)
        return str(folder)

    return make


def loss_falls(folder: Path) -> None:
    losses = log_of(folder, "loss")
    assert len(losses) == SHORT["max_steps"] and max(losses[-3:]) < losses[0]


def loads_as_it_was_saved(folder: Path) -> None:
    tensors, loaded = weights_of(folder), ASRModel.from_pretrained(folder / "best", dtype="float32").state_dict()
    assert tensors and all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("decoder", ["qwen3", "qwen3-8b", "smollm3-base"])
@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("encoder", ["glmasr", "hubert", "hubert-xlarge"])
def test_every_combination_trains_loads_and_is_evaluated(encoder, projector, decoder, part, clips, tmp_path):
    ids = {"audio_model_id": part(encoder), "text_model_id": part(decoder)}
    model = {**SMALL, **PROJECTORS[projector], **ids}
    train(to_settings({"output_dir": str(tmp_path), "model": model, "data": {"path": str(clips)}, "training": SHORT}))
    loss_falls(tmp_path)
    loads_as_it_was_saved(tmp_path)
    measured = evaluate(
        EvalSettings(
            str(tmp_path / "best"), str(clips), max_samples=2, max_new_tokens=4, normalizer="basic",
            output_dir=tmp_path / "eval",
        )
    )  # fmt: skip
    assert (measured.num_samples, measured.num_failed) == (2, 0)


@pytest.fixture(scope="module")
def trained(part, clips, tmp_path_factory):
    """`trained(experiment)` → Settings and folder of its miniature's run, and the checkpoint that it went on from."""

    def miniature(names: dict[str, str], wanted: str) -> str:
        (name,) = (name for full, name in names.items() if wanted.endswith(full))
        return part(name)

    @cache
    def run(experiment: str) -> tuple[Settings, Path, Path | None]:
        stage = re.search(r"model\.pretrained=outputs/STAGE_(\d)/best", yaml_of(experiment))
        start = run(STAGES[stage[1]])[1] / "best" if stage else None
        values = {f"training.{key}": "null" if value is None else value for key, value in SHORT.items()}
        values |= {f"model.{key}": value for key, value in SMALL.items()}
        values |= {"model.pretrained": start or "null"}
        folder = tmp_path_factory.mktemp(experiment) / "run"
        overrides = [f"{key}={value}" for key, value in values.items()]
        settings = compose(experiment, overrides, data=str(clips), output_dir=folder)
        settings.model.audio_model_id = miniature(ENCODER_OF, settings.model.audio_model_id)
        settings.model.text_model_id = miniature(DECODER_OF, settings.model.text_model_id)
        train(settings)
        return settings, folder, start

    return run


EXPERIMENTS = members("experiments", FOLDERS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_what_it_says(experiment, trained):
    settings, folder, start = trained(experiment)
    model, best = settings.model, folder / "best"
    loss_falls(folder)
    loads_as_it_was_saved(folder)
    assert {name.split(".")[0] for name in weights_of(folder)} == {
        "projector",
        *(() if model.freeze_language_model else ("language_model",)),
    }
    for adapter, asked in (("adapter", model.use_lora), ("encoder_adapter", model.encoder_lora_rank)):
        assert (best / adapter).is_dir() == bool(asked)
        for tensors in map(load_file, (best / adapter).glob("*.safetensors")):
            assert any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)  # they start at zero
    if start is not None:
        before, after = load_file(start / "model.safetensors"), weights_of(folder)
        same = all(torch.equal(after[name], before[name]) for name in before)
        assert same == model.freeze_projector


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_goes_on_where_it_stopped(experiment, trained, tmp_path):
    settings, folder, _ = trained(experiment)
    run = shutil.copytree(folder, tmp_path / "run")
    longer = replace(settings, output_dir=str(run), training=replace(settings.training, max_steps=22))
    train(longer, resume=str(run))
    assert log_of(run, "loss")[:20] == log_of(folder, "loss") and len(log_of(run, "loss")) == 22


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if "use_lora: true" in yaml_of(name)])
def test_every_experiment_with_lora_merges_and_loads_in_peft(experiment, trained, tmp_path):
    _, folder, _ = trained(experiment)
    merged = merge_checkpoint(str(folder / "best"), tmp_path / "merged").folder
    assert written(merged) == written(folder / "best")
    model = ASRModel.from_pretrained(folder / "best", dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained(model.config.text_model_id, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(plain, folder / "best" / "adapter")
    ids = torch.arange(5, 15)[None]
    torch.testing.assert_close(tuned(ids).logits, model.language_model(ids).logits)
