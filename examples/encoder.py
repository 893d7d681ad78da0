"""An encoder family of one's own: data2vec-audio, such as facebook/data2vec-audio-base-960h."""

from tiny_audio.model.encoders import ENCODER_ADAPTERS, EncoderAdapter


class Data2VecAdapter(EncoderAdapter):
    """data2vec (arXiv 2202.03555): samples in, normalised by the checkpoint's own extractor; 50 frames a second."""

    input_name = "input_values"  # what transformers calls the features
    whisper_mel = False  # the checkpoint's own feature extractor makes them
    framing = ()  # features are the samples themselves
    max_samples = None  # it takes clips of any length
    prefix = r"^data2vec_audio\."  # where the encoder's tensors lie in a checkpoint with a CTC head
    one_by_one = True  # its convolutions for the positions read into the padding: no batch is exact

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        kernels = zip(config.conv_kernel, config.conv_stride, strict=True)
        self.convolutions = tuple((kernel, stride, 0) for kernel, stride in kernels)  # what shortens the features

    def states(self, features, lengths):
        """(batch, samples), and each clip's own (batch,) → all hidden states (batch, frames, dim), the last one last."""
        return self._run(features)


ENCODER_ADAPTERS["data2vec-audio"] = Data2VecAdapter  # the model_type in the config.json of its checkpoints
