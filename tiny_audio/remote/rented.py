"""A new pod for one training: rented, used, and stopped, unless a job on it will do that itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tiny_audio.console import say, warn
from tiny_audio.errors import TinyAudioError

from .connection import Connection, connect
from .jobs import look_at_jobs
from .rent import Quote, Wish, quote, rent, stop_if_started
from .runpod import PROJECT_FOLDER, Runpod
from .targets import Target, add_remote


@contextmanager
def new_pod(
    wish: Wish, agree: Callable[[Quote], None], accept_new: bool, **given: str | float | None
) -> Iterator[Connection]:
    """A connection to a pod that is created now, and known by its id from now on; at the end it is stopped.

    Args:
        agree: shows the price, and raises where nobody agrees.
        given: of its Target, in place of what is usual.

    Raises:
        TinyAudioError: it cannot be had, or reached.
    """
    service = Runpod()
    agreed = quote(service, wish)
    agree(agreed)
    pod = rent(service, agreed)
    connected = False
    try:
        target = target_of(pod.id, pod.ssh, pod.dollars, given)
        add_remote(pod.id, target)
        say(f"Pod {pod.id} is ready; the other commands find it by --host {pod.id}.")
        with connect(target, accept_new) as connection:
            connected = True
            yield connection
    finally:
        if not (connected and works_alone(service, target)):
            stop_if_started(service, pod.id)


def target_of(
    pod_id: str, ssh: tuple[str, str, int] | None, dollars: float, given: dict[str, str | float | None]
) -> Target:
    """Where the pod's SSH server is."""
    if ssh is None:
        raise TinyAudioError(f"Pod {pod_id} has no SSH address; see `ta remote pods list`.")
    user, host, port = ssh
    usual = {"path": PROJECT_FOLDER, "dollars_per_hour": dollars, "pod": pod_id, "name": pod_id}
    chosen = {name: value for name, value in given.items() if value is not None}
    return Target(host, port, user, **{**usual, **chosen})  # type: ignore[arg-type]


def works_alone(service: Runpod, target: Target) -> bool:
    """Whether a job is under way on the pod, which stops the pod when it is over; also where that cannot be known."""
    if service.pod(str(target.pod)).status != "RUNNING":
        return True  # stopped already
    try:
        with Connection(target) as connection:
            return any(job.alive for job in look_at_jobs(connection)[0])
    except TinyAudioError as error:
        warn(f"Pod {target.pod} was not stopped from here, a job may run on it ({error}); see `ta remote pods list`.")
        return True
