"""A stand-in for the Hub on loopback, for the installed huggingface_hub through HF_ENDPOINT, with faults on demand.

Not covered: Xet (set HF_HUB_DISABLE_XET=1: the client then uses LFS), tags, discussions beyond the one of a pull request,
buckets and search. Space runtimes and Inference Endpoints are routers of other files.
"""

import asyncio
import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

ACCOUNT, ORGANIZATION = "me", "my-lab"  # where the token may write
CHECKOUT = Path(__file__).resolve().parents[1]
READ_TOKEN = "hf_read"  # of an account that may only read
FIRST_FILE = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}  # of a new repository


@dataclass
class Fault:
    """What befalls the next `times` requests whose "METHOD path" the regular expression `request` finds.

    `what`: a status to answer, with `headers`; "cut": half of the body is read, or sent where the request has none, then
    the connection is closed; or something to call before the request goes on.
    """

    what: int | str | Callable[[], object]
    request: str = "/commit/"
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Repository:
    """One repository: the files at each commit, and the commits that branches and pull requests (refs/pr/N) are at."""

    kind: str  # "model", "dataset" or "space"
    name: str  # OWNER/NAME
    settings: dict = field(default_factory=dict)  # as create_repo sent them
    gated: bool = False
    snapshots: dict[str, dict[str, bytes]] = field(default_factory=dict)  # by commit, the newest last
    refs: dict[str, str] = field(default_factory=dict)

    @property
    def private(self) -> bool:
        return self.settings.get("visibility") == "private" or self.settings.get("private") is True

    @property
    def path(self) -> str:
        return self.name if self.kind == "model" else f"{self.kind}s/{self.name}"

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        """The id of a new commit, which the ref is at from now on."""
        state = f"{len(self.snapshots)} {sorted((name, git_hash(content)) for name, content in files.items())}"
        commit = hashlib.sha1(state.encode()).hexdigest()
        self.snapshots[commit], self.refs[ref] = dict(files), commit
        return commit

    def at(self, revision: str) -> str:
        """The commit of a branch, a pull request or itself."""
        commit = self.refs.get(revision, revision)
        if commit not in self.snapshots:
            refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit


class Hub:
    """All repositories, who may write, what was asked for, and what goes wrong.

    `files` are those of me/mine, `created` is what the last new repository was made of; `commits` are all that were made,
    as the client named them; `stored` is LFS by SHA-256, with the parts of unfinished files in `parts`; `requests` are "METHOD path".
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[tuple[str, str], Repository] = {}  # by kind and name
        self.commits: list[dict] = []
        self.created: dict | None = None
        self.stored: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.part_size = 5 * 2**20  # bytes; larger files are sent in parts
        self.page_size = 50  # entries of a listing
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.url = ""

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Of a process of its own that takes this for the Hub, with its cache in `home`."""
        own = {"HF_ENDPOINT": self.url, "HF_TOKEN": token or self.token, "HF_HOME": str(home)}
        return {**os.environ, **own, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(CHECKOUT)}

    @property
    def other_url(self) -> str:
        """Another host to the client, as where the Hub has LFS: it sends no token there."""
        return self.url.replace("127.0.0.1", "localhost")

    @property
    def files(self) -> dict[str, bytes]:
        return self.files_of(f"{ACCOUNT}/mine")

    def files_of(self, name: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """The files of a repository; none where there is no such one."""
        repository = self.repositories.get((kind, name))
        return repository.snapshots[repository.at(revision)] if repository else {}

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", settings: dict | None = None) -> Repository:
        """A repository that is there already."""
        repository = Repository(kind, name, settings or {})
        repository.commit(files)
        self.repositories[kind, name] = repository
        return repository

    def account(self, request: Request) -> str | None:
        """Whose token the request carries; None without one."""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in ("", self.token, READ_TOKEN):
            refuse(401, "Invalid credentials in Authorization header")
        return {self.token: ACCOUNT, READ_TOKEN: "reader"}.get(given)

    def owned(self, request: Request, owner: str) -> None:
        """Refuses who may not write under that owner."""
        account = self.account(request)
        if account is None:
            refuse(401, "Invalid username or password.")
        if account != ACCOUNT or owner not in (ACCOUNT, ORGANIZATION):
            refuse(403, f'You don\'t have the rights to write under the namespace "{owner}"')

    def readable(self, request: Request, kinds: str, name: str) -> Repository:
        """The repository, of the account's own where it is private."""
        account = self.account(request)
        repository = self.repositories.get((kinds.removesuffix("s"), name))
        if repository is None or (repository.private and account != ACCOUNT):
            refuse(404 if account else 401, "Repository not found", "RepoNotFound")
        return repository

    def take_fault(self, request: str) -> Fault | None:
        """The fault that befalls this request."""
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.request, request):
                fault.times -= 1
                return fault
        return None


