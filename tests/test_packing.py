"""Packed rows: the same losses and gradients as padded ones, no sight of a neighbour, other passes untouched."""

from copy import deepcopy

import pytest
import torch
from miniatures import DECODERS, save_decoder_family
from training_helpers import BASE, log_of

from tiny_audio import ASRConfig, ASRModel, embedded
from tiny_audio.errors import TinyAudioError
from tiny_audio.training import compose, train
from tiny_audio.training.packing import pack, packs, varlen
from tiny_audio.training.trainer import checkpointed_layers

TEXTS = ["one two three", "four", "five six"]


@pytest.fixture(scope="module")
def nano() -> ASRModel:
    return ASRModel.from_pretrained(embedded("nano"))


@pytest.fixture(scope="module", params=DECODERS)
def asr(request, tiny_parts, tmp_path_factory) -> ASRModel:
    folder = tmp_path_factory.mktemp("decoder")
    torch.manual_seed(0)
    save_decoder_family(DECODERS[request.param], tiny_parts / "decoder", folder)
    config = ASRConfig(audio_model_id=str(tiny_parts / "encoder"), text_model_id=str(folder), projector_hidden_dim=32)
    return ASRModel.from_parts(config)


def batch_of(model: ASRModel, tone) -> dict[str, torch.Tensor]:
    return model.processor(audio=[tone(1.5), tone(0.4), tone(0.9)], text=TEXTS, return_tensors="pt")


def loss_and_gradients(model: ASRModel, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters() if parameter.requires_grad)]


@pytest.mark.parametrize("recomputed", [False, True])
def test_losses_and_gradients_are_those_of_padded_rows(asr: ASRModel, tone, recomputed: bool) -> None:
    batch, packed = batch_of(asr, tone), deepcopy(asr)
    pack(packed, True)
    if recomputed:
        for layer in checkpointed_layers(packed):
            layer.training = True
    for ours, plain in zip(loss_and_gradients(packed, batch), loss_and_gradients(asr, batch), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


def test_the_language_model_reads_one_row_without_padding(nano: ASRModel, tone) -> None:
    model, batch, shapes = deepcopy(nano), batch_of(nano, tone), []
    pack(model, True)
    layer = model.language_model.get_decoder().layers[0]
    layer.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape[:2])))
    model(**batch)
    assert shapes == [(1, int(batch["attention_mask"].sum()))]
    assert shapes[0][1] < batch["attention_mask"].numel()


def test_a_clip_does_not_see_its_neighbour(nano: ASRModel, tone) -> None:
    model, batch = deepcopy(nano), batch_of(nano, tone)
    pack(model, True)
    changed = {**batch, "input_features": batch["input_features"].clone()}
    changed["input_features"][0] += 1.0
    inputs = {"labels": batch["labels"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        before, after = (
            model.label_states(**inputs, inputs_embeds=model.embed(b["input_ids"], b["input_features"], b["audio_attention_mask"]))[0]
            for b in (batch, changed)
        )  # fmt: skip
    first = int((batch["labels"][0] != -100).sum())
    assert not torch.allclose(before[:first], after[:first])
    torch.testing.assert_close(before[first:], after[first:])


def test_decoding_and_plain_passes_stay_as_they_were(nano: ASRModel, tone, tmp_path) -> None:
    model, batch = deepcopy(nano).eval(), batch_of(nano, tone)
    pack(model, True)
    audio = {name: batch[name] for name in ("input_features", "audio_attention_mask")}
    assert torch.equal(model.generate(**audio), nano.eval().generate(**audio))
    without = {name: tensor for name, tensor in batch.items() if name != "labels"}
    torch.testing.assert_close(model(**without).logits, nano(**without).logits)
    model.save_pretrained(tmp_path)
    assert "packed" not in (tmp_path / "config.json").read_text()


def test_a_run_has_the_same_losses(tmp_path) -> None:
    runs = [tmp_path / "packed", tmp_path / "padded"]
    for folder, packing in zip(runs, ("true", "false"), strict=True):
        train(compose("quickstart", [*BASE, f"training.packing={packing}"], output_dir=folder))
    assert log_of(runs[0], "loss") == pytest.approx(log_of(runs[1], "loss"), rel=1e-4)


def test_what_flash_attention_on_cuda_gets() -> None:
    """Shapes and dtypes only, by torch's own fake kernels, forward and backward."""
    bf16 = {"device": "meta", "dtype": torch.bfloat16, "requires_grad": True}
    query, key, value = (torch.empty(1, heads, 12, 64, **bf16) for heads in (4, 2, 2))
    borders = torch.empty(3, dtype=torch.int32, device="meta")
    output = varlen(query.float(), key, value, borders, 8, scale=0.125)
    assert output.shape == (1, 12, 4, 64) and output.dtype == torch.bfloat16
    output.sum().backward()
    assert query.grad.shape == query.shape and key.grad.shape == key.shape


def test_flash_attention_of_transformers_gets_borders_and_no_mask(nano: ASRModel, tone, monkeypatch) -> None:
    """It needs CUDA, so a function that notes what it is given stands in its place."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    model, batch, given = deepcopy(nano), batch_of(nano, tone), []

    def noted(module, query, key, value, attention_mask, **options):
        given.append((attention_mask, options["cu_seq_lens_q"].tolist()))
        return query.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", noted)
    model.language_model.get_decoder().config._attn_implementation = "flash_attention_2"
    pack(model, None)
    model(**batch)
    ends = batch["attention_mask"].sum(-1).cumsum(0).tolist()
    assert given and all(mask is None and borders == [0, *ends] for mask, borders in given)


@pytest.mark.parametrize(
    ("wanted", "device", "half", "cached", "is_on"),
    [
        (None, "cuda", True, False, True),
        (None, "cuda", False, True, False),
        (None, "cpu", True, False, False),
        (None, "cpu", False, True, True),
        (None, "mps", True, True, False),
        (True, "cpu", False, False, True),
        (False, "cuda", True, True, False),
    ],
)
def test_when_a_run_packs(wanted: bool | None, device: str, half: bool, cached: bool, is_on: bool) -> None:
    assert packs(wanted, device, half, cached) is is_on


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"_attn_implementation": "eager"}, "the attention eager"), ({"attention_dropout": 0.1}, "dropout"), ({"layer_types": ["sliding_attention"]}, "a sliding window")],
)  # fmt: skip
def test_an_attention_that_cannot(nano: ASRModel, changes: dict, reason: str) -> None:
    model = deepcopy(nano)
    for name, value in changes.items():
        setattr(model.language_model.get_decoder().config, name, value)
    with pytest.raises(TinyAudioError, match=f"cannot be had with {reason}"):
        pack(model, True)
    pack(model, None)
    assert "label_states" not in vars(model)
