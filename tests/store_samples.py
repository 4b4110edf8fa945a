"""Points to store, made up but always the same, and what several test modules of the store share."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.errors import StoreError
from stages.store import StoredPoint, frames_spec, point_id, speech_spec, videos_spec, voices_spec

DIMENSION = 16
SPECS = [frames_spec(DIMENSION), speech_spec(DIMENSION), voices_spec(8), videos_spec()]
TEXTS = ["the quick brown fox", "a ferry to Zanzibar leaves at noon", "noon is when the fox sleeps"]


def vectors(n: int, dimension: int = DIMENSION, seed: int = 0) -> NDArray[np.float16]:
    return np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float16)


def frames(n: int, video: str = "v1", seed: int = 0) -> list[StoredPoint]:
    """n frames, one a second."""
    return [
        StoredPoint(
            point_id(video, "frames", "m", i),
            "frames",
            {"video_id": video, "path": f"/films/{video} ü.mp4", "start_seconds": float(i), "end_seconds": i + 1.0},
            {"image": row},
        )
        for i, row in enumerate(vectors(n, seed=seed))
    ]


def speech(texts: list[str], language: str = "en") -> list[StoredPoint]:
    rows = vectors(len(texts), seed=len(language))
    return [
        StoredPoint(
            point_id("v1", "speech", language, i),
            "speech",
            {
                "video_id": "v1",
                "start_seconds": 5.0 * i,
                "text": text,
                "language": language,
                "words": [[0.1, 0.4, "a"]],
            },
            {"text": row},
        )
        for i, (text, row) in enumerate(zip(texts, rows, strict=True))
    ]


def normalised(row: Any) -> NDArray[np.float32]:
    values = np.asarray(row, dtype=np.float32)
    return values / np.float32(np.linalg.norm(values))


def code_of(error: pytest.ExceptionInfo[StoreError]) -> str:
    assert "\n" not in error.value.message
    return error.value.code
