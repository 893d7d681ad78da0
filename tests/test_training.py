"""Training with a miniature model on real clips: options act, a killed run goes on exactly, checkpoints are whole."""

import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_helpers import BASE, log_of, weights_of

from tiny_audio import ASRModel
from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.training import compose, train
from tiny_audio.training.build import build_model, part_sizes
from tiny_audio.training.checkpoints import checkpoints, find_resume, tidy, truncate_log, write_whole
from tiny_audio.training.initialization import match_embedding_scale
from tiny_audio.training.run import settings_to_resume

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def baseline(settings_of, tmp_path_factory):
    """A run with the base settings: what the others differ from."""
    folder = tmp_path_factory.mktemp("runs") / "baseline"
    return train(settings_of(folder))


def test_a_run_leaves_a_model_a_log_and_a_summary(baseline):
    assert baseline.steps == 3
    losses = log_of(baseline.folder, "loss")
    assert len(losses) == 3 and all(math.isfinite(loss) for loss in losses)
    for key in ("grad_norm", "learning_rate", "audio_seconds_per_s", "padding_ratio"):
        assert len(log_of(baseline.folder, key)) == 3
    assert log_of(baseline.folder, "eval_wer") == [baseline.wer]
    assert log_of(baseline.folder, "eval_clips") == [3]
    assert isinstance(ASRModel.from_pretrained(baseline.model).transcribe(torch.zeros(8000).numpy()), str)
    assert [path.name for path in checkpoints(baseline.folder)] == ["checkpoint-3"]
    assert f"ta eval -m {baseline.model} -d quickstart" in baseline.summary()
    assert "ta transcribe -m" in baseline.summary()


def test_only_the_projector_is_trained_and_saved(baseline):
    assert all(name.startswith("projector.") for name in weights_of(baseline.folder))
    state = torch.load(baseline.folder / "checkpoint-3" / "optimizer.pt", weights_only=True)
    decayed, plain = state["param_groups"]
    assert (len(decayed["params"]), len(plain["params"])) == (2, 2)  # matrices, norms
    assert decayed["weight_decay"] > 0 and plain["weight_decay"] == 0


# ---- every option acts: (overrides, what is looked at in a run); it differs from the baseline

LOGGED = {
    "learning_rate": ["training.learning_rate=1e-4"],
    "lr_scheduler": ["training.lr_scheduler=constant"],
    "warmup_steps": ["training.warmup_steps=0"],
}
AUDIO = {
    "batch_seconds": ["training.batch_seconds=16"],
    "batch_size": ["training.batch_size=1"],
    "gradient_accumulation_steps": ["training.gradient_accumulation_steps=2"],
    "max_train_samples": ["data.max_train_samples=2", "training.batch_seconds=100"],
}
WEIGHTS = {
    "weight_decay": ["training.weight_decay=0.9"],
    "max_grad_norm": ["training.max_grad_norm=1e-9"],
    "seed": ["training.seed=1"],
    "data.seed": ["data.seed=1"],
    "dtype": ["training.dtype=bf16"],
    "label_smoothing": ["training.label_smoothing=0.5"],
    "audio_token_dropout": ["training.audio_token_dropout=0.5"],
    "distillation_weight": ["training.distillation_weight=0.5"],
    "prompt_variety": ["training.prompt_variety=[Write down what is said]"],
    "time_masks": ["training.time_masks=2"],
    "frequency_masks": ["training.frequency_masks=2"],
    "encoder_padding": ["model.encoder_padding=window"],
    "system_prompt": ["model.system_prompt=listen"],
}


@pytest.mark.parametrize("overrides", LOGGED.values(), ids=LOGGED)
def test_options_of_the_schedule_act(overrides, settings_of, baseline, tmp_path):
    train(settings_of(tmp_path, *overrides))
    assert log_of(tmp_path, "learning_rate") != log_of(baseline.folder, "learning_rate")


@pytest.mark.parametrize("overrides", AUDIO.values(), ids=AUDIO)
def test_options_of_the_batches_act(overrides, settings_of, baseline, tmp_path):
    train(settings_of(tmp_path, *overrides))
    assert log_of(tmp_path, "audio_seconds") != log_of(baseline.folder, "audio_seconds")


