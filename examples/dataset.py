"""A corpus of one's own as a dataset: SPEAKER/NAME.wav with NAME.txt beside it → manifests for each split."""

import json
import sys
from pathlib import Path


def split_of(number: int) -> str:
    """Whole speakers go into a split, so that the test is on voices that training never met: about 8 : 1 : 1."""
    return {0: "test", 1: "validation"}.get(number % 10, "train")


def write_manifests(corpus: Path, folder: Path) -> None:
    """Write train.jsonl, validation.jsonl and test.jsonl; the recordings stay where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"train": [], "validation": [], "test": []}
    speakers = sorted(path for path in corpus.iterdir() if path.is_dir())
    for number, speaker in enumerate(speakers):
        for audio in sorted(speaker.glob("*.wav")):
            text = audio.with_suffix(".txt").read_text("utf-8").strip()
            rows[split_of(number)].append({"audio": str(audio.resolve()), "text": text, "speaker": speaker.name})
    for split, clips in rows.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in clips)
        (folder / f"{split}.jsonl").write_text("".join(lines), "utf-8")
        print(f"{split}: {len(clips)} clips")


if __name__ == "__main__":
    corpus, folder = sys.argv[1:] or ("corpus", "my_corpus")
    write_manifests(Path(corpus), Path(folder))
