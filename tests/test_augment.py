"""What makes training harder on purpose: it acts, within its limits, and only in training."""

import pytest
import torch

from tiny_audio.training.augment import drop_audio_tokens, spec_augment
from tiny_audio.training.schema import TrainingSettings

LENGTHS = torch.tensor([400, 250, 4])


@pytest.fixture
def clips() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(400) < LENGTHS[:, None]
    return torch.randn(3, 80, 400) * mask[:, None] + 7, mask.long()


def changed(clips, **options) -> torch.Tensor:
    features, mask = clips
    torch.manual_seed(1)
    after = spec_augment(features, mask, TrainingSettings(**options))
    for row, (clip, length) in enumerate(zip(after, LENGTHS.tolist(), strict=True)):
        hidden = clip != features[row]
        assert not hidden[:, length:].any()
        if hidden.any():
            mean = features[row, :, :length].mean()
            torch.testing.assert_close(clip[hidden], mean.expand(int(hidden.sum())), atol=1e-4, rtol=0)
    return after != features


def test_stripes_of_frames_are_hidden_in_all_bands(clips):
    hidden = changed(clips, time_masks=3, time_mask_frames=40)
    frames = hidden.any(1)
    assert torch.equal(frames, hidden.all(1))
    assert 0 < frames[0].sum() <= 3 * 40 and 0 < frames[1].sum() <= 3 * 40
    assert not frames[2].any()  # a fifth of four frames is none


def test_stripes_of_bands_are_hidden_over_the_whole_clip(clips):
    hidden = changed(clips, frequency_masks=2, frequency_mask_bands=10)
    assert all(0 < bands.sum() <= 20 for bands in hidden[..., 0])
    assert all(torch.equal(clip[:, 0], clip[:, length - 1]) for clip, length in zip(hidden, LENGTHS, strict=True))


def test_nothing_asked_for_changes_nothing(clips):
    assert not changed(clips).any()


def test_audio_tokens_are_left_out_in_training_only():
    projector = torch.nn.Linear(4, 8)
    drop_audio_tokens(projector, 0.3)
    tokens = projector(torch.randn(50, 40, 4))
    gone = (tokens == 0).all(-1)
    assert 0.25 < gone.float().mean() < 0.35 and (tokens[~gone] != 0).any(-1).all()
    assert (projector.eval()(torch.randn(50, 40, 4)) != 0).any(-1).all()
