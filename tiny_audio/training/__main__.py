"""What launchers start: `accelerate launch -m tiny_audio.training …` takes what `ta train` takes."""

import sys

from tiny_audio.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