@pytest.mark.parametrize("overrides", WEIGHTS.values(), ids=WEIGHTS)
def test_options_of_the_optimisation_act(overrides, settings_of, baseline, tmp_path):
    train(settings_of(tmp_path, *overrides))
    ours, theirs = weights_of(tmp_path), weights_of(baseline.folder)
    assert any(not torch.equal(ours[name], theirs[name]) for name in theirs)


def test_workers_change_nothing_but_the_speed(settings_of, baseline, tmp_path):
    train(settings_of(tmp_path, "training.num_workers=1"))
    assert log_of(tmp_path, "loss") == pytest.approx(log_of(baseline.folder, "loss"), abs=1e-5)


def test_accumulation_equals_one_large_batch(settings_of, tmp_path):
    """Weighted by label tokens: two batches of one clip step as one batch of two clips does."""
    sampled = ("data.max_train_samples=2", "training.batch_seconds=100", "training.max_steps=2")
    train(settings_of(tmp_path / "one", *sampled))
    two = ("training.batch_size=1", "training.gradient_accumulation_steps=2")
    train(settings_of(tmp_path / "two", *sampled, *two))
    assert log_of(tmp_path / "two", "loss") == pytest.approx(log_of(tmp_path / "one", "loss"), abs=1e-4)
    assert log_of(tmp_path / "two", "grad_norm") == pytest.approx(log_of(tmp_path / "one", "grad_norm"), rel=1e-3)


def test_intervals_and_limits_act(settings_of, tmp_path):
    result = train(
        settings_of(
            tmp_path, "training.max_steps=null", "training.num_epochs=2", "training.logging_steps=2",
            "training.eval_steps=2", "training.save_steps=1", "training.save_total_limit=3",
            "training.report_to=tensorboard",
        )
    )  # fmt: skip
    assert result.steps > 3 and result.epochs == pytest.approx(2, abs=0.2)
    assert len(log_of(tmp_path, "loss")) == result.steps // 2
    assert len(log_of(tmp_path, "eval_wer")) == math.ceil(result.steps / 2)
    assert len(checkpoints(tmp_path)) == 3
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert result.best_wer == min(log_of(tmp_path, "eval_wer"))


def test_gradient_checkpointing_recomputes_layers_and_changes_no_loss(settings_of, baseline, tmp_path, monkeypatch):
    from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

    calls, forward = [], Qwen3MLP.forward
    monkeypatch.setattr(Qwen3MLP, "forward", lambda self, x: calls.append(torch.is_grad_enabled()) or forward(self, x))
    train(settings_of(tmp_path / "without"))
    plain = sum(calls)
    calls.clear()
    train(settings_of(tmp_path / "with", "training.gradient_checkpointing=true"))
    assert sum(calls) == 2 * plain > 0
    assert log_of(tmp_path / "with", "loss") == pytest.approx(log_of(baseline.folder, "loss"), abs=1e-5)


def test_options_of_the_model_act(settings_of, tiny_checkpoint, tmp_path):
    def built(*overrides: str) -> ASRModel:
        return build_model(settings_of(tmp_path, *overrides).model)

    assert built("model.projector_pool_stride=2").projector.linear_1.in_features == 64
    assert built("model.projector_hidden_dim=48").projector.linear_1.out_features == 48
    assert built("model.model_dtype=bfloat16").encoder.encoder.dtype == torch.bfloat16
    assert built("model.model_dtype=bfloat16").projector.linear_1.weight.dtype == torch.float32
    eager = built("model.attn_implementation=eager")
    assert eager.language_model.config._attn_implementation == "eager"
    tuned = built("model.freeze_language_model=false", "model.freeze_projector=true")
    trained = {size.name: size.trainable for size in part_sizes(tuned)}
    assert trained["language_model"] > 0 and trained["projector"] == trained["encoder"] == 0
    with pytest.raises(ValueError, match="Unknown projector_type 'nope'"):
        built("model.projector_type=nope")
    loaded = built(f"model.pretrained={tiny_checkpoint}")
    stored = load_file(tiny_checkpoint / "model.safetensors")
    assert torch.equal(loaded.projector.linear_1.weight, stored["projector.linear_1.weight"])


