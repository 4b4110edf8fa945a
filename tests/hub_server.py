"""A loopback server that speaks as much of the hub's HTTP interface as fetching a model takes."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SHA = "0123456789abcdef0123456789abcdef01234567"  # the one commit of every repository


class HubServer:
    """Repositories by id, each a directory; what was asked for; and how the server misbehaves."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories = repositories
        self.fetched: list[str] = []  # names of files, in the order of their GET requests
        self.gated: set[str] = set()  # ids that need a token
        self.breaks_off_at: str | None = None  # the file after whose first half the connection drops
        self.endpoint = ""


@contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[HubServer]:
    hub = HubServer(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept in `hub.fetched`, not printed."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/"):
            self._answer_api(path.removeprefix("api/models/").split("/"))
        else:
            self._answer_file(path.split("/"), with_body=True)

    def do_HEAD(self) -> None:
        self._answer_file(self.path.split("?")[0].strip("/").split("/"), with_body=False)

    def _answer_api(self, parts: list[str]) -> None:
        repository = "/".join(parts[:2])
        if self._is_refused(repository):
            return
        files = _files(self.hub.repositories[repository])
        if parts[2:3] == ["tree"]:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
                for name, content in files.items()
            ]
            self._send(200, json.dumps(tree).encode())
            return
        info = {"id": repository, "sha": SHA, "siblings": [{"rfilename": name} for name in files]}
        self._send(200, json.dumps(info).encode())

    def _answer_file(self, parts: list[str], with_body: bool) -> None:
        repository, name = "/".join(parts[:2]), "/".join(parts[4:])
        if self._is_refused(repository):
            return
        content = _files(self.hub.repositories[repository])[name]
        if with_body:
            self.hub.fetched.append(name)
        self._send(200, content, with_body, name)

    def _is_refused(self, repository: str) -> bool:
        if repository in self.hub.gated:
            self._send(403, b"{}", code="GatedRepo")
            return True
        if repository not in self.hub.repositories:
            self._send(404, b"{}", code="RepoNotFound")
            return True
        return False

    def _send(self, status: int, content: bytes, with_body: bool = True, name: str = "", code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{_oid(content)}"')
        self.send_header("X-Repo-Commit", SHA)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if name and with_body and name == self.hub.breaks_off_at:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif with_body:
            self.wfile.write(content)


def _files(directory: Path) -> dict[str, bytes]:
    return {
        file.relative_to(directory).as_posix(): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
