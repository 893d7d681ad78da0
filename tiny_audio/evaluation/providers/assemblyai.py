"""AssemblyAI: the audio is uploaded, a transcript is ordered, and asked after until it is there."""

import asyncio
import time
from typing import Any

from tiny_audio.evaluation.providers.base import Hypothesis
from tiny_audio.evaluation.providers.service import ClipError, Service, text_of, timed_words

POLL_SECONDS = 1.0
MILLISECOND = 0.001  # seconds


class AssemblyAIProvider(Service):
    """POST /v2/upload, POST /v2/transcript, GET /v2/transcript/ID. What is asked again is one request, not all three."""

    name = "assemblyai"
    url = "https://api.assemblyai.com"
    key_variable = "ASSEMBLYAI_API_KEY"
    key_header = ("Authorization", "")

    async def hear(self, wav: bytes) -> Hypothesis:
        media = {"Content-Type": "application/octet-stream"}
        address = await self.ask("POST", "/v2/upload", lambda a: text_of(a["upload_url"]), content=wav, headers=media)
        order = {
            "audio_url": address,
            "speech_models": [self.model],
            "speaker_labels": self.settings.word_times,
        }
        transcript = await self.ask("POST", "/v2/transcript", lambda a: text_of(a["id"]), json=order)
        longest = self.settings.timeout * (self.settings.retries + 1)  # what any request may take with its retries
        ordered = time.perf_counter()
        while time.perf_counter() - ordered < longest:
            heard = await self.ask("GET", f"/v2/transcript/{transcript}", self._finished)
            if heard is not None:
                return heard
            await asyncio.sleep(POLL_SECONDS)
        raise ClipError(f"the transcript was not there after {longest:g} s")

    def _finished(self, answer: Any) -> Hypothesis | None:
        """The transcript, or None while it is being made."""
        status = answer["status"]
        if status == "error":
            raise ClipError(f"the transcript failed: {answer.get('error')}")
        if status in ("queued", "processing"):
            return None
        if status != "completed":
            raise ValueError(f"unknown status {status}")
        return self.read(answer)

    def read(self, answer: Any) -> Hypothesis:
        words = timed_words(answer["words"] or [], "text", unit=MILLISECOND) if self.settings.word_times else None
        return Hypothesis(text_of(answer["text"]), words)
