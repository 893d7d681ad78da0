"""Encoder adapters, found by `model_type`; a checkpoint carries the file of the one it uses."""

from tiny_audio.encoders import masked, whisper  # they register their classes
from tiny_audio.model.encoders import ENCODER_ADAPTERS

__all__ = ["ENCODER_ADAPTERS", "masked", "whisper"]
