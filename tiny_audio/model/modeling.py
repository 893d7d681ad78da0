"""ASRModel: a frozen audio encoder, a trained projector and a language model, joined into one speech recogniser."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import ModelOutput

from tiny_audio.audio.reading import AudioSource, is_batch, stream_audio
from tiny_audio.audio.segment import Window, is_silent, split_windows

from .alignment import Word, align
from .config import ASRConfig
from .encoders import WINDOW_SAMPLES, EncoderAdapter, build_encoder, length_mask
from .loading import explained, hub_options, load_options, load_parts, load_trained_tensors, save_checkpoint
from .lora import ADAPTER, ENCODER_ADAPTER, adapted_parts, add_adapters, base_name, saved_adapters
from .processor import IGNORED_LABEL, ASRProcessor
from .projectors import build_projector
from .streaming import stream_text

Frames = tuple[torch.Tensor, torch.Tensor]  # the encoder's (batch, frames, encoder_dim), and each clip's own (batch,)


@dataclass
class ASROutput(ModelOutput):
    """Loss (scalar, mean over the labels), number of labels and their logits (labels, vocabulary), or all logits.

    The loss includes the projector's auxiliary loss, if it has one, times `router_aux_loss_coef`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    num_label_tokens: torch.Tensor | None = None
    auxiliary_loss: torch.Tensor | None = None
    ctc_scores: torch.Tensor | None = None  # (batch, frames, classes) of a CTC head that is trained


def label_loss(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, smoothing: float):
    """Mean cross-entropy of `head(hidden)`, hidden (labels, dim), and those logits (labels, vocabulary)."""
    logits = head(hidden)
    return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing), logits


