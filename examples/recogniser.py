"""A provider of one's own that runs here: Whisper, told that it hears German."""

from transformers import pipeline

from tiny_audio.evaluation.hardware import pick_device
from tiny_audio.evaluation.providers import PROVIDERS, ProviderEntry
from tiny_audio.evaluation.providers.base import Hypothesis


class GermanWhisper:
    """A pipeline of transformers. Left alone, Whisper guesses the language of each clip."""

    def __init__(self, settings, source):
        self.device = pick_device(settings.device)
        self.decoding = {"language": "german", "task": "transcribe"}  # written into metrics.json
        self.pipeline = pipeline(
            "automatic-speech-recognition", source.location, revision=source.revision, device=self.device
        )

    def transcribe(self, batch):
        """A list of clips, each float32 (samples,) at 16 kHz → one Hypothesis for each, in their order."""
        clips = [{"raw": clip, "sampling_rate": 16_000} for clip in batch]
        heard = self.pipeline(clips, return_timestamps=True, generate_kwargs=dict(self.decoding))
        return [Hypothesis(output["text"].strip()) for output in heard]


PROVIDERS["german-whisper"] = ProviderEntry(__name__, "GermanWhisper", default_model="openai/whisper-small")
