"""`ta remote pods`: RunPod's GPUs and prices; pods that are created, started, stopped and terminated."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from tiny_audio.remote.runpod import Pod

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

CloudOption = Annotated[Literal["secure", "community"], typer.Option(help="RunPod's own machines, or those of others.")]
PodArgument = Annotated[str, typer.Argument(metavar="POD", help="Its id, as `list` shows it.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.callback()
def pods() -> None:
    """Rent GPUs of RunPod, with the key of RUNPOD_API_KEY."""


@app.command("list")
def list_pods() -> None:
    """All pods of the account, and what they cost now."""
    from tiny_audio.console import say, table
    from tiny_audio.remote.runpod import Runpod

    found = Runpod().pods()
    rows = [
        (pod.id, pod.name, pod.status.lower(), f"{pod.count} × {pod.gpu}", pod.cloud, f"{pod.dollars:.3f}", address(pod))
        for pod in found
    ]  # fmt: skip
    table(("pod", "name", "state", "GPU", "cloud", "USD/h", "ssh"), rows, right=("USD/h",))
    say(f"${sum(pod.dollars for pod in found):.3f} an hour. Stopped pods pay for their disk until they are terminated.")


@app.command()
def gpus(
    cloud: CloudOption = "secure",
    count: Annotated[int, typer.Option(min=1, help="GPUs in one pod; prices are for one.")] = 1,
) -> None:
    """GPUs that can be had, with memory and prices."""
    from tiny_audio.console import table
    from tiny_audio.remote.runpod import Runpod

    columns = ("GPU", "GB", "USD/h", "spot USD/h", "stock")
    rows = [
        (gpu.name, gpu.memory, f"{gpu.dollars:.2f}", gpu.spot_dollars and f"{gpu.spot_dollars:.2f}", gpu.stock.lower())
        for gpu in Runpod().gpus(cloud, count)
    ]
    table(columns, rows, right=columns[1:4])


@app.command()
def create(
    gpu: Annotated[str, typer.Option(help="Its name, as `gpus` shows it, e.g. A40.")],
    count: Annotated[int, typer.Option(min=1, help="GPUs of the pod.")] = 1,
    image: Annotated[str | None, typer.Option(help="Docker image with an SSH server. [RunPod's PyTorch]")] = None,
    disk: Annotated[int, typer.Option(min=1, help="GB that are lost when it stops.")] = 20,
    volume: Annotated[int, typer.Option(min=10, help="GB of /workspace, which are kept.")] = 50,
    cloud: CloudOption = "secure",
    spot: Annotated[bool, typer.Option("--spot", help="Cheaper, and may be taken back at any moment.")] = False,
    hours: Annotated[float, typer.Option(min=0.1, help="RunPod stops it after them, whatever happens.")] = 24.0,
    name: Annotated[str, typer.Option(help="Begins its name.")] = "tiny-audio",
    yes: YesOption = False,
) -> None:
    """Create a pod and wait until its SSH server answers."""
    from tiny_audio.console import out
    from tiny_audio.remote.rent import IMAGE, Wish, quote, rent
    from tiny_audio.remote.runpod import Runpod

    service = Runpod()
    agreed = quote(service, Wish(gpu, count, cloud, spot, image or IMAGE, disk, volume, hours))
    agree(agreed.describe(), "Create it?", yes)
    pod = rent(service, agreed, name)
    out(pod.id)
    say_how_to_reach(pod)


@app.command()
def start(
    pod: PodArgument,
    spot: Annotated[bool, typer.Option("--spot", help="It was created with --spot.")] = False,
    yes: YesOption = False,
) -> None:
    """Start a stopped pod and wait until its SSH server answers.

    RunPod's limit of hours was that of its creation; it may not stop this one again.
    """
    from tiny_audio.remote.rent import Wish, quote
    from tiny_audio.remote.rent import start as start_again
    from tiny_audio.remote.runpod import Runpod

    service = Runpod()
    stopped = service.pod(pod)
    agreed = quote(service, Wish(stopped.gpu, stopped.count, stopped.cloud, spot))
    agree(f"{stopped.count} × {agreed.gpu.name}: ${agreed.dollars:.3f} an hour, until you stop it.", "Start it?", yes)
    say_how_to_reach(start_again(service, stopped, agreed))


@app.command()
def stop(pod: PodArgument) -> None:
    """Stop a pod; /workspace is kept, and paid for."""
    from tiny_audio.console import say
    from tiny_audio.remote.runpod import Runpod

    Runpod().stop(pod)
    say(f"Pod {pod} stops. Its disk costs money until: ta remote pods terminate {pod}")


@app.command()
def terminate(pod: PodArgument, yes: YesOption = False) -> None:
    """Delete a pod and all that is on it."""
    from tiny_audio.console import say
    from tiny_audio.remote.runpod import Runpod

    service = Runpod()
    found = service.pod(pod)
    agree(f"Pod {pod} ({found.name}, {found.status.lower()}) and all that is on its disks.", "Delete it?", yes)
    service.terminate(pod)
    say(f"Pod {pod} is terminated.")


def agree(what: str, question: str, yes: bool) -> None:
    """Says what it costs and asks; without a terminal only --yes agrees."""
    import sys

    from tiny_audio.console import say
    from tiny_audio.errors import TinyAudioError

    say(what)
    if yes:
        return
    if not sys.stdin.isatty():
        raise TinyAudioError("Nobody is there to be asked; add --yes if you agree.")
    typer.confirm(question, abort=True, err=True)


def address(pod: "Pod") -> str:
    """USER@HOST -p PORT."""
    return f"{pod.ssh[0]}@{pod.ssh[1]} -p {pod.ssh[2]}" if pod.ssh else ""


def say_how_to_reach(pod: "Pod") -> None:
    """The command that makes it a target of the others."""
    from tiny_audio.console import say
    from tiny_audio.remote.runpod import PROJECT_FOLDER

    price = f"--dollars-per-hour {pod.dollars:.3f}"
    say(f"Pod {pod.id} is ready: ta remote add {pod.id} {address(pod)} --path {PROJECT_FOLDER} {price}")
    say(f"It costs ${pod.dollars:.3f} an hour until: ta remote pods stop {pod.id}")
