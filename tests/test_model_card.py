"""The model's card: its figures are the measured ones, its code runs, and what the user wrote in it stays."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_audio import ASRModel
from tiny_audio.assets import embedded
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.card import _write_folder, push_results
from tiny_audio.evaluation.results import Metrics
from tiny_audio.evaluation.run import evaluate
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.hub.card import card_text
from tiny_audio.hub.card.reproduce import overrides
from tiny_audio.hub.card.sections import SECTIONS
from tiny_audio.hub.marks import has_marks, marked, refreshed
from tiny_audio.training import compose, train
from tiny_audio.training.config import config_folders, members
from tiny_audio.training.record import Record

pytestmark = pytest.mark.usefixtures("one_thread")
REPOSITORY = "me/my-model"


@pytest.fixture(scope="module")
def home(settings_of, tmp_path_factory) -> Path:
    """A working folder with a run in two stages, `one` and `two`, and an evaluation of the second."""
    folder = tmp_path_factory.mktemp("card")
    train(settings_of(folder / "one"))
    lora = (f"model.pretrained={folder}/one/best", "model.use_lora=true", "model.freeze_projector=true")
    train(settings_of(folder / "two", *lora, "training.seed=7"))
    measure(folder / "two" / "best", folder / "outputs/eval/two")
    return folder


def measure(checkpoint: Path, folder: Path, clips: int = 3) -> Metrics:
    options = {"dataset": "quickstart", "max_samples": clips, "device": "cpu", "max_new_tokens": 4}
    return evaluate(EvalSettings(model=str(checkpoint), output_dir=folder, **options))


@pytest.fixture(scope="module")
def alone(home) -> Path:
    """A checkpoint without its run, of which little is known."""
    return shutil.copytree(home / "one" / "best", home / "alone")


@pytest.fixture
def best(home, monkeypatch) -> Path:
    """The checkpoint, from where its evaluations are found."""
    monkeypatch.chdir(home)
    return home / "two" / "best"


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def section(card: str, name: str) -> str:
    found = re.search(rf"<!-- tiny-audio: {name} -->\n(.*?)<!-- end of tiny-audio: {name} -->", card, re.DOTALL)
    assert found, name
    return found[1]


def cells(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


# ---- what it says


def test_its_figures_are_the_measured_ones(best, home):
    card, record = card_text(best, REPOSITORY, None), Record.read(home / "two")
    rows = {row[0]: row for row in cells(section(card, "architecture"))}
    for part, size in record.parameters.items():
        assert rows[part.replace("_", " ")][2:] == [f"{size['total']:,}", f"{size['trained']:,}"]
    metrics = Metrics.read(home / "outputs/eval/two")
    (row,) = [row for row in cells(section(card, "evaluation")) if row[0] == "quickstart"]
    low, high = metrics.wer_interval
    assert row[3:7] == [
        "3 drawn",
        f"{100 * metrics.wer:.2f}",
        f"{100 * low:.2f}–{100 * high:.2f}",
        f"{100 * metrics.cer:.2f}",
    ]
    training = section(card, "training")
    assert [row[:4] for row in cells(training)[2:4]] == [
        ["one", "pretrained parts", "projector (5,184)", "3"],
        ["two", "one", f"language model ({record.parameters['language_model']['trained']:,})", "3"],
    ]
    resources = {row[0]: row[1] for row in cells(training) if len(row) == 2}
    assert resources["steps"] == "6" and "in 2 sittings" in resources["time"] and resources["seed"] == "7"
    assert "not estimated" in resources["cost, CO₂"]
    assert record.sessions[0].versions["torch"] in section(card, "versions")


def test_its_metadata_are_what_the_hub_reads(best, home):
    found, metrics = metadata(card_text(best, REPOSITORY, None)), Metrics.read(home / "outputs/eval/two")
    assert (found["pipeline_tag"], found["library_name"]) == ("automatic-speech-recognition", "transformers")
    assert found["language"] == ["en"] and "license" not in found and "datasets" not in found
    (result,) = found["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == round(100 * metrics.wer, 2) and result["dataset"]["split"] == "test"


def test_names_of_the_hub_are_linked_and_told(best, home, tmp_path):
    """A published model's config, and a run on a dataset of the Hub."""
    shutil.copytree(home / "one", tmp_path / "run")
    for file in (tmp_path / "run/best/config.json", tmp_path / "run/settings.yaml", tmp_path / "run/run.json"):
        text = re.sub(r'"(audio_model_id": )"[^"]*"', r'"\1"facebook/hubert-large-ls960-ft"', file.read_text())
        file.write_text(
            text.replace('"path": "quickstart"', '"path": "a/b"').replace('"on_hub": false', '"on_hub": true')
        )
    card = card_text(tmp_path / "run/best", REPOSITORY, None)
    found = metadata(card)
    assert found["base_model"] == ["facebook/hubert-large-ls960-ft"] and found["base_model_relation"] == "finetune"
    assert found["datasets"] == ["a/b"] and "[a/b](https://huggingface.co/datasets/a/b)" in card


