"""The pictures in docs/images: what commands print, the page of `ta analysis report`, and that of `ta demo`.

python -m recipes.screenshots outputs/quickstart-…/best          # a checkpoint of `make quickstart`, shown beside nano
python -m recipes.screenshots outputs/quickstart-…/best --demo   # the demo's alone
python -m recipes.screenshots --terminal                         # terminal-*.svg alone: trains a quickstart of its own
python -m recipes.screenshots --terminal help doctor             # some of them
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

IMAGES = Path("docs/images")
RUNS = Path("outputs/screenshots")
ROWS, COLUMNS = 40, 100  # of the terminal
TA = [sys.executable, "-m", "tiny_audio.cli.main"]
DESK, PHONE = {"width": 1200, "height": 1400}, {"width": 375, "height": 1000}
DEMO_DESK, DEMO_PHONE = {"width": 1100, "height": 860}, {"width": 390, "height": 844}
DEMO_PORT = 7899
SPOKEN = 35  # row of quickstart's test split: nine digits
CLIP = "send-a-message-to-jack.ogg"
TERMINALS = {  # in this order, in one folder; those without a picture make what the next one reads
    "help": "ta --help",
    "doctor": "ta doctor",
    "transcribe": f"ta transcribe {CLIP} --timestamps word",
    "train": "ta train --experiment quickstart --output-dir runs/first",
    "eval": "ta eval -m runs/first/best -d quickstart",
    "": "ta eval -m nano -d quickstart",
    "compare": "ta analysis compare nano runs/first/best -n 3",
}


def printed(command: list[str], cwd: Path | None = None) -> str:
    """What a command writes to a terminal; its messages stay on stderr."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (ROWS, COLUMNS))
    process = subprocess.Popen(command, stdout=its, cwd=cwd, env=with_checkout())
    os.close(its)
    text = b""
    try:
        while part := os.read(ours, 4096):
            text += part
    except OSError:  # how Linux says that the other end was closed
        pass
    os.close(ours)
    if process.wait():
        raise SystemExit(f"Error: {' '.join(command)} failed.")
    return text.decode().replace("\r\n", "\n")


def printed_with_messages(command: list[str], cwd: Path) -> str:
    """Results and messages in their order; the lines that stand for a moving bar are left out."""
    variables = {**with_checkout(), "PYTHONUNBUFFERED": "1", "COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd, env=variables, text=True, check=True
    )
    return "\n".join(line for line in done.stdout.splitlines() if not re.match(r"Training \d+/\d+ ", line))


def with_checkout() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


def draw_terminal(command: str, text: str, file: Path) -> None:
    """The text as a terminal shows it, as SVG without fonts of the network."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115 - as long as the program
    console.print(Text.from_ansi(f"$ {command}\n{text.rstrip()}"))
    svg = console.export_svg(title=command)
    file.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")


def draw_terminals(wanted: list[str]) -> None:
    """Each command of TERMINALS that is wanted, or all, in a folder of its own; paths of this machine are shortened."""
    folder = RUNS.resolve() / "terminal"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path("tiny_audio/assets/clips") / CLIP, folder)
    if not wanted or "train" in wanted:
        shutil.rmtree(folder / "runs", ignore_errors=True)
    for name, command in TERMINALS.items():
        if wanted and (name or "compare") not in wanted:
            continue
        arguments = [*TA, *command.split()[1:]]
        text = (printed_with_messages if name == "train" else printed)(arguments, folder)
        for path, short in ((sys.prefix, ".venv"), (str(folder), "~/tiny-audio"), (str(Path.home()), "~")):
            text = text.replace(path, short)
        if name:
            draw_terminal(command, text, IMAGES / f"terminal-{name}.svg")


def photograph(report: Path, file: Path, size: dict[str, int], scheme: str, heard: bool = False) -> None:
    """The page in a browser; `heard`: from its first clip on, with the spectrogram."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page: Any = browser.new_page(viewport=size, color_scheme=scheme)
        page.goto(report.resolve().as_uri())
        page.wait_for_selector("body[data-ready]")
        if heard:
            page.get_by_role("button", name="Spectrogram").first.click()
            page.wait_for_selector("canvas.spectrum")
            page.locator("#count").evaluate("element => element.scrollIntoView()")
        page.wait_for_timeout(500)  # the figures are drawn in frames of their own
        page.screenshot(path=file)
        browser.close()


