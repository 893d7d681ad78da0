"""What is known of GPUs: their peaks and prices, and the share of the peak that training reaches, from configs/gpus.yaml."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tiny_audio.errors import TinyAudioError

from .config import config_folders

FILE = "gpus.yaml"


@dataclass
class Gpu:
    """The dense bf16 peak in TFLOP/s, the price in US dollars an hour, and the power in watts; None: not known."""

    tflops: float
    dollars: float
    watts: float | None = None


@dataclass
class GpuTable:
    """GPUs by name, how their prices were found, the share of the peak that is planned with, and kg of CO2 a kWh."""

    date: str
    prices: str
    utilisation: float
    utilisation_from: str
    carbon: float
    carbon_from: str
    gpus: dict[str, Gpu]

    def named(self, device: str) -> tuple[str, Gpu] | None:
        """The entry of a device as CUDA calls it: `NVIDIA A100-SXM4-80GB` is an A100, an A4000 is no A40."""
        return next(((name, gpu) for name, gpu in self.gpus.items() if re.search(rf"\b{name}\b", device)), None)

    def here(self) -> tuple[str, Gpu] | None:
        """The entry of this machine's GPU; None: there is none, or it is not known."""
        return self.named(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def own_file() -> Path:
    """Where a user's own prices are."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tiny-audio" / FILE


def gpu_table() -> GpuTable:
    """The shipped table, with what the user's own changes.

    Raises:
        TinyAudioError: the user's file is not such a table.
    """
    table = OmegaConf.merge(OmegaConf.structured(GpuTable), OmegaConf.load(config_folders()[-1] / FILE))
    file = own_file()
    try:
        if file.is_file():
            table = OmegaConf.merge(table, OmegaConf.load(file))
        return OmegaConf.to_object(table)  # type: ignore[return-value]
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise TinyAudioError(
            f"{file} cannot be read ({str(error).splitlines()[0]}); expected the keys of configs/{FILE}."
        ) from error
