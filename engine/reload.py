"""What a running daemon can take over from a changed configuration. Pure."""

from typing import Any

import msgspec

from engine.config import Config

RELOADABLE = {"watch": None, "daemon": {"log_format"}}  # section: its settings, None: all


def changes(old: Config, new: Config) -> tuple[Config, str]:
    """The configuration to go on with, and what to say: what was taken over, and what waits for a restart."""
    taken: list[str] = []
    waiting: list[str] = []
    sections: dict[str, Any] = {}
    for section in Config.__struct_fields__:
        before, after = getattr(old, section), getattr(new, section)
        values: dict[str, Any] = {}
        for name in before.__struct_fields__:
            if getattr(before, name) == getattr(after, name):
                continue
            if _can_reload(section, name):
                values[name] = getattr(after, name)
                taken.append(f"{section}.{name}")
            else:
                waiting.append(f"{section}.{name}")
        sections[section] = msgspec.structs.replace(before, **values)
    return Config(**sections), _said(taken, waiting)


def _can_reload(section: str, name: str) -> bool:
    if section not in RELOADABLE:
        return False
    names = RELOADABLE[section]
    return names is None or name in names


def _said(taken: list[str], waiting: list[str]) -> str:
    parts = []
    if taken:
        parts.append(f"took over {', '.join(taken)}")
    if waiting:
        parts.append(f"only a restart takes over {', '.join(waiting)}")
    return "reload: " + ("; ".join(parts) or "nothing has changed")
