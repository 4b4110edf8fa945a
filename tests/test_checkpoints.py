"""Resuming a sound track: from every checkpoint on, exactly what an uninterrupted reading gives."""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benches.sample_video import sound_track
from benches.sample_voice import SAMPLE_RATE as VOICE_RATE
from benches.sample_voice import VOICES, say
from benches.sound_resume import FORMATS, write
from stages import audio, windows
from stages.audio import SAMPLE_RATE, AudioChunk, SoundDecoder
from stages.checkpoints import MAX_ANCHORS, AnchorTrail, SoundState, Tail, seal, unseal
from stages.options import DecodeOptions, SpeechOptions
from stages.resample import make_resampler
from stages.timeline import Samples, SoundBlock, SoundTimeline
from stages.windows import SavedPlace, SoundCheckpoint, SpeechReader, SpeechWindow, read_speech_windows
from tests.audio_factory import info, tone, write_sound
from transport.messages import AudioResume, Gap

MEDIA = Path(__file__).parents[2] / "shared" / "media"
SECTION_SECONDS = 8
SPEECH = SpeechOptions(window_seconds=6.0)  # checkpoints cannot be nearer to each other than windows
Item = SpeechWindow | Gap | SoundCheckpoint


@pytest.fixture(autouse=True)
def short_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "SECTION_SAMPLES", SECTION_SECONDS * SAMPLE_RATE)
    monkeypatch.setattr(audio, "INDEX_STEP_SECONDS", 6.0)  # the pictures beside the sound have a key frame every 5 s


