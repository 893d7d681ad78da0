"""Other people's recognisers: miniatures of each family, batched as one by one, long clips whole, errors of one line."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluation_helpers import RATE, settings_for, texts_of, write_corpus
from recognisers import LETTER_MODELS, OTHERS, save_recogniser

from tiny_audio.audio.reading import load_audio
from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.providers import choose_provider, open_provider
from tiny_audio.evaluation.results import Metrics, read_results
from tiny_audio.evaluation.run import evaluate
from tiny_audio.evaluation.settings import EvalSettings

pytestmark = pytest.mark.usefixtures("one_thread")

LIBRARIES = {"granite-speech": "torchaudio", "voxtral": "mistral_common"}  # what their processors need
HERE = [name for name in [*LETTER_MODELS, *OTHERS] if importlib.util.find_spec(LIBRARIES.get(name, "torch"))]
BATCHED = set(HERE) - {"wav2vec2-group", "granite-speech"}
NEW_TOKENS = 10  # in 30 s


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Clips of 0.05 to 2 s, and one of 33 s."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), [0.05, 0.3, 0.77, 1.0, 1.513, 1.9, 2.0, 33.0])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`saved(name)` → the folder of a miniature; each is made once."""
    folder = tmp_path_factory.mktemp("recognisers")
    return lambda name: folder / name if (folder / name).exists() else save_recogniser(name, folder / name)


@pytest.fixture(scope="module", params=HERE)
def family(request) -> str:
    return request.param


def command(model: Path, corpus: Path, output: Path, *options: str) -> Metrics:
    arguments = ["eval", "-m", str(model), "-d", str(corpus), "--device", "cpu", "--output-dir", str(output)]
    assert run([*arguments, *options]) == 0
    return Metrics.read(output)


def opened(model: Path, **options):
    return open_provider(EvalSettings(model=str(model), device="cpu", **options))


def test_batches_change_no_text(family: str, saved, corpus: Path, tmp_path: Path) -> None:
    """No clip is lost, the one of 33 s and the one of 50 ms included, and the texts are the same whatever the batch."""
    options = [] if family in LETTER_MODELS or family == "parakeet" else ["--max-new-tokens", str(NEW_TOKENS)]
    one = command(saved(family), corpus, tmp_path / "1", "--batch-size", "1", *options)
    four = command(saved(family), corpus, tmp_path / "4", "--batch-size", "4", *options)
    texts = texts_of(four.folder)
    assert texts == texts_of(one.folder) and one.wer == four.wer
    assert four.num_failed == 0 and four.num_samples == 8 and all(texts.values())
    assert len(set(texts.values())) >= 4  # the model does hear a difference
    assert four.provider == "huggingface" and four.rtfx > 0
    assert four.decoding["model_batch_size"] == (4 if family in BATCHED else 1)


def test_long_clips_are_heard_to_their_end(family: str, saved, corpus: Path) -> None:
    """Another sound in the last three of 33 seconds makes another text."""
    clip = load_audio(corpus.parent / "007.wav")
    provider = opened(saved(family), max_new_tokens=NEW_TOKENS)
    ends = [np.random.default_rng(seed).uniform(-level, level, 3 * RATE) for seed, level in enumerate((0, 0.05, 0.9))]
    altered = [np.concatenate([clip[: 30 * RATE], end]).astype(np.float32) for end in ends]
    texts = [provider.transcribe([audio])[0].text for audio in (clip, *altered)]
    assert all(texts) and len(set(texts)) > 1


@pytest.mark.parametrize("name", LETTER_MODELS)
def test_letters_are_those_of_the_pipeline(name: str, saved, corpus: Path, tmp_path: Path) -> None:
    from transformers import pipeline

    recogniser = pipeline("automatic-speech-recognition", model=str(saved(name)), device="cpu")
    metrics = evaluate(settings_for(saved(name), corpus, tmp_path, batch_size=4))
    for number in range(1, 7):
        clip = load_audio(corpus.parent / f"{number:03d}.wav")
        assert texts_of(metrics.folder)[f"clip-{number:03d}"] == recogniser(clip)["text"]


def test_beams_and_new_tokens_reach_whisper(saved, corpus: Path, tmp_path: Path) -> None:
    greedy = command(saved("whisper"), corpus, tmp_path / "1", "--max-new-tokens", "6")
    beams = command(saved("whisper"), corpus, tmp_path / "2", "--max-new-tokens", "6", "--num-beams", "3")
    longer = command(saved("whisper"), corpus, tmp_path / "3", "--max-new-tokens", "12")
    assert (beams.decoding["num_beams"], beams.decoding["max_new_tokens"]) == (3, 6)
    texts, more = texts_of(greedy.folder), texts_of(longer.folder)
    assert texts != texts_of(beams.folder)
    short = [name for name in texts if name != "clip-007"]
    assert all(len(more[name]) > len(texts[name]) for name in short)


