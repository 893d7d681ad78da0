"""`ta analysis`: planted effects are found, names mean what they say, and every command runs on real results."""

import csv
import io
import json
import random
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from analysis_helpers import clips_of, run_of, write_run

from tiny_audio.analysis.alignment import align
from tiny_audio.analysis.compare import compare
from tiny_audio.analysis.entities import entities
from tiny_audio.analysis.entity_words import find_entities
from tiny_audio.analysis.errors import errors
from tiny_audio.analysis.hallucinations import find_loop, hallucinations
from tiny_audio.analysis.high_wer import high_wer
from tiny_audio.analysis.output import Report, write
from tiny_audio.analysis.runs import labels, open_run, open_runs
from tiny_audio.analysis.slices import slices, slices_of
from tiny_audio.cli.main import run as ta
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import RESULTS
from tiny_audio.evaluation.run import evaluate
from tiny_audio.evaluation.settings import EvalSettings

TEN = "one two three four five six seven eight nine ten"
RIGHT = (TEN, TEN)


def table(report: Report, key: str) -> list[dict]:
    """A table's rows as JSON has them."""
    return next(t for t in report.tables if t.key == key).records(None)


# ---- texts side by side


def test_words_that_differ_are_marked():
    (alignment,) = align(clips_of([("A b, c d e", "a x y d e z")]))
    assert alignment.marked() == ("a [b c] d e", "a [x y] d e [z]")
    (alignment,) = align(clips_of([("a b c", "a c")]))
    assert alignment.marked() == ("a [b] c", "a c")
    assert alignment.recognised() == [True, False, True]


def test_empty_texts_are_aligned():
    assert [a.marked() for a in align(clips_of([("", ""), ("", "hm"), ("a", "")]))] == [
        ("", ""),
        ("", "[hm]"),
        ("[a]", ""),
    ]
    assert align([]) == []


# ---- high-wer


def test_high_wer_counts_empty_references_and_sets_failed_clips_beside(tmp_path):
    texts = [RIGHT, ("a b", "a x"), ("", "ghost words"), ("a b c d e f g h i j", "a b c d e f g x y z"), (TEN, None)]
    report = high_wer(run_of(tmp_path / "run", texts), 30)
    rows = table(report, "worst")
    assert [(row["id"], row["wer"]) for row in rows] == [("clip-0002", 2.0), ("clip-0001", 0.5), ("clip-0003", 0.3)]
    assert rows[1]["reference"] == "a [b]" and rows[1]["prediction"] == "a [x]"
    assert report.facts["failed"] == 1 and "ValueError: broken" in report.findings[-1]
    assert "3 of 4 clips (75.0%)" in report.findings[0] and "6 of the 6 word errors" in report.findings[0]


# ---- compare


def voices(count: int, rate: float, seed: int, tail: str = "") -> list[tuple[str, str]]:
    """Sentences of ten words, each of which is wrong with a chance of `rate`."""
    chance, names = random.Random(seed), TEN.split()
    said = [[word if chance.random() >= rate else "wrong" for word in names] for _ in range(count)]
    return [(f"{TEN} {i}{tail}", f"{' '.join(words)} {i}{tail}") for i, words in enumerate(said)]


def test_a_better_run_is_named(tmp_path):
    worse = run_of(tmp_path / "a", voices(100, 0.3, 1), model="worse")
    better = run_of(tmp_path / "b", voices(100, 0.1, 2), model="better")
    report = compare([worse, better])
    (pair,) = table(report, "pairs")
    low, high = pair["difference_interval"]
    assert low < pair["difference"] < high < 0 and pair["z"] < 0 and pair["p"] < 0.001 and pair["bootstrap_p"] < 0.01
    assert pair["difference"] == pytest.approx(better.metrics.wer - worse.metrics.wer)
    assert report.findings[0].startswith("better is better than worse, by ")
    assert report.findings[0].endswith(" of the words (MAPSSWE, p < 0.001).")
    (back,) = table(compare([better, worse]), "pairs")
    assert (back["difference"], back["z"], back["p"]) == (-pair["difference"], -pair["z"], pair["p"])
    assert back["difference_interval"] == pytest.approx((-high, -low), abs=1e-9)


