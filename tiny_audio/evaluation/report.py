"""What people read of an evaluation: results.txt, the table, and the worst clips. Reads metrics; scores nothing."""

from collections.abc import Sequence

from tiny_audio import console
from tiny_audio.evaluation.results import ClipResult, Metrics, read_results, worst_first
from tiny_audio.evaluation.scoring import Scores, counts_of

WORST_CLIPS = 5
COLUMNS = ("dataset", "normalizer", "WER", "95 %", "CER", "S/D/I", "SER", "clips", "audio h", "RTFx")


def print_report(evaluations: Sequence[Metrics]) -> None:
    """Print one table over all evaluations of a model, then the worst and the failed clips of each."""
    names = _dataset_labels(evaluations)
    rows = [row for metrics in evaluations for row in _rows(metrics, names[_place(metrics)])]
    if len(evaluations) > 1:
        rows.append(_pooled_row(evaluations))
    first = evaluations[0]
    title = f"{first.model}, {first.batch_size} clips at a time on {first.hardware['device']}"
    console.table(COLUMNS, rows, title=title, right=COLUMNS[2:])
    for metrics in evaluations:
        results = read_results(metrics.folder)
        _print_clips(f"Worst clips of {metrics.dataset_name}", _worst_lines(results))
        _print_clips(f"Failed clips of {metrics.dataset_name}", _failed_lines(results))
        for remark in _remarks(metrics):
            console.say(remark)
        console.say(f"Results: {metrics.folder}")


def print_comparison(evaluations: Sequence[Metrics]) -> None:
    """Print several models side by side: a row a dataset, a column a model; the best WER of a row has a star."""
    models = list(dict.fromkeys(_model_name(metrics) for metrics in evaluations))
    by_cell = {(_place(metrics), _model_name(metrics)): metrics for metrics in evaluations}
    rows = []
    for place, label in _dataset_labels(evaluations).items():
        found = [by_cell.get((place, model)) for model in models]
        best = min((metrics.wer for metrics in found if metrics), default=0.0)
        rows.append([label, *(_cell(metrics, best) for metrics in found)])
    console.out()
    console.table(("WER", *models), rows, title="Side by side", right=models)


def _dataset_labels(evaluations: Sequence[Metrics]) -> dict[str, str]:
    """What to call each dataset: its name, or where it is if another has the same name."""
    named = {_place(metrics): metrics.dataset_name for metrics in evaluations}
    names = list(named.values())
    return {place: place if names.count(name) > 1 else name for place, name in named.items()}


def _place(metrics: Metrics) -> str:
    return metrics.dataset.get("benchmark") or metrics.dataset["path"]


def _model_name(metrics: Metrics) -> str:
    return metrics.model if metrics.provider in ("local", "huggingface") else f"{metrics.provider} {metrics.model}"


def _cell(metrics: Metrics | None, best: float) -> str:
    if metrics is None:
        return ""
    star = " *" if metrics.wer == best else ""
    failed = f", {metrics.num_failed} failed" if metrics.num_failed else ""
    cost = f", ${metrics.cost_usd:.2f}" if metrics.cost_usd else ""
    return f"{metrics.wer:.2%}{star} ({_interval(metrics.wer_interval)}), RTFx {metrics.rtfx:.1f}{cost}{failed}"


def _pooled_row(evaluations: Sequence[Metrics]) -> list[str]:
    """All words of all datasets as one set, and the mean of the datasets' WERs, which the leaderboard states."""
    results = [result for metrics in evaluations for result in read_results(metrics.folder) if not result.failed]
    pooled = Scores(tuple(map(counts_of, results)))
    mean = sum(metrics.wer for metrics in evaluations) / len(evaluations)
    names = {metrics.normalizer["name"] for metrics in evaluations}
    values = {
        "wer": pooled.wer,
        "wer_interval": pooled.wer_interval(),
        "cer": pooled.cer,
        "substitutions": pooled.substitutions,
        "deletions": pooled.deletions,
        "insertions": pooled.insertions,
        "sentence_error_rate": pooled.sentence_error_rate,
    }
    audio = sum(metrics.audio_seconds for metrics in evaluations)
    speed = audio / max(sum(metrics.decode_seconds for metrics in evaluations), 1e-9)
    label = f"pooled (mean of the {len(evaluations)}: {mean:.2%})"
    return [
        label,
        " and ".join(sorted(names)),
        *_rates(values),
        str(len(results)),
        f"{audio / 3600:.3f}",
        f"{speed:.1f}",
    ]


