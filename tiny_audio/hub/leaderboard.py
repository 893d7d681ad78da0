"""A leaderboard as a dataset of the Hub: a row an evaluation, those of other machines kept, and a page that shows them."""

import json
from collections.abc import Iterable, Sequence
from math import isfinite
from types import NoneType
from typing import Any

from tiny_audio.analysis.leaderboard import device_of
from tiny_audio.analysis.output import interval, percent
from tiny_audio.console import markdown, printable
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import SETTINGS, Metrics
from tiny_audio.hub.marks import has_marks, marked, refreshed
from tiny_audio.hub_access import content_of, hub_errors, require_access
from tiny_audio.model_source import public_name, short_hash

README, ROWS, SECTION = "README.md", "results.jsonl", "leaderboard"
NEW_REPOSITORY = {README, ROWS, ".gitattributes"}  # what one of ours, or an empty one, holds
COLUMNS = ("model", "WER", "95 %", "clips", "RTFx", "on", "parameters", "date")
KINDS: dict[str, tuple[type, ...]] = {  # of what the page shows of a row
    **dict.fromkeys(("id", "model", "dataset", "hardware", "date"), (str,)),
    **dict.fromkeys(("config", "split", "normalizer"), (str, NoneType)),
    **dict.fromkeys(("wer", "wer_low", "wer_high", "clips", "rtfx"), (int, float)),
    **dict.fromkeys(("parameters", "max_samples"), (int, NoneType)),
}
FRONT = f"""---
pretty_name: {{name}}
tags:
- tiny-audio
- leaderboard
- automatic-speech-recognition
configs:
- config_name: default
  data_files:
  - split: results
    path: {ROWS}
---

# {{name}}

Word error rates of recognisers, a row of `{ROWS}` each; rates there are fractions. `ta analysis leaderboard --push` adds more.

"""


def push_leaderboard(repository: str, found: Sequence[Metrics], private: bool) -> str:
    """Adds these evaluations to a leaderboard, in one commit; a row that is there already is replaced.

    Args:
        repository: OWNER/NAME of a dataset on the Hub; made if it is not there.
        private: make it private, if it is made.

    Returns:
        The address.

    Raises:
        TinyAudioError: the repository holds something else, or the Hub refuses.
    """
    require_access(repository, "--push")
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with hub_errors(f"{repository} was not changed"):
        address = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        name = address.repo_id
        info = api.dataset_info(name)
        stored = {each.rfilename for each in info.siblings or ()}
        readme, lines = (
            content_of(name, file, info.sha, "dataset") if file in stored else "" for file in (README, ROWS)
        )
        _check_ours(name, readme, stored)
        rows = merged_rows(parsed(lines, name), map(row_of, found))
        files = {README: page(name.split("/")[-1], readme, rows), ROWS: "".join(map(_line, rows))}
        title = f"Add {len(found)} evaluation{'s' * (len(found) > 1)}"
        if files != {README: readme, ROWS: lines}:
            operations = [CommitOperationAdd(file, text.encode()) for file, text in files.items()]
            api.create_commit(name, operations, commit_message=title, repo_type="dataset", parent_commit=info.sha)
    return str(address)


def _check_ours(repository: str, readme: str, stored: set[str]) -> None:
    others = sorted(stored - NEW_REPOSITORY)
    if others and not has_marks(readme):
        raise TinyAudioError(f"{repository} holds {others[0]} and is no leaderboard; name another dataset with --push.")


def row_of(metrics: Metrics) -> dict[str, Any]:
    """One line of results.jsonl: plain values, no path of this machine."""
    low, high = metrics.wer_interval
    return {
        "id": row_id(metrics),
        "model": public_name(metrics.model),
        "provider": metrics.provider,
        "dataset": public_name(metrics.dataset_name),
        **{key: metrics.dataset.get(key) for key in ("config", "split", "revision", "max_samples")},
        "normalizer": metrics.normalizer["name"],
        "normalizer_version": metrics.normalizer["version"],
        "wer": metrics.wer,
        "wer_low": low,
        "wer_high": high,
        "cer": metrics.cer,
        "clips": metrics.num_samples - metrics.num_failed,
        "failed": metrics.num_failed,
        "words": metrics.reference_words,
        "audio_seconds": metrics.audio_seconds,
        "rtfx": metrics.rtfx,
        "hardware": device_of(metrics),
        "parameters": metrics.parameters,
        "tiny_audio": metrics.versions.get("tiny-audio"),
        "date": metrics.date,
    }


def row_id(metrics: Metrics) -> str:
    """The same for the same weights, data and settings on the same hardware, whenever they are measured."""
    try:
        identity = json.loads((metrics.folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        identity = metrics.decoding
    machine = {key: metrics.hardware.get(key) for key in ("device", "gpu", "platform", "cpu_cores")}
    return short_hash([identity, metrics.model, metrics.dataset, metrics.normalizer, machine])


def parsed(lines: str, repository: str) -> list[dict[str, Any]]:
    """The rows of results.jsonl.

    Raises:
        TinyAudioError: a line is no row.
    """
    rows = []
    for number, line in enumerate(
        lines.removesuffix("\n").split("\n") if lines else (), start=1
    ):  # a row may hold U+2028
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if (wrong := _wrong_with(row)) is not None:
            raise TinyAudioError(f"Line {number} of {ROWS} in {repository} {wrong}; mend or delete it.")
        rows.append(row)
    return rows


def _wrong_with(row: Any) -> str | None:
    if not isinstance(row, dict):
        return "is no JSON object"
    for key, kinds in KINDS.items():
        value = row.get(key)
        if type(value) not in kinds or (isinstance(value, float) and not isfinite(value)):
            expected = " or ".join(
                {str: "text", int: "a number", NoneType: "null"}[kind] for kind in kinds if kind is not float
            )
            return f"has {key} {json.dumps(value)}; expected {expected}"
    return None


def merged_rows(before: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows by dataset and WER; a new one replaces that of its id."""
    by_id = {row["id"]: row for row in (*before, *new)}
    return sorted(by_id.values(), key=lambda row: (group_of(row), row["wer"], row["id"]))


def group_of(row: dict[str, Any]) -> str:
    """What the rows of one table share."""
    dataset = [row.get(key) for key in ("dataset", "config", "split")]
    drawn = f"{row['max_samples']} clips" if row.get("max_samples") else None
    return ", ".join(filter(None, [" ".join(str(part) for part in dataset if part), row.get("normalizer"), drawn]))


def page(name: str, readme: str, rows: Sequence[dict[str, Any]]) -> str:
    """The README with its tables anew; what the user wrote around them stays."""
    body = tables(rows)
    if has_marks(readme):
        return refreshed(readme, {SECTION: body})
    return (readme.rstrip("\n") + "\n\n" if readme.strip() else FRONT.format(name=name)) + marked(SECTION, body)


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """A table for each dataset, split and normaliser, best first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(group_of(row), []).append(row)
    parts = [
        f"## {printable(group)}\n\n{markdown(COLUMNS, [*map(_cells, own)], COLUMNS[1:5])}"
        for group, own in groups.items()
    ]
    return "\n\n".join(parts)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    parameters = "" if row.get("parameters") is None else f"{row['parameters']:,}"
    rates = percent(row["wer"]), interval((row["wer_low"], row["wer_high"]))
    cells = (row["model"], *rates, row["clips"], f"{row['rtfx']:,.1f}", row["hardware"], parameters, row["date"][:10])
    return tuple(printable(str(cell)).replace("|", "\\|") for cell in cells)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n"
