"""The server's routes: audio in and text out, one request at a time behind a bounded queue; and whether it is ready."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tiny_audio.export.handler import BadRequest, EndpointHandler, TooLarge

UPLOAD_SECONDS = 120  # for one request's body
RETRY = {"Retry-After": "5"}  # seconds
JSON = "application/json"
BINARY = ("audio/", "video/", "application/octet-stream", "application/ogg", "multipart/form-data")  # prefixes
EXPECTED = f"audio/*, application/octet-stream, multipart/form-data or {JSON}"


class SpeechApp:
    """The ASGI application, its model and its queue.

    The model loads in a thread of its own and hears in worker threads, so the event loop is always free: /health
    answers while it loads and while it works.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], EndpointHandler],
        max_upload_mb: float,
        queue: int,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Loads nothing yet.

        Args:
            name: the model's, for /health.
            load: makes the handler; called when the server starts.
            max_upload_mb: of one recording; base64 and forms may be larger by what they add.
            queue: requests that wait or are heard at a time; the next one is answered with 503. One that is still read
                takes no place: a slow client keeps nobody out.
            ended: called when the model has loaded, or could not be (`failure`).
        """
        self.name, self.load, self.queue, self.ended = name, load, queue, ended
        self.max_body_bytes = int(max_upload_mb * 1e6) * 4 // 3 + 1_000_000
        self.handler: EndpointHandler | None = None
        self.failure: Exception | None = None
        self.requests = 0  # that wait or are heard
        self.held_bytes = 0  # of the bodies of these and of those that are read
        self.turn = asyncio.Lock()
        routes = [
            Route("/", self.transcribe, methods=["POST"]),
            Route("/health", self.health, methods=["GET"]),
        ]
        self.asgi = Starlette(
            routes=routes,
            lifespan=self.lifespan,
            exception_handlers={HTTPException: refuse, TooLarge: refuse, BadRequest: refuse, Exception: fail},
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        threading.Thread(target=self.load_model, name="model", daemon=True).start()
        yield

    def load_model(self) -> None:
        try:
            self.handler = self.load()
        except Exception as error:  # noqa: BLE001 - raised by who runs the server, which ends
            self.failure = error
        self.ended()

    async def health(self, _: Request) -> Response:
        """200 when the model can be asked, else 503."""
        status = "ready" if self.handler else "failed" if self.failure else "loading"
        return JSONResponse({"status": status, "model": self.name}, 200 if self.handler else 503)

    async def transcribe(self, request: Request) -> Response:
        """The handler's answer to the body: an audio file, a form with one, or JSON; parameters may be in the address."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON and not kind.startswith(BINARY):
            raise HTTPException(415, f"The content type is {kind[:50] or 'not named'}; expected {EXPECTED}.")
        if self.handler is None:
            raise HTTPException(503, "The model is loading; ask again.", RETRY)
        self.require_place()
        body = bytearray()
        try:
            await self.read(request, body)
            self.require_place()  # others came meanwhile
            return await self.hear(request, kind, bytes(body))
        finally:
            self.held_bytes -= len(body)

    def require_place(self) -> None:
        if self.requests >= self.queue:
            raise HTTPException(503, f"{self.queue} requests wait already; ask again.", RETRY)

    async def hear(self, request: Request, kind: str, body: bytes) -> Response:
        """The answer, when its turn has come."""
        self.requests += 1
        try:
            async with self.turn:
                if await request.is_disconnected():
                    return Response(status_code=499)  # nobody waits for it
                return JSONResponse(await run_in_threadpool(self.answer, kind, body, dict(request.query_params)))
        finally:
            self.requests -= 1

    async def read(self, request: Request, body: bytearray) -> None:
        """Fills the body, as long as it is not too large, and all bodies together are not."""
        too_large = HTTPException(413, f"The body has more than {self.max_body_bytes / 1e6:g} MB; send it in parts.")
        if int(request.headers.get("content-length", 0)) > self.max_body_bytes:
            raise too_large
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                async for part in request.stream():
                    body += part
                    self.held_bytes += len(part)
                    if len(body) > self.max_body_bytes:
                        raise too_large
                    if self.held_bytes > self.queue * self.max_body_bytes:
                        raise HTTPException(503, "Too many large bodies come at a time; ask again.", RETRY)
        except TimeoutError:
            raise HTTPException(408, f"The body did not come within {UPLOAD_SECONDS} s; send it compressed.") from None
        except ClientDisconnect:
            raise HTTPException(400, "The body broke off.") from None

    def answer(self, kind: str, body: bytes, query: dict[str, str]) -> Any:
        """In a worker thread."""
        assert self.handler is not None
        data = read_json(body) if kind == JSON else {"inputs": body}
        return self.handler({**query, **data} if isinstance(data, dict) else data)


def read_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON ({error}); expected an object with inputs.") from error


async def refuse(_: Request, error: Exception) -> Response:
    """What is wrong with a request, as `{"error": line}`."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return JSONResponse({"error": str(error)}, 413 if isinstance(error, TooLarge) else 400)


async def fail(_: Request, error: Exception) -> Response:
    """A bug: the traceback goes to the server's log, not to who asked."""
    return JSONResponse({"error": f"The server failed ({type(error).__name__}); its log says more."}, 500)
