"""Which effects a training clip gets, drawn so that neither workers nor a resume change them; and clips of silence."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tiny_audio.audio.reading import stream_audio
from tiny_audio.errors import TinyAudioError

from . import effects
from .config import _option
from .corpus import Example
from .durations import SAMPLING_RATE, probe_durations
from .layout import AUDIO_SUFFIXES

NOISES = (*effects.COLOURS, "babble")
BANDS = {  # Hz from and to which the lower and the upper limit are drawn
    "low-pass": (None, (2000, 7000)),
    "high-pass": ((80, 400), None),
    "telephone": ((300, 300), (3400, 3400)),
}
CODECS = ("mu-law", "mp3")
LIMITS = {"noise_snr_db": (-20, 60), "reverb_rt60": (0.05, 3), "speed_factors": (0.5, 2), "gain_db": (-60, 40)}
KINDS = {"noise_kinds": NOISES, "band_kinds": BANDS, "codecs": CODECS}
PROBABILITIES = tuple(f"{name}_probability" for name in ("noise", "reverb", "speed", "gain", "band", "codec"))

MP3_BIT_RATES = (16_000, 24_000, 32_000)  # bits a second
DIRECT_DB = (0, 12)  # of synthetic rooms: energy of the direct sound over that of the rest
BABBLE_VOICES = (3, 8)
SILENCE_DBFS = (-70, -20)  # root mean square of a silent clip's noise
DIGITAL_SILENCE = 0.25  # share of the silent clips that are zeros

RECORDING_SECONDS = 300  # what is used of a longer file
RECORDING_BYTES = 1 << 27  # of a folder's decoded files that each worker keeps


def _list_option(default: Iterable, help: str) -> Any:
    return field(default_factory=lambda: list(default), metadata={"help": help})


@dataclass
class AugmentSettings:
    """How the waveforms of training clips are changed; the `training.augment` group. All is off by default."""

    noise_probability: float = _option(0.0, "Probability with which a clip gets noise.")
    noise_snr_db: list[float] = _list_option((5.0, 25.0), "Signal-to-noise ratio in dB: least and most.")
    noise_kinds: list[str] = _list_option(NOISES, "Drawn from: white, pink, brown, babble (the batch's other clips).")
    noise_folder: str | None = _option(
        None, "Noise from audio files of your own in this folder, instead of noise_kinds."
    )
    reverb_probability: float = _option(0.0, "Probability with which a clip is heard in a room.")
    reverb_rt60: list[float] = _list_option((0.2, 0.8), "Seconds in which a synthetic room's sound decays by 60 dB.")
    rir_folder: str | None = _option(None, "Rooms from impulse responses in this folder, instead of synthetic ones.")
    speed_probability: float = _option(0.0, "Probability with which a clip is played faster or slower, pitch included.")
    speed_factors: list[float] = _list_option((0.9, 1.1), "How fast; 1.1 makes 10 s of speech 9.1 s.")
    band_probability: float = _option(0.0, "Probability with which a clip loses part of its frequencies.")
    band_kinds: list[str] = _list_option(
        BANDS, "Drawn from: low-pass (2 to 7 kHz), high-pass (80 to 400 Hz), telephone (300 to 3,400 Hz)."
    )
    codec_probability: float = _option(0.0, "Probability with which a clip goes through a lossy codec.")
    codecs: list[str] = _list_option(CODECS, "Drawn from: mu-law (telephone, 8 kHz), mp3 (16, 24 or 32 kbit/s).")
    gain_probability: float = _option(0.0, "Probability with which a clip is made louder or softer.")
    gain_db: list[float] = _list_option((-20.0, 10.0), "By how much in dB; never beyond full scale.")
    silence_share: float = _option(
        0.0, "Extra clips of noise or digital silence with an empty transcript, as a share of the dataset's clips."
    )

    def __post_init__(self) -> None:
        for name in (*PROBABILITIES, "silence_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise TinyAudioError(f"training.augment.{name} is {getattr(self, name)}; expected 0 to 1.")
        for name, (least, most) in LIMITS.items():
            given = getattr(self, name)
            if len(given) != 2 or not least <= given[0] <= given[1] <= most:
                raise TinyAudioError(
                    f"training.augment.{name} is {given}; expected [LEAST,MOST], two numbers from {least} to {most}."
                )
        for name, known in KINDS.items():
            given = getattr(self, name)
            if not given or not set(given) <= set(known):
                raise TinyAudioError(f"training.augment.{name} is {given}; expected some of {', '.join(known)}.")

    @property
    def active(self) -> bool:
        """Whether anything is asked for."""
        return any(getattr(self, name) for name in (*PROBABILITIES, "silence_share"))

    @property
    def batch_share(self) -> float:
        """Of a batch's seconds, what the dataset's clips may take before some become slower and silent ones are added."""
        slowest = min(1.0, self.speed_factors[0]) if self.speed_probability else 1.0
        return slowest / (1 + self.silence_share)


class Recordings:
    """Audio files of a folder and of those inside it, each decoded when it is first asked for.

    Raises:
        TinyAudioError: no folder, no audio files in it, or files that cannot be read.
    """

    def __init__(self, folder: str) -> None:
        found = Path(folder).expanduser()
        self.files = sorted(
            path for path in found.rglob("[!.]*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()
        )
        if not self.files:
            problem = "holds no audio files" if found.is_dir() else "is no folder"
            raise TinyAudioError(f"{folder} {problem}; expected a folder with noise or room responses as audio files.")
        seconds = probe_durations(partial(str, path) for path in self.files)
        bad = [path.name for path, length in zip(self.files, seconds, strict=True) if not length > 0]
        if bad:
            names = ", ".join(bad[:3]) + (", …" if len(bad) > 3 else "")
            raise TinyAudioError(
                f"{len(bad)} of the {len(seconds)} audio files of {folder} cannot be read: {names}; remove them."
            )
        self._kept: dict[int, np.ndarray] = {}
        self._room = RECORDING_BYTES

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_room": RECORDING_BYTES}

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One of them, float32 (samples,) mono at 16 kHz; a file that breaks off in its middle is a moment of silence."""
        index = int(rng.integers(len(self.files)))
        if index in self._kept:
            return self._kept[index]
        try:
            waveform = next(stream_audio(str(self.files[index]), block_seconds=RECORDING_SECONDS))
        except (ValueError, OSError):
            waveform = np.zeros(1, dtype=np.float32)
        if waveform.nbytes <= self._room:
            self._kept[index] = waveform
            self._room -= waveform.nbytes
        return waveform


