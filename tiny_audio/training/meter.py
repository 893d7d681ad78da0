"""What training steps do and where their time goes: audio, padding, FLOPs, waiting for data, encoder, language model."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import IGNORED_LABEL

from .flops import Lengths, TrainingFlops
from .processes import summed

Mark = Any  # a moment: seconds, or on CUDA an event, so that nothing waits for the GPU


class Meter:
    """Counts the steps since it was last read, validation left out, and the FLOPs, seconds and audio of all steps.

    Args:
        model: that is trained, with the parts to train unfrozen.
        teacher: as of TrainingFlops.
        peak: FLOP/s of the device, for the MFU; None: not known.
    """

    def __init__(self, model: ASRModel, teacher: bool = False, peak: float | None = None) -> None:
        self.needs, self.parts, self.peak = TrainingFlops(model, teacher), PartTimer(model), peak
        self.all_seconds = self.all_audio_seconds = self._flops = 0.0
        self._uncounted: list[Lengths] = []
        self._started: float | None = None
        self._reset()

    def _reset(self) -> None:
        self.seconds = self.waited = self.audio_seconds = 0.0
        self.frames = self.own_frames = 0
        self._flops_before = self._flops

    def start(self) -> None:
        """A step begins, its wait for data included."""
        self._started = time.perf_counter()

    def arrived(self) -> None:
        """The step's data are there."""
        if self._started is not None:
            self.waited += time.perf_counter() - self._started

    def stop(self) -> None:
        """A step ends."""
        self.parts.close()
        if self._started is not None:
            seconds = time.perf_counter() - self._started
            self.seconds, self.all_seconds = self.seconds + seconds, self.all_seconds + seconds
            self._started = None

    def count(self, audio_seconds: torch.Tensor, batch: dict[str, torch.Tensor]) -> None:
        """Adds a batch: seconds (batch,), and the tensors of the collator."""
        mask = batch["audio_attention_mask"]
        seconds = float(audio_seconds.sum())
        self.audio_seconds, self.all_audio_seconds = self.audio_seconds + seconds, self.all_audio_seconds + seconds
        self.frames += mask.numel()
        self.own_frames += int(mask.sum())
        self._uncounted.append(lengths_of(batch))

    @property
    def all_flops(self) -> float:
        """Of all steps; counted when it is asked for, not at each step."""
        if self._uncounted:
            parts = zip(*((one.features, one.tokens, one.labels) for one in self._uncounted), strict=True)
            features, tokens, labels = map(torch.cat, parts)
            encoded = self._uncounted[0].encoded  # as in all batches of a run
            self._flops += sum(self.needs(Lengths(features, tokens, labels, encoded)).values())
            self._uncounted.clear()
        return self._flops

    def take(self) -> dict[str, float]:
        """Audio seconds, audio seconds a second, and ratios: padded to all frames, parts of the time; starts anew.

        Of all processes, each of which must ask; a ratio of the time is their mean.
        """
        flops, parts = self.all_flops - self._flops_before, self.parts.take()
        own = (1, self.seconds, self.audio_seconds, self.own_frames, self.frames, flops, self.waited)
        processes, seconds, audio_seconds, own_frames, frames, flops, waited, *spent = summed((*own, *parts.values()))
        seconds = max(seconds, 1e-9)
        values = {
            "audio_seconds": round(audio_seconds, 2),
            "audio_seconds_per_s": round(processes * audio_seconds / seconds, 1),
            "padding_ratio": round(1 - own_frames / max(frames, 1), 4),
            "data_wait_ratio": round(waited / seconds, 4),
            **{f"{part}_ratio": round(share / seconds, 4) for part, share in zip(parts, spent, strict=True)},
            "gflop_per_s": round(processes * flops / seconds / 1e9, 1),
        }
        if self.peak is not None:
            values["mfu"] = round(flops / seconds / self.peak, 4)
        self._reset()
        return values


def lengths_of(batch: dict[str, torch.Tensor]) -> Lengths:
    """The true lengths of a batch's clips."""
    features, tokens = (batch[name].sum(-1) for name in ("audio_attention_mask", "attention_mask"))
    return Lengths(features, tokens, (batch["labels"] != IGNORED_LABEL).sum(-1), "frames" in batch)


class PartTimer:
    """Times the encoder's forward, and the language model with its loss: from its inputs until their gradient is there."""

    def __init__(self, model: ASRModel) -> None:
        self.model = model
        self._spans: dict[str, list[tuple[Mark, Mark]]] = {"encoder": [], "language_model": []}
        self._began: dict[str, Mark] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Meanwhile, what runs with gradients is timed."""
        encoder, decoder = self.model.encoder, self.model.language_model.get_decoder()
        hooks = [
            encoder.register_forward_pre_hook(lambda *_: self._begin("encoder")),
            encoder.register_forward_hook(lambda *_: self._end("encoder")),
            decoder.register_forward_pre_hook(self._begin_language_model, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _begin_language_model(self, module: torch.nn.Module, args: tuple, inputs: dict[str, Any]) -> None:
        embeddings = inputs.get("inputs_embeds")
        if torch.is_grad_enabled() and embeddings is not None:
            self._begin("language_model")
            if embeddings.requires_grad:
                embeddings.register_hook(lambda _: self._end("language_model"))

    def _begin(self, part: str) -> None:
        if torch.is_grad_enabled():  # not in validation, nor for a teacher
            self._began[part] = self._now()

    def _end(self, part: str) -> None:
        if part in self._began:
            self._spans[part].append((self._began.pop(part), self._now()))

    def close(self) -> None:
        """A step ends: so does a language model whose inputs need no gradient."""
        self._end("language_model")

    def _now(self) -> Mark:
        if self.model.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def take(self) -> dict[str, float]:
        """Seconds by part since it was last asked."""
        seconds = {part: sum(map(_seconds, spans)) for part, spans in self._spans.items()}
        for spans in self._spans.values():
            spans.clear()
        return seconds


def _seconds(span: tuple[Mark, Mark]) -> float:
    begin, end = span
    if isinstance(begin, float):
        return end - begin
    end.synchronize()
    return begin.elapsed_time(end) / 1000
