"""The figures of evaluations in a model's card: `model-index` metadata and `.eval_results`, in its folder or on the Hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tiny_audio.console import say
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.leaderboard import eval_result, eval_results_name
from tiny_audio.evaluation.providers import source_of
from tiny_audio.evaluation.results import Metrics, write_atomically
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.hub_access import as_text, content_of, hub_errors
from tiny_audio.model_source import SHIPPED, ModelSource, public_name

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, SpaceCard

CARD = "README.md"
TASK = "automatic-speech-recognition"
_OPENING = re.compile(r"\A(\s*---)[ \t]+(?=\r?\n)")


def push_results(settings: EvalSettings, evaluations: Sequence[Metrics]) -> None:
    """Add the figures to the card of the measured model; on the Hub in one commit. What else the card says stays.

    Raises:
        TinyAudioError: the model is shipped or a service's, so that no card is the user's; no permission; no network.
    """
    source = source_of(settings)
    if source is None or source.name in SHIPPED:
        raise TinyAudioError(
            f"{settings.model or 'nano'} has no card of yours; --push-results takes a folder or a Hub id."
        )
    if source.local:
        _write_folder(Path(source.location), evaluations)
    else:
        _commit(source.location, source.revision, evaluations)


def require_card(settings: EvalSettings) -> ModelSource:
    """Where the model is whose card is to be written.

    Raises:
        TinyAudioError: it is shipped or a service's, so that its card is not the user's.
    """
    source = source_of(settings)
    if source is None or source.name in SHIPPED:
        name = settings.model or settings.provider or "nano"
        raise TinyAudioError(f"{name} has no card of yours; --push-results takes a checkpoint's folder or a Hub id.")
    return source


def updated_card(content: str | None, model: str, evaluations: Sequence[Metrics]) -> str:
    """The card with the figures in its metadata; those of the same dataset, configuration and split are replaced.

    Raises:
        TinyAudioError: the card's metadata is no YAML.
    """
    from huggingface_hub import EvalResult, ModelCardData

    card = read_card(content or f"\n# {model}\n")
    data = cast(ModelCardData, card.data)
    new = [EvalResult(**_entry(metrics)) for metrics in evaluations]
    known = [old for old in data.eval_results or [] if not any(old.is_equal_except_value(one) for one in new)]
    data.model_name = data.model_name or model
    data.eval_results = [*known, *new]
    return str(card)


def split_card(content: str) -> tuple[str, str]:
    """The metadata with their lines, empty where there are none, and the text: told apart as the Hub does it.

    A byte-order mark, and spaces after the first `---`, would hide the metadata from it; they are taken off.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    content = _OPENING.sub(r"\1", content.removeprefix("\ufeff"))
    front = REGEX_YAML_BLOCK.match(content)
    return (front[0], content[front.end() :]) if front else ("", content)


def read_card(content: str) -> "ModelCard":
    """A model's card as its metadata and its text.

    Raises:
        TinyAudioError: the metadata is no YAML, or not as the Hub wants it.
    """
    from huggingface_hub import ModelCard

    return _read(content, ModelCard, "model")


def read_space_card(content: str) -> "SpaceCard":
    """The same of a Space's README.md."""
    from huggingface_hub import SpaceCard

    return _read(content, SpaceCard, "Space")


def _read(content: str, card_class: Any, of: str) -> Any:
    import yaml

    front, text = split_card(content)
    try:
        return card_class((front or "---\n{}\n---\n") + text, ignore_metadata_errors=False)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TinyAudioError(
            f"The metadata of the {of}'s card cannot be read ({reason}); mend its YAML first."
        ) from error


def _entry(metrics: Metrics) -> dict[str, Any]:
    """A figure as the Hub's metadata names it; its WER is in per cent, as other cards give theirs."""
    return {
        "task_type": TASK,
        "task_name": "Automatic Speech Recognition",
        "dataset_type": public_name(metrics.dataset["path"]),
        "dataset_name": public_name(metrics.dataset_name),
        "dataset_config": metrics.dataset["config"],
        "dataset_split": metrics.dataset["split"],
        "dataset_revision": metrics.dataset["revision"],
        "metric_type": "wer",
        "metric_name": f"WER ({metrics.normalizer['name']})",
        "metric_value": round(100 * metrics.wer, 2),
    }


def _write_folder(folder: Path, evaluations: Sequence[Metrics]) -> None:
    card = folder / CARD
    content = as_text(card.read_bytes(), str(card)) if card.exists() else None
    write_atomically(card, updated_card(content, folder.name, evaluations))
    for name, text in _eval_results(evaluations).items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomically(folder / name, text)
    say(f"Card: {card}")


def _commit(repository: str, revision: str | None, evaluations: Sequence[Metrics]) -> None:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import EntryNotFoundError

    api = HfApi()
    with hub_errors(f"The card of {repository} was not changed"):
        try:
            content = content_of(repository, CARD, revision)
        except EntryNotFoundError:
            content = None
        card = updated_card(content, repository.split("/")[-1], evaluations)
        files = {CARD: card, **_eval_results(evaluations)}
        operations = [CommitOperationAdd(name, text.encode()) for name, text in files.items()]
        title = "Add evaluation results of " + ", ".join(metrics.dataset_name for metrics in evaluations)
        commit = api.create_commit(repository, operations, commit_message=title, revision=revision)
    say(f"Card: {commit.commit_url}")


def _eval_results(evaluations: Sequence[Metrics]) -> dict[str, str]:
    """Files of `.eval_results`, by name."""
    import yaml

    entries = ((metrics, eval_result(metrics)) for metrics in evaluations)
    return {
        eval_results_name(metrics): yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)
        for metrics, entry in entries
        if entry is not None
    }
