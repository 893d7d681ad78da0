"""What a training on a rented machine will cost, and what it did cost."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiny_audio.training.schema import Settings


@dataclass(frozen=True)
class Estimate:
    """Hours of the machine for the training steps, and how they were found."""

    gpu: str
    count: int
    hours: float
    dollars_per_hour: float
    utilisation: float
    utilisation_from: str

    @property
    def dollars(self) -> float:
        """Of all GPUs and hours."""
        return self.hours * self.dollars_per_hour

    def describe(self) -> str:
        """One line."""
        return (
            f"About {self.hours:.2f} h of {self.count} × {self.gpu} for the training steps, ${self.dollars:.2f} at "
            f"${self.dollars_per_hour:.3f} an hour ({self.utilisation:.0%} of the peak, {self.utilisation_from}); "
            "setup, transfers and validation come on top."
        )


def estimate(settings: "Settings", gpu: str, count: int, dollars_per_hour: float) -> Estimate | None:
    """From the plan of `ta train --dry-run`; None: the peak of this GPU is not known.

    Args:
        gpu: as RunPod or CUDA call it.
        count: GPUs of the machine, all of which train.
        dollars_per_hour: of the whole machine.
    """
    from tiny_audio.training.cost import hours  # torch takes seconds, which a bill should not
    from tiny_audio.training.gpus import gpu_table
    from tiny_audio.training.plan import planned_work

    table = gpu_table()
    known = table.named(gpu)
    if known is None:
        return None
    needed = hours(planned_work(settings).total, known[1], table.utilisation) / count
    return Estimate(known[0], count, needed, dollars_per_hour, table.utilisation, table.utilisation_from)


def bill(state: dict[str, Any], dollars_per_hour: float) -> str:
    """One line: what a job has cost, from its state.json; the machine's time before and after it is not in it."""
    spent = (
        float(state.get("seconds") or 0.0) / 3600
    )  # over all its starts: a machine that was taken back costs nothing
    return f"{spent:.2f} h at ${dollars_per_hour:.3f} an hour: ${spent * dollars_per_hour:.2f}."
