"""The model against references: transformers' own encoders, feature extractor and GLM-ASR, on the same weights."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from tiny_audio import ASRConfig, ASRModel
from tiny_audio.audio.mel import log_mel
from tiny_audio.audio.reading import load_audio
from tiny_audio.model.encoders import ENCODER_ADAPTERS, adapter_for, load_encoder


@pytest.fixture(scope="module")
def glm_asr(tmp_path_factory):
    """A random miniature GLM-ASR as transformers saves it, and its folder."""
    torch.manual_seed(0)
    audio = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = GlmAsrForConditionalGeneration(GlmAsrConfig(audio_config=audio, text_config=text, audio_token_id=5)).eval()
    folder = tmp_path_factory.mktemp("glm")
    model.save_pretrained(folder)
    return model, str(folder)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    torch.manual_seed(0)
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokens = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes, **heads, **tokens)).eval()
    folder = tmp_path_factory.mktemp("whisper")
    model.save_pretrained(folder)
    return model, str(folder)


@pytest.mark.parametrize("frames", [1, 8, 301, 800])
def test_glm_frames_equal_transformers(glm_asr, frames):
    model, folder = glm_asr
    features = torch.randn(1, 128, frames, generator=torch.Generator().manual_seed(frames))
    ours, lengths = load_encoder(folder, "masked").eval()(features, torch.tensor([frames]))
    reference = model.model.audio_tower(features).last_hidden_state
    assert lengths.tolist() == [reference.shape[1]]
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=0)


def test_glm_padding_changes_nothing(glm_asr):
    model, folder = glm_asr
    encoder = load_encoder(folder, "masked").eval()
    lengths = [7, 151, 301, 640]
    alone = [torch.randn(1, 128, size) for size in lengths]
    # what stands in the padding must not matter either
    batch = torch.randn(4, 128, 700)
    for row, features in enumerate(alone):
        batch[row, :, : lengths[row]] = features[0]
    frames, counts = encoder(batch, torch.tensor(lengths))
    for row, features in enumerate(alone):
        reference = model.model.audio_tower(features).last_hidden_state[0]
        torch.testing.assert_close(frames[row, : counts[row]], reference, atol=1e-4, rtol=0)
    unmasked = model.model.audio_tower(batch).last_hidden_state
    assert (unmasked[0, : counts[0]] - frames[0, : counts[0]]).abs().max() > 0.1  # theirs does see the padding


@pytest.mark.parametrize("frames", [80, 304, 800])  # multiples of 8: theirs pads nothing there
def test_whole_model_logits_equal_glm_asr(glm_asr, frames):
    model, _ = glm_asr
    config = ASRConfig(
        audio_config=model.config.audio_config, text_config=model.config.text_config, audio_token_id=5,
        projector_variant="glm", projector_hidden_dim=2 * 32,
    )  # fmt: skip
    ours = ASRModel(config).eval()
    ours.encoder.encoder.load_state_dict(model.model.audio_tower.state_dict())
    ours.projector.load_state_dict(model.model.multi_modal_projector.state_dict())
    ours.language_model.model.load_state_dict(model.model.language_model.state_dict())
    ours.language_model.lm_head.load_state_dict(model.lm_head.state_dict())
    features, mask = torch.randn(2, 128, frames), torch.ones(2, frames, dtype=torch.long)
    ids = torch.cat([torch.randint(6, 64, (2, 3)), torch.full((2, frames // 8), 5), torch.randint(6, 64, (2, 9))], 1)
    with torch.no_grad():
        logits = ours(input_ids=ids, input_features=features, audio_attention_mask=mask).logits
        reference = model(input_ids=ids, input_features=features, input_features_mask=mask).logits
    torch.testing.assert_close(logits, reference, atol=1e-4, rtol=0)


def test_glm_eager_and_sdpa_agree(glm_asr):
    features, lengths = torch.randn(2, 128, 200), torch.tensor([200, 33])
    frames = [
        load_encoder(glm_asr[1], "masked", attn_implementation=kind).eval()(features, lengths)[0]
        for kind in ("sdpa", "eager")
    ]
    torch.testing.assert_close(*frames, atol=1e-4, rtol=0)


def test_only_the_encoder_is_read(glm_asr):
    encoder = load_encoder(glm_asr[1], "masked")
    wanted = sum(parameter.numel() for parameter in glm_asr[0].model.audio_tower.parameters())
    assert sum(parameter.numel() for parameter in encoder.parameters()) == wanted


def test_encoder_saved_alone_loads_again(glm_asr, tmp_path):
    encoder = load_encoder(glm_asr[1], "masked").eval()
    encoder.encoder.save_pretrained(tmp_path)
    again = load_encoder(str(tmp_path), "masked").eval()
    features, lengths = torch.randn(1, 128, 90), torch.tensor([90])
    assert torch.equal(encoder(features, lengths)[0], again(features, lengths)[0])


def test_missing_encoder_tensors_are_named(glm_asr, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = {
        name: tensor for name, tensor in load_file(f"{glm_asr[1]}/model.safetensors").items() if "conv2" not in name
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    AutoConfig.from_pretrained(glm_asr[1]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks 2 encoder tensors \(conv2.bias, conv2.weight"):
        load_encoder(str(tmp_path), "masked")


def test_whisper_frames_equal_transformers_cut_to_length(whisper):
    model, folder = whisper
    features = torch.randn(2, 80, 3000)
    frames, lengths = load_encoder(folder, "masked").eval()(features, torch.tensor([120, 3000]))
    reference = model.model.encoder(features).last_hidden_state
    assert lengths.tolist() == [60, 1500]
    torch.testing.assert_close(frames[0, :60], reference[0, :60], atol=1e-5, rtol=0)
    torch.testing.assert_close(frames[1], reference[1], atol=1e-5, rtol=0)
    assert not frames[0, 60:].any()


def test_output_lengths_are_those_of_the_real_convolutions(glm_asr, whisper):
    for model in (glm_asr[0].model.audio_tower, whisper[0].model.encoder):
        real = tuple((conv.kernel_size[0], conv.stride[0], conv.padding[0]) for conv in (model.conv1, model.conv2))
        assert adapter_for(model.config).convolutions == real


@pytest.mark.parametrize("samples", [160, 3_333, 48_000, 479_900, 480_000])
@pytest.mark.parametrize("mels", [80, 128])
def test_log_mel_equals_the_feature_extractor(samples, mels):
    extractor = WhisperFeatureExtractor(feature_size=mels)
    waveform = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    reference = torch.tensor(extractor(waveform, sampling_rate=16_000)["input_features"][0])
    filters = torch.tensor(extractor.mel_filters, dtype=torch.float32)
    torch.testing.assert_close(log_mel(waveform, filters, 480_000), reference[:, : samples // 160], atol=1e-5, rtol=0)
    torch.testing.assert_close(log_mel(waveform, filters, 480_000, full_window=True), reference, atol=1e-5, rtol=0)


def test_unknown_encoder_names_the_known():
    with pytest.raises(ValueError, match="known: .*glmasr.*whisper"):
        adapter_for(AutoConfig.for_model("bert"))
    assert set(ENCODER_ADAPTERS) >= {"glmasr", "glmasr_encoder", "whisper"}


def test_real_clips_padded_and_alone(glm_asr, speech):
    encoder = load_encoder(glm_asr[1], "masked").eval()
    filters = torch.tensor(WhisperFeatureExtractor(feature_size=128).mel_filters, dtype=torch.float32)
    names = ["cards-001.wav", "jfk.flac", "mfa-acoustic_corpus.wav"]
    mels = [log_mel(load_audio(speech / "clips" / name), filters, 480_000) for name in names]
    lengths = torch.tensor([mel.shape[1] for mel in mels])
    batch = torch.zeros(len(mels), 128, int(lengths.max()))
    for row, mel in enumerate(mels):
        batch[row, :, : mel.shape[1]] = mel
    frames, counts = encoder(batch, lengths)
    for row, mel in enumerate(mels):
        alone, _ = encoder(mel[None], lengths[row : row + 1])
        torch.testing.assert_close(frames[row, : counts[row]], alone[0], atol=1e-4, rtol=0)
