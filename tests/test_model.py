"""ASRModel and its processor: the prompt, the loss, decoding, long audio, streaming; one clip or many, the same text."""

import threading
import time
import wave
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tiny_audio import ASRConfig, ASRModel, ASRProcessor
from tiny_audio.model.streaming import stream_text
from tiny_audio.transcription import AudioFile, transcribe_files


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return ASRModel.from_pretrained(tiny_checkpoint)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)


def test_prompt_is_the_published_one(model):
    processor = model.processor
    ids = processor(noise(1.0))["input_ids"][0]
    count = processor.audio_token_count(16_000)
    expected = f"<|im_start|>user\n{'<audio>' * count} Transcribe the speech to text<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert processor.tokenizer.decode(ids) == expected
    assert count == 12  # 100 mel frames → 50 encoder frames → 12 stacks of 4


def test_system_prompt_is_added_only_when_set(tiny_checkpoint):
    config = ASRConfig.from_pretrained(tiny_checkpoint, system_prompt="be exact")
    text = ASRProcessor.from_pretrained(tiny_checkpoint, config=config)
    assert text.tokenizer.decode(text(noise(0.1))["input_ids"][0]).startswith("<|im_start|>system\nbe exact<|im_end|>")


def test_a_decoder_without_chat_template_gets_a_plain_prompt(tiny_checkpoint):
    processor = ASRProcessor.from_pretrained(tiny_checkpoint)
    processor.tokenizer.chat_template = None
    decoded = processor.tokenizer.decode(processor(noise(0.04))["input_ids"][0])
    assert decoded == "<audio> Transcribe the speech to text\n"


