"""Models behind the real protocol that need no weights: their vectors say which item they were made from."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stages.base import Pcm, Query, SpeechInput, TextSegment, Transcript
from stages.hearing import decide, note_all
from transport.messages import ModelInfo, Word

DIMENSION = 4


class FakeModel:
    """Embeds anything; `fault` may raise for a batch, and for a probe. `moves` lists the parks and restores."""

    precision = "float32"
    outside_torch = False

    def __init__(self, role: Any, max_batch: int = 64, fault: Callable[[Sequence[Any]], None] | None = None) -> None:
        self.info = ModelInfo(
            role=role, name=f"fake-{role}", revision="0", dimension=0 if role == "speech" else DIMENSION, untrained=True
        )
        self.max_batch = max_batch
        self.fault = fault
        self.batches: list[int] = []  # items of each batch that was begun, …
        self.probes: list[int] = []  # … and of each probe
        self.moves: list[str] = []  # keep | drop | restore
        self.parked = False
        self.probe_length = 48_000 if role == "voice" else 0

    def run(self, batch: Sequence[Any]) -> list[Any]:
        self._start(self.batches, batch)
        return [self.result_of(item) for item in batch]

    def probe(self, count: int) -> None:
        """Run `count` of the largest items: frames of 8x8, windows of 3 s, speech of 30 s, sentences."""
        samples = np.zeros(480_000 if self.info.role == "speech" else 48_000, np.int16)
        item: Any = {
            "image": np.zeros((8, 8, 3), np.uint8),
            "speech": SpeechInput(samples, None),
            "text": "a sentence",
            "voice": samples,
        }[self.info.role]
        self._start(self.probes, [item] * count)

    def _start(self, counts: list[int], batch: Sequence[Any]) -> None:
        if self.parked:
            raise RuntimeError("the model is parked: restore() brings it back")
        counts.append(len(batch))
        if self.fault is not None:
            self.fault(batch)

    def park(self, keep: bool) -> None:
        self.moves.append("keep" if keep else "drop")
        self.parked = True

    def restore(self) -> None:
        self.moves.append("restore")
        self.parked = False

    def result_of(self, item: Any) -> Any:
        """A transcript of one phrase a second, or a unit vector that depends on the item."""
        if isinstance(item, SpeechInput):
            return transcript_of(len(item.pcm) / 16_000)
        if isinstance(item, Query):
            return -self.result_of(item.text)  # of another way through the model than a text's
        seed = sum(item.encode()) if isinstance(item, str) else int(np.asarray(item, dtype=np.int64).sum())
        vector = np.array([1.0, seed % 7, seed % 11, seed % 13], dtype=np.float32)
        return vector / np.linalg.norm(vector)

    def length_of(self, item: Any) -> int:
        return len(item) if self.info.role == "voice" else 0

    def bytes_of(self, item: Any) -> int:
        if isinstance(item, SpeechInput):
            return item.pcm.nbytes
        if isinstance(item, Query):
            return len(item.text.encode())
        return len(item.encode()) if isinstance(item, str) else int(item.nbytes)

    def unload(self) -> None:
        self.batches.clear()


class PolyglotModel(FakeModel):
    """A speech model that finds languages as the real one does, of windows that were made by `spoken`."""

    threshold = 0.5

    def __init__(self, fault: Callable[[Sequence[Any]], None] | None = None) -> None:
        super().__init__("speech", fault=fault)

    def run(self, batch: Sequence[Any]) -> list[Any]:
        transcripts = super().run(batch)
        decisions = decide([(item.place, _heard(item.pcm)) for item in batch], self.threshold)
        note_all([item.place for item in batch], decisions)
        return [
            replace(transcript, language=decision.language, language_probability=decision.probability)
            for transcript, decision in zip(transcripts, decisions, strict=True)
        ]


LANGUAGES = ("de", "en", "fr")


def spoken(seconds: float, language: str, probability: float) -> Pcm:
    """A window of sound in which `PolyglotModel` hears this language."""
    pcm = np.zeros(round(seconds * 16_000), np.int16)
    pcm[:2] = LANGUAGES.index(language), round(probability * 1000)
    return pcm


def _heard(pcm: Pcm) -> list[tuple[str, float]]:
    first, probability = LANGUAGES[pcm[0]], float(pcm[1]) / 1000
    return [(first, probability), *((code, 0.0) for code in LANGUAGES if code != first)]


def transcript_of(seconds: float) -> Transcript:
    """One phrase for each whole second."""
    segments = tuple(
        TextSegment(
            start_seconds=float(at),
            end_seconds=at + 1.0,
            text=f" phrase {at}",
            words=(Word(float(at), at + 0.5, "phrase"), Word(at + 0.5, at + 1.0, str(at))),
            average_logprob=-0.1,
            no_speech_probability=0.0,
            compression_ratio=1.0,
        )
        for at in range(int(seconds))
    )
    return Transcript("en", 1.0, segments)


def fake_models(**faults: Callable[[Sequence[Any]], None]) -> dict[str, FakeModel]:
    """One of each role."""
    return {role: FakeModel(role, fault=faults.get(role)) for role in ("image", "speech", "text", "voice")}
