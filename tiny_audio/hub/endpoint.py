"""A pushed model behind an Inference Endpoint: made or updated, its price asked about first, and watched until it answers."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tiny_audio.console import out, say
from tiny_audio.errors import TinyAudioError
from tiny_audio.hub_access import hub_errors, require_access, status

if TYPE_CHECKING:
    from huggingface_hub import HfApi, InferenceEndpoint
    from huggingface_hub import InferenceEndpointHardware as Hardware
    from huggingface_hub.hf_api import ModelInfo

HANDLER = "handler.py"
TASK = "custom"  # of a known one, the managed image would take the inputs apart before handler.py sees them
MODEL_FOLDER, SERVER_PORT = (
    "/repository",
    8000,
)  # in a container of ours: where Endpoints put the model; docker/Dockerfile
ACCESS = ("authenticated", "public", "private")  # with a token of the Hub; open to all; from a private network only
POLL_SECONDS = 5.0  # from one look at the state to the next
WAIT_SECONDS = 3600.0
HEALTH_SECONDS = 120  # from the state "running" to the first answer
_NAME = re.compile(r"([\w.-]+/)?[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", re.ASCII | re.IGNORECASE)
PAGE = "https://ui.endpoints.huggingface.co"


@dataclass(frozen=True)
class EndpointSettings:
    """How an endpoint is to be: `hardware` is an id of `hf endpoints hardware`, of one vendor in one region."""

    hardware: str = "aws-us-east-1-nvidia-l4-x1"
    access: str = ACCESS[0]
    min_replicas: int = 0
    max_replicas: int = 1
    idle_minutes: int = 15  # without requests, after which it sleeps and costs nothing, where min_replicas is 0
    image: str | None = None  # of our server, in a registry; None: the managed one, which runs handler.py
    secrets: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.access not in ACCESS:
            raise TinyAudioError(f"The access {self.access!r} is unknown; expected one of: {', '.join(ACCESS)}.")
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise TinyAudioError(
                f"{self.min_replicas} to {self.max_replicas} replicas were asked for; expected 0 or more, and at most 1 or more."
            )

    def scaling(self) -> dict[str, Any]:
        idle = {"scale_to_zero_timeout": self.idle_minutes} if self.min_replicas == 0 else {}
        return {"min_replica": self.min_replicas, "max_replica": self.max_replicas, **idle}

    def container(self) -> dict[str, Any]:
        if self.image is None:
            return {"framework": "pytorch", "custom_image": {"huggingface": {}}}
        image = {"url": self.image, "port": SERVER_PORT, "healthRoute": "/health"}
        return {"framework": "custom", "custom_image": image, "container_args": ["-m", MODEL_FOLDER]}


def create_endpoint(
    name: str,
    repository: str,
    settings: EndpointSettings | None = None,
    *,
    revision: str | None = None,
    wait: bool = True,
    confirm: Callable[[str], bool] | None = None,
) -> str | None:
    """Makes the endpoint, or gives one of that name this model, hardware and scaling.

    Args:
        name: of the endpoint, or OWNER/NAME for an organisation's.
        repository: a model on the Hub that `ta push` wrote, OWNER/NAME or NAME.
        revision: branch or commit; the newest commit of main.
        wait: until it answers; states are printed.
        confirm: asked before anything is changed, with what it costs; None: go on.

    Returns:
        The address; None while there is none, or where `confirm` said no.

    Raises:
        TinyAudioError: no name of an endpoint, no token, no such repository or hardware, no handler.py in it, no quota, refused, or it failed.
    """
    from huggingface_hub import HfApi

    if not _NAME.fullmatch(name):
        raise TinyAudioError(f"--endpoint got {name!r}; expected letters, digits and, between them, '-': 32 at most.")
    require_access(repository, "--endpoint")
    settings, api = settings or EndpointSettings(), HfApi()
    with hub_errors(f"The endpoint {name} was not made"):
        account = api.whoami()["name"]
        namespace, _, name = (name if "/" in name else f"{account}/{name}").partition("/")
        model = handled_model(api, repository if "/" in repository else f"{account}/{repository}", revision)
        hardware = find_hardware(api.list_inference_endpoints_hardware(namespace=namespace), settings.hardware)
        existing = find_endpoint(api, name, namespace)
        check_change(existing, hardware, settings)
        if confirm is not None and not confirm(question(name, model.id, hardware, settings, existing)):
            return None
        endpoint = apply(api, existing, name, namespace, model, hardware, settings)
        if wait:
            watch(endpoint)
    return report(endpoint)


def handled_model(api: "HfApi", repository: str, revision: str | None) -> "ModelInfo":
    """The model's commit. TinyAudioError: it holds no handler.py."""
    model = api.model_info(repository, revision=revision)
    if HANDLER not in {file.rfilename for file in model.siblings or ()}:
        raise TinyAudioError(
            f"{repository} holds no {HANDLER}, which Inference Endpoints run; write it with `ta push {repository}`."
        )
    return model


def find_hardware(all_hardware: "list[Hardware]", name: str) -> "Hardware":
    """Hardware by its id. TinyAudioError: there is none, or it is not to be had now."""
    by_id = {hardware.id: hardware for hardware in all_hardware}
    free = [key for key, hardware in by_id.items() if hardware.status not in ("not_available", "deprecated")]
    if name in free:
        return by_id[name]
    found = f"is {by_id[name].status.replace('_', ' ')}" if name in by_id else "is unknown"
    near = get_close_matches(name, free, n=5, cutoff=0.5) or free[:5]
    raise TinyAudioError(
        f"The hardware {name!r} {found}; expected an id of `hf endpoints hardware`, such as {', '.join(near)}."
    )


