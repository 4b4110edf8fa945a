"""Subtitles: what is shown together and when, and that our own strict readers and FFmpeg read it all back."""

import io
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import av
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.line_breaks import columns
from stages.subtitles import Cue, cues_of, srt, vtt
from stages.transcript import Segment, segment_of
from tests.test_transcript import phrase

NAMES = {1: "Anna", 2: "Speaker 2"}
LONG = (
    "I never said so. What I said is that the bridge, old as it is, will stand for another ten years. After that, who "
    "knows what they will do?"
)


def made(*points: dict[str, Any]) -> list[Segment]:
    return [each for point in points if (each := segment_of(point, NAMES, None)) is not None]


def caption(start: float, end: float, text: str) -> dict[str, Any]:
    return {**phrase(start, end, text), "words": [], "source": "captions"}


def shown(*points: dict[str, Any], with_names: bool = False) -> list[tuple[int, int, tuple[str, ...]]]:
    return [(cue.start_ms, cue.end_ms, cue.lines) for cue in cues_of(made(*points), with_names)]


# --- strict readers ---------------------------------------------------------------------------------------------------


class Read(NamedTuple):
    start_ms: int
    end_ms: int
    lines: list[str]
    speaker: str | None = None


def _ms(clock: str) -> int:
    hours, minutes, seconds, fraction = (int(part) for part in re.split("[:.,]", clock))
    assert minutes < 60
    assert seconds < 60
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + fraction


def _blocks(text: str) -> list[list[str]]:
    assert "\r" not in text
    assert "\ufeff" not in text[:1]
    if not text:
        return []
    assert text.endswith("\n\n")
    blocks = [block.split("\n") for block in text[:-2].split("\n\n")]
    assert all(line.strip() for block in blocks for line in block), "blank lines end a cue"
    return blocks


def read_srt(text: str) -> list[Read]:
    found = []
    for number, (head, times, *lines) in enumerate(_blocks(text), 1):
        assert head == str(number)
        span = re.fullmatch(r"(\d\d+:\d\d:\d\d,\d{3}) --> (\d\d+:\d\d:\d\d,\d{3})", times)
        assert span is not None
        assert not any("-->" in line for line in lines)
        found.append(Read(_ms(span[1]), _ms(span[2]), lines))
    return found


def _unescaped(text: str) -> str:
    assert not re.search("[<>]|&(?!(amp|lt|gt);)", text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def read_vtt(text: str) -> list[Read]:
    head, *blocks = _blocks(text)
    assert head == ["WEBVTT"]
    found = []
    for times, *lines in blocks:
        span = re.fullmatch(r"(\d\d+:\d\d:\d\d\.\d{3}) --> (\d\d+:\d\d:\d\d\.\d{3})", times)
        assert span is not None
        voice = re.match("<v ([^<>]+)>", lines[0])
        lines[0] = lines[0].removeprefix(voice[0] if voice else "")
        speaker = _unescaped(voice[1]) if voice else None
        found.append(Read(_ms(span[1]), _ms(span[2]), [_unescaped(line) for line in lines], speaker))
    return found


def read_by_ffmpeg(text: str, demuxer: str) -> list[Read]:
    av.logging.set_level(None)
    found = []
    with av.open(io.BytesIO(text.encode()), "r", format=demuxer) as container:
        stream = container.streams[0]
        for packet in container.demux(stream):
            if packet.size:
                (rect,) = stream.codec_context.decode2(packet).rects
                text = rect.ass.decode().split(",", 8)[-1].replace("\\{{}", "{").replace("\\\u2060", "\\\u2060\u2060")
                start_ms = round(packet.pts * packet.time_base * 1000)
                end_ms = round((packet.pts + packet.duration) * packet.time_base * 1000)
                found.append(Read(start_ms, end_ms, text.split("\\N")))
    return found


# --- small cases, by hand ---------------------------------------------------------------------------------------------


def test_subrip_numbers_its_cues_and_names_the_speaker_in_the_text() -> None:
    cues = cues_of(made(phrase(0.5, 2.0, "Good morning.", 1), phrase(3.0, 4.25, "Yes?", 2)), with_names=True)
    assert "".join(srt(cues)) == (
        "1\n00:00:00,500 --> 00:00:02,000\nAnna: Good morning.\n\n2\n00:00:03,000 --> 00:00:04,250\nSpeaker 2: Yes?\n\n"
    )


def test_webvtt_names_the_speaker_in_a_voice_tag() -> None:
    cues = cues_of(made(phrase(0.5, 2.0, "Good morning.", 1), caption(3.0, 4.25, "I <3 you & me")), with_names=False)
    assert "".join(vtt(cues)) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\n<v Anna>Good morning.\n\n"
        "00:00:03.000 --> 00:00:04.250\nI &lt;3 you &amp; me\n\n"
    )


