"""Clips whose frames come from the feature cache: the encoder runs over each once, before the first step."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.console import progress, say
from tiny_audio.data import ClipDataset, Example, SecondsBatchSampler, SpeechCollator
from tiny_audio.data.collator import Dropped, load_or_drop
from tiny_audio.data.filtering import UNREADABLE
from tiny_audio.data.hashing import audio_hash
from tiny_audio.data.mixture import JoinedClips
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.encoders import length_mask
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import ASRProcessor

from . import feature_cache
from .cost import duration
from .ctc import trained
from .feature_cache import DTYPES, FeatureCache, cache_folder
from .feed import ClipFeed, worker_options


@dataclass
class EncodedClip(Example):
    """A clip of the cache: `frames` (frames, dim) stand for its waveform, which is empty; metadata are not read."""

    frames: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0))


NO_AUDIO = np.empty(0, dtype=np.float32)


class CachedClips(ClipDataset):
    """The clips of another dataset, with their frames.

    Args:
        clips: the same clips, decoded.
        keys: of their audio in the cache; None for one that cannot be read.
        cache: which holds all that can be used.
    """

    def __init__(self, clips: ClipDataset, keys: list[str | None], cache: FeatureCache) -> None:
        super().__init__(clips.corpus, clips.indices, **asdict(clips.limits))
        self.keys, self.cache = keys, cache

    def __getitem__(self, position: int) -> Example | Dropped:
        key = self.keys[position]
        if key is None or key not in self.cache:
            clip = super().__getitem__(position)
            late = "could not be read when the feature cache was filled"
            return Dropped(clip.id, UNREADABLE, late) if isinstance(clip, Example) else clip
        return load_or_drop(lambda: self._encoded(position, key), self._id(position), self.limits)

    def _encoded(self, position: int, key: str) -> EncodedClip:
        """Without the corpus's record, which may hold the audio."""
        frames, samples = self.cache[key]
        id, text, part = self._id(position), self.text(position), self.corpus.reader.part
        return EncodedClip(id, NO_AUDIO, text, samples / SAMPLING_RATE, part=part, frames=frames)


class FrameCollator(SpeechCollator):
    """Batches with `frames` for the model's forward in place of features; the mask is that of the frames."""

    def inputs(self, examples: Sequence[Any], texts: list[str], instructions: list[str] | None) -> dict[str, Any]:
        """`frames`, their mask, and the tokens."""
        lengths = torch.tensor([len(clip.frames) for clip in examples])
        hidden = pad_sequence([clip.frames for clip in examples], batch_first=True)
        counts = [self.processor.audio_token_count(round(clip.duration * SAMPLING_RATE)) for clip in examples]
        return {
            **self.processor.training_tokens(texts, counts, instructions),
            "frames": (hidden, lengths),
            "audio_attention_mask": length_mask(lengths, hidden.shape[1]).long(),
        }


