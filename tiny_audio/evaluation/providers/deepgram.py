"""Deepgram's recordings: one request a clip, its options in the address."""

from typing import Any

from tiny_audio.evaluation.providers.base import Hypothesis
from tiny_audio.evaluation.providers.service import Service, text_of, timed_words


class DeepgramProvider(Service):
    """POST /v1/listen. Nothing is formatted: numbers stay words, as they were said."""

    name = "deepgram"
    url = "https://api.deepgram.com"
    path = "/v1/listen"
    key_variable = "DEEPGRAM_API_KEY"
    key_header = ("Authorization", "Token ")

    def request(self, wav: bytes) -> dict[str, Any]:
        options = {"model": self.model}
        if self.settings.word_times:
            options["diarize_model"] = "latest"  # words always have times; this adds who says them
        return {"params": options, "content": wav, "headers": {"Content-Type": "audio/wav"}}

    def read(self, answer: Any) -> Hypothesis:
        best = answer["results"]["channels"][0]["alternatives"][0]
        words = timed_words(best["words"], "word") if self.settings.word_times else None
        return Hypothesis(text_of(best["transcript"]), words)
