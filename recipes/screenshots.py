"""The pictures in docs/images: what `ta eval` prints, and the page of `ta analysis report`, from two real evaluations.

python -m recipes.screenshots outputs/quickstart-…/best   # a checkpoint of `make quickstart`, shown beside nano
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
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


def printed(command: list[str]) -> str:
    """What a command writes to a terminal; its messages stay on stderr."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (ROWS, COLUMNS))
    process = subprocess.Popen(command, stdout=its)
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


def draw_terminal(command: str, text: str, file: Path) -> None:
    """The text as a terminal shows it, as SVG without fonts of the network."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115 - as long as the program
    console.print(Text.from_ansi(f"$ {command}\n{text.rstrip()}"))
    svg = console.export_svg(title=command)
    file.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    folders = {"nano": RUNS / "nano", parser.parse_args().checkpoint: RUNS / "quickstart"}
    IMAGES.mkdir(exist_ok=True)
    for model, folder in folders.items():
        evaluate = ["eval", "-m", model, "-d", "quickstart", "--keep-audio", "--output-dir", str(folder)]
        text = printed([*TA, *evaluate])
        if model == "nano":
            draw_terminal("ta eval -m nano -d quickstart", text, IMAGES / "eval.svg")
    report = RUNS / "report.html"
    subprocess.run([*TA, "analysis", "report", *map(str, folders.values()), "-o", report, "--inline-audio"], check=True)
    photograph(report, IMAGES / "report.png", DESK, "light")
    photograph(report, IMAGES / "report-dark.png", DESK, "dark")
    photograph(report, IMAGES / "report-phone.png", PHONE, "dark", heard=True)
    for file in sorted(IMAGES.iterdir()):
        print(f"{file}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
