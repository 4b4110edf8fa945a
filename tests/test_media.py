"""Opening, hashing and probing, with files of every kind that people and attackers have."""

import errno
import hashlib
import io
import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.codec import Codec

from stages.errors import MediaError
from stages.limits import AUDIO_CODECS, CAPTION_CODECS, FORMATS, VIDEO_CODECS, decoder_names
from stages.media import content_of, open_media, probe
from stages.options import DecodeOptions
from tests.media_factory import make_audio, make_many_streams, make_video, truncate
from transport.messages import CaptionTrack, MediaInfo

OPTIONS = DecodeOptions()
MEDIA = Path(__file__).parents[2] / "shared" / "media"
ODD_NAMES = [
    b"http:x.mp4",
    b"concat:a.mp4|b.mp4",
    b"-x",
    b"--help",
    b"with space 'and' \"quotes\".mp4",
    b"line\nbreak.mp4",
    b"percent%03d%s.mp4",
    b"what?.mp4",
    b"*.mp4",
    b"caf\xe9.mp4",
    b"\xff\xfe.mp4",
    "sideways movie (rotated 90°).mov".encode(),
    b"pipe:0",
    b"subfile,,start,0,end,9,,:x.mp4",
    b"a" * 251 + b".mp4",
]


def refusal(path: Path | bytes, options: DecodeOptions = OPTIONS) -> MediaError:
    with pytest.raises(MediaError) as caught:
        probe(path if isinstance(path, bytes) else bytes(path), options)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("media") / "video.mp4", seconds=2, audio=True)


def test_probe_tells_what_a_video_holds(video: Path) -> None:
    media = probe(bytes(video), OPTIONS)
    assert media.container == "mov,mp4,m4a,3gp,3g2,mj2"
    assert media.duration_seconds == pytest.approx(2.0, abs=0.1)
    assert media.start_seconds == 0.0
    assert media.video is not None
    assert (media.video.codec, media.video.width, media.video.height) == ("h264", 64, 48)
    assert media.video.average_fps == pytest.approx(25.0)
    assert media.video.duration_seconds == pytest.approx(2.0)
    assert media.video.sample_aspect_ratio == 1.0
    assert media.audio is not None
    assert (media.audio.codec, media.audio.sample_rate, media.audio.channels) == ("aac", 48_000, 1)
    assert media.notes == ()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_is_a_plain_file(name: bytes, video: Path, tmp_path: Path) -> None:
    path = bytes(tmp_path) + b"/" + name
    Path(os.fsdecode(path)).write_bytes(video.read_bytes())
    media = probe(path, OPTIONS)
    assert media.video is not None
    assert content_of(path).sha256 == hashlib.sha256(video.read_bytes()).hexdigest()


