"""The trained parts as the shipped checkpoint: averaged weights in fp16, and what they score.

python -m recipes.nano.export --work-dir build/nano --text FILE --speech ../shared/speech
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow.parquet as pq
import torch

from recipes.nano.human import read_folder
from recipes.nano.model import JointModel
from recipes.nano.train import Options, Trainer
from tiny_audio.assets import embedded
from tiny_audio.model.modeling import ASRModel
from tiny_audio.text.normalizers import get_normalizer


@torch.no_grad()
def keep_better_weights(trainer: Trainer) -> None:
    """The averaged or the last weights, whichever does better on the validation voices, as `trainer.averaged`."""
    averaged = [parameter.clone() for parameter in trainer.average]
    rates = {"averaged": trainer.word_error_rates(trainer.options.work_dir / "validation", 400)[0]}
    torch._foreach_copy_(trainer.average, trainer.weights)
    rates["last"] = trainer.word_error_rates(trainer.options.work_dir / "validation", 400)[0]
    if rates["averaged"] <= rates["last"]:
        torch._foreach_copy_(trainer.average, averaged)
    print(", ".join(f"{name} weights: validation WER {rate:.4f}" for name, rate in rates.items()))


def export(joint: JointModel, folder: Path) -> None:
    """Writes a self-contained checkpoint in fp16, without the code that the package already has."""
    joint.asr.half().save_pretrained(folder, self_contained=True)
    joint.asr.float()
    for file in folder.glob("*.py"):
        file.unlink()
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    for key in ("auto_map", "custom_pipelines"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def word_error_rate(model: ASRModel, audio: list, texts: list[str]) -> float:
    """WER of the production path, with the normaliser that keeps digits apart."""
    import jiwer

    normalize = get_normalizer("basic")
    hypotheses = model.transcribe(audio, batch_size=32)
    return jiwer.wer([normalize(text) for text in texts], [normalize(text) for text in hypotheses])


def report(folder: Path, corpus: Path, speech: Path | None) -> dict[str, float]:
    """WER of an exported checkpoint on the corpus and on human digits (of speakers it knows; of one it does not)."""
    model = ASRModel.from_pretrained(folder)
    rates = {}
    for split in ("validation", "test"):
        rows = pq.read_table(corpus / f"{split}.parquet").to_pylist()
        rates[f"{corpus.name}/{split}"] = word_error_rate(
            model, [r["audio"]["bytes"] for r in rows], [r["text"] for r in rows]
        )
    for split in ("validation", "test") if speech is not None else ():
        rows = read_folder(speech / "spoken-digits" / split)
        rates[f"spoken-digits/{split}"] = word_error_rate(model, [r["path"] for r in rows], [r["text"] for r in rows])
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Options.work_dir)
    parser.add_argument("--text", type=Path, help="as in training: the tokenizer is made again from it")
    parser.add_argument("--output", type=Path, default=embedded("nano"))
    parser.add_argument("--corpus", type=Path, default=embedded("quickstart"), help="folder of the corpus to score")
    parser.add_argument("--speech", type=Path, help="folder of human recordings to score")
    options = parser.parse_args()
    trainer = Trainer(Options(work_dir=options.work_dir, text=options.text))
    trainer.load()
    keep_better_weights(trainer)
    export(trainer.averaged, options.output)
    print(f"step {trainer.step}, {trainer.elapsed / 60:.0f} minutes")
    for name, rate in report(options.output, options.corpus, options.speech).items():
        print(f"{name}: WER {rate:.4f}")


if __name__ == "__main__":
    main()
