"""The routes of the Hub's stand-in: accounts, repositories, branches, listings, uploads, commits and downloads."""

import base64
import hashlib
import json
from math import ceil
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from hub_server import ACCOUNT, FIRST_FILE, ORGANIZATION, Hub, Repository, git_hash, link_header, refuse

LFS_SUFFIXES = (".safetensors", ".pt", ".pth", ".wav", ".ogg")
REGULAR_BYTES = 10 * 2**20  # larger files travel by LFS, whatever their name


def mode_of(path: str, size: int = 0) -> str:
    """How a file travels: weights and recordings by LFS, as on the Hub."""
    return "lfs" if path.endswith(LFS_SUFFIXES) or size > REGULAR_BYTES else "regular"


def all_routes(hub: Hub) -> APIRouter:
    routes = APIRouter()
    for part in (account_routes, repository_routes, listing_routes, upload_routes, commit_routes, download_routes):
        routes.include_router(part(hub))
    return routes


def account_routes(hub: Hub) -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/whoami-v2")
    async def whoami(request: Request):
        name = hub.account(request) or refuse(401, "Invalid username or password.")
        return {"type": "user", "name": name, "orgs": [{"name": ORGANIZATION}] if name == ACCOUNT else []}

    @routes.post("/api/validate-yaml")
    async def validate_yaml():
        return {"errors": [], "warnings": []}

    return routes


def repository_routes(hub: Hub) -> APIRouter:
    routes = APIRouter()

    @routes.post("/api/repos/create")
    async def create(request: Request):
        asked = await request.json()
        owner, kind = asked.get("organization") or ACCOUNT, asked.get("type") or "model"
        hub.owned(request, owner)
        name = f"{owner}/{asked['name']}"
        there = hub.repositories.get((kind, name))
        if there is not None:
            said = {"error": f"You already created this {kind} repo: {name}", "url": f"{hub.url}/{there.path}"}
            return JSONResponse(said, 409)
        hub.created = asked
        repository = hub.add(name, FIRST_FILE, kind, asked)
        return {"url": f"{hub.url}/{repository.path}", "name": name}

    @routes.delete("/api/repos/delete")
    async def delete(request: Request):
        asked = await request.json()
        name = f"{asked.get('organization') or ACCOUNT}/{asked['name']}"
        hub.owned(request, name.split("/")[0])
        kind = asked.get("type") or "model"
        hub.readable(request, kind, name)
        del hub.repositories[kind, name]

    @routes.get("/api/{kinds}/{owner}/{name}/auth-check")
    async def auth_check(request: Request, kinds: str, owner: str, name: str):
        hub.readable(request, kinds, f"{owner}/{name}")

    @routes.get("/api/{kinds}/{owner}/{name}/auth-check/write")
    async def auth_check_write(request: Request, kinds: str, owner: str, name: str):
        hub.readable(request, kinds, f"{owner}/{name}")
        hub.owned(request, owner)

    @routes.post("/api/{kinds}/{owner}/{name}/branch/{branch}")
    async def create_branch(request: Request, kinds: str, owner: str, name: str, branch: str):
        hub.owned(request, owner)
        repository, branch = hub.readable(request, kinds, f"{owner}/{name}"), unquote(branch)
        if branch in repository.refs:
            refuse(409, f"Reference already exists: refs/heads/{branch}")
        asked = json.loads(await request.body() or b"{}")
        repository.refs[branch] = repository.at(asked.get("startingPoint") or "main")

    @routes.delete("/api/{kinds}/{owner}/{name}/branch/{branch}")
    async def delete_branch(request: Request, kinds: str, owner: str, name: str, branch: str):
        hub.owned(request, owner)
        repository = hub.readable(request, kinds, f"{owner}/{name}")
        if repository.refs.pop(unquote(branch), None) is None:
            refuse(404, "Reference not found", "RevisionNotFound")

    return routes


