"""The configuration of a model: which encoder, projector and language model, and how they are joined."""

import logging
import os
from typing import Any

from transformers import AutoConfig, PretrainedConfig

logger = logging.getLogger(__name__)

ENCODER_PADDINGS = ("masked", "window")
OWN_FILES = ("encoder_file", "projector_file")
GENERATION_KEYS = (
    "max_new_tokens", "num_beams", "do_sample", "min_new_tokens", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
)  # fmt: skip
# keys that transformers itself writes into every config.json: no reason to warn of them
_COMMON_KEYS = frozenset(PretrainedConfig().to_dict()) | {
    "auto_map", "custom_pipelines", "torch_dtype", "model_type",
    "attn_implementation", "experts_implementation", "name_or_path", "pipeline_tag", "vocab_size",
}  # fmt: skip


class ASRConfig(PretrainedConfig):
    """All that defines an ASRModel. Building one reads no file and makes no network call.

    The names are those of the published checkpoints. Unknown keys are kept and warned of, never fatal.
    """

    model_type = "asr_model"

    audio_model_id: str | None = None  # encoder: Hub id or folder
    text_model_id: str | None = None  # language model: Hub id or folder
    audio_config: dict | PretrainedConfig | None = None  # the encoder's own config
    text_config: dict | PretrainedConfig | None = None  # the language model's own config
    self_contained: bool = False  # encoder/ and decoder/ lie inside the checkpoint folder

    audio_token_id: int | None = None  # of `<audio>` in the tokenizer

    projector_type: str = "mlp"
    projector_variant: str = "norm"  # of `mlp`; or "relu", "glm"
    encoder_file: str | None = None  # a user's own encoder family: Python that puts its class into ENCODER_ADAPTERS
    projector_file: str | None = None  # a user's own projector: Python that puts its class into PROJECTOR_CLASSES
    projector_pool_stride: int = 4  # encoder frames stacked into one audio token
    projector_hidden_dim: int | None = 2048
    encoder_dim: int | None = None
    llm_dim: int | None = None
    num_experts: int = 4
    num_experts_per_tok: int = 2
    router_aux_loss_coef: float = 0.01
    qformer_window_size: int = 15
    qformer_hidden_size: int | None = None
    qformer_num_layers: int = 2
    qformer_num_heads: int = 16
    qformer_intermediate_size: int | None = None
    downsample_rate: int = 5

    ctc_vocabulary: list[str] | None = None  # of the CTC head on the encoder's frames, the blank first; None: no head

    encoder_padding: str = "masked"  # or "window": 30 s of unmasked mel
    encoder_layer: int | str = -1  # the hidden state taken; "weighted": a learned mean of all
    system_prompt: str | None = None
    model_dtype: str = "float32"
    freeze_projector: bool = False
    freeze_language_model: bool = True
    language_model_tuned: bool = False  # the checkpoint holds it, whether or not it is trained on
    use_lora: bool = False  # on the language model
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    lora_target_modules: list[str] | None = None  # q_proj and v_proj
    encoder_lora_rank: int = 0  # 0 for none
    encoder_lora_alpha: int = 32
    encoder_lora_target_modules: list[str] | None = None
    freeze_lora: bool = False
    freeze_encoder_lora: bool = False

    max_new_tokens: int = 256  # generation defaults: a 30 s window holds about 120 words
    num_beams: int = 1
    do_sample: bool = False
    min_new_tokens: int | None = None
    repetition_penalty: float = 1.0  # 1.0: nothing is rewritten, "no no no" stays
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0

    def __post_init__(self, **kwargs: Any):
        unknown = sorted(key for key in kwargs if key not in _COMMON_KEYS and key[0] != "_")
        if unknown:
            logger.warning("config.json has keys this version does not know, kept as they are: %s", ", ".join(unknown))
        # a checkpoint trained with flash attention must load where there is none: the loader picks, not the file
        kwargs.pop("attn_implementation", None)
        super().__post_init__(**kwargs)
        self.audio_config = _as_config(self.audio_config)
        self.text_config = _as_config(self.text_config)
        if self.encoder_padding not in ENCODER_PADDINGS:
            expected = ", ".join(ENCODER_PADDINGS)
            raise ValueError(f"encoder_padding is {self.encoder_padding!r}; expected one of {expected}.")

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """As transformers' own; a user's own files lie beside config.json."""
        values, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        folder = os.path.join(pretrained_model_name_or_path, kwargs.get("subfolder", ""))
        for key in OWN_FILES:
            if values.get(key):
                values[key] = os.path.join(folder, os.path.basename(values[key]))
        return values, rest

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """As transformers' own; a file without `encoder_padding` is a published checkpoint, trained on full windows."""
        return super().from_dict({"encoder_padding": "window", **config_dict}, **kwargs)

    def generation_defaults(self) -> dict[str, Any]:
        """The decoding settings stored with the checkpoint, as arguments of `generate`."""
        return {name: getattr(self, name) for name in GENERATION_KEYS}

    def get_text_config(self, decoder=None, encoder=None) -> PretrainedConfig:
        """This config itself: the language model's generation reads its own."""
        return self


def _as_config(value: dict | PretrainedConfig | None) -> PretrainedConfig | None:
    return AutoConfig.for_model(**value) if isinstance(value, dict) else value