def test_clips_that_changed_come_biggest_change_first(tmp_path):
    before = [("a b c d", "a b c d"), ("a b c d", "x y z d"), ("e f", "e f"), ("g h", "g x")]
    after = [("a b c d", "a b c x"), ("a b c d", "a b c d"), ("e f", "x y"), ("g h", "g x")]
    report = compare([run_of(tmp_path / "a", before, model="a"), run_of(tmp_path / "b", after, model="b")])
    assert [(row["id"], row["change"]) for row in table(report, "better")] == [("clip-0001", -3)]
    assert [(row["id"], row["change"]) for row in table(report, "worse")] == [("clip-0002", 2), ("clip-0000", 1)]
    assert table(report, "better")[0]["prediction_a"] == "[x y z] d"


def test_no_difference_is_said_in_words(tmp_path):
    run = run_of(tmp_path / "a", voices(40, 0.2, 1))
    report = compare([run, run])
    assert report.findings[0] == "No difference between nano (1) and nano (2) can be shown (MAPSSWE, p = 1.000)."
    assert (table(report, "better"), table(report, "worse")) == ([], [])
    alike = run_of(tmp_path / "b", voices(40, 0.2, 2), model="b")
    assert compare([run, alike]).findings[0].startswith("No difference between nano and b can be shown")


def test_every_pair_of_several_runs_is_corrected(tmp_path):
    runs = [
        run_of(tmp_path / m, voices(60, rate, i), model=m)
        for i, (m, rate) in enumerate([("a", 0.3), ("b", 0.2), ("c", 0.1)])
    ]
    rows = table(compare(runs), "pairs")
    assert [(row["a"], row["b"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(row["p_holm"] >= row["p"] for row in rows) and min(row["p_holm"] for row in rows) == 3 * rows[1]["p"]
    assert {row["run"] for row in table(compare(runs), "better")} == {"b", "c"}


def test_only_clips_that_all_scored_are_compared(tmp_path):
    texts = voices(20, 0.3, 1)
    some = run_of(tmp_path / "a", [*texts[:18], (texts[18][0], None)], model="a")
    report = compare([run_of(tmp_path / "b", texts, model="b"), some])
    assert report.facts["clips"] == 18
    assert report.findings[-2:] == [
        "Left out of b: 2 clips that not every run scored.",
        "Left out of a: 1 clip that failed.",
    ]


@pytest.mark.parametrize(
    ("texts", "settings", "shown"),
    [
        (voices(5, 0.2, 1), {"dataset": "other"}, "measured different datasets: digits test and other test"),
        (voices(5, 0.2, 1, " more"), {}, "different references of clip clip-0000: 'one two"),
        (voices(5, 0.2, 1), {"normalizer": "none"}, "scored with different normalisers: basic 1 and none 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(texts, settings, shown, tmp_path):
    runs = [run_of(tmp_path / "a", voices(5, 0.2, 1)), run_of(tmp_path / "b", texts, **settings)]
    with pytest.raises(TinyAudioError, match=shown):
        compare(runs)


def test_a_dataset_that_moved_is_the_same(tmp_path):
    texts = voices(5, 0.2, 1)
    runs = [run_of(tmp_path / d, texts, dataset=f"data/{d}", dataset_fingerprint="1234") for d in ("a", "b")]
    assert compare(runs).facts["clips"] == 5


# ---- errors


def test_planted_errors_are_counted_with_their_rates(tmp_path):
    texts = [("turn left here", "turn right here")] * 6 + [("turn left here", "turn left here")] * 4
    texts += [("stop it", "stop in")] + [("oh no", "no")] * 3 + [("no", "no thanks")] * 2
    report = errors(run_of(tmp_path / "run", texts))
    assert table(report, "substitutions") == [
        {"reference": "left", "prediction": "right", "count": 6, "occurrences": 10, "rate": 0.6},
        {"reference": "it", "prediction": "in", "count": 1, "occurrences": 1, "rate": 1.0},
    ]
    assert table(report, "deletions") == [{"word": "oh", "count": 3, "occurrences": 3, "rate": 1.0}]
    assert table(report, "insertions") == [{"word": "thanks", "count": 2, "occurrences": 0, "rate": None}]
    assert report.findings[0].endswith("7 substitutions, 3 deletions and 2 insertions in 40 reference words.")


# ---- entities


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "On Monday, March 3rd 2021 I met Dr. Jane Smith in New York. We paid $2,500.50 for 5 apples.",
            ["date Monday, March 3rd 2021", "name Jane Smith", "name New York", "number 2,500.50", "number 5"],
        ),
        ("Twenty-one of Bob's friends came in May 1984", ["number Twenty-one", "name Bob's", "date May 1984"]),
        ("I'm sure that May will come, and I may go", ["date May"]),
        ("HELLO JANE SMITH", []),
        ("", []),
        ("Well. Jane left! Bob stayed", []),
        ("It was 1984. Then came 12/05/2020 and the 2nd", ["date 1984", "date 12/05/2020", "number 2nd"]),
    ],
)
def test_entities_of_a_text_with_capitals(text, found):
    assert [f"{entity.kind} {entity.text}" for entity in find_entities(text, cased=True)] == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "move it to tuesday the eleventh of july nineteen oh four",
            ["date tuesday the eleventh of july nineteen oh four"],
        ),
        ("two hundred and five or thirty and forty", ["number two hundred and five", "number thirty", "number forty"]),
        ("i may march on may first", ["date may first"]),
        ("the twenty first song, the third time", ["number twenty first", "number third"]),
        ("jane smith", []),
    ],
)
def test_entities_of_a_text_without_capitals(text, found):
    assert [f"{entity.kind} {entity.text}" for entity in find_entities(text, cased=False)] == found


