"""Encoders of any length that take a mask: wav2vec 2.0, HuBERT, WavLM, w2v-BERT 2.0 and Parakeet."""

import math

from transformers import PretrainedConfig

from tiny_audio.model.encoders import ENCODER_ADAPTERS, EncoderAdapter, length_mask


class MaskedAdapter(EncoderAdapter):
    """Encoders of any length that take a mask of their features and have an extractor of their own."""

    whisper_mel = False
    max_samples = None

    def states(self, features, lengths):
        keep = length_mask(lengths, features.shape[-1])
        if features.dim() == 3:
            features = (features * keep[:, None]).transpose(1, 2)
        return self._run(features, attention_mask=None if keep.all() else keep.long())


class Wav2Vec2Adapter(MaskedAdapter):
    """wav2vec 2.0, HuBERT, WavLM (arXiv 2006.11477, 2106.07447, 2110.13900): raw samples, normalised by the extractor.

    A batch is masked. But a group norm sees all samples of a row, and a batch norm before the positions or an adapter
    of convolutions after the layers sees no mask: such encoders run their clips one by one.
    """

    model_types: tuple[str, ...] = ("hubert", "wav2vec2", "wavlm")
    input_name = "input_values"
    prefix = r"^(hubert|wav2vec2|wavlm|wav2vec2_bert)\."
    framing: tuple[tuple[int, int, int], ...] = ()

    def __init__(self, config: PretrainedConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        adapter, group_norm = getattr(config, "add_adapter", False), getattr(config, "feat_extract_norm", "") == "group"
        kernels = zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True)
        self.convolutions = tuple((kernel, stride, 0) for kernel, stride in kernels)
        if adapter:
            padding = config.adapter_stride // 2 if self.framing else 1  # as w2v-BERT's and as wav2vec 2.0's modules
            last = (config.adapter_kernel_size, config.adapter_stride, padding)
            self.convolutions += (last,) * config.num_adapter_layers
        self.one_by_one = adapter or group_norm or getattr(config, "conv_pos_batch_norm", False)


class Wav2Vec2BertAdapter(Wav2Vec2Adapter):
    """w2v-BERT 2.0 (arXiv 2312.05187): pairs of Kaldi's mel frames, 25 ms every 10 ms; its convolutions look back only."""

    model_types = ("wav2vec2-bert",)
    input_name = "input_features"
    framing = ((400, 160, 0), (2, 2, 0))


class ParakeetAdapter(MaskedAdapter):
    """Parakeet's FastConformer (arXiv 2305.05084), of its CTC, RNN-T and TDT checkpoints; all its convolutions mask."""

    model_types = ("parakeet_encoder", "parakeet_ctc", "parakeet_rnnt", "parakeet_tdt")

    def __init__(self, config: PretrainedConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        config = self.encoder_config(config)
        kernel, layers = config.subsampling_conv_kernel_size, int(math.log2(config.subsampling_factor))
        self.convolutions = ((kernel, config.subsampling_conv_stride, (kernel - 1) // 2),) * layers

    @property
    def min_samples(self) -> int:
        return 2 * self.framing[0][1]  # its extractor divides by the mel frames less one


for adapter in (Wav2Vec2Adapter, Wav2Vec2BertAdapter, ParakeetAdapter):
    ENCODER_ADAPTERS.update(dict.fromkeys(adapter.model_types, adapter))
