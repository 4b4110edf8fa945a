"""Results of models as points: ids, payloads, vectors. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.jobs import Job
from stages.base import Model, TextSegment, Transcript, Vector
from stages.store import FRAMES, SPEECH, VOICES, point_id
from transport.codec import spec_of
from transport.messages import Caption, Points, Transcribed

COLLECTION_OF = {"image": FRAMES, "text": SPEECH, "voice": VOICES}
TRANSLATED = " (translation)"  # behind the label of the speech model


def points_message(
    role: str, pairs: Sequence[tuple[Job, Vector]], models: Mapping[str, Model]
) -> tuple[Points, NDArray[np.float16]]:
    """Points of one attempt: the message, and the vectors as float16 [n, dimension].

    float16 halves the wire and keeps the cosine of unit vectors to better than 1e-6.
    """
    vectors = np.stack([vector for _, vector in pairs]).astype(np.float16)
    jobs = [job for job, _ in pairs]
    message = Points(
        key=jobs[0].attempt.key,
        collection=COLLECTION_OF[role],
        vector=role,
        ids=tuple(_id_of(job, models) for job in jobs),
        payloads=tuple(_payload_of(job, models) for job in jobs),
        array=spec_of(vectors),
    )
    return message, vectors


def speech_payload(segment: TextSegment, transcript: Transcript, window_start_seconds: float) -> dict[str, Any]:
    """What a transcribed segment adds to its point. Times become times of the medium."""
    return {
        "text": segment.text.strip(),
        "language": transcript.language,
        **({"spoken_language": transcript.spoken_language} if transcript.translated_from is not None else {}),
        "source": "asr",
        "words": [
            {
                "start_seconds": round(window_start_seconds + word.start_seconds, 3),
                "end_seconds": round(window_start_seconds + word.end_seconds, 3),
                "text": word.text,
            }
            for word in segment.words
        ],
        **({"doubts": list(transcript.doubts)} if transcript.doubts else {}),
    }


def _text_by(job: Job, models: Mapping[str, Model]) -> str | None:
    """Who wrote the words of a text: the speech model, in its own language or in English, or people; None for other
    points. A translation and a transcript of one sound are two things, and can both be stored.
    """
    if job.role != "text":
        return None
    if isinstance(job.source, Caption):
        return "captions"
    return models["speech"].info.label + (TRANSLATED if "spoken_language" in job.payload else "")


def transcribed(job: Job, transcript: Transcript, models: Mapping[str, Model]) -> Transcribed:
    """Where in the store the points of a window's transcript belong, before there are any."""
    translated = transcript.translated_from is not None
    return Transcribed(
        video_id=job.attempt.start.video_id,
        model=models["text"].info.label,
        text_by=models["speech"].info.label + (TRANSLATED if translated else ""),
        start_seconds=round(job.start_seconds, 6),  # as in payloads
        end_seconds=round(job.end_seconds, 6),
        ids=(),
    )


def _id_of(job: Job, models: Mapping[str, Model]) -> str:
    """Every model that had a part in the point is in its id: other models give other points."""
    makers = [_text_by(job, models), models[job.role].info.label]
    return point_id(job.attempt.start.video_id, job.role, " + ".join(filter(None, makers)), job.position)


def _payload_of(job: Job, models: Mapping[str, Model]) -> dict[str, Any]:
    text_by = _text_by(job, models)
    return {
        "video_id": job.attempt.start.video_id,
        "path": job.attempt.start.shown_path,
        "start_seconds": round(job.start_seconds, 6),
        "end_seconds": round(job.end_seconds, 6),
        "model": models[job.role].info.label,
        **({"text_by": text_by} if text_by is not None else {}),
        **job.payload,
    }
