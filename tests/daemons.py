"""A daemon for tests: the command as a subprocess, asked through its own socket."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.client import ask, targets_of
from engine.config import load_config
from stages.errors import SluiceError
from tests.runs import command
from transport.requests import ForgetRequest, Request, RetryRequest, SearchRequest, StatusRequest

PATIENCE_SECONDS = 120.0


class Daemon:
    """A running daemon."""

    def __init__(self, settings: list[str], log: Path, file: Path | None = None) -> None:
        """file: of further settings."""
        self.settings = settings
        self.config = load_config(settings=settings)
        self.log = log
        arguments = ["daemon", *(["--config", str(file)] if file is not None else [])]
        with log.open("ab") as stream:
            self.process = subprocess.Popen(command(arguments, settings), stderr=stream, stdout=stream)

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text()

    def ask(self, request: Request) -> dict[str, Any] | None:
        """Its answer; None while it cannot be asked."""
        assert self.process.poll() is None, self.said()
        with contextlib.suppress(SluiceError):
            return ask(self.config, request)
        return None

    def status(self) -> dict[str, Any]:
        """Its status; empty while it cannot be asked."""
        return self.ask(StatusRequest()) or {}

    def search(self, query: str, within: Any = "frames") -> list[dict[str, Any]]:
        """Hits, best first."""
        body = ask(self.config, SearchRequest(query=query, within=within, limit=100))
        assert body is not None
        return list(body["hits"])

    def retry(self, *videos: Path) -> dict[str, Any] | None:
        return ask(self.config, RetryRequest(targets=targets_of([str(video) for video in videos])))

    def forget(self, *videos: Path) -> dict[str, Any] | None:
        return ask(self.config, ForgetRequest(targets=targets_of([str(video) for video in videos])))

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            time.sleep(0.1)
            assert time.monotonic() < end, (self.status(), self.said())

    def until_finished(self, videos: int, status: str = "indexed") -> None:
        """Until so many videos are, and nothing is in work."""
        self.until(lambda: self.status().get("totals", {}).get("videos", {}).get(status) == videos and self.is_idle())

    def is_idle(self) -> bool:
        return bool(self.status().get("state") == "idle")

    def drain(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE_SECONDS)


@contextlib.contextmanager
def daemon(settings: list[str], log: Path, file: Path | None = None) -> Iterator[Daemon]:
    """A daemon, killed at the end if it still runs."""
    running = Daemon(settings, log, file)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def watching(root: Path, *more: str) -> list[str]:
    """Settings of a daemon on one directory, quick to notice."""
    return [
        f"watch.roots=['{root}']",
        "watch.quiet_seconds=0.3",
        "daemon.metrics_port=0",
        "daemon.log_format=text",
        *more,
    ]
