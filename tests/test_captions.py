"""Captions: which files belong to a medium, which track is read, and what becomes of its cues."""

import io
import os
from fractions import Fraction
from pathlib import Path

import av
import pytest

from stages import captions
from stages.captions import CaptionCue, choose_track, find_sidecars, plain_text, read_captions
from stages.errors import MediaError
from stages.languages import same_language, short_code
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions
from stages.sidecar import MAX_BYTES, decode_text
from tests.audio_factory import tone, write_sound
from transport.messages import CaptionTrack, Gap, MediaInfo

MEDIA = Path(__file__).parents[2] / "shared" / "media"
NASA = MEDIA / "webb-telescope-nasa_two-video-two-audio-two-subtitle-streams.mp4"
OPTIONS = DecodeOptions()


def medium(duration_seconds: float | None = 60.0, start_seconds: float = 0.0) -> MediaInfo:
    return MediaInfo(
        container="x", duration_seconds=duration_seconds, start_seconds=start_seconds, video=None, audio=None
    )


def sidecar(path: Path, text: str | bytes, format_name: str) -> list[CaptionCue | Gap]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    track = CaptionTrack(format=format_name, language="en", sidecar=os.fsencode(path))
    return list(read_captions(b"unused", track, medium(), OPTIONS))


def cues(items: list[CaptionCue | Gap]) -> list[tuple[float, float, str]]:
    return [(item.start_seconds, item.end_seconds, item.text) for item in items if isinstance(item, CaptionCue)]


def reasons(items: list[CaptionCue | Gap]) -> list[tuple[float, str]]:
    return [(item.start_seconds, item.reason.partition(":")[0]) for item in items if isinstance(item, Gap)]


# --- finding --------------------------------------------------------------------------------------------------------


def test_sidecars_of_a_medium_those_without_language_first(tmp_path: Path) -> None:
    names = ["film.srt", "film.en.VTT", "film.pt-BR.srt", "film.mp4.ass", "film.fr.sdh.srt"]
    others = ["film.en.forced.srt", "film.txt", "film.part2.srt", "film2.srt", "other.srt", "film"]
    for name in names + others:
        (tmp_path / name).write_text("x")
    (tmp_path / "film.de.srt").mkdir()
    (tmp_path / "film.es.srt").write_text("")
    (tmp_path / "film.nl.srt").symlink_to(tmp_path / "nowhere")
    with (tmp_path / "film.it.srt").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    found = find_sidecars(os.fsencode(tmp_path / "film.mp4"))
    assert [(Path(os.fsdecode(track.sidecar or b"")).name, track.format, track.language) for track in found] == [
        ("film.mp4.ass", "ass", None),
        ("film.srt", "subrip", None),
        ("film.en.VTT", "webvtt", "en"),
        ("film.fr.sdh.srt", "subrip", "fr"),
        ("film.pt-BR.srt", "subrip", "pt-br"),
    ]


