"""`ta serve`: a small HTTP server around a model."""

from typing import Annotated

import typer

from tiny_audio.cli.options import DeviceOption, DtypeOption, ModelOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def serve(
    model: ModelOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    max_upload_mb: Annotated[float, typer.Option(min=0.001, help="Largest recording.")] = 100,
    max_minutes: Annotated[float, typer.Option(min=0.001, help="Longest audio of a request.")] = 60,
    queue: Annotated[int, typer.Option(min=1, help="Requests taken at a time; the next one gets 503.")] = 16,
) -> None:
    """Serve a model over HTTP: POST / takes audio, JSON or a form (docs/serving.md); GET /health says when it is ready."""
    from tiny_audio.errors import require_extra

    for module in ("starlette", "uvicorn"):
        require_extra(module, "serve")

    from tiny_audio.serving.server import serve

    limits = {"max_upload_mb": max_upload_mb, "max_minutes": max_minutes, "queue": queue}
    serve(model or "nano", host, port, device=device, dtype=dtype, **limits)  # type: ignore[arg-type]
