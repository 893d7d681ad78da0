"""Datasets in: where speech and its text come from, which clips are usable, and how they become batches."""

from .batching import SecondsBatchSampler
from .collator import ClipDataset, SpeechCollator
from .config import ALIASES, DataConfig
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
    "Row",
    "SecondsBatchSampler",
    "Skipped",
    "SpeechCollator",
    "load_row",
    "open_corpus",
    "stream_corpus",
    "usable_rows",
]