def test_gpu_hours_are_priced(home, tmp_path):
    """Two sessions of half an hour on two H200: 2 GPU hours at $3.59 and 700 W."""
    run = shutil.copytree(home / "one", tmp_path / "run")
    stored = json.loads((run / "run.json").read_text())
    (session,) = stored["sessions"]
    session |= {
        "processes": 2, "seconds": 1800, "hardware": {"device": "cuda:0", "gpu": "NVIDIA H200"},
        "gpu": {"name": "H200", "dollars": 3.59, "watts": 700},
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps({**stored, "sessions": [session, session]}))
    rows = dict(row for row in cells(section(card_text(run / "best", REPOSITORY, None), "training")) if len(row) == 2)
    assert (
        rows["hardware"] == "2 × NVIDIA H200" and rows["GPU hours"] == "2.00" and rows["time"].startswith("1 h 00 min")
    )
    assert rows["cost"].startswith("$7.18 (prices of ") and rows["energy"].startswith("1.40 kWh")
    assert rows["CO₂"].startswith("about 0.70 kg at 0.5 kg a kWh (an assumption")


def test_a_stage_before_that_is_gone_is_named(best, home, tmp_path):
    run = shutil.copytree(home / "two", tmp_path / "run")
    settings = run / "settings.yaml"
    settings.write_text(settings.read_text().replace(f"{home}/one/best", "/gone/first/best"))
    training = section(card_text(run / "best", REPOSITORY, None), "training")
    assert [row[:2] for row in cells(training)[2:3]] == [["run", "first"]] and "/gone" not in training
    settings.write_text(settings.read_text().replace("/gone/first/best", "a/b@v1"))
    card = card_text(run / "best", REPOSITORY, None)
    assert "[a/b@v1](https://huggingface.co/a/b)" in card and metadata(card)["base_model"] == ["a/b"]


def test_what_nobody_knows_is_asked_and_not_invented(alone):
    card = card_text(alone, REPOSITORY, None)
    asked = section(card, "open-questions")
    assert [word in asked for word in ("**Licence**", "**Language**", "**Training**", "**Evaluation**")] == [True] * 4
    assert section(card, "training").strip() == section(card, "evaluation").strip() == ""
    assert "has not been measured" in section(card, "limitations") and "language" not in metadata(card)
    answered = card_text(alone, REPOSITORY, card.replace("---\n", "---\nlicense: mit\nlanguage: de\n", 1))
    assert "**Licence**" not in answered and "**Language**" not in answered and "**Training**" in answered


def test_no_path_of_this_machine_is_told(best, home):
    card = card_text(best, REPOSITORY, None)
    assert str(home) not in card and str(Path.home()) not in card and str(Path(sys.prefix)) not in card


def test_an_evaluation_of_other_weights_is_left_out(best, home, tmp_path, monkeypatch, capsys):
    shutil.copytree(home, tmp_path / "home", symlinks=True)  # with the same dates
    monkeypatch.chdir(tmp_path / "home")
    copy = Path("two/best")
    measure(copy, Path("outputs/eval/two-here"))
    assert "3 drawn" in card_text(copy, REPOSITORY, None)
    ASRModel.from_pretrained(copy).save_pretrained(copy)
    assert "has not been measured" in card_text(copy, REPOSITORY, None)
    assert "before it was trained anew" in capsys.readouterr().err


