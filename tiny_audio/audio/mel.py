"""A waveform as log-mel frames, as Whisper's and GLM-ASR's encoders know them."""

import numpy as np
import torch

HOP_LENGTH = 160  # samples between two mel frames: 100 frames a second
N_FFT = 400  # samples, 25 ms


def log_mel(
    waveform: np.ndarray, mel_filters: torch.Tensor, window_samples: int, full_window: bool = False
) -> torch.Tensor:
    """Log-mel frames of one clip as WhisperFeatureExtractor gives them for it padded to the window with zeros.

    (samples,) at 16 kHz and (201, mels) filters → (mels, samples // 160) float32, or (mels, window_samples // 160) with
    `full_window`. `window_samples` is the encoder's window, at which the extractor's own zeros end.
    """
    samples = len(waveform)
    size = window_samples if full_window else min(samples + N_FFT, window_samples)
    padded = torch.zeros(max(size, samples, N_FFT))
    padded[:samples] = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
    stft = torch.stft(padded, N_FFT, HOP_LENGTH, window=torch.hann_window(N_FFT), return_complex=True)
    power = (stft[:, :-1].abs() ** 2).contiguous()
    log_spec = torch.clamp(mel_filters.T @ power, min=1e-10).log10()
    log_spec = (torch.maximum(log_spec, log_spec.max() - 8.0) + 4.0) / 4.0
    return log_spec if full_window else log_spec[:, : samples // HOP_LENGTH]
