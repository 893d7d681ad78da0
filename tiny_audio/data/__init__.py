"""Datasets in: where speech and its text come from, which clips are usable, and how they become batches."""

from .batching import SecondsBatchSampler
from .collator import ClipDataset, SpeechCollator
from .config import ALIASES, DataConfig, Part, evaluated, parts_of
from .corpus import Corpus, Example, Row, load_row
from .filtering import Skipped, usable_rows
from .sources import open_corpus
from .streaming import stream_corpus

__all__ = [
    "ALIASES",
    "ClipDataset",
    "Corpus",
    "DataConfig",
    "Example",
    "Part",
    "Row",
    "SecondsBatchSampler",
    "Skipped",
    "SpeechCollator",
    "evaluated",
    "load_row",
    "open_corpus",
    "parts_of",
    "stream_corpus",
    "usable_rows",
]