def test_slices_that_are_surely_worse_are_limitations(tmp_path, nano, monkeypatch):
    from analysis_helpers import clips_of, write_run

    monkeypatch.chdir(tmp_path)
    ten = "one two three four five six seven eight nine ten"
    texts = [(ten, ten)] * 30 + [(ten, ten[:10])] * 15 + [("", "hello there")] + [(ten, None)]
    columns = {
        "metadata": [{"speaker": f"Jane {number // 15}"} for number in range(47)],
        "duration": [9.0 if 30 <= number < 45 else 1 + number / 100 for number in range(47)],
    }
    write_run(Path("outputs/eval/a"), clips_of(texts, **columns), str(nano))
    said = section(card_text(nano, REPOSITORY, None), "limitations")
    assert "Jane" not in said and re.search(
        r"Worse than the \d+\.\d+% of digits \(basic\): duration .*9, \d+\.\d+% on", said
    )
    assert "1 clip of 47 failed" in said and "On 1 clip of digits without speech it wrote 2 words" in said


# ---- what it shows runs


RUN_THE_BLOCKS = """
import re, sys
card = open("README.md", encoding="utf-8").read()
blocks = re.findall(r"```python\\n(.*?)```", card, re.DOTALL)
sys.modules["tiny_audio"] = None  # as on the machine of a reader
for block in sorted(blocks, key=lambda block: "tiny_audio" in block):
    if "tiny_audio" in block:
        del sys.modules["tiny_audio"]
    exec(block, {})
print(len(blocks))
"""


def test_each_block_of_python_runs(tmp_path):
    """On the folder in place of the repository; word times among them, since nano has a CTC head."""
    model = tmp_path / "nano"
    ASRModel.from_pretrained(embedded("nano")).save_pretrained(model, self_contained=True)
    (tmp_path / "README.md").write_text(card_text(model, REPOSITORY, None).replace(REPOSITORY, str(model)))
    for name in ("speech", "one", "two"):
        shutil.copy(embedded("clips") / "send-a-message-to-jack.ogg", tmp_path / f"{name}.wav")
    command = [sys.executable, "-c", RUN_THE_BLOCKS]
    ran = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines().count("send a message to jack") == 6 and ran.stdout.endswith("\n5\n")
    assert re.search(r"\(\d+\.\d+, \d+\.\d+\) message", ran.stdout)


