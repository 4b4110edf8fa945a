"""The pure parts of the chaos harness: which kills a seed decides, what counts as a difference, how slopes are told."""

import itertools
import mmap
import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ExitCode
from stages.media import probe
from stages.options import DecodeOptions
from tests.chaos.chaos import Session, kills_of, options_of, scenarios_of
from tests.chaos.compare import differences, same_value, same_vector
from tests.chaos.long import LONG
from tests.chaos.processes import figures, in_session, shared_memory
from tests.chaos.schedule import KINDS, schedule
from tests.chaos.slopes import after_warm_up, slope
from tests.chaos.soak import Samples, table
from tests.chaos.subject import IngestSubject, RealIngestSubject
from tests.chaos.trial import Reference
from tests.chaos.videos import Workload, make_talk, marked, sources_in
from tests.chaos.witness import WHOLE, Done, Sighting

# --- kills ------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), longest=st.floats(0.5, 60), count=st.integers(1, 60))
def test_a_seed_decides_all_kills_and_every_kind_comes_equally_often(seed: int, longest: float, count: int) -> None:
    kills = list(itertools.islice(schedule(seed, longest), count))
    assert kills == list(itertools.islice(schedule(seed, longest), count))
    assert [kill.number for kill in kills] == list(range(1, count + 1))
    assert all(0 <= kill.delay_seconds <= (0.5 if kill.soon else longest) for kill in kills)
    counts = Counter(kill.kind for kill in kills)
    assert max(counts.values()) - min(counts[kind] for kind in KINDS) <= 1


def test_some_kills_follow_at_once_and_some_after_a_while() -> None:
    kills = list(itertools.islice(schedule(1, 8.0), 300))
    assert 60 < sum(kill.soon for kill in kills) < 140
    assert max(kill.delay_seconds for kill in kills) > 7


# --- points -----------------------------------------------------------------------------------------------------------


def point(number: int, **payload: Any) -> dict[str, Any]:
    facts = {
        "video_id": "v",
        "path": "a.mp4",
        "model": "m",
        "start_seconds": float(number),
        "end_seconds": number + 1.0,
    }
    vector = np.random.default_rng(number).standard_normal(8)
    vectors = {"image": (vector / np.linalg.norm(vector)).tolist()}
    return {"collection": "frames", "id": f"id-{number}", "payload": facts | payload, "vectors": vectors}


def test_equal_stores_have_no_differences_whatever_their_order() -> None:
    points = [point(number) for number in range(5)]
    assert differences(points, reversed(points)) == []


def test_a_lost_point_is_named() -> None:
    assert differences([point(1), point(2)], [point(2)]) == ["lost: frames 1.0-2.0 s of a.mp4 (id-1)"]


def test_an_id_that_stands_there_twice_is_doubled() -> None:
    assert differences([point(1)], [point(1), point(1)]) == [
        "doubled: frames 1.0-2.0 s of a.mp4 (id-1) is there 2 times"
    ]


def test_another_id_at_the_same_place_is_doubled_too() -> None:
    twin = point(1) | {"id": "id-9"}
    assert differences([point(1)], [point(1), twin]) == ["doubled: frames 1.0-2.0 s of a.mp4 (id-9) beside id-1"]


def test_a_point_that_nobody_expects_is_unknown() -> None:
    assert differences([], [point(1)]) == ["unknown: frames 1.0-2.0 s of a.mp4 (id-1)"]


def test_a_payload_that_differs_is_shown() -> None:
    (line,) = differences([point(1, text="one")], [point(1, text="two")])
    assert line == 'payload: frames 1.0-2.0 s of a.mp4 (id-1): text is "two", not "one"'


@pytest.mark.parametrize(
    ("key", "ours", "theirs", "same"),
    [
        ("speaker_score", 0.8123, 0.8125, True),
        ("speaker_score", 0.8, 0.9, False),
        ("match_score", None, 0.5, False),
        ("turns", [[0.0, 1.5], [2.0, 9.0]], [[0.0, 1.6], [2.0, 9.0]], True),
        ("turns", [[0.0, 1.5], [2.0, 9.0]], [[0.0, 1.5]], False),
        ("turns", [[0.0, 1.5]], [[0.0, 3.0]], False),
        ("end_seconds", 1.5, 1.501, False),
    ],
)
def test_what_follows_from_the_rounding_of_vectors_is_no_difference(
    key: str, ours: Any, theirs: Any, same: bool
) -> None:
    assert same_value(key, ours, theirs) is same
    assert same_value(key, theirs, ours) is same
    assert same_value(key, ours, ours)


def test_a_missing_key_of_the_payload_differs() -> None:
    (line,) = differences([point(1, speaker="Anna")], [point(1)])
    assert "speaker is null" in line


def test_a_vector_of_another_direction_or_name_differs() -> None:
    other = point(1) | {"vectors": point(2)["vectors"]}
    assert differences([point(1)], [other]) == ["vector: frames 1.0-2.0 s of a.mp4 (id-1): image differs"]
    renamed = point(1) | {"vectors": {"text": point(1)["vectors"]["image"]}}
    assert differences([point(1)], [renamed]) == [
        "vectors: frames 1.0-2.0 s of a.mp4 (id-1) has ['text'], not ['image']"
    ]


