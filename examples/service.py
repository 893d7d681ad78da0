"""A provider of one's own that asks a server: the one that comes with whisper.cpp."""

from tiny_audio.evaluation.providers import PROVIDERS, ProviderEntry
from tiny_audio.evaluation.providers.base import Hypothesis
from tiny_audio.evaluation.providers.service import Service, text_of


class WhisperCpp(Service):
    """POST /inference: the clip as a form, its text as JSON."""

    name = "whisper-cpp"
    url = None  # there is none of a vendor: --base-url says where it listens
    path = "/inference"
    key_variable = "WHISPER_CPP_KEY"  # of a proxy in front, if there is one
    may_need_no_key = True
    gives_words = False

    def request(self, wav):
        """What httpx2 sends for a clip, 16 kHz WAV."""
        return {"data": {"response_format": "json"}, "files": {"file": ("clip.wav", wav, "audio/wav")}}

    def read(self, answer):
        """The server's JSON → what it heard. An answer without a text raises KeyError, and is asked for again."""
        return Hypothesis(text_of(answer["text"]))


PROVIDERS["whisper-cpp"] = ProviderEntry(__name__, "WhisperCpp", default_model="whisper.cpp", service=True)
