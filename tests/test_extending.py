"""docs/extending.md: its examples are the files in examples/, and each does what the page says: trains, evaluates, loads alone."""

import csv
import json
import re
import shutil
import subprocess
import sys
import threading
import wave
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from miniatures import RAW
from recognisers import save_whisper

from tiny_audio import ASRConfig, ASRModel, embedded, load_audio
from tiny_audio.cli.main import run
from tiny_audio.encoders import ENCODER_ADAPTERS  # with the shipped ones in it
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation import providers
from tiny_audio.evaluation.providers import PROVIDERS, choose_provider
from tiny_audio.evaluation.results import Metrics
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.model.encoders import adapter_for
from tiny_audio.model.projectors import build_projector
from tiny_audio.projectors import PROJECTOR_CLASSES
from tiny_audio.training.feature_cache import cache_folder

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLES = REPOSITORY / "examples"
PAGE = REPOSITORY / "docs" / "extending.md"
FILES = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".yaml"))
SHORT = ("data.max_train_samples=4", "data.max_eval_samples=1", "training.max_steps=2", "training.report_to=none")


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test's own files register is forgotten after it, and what they are as modules."""
    registries = (PROJECTOR_CLASSES, ENCODER_ADAPTERS, PROVIDERS)
    before, modules = [dict(registry) for registry in registries], set(sys.modules)
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)
    for name in set(sys.modules) - modules:
        if name.startswith("tiny_audio_provider_") or name in (
            "tiny_audio.model.projector",
            "tiny_audio.model.encoder",
        ):
            del sys.modules[name]
    providers._run.cache_clear()


