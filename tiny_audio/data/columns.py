"""Which column of a dataset holds the audio, the text, the id and the duration."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from tiny_audio.errors import TinyAudioError

from .config import DataConfig

AUDIO_NAMES = ("file_name", "audio_filepath", "audio_path", "wav", "path", "file")
TEXT_NAMES = ("sentence", "transcript", "transcription", "normalized_text")
ID_NAMES = ("id", "ID", "utt_id", "utterance_id", "segment_id", "key")
DURATION_NAMES = ("duration", "duration_seconds", "duration_ms")
OFFSET_NAMES = ("offset",)


@dataclass(frozen=True)
class Columns:
    """Column names as they stand in the dataset; None where there is no such column."""

    audio: str
    text: str
    id: str | None = None
    duration: str | None = None  # seconds, but for duration_ms
    offset: str | None = None  # seconds into the file, for several rows that share one recording

    @property
    def durations_per_second(self) -> int:
        """Units of the duration column in a second."""
        return 1000 if self.duration == "duration_ms" else 1


def resolve_columns(found: Sequence[str], config: DataConfig, dataset: str) -> Columns:
    """Maps the configured names to what the dataset has.

    Raises:
        TinyAudioError: the audio or the text column is missing; names the found columns and the nearest one.
    """
    audio = _default_or_given(found, config.audio_column, DataConfig.audio_column, AUDIO_NAMES)
    text_candidates = [name for name in TEXT_NAMES if name in found]
    text = _default_or_given(
        found, config.text_column, DataConfig.text_column, text_candidates if len(text_candidates) == 1 else ()
    )
    if audio is None:
        raise _missing(found, config.audio_column, "audio", dataset)
    if text is None:
        raise _missing(found, config.text_column, "text", dataset)
    return Columns(audio, text, _first(ID_NAMES, found), _first(DURATION_NAMES, found), _first(OFFSET_NAMES, found))


def _default_or_given(found: Sequence[str], given: str, default: str, fallbacks: Sequence[str]) -> str | None:
    if given in found:
        return given
    return _first(fallbacks, found) if given == default else None


def _first(names: Sequence[str], found: Sequence[str]) -> str | None:
    return next((name for name in names if name in found), None)


def _missing(found: Sequence[str], wanted: str, kind: str, dataset: str) -> TinyAudioError:
    nearest = get_close_matches(wanted, list(found), n=1, cutoff=0.5)
    name = nearest[0] if nearest else "NAME"
    hint = f"; {'did you mean' if nearest else 'set'} data.{kind}_column={name} (ta eval: --{kind}-column {name})?"
    return TinyAudioError(f"{dataset} has no {kind} column `{wanted}`; its columns are {', '.join(found)}{hint}")