class CachedFeed(ClipFeed):
    """A ClipFeed with the same batches, whose clips come from the cache once it is filled."""

    collator_class = FrameCollator

    def fill(self, model: ASRModel) -> None:
        """Encodes the clips that the cache does not hold yet.

        Raises:
            TinyAudioError: the disk has no room for them, or a shard could not be written.
        """
        cache = FeatureCache(cache_folder(model, self.training))
        with cache.locked():
            keys = [[_key(clips, index, cache) for index in clips.indices.tolist()] for clips in self.clips]
            joined = [*chain.from_iterable(keys)]
            cache.open(joined)
            missing = self._missing(joined, cache)
            self._announce(model, cache, missing)
            if len(missing):
                started = time.monotonic()
                self._encode(model, cache, joined, missing)
                say(f"Feature cache: filled in {duration(time.monotonic() - started)}.")
        self.use([CachedClips(clips, own, cache) for clips, own in zip(self.clips, keys, strict=True)])

    def _missing(self, keys: list[str | None], cache: FeatureCache) -> np.ndarray:
        """Positions to encode, one for each audio."""
        positions = {key: position for position, key in enumerate(keys) if key is not None and key not in cache}
        return np.array(sorted(positions.values()), dtype=np.int64)

    def _announce(self, model: ASRModel, cache: FeatureCache, missing: np.ndarray) -> None:
        adapter, dtype = model.encoder, self.training.cache_dtype
        samples = (round(float(seconds) * SAMPLING_RATE) for seconds in self.durations[missing])
        frames = sum(adapter.output_length(adapter.feature_length(count)) for count in samples)
        size, free = frames * adapter.dim * DTYPES[dtype].itemsize, shutil.disk_usage(cache.folder).free
        say(
            f"Feature cache: {len(missing):,} of {len(self.durations):,} clips to encode, {frames:,} frames of "
            f"{adapter.dim} in {dtype}, {_bytes(size)}, in {cache.folder}."
        )
        if size > free:
            raise TinyAudioError(
                f"The feature cache needs {_bytes(size)} and {cache.folder} has {_bytes(free)} free; make room, or "
                "choose another training.cache_dir, a smaller training.cache_dtype or training.cache_features=false."
            )

    def _encode(self, model: ASRModel, cache: FeatureCache, keys: list[str | None], missing: np.ndarray) -> None:
        shard: dict[str, tuple[torch.Tensor, int]] = {}
        room = feature_cache.SHARD_BYTES
        with progress("Encoding", len(missing)) as bar:
            for position, frames, samples in self._encoded(model, missing):
                shard[keys[position]] = (frames, samples)  # type: ignore[index]
                room -= frames.nbytes
                bar.advance()
                if room <= 0:
                    cache.add(shard)
                    shard, room = {}, feature_cache.SHARD_BYTES
        if shard:
            cache.add(shard)

    @torch.no_grad()
    def _encoded(self, model: ASRModel, missing: np.ndarray) -> Iterator[tuple[int, torch.Tensor, int]]:
        """Position, frames (frames, dim) and samples of each readable clip."""
        training, device = self.training, torch.accelerator.current_accelerator(check_available=True)
        encoder = model.encoder.to(device or "cpu").eval()
        budget = (self.sampler.batch_seconds, 0, self.sampler.max_batch_size)
        batches = SecondsBatchSampler(self.durations[missing], *budget).epoch(0)
        unencoded = _Unencoded(self.dataset, model.processor)
        loader: DataLoader = DataLoader(
            unencoded,  # type: ignore[arg-type]
            batch_sampler=[missing[batch].tolist() for batch in batches],
            collate_fn=unencoded.collate,
            **worker_options(training.num_workers),
        )
        mixed = training.dtype != "fp32"
        for clips, features in loader:
            with torch.autocast(encoder.encoder.device.type, DTYPES[training.dtype]) if mixed else nullcontext():
                hidden, lengths = _run(encoder, features) if clips else ((), ())
            for (position, samples), frames, length in zip(clips, hidden, lengths, strict=True):
                yield position, self._kept(frames[: int(length)]), samples

    def _kept(self, frames: torch.Tensor) -> torch.Tensor:
        """As they lie on disk, in memory of their own: not a piece of the whole batch's."""
        kept = frames.to(DTYPES[self.training.cache_dtype]).to("cpu", copy=True)
        if not torch.isfinite(kept).all():
            raise TinyAudioError(
                f"The encoder's frames are not finite in {self.training.cache_dtype}; expected numbers: use "
                "training.cache_dtype=bf16 or fp32."
            )
        return kept


def check_frozen(model: ASRModel) -> None:
    """Fails where the encoder's frames change in training."""
    if trained(model.encoder):
        raise TinyAudioError(
            "training.cache_features keeps the frames of a frozen encoder and this one is trained; leave out "
            "model.encoder_lora_rank and model.encoder_layer=weighted, or training.cache_features."
        )


@dataclass(frozen=True)
class _Unencoded:
    """Decoded clips with their positions, and batches of their features."""

    clips: ClipDataset | JoinedClips
    processor: ASRProcessor

    def __getitem__(self, position: int) -> tuple[int, Example | Dropped]:
        return position, self.clips[position]

    def collate(self, items: list[tuple[int, Example | Dropped]]) -> tuple[list[tuple[int, int]], dict[str, Any]]:
        """Positions and samples of the readable clips, and the encoder's inputs."""
        waveforms = {position: clip.waveform for position, clip in items if isinstance(clip, Example)}
        features = self.processor.features([*waveforms.values()]) if waveforms else {}
        return [(position, len(waveform)) for position, waveform in waveforms.items()], features


def _key(clips: ClipDataset, index: int, cache: FeatureCache) -> str | None:
    """Of a clip's audio; None where that cannot be read."""
    try:
        return audio_hash(clips.corpus.row(index), cache.file_hash)
    except (ValueError, OSError):
        return None


def _run(encoder: Any, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    device = encoder.encoder.device
    return encoder(features[encoder.input_name].to(device), features["audio_attention_mask"].sum(-1).to(device))


def _bytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
