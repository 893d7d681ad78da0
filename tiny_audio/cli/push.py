"""`ta push`: a checkpoint to the Hugging Face Hub."""

from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def push(
    repository: Annotated[
        str | None, typer.Argument(metavar="[REPO]", help="OWNER/NAME, or NAME for your own account.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", "-c", help="Folder, Hub id or nano; the last run's best if none.")
    ] = None,
    branch: Annotated[str, typer.Option(help="Branch; made if it is not there.")] = "main",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    self_contained: Annotated[
        bool, typer.Option("--self-contained", help="With encoder and language model inside.")
    ] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    message: Annotated[str | None, typer.Option("--message", help="Title of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be pushed and deleted.")] = False,
    card_only: Annotated[bool, typer.Option("--card-only", help="Push nothing but README.md.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Overwrite files that ta push did not write.")] = False,
) -> None:
    """Push a checkpoint: weights, code, requirements, endpoint handler and card, in one commit."""
    from tiny_audio.console import out
    from tiny_audio.hub.push import PushRequest
    from tiny_audio.hub.push import push as push_checkpoint

    request = PushRequest(
        repository, checkpoint, branch, private, self_contained, create_pr, message, dry_run, card_only, yes
    )
    address = push_checkpoint(request)
    if address is not None:
        out(f"Pushed: {address}")
