"""What a decoder says of what it read, as messages. Pure."""

from stages.captions import CaptionCue
from stages.packing import overlap_seconds
from stages.sampling import SampledFrame
from stages.windows import SpeechWindow
from transport.codec import spec_of
from transport.messages import Caption, DecodeAudio, Frame, Gap, Speech, TaskKey

MAX_GAPS = 200  # named one by one for each task; neighbours with one reason are joined before


def frame_message(key: TaskKey, frame: SampledFrame) -> Frame:
    """A sampled frame; its pixels go in frame 1."""
    start_seconds, end_seconds = frame.start_seconds, frame.end_seconds
    return Frame(key=key, start_seconds=start_seconds, end_seconds=end_seconds, array=spec_of(frame.pixels))


def speech_message(task: DecodeAudio, window: SpeechWindow, cues: list[tuple[float, float]]) -> Speech:
    """A window of speech; its samples go in frame 1. What a caption cue touches is not transcribed."""
    captioned_seconds = overlap_seconds(window.speech, cues)
    return Speech(
        key=task.key,
        start_seconds=window.start_seconds,
        end_seconds=window.end_seconds,
        speech=window.speech,
        captioned_seconds=captioned_seconds,
        transcribe=task.transcribe and captioned_seconds == 0.0,
        voices=task.voices,
        array=spec_of(window.pcm),
    )


def caption_message(key: TaskKey, cue: CaptionCue) -> Caption:
    """A caption cue."""
    return Caption(
        key=key, start_seconds=cue.start_seconds, end_seconds=cue.end_seconds, text=cue.text, language=cue.language
    )


def add_gap(gaps: list[Gap], gap: Gap) -> None:
    """Add what could not be sent: joined with the last gap where it meets that for the same reason, or where there are
    too many to name one by one.
    """
    last = gaps[-1] if gaps else None
    if last is not None and (last.reason == gap.reason or len(gaps) >= MAX_GAPS):
        reason = last.reason if last.reason == gap.reason else "many: too many gaps to name one by one"
        start, end = min(last.start_seconds, gap.start_seconds), max(last.end_seconds, gap.end_seconds)
        contiguous = gap.start_seconds <= last.end_seconds
        if contiguous or len(gaps) >= MAX_GAPS:
            gaps[-1] = Gap(start_seconds=start, end_seconds=end, reason=reason)
            return
    gaps.append(gap)