def test_recall_of_entities(tmp_path):
    texts = [
        ("We met Jane Smith on July 4th", "we met jane smith on july 4th"),
        ("We met Jane Smith on July 5th", "we met jane smyth on july 5th"),
        ("It costs twenty one dollars", "it costs twenty dollars"),
        ("It costs twenty one dollars and 5 cents", "it costs twenty dollars and 5 cents"),
    ]
    report = entities(run_of(tmp_path / "run", texts))
    kinds = {row["kind"]: (row["occurrences"], row["missed"], row["recall"]) for row in table(report, "kinds")}
    assert kinds == {"name": (2, 1, 0.5), "number": (3, 2, pytest.approx(1 / 3)), "date": (2, 0, 1.0)}
    assert [(row["text"], row["missed"]) for row in table(report, "missed")] == [("twenty one", 2), ("jane smith", 1)]
    assert "rules" in report.findings[0] and "capitalised words" in report.findings[0]


def test_entities_are_found_as_they_were_normalised(tmp_path):
    texts = [("He paid twenty one dollars to Mr. Brown", "he paid 21 dollars to mister green")]
    report = entities(run_of(tmp_path / "run", texts, normalizer="whisper-en"))
    assert [(row["kind"], row["missed"]) for row in table(report, "kinds")] == [("name", 1), ("number", 0), ("date", 0)]


def test_references_without_capitals_are_said_to_have_no_names(tmp_path):
    report = entities(run_of(tmp_path / "run", [("jane has two cats", "jane has two cats")]))
    assert "no names, since the references do not tell capitals" in report.findings[0]


# ---- slices


def sliced(tmp_path) -> list:
    """120 clips; those of speaker `b` have half their words wrong, and the noisy ones of 5 dB too."""
    right, wrong = "a b c d e f g h", "a x c x e x g x"
    kinds = [(f"{'ab'[i % 8 == 0]}", 5.0 if i % 10 == 1 else 20.0 + i % 7) for i in range(120)]
    texts = [(right, wrong if speaker == "b" or snr == 5.0 else right) for speaker, snr in kinds]
    metadata = [{"speaker": s, "room": f"room-{i % 30}", "floor": i % 3} for i, (s, _) in enumerate(kinds)]
    fields = {"metadata": metadata, "snr": [snr for _, snr in kinds], "duration": [1 + i / 50 for i in range(120)]}
    return run_of(tmp_path / "run", texts, fields)


