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
        job, state = read_json(file), read_json(file.replace("job.json", "state.json"))
        if job:
            found.append(dict(job, state=state, alive=alive(state), progress=progress(folder, file, job)))
    return {"gpus": gpus(), "jobs": sorted(found, key=lambda job: job.get("created", ""))}


def read_json(file):
    """An object; empty where there is none yet."""
    try:
        with open(file, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}


def alive(state):
    """Whether the job's runner is there; its command line tells it from another process of that number."""
    try:
        with open(f"/proc/{int(state['runner_pid'])}/cmdline", "rb") as stream:
            return b"runner.py" in stream.read()
    except (KeyError, TypeError):
        return False
    except OSError:
        return False if os.path.isdir("/proc/self") else bool(said("ps", "-p", str(state["runner_pid"]), "-o", "pid="))


def progress(folder, file, job):
    """The last values of the run's log, and the time left as the training said it last."""
    values = {}
    for line in tail(os.path.join(folder, job.get("output") or ".ta", "log.jsonl")).splitlines():
        with contextlib.suppress(ValueError):  # the first line is cut off, or the last is being written
            values.update(json.loads(line))
    left = re.findall(r"ETA (\d+:\d\d)", tail(file.replace("job.json", "log.txt")))
    return dict(values, eta=left[-1] if left else None)


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