def test_self_contained_acts(settings_of, tmp_path):
    train(settings_of(tmp_path, "training.max_steps=1", "model.self_contained=false"))
    assert not (tmp_path / "best" / "encoder").exists()


def test_a_fine_tuned_language_model_is_trained_and_saved(settings_of, tmp_path):
    train(settings_of(tmp_path, "model.freeze_language_model=false", "model.freeze_projector=true"))
    model = build_model(settings_of(tmp_path).model)
    match_embedding_scale(model)
    before = model.state_dict()
    changed = {name for name, tensor in weights_of(tmp_path).items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("language_model.") for name in changed)
    assert not any(name.startswith("projector.norm") for name in changed)


def test_the_language_model_may_have_a_learning_rate_of_its_own(settings_of, tmp_path):
    both = ("model.freeze_language_model=false", "training.weight_decay=0", "training.warmup_steps=0")
    train(settings_of(tmp_path / "slow", *both, "training.language_model_learning_rate=0"))
    train(settings_of(tmp_path / "same", *both))
    slow, same = (weights_of(tmp_path / name) for name in ("slow", "same"))
    moved = {name.split(".")[0] for name in same if not torch.equal(slow[name], same[name])}
    assert "language_model" in moved
    state = torch.load(tmp_path / "slow" / "checkpoint-3" / "optimizer.pt", weights_only=True)
    assert sorted({group["initial_lr"] for group in state["param_groups"]}) == [0, compose().training.learning_rate]
    over = ("training.max_steps=4", "training.language_model_learning_rate=1e-4", "training.lr_scheduler=constant")
    train(settings_of(tmp_path / "slow", *both, *over), resume="auto")
    state = torch.load(tmp_path / "slow" / "checkpoint-4" / "optimizer.pt", weights_only=True)
    assert sorted({group["lr"] for group in state["param_groups"]}) == [1e-4, compose().training.learning_rate]


def test_overfits_ten_clips_with_the_language_model(settings_of, tmp_path):
    """The pieces fit together: what is trained is what is decoded, for the very clips of the training."""
    settings = settings_of(
        tmp_path, "model.freeze_language_model=false", "data.max_train_samples=10", "data.max_eval_samples=10",
        "data.eval_split=train", "training.batch_seconds=100", "training.max_steps=120", "training.learning_rate=1e-2",
        "training.logging_steps=20", "training.warmup_steps=10",
    )  # fmt: skip
    result = train(settings)
    assert result.loss < 0.05
    assert result.wer == 0


# ---- resuming


@pytest.mark.parametrize("text", [b"\x89PNG", b"- a list", b"model: [", b"model: {}"])
def test_damaged_settings_of_a_run_are_one_line(settings_of, tmp_path, text):
    train(settings_of(tmp_path, "training.max_steps=1"))
    (tmp_path / "settings.yaml").write_bytes(text)
    with pytest.raises(TinyAudioError, match="settings.yaml is damaged; expected"):
        settings_to_resume(str(tmp_path))