def test_a_planted_slice_is_found(tmp_path):
    run = sliced(tmp_path)
    found = {(s.kind, s.label): s for s in slices_of(run)}
    assert {kind for kind, _ in found} == {"duration", "rate", "snr", "speaker"}
    bad = found["speaker", "b"]
    assert (bad.clips, bad.words, bad.errors, bad.wer, bad.wer_interval) == (15, 120, 60, 0.5, (0.5, 0.5))
    worst = max((s for s in found.values() if s.kind == "snr"), key=lambda s: s.wer)
    assert worst.label.startswith("5–") and worst.wer > 2 * run.metrics.wer
    named = [" ".join(sentence.split()[5:8]) for sentence in slices(run).findings]
    assert named == ["speaker b, 50.00%", f"snr {worst.label}, {worst.wer:.2%}"]


def test_slices_cover_every_clip_once(tmp_path):
    run = sliced(tmp_path)
    for kind in ("duration", "rate", "snr", "speaker", "room", "floor"):
        pieces = slices_of(run, [kind])
        assert sum(s.clips for s in pieces) == 120 and sum(s.errors for s in pieces) == round(run.metrics.wer * 960)
    assert len(slices_of(run, ["duration"])) == 5
    assert [s.label for s in slices_of(run, ["floor"])] == ["0", "1", "2"]  # few numbers are names
    rooms = slices_of(run, ["room"])
    assert len(rooms) == 12 and rooms[-1].label == "other (19)" and rooms[-1].clips == 76


def test_bins_of_large_numbers_stay_apart(tmp_path):
    stamps = [1732212345.0 + i for i in range(50)]
    run = run_of(tmp_path, [("a b", "a b")] * 50, {"metadata": [{"made": stamp} for stamp in stamps]})
    pieces = slices_of(run, ["made", "made"])  # named twice, sliced once
    assert [piece.clips for piece in pieces] == [10] * 5 and len({piece.label for piece in pieces}) == 5


def test_nothing_to_slice_is_said(tmp_path):
    write_run(tmp_path, clips_of([("a", "a"), ("b", None)]))
    (tmp_path / "results.jsonl").write_text((tmp_path / "results.jsonl").read_text().splitlines()[1] + "\n")
    assert slices(open_run(str(tmp_path))).findings == ["There is nothing to slice: no clip was scored."]


def test_clips_without_a_value_are_a_slice_of_their_own(tmp_path):
    run = run_of(tmp_path / "run", [RIGHT] * 12, {"snr": [None, None, *(float(i) for i in range(10))]})
    assert [(s.label, s.clips) for s in slices_of(run, ["snr"])] == [("0–4.5", 5), ("4.5–9", 5), ("(none)", 2)]


def test_a_column_that_is_not_there_names_those_that_are(tmp_path):
    with pytest.raises(TinyAudioError, match="No clip has a accent; .* duration, rate, snr, speaker, room, floor"):
        slices_of(sliced(tmp_path), ["accent"])


# ---- hallucinations


@pytest.mark.parametrize(
    ("reference", "prediction", "loop"),
    [
        ("thank you", "thank you thank you thank you", (("thank", "you"), 3)),
        ("no no no", "no no no", None),
        ("no no no", "no no no no", None),
        ("no no no", "no no no no no no no", (("no",), 7)),
        ("five five five", "five five", None),
        ("a b", "a b a b", None),
        ("go", "we go on and on and on and on and stop", (("on", "and"), 4)),
        ("call 555", "call 5 5 5 5", (("5",), 4)),
        ("b a b a b a", "a b a b a b", None),
        ("", "", None),
    ],
)
def test_loops(reference, prediction, loop):
    assert find_loop(reference.split(), prediction.split()) == loop


