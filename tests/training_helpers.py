"""Short training runs for the tests: overrides of three steps, and what a run's folder holds."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

BASE = (
    "data.max_train_samples=12",
    "data.max_eval_samples=3",
    "training.batch_seconds=8",
    "training.max_steps=3",
    "training.warmup_steps=1",
    "training.logging_steps=1",
    "training.eval_steps=null",
    "training.save_steps=null",
    "training.report_to=none",
)


def log_of(folder: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "best" / "model.safetensors")
