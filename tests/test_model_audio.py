"""Audio in: every common form and rate, bad input, and long recordings cut into windows."""

import io
import os
import subprocess
import sys
import wave

import av
import numpy as np
import pytest
from data_helpers import encoded

from tiny_audio.audio.reading import load_audio, stream_audio
from tiny_audio.audio.segment import is_silent, quietest_cut, split_windows


def write_wav(path, samples: np.ndarray, rate: int, width: int = 2):
    """samples (frames,) or (frames, channels) in [-1, 1]."""
    samples = samples if samples.ndim == 2 else samples[:, None]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        scaled = samples * 127 + 128 if width == 1 else samples * 32767
        file.writeframes(scaled.astype(np.uint8 if width == 1 else np.int16).tobytes())
    return path


def sine(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def peak_hertz(waveform: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(waveform))) * 16_000 / len(waveform))


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile secret.wav\n",
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.wav\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_what_names_other_files_is_no_audio(kind, tmp_path, monkeypatch):
    """A stranger's bytes must not make FFmpeg open a file of this machine, or its network."""
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "secret.wav", sine(1.0, 16_000), 16_000)
    with pytest.raises(ValueError, match="not readable audio"):
        load_audio(PLAYLISTS[kind].encode())


def test_a_stream_that_begins_in_mid_file_is_damage():
    """PyAV has no name for it: an IndexError of its own."""
    damaged = bytearray(encoded(sine(1.0, 16_000), "mpegts", "aac"))
    damaged[26 * 188 + 2] = 31  # in the header of the 27th packet: which stream it belongs to
    with pytest.raises(ValueError, match="changes in mid-file"):
        load_audio(bytes(damaged))


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("width", [1, 2])
def test_any_rate_width_and_channels(tmp_path, rate, channels, width):
    samples = np.repeat(sine(1.0, rate)[:, None], channels, axis=1)
    waveform = load_audio(write_wav(tmp_path / "a.wav", samples, rate, width))
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert abs(len(waveform) - 16_000) <= 40
    assert abs(peak_hertz(waveform) - 440) < 3
    assert 0.05 < np.abs(waveform).max() <= 1.1


@pytest.mark.parametrize("channels", [8, 9, 64])
def test_many_channels_are_averaged(tmp_path, channels):
    """PyAV's planar arrays reach beyond 8 planes, and end the process."""
    levels = np.linspace(0.1, 0.3, channels)
    waveform = load_audio(write_wav(tmp_path / "a.wav", np.tile(levels, (44_100, 1)), 44_100))
    assert len(waveform) == 16_000
    np.testing.assert_allclose(waveform[100:-100], 0.2, atol=1e-3)


@pytest.mark.parametrize("codec, suffix", [("flac", "flac"), ("libmp3lame", "mp3"), ("libopus", "ogg"), ("aac", "m4a")])
def test_compressed_formats(tmp_path, codec, suffix):
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        resampler = av.AudioResampler(
            format=stream.format.name, layout="mono", rate=48_000, frame_size=stream.frame_size or 1024
        )
        frame = av.AudioFrame.from_ndarray(sine(1.0, 48_000)[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        for part in (frame, None):
            for piece in resampler.resample(part):
                container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    waveform = load_audio(path)
    assert abs(len(waveform) - 16_000) < 1_600 and abs(peak_hertz(waveform) - 440) < 3


def test_arrays_bytes_files_and_dicts_agree(tmp_path):
    path = write_wav(tmp_path / "a.wav", sine(0.5, 16_000), 16_000)
    expected = load_audio(path)
    forms = [str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), expected, expected[:, None], list(expected)]
    forms += [
        {"array": expected, "sampling_rate": 16_000},
        {"bytes": path.read_bytes(), "path": None},
        {"path": str(path)},
    ]
    for form in forms:
        np.testing.assert_allclose(load_audio(form), expected, atol=1e-6)


def test_array_rates_and_stereo():
    stereo = np.stack([sine(1.0, 48_000), sine(1.0, 48_000)], axis=1)
    for array in (stereo, stereo.T, (stereo * 32767).astype(np.int16)):
        waveform = load_audio({"array": array, "sampling_rate": 48_000})
        assert abs(len(waveform) - 16_000) <= 40 and abs(peak_hertz(waveform) - 440) < 3
    assert abs(peak_hertz(load_audio(sine(1.0, 8_000), sampling_rate=8_000)) - 440) < 3


def test_too_few_samples_to_resample_are_none():
    with pytest.raises(ValueError, match="holds no audio samples"):
        load_audio([0.1], sampling_rate=384_000)


def test_without_pyav_arrays_and_files_are_read_too(monkeypatch, tmp_path):
    stereo = write_wav(tmp_path / "a.wav", np.stack([sine(1.0, 44_100)] * 2, axis=1), 44_100)
    monkeypatch.setattr("tiny_audio.audio.reading.av", None)
    for source in ({"array": sine(1.0, 44_100), "sampling_rate": 44_100}, stereo, stereo.read_bytes()):
        waveform = load_audio(source)
        assert len(waveform) == 16_000 and abs(peak_hertz(waveform) - 440) < 2
    with pytest.raises(ValueError, match="not readable audio"):
        load_audio(b"no audio")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ValueError, match="pip install av"):
        load_audio(stereo)


