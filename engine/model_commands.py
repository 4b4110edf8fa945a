"""The models command: what is configured, getting it, trying it, and building tiny stand-ins."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.errors import ExitCode
from engine.loading import SIMULATED, for_the_cpu
from engine.real_devices import resolve_device
from stages.errors import ModelError
from stages.registry import ModelRow, list_models
from stages.registry import check as check_models


def listing(config: Config, as_json: bool) -> ExitCode:
    """Each role's model: what is set, and whether it is here. Exit code 4 when one is missing."""
    rows = list_models(config.models)
    if as_json:
        _print_json({"models": [_plain(asdict(row)) for row in rows]})
    else:
        for row in rows:
            print(_line(row))
    return ExitCode.OK if all(row.state in ("ready", "off") for row in rows) else ExitCode.NO_START


def pull(config: Config, as_json: bool) -> ExitCode:
    """Download every configured model that is not here yet. Exit code 4 when one cannot be had; the others are got."""
    from stages.hub import pull as pull_model

    results: list[dict[str, Any]] = []
    for row in list_models(config.models):
        result = {"role": row.role, "source": row.source, "state": row.state, "message": row.message}
        if row.state == "model-missing":
            print(f"pulling {row.source} for models.{row.role}", file=sys.stderr)
            try:
                path = pull_model(row.role, row.source, Path(config.models.directory))
                result.update(state="ready", message=f"pulled to {path}")
            except ModelError as error:
                result.update(state=error.code, message=error.message)
        results.append(result)
    if as_json:
        _print_json({"models": results})
    else:
        for result in results:
            print(f"{result['role']:7} {result['state']:12} {result['source']} {result['message'] or ''}".rstrip())
    return ExitCode.OK if all(result["state"] in ("ready", "off") for result in results) else ExitCode.NO_START


def check(config: Config, as_json: bool) -> ExitCode:
    """Load each configured model in turn. Exit code 4 when one does not load."""
    if config.device.name == SIMULATED:
        rows = check_models(for_the_cpu(config.models), config.speech, "cpu")
    else:
        rows = check_models(config.models, config.speech, resolve_device(config.device.name))
    if as_json:
        _print_json({"models": [asdict(row) for row in rows]})
    else:
        for row in rows:
            state = f"loaded in {row.load_seconds:.1f} s" if row.loaded else f"failed: {row.message}"
            size = f", vectors of {row.dimension}" if row.dimension else ""
            print(f"{row.role:7} {row.label or row.source}{size}: {state}")
    return ExitCode.OK if all(row.loaded for row in rows) else ExitCode.NO_START


def tiny(directory: Path, as_json: bool) -> ExitCode:
    """Build small untrained models, and say how to use them."""
    from stages.tiny import build_tiny

    built = build_tiny(directory)
    if as_json:
        _print_json({"untrained": True, "models": {family: str(path) for family, path in built.items()}})
        return ExitCode.OK
    for family, path in built.items():
        print(f"{family:8} {path}")
    print("These are untrained: they have the right shapes, and their vectors and texts mean nothing.", file=sys.stderr)
    print(
        f"Use them with: --set models.image={built['clip']} --set models.speech={built['whisper']} "
        f"--set models.voice={built['ecapa']}",
        file=sys.stderr,
    )
    return ExitCode.OK


def _line(row: ModelRow) -> str:
    size = f"{row.size_bytes / 1e6:.0f} MB" if row.size_bytes else ""
    return f"{row.role:7} {row.state:16} {size:>8} {row.label or row.source} {row.message or ''}".rstrip()


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in row.items()}


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))
