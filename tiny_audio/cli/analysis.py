"""`ta analysis`: where evaluations go wrong, and whether one is better than another, from their results folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tiny_audio.analysis.output import Report

RUN_HELP = "A results folder, its name in outputs/eval, or a model (its newest evaluation)."
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)]
DatasetOption = Annotated[
    str | None, typer.Option("--dataset", "-d", help="Which of a model's evaluations. [the newest]")
]
RowsOption = Annotated[
    int | None, typer.Option("--rows", "-n", min=1, help="Rows of a table. [10; all in JSON and CSV]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="CSV instead of tables.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Also written there: .json, .csv, .txt or .md.")
]

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def analysis() -> None:
    """Show where evaluations go wrong, and whether one is better than another: reads their results folders only."""


@app.command()
def high_wer(
    run: RunArgument,
    threshold: Annotated[float, typer.Option(min=0, help="Per cent.")] = 30.0,
    dataset: DatasetOption = None,
    rows: RowsOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    output: OutputOption = None,
) -> None:
    """Clips at or over a WER.

    With the words that differ in [brackets]; words on empty references count, failed clips stand beside.
    """
    from tiny_audio.analysis.high_wer import high_wer
    from tiny_audio.analysis.runs import open_run

    show(high_wer(open_run(run, dataset), threshold), as_json, as_csv, output, rows)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="A B [C]…", help=RUN_HELP)],
    dataset: DatasetOption = None,
    rows: RowsOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    output: OutputOption = None,
) -> None:
    """Whether one run is better.

    On the clips that all scored: paired bootstrap, the matched-pairs test (MAPSSWE), and the clips that changed.
    """
    from tiny_audio.analysis.compare import compare
    from tiny_audio.analysis.runs import open_runs

    if len(runs) < 2:
        raise typer.BadParameter(f"Only {runs[0]} is named; give two runs or more.")
    show(compare(open_runs(runs, dataset)), as_json, as_csv, output, rows)


@app.command()
def errors(
    run: RunArgument,
    dataset: DatasetOption = None,
    rows: RowsOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    output: OutputOption = None,
) -> None:
    """Words confused, left out, put in."""
    from tiny_audio.analysis.errors import errors
    from tiny_audio.analysis.runs import open_run

    show(errors(open_run(run, dataset)), as_json, as_csv, output, rows)


@app.command()
def entities(
    run: RunArgument,
    dataset: DatasetOption = None,
    rows: RowsOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    output: OutputOption = None,
) -> None:
    """Recall of names, numbers, dates.

    And which were missed most; by spaCy where one of its English models is installed, else by rules.
    """
    from tiny_audio.analysis.entities import entities
    from tiny_audio.analysis.runs import open_run

    show(entities(open_run(run, dataset)), as_json, as_csv, output, rows)


@app.command()
def slices(
    run: RunArgument,
    by: Annotated[
        list[str] | None,
        typer.Option(help="duration, rate, snr, speaker or a column of the dataset; may be repeated. [those four]"),
    ] = None,
    dataset: DatasetOption = None,
    rows: RowsOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    output: OutputOption = None,
) -> None:
    """WER by duration, noise, speaker …

    Also by speech rate and by any column of the dataset; with bootstrap intervals.
    """
    from tiny_audio.analysis.runs import open_run
    from tiny_audio.analysis.slices import slices

    show(slices(open_run(run, dataset), by or ()), as_json, as_csv, output, rows)


@app.command()
def hallucinations(
    run: RunArgument,
    dataset: DatasetOption = None,
    rows: RowsOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    output: OutputOption = None,
) -> None:
    """Text that nobody said.

    Loops, text on empty references, bursts of insertions, predictions that are far too long.
    """
    from tiny_audio.analysis.hallucinations import hallucinations
    from tiny_audio.analysis.runs import open_run

    show(hallucinations(open_run(run, dataset)), as_json, as_csv, output, rows)


@app.command()
def history(
    runs: Annotated[list[str], typer.Argument(metavar="RUN|FOLDER…", help="Runs, or the folder of a training run.")],
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    output: OutputOption = None,
) -> None:
    """WER over checkpoints.

    Of a training run, by step and dataset; each checkpoint by its newest evaluation.
    """
    from tiny_audio.analysis.history import history

    show(history(runs, dataset), as_json, as_csv, output, None)


@app.command()
def leaderboard(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN|FOLDER…", help="As of history. [all in outputs/eval]")
    ] = None,
    dataset: DatasetOption = None,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Add the rows to this dataset on the Hub.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Where --push makes it: for nobody else.")] = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    output: OutputOption = None,
) -> None:
    """Your evaluations ranked.

    The newest of each model, a table for each dataset, split and normaliser, the lowest WER first.
    """
    from tiny_audio.analysis.leaderboard import leaderboard, ranked
    from tiny_audio.console import say

    found = ranked(runs or (), dataset)
    show(leaderboard(found), as_json, as_csv, output, None)
    if push is not None:
        from tiny_audio.hub.leaderboard import push_leaderboard

        say(f"Leaderboard: {push_leaderboard(push, found, private)}")


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help=RUN_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html")] = Path("report.html"),
    inline_audio: Annotated[bool, typer.Option("--inline-audio", help="Clips inside the page, 32 MB at most.")] = False,
    dataset: DatasetOption = None,
) -> None:
    """All of it as one HTML page.

    Scores, figures, and every clip with its differences, its sound and its spectrogram; opens without a network.
    """
    from tiny_audio.analysis.report import write_report
    from tiny_audio.analysis.runs import open_runs
    from tiny_audio.console import say

    if output.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"{output} is no name of a page; expected one that ends in .html.")
    say(f"Report: {write_report(open_runs(runs, dataset), output, inline_audio)}")


def show(report: "Report", as_json: bool, as_csv: bool, output: Path | None, rows: int | None) -> None:
    from tiny_audio.analysis.output import present

    if as_json and as_csv:
        raise typer.BadParameter("Both --json and --csv are given; stdout takes one.")
    present(report, "json" if as_json else "csv" if as_csv else "text", output, rows)
