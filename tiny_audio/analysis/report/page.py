"""The page itself: its HTML, style, script, figures and values in one file."""

import base64
import gzip
import html
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from string import Template
from typing import Any

from tiny_audio.analysis.alignment import no_garbage_collection
from tiny_audio.analysis.report.audio import Sound, audio_files, inlined, link
from tiny_audio.analysis.report.contents import COLUMNS, LETTERS, Takes, clip_values, score_rows, takes_by_clip
from tiny_audio.analysis.runs import Run, labels
from tiny_audio.analysis.slices import slices_of
from tiny_audio.errors import require_extra
from tiny_audio.evaluation.results import write_atomically

PARTS = Path(__file__).parent
SCRIPTS = ("values.js", "clips.js", "figures.js", "spectrogram.js", "page.js")


def write_report(runs: Sequence[Run], output: Path, inline_audio: bool = False) -> Path:
    """Write one or several evaluations as a self-contained HTML page.

    Args:
        inline_audio: puts the clips' files into the page, up to 32 MB of them; otherwise it links to them.

    Raises:
        TinyAudioError: Bokeh is not installed, or there are too many runs.
    """
    require_extra("bokeh", "report")
    with no_garbage_collection():
        page = _page(runs, output.parent, inline_audio)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, page)
    return output


def _page(runs: Sequence[Run], folder: Path, inline_audio: bool) -> str:
    clips = takes_by_clip(runs)
    values = clip_values(clips)
    files = audio_files(runs, clips)
    sounds = inlined(files, clips) if inline_audio else {}
    for number, file in files.items():
        values[number]["audio"] = link(file, folder)
    for number, (media_type, _) in sounds.items():
        values[number]["inlined"] = media_type
    report = {
        "columns": COLUMNS,
        "scores": score_rows(runs),
        "letters": LETTERS[: len(runs)],
        "clips": values,
        "figures": _figures(runs, clips),
    }
    return _html(f"Evaluation: {', '.join(labels(runs))}", report, sounds)


def _figures(runs: Sequence[Run], clips: Sequence[Takes]) -> dict[str, Any]:
    """The figures as Bokeh's script in the page takes them."""
    from bokeh.embed import json_item

    from tiny_audio.analysis.report.figures import histogram, scatter, slice_figures

    return {
        "histogram": json_item(histogram(clips, len(runs))),
        "scatter": json_item(scatter()) if len(runs) > 1 else None,
        "slices": [json_item(figure) for figure in slice_figures([slices_of(run) for run in runs])],
    }


def _html(title: str, report: dict[str, Any], sounds: dict[int, Sound]) -> str:
    from bokeh.resources import Resources

    bokeh, *_ = Resources(mode="inline", components=["bokeh"]).js_raw
    return Template(_part("page.html")).substitute(
        title=html.escape(title),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        style=_part("page.css"),
        script="\n".join(_part(name) for name in SCRIPTS),
        bokeh=_packed(bokeh),
        report=_packed(json.dumps(report, ensure_ascii=False, default=str, separators=(",", ":"))),
        sounds="\n".join(_sound_element(number, base64_bytes) for number, (_, base64_bytes) in sounds.items()),
    )


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


def _packed(text: str) -> str:
    """Compressed, in base64: small, and no text of a clip can be read as HTML."""
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), compresslevel=6, mtime=0)).decode(
        "ascii"
    )


def _sound_element(number: int, base64_bytes: str) -> str:
    return f'<script type="text/plain" id="sound-{number}">{base64_bytes}</script>'
