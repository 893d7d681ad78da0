"""Inference Endpoints of the Hub's stand-in: hardware with prices and quotas, and endpoints that go through their states."""

from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from hub_server import Hub, refuse

CREATED = "2026-01-01T00:00:00.000Z"
HARDWARE = {  # instance type: accelerator, what it is, dollars an hour, status
    "intel-icl": ("cpu", "Intel Ice Lake", 0.03, "available"),
    "nvidia-l4": ("gpu", "Nvidia L4", 0.80, "available"),
    "nvidia-t4": ("gpu", "Nvidia T4", 0.50, "not_available"),
}


@dataclass
class Endpoints:
    """All endpoints; each look at one goes one state on. `routes` is for `hub(routers=[…])`, below /v2."""

    states: list[tuple[str, str]] = field(default_factory=lambda: [("pending", ""), ("initializing", "loading")])
    last: tuple[str, str] = ("running", "")
    used: int = 0  # of the quota of 2
    made: dict[str, dict] = field(default_factory=dict)  # by "owner/name"
    sent: list[dict] = field(default_factory=list)  # what the client asked for
    looks: dict[str, int] = field(default_factory=dict)
    unhealthy: int = 0  # answers of 503 before the first of 200
    refusal: tuple[int, str] | None = None  # of the next change

    def routes(self, hub: Hub) -> APIRouter:
        routes = APIRouter()

        @routes.get("/v2/provider/{owner}")
        async def provider(request: Request, owner: str):
            hub.owned(request, owner)
            computes = [self.compute(kind, *about) for kind, about in HARDWARE.items()]
            return {"vendors": [{"name": "aws", "regions": [{"name": "us-east-1", "computes": computes}]}]}

        @routes.post("/v2/endpoint/{owner}")
        async def create(request: Request, owner: str):
            hub.owned(request, owner)
            asked = await request.json()
            self.refuse()
            if f"{owner}/{asked['name']}" in self.made:
                refuse(409, f"Endpoint {asked['name']} already exists")
            return self.change(hub, f"{owner}/{asked['name']}", asked)

        @routes.get("/v2/endpoint/{owner}/{name}")
        async def look(request: Request, owner: str, name: str):
            hub.owned(request, owner)
            return self.look(hub, f"{owner}/{name}")

        @routes.put("/v2/endpoint/{owner}/{name}")
        async def update(request: Request, owner: str, name: str):
            hub.owned(request, owner)
            self.refuse()
            return self.change(hub, f"{owner}/{name}", await request.json())

        @routes.post("/v2/endpoint/{owner}/{name}/resume")
        async def resume(request: Request, owner: str, name: str):
            hub.owned(request, owner)
            self.sent.append({"resume": name})
            self.made[f"{owner}/{name}"].pop("state", None)
            return self.look(hub, f"{owner}/{name}")

        @routes.get("/deployed/health")
        async def health():
            self.unhealthy -= 1
            return JSONResponse({}, 503 if self.unhealthy >= 0 else 200)

        return routes

    def refuse(self) -> None:
        if self.refusal is not None:
            refuse(*self.refusal)

    def change(self, hub: Hub, key: str, asked: dict) -> dict:
        self.sent.append(asked)
        raw = self.made.setdefault(key, {"name": key.partition("/")[2], "healthRoute": "/health"})
        for name, value in asked.items():
            raw[name] = {**raw.get(name, {}), **value} if isinstance(value, dict) else value
        self.looks[key] = 0
        return self.look(hub, key)

    def look(self, hub: Hub, key: str) -> dict:
        """One state further than the last time; `state` of an endpoint stands still."""
        if key not in self.made:
            refuse(404, "Endpoint not found")
        raw = self.made[key]
        states = [raw["state"]] if "state" in raw else [*self.states, self.last]
        state, message = states[min(self.looks.get(key, 0), len(states) - 1)]
        self.looks[key] = self.looks.get(key, 0) + 1
        status = {"state": state, "message": message, "createdAt": CREATED, "updatedAt": CREATED}
        if state in ("running", "scaledToZero"):
            status["url"] = f"{hub.url}/deployed"
        return {**raw, "status": status}

    def compute(self, kind: str, accelerator: str, architecture: str, price: float, status: str) -> dict:
        size = {"instanceType": kind, "instanceSize": "x1", "numAccelerators": 1, "numCpus": 2, "memoryGb": 14.0}
        about = {"accelerator": accelerator, "architecture": architecture, "pricePerHour": price, "status": status}
        quota = {"maxAccelerators": 2, "usedAccelerators": self.used}
        return {"id": f"aws-us-east-1-{kind}-x1", **size, **about, "gpuMemoryGb": None, "quota": quota}
