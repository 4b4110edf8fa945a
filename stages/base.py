"""What the engine knows of a model, whatever its role.

| role   | item                                   | result                              |
|--------|----------------------------------------|-------------------------------------|
| image  | uint8 RGB [height, width, 3], or Query | float32 [dimension], unit length    |
| text   | str, or Query                          | float32 [dimension], unit length    |
| voice  | int16 [samples], 16 kHz mono           | float32 [dimension], unit length    |
| speech | SpeechInput                            | Transcript                          |

A batch holds queries or other items, never both. The image model takes queries when its text tower is loaded.

Arrays are NumPy arrays in host memory on both sides; what lies between, on the device, is the model's own affair.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from stages.guards import Doubt
from stages.hearing import Place
from transport.messages import ModelInfo, Word

Pixels = npt.NDArray[np.uint8]  # RGB [height, width, 3]
Pcm = npt.NDArray[np.int16]  # [samples], 16 kHz mono
Vector = npt.NDArray[np.float32]  # [dimension], unit length
Vectors = npt.NDArray[np.float32]  # [n, dimension], rows of unit length

Role = Literal["image", "speech", "text", "voice"]
ROLES: tuple[Role, ...] = ("image", "speech", "text", "voice")


class Identity(NamedTuple):
    """Which weights these are. Made by `stages.registry.identify`, without reading all of them."""

    name: str  # hub id, package name, or directory name
    revision: str  # 12 hexadecimal digits that change when the weights change
    untrained: bool  # made by `models tiny`

    def info(self, role: Role, dimension: int) -> ModelInfo:
        """What a loaded model says of itself; dimension of its vectors, 0 for the speech model."""
        return ModelInfo(
            role=role, name=self.name, revision=self.revision, dimension=dimension, untrained=self.untrained
        )


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for: its vector lies near those of the frames, or texts, that it describes."""

    text: str


@dataclass(frozen=True, slots=True)
class SpeechInput:
    """One window of sound to transcribe."""

    pcm: Pcm  # int16 [samples], 16 kHz mono, at most 30 s
    language: str | None  # ISO 639-1; None: found by the model
    place: Place | None = None  # in its sound track: what lies before it helps to find the language


@dataclass(frozen=True, slots=True)
class TextSegment:
    """One phrase of a transcript. Times are seconds from the start of the window."""

    start_seconds: float
    end_seconds: float
    text: str
    words: tuple[Word, ...]  # times as here: from the start of the window
    average_logprob: float  # mean log probability of the window's tokens
    no_speech_probability: float  # of the window
    compression_ratio: float  # of the window's text under zlib


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in one window."""

    language: str  # of the text, ISO 639-1
    language_probability: float  # of what was spoken
    segments: tuple[TextSegment, ...]  # in order; empty when nothing was said
    translated_from: str | None = None  # what was spoken, where the text is a translation
    temperature: float = 0.0  # at which the text was found
    retries: int = 0  # how often the window was decoded again
    doubts: tuple[Doubt, ...] = ()  # what is wrong with the text all the same
    is_silence: bool = False  # the model takes it for no speech: its text was dropped

    @property
    def spoken_language(self) -> str:
        """ISO 639-1."""
        return self.translated_from or self.language


class Model(Protocol):
    """A loaded model. One thread calls it."""

    @property
    def info(self) -> ModelInfo:
        """Which model this is."""

    @property
    def max_batch(self) -> int:
        """Most items that one `run` takes, whatever memory there is."""

    @property
    def precision(self) -> str:
        """Number format it computes in: float32, float16, int8_float16, …"""

    @property
    def outside_torch(self) -> bool:
        """Whether its device memory comes from elsewhere than torch's allocator, whose statistics then miss it."""

    @property
    def probe_length(self) -> int:
        """`length_of` of the items that `probe` runs: as long as they come."""

    def run(self, batch: Sequence[Any]) -> list[Any]:
        """One result for each item, in order. Raises whatever the library raises; the caller handles out of memory."""

    def probe(self, count: int) -> None:
        """Run a batch of `count` items that take as much memory as any that will come. Raises as `run` does."""

    def length_of(self, item: Any) -> int:
        """What the cost of an item grows with: items of like length waste least padding; 0 where all cost the same.

        The voice model takes only items of equal length in one batch.
        """

    def bytes_of(self, item: Any) -> int:
        """Host bytes that the item holds."""

    def park(self, keep: bool) -> None:
        """Give the device's memory back for a while; `restore` undoes it. The model cannot run meanwhile.

        keep: the weights stay in host memory (pinned, on CUDA); otherwise they are dropped, and read from disk again.
        Raises RuntimeError when the memory was not given back.
        """

    def restore(self) -> None:
        """Be on the device again after `park`. Raises as loading does, out of memory included; it stays parked then."""

    def unload(self) -> None:
        """Give the weights' memory back. The model cannot run afterwards."""