@pytest.fixture
def sought(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each attempt to go to a saved place succeeded."""
    attempts: list[bool] = []
    honest = SpeechReader.resume

    def noting(reader: SpeechReader, saved: SavedPlace) -> bool:
        attempts.append(honest(reader, saved))
        return attempts[-1]

    monkeypatch.setattr(SpeechReader, "resume", noting)
    return attempts


@pytest.fixture(scope="module")
def talk() -> Samples:
    """105 s at 16 kHz: sentences in a room, 40 s without a pause, digital silence, and sentences again."""
    monologue = say("where are the others who went away this morning " * 16, VOICES[0], np.random.default_rng(1))
    silence = np.zeros(5 * VOICE_RATE, np.float32)
    whole = np.concatenate([sound_track(30.0), monologue[: 40 * VOICE_RATE], silence, sound_track(30.0, seed=1)])
    count = len(whole) * SAMPLE_RATE // VOICE_RATE
    at = np.arange(count) * (VOICE_RATE / SAMPLE_RATE)
    return np.asarray(np.interp(at, np.arange(len(whole)), whole), np.float32)


def read(
    path: Path,
    place: SoundCheckpoint | None = None,
    progress: Callable[[float], None] | None = None,
    options: SpeechOptions = SPEECH,
) -> Iterator[Item]:
    resume = None if place is None else AudioResume(section=1, seconds=place.end_seconds, state=place.state)
    return read_speech_windows(os.fsencode(path), info(path), DecodeOptions(), options, resume, progress)


def compared(item: Item) -> Any:
    """What must be equal, bit for bit. Not the states: they may name other anchors."""
    if isinstance(item, SpeechWindow):
        return item.start_seconds, item.end_seconds, item.speech, item.pcm.tobytes()
    return item.end_seconds if isinstance(item, SoundCheckpoint) else item


def places_in(items: list[Item]) -> list[tuple[int, SoundCheckpoint]]:
    return [(number, item) for number, item in enumerate(items) if isinstance(item, SoundCheckpoint)]


def assert_resumable(path: Path, least: int, whole: list[Item] | None = None) -> list[SoundCheckpoint]:
    """Resume at every checkpoint: the next items are compared, and behind the middle one, all."""
    whole = list(read(path)) if whole is None else whole
    found = places_in(whole)
    assert len(found) >= least
    for turn, (number, place) in enumerate(found):
        count = None if turn == len(found) // 2 else 3
        rest = list(islice(read(path, place), count))
        assert list(map(compared, rest)) == list(map(compared, whole[number + 1 :][:count])), place.end_seconds
    return [place for _, place in found]


def saved_in(place: SoundCheckpoint, options: SpeechOptions = SPEECH) -> SavedPlace:
    saved = unseal(place.state, SavedPlace, repr(options))
    assert saved is not None
    return saved


# --- formats --------------------------------------------------------------------------------------------------------

# Of those that the bench tries, one of each kind of container and of decoder.
SOUGHT = {
    "aac.mp4",
    "aac-fragmented.mp4",
    "aac.ts",
    "mp3.avi",
    "mp2.mpg",
    "ac3.mkv",
    "opus.webm",
    "vorbis.ogg",
    "flac.mkv",
    "pcm.mov",
}
# Without an index to seek by, with times that are guessed after a seek, or with packets cut elsewhere after one.
FROM_THE_BEGINNING = {"aac-live.mkv", "mp3.mp3", "pcm.wav", "wma.wmv"}
TRIED = [entry for entry in FORMATS if entry[0] in SOUGHT | FROM_THE_BEGINNING]


@pytest.mark.parametrize(("name", "codec", "pictures", "options"), TRIED, ids=[entry[0] for entry in TRIED])
def test_what_follows_a_checkpoint_is_the_same_in_every_format(
    tmp_path: Path,
    talk: Samples,
    sought: list[bool],
    name: str,
    codec: str,
    pictures: str | None,
    options: dict[str, str],
) -> None:
    path = tmp_path / name
    write(path, talk[20 * SAMPLE_RATE : 80 * SAMPLE_RATE], codec, pictures, options)
    place = assert_resumable(path, least=5)[-1]
    assert place.end_seconds > 48
    told: list[float] = []
    list(islice(read(path, place, told.append), 1))
    assert bool(sought and sought[-1]) == (name in SOUGHT)
    assert min(told) > 15 if name in SOUGHT else min(told) < 2


@pytest.mark.parametrize("name", ["ami-meeting*.m4a", "phone-call*.webm"])
def test_real_media_are_resumed(sought: list[bool], name: str) -> None:
    path = next(MEDIA.glob(name), None)
    if path is None:
        pytest.skip("the developers' media are not here")
    assert_resumable(path, least=1)
    assert all(sought)


# --- where checkpoints are ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talk_file(tmp_path_factory: pytest.TempPathFactory, talk: Samples) -> Path:
    return write_sound(tmp_path_factory.mktemp("talk") / "talk.mka", [talk])


def test_checkpoints_come_once_a_section_and_part_the_windows(talk_file: Path) -> None:
    items = list(read(talk_file))
    found = places_in(items)
    assert [place.end_seconds for _, place in found] == sorted({place.end_seconds for _, place in found})
    assert all(len(place.state) < 8000 for _, place in found)
    for number, place in found:
        before = [item for item in items[:number] if isinstance(item, SpeechWindow)]
        behind = [item for item in items[number:] if isinstance(item, SpeechWindow)]
        assert all(window.end_seconds <= place.end_seconds for window in before)
        assert all(window.start_seconds >= place.end_seconds for window in behind)
    positions = [saved_in(place).position // SAMPLE_RATE // SECTION_SECONDS for _, place in found if place.state]
    assert positions == sorted(set(positions))  # one in a section at most


def test_checkpoints_come_in_the_midst_of_speech_too(talk_file: Path) -> None:
    places = [place for _, place in places_in(list(read(talk_file))) if place.state]
    packers = [saved.speech.packer for saved in map(saved_in, places) if saved.speech is not None]
    assert any(packer.cut is not None for packer in packers)  # within a segment that is longer than a window
    assert any(packer.speech for packer in packers)  # within a window that is being filled


# --- what makes exactness hard --------------------------------------------------------------------------------------


def test_holes_are_places_like_others(tmp_path: Path, talk: Samples, sought: list[bool]) -> None:
    """Sound that comes in pieces of less than a second to some seconds."""
    holes = [(at, at + 1.6) for at in np.arange(2.5, 50.0, 2.5)] + [(60.0, 75.0)]
    path = write_sound(tmp_path / "a.mka", [talk], holes=[(float(start), float(end)) for start, end in holes])
    items = list(read(path))
    assert sum(isinstance(item, Gap) for item in items) == 2  # those near to each other are one
    places = assert_resumable(path, least=8, whole=items)
    assert any(saved_in(place).speech is None for place in places)
    assert all(sought)


def test_damage_before_and_behind_a_checkpoint_stays_one_gap(tmp_path: Path, talk: Samples, sought: list[bool]) -> None:
    """Every fourth packet cannot be decoded, so that there is always a gap that waits to be joined with the next."""
    path = write_sound(tmp_path / "a.mka", [talk], codec="flac", broken=range(0, 4000, 4))
    items = list(read(path))
    (gap,) = [item for item in items if isinstance(item, Gap)]
    assert gap.end_seconds - gap.start_seconds > 60
    places = assert_resumable(path, least=8, whole=items)
    assert any(saved_in(place).sound.held_gap is not None for place in places if place.state)
    assert all(sought)


def test_a_rate_that_changes_midway(tmp_path: Path, talk: Samples, sought: list[bool]) -> None:
    half = len(talk) // 2
    wave = np.repeat(talk, 3)
    first = write_sound(tmp_path / "1.ts", [wave[: half * 3]] * 2, 48_000, "stereo", "mp2")
    second = write_sound(tmp_path / "2.ts", [np.repeat(talk[half:], 2)], 32_000, "mono", "mp2", shift_seconds=52.0)
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    assert_resumable(both, least=8)
    assert all(sought)


def test_large_and_late_times(tmp_path: Path, talk: Samples, sought: list[bool]) -> None:
    wave = np.repeat(talk, 3)
    path = write_sound(tmp_path / "a.ts", [wave] * 2, 48_000, "stereo", "ac3", shift_seconds=60_000.0)
    assert_resumable(path, least=8)
    assert all(sought)


def test_a_resampler_that_cannot_be_repeated_costs_time_only(tmp_path: Path, talk: Samples, sought: list[bool]) -> None:
    """44,099 Hz goes through FFmpeg's resampler, whose state nobody knows."""
    path = write_sound(tmp_path / "a.mka", [np.repeat(talk[: 40 * SAMPLE_RATE], 3)[: 40 * 44_099]], 44_099)
    places = assert_resumable(path, least=3)
    assert {place.state for place in places} == {b""}
    assert sought == []


def test_the_last_checkpoint_may_have_nothing_behind_it(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mka", [np.zeros(12 * SAMPLE_RATE, np.float32)])
    ((_, place),) = places_in(list(read(path)))
    assert list(read(path, place)) == []
    assert list(read(path, SoundCheckpoint(place.end_seconds, b""))) == []


# --- states that lead nowhere ---------------------------------------------------------------------------------------


def changed(saved: SavedPlace, **fields: Any) -> SavedPlace:
    return msgspec.structs.replace(saved, **fields)


def other_sound(saved: SavedPlace, **fields: Any) -> SavedPlace:
    return changed(saved, sound=msgspec.structs.replace(saved.sound, **fields))


def other_anchor(saved: SavedPlace, seconds: float) -> SavedPlace:
    anchor = msgspec.structs.replace(saved.sound.anchor, start_seconds=seconds)
    return other_sound(saved, anchor=anchor)


TAMPERED: dict[str, Callable[[SavedPlace], SavedPlace]] = {
    "another digest of the sound that is held back": lambda saved: other_sound(saved, digest=b"\0" * 16),
    "another digest of the sound at hand": lambda saved: changed(
        saved, speech=msgspec.structs.replace(saved.speech, ring_digest=b"\0" * 16) if saved.speech else None
    ),
    "a block more": lambda saved: other_sound(saved, blocks=saved.sound.blocks + 1),
    "more blocks than there are": lambda saved: other_sound(saved, blocks=10**6),
    "no block at this time": lambda saved: other_anchor(saved, saved.sound.anchor.start_seconds + 0.001),
    "a time behind the end": lambda saved: other_anchor(saved, 10_000.0),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED.keys())
def test_where_the_sound_differs_all_is_read_from_the_beginning(
    talk_file: Path, sought: list[bool], tamper: Callable[[SavedPlace], SavedPlace]
) -> None:
    whole = list(read(talk_file))
    number, place = places_in(whole)[-3]
    state = seal(tamper(saved_in(place)), repr(SPEECH))
    told: list[float] = []
    rest = list(read(talk_file, SoundCheckpoint(place.end_seconds, state), told.append))
    assert list(map(compared, rest)) == list(map(compared, whole[number + 1 :]))
    assert sought == [False]
    assert min(told) < 2


@pytest.mark.parametrize("state", [b"", b"\0" * 16, b"garbage" * 100, os.urandom(3000)])
def test_a_state_that_cannot_be_read_is_as_good_as_none(talk_file: Path, sought: list[bool], state: bytes) -> None:
    whole = list(read(talk_file))
    number, place = places_in(whole)[-1]
    rest = list(read(talk_file, SoundCheckpoint(place.end_seconds, state)))
    assert list(map(compared, rest)) == list(map(compared, whole[number + 1 :]))
    assert sought == []


def test_with_other_settings_nothing_is_lost_or_told_twice(talk_file: Path, sought: list[bool]) -> None:
    place = places_in(list(read(talk_file)))[5][1]
    other = SpeechOptions(window_seconds=9.0)
    rest = list(read(talk_file, place, options=other))
    expected = [
        item
        for item in read(talk_file, options=other)
        if isinstance(item, SpeechWindow) and item.start_seconds >= place.end_seconds
    ]
    found = [item for item in rest if isinstance(item, SpeechWindow)]
    assert list(map(compared, found)) == list(map(compared, expected))
    assert sought == []


class Note(msgspec.Struct, array_like=True):
    text: str


@given(st.binary(max_size=200), st.binary(max_size=3))
def test_nothing_but_what_was_sealed_with_these_settings_is_unsealed(garbage: bytes, more: bytes) -> None:
    sealed = seal(Note("x"), "settings")
    assert unseal(sealed, Note, "settings") == Note("x")
    assert unseal(sealed, Note, "other settings") is None
    assert unseal(sealed, SoundState, "settings") is None
    assert unseal(garbage, Note, "settings") is None
    assert more == b"" or unseal(sealed + more, Note, "settings") is None
    assert unseal(sealed[:-1], Note, "settings") is None


# --- fresh decoders -------------------------------------------------------------------------------------------------


def decoded(path: Path) -> tuple[list[tuple[float | None, bytes]], list[bool]]:
    """Times and samples of all frames, and whether they can be repeated, packet by packet."""
    with av.open(str(path)) as container:
        decoder = SoundDecoder(container.streams.audio[0])
        frames, repeatable = [], []
        for packet in container.demux(decoder.stream):
            frames += [(frame.time, frame.to_ndarray().tobytes()) for frame in decoder.decode(packet)]
            repeatable.append(decoder.repeatable)
    return frames, repeatable


def test_a_decoder_that_takes_over_gives_no_other_sound_than_the_one_before(
    tmp_path: Path, talk: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MP3 shows it, for its decoder forgets: what differs after a change of decoders is the change's fault."""
    path = tmp_path / "a.mka"
    write(path, talk[: 30 * SAMPLE_RATE], "libmp3lame", None, {})
    monkeypatch.setattr(audio, "RENEWAL_SECONDS", 5)
    renewed, repeatable = decoded(path)
    monkeypatch.setattr(audio, "RENEWED", set())
    assert (renewed, all(repeatable)) == (decoded(path)[0], True)


def test_a_fresh_decoder_that_makes_nothing_of_the_packets_does_not_take_over(
    tmp_path: Path, talk: Samples, sought: list[bool]
) -> None:
    """The packets before the first change are broken: until the second, nothing can be repeated."""
    channels = [np.repeat(talk[: 70 * SAMPLE_RATE], 3)]
    broken = range(1400, 1408)  # up to the last one before 30 s
    path = write_sound(tmp_path / "a.m4a", channels, 48_000, codec="aac", broken=broken)
    places = assert_resumable(path, least=6)
    assert {bool(place.state) for place in places if 32 < place.end_seconds < 54} == {False}
    assert {bool(place.state) for place in places if not 24 < place.end_seconds < 62} == {True}
    assert all(sought)


def test_a_track_whose_header_changes_midway_is_read_from_the_beginning(
    tmp_path: Path, talk: Samples, sought: list[bool]
) -> None:
    """Ogg files can be chained; what decodes the second then, is not what the header of the file says."""
    write(tmp_path / "1.ogg", talk[: 12 * SAMPLE_RATE], "vorbis", None, {})
    write(tmp_path / "2.ogg", talk[: 50 * SAMPLE_RATE], "vorbis", None, {})
    both = tmp_path / "both.ogg"
    both.write_bytes((tmp_path / "1.ogg").read_bytes() + (tmp_path / "2.ogg").read_bytes())
    places = assert_resumable(both, least=4)
    assert {bool(place.state) for place in places if place.end_seconds > 13} == {False}
    assert all(sought)


# --- parts ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5000)), max_size=12), st.integers(0, 12_000))
def test_a_tail_is_the_end_of_what_came_without_a_break(pieces: list[tuple[bool, int]], wanted: int) -> None:
    tail, at, unbroken = Tail(wanted), 0, np.zeros(0, np.float32)
    for breaks, count in pieces:
        at += breaks
        unbroken = unbroken[:0] if breaks else unbroken
        samples = np.arange(at, at + count, dtype=np.float32)
        tail.push(AudioChunk(at / SAMPLE_RATE, samples))
        unbroken, at = np.concatenate([unbroken, samples]), at + count
        assert sum(len(chunk.samples) for chunk in tail._chunks) <= wanted + 2 * 5000
    found = tail.samples()
    if len(unbroken) < wanted:
        assert found is None
    else:
        np.testing.assert_array_equal(found, unbroken[len(unbroken) - wanted :])


BLOCKS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.0, 0.5, 3.0, -0.3]),  # a hole or an overlap before it
        st.floats(0.05, 0.8),
        st.sampled_from([48_000] * 5 + [16_000]),
    ),
    min_size=20,
    max_size=30,
)


