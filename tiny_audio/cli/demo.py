"""`ta demo`: a page in the browser that turns speech into text."""

from typing import Annotated

import typer

from tiny_audio.cli.options import DeviceOption, DtypeOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)

ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help="nano, a checkpoint's folder, or a Hub id; twice: two models side by side. [nano]"
    ),
]
HostOption = Annotated[
    str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's. [127.0.0.1]")
]
AuthOption = Annotated[
    str | None,
    typer.Option(
        metavar="USER:PASSWORD",
        envvar="TA_DEMO_AUTH",
        help="Ask visitors for this name; in the variable it cannot be read in `ps`.",
    ),
]
UrlsOption = Annotated[bool, typer.Option("--urls", help="Also take the address of a recording, on public hosts.")]
MinutesOption = Annotated[float, typer.Option(help="Longest recording.")]
UploadOption = Annotated[float, typer.Option(help="Largest file, in MB.")]
QueueOption = Annotated[int, typer.Option(min=1, help="Recordings that may wait for the model.")]


@app.command()
def demo(
    model: ModelsOption = None,
    host: HostOption = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on. [7860]")] = None,
    share: Annotated[bool, typer.Option("--share", help="Also a public address, through Gradio's tunnel.")] = False,
    auth: AuthOption = None,
    urls: UrlsOption = False,
    max_minutes: MinutesOption = 10.0,
    max_upload_mb: UploadOption = 50.0,
    queue: QueueOption = 16,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a page that turns speech into text: microphone, files, word times, two models side by side."""
    given = dict(locals())
    models, pair = given.pop("model") or ["nano"], given.pop("auth")
    if len(models) > 2:
        raise typer.BadParameter(f"{len(models)} models are named; the page shows one, or two side by side.")
    if pair is not None and ":" not in pair:
        raise typer.BadParameter("--auth holds no colon; expected USER:PASSWORD.")

    from tiny_audio.demo import launch

    launch(*models, **given, auth=None if pair is None else tuple(pair.split(":", 1)))
