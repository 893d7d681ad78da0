"""The processor: the one owner of the prompt, of the log-mel, and of how many audio tokens a clip takes."""

import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, BatchFeature

from .audio import SAMPLING_RATE, is_batch, load_audio, log_mel
from .config import ASRConfig
from .encoders import WINDOW_SAMPLES, adapter_for
from .projectors import build_projector

AUDIO_TOKEN = "<audio>"
INSTRUCTION = "Transcribe the speech to text"
IGNORED_LABEL = -100  # not part of the loss


class ASRProcessor:
    """Audio and text in, the model's tensors out; token ids in, text out.

    Works from a checkpoint folder alone: `ASRProcessor.from_pretrained(folder)`.

    Args:
        config: of the model; `audio_config` must be known.
        tokenizer: of the language model; `<audio>` is added to it where it is missing.
        feature_extractor: of the encoder.
    """

    def __init__(self, config: ASRConfig, tokenizer, feature_extractor):
        self.config, self.tokenizer, self.feature_extractor = config, tokenizer, feature_extractor
        if AUDIO_TOKEN not in tokenizer.get_vocab():
            tokenizer.add_tokens([AUDIO_TOKEN], special_tokens=True)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.audio_token_id: int = tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)
        config.audio_token_id = self.audio_token_id
        self.adapter = adapter_for(config.audio_config)(config.audio_config, padding=config.encoder_padding)
        with torch.device("meta"):  # only its arithmetic is asked for
            self._projector = build_projector(config)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike, config: ASRConfig | None = None, subfolder: str = "", **hub):
        """Load from a checkpoint folder or Hub id; `revision`, `token`, `cache_dir`, … as usual."""
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
        self, audio=None, sampling_rate: int | None = None, text=None, return_tensors: str = "pt"
    ) -> BatchFeature:
        """Prepare a batch.

        Args:
            audio: one clip or a list: 16 kHz arrays, or anything `load_audio` reads.
            sampling_rate: Hz, of bare arrays at another rate than 16 kHz.
            text: the transcript(s), for training: adds `labels` and pads on the right. Without it the batch is a
                prompt to generate from, padded on the left.

        Returns:
            `input_ids`, `attention_mask` (batch, tokens); `input_features` (batch, mels, frames) or `input_values`
            (batch, samples); `audio_attention_mask` (batch, frames or samples); `labels` (batch, tokens), -100 where
            there is no loss: on the prompt and the padding.

        Raises:
            ValueError: a clip is longer than the encoder's window, or numbers of clips and texts differ.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r} was asked for; only 'pt' is supported.")
        clips = list(audio) if is_batch(audio) else [audio]
        waveforms = [clip if _ready(clip, sampling_rate) else load_audio(clip, sampling_rate) for clip in clips]
        batch = self.features(waveforms)
        counts = [self.audio_token_count(len(waveform)) for waveform in waveforms]
        if text is None:
            batch.update(self.prompts(counts))
        else:
            texts = [text] if isinstance(text, str) else list(text)
            if len(texts) != len(counts):
                raise ValueError(f"{len(counts)} clips came with {len(texts)} texts; expected one text a clip.")
            batch.update(self._training_tokens(counts, texts))
        return BatchFeature(batch)

    @property
    def max_samples(self) -> int | None:
        """The encoder's window in samples at 16 kHz; longer audio must be split."""
        return self.adapter.max_samples

    def feature_length(self, samples: int) -> int:
        """Mel frames (or samples, for encoders of raw audio) of a clip, enough for one encoder frame."""
        return self.adapter.feature_length(samples)

    def audio_token_count(self, samples: int) -> int:
        """Audio tokens that the language model sees for a clip of `samples`, at least 1."""
        return self.tokens_of_features(self.feature_length(samples))

    def tokens_of_features(self, length: int) -> int:
        """Audio tokens of `length` mel frames (or samples, for encoders of raw audio)."""
        return self._projector.output_length(self.adapter.output_length(length))

    def features(self, waveforms: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Features and mask of 16 kHz waveforms, each computed alone, then padded together."""
        for waveform in waveforms:
            if self.max_samples is not None and len(waveform) > self.max_samples:
                raise ValueError(
                    f"A clip of {len(waveform) / SAMPLING_RATE:.1f} s exceeds the encoder's window of "
                    f"{self.max_samples / SAMPLING_RATE:.0f} s; split it, or use transcribe(), which does."
                )
        clips = [self._clip_features(waveform) for waveform in waveforms]
        features = torch.zeros(len(clips), *clips[0].shape[:-1], max(clip.shape[-1] for clip in clips))
        mask = torch.zeros(len(clips), features.shape[-1], dtype=torch.long)
        for row, (waveform, clip) in enumerate(zip(waveforms, clips, strict=True)):
            features[row, ..., : clip.shape[-1]] = clip
            mask[row, : self.feature_length(len(waveform))] = 1
        return {self.adapter.input_name: features, "audio_attention_mask": mask}

    def _clip_features(self, waveform: np.ndarray) -> torch.Tensor:
        """(mels, frames) or (samples,) of one clip."""
        waveform = np.pad(waveform, (0, max(0, self.adapter.min_samples - len(waveform))))
        if self.adapter.whisper_mel:
            return log_mel(waveform, self._mel_filters, WINDOW_SAMPLES, full_window=self.adapter.window)
        values = self.feature_extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        return values[self.adapter.input_name][0].movedim(0, -1)[..., : self.feature_length(len(waveform))]

    def prompts(self, audio_token_counts: Sequence[int]) -> dict[str, torch.Tensor]:
        """Generation prompts, left-padded: the text of each clip begins at the same column."""
        before, after = self._prompt_parts
        return self._pad([before + [self.audio_token_id] * count + after for count in audio_token_counts], left=True)

    def _training_tokens(self, counts: Sequence[int], texts: Sequence[str]) -> dict[str, torch.Tensor]:
        before, after = self._prompt_parts
        prompts = [before + [self.audio_token_id] * count + after for count in counts]
        end = [self.tokenizer.eos_token_id]
        answers = [ids + end for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
        batch = self._pad([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)], left=False)
        labels = torch.full_like(batch["input_ids"], IGNORED_LABEL)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        return {**batch, "labels": labels}

    def batch_decode(self, ids, skip_special_tokens: bool = True) -> list[str]:
        """Token ids → texts, outer spaces stripped."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=skip_special_tokens)]

    def decode(self, ids, skip_special_tokens: bool = True) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens).strip()

    @cached_property
    def _mel_filters(self) -> torch.Tensor:
        return torch.tensor(np.asarray(self.feature_extractor.mel_filters), dtype=torch.float32)

    @cached_property
    def _prompt_parts(self) -> tuple[list[int], list[int]]:
        """Token ids before and after the audio tokens: `<audio>` is a special token, so the two halves never merge."""
        user = f"{AUDIO_TOKEN} {INSTRUCTION}"
        if self.tokenizer.chat_template is None:
            text = f"{self.tokenizer.bos_token or ''}{user}\n"
        else:
            system = [{"role": "system", "content": self.config.system_prompt}] if self.config.system_prompt else []
            text = self.tokenizer.apply_chat_template(
                [*system, {"role": "user", "content": user}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
        before, after = text.split(AUDIO_TOKEN)
        return tuple(self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))

    def _pad(self, rows: list[list[int]], left: bool) -> dict[str, torch.Tensor]:
        size = max(len(row) for row in rows)
        ids = torch.full((len(rows), size), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            span = slice(size - len(row), size) if left else slice(0, len(row))
            ids[index, span] = torch.tensor(row)
            mask[index, span] = 1
        return {"input_ids": ids, "attention_mask": mask}


def _ready(clip, sampling_rate: int | None) -> bool:
    return (
        isinstance(clip, np.ndarray)
        and clip.ndim == 1
        and clip.dtype == np.float32
        and sampling_rate in (None, SAMPLING_RATE)
    )