def test_content_is_known_by_its_hash_and_hashing_tells_of_its_progress(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(bytes(range(256)) * (3 * 4096 + 1))
    beats: list[None] = []
    content = content_of(bytes(path), lambda: beats.append(None))
    status = path.stat()
    assert content == (hashlib.sha256(path.read_bytes()).hexdigest(), status.st_size, status.st_mtime_ns)
    assert len(beats) == 4


@pytest.mark.parametrize("path", [b"/no/such/file.mp4", b"a\0b.mp4", b"/etc/passwd/x.mp4"])
def test_a_missing_file(path: bytes) -> None:
    assert refusal(path).code == "not-found"
    with pytest.raises(MediaError, match="no such file"):
        content_of(path)


def test_a_directory_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert refusal(tmp_path / "pipe.mp4").code == "not-a-file"
    assert refusal(tmp_path).code == "not-a-file"


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.webm").touch()
    assert refusal(tmp_path / "empty.webm").code == "empty-file"


def test_a_file_without_permission(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*arguments: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)  # root may read everything, so the system itself cannot be asked to refuse
    assert refusal(video).code == "no-permission"


NOT_MEDIA = {
    "text": b"just some words, and more of them\n" * 50,
    "json": b'{"a": [1, 2, 3]}' * 90,
    "html": b"<html><body><video src='x.mp4'></video></body></html>",
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile video.mp4\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n",
    "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n",
    "zip": b"PK\x03\x04" + bytes(2000),
    "pdf": b"%PDF-1.7\n" + bytes(range(256)) * 8,
    "noise": hashlib.shake_128(b"noise").digest(20_000),
    "zeros": bytes(20_000),
    "one byte": b"\0",
}


@pytest.mark.parametrize("content", NOT_MEDIA.values(), ids=NOT_MEDIA)
@pytest.mark.parametrize("ending", ["mp4", "mp3", "m3u8"])
def test_what_is_no_medium_is_refused_whatever_its_name(content: bytes, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"file.{ending}"
    path.write_bytes(content)
    error = refusal(path)
    assert error.code == "not-media"
    assert "docs/formats.md" in error.message


@pytest.mark.parametrize(("codec", "words"), [("mjpeg", "a JPEG picture"), ("png", "a PNG picture"), ("gif", "a GIF")])
def test_pictures_are_refused_by_name(codec: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.mp4"
    with av.open(str(path), "w", format="gif" if codec == "gif" else "image2pipe") as output:
        stream = output.add_stream(codec, rate=1)
        stream.width, stream.height = 32, 32
        stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24", "gif": "rgb8"}[codec]
        output.mux(stream.encode(av.VideoFrame(32, 32, "rgb24")))
        output.mux(stream.encode())
    error = refusal(path)
    assert error.code == "not-media"
    assert words in error.message


def test_playlists_are_not_followed_and_no_other_file_is_opened(video: Path, tmp_path: Path) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{video}\n#EXT-X-ENDLIST\n")
    assert refusal(playlist).code == "not-media"


def test_a_missing_moov(video: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(video.read_bytes())
    error = refusal(truncate(path, 0.5))
    assert error.code == "broken-header"
    assert "MP4" in error.message


def test_a_broken_matroska_header(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", seconds=1)
    path.write_bytes(path.read_bytes()[:40])
    assert refusal(path).code == "broken-header"


@pytest.mark.parametrize("function", [content_of, lambda path: probe(path, OPTIONS)])
def test_a_read_error_is_told(
    function: Callable[[bytes], object], video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("stages.media.io.FileIO", Broken)
    with pytest.raises(MediaError, match="Input/output error") as caught:
        function(bytes(video))
    assert caught.value.code == "read-error"


@pytest.mark.parametrize("count", [65, 66, 67, 1000, 3000])
def test_too_many_streams(count: int, tmp_path: Path) -> None:
    error = refusal(make_many_streams(tmp_path / "many.mkv", count))
    assert error.code == "too-many-streams"
    assert "decode.max_streams" in error.message


def test_as_many_streams_as_are_allowed(tmp_path: Path) -> None:
    media = probe(bytes(make_many_streams(tmp_path / "many.mkv", 64)), OPTIONS)
    assert media.notes[:1] == (
        "64 audio streams: stream 0 (pcm_s16le, 8000 Hz, eng) is indexed, it is the best of them by its header",
    )


def test_too_many_pixels(video: Path) -> None:
    error = refusal(video, DecodeOptions(max_pixels=3071))
    assert error.code == "too-many-pixels"
    assert "64x48" in error.message
    assert "decode.max_pixels" in error.message
    assert probe(bytes(video), DecodeOptions(max_pixels=3072)).video is not None


def test_a_codec_that_is_not_allowed(tmp_path: Path) -> None:
    path = make_video(tmp_path / "magic.avi", codec="magicyuv", pix_fmt="gbrp", seconds=0.2)
    error = refusal(path)
    assert error.code == "codec-not-allowed"
    assert "magicyuv" in error.message


def test_sound_beside_a_codec_that_is_not_allowed_is_indexed_with_a_note(tmp_path: Path) -> None:
    media = probe(
        bytes(make_video(tmp_path / "a.avi", codec="magicyuv", pix_fmt="gbrp", seconds=0.2, audio=True)), OPTIONS
    )
    assert media.video is None
    assert media.audio is not None
    assert media.notes == ("video stream 0 is not indexed: codec magicyuv is not allowed",)


def test_the_default_stream_is_chosen_and_the_choice_told(tmp_path: Path) -> None:
    media = probe(bytes(make_video(tmp_path / "a.mp4", videos=3, default_video=2, seconds=1)), OPTIONS)
    assert media.video is not None
    assert media.video.index == 2
    assert media.notes == ("3 video streams: stream 2 (h264, 64x48) is indexed, it is the default one",)


@pytest.mark.parametrize("name", ["a.mp3", "a.mp4"])
def test_cover_art_is_no_video(name: str, tmp_path: Path) -> None:
    media = probe(bytes(make_audio(tmp_path / name, seconds=1, cover=True)), OPTIONS)
    assert media.video is None
    assert media.audio is not None


@pytest.mark.parametrize("name", ["a.m4a", "a.mp3", "a.wav", "a.flac", "a.aac", "a.mka"])
def test_sound_alone(name: str, tmp_path: Path) -> None:
    media = probe(bytes(make_audio(tmp_path / name, seconds=2)), OPTIONS)
    assert media.video is None
    assert media.audio is not None
    assert media.duration_seconds == pytest.approx(2.0, abs=0.3)


def test_caption_tracks_follow_the_given_ones(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", seconds=1, captions=[(0.0, 1.0, "Hello")])
    sidecar = CaptionTrack(format="srt", language="en", sidecar=b"a.srt")
    media = probe(bytes(path), OPTIONS, (sidecar,))
    assert media.captions == (sidecar, CaptionTrack(format="subrip", language=None, stream_index=1))


def test_a_duration_beyond_belief_is_not_believed(video: Path) -> None:
    media = probe(bytes(video), DecodeOptions(max_hours=0.0001))
    assert media.duration_seconds is None
    assert "decode.max_hours" in media.notes[0]


def test_a_file_that_does_not_tell_its_length(tmp_path: Path) -> None:
    media = probe(bytes(make_video(tmp_path / "a.mkv", seconds=1, format="matroska", live=True)), OPTIONS)
    assert media.duration_seconds is None
    assert media.notes == ("the file does not say how long it is",)


def test_time_begins_where_the_container_begins(tmp_path: Path) -> None:
    media = probe(bytes(make_video(tmp_path / "a.ts", seconds=1, b_frames=2)), OPTIONS)
    assert media.start_seconds == pytest.approx(0.08)  # what two B-frames cost
    assert media.video is not None
    assert media.video.duration_seconds == pytest.approx(1.0, abs=0.1)


def test_wide_pixels_are_told(tmp_path: Path) -> None:
    media = probe(bytes(make_video(tmp_path / "a.mp4", seconds=1, sample_aspect_ratio=Fraction(16, 11))), OPTIONS)
    assert media.video is not None
    assert media.video.sample_aspect_ratio == pytest.approx(16 / 11)


def test_files_are_closed_when_refused(video: Path, tmp_path: Path) -> None:
    (tmp_path / "t.mp4").write_text("text")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path, options in ((tmp_path / "t.mp4", OPTIONS), (tmp_path, OPTIONS), (video, DecodeOptions(max_pixels=1))):
        refusal(path, options)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_errors_of_the_caller_pass_through(video: Path) -> None:
    with pytest.raises(KeyError), open_media(bytes(video), OPTIONS):
        raise KeyError("mine")


def test_every_allowed_name_is_one_that_ffmpeg_knows() -> None:
    decoders = decoder_names().split(",")
    known = {Codec(name, "r").canonical_name for name in decoders}
    assert known == VIDEO_CODECS | AUDIO_CODECS | CAPTION_CODECS
    assert {"h264", "libdav1d", "mp3float", "aac", "vp9", "hevc"} <= set(decoders)
    assert not any(name.endswith(("_qsv", "_cuvid")) for name in decoders)
    assert av.formats_available >= FORMATS - {"m4a", "mj2"}  # aliases within the name of the mov demuxer
    assert not {"hls", "concat", "dash", "image2", "jpeg_pipe", "lavfi", "sdp", "rtsp"} & FORMATS


EXPECTED_REFUSALS = {
    "broken_moov-atom-missing.mp4": "broken-header",
    "empty_zero-bytes.webm": "empty-file",
    "jpeg-picture-named-mp4.mp4": "not-media",
}


@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media are not here")
def test_the_shared_media_are_what_their_manifest_says() -> None:
    for entry in json.loads((MEDIA / "manifest.json").read_text())["files"]:
        path, name = bytes(MEDIA / entry["name"]), entry["name"]
        if name in EXPECTED_REFUSALS:
            assert refusal(path).code == EXPECTED_REFUSALS[name], name
            continue
        assert content_of(path).sha256 == entry["sha256"]
        _check_media(probe(path, OPTIONS), entry)


def _check_media(media: MediaInfo, entry: dict[str, dict[str, object]]) -> None:
    verdict = entry["expect"]["verdict"]
    assert (media.video is None) == (verdict == "ok_audio_only"), entry["name"]
    assert (media.audio is None) == ("no_audio" in str(verdict) or "partial" in str(verdict)), entry["name"]
    if "two-video" in str(entry["name"]):  # its subtitles last longer than what is shown
        assert media.duration_seconds == pytest.approx(13.056)
        assert media.video is not None
        assert media.audio is not None
        assert (media.video.index, media.audio.index, len(media.captions)) == (3, 4, 2)
        return
    assert media.duration_seconds == pytest.approx(entry["probe"]["duration_s"], abs=0.05), entry["name"]
