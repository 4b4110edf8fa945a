"""Captions as a source equal to the sound: of every kind and encoding, inside the medium or beside it, at their times.

What is wrong with single cues is in test_captions.py; docs/sound_input.md is the table of both.
"""

import io
import json
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import av
import pytest
from av.subtitles.subtitle import SubtitleSet

from benches.sample_video import ASS_HEADER, sentences, sound_track
from benches.sample_voice import SAMPLE_RATE as VOICE_RATE
from engine.config import Config
from engine.producer import Decoder
from engine.rundir import endpoints_in
from engine.worker import WorkerSpec
from stages.captions import GUESS_CUES, MAX_CUE_SECONDS, CaptionCue, choose_track, find_sidecars, read_captions
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions
from tests.audio_factory import tone, write_sound
from tests.runs import run_cli, settings_for, stored_points
from transport.messages import Caption, CaptionTrack, DecodeAudio, Gap, MediaInfo, Speech, TaskKey
from transport.sockets import Channel

OPTIONS = DecodeOptions()
MILLISECOND = Fraction(1, 1000)
Cue = tuple[float, float, str]
CUES: list[Cue] = [(n, n + 0.5, f"line {n}, «déjà» & more") for n in range(1, 8)]
SECONDS = 12.0


# --- captions as text -------------------------------------------------------------------------------------------------


def clock(seconds: float, point: str = ".") -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    return f"{hours:02}:{rest // 60_000:02}:{rest // 1000 % 60:02}{point}{rest % 1000:03}"


def srt(cues: Iterable[Cue]) -> str:
    spans = ((clock(start, ","), clock(end, ","), text) for start, end, text in cues)
    return "".join(f"{n}\n{start} --> {end}\n<i>{text}</i>\n\n" for n, (start, end, text) in enumerate(spans, 1))


def vtt(cues: Iterable[Cue]) -> str:
    head = "WEBVTT - a film\n\nSTYLE\n::cue { color: red }\n\nREGION\nid:fred\n\nNOTE two\nlines\n\n"
    lines = (
        f"cue {n}\n{clock(start)} --> {clock(end)} line:0 align:start\n<v Bob>{text.replace('&', '&amp;')}</v>\n\n"
        for n, (start, end, text) in enumerate(cues)
    )
    return head + "".join(lines)


