"""`ta doctor`: checks this machine and says what to do, a line each."""

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def doctor() -> None:
    """Check this machine: one line each, with what to do.

    ✓ is well, ! is worth knowing, ✗ must be mended: only that makes the exit code 1.
    """
    from tiny_audio import console
    from tiny_audio.doctor import examine

    failures = 0
    for check in examine():
        console.out(str(check))
        failures += check.state == "failure"
    if failures:
        raise typer.Exit(1)
