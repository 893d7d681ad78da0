"""The command lines that train a model again, from the settings of its runs."""

import re
from shlex import quote
from typing import Any

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import Metrics
from tiny_audio.hub.card.facts import Facts
from tiny_audio.model_source import public_name
from tiny_audio.training.config import DEFAULT_EXPERIMENT, compose
from tiny_audio.training.run import flat
from tiny_audio.training.schema import Settings, to_tree

# settings that change where things go and what is kept, not what is learnt
OF_THE_MACHINE = (
    "output_dir", "experiment", "processes", "training.push_to", "training.push_checkpoints", "training.report_to",
    "training.cache_dir", "training.num_workers", "training.save_steps", "training.save_total_limit", "training.logging_steps",
)  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z_][\w./@-]*")
_PATH = re.compile(r"[~./].*/.*|.*/tiny_audio/assets/.*")


def reproduce(facts: Facts) -> str:
    """The section: a command for each stage whose settings are there, and what measured it."""
    known = [stage for stage in facts.stages if stage.settings is not None]
    if not known:
        return ""
    commands = [
        f"{command(stage.settings)} --output-dir {quote(stage.folder.name)}" for stage in known if stage.settings
    ]
    commands += [f"ta eval -m {quote(known[-1].folder.name)} {_measuring(metrics)}" for metrics in facts.evaluations]
    explained = "With the versions below; of files and folders that were not on the Hub, only the last part of the path is shown."
    return "\n\n".join(["## How to make it again", explained, "\n".join(["```bash", *dict.fromkeys(commands), "```"])])


def _measuring(metrics: Metrics) -> str:
    """The options of `ta eval` that say what was measured, and how."""
    dataset = metrics.dataset
    place = {} if dataset["benchmark"] else {"--config": dataset["config"], "--split": dataset["split"]}
    options = {
        "-d": public_name(metrics.dataset_name),
        **place,
        "--normalizer": metrics.normalizer["name"],
        "--max-samples": dataset["max_samples"],
    }
    return " ".join(f"{name} {quote(str(value))}" for name, value in options.items() if value is not None)


def command(settings: Settings) -> str:
    """`ta train …` with what differs from the experiment's own settings."""
    processes = [f"--num-processes {settings.processes}"] if settings.processes > 1 else []
    experiment, values = overrides(settings)
    return " ".join(["ta train", f"--experiment {experiment}", *processes, *map(quote, values)])


def overrides(settings: Settings) -> tuple[str, list[str]]:
    """The experiment, and KEY=VALUE for what is not as it says."""
    experiment, plain = _composed(settings.experiment)
    before, now = _values(plain), _values(settings)
    changed = {key: value for key, value in now.items() if before.get(key, key) != value and key not in OF_THE_MACHINE}
    return experiment, [f"{key}={written(value)}" for key, value in changed.items()]


def _composed(experiment: str) -> tuple[str, Settings]:
    """An experiment without overrides; the default one where it is of the user's own folder of configs."""
    for name, needed in ((experiment, []), (experiment, ["model.pretrained=STAGE"])):
        try:
            return name, compose(name, needed)
        except TinyAudioError:
            continue
    return DEFAULT_EXPERIMENT, compose(DEFAULT_EXPERIMENT)


def _values(settings: Settings) -> dict[str, Any]:
    """By dotted key, a mixture as a whole, paths by their last part."""
    tree = to_tree(settings)
    mixture = tree["data"].pop("mixture")
    values = {**flat(tree), "data.mixture": mixture}
    return {key: _public(value) for key, value in values.items()}


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    return public_name(value) if isinstance(value, str) and _PATH.fullmatch(value) else value


def written(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    text = str(value)
    plain = not isinstance(value, str) or (_PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false"))
    return text if plain else '"' + text.replace('"', '\\"') + '"'