def test_planted_hallucinations_are_found(tmp_path):
    texts = [
        RIGHT,
        ("", ""),
        ("", "thanks for watching"),
        ("good night", "good night good night good night good night"),
        ("one two three four five six", "one two three please do not forget it four five six"),
        ("no", "well i do not think so at all"),
        ("yes", "yes it is so"),
    ]
    report = hallucinations(run_of(tmp_path / "run", texts))
    found = {(row["kind"], row["id"][-1]): row["text"] for row in table(report, "found")}
    assert found == {
        ("loop", "3"): "good night x 4",
        ("empty", "2"): "thanks for watching",
        ("burst", "3"): "good night good night good night",
        ("burst", "4"): "please do not forget it",
        ("burst", "5"): found["burst", "5"],
        ("length", "3"): "8 words for 2",
        ("length", "5"): "8 words for 1",
    }
    assert {row["kind"]: row["clips"] for row in table(report, "kinds")} == {
        "loop": 1,
        "empty": 1,
        "burst": 3,
        "length": 2,
    }
    assert report.findings == ["4 of 7 clips hold text that nobody said."]


# ---- names


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """A folder with evaluations in outputs/eval, of three days."""
    working = tmp_path_factory.mktemp("evaluated")
    plan = [
        ("one", "my", "digits", 1), ("two", "my_model_v2", "digits", 2), ("three", "owner/speaker-net", "digits", 1),
        ("four", "owner/speaker-net", "phrases", 3), ("five", "runs/x/best", "digits", 1), ("six", "my", "letters", 2),
        ("seven", "hub/net@v2", "digits", 1),
    ]  # fmt: skip
    for folder, model, dataset, day in plan:
        date = f"2026-11-0{day}T00:00:00+00:00"
        write_run(working / "outputs/eval" / folder, clips_of([RIGHT]), model, dataset, date=date)
    return working


@pytest.fixture
def stored(evaluated, tmp_path, monkeypatch) -> Path:
    """The working folder is a copy of it."""
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "dataset", "folder"),
    [
        ("my", None, "six"), ("my", "digits", "one"), ("my_model_v2", None, "two"), ("outputs/eval/one", None, "one"),
        ("three", None, "three"), ("owner/speaker-net", None, "four"), ("speaker-net", "digits", "three"),
        ("runs/x/best", None, "five"), ("./runs/x/best/", None, "five"), ("best", None, "five"), ("net", None, "seven"),
        ("hub/net", None, "seven"), ("hub/net@v2", None, "seven"),
    ],
)  # fmt: skip
def test_a_name_means_one_evaluation(name, dataset, folder, stored):
    assert open_run(name, dataset).folder.name == folder