class Augmentation:
    """Changes the waveforms of training batches, and adds clips of silence to them.

    A clip's changes follow from the seed, the number of its batch in the run and its place in the batch.

    Args:
        settings: what is drawn, and how often.
        max_samples: the encoder's window at 16 kHz, which no clip is slowed down to exceed.
        seed: of the draws.
        number: gives the number of the batch that is being made, and is asked once a batch.

    Raises:
        TinyAudioError: a folder of noise or rooms cannot be used.
    """

    def __init__(
        self, settings: AugmentSettings, max_samples: int | None, seed: int, number: Callable[[], int]
    ) -> None:
        self.settings, self.max_samples, self.seed, self.number = settings, max_samples, seed, number
        self.noises = Recordings(settings.noise_folder) if settings.noise_folder else None
        self.rooms = Recordings(settings.rir_folder) if settings.rir_folder else None

    def __call__(self, clips: Sequence[Example]) -> list[Example]:
        """The clips as they are trained on, and after them the silent ones; the given ones are left as they are."""
        number = self.number()
        waveforms = [clip.waveform for clip in clips]
        changed = []
        for place, clip in enumerate(clips):
            rng = np.random.default_rng((self.seed, number, place))
            others = waveforms[:place] + waveforms[place + 1 :]
            waveform = self._as_heard(clip.waveform, others, rng)
            changed.append(replace(clip, waveform=waveform, duration=_seconds(waveform)))
        return changed + self._silent_clips(waveforms, number)

    def _silent_clips(self, waveforms: list[np.ndarray], number: int) -> list[Example]:
        """As many as the share says, on average; each is as long as some clip of the batch."""
        rng = np.random.default_rng((self.seed, number, len(waveforms)))
        count = int(len(waveforms) * self.settings.silence_share + rng.random())
        lengths = [len(waveforms[index]) for index in rng.integers(len(waveforms), size=count)]
        silent = [self._recorded(self._silence(length, rng), rng) for length in lengths]
        return [Example(f"silence-{number}-{i}", noise, "", _seconds(noise)) for i, noise in enumerate(silent)]

    def _silence(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < DIGITAL_SILENCE:
            return np.zeros(samples, dtype=np.float32)
        return effects.at_level(np.resize(self._noise(samples, [], rng), samples), _between(SILENCE_DBFS, rng))

    def _as_heard(self, waveform: np.ndarray, others: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Speech on its way through the room into the recording."""
        given = self.settings
        if rng.random() < given.speed_probability:
            waveform = effects.change_speed(waveform, self._speed(len(waveform), rng))
        if rng.random() < given.reverb_probability:
            waveform = effects.reverberate(waveform, self._room(rng))
        if rng.random() < given.noise_probability:
            noise = self._noise(len(waveform), others, rng)
            waveform = effects.add_noise(waveform, noise, _between(given.noise_snr_db, rng))
        return self._recorded(waveform, rng)

    def _recorded(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        given = self.settings
        if rng.random() < given.band_probability:
            waveform = effects.limit_band(waveform, *self._band(rng))
        if rng.random() < given.codec_probability:
            mp3 = partial(effects.mp3, bit_rate=_one_of(MP3_BIT_RATES, rng))
            waveform = (mp3 if _one_of(given.codecs, rng) == "mp3" else effects.mu_law)(waveform)
        if rng.random() < given.gain_probability:
            waveform = effects.change_gain(waveform, _between(given.gain_db, rng))
        return waveform

    def _speed(self, samples: int, rng: np.random.Generator) -> float:
        """Hundredths, so that a clip stays inside the encoder's window."""
        slowest = 0.0 if self.max_samples is None else np.ceil(100 * samples / self.max_samples) / 100
        return max(slowest, _between(self.settings.speed_factors, rng))

    def _room(self, rng: np.random.Generator) -> np.ndarray:
        if self.rooms is not None:
            return self.rooms.draw(rng)
        return effects.room_response(_between(self.settings.reverb_rt60, rng), _between(DIRECT_DB, rng), rng)

    def _noise(self, samples: int, others: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """At least one sample; where there are no other clips to make babble of, pink noise."""
        if self.noises is not None:
            recording = self.noises.draw(rng)
            start = int(rng.integers(max(1, len(recording) - samples + 1)))
            return recording[start : start + samples]
        kind = _one_of(self.settings.noise_kinds, rng)
        if kind != "babble":
            return effects.coloured_noise(samples, kind, rng)
        if not others:
            return effects.coloured_noise(samples, "pink", rng)
        return effects.babble(others, samples, int(rng.integers(*BABBLE_VOICES, endpoint=True)), rng)

    def _band(self, rng: np.random.Generator) -> list[float | None]:
        limits = BANDS[_one_of(self.settings.band_kinds, rng)]
        return [None if limit is None else _between(limit, rng) for limit in limits]


def _seconds(waveform: np.ndarray) -> float:
    return len(waveform) / SAMPLING_RATE


def _between(limits: Sequence[float], rng: np.random.Generator) -> float:
    return float(rng.uniform(limits[0], limits[1]))


def _one_of(choices: Sequence[Any], rng: np.random.Generator) -> Any:
    return choices[int(rng.integers(len(choices)))]
