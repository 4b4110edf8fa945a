"""A test server that speaks the part of Qdrant's REST that Sluice uses, keeps its points in Edge, and fails on demand.

with LoopbackQdrant() as server:        # a thread of this process; server.url
    server.fail(status=503, times=2)    # … timeout, drop, slow, require_key; see Faults

python -m tests.qdrant_loopback --port 0 --directory DIR     # a process; prints its URL
curl -X POST URL/_control -d '{"fail": {"status": 503, "times": 2}}'     # the same faults, over HTTP
curl URL/_control                                                        # {"requests": {"PUT points": 3, …}}
"""

import argparse
import json
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.loopback_collections import Collections, Json, Refusal


class Faults:
    """What goes wrong next. Faults with `times` are used up by requests, in the order of the methods below."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, list[Any]] = {"fail": [], "timeout": [], "drop": []}
        self._slow_seconds = 0.0
        self._key: str | None = None

    def fail(self, status: int = 503, times: int = 1, after: int = 0) -> None:
        """Answer with this status, and do nothing; `after` requests are let through first."""
        self._add("fail", 0, after)
        self._add("fail", status, times)

    def timeout(self, times: int = 1, seconds: float = 2.0) -> None:
        """Do nothing for this long, then hang up."""
        self._add("timeout", seconds, times)

    def drop(self, times: int = 1, applied: bool = True) -> None:
        """Do what is asked (or, not applied, nothing), and hang up in the middle of the answer."""
        self._add("drop", applied, times)

    def slow(self, seconds: float) -> None:
        """Wait this long before every answer. 0 ends it."""
        self._slow_seconds = seconds

    def require_key(self, key: str | None) -> None:
        """Refuse requests without this api-key header. None ends it."""
        self._key = key

    def clear(self) -> None:
        with self._lock:
            for queue in self._queues.values():
                queue.clear()
        self._slow_seconds, self._key = 0.0, None

    def _add(self, kind: str, value: Any, times: int) -> None:
        with self._lock:
            self._queues[kind].extend([value] * times)

    def take(self, kind: str) -> Any:
        """The next fault of this kind, or None."""
        with self._lock:
            queue = self._queues[kind]
            return queue.pop(0) if queue else None

    def check_key(self, given: str | None) -> None:
        if self._key is not None and given is None:
            raise Refusal(401, "Must provide an API key or an Authorization bearer token")
        if self._key is not None and given != self._key:
            raise Refusal(401, "Invalid API key or JWT")

    def delay_seconds(self) -> float:
        return self._slow_seconds


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a handler that sleeps through a time-out must not hold up the end of the test
    block_on_close = False
    faults: Faults
    collections: Collections
    requests: Counter[str]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting is no error of the server's; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def handle_request(self) -> None:
        self._cut = False
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        path = self.path.partition("?")[0]
        try:
            status, answer = 200, self._answer(path, body)
        except Refusal as refusal:
            status, answer = refusal.status, {"status": {"error": refusal.text}, "time": 0.0}
        except ConnectionAbortedError:
            return
        self._send(status, json.dumps(answer).encode())

    do_GET = do_PUT = do_POST = do_DELETE = handle_request  # noqa: N815 — names that http.server asks for

    def _control(self, body: Json) -> Json:
        """{"fail": {"status": 503, "times": 2}, "slow": {"seconds": 1}, "clear": {}, …}: calls of Faults."""
        for name, arguments in body.items():
            getattr(self.server.faults, name)(**arguments)
        return {"requests": dict(self.server.requests)}

    def _answer(self, path: str, body: Json) -> Json:
        if path == "/_control":
            return self._control(body)
        if path == "/healthz":
            return {"title": "healthz check passed"}
        time.sleep(self.server.faults.delay_seconds())
        self.server.faults.check_key(self.headers.get("api-key"))
        if path == "/":
            return {"title": "qdrant - vector search engine", "version": "1.18.0"}
        return {"result": self._result(path, body), "status": "ok", "time": 0.0}

    def _result(self, path: str, body: Json) -> Any:
        if path == "/collections":
            return self.server.collections.names()
        match = re.fullmatch(r"/collections/([^/]+)/?(.*)", path)
        if match is None:
            raise Refusal(404, f"no such path: {path}")
        self.server.requests[f"{self.command} {match[2]}".strip()] += 1
        applied = self._fault()
        result = self.server.collections.handle(self.command, match[1], match[2], body)
        self._cut = applied is True
        return result

    def _fault(self) -> bool | None:
        """Whether the connection is to be dropped after the request was applied; raises for the other faults."""
        if status := self.server.faults.take("fail"):
            raise Refusal(status, "told to fail")
        if (seconds := self.server.faults.take("timeout")) is not None:
            time.sleep(seconds)
            raise ConnectionAbortedError
        applied: bool | None = self.server.faults.take("drop")
        if applied is False:
            raise ConnectionAbortedError
        return applied

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self._cut else content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests speak for themselves."""


def fast_disk() -> str | None:
    """A disk in memory that has room, or None for the usual place of temporary files."""
    return "/dev/shm" if Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 1 << 30 else None


class LoopbackQdrant(Faults):
    """The server in a thread of this process, on a free port of 127.0.0.1."""

    def __init__(self, directory: Path | None = None, port: int = 0) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory(dir=fast_disk()) if directory is None else None
        home = Path(self._temporary.name) if self._temporary else directory
        assert home is not None
        home.mkdir(parents=True, exist_ok=True)
        self._collections = Collections(home)
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.faults, self._server.collections, self._server.requests = self, self._collections, Counter()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="loopback", daemon=True)
        self._thread.start()

    @property
    def requests(self) -> Counter[str]:
        """How many requests of each kind came for collections, failed ones too: {"PUT points": 3, …}."""
        return self._server.requests

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._collections.close()
        if self._temporary:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve Qdrant's REST from Edge, for tests.")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--directory", type=Path, default=None, help="where the points are kept; default: temporary")
    arguments = parser.parse_args()
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the threads start, so that they inherit it
    with LoopbackQdrant(arguments.directory, arguments.port) as server:
        print(server.url, flush=True)
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