def ass(cues: Iterable[Cue], version: str = "v4.00+") -> str:
    """The cues backwards, as editors leave them. v4.00 is SSA."""
    first, layer = ("Layer", "0") if version == "v4.00+" else ("Marked", "Marked=0")
    head = (
        f"[Script Info]\nScriptType: {version}\n\n[{version.replace('v4.00', 'V4')} Styles]\nFormat: Name, Fontname\n"
        f"Style: Default,Arial\n\n[Events]\n"
        f"Format: {first}, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    )
    lines = [
        f"Dialogue: {layer},{clock(start)[1:-1]},{clock(end)[1:-1]},Default,Bob,0,0,0,,{{\\i1}}{text}{{\\i0}}\n"
        for start, end, text in cues
    ]
    return head + "".join(reversed(lines))


def ssa(cues: Iterable[Cue]) -> str:
    return ass(cues, "v4.00")


KINDS = {"srt": srt, "vtt": vtt, "ass": ass, "ssa": ssa}
DEMUXERS = {"srt": "srt", "vtt": "webvtt", "ass": "ass", "ssa": "ass"}


# --- captions in media ------------------------------------------------------------------------------------------------


def write_medium(
    path: Path,
    tracks: Sequence[tuple[str, str | None]],
    cues: Iterable[Cue] = CUES,
    shift_seconds: float = 0.0,
    default: int | None = None,
    sound: Path | None = None,
) -> Path:
    """Sound (a tone if none is given) and caption tracks (kind, language), all shifted by some seconds."""
    if sound is None:
        codec = "libopus" if path.suffix == ".webm" else "aac"
        sound = write_sound(path.with_suffix(".sound.mka"), [tone(SECONDS, 48_000)], 48_000, codec=codec)
    cues = list(cues)
    with av.open(str(sound)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as output:
        voice = output.add_stream_from_template(source.streams.audio[0])
        packets = [(packet, voice) for packet in source.demux() if packet.size]
        for number, (kind, language) in enumerate(tracks):
            stream, written = _mov_text(output, cues) if kind == "mov_text" else _copied(output, kind, cues)
            stream.metadata["language"] = language or "und"
            if default is not None:
                stream.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
            packets += [(packet, stream) for packet in written]
        for packet, stream in sorted(packets, key=lambda each: float(each[0].pts * each[0].time_base)):
            packet.pts += round(shift_seconds / packet.time_base)
            packet.dts, packet.stream = packet.pts, stream
            output.mux(packet)
    return path


def _copied(output: Any, kind: str, cues: Sequence[Cue]) -> tuple[Any, list[Any]]:
    with av.open(io.BytesIO(KINDS[kind](cues).encode()), format=DEMUXERS[kind]) as text:
        stream = output.add_stream_from_template(text.streams.subtitles[0])
        return stream, [packet for packet in text.demux() if packet.size]


def _mov_text(output: Any, cues: Sequence[Cue]) -> tuple[Any, list[Any]]:
    stream = output.add_stream("mov_text")
    stream.time_base = stream.codec_context.time_base = MILLISECOND
    stream.codec_context.subtitle_header = ASS_HEADER
    packets = []
    for start, end, text in cues:
        ticks, length = round(start * 1000), round((end - start) * 1000)
        event = SubtitleSet.create(f"0,0,Default,,0,0,0,,{text}".encode(), 0, length, pts=ticks)
        packets.append(_timed(stream.codec_context.encode_subtitle(event), start, end))
    return stream, packets


def _timed(packet: Any, start: float, end: float) -> Any:
    packet.time_base = MILLISECOND
    packet.pts = packet.dts = round(start * 1000)
    packet.duration = round((end - start) * 1000)
    return packet


def write_raw(path: Path, codec: str, payloads: Sequence[bytes]) -> Path:
    """A medium whose caption track holds these packets, one a second, half a second each, from 1 s on."""
    sound = write_sound(path.with_suffix(".sound.mka"), [tone(len(payloads) + 2.0, 48_000)], 48_000, codec="aac")
    with av.open(str(sound)) as source, av.open(str(path), "w") as output:
        voice = output.add_stream_from_template(source.streams.audio[0])
        words = _copied(output, "ass", [])[0] if codec == "ass" else output.add_mux_stream(codec)
        words.time_base = MILLISECOND
        packets: list[Any] = [(packet, voice) for packet in source.demux() if packet.size]
        packets += [(_timed(av.Packet(data), n, n + 0.5), words) for n, data in enumerate(payloads, 1)]
        for packet, stream in sorted(packets, key=lambda each: float(each[0].pts * each[0].time_base)):
            packet.stream = stream
            output.mux(packet)
    return path


def read(path: Path, track: CaptionTrack | None = None) -> list[CaptionCue | Gap]:
    """Everything in the first track of a medium, or in another one."""
    media = probe(os.fsencode(path), OPTIONS)
    return list(read_captions(os.fsencode(path), track or media.captions[0], media, OPTIONS))


def beside(path: Path, text: str | bytes, seconds: float = SECONDS) -> list[CaptionCue | Gap]:
    """Everything in a caption file beside a medium of so many seconds."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    (track,) = find_sidecars(os.fsencode(path.with_suffix(".mp4")))
    media = MediaInfo(container="x", duration_seconds=seconds, start_seconds=0.0, video=None, audio=None)
    return list(read_captions(b"unused", track, media, OPTIONS))


def shown(items: Iterable[CaptionCue | Gap]) -> list[Cue]:
    return [(item.start_seconds, item.end_seconds, item.text) for item in items if isinstance(item, CaptionCue)]


def gaps(items: Iterable[CaptionCue | Gap]) -> list[tuple[float, str]]:
    return [(item.start_seconds, item.reason.partition(":")[0]) for item in items if isinstance(item, Gap)]


# --- every kind, at the same times ------------------------------------------------------------------------------------

EMBEDDED = [("a.mkv", kind) for kind in KINDS] + [("a.webm", "vtt"), ("a.mp4", "mov_text"), ("a.mov", "mov_text")]


@pytest.mark.parametrize(("name", "kind"), EMBEDDED)
def test_every_kind_of_embedded_captions_gives_the_same_cues(tmp_path: Path, name: str, kind: str) -> None:
    items = read(write_medium(tmp_path / name, [(kind, "eng")]))
    assert shown(items) == CUES
    assert gaps(items) == []
    assert {item.language for item in items if isinstance(item, CaptionCue)} == {"eng"}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_caption_file_gives_the_same_cues(tmp_path: Path, kind: str, newline: str) -> None:
    items = beside(tmp_path / f"film.{kind}", KINDS[kind](CUES).replace("\n", newline))
    assert shown(items) == CUES
    assert gaps(items) == []


@pytest.mark.parametrize("shift_seconds", [-0.75, 3.25, 100_000.0])
def test_embedded_captions_keep_their_times_wherever_the_medium_begins(tmp_path: Path, shift_seconds: float) -> None:
    path = write_medium(tmp_path / "a.mkv", [("srt", None)], shift_seconds=shift_seconds)
    media = probe(os.fsencode(path), OPTIONS)
    assert media.start_seconds == pytest.approx(shift_seconds, abs=0.05)
    items = read(path)
    assert [text for _, _, text in shown(items)] == [text for _, _, text in CUES]
    starts = [start + media.start_seconds for start, _, _ in shown(items)]
    assert starts == pytest.approx([start + shift_seconds for start, _, _ in CUES], abs=2e-3)
    assert gaps(items) == []


def test_captions_in_mp4_keep_their_times_wherever_the_medium_begins(tmp_path: Path) -> None:
    path = write_medium(tmp_path / "a.mp4", [("mov_text", None)], shift_seconds=3.25)
    begin = probe(os.fsencode(path), OPTIONS).start_seconds
    assert begin == pytest.approx(3.25, abs=0.05)
    assert [start + begin for start, _, _ in shown(read(path))] == pytest.approx([start + 3.25 for start, *_ in CUES])


def test_the_last_cue_of_a_medium_that_begins_before_zero_is_inside(tmp_path: Path) -> None:
    """Matroska's length counts from 0: it is short by what lies before."""
    last = (SECONDS - 0.5, SECONDS - 0.25, "good bye")
    path = write_medium(tmp_path / "a.mkv", [("srt", None)], [last], shift_seconds=-2.0)
    media = probe(os.fsencode(path), OPTIONS)
    assert media.duration_seconds is not None
    assert media.duration_seconds < last[0] - 1
    assert [text for _, _, text in shown(read(path))] == ["good bye"]


# --- several languages ------------------------------------------------------------------------------------------------


def test_of_several_languages_the_one_asked_for_is_read_else_the_default_one(tmp_path: Path) -> None:
    tracks = [("srt", "ger"), ("ass", "fre"), ("vtt", "zxx"), ("srt", None)]
    path = write_medium(tmp_path / "film.mkv", tracks, default=1)
    media = probe(os.fsencode(path), OPTIONS)
    assert [(track.format, track.language) for track in media.captions] == [
        ("ass", "fre"),
        ("subrip", "ger"),
        ("webvtt", "zxx"),
        ("subrip", None),
    ]
    for wanted, language in (("de", "ger"), ("fr-CA", "fre"), ("zxx", "zxx"), ("qaa", "fre"), (None, "fre")):
        chosen = choose_track(media.captions, SpeechOptions(caption_language=wanted))
        assert chosen is not None
        assert chosen.language == language
        assert shown(read(path, chosen)) == CUES


@pytest.mark.parametrize("tag", ["zxx", "qaa", "xx", "mul", "tlh", "x-klingon"])
def test_a_language_that_nobody_knows_is_passed_on_as_it_is(tmp_path: Path, tag: str) -> None:
    items = read(write_medium(tmp_path / "a.mkv", [("srt", tag)]))
    assert {item.language for item in items if isinstance(item, CaptionCue)} == {tag}
    assert shown(items) == CUES
    if len(tag) <= 3:  # what can be the language in a file's name
        (tmp_path / f"film.{tag}.srt").write_text(srt(CUES))
        (track,) = find_sidecars(os.fsencode(tmp_path / "film.mp4"))
        assert track.language == tag


def test_a_file_beside_the_medium_comes_before_what_is_inside_unless_another_language_is_asked_for(
    tmp_path: Path,
) -> None:
    path = write_medium(tmp_path / "film.mkv", [("srt", "eng")])
    (tmp_path / "film.de.ass").write_text(ass(CUES))
    media = probe(os.fsencode(path), OPTIONS, find_sidecars(os.fsencode(path)))
    for wanted, language in ((None, "de"), ("de", "de"), ("en", "eng"), ("fr", "de")):
        chosen = choose_track(media.captions, SpeechOptions(caption_language=wanted))
        assert chosen is not None
        assert chosen.language == language


# --- encodings --------------------------------------------------------------------------------------------------------

SAID = {
    "cp1251": "Привет, как дела? Мы давно не виделись. Пойдём домой, уже поздно.",
    "cp1252": "Où est passée la clé ? Ça fait déjà très longtemps qu'on l'a égarée.",
    "shift_jis": "こんにちは、お元気ですか。今日はとても寒いですね。",
    "euc_jp": "鍵はどこですか。長い間会っていませんね。家に帰りましょう、もう遅いです。",
    "cp949": "열쇠가 어디 있어요? 오랫동안 못 봤네요. 집에 갑시다, 늦었어요.",
    "big5": "鑰匙在哪裡?我們好久不見了。我們回家吧,已經很晚了。",
    "utf-16": "Ça marche – 日本語, привет",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoding", SAID)
def test_files_of_every_kind_may_have_an_old_encoding(tmp_path: Path, kind: str, encoding: str) -> None:
    cues = [(start, end, SAID[encoding]) for start, end, _ in CUES]
    assert shown(beside(tmp_path / f"film.{kind}", KINDS[kind](cues).encode(encoding))) == cues


def packed(text: str, encoding: str, codec: str) -> bytes:
    """A cue as a packet."""
    data = text.encode(encoding)
    if codec == "mov_text":
        return len(data).to_bytes(2, "big") + data
    return b"0,0,Default,,0,0,0,," + data if codec == "ass" else data


@pytest.mark.parametrize("codec", ["subrip", "ass", "webvtt", "mov_text"])
@pytest.mark.parametrize("encoding", ["cp1251", "cp1252", "shift_jis"])
def test_embedded_captions_that_are_not_utf_8_are_read_too(tmp_path: Path, codec: str, encoding: str) -> None:
    """They should be, and FFmpeg takes nothing else."""
    payloads = [packed(text, encoding, codec) for text in ["Hello"] * 3 + [SAID[encoding]] * 4]
    items = read(write_raw(tmp_path / ("a.mp4" if codec == "mov_text" else "a.mkv"), codec, payloads))
    assert [(start, text) for start, _, text in shown(items)] == [
        (n, "Hello" if n < 4 else SAID[encoding]) for n in range(1, 8)
    ]
    assert gaps(items) == []


def test_captions_in_mp4_may_be_utf_8_and_utf_16_by_turns(tmp_path: Path) -> None:
    """As 3GPP TS 26.245 allows: with a mark it is UTF-16, otherwise UTF-8."""
    encodings = ("utf-8", "utf-16", "utf-8", "utf-16")
    items = read(write_raw(tmp_path / "a.mp4", "mov_text", [packed(SAID["utf-16"], e, "mov_text") for e in encodings]))
    assert [text for _, _, text in shown(items)] == [SAID["utf-16"]] * 4


def test_a_long_track_in_an_old_encoding_stays_in_order(tmp_path: Path) -> None:
    """Longer than what is held back for the guess; only every third cue tells that it is not UTF-8."""
    texts = [f"{n} {SAID['cp1251'] if n % 3 == 0 else 'plain'}" for n in range(2 * GUESS_CUES + 50)]
    items = read(write_raw(tmp_path / "a.mkv", "subrip", [text.encode("cp1251") for text in texts]))
    assert [text for _, _, text in shown(items)] == texts


@pytest.mark.parametrize("number", [0, 3])
def test_in_a_track_of_utf_8_what_is_not_is_damage(tmp_path: Path, number: int) -> None:
    payloads = [SAID["cp1252"].encode()] * 5
    payloads[number] = SAID["cp1252"].encode("cp1252")
    items = read(write_raw(tmp_path / "a.mkv", "subrip", payloads))
    assert gaps(items) == [(number + 1.0, "captions-undecodable")]
    assert len(shown(items)) == 4


def test_a_track_in_no_encoding_at_all_is_gaps(tmp_path: Path) -> None:
    items = read(write_raw(tmp_path / "a.mkv", "subrip", [bytes(range(128, 256)) * 8] * 3))
    assert shown(items) == []
    assert [kind for _, kind in gaps(items)] == ["captions-undecodable"] * 3 + ["captions-empty"]


def test_a_cue_that_does_not_fit_into_a_packet_any_more_is_a_gap(tmp_path: Path) -> None:
    """MP4 has 16 bits for its length; in UTF-8 it is longer."""
    data = packed(SAID["cp1251"] * 900, "cp1251", "mov_text")
    items = read(write_raw(tmp_path / "a.mp4", "mov_text", [data, packed("later", "cp1251", "mov_text")]))
    assert len(gaps(items)) == 1
    assert shown(items) == [(2.0, 2.5, "later")]


# --- cues that are wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_cues_that_overlap_are_kept_and_those_that_cannot_be_are_named(tmp_path: Path, kind: str) -> None:
    wrong = [(5.0, 4.0, "backwards"), (6.0, 6.0, "no time"), (100.0, 101.0, "behind the end")]
    right = [(1.0, 3.0, "one"), (2.0, 2.5, "within"), (2.0, 4.0, "across"), (11.0, 14.0, "to the end and on")]
    items = beside(tmp_path / f"film.{kind}", KINDS[kind](sorted(right + wrong)))
    assert sorted(shown(items)) == right
    assert gaps(items) == [(5.0, "captions-time"), (6.0, "captions-time"), (100.0, "captions-outside")]


@pytest.mark.parametrize(("name", "kind"), [("a.mkv", "srt"), ("a.mkv", "ass"), ("a.mkv", "vtt")])
def test_embedded_cues_that_overlap_are_kept(tmp_path: Path, name: str, kind: str) -> None:
    cues = [(1.0, 3.0, "one"), (2.0, 2.5, "within"), (2.25, 4.0, "across")]
    assert shown(read(write_medium(tmp_path / name, [(kind, None)], cues))) == cues


def test_what_is_shown_throughout_a_film_is_no_cue(tmp_path: Path) -> None:
    """It would count as the text of all that is said meanwhile."""
    cues = [(1.0, 5_000.0, "www.example.org"), (2.0, 3.0, "Hello"), (4.0, 4.0 + MAX_CUE_SECONDS, "a long song")]
    items = beside(tmp_path / "film.ass", ass(cues), seconds=4_000.0)
    assert shown(items) == cues[1:]
    assert items[0] == Gap(start_seconds=1.0, end_seconds=4_000.0, reason="captions-too-long: a cue of 4999 seconds")


# --- beside the sound -------------------------------------------------------------------------------------------------


class Recorder(Decoder):
    """A decoder that keeps what it would send."""

    def __init__(self, spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("engine.producer.connect_control", lambda *_: Mock(spec=Channel))
        monkeypatch.setattr("engine.producer.Channel.connect", lambda *_: None)
        super().__init__(spec, None)  # type: ignore[arg-type]
        self.sent: list[Any] = []

    def _send(self, message: Any, array: Any = None) -> None:
        self.sent.append(message)

    def _beat(self) -> None:
        """Nobody listens."""

    def do(self, path: Path) -> list[Any]:
        media = probe(os.fsencode(path), OPTIONS, find_sidecars(os.fsencode(path)))
        task = DecodeAudio(
            key=TaskKey(1, 1),
            path=os.fsencode(path),
            shown_path=str(path),
            video_id="v",
            media=media,
            captions=choose_track(media.captions, SpeechOptions()),
            transcribe=True,
            voices=True,
        )
        self._key = task.key
        self._send_speech(task)
        return self.sent


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """With windows as short as a sentence."""
    config, nowhere = Config(speech=SpeechOptions(window_seconds=5.0)), endpoints_in(Path("/nowhere"))
    return Recorder(WorkerSpec(role="decoder", index=0, generation=1, endpoints=nowhere, config=config), monkeypatch)


TALK_SECONDS = 40.0
SAID_AT = [(said.start_seconds, said.end_seconds) for said in sentences(TALK_SECONDS)]


def talk(path: Path, shift_seconds: float = 0.0) -> Path:
    """Sentences, some seconds apart, by two voices in turn."""
    codec = "mp2" if path.suffix == ".ts" else "aac"
    return write_sound(path, [sound_track(TALK_SECONDS)], VOICE_RATE, codec=codec, shift_seconds=shift_seconds)


@pytest.mark.parametrize(("ending", "shift_seconds"), [(".mp4", 0.0), (".mkv", 1_234.5), (".ts", 60_000.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_where_there_are_captions_the_sound_serves_the_voices_alone(
    tmp_path: Path, recorder: Recorder, kind: str, ending: str, shift_seconds: float
) -> None:
    """A window that a cue touches is not transcribed, all others are, and all are listened to for voices; whatever
    time the medium begins with.
    """
    path = talk(tmp_path / f"film{ending}", shift_seconds)
    start, end = SAID_AT[0]
    (tmp_path / f"film.{kind}").write_text(KINDS[kind]([(start, end, "What they say.")]))
    sent = recorder.do(path)
    captions = [message for message in sent if isinstance(message, Caption)]
    windows = [message for message in sent if isinstance(message, Speech)]
    assert [caption.text for caption in captions] == ["What they say."]
    assert captions[0].start_seconds == pytest.approx(start, abs=0.01)
    assert len(windows) >= 3
    for window in windows:
        touched = window.start_seconds < end and window.end_seconds > start
        assert window.voices
        assert window.transcribe == (not touched)
        assert (window.captioned_seconds > 0) == touched
    assert {window.transcribe for window in windows} == {False, True}


LANGUAGES = {"beside.mp4": "fr", "inside.mkv": "fre", "inside.mp4": "zxx"}


def test_in_a_run_captions_of_every_source_are_searched_and_all_voices_are_stored(
    tmp_path: Path, tiny_models: Any
) -> None:
    """Embedded and beside, in old encodings; of each film every other sentence has a cue."""
    films = tmp_path / "films"
    films.mkdir()
    cues = [(start, end, SAID["cp1252"]) for start, end in SAID_AT[::2]]
    talk(films / "beside.mp4")
    (films / "beside.fr.ssa").write_bytes(ssa(cues).encode("cp1252"))
    write_medium(films / "inside.mkv", [("ass", "fre")], cues, sound=talk(tmp_path / "talk.mkv"))
    write_medium(films / "inside.mp4", [("mov_text", "zxx")], cues, sound=talk(tmp_path / "talk.mp4"))
    settings = settings_for(tiny_models, tmp_path)
    done = run_cli(["ingest", str(films), "--json"], settings)
    assert done.returncode == 0, done.stderr
    rows = {Path(row["path"]).name: row for row in json.loads(done.stdout)["videos"]}
    assert set(rows) == set(LANGUAGES)
    points = list(stored_points(settings).values())
    for name, row in rows.items():
        mine = [point for point in points if Path(point["payload"]["path"]).name == name]
        texts = [point["payload"] for point in mine if point["payload"].get("source") == "captions"]
        assert [text["text"] for text in texts] == [SAID["cp1252"]] * len(cues)
        assert {text["language"] for text in texts} == {LANGUAGES[name]}
        assert row["voice_coverage"] >= 0.95
        voices = [point for point in mine if point["collection"] == "voices"]
        for start, end in SAID_AT:
            assert any(
                voice["payload"]["start_seconds"] < end and voice["payload"]["end_seconds"] > start for voice in voices
            )