def test_no_speech_is_an_empty_file_that_is_valid() -> None:
    assert "".join(srt([])) == ""
    assert "".join(vtt([])) == "WEBVTT\n\n"


def test_a_hundred_hours_have_three_digits() -> None:
    cues = [Cue(360_000_000, 363_723_004, None, ("a",))]
    assert "100:00:00,000 --> 101:02:03,004" in "".join(srt(cues))
    assert "100:00:00.000 --> 101:02:03.004" in "".join(vtt(cues))
    assert read_by_ffmpeg("".join(srt(cues)), "srt") == [Read(360_000_000, 363_723_004, ["a"])]
    assert read_by_ffmpeg("".join(vtt(cues)), "webvtt") == [Read(360_000_000, 363_723_004, ["a"])]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a --> b", "a → b"),
        ("a ----> b", "a → b"),
        ("<Anna> hi", "‹Anna› hi"),
        ("<<b>x</b>>", "‹‹b›x‹/b››"),
        ("I <3 you", "I <3 you"),
        ("{\\an8}top", "(\\\u2060an8)top"),
        ("C:\\New", "C:\\\u2060New"),
        ("a & b &amp;", "a & b &amp;"),
    ],
)
def test_what_players_take_for_markup_is_exchanged_in_subrip(text: str, plain: str) -> None:
    written = "".join(srt([Cue(0, 1000, None, (text,))]))
    assert read_srt(written)[0].lines == [plain]


def test_a_name_with_markup_is_escaped() -> None:
    cues = [Cue(0, 1000, "A<b>&C", ("hi",))]
    assert "<v A&lt;b&gt;&amp;C>hi\n" in "".join(vtt(cues))
    assert read_vtt("".join(vtt(cues)))[0].speaker == "A<b>&C"


# --- what is shown together -------------------------------------------------------------------------------------------


def test_a_long_segment_is_cut_behind_its_clauses_at_the_times_of_words() -> None:
    point = phrase(10.0, 21.0, LONG)
    found = shown(point)
    assert [lines for _, _, lines in found] == [
        ("I never said so. What I said is", "that the bridge, old as it is,"),
        ("will stand for another ten years.", "After that, who knows what they will do?"),
    ]
    cut_ms = round(next(word for word in point["words"] if word["text"] == "will")["start_seconds"] * 1000)
    assert [(start, end) for start, end, _ in found] == [(10_000, cut_ms), (cut_ms, 21_000)]


def test_a_long_caption_is_cut_in_proportion_to_its_characters() -> None:
    text = "aaaa bbbb cccc dddd eeee ffff gggg hhhh iiii jjjj kkkk llll mmmm nnnn oooo pppp qqqq rrrr ssss tttt"
    (first, second) = shown(caption(0.0, 10.0, text))
    assert first[1] == second[0]
    letters = sum(char != " " for line in first[2] for char in line)
    assert first[1] == letters / 80 * 10_000


def test_a_caption_of_one_line_is_not_divided_by_guessed_times() -> None:
    assert shown(caption(1.0, 21.0, "(dramatic music plays)")) == [(1000, 8000, ("(dramatic music plays)",))]


def test_words_far_from_each_other_are_not_shown_together() -> None:
    point = phrase(0.0, 20.0, "Wait. Go!")
    point["words"] = [
        {"start_seconds": 0.0, "end_seconds": 1.0, "text": "Wait."},
        {"start_seconds": 19.0, "end_seconds": 20.0, "text": "Go!"},
    ]
    assert shown(point) == [(0, 1000, ("Wait.",)), (19_000, 20_000, ("Go!",))]


def test_one_word_that_lasts_too_long_is_shown_for_seven_seconds() -> None:
    assert shown(phrase(0.0, 30.0, "Aaaaaah")) == [(0, 7000, ("Aaaaaah",))]


