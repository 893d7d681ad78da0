"""RunPod's API: GPU types and prices, pods and their lives; REST v2, and GraphQL for what that lacks.

Written from RunPod's documents of August 2026 (its OpenAPI file of REST v2; runpodctl and the migration guide for GraphQL), and
tested against a server of our own that speaks them; RunPod itself was not called. REST v1 was to end on 2026-11-15. REST v2 has
neither spot pods nor a time after which a pod is stopped, so pods are created through GraphQL, as RunPod's own runpodctl does.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

import httpx2

from tiny_audio import console
from tiny_audio.errors import TinyAudioError
from tiny_audio.retries import TryAgain, delay, may_pass, message, retry_after

URL, URL_VARIABLE = "https://api.runpod.io", "RUNPOD_API_URL"
KEY_VARIABLE = "RUNPOD_API_KEY"
CONSOLE = "https://console.runpod.io/pods"
CLOUDS = ("secure", "community")
VOLUME_PATH = "/workspace"  # what a stopped pod keeps; all else on it is lost
PROJECT_FOLDER = f"{VOLUME_PATH}/tiny-audio"
ANSWER_SECONDS = 60.0
TRIES = 5
POLL_SECONDS = 3.0
READY_SECONDS = 1200.0  # of which most is for an image of many GB
UNSEEN_SECONDS = 60.0  # in which a new pod may not be listed yet, and one that was started still be stopped
LONGEST_MESSAGE = 300  # characters of what RunPod says
ADVICE = {
    400: "mend what it names, or take another --gpu or --cloud",
    401: f"check the key in {KEY_VARIABLE}",
    402: "add credit to the account",
    403: f"the key in {KEY_VARIABLE} may not do that; it needs write access to pods and GraphQL",
    404: "see `ta remote pods list`",
    409: "its state does not allow it; see `ta remote pods list`",
    422: "mend what it names; if that is nothing of yours, RunPod's API has changed",
}
NO_CAPACITY = ("no longer any instances", "not enough free GPUs")
OUT_OF_STOCK = "take another --gpu or --cloud, or try again later"

CREATE = "mutation create($input: %s!) { %s(input: $input) { id name desiredStatus costPerHr } }"
ON_DEMAND = CREATE % ("PodFindAndDeployOnDemandInput", "podFindAndDeployOnDemand")
SPOT = CREATE % ("PodRentInterruptableInput", "podRentInterruptable")
START_SPOT = "mutation start($input: PodBidResumeInput!) { podBidResume(input: $input) { id desiredStatus } }"
SPOT_PRICES = (
    "query prices($input: GpuLowestPriceInput!) { gpuTypes { id lowestPrice(input: $input) { minimumBidPrice } } }"
)


class Unanswered(TinyAudioError):
    """No answer, so what was asked for may have been done."""


@dataclass(frozen=True)
class GpuType:
    """A GPU that one of the clouds offers.

    Args:
        memory: in GB.
        dollars: an hour on demand; `spot_dollars`: the lowest bid an hour, None where it has none.
        stock: `HIGH`, `MEDIUM`, `LOW` or `NONE`; which promises nothing.
    """

    id: str
    name: str
    memory: int
    dollars: float
    spot_dollars: float | None
    stock: str


@dataclass(frozen=True)
class Pod:
    """A pod as RunPod lists it.

    Args:
        status: `PROVISIONING`, `STARTING`, `RUNNING`, `EXITED`, `ERROR` or `TERMINATED`.
        dollars: an hour, now; 0 of one that is stopped, whose disk costs money all the same.
        ssh: user, host and port of its SSH server, once it has one.
    """

    id: str
    name: str
    status: str
    gpu: str
    count: int
    cloud: str
    dollars: float
    ssh: tuple[str, str, int] | None = None


@dataclass(frozen=True)
class NewPod:
    """What a pod is created from.

    Args:
        gpu: id of the type; `count`: how many of them.
        disk: GB that are lost when it stops; `volume`: GB below VOLUME_PATH that are kept.
        hours: after which RunPod itself stops it, whatever has become of this machine and of the pod.
        bid: dollars an hour and GPU of a spot pod; None: on demand.
    """

    name: str
    gpu: str
    count: int
    cloud: str
    image: str
    disk: int
    volume: int
    hours: float
    bid: float | None

    def as_input(self) -> dict[str, Any]:
        """The `input` of both mutations."""
        stop = datetime.now(UTC) + timedelta(hours=self.hours)
        return {
            "name": self.name,
            "cloudType": self.cloud.upper(),
            "gpuTypeId": self.gpu,
            "gpuCount": self.count,
            "imageName": self.image,
            "containerDiskInGb": self.disk,
            "volumeInGb": self.volume,
            "volumeMountPath": VOLUME_PATH,
            "ports": "22/tcp",
            "startSsh": True,
            "supportPublicIp": True,
            "stopAfter": f"{stop:%Y-%m-%dT%H:%M:%SZ}",
        } | ({} if self.bid is None else {"bidPerGpu": self.bid})


class Runpod:
    """The API, with the key of RUNPOD_API_KEY.

    Raises:
        TinyAudioError: no key; and of every method: what RunPod refuses, or does not answer.
    """

    def __init__(self) -> None:
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not self._key or not self._key.isascii() or not self._key.isprintable() or " " in self._key:
            raise TinyAudioError(f"{KEY_VARIABLE} is not set to a key; make one in RunPod's settings and export it.")
        self._client = httpx2.Client(
            base_url=os.environ.get(URL_VARIABLE) or URL,
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=ANSWER_SECONDS,
        )

    def gpus(self, cloud: str, count: int = 1) -> list[GpuType]:
        """What a cloud offers for pods of `count` GPUs, with its prices for one; the cheapest first."""
        wanted = {"include": "AVAILABILITY", "product": "POD", "cloud": cloud.upper(), "count": count}
        answer = self._ask("GET", "/v2/catalog/gpus", params=wanted)
        spot = self._spot_prices(cloud, count)
        with _understood():
            types = [_gpu(entry, cloud, spot) for entry in answer["gpus"] if entry[cloud]]
        return sorted(types, key=lambda gpu: gpu.dollars)

    def pods(self) -> list[Pod]:
        """All of the account, also those that are stopped."""
        answer = self._ask("GET", "/v2/pods")
        with _understood():
            return [_pod(entry) for entry in answer["pods"]]

    def pod(self, pod_id: str) -> Pod:
        """One of them."""
        found = next((pod for pod in self.pods() if pod.id == pod_id), None)
        if found is None:
            raise TinyAudioError(f"There is no pod {pod_id!r}; see `ta remote pods list`.")
        return found

    def has_ssh_keys(self) -> bool:
        """Whether the account has public keys, without which no pod lets anyone in."""
        answer = self._ask("GET", "/v2/account/ssh-keys")
        with _understood():
            return bool(answer["keys"])

    def create(self, new: NewPod) -> Pod:
        """A pod that begins to start, and to cost money.

        Raises:
            Unanswered: it may have been created.
        """
        made = self._graphql(ON_DEMAND if new.bid is None else SPOT, new.as_input(), tries=1)
        with _understood():
            dollars = float(made["costPerHr"])
            return Pod(made["id"], new.name, "PROVISIONING", new.gpu, new.count, new.cloud, dollars)

    def start(self, pod: Pod, bid: float | None = None) -> None:
        """Starts a stopped pod; `bid` of a spot pod: dollars an hour and GPU."""
        if bid is None:
            self._act(pod.id, "start")
        else:
            self._graphql(START_SPOT, {"podId": pod.id, "gpuCount": pod.count, "bidPerGpu": bid})

    def stop(self, pod_id: str) -> None:
        """Stops a pod: what lies below VOLUME_PATH is kept, and paid for."""
        self._act(pod_id, "stop")

    def terminate(self, pod_id: str) -> None:
        """Deletes a pod, with its disks."""
        self._ask("DELETE", f"/v2/pods/{_segment(pod_id)}")

    def wait(self, pod: Pod, on_change: Callable[[str], None] = console.say) -> Pod:
        """Until the pod's SSH server answers.

        Raises:
            TinyAudioError: it failed, or took longer than READY_SECONDS.
        """
        began, said = time.monotonic(), ""
        while (passed := time.monotonic() - began) < READY_SECONDS:
            seen = next((other for other in self.pods() if other.id == pod.id), None)
            status = seen.status if seen else "PROVISIONING"
            if status in ("ERROR", "TERMINATED") or (passed > UNSEEN_SECONDS and (not seen or status == "EXITED")):
                raise TinyAudioError(
                    f"The pod {pod.id} did not start: {status if seen else 'it is gone'}; see {CONSOLE}."
                )
            if seen and status == "RUNNING" and seen.ssh and answers(*seen.ssh[1:]):
                return seen
            if status != said:
                on_change(f"Pod {pod.id}: {status.lower()}")
                said = status
            time.sleep(POLL_SECONDS)
        raise TinyAudioError(
            f"The pod {pod.id} had no SSH server within {READY_SECONDS / 60:.0f} min ({said.lower()}); its --image must start one."
        )

    def _spot_prices(self, cloud: str, count: int) -> dict[str, float]:
        """Lowest bids by the id of the type; none, with a warning, where RunPod no longer tells them."""
        try:
            types = self._graphql(SPOT_PRICES, {"gpuCount": count, "secureCloud": cloud == "secure"})
            with _understood():
                bids = {entry["id"]: (entry["lowestPrice"] or {}).get("minimumBidPrice") for entry in types}
        except TinyAudioError as error:
            console.warn(f"RunPod gives no spot prices ({str(error).rstrip('.')}).")
            return {}
        return {gpu: float(bid) for gpu, bid in bids.items() if bid}

    def _act(self, pod_id: str, action: str) -> None:
        self._ask("POST", f"/v2/pods/{_segment(pod_id)}/action", json={"action": action})

    def _graphql(self, query: str, variables: dict[str, Any], tries: int = TRIES) -> Any:
        """The first field of the data; GraphQL answers 200 also where it refuses."""
        answer = self._ask("POST", "/graphql", tries, json={"query": query, "variables": {"input": variables}})
        with _understood():
            if errors := answer.get("errors"):
                said = "; ".join(str(error["message"]) for error in errors)[:LONGEST_MESSAGE].rstrip(".")
                advice = OUT_OF_STOCK if any(words in said for words in NO_CAPACITY) else f"see {CONSOLE}"
                raise TinyAudioError(self._without_key(f"RunPod refuses ({said}); {advice}."))
            (value,) = answer["data"].values()
        return value

    def _ask(self, method: str, path: str, tries: int = TRIES, **request: Any) -> Any:
        for tried in range(1, tries + 1):
            try:
                return self._ask_once(method, path, request)
            except TryAgain as error:
                if tried == tries:
                    said = f"RunPod does not answer ({error}); try again later, and see {CONSOLE}."
                    raise Unanswered(self._without_key(said)) from error
                time.sleep(delay(tried, error.wait))
        raise AssertionError("one try at least")

    def _ask_once(self, method: str, path: str, request: dict[str, Any]) -> Any:
        try:
            response = self._client.request(method, path, **request)
            if may_pass(response.status_code):
                wait = retry_after(response.headers.get("retry-after", ""))
                raise TryAgain(f"HTTP {response.status_code}: {message(response.content)[:LONGEST_MESSAGE]}", wait)
            if not response.is_success:
                raise TinyAudioError(self._refusal(response))
            return response.json() if response.content else None
        except (httpx2.RequestError, ValueError) as error:
            raise TryAgain(f"{type(error).__name__} {error}".strip()) from error

    def _refusal(self, response: httpx2.Response) -> str:
        status, said = response.status_code, message(response.content) or response.reason_phrase
        with suppress(ValueError, AttributeError, TypeError):
            said = " ".join([said, *response.json().get("errors", [])])
        said, advice = said[:LONGEST_MESSAGE].rstrip("."), ADVICE.get(status, f"see {CONSOLE}")
        return self._without_key(f"RunPod refuses (HTTP {status}: {said}); {advice}.")

    def _without_key(self, text: str) -> str:
        return console.printable(text).replace(self._key, "***")


def stop_command(pod_id: str) -> list[str]:
    """What a job runs on the pod to stop it: the file stop_pod.py, which needs Python only and tries every way."""
    return ["python3", "-c", resources.files("tiny_audio.remote").joinpath("stop_pod.py").read_text("utf-8"), pod_id]


def answers(host: str, port: int) -> bool:
    """Whether an SSH server says its first word there."""
    try:
        with socket.create_connection((host, port), timeout=5) as link:
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


def _segment(pod_id: str) -> str:
    if not pod_id.isascii() or not pod_id.replace("-", "").replace("_", "").isalnum():
        raise TinyAudioError(f"{pod_id!r} is no pod's id; see `ta remote pods list`.")
    return pod_id


@contextmanager
def _understood() -> Iterator[None]:
    """An answer of another form than the documents say is one line."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Unanswered(f"RunPod's answer is not as documented ({error!r}); see {CONSOLE}.") from error


def _gpu(entry: dict[str, Any], cloud: str, spot: dict[str, float]) -> GpuType:
    return GpuType(
        id=entry["id"],
        name=entry["name"],
        memory=entry["memory"],
        dollars=float(entry["price"][cloud]),
        spot_dollars=spot.get(entry["id"]),
        stock=entry.get("availability", "NONE"),
    )


def _pod(entry: dict[str, Any]) -> Pod:
    gpu, direct = entry.get("gpu") or {}, (entry.get("ssh") or {}).get("direct")
    return Pod(
        id=entry["id"],
        name=entry["name"],
        status=entry["status"],
        gpu=gpu.get("id", "CPU"),
        count=gpu.get("count", 1),
        cloud=entry["cloud"].lower(),
        dollars=float(entry["cost"]),
        ssh=(direct["username"], direct["host"], int(direct["port"])) if direct else None,
    )
