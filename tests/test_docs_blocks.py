"""Every code block of README, CONTRIBUTING, docs and course does what the page says: it runs, or at least parses and composes."""

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable

import pytest
import yaml
from docs_blocks import REPOSITORY, Block, blocks_of, pages, problems_of
from docs_commands import problems_of_commands
from docs_mentions import problems_of_mentions
from docs_runner import BlockFailed, Runner
from docs_workspace import Commands, environment, make_material, make_workspace

COURSE = "docs/course/"
CLASSES = [page for page in pages() if page.startswith(COURSE) and page[len(COURSE)] in "123456"]
PARSERS = {"yaml": yaml.safe_load, "json": json.loads, "toml": tomllib.loads}


def fast_blocks(page: str) -> list[Block]:
    return [block for block in blocks_of(page) if block.runs and not block.slow]


def has_slow(page: str) -> bool:
    return any(block.runs and block.slow for block in blocks_of(page))


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def material(tmp_path_factory, commands):
    return make_material(tmp_path_factory.mktemp("material") / "files", commands)


@pytest.fixture(scope="session")
def course_runner(tmp_path_factory, commands):
    """The one folder in which the classes follow each other."""
    with runner_in(tmp_path_factory.mktemp("course"), commands) as runner:
        yield runner


def runner_in(folder, commands, material=None, blocks=()) -> Runner:
    home = folder / "home"
    home.mkdir()
    return Runner(make_workspace(folder, material, blocks), environment(commands, home))


def run_all(runner: Runner, blocks: list[Block]) -> None:
    none_of(problems_of(blocks[0].page))  # `make test` without its marker would run these tests in these tests
    for block in blocks:
        if "../shared/" in block.code and not (REPOSITORY.parent / "shared").is_dir():
            pytest.skip("no ../shared beside the checkout")
        none_of(failure_of(runner.run, block))
    none_of(failure_of(runner.stop_serving))


def failure_of(run: Callable, *arguments: object) -> list[str]:
    try:
        run(*arguments)
    except BlockFailed as failure:
        return [str(failure)]
    return []


def none_of(problems: Iterable[str]) -> None:
    if found := list(problems):
        pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.parametrize("page", [page for page in pages() if fast_blocks(page)])
def test_page_runs(page, commands, tmp_path, request):
    material = None if page in CLASSES else request.getfixturevalue("material")
    with runner_in(tmp_path, commands, material, fast_blocks(page)) as runner:
        run_all(runner, fast_blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages() if has_slow(page) and page not in CLASSES])
def test_whole_page_runs(page, commands, material, tmp_path):
    blocks = [block for block in blocks_of(page) if block.runs]
    with runner_in(tmp_path, commands, material, blocks) as runner:
        run_all(runner, blocks)


@pytest.mark.slow
@pytest.mark.parametrize("page", CLASSES)
def test_class_runs_after_those_before(page, course_runner):
    run_all(course_runner, [block for block in blocks_of(page) if block.runs])


@pytest.mark.parametrize("page", pages())
def test_page_keeps_the_convention(page):
    none_of(problems_of(page))


@pytest.mark.parametrize("page", pages())
def test_commands_parse_and_trainings_compose(page):
    bash = [block for block in blocks_of(page) if block.language == "bash" and "fails" not in block.markers]
    none_of(problem for block in bash for problem in problems_of_commands(block))


@pytest.mark.parametrize("page", pages())
def test_what_is_mentioned_exists(page):
    none_of(problems_of_mentions(page))


@pytest.mark.parametrize("page", pages())
def test_python_that_is_not_run_compiles_and_its_imports_exist(page):
    for block in blocks_of(page):
        if block.language == "python" and not block.runs:
            for module, name in imports_of(block):
                assert hasattr(importlib.import_module(module), name), f"{block}: {module} has no {name}"


def imports_of(block: Block) -> list[tuple[str, str]]:
    """What it imports from tiny-audio: module and name."""
    nodes = [node for node in ast.walk(ast.parse(block.code)) if isinstance(node, ast.ImportFrom)]
    return [(node.module, alias.name) for node in nodes if node.module.startswith("tiny_audio") for alias in node.names]


@pytest.mark.parametrize("page", pages())
def test_data_formats_parse(page):
    for block in blocks_of(page):
        if block.language in PARSERS:
            PARSERS[block.language](block.code)


@pytest.mark.parametrize("arguments", [["--version"], ["eval", "--no-such"]], ids=" ".join)
def test_the_warm_start_is_the_real_command(commands, arguments):
    real, warm = [
        subprocess.run(
            [*how, *arguments], capture_output=True, text=True, check=False, env=environment(commands, commands.home)
        )
        for how in ([sys.executable, "-m", "tiny_audio.cli.main"], [str(commands.bin / "ta")])
    ]
    assert (warm.returncode, warm.stdout, warm.stderr) == (real.returncode, real.stdout, real.stderr)


def test_the_warm_python_is_python(commands, tmp_path):
    (tmp_path / "program.py").write_text("import sys; print(sys.argv, __name__, sys.path[0])")
    (tmp_path / "module.py").write_text("import program")
    code = "python program.py 1; python - < program.py; python -c 'import sys; sys.exit(sys.argv[1:] != [\"a\"])' a; python -m module"
    block = Block("page.md", 1, "bash", frozenset(), code)
    with Runner(tmp_path, environment(commands, commands.home)) as runner:
        assert runner.run(block).splitlines() == [
            f"['program.py', '1'] __main__ {tmp_path}", "['-'] __main__ ", f"['{tmp_path}/module.py'] program {tmp_path}",
        ]  # fmt: skip
        with pytest.raises(BlockFailed, match="NameError"):
            runner.run(Block("page.md", 1, "python", frozenset(), "load_audio"))