def test_words_that_are_not_those_of_the_text_do_not_matter() -> None:
    point = {**phrase(0.0, 4.0, "What was said."), "words": phrase(2.0, 3.0, "something else")["words"]}
    assert shown(point) == [(0, 4000, ("What was said.",))]


def test_two_who_speak_in_one_segment_have_cues_of_their_own() -> None:
    point = phrase(0.0, 4.0, "Coming? Yes, now.", 1)
    point["words"][1]["cluster"] = point["words"][2]["cluster"] = 2
    cues = cues_of(made(point), with_names=True)
    assert [(cue.speaker, cue.lines) for cue in cues] == [
        ("Anna", ("Anna: Coming?",)), ("Speaker 2", ("Speaker 2: Yes, now.",)),
    ]  # fmt: skip
    assert [cue.start_ms for cue in cues] == [0, 1333]


def test_words_of_nobody_belong_to_whoever_has_the_segment() -> None:
    point = phrase(0.0, 4.0, "Are you coming?", 1)
    del point["words"][1]["cluster"]
    assert [cue.speaker for cue in cues_of(made(point), with_names=False)] == ["Anna"]


def test_japanese_lines_hold_21_characters_and_begin_with_no_closing_mark() -> None:
    text = (
        "日本語の字幕は一行に二十一文字までしか入りません。だから長い文は二行に分けます。「そうですか？」と彼は言った。"
    )
    found = shown(caption(0.0, 12.0, text))
    lines = [line for _, _, lines in found for line in lines]
    assert "".join(lines) == text
    assert max(map(len, lines)) <= 21
    assert not any(line[0] in "。？」、" for line in lines)


def test_a_very_long_word_goes_on_in_the_next_line_and_cue() -> None:
    (first, second) = shown(caption(0.0, 6.0, "x" * 100))
    assert first == (0, 2520, ("x" * 42,))
    assert second == (2520, 6000, ("x" * 42, "x" * 16))


def test_right_to_left_text_stays_in_the_order_it_is_spoken() -> None:
    text = "שלום לכולם, היום נדבר על משהו אחר לגמרי, ואולי גם מחר."
    ((_, _, lines),) = shown(caption(0.0, 5.0, text))
    assert " ".join(lines) == text


def test_a_long_name_leaves_room_for_words() -> None:
    name = "Professor Doctor Maximiliane von Hohenstein-Oberlauterbach"
    (segment,) = made(caption(0.0, 3.0, "Verantwortungsbewusstsein"))
    (cue,) = cues_of([replace(segment, speaker=name)], with_names=True)
    assert cue.lines == ("Professor Doctor Maximiliane…:", "Verantwortungsbewusstsein")
    assert cue.speaker == name


# --- times ------------------------------------------------------------------------------------------------------------


def test_a_cue_without_length_is_shown_long_enough_to_be_read() -> None:
    assert shown(caption(1.0, 1.0, "a")) == [(1000, 1500, ("a",))]
    assert shown(caption(1.0, 1.0, "a"), caption(1.2, 3.0, "b")) == [(1000, 1200, ("a",)), (1200, 3000, ("b",))]


def test_a_cue_ends_where_the_next_one_begins() -> None:
    found = shown(caption(0.0, 3.02, "aaaa aaaa"), caption(3.0, 5.0, "bbbb"))
    assert [(start, end) for start, end, _ in found] == [(0, 3000), (3000, 5000)]


def test_rounding_makes_no_overlap() -> None:
    found = shown(caption(0.0, 1.0005, "a"), caption(1.00049, 2.0, "b"))
    assert [(start, end) for start, end, _ in found] == [(0, 1000), (1000, 2000)]


def test_of_cues_of_one_time_the_first_is_shown_until_it_is_read() -> None:
    found = shown(caption(0.0, 4.0, "17 columns at all"), caption(0.0, 4.0, "bbb"))
    assert [(start, end) for start, end, _ in found] == [(0, 1000), (1000, 4000)]
    found = shown(caption(0.0, 4.0, "51 columns, which take three seconds to read: aaaaa"), caption(0.0, 4.0, "bbb"))
    assert [(start, end) for start, end, _ in found] == [(0, 2000), (2000, 4000)]


def test_a_short_cue_within_a_long_one_is_shown_in_its_time() -> None:
    found = shown(caption(0.0, 6.0, LONG[:70]), caption(3.0, 4.0, "Yes!"))
    assert [(start, end) for start, end, _ in found] == [(0, 3500), (3500, 4000)]


