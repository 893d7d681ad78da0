"""Jobs for people: a table of all, and what one is at, what it costs, and how busy the GPU is."""

from datetime import datetime

from tiny_audio.console import out, table

from .connection import Connection
from .jobs import NEVER_STARTED, UNWATCHED, Seen, find_job, look_at_jobs

COLUMNS = ("job", "state", "started", "time", "step", "loss", "WER", "left", "cost")
REASONS = {
    "lost": "its runner is gone: the machine was restarted, or somebody killed it; a training goes on with `ta remote train --resume {name}`",
    UNWATCHED: "somebody killed its runner, its command runs on; `ta remote stop {name}` ends it",
    NEVER_STARTED: "who sent it was cut off before it started; send it again, by another name",
    "unreadable": "its state.json is not a job's state; delete its folder, .ta/jobs/{name} there",
}
RIGHT = ("time", "step", "loss", "WER", "left", "cost")


def show_jobs(connection: Connection) -> None:
    """All jobs, the newest last."""
    jobs, _ = look_at_jobs(connection)
    if not jobs:
        out(f"No job on {connection.target} yet.")
        return
    table(COLUMNS, [cells(job) for job in jobs], right=RIGHT)


def show_status(connection: Connection, name: str | None) -> None:
    """One job, or the newest, and the GPUs.

    Raises:
        TinyAudioError: there is none of that name.
    """
    out(describe(find_job(connection, name)))
    for gpu in look_at_jobs(connection)[1]:
        out(f"GPU {gpu['name']}: {gpu['utilization']} % busy, {gpu['memory_used']} of {gpu['memory_total']} MiB")


def cells(seen: Seen) -> tuple[str | None, ...]:
    """A job's row of the table."""
    started, values = seen.state.get("started"), seen.progress
    return (
        seen.name,
        seen.word,
        f"{datetime.fromisoformat(started).astimezone():%Y-%m-%d %H:%M}" if started else None,
        clock(seen.seconds),
        str(values["step"]) if "step" in values else None,
        f"{values['loss']:.3f}" if "loss" in values else None,
        f"{100 * values['eval_wer']:.1f}%" if "eval_wer" in values else None,
        values.get("eta") if seen.word == "running" else None,
        money(seen.dollars),
    )


def describe(seen: Seen) -> str:
    """A job in a few lines."""
    names = ("", "", "since", "for", "step", "loss", "WER", "left", "cost")
    first, *others = zip(names, cells(seen), strict=True)
    facts = ", ".join(f"{name} {cell}".strip() for name, cell in others if cell is not None)
    reason = REASONS[seen.word].format(name=seen.name) if seen.word in REASONS else seen.state.get("reason")
    return f"{first[1]}: {facts}" + (f"\n{reason}" if reason else "")


def clock(seconds: float) -> str:
    """Hours, minutes, seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def money(dollars: float | None) -> str | None:
    """US dollars."""
    return None if dollars is None else f"${dollars:.2f}"
