"""Whether what a document mentions in `code` exists: commands, options, settings, files and names of the library; and where links lead."""

import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import unquote, urlsplit

from docs_blocks import REPOSITORY, read_page, tokens_of

# What looks like ours and is not, each with its owner.
FOREIGN = {
    "--build-arg": "docker",
    "--multi_gpu": "accelerate",
    "--requeue": "sbatch",
    "-s": "rsync",
    "--system-site-packages": "venv",
    "model.processor": "an attribute of ASRModel",
    "model.projector.": "the names of a checkpoint's tensors",
}
FOLDERS = ("configs", "tiny_audio", "docs", "recipes", "tests", "benchmarks", "examples", "docker", ".ci", ".github")
PLACEHOLDER = re.compile(r"[A-Z]{2,}|^[A-Z]$|…|\.\.\.|[<\[{]")
OPTION = re.compile(r"-[a-zA-Z]\b(?!-)|--[a-z][\w-]*")
SETTING = re.compile(r"(model|data|training)\.([a-z_.]+)(=.*)?")
SUFFIXES = ("py", "safetensors", "json", "yaml", "csv", "parquet", "bin")  # `model.safetensors` is a file
THROUGH = {("remote", "train"): ("train",), ("remote", "eval"): ("eval",)}  # whose options go on to another command


def problems_of_mentions(page: str, text: str | None = None) -> Iterator[str]:
    """What a page mentions and does not exist, a line each with the place."""
    text = read_page(page) if text is None else text
    for token in tokens_of(text):
        for part in token.children or ():
            if part.type == "code_inline" and part.content.split(" ")[0] not in FOREIGN and part.content not in FOREIGN:
                for problem in problems_of_mention(part.content):
                    yield f"{page}:{token.map[0] + 1}: `{part.content}`: {problem}"
            if part.type == "link_open" and (problem := problem_of_link(page, str(part.attrs["href"]), text)):
                yield f"{page}:{token.map[0] + 1}: ({part.attrs['href']}): {problem}"


def problems_of_mention(mention: str) -> Iterator[str]:
    words = words_of(mention)
    if words[:1] == ["ta"]:
        yield from problems_of_command(words[1:])
    elif (
        words[:1] == ["make"]
        and len(words) > 1
        and not re.search(rf"^[\w ]*\b{words[1]}\b[\w ]*:", makefile(), re.MULTILINE)
    ):
        yield f"the Makefile has no {words[1]}"
    elif words and OPTION.fullmatch(words[0].split("=")[0]):
        if words[0].split("=")[0] not in all_options():
            yield "no command has this option"
    elif len(words) == 1:
        yield from problems_of_word(words[0])


def words_of(mention: str) -> list[str]:
    try:
        return shlex.split(mention, comments=True)
    except ValueError:  # an open quotation mark
        return mention.split()


def problems_of_word(word: str) -> Iterator[str]:
    if setting := SETTING.fullmatch(word):
        if setting[2] not in SUFFIXES and not is_setting(setting[1], setting[2]) and not is_of_the_model(word):
            yield "no such setting"
    elif re.fullmatch(r"tiny_audio(\.\w+)+(\(.*)?", word):
        if not is_name(word.split("(")[0]):
            yield "no such name"
    elif word.split("/")[0] in FOLDERS and "/" in word:
        if not exists(word):
            yield "no such file"
    elif re.fullmatch(r"\w+/[\w/]+\.py", word) and not is_file_of_ours(word):
        yield "no file of this name"


def problems_of_command(words: list[str]) -> Iterator[str]:
    """Words after `ta`, as far as they can be checked: placeholders stand for anything."""
    path: list[str] = []
    while has_commands(path) and words and not words[0].startswith("-") and not PLACEHOLDER.search(words[0]):
        if command_at([*path, words[0]]) is None:
            yield f"no command {words[0]} in `{' '.join(['ta', *path])}`"
            return
        path.append(words.pop(0))
    known = options_of(path)
    for word, value in zip(words, [*words[1:], ""], strict=False):
        if word == "--":
            return
        if OPTION.match(word) and known is not None and word.split("=")[0] not in known:
            yield f"no option {word} in `{' '.join(['ta', *path])}`"
        if word == "--experiment" and not PLACEHOLDER.search(value) and not exists(f"configs/experiments/{value}.yaml"):
            yield f"no experiment {value}"
        if (setting := SETTING.fullmatch(word)) and not is_setting(setting[1], setting[2]):
            yield f"no setting {word}"


