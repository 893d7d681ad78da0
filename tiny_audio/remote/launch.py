"""Job files of a training for SkyPilot and Slurm, on one machine or several: for clouds and clusters beyond one pod.

SkyPilot's fields are those of its YAML reference, Slurm's directives those of sbatch's manual. Neither engine was at hand: the
scripts are run by tests with stand-ins for `srun` and `scontrol`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from tiny_audio.errors import TinyAudioError

WORD = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)  # what needs no quotes in a directive
BUCKET = re.compile(r"[a-z0-9]+://[\w./-]+", re.ASCII)
OURS = ("--output-dir", "--resume", "--num-processes", "--num-nodes", "--node-rank", "--rendezvous")
PORT = 29_500
TERMINATE_SECONDS = 300  # from SIGTERM to the end of the hours, for a checkpoint
BUCKET_FOLDER = "/outputs"
IDLE_MINUTES = 10  # after which SkyPilot deletes the machines
SKY_SETUP = """\
command -v uv > /dev/null || pip install uv
if [ ! -x .ta/env/bin/python ]; then uv venv --python 3.12 .ta/env; fi
uv pip install --python .ta/env/bin/python -e '.[train]'
"""


@dataclass(frozen=True)
class LaunchFile:
    """What a job file is written from.

    Args:
        arguments: what `ta train` takes, without OURS.
        gpus: of each machine; `gpu`: their type, as the engine calls it.
        output_dir: the run's folder there, which all machines read.
        secrets: names of variables that the job needs.
        bucket: where SkyPilot keeps the run's folder, such as s3://NAME; without it checkpoints go with the machine.

    Raises:
        TinyAudioError: a value that a directive cannot hold, or arguments that the file gives itself.
    """

    arguments: Sequence[str]
    name: str
    nodes: int = 1
    gpus: int = 1
    gpu: str | None = None
    hours: float = 24.0
    spot: bool = False
    output_dir: str | None = None
    secrets: Sequence[str] = ()
    bucket: str | None = None
    partition: str | None = None

    def __post_init__(self) -> None:
        for what, value in (("--name", self.name), ("--gpu", self.gpu), ("--partition", self.partition)):
            if value is not None and not WORD.fullmatch(value):
                raise TinyAudioError(f"{what} is {value!r}; expected letters, digits, '.', '_' and '-', 64 at most.")
        for secret in self.secrets:
            if not re.fullmatch(r"[A-Za-z_]\w*", secret, re.ASCII):
                raise TinyAudioError(f"--env is {secret!r}; expected the name of a variable, without its value.")
        if self.bucket is not None and not BUCKET.fullmatch(self.bucket):
            raise TinyAudioError(f"--bucket is {self.bucket!r}; expected an address such as s3://NAME.")
        for argument in (*self.arguments, self.output_dir or ""):
            if "\0" in argument:
                raise TinyAudioError(f"{argument!r} holds a NUL, which no command line can.")
            if argument.split("=")[0] in OURS:
                raise TinyAudioError(f"{argument.split('=')[0]} is what the job file gives `ta train`; leave it out.")

    @property
    def folder(self) -> str:
        """Of the run."""
        return self.output_dir or (f"{BUCKET_FOLDER}/{self.name}" if self.bucket else f"outputs/{self.name}")

    def preamble(self) -> str:
        """Bash: `arguments` of a training that begins or, where there is a checkpoint, of one that goes on."""
        return (
            'if [ -x .ta/env/bin/ta ]; then PATH="$PWD/.ta/env/bin:$PATH"; fi\n'
            f"run={quote(self.folder)}\n"
            f'arguments=(--output-dir="$run"{"".join(f" {quote(argument)}" for argument in self.arguments)})\n'
            'for checkpoint in "$run"/checkpoint-*; do\n'
            '    if [ -d "$checkpoint" ]; then arguments=(--resume="$run"); fi\n'
            "done\n"
        )

    def command(self, rank: str) -> str:
        """Bash without single quotes: `ta train` up to its arguments; `rank` names the variable of this machine's number."""
        processes = f" --num-processes {self.gpus}" if self.gpus * self.nodes > 1 else ""
        machines = f' --num-nodes {self.nodes} --node-rank "${rank}" --rendezvous "$meeting"' if self.nodes > 1 else ""
        return f"ta train{processes}{machines}"


