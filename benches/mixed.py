"""Makes videos to measure with, long and varied: `python -m benches corpus DIR [--hours H] [--film H] [--seed 0]`.

Of codecs, containers and sizes as they come: of the videos of --media where there are any, else of footage that is
drawn here. Each file is one of those, copied over and over (no encoding: an hour takes a second), or cut short: one
film of two thirds of the whole, at most two hours, and others of 20 s and more. The same seed gives the same files.
"""

import argparse
import math
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches.corpus import SEED, media_seconds, repeated
from benches.corpus_sources import MEDIA, Recipe, Source, encoded, sources

LONGEST_SECONDS = 7200.0
SHORTEST_SECONDS = 20.0
FILM_SHARE = 2 / 3  # of the whole is one film
ENDINGS = {  # of containers, by video codec
    "h264": (".mp4", ".mkv", ".ts", ".mov"),
    "hevc": (".mp4", ".mkv", ".ts"),
    "mpeg4": (".mkv", ".mp4"),
    "vp8": (".webm", ".mkv"),
    "vp9": (".webm", ".mkv"),
    "av1": (".webm", ".mkv"),
}
NARROW = {".webm": ("opus", "vorbis"), ".ts": ("aac", "ac3", "mp3"), ".mp4": ("aac", "ac3", "mp3"), ".mov": ("aac",)}


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a corpus."""

    name: str
    source: Source
    seconds: float


def plan(given: Sequence[Source], minutes: float, seed: int) -> list[Part]:
    """Which files, of what length; they come to `minutes`, but none is below 20 s. Pure; the film is the first."""
    chance = random.Random(seed)
    others = varied(given, chance)
    film = film_source(given)
    lengths = [*file_lengths(minutes * 60, chance)]
    chosen = [film, *(others[number % len(others)] for number in range(len(lengths) - 1))]
    return [
        Part(_name(number, source, seconds, chance), source, seconds)
        for number, (source, seconds) in enumerate(zip(chosen, lengths, strict=True), 1)
    ]


def film_source(given: Sequence[Source]) -> Source:
    """The longest with sound: the one that has to be repeated least. The first of equals; any where all are silent."""
    return max(given, key=lambda source: (source.audio is not None, round(source.seconds)))


def varied(given: Sequence[Source], chance: random.Random) -> list[Source]:
    """In an order by chance, but so that codecs take turns: most videos at hand may be of one."""
    shuffled = chance.sample(list(given), len(given))
    seen: Counter[str] = Counter()
    turns: list[tuple[int, Source]] = []
    for source in shuffled:
        turns.append((seen[source.video], source))
        seen[source.video] += 1
    return [source for _, source in sorted(turns, key=lambda turn: turn[0])]


def file_lengths(seconds: float, chance: random.Random) -> Iterator[float]:
    """Of all files, the film's first. The others are short rather than long, as files are: even in their logarithm."""
    film = max(SHORTEST_SECONDS, min(LONGEST_SECONDS, seconds * FILM_SHARE))
    film = max(film, seconds) if seconds - film < SHORTEST_SECONDS else film
    yield film
    rest = seconds - film
    while rest >= SHORTEST_SECONDS:
        longest = min(rest, LONGEST_SECONDS)
        length = math.exp(chance.uniform(math.log(SHORTEST_SECONDS), math.log(longest)))
        length = longest if rest - length < SHORTEST_SECONDS else length
        yield round(length, 1)
        rest -= length


def endings(source: Source) -> list[str]:
    """Containers that take its streams."""
    return [
        ending
        for ending in ENDINGS.get(source.video, (".mkv",))
        if source.audio is None or source.audio in NARROW.get(ending, (source.audio,))
    ]


def _name(number: int, source: Source, seconds: float, chance: random.Random) -> str:
    """Like 02-vp9-360p-63s.webm."""
    sound = "" if source.audio is not None else "-silent"
    return f"{number:02}-{source.video}-{source.height}p{sound}-{seconds:.0f}s{chance.choice(endings(source))}"


def mixed_corpus(directory: Path, minutes: float, seed: int = SEED, media: Path | None = MEDIA) -> list[Path]:
    """Write a corpus, the film first. What is in the way is overwritten. Raises MediaError as `sources` does."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as drawn:
        parts = plan(sources(media, Path(drawn)), minutes, seed)
        return [repeated(part.source.path, directory / part.name, part.seconds) for part in parts]


def long_film(directory: Path, hours: float, media: Path | None = MEDIA, height: int | None = None) -> Path:
    """Write one film by stream copy, seconds for two hours. height: of the picture, in lines; the nearest there is.

    Raises MediaError as `sources` does.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as drawn:
        given = sources(media, Path(drawn))
        if height is not None:
            nearest = min(abs(source.height - height) for source in given)
            given = [source for source in given if abs(source.height - height) == nearest]
        source = film_source(given)
        name = f"film-{source.video}-{source.height}p-{hours:g}h{source.path.suffix}"
        return repeated(source.path, directory / name, hours * 3600)


def spoken_film(directory: Path, hours: float, media: Path | None, height: int, of_seconds: float = math.inf) -> Path:
    """As `long_film`, of the longest video with sound, encoded anew with so many lines, a wide picture.

    of_seconds: of it, repeated. Raises MediaError as `sources` does.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as drawn:
        source = film_source(sources(media, Path(drawn)))
        taken = source.path
        if of_seconds < source.seconds:
            taken = repeated(source.path, Path(drawn) / f"taken{source.path.suffix}", of_seconds)
        size = (round(height * 8 / 9) * 2, height)
        recipe = Recipe(f"spoken-{height}p.mp4", "libx264", {"preset": "ultrafast"}, size, "aac")
        scaled = encoded(taken, Path(drawn) / recipe.name, recipe)
        return repeated(scaled, directory / f"film-spoken-{height}p-{hours:g}h.mp4", hours * 3600)


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benches corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--hours", type=float, default=0.25, help="of all files together (default: %(default)s)")
    parser.add_argument("--film", type=float, metavar="HOURS", help="nothing but one film of so many hours")
    parser.add_argument("--height", type=int, metavar="LINES", help="of the film's picture; the nearest there is")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--media", type=Path, default=MEDIA, metavar="DIR", help="videos with a manifest.json")
    given = parser.parse_args(argv)
    made = (
        [long_film(given.directory, given.film, given.media, given.height)]
        if given.film is not None
        else mixed_corpus(given.directory, given.hours * 60, given.seed, given.media)
    )
    for path in made:
        print(f"{media_seconds(path):8.1f} s {path.stat().st_size / 1e6:9.1f} MB  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