def test_each_clip_has_its_own_limit_of_new_tokens(saved, corpus: Path) -> None:
    """Two windows' worth for 33 s, one for the short clip beside it."""
    clips = [load_audio(corpus.parent / name) for name in ("007.wav", "006.wav")]
    provider = opened(saved("glmasr"), max_new_tokens=NEW_TOKENS, batch_size=2)
    tokens: list[list[int]] = []
    decode = provider.recogniser.processor.decode
    provider.recogniser.processor.decode = lambda rows, **options: (tokens.extend(rows), decode(rows, **options))[1]
    provider.transcribe(clips)
    assert [len(row) for row in tokens] == [2 * NEW_TOKENS, NEW_TOKENS]


@pytest.mark.parametrize(
    "name, answer",
    [
        ("qwen3-asr", "language English<asr_text>one two."),
        ("audioflamingo3", 'The spoken content of the audio is "one two.".'),
        ("glmasr", "one two."),
    ],
)
def test_what_a_model_says_around_the_text_is_taken_off(name: str, answer: str, saved) -> None:
    recogniser = opened(saved(name)).recogniser
    tokens = recogniser.processor.tokenizer.encode(answer, add_special_tokens=False)
    assert recogniser.processor.decode([tokens], **recogniser._parsing()) == ["one two."]


@pytest.mark.parametrize("name", ["wav2vec2-layer", "whisper"])
def test_word_times(name: str, saved, corpus: Path, tmp_path: Path) -> None:
    metrics = evaluate(settings_for(saved(name), corpus, tmp_path, word_times=True, batch_size=4))
    assert metrics.num_failed == 0
    for result in read_results(metrics.folder):
        assert result.words is not None
        assert all(0 <= word["start"] <= word["end"] <= max(result.duration, 0.1) + 0.05 for word in result.words)
        spoken = [word["text"] for word in result.words]
        assert "".join(spoken).replace(" ", "") == result.prediction.replace(" ", "")


@pytest.mark.parametrize("name", ["glmasr", "parakeet"])
def test_no_word_times_is_said(name: str, saved) -> None:
    with pytest.raises(TinyAudioError, match="gives no times of words; Whisper and CTC"):
        opened(saved(name), word_times=True)


def test_no_first_token_is_said(saved) -> None:
    with pytest.raises(TinyAudioError, match="gives no stream of text; leave out --first-token"):
        opened(saved("whisper"), first_token=True)


def test_the_provider_chooses_itself(nano: Path, saved) -> None:
    for model, provider in ((nano, "local"), (saved("whisper"), "huggingface")):
        assert choose_provider(EvalSettings(model=str(model))) == provider
    assert choose_provider(EvalSettings(provider="tiny-audio")) == "local"
    assert choose_provider(EvalSettings(model=str(nano), provider="huggingface")) == "huggingface"


def test_a_model_that_is_no_recogniser(tiny_parts: Path) -> None:
    with pytest.raises(TinyAudioError, match="decoder cannot be loaded"):
        opened(tiny_parts / "decoder")


def test_an_encoder_without_a_head_is_no_recogniser(saved, tmp_path: Path) -> None:
    from transformers import HubertModel

    folder = shutil.copytree(saved("hubert"), tmp_path / "encoder")
    HubertModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(TinyAudioError, match="holds no lm_head"):
        opened(folder)


def test_remote_code_needs_consent(saved, tmp_path: Path) -> None:
    folder = shutil.copytree(saved("whisper"), tmp_path / "custom")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "custom-asr", "auto_map": {"AutoConfig": "custom.CustomConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "custom.py").write_text("raise SystemExit('remote code ran')\n")
    with pytest.raises(TinyAudioError, match="--trust-remote-code"):
        opened(folder)


def test_a_missing_library_is_named_in_one_line(saved, monkeypatch) -> None:
    """What a processor raises that needs a library which is not there."""
    provider = opened(saved("glmasr"))

    def request(*_, **__):
        raise ImportError("\nThis processor needs nolib.\nInstall it with pip.\n")

    monkeypatch.setattr(provider.recogniser.processor, "apply_transcription_request", request)
    with pytest.raises(TinyAudioError, match="cannot be asked: This processor needs nolib. Install it with pip"):
        provider.transcribe([np.zeros(RATE, np.float32)])
