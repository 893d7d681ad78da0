"""What a machine, its jobs and its files look like: run there by `python3 -`, with the standard library of Python 3.8."""

from __future__ import annotations

import contextlib
import csv
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from typing import Any, Callable

PYTHONS = ("python3", "python3.13", "python3.12", "python3.11")
ABOUT = """
import importlib.util, json, re, sys, sysconfig
spec = importlib.util.find_spec("torch")
text = open(spec.origin.replace("__init__.py", "version.py")).read() if spec and spec.origin else ""
found = {key: re.search(r"^%s\\b[^=]*= *'([^']+)'" % key, text, re.M) for key in ("__version__", "cuda")}
torch, cuda = (found[key] and found[key].group(1) for key in ("__version__", "cuda"))
venv = bool(importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"))
print(json.dumps({"version": sys.version.split()[0], "torch": torch, "cuda": cuda, "venv": venv}))
"""
GPU_FIELDS = ("name", "memory_total", "memory_used", "utilization", "driver")  # MiB, MiB, per cent
GPU_QUERY = "--query-gpu=name,memory.total,memory.used,utilization.gpu,driver_version"
LOG_TAIL = 65536  # bytes
SENDING_SECONDS = 120.0  # from job.json to the first state.json
HANDOVER_SECONDS = 10.0  # from the runner that is called to the one that stays


def said(*command):
    """What a program prints; nothing where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return ""


def machine(folder):
    """What a training needs of it."""
    version = re.search(r"version +v?(\S+)", said("rsync", "--version"))
    cuda = re.search(r"CUDA Version: *([\d.]+)", said("nvidia-smi"))
    place = os.path.abspath(folder)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return {
        "system": platform.platform(), "host": platform.node(), "cores": os.cpu_count(), "now": time.time(),
        "pythons": pythons(), "gpus": gpus(), "cuda": cuda and cuda.group(1), "rsync": version and version.group(1),
        "tmux": bool(shutil.which("tmux")), "disk_free": shutil.disk_usage(place).free, "writable": os.access(place, os.W_OK),
    }  # fmt: skip


def pythons():
    """The interpreters, and what torch each has."""
    found = []
    for name in PYTHONS:
        answer = said(name, "-c", ABOUT).strip()
        if answer:
            found.append(dict(json.loads(answer.splitlines()[-1]), name=name))
    return found


def gpus():
    """As nvidia-smi has them."""
    rows = csv.reader(
        said("nvidia-smi", GPU_QUERY, "--format=csv,noheader,nounits").splitlines(), skipinitialspace=True
    )
    return [dict(zip(GPU_FIELDS, row)) for row in rows if len(row) == len(GPU_FIELDS)]


def jobs(folder):
    """Every job below the project's folder, the oldest first."""
    found = []
    for file in glob.glob(os.path.join(glob.escape(folder), ".ta", "jobs", "*", "job.json")):
        job, state = read_json(file), read_state(file.replace("job.json", "state.json"))
        if isinstance(job.get("name"), str) and isinstance(job.get("command"), list):
            alive = runner_lives(state) or command_lives(state)
            eta = {"eta": time_left(file.replace("job.json", "log.txt"))}
            found.append(dict(job, state=state, alive=alive, word=word(file, state), progress=eta))
    found.sort(key=lambda job: str(job.get("created")))
    writers = {os.path.normpath(job["output"]): job for job in found if job.get("output") and job["state"]}
    for output, job in writers.items():  # of a run that was resumed, the last job
        job["progress"].update(last_values(os.path.join(folder, output, "log.jsonl")))
    return {"gpus": gpus(), "jobs": found}


def read_json(file):
    """An object; empty where there is none."""
    try:
        with open(file, encoding="utf-8") as stream:
            value = json.load(stream)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_state(file):
    """state.json; empty before the runner has started."""
    state = read_json(file)
    return state if "state" in state else {"state": "unreadable"} if os.path.exists(file) else {}


def word(file, state):
    """The job's state: as its runner wrote it, or what became of it without one."""
    if not state:
        return "starting" if age(file) < SENDING_SECONDS else "never-started"
    if state["state"] == "starting" and age(file.replace("job.json", "state.json")) < HANDOVER_SECONDS:
        return "starting"
    if state["state"] not in ("starting", "running") or runner_lives(state):
        return state["state"]
    return "unwatched" if command_lives(state) else "lost"


def age(file):
    """Seconds since it was written, by the clock of its disk."""
    return time.time() - os.path.getmtime(file)


def command_lives(state):
    """Whether the job's command is there; the moment of its start tells it from another process of that number."""
    try:
        with open(f"/proc/{int(state['pid'])}/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except (KeyError, TypeError, ValueError, OSError):
        return False
    return fields[0] not in "ZX" and fields[19] == state.get("pid_began")


def runner_lives(state):
    """Whether the job's runner is there; its command line tells it from another process of that number."""
    try:
        with open(f"/proc/{int(state['runner_pid'])}/cmdline", "rb") as stream:
            return b"runner.py" in stream.read()
    except (KeyError, TypeError, ValueError):
        return False
    except OSError:
        return False if os.path.isdir("/proc/self") else bool(said("ps", "-p", str(state["runner_pid"]), "-o", "pid="))


def last_values(file):
    """The last of each in a run's log."""
    values = {}
    for line in tail(file).splitlines():
        with contextlib.suppress(ValueError):  # the first line is cut off, or the last is being written
            values.update(json.loads(line))
    return values


def time_left(file):
    """As the training said it last; None where it did not."""
    left = re.findall(r"ETA (\d+:\d\d)", tail(file))
    return left[-1] if left else None


def tail(file):
    """The end of a file; nothing where there is none."""
    try:
        with open(file, "rb") as stream:
            stream.seek(max(0, os.path.getsize(file) - LOG_TAIL))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


def pod():
    """Its id, if it is a pod of RunPod: sessions of ssh do not have the variables that its first process has."""
    try:
        with open("/proc/1/environ", "rb") as stream:
            first = stream.read().decode("utf-8", "replace").split("\0")
    except OSError:
        first = []
    values = dict(line.split("=", 1) for line in first if "=" in line)
    return os.environ.get("RUNPOD_POD_ID") or values.get("RUNPOD_POD_ID")


def hashes(folder, *names):
    """SHA-256 and size of every file below some folders; those that vanish meanwhile are left out."""
    found = {}
    for name in names:
        top = os.path.join(folder, name)
        files = (
            [top]
            if os.path.isfile(top)
            else [os.path.join(at, file) for at, _, inside in os.walk(top) for file in inside]
        )
        for path in files:
            if os.path.islink(path):
                continue
            try:
                with open(path, "rb") as stream:
                    digest = hashlib.sha256()
                    for piece in iter(lambda: stream.read(1 << 20), b""):
                        digest.update(piece)
            except OSError:
                continue
            found[os.path.relpath(path, folder)] = digest.hexdigest()
    return found


ACTIONS: dict[str, Callable[..., Any]] = {"machine": machine, "jobs": jobs, "pod": pod, "hashes": hashes}

if __name__ == "__main__":
    print(json.dumps(ACTIONS[sys.argv[1]](*sys.argv[2:])))
