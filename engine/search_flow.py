"""Searches that the daemon answers: the engine makes vectors of the query, the consumer looks them up. Pure.

    SearchRequest ─► EmbedQuery ─► QueryVectors ─► SearchStore, one for each kind ─► StoreHits ─► answer

Messages and time go in; `take` gives what is to be sent, and the answers that are ready.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.errors import ConfigError
from stages.errors import SluiceError
from stages.store import FRAMES, SPEECH
from transport.messages import EmbedQuery, FoundPoint, QueryVectors, SearchStore, StoreHits
from transport.requests import SearchRequest

TIMEOUT_SECONDS = 30.0
ROLE_OF: dict[str, Literal["image", "text"]] = {FRAMES: "image", SPEECH: "text"}  # collection: model, and vector name
KIND_OF = {FRAMES: "frame", SPEECH: "speech"}


def shown_hit(collection: str, score: float, payload: Mapping[str, Any]) -> dict[str, Any]:
    """A hit as `search --json` shows it."""
    return {
        "score": round(score, 6),
        "kind": KIND_OF[collection],
        "video_id": payload["video_id"],
        "path": payload["path"],
        "start_seconds": payload["start_seconds"],
        "end_seconds": payload["end_seconds"],
        "text": payload.get("text"),
        "source": payload.get("source"),
        "speaker": payload.get("speaker"),
    }


def collections_of(within: str, roles: set[str]) -> list[str]:
    """What to search with the models that there are. within: frames | speech | all.

    Raises:
        ConfigError: the model for what was asked for by name is off.
    """
    wanted = [name for name in (FRAMES, SPEECH) if within in (name, "all")]
    if within != "all" and ROLE_OF[within] not in roles:
        raise ConfigError("model-off", f'models.{ROLE_OF[within]} = "off": there is nothing to search {within} with')
    return [name for name in wanted if ROLE_OF[name] in roles]


@dataclass(slots=True)
class _Search:
    """One search under way."""

    client: bytes
    request: SearchRequest
    until_seconds: float
    models: dict[str, str]  # collection → label of the model that searches it
    question: EmbedQuery | None = None  # the engine has not answered it yet
    lookups: dict[int, SearchStore] = field(default_factory=dict)  # the consumer has not answered these yet
    found: dict[str, tuple[FoundPoint, ...]] = field(default_factory=dict)  # by collection

    @property
    def waits_for(self) -> str:
        return "engine" if self.question is not None else "consumer"

    def body(self) -> dict[str, Any]:
        # Scores of two models are on two scales: the kinds stand one after the other, each in its own order.
        hits = [shown_hit(name, point.score, point.payload) for name in self.models for point in self.found[name]]
        return {"query": self.request.query, "hits": hits}


@dataclass(slots=True)
class Outgoing:
    """What is to be sent now."""

    to_engine: list[EmbedQuery] = field(default_factory=list)
    to_consumer: list[SearchStore] = field(default_factory=list)
    answers: list[tuple[bytes, dict[str, Any] | SluiceError]] = field(default_factory=list)  # client, body or error


class Searches:
    """All searches under way. Answers that come late, or twice, are ignored."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._next_id = 1
        self._searches: list[_Search] = []
        self._outgoing = Outgoing()

    def take(self) -> Outgoing:
        """What is to be sent since the last call."""
        outgoing, self._outgoing = self._outgoing, Outgoing()
        return outgoing

    def start(
        self, client: bytes, request: SearchRequest, labels: Mapping[str, str] | None, now_seconds: float
    ) -> None:
        """Begin a search. labels: of the models that are loaded, by role; None: they are being loaded yet."""
        try:
            if labels is None:
                raise SluiceError("daemon-starting", "the daemon is still loading its models; ask again in a moment")
            names = collections_of(request.within, set(labels))
        except SluiceError as error:
            self._outgoing.answers.append((client, error))
            return
        models = {name: labels[ROLE_OF[name]] for name in names}
        search = _Search(client, request, now_seconds + self._timeout_seconds, models)
        if not names:
            self._outgoing.answers.append((client, search.body()))
            return
        roles = tuple(ROLE_OF[name] for name in names)
        search.question = EmbedQuery(request=self._new_id(), text=request.query, roles=roles)
        self._outgoing.to_engine.append(search.question)
        self._searches.append(search)

    def heard(self, message: QueryVectors | StoreHits) -> None:
        """The engine or the consumer answers."""
        match message:
            case QueryVectors():
                self._embedded(message)
            case StoreHits():
                self._looked_up(message)

    def expire(self, now_seconds: float) -> None:
        """Give up what has waited too long. Call it now and then."""
        for search in [search for search in self._searches if search.until_seconds <= now_seconds]:
            message = (
                f"the {search.waits_for} did not answer within {self._timeout_seconds:g} s; `status` may tell why, "
                "ask again later"
            )
            self._end(search, SluiceError("search-timeout", message))

    def engine_replaced(self) -> None:
        """Another engine is ready: ask it what the last one did not answer."""
        self._outgoing.to_engine += [search.question for search in self._searches if search.question is not None]

    def consumer_replaced(self) -> None:
        """Another consumer is ready: ask it what the last one did not answer."""
        self._outgoing.to_consumer += [lookup for search in self._searches for lookup in search.lookups.values()]

    # --- inside -------------------------------------------------------------------------------------------------------

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _embedded(self, message: QueryVectors) -> None:
        search = next((each for each in self._searches if _asks(each.question, message.request)), None)
        if search is None:
            return
        if message.error is not None:
            self._end(search, error_of(message.error))
            return
        missing = [name for name in search.models if ROLE_OF[name] not in message.vectors]
        if missing:
            self._end(search, SluiceError("no-vector", f"the engine made no vector to search {missing[0]} with"))
            return
        search.question = None
        for name, label in search.models.items():
            lookup = self._lookup(search.request, name, label, message.vectors[ROLE_OF[name]])
            search.lookups[lookup.request] = lookup
            self._outgoing.to_consumer.append(lookup)

    def _lookup(self, request: SearchRequest, name: str, label: str, vector: tuple[float, ...]) -> SearchStore:
        return SearchStore(
            request=self._new_id(),
            collection=name,
            vector_name=ROLE_OF[name],
            vector=vector,
            limit=request.limit,
            model=label,
            speaker=request.speaker,
            words=request.query if request.hybrid and name == SPEECH else None,
        )

    def _looked_up(self, message: StoreHits) -> None:
        search = next((each for each in self._searches if message.request in each.lookups), None)
        if search is None:
            return
        if message.error is not None:
            self._end(search, error_of(message.error))
            return
        search.found[search.lookups.pop(message.request).collection] = message.hits
        if not search.lookups:
            self._end(search, search.body())

    def _end(self, search: _Search, result: dict[str, Any] | SluiceError) -> None:
        self._searches.remove(search)
        self._outgoing.answers.append((search.client, result))


def _asks(question: EmbedQuery | None, request: int) -> bool:
    return question is not None and question.request == request


def error_of(text: str) -> SluiceError:
    """From "code: message", as the engine and the consumer say what went wrong."""
    code, separator, message = text.partition(": ")
    return SluiceError(code, message) if separator else SluiceError("search-failed", text)
