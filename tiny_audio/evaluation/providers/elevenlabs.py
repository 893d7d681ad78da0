"""ElevenLabs' Scribe: one form a clip."""

from typing import Any

from tiny_audio.evaluation.providers.base import Hypothesis
from tiny_audio.evaluation.providers.service import Service, text_of, timed_words


class ElevenLabsProvider(Service):
    """POST /v1/speech-to-text. Sounds like (laughter) are kept out of the text."""

    name = "elevenlabs"
    url = "https://api.elevenlabs.io"
    path = "/v1/speech-to-text"
    key_variable = "ELEVENLABS_API_KEY"
    key_header = ("xi-api-key", "")

    def request(self, wav: bytes) -> dict[str, Any]:
        fields = {"model_id": self.model, "tag_audio_events": "false"}
        if self.settings.word_times:
            fields |= {"timestamps_granularity": "word", "diarize": "true"}
        return {"data": fields, "files": {"file": ("clip.wav", wav, "audio/wav")}}

    def read(self, answer: Any) -> Hypothesis:
        words = None
        if self.settings.word_times:
            said = [entry for entry in answer["words"] if entry["type"] == "word"]  # not spaces or sounds
            words = timed_words(said, "text", speaker="speaker_id")
        return Hypothesis(text_of(answer["text"]), words)