def listing_routes(hub: Hub) -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/{kinds}/{owner}/{name}")
    @routes.get("/api/{kinds}/{owner}/{name}/revision/{revision}")
    async def info(request: Request, kinds: str, owner: str, name: str, revision: str = "main"):
        repository = hub.readable(request, kinds, f"{owner}/{name}")
        commit = repository.at(unquote(revision))
        siblings = [{"rfilename": path} for path in repository.snapshots[commit]]
        return {
            "id": repository.name, "sha": commit, "private": repository.private, "gated": repository.gated,
            "siblings": siblings, "tags": [], "downloads": 0, "likes": 0,
        }  # fmt: skip

    @routes.get("/api/{kinds}/{owner}/{name}/refs")
    async def refs(request: Request, kinds: str, owner: str, name: str):
        repository = hub.readable(request, kinds, f"{owner}/{name}")
        all_refs = [ref_entry(ref, commit) for ref, commit in repository.refs.items()]
        pull_requests = [ref for ref in all_refs if ref["ref"].startswith("refs/pr/")]
        branches = [ref for ref in all_refs if ref not in pull_requests]
        return {"branches": branches, "pullRequests": pull_requests, "tags": [], "converts": []}

    @routes.get("/api/{kinds}/{owner}/{name}/tree/{revision}")
    @routes.get("/api/{kinds}/{owner}/{name}/tree/{revision}/{folder}")
    async def tree(
        request: Request, kinds: str, owner: str, name: str, revision: str, folder: str = "", recursive: bool = False
    ):
        repository = hub.readable(request, kinds, f"{owner}/{name}")
        files = repository.snapshots[repository.at(unquote(revision))]
        entries = tree_entries(files, unquote(folder), recursive)
        if folder and not entries:
            refuse(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        return page_of(hub, request, entries)

    @routes.post("/api/{kinds}/{owner}/{name}/paths-info/{revision}")
    async def paths_info(request: Request, kinds: str, owner: str, name: str, revision: str):
        repository = hub.readable(request, kinds, f"{owner}/{name}")
        files = repository.snapshots[repository.at(unquote(revision))]
        paths = (await request.form()).getlist("paths")
        return [file_entry(path, files[path]) for path in paths if path in files]

    return routes


def ref_entry(ref: str, commit: str) -> dict:
    full = ref if ref.startswith("refs/") else f"refs/heads/{ref}"
    return {"name": ref.removeprefix("refs/pr/"), "ref": full, "targetCommit": commit}


def tree_entries(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict]:
    """Files in a folder and, unless those of all folders in it are wanted, the folders."""
    within = f"{folder}/" if folder else ""
    entries = {}
    for path, content in sorted(files.items()):
        rest = path.removeprefix(within)
        if path.startswith(within) and (recursive or "/" not in rest):
            entries[path] = file_entry(path, content)
        elif path.startswith(within):
            inner = within + rest.split("/")[0]
            entries[inner] = {"type": "directory", "path": inner, "oid": git_hash(inner.encode()), "size": 0}
    return list(entries.values())


def file_entry(path: str, content: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if mode_of(path, len(content)) == "lfs":
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def page_of(hub: Hub, request: Request, entries: list[dict]) -> JSONResponse:
    start = int(request.query_params.get("cursor", 0))
    end = start + hub.page_size
    url = f"{hub.url}{request.scope['raw_path'].decode()}?recursive={request.query_params.get('recursive', 'false')}"
    return JSONResponse(entries[start:end], headers=link_header(url, str(end)) if end < len(entries) else {})


def upload_routes(hub: Hub) -> APIRouter:
    routes = APIRouter()

    @routes.post("/api/{kinds}/{owner}/{name}/preupload/{revision}")
    async def preupload(request: Request, kinds: str, owner: str, name: str, revision: str, create_pr: bool = False):
        repository = hub.readable(request, kinds, f"{owner}/{name}")
        if not create_pr:
            hub.owned(request, owner)
        there = repository.snapshots[repository.at(unquote(revision))]
        return {"files": [upload_entry(file, there.get(file["path"])) for file in (await request.json())["files"]]}

    @routes.post("/{owner}/{name}.git/info/lfs/objects/batch")
    @routes.post("/{kinds}/{owner}/{name}.git/info/lfs/objects/batch")
    async def batch(request: Request, owner: str, name: str, kinds: str = "models"):
        hub.readable(request, kinds, f"{owner}/{name}")
        objects = [lfs_object(hub, entry) for entry in (await request.json())["objects"]]
        return {"transfer": "multipart" if any(map(is_in_parts, objects)) else "basic", "objects": objects}

    @routes.put("/lfs/{oid}")
    async def put(request: Request, oid: str):
        store(hub, oid, await request.body())

    @routes.put("/lfs/{oid}/{number}")
    async def put_part(request: Request, oid: str, number: int):
        hub.parts[oid, number] = await request.body()
        return Response(headers={"ETag": f'"{number}"'})

    @routes.post("/lfs/{oid}/complete")
    async def complete(request: Request, oid: str):
        numbers = [part["partNumber"] for part in (await request.json())["parts"]]
        store(hub, oid, b"".join(hub.parts.pop((oid, number)) for number in numbers))

    return routes


def upload_entry(asked: dict, there: bytes | None) -> dict:
    """How a file is to be sent, and the hash of the one that is there."""
    mode = mode_of(asked["path"], asked["size"])
    entry = {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}
    if there is not None:
        entry["oid"] = git_hash(there) if mode == "regular" else hashlib.sha256(there).hexdigest()
    return entry


def lfs_object(hub: Hub, asked: dict) -> dict:
    """Where an object is to be sent; nothing of that where it is stored already."""
    oid, size = asked["oid"], asked["size"]
    if oid in hub.stored:
        return asked
    href, header = f"{hub.url}/lfs/{oid}", {}
    if size > hub.part_size:
        header = {str(n): f"{href}/{n}" for n in range(1, ceil(size / hub.part_size) + 1)}
        href, header = f"{href}/complete", {"chunk_size": str(hub.part_size), **header}
    return {**asked, "actions": {"upload": {"href": href, "header": header}}}


def is_in_parts(entry: dict) -> bool:
    return "chunk_size" in entry.get("actions", {}).get("upload", {}).get("header", {})


def store(hub: Hub, oid: str, content: bytes) -> None:
    if hashlib.sha256(content).hexdigest() != oid:
        refuse(400, "The content does not have the SHA-256 that was announced")
    hub.stored[oid] = content


def commit_routes(hub: Hub) -> APIRouter:
    routes = APIRouter()

    @routes.post("/api/{kinds}/{owner}/{name}/commit/{revision}")
    async def commit(request: Request, kinds: str, owner: str, name: str, revision: str, create_pr: bool = False):
        repository, revision = hub.readable(request, kinds, f"{owner}/{name}"), unquote(revision)
        if not create_pr:
            hub.owned(request, owner)
        elif hub.account(request) is None:
            refuse(401, "Invalid username or password.")
        header, *lines = [json.loads(line) for line in (await request.body()).splitlines()]
        return make_commit(hub, repository, revision, header["value"], lines, create_pr)

    return routes


def make_commit(hub: Hub, repository: Repository, revision: str, header: dict, lines: list[dict], create_pr: bool):
    """All of it or, where a line cannot be done, nothing."""
    parent = repository.at(revision)
    if header.get("parentCommit", parent) != parent:
        refuse(412, "A commit has happened since. Please refresh and try again.")
    files = dict(repository.snapshots[parent])
    for line in lines:
        change(hub, files, line["key"], line["value"])
    number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.refs)
    ref = f"refs/pr/{number}" if create_pr else revision
    commit = repository.commit(files, ref)
    hub.commits.append({**header, "repository": repository.path, "ref": ref})
    url = f"{hub.url}/{repository.path}"
    pull_request = {"pullRequestUrl": f"{url}/discussions/{number}"} if create_pr else {}
    return {"success": True, "commitOid": commit, "commitUrl": f"{url}/commit/{commit}", **pull_request}


def change(hub: Hub, files: dict[str, bytes], kind: str, value: dict) -> None:
    path = value["path"]
    if kind == "file":
        files[path] = base64.b64decode(value["content"])
    elif kind == "lfsFile":
        if value["oid"] not in hub.stored:
            refuse(400, f"The LFS object of {path} was not uploaded")
        files[path] = hub.stored[value["oid"]]
    else:
        gone = [name for name in files if name == path or (kind == "deletedFolder" and name.startswith(path))]
        if not gone:
            refuse(404, "A file with this name doesn't exist", "EntryNotFound")
        for name in gone:
            del files[name]


def download_routes(hub: Hub) -> APIRouter:
    routes = APIRouter()

    @routes.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    @routes.api_route("/{kinds}/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    async def resolve(request: Request, owner: str, name: str, revision: str, path: str, kinds: str = "models"):
        repository = hub.readable(request, kinds, f"{owner}/{name}")
        if repository.gated and hub.account(request) != ACCOUNT:
            refuse(403, f"Access to {kinds[:-1]} {owner}/{name} is restricted", "GatedRepo")
        commit, path = repository.at(unquote(revision)), unquote(path)
        content = repository.snapshots[commit].get(path)
        if content is None:
            refuse(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_hash(content)}"'}
        if mode_of(path, len(content)) == "regular":
            return ranged(request, content, headers)
        oid = hashlib.sha256(content).hexdigest()
        hub.stored[oid] = content
        linked = {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        return RedirectResponse(f"{hub.other_url}/lfs/{oid}", 302, headers | linked)

    @routes.api_route("/lfs/{oid}", methods=["GET", "HEAD"])
    async def get_stored(request: Request, oid: str):
        return ranged(request, hub.stored[oid], {"ETag": f'"{oid}"'})

    return routes


def ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """The content, or the part that a Range asks for."""
    start, _, end = request.headers.get("Range", "").removeprefix("bytes=").partition("-")
    if not start:
        return Response(content, headers=headers, media_type="application/octet-stream")
    part = content[int(start) : int(end) + 1 if end else None]
    span = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
    return Response(part, 206, headers | {"Content-Range": span}, media_type="application/octet-stream")
