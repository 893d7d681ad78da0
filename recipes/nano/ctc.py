"""nano's CTC head, for word times: a corpus for it, `ta train` of the head alone, and its tensors in the checkpoint.

python -m recipes.nano.ctc --work-dir build/nano --speech ../shared/speech
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from safetensors.torch import load_file, save_file

from recipes.nano.corpus import corpus_row, write_parquet
from recipes.nano.human import Clip, digit_clips, plain_clips, read_speech
from recipes.nano.synthesize import LISTENING_FLITE_SHARE, Job, listening, plan, render
from tiny_audio.assets import embedded
from tiny_audio.training import compose, train

SEED = 11  # nano itself has heard the utterances of others


def spoken(jobs: Iterable[Job], count: int) -> Iterator[Clip]:
    """The first `count` utterances."""
    for job in islice(jobs, count):
        yield render(job), {"text": job.text, "speaker": job.voice.speaker}


def training_clips(count: int, speech: Path | None) -> Iterator[Clip]:
    """Sentences of nano's domain, words in no order; with human recordings digits alone and in strings, and sentences."""
    yield from spoken(plan("train", SEED), count)
    yield from spoken(plan("train", SEED + 2, listening, LISTENING_FLITE_SHARE), count)
    if speech is None:
        return
    yield from digit_clips(speech / "spoken-digits" / "train", strings=count // 2, singles_each=1, seed=SEED)
    yield from read_speech(speech / "librispeech-small" / "train")


def rows(clips: Iterable[Clip]) -> list[dict]:
    """The corpus rows of clips."""
    return [corpus_row(clip, row["text"], row["speaker"], str(index)) for index, (clip, row) in enumerate(clips)]


def write_corpus(folder: Path, count: int, speech: Path | None) -> None:
    """Training and validation clips; unheard voices and other takes of known human speakers validate."""
    folder.mkdir(parents=True, exist_ok=True)
    humans = [] if speech is None else plain_clips(speech / "spoken-digits" / "validation")
    write_parquet(folder / "validation.parquet", rows([*spoken(plan("validation", SEED), 100), *humans]))
    write_parquet(folder / "train.parquet", rows(training_clips(count, speech)))


def train_head(folder: Path, corpus: Path, steps: int, nano: Path) -> Path:
    """The head alone, on a checkpoint's encoder (a head that it has is trained on); the best checkpoint."""
    what = (f"model.pretrained={nano}", "model.ctc_head=true", "model.freeze_projector=true")
    how = ("training.learning_rate=5e-3", "training.warmup_steps=50", "training.batch_seconds=150")
    length = (f"training.max_steps={steps}", f"training.eval_steps={max(1, steps // 5)}", "data.max_eval_samples=null")
    settings = compose(None, [*what, *how, *length, "training.report_to=none"], data=str(corpus), output_dir=folder)
    return train(settings).model


def ship(trained: Path, nano: Path) -> None:
    """The head's tensors in fp16 and its characters into a checkpoint, all else of which stays as it is."""
    tensors = load_file(trained / "model.safetensors")
    head = {name: tensor.half() for name, tensor in tensors.items() if name.startswith("ctc_head.")}
    file, config = nano / "model.safetensors", json.loads((nano / "config.json").read_text())
    save_file({**load_file(file), **head}, file, metadata={"format": "pt"})
    file.chmod(0o644)
    config["ctc_vocabulary"] = json.loads((trained / "config.json").read_text())["ctc_vocabulary"]
    (nano / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("build/nano"))
    parser.add_argument("--speech", type=Path, help="folder of human recordings; only `train` splits are trained on")
    parser.add_argument(
        "--count", type=int, default=2000, help="sentences, and as many utterances of words in no order"
    )
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--output", type=Path, default=embedded("nano"), help="checkpoint that gets the head")
    options = parser.parse_args()
    corpus = options.work_dir / "ctc-corpus"
    if not (corpus / "train.parquet").exists():
        write_corpus(corpus, options.count, options.speech)
    run = options.work_dir / "ctc-run"
    shutil.rmtree(run, ignore_errors=True)  # of an earlier time
    ship(train_head(run, corpus, options.steps, options.output), options.output)


if __name__ == "__main__":
    main()
