"""What there is to do for a video that has been probed: its tasks, and what is left out and why. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.config import Config
from engine.ledger_tasks import TaskSpan
from engine.videos import VideoJob
from stages.captions import choose_track
from stages.spans import spans_of
from transport.messages import (
    AudioResume,
    CaptionTrack,
    DecodeAudio,
    DecodeFrames,
    FrameFormat,
    MediaInfo,
    Message,
    TaskKey,
)

MakeMessage = Callable[[TaskKey, AudioResume | None], Message]


@dataclass(frozen=True, slots=True)
class Plan:
    """One task to be done; `make` builds its message for an attempt."""

    span: TaskSpan
    make: MakeMessage


def plan(job: VideoJob, frame_format: FrameFormat | None, config: Config) -> list[Plan]:
    """The tasks of a probed video: its sound track first, then its spans of frames. Adds notes to the job."""
    media = job.media
    assert media is not None
    job.notes.extend(media.notes)
    duration = media.duration_seconds or 0.0
    return [*_audio(job, media, duration, config), *_frames(job, media, duration, frame_format, config)]


def _frames(
    job: VideoJob, media: MediaInfo, duration: float, frame_format: FrameFormat | None, config: Config
) -> list[Plan]:
    if media.video is None:
        job.notes.append("no video stream: no frames")
        return []
    if frame_format is None:
        job.notes.append('models.image = "off": no frames')
        return []
    spans = spans_of(media, config.decode)
    return [_span(job, media, start, end, duration, frame_format) for start, end in spans]


def _span(
    job: VideoJob, media: MediaInfo, start: float, end: float | None, duration: float, frame_format: FrameFormat
) -> Plan:
    video_id = job.video_id
    assert video_id is not None

    def make(key: TaskKey, resume: AudioResume | None) -> Message:
        return DecodeFrames(
            key=key,
            path=job.path,
            shown_path=job.shown_path,
            video_id=video_id,
            media=media,
            start_seconds=start,
            end_seconds=end,
            format=frame_format,
        )

    return Plan(TaskSpan("frames", start, end if end is not None else max(duration, start)), make)


def _audio(job: VideoJob, media: MediaInfo, duration: float, config: Config) -> list[Plan]:
    models, video_id = config.models, job.video_id
    assert video_id is not None
    wanted = config.speech.captions == "prefer" and models.text != "off"
    captions = choose_track(media.captions, config.speech) if wanted else None
    transcribe = models.speech != "off"
    voices = models.voice != "off"
    job.notes.extend(_left_out(media, config))
    if captions is not None:
        job.notes.append(f"captions: {describe_track(captions)}; where it has no cue, speech is transcribed")
    if media.audio is None:
        job.notes.append("no audio stream: no speech")
    if captions is None and (media.audio is None or not (transcribe or voices)):
        return []

    def make(key: TaskKey, resume: AudioResume | None) -> Message:
        return DecodeAudio(
            key=key,
            path=job.path,
            shown_path=job.shown_path,
            video_id=video_id,
            media=media,
            captions=captions,
            transcribe=transcribe,
            voices=voices,
            resume=resume,
        )

    return [Plan(TaskSpan("audio", 0.0, duration), make)]


def _left_out(media: MediaInfo, config: Config) -> list[str]:
    if media.audio is None:
        return []
    kinds = (("speech", "nothing is transcribed"), ("text", "no text vectors"), ("voice", "no voice vectors"))
    return [f'models.{role} = "off": {what}' for role, what in kinds if getattr(config.models, role) == "off"]


def describe_track(track: CaptionTrack) -> str:
    """A caption track in a few words."""
    where = f"stream {track.stream_index}" if track.sidecar is None else "the file beside it"
    return f"{where} ({track.format}, {track.language or 'language not given'})"
