"""A Space on the Hub that runs the demo: made or updated in one commit, and watched until it runs or has failed."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiny_audio.console import out, say
from tiny_audio.errors import TinyAudioError
from tiny_audio.hub_access import hub_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi, SpaceRuntime

FREE = "cpu-basic"
POLL_SECONDS = 5.0  # from one look at the build to the next
WAIT_SECONDS = 1800.0  # the Hub itself gives up a start after 30 minutes
BEGIN_SECONDS = 60.0  # that the Hub may take to begin a build, where it does not say which commit it runs
LOG_TAIL = 40  # lines of the app's own log, where it failed
UNDER_WAY = ("BUILDING", "RUNNING_BUILDING", "APP_STARTING", "RUNNING_APP_STARTING")


@dataclass(frozen=True)
class SpaceSettings:
    """How a Space is to be: `secrets` are names of environment variables, `sleep_minutes` of paid hardware that nobody uses."""

    hardware: str = FREE
    private: bool = False
    secrets: tuple[str, ...] = ()
    sleep_minutes: int = 60

    @property
    def sleep_seconds(self) -> int | None:
        """None on free hardware, which sleeps after 48 hours and takes no other value."""
        return None if self.hardware == FREE else 60 * self.sleep_minutes


def secret_values(names: Sequence[str]) -> dict[str, str]:
    """Values of environment variables.

    Raises:
        TinyAudioError: one is not set.
    """
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise TinyAudioError(
            f"--secrets-from-env names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not set in this "
            "environment; export it first."
        )
    return {name: os.environ[name] for name in names}


def price_of(api: "HfApi", hardware: str) -> str | None:
    """What hardware costs, for people; None: it is free.

    Raises:
        TinyAudioError: the Hub has no hardware of that name.
    """
    if hardware == FREE:
        return None
    known = {each.name: each for each in api.list_spaces_hardware()}
    if hardware not in known:
        raise TinyAudioError(f"The Hub has no hardware {hardware!r} for Spaces; expected one of: {', '.join(known)}.")
    cost, unit = known[hardware].unit_cost_usd, known[hardware].unit_label
    hour = 60 * cost if unit == "minute" else cost
    return f"${hour:.2f} an hour" if cost else None


def prepare_space(api: "HfApi", space: str, settings: SpaceSettings) -> None:
    """Makes the Space if it is not there, gives it its hardware, and its secrets before the app first starts."""
    secrets = secret_values(settings.secrets)
    api.create_repo(
        space,
        repo_type="space",
        space_sdk="gradio",
        private=settings.private,
        exist_ok=True,
        space_hardware=None if settings.hardware == FREE else settings.hardware,  # type: ignore[arg-type]
        space_sleep_time=settings.sleep_seconds,
    )
    runtime = api.get_space_runtime(space)
    if (runtime.requested_hardware or runtime.hardware or FREE) != settings.hardware:
        api.request_space_hardware(space, settings.hardware, sleep_time=settings.sleep_seconds)  # type: ignore[arg-type]
    for name, value in secrets.items():
        api.add_space_secret(space, name, value)


def watch(api: "HfApi", space: str, commit: str, log: Sequence[str]) -> "SpaceRuntime":
    """Prints the build's log as it grows, until the Space no longer builds nor starts; its state then.

    Args:
        commit: that is to run.
        log: of the build before.

    Raises:
        TinyAudioError: it took too long.
    """
    stage, began = "", time.monotonic()
    while (seconds := time.monotonic() - began) < WAIT_SECONDS:
        runtime = api.get_space_runtime(space)
        if runtime.stage != stage:
            say(f"{space}: {runtime.stage}")
        stage = runtime.stage
        lines = build_log(api, space)
        for line in added(log, lines):
            out(line)
        log = lines
        if is_settled(runtime, commit, seconds):
            return runtime
        time.sleep(POLL_SECONDS)
    raise TinyAudioError(
        f"{space} is still {stage} after {WAIT_SECONDS / 60:.0f} minutes; its log goes on at `hf spaces logs {space} --build -f`."
    )


def is_settled(runtime: "SpaceRuntime", commit: str, seconds: float) -> bool:
    """Whether the state is that of this commit, and will not change by itself."""
    if runtime.stage in UNDER_WAY:
        return False
    running = runtime.raw.get("sha")
    return running == commit if running else seconds > BEGIN_SECONDS


def build_log(api: "HfApi", space: str) -> list[str]:
    """Lines of the newest build so far; none where there is no log yet."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return [line.rstrip("\n") for line in api.fetch_space_logs(space, build=True)]
    except HfHubHTTPError as error:
        if error.response.status_code != 404:
            raise
        return []


def added(before: Sequence[str], now: Sequence[str]) -> Sequence[str]:
    """What a log has more than before; all of it, where it is another build's."""
    return now[len(before) :] if list(now[: len(before)]) == list(before) else now


def report(api: "HfApi", space: str, runtime: "SpaceRuntime") -> None:
    """Says where the Space is.

    Raises:
        TinyAudioError: it does not run; its own log is shown first.
    """
    page = f"{api.endpoint}/spaces/{space}"
    if runtime.stage == "RUNNING":
        hosts = [f"https://{each['domain']}" for each in runtime.raw.get("domains") or []]
        return say(f"{space} runs: {' · '.join([page, *hosts])}")
    if runtime.stage == "RUNTIME_ERROR":
        with hub_errors(f"The log of {space} could not be read"):
            for line in list(api.fetch_space_logs(space))[-LOG_TAIL:]:
                out(line.rstrip("\n"))
    said = runtime.raw.get("errorMessage")
    raise TinyAudioError(
        f"{space} does not run: {runtime.stage}{f' ({said.strip().splitlines()[0]})' if said else ''}; the log above says "
        f"why, and {page} shows it."
    )
