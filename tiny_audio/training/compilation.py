"""`training.compile`: the layers of encoder and language model as compiled kernels, one compilation for all alike."""

import torch
from torch import nn

from tiny_audio.errors import TinyAudioError
from tiny_audio.model.modeling import ASRModel

BACKEND = "inductor"
VARIANTS = 32  # compiled at most; torch's own 8 are soon met


def compile_layers(model: ASRModel) -> int:
    """Compiles the repeated layers in place, for any lengths; names in the state dict stay. Returns their number.

    Each layer alone, as they are alike: the whole model would take minutes, and anew for what differs in it.
    """
    # torch counts the variants (a mask or none, one clip or several) of all classes of layers together
    torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
    layers = [*repeated_layers(model.encoder.encoder), *repeated_layers(model.language_model)]
    for layer in layers:
        if layer._compiled_call_impl is None:  # else a trainer before has done it
            layer.compile(dynamic=True, backend=BACKEND)
    return len(layers)


def repeated_layers(part: nn.Module) -> list[nn.Module]:
    """The members of the lists of layers of one class, but for lists inside such layers."""
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in part.modules():
        if isinstance(module, nn.ModuleList) and module not in inside and len({type(layer) for layer in module}) == 1:
            found += module
            inside |= {child for layer in module for child in layer.modules()}
    return found


def check_compiler() -> None:
    """Compiles a line, for the device of the training.

    Raises:
        TinyAudioError: that cannot be done.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.compile(lambda numbers: numbers * 2 + 1)(torch.ones(8, device=device))
    except Exception as error:  # torch has no common class for what may be missing
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TinyAudioError(
            "training.compile=true needs a C++ compiler and Python's headers (apt-get install g++ python3-dev), on CUDA "
            f"also Triton, and here they do not work ({reason.strip().rstrip('.:')}); leave it out."
        ) from error
