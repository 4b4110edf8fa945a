"""Which stage holds a run up, and which setting to turn next: from shares of time to a verdict. Pure.

    decoders ══ credit ══► engine (one loop, a model at a time) ══ results ══► store        all of it on some cores

The bottleneck is the stage that works the largest share of its time: those before it wait for it, those behind it for
more. Of two that work as much the later one is named, for it is what the results come out of.
On the CPU all stages share the cores: when these are all busy, the one that uses most of them is to be made cheaper.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from engine.config import Config

# What a verdict may name. Models go by their roles; "ledger" holds acknowledgements up, "none" did nothing.
STAGES = (
    "none", "start", "store", "ledger", "models", "processor", "engine", "image", "speech", "text", "voice", "decoders",
    "credit", "files", "balanced",
)  # fmt: skip
STARTING = 0.5  # share of the run that the start took, from which on nothing else is worth a word
BLOCKED = 0.3  # of the engine's time without room for results
WRITING = 0.5  # of the consumer's time: a store that takes less is not what results wait for
CHANGING = 0.25  # of the engine's time in which models come and go
BUSY = 0.75  # of its time: a stage that works less holds nobody up
NEAR = 0.05  # shares that differ by less are the same
SATURATED = 0.9  # of the cores
STARVED = 0.4  # of the time: a stage that waits so long for another


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What one model did."""

    role: str
    busy: float = 0.0  # share of the engine's time
    items_per_second: float = 0.0  # of wall time
    queued_items: float = 0.0  # on average


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What every stage did in some stretch of time. Shares are parts of one."""

    seconds: float
    start_seconds: float = 0.0  # before it, until the models were loaded
    decoded_at_start: int = 0  # items, in that time
    decode: float = 0.0  # the three parts of the decoders' time, all of them together
    credit: float = 0.0
    idle: float = 0.0
    decoders: int = 1
    decoded_per_second: float = 0.0  # items
    models: tuple[ModelUse, ...] = ()
    waiting: float = 0.0  # parts of the engine's time
    blocked: float = 0.0
    changing: float = 0.0
    host_fill: float = 0.0  # of engine.host_mb, on average
    results_fill: float = 0.0  # of engine.results_mb
    writing: float = 0.0  # part of the consumer's time
    points_per_second: float = 0.0
    store_away: str = ""  # why, if it is
    cores: int = 1  # of the machine that we may use
    cores_used: Mapping[str, float] = field(default_factory=dict)  # how many of them, on average, by role
    cores_busy: float = 0.0  # with whatever, ours and other programs'
    device: str = "cpu"

    @property
    def engine(self) -> float:
        """Share of the engine's time in which it does something."""
        return max(0.0, 1.0 - self.waiting - self.blocked)

    @property
    def running(self) -> float:
        """… in which a model runs."""
        return sum(model.busy for model in self.models)

    @property
    def busiest(self) -> ModelUse | None:
        """The model that runs most."""
        return max(self.models, key=lambda model: model.busy, default=None)

    def leads(self, share: float) -> bool:
        """Whether a stage that works this share of its time is the bottleneck, or may be."""
        return share >= BUSY and share >= max(self.decode, self.engine, self.writing) - NEAR

    @property
    def processor(self) -> float:
        """Share of the cores that is busy."""
        return min(max(self.cores_busy, sum(self.cores_used.values())) / self.cores, 1.0)

    @property
    def others(self) -> float:
        """Cores that other programs keep busy."""
        return max(0.0, min(self.cores_busy, self.cores) - sum(self.cores_used.values()))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do next, and why."""

    stage: str  # one of STAGES
    share: float  # of the time, in which that stage is the limit
    sentence: str
    settings: tuple[str, ...] = ()  # what to turn, the most promising first; none: nothing is to be turned

    @property
    def setting(self) -> str:
        """The settings as one clause; empty when there is nothing to turn."""
        return "; or ".join(self.settings)


def verdict(usage: Usage, config: Config) -> Verdict:
    """The bottleneck of that time."""
    return next(each for each in _candidates(usage, config) if each is not None)


def _candidates(usage: Usage, config: Config) -> Iterator[Verdict | None]:
    """In the order in which one hides the next; the last one is always there."""
    yield _nothing(usage)
    yield _start(usage)
    yield _store(usage, config)
    yield _changes(usage, config)
    yield _processor(usage, config)
    yield _engine(usage, config)
    yield _decoders(usage, config)
    yield _credit(usage, config)
    yield _files(usage)
    yield _balanced(usage)


def _nothing(usage: Usage) -> Verdict | None:
    has_worked = usage.decoded_per_second or usage.running or usage.points_per_second or usage.store_away
    if usage.seconds > 0 and (has_worked or usage.decode or usage.writing):
        return None
    return Verdict("none", 0.0, "Nothing was indexed in this time.")


def _start(usage: Usage) -> Verdict | None:
    share = usage.start_seconds / (usage.start_seconds + usage.seconds)
    if share < STARTING:
        return None
    sentence = f"The start took {_share(share)} of the run: the models were loading for {usage.start_seconds:.1f} s."
    return Verdict("start", share, sentence, ("more files in one run", "the daemon, which keeps its models loaded"))


# --- the store --------------------------------------------------------------------------------------------------------


def _store(usage: Usage, config: Config) -> Verdict | None:
    if usage.store_away:
        return Verdict("store", 1.0, f"The store is away: {usage.store_away}.", ("the store itself: bring it back",))
    if usage.blocked < BLOCKED and not usage.leads(usage.writing):
        return None
    waits = f"the engine waits {_share(usage.blocked)} of its time for room for results"
    if usage.writing < WRITING:
        sentence = f"Results wait although the store writes only {_share(usage.writing)} of the time: {waits}."
        return Verdict("ledger", usage.blocked, sentence, ("a faster disk for the ledger (run.state, store.path)",))
    sentence = (
        f"The store is the bottleneck: the consumer writes {_share(usage.writing)} of the time, at "
        f"{_rate(usage.points_per_second)} points/s; {waits}."
    )
    return Verdict("store", usage.writing, sentence, tuple(_for_the_store(config)))


def _for_the_store(config: Config) -> Iterator[str]:
    store = config.store
    if store.batch_points < 1024:
        yield f"a higher store.batch_points (it is {store.batch_points})"
    if store.url is None:
        yield "a faster disk for store.path"
        yield "a Qdrant server (store.url)"
    else:
        yield "a server that is nearer, or has a faster disk"


# --- the engine -------------------------------------------------------------------------------------------------------


def _changes(usage: Usage, config: Config) -> Verdict | None:
    if usage.changing < CHANGING or usage.engine < STARVED:
        return None
    sentence = (
        f"The models do not fit together, and take turns: {_share(usage.changing)} of the time goes into changes."
    )
    settings = ["a higher device.memory_gb, or smaller models"]
    settings += ['device.park = "host"'] if config.device.park != "host" else []
    settings.append(f"a higher engine.host_mb, for longer turns (it is {config.engine.host_mb})")
    return Verdict("models", usage.changing, sentence, tuple(settings))


def _engine(usage: Usage, config: Config) -> Verdict | None:
    model = usage.busiest
    if not usage.leads(usage.engine) or model is None:
        return None
    waits = f"the decoders work {_share(usage.decode)} of theirs"
    if usage.engine - usage.running - usage.changing > usage.running:
        sentence = (
            f"The engine is the bottleneck, beside its models: they run {_share(usage.running)} of its time; {waits}."
        )
        return Verdict("engine", usage.engine, sentence, tuple(_fewer_frames(config)))
    sentence = (
        f"The {model.role} model is the bottleneck: it runs {_share(model.busy)} of the engine's time, at "
        f"{_rate(_limit(model))} items/s while it does; {waits}."
    )
    return Verdict(model.role, model.busy, sentence, tuple(_for_a_model(model.role, usage, config)))


def _limit(model: ModelUse) -> float:
    return model.items_per_second / model.busy if model.busy else 0.0


def _for_a_model(role: str, usage: Usage, config: Config) -> Iterator[str]:
    """What makes a model cheaper."""
    match role:
        case "image":
            yield from _fewer_frames(config)
        case "speech":
            yield from _less_listening(config)
        case "voice":
            yield f"a longer voice.hop_seconds (it is {config.voice.hop_seconds:g})"
    yield f"a smaller models.{role}"
    on_cpu = usage.device == "cpu"
    if not on_cpu and getattr(config.models, f"{role}_dtype", "auto") == "float32":
        yield f'models.{role}_dtype = "auto"'
    if usage.host_fill >= BUSY and not on_cpu:
        yield f"a higher engine.host_mb, for larger batches (it is {config.engine.host_mb})"
    yield "a GPU" if on_cpu else "a faster GPU"


def _less_listening(config: Config) -> Iterator[str]:
    speech = config.speech
    if speech.captions != "prefer":
        yield 'speech.captions = "prefer"'
    if speech.beam_size > 1:
        yield f"speech.beam_size = 1 (it is {speech.beam_size})"
    if len(speech.temperatures) > 1:
        yield f"fewer speech.temperatures (there are {len(speech.temperatures)})"


def _fewer_frames(config: Config) -> Iterator[str]:
    if config.decode.sampling == "fps":
        yield 'decode.sampling = "keyframes"'
        yield f"a lower decode.fps (it is {config.decode.fps:g})"


# --- the processor ----------------------------------------------------------------------------------------------------


def _processor(usage: Usage, config: Config) -> Verdict | None:
    """Where the models run on the CPU; elsewhere busy cores are the decoders'."""
    if usage.device != "cpu" or usage.processor < SATURATED or not usage.cores_used:
        return None
    users = {**usage.cores_used, "other programs": usage.others}
    top = max(users, key=lambda name: users[name])
    named = ", ".join(
        f"{role} {count:.1f}" for role, count in sorted(users.items(), key=lambda each: -each[1]) if count >= 0.05
    )
    cores = "1 core is" if usage.cores == 1 else f"{usage.cores} cores are"
    sentence = f"The processor is the bottleneck: its {cores} {_share(usage.processor)} busy ({named}"
    sentence += _most_of_it(usage) + ")." if top == "engine" else ")."
    return Verdict("processor", usage.processor, sentence, tuple(_for_the_processor(top, usage, config)))


