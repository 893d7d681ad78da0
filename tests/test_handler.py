"""The handler of Inference Endpoints: every form of a request, called as their harness does, where tiny_audio is not."""

import ast
import base64
import io
import json
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from data_helpers import wav_bytes

from tiny_audio import ASRModel, embedded
from tiny_audio.audio.reading import load_audio
from tiny_audio.export import handler as handler_module
from tiny_audio.export.handler import BadRequest, EndpointHandler, TooLarge, read_form
from tiny_audio.model.pipeline import ASRPipeline

HANDLER_FILE = Path(handler_module.__file__)
CLIP = embedded("clips") / "send-a-message-to-jack.ogg"
OGG = CLIP.read_bytes()
BASE64 = base64.b64encode(OGG).decode()


def form(*parts: tuple[str, bytes, str], boundary: str = "----7MA4YWx") -> bytes:
    """A multipart/form-data body of (what follows the field's name, content, further header lines)."""
    lines = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}\r\n{header}\r\n'.encode() + content + b"\r\n"
        for name, content, header in parts
    ]
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


FILE_PART = ('file"; filename="clip.ogg"', OGG, "Content-Type: audio/ogg\r\n")
BEAMS_PART = ('num_beams"', b"2", "")


@pytest.fixture(scope="module")
def model() -> ASRModel:
    return ASRModel.from_pretrained(embedded("nano"))


@pytest.fixture(scope="module")
def handler(model) -> EndpointHandler:
    return EndpointHandler(recogniser=ASRPipeline(model=model), max_upload_mb=1, max_minutes=0.2)


@pytest.fixture(scope="module")
def text(model) -> str:
    said = model.transcribe(CLIP)
    assert len(said.split()) >= 4
    return said


# ---- as Inference Endpoints run it

HARNESS = """
import base64, importlib.util, json, sys
sys.modules["tiny_audio"] = None  # cannot be imported
folder, clip = sys.argv[1:]
spec = importlib.util.spec_from_file_location("handler", f"{folder}/handler.py")
sys.path.insert(0, folder)  # as the harness does: the checkpoint's own files come before all others
module = sys.modules["handler"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
handler = module.EndpointHandler(folder)
audio = open(clip, "rb").read()
text = base64.b64encode(audio).decode()
form = b'--x\\r\\nContent-Disposition: form-data; name="inputs"; filename="a.ogg"\\r\\n\\r\\n' + audio + b"\\r\\n--x--\\r\\n"
requests = [
    {"inputs": audio},
    {"inputs": text},
    {"inputs": f"data:audio/ogg;base64,{text}", "parameters": {"return_timestamps": "word"}},
    {"inputs": form},
    {"inputs": "/etc/passwd"},
    {"inputs": "https://example.com/a.wav"},
    {"inputs": clip},
    {"inputs": audio, "parameters": {"num_beams": 10**9}},
    {"inputs": audio},
]
answers = []
for request in requests:
    try:
        answers.append(handler(request))
    except Exception as error:  # which the harness answers with HTTP 400
        answers.append({"error": str(error)})
print(json.dumps(answers))
"""


