"""The pages of docs/reference that follow from the code: commands, settings, experiments, projectors.

python -m recipes.reference           # writes them; `ta dev docs --reference` calls this
python -m recipes.reference --check   # names those that differ from the code, and exits 1
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from tiny_audio import console

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "docs" / "reference"
CONFIGS = REPOSITORY / "configs"
NOTE = "<!-- Written by `ta dev docs --reference` from {source}; a test compares it with the code. -->"
TEN_SECONDS = 160_000  # samples at 16 kHz
DEFAULT_MODEL = "transcription"  # the experiment with the full-size default model
OWN_DEFAULT = re.compile(r"^(.*?)\s*\[([^\[\]]+)\]$", re.DOTALL)  # "What it is. [what holds without it]"


# ---- Markdown


def page(title: str, source: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", NOTE.format(source=source), *filter(None, parts)]) + "\n"


def text(words: str) -> str:
    """Words of the code as one line of Markdown, also inside a table; what is in backticks stays code."""
    pieces = re.split(r"(`[^`]*`)", " ".join(words.split()))
    return "".join(code(piece[1:-1]) if piece.startswith("`") else escaped(piece) for piece in pieces)


def escaped(words: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("*", "&#42;")):
        words = words.replace(character, entity)
    return words


def code(words: str) -> str:
    """In backticks; as HTML where a bar would end the cell of a table."""
    return f"<code>{escaped(words)}</code>" if "|" in words else f"`{words}`"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> str:
    rows = list(rows)
    return console.markdown(columns, rows, right=right) if rows else ""


# ---- commands


def commands_page() -> str:
    import typer

    from tiny_audio.cli.main import app

    root = typer.main.get_command(app)
    sections = [section for command, context in walk(root, "ta") for section in command_section(command, context)]
    return page("Commands", "the commands themselves", OF_COMMANDS, *sections)


OF_COMMANDS = (
    "Every command of `ta`, with its arguments and options. `ta COMMAND --help` prints the same. Exit codes: 0 done, "
    "1 failed, 2 wrong usage, 130 interrupted.\n\n![A terminal: ta --help lists the commands](../images/terminal-help.svg)"
)


def walk(command: Any, name: str, parent: Any = None) -> Iterator[tuple[Any, Any]]:
    """The command and all below it, each with its context."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    yield command, context
    if hasattr(command, "list_commands"):
        for child in command.list_commands(context):
            below = command.get_command(context, child)
            if not below.hidden:
                yield from walk(below, child, context)


