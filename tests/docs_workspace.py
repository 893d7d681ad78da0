"""The folder in which the blocks of a page run: like a checkout, with recordings and a trained model, and no network."""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from docs_blocks import REPOSITORY, Block
from docs_server import CLIENT

COPIED = ("configs", "docs", "examples", "recipes")  # what documented commands write into; all else is linked
LEFT_OUT = (".git", ".venv", "outputs", "runs", "build", "dist", "site")
CLIPS = {"train": 40, "validation": 8, "test": 8}  # of my_recordings
SAMPLING_RATE = 16_000  # Hz
RUN = "runs/mine"
TRAIN = f"ta train -d my_recordings --output-dir {RUN} model.pretrained=nano training.max_steps=4"


class Commands:
    """`ta` and `python` of the documents, as a folder for the PATH: a process that has imported everything forks for each."""

    def __init__(self, folder: Path):
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self._home = tempfile.TemporaryDirectory(prefix="ta-docs-")  # short: a socket's address has 107 characters
        self.home = Path(self._home.name)
        address = self.home / "socket"
        for name in ("ta", "python"):
            client = self.bin / name
            client.write_text(CLIENT.format(python=sys.executable, address=str(address)), encoding="utf-8")
            client.chmod(0o755)
        server = [sys.executable, str(Path(__file__).with_name("docs_server.py")), str(address)]
        with (folder / "server.log").open("w") as log:
            self._process = subprocess.Popen(
                server, env=environment(self, self.home), stdin=subprocess.DEVNULL, stderr=log
            )
        while not address.exists():
            assert self._process.poll() is None, (folder / "server.log").read_text(encoding="utf-8")
            time.sleep(0.05)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._home.cleanup()


def environment(commands: Commands, home: Path) -> dict[str, str]:
    """Nothing of this machine's own: no token, no network, an empty home."""
    return {
        "PATH": os.pathsep.join((str(commands.bin), str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(home),
        "USER": "me",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",  # its threads would not survive the fork
    }


def make_workspace(folder: Path, material: Path | None = None, blocks: Sequence[Block] = ()) -> Path:
    """A folder like a checkout, with what lies in `material` besides, but for the run that these blocks make themselves.

    `shared` is beside it where it is beside the checkout.
    """
    workspace = folder / "tiny-audio"
    workspace.mkdir(parents=True)
    for entry in REPOSITORY.iterdir():
        if entry.name in COPIED:
            shutil.copytree(entry, workspace / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif entry.name not in LEFT_OUT:
            (workspace / entry.name).symlink_to(entry)
    if (shared := REPOSITORY.parent / "shared").is_dir():
        (folder / "shared").symlink_to(shared.resolve())
    if material is not None:
        shutil.copytree(material, workspace, dirs_exist_ok=True)
        if any(f"--output-dir {RUN}" in block.code for block in blocks):
            shutil.rmtree(workspace / RUN)
    return workspace


def make_material(folder: Path, commands: Commands) -> Path:
    """`my_recordings/`, `talk.mp3`, and `runs/mine`: a finished run of a few steps, from nano."""
    from data_helpers import encoded

    from tiny_audio.audio.reading import load_audio

    folder.mkdir(parents=True)
    write_recordings(folder / "my_recordings")
    talk = load_audio(folder / "my_recordings/test/000.ogg")
    (folder / "talk.mp3").write_bytes(encoded(talk, "mp3", "libmp3lame", SAMPLING_RATE))
    train = subprocess.run(
        TRAIN.split(), cwd=folder, env=environment(commands, commands.home), capture_output=True, text=True, check=False
    )
    assert train.returncode == 0, train.stderr
    return folder


def write_recordings(folder: Path) -> None:
    """A few clips of each split of `quickstart`, with a metadata.csv."""
    import pyarrow.parquet

    from tiny_audio.assets import embedded

    for split, count in CLIPS.items():
        rows = pyarrow.parquet.read_table(embedded("quickstart") / f"{split}.parquet").slice(0, count).to_pylist()
        (folder / split).mkdir(parents=True)
        with (folder / split / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file_name", "text"])
            for number, row in enumerate(rows):
                (folder / split / f"{number:03}.ogg").write_bytes(row["audio"]["bytes"])
                table.writerow([f"{number:03}.ogg", row["text"]])