@given(seed=st.integers(0, 1000), noise=st.floats(0, 1e-3))
def test_rounding_is_no_difference(seed: int, noise: float) -> None:
    chance = np.random.default_rng(seed)
    vector = chance.standard_normal(64)
    vector /= np.linalg.norm(vector)
    rounded = (vector + noise * chance.standard_normal(64)).astype(np.float16)
    assert same_vector(vector.tolist(), rounded.tolist())


@pytest.mark.parametrize("other", [[1.0, 0.1], [2.0, 0.0], [0.0, 0.0], [1.0], [float("nan"), 0.0]])
def test_another_direction_length_or_shape_is_a_difference(other: list[float]) -> None:
    assert not same_vector([1.0, 0.0], other)


def test_empty_and_zero_vectors_equal_themselves() -> None:
    assert same_vector([], [])
    assert same_vector([0.0, 0.0], [0.0, 0.0])


# --- what was promised ------------------------------------------------------------------------------------------------


def sighting(done: Done, *stored: int) -> Sighting:
    return Sighting("kill 1", (done,), frozenset(f"id-{number}" for number in stored))


def test_points_of_a_span_that_is_done_must_be_there() -> None:
    reference = [point(number) for number in range(6)]
    seen = sighting(Done("v", "frames", 2.0, 4.0), 2)
    (line,) = seen.broken_promises(reference)
    assert line.startswith("kill 1: id-3 was not stored")
    assert sighting(Done("v", "frames", 2.0, 4.0), 2, 3).broken_promises(reference) == []
    assert sighting(Done("other", "frames", 2.0, 4.0)).broken_promises(reference) == []


def test_a_sound_track_promises_what_ends_before_its_place_and_a_video_all() -> None:
    heard = [point(number) | {"collection": "speech"} for number in range(4)]
    assert len(sighting(Done("v", "audio", 0.0, 2.5)).broken_promises([*heard, point(9)])) == 2
    assert len(sighting(Done("v", "video", *WHOLE)).broken_promises([*heard, point(9)])) == 5


def test_what_was_stored_must_stay() -> None:
    seen = sighting(Done("v", "frames", 0.0, 0.0), 1, 2)
    assert seen.forgotten(["id-1", "id-2", "id-3"]) == []
    assert seen.forgotten(["id-2"]) == ["kill 1: id-1 was stored, and is not any more"]


# --- slopes -----------------------------------------------------------------------------------------------------------

HOUR = list(range(0, 3600, 3))  # seconds


@given(seed=st.integers(0, 10_000))
def test_a_leak_of_sixty_megabytes_an_hour_is_seen_through_noise(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 5, len(HOUR))
    found = slope(HOUR, [500 + 60 * second / 3600 + noise[n] for n, second in enumerate(HOUR)])
    assert found.verdict == "RISES"
    assert found.low < 60 < found.high or abs(found.per_hour - 60) < 6


def test_noise_is_flat_in_all_but_few_cases() -> None:
    """Its interval holds the true slope with 95 %."""
    verdicts = Counter(
        slope(HOUR, np.random.default_rng(seed).normal(500, 20, len(HOUR)).tolist()).verdict for seed in range(200)
    )
    assert verdicts["flat"] >= 180


def test_a_saw_tooth_is_flat_and_one_that_climbs_is_not() -> None:
    teeth = [500.0 + 50 * (second % 90) / 90 for second in HOUR]
    assert slope(HOUR, teeth).verdict == "flat"
    climbing = [tooth + second / 60 for tooth, second in zip(teeth, HOUR, strict=True)]
    assert slope(HOUR, climbing).verdict == "RISES"


def test_what_never_changes_is_flat_and_what_falls_does_not_rise() -> None:
    still = slope(HOUR, [7.0] * len(HOUR))
    assert (still.per_hour, still.low, still.high, still.verdict) == (0.0, 0.0, 0.0, "flat")
    assert slope(HOUR, [float(-second) for second in HOUR]).verdict == "falls"


def test_too_few_samples_tell_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        slope([0.0, 1.0], [1.0, 2.0])


def test_the_warm_up_is_left_out_and_never_more_than_a_third() -> None:
    assert after_warm_up(HOUR, 600) == 200
    assert after_warm_up([0.0, 30.0, 60.0, 90.0], 600) == 1
    assert after_warm_up([], 600) == 0


def test_a_soak_tells_slopes_of_what_lived_through_and_who_was_replaced() -> None:
    samples = Samples()
    for number, second in enumerate(HOUR):
        samples.seconds.append(float(second))
        samples.values["engine", "rss_mb"].append(500.0 + second / 36)
        samples.values["consumer", "threads"].append(7.0)
        if number > 5:
            samples.values["decoder 0", "rss_mb"].append(1.0)
    slopes = samples.slopes(600.0)
    assert {key: found.verdict for key, found in slopes.items()} == {
        ("engine", "rss_mb"): "RISES",
        ("consumer", "threads"): "flat",
    }
    assert slopes["engine", "rss_mb"].per_hour == pytest.approx(100)
    lines = table(slopes).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["flat", "RISES"]