def _remarks(metrics: Metrics) -> list[str]:
    empty = metrics.empty_references
    remarks = [metrics.comparable]
    if metrics.left_out:
        remarks.append(f"{metrics.left_out} clips without speech were left out, as the leaderboard does.")
    if empty.get("clips"):
        remarks.append(
            f"{empty['clips']} references are empty; {empty['insertions']} words were invented on them, counted."
        )
    return [remark for remark in remarks if remark]


def summary_text(metrics: Metrics, results: Sequence[ClipResult]) -> str:
    """results.txt: the figures, then every clip, the worst first."""
    head = [f"{name}: {value}" for name, value in _facts(metrics)]
    wrong = worst_first(results)
    right = sorted((r for r in results if not r.failed and not r.word_errors), key=lambda result: result.id)
    clips = [line for result in (*wrong, *right) for line in _clip_lines(result)]
    return "\n".join([*head, "", *_failed_lines(results, limit=None), *clips]) + "\n"


def _facts(metrics: Metrics) -> list[tuple[str, str]]:
    other = metrics.other_normalizer
    facts = [
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
        *_further_facts(metrics),
        *(("remark", remark) for remark in _remarks(metrics)),
        ("date", metrics.date),
    ]
    return facts


def _further_facts(metrics: Metrics) -> list[tuple[str, str]]:
    """What only some evaluations have."""
    speakers, memory, times, turns = (
        *(metrics.wer_interval_by_speaker, metrics.peak_memory_bytes),
        *(metrics.word_time_error, metrics.diarization),
    )
    return [
        (name, text)
        for name, text, there in (
            ("WER, drawn by speaker", f"95 %: {_interval(speakers or (0, 0))}", speakers),
            ("sentence error rate", f"{metrics.sentence_error_rate or 0:.2%}", metrics.sentence_error_rate is not None),
            ("MER, WIL", f"{metrics.mer or 0:.2%}, {metrics.wil or 0:.2%}", metrics.wil is not None),
            ("latency", _percentiles(metrics.latency), metrics.latency),
            ("time to first token", _percentiles(metrics.first_token), metrics.first_token),
            ("peak memory", f"{(memory or 0) / 2**20:.0f} MiB", memory),
            ("cost", f"{metrics.cost_usd or 0:.4f} USD", metrics.cost_usd is not None),
            ("word times", ", ".join(f"{key} {value}" for key, value in times.items()), times),
            ("diarization", ", ".join(f"{key} {value}" for key, value in turns.items()), turns),
        )
        if there
    ]


def _percentiles(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f} s" for name, value in values.items())


def _rows(metrics: Metrics, dataset: str) -> list[list[str]]:
    """The run's own row, and the same texts under the other normaliser."""
    clips = f"{metrics.num_samples}, {metrics.num_failed} failed" if metrics.num_failed else str(metrics.num_samples)
    audio_hours = f"{metrics.audio_seconds / 3600:.3f}"
    return [
        [
            dataset,
            metrics.normalizer["name"],
            *_rates(vars(metrics)),
            clips,
            audio_hours,
            f"{metrics.rtfx:.1f}",
        ],
        ["", metrics.other_normalizer["name"], *_rates(metrics.other_normalizer)],
    ]


def _rates(values: dict) -> list[str]:
    errors = "/".join(str(values[key]) for key in ("substitutions", "deletions", "insertions"))
    sentences = values.get("sentence_error_rate")  # not in folders of older versions
    shown = "" if sentences is None else f"{sentences:.1%}"
    return [f"{values['wer']:.2%}", _interval(values["wer_interval"]), f"{values['cer']:.2%}", errors, shown]


def _interval(bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"{100 * low:.2f}–{100 * high:.2f}"


def _worst_lines(results: Sequence[ClipResult]) -> list[str]:
    return [line for result in worst_first(results)[:WORST_CLIPS] for line in _clip_lines(result)]


def _failed_lines(results: Sequence[ClipResult], limit: int | None = WORST_CLIPS) -> list[str]:
    failed = [result for result in results if result.failed]
    lines = [
        f"{console.printable(result.id)}  failed: {console.printable(result.error or '')}" for result in failed[:limit]
    ]
    more = len(failed) - len(lines)
    return [*lines, f"… and {more} more"] if more > 0 else lines


def _clip_lines(result: ClipResult) -> list[str]:
    return [
        f"{console.printable(result.id)}  WER {result.wer or 0:.1%}  {result.duration or 0:.2f} s",
        f"  reference:  {console.printable(result.reference)}",
        f"  prediction: {console.printable(result.prediction or '')}",
    ]


def _print_clips(title: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    console.out(f"\n{title}:")
    for line in lines:
        console.out(f"  {line}")
