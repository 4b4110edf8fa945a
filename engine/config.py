"""Configuration: sections and defaults, and where values come from.

Precedence: flags > environment (SLUICE_SECTION__KEY) > file > defaults. Nothing changes it after the start.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.errors import ConfigError
from stages.cores import usable_cores
from stages.options import (
    DecodeOptions,
    ModelOptions,
    Options,
    Positive,
    PositiveInt,
    SpeechOptions,
    StoreOptions,
    VoiceOptions,
)

ENVIRONMENT_PREFIX = "SLUICE_"


class DeviceOptions(Options, frozen=True):
    """[device] where the models run."""

    name: str = "auto"  # auto | cpu | cuda | cuda:N | simulated; auto: cuda when there is one
    memory_gb: Annotated[float, Meta(gt=0)] | None = None  # the budget; None: `memory_share` of what is free
    memory_share: Annotated[float, Meta(gt=0, le=1)] = 0.9  # the rest is for the display and for surprises
    release_at: Annotated[float, Meta(gt=0, le=1)] = 0.7  # of the budget: from here caches are released
    halve_at: Annotated[float, Meta(gt=0, le=1)] = 0.8  # batches are halved, and models take turns
    stop_at: Annotated[float, Meta(gt=0, le=1)] = 0.9  # nothing more is taken in until it has been worked off
    calibrate_seconds: Annotated[float, Meta(ge=0)] = (
        10.0  # of probes for each model that is new to the device; 0: none
    )
    park: Literal["auto", "host", "disk"] = "auto"  # where weights wait for their turn; auto: the faster, measured
    simulation: str | None = None  # with name = "simulated": a file that describes the device


class EngineOptions(Options, frozen=True):
    """[engine] batches and buffers of the engine process."""

    max_delay_ms: Annotated[int, Meta(ge=0)] = 200  # how long a lone item waits for company
    max_age_ms: PositiveInt = 5000  # an item older than this goes first, whatever else is queued
    max_turn_ms: PositiveInt = 60_000  # where models take turns: an item older than this ends the turn of the others
    image_batch: PositiveInt = 32  # items of a batch to start with, by model; the engine finds what is worth it
    speech_batch: PositiveInt = 8  # a window of 30 s is worth hundreds of frames
    text_batch: PositiveInt = 64
    voice_batch: PositiveInt = 32
    host_mb: Annotated[int, Meta(ge=16)] = 256  # items waiting in host memory, of all decoders together
    results_mb: PositiveInt = 32  # vectors on their way to the consumer


class RunOptions(Options, frozen=True):
    """[run] processes and their directories."""

    directory: str | None = (
        None  # parent of the per-run directory of sockets; None: $XDG_RUNTIME_DIR, else the temporary one
    )
    state: str = "sluice-state"  # ledgers of server stores; an embedded store holds its own
    start_timeout_seconds: Positive = 300.0  # loading large models from a cold disk takes minutes
    stall_seconds: Positive = 20.0  # a decoder without progress for so long is killed
    attempts: PositiveInt = 3  # of a task whose decoder dies
    engine_stall_seconds: Positive = 600.0  # an engine or consumer that says nothing for so long is killed
    backoff_seconds: Positive = 1.0  # before a process that died soon after its start is started again; doubles …
    backoff_max_seconds: Positive = 60.0  # … up to this
    engine_restarts: Annotated[int, Meta(ge=0)] = 3  # in a row, with nothing done between: more would not help either
    extensions: tuple[str, ...] = (  # files taken from a directory; a file named outright is always tried
        "3g2", "3gp", "aac", "ac3", "asf", "avi", "divx", "dv", "f4v", "flac", "flv", "m2ts", "m2v", "m4a", "m4b",
        "m4v", "mka", "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "mts", "mxf", "ogg", "ogm", "ogv", "opus", "ts", "vob",
        "wav", "webm", "wma", "wmv",
    )  # fmt: skip


class WatchRoot(Options, frozen=True):
    """One entry of watch.roots."""

    path: str
    priority: int = 0  # files of a root with a higher one go first
    include: tuple[str, ...] | None = None  # None: as in [watch]
    exclude: tuple[str, ...] | None = None
    poll: Literal["auto", "always", "never"] | None = None


class WatchOptions(Options, frozen=True):
    """[watch] the directories that the daemon is fed from."""

    roots: tuple[str | WatchRoot, ...] = ()
    include: tuple[str, ...] = ()  # patterns of names; none: every file with one of run.extensions
    exclude: tuple[str, ...] = (
        ".*", "*.part", "*.partial", "*.tmp", "*.crdownload", "*.!qB", "@eaDir", "#recycle", "$RECYCLE.BIN",
        "lost+found", "System Volume Information",
    )  # fmt: skip  # patterns of names, of files and directories
    quiet_seconds: Positive = 10.0  # a file is complete when it has not changed for so long
    scan_seconds: Positive = 300.0  # between whole scans, ±25 %; the system's hints only bring them forward
    poll: Literal["auto", "always", "never"] = "auto"  # auto: polled on network mounts, where hints are missed
    poll_seconds: Positive = 30.0  # between scans of a root that is polled
    follow_links: bool = False  # symbolic links: to files and directories, within the root and out of it
    on_delete: Literal["keep", "remove"] = "keep"  # what becomes of the points of a deleted file


class DaemonOptions(Options, frozen=True):
    """[daemon] how it is operated."""

    metrics_port: Annotated[int, Meta(ge=0, le=65535)] = 9618  # Prometheus, on 127.0.0.1; 0: none
    log_format: Literal["json", "text"] = "json"  # one line an event, on standard error
    search: bool = True  # answer searches: the text side of the image model is loaded, too


class Config(Options, frozen=True):
    """The whole configuration."""

    decode: DecodeOptions = DecodeOptions()
    speech: SpeechOptions = SpeechOptions()
    voice: VoiceOptions = VoiceOptions()
    models: ModelOptions = ModelOptions()
    device: DeviceOptions = DeviceOptions()
    engine: EngineOptions = EngineOptions()
    store: StoreOptions = StoreOptions()
    run: RunOptions = RunOptions()
    watch: WatchOptions = WatchOptions()
    daemon: DaemonOptions = DaemonOptions()

    @property
    def decoder_processes(self) -> int:
        """How many decoder processes to start: one for each core that this process may use, unless it is set.

        Models and store need cores, too; but whoever has something to do then finds one, and what waits is bounded.
        """
        return self.decode.processes or usable_cores()


def load_config(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
) -> Config:
    """Put the configuration together from a TOML file, the environment and KEY=VALUE settings.

    Raises:
        ConfigError: unreadable file, unknown key (the nearest one is named), or a value of the wrong type or range.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        _merge(tree, _read_file(file), str(file))
    for name, value in sorted((environment or {}).items()):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".", 1)
            _set(tree, key, value, f"environment variable {name}")
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise ConfigError("bad-setting", f"--set {setting}: expected KEY=VALUE, such as decode.fps=2")
        _set(tree, key.strip(), value, f"--set {setting}")
    config = _converted(tree)
    _cross_check(config)
    return config


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("no-config", f"configuration file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError("bad-config", f"configuration file {file} is not UTF-8: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("bad-config", f"configuration file {file} is not valid TOML: {error}") from error


def _sections() -> dict[str, type[Options]]:
    return {field.name: field.type for field in msgspec.structs.fields(Config)}


def _keys() -> Iterator[str]:
    for section, options in _sections().items():
        for field in msgspec.structs.fields(options):
            yield f"{section}.{field.name}"


def _check_known(key: str, source: str) -> None:
    known = list(_keys())
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    raise ConfigError("unknown-key", f"{source}: there is no setting {key!r}; the nearest is {near[0]!r}")


def _merge(tree: dict[str, Any], values: Mapping[str, Any], source: str) -> None:
    for section, content in values.items():
        if not isinstance(content, dict):
            _check_known(section, source)
        for key, value in content.items():
            _check_known(f"{section}.{key}", source)
            tree.setdefault(section, {})[key] = (value, source)


def _set(tree: dict[str, Any], key: str, text: str, source: str) -> None:
    """Text from the environment or a flag: read as TOML where it is, as a string otherwise."""
    _check_known(key, source)
    section, name = key.split(".", 1)
    tree.setdefault(section, {})[name] = (_value_of(text), source)


def _value_of(text: str) -> Any:
    if text.strip().lower() in ("none", ""):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _converted(tree: Mapping[str, Mapping[str, tuple[Any, str]]]) -> Config:
    sections: dict[str, Any] = {}
    for name, options in _sections().items():
        values = tree.get(name, {})
        for key, (value, source) in values.items():  # one by one, so that the error can say where the value came from
            _convert({key: value}, options, f"{source}: {name}.{key}")
        sections[name] = _convert({key: value for key, (value, _) in values.items()}, options, name)
    return Config(**sections)


def _convert(values: Mapping[str, Any], options: type[Options], source: str) -> Options:
    try:
        return msgspec.convert(values, options, str_keys=True)
    except msgspec.ValidationError as error:
        reason = str(error).split(" - at ")[0]
        raise ConfigError("bad-value", f"{source} = {next(iter(values.values()))!r}: {reason}") from error


def _cross_check(config: Config) -> None:
    """Settings that are right alone and wrong together."""
    if config.voice.min_seconds > config.voice.window_seconds:
        raise ConfigError("bad-value", "voice.min_seconds is larger than voice.window_seconds; lower it")
    device = config.device
    if not device.release_at <= device.halve_at <= device.stop_at:
        raise ConfigError("bad-value", "device.release_at, halve_at and stop_at must not fall; set them in this order")
    if device.simulation is not None and device.name != "simulated":
        raise ConfigError("bad-value", 'device.simulation is for device.name = "simulated"; unset one of them')
    if all(getattr(config.models, role) == "off" for role in ("image", "speech", "text", "voice")):
        raise ConfigError("bad-value", "every model is off; set at least one of models.image, speech, text, voice")
    if config.models.text == "off" and config.models.speech != "off":
        raise ConfigError(
            "bad-value", 'models.text = "off" leaves transcripts without vectors; set models.speech = "off" too'
        )
