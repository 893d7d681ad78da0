"""Projectors, found by `projector_type`; a checkpoint carries the file of the one it uses."""

from tiny_audio.model.projectors import PROJECTOR_CLASSES
from tiny_audio.projectors import experts, mlp, qformer, swiglu  # each registers its classes

__all__ = ["PROJECTOR_CLASSES", "experts", "mlp", "qformer", "swiglu"]
