"""The tests of documents catch what is wrong in them: blocks that fail, options that do not exist, markers that lie."""

import os
import sys
from contextlib import suppress

import psutil
import pytest
from docs_blocks import blocks_of, commands_of, problems_of
from docs_commands import problems_of_commands
from docs_mentions import problems_of_mentions
from docs_runner import BlockFailed, Runner

PAGE = """# A page

Text, then a block:

<!-- slow -->
```bash
ta eval -m nano \\
    -d quickstart | head  # why
```

1. An item:

   ```python
   print("in a list")
   ```

<details>
<summary>Solution</summary>

<!-- fails -->
```bash
false
```

</details>

```text
not run
```
"""


def page(code: str, language: str = "bash", marker: str = "") -> str:
    return f"{marker}\n```{language}\n{code}\n```\n"


def block(code: str, language: str = "bash", marker: str = ""):
    (found,) = blocks_of("page.md", page(code, language, marker))
    return found


def test_blocks_have_their_place_language_and_markers():
    found = [(str(b), b.language, set(b.markers), b.runs) for b in blocks_of("page.md", PAGE)]
    assert found == [
        ("page.md:7", "bash", {"slow"}, True),
        ("page.md:14", "python", set(), True),
        ("page.md:22", "bash", {"fails"}, True),
        ("page.md:28", "text", set(), False),
    ]
    assert blocks_of("page.md", PAGE)[1].code == 'print("in a list")\n'
    assert not list(problems_of("page.md", PAGE))


