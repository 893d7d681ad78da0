"""Servers on loopback that speak the wire formats of the services, check what they are sent, and break on request."""

import io
import json
import random
import socket
import threading
import time
import wave
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KEY = "sk-test-0123456789-secret"
FAULTS = ("429", "500", "time-out", "garbage", "half", "empty", "cut")
TIMEOUT = 0.3  # seconds that a client of these servers should wait


class Refused(Exception):
    """An answer other than 200: status, JSON body."""


class Request:
    """One request, read whole: path, query, headers, body or form."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        self.method, self.path, self.headers = handler.command, address.path, handler.headers
        self.query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        self.form: dict[str, str] = {}
        self.file = b""
        if (self.headers.get("content-type") or "").startswith("multipart/form-data"):
            self._read_form()

    def _read_form(self) -> None:
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        for part in BytesParser(policy=HTTP).parsebytes(head + self.body).iter_parts():
            name = part.get_param("name", header="content-disposition")
            if part.get_filename():
                assert name == "file" and part.get_content_type() == "audio/wav"
                self.file = part.get_payload(decode=True)
            else:
                self.form[name] = part.get_payload(decode=True).decode()


def samples_of(data: bytes) -> int:
    """How long a WAV file is; fails unless it is 16 kHz, mono, 16 bits."""
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        frames = file.readframes(file.getnframes())
        assert len(frames) == 2 * file.getnframes() and any(frames)
        return file.getnframes()


def require_key(given: str | None, expected: str) -> None:
    if given != expected:
        raise Refused(401, {"error": {"message": f"Incorrect API key provided: {given}."}})


def event_stream(*events: dict | str) -> bytes:
    """Server-sent events, as they go over the wire."""
    return "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events).encode()


class Dialect:
    """One vendor's API. `answer` returns JSON, or bytes for a stream of events; `heard` is what each clip says, by its number of samples."""

    model = "some-model"
    root = ""

    def __init__(self, heard: dict[int, str]) -> None:
        self.heard = heard
        self.asked: Counter[int] = Counter()  # clips, by their number of samples

    def text(self, wav: bytes) -> str:
        samples = samples_of(wav)
        self.asked[samples] += 1
        return self.heard[samples]


class OpenAI(Dialect):
    root = "/v1"

    def answer(self, request: Request):
        assert (request.method, request.path) == ("POST", "/v1/audio/transcriptions")
        require_key(request.headers["authorization"], f"Bearer {KEY}")
        assert request.form.pop("model") == self.model
        text = self.text(request.file)
        if request.form == {"stream": "true"}:
            pieces = [{"type": "transcript.text.delta", "delta": f"{word} "} for word in text.split()]
            return event_stream(*pieces, {"type": "transcript.text.done", "text": text})
        if not request.form:
            return {"text": text, "usage": {"type": "duration", "seconds": 1}}
        assert request.form == {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
        words = [{"word": word, "start": i / 2, "end": i / 2 + 0.4} for i, word in enumerate(text.split())]
        return {"task": "transcribe", "text": text, "words": words}


class Endpoint(Dialect):
    model = "inference-endpoint"

    def answer(self, request: Request):
        assert (request.method, request.path) == ("POST", "/")
        require_key(request.headers["authorization"], f"Bearer {KEY}")
        assert request.headers["content-type"] == "audio/wav" and request.headers["x-scale-up-timeout"]
        answer = {"text": self.text(request.body)}
        return [answer] if len(answer["text"]) % 2 else answer


class AssemblyAI(Dialect):
    def __init__(self, heard: dict[int, str]) -> None:
        super().__init__(heard)
        self.orders: dict[str, tuple[str, bool]] = {}  # id → text, speakers
        self.polled: Counter[str] = Counter()

    def answer(self, request: Request):
        require_key(request.headers["authorization"], KEY)
        if (request.method, request.path) == ("POST", "/v2/upload"):
            assert request.headers["content-type"] == "application/octet-stream"
            return {"upload_url": f"https://cdn.example/{self.text(request.body)}"}
        if (request.method, request.path) == ("POST", "/v2/transcript"):
            order = json.loads(request.body)
            assert order["speech_models"] == [self.model] and order["audio_url"].startswith("https://cdn.example/")
            identity = f"order-{len(self.orders)}"
            self.orders[identity] = (order["audio_url"].removeprefix("https://cdn.example/"), order["speaker_labels"])
            return {"id": identity, "status": "queued", "text": None, "words": None}
        assert request.method == "GET" and request.path.startswith("/v2/transcript/")
        return self._transcript(request.path.rpartition("/")[2])

    def _transcript(self, identity: str):
        text, speakers = self.orders[identity]
        self.polled[identity] += 1
        if self.polled[identity] == 1:
            return {"id": identity, "status": "processing", "text": None, "words": None}
        if text == "not to be done":
            return {"id": identity, "status": "error", "error": "Audio file is corrupt."}
        words = [
            {"text": word, "start": i * 500, "end": i * 500 + 400, "speaker": "AB"[i % 2] if speakers else None}
            for i, word in enumerate(text.split())
        ]
        return {"id": identity, "status": "completed", "text": text, "words": words}


class Deepgram(Dialect):
    def answer(self, request: Request):
        assert (request.method, request.path) == ("POST", "/v1/listen")
        require_key(request.headers["authorization"], f"Token {KEY}")
        assert request.headers["content-type"] == "audio/wav"
        assert request.query.pop("model") == self.model
        text = self.text(request.body)
        assert request.query in ({}, {"diarize_model": "latest"})
        words = [{"word": word, "start": i / 2, "end": i / 2 + 0.4} for i, word in enumerate(text.split())]
        if request.query:
            words = [{**word, "speaker": i % 2, "speaker_confidence": 0.9} for i, word in enumerate(words)]
        best = {"transcript": text, "confidence": 0.99, "words": words}
        return {"metadata": {"channels": 1}, "results": {"channels": [{"alternatives": [best]}]}}


class ElevenLabs(Dialect):
    def answer(self, request: Request):
        assert (request.method, request.path) == ("POST", "/v1/speech-to-text")
        require_key(request.headers["xi-api-key"], KEY)
        assert request.form.pop("model_id") == self.model and request.form.pop("tag_audio_events") == "false"
        text = self.text(request.file)
        assert request.form in ({}, {"timestamps_granularity": "word", "diarize": "true"})
        words = [{"text": " ", "start": 0.0, "end": 0.1, "type": "spacing", "speaker_id": None}]
        for i, word in enumerate(text.split()):
            speaker = f"speaker_{i % 2}" if request.form else None
            words.append({"text": word, "start": i / 2, "end": i / 2 + 0.4, "type": "word", "speaker_id": speaker})
        return {"language_code": "eng", "text": text, "words": words}


DIALECTS: dict[str, type[Dialect]] = {
    "openai": OpenAI,
    "endpoint": Endpoint,
    "assemblyai": AssemblyAI,
    "deepgram": Deepgram,
    "elevenlabs": ElevenLabs,
}
VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "endpoint": "HF_TOKEN",
    "assemblyai": "ASSEMBLYAI_API_KEY",
    "deepgram": "DEEPGRAM_API_KEY",
    "elevenlabs": "ELEVENLABS_API_KEY",
}


