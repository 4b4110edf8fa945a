"""Items a second through the image and text embedders, by batch size, on this machine.

    OMP_NUM_THREADS=1 python -m benches.embedders --image models/tiny-clip --device cpu

Frames and sentences are made from seed 0. The first batch of each size is not counted.
"""

import argparse
import itertools
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from stages import registry
from stages.image_model import ImageModel
from stages.options import ModelOptions, SpeechOptions

WORDS = (
    "the",
    "a",
    "man",
    "woman",
    "dog",
    "speaks",
    "runs",
    "city",
    "water",
    "coffee",
    "light",
    "under",
    "with",
    "then",
)


def main() -> None:
    arguments = parse_arguments()
    options = ModelOptions(image=arguments.image, text=arguments.text, directory=arguments.directory)
    print(f"{platform.machine()}, Python {platform.python_version()}, device {arguments.device}, {arguments.seconds} s")
    image = registry.load("image", options, SpeechOptions(), arguments.device)
    assert isinstance(image, ImageModel)
    report(image.info.label, image.run, frames(image), "images", arguments)
    text = registry.load("text", options, SpeechOptions(), arguments.device)
    report(text.info.label, text.run, sentences(), "sentences", arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default=ModelOptions().image)
    parser.add_argument("--text", default=ModelOptions().text)
    parser.add_argument("--directory", default=ModelOptions().directory)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    return parser.parse_args()


def frames(image: ImageModel) -> Iterator[Any]:
    """Noise at the model's own size, uint8 [height, width, 3], without end."""
    rng = np.random.default_rng(0)
    shape = (image.frame_format.height, image.frame_format.width, 3)
    while True:
        yield rng.integers(0, 256, shape, dtype=np.uint8)


def sentences() -> Iterator[str]:
    """8 to 24 words each, without end."""
    rng = np.random.default_rng(0)
    while True:
        yield " ".join(rng.choice(WORDS, size=int(rng.integers(8, 25))))


def report(
    label: str, run: Callable[[Sequence[Any]], Any], items: Iterator[Any], unit: str, arguments: argparse.Namespace
) -> None:
    for size in arguments.batches:
        batch = list(itertools.islice(items, size))
        print(f"{label}  batch {size:3d}  {rate(run, batch, arguments.seconds):8.0f} {unit}/s")


def rate(run: Callable[[Sequence[Any]], Any], batch: list[Any], seconds: float) -> float:
    """Items a second. `run` gives its results in host memory, so a device has finished when it returns."""
    run(batch)
    started = time.perf_counter()
    done = 0
    while time.perf_counter() - started < seconds:
        run(batch)
        done += len(batch)
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