def test_the_harness_of_endpoints_without_this_package(model, text, tmp_path):
    folder = tmp_path / "repository"
    model.save_pretrained(folder, self_contained=True)
    shutil.copy(HANDLER_FILE, folder / "handler.py")
    done = subprocess.run(
        [sys.executable, "-I", "-c", HARNESS, str(folder), str(CLIP)],
        check=False, capture_output=True, text=True, cwd=tmp_path, timeout=300,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *answers, last = json.loads(done.stdout.splitlines()[-1])
    for answer in (*answers[:4], last):
        assert answer["text"] == text
    assert [chunk["text"] for chunk in answers[2]["chunks"]] == text.split()
    assert all(set(answer) == {"error"} and "\n" not in answer["error"] for answer in answers[4:])
    for answer in answers[4:7]:
        assert "URL or path is never opened" in answer["error"]
    assert "num_beams is 1000000000; expected a whole number from 1 to 16" in answers[7]["error"]


def test_the_file_imports_only_what_endpoints_have():
    allowed = {"torch", "transformers", *sys.stdlib_module_names}
    for node in ast.walk(ast.parse(HANDLER_FILE.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert {name.split(".")[0] for name in names} <= allowed
        assert getattr(node, "level", 0) == 0


# ---- forms of audio


class Upload:
    """What web frameworks hand over for a file of a form."""

    def __init__(self, content: bytes) -> None:
        self.file = io.BytesIO(content)


SAMPLES = load_audio(CLIP)
REQUESTS = {
    "bytes": {"inputs": OGG},
    "a bytearray": {"inputs": bytearray(OGG)},
    "base64": {"inputs": BASE64},
    "base64 in lines": {"inputs": "\n".join(BASE64[i : i + 76] for i in range(0, len(BASE64), 76))},
    "a data URL": {"inputs": f"data:audio/ogg; codecs=opus;base64,{BASE64}"},
    "numbers": {"inputs": {"array": SAMPLES.tolist(), "sampling_rate": 16_000}},
    "raw numbers": {"inputs": {"raw": SAMPLES, "sampling_rate": 16_000.0}},
    "an open file": {"inputs": io.BytesIO(OGG)},
    "a form's file": {"file": Upload(OGG), "num_beams": "1"},
    "a multipart body": {"inputs": form(FILE_PART)},
    "a body with fields": {
        "inputs": form(('do_sample"', b"false", ""), FILE_PART, ('parameters"', b'{"no_repeat_ngram_size": 0}', ""))
    },
    "base64 in a body": {"inputs": form(('inputs"', BASE64.encode(), ""))},
    "a part without a name": {"inputs": form(('audio"', OGG, "Content-Type: audio/ogg\r\n"))},
    "nothing set": {"inputs": OGG, "parameters": None},
}


@pytest.mark.parametrize("name", REQUESTS)
def test_every_form_of_audio_gives_the_same_text(name, handler, text):
    assert handler(REQUESTS[name]) == {"text": text}


def test_a_list_gives_a_list(handler, text):
    silence = wav_bytes(np.zeros(16_000, np.float32))
    assert handler({"inputs": [OGG, silence, BASE64]}) == [{"text": text}, {"text": ""}, {"text": text}]
    assert handler({"inputs": form(FILE_PART, FILE_PART)}) == [{"text": text}] * 2
    assert handler({"inputs": [OGG]}) == [{"text": text}]


def test_a_request_is_left_as_it_was(handler):
    request = {"inputs": OGG, "parameters": {"num_beams": "1"}}
    handler(request)
    assert request == {"inputs": OGG, "parameters": {"num_beams": "1"}}


def test_binary_content_of_a_form_stays_as_it_is():
    for content in (b"\r\n", b"", b"a\n", b"\r", b"\r\n--\r\n--x", bytes(range(256)) * 9):
        assert read_form(form(('file"; filename="a"', content, "")))["file"] == content
    assert read_form(form(FILE_PART).replace(b"\r\n", b"\n"))["file"] == OGG.replace(b"\r\n", b"\n")


# ---- parameters


def test_parameters_reach_the_model_wherever_they_stand(handler, text):
    timed = handler({"inputs": OGG, "parameters": {"return_timestamps": "word"}})
    assert timed["text"] == text and timed == handler({"inputs": OGG, "return_timestamps": True})
    assert all(0 <= start < end for start, end in (chunk["timestamp"] for chunk in timed["chunks"]))
    for nested in ("generate_kwargs", "generation_parameters"):
        short = handler({"inputs": OGG, "parameters": {nested: {"max_new_tokens": 1}, "num_beams": None}})
        assert short["text"] != text and text.startswith(short["text"])
    assert handler({"inputs": form(FILE_PART, ('max_new_tokens"', b"1", ""))}) == short


BAD_PARAMETERS = {
    "unknown": ({"max_tokens": 5}, "'max_tokens' is unknown; expected one of: max_new_tokens, "),
    "of the model's insides": ({"generate_kwargs": {"logits_processor": []}}, "'logits_processor' is unknown"),
    "nested twice": ({"generate_kwargs": {"generate_kwargs": {}}}, "'generate_kwargs' is unknown"),
    "no object": ([1], "parameters is a list; expected an object"),
    "no object inside": ({"generate_kwargs": "x"}, "generate_kwargs is a text; expected an object"),
    "too many": ({"max_new_tokens": 100_000}, "expected a whole number from 1 to 1024"),
    "not whole": ({"num_beams": 1.5}, "num_beams is 1.5; expected a whole number"),
    "a truth for a number": ({"num_beams": True}, "num_beams is True"),
    "not a number": ({"temperature": "hot"}, "temperature is 'hot'; expected a number from 0.01 to 10"),
    "sampling without do_sample": ({"temperature": 0.5}, "temperature has no effect without do_sample"),
    "NaN": ({"temperature": float("nan")}, "temperature is nan"),
    "infinite": ({"length_penalty": float("inf")}, "length_penalty is inf"),
    "a list": ({"top_k": [1, 2]}, "top_k is \\[1, 2\\]"),
    "no truth": ({"do_sample": "maybe"}, "do_sample is 'maybe'; expected true or false"),
    "sentences": ({"return_timestamps": "sentence"}, 'expected "word" or false'),
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_a_bad_parameter_is_one_line_that_names_it(name, handler):
    parameters, message = BAD_PARAMETERS[name]
    with pytest.raises(BadRequest, match=message) as caught:
        handler({"inputs": OGG, "parameters": parameters})
    assert "\n" not in str(caught.value)


def test_what_the_model_cannot_do_is_a_bad_request(tiny_checkpoint):
    small = EndpointHandler(recogniser=ASRPipeline(model=ASRModel.from_pretrained(tiny_checkpoint)))
    with pytest.raises(BadRequest, match="Word times need a CTC head"):
        small({"inputs": OGG, "parameters": {"return_timestamps": "word"}})


# ---- what is refused

TEN_SECONDS = wav_bytes(np.tile(SAMPLES, 5)[:160_000])
REFUSED = {
    "no request": (None, "The request is null"),
    "bytes alone": (OGG, "of the type bytes"),
    "no audio": ({}, "audio in 0 fields"),
    "audio twice": ({"inputs": OGG, "file": OGG}, "audio in 2 fields"),
    "an empty list": ({"inputs": []}, "a list of 0"),
    "a long list": ({"inputs": [OGG] * 65}, "a list of 65; expected 1 to 64"),
    "a list of numbers": ({"inputs": [0.1, 0.2]}, "inputs is a number"),
    "null": ({"inputs": None}, "inputs is null"),
    "a path object": ({"inputs": CLIP}, "of the type PosixPath"),
    "a path": ({"inputs": str(CLIP)}, "never opened"),
    "a path in base64 letters": ({"inputs": "/etc/hostnam"}, "never opened"),
    "a path in an object": ({"inputs": {"path": str(CLIP)}}, "an object of path"),
    "a URL": ({"inputs": "http://127.0.0.1:9/a.wav"}, "never opened"),
    "a file URL": ({"inputs": f"file://{CLIP}"}, "never opened"),
    "a path in a form": ({"inputs": form(('inputs"', str(CLIP).encode(), ""))}, "never opened"),
    "a playlist": ({"inputs": f"ffconcat version 1.0\nfile {CLIP.name}\n".encode()}, "not readable audio"),
    "no bytes": ({"inputs": b""}, "empty"),
    "no text": ({"inputs": ""}, "empty"),
    "a damaged file": ({"inputs": OGG[:100]}, "audio"),
    "noise": ({"inputs": random.Random(0).randbytes(5_000)}, "not readable audio"),
    "half a form": ({"inputs": form(FILE_PART)[:-20]}, "breaks off"),
    "a form without audio": ({"inputs": form(BEAMS_PART)}, "audio in 0 fields"),
    "no rate": ({"inputs": {"array": [0.1] * 16_000}}, "sampling_rate is None"),
    "a rate that would fill the memory": (
        {"inputs": {"array": [0.1] * 160, "sampling_rate": 1}},
        "sampling_rate is 1;",
    ),
    "words as samples": ({"inputs": {"array": ["a"], "sampling_rate": 16_000}}, "something else than numbers"),
    "two channels": ({"inputs": {"array": [[0.1], [0.2]], "sampling_rate": 16_000}}, "something else than numbers"),
    "no samples": ({"inputs": {"array": [], "sampling_rate": 16_000}}, "no audio samples"),
    "NaN samples": ({"inputs": {"array": [float("nan")] * 9, "sampling_rate": 16_000}}, "NaN"),
}
LARGE = {
    "bytes": {"inputs": b"RIFF" + bytes(1_000_000)},
    "base64": {"inputs": base64.b64encode(bytes(1_000_001)).decode()},
    "a file": {"inputs": io.BytesIO(bytes(2_000_000))},
    "minutes": {"inputs": [TEN_SECONDS, TEN_SECONDS]},
    "samples": {"inputs": {"array": np.zeros(16_000 * 13, np.float32), "sampling_rate": 16_000}},
}


@pytest.mark.parametrize("name", [*REFUSED, *LARGE])
def test_bad_input_is_one_line_and_disturbs_nothing(name, handler, text, monkeypatch):
    monkeypatch.chdir(CLIP.parent)
    request, message = REFUSED.get(name) or (LARGE[name], "more than")
    with pytest.raises(TooLarge if name in LARGE else BadRequest, match=message) as caught:
        handler(request)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert handler({"inputs": OGG}) == {"text": text}


def test_damaged_bytes_are_heard_or_refused(handler):
    """Whatever a stranger sends, no other error comes out."""
    generator = random.Random(1)
    for _ in range(30):
        damaged = bytearray(generator.choice([OGG, form(FILE_PART), TEN_SECONDS[:20_000]]))
        for _ in range(generator.randrange(1, 40)):
            damaged[generator.randrange(min(len(damaged), 400))] = generator.randrange(256)
        try:
            assert isinstance(handler({"inputs": bytes(damaged), "max_new_tokens": 2}), dict)
        except BadRequest as error:
            assert "\n" not in str(error)


def test_threads_share_it(handler, text):
    requests = [{"inputs": OGG}, {"inputs": "/etc/passwd"}, {"inputs": TEN_SECONDS, "max_new_tokens": 3}] * 3

    def ask(request):
        try:
            return handler(request)
        except BadRequest as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ask, requests))
    assert together == [ask(request) for request in requests]
    assert together[0] == {"text": text}


@pytest.mark.parametrize("value", ["0", "many", "inf"])
def test_limits_of_the_environment_are_checked(value, handler, monkeypatch):
    monkeypatch.setenv("TA_MAX_MINUTES", value)
    with pytest.raises(ValueError, match="TA_MAX_MINUTES is"):
        EndpointHandler(recogniser=handler.recogniser)
    monkeypatch.setenv("TA_MAX_MINUTES", "1.5")
    assert EndpointHandler(recogniser=handler.recogniser).max_seconds == 90
