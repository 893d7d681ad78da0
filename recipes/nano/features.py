"""Log-mel of the production extractor, before its clamp, and augmentation of waveforms and of cached log-mel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.signal import fftconvolve

SAMPLING_RATE = 16_000
HOP, WINDOW, MELS = 160, 400, 128  # samples, samples, bands
FLOOR = 1e-10  # power
TELEPHONE_BAND_HZ = (3300.0, 4000.0)

Rng = np.random.Generator


@lru_cache
def mel_filters() -> np.ndarray:
    """(201, 128) Slaney filters, those of WhisperFeatureExtractor."""
    from transformers.audio_utils import mel_filter_bank

    return mel_filter_bank(1 + WINDOW // 2, MELS, 0.0, 8000.0, SAMPLING_RATE, norm="slaney", mel_scale="slaney").astype(
        np.float32
    )


@lru_cache
def mel_centres_hz() -> np.ndarray:
    """(128,) centre of each band in Hz."""
    return mel_filters().argmax(0) * (SAMPLING_RATE / WINDOW)


def raw_log_mel(waveform: np.ndarray) -> np.ndarray:
    """(samples,) at 16 kHz → (samples // 160, 128) log10 power, without Whisper's clamp and scaling."""
    ended = np.pad(waveform.astype(np.float32), (0, WINDOW // 2))  # the extractor pads with zeros, and reflects before
    padded = np.pad(ended, (WINDOW // 2, 0), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: len(waveform) // HOP]
    hann = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    power = np.abs(np.fft.rfft(frames * hann, axis=-1)).astype(np.float32) ** 2
    return np.log10(np.maximum(power @ mel_filters(), FLOOR))


def scaled(mel: np.ndarray) -> np.ndarray:
    """Whisper's clamp (8 below the clip's maximum, in log10 power) and scaling of raw log-mel."""
    return (np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0


# --- waveforms -------------------------------------------------------------------------------------------------------


def coloured_noise(rng: Rng, samples: int, exponent: float) -> np.ndarray:
    """(samples,) noise of unit RMS whose power falls as f^-exponent: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** (-exponent / 2)
    noise = np.fft.irfft(spectrum, samples)
    return noise / (noise.std() + 1e-9)


def hum(rng: Rng, samples: int) -> np.ndarray:
    """(samples,) mains hum of 50 or 60 Hz with harmonics, unit RMS."""
    seconds = np.arange(samples) / SAMPLING_RATE
    base = rng.choice([50.0, 60.0])
    wave = sum(rng.uniform(0, 1) / k * np.sin(2 * np.pi * (base * k * seconds + rng.uniform())) for k in range(1, 8))
    return wave / (np.std(wave) + 1e-9)


def add_noise(rng: Rng, waveform: np.ndarray, snr_db: float) -> np.ndarray:
    """The waveform with one kind of noise at a signal-to-noise ratio in dB."""
    kind = rng.integers(4)
    samples = len(waveform)
    noise = hum(rng, samples) if kind == 3 else coloured_noise(rng, samples, float(kind) * rng.uniform(0.6, 1.0))
    level = np.sqrt(np.mean(waveform**2)) * 10 ** (-snr_db / 20)
    return waveform + noise * level


def add_room(rng: Rng, waveform: np.ndarray) -> np.ndarray:
    """The waveform in a room: exponentially decaying noise as impulse response, RT60 0.1 to 0.5 s."""
    rt60 = rng.uniform(0.1, 0.5)
    seconds = np.arange(int(rt60 * SAMPLING_RATE)) / SAMPLING_RATE
    impulse = rng.standard_normal(len(seconds)) * np.exp(-6.9 * seconds / rt60)
    impulse *= rng.uniform(0.1, 0.6) / (np.sqrt(np.sum(impulse**2)) + 1e-9)  # reverberant against direct energy
    impulse[0] = 1.0
    return fftconvolve(waveform, impulse)[: len(waveform)]


def with_pauses(rng: Rng, waveform: np.ndarray, most_seconds: float = 0.4) -> np.ndarray:
    """The waveform with silence before and after it."""
    before, after = (int(s * SAMPLING_RATE) for s in rng.uniform(0.0, most_seconds, 2))
    return np.pad(waveform, (before, after))


def degrade(rng: Rng, waveform: np.ndarray, *, room: float, noise: float, snr_db: tuple[float, float]) -> np.ndarray:
    """Pauses, and with the given probabilities a room and noise; peak at most 0.95."""
    waveform = with_pauses(rng, waveform)
    if rng.random() < room:
        waveform = add_room(rng, waveform)
    if rng.random() < noise:
        waveform = add_noise(rng, waveform, rng.uniform(*snr_db))
    peak = np.abs(waveform).max() + 1e-9
    return (waveform * (rng.uniform(0.2, 0.95) / peak)).astype(np.float32)


# --- cached log-mel --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MelAugmentation:
    """How strongly cached log-mel is changed each time it is used."""

    warp: float = 0.12  # vocal-tract length, as a share of frequency
    speed: tuple[float, float] = (0.85, 1.18)
    gain_db: float = 10.0
    equaliser_db: float = 5.0
    noise: float = 0.3  # probability
    snr_db: tuple[float, float] = (3.0, 30.0)
    telephone: float = 0.2  # probability of a band limit
    time_masks: int = 2
    time_mask_frames: int = 10
    frequency_masks: int = 2
    frequency_mask_bands: int = 12

    def weakened(self, strength: float) -> MelAugmentation:
        """The same at a strength from 0 to 1; the speed is not its matter."""
        return replace(
            self,
            warp=self.warp * strength,
            equaliser_db=self.equaliser_db * strength,
            noise=self.noise * strength,
            telephone=self.telephone * strength,
            time_mask_frames=max(1, int(self.time_mask_frames * strength)),
            frequency_mask_bands=max(1, int(self.frequency_mask_bands * strength)),
        )


@lru_cache(maxsize=512)
def _warp_matrix(percent: int) -> np.ndarray:
    """(128, 128) interpolation that moves the energy of frequency f to f × (1 + percent/100)."""
    centres = np.interp(np.arange(MELS), np.arange(MELS), mel_centres_hz())
    centres = np.maximum.accumulate(centres + np.arange(MELS) * 1e-3)
    source = np.interp(centres / (1 + percent / 100), centres, np.arange(MELS))
    low = np.floor(source).astype(int).clip(0, MELS - 2)
    matrix = np.zeros((MELS, MELS), np.float32)
    matrix[low, np.arange(MELS)] = 1 - (source - low)
    matrix[low + 1, np.arange(MELS)] = source - low
    return matrix


def change_speed(mel: np.ndarray, rate: float) -> np.ndarray:
    """(frames, 128) → (frames / rate, 128) by linear interpolation in time."""
    frames = max(4, int(len(mel) / rate))
    source = np.linspace(0, len(mel) - 1, frames)
    low = source.astype(int).clip(0, max(len(mel) - 2, 0))
    share = (source - low)[:, None].astype(np.float32)
    return mel[low] * (1 - share) + mel[np.minimum(low + 1, len(mel) - 1)] * share


def _noise_bands(rng: Rng, frames: int, babble: np.ndarray | None) -> np.ndarray:
    """(frames, 128) raw log-mel of noise: a coloured one, or other people's speech."""
    if babble is not None and rng.random() < 0.35:
        start = rng.integers(max(1, len(babble)))
        return np.take(babble, np.arange(start, start + frames), axis=0, mode="wrap")
    tilt = rng.uniform(-1.6, 0.3) * np.log10(np.maximum(mel_centres_hz(), 60.0) / 1000)
    flutter = np.log10(rng.gamma(3.0, 1 / 3.0, (frames, MELS)) + 1e-3)  # a band's power over one frame is not constant
    return (tilt + flutter).astype(np.float32)


def mix_noise(rng: Rng, mel: np.ndarray, snr_db: float, babble: np.ndarray | None = None) -> np.ndarray:
    """Raw log-mel with noise added in the power domain at a ratio of the mean powers in dB."""
    noise = _noise_bands(rng, len(mel), babble).astype(np.float32)
    signal_power, noise_power = np.power(10.0, mel), np.power(10.0, noise)
    level = signal_power.mean() / (noise_power.mean() + 1e-12) * 10 ** (-snr_db / 10)
    return np.log10(signal_power + noise_power * level + FLOOR)


def _equaliser(rng: Rng, strength_db: float) -> np.ndarray:
    """(128,) smooth random gain per band in log10 power."""
    knots = rng.uniform(-strength_db, strength_db, 6) / 10
    return np.interp(np.arange(MELS), np.linspace(0, MELS - 1, 6), knots).astype(np.float32)


def _limit_band(rng: Rng, mel: np.ndarray) -> None:
    """Takes away what is above the telephone band, in place."""
    cut = np.searchsorted(mel_centres_hz(), rng.uniform(*TELEPHONE_BAND_HZ))
    mel[:, cut:] = np.minimum(mel[:, cut:], mel.max() - rng.uniform(6.0, 9.0))


def _mask(rng: Rng, mel: np.ndarray, settings: MelAugmentation) -> None:
    """SpecAugment on raw log-mel, in place: masked parts take the clip's mean."""
    mean = mel.mean()
    for _ in range(rng.integers(settings.time_masks + 1)):
        width = int(rng.integers(1, min(settings.time_mask_frames, max(2, len(mel) // 6)) + 1))
        start = rng.integers(max(1, len(mel) - width))
        mel[start : start + width] = mean
    for _ in range(rng.integers(settings.frequency_masks + 1)):
        width = int(rng.integers(1, settings.frequency_mask_bands + 1))
        start = rng.integers(MELS - width)
        mel[:, start : start + width] = mean


def augment(
    rng: Rng, mel: np.ndarray, settings: MelAugmentation, babble: np.ndarray | None = None, speed: float | None = None
) -> np.ndarray:
    """(frames, 128) raw log-mel → another plausible recording of the same words, scaled as Whisper does."""
    mel = change_speed(mel.astype(np.float32), speed or rng.uniform(*settings.speed))
    mel = mel @ _warp_matrix(round(100 * rng.uniform(-settings.warp, settings.warp)))
    mel += rng.uniform(-settings.gain_db, settings.gain_db) / 10 + _equaliser(rng, settings.equaliser_db)
    if rng.random() < settings.noise:
        mel = mix_noise(rng, mel, rng.uniform(*settings.snr_db), babble)
    if rng.random() < settings.telephone:
        _limit_band(rng, mel)
    _mask(rng, mel, settings)
    return scaled(mel)