@pytest.mark.parametrize(
    "content, message",
    [(b"", "empty"), (b"this is not audio at all, only a line of text\n" * 40, "not readable audio")],
)
def test_not_audio(tmp_path, content, message):
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(ValueError, match=message):
            load_audio(source)


def test_header_without_samples(tmp_path):
    with pytest.raises(ValueError, match="no audio samples"):
        load_audio(write_wav(tmp_path / "a.wav", np.zeros(0), 16_000))
    with pytest.raises(ValueError, match="no audio samples"):
        load_audio(np.zeros(0, np.float32))


def test_nan_and_infinity():
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            load_audio(np.array([0.0, bad, 0.1], np.float32))


def test_missing_folder_and_unreadable(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_audio(tmp_path / "none.wav")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_audio(tmp_path)
    with pytest.raises(ValueError, match="expected a path, URL"):
        load_audio(3.5)


def test_a_file_that_may_not_be_read(tmp_path):
    path = write_wav(tmp_path / "a.wav", sine(0.1, 16_000), 16_000)
    path.chmod(0)
    script = (
        "import sys\nfrom tiny_audio.audio.reading import load_audio\n"
        "try:\n    load_audio(sys.argv[1])\nexcept PermissionError as error:\n    print(error)"
    )
    command = [sys.executable, "-c", script, str(path)]
    if os.geteuid() == 0:  # root reads everything until it gives that up
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "may not be read; give yourself read permission" in result.stdout, result.stderr


def test_streamed_blocks_join_to_the_whole(tmp_path):
    path = write_wav(tmp_path / "a.wav", sine(3.3, 44_100), 44_100)
    blocks = list(stream_audio(path, block_seconds=1.0))
    assert [len(block) for block in blocks[:3]] == [16_000] * 3
    np.testing.assert_array_equal(np.concatenate(blocks), load_audio(path))


def test_windows_join_to_the_input_and_cut_where_it_is_quiet():
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.2, 16_000 * 100).astype(np.float32)
    pauses = [27.0, 55.0, 80.0]  # seconds
    for pause in pauses:
        speech[int((pause - 0.2) * 16_000) : int((pause + 0.2) * 16_000)] *= 0.001
    windows = list(split_windows(np.array_split(speech, 7), 480_000))
    np.testing.assert_array_equal(np.concatenate([window.waveform for window in windows]), speech)
    assert [window.start for window in windows] == [0, *np.cumsum([len(window.waveform) for window in windows])[:-1]]
    cuts = [window.start / 16_000 for window in windows[1:]]
    assert len(cuts) == 3 and all(abs(cut - pause) < 0.2 for cut, pause in zip(cuts, pauses, strict=True))


@pytest.mark.parametrize("samples", [1, 100, 480_000, 480_001, 960_000])
def test_no_window_is_too_long_or_empty(samples):
    windows = list(split_windows([np.ones(samples, np.float32)], 480_000))
    assert all(0 < len(window.waveform) <= 480_000 for window in windows)
    assert sum(len(window.waveform) for window in windows) == samples
    assert 0 < quietest_cut(np.ones(480_000, np.float32)) <= 480_000


def test_digital_silence_is_known():
    assert is_silent(np.zeros(100, np.float32)) and not is_silent(np.full(100, 0.01, np.float32))
