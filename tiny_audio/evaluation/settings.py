"""What one evaluation is asked to do: model, dataset, normaliser, decoding."""

from dataclasses import dataclass
from pathlib import Path

from tiny_audio.errors import TinyAudioError
from tiny_audio.text.normalizers import NORMALIZERS

DTYPES = ("auto", "float32", "float16", "bfloat16")
DIGIT_DATASETS = ("quickstart",)  # shipped corpora whose sentences are numbers and commands


@dataclass(frozen=True)
class EvalSettings:
    """One model on one dataset. Sizes are counts of clips."""

    model: str = "nano"  # shipped name, checkpoint folder, or Hub id, optionally `owner/name@revision`
    dataset: str = "quickstart"  # what DataConfig.path takes
    config: str | None = None  # of the dataset
    split: str = "test"
    revision: str | None = None  # of the dataset
    audio_column: str = "audio"
    text_column: str = "text"
    streaming: bool = False
    max_samples: int | None = None  # a seeded random sample of so many clips; None: all
    seed: int = 0
    normalizer: str | None = None  # None: `basic` for the shipped corpora of digits, else `whisper-en`
    provider: str | None = None  # None: chosen from the checkpoint's config.json
    trust_remote_code: bool = False
    batch_size: int = 16
    device: str = "auto"
    dtype: str = "auto"  # what the checkpoint says
    num_beams: int | None = None  # None: as the checkpoint says; 1 for other models
    max_new_tokens: int | None = None  # for each window of audio; None: as the checkpoint says
    output_dir: Path | None = None  # None: outputs/eval/<model>-<dataset>-<hash of these settings>

    def __post_init__(self) -> None:
        for name in ("max_samples", "batch_size", "num_beams", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TinyAudioError(f"{name} is {value}; expected a whole number of at least 1.")
        if self.dtype not in DTYPES:
            raise TinyAudioError(f"Unknown dtype {self.dtype!r}: expected one of {', '.join(DTYPES)}.")
        if self.normalizer is not None and self.normalizer not in NORMALIZERS:
            raise TinyAudioError(f"Unknown normalizer {self.normalizer!r}: expected one of {', '.join(NORMALIZERS)}.")

    @property
    def normalizer_name(self) -> str:
        """The normaliser that is used: `whisper-en` joins digits into one number, which hides errors in digit strings."""
        return self.normalizer or ("basic" if self.dataset in DIGIT_DATASETS else "whisper-en")
