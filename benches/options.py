"""Options that several benches share."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path

from benches.corpus import SEED, footage
from benches.corpus_sources import MEDIA
from benches.mixed import long_film
from stages.tiny import build_tiny

FILM_HOURS = 0.05


def add_medium(parser: ArgumentParser) -> None:
    """MEDIUM, for `medium_in`."""
    text = f"default: {FILM_HOURS * 60:.0f} minutes of a video of {MEDIA}, else a minute of generated footage"
    parser.add_argument("medium", type=Path, nargs="?", metavar="MEDIUM", help=text)


def medium_in(directory: Path, arguments: Namespace, media: Path = MEDIA) -> tuple[Path, str]:
    """The medium, made in `directory` where none is named, and what is said of it. Raises MediaError."""
    if arguments.medium is not None:
        return arguments.medium, arguments.medium.name
    if (media / "manifest.json").is_file():
        film = long_film(directory, FILM_HOURS, media)
        return film, film.name
    return footage(None, directory), f"a minute of generated footage (seed {SEED})"


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
