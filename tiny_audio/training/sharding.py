"""FSDP2: a language model that is trained in full lies in shards on all GPUs, with its gradients and optimizer states."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tiny_audio.model.modeling import ASRModel

from .processes import is_first


def shard(model: ASRModel) -> None:
    """Spreads all but the frozen encoder over the processes, in place: a group a decoder layer, and one of the rest."""
    mesh = init_device_mesh(model.device.type, (distributed.get_world_size(),))
    names = model.language_model._no_split_modules or ()
    layers = [module for module in model.language_model.modules() if type(module).__name__ in names]
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    frozen = {parameter for parameter in model.encoder.parameters() if not parameter.requires_grad}
    fully_shard(model, mesh=mesh, ignored_params=frozen)
    # Left alone, a backward pass fetches in the order of the last forward passes: validation's differ among processes.
    for group, before in zip([*layers, model], [model, *layers], strict=True):
        group.set_modules_to_backward_prefetch([before])


def keep_states_whole(optimizer: torch.optim.Optimizer) -> None:
    """From now on the optimizer gives and takes its state as one that is not in shards would; all processes must ask."""

    def gather(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
        whole = {
            index: {name: _whole(value) for name, value in values.items()} for index, values in state["state"].items()
        }
        return {**state, "state": whole}

    def spread(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        sharded = {
            index: {name: _like(value, parameters[index]) for name, value in values.items()}
            for index, values in state["state"].items()
        }
        return {**state, "state": sharded}

    optimizer.register_state_dict_post_hook(gather)
    optimizer.register_load_state_dict_pre_hook(spread)


def _whole(value: Any) -> Any:
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _like(value: Any, parameter: torch.Tensor) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Meanwhile every process holds all weights: decoding takes another number of steps in each of them."""
    groups = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for group in groups:
        group.unshard()
        group.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for group in groups:
            group.set_reshard_after_forward(group is not model, recurse=False)
            group.reshard()


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Meanwhile the first process has whole weights, on the CPU, where the shards were, to write them down."""
    sharded: list[tuple[nn.Module, str, nn.Parameter]] = []
    found: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if isinstance(parameter, DTensor):
                sharded.append((module, name, parameter))
                if id(parameter) not in found:
                    full = parameter.full_tensor().detach()
                    found[id(parameter)] = nn.Parameter(full.cpu() if is_first() else full[:0], parameter.requires_grad)
    for module, name, parameter in sharded:
        module._parameters[name] = found[id(parameter)]
    try:
        yield
    finally:
        for module, name, parameter in sharded:
            module._parameters[name] = parameter
