"""Audio files to text: the model by its name, files and folders in order, batches across files, formats of the text."""

import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.hardware import pick_device
from tiny_audio.model_source import ModelSource, offline_if_unreachable

if TYPE_CHECKING:
    from tiny_audio.audio.segment import Window
    from tiny_audio.model.alignment import Word
    from tiny_audio.model.modeling import ASRModel

AUDIO_SUFFIXES = frozenset(
    ".aac .aif .aiff .amr .au .caf .flac .m4a .mka .mp3 .mp4 .oga .ogg .opus .wav .webm .wma".split()
)
DTYPES = ("auto", "float32", "bfloat16", "float16")
PAUSE_SECONDS = 0.5  # of silence, which end a phrase
PHRASE_SECONDS, PHRASE_CHARACTERS = 7.0, 84  # the longest phrase: two lines of 42 characters, as subtitles have them


@dataclass(frozen=True)
class AudioFile:
    """One input: its name as the user wrote it, what `load_audio` reads, and its place below the output folder."""

    name: str
    source: Any  # path or bytes
    place: Path
    error: str | None = None  # why there is nothing to read, when that is known already


@dataclass
class Segment:
    """The text of one window, phrase or word of a recording, with its bounds in seconds; its words where they are timed."""

    text: str
    start: float
    end: float
    words: list["Word"] = field(default_factory=list)


@dataclass
class Transcript:
    """The text of one file, segment by segment, or the reason why there is none."""

    file: AudioFile
    segments: list[Segment] = field(default_factory=list)
    error: str | None = None

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments if segment.text)


def load_model(model: str = "nano", device: str = "auto", dtype: str = "auto") -> "ASRModel":
    """Loads a checkpoint for inference.

    Args:
        model: `nano`, a checkpoint's folder or a Hub id, `owner/name` or `owner/name@revision`.
        device: a torch device, or `auto`: the best one here.
        dtype: one of DTYPES; `auto` is what the checkpoint says.

    Raises:
        TinyAudioError: no such model, device or dtype. OSError, ValueError: not a checkpoint of ours.
    """
    if dtype not in DTYPES:
        raise TinyAudioError(f"Unknown dtype {dtype!r}; expected one of: {', '.join(DTYPES)}.")
    source = ModelSource.of(model)
    device = pick_device(device)

    from tiny_audio.model.modeling import ASRModel

    with offline_if_unreachable(source):
        loaded = ASRModel.from_pretrained(source.location, revision=source.revision, dtype=dtype)
    return loaded.to(device).eval()


def quiet_decoding() -> None:
    """No lines of transformers in a server's log for what visitors and clients choose.

    They say that penalties see new tokens only, as ours are meant to, and that beams' settings need beams.
    """
    warnings.filterwarnings("ignore", r"Passing `\w+` with `inputs_embeds`", UserWarning)
    logging.getLogger("transformers.generation.configuration_utils").setLevel(logging.ERROR)


@lru_cache(maxsize=1)
def _kept_model(model: str) -> "ASRModel":
    return load_model(model)


def transcribe(audio: Any, model: str = "nano", **generation: Any) -> str | list[str]:
    """Audio of any length to text, in one call; the model stays loaded for the next call.

    Args:
        audio: what `load_audio` reads (path, URL, bytes, array at 16 kHz …), or a list of such.
        model: `nano`, a checkpoint's folder or a Hub id.
        generation: `batch_size` and any parameter of transformers' `generate`.

    Raises:
        ValueError: not audio, or empty. OSError: a missing or unreadable file or checkpoint.
    """
    return _kept_model(model).transcribe(audio, **generation)


def find_audio(arguments: Sequence[str], read_stdin: Any = None) -> list[AudioFile]:
    """The files behind command-line arguments: files as they are, folders searched for audio, `-` is standard input.

    A folder without audio comes back as one AudioFile with an error; files are not opened here.
    """
    found: list[AudioFile] = []
    for argument in arguments:
        path = Path(argument)
        if argument == "-":
            found.append(AudioFile("-", read_stdin(), Path("stdin")))
        elif path.is_dir():
            found.extend(_audio_below(path))
        else:
            found.append(AudioFile(argument, path, Path(path.name)))
    return found


def _audio_below(folder: Path) -> list[AudioFile]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    files = [AudioFile(str(path), path, path.relative_to(folder)) for path in paths if path.name[0] != "."]
    if files:
        return files
    reason = f"{folder} holds no audio files; expected names that end in .wav, .flac, .mp3, .ogg, .m4a …."
    return [AudioFile(str(folder), folder, Path(folder.name), error=reason)]


