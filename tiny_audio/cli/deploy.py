"""`ta deploy`: the demo as a Space on the Hub, or a pushed model behind an Inference Endpoint."""

from typing import Annotated

import typer

from tiny_audio.cli.options import ModelOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)

HardwareOption = Annotated[
    str | None,
    typer.Option(
        help="Of a Space: t4-small, l4x1 …; of an endpoint: an id of `hf endpoints hardware`. "
        "[cpu-basic; aws-us-east-1-nvidia-l4-x1]"
    ),
]
SleepOption = Annotated[
    int | None,
    typer.Option(min=5, help="Minutes without visitors, after which what is paid for sleeps. [60; 15 of an endpoint]"),
]
SecretsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Environment variable that becomes a secret there; may be repeated."),
]


@app.command()
def deploy(
    space: Annotated[
        str | None, typer.Argument(metavar="[SPACE]", help="OWNER/NAME of the Space; NAME alone is your account's.")
    ] = None,
    model: ModelOption = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of a Space, an Inference Endpoint of a pushed model.")
    ] = None,
    hardware: HardwareOption = None,
    sleep_minutes: SleepOption = None,
    private: Annotated[bool, typer.Option("--private", help="A new Space that only you see.")] = False,
    access: Annotated[
        str | None, typer.Option(help="To an endpoint: authenticated, public or private. [authenticated]")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Of an endpoint, at most; none while it sleeps. [1]")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="Of an endpoint: an image of `ta serve` in a registry, to be run in place of the Hub's."),
    ] = None,
    secrets_from_env: SecretsOption = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show the build until it runs.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before costs and overwritten files.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
) -> None:
    """Put the demo on the Hub as a Space, or a pushed model behind an Inference Endpoint."""
    from tiny_audio.errors import TinyAudioError

    if (space is None) == (endpoint is None):
        raise TinyAudioError(
            "Name one thing to deploy: `ta deploy OWNER/SPACE`, or `ta deploy --endpoint NAME -m MODEL`."
        )
    secrets, agreed = tuple(secrets_from_env or ()), {"yes": yes, "dry_run": dry_run, "wait": wait}
    if space is not None:
        from tiny_audio.hub.deploy import deploy_space, require_unused
        from tiny_audio.hub.space import FREE, SpaceSettings

        of_endpoints = {"--access": access, "--replicas": replicas, "--image": image}
        require_unused(of_endpoints, "a Space", "it has --private and --hardware")
        settings = SpaceSettings(hardware or FREE, private, secrets, sleep_minutes or 60)
        deploy_space(space, model or "nano", settings, **agreed)
    else:
        from tiny_audio.hub.deploy import deploy_endpoint, require_unused

        require_unused({"--private": private}, "an endpoint", "it has --access private")
        given = {
            "hardware": hardware,
            "idle_minutes": sleep_minutes,
            "access": access,
            "max_replicas": replicas,
            "image": image,
        }
        deploy_endpoint(str(endpoint), model, {key: value for key, value in given.items() if value}, secrets, **agreed)
