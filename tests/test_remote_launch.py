"""Job files for Slurm and SkyPilot: parsed, and run by bash with stand-ins; what arrives is what was given, and nothing else runs."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_audio.cli.remote_launch import launch
from tiny_audio.errors import TinyAudioError
from tiny_audio.remote.launch import LaunchFile, sky, slurm

NASTY = [
    "x; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    'it\'s "quoted"',
    "two\nlines",
    "-rf",
    "--",
    "*",
    "",
    "é %s \\n",
]
# `ta` keeps what it is called with; srun runs its command once for each machine, as Slurm does; scontrol names two of them.
TOOLS = {
    "ta": 'printf "%s\\0" "$@" > "$KEPT/${SLURM_NODEID-$SKYPILOT_NODE_RANK}"',
    "srun": 'shift; for n in $(seq 0 $((SLURM_NNODES - 1))); do SLURM_NODEID=$n "$@" & done; wait',
    "scontrol": "echo localhost; echo other",
}


def tools(folder: Path, **others: str) -> Path:
    for name, script in {**TOOLS, **others}.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def run_script(script: str, folder: Path, path: Path, check: bool = True, **environment: str) -> str:
    """Runs bash in a folder; returns what it says on stderr."""
    slurm_says = {"SLURM_JOB_ID": "1234", "SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_NODELIST": "n[1-2]"}
    environment = {
        **os.environ,
        "PATH": f"{path}:{os.environ['PATH']}",
        **slurm_says,
        "KEPT": str(folder),
        **environment,
    }
    done = subprocess.run(
        ["bash"], input=script, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stderr


def kept(folder: Path, node: int) -> list[str]:
    return (folder / str(node)).read_bytes().decode().split("\0")[:-1]  # read_text would make \r a \n


def test_slurm_runs_a_task_a_machine(tmp_path):
    script = slurm(LaunchFile(["--experiment", "transcription"], "speech", nodes=2, gpus=8, gpu="a100", hours=1.5))
    directives = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=1", "#SBATCH --gpus-per-node=a100:8"} <= set(directives)
    assert {"#SBATCH --time=90", "#SBATCH --signal=TERM@300", "#SBATCH --requeue"} <= set(directives)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    run_script(script, tmp_path, tools(tmp_path), SLURM_NNODES="2")
    for node in (0, 1):
        launcher = [
            "--num-processes",
            "8",
            "--num-nodes",
            "2",
            "--node-rank",
            str(node),
            "--rendezvous",
            "localhost:29734",
        ]
        assert kept(tmp_path, node) == [
            "train", *launcher, "--output-dir=outputs/speech", "--experiment", "transcription"
        ]  # fmt: skip


def test_a_job_that_begins_again_goes_on_with_its_checkpoint(tmp_path):
    script = slurm(LaunchFile(["-d", "my data"], "speech", output_dir="my runs/one"))
    run_script(script, tmp_path, tools(tmp_path), SLURM_NNODES="1")
    assert kept(tmp_path, 0) == ["train", "--output-dir=my runs/one", "-d", "my data"]
    (tmp_path / "my runs/one/checkpoint-8").mkdir(parents=True)
    run_script(script, tmp_path, tools(tmp_path), SLURM_NNODES="1")
    assert kept(tmp_path, 0) == ["train", "--resume=my runs/one"]


def test_the_environment_of_setup_is_used(tmp_path):
    (tmp_path / ".ta/env/bin").mkdir(parents=True)
    tools(tmp_path / ".ta/env/bin", ta='echo mine > "$KEPT/mine"')
    run_script(slurm(LaunchFile([], "speech")), tmp_path, tools(tmp_path), SLURM_NNODES="1")
    assert (tmp_path / "mine").exists() and not (tmp_path / "0").exists()


def test_secrets_are_named_and_never_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    job = LaunchFile([], "speech", gpu="A100", secrets=["HF_TOKEN"])
    assert "hf_secret" not in slurm(job) + sky(job)
    assert yaml.safe_load(sky(job))["secrets"] == {"HF_TOKEN": None}
    monkeypatch.delenv("HF_TOKEN")
    said = run_script(slurm(job), tmp_path, tools(tmp_path), check=False, SLURM_NNODES="1")
    assert "HF_TOKEN: is not set where sbatch is called" in said and not (tmp_path / "0").exists()


def test_sky_gives_each_machine_its_number(tmp_path):
    job = LaunchFile(NASTY, "speech", nodes=2, gpus=8, gpu="A100", spot=True, bucket="s3://mine")
    task = yaml.safe_load(sky(job))
    assert (task["num_nodes"], task["workdir"]) == (2, ".")
    assert task["resources"] == {
        "accelerators": "A100:8",
        "use_spot": True,
        "autostop": {"idle_minutes": 10, "down": True},
    }
    assert task["file_mounts"] == {"/outputs": {"source": "s3://mine", "mode": "MOUNT_CACHED"}}
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    run_script(task["run"], tmp_path, tools(tmp_path), SKYPILOT_NODE_RANK="1", SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2")
    launcher = ["--num-processes", "8", "--num-nodes", "2", "--node-rank", "1", "--rendezvous", "10.0.0.1:29500"]
    assert kept(tmp_path, 1) == ["train", *launcher, "--output-dir=/outputs/speech", *NASTY]


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12) | st.sampled_from(NASTY)


@given(arguments=st.lists(words, max_size=5), folder=words)
@settings(max_examples=25, deadline=None)
def test_what_arrives_is_what_was_given(arguments, folder):
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        path = tools(here)
        job = LaunchFile(arguments, "speech", gpu="A100", output_dir=folder or None)
        wanted = ["train", f"--output-dir={folder or 'outputs/speech'}", *arguments]
        run_script(slurm(job), here, path, SLURM_NNODES="1")
        assert kept(here, 0) == wanted
        run_script(yaml.safe_load(sky(job))["run"], here, path, SKYPILOT_NODE_RANK="7")
        assert kept(here, 7) == wanted
        assert {file.name for file in here.iterdir()} == {*TOOLS, "0", "7"}


@pytest.mark.parametrize(
    "given, said",
    [
        ({"name": "x\n#SBATCH --account=other"}, "--name is"),
        ({"gpu": "a100 --uid=0"}, "--gpu is"),
        ({"partition": "-x"}, "--partition is"),
        ({"secrets": ["HF_TOKEN=hf_1"]}, "without its value"),
        ({"bucket": "s3://a b"}, "--bucket is"),
        ({"arguments": ["a\0b"]}, "NUL"),
        ({"arguments": ["--num-nodes=3"]}, "--num-nodes is what the job file gives"),
        ({"arguments": ["--resume", "auto"]}, "leave it out"),
    ],
)
def test_what_a_directive_cannot_hold_is_refused(given, said):
    with pytest.raises(TinyAudioError, match=said):
        LaunchFile(**{"arguments": [], "name": "speech", **given})


@pytest.mark.parametrize(
    "form, given, said",
    [
        (slurm, {"spot": True}, "SkyPilot's"),
        (sky, {"partition": "gpu"}, "Slurm's"),
        (sky, {"gpu": "A100", "nodes": 2}, "--nodes 2 needs --bucket"),
        (sky, {"gpu": "A100", "spot": True}, "--spot needs --bucket"),
        (sky, {}, "needs --gpu"),
    ],
)
def test_what_an_engine_lacks_is_refused(form, given, said):
    with pytest.raises(TinyAudioError, match=said):
        form(LaunchFile([], "speech", **given))


def test_the_command_writes_the_file_and_says_how_to_start_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(launch)

    def call(*arguments: str) -> None:
        app(list(arguments), standalone_mode=False)

    call("--name", "speech", "--", "-d", "my data", "--", "training.max_steps=5")
    assert capsys.readouterr().out == "sbatch speech.sbatch\n"
    assert "'my data' -- training.max_steps=5" in Path("speech.sbatch").read_text()
    with pytest.raises(TinyAudioError, match="speech.sbatch is there already"):
        call("--name", "speech")
    call("--format", "sky", "--gpu", "A100", "--spot", "--bucket", "s3://mine", "--env", "HF_TOKEN", "-o", "a b.yaml")
    assert capsys.readouterr().out == "sky jobs launch 'a b.yaml' --secret HF_TOKEN\n"
    with pytest.raises(typer.TyperException, match="no-such-option"):
        call("--name", "other", "--", "--no-such-option")
    with pytest.raises(TinyAudioError, match="training.max_stepz"):
        call("--name", "other", "--", "training.max_stepz=5")
    assert not Path("other.sbatch").exists()


@pytest.mark.slow
def test_two_machines_of_slurm_train_together(tmp_path):
    """Both on this one: a real training, and the same job once more, which finds the run finished."""
    arguments = ["--experiment", "quickstart", "training.max_steps=4", "training.save_steps=2"]
    script = slurm(LaunchFile(arguments, "speech", nodes=2))
    path = tools(tmp_path, ta=f'exec {sys.executable} -m tiny_audio.cli.main "$@"')
    environment = {"OMP_NUM_THREADS": "1", "SLURM_NNODES": "2", "CUDA_VISIBLE_DEVICES": ""}
    run_script(script, tmp_path, path, **environment)
    steps = [json.loads(line) for line in (tmp_path / "outputs/speech/log.jsonl").read_text().splitlines()]
    assert max(entry["step"] for entry in steps) == 4
    assert (tmp_path / "outputs/speech/checkpoint-4").is_dir()
