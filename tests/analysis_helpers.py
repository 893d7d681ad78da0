"""Results folders with texts of our choice: scored, summed up and written by the parts that `ta eval` uses."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_audio.analysis.alignment import align
from tiny_audio.analysis.runs import Run, open_run
from tiny_audio.evaluation.decoding import _scored
from tiny_audio.evaluation.results import METRICS, ClipResult, Metrics, ResultsFolder
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.evaluation.summary import DATASET_KEYS, summarise
from tiny_audio.text.normalizers import get_normalizer

CLIPS, WORDS, WRONG = 10_000, 20, 0.1  # of large runs

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


# ---- large ones


def random_clips(seed: int) -> list[ClipResult]:
    """The same references for every seed, with errors of its own; names, numbers, speakers, noise."""
    same, own = random.Random(0), random.Random(seed)
    words = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("n", "r", "st", "ck", "la", "mo", "den")]
    words += ["twenty", "five", "1998", "July", "Monday"] + [f"{word.capitalize()}i" for word in words]
    clips = []
    for number in range(CLIPS):
        reference = [same.choice(words) for _ in range(WORDS)]
        said = [own.choice((f"{word}s", "", f"{word} uh")) if own.random() < WRONG else word for word in reference]
        texts = " ".join(reference), " ".join(" ".join(said).split())
        columns = {"speaker": f"s{same.randrange(60)}", "accent": same.choice("abc")}
        clip = ClipResult(f"clip-{number:05d}", same.uniform(3, 12), *texts, snr=same.gauss(20, 8), metadata=columns)
        clip.normalized_reference, clip.normalized_prediction = texts
        clips.append(clip)
    for clip, alignment in zip(clips, align(clips), strict=True):
        count_errors(clip, [kind for kind, *words in alignment.differences() for _ in max(words, key=len)])
    return clips


def count_errors(clip: ClipResult, kinds: list[str]) -> None:
    clip.substitutions, clip.deletions, clip.insertions = map(kinds.count, ("substitute", "delete", "insert"))
    clip.reference_words, clip.wer = WORDS, len(kinds) / WORDS


def write_large_runs(folder: Path) -> Path:
    """Two evaluations of 10,000 clips in outputs/eval, a and b; what metrics.json says of them is that of one clip."""
    for seed, model in enumerate("ab"):
        write_run(folder / "one", clips_of([("Bari", "bari")], "none"), model, normalizer="none")
        with ResultsFolder(folder / "outputs/eval" / model, {}) as results:
            results.append(random_clips(seed))
        shutil.move(folder / "one" / METRICS, folder / "outputs/eval" / model / METRICS)
        shutil.rmtree(folder / "one")
    return folder