def test_a_hundred_cues_of_one_time_are_all_shown() -> None:
    found = shown(*(caption(0.0, 1.0, f"cue {number}") for number in range(100)))
    assert len(found) == 100
    assert all(one[1] <= other[0] for one, other in pairwise(found))


def test_what_runs_backwards_is_shown_by_time() -> None:
    found = shown(caption(5.0, 6.0, "b"), caption(1.0, 2.0, "a"))
    assert [lines for _, _, lines in found] == [("a",), ("b",)]


# --- whatever comes ---------------------------------------------------------------------------------------------------

marks = st.sampled_from(
    ["<", ">", "-->", "{", "}", "\\", "\\N", "&", "&amp;", "<i>", "1", ".", ",", "!", "…", " ", "\n"]
)
scripts = st.characters(exclude_categories=["Cs", "Cc", "Cf", "Co", "Cn"])
spoken = st.lists(marks | st.text(scripts, max_size=8) | st.text("abc é日ー한ש ", max_size=40), max_size=12).map(
    "".join
)
ends = st.one_of(st.floats(-1, 400_000), st.floats(0, 10))


@st.composite
def points(draw: st.DrawFn) -> dict[str, Any]:
    start = draw(ends)
    point = phrase(start, start + draw(st.floats(-2, 25)), draw(spoken), draw(st.sampled_from([None, 1, 2])))
    for word in point["words"]:
        word["start_seconds"] += draw(st.floats(-1, 1))
        word["cluster"] = draw(st.sampled_from([None, 1, 2]))
    return point if draw(st.booleans()) else {**point, "words": []}


def _ink(text: str) -> str:
    return "".join(text.split())


@given(st.lists(points(), max_size=6), st.booleans())
def test_cues_keep_to_the_limits_whatever_comes(found: list[dict[str, Any]], with_names: bool) -> None:
    cues = cues_of(made(*found), with_names)
    assert all(one.end_ms <= other.start_ms for one, other in pairwise(cues))
    for cue in cues:
        assert 0 <= cue.start_ms < cue.end_ms <= cue.start_ms + 7001
        assert 1 <= len(cue.lines) <= 2
        assert all(line == line.strip() and 0 < columns(line) <= 42 for line in cue.lines)


@given(st.lists(points(), max_size=6))
def test_all_text_is_shown_and_in_order_within_a_segment(found: list[dict[str, Any]]) -> None:
    segments = made(*found)
    cues = cues_of(segments, with_names=False)
    said = Counter(_ink("".join(segment.text for segment in segments)))
    assert Counter(_ink("".join("".join(cue.lines) for cue in cues))) == said
    for segment in segments:
        alone = cues_of([segment], with_names=False)
        assert _ink("".join("".join(cue.lines) for cue in alone)) == _ink(segment.text)


@given(st.lists(points(), max_size=5))
@example([caption(0.0, 1.0, "-- > <"), caption(0.0, 1.0, "1\n2"), caption(2.0, 3.0, "00:00:01,000")])
def test_subrip_is_read_back_by_us_and_by_ffmpeg(found: list[dict[str, Any]]) -> None:
    cues = cues_of(made(*found), with_names=True)
    written = "".join(srt(cues))
    read = read_srt(written)
    assert [(each.start_ms, each.end_ms) for each in read] == [(cue.start_ms, cue.end_ms) for cue in cues]
    assert [len(each.lines) for each in read] == [len(cue.lines) for cue in cues]
    doubled = [each._replace(lines=[line.replace("\u2060", "\u2060\u2060") for line in each.lines]) for each in read]
    assert read_by_ffmpeg(written, "srt") == doubled


@given(st.lists(points(), max_size=5))
def test_webvtt_is_read_back_by_us_and_by_ffmpeg(found: list[dict[str, Any]]) -> None:
    cues = cues_of(made(*found), with_names=False)
    written = "".join(vtt(cues))
    read = read_vtt(written)
    assert read == [Read(cue.start_ms, cue.end_ms, list(cue.lines), cue.speaker) for cue in cues]
    by_ffmpeg = read_by_ffmpeg(written, "webvtt")
    assert [each._replace(speaker=None) for each in read] == [
        each._replace(lines=[line.replace("\\\u2060\u2060", "\\") for line in each.lines]) for each in by_ffmpeg
    ]
