"""What a command asks the running daemon, and the answer: one request, one answer, over a local socket.

    command ──StatusRequest, SearchRequest, PointsRequest, SpeakersRequest, RetryRequest, ForgetRequest──► daemon
    daemon ──Answer──► command

Bodies of answers are plain dictionaries: what the command prints with --json.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta

from transport.messages import Message, Value, VoiceSample

MAX_REQUEST_BYTES = 2 * 1024 * 1024  # of one request; an enrolment holds voice vectors, others need a few hundred bytes
MAX_PAGE_POINTS = 1000  # of stored points, that one answer may hold
MAX_SAMPLES = 32  # clips of one enrolment
MIN_ID_DIGITS = 8  # of a video id, to name a video by
MAX_QUERY_CHARACTERS = 4096  # models read a few hundred words at most
MAX_HITS = 1000  # of each kind, that one search may ask for: the answer is held in memory


class Target(Value, frozen=True):
    """A video, named by its path or by the beginning of its id. Exactly one of the two is given."""

    path: bytes | None = None  # absolute, as the file system spells it
    spelled: bytes | None = None  # the same as it was typed, which is how `ingest` may have noted it
    video_id: Annotated[str, Meta(pattern=f"^[0-9a-f]{{{MIN_ID_DIGITS},64}}$")] | None = None  # its first digits


class StatusRequest(Message, frozen=True):
    """What the daemon is doing."""


class SearchRequest(Message, frozen=True):
    """Find the frames and speech nearest to a query."""

    query: Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_CHARACTERS)]
    within: Literal["frames", "speech", "all"] = "all"
    limit: Annotated[int, Meta(ge=1, le=MAX_HITS)] = 10  # hits of each kind
    speaker: str | None = None
    hybrid: bool = False  # speech: match words too, fused by rank


class RetryRequest(Message, frozen=True):
    """Try failed videos again."""

    targets: tuple[Target, ...]
    everything: bool = False  # all that failed, wholly or in part; then `targets` is empty


class ForgetRequest(Message, frozen=True):
    """Remove all points of videos, and what is known of them."""

    targets: tuple[Target, ...]


class PointsRequest(Message, frozen=True):
    """A page of the stored points of one video, or of all, in the order of ids, without vectors.

    Answered with {"points": [{"id", "payload"}], "following": the first id of the next page, or None}.
    """

    collection: Literal["frames", "speech", "voices", "speakers", "videos"]
    video_id: str | None
    start: str | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE_POINTS)] = 256


class SpeakersRequest(Message, frozen=True):
    """Look at, or change, the enrolled speakers: as transport.messages.SpeakersTask."""

    action: Literal["enroll", "list", "show", "rename", "merge", "remove", "relabel"]
    model: str
    name: str | None = None
    into: str | None = None
    samples: Annotated[tuple[VoiceSample, ...], Meta(max_length=MAX_SAMPLES)] = ()
    now: float = 0.0


class Answer(Message, frozen=True):
    """The answer to any request."""

    body: dict[str, Any] | None  # None: it failed, and `code` and `message` say why
    code: str = ""
    message: str = ""
    usage: bool = False  # the request itself, or a setting, is wrong: the command exits with 2


Request = StatusRequest | SearchRequest | PointsRequest | SpeakersRequest | RetryRequest | ForgetRequest
