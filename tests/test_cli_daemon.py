"""The commands that ask a daemon, as a stranger scripts against them: subprocesses, beside a daemon of a few lines."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine.config import load_config
from engine.errors import ConfigError
from engine.frontdesk import FrontDesk
from engine.presence import announce
from stages.errors import SluiceError
from tests.runs import ROOT, command, run_cli
from tests.test_metrics import full_document
from transport.requests import ForgetRequest, Request, RetryRequest, SearchRequest, StatusRequest, Target

Respond = Callable[[Request], dict[str, Any] | SluiceError]
HIT = {
    "score": 0.5, "kind": "speech", "video_id": "ab" * 32, "path": "/films/a.mp4", "start_seconds": 1.0,
    "end_seconds": 62.0, "text": "Ein Ball", "source": "asr", "speaker": None,
}  # fmt: skip


class FakeDaemon:
    """A front desk that answers from a thread, and remembers what it was asked."""

    def __init__(self, tmp_path: Path) -> None:
        self.settings = [f"run.state={tmp_path / 'state'}", f"store.path={tmp_path / 'store'}"]
        self.asked: list[Request] = []
        self.respond: Respond = lambda request: {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._endpoint = f"ipc://{tmp_path}/desk.ipc"
        self._ready, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30)
        self._context.destroy(linger=0)

    def _run(self) -> None:
        desk = FrontDesk(self._context, self._endpoint)
        with announce(load_config(settings=self.settings), self._endpoint):
            self._ready.set()
            while not self._stopping.is_set():
                desk.socket.poll(50)
                for client, request in desk.take():
                    self.asked.append(request)
                    desk.answer(client, self.respond(request))
        desk.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    made = FakeDaemon(tmp_path)
    made.start()
    yield made
    made.stop()


def test_status_is_a_table_and_one_json_object(daemon: FakeDaemon) -> None:
    document = full_document()
    daemon.respond = lambda request: document
    shown = run_cli(["status"], daemon.settings)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("indexing · up 1:40\n")
    assert "\x1b" not in shown.stdout
    found = run_cli(["status", "--json"], daemon.settings)
    assert json.loads(found.stdout) == json.loads(json.dumps(document))
    assert daemon.asked == [StatusRequest(), StatusRequest()]


@pytest.mark.parametrize("arguments", [["status", "--watch"], ["status", "--watch", "--json"]])
def test_watching_ends_in_order_with_ctrl_c(daemon: FakeDaemon, arguments: list[str]) -> None:
    daemon.respond = lambda request: full_document()
    process = subprocess.Popen(
        command(arguments, daemon.settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    first = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    if "--json" in arguments:
        assert all(json.loads(line)["state"] == "indexing" for line in [*first, *rest.splitlines()])
    else:
        assert first[0] == "indexing · up 1:40\n"


def test_search_asks_the_daemon_and_loads_no_model(daemon: FakeDaemon) -> None:
    daemon.respond = lambda request: {"query": "a ball", "hits": [HIT]}
    arguments = ["search", "a ball", "--in", "speech", "--limit", "3", "--speaker", "Anna", "--hybrid"]
    shown = run_cli(arguments, [*daemon.settings, "models.directory=/nowhere", "models.text=nobody/nothing"])
    assert shown.stdout == "0.500 speech       0:01-1:02 /films/a.mp4 Ein Ball\n"
    found = run_cli([*arguments, "--json"], daemon.settings)
    assert json.loads(found.stdout) == {"query": "a ball", "hits": [HIT]}
    request = SearchRequest(query="a ball", within="speech", limit=3, speaker="Anna", hybrid=True)
    assert daemon.asked == [request, request]


def test_a_daemon_of_another_store_is_not_asked(daemon: FakeDaemon, tmp_path: Path) -> None:
    done = run_cli(["search", "a ball"], [*daemon.settings, f"store.path={tmp_path / 'other'}"])
    assert done.returncode == 4
    assert "store-missing" in done.stderr
    assert daemon.asked == []


def test_what_the_daemon_refuses_is_one_line_with_its_exit_code(daemon: FakeDaemon) -> None:
    daemon.respond = lambda request: SluiceError("daemon-starting", "the daemon is still loading its models")
    done = run_cli(["search", "a ball"], daemon.settings)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "sluice: daemon-starting: the daemon is still loading its models\n"
    daemon.respond = lambda request: ConfigError("model-off", 'models.image = "off"')
    done = run_cli(["search", "a ball", "--in", "frames"], daemon.settings)
    assert (done.returncode, done.stderr) == (2, 'sluice: model-off: models.image = "off"\n')


def test_retry_names_what_is_tried_again(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.respond = lambda request: {
        "retried": [{"path": "/films/a.mp4", "video_id": None}], "count": 30,
        "not_failed": [{"path": "/films/b.mp4", "video_id": "ab"}], "in_work": [],
    }  # fmt: skip
    done = run_cli(["retry", "a.mp4", "ab" * 6], daemon.settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "to be tried again: /films/a.mp4",
        "to be tried again: 29 more",
        "did not fail: /films/b.mp4",
    ]
    assert daemon.asked == [
        RetryRequest(targets=(Target(path=os.fsencode(ROOT / "a.mp4"), spelled=b"a.mp4"), Target(video_id="ab" * 6)))
    ]


def test_retry_of_all_says_when_nothing_has_failed(daemon: FakeDaemon) -> None:
    daemon.respond = lambda request: {"retried": [], "count": 0, "not_failed": [], "in_work": []}
    done = run_cli(["retry", "--all"], daemon.settings)
    assert (done.returncode, done.stdout) == (0, "nothing has failed\n")
    assert daemon.asked == [RetryRequest(targets=(), everything=True)]
    done = run_cli(["retry", "--all", "--json"], daemon.settings)
    assert json.loads(done.stdout) == {"retried": [], "count": 0, "not_failed": [], "in_work": []}


def test_forget_names_what_is_forgotten(daemon: FakeDaemon) -> None:
    body = {"forgotten": [{"path": "/films/a.mp4", "video_id": "ab" * 32}]}
    daemon.respond = lambda request: body
    done = run_cli(["forget", "ab" * 32], daemon.settings)
    assert (done.returncode, done.stdout) == (0, "forgotten: /films/a.mp4\n")
    assert json.loads(run_cli(["forget", "ab" * 32, "--json"], daemon.settings).stdout) == body
    assert daemon.asked == [ForgetRequest(targets=(Target(video_id="ab" * 32),))] * 2


def test_without_a_daemon_status_says_so(tmp_path: Path) -> None:
    settings = [f"run.state={tmp_path / 'state'}", f"store.path={tmp_path / 'store'}"]
    done = run_cli(["status"], settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no daemon runs for this store")
    assert json.loads(run_cli(["status", "--json"], settings).stdout)["state"] == "stopped"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["retry"], 2, "VIDEO --all"),
        (["retry", "a.mp4", "--all"], 2, "not allowed"),
        (["forget"], 2, "VIDEO"),
        (["retry", "--all"], 4, "nothing was indexed yet"),
        (["forget", "a.mp4"], 4, "nothing was indexed yet"),
        (["daemon", "nonsense"], 2, "nonsense"),
        (["search", "x", "--limit", "1001"], 2, "at most 1000"),
        (["search", "x" * 5000], 2, "4096 at most"),
        (["search", os.fsdecode(b"\xff")], 2, "not valid UTF-8"),
        (["search", "x", "--speaker", os.fsdecode(b"\xff")], 2, "not valid UTF-8"),
    ],
)
def test_wrong_use_is_one_line_and_its_exit_code(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = run_cli(arguments, [f"store.path={tmp_path / 'store'}"])
    assert done.returncode == code
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
