"""Known speakers over a store: who speaks in a video, enrolment, and the names of a whole archive."""

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import roster as roster_module
from stages import speakers as speakers_module
from stages.diarization import Diarization, Diarizer
from stages.errors import StoreError, StoreUnavailable
from stages.options import StoreOptions, VoiceOptions
from stages.profiles import DEFAULT_THRESHOLD, unit
from stages.qdrant import open_store
from stages.roster import CLUSTER, PAGE, PROFILE, read_profiles
from stages.speakers import labelled, perform, read_roster, steps
from stages.store import (
    SPEAKERS,
    SPEECH,
    VOICES,
    Filter,
    Store,
    StoredPoint,
    point_id,
    speakers_spec,
    speech_spec,
    voices_spec,
)
from stages.turns import Turn
from stages.video_labels import CHUNK_POINTS
from tests.qdrant_loopback import LoopbackQdrant, fast_disk
from tests.test_voice_profiles import DIMENSION, NOW, clip, people, raises_refusal, windows
from transport.messages import SpeakersTask, VoiceSample

MODEL = "ecapa@1"
HOP = 2.0  # seconds between windows, which do not overlap here
ANNA, BERT, CARL, DORA = people(4)
PEOPLE = {"anna": ANNA, "bert": BERT, "carl": CARL, "dora": DORA}
Script = Sequence[tuple[str, int]]  # who speaks, for how many windows


