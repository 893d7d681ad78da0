"""The settings of a training run: a dataclass a configuration group, a sentence on every field."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from math import inf
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tiny_audio.data.augmentation import AugmentSettings
from tiny_audio.data.config import ALIASES as DATA_ALIASES
from tiny_audio.data.config import DataConfig, Part, named
from tiny_audio.errors import TinyAudioError

DTYPES = ("fp32", "bf16", "fp16")
SCHEDULES = ("cosine", "linear", "constant")
TRACKERS = ("tensorboard", "wandb", "none")
MODEL_DTYPES = ("float32", "bfloat16", "float16")
ENCODER_PADDINGS = ("masked", "window")
PROJECTOR_VARIANTS = ("norm", "relu", "glm")
USELESS_FOR_HEAD = (
    "distillation_weight", "label_smoothing", "audio_token_dropout", "prompt_variety", "augment.silence_share",
)  # fmt: skip
QUANTIZATIONS = ("8bit", "4bit")
AUTO = "auto"  # of training.batch_seconds


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class ModelSettings:
    """What is joined, and what of it is trained; the `model` group."""

    audio_model_id: str | None = _option(None, "Encoder: Hub id or folder.")
    text_model_id: str | None = _option(None, "Language model: Hub id or folder.")
    pretrained: str | None = _option(
        None, "Start from this checkpoint (folder, Hub id, or `nano`); all but dtype and freezing then comes from it."
    )
    self_contained: bool = _option(False, "Write encoder and language model into every checkpoint.")
    encoder_file: str | None = _option(
        None, "Your own encoder family: a Python file that puts its class into ENCODER_ADAPTERS."
    )
    projector_type: str = _option("mlp", "Name of the projector class in PROJECTOR_CLASSES.")
    projector_variant: str = _option("norm", "Of `mlp`: norm, relu (ReLU, biases) or glm (GELU, biases).")
    projector_file: str | None = _option(
        None, "Your own projector: a Python file that puts its class into PROJECTOR_CLASSES."
    )
    projector_pool_stride: int = _option(4, "Encoder frames that become one audio token.")
    projector_hidden_dim: int = _option(2048, "Width of the projector's hidden layer.")
    num_experts: int = _option(4, "Adapters of `mosa`, or experts of `moe` beside the shared one.")
    num_experts_per_tok: int = _option(2, "Experts of `moe` that a token goes to, the shared one not counted.")
    router_aux_loss_coef: float = _option(0.01, "Weight of the router's balance and z-loss in the loss of `moe`.")
    qformer_window_size: int = _option(15, "Encoder frames that `qformer` looks at together.")
    downsample_rate: int = _option(5, "Encoder frames for one audio token of `qformer`.")
    qformer_hidden_size: int | None = _option(None, "Width of `qformer`; null for the encoder's.")
    qformer_num_layers: int = _option(2, "Layers of `qformer`.")
    qformer_num_heads: int = _option(16, "Attention heads of `qformer`; they must divide its width.")
    qformer_intermediate_size: int | None = _option(None, "Inner width of `qformer`; null for four times its width.")
    encoder_padding: str = _option("masked", "`masked`, or `window` for 30 s of unmasked mel as published checkpoints.")
    encoder_layer: int | str = _option(
        -1, "Hidden state of the encoder, -1 for the last; `weighted` for a learned mean."
    )
    system_prompt: str | None = _option(None, "System turn of the prompt; null for none.")
    model_dtype: str = _option("float32", "Precision in which frozen parts are held: float32, bfloat16 or float16.")
    attn_implementation: str | None = _option(
        None, "Attention of both pretrained parts; null lets transformers choose."
    )
    ctc_head: bool = _option(
        False,
        "Train a CTC head beside the projector, for word times; HuBERT and wav2vec 2.0 fine-tuned for CTC bring theirs.",
    )
    freeze_projector: bool = _option(False, "Leave the projector as it is.")
    freeze_language_model: bool = _option(True, "Leave the language model as it is, but for its LoRA.")
    use_lora: bool = _option(False, "Train LoRA adapters on the language model.")
    lora_rank: int = _option(8, "Rank of the language model's LoRA.")
    lora_alpha: int = _option(16, "Its scale: what it adds is multiplied by lora_alpha / lora_rank.")
    lora_target_modules: list[str] | None = _option(None, "Linear layers that get it; null for q_proj and v_proj.")
    lora_dropout: float = _option(0.0, "Dropout before every LoRA layer, the encoder's too, in training.")
    encoder_lora_rank: int = _option(0, "Rank of LoRA adapters on the encoder; 0 for none.")
    encoder_lora_alpha: int = _option(32, "Their scale, as lora_alpha.")
    encoder_lora_target_modules: list[str] | None = _option(None, "As lora_target_modules.")
    quantization: str | None = _option(
        None, "Hold the frozen language model in `8bit` or `4bit` (bitsandbytes; with LoRA that is QLoRA)."
    )

    def __post_init__(self) -> None:
        _one_of("model.model_dtype", self.model_dtype, MODEL_DTYPES)
        _one_of("model.encoder_padding", self.encoder_padding, ENCODER_PADDINGS)
        _at_least("model.projector_pool_stride", self.projector_pool_stride, 1)
        _one_of("model.projector_variant", self.projector_variant, PROJECTOR_VARIANTS)
        for name in (
            "projector_hidden_dim",
            "num_experts",
            "qformer_num_layers",
            "qformer_num_heads",
            "downsample_rate",
        ):
            _at_least(f"model.{name}", getattr(self, name), 1)
        _at_least("model.qformer_window_size", self.qformer_window_size, self.downsample_rate)
        _at_least("model.router_aux_loss_coef", self.router_aux_loss_coef, 0)
        for name in ("lora_rank", "lora_alpha", "encoder_lora_alpha"):
            _at_least(f"model.{name}", getattr(self, name), 1)
        _share("model.lora_dropout", self.lora_dropout)
        _at_least("model.encoder_lora_rank", self.encoder_lora_rank, 0)
        if self.quantization is not None:
            _one_of("model.quantization", self.quantization, QUANTIZATIONS)
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise TinyAudioError(
                f"model.num_experts_per_tok is {self.num_experts_per_tok}; expected 1 to model.num_experts, "
                f"{self.num_experts}."
            )
        self._check_what_is_trained()

    @property
    def trains_head_alone(self) -> bool:
        """Whether projector and language model need not run."""
        others = self.use_lora or self.encoder_lora_rank or not self.freeze_projector or not self.freeze_language_model
        return self.ctc_head and not others

    def _check_what_is_trained(self) -> None:
        more = self.use_lora or self.encoder_lora_rank or self.ctc_head
        if self.freeze_projector and self.freeze_language_model and not more:
            raise TinyAudioError(
                "model.freeze_projector and model.freeze_language_model are both true, so nothing would be trained; "
                "set one of them to false, or model.use_lora or model.ctc_head to true."
            )
        for name, asked in (("use_lora", self.use_lora), ("quantization", self.quantization)):
            if asked and not self.freeze_language_model:
                raise TinyAudioError(
                    f"model.{name} needs the language model's own weights frozen; set model.freeze_language_model=true."
                )


@dataclass
class TrainingSettings:
    """How long, how fast and in which steps; the `training` group."""

    max_steps: int | None = _option(400, "Optimizer steps; with num_epochs set as well, whichever ends first.")
    num_epochs: float | None = _option(None, "Passes over the data; with max_steps set as well, whichever ends first.")
    learning_rate: float = _option(1e-3, "Peak learning rate of AdamW.")
    language_model_learning_rate: float | None = _option(
        None, "Peak learning rate of a language model that is trained too, or of its LoRA; null for learning_rate."
    )
    encoder_learning_rate: float | None = _option(None, "That of the encoder's LoRA; null for learning_rate.")
    lr_scheduler: str = _option("cosine", "After the warm-up: `cosine` or `linear` down to 0, or `constant`.")
    warmup_steps: int = _option(0, "Steps over which the learning rate rises from 0.")
    weight_decay: float = _option(0.01, "AdamW's weight decay, on matrices only: not on norms and biases.")
    language_model_weight_decay: float | None = _option(None, "That of the language model; null for weight_decay.")
    encoder_weight_decay: float | None = _option(None, "That of the encoder's LoRA; null for weight_decay.")
    batch_seconds: Any = _option(
        60.0,
        "Seconds of audio in a batch, padding included; `auto`: as many as are fastest and fit, found at the start.",
    )
    batch_size: int | None = _option(None, "At most this many clips in a batch; null for no such limit.")
    packing: bool | None = _option(
        None,
        "Lay the clips of a batch end to end for the language model; null for where it is faster: in bf16 on CUDA, on a "
        "CPU with cache_features.",
    )
    gradient_accumulation_steps: int = _option(
        1, "Batches of each process that make one optimizer step, weighted by their label tokens."
    )
    max_grad_norm: float = _option(1.0, "Gradients longer than this are scaled down to it; 0 for never.")
    label_smoothing: float = _option(0.0, "Share of the target's probability that is spread over all tokens.")
    ctc_loss_weight: float = _option(0.1, "Weight of the CTC head's loss beside the language model's.")
    audio_token_dropout: float = _option(0.0, "Probability with which an audio token is left out (becomes zeros).")
    distillation_weight: float = _option(
        0.0, "Share of the loss that compares with the frozen language model reading the transcript; 0 for none."
    )
    distillation_temperature: float = _option(2.0, "Both sides of that comparison are softened by it; 1 for as is.")
    prompt_variety: list[str] | None = _option(
        None, "Instructions drawn for the training clips beside the published one; null for none."
    )
    time_masks: int = _option(0, "SpecAugment: stripes of log-mel frames that are hidden in each clip.")
    time_mask_frames: int = _option(100, "SpecAugment: widest such stripe, in frames; never over a fifth of the clip.")
    frequency_masks: int = _option(0, "SpecAugment: stripes of mel bands that are hidden in each clip.")
    frequency_mask_bands: int = _option(27, "SpecAugment: widest such stripe, in bands.")
    augment: AugmentSettings = field(
        default_factory=AugmentSettings, metadata={"help": "How the waveforms of training clips are changed."}
    )
    cache_features: bool = _option(
        False, "Keep the frozen encoder's frames on disk, computed once before the first step."
    )
    cache_dir: str | None = _option(None, "Where; null for ~/.cache/tiny-audio/features.")
    cache_dtype: str = _option("bf16", "Precision of the frames on disk: bf16, fp16 or fp32.")
    dtype: str = _option("fp32", "Computing precision: fp32, or mixed precision in bf16 or fp16 (a GPU).")
    gradient_checkpointing: bool = _option(False, "Recompute the language model's layers instead of keeping them.")
    fsdp: bool = _option(
        False, "Spread a language model that is trained in full, its gradients and optimizer states over the processes."
    )
    compile: bool = _option(False, "Run the layers of encoder and language model as compiled kernels (a C++ compiler).")
    seed: int = _option(
        0,
        "Seed of the new weights, of dropout and of what is drawn for a clip; data.seed is that of the order of the clips.",
    )
    num_workers: int = _option(0, "Processes that decode audio and compute log-mels beside the training.")
    logging_steps: int = _option(10, "Steps between two entries of log.jsonl and of the tracker.")
    eval_steps: int | None = _option(None, "Steps between two validations; null for one, at the end.")
    save_steps: int | None = _option(None, "Steps between two checkpoints to resume from; null for one, at the end.")
    save_total_limit: int | None = _option(2, "Checkpoints to resume from that are kept, beside `best`; null for all.")
    push_to: str | None = _option(
        None,
        "Hub model that gets `best` in the background after each checkpoint, OWNER/NAME; made private if it is new.",
    )
    push_checkpoints: bool = _option(False, "Push the newest checkpoint too, so that the run can go on elsewhere.")
    report_to: str = _option("tensorboard", "Where the curves go besides log.jsonl: tensorboard, wandb or none.")

    def __post_init__(self) -> None:
        self.batch_seconds = _seconds_or_auto(self.batch_seconds)
        _one_of("training.lr_scheduler", self.lr_scheduler, SCHEDULES)
        _one_of("training.dtype", self.dtype, DTYPES)
        _one_of("training.cache_dtype", self.cache_dtype, DTYPES)
        _one_of("training.report_to", self.report_to, TRACKERS)
        for name in ("max_steps", "gradient_accumulation_steps", "batch_size", "logging_steps", "eval_steps"):
            _at_least(f"training.{name}", getattr(self, name), 1)
        for name in ("save_steps", "save_total_limit"):
            _at_least(f"training.{name}", getattr(self, name), 1)
        for name in (
            "warmup_steps", "weight_decay", "max_grad_norm", "num_workers", "learning_rate",
            "language_model_learning_rate", "encoder_learning_rate", "language_model_weight_decay", "encoder_weight_decay",
            "ctc_loss_weight", "time_masks", "time_mask_frames", "frequency_masks", "frequency_mask_bands",
        ):  # fmt: skip
            _at_least(f"training.{name}", getattr(self, name), 0)
        for name in ("label_smoothing", "audio_token_dropout"):
            _share(f"training.{name}", getattr(self, name))
        if not 0 <= self.distillation_weight <= 1:
            raise TinyAudioError(f"training.distillation_weight is {self.distillation_weight}; expected 0 to 1.")
        for instruction in self.prompt_variety or ():
            if not instruction.strip() or "<audio>" in instruction:
                raise TinyAudioError(
                    f"training.prompt_variety holds {instruction!r}; expected words, and no <audio>: it stands before them."
                )
        for name in ("batch_seconds", "num_epochs", "distillation_temperature"):
            value = getattr(self, name)
            if value not in (None, AUTO) and not 0 < value < inf:
                raise TinyAudioError(f"training.{name} is {value}; expected more than 0.")
        if self.push_checkpoints and self.push_to is None:
            raise TinyAudioError(
                "training.push_checkpoints is true and training.push_to is not set; set it to OWNER/NAME."
            )
        if self.max_steps is None and self.num_epochs is None:
            raise TinyAudioError("Neither training.max_steps nor training.num_epochs is set; set one of them.")
        if self.cache_features:
            self._check_cachable()

    def _check_cachable(self) -> None:
        masks = [name for name in ("time_masks", "frequency_masks") if getattr(self, name)]
        changing = [*masks, *(["augment"] if self.augment.active else [])]
        if changing:
            raise TinyAudioError(
                f"training.{changing[0]} changes the audio in every epoch, and training.cache_features keeps what the "
                "encoder made of it once; leave one of the two out."
            )


@dataclass
class Settings:
    """Everything a run is made of."""

    experiment: str = _option("quickstart", "Name of the experiment the settings began with.")
    output_dir: str | None = _option(None, "Folder of the run; null for outputs/EXPERIMENT-DATE-TIME.")
    processes: int = _option(
        1, "Processes that train together, on all machines; the command line and launchers set it."
    )
    model: ModelSettings = field(default_factory=ModelSettings, metadata={"help": "What is joined and trained."})
    data: DataConfig = field(default_factory=DataConfig, metadata={"help": "Which dataset, and how it is read."})
    training: TrainingSettings = field(default_factory=TrainingSettings, metadata={"help": "How long and how fast."})

    def __post_init__(self) -> None:
        if self.model.ctc_head and not self.training.ctc_loss_weight:
            raise TinyAudioError(
                "training.ctc_loss_weight is 0, so the CTC head would learn nothing; expected more than 0."
            )
        if self.model.trains_head_alone:
            given = {**vars(self.training), "augment.silence_share": self.training.augment.silence_share}
            for name in USELESS_FOR_HEAD:
                if given[name]:
                    raise TinyAudioError(
                        f"training.{name} has no effect where the CTC head alone is trained; leave it out."
                    )
        if self.training.cache_features and self.data.streaming:
            raise TinyAudioError(
                "training.cache_features needs the clips before the first step; expected data.streaming=false with it."
            )
        if self.training.fsdp and (self.model.freeze_language_model or self.training.dtype == "fp16"):
            raise TinyAudioError(
                "training.fsdp is for a language model that is trained in full, in fp32 or bf16; expected "
                "model.freeze_language_model=false and another training.dtype than fp16."
            )
        if self.training.distillation_weight and not self.model.freeze_language_model:
            raise TinyAudioError(
                f"training.distillation_weight is {self.training.distillation_weight} with model.freeze_language_model=false; "
                "expected a frozen language model, since one that is trained cannot be its own teacher."
            )


SECTIONS: dict[str, type] = {"model": ModelSettings, "data": DataConfig, "training": TrainingSettings}
OPTION_GROUPS: dict[str, type] = {**SECTIONS, "training.augment": AugmentSettings}

# Names that older configurations use, by section, and the fields they mean.
ALIASES: dict[str, dict[str, str]] = {
    "model": {"audio_downsample_rate": "projector_pool_stride"},
    "data": DATA_ALIASES,
    "training": {},
}


def to_settings(tree: Mapping[str, Any]) -> Settings:
    """Checks a plain tree of values and makes Settings of it.

    Raises:
        TinyAudioError: an unknown key (names the nearest known one), a wrong type, or a value out of range.
    """
    _check_keys("", tree, Settings)
    sections = {name: _section(name, tree.get(name) or {}, schema) for name, schema in SECTIONS.items()}
    plain = {key: value for key, value in tree.items() if key not in SECTIONS}
    return Settings(**{**plain, **sections})


def to_tree(settings: Settings) -> dict[str, Any]:
    """The settings as plain dictionaries."""
    return OmegaConf.to_container(OmegaConf.structured(settings))  # type: ignore[return-value]


def canonical(section: str, key: str) -> str:
    """The field that a key of a section means."""
    return ALIASES.get(section, {}).get(key, key)


def _section(name: str, values: Any, schema: type) -> Any:
    if not isinstance(values, Mapping):
        raise TinyAudioError(f"{name} is {values!r}; expected a group of options, {name}.OPTION=VALUE.")
    if values.get("mixture") is not None:
        parts = named(values["mixture"])
        values = {
            **values,
            "mixture": {key: _typed_values(f"{name}.mixture.{key}.", parts[key], Part) for key in parts},
        }
    return schema(**_typed_values(f"{name}.", values, schema))


def _typed_values(prefix: str, values: Mapping[str, Any], schema: type) -> dict[str, Any]:
    _check_keys(prefix, values, schema)
    types = {item.name: item.type for item in fields(schema)}
    return {key: _typed(prefix + key, key, value, types[key]) for key, value in values.items()}


def _typed(name: str, key: str, value: Any, kind: Any) -> Any:
    """The value as the field's type: YAML and the command line write 1e-3 as text, and 1 for 1.0."""
    if isinstance(kind, type) and is_dataclass(kind):
        return _section(name, value, kind)
    if value == "???":
        raise TinyAudioError(f"{name} is not set; set it on the command line with {name}=VALUE.")
    holder = make_dataclass("Holder", [(key, kind, field())])
    try:
        return OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(holder), {key: value}))[key]  # type: ignore
    except OmegaConfBaseException as error:
        expected = getattr(kind, "__name__", None) or str(kind).replace("None", "null").replace(" | ", " or ")
        raise TinyAudioError(
            f"{name} is {value!r} ({type(value).__name__}); expected a value of type {expected}."
        ) from error


