"""Checkpoints: what is written, strict loading, the published format, and a folder that works without this package."""

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig

from tiny_audio import ASRConfig, ASRModel, ASRProcessor, embedded
from tiny_audio.cli.main import run

CLIP = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


def edit_config(folder, remove=(), **changes):
    config = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in config.items() if key not in remove}
    (folder / "config.json").write_text(json.dumps(kept | changes))


def test_only_trained_tensors_are_saved(checkpoint):
    assert sorted(load_file(checkpoint / "model.safetensors")) == [
        "projector.linear_1.weight", "projector.linear_2.weight", "projector.norm.weight", "projector.norm_2.weight",
    ]  # fmt: skip
    assert not [*checkpoint.rglob("*.bin"), *checkpoint.rglob("*.pt"), *checkpoint.rglob("*.pkl")]


def test_a_round_trip_keeps_every_weight_and_text(checkpoint, tmp_path):
    model = ASRModel.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "again")
    again = ASRModel.from_pretrained(tmp_path / "again")
    for (name, ours), (_, theirs) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert model.transcribe(CLIP) == again.transcribe(CLIP)


def test_a_self_contained_folder_moves(checkpoint, tmp_path):
    expected = ASRModel.from_pretrained(checkpoint).transcribe(CLIP)
    moved = shutil.move(checkpoint, tmp_path / "elsewhere")
    assert ASRModel.from_pretrained(moved).transcribe(CLIP) == expected


def test_parts_are_named_when_the_checkpoint_is_not_self_contained(tiny_checkpoint, tiny_parts, tmp_path):
    model = ASRModel.from_pretrained(tiny_checkpoint)
    model.save_pretrained(tmp_path / "thin", self_contained=False)
    assert not (tmp_path / "thin" / "encoder").exists()
    assert model.config.audio_model_id == str(tiny_parts / "encoder")
    assert ASRModel.from_pretrained(tmp_path / "thin").transcribe(CLIP) == model.transcribe(CLIP)


