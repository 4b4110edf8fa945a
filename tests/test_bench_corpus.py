"""Videos to measure with: what a corpus is made of, that it is the same each time, and that it decodes."""

import json
import random
from itertools import pairwise
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benches.corpus import media_seconds, repeated
from benches.corpus_sources import RECIPES, Source, can_encode, encoded, looked_at, sources
from benches.mixed import (
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    endings,
    file_lengths,
    film_source,
    long_film,
    main,
    mixed_corpus,
    plan,
    spoken_film,
    varied,
)
from stages.errors import MediaError
from tests.media_factory import make_video

A = Source(Path("a.mp4"), 60.0, "h264", "aac", 360)
B = Source(Path("b.webm"), 30.0, "vp9", "opus", 480)
C = Source(Path("c.mp4"), 600.0, "h264", None, 720)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a manifest: two good videos, a damaged one, one that is not there."""
    directory = tmp_path_factory.mktemp("media")
    make_video(directory / "tone.mp4", seconds=8, audio=True)
    make_video(directory / "silent.mkv", seconds=6)
    make_video(directory / "short.mp4", seconds=1)
    verdicts = {"tone.mp4": "ok", "silent.mkv": "ok_no_audio", "short.mp4": "ok", "gone.mp4": "ok", "bad.mp4": "reject"}
    files = [{"name": name, "expect": {"verdict": verdict}} for name, verdict in verdicts.items()]
    (directory / "manifest.json").write_text(json.dumps({"files": files}), "utf-8")
    return directory


# --- plans ------------------------------------------------------------------------------------------------------------


@given(st.floats(0.4, 600), st.integers(0, 99))
def test_files_come_to_the_length_that_is_asked_for(minutes: float, seed: int) -> None:
    lengths = list(file_lengths(minutes * 60, random.Random(seed)))
    assert all(SHORTEST_SECONDS - 0.1 <= seconds <= LONGEST_SECONDS for seconds in lengths)
    assert sum(lengths) == pytest.approx(max(minutes * 60, SHORTEST_SECONDS), abs=0.1 * len(lengths))


@given(st.integers(0, 99))
def test_a_plan_is_a_function_of_its_seed(seed: int) -> None:
    assert plan([A, B, C], 30, seed) == plan([A, B, C], 30, seed)


def test_seeds_differ() -> None:
    assert len({tuple(part.name for part in plan([A, B, C], 30, seed)) for seed in range(10)}) > 1


def test_the_film_comes_first_and_has_sound() -> None:
    first = plan([C, A, B], 15, 0)[0]
    assert first.source == A
    assert first.seconds == pytest.approx(600)
    assert film_source([C]) == C


def test_codecs_take_turns() -> None:
    order = varied([A, C, A, C, B], random.Random(0))
    assert {source.video for source in order[:2]} == {"h264", "vp9"}
    assert sorted(source.path for source in order) == sorted(source.path for source in [A, C, A, C, B])


def test_containers_take_what_they_hold() -> None:
    assert endings(A) == [".mp4", ".mkv", ".ts", ".mov"]
    assert endings(B) == [".webm", ".mkv"]
    assert endings(Source(Path("d"), 9.0, "h264", "opus", 240)) == [".mkv"]
    assert endings(Source(Path("e"), 9.0, "theora", "vorbis", 240)) == [".mkv"]


# --- sources ----------------------------------------------------------------------------------------------------------


def test_sources_are_the_good_videos_of_a_manifest(media: Path, tmp_path: Path) -> None:
    found = sources(media, tmp_path)
    assert [(source.path.name, source.video, source.audio) for source in found] == [
        ("silent.mkv", "h264", None),
        ("tone.mp4", "h264", "aac"),
    ]


def test_a_manifest_without_its_videos_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": []}', "utf-8")
    with pytest.raises(MediaError, match="--media"):
        sources(tmp_path, tmp_path)


def test_without_media_footage_is_drawn_and_encoded_in_every_way(tmp_path: Path) -> None:
    found = sources(tmp_path / "nowhere", tmp_path, drawn_seconds=1.0)
    here = [recipe for recipe in RECIPES if can_encode(recipe.encoder)]
    assert len(found) == 1 + len(here)
    assert {source.video for source in found} >= {"h264"}
    assert any(source.audio is None for source in found)
    assert all(source.seconds == pytest.approx(1.0, abs=0.2) for source in found)


def test_an_encoder_that_is_not_here_is_known() -> None:
    assert can_encode("mpeg4")
    assert not can_encode("no-such-encoder")


def test_encoding_changes_size_and_keeps_sound(media: Path, tmp_path: Path) -> None:
    recipe = next(recipe for recipe in RECIPES if recipe.encoder == "mpeg4")
    made = looked_at(encoded(media / "tone.mp4", tmp_path / recipe.name, recipe))
    assert (made.video, made.audio, made.height) == ("mpeg4", "mp3", 270)
    assert made.seconds == pytest.approx(8, abs=0.3)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [3.0, 19.5])
def test_a_video_is_repeated_or_cut_to_a_length(media: Path, tmp_path: Path, seconds: float) -> None:
    path = repeated(media / "tone.mp4", tmp_path / "out.mkv", seconds)
    assert media_seconds(path) == pytest.approx(seconds, abs=0.15)
    with av.open(str(path)) as container:
        times = sorted(float(frame.time) for frame in container.decode(video=0))
    assert times[-1] == pytest.approx(seconds, abs=0.1)
    assert max(later - earlier for earlier, later in pairwise(times)) < 0.15


def test_a_corpus_is_the_same_each_time(media: Path, tmp_path: Path) -> None:
    first, second = (mixed_corpus(tmp_path / name, 2.5, 7, media) for name in ("one", "two"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len(first) > 1
    assert sum(map(media_seconds, first)) == pytest.approx(150, abs=3)


def test_a_film_is_as_long_as_asked(media: Path, tmp_path: Path) -> None:
    film = long_film(tmp_path, 0.02, media)
    assert media_seconds(film) == pytest.approx(72, abs=0.3)
    assert looked_at(film).audio == "aac"


def test_a_spoken_film_has_the_height_that_is_asked_for_and_the_sound_of_its_source(
    media: Path, tmp_path: Path
) -> None:
    film = spoken_film(tmp_path, 0.005, media, 90)
    assert (looked_at(film).height, looked_at(film).audio) == (90, "aac")
    assert media_seconds(film) == pytest.approx(18.0, abs=0.2)
    with av.open(str(film)) as container:
        assert container.streams.video[0].width == 160


def test_the_command_tells_what_it_made(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--hours", "0.01", "--media", str(media)]) == 0
    assert main([str(tmp_path), "--film", "0.01", "--height", "100", "--media", str(media)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["36.0", "36.0"]
    assert "film-h264" in lines[1]
