"""More projectors, a file each, found by `projector_type`; a checkpoint carries the file of the one it uses."""

from tiny_audio.model.projectors import PROJECTOR_CLASSES
from tiny_audio.projectors import moe, mosa, qformer, swiglu  # each registers its class

__all__ = ["PROJECTOR_CLASSES", "moe", "mosa", "qformer", "swiglu"]
