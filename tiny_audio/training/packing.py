"""Sequence packing: the clips of a batch follow each other in one row without padding, and none sees another."""

from functools import partial
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from tiny_audio.errors import TinyAudioError
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import IGNORED_LABEL

NAME = "packed_sdpa"  # of the attention, for transformers
FLASH = ("flash_attention_2", "flash_attention_3")  # take the clips' borders by themselves


def packs(wanted: bool | None, device: str, half: bool, cached: bool) -> bool:
    """Whether a run packs; None: where it is faster, in half precision on CUDA, and on a CPU where no encoder runs.

    Args:
        wanted: training.packing.
        device: its type.
        half: whether the language model computes in bf16 or fp16.
        cached: training.cache_features.
    """
    faster = half if device == "cuda" else cached and device == "cpu"
    return faster if wanted is None else wanted


def pack(model: ASRModel, wanted: bool | None) -> None:
    """Lets the model's training passes read packed rows; all other passes stay as they were.

    Raises:
        TinyAudioError: packing is asked for and the language model's attention cannot do it.
    """
    config = model.language_model.get_decoder().config
    if reason := _hindrance(config):
        if wanted:
            raise TinyAudioError(f"training.packing cannot be had with {reason}; leave training.packing out.")
        return
    if config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, packed_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        config._attn_implementation = NAME
    model.label_states = partial(packed_states, model)  # type: ignore[method-assign]


def _hindrance(config: Any) -> str | None:
    windows = getattr(config, "layer_types", None) or ["sliding_attention"] * bool(getattr(config, "sliding_window", 0))
    if "sliding_attention" in windows:
        return "a sliding window of attention"
    if getattr(config, "attention_dropout", 0):
        return "dropout in attention"
    if config._attn_implementation not in ("sdpa", NAME, *FLASH):
        return f"the attention {config._attn_implementation} (expected sdpa or {FLASH[0]})"
    return None


def packed_states(
    model: ASRModel, labels: torch.Tensor, attention_mask: torch.Tensor, **inputs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ASRModel.label_states; the language model reads one row of all the batch's tokens, with positions from 0 in each
    clip.

    Args:
        labels, attention_mask: (batch, tokens).
        inputs: `inputs_embeds` (batch, tokens, dim) or `input_ids` (batch, tokens).
    """
    own, lengths = attention_mask.bool(), attention_mask.sum(-1)
    borders = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    positions = (attention_mask.cumsum(-1) - 1)[own]
    decoder = model.language_model.get_decoder()
    # four dimensions are taken for ready, and the borders stand for it; FlashAttention would look for padding in it
    mask = None if decoder.config._attn_implementation in FLASH else own.new_ones(1, 1, 1, 1)
    output = decoder(
        **{name: tensor[own][None] for name, tensor in inputs.items()},
        position_ids=positions[None],
        attention_mask=mask,
        cu_seq_lens_q=borders,
        cu_seq_lens_k=borders,
        max_length_q=labels.shape[1],
        max_length_k=labels.shape[1],
        use_cache=False,
    )
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)[own]
    wanted = targets != IGNORED_LABEL
    return output.last_hidden_state[0][wanted], targets[wanted]


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each clip of a packed row; without borders, transformers' sdpa.

    Args:
        query, key, value: (1, heads, tokens, head_dim); fewer heads of key and value with grouped queries.
        cu_seq_lens_q: where the clips begin, and the end of the last one (clips + 1,).

    Returns:
        (1, tokens, heads, head_dim), and None.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows, scale = (query, key, value), options.get("scaling")
    if value.device.type == "cuda" and value.dtype != torch.float32:
        return varlen(*rows, cu_seq_lens_q, options["max_length_q"], scale), None
    groups = query.shape[1] // key.shape[1]
    rows = (query, repeat_kv(key, groups), repeat_kv(value, groups))
    clips = zip(*(row.split(cu_seq_lens_q.diff().tolist(), dim=2) for row in rows), strict=True)
    outputs = [F.scaled_dot_product_attention(*clip, is_causal=True, scale=scale) for clip in clips]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    borders: torch.Tensor,
    longest: int,
    scale: float | None,
) -> torch.Tensor:
    """The same by torch's FlashAttention for sequences of varied length; a norm may have left the query in float32."""
    query, key, value = (tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value))
    options: dict[str, Any] = {"window_size": (-1, 0), "enable_gqa": query.shape[1] != key.shape[1], "scale": scale}
    return varlen_attn(query, key, value, borders, borders, longest, longest, **options)[None]  # type: ignore[index]
