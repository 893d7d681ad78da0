"""More encoder adapters, found by `model_type`; a checkpoint carries the file of the one it uses."""

from tiny_audio.encoders import masked  # it registers its classes
from tiny_audio.model.encoders import ENCODER_ADAPTERS

__all__ = ["ENCODER_ADAPTERS", "masked"]
