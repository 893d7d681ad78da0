"""A stand-in for the Hub on loopback: one model repository, as the installed huggingface_hub reads and commits to it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Files of one repository, its commits, and who may write."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], token: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.token = files, token
        self.commits: list[dict] = []

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
        """A file of the repository."""
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
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.answer(200, json.dumps({"files": files}).encode(), {})
        lines = [json.loads(line) for line in body.splitlines()]
        self.server.commits.append(lines[0]["value"])
        for line in lines[1:]:
            self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
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
