"""The benchmarks that `-d NAME` knows: Hub id, configuration, split, columns, licence and hours of each, in one table.

The Open ASR Leaderboard's own copies are used where it has one (huggingface/open_asr_leaderboard, August 2026), so that
the clips are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.text.labels import IGNORED_SEGMENT
from tiny_audio.text.normalizers import get_normalizer

LEADERBOARD = "hf-audio/open-asr-leaderboard"
LONG_FORM = "hf-audio/asr-leaderboard-longform"


@dataclass(frozen=True)
class Benchmark:
    """One test set."""

    path: str  # Hub id
    config: str | None
    split: str
    licence: str
    hours: float | None  # of the split; None where no source states them
    audio_column: str = "audio"
    text_column: str = "text"
    on_leaderboard: bool = False  # a column of the leaderboard's table
    remark: str = ""


BENCHMARKS = {
    "ami": Benchmark(LEADERBOARD, "ami_cleaned", "test", "CC BY 4.0", 9, on_leaderboard=True),
    "ami-original": Benchmark(
        LEADERBOARD, "ami", "test", "CC BY 4.0", 9, remark="the leaderboard's until 2026, now beside its table"
    ),
    "earnings22": Benchmark(
        LEADERBOARD, "earnings22", "test", "CC BY-SA 4.0", 5, remark="the leaderboard's until 2026, now beside its table"
    ),
    "gigaspeech": Benchmark(LEADERBOARD, "gigaspeech_cleaned", "test", "Apache 2.0, terms of use", 40, on_leaderboard=True),
    "gigaspeech-original": Benchmark(
        LEADERBOARD, "gigaspeech", "test", "Apache 2.0, terms of use", 40, remark="the leaderboard's until 2026"
    ),
    "librispeech-clean": Benchmark(LEADERBOARD, "librispeech", "test.clean", "CC BY 4.0", 5.4, on_leaderboard=True),
    "librispeech-other": Benchmark(LEADERBOARD, "librispeech", "test.other", "CC BY 4.0", 5.1, on_leaderboard=True),
    "spgispeech": Benchmark(LEADERBOARD, "spgispeech", "test", "Kensho user agreement", 100, on_leaderboard=True),
    "tedlium": Benchmark(
        LEADERBOARD, "tedlium", "test", "CC BY-NC-ND 3.0", 3, remark="in the leaderboard's table until 2026"
    ),
    "voxpopuli": Benchmark(LEADERBOARD, "voxpopuli_cleaned_aa", "test", "CC0", 5, on_leaderboard=True),
    "voxpopuli-original": Benchmark(LEADERBOARD, "voxpopuli", "test", "CC0", 5, remark="the leaderboard's until 2026"),
    "loquacious-clean": Benchmark("speechbrain/LoquaciousSet", "clean", "test", "CC BY 3.0 and 4.0", 21, "wav"),
    "loquacious-small": Benchmark("speechbrain/LoquaciousSet", "small", "test", "CC BY 3.0 and 4.0", 21, "wav"),
    "loquacious-medium": Benchmark("speechbrain/LoquaciousSet", "medium", "test", "CC BY 3.0 and 4.0", 21, "wav"),
    "loquacious-large": Benchmark("speechbrain/LoquaciousSet", "large", "test", "CC BY 3.0 and 4.0", 21, "wav"),
    "common-voice": Benchmark("fixie-ai/common_voice_17_0", "en", "test", "CC0", 27, text_column="sentence"),
    "peoples-speech": Benchmark("fixie-ai/peoples_speech", "clean", "test", "CC BY and CC BY-SA", None),
    "switchboard": Benchmark(
        "hhoangphuoc/switchboard", None, "test", "LDC97S62, for its licensees", None, text_column="transcript",
        remark="a re-split of the corpus: compares with no Hub5 figure",
    ),
    "edacc": Benchmark("edinburghcstr/edacc", None, "test", "CC BY-SA 4.0", None, remark="accents of English"),
    "fleurs-en": Benchmark("google/fleurs", "en_us", "test", "CC BY 4.0", 1.8, text_column="transcription"),
    "earnings21-long": Benchmark(LONG_FORM, "earnings21", "test", "CC BY-SA 4.0", 39.3, remark="44 whole calls"),
    "earnings22-long": Benchmark(LONG_FORM, "earnings22", "test", "CC BY-SA 4.0", 119, remark="125 whole calls"),
    "tedlium-long": Benchmark(LONG_FORM, "tedlium", "test", "CC BY-NC-ND 3.0", 2.6, remark="11 whole talks"),
    "meanwhile": Benchmark("distil-whisper/meanwhile", None, "test", "for evaluation", 1, remark="64 long clips"),
}  # fmt: skip

# Names for several: `loquacious` is one, since all its configurations share the test split.
GROUPS = {
    "librispeech": ("librispeech-clean", "librispeech-other"),
    "loquacious": ("loquacious-medium",),
    "commonvoice": ("common-voice",),
    "peoples_speech": ("peoples-speech",),
    "leaderboard": tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.on_leaderboard),
    "long-form": ("earnings21-long", "earnings22-long", "tedlium-long", "meanwhile"),
    "all": tuple(
        name for name in BENCHMARKS if name not in ("loquacious-clean", "loquacious-small", "loquacious-large")
    ),
}
COLUMNS = ("name", "Hub id", "config", "split", "audio, text", "licence", "hours", "remark")


def expand(names: Sequence[str]) -> list[str]:
    """The datasets that `-d` names mean, groups taken apart, each once; what is no benchmark stays as it is."""
    singles = [single for name in names for single in GROUPS.get(name, (name,))]
    return list({_place(name): name for name in reversed(singles)}.values())[::-1]


def _place(name: str) -> str:
    """What tells datasets apart: a path however it is written, else the name."""
    is_path = name not in BENCHMARKS and Path(name).expanduser().exists()
    return str(Path(name).expanduser().resolve()) if is_path else name


def resolved(settings: EvalSettings) -> EvalSettings:
    """The settings with the dataset that its name means; what the user gives of split, columns … comes first."""
    entry = BENCHMARKS.get(settings.dataset)
    chosen = replace(
        settings,
        split=settings.split or (entry.split if entry else "test"),
        audio_column=settings.audio_column or (entry.audio_column if entry else "audio"),
        text_column=settings.text_column or (entry.text_column if entry else "text"),
    )
    if entry is None:
        return chosen
    config = settings.config or entry.config
    return replace(chosen, dataset=entry.path, config=config, benchmark=settings.dataset)


def is_scored(reference: str) -> bool:
    """Whether the leaderboard scores a clip: not where nothing is left of its reference, or where it says so."""
    return get_normalizer("whisper-en")(reference) not in ("", IGNORED_SEGMENT)


def comparability(settings: EvalSettings, failed: int) -> str:
    """Whether a benchmark's figure compares with the leaderboard's, in a sentence; "" for a dataset that is none."""
    if settings.benchmark is None:
        return ""
    entry = BENCHMARKS[settings.benchmark]
    reasons = [
        reason
        for reason, holds in (
            (entry.remark or "no set of the leaderboard", not entry.on_leaderboard),
            (f"{settings.max_samples} clips drawn from it", settings.max_samples is not None),
            (f"split {settings.split}", settings.split != entry.split),
            (f"configuration {settings.config}", settings.config != entry.config),
            (f"normaliser {settings.normalizer_name}", settings.normalizer_name != "whisper-en"),
            (f"replacements of {settings.replacements}", settings.replacements is not None),
            (f"{failed} clips failed", failed > 0),
        )
        if holds
    ]
    if reasons:
        return f"{settings.benchmark} does not compare with the Open ASR Leaderboard: {'; '.join(reasons)}."
    return (
        f"{settings.benchmark}: the Open ASR Leaderboard's clips and Whisper's normaliser, as it had until April 2026; its own "
        "since then joins spelled acronyms, spellings of names and compounds, so its figure may differ a little. "
        "leaderboard/MODEL_….jsonl is what its scorer reads."
    )


def listing() -> list[list[str]]:
    """The table of `ta eval --list`: a row a benchmark, then the groups."""
    rows = [
        [
            *(name, entry.path, entry.config or "", entry.split, f"{entry.audio_column}, {entry.text_column}"),
            *(entry.licence, "" if entry.hours is None else f"{entry.hours:g}"),
            "in the leaderboard's table" if entry.on_leaderboard else entry.remark,
        ]
        for name, entry in BENCHMARKS.items()
    ]
    groups = [[name, *[""] * 6, "= " + ", ".join(members)] for name, members in GROUPS.items() if name != "all"]
    shipped = [
        "quickstart",
        "(shipped)",
        "",
        "test",
        "audio, text",
        "MIT",
        "0.1",
        "150 synthesised commands and numbers",
    ]
    return [shipped, *rows, *groups, ["all", *[""] * 6, "= every benchmark above, LoquaciousSet once"]]
