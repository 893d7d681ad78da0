"""The processor: the one owner of the prompt, of the log-mel, and of how many audio tokens a clip takes."""

import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, BatchFeature

from tiny_audio.audio.mel import log_mel
from tiny_audio.audio.reading import SAMPLING_RATE, is_batch, load_audio

from .config import ASRConfig
from .encoders import WINDOW_SAMPLES, adapter_for, length_mask
from .projectors import build_projector

AUDIO_TOKEN = "<audio>"
INSTRUCTION = "Transcribe the speech to text"
IGNORED_LABEL = -100  # not part of the loss


class ASRProcessor:
    """Audio and text in, the model's tensors out; token ids in, text out. Works from a checkpoint folder alone.

    Made of the model's config (with `audio_config`), the language model's tokenizer, to which `<audio>` is added where
    it is missing, and the encoder's feature extractor.
    """

    def __init__(self, config: ASRConfig, tokenizer, feature_extractor):
        self.config, self.tokenizer, self.feature_extractor = config, tokenizer, feature_extractor
        if AUDIO_TOKEN not in tokenizer.get_vocab():
            tokenizer.add_tokens([AUDIO_TOKEN], special_tokens=True)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.audio_token_id: int = tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)
        config.audio_token_id = self.audio_token_id
        self._prompt_parts: dict[str, tuple[list[int], list[int]]] = {}  # by instruction
        adapter = adapter_for(config.audio_config, config.encoder_file)
        self.adapter = adapter(config.audio_config, padding=config.encoder_padding)
        with torch.device("meta"):  # only its arithmetic is asked for
            self._projector = build_projector(config)

    def __reduce__(self):  # a class of a file that was run by its path cannot be found again by its name
        return type(self), (self.config, self.tokenizer, self.feature_extractor)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike, config: ASRConfig | None = None, subfolder: str = "", **hub):
        """From a checkpoint folder or Hub id; `revision`, `token`, `cache_dir`, … as usual."""
        config = config or ASRConfig.from_pretrained(path, subfolder=subfolder, **hub)
        if config.audio_config is None:
            config.audio_config = AutoConfig.from_pretrained(config.audio_model_id)
        return cls.from_parts(config, (str(path), subfolder), (str(path), subfolder), **hub)

    @classmethod
    def from_parts(cls, config: ASRConfig, encoder_at: tuple[str, str], decoder_at: tuple[str, str], **hub):
        """From the encoder's feature extractor and the language model's tokenizer, each (path or Hub id, subfolder)."""
        tokenizer = AutoTokenizer.from_pretrained(decoder_at[0], subfolder=decoder_at[1], **hub)
        extractor = AutoFeatureExtractor.from_pretrained(encoder_at[0], subfolder=encoder_at[1], **hub)
        return cls(config, tokenizer, extractor)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """Asked for by AutoProcessor; the auto_map is written with the model's checkpoint."""

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write tokenizer and feature extractor; the config belongs to the model."""
        self.tokenizer.save_pretrained(folder)
        self.feature_extractor.save_pretrained(folder)

    def __call__(
        self, audio=None, sampling_rate: int | None = None, text=None, return_tensors: str = "pt", instructions=None
    ) -> BatchFeature:
        """Prepare a batch.

        Args:
            audio: one clip or a list: 16 kHz arrays, or anything `load_audio` reads.
            sampling_rate: Hz, of bare arrays at another rate than 16 kHz.
            text: the transcript(s), for training: adds `labels` and pads on the right. Without it the batch is a
                prompt to generate from, padded on the left.
            instructions: in training, one for each text; the published one otherwise.

        Returns:
            `input_ids`, `attention_mask` (batch, tokens); `input_features` (batch, mels, frames) or `input_values`
            (batch, samples); `audio_attention_mask` (batch, frames or samples); `labels` (batch, tokens), -100 where
            there is no loss. ValueError: a clip exceeds the encoder's window, or there are more clips than texts.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r} was asked for; only 'pt' is supported.")
        clips = list(audio) if is_batch(audio) else [audio]
        waveforms = [load_audio(clip, sampling_rate) for clip in clips]
        batch = self.features(waveforms)
        counts = [self.audio_token_count(len(waveform)) for waveform in waveforms]
        if text is None:
            batch.update(self.prompts(counts))
        else:
            texts = [text] if isinstance(text, str) else list(text)
            if len(texts) != len(counts):
                raise ValueError(f"{len(counts)} clips came with {len(texts)} texts; expected one text a clip.")
            batch.update(self.training_tokens(texts, counts, instructions))
        return BatchFeature(batch)

    @property
    def max_samples(self) -> int | None:
        """The encoder's window in samples at 16 kHz; longer audio must be split."""
        return self.adapter.max_samples

    def audio_token_count(self, samples: int) -> int:
        """Audio tokens that the language model sees for a clip of `samples`, at least 1."""
        return self.tokens_of_features(self.adapter.feature_length(samples))

    def tokens_of_features(self, length: int) -> int:
        """Audio tokens of `length` mel frames (or samples, for encoders of raw audio)."""
        return self._projector.output_length(self.adapter.output_length(length))

    def features(self, waveforms: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Features and mask of 16 kHz waveforms, each computed alone, then padded together."""
        seconds = max(map(len, waveforms)) / SAMPLING_RATE
        if self.max_samples is not None and seconds > self.max_samples / SAMPLING_RATE:
            window = f"the encoder's window of {self.max_samples / SAMPLING_RATE:.0f} s"
            raise ValueError(f"A clip of {seconds:.1f} s exceeds {window}; split it, or use transcribe(), which does.")
        clips = [self._clip_features(waveform) for waveform in waveforms]
        features = pad_sequence([clip.movedim(-1, 0) for clip in clips], batch_first=True).movedim(1, -1).contiguous()
        lengths = torch.tensor([self.adapter.feature_length(len(waveform)) for waveform in waveforms])
        return {
            self.adapter.input_name: features,
            "audio_attention_mask": length_mask(lengths, features.shape[-1]).long(),
        }

    def _clip_features(self, waveform: np.ndarray) -> torch.Tensor:
        """(mels, frames) or (samples,) of one clip."""
        waveform = np.pad(waveform, (0, max(0, self.adapter.min_samples - len(waveform))))
        if self.adapter.whisper_mel:
            return log_mel(waveform, self._mel_filters, WINDOW_SAMPLES, full_window=self.adapter.window)
        values = self.feature_extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        return values[self.adapter.input_name][0].movedim(0, -1)[..., : self.adapter.feature_length(len(waveform))]

    def prompts(self, audio_token_counts: Sequence[int]) -> dict[str, torch.Tensor]:
        """Generation prompts, left-padded: the text of each clip begins at the same column."""
        return self._padded([self._prompt([self.audio_token_id] * count) for count in audio_token_counts], "left")

    def training_tokens(self, texts: Sequence[str], counts=None, instructions=None) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `labels`; without audio token counts, of prompts that hold the texts themselves."""
        written, end = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"], [self.tokenizer.eos_token_id]
        heard = written if counts is None else [[self.audio_token_id] * count for count in counts]
        prompts = map(self._prompt, heard, instructions or [INSTRUCTION] * len(texts))
        pairs = [(prompt, answer + end) for prompt, answer in zip(prompts, written, strict=True)]
        labels = [torch.tensor([IGNORED_LABEL] * len(prompt) + answer) for prompt, answer in pairs]
        batch = self._padded([prompt + answer for prompt, answer in pairs], "right")
        return {**batch, "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL)}

    def _prompt(self, heard: list[int], instruction: str = INSTRUCTION) -> list[int]:
        if instruction not in self._prompt_parts:
            self._prompt_parts[instruction] = self._around(instruction)
        before, after = self._prompt_parts[instruction]
        return before + heard + after

    def _padded(self, rows: list[list[int]], side: str) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row) for row in rows]
        masks = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side=side)
        padding = self.tokenizer.pad_token_id
        return {"input_ids": pad_sequence(ids, True, padding, side), "attention_mask": masks}

    def batch_decode(self, ids, skip_special_tokens: bool = True) -> list[str]:
        """Token ids → texts, outer spaces stripped."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=skip_special_tokens)]

    def decode(self, ids, skip_special_tokens: bool = True) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens).strip()

    @cached_property
    def _mel_filters(self) -> torch.Tensor:
        return torch.tensor(np.asarray(self.feature_extractor.mel_filters), dtype=torch.float32)

    def _around(self, instruction: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the audio tokens: `<audio>` is a special token, so the two halves never merge."""
        user = f"{AUDIO_TOKEN} {instruction}"
        if self.tokenizer.chat_template is None:
            text = f"{self.tokenizer.bos_token or ''}{user}\n"
        else:
            turns = [("system", self.config.system_prompt), ("user", user)]
            messages = [{"role": role, "content": content} for role, content in turns if content]
            options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
            text = self.tokenizer.apply_chat_template(messages, **options)
        before, after = text.split(AUDIO_TOKEN)
        return tuple(self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))