@pytest.mark.parametrize(
    ("name", "dataset", "shown"),
    [
        ("my_model", None, "No evaluation in outputs/eval is called my_model; the nearest names are my_model_v2"),
        ("m", None, "nearest names are my,"),
        ("my", "phrases", "my was not evaluated on phrases, but on digits, letters; name one of them."),
        ("runs/x", None, "No evaluation in outputs/eval is called runs/x; the nearest names are runs/x/best"),
    ],
)
def test_an_unknown_name_is_one_line(name, dataset, shown, stored, capsys):
    arguments = ["analysis", "errors", name, *(["-d", dataset] if dataset else [])]
    assert ta(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("Error: ") and captured.err.count("\n") == 1
    assert shown in captured.err


def test_without_any_evaluation_the_error_says_what_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert ta(["analysis", "errors", "nano"]) == 1
    assert capsys.readouterr().err == (
        "Error: No evaluation is called nano: outputs/eval holds none; run `ta eval` first, or give its folder.\n"
    )


def test_of_several_the_one_taken_is_said(stored, capsys):
    open_run("my")
    assert capsys.readouterr().err == (
        "my: outputs/eval/six (my on letters, 2026-11-02T00:00:00+00:00), of 2 evaluations.\n"
    )
    open_run("best")
    assert capsys.readouterr().err == ""


def test_compared_models_share_a_dataset(stored):
    """The newest of owner/speaker-net is on phrases, that of my on letters; both were measured on digits."""
    assert [run.folder.name for run in open_runs(["my", "owner/speaker-net", "best"])] == ["one", "three", "five"]
    assert labels(open_runs(["one", "six"])) == ["one", "six"]


def test_an_unfinished_or_broken_evaluation_is_one_line(stored, capsys):
    Path("outputs/eval/one/metrics.json").unlink()
    Path("outputs/eval/two/metrics.json").write_text("{")
    assert ta(["analysis", "errors", "outputs/eval/one"]) == 1
    assert "holds no metrics.json: its evaluation did not finish" in capsys.readouterr().err
    assert ta(["analysis", "errors", "outputs/eval/two"]) == 1
    assert "two/metrics.json holds no figures of an evaluation" in capsys.readouterr().err
    Path("outputs/eval/two/metrics.json").write_text("[]")
    assert ta(["analysis", "errors", "best"]) == 0


def test_results_of_older_versions_are_normalised_on_reading(tmp_path):
    run_of(tmp_path / "run", [("Turn LEFT, here!", "turn right here")])
    file = tmp_path / "run" / RESULTS
    new = ("normalized_reference", "normalized_prediction", "reference_words")
    lines = [{k: v for k, v in json.loads(line).items() if k not in new} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = open_run(str(tmp_path / "run"))
    assert table(errors(run), "substitutions")[0]["rate"] == 1.0
    assert run.results[0].reference_words == 3


# ---- history


def test_history_follows_the_checkpoints_of_a_run(stored, capsys):
    for step, wrong, day in ((1000, 1, 5), (500, 4, 6), (1500, 2, 4), (1500, 6, 3)):
        said = " ".join(["wrong"] * wrong + TEN.split()[wrong:])
        clips = clips_of([(TEN, said), RIGHT])
        date = f"2026-11-0{day}T00:00:00+00:00"
        write_run(Path(f"outputs/eval/{step}-{day}"), clips, f"runs/x/checkpoint-{step}", date=date)
    (stored / "runs/x").mkdir(parents=True)
    assert ta(["analysis", "history", "runs/x", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["tables"]["digits test, basic"]
    assert [(row["step"], row["wer"]) for row in rows] == [(500, 0.2), (1000, 0.05), (1500, 0.1), (None, 0.0)]
    assert rows[-1]["model"] == "runs/x/best" and rows[0]["wer_interval"][0] <= 0.2 <= rows[0]["wer_interval"][1]
    assert "the lowest WER is 0.00%, of runs/x/best; after the last step it is 10.00%" in found["findings"][0]
    assert ta(["analysis", "history", "my", "my_model_v2"]) == 0
    assert "letters test, basic" in capsys.readouterr().out
    (stored / "runs/y").mkdir()
    assert ta(["analysis", "history", "runs/y"]) == 1
    assert "No evaluation of a model in runs/y" in capsys.readouterr().err


# ---- output


def test_csv_holds_all_tables_under_one_header(tmp_path):
    texts = [("a b", "a | \x1b[31m"), ("c", 'say "no", now')]
    report = high_wer(run_of(tmp_path / "run", texts, normalizer="none"), 0)
    for suffix in ("json", "csv", "txt", "md"):
        write(report, tmp_path / "made" / f"report.{suffix}")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "made/report.csv").read_text())))
    assert [row["table"] for row in rows] == ["worst", "worst"] and rows[0]["raw_prediction"] == 'say "no", now'
    assert "\x1b" not in (tmp_path / "made/report.txt").read_text() + (tmp_path / "made/report.md").read_text()
    assert "\\|" in (tmp_path / "made/report.md").read_text()
    assert (
        json.loads((tmp_path / "made/report.json").read_text())["tables"]["worst"][1]["raw_prediction"]
        == "a | \x1b[31m"
    )


