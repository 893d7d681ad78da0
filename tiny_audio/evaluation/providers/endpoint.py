"""Inference Endpoints of Hugging Face: a pipeline of transformers at an address of one's own."""

from typing import Any

from tiny_audio.evaluation.providers.base import Hypothesis
from tiny_audio.evaluation.providers.service import Service, text_of


class EndpointProvider(Service):
    """POST of the audio to the endpoint's address. While it starts up it answers 503, which is asked again."""

    name = "endpoint"
    url = None
    path = ""
    key_variable = "HF_TOKEN"
    gives_words = False

    def request(self, wav: bytes) -> dict[str, Any]:
        # An endpoint that was scaled to zero holds the request so many seconds, until it has started.
        patience = {"X-Scale-Up-Timeout": f"{self.settings.timeout:.0f}"}
        return {"content": wav, "headers": {"Content-Type": "audio/wav", "Accept": "application/json", **patience}}

    def read(self, answer: Any) -> Hypothesis:
        return Hypothesis(text_of((answer[0] if isinstance(answer, list) else answer)["text"]))
