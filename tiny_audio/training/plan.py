"""What a run would do, without doing it: settings, parameters, clips, steps; nothing is trained or written."""

from omegaconf import OmegaConf

from tiny_audio.console import out, say
from tiny_audio.data import open_corpus
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.encoders import adapter_for, quiet_transformers
from tiny_audio.model.modeling import ASRModel

from .build import outline, part_sizes
from .cached_feed import check_frozen
from .feed import ClipFeed, StreamFeed
from .run import check_machine, show_parts, training_corpus
from .schema import Settings


def show_plan(settings: Settings) -> None:
    """Prints the resolved settings, the parameters of each part, and the steps and hours of audio.

    What needs the network and cannot be read is said, and the rest shown.

    Raises:
        TinyAudioError, ValueError, OSError: the run could not begin: settings, data or model do not fit.
    """
    check_machine(settings)
    out(OmegaConf.to_yaml(OmegaConf.structured(settings)))
    model = _outlined(settings)
    if model is not None and settings.training.cache_features:
        check_frozen(model)
    _show_data(settings, model)
    say("Dry run: nothing was trained or written.")


def _outlined(settings: Settings) -> ASRModel | None:
    try:
        with quiet_transformers():
            model = outline(settings.model)
    except OSError as error:
        _only_for_want_of_network(error)
        out(f"Parameters: the model's configs could not be read ({_one_line(error)}).\n")
        return None
    show_parts(part_sizes(model))
    out()
    return model


def _show_data(settings: Settings, model: ASRModel | None) -> None:
    window = adapter_for(model.config.audio_config).max_samples if model is not None else None
    try:
        if settings.data.streaming:
            out(f"Training: {StreamFeed(settings, window).describe()}.")
            return
        feed = ClipFeed(training_corpus(settings), settings, window)
        validation = open_corpus(settings.data, settings.data.eval_split, max_samples=settings.data.max_eval_samples)
    except (TinyAudioError, OSError) as error:
        _only_for_want_of_network(error)
        out(f"Training: the data could not be read ({_one_line(error)}).")
        return
    out(f"Training: {feed.describe()}.")
    out(f"Skipped: {feed.skipped.summary()}.")
    out(f"Validation: {len(validation):,} clips.")


def _only_for_want_of_network(error: Exception) -> None:
    if not any(word in str(error).lower() for word in ("network", "offline", "connect")):
        raise error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