def test_a_run_that_is_told_to_end_saves_first(settings_of, parts, tmp_path):
    steps = ("training.max_steps=200", "training.save_steps=null", "training.logging_steps=1")
    folder = tmp_path / "told"
    command = [sys.executable, "-m", "tiny_audio.cli.main", "train", *parts, *BASE, *steps, "--output-dir", folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not ((folder / "log.jsonl").exists() and log_of(folder, "loss")[4:]) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    (checkpoint,) = checkpoints(folder)
    step = int(checkpoint.name.split("-")[1])
    assert process.returncode == 1 and 5 <= step < 200
    assert f"Error: Ended by SIGTERM after step {step}. {checkpoint.name} is whole" in said
    over = ("training.max_steps=200", "training.save_steps=null", f"training.max_steps={step + 2}")
    train(settings_of(folder, *over, "training.logging_steps=1"), resume="auto")
    assert len(log_of(folder, "loss")) == step + 2


def test_resume_names_what_does_not_fit(settings_of, baseline, tmp_path):
    folder = baseline.folder
    with pytest.raises(TinyAudioError, match="already holds a run; go on with it by --resume"):
        train(settings_of(folder))
    with pytest.raises(TinyAudioError, match="training.batch_seconds was 8.0, is 9.0"):
        train(settings_of(folder, "training.batch_seconds=9"), resume=str(folder))
    with pytest.raises(TinyAudioError, match="is finished: 3 of 3 steps; raise training.max_steps"):
        train(settings_of(folder), resume="auto")
    with pytest.raises(TinyAudioError, match="Nothing to resume in"):
        train(settings_of(tmp_path / "nowhere"), resume="auto")
    with pytest.raises(TinyAudioError, match="holds no checkpoint"):
        train(settings_of(tmp_path), resume=str(tmp_path))


def test_a_resumed_run_follows_the_settings_of_now(settings_of, baseline, tmp_path, capsys):
    shutil.copytree(baseline.folder, tmp_path / "run")
    over = ("training.max_steps=6", "training.learning_rate=1e-5", "training.lr_scheduler=constant")
    train(settings_of(tmp_path / "run", *over, "training.eval_steps=1", "training.weight_decay=0.5"), resume="auto")
    assert "Going on with other settings: training.max_steps was 3, is 6" in capsys.readouterr().err
    assert log_of(tmp_path / "run", "learning_rate")[3:] == [1e-5] * 3
    assert len(log_of(tmp_path / "run", "eval_wer")) == 1 + 3
    state = torch.load(tmp_path / "run" / "checkpoint-6" / "optimizer.pt", weights_only=True)
    assert [group["weight_decay"] for group in state["param_groups"]] == [0.5, 0.0]


def test_a_run_goes_on_with_its_own_settings(settings_of, baseline, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "quickstart-20260101-000000"
    shutil.copytree(baseline.folder, folder)
    assert run(["train", "--resume", "auto", "training.max_steps=5", "training.save_steps=1"]) == 0
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-4", "checkpoint-5"]
    assert run(["train", "--resume", str(folder / "checkpoint-4"), "training.max_steps=6"]) == 0
    assert "left-behind-checkpoint-5" in capsys.readouterr().err
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-5", "checkpoint-6"]
    assert run(["train", "--resume", str(folder), "model=nano"]) == 1
    assert "A resumed run has its own settings; leave out 'nano'" in capsys.readouterr().err


def test_the_log_of_a_run_without_a_checkpoint_is_not_kept(settings_of, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 99.0}\n')
    train(settings_of(tmp_path))
    assert len(log_of(tmp_path, "loss")) == 3


def test_resume_auto_takes_the_newest_run_that_has_a_checkpoint(tmp_path):
    for name, step in (("a-20260101-000000", 9), ("a-20260102-000000", 2), ("a-b-20260105-000000", 3)):
        folder = tmp_path / name / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text("{}")
    (tmp_path / "a-20260103-000000").mkdir()
    assert find_resume("auto", "a", None, tmp_path) == tmp_path / "a-20260102-000000" / "checkpoint-2"


def test_an_entry_of_the_log_begins_where_the_last_one_ended_also_after_a_resume(settings_of, tmp_path):
    steps = (
        "training.max_steps=8",
        "training.logging_steps=4",
        "training.save_steps=3",
        "training.save_total_limit=null",
    )
    steps += ("model.projector_type=moe",)  # which has a loss of its own
    train(settings_of(tmp_path / "whole", *steps))
    (tmp_path / "resumed").mkdir()
    for name in ("checkpoint-6", "log.jsonl"):
        (tmp_path / "whole" / name).rename(tmp_path / "resumed" / name)
    losses = {key: log_of(tmp_path / "resumed", key) for key in ("loss", "auxiliary_loss")}
    train(settings_of(tmp_path / "resumed", *steps), resume="auto")
    for key, whole in losses.items():
        assert len(whole) == 2 and log_of(tmp_path / "resumed", key) == pytest.approx(whole, abs=1e-6), key


def test_the_log_is_cut_at_the_resumed_step(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4')
    truncate_log(log, 2)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'


# ---- bad input and bad luck


def test_a_checkpoint_is_whole_or_not_there(tmp_path):
    folder = tmp_path / "checkpoint-2"
    write_whole(folder, lambda path: (path / "trainer_state.json").write_text("first"))

    def breaks(path: Path) -> None:
        (path / "trainer_state.json").write_text("second")
        raise OSError(28, "No space left on device")

    with pytest.raises(TinyAudioError, match=r"No space left on device\); checkpoint-2 is whole"):
        write_whole(folder, breaks)
    assert (folder / "trainer_state.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_what_a_killed_process_leaves_behind_is_cleaned_up(tmp_path):
    for name in (
        ".best.old",
        ".best.unfinished",
        ".checkpoint-2.old",
        "checkpoint-2",
        ".checkpoint-1.deleted",
        ".checkpoint-2.pushing",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / ".best.old" / "config.json").write_text("{}")
    for name in (".settings.yaml.77", ".log.jsonl.77", ".gitignore", "log.jsonl"):
        (tmp_path / name).touch()
    tidy(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"best", "checkpoint-2", ".gitignore", "log.jsonl"}
    assert (tmp_path / "best" / "config.json").is_file()


FULL_DISK = """
import resource, signal, sys
from tiny_audio.training.trainer import SpeechTrainer
write = SpeechTrainer._write_checkpoint
def limited(self, folder, *states):
    if self.state.global_step >= 2:  # from now on no file may grow beyond 20 kB
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    write(self, folder, *states)
SpeechTrainer._write_checkpoint = limited
from tiny_audio.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_full_disk_leaves_the_checkpoint_before(parts, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", FULL_DISK, "train", *parts, *BASE, "training.save_steps=1"]
    done = subprocess.run([*command, "--output-dir", folder], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"Error: Could not write {folder}/checkpoint-2" in done.stderr.splitlines()[-1]
    assert "checkpoint-1 is whole" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-1"]
    assert not list(folder.glob(".*unfinished"))
    ASRModel.from_pretrained(folder / "checkpoint-1")


def make_corpus(folder: Path, tone, rows: list[tuple[str, float, str]]) -> Path:
    """A folder with metadata.csv and one WAV file of `seconds` a row; 0 seconds: a file that is no audio."""
    import wave

    folder.mkdir(parents=True)
    lines = ["file_name,text"]
    for name, seconds, text in rows:
        lines.append(f"{name},{text}")
        if seconds == 0:
            (folder / name).write_text("this is no audio")
            continue
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
            file.writeframes((tone(seconds) * 32_000).astype("<i2").tobytes())
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_unusable_clips_are_skipped_counted_and_listed(settings_of, tone, tmp_path):
    good = [(f"good-{i}.wav", 0.5 + i / 10, "one two") for i in range(6)]
    bad = [("short.wav", 0.05, "one"), ("long.wav", 31, "one"), ("broken.wav", 0, "one"), ("empty.wav", 1, "...")]
    for split in ("train", "validation"):
        make_corpus(tmp_path / "corpus" / split, tone, [*good, *bad])
    sampled = ("data.max_train_samples=null", "data.max_eval_samples=null")
    result = train(settings_of(tmp_path / "run", *sampled, data=str(tmp_path / "corpus")))
    entries = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert {Path(entry["id"]).name for entry in entries} == {"short", "long", "broken", "empty"}
    assert len(result.skipped) == 4 and "4 of 10 clips skipped" in result.summary()
    assert log_of(tmp_path / "run", "eval_clips") == [6]


def test_nothing_usable_is_an_error(settings_of, tone, tmp_path):
    for split in ("train", "validation"):
        make_corpus(tmp_path / "corpus" / split, tone, [("short.wav", 0.05, "one"), ("empty.wav", 1, "")])
    with pytest.raises(TinyAudioError, match="Nothing to train on in .*1 shorter than data.min_seconds"):
        train(settings_of(tmp_path / "run", "data.max_train_samples=null", data=str(tmp_path / "corpus")))


def test_streaming_trains_and_goes_on_exactly(settings_of, tmp_path):
    stream = ("data.streaming=true", "training.max_steps=4", "training.save_steps=2")
    train(settings_of(tmp_path / "whole", *stream))
    (tmp_path / "whole" / "checkpoint-2").rename(tmp_path / "checkpoint-2")
    first = tmp_path / "first"
    first.mkdir()
    (tmp_path / "checkpoint-2").rename(first / "checkpoint-2")
    (first / "log.jsonl").write_bytes((tmp_path / "whole" / "log.jsonl").read_bytes())
    train(settings_of(first, *stream), resume="auto")
    assert log_of(first, "loss") == pytest.approx(log_of(tmp_path / "whole", "loss"), abs=1e-5)
    with pytest.raises(TinyAudioError, match="set training.max_steps and no num_epochs"):
        train(settings_of(tmp_path / "epochs", "data.streaming=true", "training.num_epochs=1"))


def test_a_loss_that_is_no_number_names_its_step(settings_of, tmp_path):
    overrides = ("training.learning_rate=1e38", "training.lr_scheduler=constant", "training.warmup_steps=0")
    with pytest.raises(TinyAudioError, match="The loss is not a finite number at step 2; lower"):
        train(settings_of(tmp_path, *overrides, "training.max_steps=6", "training.logging_steps=3"))


def test_what_is_not_here_is_said_early(settings_of, tmp_path):
    with pytest.raises(TinyAudioError, match="pip install 'tiny-audio\\[wandb\\]'"):
        train(settings_of(tmp_path, "training.report_to=wandb"))
    if not torch.cuda.is_available():
        with pytest.raises(TinyAudioError, match="fp16 needs a CUDA GPU"):
            train(settings_of(tmp_path, "training.dtype=fp16"))
    with pytest.raises(OSError, match="could not be loaded as a language model"):
        train(settings_of(tmp_path, "model.text_model_id=no/such-model"))


UNABLE = {
    "model.projector_type=swigluu": "Unknown projector_type 'swigluu'",
    "model.encoder_layer=99": "encoder_layer is 99",
    "data.eval_split=nope": "has no split `nope`",
    "data.text_column=zz": "has no text column `zz`",
}


@pytest.mark.parametrize("override", UNABLE)
def test_a_dry_run_of_what_could_not_begin_fails(override, capsys):
    assert run(["train", "--dry-run", override]) == 1
    assert UNABLE[override] in capsys.readouterr().err


def test_a_dry_run_shows_all_and_writes_nothing(settings_of, parts, tmp_path, capsys, monkeypatch):
    from tiny_audio.training.plan import show_plan

    monkeypatch.chdir(tmp_path)
    show_plan(settings_of(tmp_path / "run"))
    shown = capsys.readouterr().out
    assert "learning_rate: 0.002" in shown and "projector" in shown and "12 clips" in shown and "3 steps" in shown
    show_plan(compose("transcription"))
    shown = capsys.readouterr().out
    assert "596,049,920" in shown and "Training: speechbrain/LoquaciousSet, streamed" in shown
    show_plan(compose("transcription", ["model.text_model_id=owner/unknown"]))
    assert "configs could not be read (" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_features_are_computed_once_and_are_the_same(tiny_checkpoint, tone):
    from tiny_audio.model.processor import ASRProcessor
    from tiny_audio.training.memory import RememberingProcessor

    processor = ASRProcessor.from_pretrained(tiny_checkpoint)
    clips = [tone(0.4), tone(1.3, 300), tone(0.005)]
    remembering = RememberingProcessor(processor, max_bytes=1 << 20)
    for batch in (clips, clips[::-1]):
        ours, theirs = remembering(batch, text=["one"] * 3), processor(batch, text=["one"] * 3)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(remembering._kept) == 3
    spawned = pickle.loads(pickle.dumps(remembering))  # as a loader's workers get it where they are not forked
    assert spawned.room == 1 << 20 and not spawned._kept and len(spawned.features(clips)) == 2
    assert not RememberingProcessor(processor, max_bytes=10).features(clips[:1])["input_features"].isnan().any()


def test_the_live_bar_fits_a_narrow_terminal(capsys, monkeypatch):
    from tiny_audio.training.progress import training_bar

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with training_bar(30) as bar:
        bar.advance(3, "loss 5.659 · lr 1.4e-03 · grad 0.19 · 186 audio-s/s · WER 100.0 %")
    shown = capsys.readouterr().err
    assert "3/30" in shown and "186 audio-s/s · WER 100.0 %" in shown


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]], ids=["train", "plan"])
@pytest.mark.parametrize("name", ["runs/open/best", "runs/nothere"])
def test_a_stage_upon_what_is_not_there_is_one_line(name, arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["train", f"model.pretrained={name}", *arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert f"The model {name} " in line
