"""`ta transcribe`: one file as it is decoded, many in order, folders, standard input, formats, and files that are bad."""

import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.transcription import (
    AudioFile,
    Segment,
    Transcript,
    find_audio,
    load_model,
    output_paths,
    render,
    transcribe_files,
    write_whole,
)

SAMPLING_RATE = 16_000  # Hz


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_model(str(tiny_checkpoint), device="cpu")


def wav_bytes(waveform: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, SAMPLING_RATE, 0, "NONE", ""))
        file.writeframes((waveform * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture
def clips(tmp_path, tone) -> Path:
    """A folder: a.wav, sub/b.wav of other lengths, and a text that is no audio."""
    folder = tmp_path / "clips"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.wav").write_bytes(wav_bytes(tone(0.7)))
    (folder / "sub" / "b.WAV").write_bytes(wav_bytes(tone(1.3, 300)))
    (folder / "notes.txt").write_text("not audio")
    (folder / "._a.wav").write_text("what some systems leave beside a file")
    return folder


def test_one_file_prints_its_text(tiny_checkpoint, model, clips, capsys):
    assert run(["transcribe", "-m", str(tiny_checkpoint), str(clips / "a.wav")]) == 0
    captured = capsys.readouterr()
    assert captured.out == model.transcribe(clips / "a.wav") + "\n"
    assert captured.out.strip()
    assert captured.err == ""


def test_a_folder_is_searched_and_the_order_kept(tiny_checkpoint, model, clips, capsys):
    assert run(["transcribe", "-m", str(tiny_checkpoint), str(clips), str(clips / "a.wav"), "--batch-size", "2"]) == 0
    paths = [clips / "a.wav", clips / "sub" / "b.WAV", clips / "a.wav"]
    expected = [f"{path}: {text}" for path, text in zip(paths, model.transcribe(paths), strict=True)]
    assert capsys.readouterr().out.splitlines() == expected


def test_standard_input(tiny_checkpoint, model, clips, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((clips / "a.wav").read_bytes())))
    assert run(["transcribe", "-m", str(tiny_checkpoint), "-"]) == 0
    assert capsys.readouterr().out == model.transcribe(clips / "a.wav") + "\n"


def test_options_of_decoding_act(tiny_checkpoint, model, clips, capsys):
    clip = str(clips / "a.wav")
    for options, generation in [
        (["--max-new-tokens", "2"], {"max_new_tokens": 2}),
        (["--num-beams", "3"], {"num_beams": 3}),
    ]:
        assert run(["transcribe", "-m", str(tiny_checkpoint), *options, clip]) == 0
        assert capsys.readouterr().out == model.transcribe(clip, **generation) + "\n"


def test_dtype_acts(tiny_checkpoint):
    parameters = load_model(str(tiny_checkpoint), device="cpu", dtype="bfloat16").parameters()
    assert {str(parameter.dtype) for parameter in parameters} == {"torch.bfloat16"}


def test_bad_files_are_named_and_the_others_go_on(tiny_checkpoint, clips, capsys):
    empty, missing = clips / "empty.wav", clips / "missing.wav"
    empty.touch()
    files = [str(path) for path in (clips / "notes.txt", clips / "a.wav", empty, missing)]
    assert run(["transcribe", "-m", str(tiny_checkpoint), *files]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{clips / 'a.wav'}: ")
    assert captured.out.count("\n") == 1
    errors = captured.err.splitlines()
    assert [line.split()[1] for line in errors] == [files[0], files[2], files[3]]
    assert all(line.startswith("Error: ") for line in errors)


def bad_files(folder: Path) -> dict[str, str]:
    """Every kind of bad file, with a part of its message."""
    (folder / "text.wav").write_text("hello")
    (folder / "empty.wav").touch()
    (folder / "none.wav").write_bytes(wav_bytes(np.zeros(0)))
    (folder / "nan.wav").write_bytes(float_wav(np.full(8000, np.nan, np.float32)))
    (folder / "folder").mkdir()
    return {
        "text.wav": "not readable audio",
        "empty.wav": "is empty",
        "none.wav": "no audio samples",
        "nan.wav": "NaN",
        "folder": "no audio files",
        "missing.wav": "does not exist",
    }


def float_wav(waveform: np.ndarray) -> bytes:
    data = waveform.astype("<f4").tobytes()
    form = np.array([3, 1], "<u2").tobytes() + np.array([SAMPLING_RATE, 4 * SAMPLING_RATE], "<u4").tobytes()
    form += np.array([4, 32], "<u2").tobytes()
    chunks = b"fmt " + np.uint32(16).tobytes() + form + b"data" + np.uint32(len(data)).tobytes() + data
    return b"RIFF" + np.uint32(4 + len(chunks)).tobytes() + b"WAVE" + chunks


def test_each_kind_of_bad_file_alone_and_among_others(model, tiny_checkpoint, tmp_path, capsys):
    bad = bad_files(tmp_path)
    names = [str(tmp_path / name) for name in bad]
    results = list(transcribe_files(model, find_audio(names)))
    assert len(results) == len(bad)
    for result, message in zip(results, bad.values(), strict=True):
        assert message in result.error
    for name, message in zip(names, bad.values(), strict=True):
        assert run(["transcribe", "-m", str(tiny_checkpoint), name]) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("Error: ")
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""


def test_json_of_one_file_holds_the_windows(tiny_checkpoint, model, clips, capsys):
    assert run(["transcribe", "-m", str(tiny_checkpoint), "--format", "json", str(clips / "a.wav")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["file"] == str(clips / "a.wav")
    assert document["text"] == model.transcribe(clips / "a.wav")
    (segment,) = document["segments"]
    assert (segment["text"], segment["start"], segment["end"]) == (document["text"], 0.0, 0.7)


def test_a_recording_over_the_window_has_a_cue_for_each_window(model, tmp_path, tone):
    clip = tmp_path / "long.wav"
    clip.write_bytes(wav_bytes(tone(70)))
    (transcript,) = transcribe_files(model, find_audio([str(clip)]), batch_size=2)
    starts, ends = [s.start for s in transcript.segments], [s.end for s in transcript.segments]
    assert len(starts) >= 3
    assert starts == [0.0, *ends[:-1]]
    assert ends[-1] == pytest.approx(70, abs=0.01)
    assert all(end - start <= 30 for start, end in zip(starts, ends, strict=True))


def test_output_files(tiny_checkpoint, model, clips, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["transcribe", "-m", str(tiny_checkpoint), "--format", "srt", "--output-dir", str(out), str(clips)]
    assert run([*arguments, str(clips / "notes.txt")]) == 1
    assert capsys.readouterr().out == ""
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == ["a.srt", "sub/b.srt"]
    text = model.transcribe(clips / "a.wav")
    assert (out / "a.srt").read_text() == f"1\n00:00:00,000 --> 00:00:00,700\n{text}\n"


def test_subtitles_of_several_files_need_a_folder(clips, capsys):
    assert run(["transcribe", "--format", "vtt", str(clips)]) == 2
    assert "--output-dir" in capsys.readouterr().err


def two_cues() -> Transcript:
    segments = [Segment("one", 0.0, 29.5), Segment("", 29.5, 59.0), Segment("two", 59.0, 3723.25)]
    return Transcript(AudioFile("a.wav", None, Path("a.wav")), segments)


def test_formats():
    transcript = two_cues()
    assert render(transcript, "txt") == "one two\n"
    assert render(transcript, "srt") == (
        "1\n00:00:00,000 --> 00:00:29,500\none\n\n2\n00:00:59,000 --> 01:02:03,250\ntwo\n"
    )
    assert render(transcript, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:29.500\none\n\n00:00:59.000 --> 01:02:03.250\ntwo\n"
    )
    assert json.loads(render(transcript, "json"))["segments"][2] == {"text": "two", "start": 59.0, "end": 3723.25}


def test_names_that_meet_stay_apart():
    places = ["x/clip.wav", "x/clip.mp3", "y/clip.wav", "lone.wav", "lone.wav"]
    files = [AudioFile(place, None, Path(place)) for place in places]
    paths = [str(path) for path in output_paths(files, Path("out"), "txt")]
    expected = ["x/clip.wav.txt", "x/clip.mp3.txt", "y/clip.txt", "lone.wav.txt", "lone.wav-2.txt"]
    assert paths == [f"out/{name}" for name in expected]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_whole(tmp_path / "a.txt", "first")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a.txt", "half \ud800")
    assert (tmp_path / "a.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_unknown_device_and_model(tmp_path, capsys):
    with pytest.raises(TinyAudioError, match="abacus"):
        load_model(device="abacus")
    assert run(["transcribe", "-m", str(tmp_path / "nowhere"), "a.wav"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert "nowhere" in error
    assert error.count("\n") == 1


def test_in_python(tiny_checkpoint, clips):
    import tiny_audio

    text = tiny_audio.transcribe(clips / "a.wav", model=str(tiny_checkpoint))
    assert text.strip()
    assert tiny_audio.transcribe([clips / "a.wav"], model=str(tiny_checkpoint), batch_size=1) == [text]


def test_a_hub_id_without_network_is_one_line(capsys):
    assert run(["transcribe", "-m", "nobody/no-such-model", "a.wav"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: nobody/no-such-model")
    assert error.count("\n") == 1


def test_an_interrupt_is_one_line(tiny_checkpoint, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tiny_audio.transcription.find_audio", interrupt)
    assert run(["transcribe", "-m", str(tiny_checkpoint), "a.wav"]) == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"
