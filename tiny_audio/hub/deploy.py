"""`ta deploy`: a Space is made of files that are shown or committed, an endpoint of a pushed model; costs are asked for first."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiny_audio.console import ask, say, warn
from tiny_audio.errors import TinyAudioError
from tiny_audio.hub_access import content_of, hub_errors, require_access
from tiny_audio.model_source import ModelSource

from .endpoint import EndpointSettings, create_endpoint
from .push import PushRequest, full_name, publish, require_agreement, show
from .repository import CARD, Changes, Remote, changes_of, look
from .space import SpaceSettings, build_log, prepare_space, price_of, report, secret_values, watch
from .space_files import runs_another_app, write_space

KIND = "space"


def deploy_space(space: str, model: str, settings: SpaceSettings, *, dry_run: bool, yes: bool, wait: bool) -> None:
    """Creates or updates a Space that runs the demo with a model, and shows its build, final state and URL.

    Args:
        space: OWNER/NAME, or NAME for the token's own account.
        model: as of `-m`; a folder is put into the Space.
        yes: do not ask before paid hardware, or before files are overwritten that this did not write.
        wait: until it runs; otherwise only until all is committed.

    Raises:
        TinyAudioError: no token, no permission, a secret that is not set, no such hardware, no network, the user's no; or
            the Space does not run in the end.
    """
    require_access(space, "ta deploy")
    source = ModelSource.of(model)
    secret_values(settings.secrets)
    require_model(source, settings)
    remote = look(full_name(space), kind=KIND)
    message = f"Deploy the demo of {source.name}"
    with TemporaryDirectory(prefix="ta-deploy-") as temporary:
        changes = space_changes(source, Path(temporary), remote, settings)
        is_paid = show_costs(remote.repository, settings)
        if dry_run:
            return show(changes, remote, message)
        require_agreement(changes, remote, PushRequest(yes=yes))
        if is_paid and not yes:
            require_consent_to_costs(remote.repository)
        commit, log = commit_space(changes, remote, settings, message)
    if wait:
        from huggingface_hub import HfApi

        with hub_errors(f"{remote.repository} has the new files, but its state could not be followed"):
            runtime = watch(HfApi(), remote.repository, commit, log)
        report(HfApi(), remote.repository, runtime)


def require_model(source: ModelSource, settings: SpaceSettings) -> None:
    """Looks whether the Space will find its model.

    Raises:
        TinyAudioError: it is neither here nor on the Hub, or no recogniser of tiny-audio.
    """
    if source.local:
        return
    from huggingface_hub import HfApi

    with hub_errors(f"The model {source.name} was not found"):
        info = HfApi().model_info(source.location, revision=source.revision)
    source.require_ours()
    if info.private and "HF_TOKEN" not in settings.secrets:
        warn(f"{source.name} is private: the Space cannot load it without --secrets-from-env HF_TOKEN.")


def space_changes(source: ModelSource, folder: Path, remote: Remote, settings: SpaceSettings) -> Changes:
    """What a commit of the Space's files does; they are written into `folder`.

    The README counts as overwritten where it runs another app, which is not run any more then.
    """
    readme = None
    if remote.commit is not None and CARD in remote.files:
        with hub_errors(f"{remote.repository} was not changed"):
            readme = content_of(remote.repository, CARD, remote.commit, KIND)
    title = remote.repository.split("/")[-1]
    write_space(source, folder, title, settings.hardware, readme)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    changes = changes_of({path.relative_to(folder).as_posix(): path for path in files}, remote)
    takes_over = readme is not None and runs_another_app(readme)
    return replace(changes, overwritten=[CARD, *changes.overwritten]) if takes_over else changes


def show_costs(space: str, settings: SpaceSettings) -> bool:
    """Shows what paid hardware costs; whether it is paid.

    Raises:
        TinyAudioError: no such hardware.
    """
    from huggingface_hub import HfApi

    with hub_errors(f"{space} was not changed"):
        price = price_of(HfApi(), settings.hardware)
    if price is not None:
        sleep = f"it sleeps after {settings.sleep_minutes} idle minutes"
        say(f"{space}: {settings.hardware} costs {price} while it is awake; {sleep}.")
    return price is not None


def require_consent_to_costs(space: str) -> None:
    """TinyAudioError: the answer is no, or there is no terminal to ask on."""
    answer = ask("Take it?")
    if not answer:
        raise TinyAudioError(f"{space} was not changed{'; give --yes to take it' * (answer is None)}.")


def commit_space(changes: Changes, remote: Remote, settings: SpaceSettings, message: str) -> tuple[str, list[str]]:
    """Makes the Space where it is missing and commits all files at once.

    The commit that it is to run, and the log of the build before.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with hub_errors(f"{remote.repository} was not changed"):
        prepare_space(api, remote.repository, settings)
        if remote.commit is None:
            head = str(api.space_info(remote.repository).sha)
            remote = Remote(remote.repository, KIND, head)
        log = build_log(api, remote.repository)
    publish(changes, remote, message, PushRequest())
    with hub_errors(f"The state of {remote.repository} could not be read"):
        return str(api.space_info(remote.repository).sha), log


def require_unused(options: Mapping[str, Any], target: str, instead: str) -> None:
    """TinyAudioError: an option was given that means nothing to `target`; `instead` says what it has."""
    given = [name for name, value in options.items() if value]
    if given:
        raise TinyAudioError(f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} not for {target}; {instead}.")


def deploy_endpoint(
    name: str,
    model: str | None,
    given: Mapping[str, Any],
    secrets: Sequence[str],
    *,
    yes: bool,
    dry_run: bool,
    wait: bool,
) -> None:
    """An Inference Endpoint of a model on the Hub; its costs are shown and asked for first.

    Args:
        name: of the endpoint, or OWNER/NAME for an organisation's.
        model: OWNER/NAME@REVISION, as `ta push` wrote it.
        given: fields of `EndpointSettings` that are not to be the defaults.

    Raises:
        TinyAudioError: no model on the Hub is named, the user's no, or what `create_endpoint` raises.
    """
    if model is None or (source := ModelSource.of(model)).local:
        raise TinyAudioError(
            f"An endpoint runs a model of the Hub, and -m is {model or 'not given'}; push one first: ta push OWNER/NAME."
        )
    settings = EndpointSettings(**given, secrets=secret_values(secrets))

    def agreed(question: str) -> bool:
        say(f"{question}.")
        if dry_run or yes:
            return not dry_run
        answer = ask("Go on?")
        if not answer:
            raise TinyAudioError(f"The endpoint {name} was not changed{'; give --yes to go on' * (answer is None)}.")
        return True

    create_endpoint(name, source.location, settings, revision=source.revision, wait=wait, confirm=agreed)
