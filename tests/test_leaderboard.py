"""`ta analysis leaderboard`: evaluations in their order, and as a dataset of the Hub that several machines write to."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from analysis_helpers import clips_of, write_run
from hub_server import Fault, Hub, hub

from tiny_audio.analysis.leaderboard import leaderboard, ranked
from tiny_audio.cli.main import run as ta
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import Metrics
from tiny_audio.hub.leaderboard import merged_rows, page, parsed, push_leaderboard, row_of
from tiny_audio.hub.marks import has_marks

TEN = "one two three four five six seven eight nine ten"
BOARD = "me/board"


def said(wrong: int) -> str:
    return " ".join(["wrong"] * wrong + TEN.split()[wrong:])


def measured(name: str, wrong: int, **others: str) -> Metrics:
    """An evaluation in outputs/eval with so many of ten words wrong."""
    clips = clips_of([(TEN, said(wrong)), (TEN, said(wrong))], others.get("normalizer", "basic"))
    model = others.pop("model", name)
    return write_run(Path("outputs/eval") / f"{name}-{others.get('dataset', 'digits')}", clips, model, **others)


@pytest.fixture
def stored(tmp_path, monkeypatch) -> Path:
    """A working folder with three models on two datasets, one of them measured twice."""
    monkeypatch.chdir(tmp_path)
    measured("good", 1)
    measured("bad", 5)
    measured("older", 9, model="good", date="2020-01-01T00:00:00+00:00")
    measured("good", 3, dataset="letters")
    measured("owner/other", 2, dataset="letters")
    return tmp_path


@pytest.fixture
def server(monkeypatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with hub({}) as running:
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        values = {"ENDPOINT": running.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
        for name, value in {**values, "HUGGINGFACE_CO_URL_TEMPLATE": template}.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        yield running


def rows_of(server: Hub) -> list[dict]:
    return [json.loads(line) for line in server.files_of(BOARD, kind="dataset")["results.jsonl"].splitlines()]


# ---- the tables


def test_the_lowest_wer_comes_first_in_a_table_for_each_dataset(stored, capsys):
    assert ta(["analysis", "leaderboard", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tables"]
    assert {key: [(row["model"], row["wer"]) for row in rows] for key, rows in found.items()} == {
        "digits test, basic": [("good", 0.1), ("bad", 0.5)],
        "letters test, basic": [("owner/other", 0.2), ("good", 0.3)],
    }
    (row, _) = found["digits test, basic"]
    assert row["clips"] == 2 and row["rtfx"] == 20.0 and row["hardware"].startswith("cpu, ") and row["date"]


def test_runs_and_datasets_are_picked_as_elsewhere(stored, capsys):
    assert [metrics.model for metrics in ranked(["good", "bad"], "digits")] == ["good", "bad"]
    assert [metrics.wer for metrics in ranked((), "letters")] == [0.2, 0.3]
    assert ta(["analysis", "leaderboard", "-d", "nothing"]) == 1
    assert "holds no finished evaluation on nothing; run `ta eval` first" in capsys.readouterr().err


def test_its_parameters_are_the_models(tmp_path, monkeypatch):
    from tiny_audio.evaluation.run import evaluate
    from tiny_audio.evaluation.settings import EvalSettings

    monkeypatch.chdir(tmp_path)
    settings = EvalSettings(model="nano", dataset="quickstart", max_samples=2, device="cpu", max_new_tokens=2)
    evaluate(settings)
    ((*_, parameters, _, _),) = leaderboard(ranked(())).tables[0].rows
    assert parameters == 1_963_776 + 492_224 + 1_476_192 + 5_597


# ---- on the Hub


def test_it_becomes_a_dataset_that_the_viewer_shows(stored, server, capsys):
    assert ta(["analysis", "leaderboard", "--push", BOARD, "--private"]) == 0
    assert f"Leaderboard: {server.url}/datasets/me/board" in capsys.readouterr().err
    assert server.created["type"] == "dataset" and "private" in (server.created.get("visibility"), *server.created)
    assert len(server.commits) == 1
    readme = server.files_of(BOARD, kind="dataset")["README.md"].decode()
    front = yaml.safe_load(readme.split("---\n")[1])
    assert front["configs"][0]["data_files"] == [{"split": "results", "path": "results.jsonl"}]
    assert "## letters test, basic" in readme and "| good | 10.00% |" in readme
    rows = rows_of(server)
    assert len(rows) == 4 and len({tuple(sorted(row)) for row in rows}) == 1  # the same columns for the viewer
    assert str(stored) not in readme + str(rows)


def test_a_second_push_updates_its_rows_and_keeps_those_of_others(stored, server):
    push_leaderboard(BOARD, ranked(()), private=False)
    first = rows_of(server)
    assert push_leaderboard(BOARD, ranked(()), private=False) and len(server.commits) == 1  # nothing is new
    other = {**first[0], "id": "elsewhere", "model": "theirs", "wer": 0.0}
    files = server.files_of(BOARD, kind="dataset")
    edited = files["README.md"].decode().replace("# board\n", "# Our board\n\nBy me.\n")
    lines = "".join(json.dumps(row) + "\n" for row in [*first, other])
    repository = server.repositories["dataset", BOARD]
    repository.commit({**files, "README.md": edited.encode(), "results.jsonl": lines.encode()})
    (old,) = [row for row in first if (row["model"], row["dataset"]) == ("bad", "digits")]
    measured_again = ranked(["bad"], "digits")
    measured_again[0].wer = 0.4
    push_leaderboard("board", measured_again, private=False)  # of the token's own account
    rows = rows_of(server)
    assert len(rows) == 5 and rows[0]["model"] == "theirs"
    assert next(row for row in rows if row["id"] == old["id"])["wer"] == 0.4
    readme = server.files_of(BOARD, kind="dataset")["README.md"].decode()
    assert "# Our board\n\nBy me.\n" in readme and "| theirs | 0.00% |" in readme and "| bad | 40.00% |" in readme


def test_the_same_on_another_machine_is_a_row_of_its_own(stored):
    (metrics,) = ranked(["bad"], "digits")
    row = row_of(metrics)
    metrics.date, metrics.rtfx = "later", 7.0
    assert row_of(metrics)["id"] == row["id"]
    metrics.hardware = {**metrics.hardware, "gpu": "NVIDIA H200"}
    assert row_of(metrics)["id"] != row["id"]
    assert len(merged_rows([row], [row_of(metrics), row])) == 2


def test_what_is_no_leaderboard_is_left_alone(stored, server, capsys):
    server.add(BOARD, {"data/train.parquet": b"", "README.md": b"# A corpus\n"}, kind="dataset")
    assert ta(["analysis", "leaderboard", "--push", BOARD]) == 1
    assert "me/board holds data/train.parquet and is no leaderboard; name another" in capsys.readouterr().err
    server.add(BOARD, {"results.jsonl": b"{}\n"}, kind="dataset")
    with pytest.raises(TinyAudioError, match="Line 1 of results.jsonl in me/board has id null; expected text; mend"):
        push_leaderboard(BOARD, ranked(()), private=False)
    server.add(BOARD, {"README.md": b"\xff"}, kind="dataset")
    with pytest.raises(TinyAudioError, match="README.md of me/board is no UTF-8 text"):
        push_leaderboard(BOARD, ranked(()), private=False)
    assert not server.commits


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(403, "POST .*commit"), "me/board was not changed"),
        (Fault(412, "POST .*commit"), "it was changed at the same moment"),
        (Fault(500, "POST .*create"), "the Hub is not well"),
    ],
)
def test_what_the_hub_refuses_is_one_line_and_changes_nothing(stored, server, capsys, fault, said):
    server.faults = [fault]
    assert ta(["analysis", "leaderboard", "--push", BOARD]) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert len(error) == 1 and said in error[0]
    assert "results.jsonl" not in server.files_of(BOARD, kind="dataset")
    assert ta(["analysis", "leaderboard", "--push", BOARD]) == 0 and len(rows_of(server)) == 4


def test_no_token_is_said_first(stored, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert ta(["analysis", "leaderboard", "--push", BOARD]) == 1
    assert "--push needs a token of the Hub and there is none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"id": [1]}, r"id \[1\]; expected text"), ({"wer": "0.1"}, 'wer "0.1"; expected a number'), ({"date": None}, "date null"),
        ({"wer": float("nan")}, "wer NaN; expected a number"), ({"rtfx": None}, "rtfx null"), ({"wer_low": float("inf")}, "wer_low"),
        ({"parameters": "9"}, 'parameters "9"; expected a number or null'), ({"normalizer": []}, "normalizer"),
    ],
)  # fmt: skip
def test_a_row_that_somebody_edited_is_one_line_with_its_number(stored, changed, found):
    row = row_of(ranked(["bad"], "digits")[0])
    lines = f"{json.dumps(row)}\n{json.dumps(row | changed)}\n"
    with pytest.raises(TinyAudioError, match=f"Line 2 of results.jsonl in me/board has {found}") as raised:
        parsed(lines, BOARD)
    assert "\n" not in str(raised.value)
    for line in ("[1]", "{", ""):
        with pytest.raises(TinyAudioError, match="Line 2 of results.jsonl in me/board is no JSON object"):
            parsed(f"{json.dumps(row)}\n{line}\n", BOARD)


def test_a_name_with_line_ends_is_one_row(stored, server):
    row = row_of(ranked(["bad"], "digits")[0]) | {"model": "a\nb\u2028c", "dataset": "d\n# e"}
    text = page("board", "", parsed(json.dumps(row, ensure_ascii=False) + "\n", BOARD))
    assert "\n| a b c | 50.00% |" in text and "\n## d # e test, basic\n" in text


def test_a_page_of_ones_own_keeps_its_text():
    text = page("board", "# Mine\n", [])
    assert text.startswith("# Mine\n\n") and has_marks(text) and page("board", text, []) == text
