"""`ta deploy`: the demo as a Space on the Hub, or a model as an Inference Endpoint."""

from typing import Annotated

import typer

from tiny_audio.cli.options import ModelOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def deploy(
    space: Annotated[
        str | None, typer.Argument(metavar="[SPACE]", help="OWNER/NAME of the Space; NAME alone is your account's.")
    ] = None,
    model: ModelOption = None,
    hardware: Annotated[
        str, typer.Option(help="Of the Space: t4-small, l4x1 …; all but the default cost money.")
    ] = "cpu-basic",
    sleep_minutes: Annotated[
        int, typer.Option(min=5, help="After so long without visitors, paid hardware sleeps.")
    ] = 60,
    private: Annotated[bool, typer.Option("--private", help="A new Space that only you see.")] = False,
    secrets_from_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Environment variable that becomes a secret of the Space; may be repeated."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show the build until the Space runs.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before costs and overwritten files.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be uploaded; change nothing.")] = False,
) -> None:
    """Put the demo on the Hub as a Space, or a pushed model behind an Inference Endpoint."""
    from tiny_audio.hub.deploy import deploy_space
    from tiny_audio.hub.space import SpaceSettings

    settings = SpaceSettings(hardware, private, tuple(secrets_from_env or ()), sleep_minutes)
    deploy_space(space, model or "nano", settings, dry_run=dry_run, yes=yes, wait=wait)