@contextmanager
def demo_of(*models: str) -> Iterator[str]:
    """The address of a demo that runs meanwhile."""
    named = [argument for model in models for argument in ("-m", model)]
    command = [*TA, "demo", "--port", str(DEMO_PORT), *named]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            while "runs at" not in (line := process.stderr.readline()):  # type: ignore[union-attr]
                if not line:
                    raise SystemExit("Error: the demo did not start.")
            yield f"http://127.0.0.1:{DEMO_PORT}/"
        finally:
            process.terminate()


def write_spoken(folder: Path) -> Path:
    """A clip of the quickstart corpus as a file, WAV of 16 kHz, with a moment of silence before it."""
    import numpy as np
    import soundfile
    from pyarrow import parquet

    from tiny_audio import embedded, load_audio

    row = parquet.read_table(embedded("quickstart") / "test.parquet").slice(SPOKEN, 1).to_pylist()[0]
    file = folder / "telephone-number.wav"
    silence = np.zeros(4000, np.float32)
    soundfile.write(file, np.concatenate([silence, load_audio(row["audio"]), silence]), 16_000)
    return file


def photograph_demo(url: str, spoken: Path, name: str, size: dict[str, int]) -> None:
    """The demo, light and dark: an uploaded clip while a word of it is heard; on a phone also a recording."""
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--use-fake-ui-for-media-stream"]
    arguments += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={spoken.resolve()}%noloop"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for scheme, suffix in (("light", ""), ("dark", "-dark")):
            page: Any = browser.new_page(viewport=size, color_scheme=scheme, permissions=["microphone"])
            page.goto(url)
            page.wait_for_selector("#models li.ready:last-child")
            if size is DEMO_PHONE and scheme == "dark":
                page.click("#record")
                page.wait_for_selector("#live-text:has-text('five one')")
            else:
                page.set_input_files("#file", spoken)
                page.wait_for_selector("body[data-state=ready] article:last-child .downloads")
                page.wait_for_selector("body[data-state=ready]")
                page.click(".word.timed >> text=nine >> nth=0")
                page.wait_for_timeout(120)  # until it is heard
            page.screenshot(path=IMAGES / f"{name}{suffix}.png", full_page=True)
            page.close()
        browser.close()


def draw_demo(checkpoint: str) -> None:
    pictures = {"demo": (DEMO_DESK, "nano", checkpoint), "demo-phone": (DEMO_PHONE, "nano")}
    with tempfile.TemporaryDirectory() as folder:
        spoken = write_spoken(Path(folder))
        for name, (size, *models) in pictures.items():
            with demo_of(*models) as url:
                photograph_demo(url, spoken, name, size)


def draw_evaluations(checkpoint: str) -> None:
    folders = {"nano": RUNS / "nano", checkpoint: RUNS / "quickstart"}
    for model, folder in folders.items():
        evaluate = ["eval", "-m", model, "-d", "quickstart", "--keep-audio", "--output-dir", str(folder)]
        printed([*TA, *evaluate])
    report = RUNS / "report.html"
    subprocess.run([*TA, "analysis", "report", *map(str, folders.values()), "-o", report, "--inline-audio"], check=True)
    photograph(report, IMAGES / "report.png", DESK, "light")
    photograph(report, IMAGES / "report-dark.png", DESK, "dark")
    photograph(report, IMAGES / "report-phone.png", PHONE, "dark", heard=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--terminal", nargs="*", metavar="NAME", choices=[name for name in TERMINALS if name])
    given = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    if given.terminal is not None:
        draw_terminals(given.terminal)
    elif given.checkpoint is None:
        parser.error("a checkpoint is needed, or --terminal")
    else:
        draw_demo(given.checkpoint)
        if not given.demo:
            draw_evaluations(given.checkpoint)
    for file in sorted(IMAGES.iterdir()):
        print(f"{file}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
