"""OpenAI's transcriptions, and every server that speaks the same: vLLM, speaches, our own."""

import json
import time
from functools import partial
from typing import Any

import httpx2

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.providers.base import Hypothesis
from tiny_audio.evaluation.providers.service import Service, text_of, timed_words
from tiny_audio.retries import TryAgain


class OpenAIProvider(Service):
    """POST /audio/transcriptions. A server at a base URL of the user's own may need no key."""

    name = "openai"
    url = "https://api.openai.com/v1"
    path = "/audio/transcriptions"
    key_variable = "OPENAI_API_KEY"
    may_need_no_key = True
    gives_stream = True

    def request(self, wav: bytes) -> dict[str, Any]:
        # JSON without times is everyone's default; newer models refuse to be asked for it.
        fields = {"model": self.model}
        if self.settings.word_times:
            fields |= {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
        if self.settings.first_token:
            fields["stream"] = "true"
        return {"data": fields, "files": {"file": ("clip.wav", wav, "audio/wav")}}

    def read(self, answer: Any) -> Hypothesis:
        words = timed_words(answer["words"], "word") if self.settings.word_times else None
        return Hypothesis(text_of(answer["text"]), words)

    async def hear(self, wav: bytes) -> Hypothesis:
        if not self.settings.first_token:
            return await super().hear(wav)
        follow = partial(self._follow, time.perf_counter())
        return await self.send("POST", self.path, follow, **self.request(wav))

    async def _follow(self, asked: float, response: httpx2.Response) -> Hypothesis:
        """The text of a stream of events, and when its first piece came."""
        await self._require_stream(response)
        text, first = "", None
        async for event in httpx2.EventSource(response):
            answer = {} if event.data == "[DONE]" else json.loads(event.data)
            text += _piece(answer)
            if text and first is None:
                first = time.perf_counter() - asked
            if answer.get("type") == "transcript.text.done":
                return Hypothesis(text_of(answer["text"]), first_token=first)
            if event.data == "[DONE]":  # vLLM ends with this alone
                return Hypothesis(text.strip(), first_token=first)
        raise TryAgain("the stream of text ended early")

    async def _require_stream(self, response: httpx2.Response) -> None:
        if response.headers.get("content-type", "").startswith("application/json"):
            text_of(json.loads(await response.aread())["text"])  # a broken answer is no sign of anything
            raise TinyAudioError(f"{self.model} at {self.base_url} gives no stream of text; leave out --first-token.")


def _piece(answer: dict[str, Any]) -> str:
    """The text that an event adds: OpenAI's, or vLLM's, which is that of its chat."""
    if answer.get("error"):
        raise TryAgain(f"the stream of text broke off: {answer['error']}")
    if answer.get("type") == "transcript.text.delta":
        return answer["delta"]
    return "".join(choice["delta"].get("content") or "" for choice in answer.get("choices", []))