def slurm(job: LaunchFile) -> str:
    """An sbatch script; submitted again, or put back into the queue, it goes on with the run.

    Raises:
        TinyAudioError: --spot or --bucket, which Slurm does not have.
    """
    if job.spot or job.bucket:
        raise TinyAudioError("--spot and --bucket are SkyPilot's; leave them out with --format slurm.")
    directives = {
        "job-name": job.name,
        "partition": job.partition,
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": f"{job.gpu}:{job.gpus}" if job.gpu else job.gpus,
        "time": round(60 * job.hours),  # minutes
        "signal": f"TERM@{TERMINATE_SECONDS}",
        "output": f"{job.name}-%j.log",
        "open-mode": "append",
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in directives.items() if value is not None]
    needed = [f': "${{{name}:?is not set where sbatch is called}}"' for name in job.secrets]
    first = '$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
    port = f"$(({PORT} + SLURM_JOB_ID % 1000))"  # of several jobs on one machine, each its own
    meeting = [f'export meeting="{first}:{port}"'] if job.nodes > 1 else []
    start = ['cd -- "${SLURM_SUBMIT_DIR:-.}"', *needed, *meeting]
    # One that ends early, as all do after SIGTERM, must not kill the one that writes the checkpoint.
    each = f'srun --kill-on-bad-exit=0 bash -c \'exec {job.command("SLURM_NODEID")} "$@"\' ta "${{arguments[@]}}"\n'
    return "\n".join(["#!/bin/bash", *lines, "#SBATCH --requeue", "set -euo pipefail", *start, job.preamble() + each])


def sky(job: LaunchFile) -> str:
    """A SkyPilot task, for `sky launch` or, with recovery from pre-emption, `sky jobs launch`.

    Raises:
        TinyAudioError: several machines, or spot ones, without a bucket; a partition.
    """
    import yaml

    if job.partition:
        raise TinyAudioError("--partition is Slurm's; leave it out with --format sky.")
    if job.bucket is None and (job.nodes > 1 or job.spot):
        what = "--spot" if job.spot else f"--nodes {job.nodes}"
        raise TinyAudioError(
            f"{what} needs --bucket, such as s3://NAME: to go on, all machines must read the checkpoints."
        )
    if job.gpu is None:
        raise TinyAudioError("--format sky needs --gpu, such as A100; see `sky show-gpus`.")
    meeting = f'export meeting="$(head -n 1 <<< "$SKYPILOT_NODE_IPS"):{PORT}"\n' if job.nodes > 1 else ""
    training = f'{job.preamble()}exec {job.command("SKYPILOT_NODE_RANK")} "${{arguments[@]}}"\n'
    resources = {
        "accelerators": f"{job.gpu}:{job.gpus}",
        "use_spot": job.spot,
        "autostop": {"idle_minutes": IDLE_MINUTES, "down": True},
    }
    task = {
        "name": job.name,
        "workdir": ".",
        "num_nodes": job.nodes,
        "resources": resources,
        "secrets": dict.fromkeys(job.secrets),
        "file_mounts": {BUCKET_FOLDER: {"source": job.bucket, "mode": "MOUNT_CACHED"}} if job.bucket else None,
        "setup": SKY_SETUP,
        "run": f"set -euo pipefail\n{meeting}{training}",
    }

    class Dumper(yaml.SafeDumper):
        """With blocks; of its own, so that others' YAML stays as it is."""

    Dumper.add_representer(str, _block)
    return yaml.dump({key: value for key, value in task.items() if value}, Dumper=Dumper, sort_keys=False)


def _block(dumper: Any, text: str) -> Any:
    """Several lines as a block that can be read, where YAML allows it."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
