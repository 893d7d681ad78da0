"""What one evaluation is asked to do: model, dataset, normaliser, decoding."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tiny_audio.errors import TinyAudioError
from tiny_audio.text.normalizers import NORMALIZERS

DTYPES = ("auto", "float32", "float16", "bfloat16")
DIGIT_DATASETS = ("quickstart",)  # shipped corpora whose sentences are numbers and commands


@dataclass(frozen=True)
class EvalSettings:
    """One model on one dataset. Sizes are counts of clips."""

    model: str | None = (
        None  # shipped name, checkpoint folder, Hub id (`owner/name@revision`), or a service's name of it
    )
    dataset: str = "quickstart"  # a benchmark's name, or what DataConfig.path takes
    config: str | None = None  # of the dataset
    split: str | None = None  # None: the benchmark's, else test
    revision: str | None = None  # of the dataset
    audio_column: str | None = None  # None: the benchmark's, else audio
    text_column: str | None = None  # None: the benchmark's, else text
    benchmark: str | None = None  # the name that `dataset` had in the table of benchmarks
    streaming: bool = False
    max_samples: int | None = None  # a seeded random sample of so many clips; None: all
    seed: int = 0
    normalizer: str | None = None  # None: `basic` for the shipped corpora of digits, else `whisper-en`
    provider: str | None = None  # None: chosen from the checkpoint's config.json
    provider_file: Path | None = None  # a user's own: Python that puts its class into PROVIDERS
    trust_remote_code: bool = False
    base_url: str | None = None  # of a service: its API's root; None: the vendor's
    api_key: str | None = field(default=None, repr=False)  # None: the service's environment variable
    workers: int = 4  # requests to a service at a time
    timeout: float = 120.0  # seconds of one request to a service
    retries: int = 5  # of a request that met 429, 5xx, a time-out or a broken answer
    price_per_minute: float | None = None  # US dollars a minute of audio; None: of the user's prices.toml, if there
    word_times: bool = False  # ask for the times of words, and speakers where the provider tells them apart
    first_token: bool = False  # one clip at a time as a stream of text, to measure when its first piece comes
    replacements: Path | None = None  # a file of further replacements that both sides go through when scored
    keep_audio: bool = False  # a copy of each clip in the results folder, for reports
    batch_size: int = 16
    device: str = "auto"
    dtype: str = "auto"  # what the checkpoint says
    num_beams: int | None = None  # None: as the checkpoint says; 1 for other models
    max_new_tokens: int | None = None  # for each window of audio; None: as the checkpoint says
    output_dir: Path | None = None  # None: outputs/eval/<model>-<dataset>-<hash of these settings>

    def __post_init__(self) -> None:
        for name in ("max_samples", "batch_size", "num_beams", "max_new_tokens", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TinyAudioError(f"{name} is {value}; expected a whole number of at least 1.")
        self._check_service()
        if self.dtype not in DTYPES:
            raise TinyAudioError(f"Unknown dtype {self.dtype!r}: expected one of {', '.join(DTYPES)}.")
        if self.normalizer is not None and self.normalizer not in NORMALIZERS:
            raise TinyAudioError(f"Unknown normalizer {self.normalizer!r}: expected one of {', '.join(NORMALIZERS)}.")

    def _check_service(self) -> None:
        for name, least in (("retries", 0), ("price_per_minute", 0), ("timeout", 0.001)):
            value = getattr(self, name)
            if value is not None and not least <= value < float("inf"):
                raise TinyAudioError(f"{name} is {value}; expected a number of at least {least}.")
        if self.base_url is not None and not _is_plain_address(self.base_url):
            raise TinyAudioError(
                "The base URL is no plain address, which would be written into the results; expected http(s)://HOST[:PORT][/PATH]."
            )
        if self.word_times and self.first_token:
            raise TinyAudioError(
                "A stream of text has no times of words: give --word-times or --first-token, not both."
            )

    @classmethod
    def of(cls, options: dict[str, Any], **others: Any) -> "EvalSettings":
        """Settings of the options that bear the name of one; `others` come first. `dataset` is chosen later."""
        names = {item.name for item in fields(cls)} - {"dataset"}
        return cls(**{**{name: value for name, value in options.items() if name in names}, **others})

    @property
    def dataset_name(self) -> str:
        """What results call the dataset."""
        return self.benchmark or self.dataset

    @property
    def normalizer_name(self) -> str:
        """The normaliser that is used: `whisper-en` joins digits into one number, which hides errors in digit strings."""
        return self.normalizer or ("basic" if self.dataset in DIGIT_DATASETS else "whisper-en")


def _is_plain_address(url: str) -> bool:
    """Scheme, host, port and path only: it is written into the results, where a password must not be."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    more = port == 0 or "@" in parts.netloc or parts.query or parts.fragment or not url.isprintable()
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not more