class Server(ThreadingHTTPServer):
    """A dialect on a free port, with a count of what goes on at a time, and a fault where `fault()` names one."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dialect = dialect
        self.fault: Callable[[], str | None] = lambda: None
        self.delay = 0.0  # seconds of each answer
        self.wrong: list[str] = []  # what clients did that the vendor's documents do not allow
        self.times: list[float] = []  # of each request
        self.lock = threading.Lock()
        self.active = self.most_active = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}{dialect.root}"

    def break_a_share(self, share: float, seed: int) -> None:
        """Faults of all kinds on a share of the requests."""
        rng = random.Random(seed)
        self.fault = lambda: rng.choice(FAULTS) if rng.random() < share else None

    def break_first(self, *faults: str) -> None:
        """These faults on the first requests."""
        left = list(faults)
        self.fault = lambda: left.pop(0) if left else None

    def handle_error(self, request, client_address) -> None:
        pass  # a client that hung up


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.active += 1
            server.most_active = max(server.most_active, server.active)
            server.times.append(time.perf_counter())
            fault = server.fault()
        try:
            request = Request(self)
            time.sleep(server.delay)
            self._respond(request, fault)
        finally:
            with server.lock:
                server.active -= 1

    do_POST = do_GET

    def _respond(self, request: Request, fault: str | None) -> None:
        if fault and fault.startswith("429"):
            wait = fault.removeprefix("429").strip() or "0.02"
            return self._send(429, {"error": {"message": "Too many requests"}}, {"Retry-After": wait})
        if fault == "503":
            return self._send(503, {"error": "Service Unavailable"})
        if fault == "500":
            return self._send(500, "<html>\x1b[31mInternal Server Error")
        if fault == "time-out":
            time.sleep(TIMEOUT + 0.1)
        if fault in ("cut", "time-out"):
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if fault == "garbage":
            return self._send(200, "\x00\xff}{ garbage")
        if fault == "empty":
            return self._send(200, {"unexpected": None})
        try:
            with self.server.lock:
                answer = self.server.dialect.answer(request)
        except Refused as refused:
            return self._send(*refused.args)
        except Exception as error:  # noqa: BLE001 - a client that does what is not documented
            self.server.wrong.append(f"{request.method} {request.path}: {error!r}")
            return self._send(400, {"error": {"message": repr(error)}})
        if fault == "drip":
            return self._drip(answer)
        return self._send(200, answer, half=fault == "half")

    def _send(self, status: int, answer, headers: dict[str, str] | None = None, half: bool = False) -> None:
        kind = "text/event-stream" if isinstance(answer, bytes) else "application/json"
        text = answer if isinstance(answer, str) else json.dumps(answer) if kind == "application/json" else ""
        body = text.encode("latin-1") or answer
        body = body[: len(body) // 2] if half else body
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _drip(self, answer) -> None:
        """The answer, a byte now and then: no read ever waits long."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for byte in json.dumps(answer).encode().ljust(1000):
            self.wfile.write(bytes([byte]))
            time.sleep(TIMEOUT / 10)


@contextmanager
def serving(name: str, heard: dict[int, str]):
    """A running server of the service `name`."""
    server = Server(DIALECTS[name](heard))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
