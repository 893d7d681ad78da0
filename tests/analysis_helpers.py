"""Results folders with texts of our choice: scored, summed up and written by the parts that `ta eval` uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_audio.analysis.runs import Run, open_run
from tiny_audio.evaluation.decoding import _scored
from tiny_audio.evaluation.results import ClipResult, Metrics, ResultsFolder
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.evaluation.summary import DATASET_KEYS, summarise
from tiny_audio.text.normalizers import get_normalizer

Text = tuple[str, str | None]  # reference and prediction; None: the clip failed


@dataclass(frozen=True)
class Finished:
    """A provider after its work: what `summarise` asks of one."""

    device: str = "cpu"
    decoding: Any = None


def clips_of(texts: Sequence[Text], normalizer: str = "basic", **fields: Sequence) -> list[ClipResult]:
    """A clip for each text, `clip-0000` and so on; `fields` holds a value for each clip."""
    clips = []
    for number, (reference, prediction) in enumerate(texts):
        own = {name: values[number] for name, values in fields.items()}
        clip = {"id": f"clip-{number:04d}", "duration": 2.0, "reference": reference, **own}
        if prediction is None:
            clips.append(ClipResult(**clip, error="ValueError: broken"))
        else:
            scored = _scored(reference, prediction, get_normalizer(normalizer))
            clips.append(ClipResult(**{**clip, "prediction": prediction, "seconds": 0.1, **scored}))
    return clips


def write_run(
    folder: Path,
    clips: Sequence[ClipResult],
    model: str = "nano",
    dataset: str = "digits",
    normalizer: str = "basic",
    date: str = "",
    **identity: Any,
) -> Metrics:
    """A finished evaluation's folder."""
    identity = {
        **dict.fromkeys(DATASET_KEYS), "split": "test", "model": model, "provider": "local", "normalizer": normalizer,
        "normalizer_version": get_normalizer(normalizer).version, **identity,
    }  # fmt: skip
    settings = EvalSettings(model=model, dataset=dataset, normalizer=normalizer)
    metrics = summarise(settings, identity, Finished(decoding={}), clips, {})  # type: ignore[arg-type]
    metrics.date = date or metrics.date
    with ResultsFolder(folder, identity) as results:
        results.append(clips)
        return results.finish(metrics, "")


def run_of(folder: Path, texts: Sequence[Text], fields: dict[str, Sequence] | None = None, **settings: Any) -> Run:
    """The run that these texts make."""
    write_run(folder, clips_of(texts, settings.get("normalizer", "basic"), **(fields or {})), **settings)
    return open_run(str(folder))
