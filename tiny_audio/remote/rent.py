"""Renting a pod: what it will cost, agreed to before it is created, and nothing left behind where that goes wrong."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tiny_audio import console
from tiny_audio.errors import TinyAudioError

from .runpod import GpuType, NewPod, Pod, Runpod

IMAGE = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"  # RunPod's own; it starts an SSH server
DISK_DOLLARS = (
    0.10 / 730
)  # for a GB and hour of a running pod; 0.20 a month of a stopped one's volume (documents of August 2026)
HOURS = 24.0
CENT = 0.01  # an hour; what a price may differ by where it was rounded
LOOKS, LOOK_SECONDS = 3, 2.0  # for a pod of which no answer told


@dataclass(frozen=True)
class Wish:
    """What the user asks for; the other fields are those of NewPod.

    Args:
        gpu: a type's name or id, or a part of it that names one type only.
    """

    gpu: str
    count: int = 1
    cloud: str = "secure"
    spot: bool = False
    image: str = IMAGE
    disk: int = 20
    volume: int = 50
    hours: float = HOURS


@dataclass(frozen=True)
class Quote:
    """A wish, the type of GPU that it names, and dollars an hour for both GPUs and disks."""

    wish: Wish
    gpu: GpuType
    bid: float | None
    dollars: float

    def describe(self) -> str:
        """One line, to be agreed to."""
        wish, kind = self.wish, "spot" if self.wish.spot else "on demand"
        return (
            f"{wish.count} × {self.gpu.name} ({self.gpu.memory} GB), {kind}, {wish.cloud} cloud, {wish.disk} + {wish.volume} GB "
            f"of disk: ${self.dollars:.3f} an hour, stopped after {wish.hours:g} h (${self.dollars * wish.hours:.2f}) at the latest."
        )


def quote(service: Runpod, wish: Wish) -> Quote:
    """What a wish costs now.

    Raises:
        TinyAudioError: no such GPU, several, none in stock, or no spot price.
    """
    gpu = named(service.gpus(wish.cloud, wish.count), wish.gpu, wish.cloud)
    if gpu.stock == "NONE":
        raise TinyAudioError(f"RunPod has no {gpu.name} in the {wish.cloud} cloud now; see `ta remote pods gpus`.")
    price = gpu.spot_dollars if wish.spot else gpu.dollars
    if price is None:
        raise TinyAudioError(f"RunPod has no spot price for {gpu.name} in the {wish.cloud} cloud; leave out --spot.")
    dollars = wish.count * price + (wish.disk + wish.volume) * DISK_DOLLARS
    return Quote(wish, gpu, price if wish.spot else None, dollars)


def named(gpus: list[GpuType], name: str, cloud: str) -> GpuType:
    """The type of that name or id, or the only one with these words in it."""
    words = name.lower()
    for found in (
        [gpu for gpu in gpus if words in (gpu.name.lower(), gpu.id.lower())],
        [gpu for gpu in gpus if set(words.split()) <= {*gpu.name.lower().split(), *gpu.id.lower().split()}],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise TinyAudioError(f"{name!r} names {', '.join(gpu.name for gpu in found)}; give one of them as --gpu.")
    known = ", ".join(gpu.name for gpu in gpus) or "it has none"
    raise TinyAudioError(f"There is no GPU {name!r} in the {cloud} cloud; expected one of: {known}.")


def rent(service: Runpod, agreed: Quote, name: str = "") -> Pod:
    """Creates a pod and waits for its SSH server.

    Where anything goes wrong, Ctrl-C included, no pod is left.

    Args:
        name: begins its name.

    Raises:
        TinyAudioError: no SSH keys, a higher price than the agreed one, no capacity, or it does not start.
    """
    if not service.has_ssh_keys():
        raise TinyAudioError("Your RunPod account has no SSH key; add your public one in its settings, then try again.")
    check_price(quote(service, agreed.wish).dollars, agreed.dollars, "nothing was created")
    wish, unique = agreed.wish, f"{name or 'tiny-audio'}-{secrets.token_hex(4)}"
    new = NewPod(
        unique, agreed.gpu.id, wish.count, wish.cloud, wish.image, wish.disk, wish.volume, wish.hours, agreed.bid
    )
    with undone(lambda: terminate_named(service, unique), unique):
        pod = service.create(new)
        check_price(pod.dollars, agreed.dollars, "the pod is terminated")
        ready = service.wait(pod)
        check_price(ready.dollars, agreed.dollars, "the pod is terminated")
    return replace(ready, dollars=ready.dollars or agreed.dollars)


def check_price(dollars: float, agreed: float, done: str) -> None:
    """Refuses a price an hour above the agreed one."""
    if dollars > agreed + CENT:
        raise TinyAudioError(f"RunPod now asks ${dollars:.3f} an hour, agreed were ${agreed:.3f}; {done}. Ask again.")


@contextmanager
def undone(undo: Callable[[], None], name: str) -> Iterator[None]:
    """Where the block fails, `undo` is called, and what fails in it told too: what is left costs money."""
    try:
        yield
    except BaseException as error:
        try:
            undo()
        except TinyAudioError as second:
            first = str(error) or type(error).__name__
            raise TinyAudioError(f"{first} And the pod {name} may be left, which costs money: {second}") from error
        raise


def terminate_named(service: Runpod, name: str) -> None:
    """Terminates the pod of that name; it is looked for more than once, since it may be listed late."""
    for look in range(LOOKS):
        if look:
            time.sleep(LOOK_SECONDS)
        for pod in service.pods():
            if pod.name == name:
                service.terminate(pod.id)
                console.say(f"Pod {pod.id} ({name}) was terminated.")
                return


def start(service: Runpod, pod: Pod, agreed: Quote) -> Pod:
    """Starts a stopped pod and waits for its SSH server; stops it again where that goes wrong.

    Raises:
        TinyAudioError: a higher price than the agreed one, no GPU left on its machine, or it does not start.
    """
    with undone(lambda: stop_if_started(service, pod.id), pod.id):
        service.start(pod, agreed.bid)
        ready = service.wait(pod)
        check_price(ready.dollars, agreed.dollars, "the pod is stopped again")
    return ready


def stop_if_started(service: Runpod, pod_id: str) -> None:
    """Stops a pod again, if it is not stopped."""
    if service.pod(pod_id).status != "EXITED":
        service.stop(pod_id)
        console.say(f"Pod {pod_id} was stopped again.")
