"""What a run would do and cost, without doing it: settings, parameters, clips, steps, FLOPs; nothing is trained or written."""

from omegaconf import OmegaConf

from tiny_audio.console import out, say, table
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.encoders import adapter_for, quiet_transformers
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import ASRProcessor

from .budget import PLANNED_SECONDS, with_seconds
from .build import checkpoint_path, outline, part_sizes
from .cached_feed import check_frozen
from .cost import Plan, plan, price_rows
from .feed import ClipFeed, Feed, StreamFeed
from .gpus import gpu_table, own_file
from .run import PART_COLUMNS, check_machine, show_parts, training_corpora
from .schema import AUTO, Settings
from .validation import evaluation_corpora


def show_plan(settings: Settings) -> None:
    """Prints the resolved settings, the parameters of each part, the steps and hours of audio, and what they cost on GPUs.

    What needs the network and cannot be read is said, and the rest shown.

    Raises:
        TinyAudioError, ValueError, OSError: the run could not begin: settings, data or model do not fit.
    """
    check_machine(settings)
    out(OmegaConf.to_yaml(OmegaConf.structured(settings)))
    if settings.training.batch_seconds == AUTO:
        out(f"training.batch_seconds=auto is found when the run begins; the plan takes {PLANNED_SECONDS:g} s.\n")
        settings = with_seconds(settings, PLANNED_SECONDS)
    model = _outlined(settings)
    if model is not None and settings.training.cache_features:
        check_frozen(model)
    feed = _show_data(settings, model)
    if model is not None and feed is not None:
        _show_cost(settings, model, feed)
    say("Dry run: nothing was trained or written.")


def planned_work(settings: Settings) -> Plan:
    """What a run needs, without a word.

    Raises:
        TinyAudioError, ValueError, OSError: settings, data or model do not fit, or cannot be read here.
    """
    if settings.training.batch_seconds == AUTO:
        settings = with_seconds(settings, PLANNED_SECONDS)
    with quiet_transformers():
        model = outline(settings.model)
    return _work(settings, model, _feed(settings, model))


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


def _show_data(settings: Settings, model: ASRModel | None) -> Feed | None:
    try:
        feed = _feed(settings, model)
        if isinstance(feed, StreamFeed):
            _show_feed(feed)
            return feed
        clips = sum(len(corpus) for _, corpus in evaluation_corpora(settings.data))
    except (TinyAudioError, OSError) as error:
        _only_for_want_of_network(error)
        out(f"Training: the data could not be read ({_one_line(error)}).")
        return None
    _show_feed(feed)
    out(f"Skipped: {feed.skipped.summary()}.")
    out(f"Validation: {clips:,} clips.")
    return feed


def _feed(settings: Settings, model: ASRModel | None) -> ClipFeed | StreamFeed:
    window = (
        adapter_for(model.config.audio_config, model.config.encoder_file).max_samples if model is not None else None
    )
    if settings.data.streaming:
        return StreamFeed(settings, window, (0, settings.processes))
    return ClipFeed(training_corpora(settings), settings, window, (0, settings.processes))


def _show_feed(feed: Feed) -> None:
    if rows := feed.describe_parts():
        table(PART_COLUMNS, rows, right=PART_COLUMNS[1:])
    out(f"Training: {feed.describe()}.")


def _show_cost(settings: Settings, model: ASRModel, feed: Feed) -> None:
    planned = _work(settings, model, feed)
    known = gpu_table()
    out(f"Work: {planned.describe()}.\n")
    columns = ("GPU", "TFLOP/s", "time", "USD/h", "USD")
    table(columns, price_rows(planned.total, known), right=columns[1:])
    steps = "Training steps, and the feature cache from empty" if planned.once else "Training steps only"
    out(f"\nAt {known.utilisation:.0%} of the dense bf16 peak: {known.utilisation_from}. {steps}.")
    out(f"Prices of {known.date}, {known.prices}: {own_file()}.")


def _work(settings: Settings, model: ASRModel, feed: Feed) -> Plan:
    return plan(model, feed, _processor(settings, model), settings.training.distillation_weight > 0)


def _processor(settings: Settings, model: ASRModel) -> ASRProcessor | None:
    """The model's own, where it is on this machine: for its tokenizer alone nothing is fetched."""
    source, config = settings.model.pretrained, model.config
    try:
        with quiet_transformers():
            if source is not None:
                return ASRProcessor.from_pretrained(checkpoint_path(source), config, local_files_only=True)
            parts = (config.audio_model_id or "", ""), (config.text_model_id or "", "")
            return ASRProcessor.from_parts(config, *parts, local_files_only=True)
    except OSError:
        return None


def _only_for_want_of_network(error: Exception) -> None:
    if not any(word in str(error).lower() for word in ("network", "offline", "connect")):
        raise error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