def test_names_with_any_bytes_and_directories_that_are_not_there(tmp_path: Path) -> None:
    base = os.fsencode(tmp_path) + b"/odd \xff\n%20'name"
    Path(os.fsdecode(base + b".en.srt")).write_bytes(b"1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    (track,) = find_sidecars(base + b".mkv")
    assert track.sidecar == base + b".en.srt"
    assert cues(list(read_captions(base, track, medium(), OPTIONS))) == [(1.0, 2.0, "hello")]
    assert find_sidecars(os.fsencode(tmp_path / "gone" / "film.mp4")) == ()


# --- choosing -------------------------------------------------------------------------------------------------------


def track(language: str | None, file: bool = False, format_name: str = "subrip") -> CaptionTrack:
    where = {"sidecar": b"x.srt"} if file else {"stream_index": 3}
    return CaptionTrack(format=format_name, language=language, **where)


def test_the_language_asked_for_then_a_file_then_the_first() -> None:
    english, german, french = track("eng"), track("de", file=True), track("fre")
    assert choose_track((english, french), SpeechOptions()) == english
    assert choose_track((english, german), SpeechOptions()) == german
    assert choose_track((german, english), SpeechOptions(caption_language="en")) == english
    assert choose_track((english, french), SpeechOptions(caption_language="fr-CA")) == french
    assert choose_track((english, german), SpeechOptions(caption_language="ja")) == german
    assert choose_track((track("en", format_name="hdmv_pgs_subtitle"),), SpeechOptions()) is None
    assert choose_track((), SpeechOptions()) is None


def test_language_codes() -> None:
    assert [short_code(code) for code in ("ger", "deu", "de-AT", "EN", "zh_Hant", "xx")] == [
        "de",
        "de",
        "de",
        "en",
        "zh",
        "xx",
    ]
    assert same_language("chi", "zh-Hans")
    assert not same_language(None, None)


# --- reading files --------------------------------------------------------------------------------------------------

SRT = """1
00:00:01,000 --> 00:00:03,500
<i>Hello</i> {\\an8}there &amp; <font color="red">you</font>
second   line

2
00:00:02,000 --> 00:00:03,000
overlapping

3
00:00:02,500 --> 00:00:04,000
overlapping

4
00:00:09,000 --> 00:00:05,000
backwards

5
00:00:10,000 --> 00:00:10,000
no time

6
00:00:11,000 --> 00:00:12,000


7
00:00:59,000 --> 00:01:02,000
a little late

8
99:00:00,000 --> 99:00:01,000
far behind the end
"""


def test_subrip_keeps_what_is_good_and_tells_what_is_not(tmp_path: Path) -> None:
    items = sidecar(tmp_path / "a.srt", SRT, "subrip")
    assert cues(items) == [
        (1.0, 3.5, "Hello there & you second line"),
        (2.0, 3.0, "overlapping"),
        (2.5, 4.0, "overlapping"),
        (59.0, 62.0, "a little late"),
    ]
    assert reasons(items) == [(9.0, "captions-time"), (10.0, "captions-time"), (356_400.0, "captions-outside")]
    assert {item.language for item in items if isinstance(item, CaptionCue)} == {"en"}


def test_webvtt(tmp_path: Path) -> None:
    text = (
        "WEBVTT\nKind: captions\n\nNOTE nothing\n\n00:01.000 --> 00:03.500 align:start position:0%\n"
        "<v Bob>Hello <c.yellow>there</c> &amp;<00:02.000><c> you</c>\n\n00:09.000 --> 00:05.000\nbackwards\n"
    )
    items = sidecar(tmp_path / "a.vtt", text, "webvtt")
    assert cues(items) == [(1.0, 3.5, "Hello there & you")]
    assert reasons(items) == [(9.0, "captions-time")]


def test_ass(tmp_path: Path) -> None:
    text = (
        "[Script Info]\nScriptType: v4.00+\n\n[Events]\n"
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        "Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\b1}Bold{\\b0}, {no}hello\\Nnew\\hline{\\p1}m 0{\\p0}\n"
        "Comment: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,not said\n"
        "Dialogue: 0,0:00:05.00,0:00:04.00,Default,,0,0,0,,backwards\n"
    )
    items = sidecar(tmp_path / "a.ass", text, "ass")
    assert cues(items) == [(1.0, 2.5, "Bold, hello new line")]
    assert reasons(items) == [(5.0, "captions-time")]


def test_clocks_that_are_no_numbers_do_not_stop_the_rest(tmp_path: Path) -> None:
    text = "1\n00:00:0.1.2 --> 00:00:02,000\nbad\n\n2\n00:00:03,000 --> 00:00:04,000\ngood\n"
    assert (3.0, 4.0, "good") in cues(sidecar(tmp_path / "a.srt", text, "subrip"))


def test_a_cue_of_a_whole_book_is_a_gap(tmp_path: Path) -> None:
    items = sidecar(tmp_path / "a.srt", f"1\n00:00:01,000 --> 00:00:02,000\n{'word ' * 2000}\n", "subrip")
    assert reasons(items) == [(1.0, "captions-too-long"), (0.0, "captions-empty")]


@pytest.mark.parametrize(
    ("format_name", "text"), [("subrip", "no captions at all"), ("webvtt", "WEBVTT\n"), ("ass", "x")]
)
def test_a_track_without_cues_is_a_gap_over_the_whole_medium(tmp_path: Path, format_name: str, text: str) -> None:
    assert sidecar(tmp_path / "a", text, format_name) == [
        Gap(
            start_seconds=0.0,
            end_seconds=60.0,
            reason="captions-empty: the caption track has no usable cue",
        )
    ]


def test_captions_that_cannot_be_read_are_one_clear_line(tmp_path: Path) -> None:
    gone = CaptionTrack(format="subrip", language=None, sidecar=os.fsencode(tmp_path / "gone.srt"))
    with pytest.raises(MediaError, match=r"the caption file cannot be read \(No such file"):
        next(read_captions(b"", gone, medium(), OPTIONS))
    with pytest.raises(MediaError, match="larger than 16 MB"):
        sidecar(tmp_path / "a.srt", b"x" * (MAX_BYTES + 1), "subrip")
    with pytest.raises(MediaError, match="not text in any encoding known here"):
        sidecar(tmp_path / "b.srt", bytes(range(256)) * 8, "subrip")


SENTENCES = {
    "utf-8": "Ça marche – 日本語, привет",
    "utf-8-sig": "Ça marche – 日本語, привет",
    "utf-16": "Ça marche – 日本語, привет",
    "utf-16-le": "Nothing but plain English letters here",
    "utf-16-be": "Nothing but plain English letters here",
    "cp1252": "Où est passée la clé ? Ça fait déjà très longtemps qu'on l'a égarée.",
    "cp1251": "Привет, как дела? Мы давно не виделись. Пойдём домой, уже поздно.",
    "cp1250": "Cześć, jak się masz? Dawno się nie widzieliśmy. Chodźmy już do domu.",
    "shift_jis": "こんにちは、お元気ですか。今日はとても寒いですね。",
    "gb18030": "你好,最近怎么样?我们好久不见了。我们回家吧,已经很晚了。",
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "".join(f"{n}\n00:00:{n:02},000 --> 00:00:{n:02},900\n{SENTENCES[encoding]}\n\n" for n in range(1, 9))
    items = sidecar(tmp_path / "a.srt", text.encode(encoding), "subrip")
    assert [text for _, _, text in cues(items)] == [SENTENCES[encoding]] * 8


def test_broken_utf_16_keeps_what_can_be_read() -> None:
    assert decode_text("hello".encode("utf-16") + b"\x00") == "hello�"


def test_markup_that_is_none_stays() -> None:
    assert plain_text("1 < 2 and 3 > 2, {so what}", "subrip") == "1 < 2 and 3 > 2, {so what}"
    assert plain_text("&lt;b&gt;", "webvtt") == "&lt;b&gt;"


# --- reading tracks -------------------------------------------------------------------------------------------------


def write_track(path: Path, srt: str, sound: Path) -> Path:
    """A medium with a sound track and the captions of `srt` as its second stream."""
    with (
        av.open(str(sound)) as source,
        av.open(io.BytesIO(srt.encode()), format="srt") as text,
        av.open(str(path), "w") as target,
    ):
        voice = target.add_stream_from_template(source.streams.audio[0])
        words = target.add_stream_from_template(text.streams.subtitles[0])
        packets = [(packet, voice) for packet in source.demux() if packet.size]
        packets += [(packet, words) for packet in text.demux() if packet.size]
        for packet, stream in sorted(packets, key=lambda item: float(item[0].pts * item[0].time_base)):
            packet.stream = stream
            target.mux(packet)
    return path


EMBEDDED = "".join(f"{n}\n00:00:{n:02},000 --> 00:00:{n:02},500\nline {n}\n\n" for n in range(1, 8))


def test_embedded_captions_count_from_the_start_of_the_medium(tmp_path: Path) -> None:
    path = write_track(tmp_path / "a.mkv", EMBEDDED, write_sound(tmp_path / "s.mka", [tone(8.0)]))
    media = probe(os.fsencode(path), OPTIONS)
    (embedded,) = media.captions
    items = list(read_captions(os.fsencode(path), embedded, media, OPTIONS))
    assert cues(items) == [(n, n + 0.5, f"line {n}") for n in range(1, 8)]
    shifted = list(read_captions(os.fsencode(path), embedded, medium(8.0, start_seconds=2.25), OPTIONS))
    assert cues(shifted) == [(max(0.0, n - 2.25), n - 1.75, f"line {n}") for n in range(2, 8)]
    assert reasons(shifted) == [(-1.25, "captions-outside")]


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", [tone(1.0)])
    missing = CaptionTrack(format="subrip", language=None, stream_index=0)
    with pytest.raises(MediaError, match="stream 0 is no longer a caption track"):
        next(read_captions(os.fsencode(path), missing, medium(), OPTIONS))


@pytest.mark.skipif(not NASA.exists(), reason="the developers' media are not here")
def test_real_captions() -> None:
    path = os.fsencode(NASA)
    media = probe(path, OPTIONS)
    chosen = choose_track(media.captions, SpeechOptions())
    assert chosen is not None
    items = list(read_captions(path, chosen, media, OPTIONS))
    assert [text for _, _, text in cues(items)][1] == "space telescope in one of the largest cleanrooms in the world"
    assert [start for start, _, _ in cues(items)] == [0.21, 4.26, 8.35, 12.47]
    assert reasons(items) == []


class FailingContainer:
    """A container that cannot be read."""

    def demux(self, stream: object) -> object:
        raise OSError(5, "Input/output error")


def test_a_track_that_breaks_off_is_a_gap_to_the_end() -> None:
    (gap,) = captions._packets(FailingContainer(), None, 60.0)  # type: ignore[arg-type]
    assert isinstance(gap, Gap)
    assert (gap.start_seconds, gap.end_seconds) == (0.0, 60.0)
    assert gap.reason == "captions-unreadable: the track cannot be read from here on (Input/output error)"


def test_a_cue_that_cannot_be_decoded_and_one_without_time_are_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    packet = av.Packet(b"x")
    packet.time_base = Fraction(1, 1000)
    monkeypatch.setattr(captions, "_text", lambda packet: "words")
    timeless = captions._item(packet, 0.0, None, 60.0)
    packet.pts, packet.duration = 2_000, 500

    def fail(packet: object) -> str:
        raise av.error.InvalidDataError(1094995529, "Invalid data")

    monkeypatch.setattr(captions, "_text", fail)
    undecodable = captions._item(packet, 0.0, None, 60.0)
    assert timeless is not None
    assert undecodable is not None
    assert reasons([timeless, undecodable]) == [(0.0, "captions-time"), (2.0, "captions-undecodable")]


def test_what_ffmpeg_refuses_as_captions_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(captions.DEMUXERS, "subrip", "wav")
    with pytest.raises(MediaError, match="the caption file is not wav"):
        sidecar(tmp_path / "a.srt", SRT, "subrip")
