"""The transformers pipeline: files, arrays, lists or generators of clips in, `{"text": …}` out, windows batched across clips."""

from typing import Any

from torch.utils.data import DataLoader
from transformers.pipelines.base import ChunkPipeline
from transformers.pipelines.pt_utils import PipelineChunkIterator, PipelineIterator, PipelinePackIterator

from .audio import SAMPLING_RATE, stream_audio
from .segment import split_windows


class ASRPipeline(ChunkPipeline):
    """`pipeline("automatic-speech-recognition", folder, trust_remote_code=True)`.

    Accepts what `load_audio` reads and transformers' own `{"raw", "sampling_rate"}`; audio longer than the encoder's
    window is cut where it is quiet. Keeps no state of a call: threads may share it.
    """

    _load_processor = _load_image_processor = _load_video_processor = _load_feature_extractor = _load_tokenizer = False

    def __init__(self, model, **kwargs):
        super().__init__(model=model, **kwargs)
        self.speech_processor = model.processor

    def _sanitize_parameters(
        self,
        chunk_length_s: float | None = None,
        stride_length_s: float | tuple[float, float] | None = None,
        return_timestamps: Any = None,
        generate_kwargs: dict | None = None,
        **generation,
    ) -> tuple[dict, dict, dict]:
        """Sort a call's arguments: windows of `chunk_length_s`; all others go to `generate`.

        `stride_length_s` is accepted and has no effect: windows are cut in pauses and need no overlap.
        """
        if return_timestamps:
            raise ValueError(
                f"return_timestamps={return_timestamps!r} needs a CTC head, which this checkpoint has not."
            )
        preprocess = {} if chunk_length_s is None else {"chunk_length_s": chunk_length_s}
        return preprocess, {**(generate_kwargs or {}), **generation}, {}

    def preprocess(self, inputs, chunk_length_s: float = 0):
        if isinstance(inputs, dict) and "raw" in inputs:
            inputs = {"array": inputs["raw"], "sampling_rate": inputs["sampling_rate"]}
        limit = self.speech_processor.max_samples
        if chunk_length_s:
            wanted = int(chunk_length_s * SAMPLING_RATE)
            limit = wanted if limit is None else min(wanted, limit)
        held = None
        for window in split_windows(stream_audio(inputs), limit):
            if held is not None:
                yield {"waveform": held, "is_last": False}
            held = window.waveform
        yield {"waveform": held, "is_last": True}

    def _forward(self, model_inputs: dict, **generation) -> dict:
        waveforms, is_last = model_inputs["waveform"], model_inputs["is_last"]
        if isinstance(is_last, bool):  # batch size 1: the item itself, not lists
            return {"text": self.model.texts([waveforms], generation)[0], "is_last": is_last}
        return {"text": self.model.texts(waveforms, generation), "is_last": is_last}

    def postprocess(self, model_outputs: list[dict]) -> dict:
        return {"text": " ".join(filter(None, (output["text"] for output in model_outputs)))}

    def get_iterator(self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params):
        """As ChunkPipeline's, with the batch as plain lists: the processor pads, not a generic collator."""
        windows = PipelineChunkIterator(inputs, self.preprocess, preprocess_params)
        collate = (lambda items: items[0]) if batch_size == 1 else _as_lists
        loader = DataLoader(windows, num_workers=0, batch_size=batch_size, collate_fn=collate)
        outputs = PipelinePackIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)


def _as_lists(items: list[dict]) -> dict:
    return {key: [item[key] for item in items] for key in items[0]}
