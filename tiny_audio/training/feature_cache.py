"""The encoder's frames of each clip, kept on disk in shards that are whole or not there, and memory-mapped."""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tiny_audio.console import say, warn
from tiny_audio.data.hashing import DIGEST_BYTES, FileHashes
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.modeling import ASRModel

from .schema import TrainingSettings

SHARD_BYTES = 1 << 28  # of frames in a shard: what a killed process loses at most
FORMAT = 1  # of the shards; another one is another cache
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def cache_folder(model: ASRModel, training: TrainingSettings) -> Path:
    """Where the frames of this encoder lie, computed and kept in these precisions."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(training.cache_dir).expanduser() if training.cache_dir else caches / "tiny-audio" / "features"
    return root / f"{model.encoder.encoder.config.model_type}-{training.cache_dtype}-{_fingerprint(model, training)}"


def _fingerprint(model: ASRModel, training: TrainingSettings) -> str:
    """Hash of all that the frames of a clip follow from: the weights themselves, whatever their name or revision."""
    encoder, config = model.encoder, model.encoder.encoder.config.to_dict()
    described = {
        "format": FORMAT,
        "config": {name: value for name, value in config.items() if name != "_name_or_path"},
        "features": model.processor.feature_extractor.to_dict(),
        "encoder": [model.config.encoder_padding, model.config.encoder_layer],
        "dtypes": [training.dtype, training.cache_dtype],
    }
    if own := model.config.encoder_file:
        described["code"] = Path(own).read_text("utf-8")
    digest = blake2b(json.dumps(described, sort_keys=True, default=str).encode(), digest_size=8)
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class FeatureCache:
    """Frames of clips by the hash of their audio. It can be pickled, for the workers of a loader.

    A shard is a safetensors file named by the hash of its bytes, so that two processes never write different things
    under one name, and a damaged one is known by its name. `file_hash` remembers those of shards and recordings.

    Args:
        folder: of one encoder; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards: dict[str, tuple[Path, int]] = {}  # by clip: the file, and the clip's samples at 16 kHz
        self._opened: dict[Path, Any] = {}
        self.file_hash: Any = None  # FileHashes, while it is locked
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TinyAudioError(
                f"{folder} cannot be made ({error.strerror}); choose another folder with training.cache_dir."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}, "file_hash": None}  # workers only read frames

    def __contains__(self, key: str | None) -> bool:
        return key in self._shards

    def __getitem__(self, key: str) -> tuple[torch.Tensor, int]:
        """Frames (frames, dim) as they lie on disk, and the clip's samples at 16 kHz."""
        path, samples = self._shards[key]
        if path not in self._opened:
            self._opened[path] = safe_open(path, "pt")
        return self._opened[path].get_tensor(key), samples

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Meanwhile no other process fills this cache; one that is killed gives the lock back."""
        with open(self.folder / "lock", "ab") as handle:
            _wait_for(handle, self.folder)
            for left in self.folder.glob("*.unfinished"):
                left.unlink(missing_ok=True)
            self.file_hash = FileHashes(self.folder / "hashes.json")  # with what the process before found
            yield

    def open(self, keys: Collection[str | None]) -> None:
        """Finds the shards that hold any of these clips, and deletes those whose bytes have changed; within the lock."""
        wanted = set(keys)
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                held = _clips_of(path)
                if wanted.isdisjoint(held):
                    continue
                whole = self.file_hash(path) == path.stem
            except (SafetensorError, ValueError, OSError):
                whole = False
            if whole:
                self._shards |= {key: (path, samples) for key, samples in held.items()}
            else:
                warn(f"{path} is damaged; its clips are encoded anew.")
                path.unlink(missing_ok=True)
        self.file_hash.save()

    def add(self, clips: dict[str, tuple[torch.Tensor, int]]) -> None:
        """Writes a shard of clips: frames (frames, dim), and samples at 16 kHz.

        Raises:
            TinyAudioError: it could not be written; what is there is untouched.
        """
        data = save(
            {key: frames.contiguous() for key, (frames, _) in clips.items()},
            metadata={key: str(samples) for key, (_, samples) in clips.items()},
        )
        path = self.folder / f"{blake2b(data, digest_size=DIGEST_BYTES).hexdigest()}.safetensors"
        temporary = path.with_suffix(f".{os.getpid()}.unfinished")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise TinyAudioError(
                f"Could not write {path} ({error.strerror}); the shards before it are whole: start again when there is "
                "space, or choose another training.cache_dir."
            ) from error
        self._shards |= {key: (path, samples) for key, (_, samples) in clips.items()}


def _clips_of(shard: Path) -> dict[str, int]:
    """Samples at 16 kHz of the clips in a shard."""
    with safe_open(shard, "pt") as file:
        return {key: int(samples) for key, samples in (file.metadata() or {}).items()}


def _wait_for(handle: Any, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two processes may compute the same clips, and write them under the same names
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"Another process fills {folder}; waiting for it.")
        fcntl.flock(handle, fcntl.LOCK_EX)