@cache
def loaded(name: str) -> Any:
    from tiny_audio.cli.main import COMMANDS, load_command

    return load_command(name) if name in COMMANDS else None


def command_at(path: list[str]) -> Any:
    """The command of a path such as `["remote", "pods", "list"]`; None where there is none."""
    command = loaded(path[0])
    for name in path[1:]:
        command = getattr(command, "commands", {}).get(name)
    return command


def has_commands(path: list[str]) -> bool:
    return not path or bool(getattr(command_at(path), "commands", None))


def options_of(path: list[str]) -> set[str] | None:
    """The options of a command and the groups above it; None where anything goes."""
    if not path:
        return {"--version", "--help"}
    known = {"--help"}
    for depth in range(1, len(path) + 1):
        for parameter in command_at(path[:depth]).params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    through = THROUGH.get(tuple(path))
    if through is None and command_at(path).context_settings.get("ignore_unknown_options"):
        return None
    return known | (options_of(list(through)) or set()) if through else known


@cache
def all_options() -> set[str]:
    from tiny_audio.cli.main import COMMANDS

    def below(path: list[str]) -> Iterator[str]:
        yield from options_of(path) or ()
        for name in getattr(command_at(path), "commands", None) or ():
            yield from below([*path, name])

    return {option for name in COMMANDS for option in below([name])} | (options_of([]) or set())


def is_setting(section: str, key: str) -> bool:
    """A field of a section or of a group in it; `training.augment.` is one too."""
    from tiny_audio.training.schema import ALIASES, OPTION_GROUPS, SECTIONS

    names = {field.name for field in fields(SECTIONS[section])} | set(ALIASES.get(section, ()))
    name, _, rest = key.partition(".")
    if not rest or name not in names:
        return name in names
    group = OPTION_GROUPS.get(f"{section}.{name}")
    return group is None or rest in {field.name for field in fields(group)}


def is_name(dotted: str) -> bool:
    """A module of the package, or what one has."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def exists(path: str) -> bool:
    """A file or folder of the checkout; of a placeholder the folder above it; `*` and `test.py::name` as usual."""
    parts = path.split("::")[0].rstrip("/").split("/")
    fixed = next(
        (parts[:n] for n, part in enumerate(parts) if PLACEHOLDER.search(part) and "README" not in part), parts
    )
    return any(REPOSITORY.glob("/".join(fixed)))


def is_of_the_model(word: str) -> bool:
    """`model.transcribe` is a method in Python."""
    from tiny_audio import ASRModel

    return word.startswith("model.") and hasattr(ASRModel, word.removeprefix("model."))


@cache
def our_files() -> tuple[str, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(f"/{file}" for file in listed.stdout.splitlines())


def is_file_of_ours(path: str) -> bool:
    return any(file.endswith(f"/{path}") for file in our_files())


@cache
def makefile() -> str:
    return (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def problem_of_link(page: str, href: str, text: str) -> str:
    """Why a relative link leads nowhere; empty where it leads somewhere, or to the network."""
    parts = urlsplit(href)
    if parts.scheme or parts.netloc:
        return ""
    target = (REPOSITORY / page).parent / unquote(parts.path) if parts.path else REPOSITORY / page
    if parts.path and not target.exists():
        return "no such file"
    if not target.resolve().is_relative_to(REPOSITORY):
        return "outside the checkout"
    linked = target.read_text(encoding="utf-8") if parts.path and target.suffix == ".md" else text
    if parts.fragment and target.suffix == ".md" and unquote(parts.fragment) not in anchors_of(linked):
        return "no such heading"
    return ""


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub and MkDocs make of headings, and those that are written out."""
    tokens = tokens_of(text)
    found = set(re.findall(r'(?:id|name)="([^"]+)"', text))
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            title = "".join(part.content for part in token.children or () if part.type in ("text", "code_inline"))
            found.add(re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-"))
            found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()))
    return found
