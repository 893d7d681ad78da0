"""A stand-in for the Hub on loopback: one model repository, as the installed huggingface_hub reads and commits to it."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Files of one repository, its commits, and who may write.

    `faults` befall the next commits, one each: a status to answer, "cut" for a closed connection, or what to wait for.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], token: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.token = files, token
        self.commits: list[dict] = []
        self.created: dict | None = None
        self.stored: dict[str, bytes] = {}  # of LFS, by SHA-256
        self.faults: list[int | str | Callable[[], object]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(sorted(self.files.items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        """A file of the repository, or the list of all."""
        if "/tree/main" in self.path:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": "0"}
                for name, data in self.server.files.items()
            ]
            return self.answer(200, json.dumps(entries).encode(), {})
        name = self.path.split("/resolve/main/")[-1]
        if "/resolve/main/" not in self.path or name not in self.server.files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        content = self.server.files[name]
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        self.answer(200, content, {"ETag": etag, "X-Repo-Commit": self.server.sha, "Content-Type": "text/plain"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            return self.answer(200, b'{"errors": [], "warnings": []}', {})
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.answer(403, b'{"error": "Forbidden: you may not write here"}', {})
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            return self.answer(200, json.dumps({"url": f"{self.server.url}/me/mine"}).encode(), {})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": mode_of(f["path"]), "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self.answer(200, json.dumps({"files": files}).encode(), {})
        if self.path.endswith("/info/lfs/objects/batch"):
            return self.answer(200, json.dumps(self.lfs_actions(json.loads(body))).encode(), {})
        self.commit([json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        """The content of a file of LFS."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.stored[hashlib.sha256(content).hexdigest()] = content
        self.answer(200, b"", {})

    def lfs_actions(self, asked: dict) -> dict:
        upload = {"href": f"{self.server.url}/lfs"}
        objects = [{**entry, "actions": {"upload": upload}} for entry in asked["objects"]]
        return {"transfer": "basic", "objects": objects}

    def commit(self, lines: list[dict]) -> None:
        """All of it or, at a fault, nothing."""
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "cut":
            return self.connection.close()
        if isinstance(fault, int):
            return self.answer(fault, b'{"error": "it is not well today"}', {})
        if callable(fault):
            fault()
        files = self.server.files
        self.server.commits.append(lines[0]["value"])
        for line in lines[1:]:
            kind, value = line["key"], line["value"]
            if kind == "deletedFolder":
                for name in [name for name in files if name.startswith(value["path"])]:
                    del files[name]
            else:
                content = base64.b64decode(value["content"]) if kind == "file" else self.server.stored[value["oid"]]
                files[value["path"]] = content
        self.answer(200, json.dumps({"commitUrl": f"{self.server.url}/c/1", "commitOid": self.server.sha}).encode(), {})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def mode_of(path: str) -> str:
    """How a file travels: weights by LFS, as on the Hub."""
    return "lfs" if path.endswith((".safetensors", ".pt", ".pth")) else "regular"


@contextmanager
def hub(files: dict[str, bytes], token: str = "hf_right") -> Iterator[Hub]:
    """A running stand-in; it stops with the block."""
    server = Hub(files, token)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
