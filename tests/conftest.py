"""Fixtures that the suite shares: real recordings, a miniature checkpoint, nano; and CI's rule that a skip is a failure."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background job ignores it, and so would its children
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
NO_RECORDINGS = "no ../shared/speech beside the checkout"
SAMPLING_RATE = 16_000  # Hz

CHAT_TEMPLATE = (
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)


@pytest.fixture(scope="session")
def speech() -> Path:
    """The folder of real recordings beside the checkout."""
    folder = SHARED / "speech"
    if not folder.is_dir():
        pytest.skip(NO_RECORDINGS)
    return folder


@pytest.fixture(scope="session")
def nano() -> Path:
    """The shipped checkpoint."""
    from tiny_audio.assets import embedded

    return embedded("nano")


@pytest.fixture(scope="session")
def tone():
    """`tone(seconds, hertz=440)` → a float32 sine (samples,) at 16 kHz."""

    def make(seconds: float, hertz: float = 440.0) -> np.ndarray:
        times = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
        return (0.3 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)

    return make


def save_tiny_encoder(folder: Path) -> None:
    """A random GLM-ASR encoder, 32 wide, 2 layers, with its feature extractor."""
    from transformers import GlmAsrEncoder, GlmAsrEncoderConfig, WhisperFeatureExtractor

    config = GlmAsrEncoderConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_mel_bins=128
    )
    GlmAsrEncoder(config).eval().save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(folder)


def save_tiny_decoder(folder: Path) -> None:
    """A random Qwen3, 32 wide, 2 layers, with a byte-level tokenizer and a chat template like Qwen3's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<audio>", "<think>", "</think>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(["one two three four five six seven eight nine zero"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": specials[3:4]})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=2048, tie_word_embeddings=False, initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    silent = [index for index in tokenizer.all_special_ids if index != tokenizer.eos_token_id]
    model.lm_head.weight.data[silent] = 0.0  # so that its random text can be seen
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_parts(tmp_path_factory) -> Path:
    """A folder with `encoder/` and `decoder/`: the miniature parts, for `ASRConfig(audio_model_id=…, text_model_id=…)`."""
    import torch

    folder = tmp_path_factory.mktemp("parts")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_tiny_encoder(folder / "encoder")
        save_tiny_decoder(folder / "decoder")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_parts) -> Path:
    """A random, miniature, self-contained checkpoint. Copy it before writing into it."""
    import torch

    from tiny_audio import ASRConfig, ASRModel

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    config = ASRConfig(
        audio_model_id=str(tiny_parts / "encoder"), text_model_id=str(tiny_parts / "decoder"),
        projector_hidden_dim=32, max_new_tokens=8,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ASRModel.from_parts(config).save_pretrained(folder, self_contained=True)
    return folder


@pytest.fixture(scope="module")
def one_thread():
    """Many small operations: threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def parts(tiny_parts) -> list[str]:
    """The overrides that name the miniature parts."""
    return [
        f"model.audio_model_id={tiny_parts}/encoder",
        f"model.text_model_id={tiny_parts}/decoder",
        "model.projector_hidden_dim=32",
    ]


@pytest.fixture(scope="session")
def settings_of(parts):
    """`settings_of(folder, *overrides)` → Settings of a run of three steps with the miniature model."""
    from training_helpers import BASE

    from tiny_audio.training import compose

    def make(folder: Path, *overrides: str, **options):
        return compose(None, [*parts, *BASE, *overrides], output_dir=folder, **options)

    return make


@pytest.fixture
def network(monkeypatch, tmp_path):
    """`network(endpoint, token)`: huggingface_hub goes there, without Xet, and with a cache of the test's own."""
    from huggingface_hub import constants, hf_api

    def use(endpoint: str, token: str = "hf_right") -> None:
        values = {
            "ENDPOINT": endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hf_api.api, "endpoint", endpoint)  # of its functions, which keep that of their import
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # it keeps the endpoint of its first use
        monkeypatch.setenv("HF_TOKEN", token)

    return use


# In CI nothing may be skipped, for a skip hides what the test would have shown: only what needs the recordings, where
# the checkout has none beside it, as on GitHub.
_skipped: list[str] = []


def note_skip(report) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    if report.skipped and not hasattr(report, "wasxfail") and NO_RECORDINGS not in reason:
        _skipped.append(f"{report.nodeid}: {reason}")


pytest_runtest_logreport = pytest_collectreport = note_skip


def skip_is_failure() -> bool:
    return os.environ.get("CI") == "true" and bool(_skipped)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    if skip_is_failure() and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    if skip_is_failure():
        terminalreporter.section("skipped in CI: a failure", red=True)
        for line in _skipped:
            terminalreporter.write_line(line)
