"""Options that several benches share."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path

from stages.tiny import build_tiny


def add_models(parser: ArgumentParser) -> None:
    """--models, for `tiny_models`."""
    parser.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help="where the small untrained models are, or are built (default: models/ below --results)",
    )


def tiny_models(arguments: Namespace, families: Iterable[str] = ("clip", "whisper", "ecapa")) -> dict[str, Path]:
    """The directory of each family; what is not there yet is built, in some seconds. Raises ModelError."""
    return build_tiny(arguments.models or arguments.results / "models", families)
