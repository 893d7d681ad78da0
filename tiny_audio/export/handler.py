"""The handler of a published checkpoint for Inference Endpoints: a request with audio in, its text out."""

import base64
import binascii
import json
import math
import os
import re
from contextlib import suppress
from email.parser import BytesHeaderParser
from typing import Any

import torch
from transformers import pipeline

MAX_UPLOAD_MB = 100.0  # of one recording; TA_MAX_UPLOAD_MB has another
MAX_MINUTES = 60.0  # of all audio of a request; TA_MAX_MINUTES has another
MAX_INPUTS = 64  # recordings of a request
BATCH_SIZE = 8  # windows of 30 s decoded at a time
SAMPLING_RATE = 16_000  # Hz, of the model's windows
RATES = (1_000, 384_000)  # Hz, of samples that are sent as numbers
AUDIO_FIELDS = ("inputs", "file", "audio")
NESTED = ("generate_kwargs", "generation_parameters")  # where clients put parameters inside of the parameters
# name: type, least, most
NUMBERS: dict[str, tuple[type, float, float]] = {
    "max_new_tokens": (int, 1, 1024),
    "num_beams": (int, 1, 16),
    "temperature": (float, 0.01, 10),
    "top_k": (int, 0, 1_000_000),
    "top_p": (float, 0.01, 1),
    "repetition_penalty": (float, 0.1, 10),
    "length_penalty": (float, -10, 10),
    "no_repeat_ngram_size": (int, 0, 100),
    "chunk_length_s": (float, 1, 30),
}
SAMPLING = ("temperature", "top_k", "top_p")
TRUTHS = {"true": True, "1": True, "false": False, "0": False}  # as forms and addresses write them
PARAMETERS = (*NUMBERS, "do_sample", "return_timestamps")
_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


