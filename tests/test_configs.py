"""The configuration files in configs/ say what the code says."""

import re
from pathlib import Path

import msgspec

from engine.config import Config, load_config

CONFIGS = Path(__file__).parents[1] / "configs"
SETTING = re.compile(r"^(?:# )?([a-z_]+) = ")


def named_keys(file: Path) -> set[str]:
    """Every section.key that a file names, set or commented out."""
    keys, section = set(), ""
    for line in file.read_text("utf-8").splitlines():
        if header := re.match(r"\[([a-z]+)\]", line):
            section = header[1]
        elif section and (setting := SETTING.match(line)):
            keys.add(f"{section}.{setting[1]}")
    return keys


def all_keys() -> dict[str, object]:
    """Every section.key of the configuration, and its default."""
    defaults = Config()
    return {
        f"{section.name}.{field.name}": getattr(getattr(defaults, section.name), field.name)
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
    }


def test_default_toml_holds_the_defaults() -> None:
    assert load_config(CONFIGS / "default.toml") == Config()


def test_default_toml_names_every_setting_and_no_other() -> None:
    assert named_keys(CONFIGS / "default.toml") == set(all_keys())


def test_default_toml_leaves_out_only_what_is_unset() -> None:
    commented = {
        key for key in all_keys() if not re.search(rf"^{key.partition('.')[2]} = ", section_text(key), re.MULTILINE)
    }
    assert commented == {key for key, default in all_keys().items() if default is None}


def section_text(key: str) -> str:
    """The lines of a key's section in default.toml."""
    text = (CONFIGS / "default.toml").read_text("utf-8")
    return re.split(r"^\[", text.partition(f"\n[{key.partition('.')[0]}]")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_commented_settings_are_right_when_uncommented(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=[a-z_]+ = )", "", (CONFIGS / "default.toml").read_text("utf-8"), flags=re.MULTILINE)
    text = text.replace('name = "auto"', 'name = "simulated"')  # which device.simulation asks for
    file = tmp_path / "all.toml"
    file.write_text(text, "utf-8")
    config = load_config(file)
    assert config.store.url == "http://localhost:6333"
    assert config.speech.language == "en"


def test_demo_toml_needs_no_network_and_no_gpu() -> None:
    config = load_config(CONFIGS / "demo.toml")
    assert config.device.name == "cpu"
    assert config.store.url is None
    assert config.models.text == Config().models.text  # the real one
    models = config.models
    directories = {Path(models.image), Path(models.speech), Path(models.voice), Path(config.store.path)}
    assert {path.parts[0] for path in directories} == {"demo"}
    assert not any(path.is_absolute() for path in directories)