def test_half_a_surrogate_pair_is_written_as_json_does(tmp_path, capsys):
    write_run(tmp_path / "run", clips_of([("a", "b \ud800")]))
    for form in ("json", "csv", "txt", "md"):
        assert ta(["analysis", "high-wer", str(tmp_path / "run"), "-o", str(tmp_path / f"report.{form}")]) == 0
    capsys.readouterr()
    assert ta(["analysis", "high-wer", str(tmp_path / "run"), "--json"]) == 0
    capsys.readouterr().out.encode()
    assert json.loads((tmp_path / "report.json").read_text())["tables"]["worst"][0]["raw_prediction"] == "b \ud800"


def test_people_see_ten_rows_and_programs_all(tmp_path, capsys):
    write_run(tmp_path / "run", clips_of([("a", "b")] * 25))
    command = ["analysis", "high-wer", str(tmp_path / "run")]
    counts = []
    for more in ([], ["-n", "3"], ["--json"], ["--json", "-n", "3"], ["--csv"]):
        assert ta([*command, *more]) == 0
        counts.append(capsys.readouterr().out.count("clip-0"))
    assert counts == [10, 3, 25, 3, 25]


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        (["errors", "run", "--json", "--csv"], 2, "stdout takes one"),
        (["errors", "run", "-o", "report.pdf"], 1, "expected .json, .csv, .txt, .md at its end"),
        (["compare", "run"], 2, "give two runs or more"),
    ],
)
def test_wrong_usage(arguments, code, shown, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", clips_of([RIGHT]))
    assert ta(["analysis", *arguments]) == code
    assert shown in capsys.readouterr().err


# ---- real results of nano


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A working folder in which nano was measured on 20 clips of quickstart, twice: greedily, and cut short."""
    folder = tmp_path_factory.mktemp("measured")
    settings = EvalSettings(model="nano", dataset="quickstart", max_samples=20, device="cpu")
    for name, changes in (("whole", {}), ("short", {"max_new_tokens": 4})):
        evaluate(EvalSettings(**{**vars(settings), **changes, "output_dir": folder / "outputs/eval" / name}))
    return folder


COMMANDS = [
    ["high-wer", "short", "--threshold", "10"], ["compare", "whole", "short"], ["errors", "short"], ["entities", "nano"],
    ["slices", "whole"], ["slices", "whole", "--by", "speaker", "--by", "rate"], ["hallucinations", "nano"],
    ["history", "nano"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_on_real_results(command, measured, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(measured)
    assert ta(["analysis", *command]) == 0
    shown = capsys.readouterr().out
    for form, suffix in product((["--json"], ["--csv"]), ("json", "csv", "txt", "md")):
        file = tmp_path / f"report.{suffix}"
        assert ta(["analysis", *command, *form, "-o", str(file)]) == 0
        printed = capsys.readouterr().out
        if form == [f"--{suffix}"]:
            assert file.read_text() == printed
    found = json.loads((tmp_path / "report.json").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text())))
    assert found["analysis"] == command[0] and found["findings"]
    assert len(rows) == sum(map(len, found["tables"].values())) > 0
    assert all(None not in row and None not in row.values() for row in rows)
    assert all(sentence in shown for sentence in found["findings"])
    assert (tmp_path / "report.txt").read_text() == shown
    assert not list(tmp_path.glob(".*"))


def test_a_nano_that_may_write_four_tokens_is_worse(measured, monkeypatch):
    monkeypatch.chdir(measured)
    report = compare(open_runs(["whole", "short"]))
    assert report.findings[0].startswith("whole is better than short, by ")
    assert len(table(report, "worse")) > 10


def test_no_command_loads_a_model_library(measured):
    """Each in one process after the other: what they read is results folders and nothing else."""
    code = (
        "import os, sys; from tiny_audio.cli.main import run; "
        f"os.chdir({str(measured)!r}); "
        f"assert not any(run(['analysis', *c]) for c in {COMMANDS!r}); "
        "print(*({'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'av', 'scipy'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == ""