def _most_of_it(usage: Usage) -> str:
    model = usage.busiest
    return (
        f"; the {model.role} model is {_share(model.busy / usage.running)} of its models' time"
        if model and model.busy
        else ""
    )


def _for_the_processor(top: str, usage: Usage, config: Config) -> Iterator[str]:
    match top:
        case "decoder":
            yield from _cheaper_decoding(config)
            yield "more cores"
        case "engine":
            yield from _for_a_model(usage.busiest.role, usage, config) if usage.busiest else ()
            yield "more cores"
        case "consumer":
            yield from _for_the_store(config)
            yield "more cores"
        case "other programs":
            yield "the machine to itself"
            own = max(usage.cores_used, key=lambda name: usage.cores_used[name])
            yield from _for_the_processor(own, usage, config)
        case _:
            yield "more cores"


# --- the decoders -----------------------------------------------------------------------------------------------------


def _decoders(usage: Usage, config: Config) -> Verdict | None:
    if not usage.leads(usage.decode):
        return None
    sentence = (
        f"The decoders are the bottleneck: they decode {_share(usage.decode)} of their time, and the engine waits "
        f"{_share(usage.waiting)} of its own."
    )
    settings = list(_cheaper_decoding(config))
    if usage.processor < SATURATED and usage.decoders < usage.cores:
        free = f"{usage.cores * (1 - usage.processor):.1f} of {usage.cores} cores are free"
        settings.insert(0, f"more decode.processes (they are {usage.decoders}; {free})")
    return Verdict("decoders", usage.decode, sentence, tuple(settings or ["more cores"]))


