"""Training: settings from the configuration, the run, and its checkpoints."""

from typing import TYPE_CHECKING, Any

from .config import compose
from .schema import Settings

if TYPE_CHECKING:
    from .run import TrainResult

__all__ = ["Settings", "compose", "train"]


def train(settings: Settings, **options: Any) -> "TrainResult":
    """Trains as `tiny_audio.training.run.train` says; a mistake in the settings shows before torch is loaded."""
    from .run import train as run

    return run(settings, **options)
