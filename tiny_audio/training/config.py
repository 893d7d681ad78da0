"""From the YAML files, an experiment's name and the overrides of the command line to checked Settings."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tiny_audio.assets import embedded
from tiny_audio.errors import TinyAudioError

from .schema import ALIASES, SECTIONS, Settings, canonical, to_settings

DEFAULT_EXPERIMENT = "quickstart"
EXPERIMENTS = "experiments"
CUSTOM_DATA = "custom"  # the group member that `-d PATH` starts from


def compose(
    experiment: str | None = None,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    config_dir: str | Path | None = None,
    output_dir: str | Path | None = None,
) -> Settings:
    """Puts the configuration of a run together.

    Args:
        experiment: name of a file in experiments/; `+experiments=NAME` among the overrides means the same.
        overrides: `group=NAME` and `group.key=VALUE`, in Hydra's grammar.
        data: name of a file in data/, else the path of a dataset.
        config_dir: a folder of your own with the same groups, searched beside the shipped ones.
        output_dir: folder of the run.

    Raises:
        TinyAudioError: an unknown experiment, group member or key, a wrong type, or an override that cannot be read.
    """
    folders = config_folders(config_dir)
    named, groups, values = _sorted_overrides(overrides)
    experiment = named or experiment or DEFAULT_EXPERIMENT
    _check_member("experiment", EXPERIMENTS, experiment, folders)
    if data is not None:
        groups["data"] = data if data in members("data", folders) else CUSTOM_DATA
    for group, name in groups.items():
        _check_member(f"{group} configuration", group, name, folders)
    arguments = [f"+{EXPERIMENTS}={experiment}", *(f"{group}={name}" for group, name in groups.items()), *values]
    tree = _composed(arguments, folders)
    if data is not None and groups["data"] == CUSTOM_DATA:
        tree["data"]["path"] = data
    tree["experiment"] = experiment
    if output_dir is not None:
        tree["output_dir"] = str(output_dir)
    return to_settings(tree)


def overridden(tree: dict[str, Any], overrides: Sequence[str], *, data: str | None = None) -> dict[str, Any]:
    """A run's own settings with some changed.

    Raises:
        TinyAudioError: an experiment or a group member is named: those are fixed once a run has begun.
    """
    experiment, groups, values = _sorted_overrides(overrides)
    for name in (experiment, *groups.values()):
        if name is not None:
            raise TinyAudioError(
                f"A resumed run has its own settings; leave out {name!r}, or begin anew without --resume."
            )
    if data is not None and data not in members("data", config_folders()):
        values.append(f"data.path={data}")
    changes = OmegaConf.from_dotlist([value.lstrip("+") for value in values])
    return OmegaConf.to_container(OmegaConf.merge(tree, changes))  # type: ignore[return-value]


def config_folders(config_dir: str | Path | None = None) -> list[Path]:
    """The user's folder, if any, and the shipped one: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "configs"
    folders = [shipped if shipped.is_dir() else package.parent / "configs"]
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise TinyAudioError(f"--config-dir {config_dir} is no folder; expected one with experiments/, data/, ….")
        folders.insert(0, Path(config_dir).resolve())
    return folders


def members(group: str, folders: Sequence[Path]) -> list[str]:
    """Names of the YAML files of a group."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def _check_member(what: str, group: str, name: str, folders: Sequence[Path]) -> None:
    known = members(group, folders)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise TinyAudioError(f"Unknown {what} {name!r}; known: {', '.join(known)}.{hint}")


def _sorted_overrides(overrides: Sequence[str]) -> tuple[str | None, dict[str, str], list[str]]:
    """The experiment, the chosen group members, and the values."""
    experiment, groups, values = None, {}, []
    for override in overrides:
        key, equals, value = override.partition("=")
        name = key.lstrip("+")
        if not equals and not key.startswith("~"):
            raise TinyAudioError(f"{override!r} is no override; expected KEY=VALUE, as in training.max_steps=100.")
        if name in (EXPERIMENTS, "experiment"):
            experiment = value
        elif name in SECTIONS:
            groups[name] = value
        else:
            values.append(override if key.startswith("~") else f"++{_renamed(name)}={value}")
    return experiment, groups, values


def _renamed(key: str) -> str:
    section, _, rest = key.partition(".")
    return f"{section}.{canonical(section, rest)}" if rest else key


def _composed(arguments: Sequence[str], folders: Sequence[Path]) -> dict[str, Any]:
    OmegaConf.register_new_resolver("embedded", lambda name: str(embedded(name)), replace=True)
    if len(folders) > 1:
        arguments = [*arguments, f"hydra.searchpath=['file://{folders[0]}']"]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folders[-1]), version_base="1.3", job_name="tiny-audio"):
            config = hydra_compose("config", overrides=list(arguments))
        return _without_aliases(config, arguments)
    except (HydraException, OmegaConfBaseException) as error:
        hint = "; quote a value with special characters twice: 'KEY=\"VALUE\"'" if "Lexer" in str(error) else ""
        raise TinyAudioError(f"The configuration cannot be composed: {str(error).splitlines()[0]}{hint}") from error


def _without_aliases(config: DictConfig, arguments: Sequence[str]) -> dict[str, Any]:
    """The tree with older names renamed; what the command line set stays as it is."""
    tree: Any = OmegaConf.to_container(config, resolve=True)
    given = {argument.lstrip("+").partition("=")[0] for argument in arguments}
    for section, aliases in ALIASES.items():
        values = tree.get(section)
        for old, new in aliases.items():
            if isinstance(values, dict) and old in values:
                value = values.pop(old)
                if f"{section}.{new}" not in given:
                    values[new] = value
    return tree
