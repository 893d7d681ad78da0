"""A server on loopback that speaks RunPod's API as documented: REST v2 and the GraphQL that is used, pods with lives, faults."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "rpa_TEST0123456789SECRET"
GPUS = {  # id → name, memory, secure, community, lowest bid
    "NVIDIA A40": ("A40", 48, 0.44, None, 0.20),
    "NVIDIA GeForce RTX 4090": ("RTX 4090", 24, 0.69, 0.34, 0.29),
    "NVIDIA A100 80GB PCIe": ("A100 PCIe", 80, 1.39, 1.19, 0.82),
    "NVIDIA A100-SXM4-80GB": ("A100 SXM", 80, 1.49, 1.39, None),
}
ACTIONS = {
    "RUNNING": ("stop", "restart", "terminate"),
    "EXITED": ("start", "terminate"),
    "ERROR": ("start", "terminate"),
}
NO_CAPACITY = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)


class Refused(Exception):
    """An answer other than success: status, detail, and validation errors."""


@dataclass
class Runpod:
    """The account, and what goes wrong with it.

    Args:
        statuses: a new pod's, one for each time that it is listed; it stays at the last.
        storage: dollars an hour that a pod costs beside its GPUs.
        faults: by method and path or mutation, what is done before the answer: raises, or changes this.
    """

    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=lambda: ["ssh-ed25519 AAAA me"])
    stock: str = "HIGH"
    statuses: tuple[str, ...] = ("PROVISIONING", "STARTING", "RUNNING")
    storage: float = 0.0
    faults: dict[str, Callable[[], Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    ssh_port: int = 0
    url: str = ""
    location: str = ""  # where actions are redirected to

    def answer(self, method: str, path: str, query: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        """Status and JSON."""
        what = f"{method} {path}"
        if path == "/graphql":
            what = re.search(r"{\s*(\w+)", body["query"]).group(1)
        self.asked.append(what)
        self.faults.get(what, lambda: None)()
        if path == "/graphql":
            return 200, self.graphql(what, body["variables"]["input"])
        if what == "GET /v2/pods":
            return 200, {"pods": [self.listed(pod) for pod in self.pods.values()]}
        if what == "GET /v2/account/ssh-keys":
            return 200, {"keys": self.keys}
        if what == "GET /v2/catalog/gpus":
            assert "include=AVAILABILITY" in query and "product=POD" in query
            return 200, {"gpus": [self.gpu(gpu) for gpu in GPUS]}
        return self.act(method, *re.fullmatch(r"/v2/pods/(\w+)(/action)?", path).groups(), body)

    def gpu(self, gpu: str) -> dict[str, Any]:
        name, memory, secure, community, _ = GPUS[gpu]
        return {
            "id": gpu, "name": name, "pool": None, "manufacturer": "NVIDIA", "memory": memory,
            "secure": secure is not None, "community": community is not None,
            "price": {"secure": secure or 0, "community": community or 0},
            "maxCount": {"secure": 8, "community": 4}, "availability": self.stock,
        }  # fmt: skip

    def graphql(self, what: str, given: dict[str, Any]) -> dict[str, Any]:
        if what == "gpuTypes":
            prices = [{"id": gpu, "lowestPrice": {"minimumBidPrice": row[4]}} for gpu, row in GPUS.items()]
            return {"data": {what: prices}}
        if what == "podBidResume":
            self.pods[given["podId"]].update(status="RUNNING", cost=given["bidPerGpu"] * given["gpuCount"])
            return {"data": {what: {"id": given["podId"], "desiredStatus": "RUNNING"}}}
        if what == "podStop":
            self.pods[given["podId"]].update(status="EXITED", cost=0.0)
            return {"data": {what: {"id": given["podId"], "desiredStatus": "EXITED"}}}
        self.inputs.append(given)
        if self.stock == "GONE":
            return {"data": {what: None}, "errors": [{"message": NO_CAPACITY, "path": [what]}]}
        return {"data": {what: self.create(given)}}

    def create(self, given: dict[str, Any]) -> dict[str, Any]:
        cloud = given["cloudType"].lower()
        each = given.get("bidPerGpu") or GPUS[given["gpuTypeId"]][2 if cloud == "secure" else 3]
        pod = {
            "id": f"pod{len(self.asked)}", "name": given["name"], "image": given["imageName"], "args": "",
            "disk": given["containerDiskInGb"], "ports": given["ports"].split(","), "env": {}, "registry": None,
            "mounts": {"persistent": {"size": given["volumeInGb"], "path": given["volumeMountPath"]}},
            "gpu": {"id": given["gpuTypeId"], "count": given["gpuCount"]}, "cloud": given["cloudType"],
            "dataCenterId": "US-KS-2", "template": None, "locked": False, "cudaVersion": "12.8",
            "globalNetworking": {"enabled": False}, "looks": 0, "status": "PROVISIONING",
            "cost": each * given["gpuCount"] + self.storage, "created": True,
        }  # fmt: skip
        self.pods[pod["id"]] = pod
        return {"id": pod["id"], "name": pod["name"], "desiredStatus": "RUNNING", "costPerHr": pod["cost"]}

    def listed(self, pod: dict[str, Any]) -> dict[str, Any]:
        if pod["created"]:
            pod["status"] = self.statuses[min(pod["looks"], len(self.statuses) - 1)]
            pod["looks"] += 1
        running = pod["status"] == "RUNNING"
        proxy = {"host": "ssh.runpod.io", "port": 22, "username": f"{pod['id']}-64411eb2", "command": "ssh …"}
        direct = {"host": "127.0.0.1", "port": self.ssh_port, "username": "root", "command": "ssh …"}
        ssh = {"proxy": proxy, "direct": direct if running and self.ssh_port else None}
        shown = {key: value for key, value in pod.items() if key not in ("looks", "created")}
        live = {"uptime": 60, "ports": []} if running else None
        times = {"createdAt": "2026-11-22T12:00:00Z", "startedAt": "2026-11-22T12:02:00Z" if running else None}
        actions = list(ACTIONS.get(pod["status"], ("stop", "terminate")))
        return shown | times | {"ssh": ssh, "actions": actions, "runtime": live}

    def act(self, method: str, pod_id: str, action: str | None, body: dict[str, Any] | None) -> tuple[int, Any]:
        if pod_id not in self.pods:
            raise Refused(404, "The requested Pod does not exist.")
        if method == "DELETE":
            del self.pods[pod_id]
            return 204, None
        if self.location:
            return 302, None
        pod, wanted = self.pods[pod_id], body["action"]
        if wanted not in ACTIONS.get(pod["status"], ("stop", "terminate")):
            raise Refused(409, f"action {wanted} is not valid for status {pod['status']}")
        price = GPUS[pod["gpu"]["id"]][2] * pod["gpu"]["count"]
        status, cost = {"stop": ("EXITED", 0.0), "start": ("RUNNING", price + self.storage)}[wanted]
        pod.update(status=status, cost=cost, created=False)
        return 200, self.listed(pod)


def handler(account: Runpod) -> type[BaseHTTPRequestHandler]:
    """Of requests to an account."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                if self.headers.get("authorization") != f"Bearer {KEY}":
                    raise Refused(401, f"invalid key {self.headers.get('authorization')}")
                status, answer = account.answer(self.command, path, query, json.loads(body) if body else None)
            except Refused as error:
                status, detail, *errors = error.args
                answer = {"title": "Refused", "status": status, "detail": detail} | (
                    {"errors": errors} if errors else {}
                )
            except ConnectionAbortedError:
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            data = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            if status == 302:
                self.send_header("location", account.location + self.path)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler


@contextmanager
def serving(account: Runpod) -> Iterator[Runpod]:
    """The account behind its API, at `url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(account))
    account.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield account
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def ssh_greeting() -> Iterator[int]:
    """The port of what greets as an SSH server does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            while True:
                try:
                    link, _ = listening.accept()
                except OSError:
                    return
                with link:
                    link.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=greet, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