def test_the_commands_parse(best):
    from docs_commands import leftover

    from tiny_audio.cli.main import load_command

    blocks = re.findall(r"```bash\n(.*?)```", card_text(best, REPOSITORY, None), re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [line[:2] for line in lines] == [["ta", "transcribe"], ["ta", "train"], ["ta", "train"], ["ta", "eval"]]
    assert all(not leftover(load_command(line[1]), line[1], line[2:]) for line in lines)


SETTINGS = [
    ("quickstart", []), ("transcription", ["data=multiasr", "training.max_steps=9"]), ("course", ["model.quantization=4bit"]),
    ("mlp_lora", ["model.pretrained=a/b", 'training.prompt_variety=["Say it\'s","it, now: \\"yes\\""]', "model.system_prompt='null'"]),
    ("quickstart", ["data=commonvoice", "data.config=de", "training.augment.gain_probability=0.5", "training.learning_rate=1e-5"]),
]  # fmt: skip


@pytest.mark.parametrize(("experiment", "changes"), SETTINGS, ids=str)
def test_the_command_makes_the_same_settings(experiment, changes):
    wanted = compose(experiment, changes)
    assert compose(*overrides(wanted)) == wanted


def test_settings_of_an_experiment_of_ones_own_are_told_in_full():
    wanted = compose("hubert_smollm3")
    wanted.experiment = "mine"
    experiment, values = overrides(wanted)
    assert experiment == "quickstart" and "mine" not in members("experiments", config_folders())
    assert compose(experiment, values).model == wanted.model


# ---- pushed again


def test_the_second_push_is_the_same_text(best):
    card = card_text(best, REPOSITORY, None)
    assert card_text(best, REPOSITORY, card) == card == card_text(best.parent, REPOSITORY, None)  # a run means its best
    windows = card.replace("\n", "\r\n")
    assert card_text(best, REPOSITORY, windows) == windows


def test_edits_stay_and_what_is_ours_is_new(best, home):
    first = card_text(home / "one/best", REPOSITORY, None)
    edited = first.replace("# my-model\n", "# A model of mine\n\nWritten by me.\n")
    edited = edited.replace("<!-- tiny-audio: evaluation -->", "Between, by me.\n\n<!-- tiny-audio: evaluation -->")
    edited = re.sub(
        r"<!-- tiny-audio: citation -->.*?<!-- end of tiny-audio: citation -->\n", "", edited, flags=re.DOTALL
    )
    edited = edited.replace("## Usage", "## My usage") + "\nAt the end, by me.\n"
    card = card_text(best, REPOSITORY, edited)
    for mine in ("# A model of mine\n\nWritten by me.\n", "\nBetween, by me.\n", "\nAt the end, by me.\n"):
        assert mine in card
    assert "citation" not in card and "## My usage" not in card and "## Usage" in card
    assert "3 drawn" in section(card, "evaluation") and not section(first, "evaluation").strip()
    assert card_text(best, REPOSITORY, card) == card


def test_metadata_of_the_user_stay(best, home):
    first = card_text(home / "one/best", REPOSITORY, None)
    front = first.split("---\n")[1]
    mine = metadata(first) | {"license": "mit", "tags": ["mine"], "extra": {"a": 1}}
    del mine["pipeline_tag"]
    other = {"task": {"type": "automatic-speech-recognition"}, "dataset": {"name": "Other", "type": "o/o"}}
    mine["model-index"] = [{"name": "x", "results": [{**other, "metrics": [{"type": "wer", "value": 9.5}]}]}]
    found = card_text(best, REPOSITORY, first.replace(front, yaml.safe_dump(mine, sort_keys=False)))
    kept = metadata(found)
    assert (kept["license"], kept["tags"], kept["extra"]) == ("mit", ["mine"], {"a": 1})
    assert "pipeline_tag" not in kept and kept["library_name"] == "transformers"
    assert [result["dataset"]["name"] for result in kept["model-index"][0]["results"]] == ["Other", "quickstart"]
    assert "**Figures** of Other" in section(found, "open-questions")


def test_ours_are_refreshed_and_only_those_we_wrote(alone):
    first = card_text(alone, REPOSITORY, None)
    older = first.replace("library_name: transformers", "library_name: older").replace(
        '"library_name": "transformers"', '"library_name": "older"'
    )
    assert card_text(alone, REPOSITORY, older) == first
    changed = first.replace("library_name: transformers", "library_name: own").replace("wrote {", "wrote {damaged ")
    assert metadata(card_text(alone, REPOSITORY, changed))["library_name"] == "own"


def test_comments_in_the_metadata_stay_where_nothing_is_new(alone):
    card = card_text(alone, REPOSITORY, None).replace("---\n", "---\nlicense: mit # as the data\n", 1)
    again = card_text(alone, REPOSITORY, card)
    assert "license: mit # as the data\n" in again and card_text(alone, REPOSITORY, again) == again


def test_a_card_that_we_did_not_write_keeps_its_text(best):
    card = card_text(best, REPOSITORY, "---\nlicense: mit\n---\n# Mine\n\nAll by me, no end of line")
    assert "# Mine\n\nAll by me, no end of line\n" in card and not has_marks(card)
    assert metadata(card)["license"] == "mit" and metadata(card)["model-index"]
    asked = f"# Mine\n\nBy me.\n\n{marked('training', '')}"
    card = card_text(best, REPOSITORY, asked)
    assert "## Training" in card and "## Usage" not in card and "By me." in card


@pytest.mark.parametrize(
    "bare", ["", "# my-model\n", "---\nlicense: mit\n---\n", "---\nlicense: mit\n---\n\n# My title\n"]
)
def test_a_card_that_says_nothing_yet_gets_all(alone, bare):
    card = card_text(alone, REPOSITORY, bare)
    assert all(f"<!-- tiny-audio: {name} -->" in card for name in SECTIONS)
    assert ("license: mit" in card) == ("mit" in bare) and ("# My title" in card) == ("My title" in bare)


@pytest.mark.parametrize("start", ["\ufeff---\n", "--- \n", "\ufeff--- \r\n"], ids=ascii)
def test_metadata_that_the_hub_would_not_see_are_kept(alone, start):
    card = card_text(alone, REPOSITORY, f"{start}license: mit\n---\n# Mine\n\nBy me.\n")
    assert (
        card.startswith("---") and card.count("license") == 1 and metadata(card.replace("\r", ""))["license"] == "mit"
    )
    assert "By me." in card and "library_name: transformers" in card


@pytest.mark.parametrize("start", ["", "---\n---\n", "---\n\n"], ids=ascii)
def test_a_card_without_metadata_is_no_warning(alone, monkeypatch, start):
    said = []
    monkeypatch.setattr("huggingface_hub.repocard.logger.warning", said.append)
    assert card_text(alone, REPOSITORY, f"{start}# Mine\n\nBy me.\n").startswith("---\n") and not said


def test_a_card_of_push_results_is_bare(best, home, tmp_path):
    copy = shutil.copytree(best, tmp_path / "best")
    push_results(EvalSettings(model=str(copy), dataset="quickstart"), [Metrics.read(home / "outputs/eval/two")])
    card = card_text(copy, REPOSITORY, (copy / "README.md").read_text())
    assert "## Usage" in card and len(metadata(card)["model-index"][0]["results"]) == 1


def test_push_results_into_a_card_that_is_no_text_is_one_line(home, tmp_path):
    (tmp_path / "README.md").write_bytes(b"# caf\xe9\n")
    with pytest.raises(TinyAudioError, match=r"README\.md is no UTF-8 text \(byte 5\)"):
        _write_folder(tmp_path, [Metrics.read(home / "outputs/eval/two")])
    assert (tmp_path / "README.md").read_bytes() == b"# caf\xe9\n"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("---\ntags: [a\n---\n# x\n", r"The metadata of the model's card cannot be read \(.*\); mend its YAML first"),
        ("---\n- a\n---\n# x\n", "metadata block should be a dict"),
        ("---\nmodel-index: [{name: a, results: [{}]}]\n---\n# x\n", "cannot be read"),
        ("# x\n<!-- tiny-audio: usage -->\n", "`<!-- tiny-audio: usage -->` has no end; a section begins with"),
        (
            "# x\n<!-- end of tiny-audio: usage -->\n",
            "stands alone; a section begins with `<!-- tiny-audio: usage -->`",
        ),
        ("<!-- tiny-audio: about -->\n<!-- tiny-audio: usage -->\n<!-- end of tiny-audio: usage -->\n", "alone within"),
    ],
)
def test_a_broken_card_is_one_line(alone, broken, message):
    with pytest.raises(TinyAudioError, match=message) as raised:
        card_text(alone, REPOSITORY, broken)
    assert "\n" not in str(raised.value)


def test_what_is_no_checkpoint_is_one_line(tmp_path):
    with pytest.raises(TinyAudioError, match="holds no config.json; expected a checkpoint"):
        card_text(tmp_path, REPOSITORY, None)
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(TinyAudioError, match="holds a model of another kind"):
        card_text(tmp_path, REPOSITORY, None)


LINES = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=40).filter(
    lambda text: not has_marks(text + "\n")
)


@given(st.lists(LINES, min_size=4, max_size=4), st.lists(st.text("ab \n#|", max_size=9), min_size=6, max_size=6))
@settings(max_examples=40, deadline=None)
def test_no_byte_outside_the_marks_changes(texts, bodies):
    ends = [f"{text}\n" for text in texts]

    def card(own: list[str]) -> str:
        sections = [marked(name, body) for name, body in zip("abc", own, strict=True)]
        return "".join(piece for pair in zip(ends, [*sections, ""], strict=True) for piece in pair)

    before, after = card(bodies[:3]), card(bodies[3:])
    assert refreshed(before, dict(zip("abc", bodies[3:], strict=True))) == after
    assert refreshed(before, {"d": "not there"}) == before