def test_commands_are_found_between_pipes_and_over_lines():
    text = page("A=1 ta eval -n 3 | head && ta doctor\nfor x in 1; do ta \\\n  push 'a b'; done  # no")
    assert commands_of(blocks_of("page.md", text)[0]) == [
        ["ta", "eval", "-n", "3"], ["head"], ["ta", "doctor"],
        ["for", "x", "in", "1"], ["ta", "push", "a b"], ["done"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text, said",
    [
        ("Text\n\n    ta eval -m nano\n", "never indented"),
        ("- item\n\n      ta eval -m nano\n", "never indented"),
        (page("ls", "sh"), "language 'sh'"),
        (page("ls", ""), "language ''"),
        (page("ls", marker="<!-- slwo -->"), "unknown marker slwo"),
        (page("ls", marker="<!-- gpu slow -->"), "do not go together"),
        ("<!-- slow -->\n\n" + page("ls"), "before no bash"),
        (page("x", "text", "<!-- slow -->"), "before no bash"),
        ("<details>\n```bash\nls\n```\n</details>\n", "inside HTML"),
        (page("ta eval", marker="<!-- checkout -->"), "`checkout` is for"),
        (page("make test"), "mark it `checkout`"),
        (page("ta dev lint\nta dev check"), "mark it `checkout`: ta dev check"),
    ],
)
def test_what_breaks_the_convention_is_said(text, said):
    problems = list(problems_of("page.md", text))
    assert len(problems) == 1 and said in problems[0] and problems[0].startswith("page.md:")


@pytest.mark.parametrize(
    "code, said",
    [
        ("ta evaluate", "no command"),
        ("ta eval --modell nano", "No such option"),
        ("ta remote pods liste", "No such command"),
        ("ta train training.no_such=1", "no_such"),
        ("ta train -d me/data --experiment not_there", "not_there"),
        ("ta train training.max_steps=many", "many"),
        ("hf auth login\nta train \\\n  --experiment productoin", "productoin"),
        ("ta remote train --host pod training.no_such=1", "no_such"),
        ("ta remote train --host", "--host"),
    ],
)
def test_a_command_that_does_not_exist_is_found_where_nothing_runs(code, said):
    problems = list(problems_of_commands(block(code, marker="<!-- gpu -->")))
    assert len(problems) == 1 and said in problems[0]


def test_commands_that_exist_have_no_problem():
    code = (
        "ta train -d me/data --experiment transcription training.dtype=bf16\nta remote train --host pod --detach -d me/data\n"
        "for rate in 1e-4 3e-4; do ta remote train --detach --name rate-$rate training.learning_rate=$rate; done\n"
        "ta dev test -k x\nta --version\nta eval --help"
    )
    assert not list(problems_of_commands(block(code, marker="<!-- gpu -->")))


@pytest.fixture
def runner(tmp_path):
    """A runner without `ta`'s warm start."""
    with Runner(tmp_path, {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}) as runner:
        yield runner


def test_blocks_share_their_folder(runner):
    runner.run(block("echo 'x = 5' > mine.py"))
    assert runner.run(block("import mine; print(mine.x)", "python")) == "5\n"


@pytest.mark.parametrize(
    "code, language, marker, said",
    [
        ("false\necho on", "bash", "", "exit code 1"),
        ("cat none | cat", "bash", "", "No such file"),
        ("echo $NONE", "bash", "", "unbound variable"),
        ("print(1)\nraise KeyError('x')", "python", "", "KeyError: 'x'"),
        ("import no_such_module", "python", "", "ModuleNotFoundError"),
        ("ls", "bash", "<!-- fails -->", "does not"),
        ("python -c 1/0", "bash", "<!-- fails -->", "traceback"),
        ("echo no", "bash", "<!-- serves -->", "printed no address"),
    ],
)
def test_a_block_that_lies_is_caught(runner, code, language, marker, said):
    with pytest.raises(BlockFailed, match=said) as caught:
        runner.run(block(code, language, marker))
    assert str(caught.value).startswith("page.md:3: ") and f"    {code.splitlines()[0]}" in str(caught.value)


def test_a_shown_error_is_one(runner):
    assert runner.run(block("echo Error: no such model; exit 2", marker="<!-- fails -->")) == "Error: no such model\n"


SERVER = """
import http.server, sys
with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(int(sys.argv[1]))
"""


def test_what_serves_goes_on_for_the_next_blocks_and_ends_by_ctrl_c(runner):
    (runner.folder / "server.py").write_text(SERVER)
    address = runner.run(block("python server.py 0\npython server.py 0", marker="<!-- serves -->")).splitlines()[-1]
    assert "server.py" in runner.run(
        block(f"from urllib.request import urlopen; print(urlopen('{address}').read())", "python")
    )
    runner.stop_serving()
    with pytest.raises(BlockFailed):
        runner.run(block(f"from urllib.request import urlopen; urlopen('{address}')", "python"))


def test_what_does_not_end_well_by_ctrl_c_is_caught(runner):
    (runner.folder / "server.py").write_text(SERVER)
    runner.run(block("python server.py 3", marker="<!-- serves -->"))
    with pytest.raises(BlockFailed, match="exit code 3 after Ctrl-C"):
        runner.stop_serving()


def test_a_job_in_the_background_ends_with_its_block(runner):
    number = int(runner.run(block("sleep 60 &\necho $!")))
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(number)
        assert process.status() == psutil.STATUS_ZOMBIE or process.wait(10) is None


@pytest.mark.parametrize(
    "text, said",
    [
        ("`ta evaluate`", "no command evaluate in `ta`"),
        ("`ta remote pods liste POD`", "no command liste in `ta remote pods`"),
        ("`ta eval --modell nano`", "no option --modell in `ta eval`"),
        ("`ta remote train --host H --experimnt x`", "no option --experimnt"),
        ("| `ta train training.max_step=3` |\n| --- |", "no setting"),
        ("`ta train --experiment productoin`", "no experiment"),
        ("`--no-such-option`", "no command has"),
        ("`training.augment.noise=1`", "no such setting"),
        ("`data.max_second`", "no such setting"),
        ("`configs/experiments/none.yaml`", "no such file"),
        ("`tests/test_none.py::test_x`", "no such file"),
        ("`training/none.py`", "no file of this name"),
        ("`tiny_audio.model.Nothing`", "no such name"),
        ("`make none`", "Makefile"),
        ("[x](docs/none.md)", "no such file"),
        ("[x](docs/speed.md#none)", "no such heading"),
        ("# A b\n[x](#a-c)", "no such heading"),
    ],
)
def test_a_mention_of_what_does_not_exist_is_found(text, said):
    problems = list(problems_of_mentions("page.md", text))
    assert len(problems) == 1 and said in problems[0]


def test_mentions_of_what_exists_have_no_problem():
    text = """# What it is: `ta`, and 2

    `ta eval -m NAME … -n 10`, `ta remote train --detach --experiment mosa`, `ta dev test -k x`, `ta analysis slices RUN [--by COLUMN]…`
    `training.augment.`, `data.seed=3`, `model.safetensors`, `configs/data/NAME.yaml`, `tests/test_*.py`, `training/feed.py`, `model.transcribe`
    `-speech`, `-w 8`, `--version`, `my_own.py`
    `tiny_audio.embedded("nano")`, `make test`, `outputs/eval/`, [x](#what-it-is-ta-and-2), [y](README.md), [z](https://example.org/none)
    """
    assert not list(problems_of_mentions("page.md", text.replace("\n    ", "\n")))