def refuse(status: int, message: str, code: str = "") -> None:
    """Ends the request as the Hub does: the reason is in the body and in the headers."""
    raise HTTPException(status, message, {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})})


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Gate:
    """What a request passes first: it is written down, its fault befalls it, and %2F in its path stays what it is."""

    def __init__(self, hub: Hub, app: FastAPI) -> None:
        self.hub, self.app = hub, app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope["path"] = scope["raw_path"].decode()
        request = f"{scope['method']} {scope['path']}"
        self.hub.requests.append(request)
        fault = self.hub.take_fault(request)
        if fault is not None and isinstance(fault.what, int):
            answer = JSONResponse({"error": "it is not well today"}, fault.what, fault.headers)
            return await answer(scope, receive, send)
        if fault is not None and fault.what == "cut":
            return await (cut_request if length_of(scope["headers"]) else self.cut_answer)(scope, receive, send)
        if fault is not None:
            await asyncio.to_thread(fault.what)  # type: ignore[arg-type]
        await self.app(scope, receive, send)

    async def cut_answer(self, scope, receive, send) -> None:
        """Half of the answer, then nothing more."""
        half = 0

        async def send_half(message) -> None:
            nonlocal half
            if message["type"] == "http.response.start":
                half = length_of(message["headers"]) // 2
                return await send(message)
            await send({**message, "body": message["body"][:half], "more_body": True})
            await asyncio.sleep(0.1)  # until it is on its way
            receive.__self__.transport.close()

        await self.app(scope, receive, send_half)


async def cut_request(scope, receive, send) -> None:
    """Half of the body is read and the connection closed."""
    read, half = 0, length_of(scope["headers"]) // 2
    while read < half:
        read += len((await receive()).get("body", b"")) or half
    receive.__self__.transport.abort()  # of uvicorn's own cycle of one request


def length_of(headers: Sequence[tuple[bytes, bytes]]) -> int:
    return int(dict(headers).get(b"content-length", 0))


async def say_why(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


@contextmanager
def hub(
    files: dict[str, bytes], token: str = "hf_right", routers: Sequence[Callable[[Hub], APIRouter]] = ()
) -> Iterator[Hub]:
    """A running stand-in, with me/mine if there are files for it; it stops with the block.

    Args:
        routers: what makes further routes of the stand-in, such as those of Spaces.
    """
    from hub_routes import all_routes

    state = Hub(token)
    if files:
        state.add(f"{ACCOUNT}/mine", files)
    app = FastAPI(exception_handlers={HTTPException: say_why})
    for router in (*routers, all_routes):
        app.include_router(router(state))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        state.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(Gate(state, app), http="h11", log_level="critical", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.should_exit = True
            thread.join(10)


def link_header(url: str, cursor: str) -> dict[str, str]:
    """Where the next page is."""
    return {"Link": f'<{url}&cursor={quote(cursor, safe="")}>; rel="next"'}