class BadRequest(ValueError):
    """What is wrong with a request, in one line for who sent it."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split()))


class TooLarge(BadRequest):
    """More bytes or more minutes than are taken."""


class EndpointHandler:
    """What Inference Endpoints call: `EndpointHandler(folder)(request)`.

    A bad request raises BadRequest, which the harness of the Endpoints answers with HTTP 400 and `{"error": line}`;
    a dict that is returned would go out as HTTP 200, which clients take for a transcript. Nothing is kept of a
    request, so threads may share the handler and a bad one does not disturb the next.
    """

    def __init__(
        self,
        path: str = "",
        recogniser: Any = None,
        max_upload_mb: float | None = None,
        max_minutes: float | None = None,
    ) -> None:
        """Loads the model.

        Args:
            path: folder of the checkpoint; this file's own if empty.
            recogniser: a pipeline that is loaded already, in place of the folder's.
            max_upload_mb, max_minutes: the limits; None: TA_MAX_UPLOAD_MB and TA_MAX_MINUTES of the environment, or
                100 MB and 60 minutes.
        """
        self.recogniser = recogniser or pipeline(
            "automatic-speech-recognition",
            model=path or os.path.dirname(os.path.abspath(__file__)),
            trust_remote_code=True,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
        self.max_bytes = int(1e6 * _limit(max_upload_mb, "TA_MAX_UPLOAD_MB", MAX_UPLOAD_MB))
        self.max_seconds = 60 * _limit(max_minutes, "TA_MAX_MINUTES", MAX_MINUTES)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        """One request.

        Args:
            data: `inputs` (or `file`, `audio`): bytes of an audio file, the same in base64 (also as `data:audio/…;base64,`),
                `{"array" | "raw": [numbers], "sampling_rate": Hz}`, an open file, a whole multipart body, or a list of
                these. `parameters`: an object with some of PARAMETERS, which may also stand beside `inputs`.

        Returns:
            `{"text"}`, with `return_timestamps` also `"chunks": [{"text", "timestamp": (start, end), "confidence"}]` in
            seconds; for a list a list. BadRequest: no audio, URLs and paths, unknown or wrong parameters, over a limit.
        """
        inputs, parameters = read_request(data)
        clips = inputs if isinstance(inputs, list) else [inputs]
        if not 0 < len(clips) <= MAX_INPUTS:
            raise BadRequest(f"inputs is a list of {len(clips)}; expected 1 to {MAX_INPUTS} recordings.")
        waveforms, seconds = [], self.max_seconds
        for clip in clips:
            waveforms.append(self.waveform(clip, seconds))
            seconds -= len(waveforms[-1]) / SAMPLING_RATE
        try:
            answers = self.recogniser(waveforms, batch_size=BATCH_SIZE, **parameters)
        except ValueError as error:  # what this model cannot do, as word times without a CTC head
            raise BadRequest(error) from error
        return answers if isinstance(inputs, list) else answers[0]

    def waveform(self, clip: Any, seconds: float) -> torch.Tensor:
        """One recording as 16 kHz mono, (samples,); decoding stops where there are more than `seconds`."""
        source = read_samples(clip) if isinstance(clip, dict) else read_bytes(clip, self.max_bytes)
        if isinstance(source, dict) and len(source["array"]) > seconds * source["sampling_rate"]:
            raise self.too_long()
        windows, left = [], int(seconds * SAMPLING_RATE)
        try:
            for window in self.recogniser.model.windows(source):
                windows.append(torch.from_numpy(window.waveform))
                left -= len(window.waveform)
                if left < 0:
                    raise self.too_long()
        except BadRequest:
            raise
        except (OSError, ValueError) as error:
            hint = "A text must be audio in base64; a URL or path is never opened." if isinstance(clip, str) else ""
            raise BadRequest(f"{error} {hint}") from error
        return torch.cat(windows)

    def too_long(self) -> TooLarge:
        return TooLarge(f"There are more than {self.max_seconds / 60:g} minutes of audio; send it in parts.")


def read_request(data: Any) -> tuple[Any, dict[str, Any]]:
    """The audio as it was sent, and the parameters checked."""
    if not isinstance(data, dict):
        raise BadRequest(f"The request is {_kind(data)}; expected an object with inputs.")
    fields = dict(data)
    if is_form(fields.get("inputs")):
        form = read_form(bytes(fields.pop("inputs")))
        fields = {**form, **fields}
    named = [name for name in AUDIO_FIELDS if name in fields]
    if len(named) != 1:
        raise BadRequest(f"The request has audio in {len(named)} fields; expected it in one, inputs.")
    inputs = fields.pop(named[0])
    return inputs, read_parameters({**_object(fields.pop("parameters", None), "parameters"), **fields})


def is_form(body: Any) -> bool:
    """Whether bytes are a multipart/form-data body: they begin with its boundary."""
    if not isinstance(body, (bytes, bytearray)) or not body.startswith(b"--"):
        return False
    return b"content-disposition: form-data" in body[:1000].lower()


def read_form(body: bytes) -> dict[str, Any]:
    """The fields of a multipart/form-data body (RFC 7578): texts, and bytes of files; a name that comes twice is a list."""
    boundary = re.split(rb"\r?\n", body[:1000], maxsplit=1)[0].rstrip()
    parts = re.split(rb"\r?\n" + re.escape(boundary), b"\n" + body)[1:]
    if not parts[-1].startswith(b"--"):
        raise BadRequest("The multipart body breaks off before its last boundary; send it again.")
    fields: dict[str, list[Any]] = {}
    for part in parts[:-1]:
        head, content = [*re.split(rb"\r?\n\r?\n", part, maxsplit=1), b""][:2]
        headers = BytesHeaderParser().parsebytes(head.lstrip())
        name = headers.get_param("name", header="content-disposition")
        is_file = headers.get_filename() is not None or headers.get_content_maintype() in ("audio", "video")
        fields.setdefault(str(name), []).append(content if is_file else content.decode("utf-8", "replace"))
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def read_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """What goes to the pipeline; numbers and truths may be written as text."""
    nested = [_object(given[name], name) for name in NESTED if name in given]
    flat = {name: value for name, value in given.items() if name not in NESTED}
    for parameters in nested:
        flat |= parameters
    checked = {name: _checked(name, value) for name, value in flat.items() if value is not None}
    for name in SAMPLING:
        if name in checked and not checked.get("do_sample"):
            raise BadRequest(f"{name} has no effect without do_sample; send do_sample: true too, or leave it out.")
    return checked


def _checked(name: str, value: Any) -> Any:
    if name in NUMBERS:
        return _number(name, value)
    if name not in PARAMETERS:
        raise BadRequest(f"The parameter {str(name)[:50]!r} is unknown; expected one of: {', '.join(PARAMETERS)}.")
    truth = TRUTHS.get(str(value).lower())
    if name == "do_sample" and truth is not None:
        return truth
    if name == "return_timestamps" and (value == "word" or truth is not None):
        return "word" if value == "word" or truth else False
    expected = "true or false" if name == "do_sample" else '"word" or false'
    raise BadRequest(f"{name} is {_shown(value)}; expected {expected}.")


def _number(name: str, value: Any) -> float:
    kind, least, most = NUMBERS[name]
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    whole = "whole " if kind is int else ""
    if not least <= number <= most or (whole and number != int(number)):
        raise BadRequest(f"{name} is {_shown(value)}; expected a {whole}number from {least:g} to {most:g}.")
    return kind(number)


def read_samples(clip: dict[str, Any]) -> dict[str, Any]:
    """`{"array" | "raw", "sampling_rate"}` with the samples as a tensor (samples,)."""
    array, rate = clip.get("array", clip.get("raw")), clip.get("sampling_rate")
    if array is None or clip.keys() - {"array", "raw", "sampling_rate"}:
        raise BadRequest(f"inputs is an object of {', '.join(map(str, clip))[:100]}; expected array and sampling_rate.")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not RATES[0] <= rate <= RATES[1]:
        raise BadRequest(f"sampling_rate is {_shown(rate)}; expected {RATES[0]} to {RATES[1]} Hz.")
    try:
        samples = torch.as_tensor(array, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        samples = torch.zeros(0, 0)
    if samples.ndim != 1:
        raise BadRequest("array holds something else than numbers; expected one list of samples from -1 to 1.")
    return {"array": samples, "sampling_rate": int(rate)}


def read_bytes(clip: Any, most: int) -> bytes:
    """The bytes of an audio file, `most` of them; a text is base64 and is never opened as a path or URL."""
    content = clip
    if isinstance(clip, str):
        content = _decoded(clip)
    elif hasattr(file := getattr(clip, "file", clip), "read"):
        content = file.read(most + 1)
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise BadRequest(f"inputs is {_kind(clip)}; expected the bytes of an audio file, or these in base64.")
    if len(content) > most:
        raise TooLarge(f"The audio has more than {most / 1e6:g} MB; send it compressed or in parts.")
    return bytes(content)


def _decoded(text: str) -> bytes:
    url = _DATA_URL.match(text)
    try:
        return base64.b64decode("".join(text[url.end() if url else 0 :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        what = "inputs is a text that is not base64; a URL or path is never opened"
        raise BadRequest(f"{what}: send the audio itself, as bytes or in base64.") from error


def _object(value: Any, name: str) -> dict[str, Any]:
    """A JSON object, also one that a form has as text."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if value is None or isinstance(value, dict):
        return value or {}
    raise BadRequest(f"{name} is {_kind(value)}; expected an object of names and values.")


def _limit(given: float | None, variable: str, default: float) -> float:
    try:
        value = float(os.environ.get(variable) or default) if given is None else given
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{variable} is {os.environ.get(variable, given)!r}; expected a number above 0.")
    return value


def _kind(value: Any) -> str:
    names = {list: "a list", dict: "an object", str: "a text", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), f"of the type {type(value).__name__}")


def _shown(value: Any) -> str:
    return repr(value)[:50]