def _cheaper_decoding(config: Config) -> Iterator[str]:
    yield from _fewer_frames(config)
    if config.decode.skip == "none":
        yield 'decode.skip = "auto"'
    if config.decode.backend != "pyav":
        yield 'decode.backend = "pyav"'


def _credit(usage: Usage, config: Config) -> Verdict | None:
    """The decoders may send no more, and yet the engine has too little for a batch."""
    if usage.credit < STARVED or usage.waiting < STARVED:
        return None
    sentence = (
        f"Credit is the bottleneck: the decoders wait for it {_share(usage.credit)} of their time while the engine "
        f"waits {_share(usage.waiting)} of its own for fuller batches."
    )
    host_mb = config.engine.host_mb
    return Verdict("credit", usage.credit, sentence, (f"a higher engine.host_mb (it is {host_mb})",))


def _files(usage: Usage) -> Verdict | None:
    if usage.idle < STARVED or usage.waiting < STARVED:
        return None
    sentence = (
        f"There is too little to do at once: the decoders have no task {_share(usage.idle)} of their time, and the "
        f"engine waits {_share(usage.waiting)} of its own. One sound track is read by one decoder."
    )
    return Verdict("files", usage.idle, sentence, ("more files in one run",))


def _balanced(usage: Usage) -> Verdict:
    shares = {"decoders": usage.decode, "engine": usage.engine, "store": usage.writing}
    top = max(shares, key=lambda name: shares[name])
    named = ", ".join(f"{name} {_share(share)}" for name, share in shares.items())
    return Verdict("balanced", shares[top], f"No stage holds the others up; they work: {named} of their time.")


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"
