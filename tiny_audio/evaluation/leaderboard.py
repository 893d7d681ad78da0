"""The forms in which others read a result: the Open ASR Leaderboard's JSONL manifest and the Hub's `.eval_results`."""

import json
from collections.abc import Sequence
from typing import Any

from tiny_audio.evaluation.results import ClipResult, Metrics, write_atomically
from tiny_audio.model_source import is_hub_id

FOLDER = "leaderboard"
LONGEST_PART = 70  # characters of a file name's model, dataset or configuration


def write_leaderboard_files(metrics: Metrics, results: Sequence[ClipResult]) -> None:
    """Write `leaderboard/MODEL_….jsonl` into the results folder, and for a dataset of the Hub `.eval_results/….yaml`."""
    manifest = metrics.folder / FOLDER / manifest_name(metrics)
    manifest.parent.mkdir(exist_ok=True)
    lines = (json.dumps(manifest_line(result), ensure_ascii=False) for result in results if not result.failed)
    write_atomically(manifest, "".join(f"{line}\n" for line in lines))
    entry = eval_result(metrics)
    if entry is not None:
        import yaml

        file = metrics.folder / eval_results_name(metrics)
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, yaml.safe_dump([entry], sort_keys=False, allow_unicode=True))


def manifest_name(metrics: Metrics) -> str:
    """The name from which the leaderboard's scorer reads model, dataset and split."""
    dataset = metrics.dataset["path"] if is_on_hub(metrics) else metrics.dataset_name
    parts = [metrics.model, dataset, metrics.dataset["config"] or "default"]
    model, path, config = (part.strip("/").replace("/", "-")[-LONGEST_PART:] for part in parts)
    return f"MODEL_{model}_DATASET_{path}_{config}_{metrics.dataset['split']}.jsonl"


def manifest_line(result: ClipResult) -> dict[str, Any]:
    """A clip as the leaderboard's scorer wants it: raw texts, which it normalises itself."""
    return {
        "audio_filepath": result.id,
        "duration": result.duration,
        "time": result.seconds,
        "text": result.reference,
        "pred_text": result.prediction,
    }


def eval_results_name(metrics: Metrics) -> str:
    """The file of a model's repository that holds this result."""
    return f".eval_results/{metrics.dataset_name.replace('/', '-')}.yaml"


def eval_result(metrics: Metrics) -> dict[str, Any] | None:
    """One entry of the Hub's `.eval_results` (hub-docs, eval_results.yaml); None for a dataset that is not on the Hub."""
    if not is_on_hub(metrics):
        return None
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    task = "_".join(filter(None, (metrics.dataset["config"], metrics.dataset["split"])))
    entry = EvalResultEntry(
        dataset_id=metrics.dataset["path"],
        task_id=task,
        value=round(100 * metrics.wer, 4),
        dataset_revision=metrics.dataset["revision"],
        date=metrics.date,
        notes=notes(metrics),
    )
    return eval_result_entries_to_yaml([entry])[0]


def is_on_hub(metrics: Metrics) -> bool:
    """Whether the dataset is one of the Hub's."""
    return is_hub_id(metrics.dataset["path"])


def notes(metrics: Metrics) -> str:
    """How the figure was made, in a line."""
    normalizer = f"{metrics.normalizer['name']} ({metrics.normalizer['version']})"
    sample = f" of a sample of {metrics.dataset['max_samples']}" if metrics.dataset["max_samples"] else ""
    low, high = metrics.wer_interval
    return (
        f"WER in %, {normalizer}, {metrics.num_samples} clips{sample}, {metrics.num_failed} failed, "
        f"95 % interval {100 * low:.2f} to {100 * high:.2f}, tiny-audio {metrics.versions.get('tiny-audio', '')}".strip()
    )
