"""Prompt variety: training clips get other instructions too, by their place in the run; nothing else ever does."""

import shutil

import pytest
from training_helpers import log_of, weights_of

from tiny_audio import ASRModel
from tiny_audio.data import open_corpus
from tiny_audio.model.processor import INSTRUCTION
from tiny_audio.training import train
from tiny_audio.training.feed import ClipFeed, StreamFeed
from tiny_audio.training.validation import Validation

pytestmark = pytest.mark.usefixtures("one_thread")
VARIETY = "training.prompt_variety=[Write down what is said,Say it again]"


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    return ASRModel.from_pretrained(tiny_checkpoint).processor


def instructions(processor, loader, batches: int) -> list[list[str]]:
    """Those in the prompts of a loader's first batches."""
    found = []
    for _, batch in zip(range(batches), loader, strict=False):
        texts = processor.tokenizer.batch_decode(batch["input_ids"])
        found.append([text.split("<audio> ")[1].split("<|im_end|>")[0] for text in texts])
    return found


def test_every_instruction_is_drawn_and_clips_of_a_batch_differ(settings_of, processor, tmp_path):
    settings = settings_of(tmp_path, VARIETY, "training.max_steps=6")
    feed = ClipFeed(open_corpus(settings.data, "train", max_samples=12), settings, processor.max_samples)
    found = instructions(processor, feed.loader(0, processor), 6)
    assert {text for batch in found for text in batch} == {INSTRUCTION, *settings.training.prompt_variety}
    assert any(len(set(batch)) > 1 for batch in found)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_loader_that_starts_later_draws_the_same(streamed, workers, settings_of, processor, tmp_path):
    settings = settings_of(tmp_path, VARIETY, "training.max_steps=7", f"training.num_workers={workers}")
    if streamed:
        feed = StreamFeed(settings, processor.max_samples)
    else:
        feed = ClipFeed(open_corpus(settings.data, "train", max_samples=12), settings, processor.max_samples)
    whole = instructions(processor, feed.loader(0, processor), 7)
    assert len({tuple(batch) for batch in whole}) > 1
    assert instructions(processor, feed.loader(3, processor), 4) == whole[3:]


def test_a_resumed_run_is_exact_and_validates_with_the_published_instruction(settings_of, tmp_path):
    others = ("training.distillation_weight=0.5", "training.time_masks=2", "training.audio_token_dropout=0.1")
    options = (VARIETY, *others, "training.max_steps=6", "training.save_steps=3")
    settings = settings_of(tmp_path / "whole", *options)
    train(settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-6")
    train(settings_of(tmp_path / "again", *options), resume="auto")
    for key in ("loss", "distillation_loss", "grad_norm", "eval_loss"):
        assert log_of(tmp_path / "again", key) == pytest.approx(log_of(tmp_path / "whole", key), abs=1e-5), key
    model = ASRModel.from_pretrained(tmp_path / "whole" / "best")
    alone = Validation(settings_of(tmp_path).data, model.processor, settings.training.batch_seconds).measure(model)
    assert log_of(tmp_path / "whole", "eval_loss") == [pytest.approx(alone.loss, abs=1e-5)]
    (prompt, *_) = model.processor.tokenizer.batch_decode(model.processor.prompts([1])["input_ids"])
    assert INSTRUCTION in prompt


def test_the_published_instruction_alone_changes_nothing(settings_of, tmp_path):
    """The draw takes nothing from the random numbers of training."""
    train(settings_of(tmp_path / "off"))
    train(settings_of(tmp_path / "on", f"training.prompt_variety=[{INSTRUCTION}]"))
    off, on = weights_of(tmp_path / "off"), weights_of(tmp_path / "on")
    assert all(on[name].equal(tensor) for name, tensor in off.items())