def command_section(command: Any, context: Any) -> Iterator[str]:
    depth = len(context.command_path.split())
    yield f"{'#' * min(4, depth + 1)} {context.command_path}"
    for paragraph in (command.help or "").split("\n\n"):
        yield text(paragraph)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```"
    shown = [parameter for parameter in command.get_params(context) if not getattr(parameter, "hidden", False)]
    for kind, title in (("argument", "argument"), ("option", "option")):
        rows = [
            parameter_row(parameter, context)
            for parameter in shown
            if parameter.param_type_name == kind and "--help" not in parameter.opts
        ]
        yield table((title, "what it does", "default"), rows)
    if hasattr(command, "list_commands"):
        below = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
        yield table(
            ("command", "what it does"),
            [
                (f"[`{context.command_path} {name}`](#{anchor(context, name)})", text(first_sentence(child.help)))
                for name, child in below
                if not child.hidden
            ],
        )


def anchor(context: Any, name: str) -> str:
    return f"{context.command_path} {name}".replace(" ", "-")


def first_sentence(help: str | None) -> str:
    return (help or "").split("\n\n")[0]


def parameter_row(parameter: Any, context: Any) -> tuple[str, str, str]:
    told, own = split_default(parameter.help or "")
    return names(parameter, context), text(told) + limits(parameter), own or default(parameter)


def names(parameter: Any, context: Any) -> str:
    """The names with what they take, as the help writes them, the short name first."""
    if parameter.param_type_name == "argument":
        return code(parameter._rich_display_name())
    every = sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: name.startswith("--"))
    takes = "" if parameter.is_flag or parameter.count else parameter.display_type_rich(context)
    takes = takes.replace(" range>", ">").replace("<list[", "<").replace("]>", ">")
    return code(" ".join(filter(None, [", ".join(every), takes])))


def limits(parameter: Any) -> str:
    bounds = [
        f"{word} {limit:g}"
        for word, limit in (("at least", parameter.min), ("at most", parameter.max))
        if limit is not None
    ]
    return f" ({', '.join(bounds)})" if bounds else ""


def split_default(help: str) -> tuple[str, str]:
    """Some defaults are no value but a rule, which stands in brackets at the end of the help."""
    match = OWN_DEFAULT.match(" ".join(help.split()))
    return (match[1], text(match[2])) if match else (help, "")


def default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if value is None or value is False or callable(value):
        return ""
    return code(str(value.value if isinstance(value, Enum) else value))


# ---- settings


def settings_page() -> str:
    from tiny_audio.data.config import DataConfig, Part
    from tiny_audio.training.schema import ALIASES, OPTION_GROUPS, Settings

    inherited = {item.name for item in fields(DataConfig)}
    groups = [
        ("A run", "", [item for item in fields(Settings) if not is_dataclass(item.type)]),
        *((name, name, fields(schema)) for name, schema in OPTION_GROUPS.items()),
        ("data.mixture.NAME", "data.mixture.NAME", [item for item in fields(Part) if item.name not in inherited]),
    ]
    sections = [part for title, prefix, items in groups for part in settings_section(title, prefix, items)]
    older = [
        (code(f"{group}.{old}"), code(f"{group}.{new}")) for group, of in ALIASES.items() for old, new in of.items()
    ]
    sections += [
        "## Older names",
        "Older configurations use these, and they still work.",
        table(("older", "now"), older),
    ]
    return page("Settings", "training/schema.py, data/config.py and data/augmentation.py", OF_SETTINGS, *sections)


OF_SETTINGS = (
    "Every key of a training's configuration: on the command line as `ta train KEY=VALUE`, or in a YAML file of "
    "`configs/`. An unknown key is an error that names the nearest known one. The defaults are those of the code; what "
    "an experiment sets on top is in [Experiments](experiments.md), and `ta train --dry-run` shows what a run would use."
)


def settings_section(title: str, prefix: str, items: Sequence[Field]) -> Iterator[str]:
    yield f"## {title}"
    if prefix.startswith("data.mixture"):
        yield "A part of a mixture has all keys of `data`, and these."
    rows = []
    for item in items:
        if not is_dataclass(item.type):
            key = f"{prefix}.{item.name}".lstrip(".")
            rows.append((code(key), text(item.metadata["help"]), setting_default(item), code(type_name(item.type))))
    yield table(("key", "what it is", "default", "type"), rows)


def type_name(kind: Any) -> str:
    written = kind if isinstance(kind, str) else getattr(kind, "__name__", "") if isinstance(kind, type) else str(kind)
    return written.replace("None", "null").replace("typing.", "").replace("Any", "any").replace(" | ", " or ")


def setting_default(item: Field) -> str:
    value = item.default if item.default is not MISSING else item.default_factory()  # type: ignore[misc]
    return code(yaml_value(value)) if value != "" else ""


def yaml_value(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(yaml_value, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


# ---- experiments


def experiments_page() -> str:
    files = sorted((CONFIGS / "experiments").glob("*.yaml"))
    sections = [part for file in files for part in experiment_section(file)]
    for group, sentence in GROUPS.items():
        rows = [(code(file.stem), text(told(file)[1])) for file in sorted((CONFIGS / group).glob("*.yaml"))]
        sections += [f"## {group}=NAME", sentence, table(("name", "what it is"), rows)]
    return page("Experiments", "configs/", OF_EXPERIMENTS, *sections)


OF_EXPERIMENTS = (
    "An experiment is a YAML file of `configs/experiments/`: a model, data and a pace of training by name, and what it "
    "sets on top. `ta train --experiment NAME --dry-run` shows all that follows from one, and trains nothing. "
    "[Parameters](../parameters.md) has how large each model is."
)
GROUPS = {
    "model": "What is joined: a file of `configs/model/`.",
    "data": "What is trained on: a file of `configs/data/`, or with `-d PATH` data of your own.",
    "training": "How long and how fast: a file of `configs/training/`.",
}


def experiment_section(file: Path) -> Iterator[str]:
    command, sentence = told(file)
    yield f"## {file.stem}"
    yield text(sentence)
    yield f"```text\n{command}\n```"
    yield table(("sets", "to"), ((code(key), code(yaml_value(value))) for key, value in sets(file)))


def told(file: Path) -> tuple[str, str]:
    """The command and the sentence at the head of a configuration."""
    lines = [line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    return tuple(line for line in lines if not line.startswith("@"))[:2]  # type: ignore[return-value]


def sets(file: Path) -> Iterator[tuple[str, Any]]:
    """`model` → the name of its file, `model.use_lora` → true."""
    import yaml

    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    for entry in tree.pop("defaults"):
        if isinstance(entry, dict):
            for group, name in entry.items():
                yield group.removeprefix("override /"), name
    yield from flat(tree)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# ---- projectors


def projectors_page() -> str:
    rows = [projector_row(kind, overrides) for kind, overrides in projector_kinds().items()]
    columns = ("projector", "what it is", "tokens / s", "parameters", "settings")
    return page("Projectors", "tiny_audio/projectors/", OF_PROJECTORS, table(columns, rows, right=columns[2:4]))


OF_PROJECTORS = (
    "The projectors with GLM-ASR-Nano's encoder (1,280 wide) and Qwen3-0.6B (1,024 wide), as the experiments set them. "
    "Tokens are those of a second of audio, out of 10 s. Choose one with the settings beside it. "
    "[Projectors](../projectors.md) explains them and has what each came to in a training."
)


KINDS = {  # the variants of mlp after it; the others in the sizes of the experiment of their name
    "mlp": (),
    "mlp, relu": ("model.projector_variant=relu", "model.projector_pool_stride=5"),
    "mlp, glm": ("model.projector_variant=glm",),
}


def projector_kinds() -> dict[str, tuple[str, ...]]:
    from tiny_audio import PROJECTOR_CLASSES

    return KINDS | {name: () for name in sorted(PROJECTOR_CLASSES) if name not in KINDS}


def projector_row(kind: str, overrides: Sequence[str]) -> tuple[str, ...]:
    from tiny_audio import PROJECTOR_CLASSES
    from tiny_audio.training import compose
    from tiny_audio.training.build import outline

    experiment = DEFAULT_MODEL if kind in KINDS else kind
    settings = compose(experiment, overrides).model
    model = outline(settings)
    frames = model.encoder.output_length(model.encoder.feature_length(TEN_SECONDS))
    tokens = int(model.projector.output_length(frames))
    size = sum(parameter.numel() for parameter in model.projector.parameters())
    chosen = overrides if kind in KINDS else [f"--experiment {kind}"]
    told = PROJECTOR_CLASSES[settings.projector_type].__doc__.split("\n\n")[0]
    return (text(kind), text(told), f"{tokens / 10:.1f}", f"{size:,}", "<br>".join(map(code, chosen)) or "the default")


# ---- all of them

PAGES: dict[str, Callable[[], str]] = {
    "cli.md": commands_page,
    "settings.md": settings_page,
    "experiments.md": experiments_page,
    "projectors.md": projectors_page,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        file, content = FOLDER / name, make()
        if not file.is_file() or file.read_text(encoding="utf-8") != content:
            stale.append(f"docs/reference/{name}")
            if not check:
                file.write_text(content, encoding="utf-8")
    print(
        "\n".join([f"{'Differs from the code' if check else 'Written'}: {name}" for name in stale]) or "Nothing to do."
    )
    sys.exit(bool(check and stale))


if __name__ == "__main__":
    main()