def _check_keys(prefix: str, values: Mapping[str, Any], schema: type) -> None:
    known = [item.name for item in fields(schema)]
    for key in values:
        if key not in known:
            raise TinyAudioError(f"Unknown key {prefix}{key}; {_nearest(prefix, str(key), known)}")


def _nearest(prefix: str, key: str, known: list[str]) -> str:
    section = prefix.rstrip(".")
    elsewhere = [
        f"{name}.{key}" for name, schema in OPTION_GROUPS.items() if key in {item.name for item in fields(schema)}
    ]
    near = get_close_matches(key, [*known, *ALIASES.get(section, ())], n=1, cutoff=0.5)
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"did you mean {prefix}{canonical(section, near[0])}?" if near else f"expected one of: {', '.join(known)}."


def _seconds_or_auto(value: Any) -> Any:
    if value == AUTO:
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TinyAudioError(f"training.batch_seconds is {value!r}; expected seconds, or {AUTO}.") from None


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = get_close_matches(str(value), choices, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise TinyAudioError(f"{name} is {value!r}; expected one of: {', '.join(choices)}.{hint}")


def _share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise TinyAudioError(f"{name} is {value}; expected 0 to less than 1.")


def _at_least(name: str, value: float | None, least: float) -> None:
    if value is not None and not least <= value < inf:
        raise TinyAudioError(f"{name} is {value}; expected at least {least}.")
