"""Runs the blocks of a page in a folder, and says of a block that fails where it stands and what it printed."""

import fcntl
import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from docs_blocks import Block, logical_lines

SECONDS, SLOW_SECONDS = 300, 3600  # that a block may take, on a machine that has other work too
CTRL_C_SECONDS = 60
ADDRESS = re.compile(r"https?://[\w.\[\]:]+:\d+")
SHOWN_LINES = 60  # of the start of an output, and of its end
PORTS = Path(tempfile.gettempdir()) / "tiny-audio-docs-ports.lock"
SHELL = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": ["python", "-c"]}


class BlockFailed(AssertionError):
    """A block that does not do what its page says."""


class Runner:
    """Runs blocks one after the other in a folder, each in a shell of its own; what serves goes on until the end, or the next one."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, self.environment = folder, environment
        self._served: ExitStack | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_serving()

    def run(self, block: Block) -> str:
        """Runs a block and returns what it printed.

        Raises:
            BlockFailed: it fails, or is marked `fails` and does not, or is marked `serves` and names no address.
        """
        return self._serve(block) if "serves" in block.markers else self._run(block)

    def _run(self, block: Block) -> str:
        with Running(self, block, block.code) as running:
            code, output = running.wait(seconds_for(block)), running.output()
            if code is None:
                running.fail("is not done in time")
            if "fails" not in block.markers and code != 0:
                running.fail(f"exit code {code}")
            if "fails" in block.markers and code == 0:
                running.fail("is marked `fails`, but does not")
            traceback_wanted = block.language == "python" or "TA_DEBUG=1" in block.code
            if "fails" in block.markers and not traceback_wanted and "Traceback" in output:
                running.fail("fails with a traceback instead of a line")
            return output

    def _serve(self, block: Block) -> str:
        """Each command until it prints its address, then Ctrl-C, but for the last one."""
        output = ""
        for line in logical_lines(block.code):
            self.stop_serving()
            with ExitStack() as served:
                # The ports of a document are fixed, and another run of the tests may be at the same page.
                fcntl.flock(served.enter_context(PORTS.open("w")), fcntl.LOCK_EX)
                running = served.enter_context(Running(self, block, line))
                output += running.wait_for_address(seconds_for(block))
                served.callback(running.interrupt)
                self._served = served.pop_all()
        return output

    def stop_serving(self) -> None:
        """Ctrl-C for what still serves."""
        served, self._served = self._served, None
        if served is not None:
            served.close()


def seconds_for(block: Block) -> int:
    return SLOW_SECONDS if block.slow else SECONDS


class Running:
    """A block, or a line of it, as a process group with its output in a file; what is left of it at the end is killed."""

    def __init__(self, runner: Runner, block: Block, code: str):
        self.block, self.code = block, code
        # Not a pipe, which a process in the background would keep open.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [*SHELL[block.language], code], cwd=runner.folder, env=runner.environment, process_group=0,
            stdin=subprocess.DEVNULL, stdout=self._file, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._file.close()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def output(self) -> str:
        return os.pread(self._file.fileno(), 1 << 24, 0).decode("utf-8", "replace")

    def wait(self, seconds: float) -> int | None:
        """The exit code; None where it takes longer."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def wait_for_address(self, seconds: float) -> str:
        end = time.monotonic() + seconds
        while not ADDRESS.search(output := self.output()):
            if self._process.poll() is not None or time.monotonic() > end:
                self.fail("printed no address")
            time.sleep(0.05)
        return output

    def interrupt(self) -> None:
        """Ctrl-C, after which it ends by itself and without a traceback."""
        if self._process.poll() is not None:
            self.fail("served no longer")
        self._signal(signal.SIGINT)
        code = self.wait(CTRL_C_SECONDS)
        if code not in (0, 130, -signal.SIGINT) or "Traceback" in self.output():
            self.fail(f"exit code {code} after Ctrl-C")

    def fail(self, why: str) -> None:
        lines = self.output().splitlines()
        if len(lines) > 2 * SHOWN_LINES:
            lines[SHOWN_LINES:-SHOWN_LINES] = ["…"]
        raise BlockFailed(
            "\n".join([f"{self.block}: {why}", *indented(self.code.splitlines()), "printed:", *indented(lines)])
        )


def indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
