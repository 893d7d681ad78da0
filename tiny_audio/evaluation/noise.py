"""How noisy a clip is: its signal-to-noise ratio, estimated from the loudness of its frames."""

import numpy as np

FRAME_SAMPLES = 320  # 20 ms at 16 kHz
SPEECH_PERCENTILE, NOISE_PERCENTILE = 95, 10  # of the frames' power
RANGE_DB = (-20.0, 80.0)


def estimate_snr(waveform: np.ndarray) -> float | None:
    """The ratio in dB of a clip's loud frames to its quiet ones, as NIST's STNR takes it from the histogram of power.

    It needs pauses: in a clip that is speech from end to end the softest speech counts as noise.

    Args:
        waveform: float32 (samples,) at 16 kHz.

    Returns:
        -20 to 80 dB; None for a clip of under 0.1 s or of silence.
    """
    frames = waveform[: len(waveform) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    if len(frames) < 5:
        return None
    power = np.einsum("ij,ij->i", frames, frames) / FRAME_SAMPLES
    noise, loud = np.percentile(power, [NOISE_PERCENTILE, SPEECH_PERCENTILE])
    if loud <= 0:
        return None
    signal = max(float(loud - noise), 1e-12)
    return round(float(np.clip(10 * np.log10(signal / max(float(noise), 1e-12)), *RANGE_DB)), 1)