def last_line(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_the_page_shows_every_file_whole():
    blocks = re.findall(r"^```(?:python|yaml)\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert FILES
    for file in FILES:
        assert file.read_text("utf-8") in blocks, (
            f"docs/extending.md does not show {file.relative_to(REPOSITORY)} as it is"
        )
        assert str(file.relative_to(REPOSITORY)) in PAGE.read_text("utf-8")


# ---- a part of the model: trained by the command, and loaded by transformers alone


@pytest.fixture(scope="module")
def data2vec(tmp_path_factory) -> Path:
    """A random data2vec-audio with a CTC head and its extractor, as transformers saves them."""
    folder = tmp_path_factory.mktemp("data2vec")
    torch.manual_seed(0)
    config = transformers.Data2VecAudioConfig(**{**RAW, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 19})
    transformers.Data2VecAudioForCTC(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return folder


ALONE = """
import sys
sys.modules["tiny_audio"] = None  # cannot be imported
from transformers import pipeline
clip, *folders = sys.argv[1:]
for folder in folders:
    recogniser = pipeline("automatic-speech-recognition", folder, trust_remote_code=True)
    parts = type(recogniser.model.encoder).__name__, type(recogniser.model.projector).__name__
    print(*parts, recogniser(clip, generate_kwargs={"max_new_tokens": 6})["text"])
"""


def test_a_projector_and_an_encoder_family(data2vec, tmp_path, capsys):
    """Each is trained by the command; the checkpoints then work without its file, and without tiny-audio."""
    encoder, projector = (Path(shutil.copy(EXAMPLES / name, tmp_path)) for name in ("encoder.py", "projector.py"))
    first, second = tmp_path / "first", tmp_path / "second"
    own = ("model.projector_type=gated", f"model.projector_file={projector}")
    assert run(["train", *own, *SHORT, "--output-dir", str(first)]) == 0
    own = (f"model.audio_model_id={data2vec}",)
    assert run(["train", *own, *SHORT, "--output-dir", str(second)]) == 1
    assert "No encoder adapter for model_type 'data2vec-audio'; known: glmasr, " in last_line(capsys)
    assert run(["train", *own, *SHORT, f"model.encoder_file={encoder}", "--output-dir", str(second)]) == 0
    encoder.unlink(), projector.unlink()
    ENCODER_ADAPTERS.pop("data2vec-audio"), PROJECTOR_CLASSES.pop("gated")
    best, clip = [first / "best", second / "best"], next(embedded("clips").glob("*.ogg"))
    texts = [ASRModel.from_pretrained(folder).transcribe(clip, max_new_tokens=6) for folder in best]
    expected = [f"GlmAsrAdapter GatedProjector {texts[0]}", f"Data2VecAdapter MLPProjector {texts[1]}"]
    command = [sys.executable, "-c", ALONE, str(clip), *map(str, best)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.rstrip("\n").split("\n") == expected, done.stderr
    assert json.loads((best[1] / "config.json").read_text())["encoder_file"] == "encoder.py"
    stage = ("train", f"model.pretrained={best[1]}", *SHORT, "--output-dir", str(tmp_path / "next"), "--dry-run")
    assert run([*stage]) == 0


def test_the_projector_knows_no_padding():
    config = ASRConfig(encoder_dim=8, llm_dim=6, projector_type="gated", projector_file=str(EXAMPLES / "projector.py"))
    projector, mask = build_projector(config), torch.arange(23)[None] < torch.tensor([[9], [23]])
    frames = torch.randn(2, 23, 8)
    tokens = projector(frames, mask)
    assert tokens.shape == (2, projector.output_length(23), 6)
    alone = projector(frames[:1, :9])
    torch.testing.assert_close(tokens[:1, : projector.output_length(9)], alone)


@torch.no_grad()
def test_the_encoders_frames_are_those_of_transformers(data2vec, tiny_parts):
    theirs = transformers.Data2VecAudioModel.from_pretrained(data2vec).eval()
    config = ASRConfig(
        audio_model_id=str(data2vec),
        text_model_id=str(tiny_parts / "decoder"),
        encoder_file=str(EXAMPLES / "encoder.py"),
    )
    model = ASRModel.from_parts(config).eval()
    clips = [np.random.default_rng(n).normal(0.01, 0.1, n).astype(np.float32) for n in (399, 5_000, 16_000)]
    batch = model.processor.features(clips)
    frames, lengths = model.encoder(batch["input_values"], batch["audio_attention_mask"].sum(-1))
    for row, clip in enumerate(clips[1:], start=1):
        inputs = model.processor.feature_extractor(clip, sampling_rate=16_000, return_tensors="pt")
        wanted = theirs(inputs["input_values"]).last_hidden_state
        assert lengths[row] == wanted.shape[1]
        torch.testing.assert_close(frames[row, : lengths[row]], wanted[0], atol=1e-4, rtol=0)
    assert lengths[0] == 1


def test_other_code_of_an_encoder_is_another_cache(data2vec, tiny_parts, tmp_path):
    from tiny_audio.training.schema import TrainingSettings

    file = Path(shutil.copy(EXAMPLES / "encoder.py", tmp_path))
    parts = {"audio_model_id": str(data2vec), "text_model_id": str(tiny_parts / "decoder")}
    model = ASRModel.from_parts(ASRConfig(**parts, encoder_file=str(file)))
    before = cache_folder(model, TrainingSettings())
    file.write_text(file.read_text() + "# changed\n")
    assert cache_folder(model, TrainingSettings()) != before


def test_a_file_whose_code_fails_is_one_line(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    own = ("model.projector_type=mine", f"model.projector_file={tmp_path}/broken.py")
    assert run(["train", *own, *SHORT, "--output-dir", str(tmp_path / "run")]) == 1
    line = last_line(capsys)
    assert line.startswith("Error: ") and "broken.py cannot be run (ModuleNotFoundError: " in line
    config = transformers.Data2VecAudioConfig(**RAW)
    with pytest.raises(ValueError, match="broken.py cannot be run .*TA_DEBUG=1 shows where"):
        adapter_for(config, str(tmp_path / "broken.py"))


def test_code_of_a_hub_checkpoint_does_not_run_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("raise AssertionError('this ran')")
    with pytest.raises(ValueError, match="from the Hub: .*trust_remote_code"):
        adapter_for(transformers.Data2VecAudioConfig(**RAW), "someone/model/mine.py")


# ---- a provider


@pytest.fixture(scope="module")
def whisper_cpp():
    """A server on loopback that speaks whisper.cpp's wire format; what it hears, nano hears."""
    model = ASRModel.from_pretrained(embedded("nano"))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
            body = self.rfile.read(int(self.headers["content-length"]))
            parts = BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
            form = {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts
            }
            assert self.path == "/inference" and form["response_format"] == b"json"
            answer = json.dumps({"text": f" {model.transcribe(form['file'])}\n"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def clips(tmp_path) -> Path:
    """The shipped clips as a dataset."""
    return Path(shutil.copytree(embedded("clips"), tmp_path / "clips"))


def asked(name: str, clips: Path, folder: Path, *options: str) -> list[str]:
    return [
        "eval",
        "--provider",
        name,
        "-d",
        str(clips),
        "--output-dir",
        str(folder),
        "--normalizer",
        "basic",
        *options,
    ]


def test_a_service(whisper_cpp, clips, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    own = ("--provider-file", str(EXAMPLES / "service.py"))
    assert run(asked("whisper-cpp", clips, tmp_path / "none", *own)) == 1
    assert "The provider whisper-cpp needs the address of the server: give it with --base-url." in last_line(capsys)
    assert run(asked("whisper-cpp", clips, tmp_path / "cpp", *own, "--base-url", whisper_cpp)) == 0
    assert run(asked("local", clips, tmp_path / "nano", "-m", "nano")) == 0
    served, here = Metrics.read(tmp_path / "cpp"), Metrics.read(tmp_path / "nano")
    assert (served.provider, served.model) == ("whisper-cpp", "whisper.cpp") and served.num_failed == 0
    assert served.wer == here.wer and served.num_samples == here.num_samples == 3
    both = ["eval", "--providers", "local:nano,whisper-cpp", "-d", str(clips), "--output-dir", str(tmp_path / "both")]
    assert run([*both, *own]) == 1  # a base URL belongs to one service, which this file's could not be asked without
    assert json.loads((tmp_path / "cpp" / "settings.json").read_text()).get("provider_code")
    assert "provider_code" not in json.loads((tmp_path / "nano" / "settings.json").read_text())


def test_results_of_other_code_are_not_mixed(whisper_cpp, clips, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    file = Path(shutil.copy(EXAMPLES / "service.py", tmp_path))
    command = asked("whisper-cpp", clips, tmp_path / "out", "--provider-file", str(file), "--base-url", whisper_cpp)
    assert run([*command, "-n", "1"]) == 0
    file.write_text(file.read_text() + "# changed\n")
    assert run([*command, "-n", "1"]) == 1
    assert "holds results of other settings: provider_code" in last_line(capsys)


def test_a_recogniser(clips, tmp_path):
    folder = tmp_path / "whisper"
    folder.mkdir()
    torch.manual_seed(0)
    save_whisper(folder)
    file = folder / "generation_config.json"
    numbers = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    token = {entry["content"]: entry["id"] for entry in numbers}
    languages = {"is_multilingual": True, "lang_to_id": {"<|de|>": token["<|en|>"]}}  # the miniature has one alone
    tasks = {"task_to_id": {name: token[f"<|{name}|>"] for name in ("transcribe", "translate")}}
    file.write_text(json.dumps(json.loads(file.read_text()) | languages | tasks))
    own = ("--provider-file", str(EXAMPLES / "recogniser.py"), "-m", str(folder))
    assert run(asked("german-whisper", clips, tmp_path / "out", *own)) == 0
    metrics = Metrics.read(tmp_path / "out")
    assert metrics.decoding["language"] == "german" and metrics.num_failed == 0


def test_a_provider_file_is_wrong_in_one_line(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such thing')\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    wrong = {
        "broken.py": "broken.py cannot be run (RuntimeError: no such thing); TA_DEBUG=1 shows where.",
        "empty.py": "Unknown provider 'mine': expected one of local, huggingface, ",
        "notes.txt": "notes.txt is no Python file; expected one that puts a provider into PROVIDERS.",
    }
    for name, message in wrong.items():
        assert run(["eval", "--provider", "mine", "--provider-file", str(tmp_path / name)]) == 1
        assert message in last_line(capsys)
    assert run(["eval", "--provider-file", str(tmp_path / "empty.py")]) == 1
    assert "empty.py needs a name of a provider in it: give one with --provider." in last_line(capsys)
    assert run(["eval", "--provider", "mine"]) == 1
    assert "Your own needs --provider-file." in last_line(capsys)
    with pytest.raises(TinyAudioError, match="is no Python file"):
        choose_provider(EvalSettings(provider="mine", provider_file=tmp_path / "missing.py"))


# ---- a dataset


@pytest.fixture
def corpus(tmp_path) -> Path:
    """The shipped clips as three speakers' recordings, a text beside each."""
    with (embedded("clips") / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for speaker, row in zip(("anna", "ben", "cleo"), rows, strict=True):
        folder = tmp_path / "corpus" / speaker
        folder.mkdir(parents=True)
        samples = (load_audio(embedded("clips") / row["file_name"]) * 32767).astype("<i2")
        with wave.open(str(folder / "first.wav"), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(16_000)
            out.writeframes(samples.tobytes())
        (folder / "first.txt").write_text(row["text"] + "\n")
    return tmp_path / "corpus"


def test_a_dataset(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [sys.executable, EXAMPLES / "dataset.py", corpus, "my_corpus"], check=True, capture_output=True
    )
    assert done.stdout.decode().splitlines() == ["train: 1 clips", "validation: 1 clips", "test: 1 clips"]
    own = ["--config-dir", str(EXAMPLES / "configs"), "data=my_corpus"]
    assert run(["train", *own, *SHORT, "--output-dir", "run"]) == 0
    assert "no clip of 1 skipped" in capsys.readouterr().out
    assert run(["eval", "-m", "run/best", "-d", "my_corpus", "--output-dir", "results"]) == 0
    assert Metrics.read(Path("results")).num_samples == 1