# --- videos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm", "ts"])
def test_a_marked_video_is_the_same_video_with_other_content(tmp_path: Path, ending: str) -> None:
    video = make_talk(tmp_path / f"a.{ending}", 2.0)
    plain = video.read_bytes()
    one, two = (marked(plain, video.suffix, mark) for mark in (1, 2))
    assert len({plain, one, two}) == 3
    copy = tmp_path / f"b.{ending}"
    copy.write_bytes(one)
    before, after = (probe(os.fsencode(path), DecodeOptions()) for path in (video, copy))
    assert before == after


def test_other_containers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\.avi"):
        marked(b"", ".avi", 1)


def test_every_wave_is_new_content_and_the_same_in_every_directory(tmp_path: Path) -> None:
    sources = sources_in(tmp_path / "sources", (("a.mp4", 1.0), ("b.ts", 1.0)))
    contents = []
    for name in ("one", "two"):
        load = Workload(tmp_path / name, sources)
        files = load.add_wave() + load.add_wave(1)
        contents.append({path.name: path.read_bytes() for path in files})
        assert sorted(path.name for path in load.directory.iterdir()) == ["0001-a.mp4", "0001-b.ts", "0002-a.mp4"]
    assert contents[0] == contents[1]
    assert len(set(contents[0].values())) == 3


def test_one_undisturbed_run_stands_for_every_directory_with_the_same_waves(tmp_path: Path) -> None:
    sources = sources_in(tmp_path / "sources", (("a.mp4", 1.0),))
    load = Workload(tmp_path / "here", sources)
    load.add_wave()
    reference = Reference(1, [point(1, path="/there/0001-a.mp4"), point(2, path="/there/0002-a.mp4")])
    assert reference.points_in(load) == [point(1, path=str(tmp_path / "here" / "0001-a.mp4"))]
    load.add_wave()
    with pytest.raises(ValueError, match="1 waves"):
        reference.points_in(load)


def test_a_file_that_is_written_slowly_ends_as_the_one_of_its_wave(tmp_path: Path) -> None:
    sources = sources_in(tmp_path / "sources", (("a.mp4", 1.0), ("b.ts", 1.0)))
    slow, whole = Workload(tmp_path / "slow", sources), Workload(tmp_path / "whole", sources)
    slow.add_slowly(lambda path, data: path.write_bytes(data))
    whole.add_wave(1)
    assert (slow.directory / "0001-a.mp4").read_bytes() == (whole.directory / "0001-a.mp4").read_bytes()


# --- processes --------------------------------------------------------------------------------------------------------


def test_processes_of_a_session_are_found_until_they_are_dead() -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert [each.pid for each in in_session(process.pid)] == [process.pid]
        assert figures(process.pid)["threads"] == 1.0
    finally:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert in_session(process.pid) == []
    process.wait()
    assert figures(process.pid) == {}


def test_shared_memory_is_found_by_who_has_it_open_or_mapped() -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"1234")
        file.flush()
        path = Path(file.name)
        assert path in shared_memory(os.getpid())
        with mmap.mmap(file.fileno(), 4) as mapped:
            file.close()
            assert mapped[:4] == b"1234"
            assert any(str(held).startswith(str(path)) for held in shared_memory(os.getpid()))
    assert not any(str(held).startswith(str(path)) for held in shared_memory(os.getpid()))


def test_only_where_files_are_broken_by_intention_ingest_may_end_with_failed_ones(tmp_path: Path) -> None:
    made, real = (kind(tmp_path, [], tmp_path / "log") for kind in (IngestSubject, RealIngestSubject))
    for subject in (made, real):
        assert subject.is_expected(ExitCode.OK, set())
        assert subject.is_expected(ExitCode.NO_START, {"engine"})
        assert not subject.is_expected(ExitCode.NO_START, set())
    assert not made.is_expected(ExitCode.SOME_FAILED, {"decoder"})
    assert real.is_expected(ExitCode.SOME_FAILED, set())


# --- the long form ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kills", "scenarios"),
    [
        ([], 200, list(LONG)),
        (["--only", "kills", "--kills", "7"], 7, []),
        (["--only", "scenarios"], 0, list(LONG)),
        (["--only", "outage"], 0, ["outage"]),
    ],
)
def test_kills_and_scenarios_can_be_had_alone(arguments: list[str], kills: int, scenarios: list[str]) -> None:
    options = options_of(arguments)
    assert kills_of(options) == kills
    assert list(scenarios_of(options)) == scenarios


def test_one_difference_fails_the_whole_and_is_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    session = Session(options_of([]), tmp_path)
    session.result("outage", [], session.begin)
    assert not session.failed
    session.result("swap", ["lost: one"], session.begin)
    session.result("grow", [], session.begin)
    assert session.failed
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0].split() for line in lines] == [
        ["ok", "outage"], ["WRONG", "1", "swap"], ["lost:", "one"], ["ok", "grow"],
    ]  # fmt: skip
