"""Requests to the daemon on the wire, and what VIDEO means on the command line."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.client import targets_of
from transport.codec import encode
from transport.requests import (
    MAX_HITS,
    Answer,
    ForgetRequest,
    Request,
    RetryRequest,
    SearchRequest,
    StatusRequest,
    Target,
)

VIDEO_ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "request_",
    [
        StatusRequest(),
        SearchRequest(query="ein Ball", within="frames", limit=3, speaker="Anna", hybrid=True),
        RetryRequest(targets=(Target(path=b"/films/\xff.mp4"), Target(video_id=VIDEO_ID))),
        RetryRequest(targets=(), everything=True),
        ForgetRequest(targets=(Target(video_id=VIDEO_ID[:8]),)),
    ],
)
def test_a_request_comes_out_as_it_went_in(request_: Request) -> None:
    decoded: Request = msgspec.msgpack.decode(encode(request_), type=Request)
    assert decoded == request_


@pytest.mark.parametrize(
    "wrong",
    [
        SearchRequest(query=""),
        SearchRequest(query="x" * 5000),
        SearchRequest(query="x", limit=0),
        SearchRequest(query="x", limit=MAX_HITS + 1),
        SearchRequest(query="x", within="films"),  # type: ignore[arg-type]
        ForgetRequest(targets=(Target(video_id="0123"),)),
        ForgetRequest(targets=(Target(video_id="../../etc"),)),
        Answer(body={}),
    ],
)
def test_a_request_that_asks_for_the_impossible_is_not_read(wrong: Request) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encode(wrong), type=Request)


@pytest.mark.parametrize("digits", [VIDEO_ID, VIDEO_ID[:8], "deadbeef"])
def test_hex_digits_are_an_id_or_its_beginning(digits: str) -> None:
    assert targets_of([digits]) == (Target(video_id=digits),)


@pytest.mark.parametrize("argument", ["a.mp4", "./deadbeef", "0123456", "DEADBEEF", VIDEO_ID + "0", "films/a.mp4"])
def test_everything_else_is_a_path_made_absolute(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert targets_of([argument]) == (Target(path=os.fsencode(tmp_path / argument), spelled=argument.encode()),)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(tmp_path / "film.mp4")
    (target,) = targets_of([str(tmp_path / "link.mp4")])
    assert target.path == os.fsencode(tmp_path / "link.mp4")


@given(st.binary(min_size=1).filter(lambda path: b"\0" not in path))
def test_any_name_of_a_file_survives_the_way_to_the_daemon(name: bytes) -> None:
    (target,) = targets_of([os.fsdecode(b"/films/" + name.replace(b"/", b"_"))])
    request = RetryRequest(targets=(target,))
    assert msgspec.msgpack.decode(encode(request), type=Request) == request
