"""Where settings come from, and what is said of wrong ones."""

from pathlib import Path

import pytest

from engine.config import Config, load_config
from engine.errors import ConfigError
from stages.cores import usable_cores


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[decode]\nfps = 2.0\nsampling = "keyframes"\nspan_seconds = 30.0\n')
    config = load_config(file, {"SLUICE_DECODE__FPS": "3", "SLUICE_DECODE__SPAN_SECONDS": "40"}, ["decode.fps=4"])
    assert config.decode.fps == 4.0
    assert config.decode.span_seconds == 40.0
    assert config.decode.sampling == "keyframes"
    assert config.decode.backend == Config().decode.backend


@pytest.mark.parametrize(
    ("setting", "code", "words"),
    [
        ("decode.fsp=2", "unknown-key", ["decode.fsp", "decode.fps"]),
        ("decod.fps=2", "unknown-key", ["decod.fps", "decode.fps"]),
        ("decode.fps=fast", "bad-value", ["decode.fps", "fast", "float"]),
        ("decode.fps=-1", "bad-value", ["decode.fps", "> 0"]),
        ("decode.backend=ffmpeg", "bad-value", ["decode.backend", "ffmpeg"]),
        ("decode.fps", "bad-setting", ["KEY=VALUE"]),
        ("voice.min_seconds=9", "bad-value", ["voice.min_seconds", "voice.window_seconds"]),
        ("models.text=off", "bad-value", ["models.text"]),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(setting: str, code: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(settings=[setting])
    assert caught.value.code == code
    assert "\n" not in caught.value.message
    assert all(word in caught.value.message for word in words)


def test_the_source_of_a_wrong_value_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[decode]\nfps = true\n")
    with pytest.raises(ConfigError, match=r"bad\.toml: decode\.fps"):
        load_config(file)
    with pytest.raises(ConfigError, match=r"SLUICE_DECODE__FPS"):
        load_config(environment={"SLUICE_DECODE__FPS": "x"})


@pytest.mark.parametrize(
    ("content", "code"), [(b"[decode\n", "bad-config"), (b"\xff\xfe", "bad-config"), (b"fps = 1\n", "unknown-key")]
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, code: str) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert caught.value.code == code
    assert "a.toml" in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml")


def test_text_values_are_read_as_toml_where_they_are() -> None:
    config = load_config(
        settings=["run.extensions=['mp4','mkv']", "store.url=none", "models.image=./x", "decode.fps=2"]
    )
    assert config.run.extensions == ("mp4", "mkv")
    assert config.store.url is None
    assert config.models.image == "./x"


def test_other_variables_of_ours_are_no_settings() -> None:
    assert load_config(environment={"SLUICE_QDRANT_API_KEY": "secret", "SLUICE_TEST_QDRANT_URL": "x"}) == Config()


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        load_config().decode.fps = 2.0  # type: ignore[misc]


def test_there_is_always_a_decoder() -> None:
    assert load_config().decoder_processes == usable_cores()
    assert load_config(settings=["decode.processes=3"]).decoder_processes == 3