def test_a_fine_tuned_language_model_is_saved_and_loaded(checkpoint, tmp_path):
    decoder = json.loads((checkpoint / "decoder" / "config.json").read_text())
    (checkpoint / "decoder" / "config.json").write_text(json.dumps(decoder | {"tie_word_embeddings": True}))
    weights = load_file(checkpoint / "decoder" / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, checkpoint / "decoder" / "model.safetensors", metadata={"format": "pt"})
    config = ASRConfig.from_pretrained(checkpoint, freeze_language_model=False)
    model = ASRModel.from_parts(without_self(config, checkpoint))
    with torch.no_grad():
        model.language_model.get_input_embeddings().weight.add_(1.0)
    model.save_pretrained(tmp_path / "tuned")
    names = load_file(tmp_path / "tuned" / "model.safetensors")
    tied = {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"}
    assert len(tied & names.keys()) == 1  # one tensor, written once
    again = ASRModel.from_pretrained(tmp_path / "tuned")
    assert torch.equal(again.language_model.lm_head.weight, model.language_model.get_input_embeddings().weight)


def without_self(config, folder):
    config.self_contained, config.audio_model_id, config.text_model_id = (
        False,
        str(folder / "encoder"),
        str(folder / "decoder"),
    )
    return config


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("projector.linear_1.weight"), "missing projector.linear_1.weight"),
        (lambda t: t.update({"projector.extra": torch.zeros(1)}), "unexpected projector.extra"),
        (
            lambda t: t.update({"projector.norm.weight": torch.zeros(3)}),
            r"projector.norm.weight is \(3,\), expected \(32,\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(checkpoint, change, message):
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        ASRModel.from_pretrained(checkpoint)


def truncated(file):
    file.write_bytes(file.read_bytes()[:1000])


DAMAGE = {
    "config cut": lambda folder: (folder / "config.json").write_text('{"a":'),
    "config a list": lambda folder: (folder / "config.json").write_text("[]"),
    "weights cut": lambda folder: truncated(folder / "model.safetensors"),
    "weights empty": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "weights gone": lambda folder: (folder / "model.safetensors").unlink(),
    "decoder cut": lambda folder: truncated(folder / "decoder" / "model.safetensors"),
    "encoder cut": lambda folder: truncated(folder / "encoder" / "model.safetensors"),
    "tokenizer gone": lambda folder: [file.unlink() for file in folder.rglob("tokenizer*")],
}


@pytest.mark.parametrize("command", [["transcribe", "-m"], ["eval", "-n", "1", "-m"]], ids=["transcribe", "eval"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_one_line(damage, command, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    damage(checkpoint)
    files = [str(next(embedded("clips").glob("*.ogg")))] if command[0] == "transcribe" else []
    assert run([*command, str(checkpoint), *files]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert str(checkpoint) in line


def test_a_missing_weights_file_is_an_error(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(OSError, match="model.safetensors"):
        ASRModel.from_pretrained(checkpoint)


def test_a_language_model_with_missing_tensors_is_an_error(checkpoint):
    file = checkpoint / "decoder" / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "layers.1.mlp" not in k}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 3 tensors of its language model \(model.layers.1.mlp"):
        ASRModel.from_pretrained(checkpoint)


def test_a_hub_id_without_network_is_one_sentence():
    with pytest.raises(OSError, match=r"^nobody/nothing could not be loaded as a checkpoint.*HF_TOKEN[^\n]*$"):
        ASRModel.from_pretrained("nobody/nothing")


PUBLISHED_KEYS = {
    "audio_model_id", "text_model_id", "projector_type", "projector_pool_stride", "projector_hidden_dim", "encoder_dim",
    "llm_dim", "num_experts", "num_experts_per_tok", "router_aux_loss_coef", "qformer_window_size", "qformer_hidden_size",
    "qformer_num_layers", "qformer_num_heads", "qformer_intermediate_size", "downsample_rate", "system_prompt",
    "model_dtype", "use_lora", "lora_rank", "lora_alpha", "lora_dropout",
    "lora_target_modules", "freeze_projector", "freeze_language_model", "model_type", "max_new_tokens", "num_beams",
}  # fmt: skip


def test_the_published_format_loads(checkpoint, caplog):
    config = json.loads((checkpoint / "config.json").read_text())
    assert set(config) >= PUBLISHED_KEYS
    edit_config(
        without := checkpoint,
        remove=set(config) - PUBLISHED_KEYS,
        audio_model_id=str(checkpoint / "encoder"),
        text_model_id=str(checkpoint / "decoder"),
        attn_implementation="flash_attention_2",
        label_smoothing=0.1,
        repetition_penalty=1.2,
    )
    model = ASRModel.from_pretrained(without)
    assert "label_smoothing" in caplog.text and model.config.label_smoothing == 0.1
    assert model.config.encoder_padding == "window"  # published checkpoints were trained on full windows
    assert model.config.generation_defaults()["repetition_penalty"] == 1.2
    assert isinstance(model.transcribe(CLIP), str)
    inputs = ASRProcessor.from_pretrained(without)(CLIP)
    assert inputs["input_features"].shape[-1] == 3_000 and inputs["audio_attention_mask"].sum() == 150
    frames = model.encoder.encoder(inputs["input_features"]).last_hidden_state[:, :75]
    ours, lengths = model.encoder(inputs["input_features"], torch.tensor([150]))
    torch.testing.assert_close(ours, frames)
    assert lengths.tolist() == [75]


def test_building_a_config_reads_nothing(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "socket", None)
    config = ASRConfig(audio_model_id="zai-org/GLM-ASR-Nano-2512", text_model_id="Qwen/Qwen3-0.6B")
    assert config.projector_hidden_dim == 2048 and config.encoder_padding == "masked"


def test_bad_config_values_are_named():
    with pytest.raises(ValueError, match="encoder_padding is 'zeros'"):
        ASRConfig(encoder_padding="zeros")


def test_dtype_and_attention_are_honoured(checkpoint):
    model = ASRModel.from_pretrained(checkpoint, dtype=torch.bfloat16, attn_implementation="eager")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert (
        model.language_model.config._attn_implementation == model.encoder.encoder.config._attn_implementation == "eager"
    )
    assert isinstance(model.transcribe(CLIP), str)
    assert ASRModel.from_pretrained(checkpoint, dtype="float16").dtype == torch.float16
    assert ASRModel.from_pretrained(checkpoint, dtype="auto").dtype == torch.float32


def test_device_map_places_all_parts(checkpoint):
    model = ASRModel.from_pretrained(checkpoint, device_map="cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert isinstance(model.transcribe(CLIP), str)


@pytest.mark.parametrize(
    ("options", "layer"),
    [({"load_in_8bit": True}, "Linear8bitLt"), ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "Linear4bit")],
)
def test_only_the_language_model_is_quantised_and_the_projector_learns_through_it(nano, tone, options, layer):
    model = ASRModel.from_pretrained(nano, dtype="float32", quantization_config=BitsAndBytesConfig(**options))
    kinds = {type(module).__name__ for module in model.language_model.model.modules()}
    assert layer in kinds and "Linear" not in kinds
    assert {parameter.dtype for part in (model.encoder, model.projector) for parameter in part.parameters()} == {
        torch.float32
    }
    batch = model.processor([tone(1.0), tone(0.7, 300.0)], text=["one two", "three"])
    model(**batch).loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.projector.parameters())


def test_subfolder(checkpoint, tmp_path):
    shutil.move(checkpoint, tmp_path / "outer" / "inner")
    assert isinstance(ASRModel.from_pretrained(tmp_path / "outer", subfolder="inner").transcribe(CLIP), str)


def test_unknown_arguments_are_refused(checkpoint):
    with pytest.raises(TypeError, match="torch_dtipe"):
        ASRModel.from_pretrained(checkpoint, torch_dtipe=torch.float16)


def test_a_full_disk_keeps_the_old_weights(checkpoint):
    """The limit on file sizes stands for the disk: writing stops in the middle."""
    before = (checkpoint / "model.safetensors").read_bytes()
    script = (
        "import resource, signal, sys\n"
        "from tiny_audio import ASRModel\n"
        "from tiny_audio.model.loading import save_trained_tensors\n"
        "from pathlib import Path\n"
        "model = ASRModel.from_pretrained(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "save_trained_tensors(model, Path(sys.argv[1]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint)], check=False, capture_output=True, text=True, timeout=120
    )
    assert result.returncode != 0
    assert (checkpoint / "model.safetensors").read_bytes() == before
    assert not list(checkpoint.glob(".*tmp"))


PIPELINE_SCRIPT = """
import json, sys
sys.modules["tiny_audio"] = None  # importing it now fails
import numpy as np
from transformers import AutoProcessor, pipeline
pipe = pipeline("automatic-speech-recognition", sys.argv[1], trust_remote_code=True)
clip = np.load(sys.argv[2])
wav = open(sys.argv[3], "rb").read()
one = pipe(clip)
many = pipe([clip, sys.argv[3], wav, {"raw": clip, "sampling_rate": 16000}], batch_size=3)
generated = list(pipe((item for item in [clip, clip]), max_new_tokens=3, num_beams=2))
chunked = pipe(np.tile(clip, 4), chunk_length_s=2, stride_length_s=(1, 1))
timed = pipe(clip, return_timestamps="word")
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
pipe.model.save_pretrained(sys.argv[4])
print(json.dumps([one, many, generated, chunked, timed, processor.audio_token_count(16000)]))
"""


def add_ctc_head(checkpoint):
    model = ASRModel.from_pretrained(checkpoint)
    model.config.ctc_vocabulary = ["", *map(chr, range(32, 127))]
    model.ctc_head = torch.nn.Linear(model.encoder.dim, len(model.config.ctc_vocabulary))
    model.save_pretrained(checkpoint)


def test_the_folder_works_where_this_package_cannot_be_imported(checkpoint, tmp_path, monkeypatch):
    import wave

    np.save(tmp_path / "clip.npy", CLIP)
    with wave.open(str(tmp_path / "clip.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((CLIP * 32767).astype(np.int16).tobytes())
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    add_ctc_head(checkpoint)
    arguments = [str(checkpoint), str(tmp_path / "clip.npy"), str(tmp_path / "clip.wav"), str(tmp_path / "resaved")]
    result = subprocess.run(
        [sys.executable, "-I", "-c", PIPELINE_SCRIPT, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=180,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    one, many, generated, chunked, timed, count = json.loads(result.stdout.splitlines()[-1])
    model = ASRModel.from_pretrained(checkpoint)
    expected = model.transcribe(CLIP)
    assert one == {"text": expected} and many[0] == many[3] == one and many[1] == many[2]
    assert timed["text"] == expected and [chunk["text"] for chunk in timed["chunks"]] == expected.split()
    assert len(generated) == 2 and set(generated[0]) == {"text"} and isinstance(chunked["text"], str)
    assert count == model.processor.audio_token_count(16_000)
    assert ASRModel.from_pretrained(tmp_path / "resaved").transcribe(CLIP) == expected


def test_exported_files_import_nothing_but_what_is_allowed(checkpoint):
    import ast

    allowed = {"torch", "transformers", "numpy", "safetensors", *sys.stdlib_module_names}
    files = {file.stem for file in checkpoint.glob("*.py")}
    assert {"config", "modeling", "processor", "pipeline", "reading"} <= files
    for file in checkpoint.glob("*.py"):
        tree = ast.parse(file.read_text())
        tolerated = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module in files, f"{file.name}:{node.lineno}"
            elif isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in tolerated:
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert {name.split(".")[0] for name in names} <= allowed, f"{file.name}:{node.lineno}"


def test_pipeline_keeps_no_state_between_threads(checkpoint):
    from tiny_audio import ASRPipeline

    pipe = ASRPipeline(model=ASRModel.from_pretrained(checkpoint))
    expected = [pipe(CLIP[: 8_000 * n])["text"] for n in (1, 2, 3)]
    results: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: pipe(CLIP[: 8_000 * n])["text"]})) for n in (1, 2, 3)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [results[n] for n in (1, 2, 3)] == expected
    silence = np.zeros(8_000, np.float32)
    assert pipe([silence, CLIP[:8_000]], batch_size=2) == [{"text": ""}, {"text": expected[0]}]
    with pytest.raises(ValueError, match="CTC head"):
        pipe(CLIP, return_timestamps="word")
