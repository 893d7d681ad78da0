"""What happens to speech before it is recorded, and by recording it: speed, rooms, noise, bands, codecs, gain.

Every function takes a waveform, float32 (samples,) at 16 kHz, and returns another one, within ±1: what would exceed it is
scaled down, never clipped. Only `change_speed` changes the length, and none shifts the speech by more than 2 ms.
"""

import io
from collections.abc import Sequence

import numpy as np
from scipy import signal
from scipy.fft import irfft, next_fast_len, rfftfreq

from tiny_audio.audio.reading import load_audio

from .durations import SAMPLING_RATE

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # noise's power falls with frequency to the power of this
LOWEST_NOISE_HZ = 20.0  # below, noise is no louder than here, or brown noise would be a drift that nobody hears
FILTER_ORDER = 4
MU = 255  # of G.711


def change_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Faster and higher (`factor` over 1) or slower and lower, as Kaldi's speed perturbation (Ko et al., 2015).

    The length is divided by `factor`, which is rounded to hundredths.
    """
    return _fitted(signal.resample_poly(waveform, 100, round(100 * factor)))


def reverberate(waveform: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The waveform in a room, as loud as before and at its place: the response counts from its largest sample on."""
    direct = response[np.abs(response).argmax() :]
    heard = signal.oaconvolve(waveform, direct)[: len(waveform)]
    return _fitted(_unit(heard) * np.sqrt(_power(waveform)))


def room_response(rt60: float, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """A room after Polack: the direct sound, and noise that decays by 60 dB in `rt60` seconds.

    Args:
        direct_db: energy of the direct sound over that of the rest.
    """
    times = np.arange(1, max(2, round(rt60 * SAMPLING_RATE))) / SAMPLING_RATE
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / rt60)
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.square(tail).sum())
    return np.concatenate([[1.0], tail]).astype(np.float32)


def add_noise(waveform: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """The waveform with noise, repeated or cut to its length.

    Args:
        snr_db: mean power of the whole clip, pauses included, over that of the noise. Silence stays silence.
    """
    scale = np.sqrt(_power(waveform)) * 10 ** (-snr_db / 20)
    return _fitted(waveform + _unit(np.resize(noise, len(waveform))) * scale)


def coloured_noise(samples: int, colour: str, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise (samples,) of one of the COLOURS, with a root mean square of 1."""
    size = next_fast_len(samples, real=True)
    shape = np.maximum(rfftfreq(size, 1 / SAMPLING_RATE), LOWEST_NOISE_HZ) ** (-COLOURS[colour] / 2)
    spectrum = rng.standard_normal((2, len(shape)), dtype=np.float32) * shape.astype(np.float32)
    return _unit(irfft(spectrum[0] + 1j * spectrum[1], size)[:samples])


def babble(voices: Sequence[np.ndarray], samples: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` voices, drawn from clips, that speak at once (samples,), each as loud as the others."""
    together = np.zeros(samples, dtype=np.float32)
    for index in rng.integers(len(voices), size=count):
        voice = np.roll(voices[index], rng.integers(len(voices[index])))
        together += np.resize(_unit(voice), samples)
    return _unit(together)


def limit_band(waveform: np.ndarray, low_hz: float | None, high_hz: float | None) -> np.ndarray:
    """What lies below `low_hz` and above `high_hz` is filtered out (Butterworth); None for no limit."""
    for hz, kind in ((low_hz, "highpass"), (high_hz, "lowpass")):
        if hz is not None:
            sections = signal.butter(FILTER_ORDER, hz, kind, fs=SAMPLING_RATE, output="sos")
            waveform = signal.sosfilt(sections, waveform)
    return _fitted(waveform)


def mu_law(waveform: np.ndarray) -> np.ndarray:
    """Through a telephone line: 8 kHz and the 8-bit mu-law of G.711, and back."""
    line = np.clip(signal.resample_poly(waveform, 1, 2), -1, 1)
    code = np.round(np.sign(line) * np.log1p(MU * np.abs(line)) / np.log1p(MU) * 127) / 127
    decoded = np.sign(code) * np.expm1(np.abs(code) * np.log1p(MU)) / MU
    return _fitted(signal.resample_poly(decoded, 2, 1)[: len(waveform)])


def mp3(waveform: np.ndarray, bit_rate: int) -> np.ndarray:
    """Through MP3 at `bit_rate` bits a second, and back; the file's header tells the decoder the encoder's delay."""
    import av

    file = io.BytesIO()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform[None]), format="fltp", layout="mono")
    frame.sample_rate = SAMPLING_RATE
    with av.open(file, "w", format="mp3") as container:
        options = {"compression_level": "9"}  # the fastest search
        stream = container.add_stream("libmp3lame", rate=SAMPLING_RATE, layout="mono", options=options)
        stream.bit_rate = bit_rate
        for part in (frame, None):
            container.mux(stream.encode(part))
    decoded = load_audio(file.getvalue())
    return _fitted(np.pad(decoded, (0, max(0, len(waveform) - len(decoded))))[: len(waveform)])


def change_gain(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    """Louder or softer."""
    return _fitted(waveform * 10 ** (gain_db / 20))


def at_level(waveform: np.ndarray, dbfs: float) -> np.ndarray:
    """Scaled to a root mean square of `dbfs`, in dB relative to full scale."""
    return change_gain(_unit(waveform), dbfs)


def _power(waveform: np.ndarray) -> float:
    return float(np.square(waveform, dtype=np.float64).mean())


def _unit(waveform: np.ndarray) -> np.ndarray:
    """With a root mean square of 1; silence stays silence."""
    return waveform / np.float32(np.sqrt(max(_power(waveform), 1e-20)))


def _fitted(waveform: np.ndarray) -> np.ndarray:
    return (waveform / max(1.0, float(np.abs(waveform).max()))).astype(np.float32, copy=False)
