"""Configuration: every YAML composes, wrong keys and values are one-line errors, aliases and overrides act."""

import subprocess
import sys
from dataclasses import fields

import pytest
from omegaconf import OmegaConf

from tiny_audio.errors import TinyAudioError
from tiny_audio.training.config import compose, config_folders, members
from tiny_audio.training.schema import OPTION_GROUPS, SECTIONS, Settings, to_settings, to_tree

FOLDERS = config_folders()
GROUPS = [(group, name) for group in SECTIONS for name in members(group, FOLDERS)]


@pytest.mark.parametrize("experiment", members("experiments", FOLDERS))
def test_every_experiment_composes(experiment):
    needed = ["model.pretrained=STAGE"] if experiment in ("mlp_lora", "mlp_fine_tune") else []
    settings = compose(experiment, needed)
    assert settings.experiment == experiment
    assert to_settings(to_tree(settings)) == settings


@pytest.mark.parametrize(("group", "name"), GROUPS, ids=lambda value: str(value))
def test_every_group_member_composes(group, name):
    overrides = [f"{group}={name}"] + (["data.path=somewhere"] if name == "custom" else [])
    written = OmegaConf.to_container(OmegaConf.load(FOLDERS[0] / group / f"{name}.yaml"))
    assert_holds(to_tree(compose(overrides=overrides))[group], written)


def assert_holds(tree, written):
    for key, value in written.items():
        if isinstance(value, dict):
            assert_holds(tree[key], value)
        elif key != "defaults" and value != "???" and "${" not in str(value):
            assert tree[key] == value or float(tree[key]) == float(value)


