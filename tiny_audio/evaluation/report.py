"""What people read of an evaluation: results.txt, the table, and the worst clips. Reads metrics; scores nothing."""

from collections.abc import Sequence
from pathlib import Path

from tiny_audio import console
from tiny_audio.evaluation.results import ClipResult, Metrics, read_results, worst_first

WORST_CLIPS = 5
COLUMNS = ("dataset", "normalizer", "WER", "95 %", "CER", "S/D/I", "clips", "audio h", "RTFx")


def print_report(evaluations: Sequence[Metrics]) -> None:
    """Print one table over all evaluations of a model, then the worst and the failed clips of each."""
    rows = [row for metrics in evaluations for row in _rows(metrics)]
    first = evaluations[0]
    title = f"{first.model}, {first.batch_size} clips at a time on {first.hardware['device']}"
    console.table(COLUMNS, rows, title=title, right=COLUMNS[2:])
    for metrics in evaluations:
        results = read_results(metrics.folder)
        _print_clips(f"Worst clips of {metrics.dataset['path']}", _worst_lines(results))
        _print_clips(f"Failed clips of {metrics.dataset['path']}", _failed_lines(results))
        console.say(f"Results: {metrics.folder}")


def summary_text(metrics: Metrics, results: Sequence[ClipResult]) -> str:
    """results.txt: the figures, then every clip, the worst first."""
    head = [f"{name}: {value}" for name, value in _facts(metrics)]
    wrong = worst_first(results)
    right = sorted((r for r in results if not r.failed and not r.word_errors), key=lambda result: result.id)
    clips = [line for result in (*wrong, *right) for line in _clip_lines(result)]
    return "\n".join([*head, "", *_failed_lines(results, limit=None), *clips]) + "\n"


def _facts(metrics: Metrics) -> list[tuple[str, str]]:
    other = metrics.other_normalizer
    return [
        ("model", metrics.model),
        ("dataset", " ".join(str(metrics.dataset[key]) for key in ("path", "config", "split") if metrics.dataset[key])),
        ("WER", f"{metrics.wer:.2%} (95 %: {_interval(metrics.wer_interval)}), {metrics.normalizer['name']}"),
        (f"WER by {other['name']}", f"{other['wer']:.2%} (95 %: {_interval(other['wer_interval'])})"),
        ("CER", f"{metrics.cer:.2%}"),
        ("errors", f"{metrics.substitutions} sub, {metrics.deletions} del, {metrics.insertions} ins"),
        ("reference words", str(metrics.reference_words)),
        ("clips", f"{metrics.num_samples}, {metrics.num_failed} failed"),
        ("audio", f"{metrics.audio_seconds / 3600:.3f} h"),
        ("RTFx", f"{metrics.rtfx:.1f} at batch size {metrics.batch_size} on {metrics.hardware['device']}"),
        ("date", metrics.date),
    ]


def _rows(metrics: Metrics) -> list[list[str]]:
    """The run's own row, and the same texts under the other normaliser."""
    clips = f"{metrics.num_samples}, {metrics.num_failed} failed" if metrics.num_failed else str(metrics.num_samples)
    audio_hours = f"{metrics.audio_seconds / 3600:.3f}"
    dataset = metrics.dataset["path"]
    name = Path(dataset).resolve().name if Path(dataset).exists() else dataset
    return [
        [name, metrics.normalizer["name"], *_rates(vars(metrics)), clips, audio_hours, f"{metrics.rtfx:.1f}"],
        ["", metrics.other_normalizer["name"], *_rates(metrics.other_normalizer)],
    ]


def _rates(values: dict) -> list[str]:
    errors = "/".join(str(values[key]) for key in ("substitutions", "deletions", "insertions"))
    return [f"{values['wer']:.2%}", _interval(values["wer_interval"]), f"{values['cer']:.2%}", errors]


def _interval(bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"{100 * low:.2f}–{100 * high:.2f}"


def _worst_lines(results: Sequence[ClipResult]) -> list[str]:
    return [line for result in worst_first(results)[:WORST_CLIPS] for line in _clip_lines(result)]


def _failed_lines(results: Sequence[ClipResult], limit: int | None = WORST_CLIPS) -> list[str]:
    failed = [result for result in results if result.failed]
    lines = [f"{result.id}  failed: {result.error}" for result in failed[:limit]]
    more = len(failed) - len(lines)
    return [*lines, f"… and {more} more"] if more > 0 else lines


def _clip_lines(result: ClipResult) -> list[str]:
    return [
        f"{result.id}  WER {result.wer or 0:.1%}  {result.duration or 0:.2f} s",
        f"  reference:  {console.printable(result.reference)}",
        f"  prediction: {console.printable(result.prediction or '')}",
    ]


def _print_clips(title: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    console.out(f"\n{title}:")
    for line in lines:
        console.out(f"  {line}")