@pytest.mark.parametrize("samples", [1, 159, 320, 1_120, 1_280, 16_000, 16_159, 479_999, 480_000])
def test_audio_tokens_promised_are_those_the_model_makes(model, samples):
    waveform = noise(samples / 16_000)[:samples] if samples >= 160 else np.full(samples, 0.1, np.float32)
    inputs = model.processor(waveform)
    embeddings, counts = model.encode_audio(inputs["input_features"], inputs["audio_attention_mask"])
    assert counts.tolist() == [model.processor.audio_token_count(samples)] == [embeddings.shape[1]]
    assert int((inputs["input_ids"] == model.config.audio_token_id).sum()) == counts.item() >= 1
    assert inputs["audio_attention_mask"].sum() == max(1, samples // 160)


def test_generation_prompts_are_left_padded_and_training_rows_right_padded(model):
    clips = [noise(0.5), noise(2.0)]
    prompts = model.processor(clips)
    assert prompts["attention_mask"][0, 0] == 0 and prompts["attention_mask"][:, -1].all()
    rows = model.processor(clips, text=["one", "two three"])
    assert rows["attention_mask"][:, 0].all() and rows["attention_mask"][0, -1] == 0


def test_labels_are_the_answer_and_its_end_only(model):
    processor = model.processor
    batch = processor([noise(0.5), noise(1.0)], text=["one", "two three"])
    for row, text in enumerate(["one", "two three"]):
        labels = batch["labels"][row]
        kept = labels[labels != -100].tolist()
        assert processor.tokenizer.decode(kept) == text + "<|im_end|>"
        position = int((labels != -100).nonzero()[0])
        # the position before the first label is the last of the prompt: training and inference see the same prompt
        prompt = processor([noise(0.5), noise(1.0)][row])["input_ids"][0]
        assert batch["input_ids"][row, :position].tolist() == prompt.tolist()


def test_loss_at_labels_equals_the_loss_over_all_logits(model):
    batch = model.processor([noise(0.5), noise(1.0, 1)], text=["one", "two three four"])
    output = model(**batch)
    labels = batch.pop("labels")
    logits = model(**batch).logits
    reference = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    torch.testing.assert_close(output.loss, reference, atol=1e-5, rtol=0)
    assert output.num_label_tokens == (labels[:, 1:] != -100).sum()


def test_only_the_projector_learns_and_frozen_parts_stay_in_inference_mode(tiny_checkpoint):
    model = ASRModel.from_pretrained(tiny_checkpoint).train()
    assert not model.encoder.training and not model.language_model.training and model.projector.training
    model(**model.processor([noise(0.5)], text=["one"])).loss.backward()
    with_gradient = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {"projector"}


def test_length_mismatch_is_an_error_not_zeros(model):
    inputs = model.processor(noise(1.0))
    ids = inputs["input_ids"].clone()
    ids[0, (ids[0] == model.config.audio_token_id).nonzero()[0]] = 0
    with pytest.raises(ValueError, match=r"hold \[11\] <audio> tokens, the clips give \[12\]"):
        model(input_ids=ids, input_features=inputs["input_features"])


def test_batch_order_and_size_change_no_text(model):
    clips = [noise(seconds, seed) for seed, seconds in enumerate([0.4, 33.0, 2.2, 0.02, 1.0])]
    alone = [model.transcribe(clip) for clip in clips]
    assert model.transcribe(clips, batch_size=1) == alone
    assert model.transcribe(clips, batch_size=16) == alone
    assert model.transcribe(clips[::-1], batch_size=3) == alone[::-1]


def test_generate_makes_its_own_prompts_and_returns_new_tokens_only(model):
    inputs = model.processor([noise(1.0), noise(2.5, 1)])
    with_prompt = model.generate(**inputs, max_new_tokens=6)
    features, mask = inputs["input_features"], inputs["audio_attention_mask"]
    assert torch.equal(with_prompt, model.generate(features, mask, max_new_tokens=6))
    assert torch.equal(with_prompt, model.generate(input_features=features, attention_mask=mask, max_new_tokens=6))
    assert with_prompt.shape[1] <= 6
    with pytest.raises(ValueError, match="audio_attention_mask"):
        model.generate(input_features=features, attention_mask=inputs["attention_mask"])


def test_generation_parameters_reach_generate(model):
    inputs = model.processor(noise(1.0))
    assert model.generate(**inputs, max_new_tokens=3).shape == (1, 3)
    torch.manual_seed(0)
    sampled = [model.transcribe(noise(1.0), do_sample=True, temperature=5.0, max_new_tokens=8) for _ in range(4)]
    assert len(set(sampled)) > 1
    beams = model.generate(**inputs, num_beams=4, num_return_sequences=4, max_new_tokens=5)
    assert beams.shape[0] == 4
    with pytest.raises(ValueError, match="nonsense"):
        model.generate(**inputs, nonsense=1)


def test_the_audio_token_is_never_predicted(tiny_checkpoint):
    model = ASRModel.from_pretrained(tiny_checkpoint)
    with torch.no_grad():  # the head now prefers <audio> to all else
        weight = model.language_model.get_output_embeddings().weight
        weight[model.config.audio_token_id] = 100 * weight.abs().max()
        weight[model.config.audio_token_id, ::2] *= -1
    ids = model.generate(**model.processor(noise(1.0)), max_new_tokens=8)
    assert model.config.audio_token_id not in ids


def test_repeated_words_are_kept(model):
    assert model.processor.batch_decode(model.processor.tokenizer(["no no no 2000"])["input_ids"]) == ["no no no 2000"]
    assert model.config.generation_defaults()["repetition_penalty"] == 1.0
    assert model.config.generation_defaults()["no_repeat_ngram_size"] == 0


def test_long_audio_is_cut_and_every_window_decoded(model):
    audio = noise(70.0)
    (transcript,) = transcribe_files(model, [AudioFile("noise", audio, Path("noise"))])
    segments = transcript.segments
    assert len(segments) == 3 and segments[0].start == 0 and segments[-1].end == 70.0
    assert all(a.end == b.start for a, b in pairwise(segments))
    assert model.transcribe(audio) == transcript.text == " ".join(filter(None, (s.text for s in segments)))


def test_digital_silence_gives_no_text(model):
    assert model.transcribe(np.zeros(16_000, np.float32)) == ""
    assert list(model.stream_transcribe(np.zeros(16_000, np.float32))) == []


def test_two_hours_of_silence_in_bounded_memory(model, tmp_path):
    import resource

    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        for _ in range(120):
            file.writeframes(bytes(2 * 8_000 * 60))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert model.transcribe(tmp_path / "long.wav") == ""
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # MiB
    assert grown < 100  # the whole of it as float32 at 16 kHz would be 440 MiB


def test_forms_of_audio(model, tmp_path):
    clip = noise(1.0)
    path = tmp_path / "clip.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((clip * 32767).astype(np.int16).tobytes())
    from_file = model.transcribe(path)
    assert model.transcribe([path, str(path), path.read_bytes()]) == [from_file] * 3
    assert model.processor([str(path), path.read_bytes()])["input_features"].shape[0] == 2
    texts = {
        model.transcribe(form) for form in (clip, list(map(float, clip)), {"array": clip, "sampling_rate": 16_000})
    }
    assert len(texts) == 1
    assert model.transcribe([clip]) == list(texts)
    assert model.transcribe([]) == []


def test_streamed_pieces_join_to_the_text(model):
    for seconds in (1.0, 64.0):
        clip = noise(seconds)
        assert "".join(model.stream_transcribe(clip)).strip() == model.transcribe(clip)


def test_an_error_while_streaming_reaches_the_consumer(model):
    started = time.monotonic()
    with pytest.raises(ValueError, match="nonsense"):
        list(model.stream_transcribe(noise(1.0), nonsense=1))
    assert time.monotonic() - started < 10


def test_an_abandoned_stream_stops_decoding(model):
    threads = threading.active_count()
    generate = partial(model.generate, **model.processor(noise(1.0)), max_new_tokens=2_000, min_new_tokens=1_999)
    stream = stream_text(generate, SimpleNamespace(decode=lambda ids: "x" * len(ids)))
    assert next(stream) == "x"
    started = time.monotonic()
    stream.close()
    assert threading.active_count() == threads and time.monotonic() - started < 2


def test_threads_do_not_disturb_each_other(model):
    clips = [noise(0.5 + index / 2, index) for index in range(4)]
    expected = [model.transcribe(clip) for clip in clips]
    results: dict[int, str] = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: model.transcribe(clips[i])})) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [results[index] for index in range(4)] == expected


def test_too_long_for_the_window_says_so(model):
    with pytest.raises(ValueError, match=r"33.0 s exceeds the encoder's window of 30 s"):
        model.processor(noise(33.0))