@pytest.mark.parametrize("file", sorted(FOLDERS[0].rglob("*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_yaml_starts_with_the_command_that_uses_it(file):
    lines = [line for line in file.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ta train")
    words = lines[0].removeprefix("# ta train").split()
    if "PATH" not in words and "--dry-run" not in words:
        experiment = words.pop(1) if words[0] == "--experiment" else None
        compose(experiment, [word for word in words if word != "--experiment"])


def test_every_field_has_a_sentence():
    for schema in (Settings, *OPTION_GROUPS.values()):
        for item in fields(schema):
            assert item.metadata.get("help"), f"{schema.__name__}.{item.name}"


def test_quickstart_is_the_default():
    assert compose() == compose("quickstart")
    assert compose().data.path == "quickstart"


def test_plus_experiments_means_the_same_as_the_option():
    assert compose(overrides=["+experiments=transcription"]) == compose("transcription")


def test_an_override_beats_the_experiment():
    settings = compose("transcription", ["data=librispeech", "training.learning_rate=3e-4", "model=nano"])
    assert settings.data.path == "openslr/librispeech_asr"
    assert settings.training.learning_rate == pytest.approx(3e-4)
    assert settings.model.audio_model_id.endswith("nano/encoder")


@pytest.mark.parametrize(
    ("override", "section", "field", "value"),
    [
        ("model.audio_downsample_rate=5", "model", "projector_pool_stride", 5),
        ("data.dataset_name=owner/name", "data", "path", "owner/name"),
        ("data.dataset_split=train.clean", "data", "train_split", "train.clean"),
        ("data.dataset_config=small", "data", "config", "small"),
        ("training.batch_size=4", "training", "batch_size", 4),
        ("++training.max_steps=7", "training", "max_steps", 7),
    ],
)
def test_older_names_and_forms(override, section, field, value):
    assert getattr(getattr(compose(overrides=[override]), section), field) == value


def test_data_by_name_or_by_path():
    assert compose(data="librispeech").data.config == "clean"
    odd = "../some folder/it's [mine]"
    assert compose("transcription", data=odd).data.path == odd
    assert compose("transcription", data=odd).data.text_column == "text"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.learnin_rate=3"], "Unknown key training.learnin_rate; did you mean training.learning_rate?"),
        (["data.dataset_pat=x"], "did you mean data.path?"),
        (["max_steps=3"], "Unknown key max_steps; did you mean training.max_steps?"),
        (["training.zzz=3"], "Unknown key training.zzz; expected one of: max_steps,"),
        (["training.max_steps=many"], "training.max_steps is 'many' (str); expected a value of type int or null."),
        (["training.max_steps=1.5"], "training.max_steps is 1.5 (float)"),
        (["training.learning_rate=[1]"], "training.learning_rate is [1] (list); expected a value of type float."),
        (["training.dtype=bf"], "training.dtype is 'bf'; expected one of: fp32, bf16, fp16. Did you mean bf16?"),
        (["training.distillation_weight=2"], "training.distillation_weight is 2.0; expected 0 to 1."),
        (["training.distillation_temperature=0"], "training.distillation_temperature is 0.0; expected more than 0."),
        (["training.prompt_variety=Listen"], "expected a value of type list[str] or null."),
        (["training.prompt_variety=['']"], "training.prompt_variety holds ''; expected words"),
        (["training.batch_seconds=0"], "training.batch_seconds is 0.0; expected more than 0."),
        (["training.max_steps=null"], "Neither training.max_steps nor training.num_epochs is set"),
        (["model.freeze_projector=true"], "nothing would be trained"),
        (["model=larg"], "Unknown model configuration 'larg'; known: glm_asr_qwen3_0.6b,"),
        (["training=quick"], "known: default, gpu."),
        (["data=custom"], "data.path is not set"),
        (["training.max_steps"], "expected KEY=VALUE"),
        (["training.max_steps=[1"], "The configuration cannot be composed"),
        (["training.max_steps=${nowhere}"], "The configuration cannot be composed"),
    ],
)
def test_mistakes_are_one_line(overrides, message):
    with pytest.raises(TinyAudioError) as caught:
        compose(overrides=overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_experiment_lists_the_known():
    with pytest.raises(
        TinyAudioError, match=r"Unknown experiment 'transcriptio'; known: .*quickstart, .*transcription"
    ):
        compose("transcriptio")


def test_a_folder_of_the_users_own(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "experiments").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("dataset_name: me/speech\naudio_column: sound\n")
    (tmp_path / "experiments" / "fast.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /data: mine\n  - _self_\ntraining:\n  max_steps: 3\n"
    )
    settings = compose("fast", config_dir=tmp_path)
    assert (settings.data.path, settings.data.audio_column, settings.training.max_steps) == ("me/speech", "sound", 3)
    assert compose(config_dir=tmp_path, data="mine").data.path == "me/speech"
    assert compose("fast", ["data.path=other"], config_dir=tmp_path).data.path == "other"
    with pytest.raises(TinyAudioError, match="is no folder"):
        compose(config_dir=tmp_path / "nothing")


def test_the_command_line_prints_one_line():
    command = [sys.executable, "-m", "tiny_audio.cli.main", "train", "--experiment", "transcriptoin"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    known = ", ".join(members("experiments", FOLDERS))
    expected = f"Error: Unknown experiment 'transcriptoin'; known: {known}. Did you mean transcription?"
    assert done.stderr.splitlines() == [expected]


@pytest.mark.parametrize(
    "name", ["learning_rate", "weight_decay", "distillation_temperature", "ctc_loss_weight", "batch_seconds"]
)
def test_nan_and_infinity_are_no_settings(name):
    for value in ("nan", "inf"):
        with pytest.raises(TinyAudioError, match=f"training.{name} is (nan|inf); expected"):
            compose(overrides=[f"training.{name}={value}"])


HEAD_ALONE = ("model.pretrained=nano", "model.ctc_head=true", "model.freeze_projector=true")


@pytest.mark.parametrize("option", ["distillation_weight=0.5", "label_smoothing=0.1", "audio_token_dropout=0.1"])
def test_what_a_ctc_head_alone_cannot_use_is_refused(option):
    with pytest.raises(TinyAudioError, match="has no effect where the CTC head alone is trained"):
        compose(overrides=[*HEAD_ALONE, f"training.{option}"])
    compose(overrides=HEAD_ALONE)


def test_a_ctc_head_without_a_loss_is_refused():
    with pytest.raises(TinyAudioError, match="ctc_loss_weight is 0"):
        compose(overrides=["model.ctc_head=true", "training.ctc_loss_weight=0"])
