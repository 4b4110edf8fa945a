"""A decoder's tasks in the trace."""

from engine.files import shown
from engine.trace import NoTrace
from transport.messages import DecodeAudio, DecodeFrames, Message, Probe


def begin_task(trace: NoTrace, message: Message) -> None:
    """A task begins. Handed over at once: should this process die of it, it is known what it died of."""
    if not trace.enabled:
        return
    match message:
        case Probe(key=key, path=path):
            trace.begin("probe", task=key.task_id, attempt=key.attempt, path=shown(path))
        case DecodeFrames(key=key, shown_path=path, start_seconds=start, end_seconds=end):
            span = {"from s": start, "to s": end}
            trace.begin("frames", task=key.task_id, attempt=key.attempt, path=path, **span)
        case DecodeAudio(key=key, shown_path=path, resume=resume):
            place = {"from s": resume.seconds if resume is not None else 0.0}
            trace.begin("sound", task=key.task_id, attempt=key.attempt, path=path, **place)
    trace.flush()
