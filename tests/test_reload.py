"""A changed configuration: what a running daemon takes over, and what it says of the rest."""

from engine.config import Config, DaemonOptions, WatchOptions, WatchRoot
from engine.reload import changes
from stages.options import DecodeOptions


def test_nothing_changed() -> None:
    config = Config(watch=WatchOptions(roots=("/a",)))
    assert changes(config, config) == (config, "reload: nothing has changed")


def test_what_is_watched_is_taken_over() -> None:
    new = Config(watch=WatchOptions(roots=("/a", WatchRoot(path="/b", priority=3)), on_delete="remove"))
    config, said = changes(Config(), new)
    assert config == new
    assert said == "reload: took over watch.roots, watch.on_delete"


def test_what_cannot_change_stays_as_it_was_and_is_named() -> None:
    new = Config(
        decode=DecodeOptions(fps=5.0), daemon=DaemonOptions(log_format="text", metrics_port=0), watch=WatchOptions()
    )
    config, said = changes(Config(), new)
    assert config == Config(daemon=DaemonOptions(log_format="text"))
    assert said == "reload: took over daemon.log_format; only a restart takes over decode.fps, daemon.metrics_port"