def video(name: str) -> str:
    """A video id."""
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture(params=["embedded", "server"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Empty, with its collections made."""
    with tempfile.TemporaryDirectory(dir=fast_disk()) as directory:
        if request.param == "embedded":
            made = open_store(StoreOptions(path=str(Path(directory) / "store")), None)
            made.ensure([voices_spec(DIMENSION), speech_spec(4), speakers_spec(DIMENSION)])
            yield made
            made.close()
            return
        with LoopbackQdrant() as server:
            made = open_store(StoreOptions(url=server.url), None)
            made.ensure([voices_spec(DIMENSION), speech_spec(4), speakers_spec(DIMENSION)])
            yield made
            made.close()


@pytest.fixture
def local() -> Iterator[Store]:
    """Embedded only, for what does not depend on the store."""
    with tempfile.TemporaryDirectory(dir=fast_disk()) as directory:
        made = open_store(StoreOptions(path=str(Path(directory) / "store")), None)
        made.ensure([voices_spec(DIMENSION), speech_spec(4), speakers_spec(DIMENSION)])
        yield made
        made.close()


# --- an archive -----------------------------------------------------------------------------------------------------


def index(store: Store, name: str, script: Script, model: str = MODEL) -> None:
    """Store the windows of a video, and a segment of two words for each two windows."""
    spoken = [who for who, count in script for _ in range(count)]
    rows = np.concatenate([windows(PEOPLE[who], count, seed=100 + n) for n, (who, count) in enumerate(script)])
    common = {"video_id": video(name), "path": f"/films/{name}.mp4"}
    store.upsert(VOICES, [
        StoredPoint(
            point_id(video(name), "voice", model, n),
            VOICES,
            {**common, "start_seconds": HOP * n, "end_seconds": HOP * (n + 1), "model": model, "truth": who},
            {"voice": row},
        )
        for n, (who, row) in enumerate(zip(spoken, rows, strict=True))
    ])  # fmt: skip
    store.upsert(SPEECH, [
        segment(common, HOP * n, [(HOP * n, HOP * n + 1), (HOP * (n + 1) + 0.1, HOP * (n + 1) + 1.3)])
        for n in range(0, len(spoken) - 1, 2)
    ])  # fmt: skip


def segment(common: Mapping[str, Any], start: float, words: Sequence[tuple[float, float]]) -> StoredPoint:
    payload = {
        **common,
        "start_seconds": start,
        "end_seconds": start + 2 * HOP,
        "model": "text@1",
        "text": "hello there",
        "words": [{"start_seconds": a, "end_seconds": b, "text": "hello"} for a, b in words],
    }
    return StoredPoint(
        point_id(common["video_id"], "speech", "text@1", str(start)), SPEECH, payload, {"text": [1.0] * 4}
    )


def diarized(store: Store, name: str, model: str = MODEL) -> Diarization | None:
    """What a diarizer that makes no mistakes finds."""
    points = list(store.scroll(VOICES, True, Filter(video_id=video(name), model=model)))
    if not points:
        return None
    in_time = sorted(points, key=lambda point: point.payload["start_seconds"])
    order = list(dict.fromkeys(point.payload["truth"] for point in in_time))
    clusters = np.array([order.index(point.payload["truth"]) + 1 for point in points], np.int32)
    rows = np.stack([np.asarray(point.vectors["voice"]) for point in points])
    means = np.stack([unit(rows[clusters == n + 1].sum(axis=0)) for n in range(len(order))])
    halves = [[unit(rows[clusters == n + 1][half::2].sum(axis=0)) for half in (0, 1)] for n in range(len(order))]
    return Diarization(
        clusters=clusters,
        scores=np.array([row @ means[cluster - 1] for row, cluster in zip(rows, clusters, strict=True)], np.float32),
        overlaps=np.zeros(len(points), np.int32),
        means=means,
        turns=tuple(turns_of(in_time, order)),
        self_scores=np.array([float(even @ odd) for even, odd in halves], np.float32),
    )


def turns_of(points: Sequence[StoredPoint], order: Sequence[str]) -> Iterator[Turn]:
    for point in points:
        yield Turn(
            point.payload["start_seconds"], point.payload["end_seconds"], order.index(point.payload["truth"]) + 1, False
        )


def label(store: Store, name: str) -> list[int]:
    """Label a video, and say how many points each step changed."""
    return list(labelled(store, video(name), MODEL, diarized(store, name), read_roster(store, MODEL)))


def add(store: Store, **scripts: Script) -> None:
    """Index and label videos."""
    for name, script in scripts.items():
        index(store, name, script)
        label(store, name)


def task(action: Any, name: str | None = None, into: str | None = None, **facts: Any) -> SpeakersTask:
    return SpeakersTask(request=1, action=action, model=MODEL, name=name, into=into, now=facts.pop("now", NOW), **facts)


def enroll(store: Store, name: str, *samples: VoiceSample, now: float = NOW) -> dict[str, Any]:
    return perform(store, task("enroll", name, samples=samples, now=now))


def payloads(store: Store, collection: str, name: str) -> list[dict[str, Any]]:
    """Of a video's points, in order of time or of number."""
    found = [point.payload for point in store.scroll(collection, False, Filter(video_id=video(name)))]
    return sorted(found, key=lambda payload: float(payload["cluster" if collection == SPEAKERS else "start_seconds"]))


def everything(store: Store) -> dict[str, tuple[dict[str, Any], list[list[float]]]]:
    """Every point of the store."""
    return {
        point.id: (point.payload, [[float(value) for value in row] for row in point.vectors.values()])
        for collection in (VOICES, SPEECH, SPEAKERS)
        for point in store.scroll(collection, True)
    }


def names(store: Store, name: str) -> list[str]:
    """Who speaks, window by window."""
    return [payload["speaker"] for payload in payloads(store, VOICES, name)]


def unnamed(name: str, cluster: int) -> str:
    return f"speaker {cluster} of {video(name)[:8]}"


# --- labelling one video --------------------------------------------------------------------------------------------


def test_windows_segments_and_words_say_who_speaks(store: Store) -> None:
    index(store, "talk", [("anna", 3), ("bert", 2), ("anna", 1)])
    label(store, "talk")
    first, second = unnamed("talk", 1), unnamed("talk", 2)
    assert names(store, "talk") == [first] * 3 + [second] * 2 + [first]
    voices = payloads(store, VOICES, "talk")
    assert [voice["cluster"] for voice in voices] == [1, 1, 1, 2, 2, 1]
    assert all(0.7 < voice["speaker_score"] <= 1 and "overlap" not in voice for voice in voices)
    spoken = payloads(store, SPEECH, "talk")
    assert [segment["speaker"] for segment in spoken] == [first, second, first]
    assert [[word["cluster"] for word in segment["words"]] for segment in spoken] == [[1, 1], [1, 2], [2, 1]]
    assert [segment["cluster"] for segment in spoken] == [1, 2, 1]
    assert all(0.7 < segment["speaker_score"] <= 1 for segment in spoken)
    assert spoken[0]["words"][0] == {"start_seconds": 0.0, "end_seconds": 1.0, "text": "hello", "cluster": 1}


def test_each_voice_of_a_video_is_a_point_with_its_turns(store: Store) -> None:
    add(store, talk=[("anna", 5), ("bert", 4), ("carl", 2)])
    points = list(store.scroll(SPEAKERS, True, Filter(video_id=video("talk"))))
    assert {point.id for point in points} == {point_id(video("talk"), "cluster", MODEL, n) for n in (1, 2, 3)}
    bert = next(point for point in points if point.payload["cluster"] == 2)
    np.testing.assert_allclose(bert.vectors["voice"], unit(windows(BERT, 4, seed=101).sum(axis=0)), atol=2e-3)
    score = bert.payload.pop("self_score")
    assert 0.5 < score < 1
    assert bert.payload == {
        "kind": "cluster", "video_id": video("talk"), "path": "/films/talk.mp4", "model": MODEL, "cluster": 2,
        "seconds": 8.0, "windows": 4, "turns": [[10.0, 12.0], [12.0, 14.0], [14.0, 16.0], [16.0, 18.0]],
        "speaker": unnamed("talk", 2),
    }  # fmt: skip


def test_labelling_twice_changes_nothing(store: Store) -> None:
    add(store, talk=[("anna", 5), ("bert", 4)])
    before = everything(store)
    again = label(store, "talk")
    assert everything(store) == before
    assert sum(again) == 2  # the voices' points, written as they are


def test_a_second_voice_is_noted_and_taken_back(local: Store) -> None:
    index(local, "talk", [("anna", 4), ("bert", 4)])
    found = diarized(local, "talk")
    assert found is not None
    overlaps = np.where(found.clusters == 1, 2, 0).astype(np.int32)
    loud = dataclasses.replace(found, overlaps=overlaps, turns=(*found.turns, Turn(0.0, 4 * HOP, 2, overlap=True)))
    list(labelled(local, video("talk"), MODEL, loud, read_roster(local, MODEL)))
    assert [voice.get("overlap") for voice in payloads(local, VOICES, "talk")] == [2] * 4 + [None] * 4
    assert [segment.get("overlap") for segment in payloads(local, SPEECH, "talk")] == [2, 2, None, None]
    label(local, "talk")
    assert [voice.get("overlap") for voice in payloads(local, VOICES, "talk")] == [None] * 8
    assert [segment.get("overlap") for segment in payloads(local, SPEECH, "talk")] == [None] * 4


def test_voices_that_are_found_no_more_are_removed(store: Store) -> None:
    add(store, talk=[("anna", 4), ("bert", 4), ("carl", 4)], other=[("anna", 4), ("bert", 4), ("carl", 4)])
    for payload in payloads(store, VOICES, "talk"):
        ids = (point_id(video("talk"), "voice", MODEL, int(payload["start_seconds"] / HOP)),)
        store.set_payload(VOICES, Filter(ids=ids), {"truth": "anna"})
    label(store, "talk")
    assert [point["cluster"] for point in payloads(store, SPEAKERS, "talk")] == [1]
    assert [point["cluster"] for point in payloads(store, SPEAKERS, "other")] == [1, 2, 3]
    assert set(names(store, "talk")) == {unnamed("talk", 1)}


def test_a_video_without_voices_has_no_speakers(store: Store) -> None:
    add(store, talk=[("anna", 4), ("bert", 4)])
    store.delete(VOICES, Filter(video_id=video("talk")))
    label(store, "talk")
    assert payloads(store, SPEAKERS, "talk") == []
    for found in payloads(store, SPEECH, "talk"):
        assert not {"speaker", "cluster", "speaker_score", "overlap"} & found.keys()
        assert [word["cluster"] for word in found["words"]] == [None, None]
    store.upsert(SPEECH, [segment({"video_id": video("mute"), "path": "/mute.mp4"}, 0.0, [(0, 1)])])
    assert sum(label(store, "mute")) == 0
    assert "speaker" not in payloads(store, SPEECH, "mute")[0]


def test_captions_are_labelled_by_their_time(local: Store) -> None:
    index(local, "talk", [("anna", 4), ("bert", 4)])
    cue = segment({"video_id": video("talk"), "path": "/talk.mp4"}, 7.0, [])
    local.upsert(SPEECH, [dataclasses.replace(cue, payload={**cue.payload, "end_seconds": 12.0})])
    label(local, "talk")
    found = next(payload for payload in payloads(local, SPEECH, "talk") if payload["start_seconds"] == 7.0)
    assert (found["cluster"], found["speaker"], found["words"]) == (2, unnamed("talk", 2), [])


def test_what_the_diarizer_finds_in_stored_windows_is_written(local: Store) -> None:
    index(local, "talk", [("anna", 20), ("bert", 15), ("anna", 10), ("carl", 15)])
    diarizer = Diarizer(DIMENSION, VoiceOptions())
    for point in local.scroll(VOICES, True, Filter(video_id=video("talk"))):
        diarizer.add(
            [point.payload["start_seconds"]], [point.payload["end_seconds"]], np.stack([point.vectors["voice"]])
        )
    list(labelled(local, video("talk"), MODEL, diarizer.finish(), read_roster(local, MODEL)))
    first, second, third = (unnamed("talk", number) for number in (1, 2, 3))
    assert names(local, "talk") == [first] * 20 + [second] * 15 + [first] * 10 + [third] * 15
    points = payloads(local, SPEAKERS, "talk")
    assert [point["seconds"] for point in points] == [60.0, 30.0, 30.0]
    assert [point["windows"] for point in points] == [30, 15, 15]
    assert all(0.8 < point["self_score"] <= 1 for point in points)
    assert enroll(local, "Bert", clip(BERT))["changed"]["voices"] == 1
    assert names(local, "talk")[20:35] == ["Bert"] * 15


def test_many_windows_are_labelled_in_chunks(local: Store) -> None:
    count = 2 * CHUNK_POINTS + 10
    index(local, "long", [("anna", count // 2), ("bert", count // 2)])
    done = label(local, "long")
    assert done[:3] == [CHUNK_POINTS, CHUNK_POINTS, 10]
    assert names(local, "long") == [unnamed("long", 1)] * (count // 2) + [unnamed("long", 2)] * (count // 2)


def test_a_labelling_that_breaks_off_anywhere_is_mended_by_another(local: Store) -> None:
    index(local, "talk", [("anna", 300), ("bert", 300)])
    enroll(local, "Anna", clip(ANNA))
    found, known = diarized(local, "talk"), read_roster(local, MODEL)
    whole = len(list(labelled(local, video("talk"), MODEL, found, known)))
    wanted = everything(local)
    for done in range(1, whole):
        for collection, fields in ((VOICES, {"speaker": "x", "cluster": 9}), (SPEECH, {"speaker": "x", "cluster": 9})):
            local.set_payload(collection, Filter(video_id=video("talk")), fields)
        work = labelled(local, video("talk"), MODEL, found, known)
        for _ in range(done):
            next(work)
        list(labelled(local, video("talk"), MODEL, found, known))
        assert everything(local) == wanted


def test_windows_that_change_meanwhile_are_noticed(local: Store) -> None:
    index(local, "talk", [("anna", 4), ("bert", 4)])
    found = diarized(local, "talk")
    for script in ([("anna", 4), ("bert", 5)], [("anna", 3)]):
        local.delete(VOICES, Filter(video_id=video("talk")))
        index(local, "talk", script)
        with pytest.raises(StoreError) as caught:
            list(labelled(local, video("talk"), MODEL, found, read_roster(local, MODEL)))
        assert caught.value.code == "voices-changed"
        assert "/films/talk.mp4" in caught.value.message


def test_enrolled_people_are_known_in_new_videos(store: Store) -> None:
    enroll(store, "Anna", clip(ANNA))
    add(store, talk=[("bert", 4), ("anna", 4)], again=[("anna", 2), ("anna", 2)])
    assert names(store, "talk") == [unnamed("talk", 1)] * 4 + ["Anna"] * 4
    assert names(store, "again") == ["Anna"] * 4
    [_, point] = payloads(store, SPEAKERS, "talk")
    [anna] = read_profiles(store, MODEL)
    assert (point["speaker"], point["profile_id"]) == ("Anna", anna.profile_id)
    assert point["match_score"] > 0.8


# --- enrolling ------------------------------------------------------------------------------------------------------


def test_enrolling_names_a_voice_in_the_whole_archive(store: Store) -> None:
    add(store, one=[("anna", 4), ("bert", 4)], two=[("carl", 4), ("anna", 4)], three=[("carl", 4)])
    body = enroll(store, "Anna", clip(ANNA, "a"), clip(ANNA, "b", seed=1))
    assert names(store, "one") == ["Anna"] * 4 + [unnamed("one", 2)] * 4
    assert names(store, "two") == [unnamed("two", 1)] * 4 + ["Anna"] * 4
    assert names(store, "three") == [unnamed("three", 1)] * 4
    assert [segment["speaker"] for segment in payloads(store, SPEECH, "two")] == [unnamed("two", 1)] * 2 + ["Anna"] * 2
    assert [point["speaker"] for point in payloads(store, SPEAKERS, "two")] == [unnamed("two", 1), "Anna"]
    profile_id = body["speaker"].pop("profile_id")
    assert body == {
        "action": "enroll",
        "speaker": {
            "name": "Anna", "clips": 2, "clip_seconds": 30.0, "enrolled": "2026-09-21T14:13:20+00:00",
            "voices": 2, "videos": 2, "seconds": 16.0,
        },
        "looked_at": {"voices": 5, "videos": 3, "seconds": 40.0},
        "changed": {"voices": 2, "videos": 2, "seconds": 16.0},
        "threshold": {"value": DEFAULT_THRESHOLD, "source": "default", "scores": 7, "impostor": 2},
        "added": 2,
        "notes": [],
    }  # fmt: skip
    assert profile_id == read_profiles(store, MODEL)[0].profile_id


def test_enrolling_does_not_touch_what_another_model_made(local: Store) -> None:
    index(local, "old", [("anna", 4)], model="other@1")
    list(labelled(local, video("old"), "other@1", diarized(local, "old", "other@1"), read_roster(local, "other@1")))
    before = everything(local)
    enroll(local, "Anna", clip(ANNA))
    after = everything(local)
    assert {id_: after[id_] for id_ in before} == before
    listed = perform(local, SpeakersTask(request=1, action="list", model="third@1"))
    assert (listed["speakers"], listed["other_models"]) == ([], {MODEL: ["Anna"]})


def test_further_clips_join_the_profile(local: Store) -> None:
    enroll(local, "Anna", clip(ANNA, "a"))
    body = enroll(local, " Anna ", clip(ANNA, "b", seed=1), now=NOW + 60)
    assert (body["added"], body["speaker"]["clips"], body["speaker"]["clip_seconds"]) == (1, 2, 30.0)
    [anna] = read_profiles(local, MODEL)
    assert (anna.windows, anna.seconds) == (20, 30.0)
    both = unit(windows(ANNA, 10, 0).sum(axis=0)) + unit(windows(ANNA, 10, 1).sum(axis=0))
    np.testing.assert_allclose(anna.vector, unit(both), atol=2e-3)
    assert [tuple(event) for event in anna.history] == [
        ("2026-09-21T14:13:20+00:00", "enrolled", "1 clip, 15 s of speech"),
        ("2026-09-21T14:14:20+00:00", "clips added", "1 clip, 15 s of speech"),
    ]


def test_the_same_clip_is_not_counted_again(local: Store) -> None:
    add(local, one=[("anna", 4)])
    enroll(local, "Anna", clip(ANNA, "a"))
    before = everything(local)
    body = enroll(local, "Anna", clip(ANNA, "a"), now=NOW + 60)
    assert everything(local) == before
    assert body["added"] == 0
    assert body["notes"] == ["/clips/a.wav is a clip of Anna already: not counted again"]


def test_an_enrolment_that_is_refused_changes_nothing(local: Store) -> None:
    add(local, one=[("anna", 4)])
    enroll(local, "Anna", clip(ANNA, "a"))
    before = everything(local)
    with raises_refusal("clip-other-person", "/clips/bert.wav", "Anna"):
        enroll(local, "Anna", clip(ANNA, "b", seed=2), clip(BERT, "bert"))
    with raises_refusal("clip-other-person"):
        enroll(local, "Carl", clip(CARL, "c"), clip(BERT, "d"))
    with raises_refusal("clip-elsewhere", "/clips/a.wav", "a clip of Anna"):
        enroll(local, "Bert", clip(ANNA, "a"))
    with raises_refusal("name-bad"):
        enroll(local, "speaker 1 of 01234567", clip(BERT, "bert"))
    with raises_refusal("clip-none"):
        enroll(local, "Bert")
    assert everything(local) == before


def test_two_people_who_sound_alike_are_named(local: Store) -> None:
    enroll(local, "Anna", clip(ANNA, "a"))
    body = enroll(local, "Ann", clip(ANNA, "b", seed=1))
    [note] = body["notes"]
    assert "Anna" in note
    assert "merge" in note


def test_profiles_are_made_in_an_empty_store(local: Store) -> None:
    body = enroll(local, "Anna", clip(ANNA))
    assert body["looked_at"] == {"voices": 0, "videos": 0, "seconds": 0}
    assert local.count(SPEAKERS, Filter(kind=PROFILE)) == 1
    assert local.count(SPEAKERS, Filter(kind=CLUSTER)) == 0


# --- the threshold of an archive ------------------------------------------------------------------------------------


def archive(store: Store, videos: int) -> None:
    """Videos of four people each, of whom the first is always Anna."""
    strangers = people(3 * videos, seed=7)
    for n in range(videos):
        PEOPLE.update({f"stranger {n} {k}": strangers[3 * n + k] for k in range(3)})
        add(store, **{f"film{n}": [("anna", 6), *((f"stranger {n} {k}", 4) for k in range(3))]})


def test_the_threshold_comes_from_the_archives_own_scores(local: Store) -> None:
    archive(local, 8)
    body = enroll(local, "Anna", clip(ANNA))
    assert body["threshold"]["source"] == "archive"
    assert (body["threshold"]["scores"], body["threshold"]["impostor"]) == (8 * 4 + 8 * 6, 8 * 6)
    assert 0.25 <= body["threshold"]["value"] < 0.6
    assert (body["speaker"]["voices"], body["speaker"]["videos"]) == (8, 8)
    assert body["looked_at"]["voices"] == 32


def test_a_sample_of_the_archive_is_enough_and_always_the_same(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(local, 8)
    monkeypatch.setattr(roster_module, "SAMPLED_VOICES", 20)
    monkeypatch.setattr(roster_module, "SAMPLED_VIDEOS", 5)
    monkeypatch.setattr(roster_module, "VOICES_OF_A_VIDEO", 3)
    first = roster_module.archive_threshold(local, MODEL, 1)
    assert (first.genuine, first.impostor) == (20, 5 * 3)
    assert roster_module.archive_threshold(local, MODEL, 1) == first


def test_nothing_of_the_archive_is_read_while_nobody_is_enrolled(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(local, 2)
    monkeypatch.setattr(roster_module, "archive_threshold", lambda *arguments: pytest.fail("read"))
    assert read_roster(local, MODEL).profiles == ()


# --- renaming, merging, removing ------------------------------------------------------------------------------------


def test_a_new_name_reaches_every_voice(store: Store) -> None:
    add(store, one=[("anna", 4), ("bert", 4)])
    enroll(store, "Anna", clip(ANNA))
    body = perform(store, task("rename", "Anna", "Dr. Anna", now=NOW + 60))
    assert names(store, "one") == ["Dr. Anna"] * 4 + [unnamed("one", 2)] * 4
    assert payloads(store, SPEECH, "one")[0]["speaker"] == "Dr. Anna"
    assert (body["speaker"]["name"], body["changed"]["voices"]) == ("Dr. Anna", 1)
    [anna] = read_profiles(store, MODEL)
    assert [(event.event, event.detail) for event in anna.history] == [
        ("enrolled", "1 clip, 15 s of speech"),
        ("relabelled", "1 voice in 1 video now: 1 new, 0 taken back"),
        ("renamed", "from Anna"),
    ]


def test_a_name_that_is_taken_is_refused(local: Store) -> None:
    enroll(local, "Anna", clip(ANNA, "a"))
    enroll(local, "Bert", clip(BERT, "b"))
    before = everything(local)
    with raises_refusal("name-taken", "Bert", "merge"):
        perform(local, task("rename", "Anna", "Bert"))
    with raises_refusal("name-unknown", "'Ana'", "Anna"):
        perform(local, task("rename", "Ana", "Carl"))
    with raises_refusal("name-bad"):
        perform(local, task("rename", "Anna", "Speaker 1"))
    with raises_refusal("name-same"):
        perform(local, task("merge", "Anna", "Anna"))
    with raises_refusal("name-unknown"):
        perform(local, task("merge", "Anna", "Zoe"))
    assert perform(local, task("rename", "Anna", "Anna", now=NOW + 60))["changed"]["voices"] == 0
    assert everything(local) == before


def test_two_profiles_become_one(store: Store) -> None:
    add(store, one=[("anna", 4), ("bert", 4)])
    enroll(store, "Ann", clip(ANNA, "a", count=8))
    enroll(store, "Anna", clip(ANNA, "b", count=8, seed=1))
    assert set(names(store, "one")) == {unnamed("one", 1), unnamed("one", 2)}  # of two alike none is taken
    body = perform(store, task("merge", "Ann", "Anna", now=NOW + 60))
    assert names(store, "one") == ["Anna"] * 4 + [unnamed("one", 2)] * 4
    assert (body["speaker"]["clips"], body["speaker"]["voices"]) == (2, 1)
    [anna] = read_profiles(store, MODEL)
    assert (anna.name, anna.windows) == ("Anna", 16)
    assert "merged" in [event.event for event in anna.history]


def test_who_is_removed_leaves_their_voices_without_a_name(store: Store) -> None:
    add(store, one=[("anna", 4), ("bert", 4)])
    unknown = everything(store)
    enroll(store, "Anna", clip(ANNA))
    body = perform(store, task("remove", "Anna"))
    assert (body["removed"], body["changed"]["voices"], body["speaker"]) == ("Anna", 1, None)
    assert everything(store) == unknown


def test_relabelling_changes_nothing_when_all_is_as_it_should_be(local: Store) -> None:
    add(local, one=[("anna", 4), ("bert", 4)])
    enroll(local, "Anna", clip(ANNA))
    before = everything(local)
    body = perform(local, task("relabel", now=NOW + 60))
    assert everything(local) == before
    assert (body["changed"]["voices"], body["looked_at"]["voices"], body["speaker"]) == (0, 2, None)


@pytest.mark.parametrize("action", ["relabel", "list", "show"])
def test_others_get_a_turn_after_each_page(local: Store, action: str) -> None:
    enroll(local, "Anna", clip(ANNA))
    add(local, **{f"film{n}": [("anna", 2)] for n in range(2 * PAGE + 1)})
    assert list(steps(local, task(action, "Anna"))) == [0, 0]


CHANGES: dict[str, Callable[[], SpeakersTask]] = {
    "enroll": lambda: task("enroll", "Carl", samples=(clip(CARL, "c"),), now=NOW + 60),
    "rename": lambda: task("rename", "Anna", "Dr. Anna", now=NOW + 60),
    "merge": lambda: task("merge", "Bert", "Anna", now=NOW + 60),
    "remove": lambda: task("remove", "Anna", now=NOW + 60),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_breaks_off_anywhere_can_be_asked_for_again(local: Store, change: str) -> None:
    def prepare() -> None:
        local.delete(SPEAKERS, Filter(model=MODEL))
        add(local, one=[("anna", 4), ("bert", 4), ("carl", 4)], two=[("carl", 4), ("anna", 4)])
        enroll(local, "Anna", clip(ANNA, "a"))
        enroll(local, "Bert", clip(BERT, "b"))

    def shape() -> list[Any]:
        """All but the ids of profiles, and what their histories say of the number of voices."""
        who = [(each.name, each.windows, sorted(each.contents)) for each in read_profiles(local, MODEL)]
        return [sorted(who), [names(local, name) for name in ("one", "two")], payloads(local, SPEECH, "one")]

    prepare()
    total = 1 + len(list(steps(local, CHANGES[change]())))
    wanted = shape()
    for done in range(total):
        prepare()
        work = steps(local, CHANGES[change]())
        for _ in range(done):
            next(work)
        work.close()
        perform(local, CHANGES[change]())
        assert shape() == wanted


@pytest.mark.parametrize("change", ["enroll", "rename", "merge"])
def test_a_change_that_is_asked_for_twice_is_made_once(local: Store, change: str) -> None:
    add(local, one=[("anna", 4), ("bert", 4), ("carl", 4)])
    enroll(local, "Anna", clip(ANNA, "a"))
    enroll(local, "Bert", clip(BERT, "b"))
    first = perform(local, CHANGES[change]())
    before = everything(local)
    second = perform(local, CHANGES[change]())
    assert everything(local) == before
    assert second["speaker"] == first["speaker"]
    assert second["changed"]["voices"] == 0


def test_a_store_that_goes_away_says_so(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: object) -> None:
        raise StoreUnavailable("store-unreachable", "it is away")

    add(local, one=[("anna", 4)])
    monkeypatch.setattr(local, "set_payload", away)
    with pytest.raises(StoreUnavailable):
        enroll(local, "Anna", clip(ANNA))
    monkeypatch.undo()
    assert enroll(local, "Anna", clip(ANNA))["changed"]["voices"] == 1
    assert names(local, "one") == ["Anna"] * 4


# --- looking --------------------------------------------------------------------------------------------------------


def test_the_list_says_who_speaks_how_long(store: Store) -> None:
    add(store, one=[("anna", 4), ("bert", 4)], two=[("carl", 5), ("anna", 3)])
    enroll(store, "Anna", clip(ANNA, "a"))
    enroll(store, "Dora", clip(DORA, "d"))
    body = perform(store, task("list"))
    shown = [{key: each[key] for key in ("name", "clips", "voices", "videos", "seconds")} for each in body["speakers"]]
    assert shown == [
        {"name": "Anna", "clips": 1, "voices": 2, "videos": 2, "seconds": 14.0},
        {"name": "Dora", "clips": 1, "voices": 0, "videos": 0, "seconds": 0.0},
    ]
    assert body["unnamed"] == {"voices": 2, "videos": 2, "seconds": 18.0}
    assert body["threshold"]["source"] == "default"
    assert body["other_models"] == {}


def test_a_store_without_speakers_has_an_empty_list(local: Store) -> None:
    assert perform(local, task("list"))["speakers"] == []
    with raises_refusal("name-unknown", "'Anna'"):
        perform(local, task("show", "Anna"))


def test_a_speaker_is_shown_with_times_and_history(store: Store) -> None:
    add(store, one=[("anna", 4), ("bert", 4)], two=[("carl", 5), ("anna", 3)])
    enroll(store, "Anna", clip(ANNA, "a"))
    body = perform(store, task("show", "Anna"))
    assert (body["speaker"]["name"], body["speaker"]["videos"]) == ("Anna", 2)
    first, second = body["appearances"]
    assert (first["path"], first["cluster"], first["seconds"]) == ("/films/one.mp4", 1, 8.0)
    assert (second["path"], second["turns"]) == ("/films/two.mp4", [[10.0, 12.0], [12.0, 14.0], [14.0, 16.0]])
    assert all(each["match_score"] > 0.5 and each["more_turns"] == 0 for each in body["appearances"])
    assert [clip["path"] for clip in body["clips"]] == ["/clips/a.wav"]
    assert [event["event"] for event in body["history"]] == ["enrolled", "relabelled"]


def test_what_is_shown_of_a_speaker_is_bounded(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speakers_module, "SHOWN_VOICES", 2)
    monkeypatch.setattr(speakers_module, "SHOWN_TURNS", 3)
    add(local, one=[("anna", 4)], two=[("anna", 6)], three=[("anna", 5)])
    enroll(local, "Anna", clip(ANNA))
    body = perform(local, task("show", "Anna"))
    assert body["speaker"]["voices"] == 3
    assert [(each["path"], len(each["turns"]), each["more_turns"]) for each in body["appearances"]] == [
        ("/films/two.mp4", 3, 3),
        ("/films/three.mp4", 3, 2),
    ]


def test_an_answer_fits_a_message(local: Store) -> None:
    from transport.codec import encode
    from transport.messages import SpeakersDone

    add(local, one=[("anna", 4), ("bert", 4)])
    for body in (enroll(local, "Anna", clip(ANNA)), perform(local, task("list")), perform(local, task("show", "Anna"))):
        assert encode(SpeakersDone(request=1, body=body))
