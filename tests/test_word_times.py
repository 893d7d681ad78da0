"""Word times from end to end: known boundaries are hit, the pipeline and `ta transcribe` give them, a head is trained."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recipes.nano.synthesize import Voice, speak
from recipes.word_times import (
    aligned,
    digit_strings,
    errors_of_recognised,
    errors_of_text,
    join,
    sentences,
)
from tiny_audio import ASRModel, ASRPipeline, embedded, load_audio
from tiny_audio.audio.segment import Window
from tiny_audio.cli.main import run
from tiny_audio.data.collator import ctc_labels
from tiny_audio.model.alignment import Word
from tiny_audio.training import compose, train
from tiny_audio.training.build import build_model, outline, part_sizes
from tiny_audio.training.ctc import CHARACTERS, ctc_loss, ctc_texts, leaves_head_behind
from tiny_audio.training.validation import Validation
from tiny_audio.transcription import phrases

CLIP = embedded("clips") / "send-a-message-to-jack.ogg"


@pytest.fixture(scope="module")
def model(nano):
    return ASRModel.from_pretrained(nano)


@pytest.fixture(scope="module")
def pipe(model):
    return ASRPipeline(model=model)


def check(errors: np.ndarray) -> None:
    """Median 60 ms, 95 % within 200 ms, of the starts and of the ends."""
    assert np.median(abs(errors), axis=0).max() <= 0.06
    assert np.percentile(abs(errors), 95, axis=0).max() <= 0.2


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize(
    ("gaps", "snr_db"), [((0.05, 0.4), None), ((0.0, 0.0), None), ((0.05, 0.4), 15.0)], ids=["gaps", "none", "noise"]
)
def test_joined_human_digits_start_and_end_where_they_do(model, speech, split, gaps, snr_db):
    check(errors_of_text(model, digit_strings(speech / "spoken-digits" / split, 12, gaps, snr_db)))


def test_what_is_recognised_is_timed_as_well(model, speech):
    found = errors_of_recognised(model, digit_strings(speech / "spoken-digits" / "validation", 12))
    assert len(found) >= 30
    check(found)


def test_joined_sentences_start_and_end_where_they_do(model):
    check(errors_of_text(model, sentences(5)))


def test_five_words_with_a_number_among_them(model):
    """The head has no digits; each word was spoken by itself, so where it lies is known."""
    if not shutil.which("espeak-ng"):
        pytest.skip("espeak-ng is not installed")
    text = "i have 42 apples now"
    for name in ("max", "pedro", "Mike"):  # voices that nano has not heard
        voice = Voice("espeak", "en-us", name, 50, 150)
        clips = [(speak(voice, said), said) for said in text.split()]
        joined = join(np.random.default_rng(0), clips, (0.05, 0.3), None)
        words = aligned(model, joined.waveform, text)
        assert [word.text for word in words] == text.split()
        for word, (_, start, end) in zip(words, joined.truth, strict=True):
            assert (word.start, word.end) == pytest.approx((start, end), abs=0.06)
        assert words[2].confidence is None and all(0 <= word.confidence <= 1 for word in words if word.text != "42")


def test_the_pipeline_times_words(pipe):
    expected = pipe(CLIP)["text"]
    timed = pipe(CLIP, return_timestamps="word")
    assert timed["text"] == expected == " ".join(chunk["text"] for chunk in timed["chunks"])
    edges = [edge for chunk in timed["chunks"] for edge in chunk["timestamp"]]
    assert edges == sorted(edges) and all(chunk["confidence"] > 0.5 for chunk in timed["chunks"])
    assert pipe([CLIP, CLIP], return_timestamps="word", batch_size=2) == [timed, timed]
    assert list(pipe((clip for clip in [CLIP, CLIP]), return_timestamps="word")) == [timed, timed]
    assert pipe(np.zeros(8_000, np.float32), return_timestamps="word") == {"text": "", "chunks": []}
    assert "chunks" not in pipe(CLIP)
    for wrong in (True, "char"):
        with pytest.raises(ValueError, match='expected "word"'):
            pipe(CLIP, return_timestamps=wrong)


def test_the_pipelines_options_act_for_a_call_and_for_all_calls(model, pipe):
    short = pipe(CLIP, max_new_tokens=1)["text"]
    assert pipe(CLIP)["text"].startswith(short) and short != pipe(CLIP)["text"]
    assert pipe(CLIP, generate_kwargs={"max_new_tokens": 1})["text"] == short
    always = ASRPipeline(model=model, max_new_tokens=1, return_timestamps="word")(CLIP)
    assert always["text"] == short and len(always["chunks"]) == 1


def test_times_count_from_the_start_of_the_recording_and_the_encoder_runs_once_a_window(model, pipe):
    clip = load_audio(CLIP)
    alone = pipe(clip, return_timestamps="word")["chunks"]
    pause = 4.0  # seconds from one clip to the next: the windows are cut between them
    long = np.concatenate([np.pad(clip, (0, int(pause * 16_000) - len(clip)))] * 3)
    calls = []
    handle = model.encoder.register_forward_hook(lambda *_: calls.append(1))
    chunks = pipe(long, return_timestamps="word", chunk_length_s=5)["chunks"]
    handle.remove()
    assert [chunk["text"] for chunk in chunks] == [chunk["text"] for chunk in alone] * 3
    assert len(calls) == len(list(model.windows(long, 5 * 16_000)))
    for n, chunk in enumerate(chunks):
        turn, place = divmod(n, len(alone))
        expected = [turn * pause + edge for edge in alone[place]["timestamp"]]
        assert chunk["timestamp"] == pytest.approx(expected, abs=0.06)


def test_no_word_lies_in_the_padding_of_its_batch(model):
    waveform = load_audio(CLIP)
    inputs = model.processor(waveform)
    with torch.no_grad():
        frames, _ = model.encoder(inputs["input_features"], inputs["audio_attention_mask"].sum(-1))
        own = frames.shape[1] // 2  # as if the rest, in which the word is said, were padding
        ((word,),) = model._words(["jack"], (frames, torch.tensor([own])), [Window(waveform, 0)])
    assert word.start < own * model.encoder.frame_seconds


def test_the_head_has_the_precision_of_the_model(nano):
    assert {tensor.dtype for tensor in ASRModel.from_pretrained(nano, dtype="bfloat16").ctc_head.parameters()} == {
        torch.bfloat16
    }


def test_transcribe_writes_cues_of_words_and_phrases(model, capsys):
    def printed(*options: str) -> str:
        assert run(["transcribe", str(CLIP), *options]) == 0
        return capsys.readouterr().out

    words = printed("--timestamps", "word", "-f", "srt").split("\n\n")
    assert [cue.split("\n")[2] for cue in words] == ["send", "a", "message", "to", "jack"]
    assert printed("--timestamps", "phrase", "-f", "vtt").splitlines()[-1] == "send a message to jack"
    document = json.loads(printed("--timestamps", "phrase", "-f", "json"))
    (segment,) = document["segments"]
    assert [word["text"] for word in segment["words"]] == segment["text"].split() == document["text"].split()
    assert all(set(word) == {"text", "start", "end", "confidence"} for word in segment["words"])
    assert segment["start"] == segment["words"][0]["start"] and segment["end"] == segment["words"][-1]["end"]
    lines = [line.split("\t") for line in printed("--timestamps", "word").splitlines()]
    assert [line[2] for line in lines] == segment["text"].split() and float(lines[0][0]) == segment["start"]


def test_a_checkpoint_without_a_head_says_so_in_one_line(tiny_checkpoint, capsys):
    assert run(["transcribe", "-m", str(tiny_checkpoint), "--timestamps", "word", str(CLIP)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: Word times need a CTC head") and error.count("\n") == 1


def test_phrases_end_at_pauses_sentences_and_the_length_of_a_subtitle():
    def said(text: str, gaps: dict[int, float] = {}) -> list[str]:  # noqa: B006 (never changed)
        words, now = [], 0.0
        for n, word in enumerate(text.split()):
            now += gaps.get(n, 0.05)
            words.append(Word(word, now, now + 0.3, None))
            now += 0.3
        return [" ".join(word.text for word in phrase) for phrase in phrases(words)]

    assert said("one two three four", {2: 0.6}) == ["one two", "three four"]
    assert said("that is it. and on") == ["that is it.", "and on"]
    assert [len(phrase.split()) for phrase in said("a " * 40)] == [20, 20]  # 7 s
    assert max(map(len, said("incomprehensibilities " * 8))) <= 84


# ---- training

QUICK = (
    "training.report_to=none", "training.logging_steps=1", "training.eval_steps=null", "training.save_steps=null",
    "data.max_train_samples=24", "data.max_eval_samples=4", "training.batch_seconds=15",
)  # fmt: skip
ALONE = ("model.pretrained=nano", "model.ctc_head=true", "model.freeze_projector=true")


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def headless(nano, tmp_path) -> Path:
    """nano as it would be without its head."""
    model = ASRModel.from_pretrained(nano)
    model.ctc_head, model.config.ctc_vocabulary = None, None
    model.save_pretrained(tmp_path / "headless")
    return tmp_path / "headless"


def test_a_head_is_trained_alone_on_a_finished_checkpoint(headless, tmp_path):
    overrides = [
        *QUICK,
        *ALONE[1:],
        f"model.pretrained={headless}",
        "training.max_steps=30",
        "training.learning_rate=2e-2",
    ]
    result = train(compose(None, overrides, output_dir=tmp_path / "run"))
    losses = [entry["ctc_loss"] for entry in log_of(result.folder) if "ctc_loss" in entry]
    assert losses == [entry["loss"] for entry in log_of(result.folder) if "loss" in entry]
    assert losses[-1] < losses[0] / 3 and result.wer < 1
    before, after = (load_file(folder / "model.safetensors") for folder in (headless, result.model))
    assert set(after) - set(before) == {"ctc_head.weight", "ctc_head.bias"}
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert ASRModel.from_pretrained(result.model).config.ctc_vocabulary == CHARACTERS


def test_a_head_beside_the_projector_changes_nothing_for_it(tiny_parts, tmp_path):
    parts = [f"model.audio_model_id={tiny_parts}/encoder", f"model.text_model_id={tiny_parts}/decoder"]
    runs = {}
    for name, more in {"with": ["model.ctc_head=true"], "without": []}.items():
        overrides = [
            *parts,
            *QUICK,
            "model.projector_hidden_dim=32",
            "training.max_steps=2",
            "training.max_grad_norm=0",
        ]
        runs[name] = train(compose(None, [*overrides, *more], output_dir=tmp_path / name)).model
    trained = {name: load_file(folder / "model.safetensors") for name, folder in runs.items()}
    assert {name for name in trained["with"] if name not in trained["without"]} == {"ctc_head.weight", "ctc_head.bias"}
    assert all(torch.equal(tensor, trained["with"][name]) for name, tensor in trained["without"].items())
    entries = [entry for entry in log_of(tmp_path / "with") if "loss" in entry]
    assert all(entry["loss"] > entry["ctc_loss"] * 0.1 > 0 for entry in entries)
    of_text = log_of(tmp_path / "without")[0]["loss"]
    of_head = compose().training.ctc_loss_weight * entries[0]["ctc_loss"]
    assert entries[0]["loss"] == pytest.approx(of_text + of_head, rel=1e-4)


@pytest.mark.parametrize(
    ("asked", "behind"),
    [([], False), (["model.encoder_lora_rank=2"], True), (["model.encoder_lora_rank=2", "model.ctc_head=true"], False)],
)
def test_a_head_is_left_behind_by_an_encoder_that_is_trained_without_it(asked, behind):
    assert leaves_head_behind(build_model(compose(overrides=["model.pretrained=nano", *asked]).model)) == behind


def test_a_run_that_does_not_ask_for_it_keeps_a_head_as_it_is(nano, tmp_path):
    overrides = [*QUICK, "model.pretrained=nano", "training.max_steps=1"]
    result = train(compose(None, overrides, output_dir=tmp_path))
    before, after = load_file(nano / "model.safetensors"), load_file(result.model / "model.safetensors")
    assert torch.equal(before["ctc_head.weight"].float(), after["ctc_head.weight"])
    assert "ctc_loss" not in log_of(tmp_path)[0]


def test_accumulation_equals_one_large_batch_for_the_head_too(tmp_path):
    sampled = [*QUICK, *ALONE, "data.max_train_samples=2", "training.batch_seconds=100", "training.max_steps=1"]
    two = ["training.batch_size=1", "training.gradient_accumulation_steps=2"]
    losses = []
    for name, more in {"one": [], "two": two}.items():
        train(compose(None, [*sampled, *more], output_dir=tmp_path / name))
        losses.append(log_of(tmp_path / name)[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_head_alone_is_measured_without_the_padding(nano):
    """Clips one by one and in one batch have the same loss and text."""
    model = ASRModel.from_pretrained(nano, dtype="float32").requires_grad_(False)
    model.ctc_head.requires_grad_(True)
    data = compose(None, QUICK).data
    alone, batched = (Validation(data, model.processor, seconds).measure(model) for seconds in (0.1, 100))
    assert batched.loss == pytest.approx(alone.loss, rel=1e-4) and batched.wer == alone.wer


def test_the_best_path_is_read_up_to_the_clips_own_length():
    path = torch.tensor([[1, 1, 0, 1, 28, 2], [3, 0, 3, 3, 1, 1]])
    scores = torch.nn.functional.one_hot(path, len(CHARACTERS)).float()
    assert ctc_texts(scores, torch.tensor([6, 4]), CHARACTERS) == ["aa b", "cc"]


@pytest.fixture(scope="module")
def hubert(tmp_path_factory) -> Path:
    """A random miniature HuBERT fine-tuned for CTC, whose blank is its last token."""
    import transformers

    folder = tmp_path_factory.mktemp("hubert")
    tokens = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "|", "<unk>", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    config = transformers.HubertConfig(
        vocab_size=30, pad_token_id=29, feat_extract_norm="layer", **sizes, **convolutions
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.HubertForCTC(config).save_pretrained(folder)
    names = {"bos_token": None, "eos_token": None, "unk_token": "<unk>", "pad_token": "<pad>"}
    transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **names).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def test_an_encoder_fine_tuned_for_ctc_brings_its_head(hubert, tiny_parts, tmp_path):
    from transformers import HubertForCTC

    overrides = [f"model.audio_model_id={hubert}", f"model.text_model_id={tiny_parts}/decoder", "model.ctc_head=true"]
    settings = compose(None, overrides, output_dir=tmp_path)
    model, theirs = build_model(settings.model), HubertForCTC.from_pretrained(hubert).eval()
    assert model.config.ctc_vocabulary[:3] == ["<pad>", "A", "B"] and not model.ctc_head.weight.requires_grad
    alone = compose(None, [*overrides, "model.freeze_projector=true"], output_dir=tmp_path).model
    assert build_model(alone).ctc_head.weight.requires_grad  # where nothing else is trained
    inner = compose(None, [*overrides, "model.encoder_layer=1"], output_dir=tmp_path).model
    assert build_model(inner).config.ctc_vocabulary == CHARACTERS  # theirs was made for the last layer
    assert [size.total for size in part_sizes(model)] == [size.total for size in part_sizes(outline(settings.model))]
    inputs = model.processor(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))
    frames, lengths = model.encoder(inputs["input_values"], inputs["audio_attention_mask"].sum(-1))
    with torch.no_grad():
        expected = theirs(inputs["input_values"]).logits.log_softmax(-1)
        scores = model.ctc_scores(frames)
    torch.testing.assert_close(scores, expected[..., [29, *range(29)]], atol=1e-4, rtol=0)
    assert model.encoder.frame_seconds == 0.02
    model.save_pretrained(tmp_path / "saved")
    again = ASRModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.ctc_head.weight, model.ctc_head.weight)
    assert ctc_texts(scores, lengths, model.config.ctc_vocabulary)[0].islower()


def test_the_loss_is_that_of_the_texts_that_can_be_spelled():
    labels = ctc_labels(["a cab", "42 cabs", ""], CHARACTERS)
    assert labels.tolist() == [[1, 28, 3, 1, 2], [-100] * 5, [-100] * 5]
    scores = torch.randn(3, 20, len(CHARACTERS), generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    lengths = torch.tensor([20, 18, 5])
    alone = torch.nn.functional.ctc_loss(
        scores[:1].transpose(0, 1), labels[:1], lengths[:1], torch.tensor([5]), reduction="sum"
    )
    torch.testing.assert_close(ctc_loss(scores, lengths, labels), alone)
    assert ctc_loss(scores[1:], lengths[1:], ctc_labels(["42", ""], CHARACTERS)) == 0
    assert ctc_loss(scores[:1], torch.tensor([3]), labels[:1]) == 0  # a text too long for its frames teaches nothing
