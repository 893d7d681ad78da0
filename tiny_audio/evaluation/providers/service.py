"""What all services share: the key, requests with a time limit, retries, so many at a time, and errors of one line."""

import asyncio
import json
import math
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import httpx2
import numpy as np

from tiny_audio import console
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.audio_files import wav_bytes
from tiny_audio.evaluation.providers import model_of
from tiny_audio.evaluation.providers.base import Hypothesis, TimedWord
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.retries import TryAgain, delay, may_pass, message, retry_after

LONGEST_MESSAGE = 300  # characters of what a server says
ENDS_THE_RUN = (401, 402, 403, 404, 405)  # and every redirection, which would take the key elsewhere
_NO_MODEL = re.compile(r"\b(no such|invalid|unknown) model\b|\bmodel\b.*\b(not found|not exist)\b", re.IGNORECASE)

T = TypeVar("T")


class ClipError(Exception):
    """What is wrong with one clip; the others may go well."""


class Service:
    """A recogniser behind HTTP. A subclass says what is sent for a clip, and what is read from the answer."""

    name: ClassVar[str]  # as in PROVIDERS
    url: ClassVar[str | None]  # the vendor's API; None: of the user's own
    path: ClassVar[str]
    key_variable: ClassVar[str]
    key_header: ClassVar[tuple[str, str]] = ("Authorization", "Bearer ")  # and what stands before the key
    may_need_no_key: ClassVar[bool] = False  # at a base URL of the user's own
    gives_words: ClassVar[bool] = True
    gives_stream: ClassVar[bool] = False

    def __init__(self, settings: EvalSettings) -> None:
        if settings.word_times and not self.gives_words:
            raise TinyAudioError(f"The provider {self.name} gives no times of words; leave out --word-times.")
        if settings.first_token and not self.gives_stream:
            raise TinyAudioError(f"The provider {self.name} gives no stream of text; leave out --first-token.")
        if settings.base_url is None and self.url is None:
            raise TinyAudioError(f"The provider {self.name} needs the address of the server: give it with --base-url.")
        self.settings = settings
        self.model = model_of(settings)
        self.base_url = (settings.base_url or self.url or "").rstrip("/")
        self.device = self.name
        self.decoding: dict[str, Any] = {
            "model": self.model,
            "base_url": self.base_url,
            "workers": settings.workers,
            "word_times": settings.word_times,
            "first_token": settings.first_token,
        }
        self._key = self._find_key()
        self._gate = asyncio.Semaphore(settings.workers)
        self._loop = _LoopInThread()
        self._client = httpx2.AsyncClient(
            headers={self.key_header[0]: self.key_header[1] + self._key} if self._key else {},
            limits=httpx2.Limits(max_connections=settings.workers),
            timeout=None,  # asyncio's is one for the whole request, also where a server sends a byte now and then
        )
        self._warned = False

    def request(self, wav: bytes) -> dict[str, Any]:
        """What httpx2's `request` takes for one clip: files, data, content, headers, params."""
        raise NotImplementedError

    def read(self, answer: Any) -> Hypothesis:
        """What the server heard, from its JSON; what it lacks raises KeyError, TypeError or ValueError."""
        raise NotImplementedError

    async def hear(self, wav: bytes) -> Hypothesis:
        """One clip. Services that take several requests for it have their own."""
        return await self.ask("POST", self.path, self.read, **self.request(wav))

    def transcribe(self, batch: list[np.ndarray]) -> list[Hypothesis]:
        """One hypothesis for each clip, `settings.workers` of them at a time; Ctrl-C waits for none."""
        return self._loop.run(self._transcribe(batch))

    async def ask(self, method: str, path: str, read: Callable[[Any], T], **request: Any) -> T:
        """What `read` finds in the JSON that answers one request.

        Raises:
            ClipError: refused, or no good answer after all retries.
            TinyAudioError: refused for what no other clip would change.
        """

        async def receive(response: httpx2.Response) -> T:
            return read(json.loads(await response.aread()))

        return await self.send(method, path, receive, **request)

    async def send(
        self, method: str, path: str, receive: Callable[[httpx2.Response], Awaitable[T]], **request: Any
    ) -> T:
        """As `ask`, for `receive`, which reads the response itself."""
        tries = self.settings.retries + 1
        for tried in range(1, tries + 1):
            try:
                return await self._send_once(method, path, receive, request)
            except TryAgain as error:
                if tried == tries:
                    raise ClipError(f"{error} ({tries} tries)") from error
                self._warn_once(f"{self.name}: {error}; asking again, up to {tries} times for each request.")
                await asyncio.sleep(delay(tried, error.wait))
        raise AssertionError("one try at least")

    async def _transcribe(self, batch: list[np.ndarray]) -> list[Hypothesis]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._hear_one(waveform)) for waveform in batch]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _hear_one(self, waveform: np.ndarray) -> Hypothesis:
        async with self._gate:
            asked = time.perf_counter()
            try:
                heard = await self.hear(wav_bytes(waveform))
            except ClipError as error:
                return Hypothesis(error=self._without_key(error))
            return replace(heard, latency=time.perf_counter() - asked)

    async def _send_once(
        self, method: str, path: str, receive: Callable[[httpx2.Response], Awaitable[T]], request: dict[str, Any]
    ) -> T:
        limit = self.settings.timeout
        try:
            async with (
                asyncio.timeout(limit),
                self._client.stream(method, self.base_url + path, **request) as response,
            ):
                if not response.is_success:
                    self._refuse(response, await response.aread())
                return await receive(response)
        except TimeoutError:
            raise TryAgain(f"no whole answer within {limit:g} s") from None
        except httpx2.RequestError as error:
            raise TryAgain(f"{type(error).__name__} {error}".strip()) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise TryAgain(f"a broken answer ({type(error).__name__}: {error})") from error

    def _refuse(self, response: httpx2.Response, body: bytes) -> None:
        status, said = response.status_code, self._without_key(message(body) or response.reason_phrase)
        if may_pass(status):
            raise TryAgain(f"HTTP {status}: {said}", retry_after(response.headers.get("retry-after", "")))
        if status in ENDS_THE_RUN or status < 400 or (status in (400, 422) and self._is_about_the_model(said)):
            what = self._without_key(f"{self.name} at {self.base_url} answers HTTP {status}, {said.rstrip('.')}")
            raise TinyAudioError(f"{what}; {self._advice(status)}.")
        raise ClipError(f"HTTP {status}: {said}")

    def _is_about_the_model(self, said: str) -> bool:
        """Whether the model cannot do what is asked at all; one that finds a clip too long says `this model`."""
        return bool(_NO_MODEL.search(said)) or ("model" in said.lower() and self.model in said)

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            return f"check the API key in {self.key_variable} or --api-key, and what it is allowed"
        return "check the account's credit" if status == 402 else f"check --base-url and the model {self.model}"

    def _find_key(self) -> str:
        key = (self.settings.api_key or os.environ.get(self.key_variable) or "").strip()
        if not key and (self.settings.base_url is None or not self.may_need_no_key):
            raise TinyAudioError(f"The provider {self.name} needs an API key: set {self.key_variable}.")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise TinyAudioError(f"The API key for {self.name} holds more than one word of ASCII; copy it again.")
        return key

    def _without_key(self, text: object) -> str:
        """One line without the key, which some servers repeat; cut only then, since half a key would not be found."""
        line = console.printable(str(text))
        return (line.replace(self._key, "***") if self._key else line)[:LONGEST_MESSAGE]

    def _warn_once(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            console.warn(self._without_key(text))


class _LoopInThread:
    """asyncio beside the main thread: it runs in notebooks too, and Ctrl-C leaves all requests at once."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="requests", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def text_of(value: Any) -> str:
    """A transcript; TypeError where it is no text, which would be scored as one."""
    if not isinstance(value, str):
        raise TypeError(f"a text was expected, not {type(value).__name__}")
    return value.strip()


def timed_words(
    entries: Iterable[dict[str, Any]], text: str, speaker: str = "speaker", unit: float = 1.0
) -> list[TimedWord]:
    """A service's list of words.

    Args:
        text: key of the word itself; `speaker`: key of who said it, where that is known.
        unit: seconds in which `start` and `end` are counted.
    """
    return [
        TimedWord(
            text_of(entry[text]),
            _seconds(entry["start"] * unit),
            _seconds(entry["end"] * unit),
            None if entry.get(speaker) is None else str(entry[speaker]),
        )
        for entry in entries
    ]


def _seconds(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is no time")
    return round(value, 3)
