"""`ta transcribe`: prints the text of audio files, as it is decoded for one file, in order for many."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tiny_audio.cli.options import BeamsOption, DeviceOption, DtypeOption, ModelOption, NewTokensOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Format(StrEnum):
    txt = "txt"
    json = "json"
    srt = "srt"
    vtt = "vtt"


class Timestamps(StrEnum):
    word = "word"
    phrase = "phrase"


@app.command()
def transcribe(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="Audio files, folders of them, or - for standard input.")
    ],
    model: ModelOption = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="Form of the text.")] = Format.txt,
    timestamps: Annotated[
        Timestamps | None, typer.Option("--timestamps", "-t", help="Time each word or phrase, by the model's CTC head.")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Write a file per recording here instead of printing.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows of at most 30 s decoded at a time.")] = 8,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    num_beams: BeamsOption = None,
    max_new_tokens: NewTokensOption = None,
) -> None:
    """Print the text of audio files.

    One file's text appears while it is decoded. Of several files each text comes with its file's name. A file that
    cannot be read is named on stderr and the others go on; the exit code is then 1.
    """
    import sys

    from tiny_audio.transcription import find_audio

    inputs = find_audio(files, read_stdin=sys.stdin.buffer.read)
    lines = format in (Format.srt, Format.vtt) or (format is Format.txt and timestamps is not None)
    if len(inputs) > 1 and output_dir is None and lines:
        what = f"Times of several files as {format}" if timestamps else f"{format} of several files"
        raise typer.BadParameter(
            f"{what} need --output-dir; or take --format json." if timestamps else f"{what} needs --output-dir."
        )
    limits = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
    generation = {name: value for name, value in limits.items() if value is not None}
    timed = {"batch_size": batch_size, "timestamps": timestamps and timestamps.value}
    failed = _transcribe(inputs, (model or "nano", device, dtype), format.value, output_dir, timed, generation)
    if failed:
        raise typer.Exit(1)


def _transcribe(
    inputs: list[Any], load: tuple[str, str, str], format: str, folder: Path | None, timed: dict, generation: dict
) -> int:
    """Transcribes and prints or writes; returns how many inputs failed."""
    from tiny_audio import console
    from tiny_audio.transcription import load_model, output_paths, render, transcribe_files, write_whole

    model = load_model(*load)
    whole = len(inputs) > 1 or format != "txt" or folder is not None or timed["timestamps"] is not None
    if not whole and _streams(model, inputs[0], generation):
        return _stream(model, inputs[0].source, generation)
    paths = output_paths(inputs, folder, format) if folder else None
    failed = 0
    with console.progress("Transcribing", len(inputs)) as bar:
        for number, transcript in enumerate(transcribe_files(model, inputs, **timed, **generation)):
            if transcript.error is not None:
                failed += 1
                console.error(transcript.error)
            elif paths:
                write_whole(paths[number], render(transcript, format))
            else:
                _print(transcript, format, alone=len(inputs) == 1)
            bar.advance(note=transcript.file.name)
    if paths:
        console.say(f"Wrote {len(inputs) - failed} of {len(inputs)} to {folder}")
    return failed


def _streams(model: Any, file: Any, generation: dict) -> bool:
    """Beam search has no text before its end."""
    return file.error is None and generation.get("num_beams", model.config.num_beams) == 1


def _stream(model: Any, source: Any, generation: dict) -> int:
    from tiny_audio import console

    for piece in model.stream_transcribe(source, **generation):
        console.out(piece, end="")
    console.out()
    return 0


def _print(transcript: Any, format: str, alone: bool) -> None:
    import json

    from tiny_audio import console
    from tiny_audio.transcription import as_json, render

    if format == "json":
        console.out(json.dumps(as_json(transcript), ensure_ascii=False))
    elif alone:
        console.out(render(transcript, format), end="")
    else:
        console.out(f"{transcript.file.name}: {transcript.text}")