class ASRModel(PreTrainedModel):
    """Speech recogniser: waveform → encoder → projector → language model → text.

    `from_pretrained` loads a checkpoint, `from_parts` joins pretrained parts with a fresh projector, and the
    constructor builds all from configs with random weights.
    """

    config_class = ASRConfig
    main_input_name = "input_features"
    _supports_sdpa = _supports_flash_attn = True
    label_smoothing = 0.0  # in training only
    label_loss = staticmethod(label_loss)  # training may put one that gives no logits in its place

    def __init__(
        self,
        config: ASRConfig,
        encoder: EncoderAdapter | None = None,
        language_model: nn.Module | None = None,
        processor: ASRProcessor | None = None,
        adapters: dict | None = None,
    ):
        super().__init__(config)
        encoder = encoder or build_encoder(config)
        language_model = language_model or AutoModelForCausalLM.from_config(config.text_config)
        config.encoder_dim, config.llm_dim = _dimensions(encoder, language_model)
        self.encoder, self.language_model = encoder, language_model
        self.projector = build_projector(config)
        characters = config.ctc_vocabulary
        self.ctc_head: nn.Linear | None = nn.Linear(encoder.dim, len(characters)) if characters else None
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
        own = [part for part in (model.projector, model.ctc_head) if part is not None]
        for part in own:
            part.to(encoder.encoder.dtype)
        for part in (model.encoder, *own) if "device_map" in options else ():
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
        if self.ctc_head is not None:
            self.ctc_head.requires_grad_(False)  # trained where a run asks for it
        if self.encoder.layer_weights is not None:  # the projector's input: the two are trained together
            self.encoder.layer_weights.requires_grad_(not self.config.freeze_projector)
        for part, frozen in self._lora():
            for tensor in [parameter for name, parameter in part.named_parameters() if base_name(name) is None]:
                tensor.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> "ASRModel":
        """As nn.Module's; frozen parts stay in inference mode, without dropout."""
        super().train(mode)
        self.encoder.eval()
        if self.config.freeze_language_model:
            self.language_model.eval()
        for part, frozen in self._lora():
            for module in part.modules():
                getattr(module, "lora_dropout", nn.Identity()).train(mode and not frozen)
        return self

    def _lora(self) -> list[tuple[nn.Module, bool]]:
        """The parts that have LoRA, and whether it is frozen."""
        frozen = {ADAPTER: self.config.freeze_lora, ENCODER_ADAPTER: self.config.freeze_encoder_lora}
        return [(part, frozen[folder]) for folder, part in adapted_parts(self).items()]

    def encode_audio(
        self, features: torch.Tensor, mask: torch.Tensor, frames: Frames | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens (batch, tokens, llm_dim), and how many of them are each clip's own (batch,).

        Features are (batch, mels, frames) or (batch, samples); the mask (batch, frames or samples) is 1 on audio;
        `frames`: where they are known already.
        """
        hidden, lengths = frames or self.encoder(features, mask.sum(-1))
        weight = next(self.projector.parameters())
        embeddings = self.projector(hidden.to(weight.dtype), length_mask(lengths, hidden.shape[1]))
        return embeddings, self.projector.output_length(lengths)

    def ctc_scores(self, frames: torch.Tensor) -> torch.Tensor:
        """Encoder frames → the CTC head's log-probabilities (batch, frames, classes). ValueError: there is no head."""
        if self.ctc_head is None:
            raise ValueError("Word times need a CTC head, which this checkpoint has not; docs/word-times.md adds one.")
        return self.ctc_head(frames.to(self.ctc_head.weight.dtype)).float().log_softmax(-1)

    def embed(
        self, input_ids: torch.Tensor, features: torch.Tensor, mask: torch.Tensor, frames: Frames | None = None
    ) -> torch.Tensor:
        """Token embeddings (batch, tokens, llm_dim) in which the audio stands where `<audio>` stood.

        Raises:
            ValueError: a clip's placeholders are not as many as its audio tokens.
        """
        embeddings, counts = self.encode_audio(features, mask, frames)
        placeholder = input_ids == self.config.audio_token_id
        if not torch.equal(placeholder.sum(-1), counts.to(input_ids.device)):
            found = f"{placeholder.sum(-1).tolist()} <audio> tokens, the clips give {counts.tolist()}"
            raise ValueError(f"The prompts hold {found}; make both with the same ASRProcessor.")
        tokens = self.language_model.get_input_embeddings()(input_ids.masked_fill(placeholder, 0))
        audio = embeddings[length_mask(counts, embeddings.shape[1])]
        return tokens.masked_scatter(placeholder[..., None], audio.to(tokens.dtype))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        frames: Frames | None = None,
        **kwargs,
    ) -> ASROutput:
        """One pass over prompts (and answers).

        Args:
            input_ids, attention_mask, labels: (batch, tokens); labels -100 where there is no loss.
            input_features: (batch, mels, frames), or input_values, (batch, samples), with audio_attention_mask.
            frames: of the encoder, where they are known already; then no features are needed.

        With labels the loss is returned, and logits only where labels stand, so that no (tokens × vocabulary) tensor
        exists for the rest; without, the logits of every position, (batch, tokens, vocabulary). Without input_ids, neither.
        """
        features, mask = audio_attention_mask, audio_attention_mask  # neither is read where the frames are known
        if frames is None:
            features, mask = _audio_inputs(input_features, input_values, audio_attention_mask)
            frames = self.encoder(features, mask.sum(-1))
        head_is_trained = self.ctc_head is not None and self.ctc_head.weight.requires_grad
        scores = self.ctc_scores(frames[0]) if head_is_trained else None
        if input_ids is None:
            return ASROutput(ctc_scores=scores)
        embeddings = self.embed(input_ids, features, mask, frames)
        if labels is None:
            output = self.language_model(inputs_embeds=embeddings, attention_mask=attention_mask, use_cache=False)
            return ASROutput(logits=output.logits)
        hidden, targets = self.label_states(labels, inputs_embeds=embeddings, attention_mask=attention_mask)
        head, smoothing = self.language_model.get_output_embeddings(), self.label_smoothing if self.training else 0.0
        loss, logits = self.label_loss(head, hidden, targets, smoothing)
        auxiliary = self.projector.__dict__.pop("auxiliary_loss", None)
        if auxiliary is not None:
            loss = loss + self.config.router_aux_loss_coef * auxiliary
        count = torch.tensor(len(targets), device=loss.device)
        return ASROutput(loss, logits, num_label_tokens=count, auxiliary_loss=auxiliary, ctc_scores=scores)

    def label_states(self, labels: torch.Tensor, **inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """What the language model's output layer reads where labels stand, (labels, dim), and those labels."""
        hidden = self.language_model.get_decoder()(**inputs, use_cache=False).last_hidden_state
        wanted = (targets := labels[:, 1:]) != IGNORED_LABEL
        return hidden[:, :-1][wanted], targets[wanted]

    @torch.no_grad()
    def generate(
        self,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        frames: Frames | None = None,
        **generation,
    ) -> torch.Tensor:
        """Decode a batch; only the new tokens come back, (batch, new tokens).

        Args:
            input_features or input_values, audio_attention_mask: as `forward`; without a mask all of it is audio.
            input_ids, attention_mask: left-padded prompts; made by the processor, one a clip, where absent (then
                `attention_mask` may also be the audio's).
            frames: of the encoder, where they are known already.
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
        embeddings = self.embed(input_ids, features.to(device), mask.to(device), frames)
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
        clips = audio if is_batch(audio) else [audio]
        texts = [text for text, _ in self.transcribe_each(clips, batch_size, **generation)]
        return texts if is_batch(audio) else texts[0]

    def transcribe_each(
        self,
        clips: Iterable[AudioSource],
        batch_size: int = 8,
        max_samples: int | None = None,
        word_times: bool = False,
        **generation,
    ) -> Iterator[tuple[str, list[Word]]]:
        """The text of each clip as soon as it is whole, and with `word_times` its words.

        Windows, of `max_samples` at most, share batches across clips. ValueError: word times without a CTC head.
        """
        windows = ((index, window) for index, clip in enumerate(clips) for window in self.windows(clip, max_samples))
        for _, parts in groupby(self._decoded(windows, batch_size, generation, word_times), key=itemgetter(0)):
            _, texts, words = zip(*parts, strict=True)
            yield " ".join(filter(None, texts)), [*chain.from_iterable(words)]

    def _decoded(self, windows: Iterator[tuple[int, Window]], batch_size: int, generation: dict, word_times: bool):
        while batch := list(islice(windows, batch_size)):
            decoded = self.decode([window for _, window in batch], generation, word_times)
            yield from ((index, *parts) for (index, _), parts in zip(batch, decoded, strict=True))

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
    def decode(
        self, windows: Sequence[Window], generation: dict, word_times: bool = False
    ) -> list[tuple[str, list[Word]]]:
        """One batch of windows to texts and, with `word_times`, their words; of digital silence an empty text."""
        heard = [window for window in windows if not is_silent(window.waveform)]
        decoded: Iterator[tuple[str, list[Word]]] = iter(())
        if heard:
            inputs = self.processor([window.waveform for window in heard]).to(self.device)
            frames = self.encoder(inputs[self.encoder.input_name], inputs["audio_attention_mask"].sum(-1))
            texts = self.processor.batch_decode(self.generate(**inputs, frames=frames, **generation))
            words = self._words(texts, frames, heard) if word_times else [[] for _ in heard]
            decoded = zip(texts, words, strict=True)
        return [("", []) if is_silent(window.waveform) else next(decoded) for window in windows]

    def _words(self, texts: list[str], frames: Frames, windows: list[Window]) -> list[list[Word]]:
        scores, vocabulary, step = self.ctc_scores(frames[0]), self.config.ctc_vocabulary, self.encoder.frame_seconds
        clips = zip(scores.cpu().numpy(), frames[1].tolist(), texts, windows, strict=True)
        return [align(row[:length], text, vocabulary, step, window) for row, length, text, window in clips]


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
