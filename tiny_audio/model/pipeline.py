"""The transformers pipeline: files, arrays, lists or generators of clips in, `{"text": …}` out, windows batched across clips."""

from types import GeneratorType

from torch.utils.data import Dataset
from transformers import Pipeline

from tiny_audio.audio.reading import SAMPLING_RATE, is_batch

from .alignment import Word


class ASRPipeline(Pipeline):
    """`pipeline("automatic-speech-recognition", folder, trust_remote_code=True)`.

    Accepts what `load_audio` reads and transformers' own `{"raw", "sampling_rate"}`; audio longer than the encoder's
    window is cut where it is quiet. Keeps no state of a call: threads may share it.
    """

    _load_processor = _load_image_processor = _load_video_processor = _load_feature_extractor = _load_tokenizer = False
    preprocess = _forward = postprocess = None  # type: ignore[assignment]  # the model does all three

    def _sanitize_parameters(
        self,
        chunk_length_s: float | None = None,
        stride_length_s: float | tuple[float, float] | None = None,
        return_timestamps: str | None = None,
        generate_kwargs: dict | None = None,
        **generation,
    ) -> tuple[dict, dict, dict]:
        """Sort a call's arguments: windows of `chunk_length_s`, "word" timestamps; all others go to `generate`.

        `stride_length_s` is accepted and has no effect: windows are cut in pauses and need no overlap.
        """
        if return_timestamps not in (None, False, "word"):
            raise ValueError(
                f'return_timestamps is {return_timestamps!r}; expected "word", or None for the text alone.'
            )
        own = {"max_samples": int(chunk_length_s * SAMPLING_RATE)} if chunk_length_s else {}
        own |= {"word_times": True} if return_timestamps else {}
        return {}, {**own, **(generate_kwargs or {}), **generation}, {}

    def __call__(self, inputs, *args, batch_size: int | None = None, num_workers: int | None = None, **kwargs):
        """One clip → `{"text"}`; a list → a list of them; a generator or dataset → an iterator over them."""
        many = is_batch(inputs) or isinstance(inputs, (GeneratorType, Dataset))
        options = {**self._forward_params, **self._sanitize_parameters(**kwargs)[1]}
        clips = inputs if many else [inputs]
        decoded = self.model.transcribe_each(clips, batch_size or self._batch_size or 1, **options)
        outputs = (
            {"text": text} | ({"chunks": [*map(_chunk, words)]} if options.get("word_times") else {})
            for text, words in decoded
        )
        if not many:
            return next(outputs)
        return list(outputs) if is_batch(inputs) else outputs


def _chunk(word: Word) -> dict:
    confidence = None if word.confidence is None else round(word.confidence, 3)
    return {"text": word.text, "timestamp": (round(word.start, 3), round(word.end, 3)), "confidence": confidence}
