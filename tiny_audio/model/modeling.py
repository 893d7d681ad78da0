"""ASRModel: a frozen audio encoder, a trained projector and a language model, joined into one speech recogniser."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import ModelOutput

from tiny_audio.audio.reading import AudioSource, is_batch, stream_audio
from tiny_audio.audio.segment import Window, is_silent, split_windows

from .config import ASRConfig
from .encoders import WINDOW_SAMPLES, EncoderAdapter, build_encoder, length_mask
from .loading import explained, hub_options, load_options, load_parts, load_trained_tensors, save_checkpoint
from .lora import adapted_parts, add_adapters, base_name, saved_adapters
from .processor import IGNORED_LABEL, ASRProcessor
from .projectors import build_projector
from .streaming import stream_text


@dataclass
class ASROutput(ModelOutput):
    """Loss (scalar, mean over the labels), number of labels and their logits (labels, vocabulary), or all logits.

    The loss includes the projector's auxiliary loss, if it has one, times `router_aux_loss_coef`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    num_label_tokens: torch.Tensor | None = None
    auxiliary_loss: torch.Tensor | None = None


class ASRModel(PreTrainedModel):
    """Speech recogniser: waveform → encoder → projector → language model → text.

    `from_pretrained` loads a checkpoint, `from_parts` joins pretrained parts with a fresh projector, and the
    constructor builds all from configs with random weights.
    """

    config_class = ASRConfig
    main_input_name = "input_features"
    _supports_sdpa = _supports_flash_attn = True
    label_smoothing = 0.0  # in training only

    def __init__(
        self,
        config: ASRConfig,
        encoder: EncoderAdapter | None = None,
        language_model: nn.Module | None = None,
        processor: ASRProcessor | None = None,
        adapters: dict | None = None,
    ):
        super().__init__(config)
        encoder = encoder or build_encoder(config.audio_config, config.encoder_padding, config.encoder_layer)
        language_model = language_model or AutoModelForCausalLM.from_config(config.text_config)
        config.encoder_dim, config.llm_dim = _dimensions(encoder, language_model)
        self.encoder, self.language_model = encoder, language_model
        self.projector = build_projector(config)
        add_adapters(self, adapters or {})
        self.processor: ASRProcessor = processor  # type: ignore[assignment]  # None only where built from configs alone
        self.sources: tuple[tuple[str, str], ...] = ()  # where encoder and language model lie, unchanged
        self.freeze()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *args,
        config: ASRConfig | None = None,
        subfolder: str = "",
        **options,
    ) -> "ASRModel":
        """Load a checkpoint: its own tensors, and encoder and language model from inside it or from their own ids.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            options: `dtype` of all parts (None or "auto": the checkpoint's `model_dtype`); `device_map` and
                `quantization_config` of the language model (the other parts go to the device of its embeddings);
                `attn_implementation` of both pretrained parts; `revision`, `token`, `cache_dir`, `local_files_only`,
                `force_download` as usual. ValueError: tensors that do not fit; TypeError: an unknown option.
        """
        path, options = str(pretrained_model_name_or_path), load_options(options)
        with explained(path, "a checkpoint"):
            config = config or ASRConfig.from_pretrained(path, subfolder=subfolder, **hub_options(options))
        model = cls._join(config, options, path, subfolder)
        load_trained_tensors(model, path, subfolder, **hub_options(options))
        return model.eval()

    @classmethod
    def from_parts(cls, config: ASRConfig, **options) -> "ASRModel":
        """Join the parts that `audio_model_id` and `text_model_id` name by a new, random projector; options as above."""
        return cls._join(config, load_options(options))

    @classmethod
    def _join(cls, config: ASRConfig, options: dict, checkpoint: str | None = None, subfolder: str = "") -> "ASRModel":
        encoder, language_model, *sources = load_parts(config, options, checkpoint, subfolder)
        config.encoder_dim, config.llm_dim = _dimensions(encoder, language_model)
        home = sources if checkpoint is None else [(checkpoint, subfolder)] * 2
        with explained(home[1][0], "a model's tokenizer and feature extractor"):
            processor = ASRProcessor.from_parts(config, *home, **hub_options(options))
        adapters = saved_adapters(config, checkpoint, subfolder, **hub_options(options)) if checkpoint else {}
        model = cls(config, encoder, language_model, processor, adapters)
        model.sources = tuple(sources)
        model.projector.to(encoder.encoder.dtype)
        if "device_map" in options:
            for part in (model.encoder, model.projector):
                part.to(language_model.get_input_embeddings().weight.device)
        return model

    def save_pretrained(self, save_directory: str | os.PathLike, self_contained: bool | None = None, **kwargs) -> None:
        """Write a checkpoint: the trained tensors, config, processor and this package's code.

        `self_contained`: encoder and language model too; None: as `config.self_contained` says.
        """
        if self_contained is not None:
            self.config.self_contained = self_contained
        save_checkpoint(self, Path(save_directory), self.sources)

    def freeze(self) -> None:
        """Let only the trained parts have gradients."""
        self.config.language_model_tuned |= not self.config.freeze_language_model
        self.encoder.requires_grad_(False)
        self.language_model.requires_grad_(not self.config.freeze_language_model)
        self.projector.requires_grad_(not self.config.freeze_projector)
        if self.encoder.layer_weights is not None:  # the projector's input: the two are trained together
            self.encoder.layer_weights.requires_grad_(not self.config.freeze_projector)
        for tensor in [parameter for name, parameter in self.named_parameters() if base_name(name) is None]:
            tensor.requires_grad_(not self.config.freeze_lora)

    def train(self, mode: bool = True) -> "ASRModel":
        """As nn.Module's; frozen parts stay in inference mode, without dropout."""
        super().train(mode)
        self.encoder.eval()
        if self.config.freeze_language_model:
            self.language_model.eval()
        for part in adapted_parts(self).values() if not self.config.freeze_lora else ():
            for module in part.modules():
                getattr(module, "lora_dropout", nn.Identity()).train(mode)
        return self

    def encode_audio(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens (batch, tokens, llm_dim), and how many of them are each clip's own (batch,).

        Features are (batch, mels, frames) or (batch, samples); the mask (batch, frames or samples) is 1 on audio.
        """
        frames, lengths = self.encoder(features, mask.sum(-1))
        weight = next(self.projector.parameters())
        embeddings = self.projector(frames.to(weight.dtype), length_mask(lengths, frames.shape[1]))
        return embeddings, self.projector.output_length(lengths)

    def embed(self, input_ids: torch.Tensor, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token embeddings (batch, tokens, llm_dim) in which the audio stands where `<audio>` stood.

        Raises:
            ValueError: a clip's placeholders are not as many as its audio tokens.
        """
        embeddings, counts = self.encode_audio(features, mask)
        placeholder = input_ids == self.config.audio_token_id
        if not torch.equal(placeholder.sum(-1), counts.to(input_ids.device)):
            found = f"{placeholder.sum(-1).tolist()} <audio> tokens, the clips give {counts.tolist()}"
            raise ValueError(f"The prompts hold {found}; make both with the same ASRProcessor.")
        tokens = self.language_model.get_input_embeddings()(input_ids.masked_fill(placeholder, 0))
        audio = embeddings[length_mask(counts, embeddings.shape[1])]
        return tokens.masked_scatter(placeholder[..., None], audio.to(tokens.dtype))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> ASROutput:
        """One pass over prompts (and answers).

        Args:
            input_ids, attention_mask, labels: (batch, tokens); labels -100 where there is no loss.
            input_features (batch, mels, frames) or input_values (batch, samples), with audio_attention_mask.

        With labels the loss is returned, and logits only where labels stand, so that no (tokens × vocabulary) tensor
        exists for the rest; without, the logits of every position, (batch, tokens, vocabulary).
        """
        features, mask = _audio_inputs(input_features, input_values, audio_attention_mask)
        embeddings = self.embed(input_ids, features, mask)
        if labels is None:
            output = self.language_model(inputs_embeds=embeddings, attention_mask=attention_mask, use_cache=False)
            return ASROutput(logits=output.logits)
        logits, targets = self.label_logits(labels, inputs_embeds=embeddings, attention_mask=attention_mask)
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        auxiliary = self.projector.__dict__.pop("auxiliary_loss", None)
        if auxiliary is not None:
            loss = loss + self.config.router_aux_loss_coef * auxiliary
        count = torch.tensor(len(targets), device=loss.device)
        return ASROutput(loss=loss, logits=logits, num_label_tokens=count, auxiliary_loss=auxiliary)

    def label_logits(self, labels: torch.Tensor, **inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (labels, vocabulary) of the language model for its `inputs` where labels stand, and those labels."""
        hidden = self.language_model.get_decoder()(**inputs, use_cache=False).last_hidden_state
        wanted = (targets := labels[:, 1:]) != IGNORED_LABEL
        return self.language_model.get_output_embeddings()(hidden[:, :-1][wanted]), targets[wanted]

    @torch.no_grad()
    def generate(
        self,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        **generation,
    ) -> torch.Tensor:
        """Decode a batch; only the new tokens come back, (batch, new tokens).

        Args:
            input_features or input_values, audio_attention_mask: as `forward`; without a mask all of it is audio.
            input_ids, attention_mask: left-padded prompts; made by the processor, one a clip, where absent (then
                `attention_mask` may also be the audio's).
            generation: any parameter of transformers' `generate`.
        """
        features, mask = _audio_inputs(input_features, input_values, audio_attention_mask)
        if input_ids is None and attention_mask is not None and audio_attention_mask is None:
            if attention_mask.shape == mask.shape:
                mask = attention_mask
            elif len(features) > 1:
                raise ValueError("generate() got several clips without audio_attention_mask; pass the processor's.")
        if input_ids is None:
            prompts = self.processor.prompts([self.processor.tokens_of_features(n) for n in mask.sum(-1).tolist()])
            input_ids, attention_mask = prompts["input_ids"], prompts["attention_mask"]
        elif attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        device = self.language_model.get_input_embeddings().weight.device
        input_ids, attention_mask = input_ids.to(device), attention_mask.to(device)
        embeddings = self.embed(input_ids, features.to(device), mask.to(device))
        return self.language_model.generate(
            inputs_embeds=embeddings, attention_mask=attention_mask, **self._generation_arguments(generation)
        )

    def generate_streaming(self, *args, **generation) -> Iterator[str]:
        """As `generate`, for one clip, yielding pieces of text as they come; an error is raised here, in the consumer."""
        return stream_text(partial(self.generate, *args, **generation), self.processor)

    def _generation_arguments(self, given: dict) -> dict:
        tokenizer, own_end = self.processor.tokenizer, self.language_model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *(own_end if isinstance(own_end, list) else [own_end])} - {None}
        arguments = self.config.generation_defaults()
        arguments |= {"eos_token_id": sorted(ends), "pad_token_id": tokenizer.pad_token_id}
        if self.config.audio_token_id < self.language_model.get_input_embeddings().num_embeddings:
            arguments["suppress_tokens"] = [self.config.audio_token_id]
        return {**{key: value for key, value in arguments.items() if value is not None}, **given}

    def transcribe(self, audio: AudioSource | list[AudioSource], batch_size: int = 8, **generation) -> str | list[str]:
        """Audio of any length to text; of a list of clips a list of texts.

        Args:
            audio: what `load_audio` reads (a bare array is 16 kHz), or a list of such.
            batch_size: windows decoded at a time; it changes the speed, not the text.
            generation: any parameter of transformers' `generate`.
        """
        texts = list(self.transcribe_each(audio if is_batch(audio) else [audio], batch_size, **generation))
        return texts if is_batch(audio) else texts[0]

    def transcribe_each(
        self, clips: Iterable[AudioSource], batch_size: int = 8, max_samples: int | None = None, **generation
    ) -> Iterator[str]:
        """The text of each clip as soon as it is whole; windows, of `max_samples` at most, share batches across clips."""
        windows = ((index, window) for index, clip in enumerate(clips) for window in self.windows(clip, max_samples))
        for _, parts in groupby(self._decoded(windows, batch_size, generation), key=itemgetter(0)):
            yield " ".join(text for _, text in parts if text)

    def _decoded(self, windows: Iterator[tuple[int, Window]], batch_size: int, generation: dict):
        while batch := list(islice(windows, batch_size)):
            texts = self.texts([window.waveform for _, window in batch], generation)
            yield from ((index, text) for (index, _), text in zip(batch, texts, strict=True))

    def stream_transcribe(self, audio: AudioSource, **generation) -> Iterator[str]:
        """One recording as pieces of text while they are decoded."""
        separator = ""
        for window in self.windows(audio):
            if is_silent(window.waveform):
                continue
            inputs = self.processor(window.waveform)
            inputs = {name: inputs[name] for name in (self.encoder.input_name, "audio_attention_mask")}
            for piece in self.generate_streaming(**inputs, **generation):
                yield separator + piece
                separator = ""
            separator = " "

    def windows(self, audio: AudioSource, max_samples: int | None = None) -> Iterator[Window]:
        """A recording in the windows that are decoded: the encoder's, or 30 s; `max_samples` makes them shorter."""
        limits = [limit for limit in (max_samples, self.processor.max_samples or WINDOW_SAMPLES) if limit]
        return split_windows(stream_audio(audio), min(limits))

    @torch.no_grad()
    def texts(self, waveforms: list[np.ndarray], generation: dict) -> list[str]:
        """One batch of 16 kHz waveforms, each at most a window long, to texts; of digital silence an empty one."""
        heard = [waveform for waveform in waveforms if not is_silent(waveform)]
        decoded: Iterator[str] = iter(())
        if heard:
            decoded = iter(self.processor.batch_decode(self.generate(**self.processor(heard), **generation)))
        return ["" if is_silent(waveform) else next(decoded) for waveform in waveforms]


def _dimensions(encoder: EncoderAdapter, language_model: nn.Module) -> tuple[int, int]:
    return encoder.dim, language_model.get_input_embeddings().embedding_dim


def _audio_inputs(input_features, input_values, mask) -> tuple[torch.Tensor, torch.Tensor]:
    features = input_features if input_features is not None else input_values
    if features is None:
        raise ValueError("No audio came with the call; pass the processor's input_features (or input_values).")
    if mask is None:
        mask = torch.ones(features.shape[0], features.shape[-1], dtype=torch.long, device=features.device)
    return features, mask


AutoConfig.register(ASRConfig.model_type, ASRConfig, exist_ok=True)