def find_endpoint(api: "HfApi", name: str, namespace: str) -> "InferenceEndpoint | None":
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return api.get_inference_endpoint(name, namespace=namespace)
    except HfHubHTTPError as error:
        if status(error) != 404:
            raise
        return None


def check_change(existing: "InferenceEndpoint | None", hardware: "Hardware", settings: EndpointSettings) -> None:
    """TinyAudioError: the account's quota is too small, or the endpoint would have to move."""
    if existing is None:
        wanted, used = settings.max_replicas * hardware.num_accelerators, hardware.used_accelerators
        if wanted + used > hardware.max_accelerators:
            raise TinyAudioError(
                f"{wanted} of {hardware.architecture} are wanted and {used} of {hardware.max_accelerators} allowed ones are "
                f"in use; pause an endpoint, take other hardware, or ask for a larger quota at {PAGE}."
            )
        return
    place = {"vendor": hardware.vendor, "region": hardware.region}
    found = {key: existing.raw["provider"][key] for key in place}
    if found != place or existing.type != settings.access:
        raise TinyAudioError(
            f"The endpoint {existing.name} is {existing.type}, at {' '.join(found.values())}, and cannot become "
            f"{settings.access}, at {' '.join(place.values())}; take another name, or `hf endpoints delete {existing.name}`."
        )


def question(
    name: str, repository: str, hardware: "Hardware", settings: EndpointSettings, existing: "InferenceEndpoint | None"
) -> str:
    """What will be done, and what it costs."""
    now = f", in place of {existing.repository}" if existing is not None and existing.repository != repository else ""
    sleep = f", asleep after {settings.idle_minutes} idle minutes" if settings.min_replicas == 0 else ""
    replicas = f"{settings.min_replicas} to {settings.max_replicas} replicas"
    cost = f"${hardware.price_per_hour:.2f} an hour each"
    what = f"{'Make' if existing is None else 'Update'} the endpoint {name} with {repository}{now}"
    return f"{what}: {replicas} of {hardware.architecture} ({hardware.id}), access {settings.access}, {cost}{sleep}"


def apply(
    api: "HfApi",
    existing: "InferenceEndpoint | None",
    name: str,
    namespace: str,
    model: "ModelInfo",
    hardware: "Hardware",
    settings: EndpointSettings,
) -> "InferenceEndpoint":
    """Makes or updates the endpoint; one that is paused runs again."""
    wanted: dict[str, Any] = {
        "namespace": namespace,
        "repository": model.id,
        "revision": model.sha,
        "task": TASK,
        "accelerator": hardware.accelerator,
        "instance_type": hardware.instance_type,
        "instance_size": hardware.instance_size,
        **settings.scaling(),
        **settings.container(),
        "secrets": settings.secrets or None,
    }
    if existing is None:
        wanted |= {"vendor": hardware.vendor, "region": hardware.region, "type": settings.access}
        return api.create_inference_endpoint(name, **wanted)
    endpoint = api.update_inference_endpoint(name, **wanted)
    if endpoint.status == "paused":
        endpoint.resume()
    return endpoint


def watch(endpoint: "InferenceEndpoint") -> None:
    """Prints each state until the endpoint answers or sleeps.

    Raises:
        TinyAudioError: it failed, somebody paused it, or it took too long.
    """
    shown, began = "", time.monotonic()
    while time.monotonic() - began < WAIT_SECONDS:
        said = " ".join((endpoint.raw["status"].get("message") or "").split())
        state = f"{endpoint.name}: {endpoint.status}{f' ({said})' if said else ''}"
        if state != shown:
            say(state)
        shown = state
        if endpoint.status == "scaledToZero":
            return
        if endpoint.status == "running":
            if endpoint.type != "private":
                endpoint.wait(timeout=HEALTH_SECONDS, refresh_every=round(POLL_SECONDS) or 1)
            return
        if endpoint.status in ("failed", "updateFailed", "paused"):
            raise TinyAudioError(f"{state}; its log is at {page(endpoint)}.")
        time.sleep(POLL_SECONDS)
        endpoint.fetch()
    raise TinyAudioError(
        f"{endpoint.name} is still {endpoint.status} after {WAIT_SECONDS / 60:.0f} minutes, and costs; see {page(endpoint)}."
    )


def report(endpoint: "InferenceEndpoint") -> str | None:
    """Says where it is, how it is asked, and how it is paused."""
    token = "" if endpoint.type == "public" else '-H "Authorization: Bearer $HF_TOKEN" '
    if endpoint.url is None:
        say(f"{endpoint.name} has no address yet; see {page(endpoint)}.")
    else:
        out(endpoint.url)
        say(f'Ask it: curl {token}-H "Content-Type: audio/flac" --data-binary @speech.flac {endpoint.url}')
    say(f"Pause it: hf endpoints pause {endpoint.name} --namespace {endpoint.namespace}")
    return endpoint.url


def page(endpoint: "InferenceEndpoint") -> str:
    return f"{PAGE}/{endpoint.namespace}/endpoints/{endpoint.name}"
