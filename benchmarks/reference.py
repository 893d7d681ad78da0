"""The reference: a plain training loop, as such toolkits have it; batches of 8 in random order, every mel padded to 30 s.

True lengths for the language model, logits over the whole sequence, nothing cached. Only the parts and the prompts are
tiny-audio's: encoder and language model are the classes of transformers.
"""

import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from tiny_audio import ASRModel
from tiny_audio.data import Corpus
from tiny_audio.model.processor import ASRProcessor
from tiny_audio.text.labels import clean_label

from .measures import Moment

BATCH_SIZE = 8
SAMPLING_RATE = 16_000  # Hz
HOP_LENGTH = 160  # samples
Batch = dict[str, torch.Tensor]


class Clips(Dataset):
    """Waveform and text of each clip."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int):
        clip = self.corpus.load(index)
        return clip.waveform, clean_label(clip.text)


class Collator:
    """30 s of log-mel for each clip, and right-padded tokens."""

    def __init__(self, processor: ASRProcessor) -> None:
        self.processor = processor

    def __call__(self, clips) -> Batch:
        waveforms, texts = zip(*clips, strict=True)
        extractor = self.processor.feature_extractor
        mel = extractor(waveforms, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_features
        counts = [self.processor.audio_token_count(len(waveform)) for waveform in waveforms]
        samples = torch.tensor([len(waveform) for waveform in waveforms])
        return {
            "mel": mel,
            "samples": samples,
            "counts": torch.tensor(counts),
            **self.processor.training_tokens(texts, counts),
        }


def loss_of(model: ASRModel, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens."""
    with torch.no_grad():
        frames = model.encoder.encoder(batch["mel"].to(model.encoder.encoder.dtype)).last_hidden_state
    audio = model.projector(frames)  # (batch, tokens of 30 s, llm_dim)
    own = torch.arange(audio.shape[1], device=audio.device) < batch["counts"][:, None]
    placeholder = batch["input_ids"] == model.config.audio_token_id
    embeddings = model.language_model.get_input_embeddings()(batch["input_ids"].masked_fill(placeholder, 0))
    embeddings = embeddings.masked_scatter(placeholder[..., None], audio[own].to(embeddings.dtype))
    output = model.language_model(
        inputs_embeds=embeddings, attention_mask=batch["attention_mask"], labels=batch["labels"], use_cache=False
    )
    return output.loss


def freeze(model: ASRModel) -> list[nn.Parameter]:
    """Leaves the projector to be trained."""
    model.requires_grad_(False).eval()
    return [*model.projector.train().requires_grad_(True).parameters()]


def train(model: ASRModel, corpus: Corpus, epochs: int, workers: int, bf16: bool) -> Iterator[Moment]:
    """Trains the projector; after each step, what was done so far."""
    device = model.projector.linear_1.weight.device
    parameters = freeze(model)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(
        Clips(corpus),
        BATCH_SIZE,
        shuffle=True,
        num_workers=workers,
        collate_fn=Collator(model.processor),
        generator=generator,
    )
    done = Moment()
    for _ in range(epochs):
        batches, asked = iter(loader), time.perf_counter()
        for batch in batches:
            waited = time.perf_counter() - asked
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = loss_of(model, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            samples = int(batch["samples"].sum())
            own, frames = int((batch["samples"] // HOP_LENGTH).sum()), batch["mel"][:, 0].numel()
            float(loss.detach())  # shown at each step, as such loops do: a GPU is done
            done = done.later(samples / SAMPLING_RATE, own, frames, waited)
            yield done
            asked = time.perf_counter()