@settings(max_examples=10, deadline=None)
@given(BLOCKS, st.data())
def test_a_timeline_can_be_brought_to_any_place_again(moves: list[tuple[float, float, int]], data: Any) -> None:
    """From an anchor on the same blocks lead to the same place, and to the same sound behind it."""
    generator, blocks, at = np.random.default_rng(len(moves)), [], 0.0
    for move, seconds, rate in moves:
        at += move
        blocks.append(SoundBlock(at, rate, generator.uniform(-1, 1, round(seconds * rate)).astype(np.float32)))
        at += len(blocks[-1].samples) / rate
    timeline, trail = SoundTimeline(make_resampler, 0.0, 1.0), AnchorTrail()
    cut = data.draw(st.integers(5, len(blocks)))
    for block in blocks[:cut]:
        trail.pass_block(block.start_seconds, timeline)
        list(timeline.place(block))
    state = trail.capture(timeline.position, timeline, None)
    assert len(trail._anchors) <= MAX_ANCHORS
    if state is None:
        first_sound = max(0.0, moves[0][0])  # seconds
        assert timeline.position < (first_sound + 3) * SAMPLE_RATE, "only too near to the beginning"
        return
    again = SoundTimeline(make_resampler, 0.0, 1.0)
    again.restore(state.anchor.timeline)
    for block in blocks[cut - state.blocks : cut]:
        list(again.place(block))
    assert again.state() == timeline.state() == state.timeline
    for block in blocks[cut:]:
        assert list(map(heard, again.place(block))) == list(map(heard, timeline.place(block)))
    assert list(map(heard, again.finish(None))) == list(map(heard, timeline.finish(None)))


def heard(item: AudioChunk | Gap) -> Any:
    return item if isinstance(item, Gap) else (item.start_seconds, item.samples.tobytes())


def test_an_anchor_is_never_a_block_without_a_time() -> None:
    timeline, trail = SoundTimeline(make_resampler, 0.0, 1.0), AnchorTrail()
    for _ in range(20):
        block = SoundBlock(None, SAMPLE_RATE, tone(0.5))
        trail.pass_block(block.start_seconds, timeline)
        list(timeline.place(block))
    assert trail.capture(timeline.position, timeline, None) is None
