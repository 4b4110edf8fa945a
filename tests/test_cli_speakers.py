"""The commands for known speakers: what they ask a daemon, what they do without one, and what they print."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.cli_speakers import model_label
from engine.config import load_config
from engine.errors import ConfigError
from stages.diarization import Diarization
from stages.errors import ModelError, SluiceError
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.roster import read_profiles
from stages.speakers import labelled, perform, read_roster
from stages.store import SPEECH, VOICES, Filter, Store, speakers_spec, speech_spec, voices_spec
from tests import test_speakers as archive
from tests.conftest import TinyModels
from tests.runs import run_cli
from tests.test_cli_daemon import FakeDaemon
from tests.test_enrolment import LOW, record, spoken
from tests.test_voice_profiles import DIMENSION, clip
from transport.requests import SpeakersRequest

THRESHOLD = {"value": 0.4321, "source": "archive", "scores": 1204, "impostor": 1000}
ANNA = {
    "name": "Anna", "profile_id": "p", "clips": 3, "clip_seconds": 41.2, "enrolled": "2026-09-21T14:13:20+00:00",
    "voices": 12, "videos": 9, "seconds": 3723.0,
}  # fmt: skip
CHANGED = {"voices": 12, "videos": 9, "seconds": 3723.0}
UNTRAINED = "note: the voice model is untrained, made to try things out: it tells nobody apart"


@pytest.fixture
def settings(tmp_path: Path, tiny_models: TinyModels) -> list[str]:
    """Of a store and a state below tmp_path, and the tiny voice model."""
    return [
        f"run.state={tmp_path / 'state'}",
        f"store.path={tmp_path / 'store'}",
        f"models.voice={tiny_models['ecapa']}",
    ]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    made = FakeDaemon(tmp_path)
    made.start()
    yield made
    made.stop()


def run(settings: list[str], *arguments: str) -> int:
    """A command in this process."""
    return main([*arguments, *(f"--set={setting}" for setting in settings)])


def open_at(settings: list[str]) -> Store:
    store = open_store(StoreOptions(path=settings[1].partition("=")[2]), None)
    store.ensure([voices_spec(DIMENSION), speech_spec(4), speakers_spec(DIMENSION)])
    return store


# --- without a daemon -----------------------------------------------------------------------------------------------


def test_a_voice_is_enrolled_from_clips_and_found_in_the_archive(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [record(tmp_path / f"{seed}.wav", spoken(LOW, 2, seed)) for seed in range(2)]
    done = run_cli(["enroll", "Anna", *map(str, clips)], settings)
    assert done.returncode == 0, done.stderr
    begin = "enrolled Anna: 2 clips, 25 s of speech; 0 voices in 0 videos are called Anna (threshold 0.40, the default"
    assert done.stdout.startswith(begin)
    assert done.stderr.splitlines() == [*(f"{clip}: 13 s of speech" for clip in clips), UNTRAINED]

    label = model_label(load_config(settings=settings))
    store = open_at(settings)
    [anna] = read_profiles(store, label)
    archive.PEOPLE["enrolled"] = anna.vector
    archive.index(store, "talk", [("enrolled", 4), ("bert", 5)], label)
    list(labelled(store, archive.video("talk"), label, diarized(store, label), read_roster(store, "nobody's")))
    store.close()

    assert run(settings, "speakers", "relabel") == 0
    assert capsys.readouterr().out.startswith("looked at 2 voices in 1 video: 1 voice in 1 video changed its name (")
    assert run(settings, "speakers", "rename", "Anna", "Dr. Anna") == 0
    assert capsys.readouterr().out == "Anna is Dr. Anna now: 1 voice in 1 video is called Dr. Anna\n"
    assert run(settings, "speakers", "list") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Dr. Anna  1 voice in 1 video, 0:08 of speech; enrolled from 2 clips, 25 s of speech",
        "without a name: 1 voice in 1 video, 0:10 of speech",
        "threshold 0.40, the default: this archive has too few voices to make its own",
    ]
    store = open_at(settings)
    said = store.count(SPEECH, Filter(speaker="Dr. Anna"))
    assert (said, store.count(VOICES, Filter(speaker="Dr. Anna"))) == (2, 4)
    store.close()
    assert run(settings, "speakers", "remove", "Dr. Anna", "--json") == 0
    assert json.loads(capsys.readouterr().out)["removed"] == "Dr. Anna"
    assert run(settings, "speakers", "list") == 0
    assert capsys.readouterr().out.startswith("nobody is enrolled\nwithout a name: 2 voices in 1 video")


def diarized(store: Store, label: str) -> Diarization | None:
    return archive.diarized(store, "talk", label)


def test_a_clip_that_is_refused_leaves_no_trace(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = record(tmp_path / "short.wav", spoken(LOW, 1)[:60_000])
    assert run(settings, "enroll", "Anna", str(short)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sluice: clip-too-short: {short}: 2.")
    assert "voice.enroll_min_seconds" in line
    assert not (tmp_path / "store").exists()
    assert run(settings, "enroll", "Anna", str(tmp_path / "missing.wav")) == 2
    assert "sluice: clip-not-found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["speakers", "list"], 4, "store-missing"),
        (["speakers", "remove", "Anna"], 4, "store-missing"),
        (["enroll", "speaker 1 of 01234567", "x.wav"], 2, "name-bad"),
        (["enroll", os.fsdecode(b"\xff"), "x.wav"], 2, "name-bad"),
        (["speakers", "show", os.fsdecode(b"\xff")], 2, "name-bad"),
        (["speakers", "list", "--set=models.voice=off"], 2, "models.voice"),
        (["speakers", "list", "--set=models.voice=/nothing/there"], 4, "model-missing"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    settings: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    depth = 1 if arguments[0] == "enroll" else 2
    assert main([*arguments[:depth], *(f"--set={each}" for each in settings), *arguments[depth:]]) == code
    [line] = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "store").exists()


def test_an_unknown_name_exits_with_2(settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    open_at(settings).close()
    assert run(settings, "speakers", "show", "Anna") == 2
    assert capsys.readouterr().err.startswith("sluice: name-unknown: nobody called 'Anna' is enrolled")


def test_a_store_that_is_in_use_is_said_before_clips_are_read(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_at(settings)
    assert run(settings, "enroll", "Anna", str(tmp_path / "missing.wav")) == 4
    assert "sluice: store-locked" in capsys.readouterr().err
    store.close()


# --- with a daemon --------------------------------------------------------------------------------------------------


def test_a_daemon_is_asked_and_its_answer_printed(
    daemon: FakeDaemon, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.respond = lambda request: {
        "action": "enroll", "speaker": ANNA, "looked_at": CHANGED, "changed": CHANGED, "threshold": THRESHOLD,
        "added": 1, "notes": ["Anna sounds like Ann (cosine 0.82): merge the two if they are one person"],
    }  # fmt: skip
    path = record(tmp_path / "clip.wav", spoken(LOW, 2))
    assert run(settings, "enroll", "Anna", str(path)) == 0
    out, err = capsys.readouterr()
    assert out == (
        "enrolled Anna: 3 clips, 41 s of speech; 12 voices in 9 videos are called Anna "
        "(threshold 0.43, from 1,204 scores of this archive)\n"
    )
    assert err.splitlines() == [
        f"{path}: 13 s of speech",
        "note: Anna sounds like Ann (cosine 0.82): merge the two if they are one person",
        UNTRAINED,
    ]
    [request] = daemon.asked
    assert isinstance(request, SpeakersRequest)
    assert (request.action, request.name, request.model) == (
        "enroll",
        "Anna",
        model_label(load_config(settings=settings)),
    )
    assert [sample.shown_path for sample in request.samples] == [str(path)]
    assert request.now > 1.7e9


ANSWERS: list[tuple[list[str], dict[str, Any], list[str]]] = [
    (
        ["merge", "Ann", "Anna"],
        {"speaker": ANNA, "threshold": THRESHOLD, "notes": []},
        [
            "Ann is part of Anna now: 3 clips, 41 s of speech; 12 voices in 9 videos are called Anna "
            "(threshold 0.43, from 1,204 scores of this archive)"
        ],
    ),
    (
        ["remove", "Anna"],
        {"removed": "Anna", "changed": {"voices": 1204, "videos": 1, "seconds": 1.0}},
        ["removed Anna: 1,204 voices in 1 video changed their name"],
    ),
    (
        ["list"],
        {
            "speakers": [],
            "unnamed": {"voices": 0, "videos": 0, "seconds": 0.0},
            "other_models": {"m@1": ["Anna", "Bert"]},
        },
        ["nobody is enrolled", "enrolled with m@1, another voice model, and unknown to this one: Anna, Bert"],
    ),
    (
        ["show", "Anna"],
        {
            "speaker": ANNA,
            "appearances": [
                {
                    "video_id": "ab", "path": "/films/a.mp4", "cluster": 1, "seconds": 100.0, "match_score": 0.6123,
                    "turns": [[9.0 * n, 9.0 * n + 5] for n in range(9)], "more_turns": 1000,
                },
                {
                    "video_id": "cd", "path": "/films/b.mp4", "cluster": 3, "seconds": 4.0, "match_score": 0.5,
                    "turns": [[3599.6, 3604.0]], "more_turns": 0,
                },
            ],
            "clips": [{"content": "c", "path": "/clips/a.wav", "seconds": 12.34, "added": "2026-09-21T14:13:20+00:00"}],
            "history": [{"at": "2026-09-21T14:13:20+00:00", "event": "enrolled", "detail": "3 clips, 41 s of speech"}],
        },
        [
            "Anna: 12 voices in 9 videos, 1:02:03 of speech",
            "  /films/a.mp4: 1:40 of speech, match 0.61",
            "    0:00-0:05, 0:09-0:14, 0:18-0:23, 0:27-0:32, 0:36-0:41, 0:45-0:50, 0:54-0:59, 1:03-1:08, "
            "and 1,001 more",
            "  /films/b.mp4: 0:04 of speech, match 0.50",
            "    1:00:00-1:00:04",
            "  and 10 voices more, that speak less",
            "enrolled from 3 clips, 41 s of speech",
            "  /clips/a.wav: 12 s, 2026-09-21 14:13",
            "history",
            "  2026-09-21 14:13 enrolled: 3 clips, 41 s of speech",
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "body", "lines"), ANSWERS, ids=[answer[0][0] for answer in ANSWERS])
def test_answers_are_printed_for_people_and_as_json(
    daemon: FakeDaemon,
    settings: list[str],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    body: dict[str, Any],
    lines: list[str],
) -> None:
    body = {"action": arguments[0], **body}
    daemon.respond = lambda request: body
    assert run(settings, "speakers", *arguments) == 0
    assert capsys.readouterr().out.splitlines() == lines
    assert run(settings, "speakers", *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out) == body
    [request, _] = daemon.asked
    assert isinstance(request, SpeakersRequest)
    assert [request.action, *filter(None, (request.name, request.into))] == arguments


def test_what_the_daemon_refuses_has_the_exit_code_of_its_cause(
    daemon: FakeDaemon, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.respond = lambda request: SluiceError("name-unknown", "nobody called 'Ana' is enrolled: …")
    assert run(settings, "speakers", "show", "Ana") == 2
    assert capsys.readouterr().err == "sluice: name-unknown: nobody called 'Ana' is enrolled: …\n"
    daemon.respond = lambda request: SluiceError("store-unreachable", "it is away")
    assert run(settings, "speakers", "show", "Ana") == 4


ALL_ACTIONS = (
    ["merge", "Ann", "Anna"], ["rename", "Anna", "A"], ["show", "A"], ["list"], ["relabel"], ["remove", "A"],
)  # fmt: skip


def test_every_answer_that_is_made_can_be_printed(
    daemon: FakeDaemon, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `perform` answers and what is printed fit together."""
    store = open_at(["", f"store.path={tmp_path / 'other'}"])  # not the one that the commands name
    archive.add(store, one=[("anna", 4), ("bert", 4)])
    archive.enroll(store, "Anna", clip(archive.ANNA, "a"))
    archive.enroll(store, "Ann", clip(archive.ANNA, "b", seed=1))

    def respond(request: Any) -> dict[str, Any]:
        asked = archive.task(request.action, request.name, request.into, now=request.now)
        return perform(store, asked)

    daemon.respond = respond
    for action, *names in ALL_ACTIONS:
        assert run(settings, "speakers", action, *names) == 0
        assert (names or [""])[-1] in capsys.readouterr().out
    store.close()


# --- the model ------------------------------------------------------------------------------------------------------


def test_the_voice_model_is_named_as_points_carry_it(settings: list[str], tmp_path: Path) -> None:
    assert model_label(load_config(settings=settings)).endswith("(untrained)")
    with pytest.raises(ConfigError) as caught:
        model_label(load_config(settings=["models.voice=off"]))
    assert caught.value.code == "model-off"
    with pytest.raises(ModelError) as missing:
        model_label(load_config(settings=[f"models.voice={tmp_path}/nothing"]))
    assert missing.value.code == "model-missing"