def transcribe_files(
    model: "ASRModel",
    files: Sequence[AudioFile],
    batch_size: int = 8,
    timestamps: str | None = None,
    **generation: Any,
) -> Iterator[Transcript]:
    """Each file's Transcript, in order, as soon as it is ready; windows of several files share a batch.

    A file that cannot be read gives a Transcript with `error` and the others go on. Memory stays bounded.


    Args:
        timestamps: what a segment is: None for a window, "phrase" or "word"; ValueError: without a CTC head.
    """
    open_transcripts: dict[int, Transcript] = {}
    pieces = _pieces(model, files)
    while batch := list(islice(pieces, batch_size)):
        heard = [piece for _, piece in batch if not isinstance(piece, str | None)]
        decoded = iter(model.decode(heard, generation, word_times=timestamps is not None))
        for index, piece in batch:
            transcript = open_transcripts.setdefault(index, Transcript(files[index]))
            if piece is None or isinstance(piece, str):
                transcript.error = piece
                yield open_transcripts.pop(index)
                continue
            text, words = next(decoded)
            transcript.segments += segments(piece, text, words, timestamps)


def segments(window: "Window", text: str, words: list["Word"], timestamps: str | None) -> list[Segment]:
    """A window's text as one segment, or as its phrases or words."""
    from tiny_audio.audio.reading import SAMPLING_RATE

    if timestamps is None:
        return [Segment(text, window.start / SAMPLING_RATE, (window.start + len(window.waveform)) / SAMPLING_RATE)]
    groups = phrases(words) if timestamps == "phrase" else [[word] for word in words]
    return [Segment(" ".join(word.text for word in group), group[0].start, group[-1].end, group) for group in groups]


def phrases(words: Iterable["Word"]) -> list[list["Word"]]:
    """Words in groups that a pause, the end of a sentence, or the length of a subtitle parts."""
    groups: list[list[Word]] = []
    for word in words:
        phrase = groups[-1] if groups else []
        goes_on = phrase and phrase[-1].text[-1] not in ".?!" and word.start - phrase[-1].end < PAUSE_SECONDS
        length = sum(len(each.text) + 1 for each in phrase) + len(word.text)
        if goes_on and word.end - phrase[0].start <= PHRASE_SECONDS and length <= PHRASE_CHARACTERS:
            phrase.append(word)
        else:
            groups.append([word])
    return groups


def _pieces(model: "ASRModel", files: Iterable[AudioFile]) -> "Iterator[tuple[int, Window | str | None]]":
    """(index of the file, window); after the last window of a file (index, None), or (index, why it broke off)."""
    for index, file in enumerate(files):
        error = file.error
        try:
            if error is None:
                for window in model.windows(file.source):
                    yield index, window
        except (OSError, ValueError) as broken:
            error = str(broken)
        yield index, error


def render(transcript: Transcript, format: str) -> str:
    """The transcript as a `txt`, `json`, `srt` or `vtt` document, ending in a newline.

    Timed phrases or words are lines of start, end and text in `txt`, which Audacity reads as labels.
    """
    if format == "txt" and any(segment.words for segment in transcript.segments):
        return "".join(f"{segment.start:.3f}\t{segment.end:.3f}\t{segment.text}\n" for segment in transcript.segments)
    if format == "txt":
        return transcript.text + "\n"
    if format == "json":
        return json.dumps(as_json(transcript), ensure_ascii=False, indent=2) + "\n"
    separator = "," if format == "srt" else "."
    cues = [
        f"{_clock(segment.start, separator)} --> {_clock(segment.end, separator)}\n{segment.text}\n"
        for segment in transcript.segments
        if segment.text
    ]
    if format == "vtt":
        return "\n".join(["WEBVTT\n", *cues])
    return "\n".join(f"{number}\n{cue}" for number, cue in enumerate(cues, 1))


def as_json(transcript: Transcript) -> dict[str, Any]:
    """`{"file", "text", "segments": [{"text", "start", "end"}]}`, times in seconds.

    Timed segments have `"words": [{"text", "start", "end", "confidence"}]` too.
    """
    return {
        "file": transcript.file.name,
        "text": transcript.text,
        "segments": [
            _timed(segment) | ({"words": [_timed(word) for word in segment.words]} if segment.words else {})
            for segment in transcript.segments
        ],
    }


def _timed(part: "Segment | Word") -> dict[str, Any]:
    values = {"text": part.text, "start": round(part.start, 3), "end": round(part.end, 3)}
    if isinstance(part, Segment):
        return values
    return {**values, "confidence": None if part.confidence is None else round(part.confidence, 3)}


def _clock(seconds: float, separator: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{separator}{milliseconds % 1000:03}"


def output_paths(files: Sequence[AudioFile], folder: Path, format: str) -> list[Path]:
    """A file below `folder` for each input: `clip.txt`, or `clip.wav.txt` and `clip.wav-2.txt` where names meet."""
    short = [file.place.with_suffix("") for file in files]
    meeting = Counter(short)
    long = [place if meeting[place] == 1 else file.place for place, file in zip(short, files, strict=True)]
    seen: Counter[Path] = Counter()
    paths = []
    for place in long:
        seen[place] += 1
        number = f"-{seen[place]}" if seen[place] > 1 else ""
        paths.append(folder / place.parent / f"{place.name}{number}.{format}")
    return paths


def write_whole(path: Path, text: str) -> None:
    """Writes the file under another name and renames it, so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
