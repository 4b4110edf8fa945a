"""How `status` looks: on a terminal, elsewhere, and while it is watched."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.status_view import COLUMNS, MAX_FAILURES, MAX_VIDEOS, show, watch
from tests.test_metrics import full_document


class Terminal(io.StringIO):
    """What rich takes for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def video(path: str = "/films/a.mp4", **facts: Any) -> dict[str, Any]:
    values = {"path": path, "video_id": None, "state": "indexing", "done": 0.25, "eta_seconds": 3725.0,
              "duration_seconds": 100.0, "searchable": True}  # fmt: skip
    return {**values, **facts}


def text_of(document: dict[str, Any]) -> str:
    stream = io.StringIO()
    show(document, stream)
    return stream.getvalue()


def busy_document(path: str = "/films/a.mp4") -> dict[str, Any]:
    document = full_document("waiting: store-unreachable: no answer")
    document["videos"] = [video(path), video("b.mp4", state="opening", eta_seconds=None, duration_seconds=None)]
    document["videos"] += [video(f"{number}.mp4") for number in range(MAX_VIDEOS)]
    document["roots"][0]["path"] = path
    document["failures"] = [{"path": path, "code": "not-media", "message": "no"}] * (MAX_FAILURES + 2)
    return document


def test_a_page_shows_what_matters() -> None:
    text = text_of(busy_document())
    lines = text.splitlines()
    assert lines[0] == "waiting: store: store-unreachable: no answer · up 1:40"
    assert "queue   7 files, 0 tasks, 0 videos in work" in lines
    assert "videos  1 indexed, 0 partial, 0 unchanged, 1 failed; 50 points" in lines
    assert "found   after 4.0 s (last 4.0 s); coverage: text 75.0%, voice -" in lines
    assert "memory  host 5.0 MB, results 8 B, spool 11 B" in lines
    assert "device  6 B, peak 7 B of 10 B; 4 changes, 1 releases, 0 halvings, 0 stops" in lines
    (image,) = [line.split() for line in lines if line.startswith("image")]
    assert image == ["image", "5", "0.0", "0%", "3", "900", "B", "16", "2", "1"]
    (row,) = [line.split() for line in lines if line.startswith("/films/a.mp4") and "25%" in line]
    assert row == ["/films/a.mp4", "25%", "1:02:05", "1:40"]
    (opening,) = [line.split() for line in lines if line.startswith("b.mp4")]
    assert opening == ["b.mp4", "opening", "-:--", "-:--"]
    assert "and 2 more" in text
    assert "and 2 more failures; --json names them" in lines
    (engine,) = [line.split() for line in lines if line.startswith("engine")]
    assert engine == ["engine", "2", "90", "B", "1", "ready"]


def test_what_holds_the_work_up_is_said_in_full_with_what_to_turn() -> None:
    document, silent = full_document(), text_of(full_document())
    sentence = "The decoders are the bottleneck: they decode 95 % of their time, and the engine waits 60 % of its own."
    document["bottleneck"] = {
        "stage": "decoders", "share": 0.95, "sentence": sentence, "settings": ["more of [this]", "less of that"],
    }  # fmt: skip
    text = text_of(document)
    lines = [line.rstrip() for line in text.splitlines()]
    at = next(number for number, line in enumerate(lines) if line.startswith("limit   The decoders are the bottleneck"))
    assert lines[at + 1] == "        engine waits 60 % of its own."
    assert lines[at + 2] == "next    more of [this]; or less of that"
    assert "limit" not in silent
    document["bottleneck"]["settings"] = []
    assert "next    " not in text_of(document)


def test_a_ledger_that_cannot_be_written_is_shown() -> None:
    assert "ledger" not in text_of(full_document())
    assert "ledger  waiting: locked" in text_of({**full_document(), "ledger": "waiting: locked"})


def test_without_a_daemon_the_ledger_is_shown() -> None:
    document = {
        "state": "stopped", "videos": {"indexed": 3, "failed": 1}, "files": {}, "tasks": {"open": 2}, "operations": 4,
        "failures": [{"path": "c.mp4", "code": "empty-file", "message": "it is empty"}],
    }  # fmt: skip
    lines = text_of(document).splitlines()
    assert lines[0].startswith("no daemon runs for this store")
    assert lines[1:] == [
        "videos  1 failed, 3 indexed",
        "files   none",
        "tasks   2 open",
        "store   has yet to be told of 4 changes, when it runs again",
        "failed c.mp4: empty-file: it is empty",
    ]


@given(st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp", "Cf", "Mn", "Me", "Mc")), max_size=300))
def test_a_page_fits_80_columns_whatever_files_are_called(name: str) -> None:
    for line in text_of(busy_document(f"/films/{name}.mp4")).splitlines():
        assert cell_len(line.rstrip()) <= COLUMNS


def test_names_are_no_markup_and_keep_their_end() -> None:
    text = text_of(busy_document("/films/" + "x" * 100 + "[red]the end[/red].mp4"))
    assert "…" in text
    assert "[red]the end[/red].mp4" in text


def test_color_is_for_terminals_that_want_it(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    show(busy_document(), terminal)
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b[" not in text_of(busy_document())
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    show(busy_document(), plain)
    assert "\x1b[31m" not in plain.getvalue()
    assert "\x1b[1;33m" not in plain.getvalue()


class Watching:
    """Answers and sleeps a few times, then presses Ctrl-C."""

    def __init__(self, times: int) -> None:
        self.asked = 0
        self.slept: list[float] = []
        self._times = times

    def ask(self) -> dict[str, Any]:
        self.asked += 1
        return full_document()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == self._times:
            raise KeyboardInterrupt


def test_watching_redraws_in_place_until_it_is_interrupted(terminal: Terminal) -> None:
    watching = Watching(3)
    watch(watching.ask, terminal, watching.sleep)
    assert (watching.asked, watching.slept) == (3, [1.0, 1.0, 1.0])
    assert "\x1b[1A" in terminal.getvalue(), "the cursor goes up again"


@pytest.mark.parametrize("kind", ["dumb", "unknown", "", None])
def test_where_the_terminal_cannot_redraw_page_follows_page(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, kind: str | None
) -> None:
    if kind is None:
        monkeypatch.delenv("TERM")
    else:
        monkeypatch.setenv("TERM", kind)
    watching = Watching(3)
    watch(watching.ask, terminal, watching.sleep)
    assert terminal.getvalue().count("queue   7 files") == 3
    assert "\x1b[1A" not in terminal.getvalue()


def test_into_a_file_page_follows_page() -> None:
    watching, stream = Watching(2), io.StringIO()
    watch(watching.ask, stream, watching.sleep)
    assert stream.getvalue().count("queue   7 files") == 2
    assert "\x1b" not in stream.getvalue()
