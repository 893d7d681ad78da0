"""Spaces of the Hub's stand-in: hardware, secrets, logs as server-sent events, and a build that goes through its states."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response
from hub_server import Hub

COSTS = {"cpu-basic": 0.0, "cpu-upgrade": 0.0005, "t4-small": 0.00667}  # US dollars a minute


@dataclass
class Spaces:
    """What Spaces do on this Hub: each look at a runtime goes one state on; `routes` is for `hub(routers=[…])`."""

    stages: list[str] = field(default_factory=lambda: ["BUILDING", "BUILDING", "APP_STARTING", "RUNNING"])
    build_log: Sequence[str] = ("Collecting torch\n", "Successfully built the image\n")
    run_log: Sequence[str] = ()
    error: str | None = None
    hardware: str = "cpu-basic"
    asked: list[dict] = field(default_factory=list)  # for hardware
    secrets: dict[str, str] = field(default_factory=dict)
    looks: int = 0  # since the newest commit
    commit: str = ""

    def routes(self, hub: Hub) -> APIRouter:
        routes = APIRouter()

        @routes.get("/api/spaces/hardware")
        async def hardware():
            return [hardware_entry(name, cost) for name, cost in COSTS.items()]

        @routes.get("/api/spaces/{owner}/{name}/runtime")
        async def runtime(request: Request, owner: str, name: str):
            return self.runtime(hub.readable(request, "spaces", f"{owner}/{name}").refs["main"])

        @routes.get("/api/spaces/{owner}/{name}/logs/{kind}")
        async def logs(request: Request, owner: str, name: str, kind: str):
            hub.readable(request, "spaces", f"{owner}/{name}")
            lines = [f"== Build of {self.commit}\n", *self.build_log][: self.looks] if kind == "build" else self.run_log
            return Response("".join(map(event, lines)), media_type="text/event-stream")

        @routes.post("/api/spaces/{owner}/{name}/hardware")
        async def request_hardware(request: Request, owner: str, name: str):
            hub.owned(request, owner)
            self.asked.append(await request.json())
            self.hardware = self.asked[-1]["flavor"]
            return self.runtime(self.commit)

        @routes.post("/api/spaces/{owner}/{name}/secrets")
        async def secrets(request: Request, owner: str, name: str):
            hub.owned(request, owner)
            asked = await request.json()
            self.secrets[asked["key"]] = asked["value"]

        return routes

    def runtime(self, commit: str) -> dict:
        """The state, one further at each look; from the first again after a commit."""
        if commit != self.commit:
            self.commit, self.looks = commit, 0
        stage = self.stages[min(self.looks, len(self.stages) - 1)]
        self.looks += 1
        found = {"stage": stage, "hardware": {"current": self.hardware, "requested": self.hardware}, "sha": commit}
        found |= {"domains": [{"domain": "me-page.hf.space", "stage": "READY"}]}
        return found | ({"errorMessage": self.error} if self.error and stage.endswith("ERROR") else {})


def hardware_entry(name: str, dollars: float) -> dict:
    size = {"name": name, "prettyName": name, "cpu": "2 vCPU", "ram": "16 GB", "accelerator": None}
    return {**size, "unitCostMicroUSD": round(1e6 * dollars), "unitCostUSD": dollars, "unitLabel": "minute"}


def event(line: str) -> str:
    return f"data: {json.dumps({'data': line, 'timestamp': '2026-01-01T00:00:00.000Z'})}\n\n"
