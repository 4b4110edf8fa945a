"""From a message to jobs: what a decoder sent, or the speech model heard, as items for the models. Pure.

One window of sound becomes one job for the speech model and several for the voice model; a transcript becomes jobs for
the text model.
"""

from typing import Any

from engine.jobs import Attempt, Buffer, Job, Window, microseconds
from engine.points import speech_payload
from stages.base import Pcm, SpeechInput, Transcript
from stages.hearing import Place
from stages.options import VoiceOptions
from stages.windows import voice_windows
from transport.codec import as_array
from transport.messages import Caption, Frame, Speech

SAMPLE_RATE = 16_000


def jobs_of(
    attempt: Attempt, message: Frame | Speech | Caption, payload: memoryview, buffer: Buffer, voice: VoiceOptions
) -> list[Job]:
    """The jobs that a decoder's message asks for; their items lie in `payload`, frame 1 of the message.

    Raises:
        WireError: the payload is not what the message says.
    """
    match message:
        case Frame():
            position = microseconds(message.start_seconds)
            pixels = as_array(message.array, payload)
            return [Job("image", attempt, pixels, *message_span(message), message, buffer, None, position)]
        case Speech():
            return _speech_jobs(attempt, message, as_array(message.array, payload), buffer, voice)
        case Caption():
            return [_caption_job(attempt, message, buffer)]


def _caption_job(attempt: Attempt, message: Caption, buffer: Buffer) -> Job:
    attempt.cues.count += 1
    facts: dict[str, Any] = {"text": message.text, "language": message.language, "source": "captions", "words": []}
    position = f"caption:{attempt.cues.count}"
    return Job("text", attempt, message.text, *message_span(message), message, buffer, None, position, facts)


def _speech_jobs(attempt: Attempt, message: Speech, pcm: Pcm, buffer: Buffer, voice: VoiceOptions) -> list[Job]:
    window = Window(message)
    attempt.speech_seconds += window.seconds
    attempt.captioned_seconds += message.captioned_seconds
    jobs: list[Job] = []
    if message.transcribe:
        item = SpeechInput(pcm, None, Place(attempt.log, attempt.log.add(), window.seconds))
        jobs.append(Job("speech", attempt, item, *message_span(message), message, buffer, window))
    if message.voices:
        jobs += _voice_jobs(attempt, window, pcm, buffer, voice)
    return jobs


def _voice_jobs(attempt: Attempt, window: Window, pcm: Pcm, buffer: Buffer, voice: VoiceOptions) -> list[Job]:
    message = window.speech
    attempt.voiced_seconds += sum(end - start for start, end in message.speech if end - start >= voice.min_seconds)
    jobs: list[Job] = []
    for start, end in voice_windows(message.speech, voice):
        first = round((start - message.start_seconds) * SAMPLE_RATE)
        samples = pcm[first : first + round((end - start) * SAMPLE_RATE)]
        position = f"{microseconds(start)}-{microseconds(end)}"
        jobs.append(Job("voice", attempt, samples, start, end, message, buffer, window, position))
    window.pending_voices = len(jobs)
    return jobs


def text_jobs(job: Job, transcript: Transcript) -> list[Job]:
    """The phrases that the speech model heard in a window, as jobs for the text model; none when it heard no words."""
    assert job.window is not None
    jobs: list[Job] = []
    for index, segment in enumerate(transcript.segments):
        text = segment.text.strip()
        if not text:
            continue
        start, end = job.start_seconds + segment.start_seconds, job.start_seconds + segment.end_seconds
        facts = speech_payload(segment, transcript, job.start_seconds)
        position = f"{microseconds(job.start_seconds)}:{index}"
        jobs.append(Job("text", job.attempt, text, start, end, job.source, None, job.window, position, facts))
    job.window.pending_texts = len(jobs)
    job.attempt.transcribed(transcript, job.window.seconds if jobs else 0.0)
    return jobs


def message_span(message: Frame | Speech | Caption) -> tuple[float, float]:
    """When it begins and ends, in seconds of the medium."""
    return message.start_seconds, message.end_seconds
