"""The checks behind `ta doctor`: what this machine has, what is missing, and what to do about it."""

import csv
import os
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tiny_audio.console import Check

GIB = 2**30  # bytes
MIN_DISK_GIB = 10  # the default model's two parts and a few checkpoints
MIN_MEMORY_GIB = 8  # the default model in fp32
NETWORK_SECONDS = 2.0
MAX_SELF_TEST_WER = 0.1
EXTRAS = {
    "train": "TensorBoard logs of a training",
    "wandb": "logging to Weights & Biases",
    "demo": "ta demo",
    "serve": "ta serve",
    "debug": "figures of ta debug",
    "report": "figures of ta analysis report",
    "remote": "ta remote",
    "quantize": "language models in 8 or 4 bits",
}
TOKENS = {
    "HF_TOKEN": "private or gated models and for publishing",
    "WANDB_API_KEY": "logging to Weights & Biases",
}


def examine() -> Iterator[Check]:
    """Every check in turn, each a Check as soon as it is done; a check that breaks is itself a failure."""
    for check in (python, packages, extras, device, disk, memory, network, tokens, self_test):
        yield from _guarded(check)


def _guarded(check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - whatever broke is what the user wants to read
        reason = " ".join(str(error).split())
        yield Check("failure", f"{check.__name__.replace('_', ' ')}: {reason}", "see the other lines, or reinstall")


def python() -> Iterator[Check]:
    """The interpreter against `requires-python`."""
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = metadata.metadata("tiny-audio")["Requires-Python"]
    if version in SpecifierSet(wanted):
        yield Check("ok", f"Python {version} at {sys.prefix}")
    else:
        yield Check("failure", f"Python {version}, needs {wanted}", "make a venv with such a Python and install there")


def packages() -> Iterator[Check]:
    """The base dependencies against their ranges."""
    wanted = list(_requirements(""))
    wrong = [problem for requirement in wanted if (problem := _problem(requirement))]
    yield from (Check("failure", what, f"pip install '{requirement}'") for what, requirement in wrong)
    if not wrong:
        main = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "av"))
        version = metadata.version("tiny-audio")
        yield Check("ok", f"tiny-audio {version} and its {len(wanted)} packages in range ({main})")


def extras() -> Iterator[Check]:
    """Which optional parts are installed."""
    for extra, purpose in EXTRAS.items():
        missing = [problem for requirement in _requirements(extra) if (problem := _problem(requirement))]
        if missing:
            what = f"extra {extra} ({purpose}): {missing[0][0]}"
            yield Check("warning", what, f"if you want it: pip install 'tiny-audio[{extra}]'")
        else:
            yield Check("ok", f"extra {extra} ({purpose})")


def _requirements(extra: str) -> Iterator[Requirement]:
    """What the extra adds to the base install; the base install itself for an empty name."""
    for line in metadata.requires("tiny-audio") or []:
        requirement = Requirement(line)
        marker = requirement.marker
        needed = marker is None or marker.evaluate({"extra": extra})
        if needed and (not extra or not (marker is None or marker.evaluate({"extra": ""}))):
            requirement.marker = None
            yield requirement


def _problem(requirement: Requirement) -> tuple[str, Requirement] | None:
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed", requirement
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} {found}, needs {requirement.specifier}", requirement


def device() -> Iterator[Check]:
    """The accelerators that torch sees."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Check("ok", f"GPU {index}: {properties.name}, {properties.total_memory / GIB:.0f} GiB")
    elif torch.backends.mps.is_available():
        yield Check("ok", "GPU: Apple (mps)")
    else:
        what = f"no GPU, {os.cpu_count()} CPU cores"
        yield Check("warning", what, "enough for nano and for evaluation; train a full-size model on a GPU")


def disk() -> Iterator[Check]:
    """Free space where runs are written and where models are kept."""
    from huggingface_hub.constants import HF_HUB_CACHE

    for name, folder in (("this folder", Path.cwd()), ("the model cache", Path(HF_HUB_CACHE))):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free / GIB
        what = f"disk: {free:.0f} GiB free for {name} ({folder})"
        if free >= MIN_DISK_GIB:
            yield Check("ok", what)
        else:
            yield Check("warning", what, f"full-size models want {MIN_DISK_GIB} GiB: free some, or set HF_HOME")


def memory() -> Iterator[Check]:
    """Physical memory."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    if total >= MIN_MEMORY_GIB:
        yield Check("ok", f"memory: {total:.0f} GiB")
    else:
        todo = f"enough for nano; full-size models want {MIN_MEMORY_GIB} GiB or --dtype bfloat16"
        yield Check("warning", f"memory: {total:.1f} GiB", todo)


def network() -> Iterator[Check]:
    """Whether the Hugging Face Hub answers within NETWORK_SECONDS."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    offline = "shipped and local models and data work; others need the Hub"
    if HF_HUB_OFFLINE:
        yield Check("warning", "network: HF_HUB_OFFLINE is set", f"{offline}: unset it to download")
    elif seconds := _answer_seconds(ENDPOINT):
        yield Check("ok", f"network: {ENDPOINT} answers in {seconds:.1f} s")
    else:
        yield Check("warning", f"network: no answer from {ENDPOINT} within {NETWORK_SECONDS:.0f} s", offline)


def _answer_seconds(url: str) -> float | None:
    """Seconds until the server answers, or None; in a thread, because a name look-up knows no timeout."""
    answers: list[float] = []

    def ask() -> None:
        start = time.monotonic()
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # an answer all the same
        except (OSError, ValueError):
            return
        answers.append(time.monotonic() - start)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(NETWORK_SECONDS)
    return answers[0] if answers else None


def tokens() -> Iterator[Check]:
    """Which tokens are there; never a part of one."""
    from huggingface_hub import get_token

    for name, purpose in TOKENS.items():
        present = bool(os.environ.get(name)) or (name == "HF_TOKEN" and bool(get_token()))
        if present:
            yield Check("ok", f"token {name} is set")
        else:
            yield Check("warning", f"token {name} is not set", f"only needed for {purpose}")


def self_test() -> Iterator[Check]:
    """nano's text of the shipped clips against what was said in them."""
    from tiny_audio.assets import embedded
    from tiny_audio.evaluation.scoring import score
    from tiny_audio.text.normalizers import get_normalizer
    from tiny_audio.transcription import load_model

    clips = embedded("clips")
    with (clips / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    model = load_model("nano", device="cpu")
    start = time.monotonic()
    texts = model.transcribe([clips / row["file_name"] for row in rows])
    seconds = time.monotonic() - start
    scores = score([row["text"] for row in rows], texts, get_normalizer("basic"))
    what = f"self-test: nano reads {len(rows)} clips in {seconds:.1f} s with {scores.wer:.0%} word errors"
    if scores.wer <= MAX_SELF_TEST_WER:
        yield Check("ok", what)
    else:
        yield Check("failure", what, "the installation is damaged or a package is at odds: reinstall tiny-audio")
