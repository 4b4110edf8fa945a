"""The pictures of the sample video and what is said over them: ten scenes, drawn with numpy.

A scene's painter takes (seconds into the scene, 0 to SCENE_SECONDS; random numbers that are the same for every frame of
the scene) and returns uint8 RGB [HEIGHT, WIDTH, 3].
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]  # RGB [HEIGHT, WIDTH, 3]
Colour = tuple[int, int, int]

WIDTH, HEIGHT = 640, 360
SCENE_SECONDS = 6.0
WHITE, BLACK, YELLOW, RED = (255, 255, 255), (0, 0, 0), (255, 214, 90), (215, 45, 35)


@dataclass(frozen=True)
class Scene:
    """A few seconds of the sample video."""

    paint: Callable[[float, np.random.Generator], Picture]
    sentence: str  # what is said, and the caption


# --- primitives: they paint into a picture, and are cut at its edges --------------------------------------------------


def sheet(top: Colour, bottom: Colour) -> Picture:
    """A new picture that goes from one colour to another."""
    rows = np.linspace(top, bottom, HEIGHT).astype(np.uint8)
    return np.repeat(rows[:, None, :], WIDTH, axis=1)


def box(picture: Picture, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    """A filled rectangle."""
    x0, x1, y0, y1 = (max(0, round(edge)) for edge in (left, right, top, bottom))
    picture[y0:y1, x0:x1] = colour


def disc(picture: Picture, x: float, y: float, radius: float, colour: Colour) -> None:
    """A filled circle."""
    ring(picture, x, y, 0.0, radius, colour)


def ring(picture: Picture, x: float, y: float, inner: float, outer: float, colour: Colour, flat: float = 1.0) -> None:
    """What lies between two circles; `flat` below 1 squeezes them from above."""
    x0, x1 = (min(max(0, round(edge)), WIDTH) for edge in (x - outer, x + outer + 1))
    y0, y1 = (min(max(0, round(edge)), HEIGHT) for edge in (y - outer * flat, y + outer * flat + 1))
    across, down = np.arange(x0, x1) - x, (np.arange(y0, y1) - y)[:, None] / flat
    distance = np.hypot(across, down)
    picture[y0:y1, x0:x1][(distance <= outer) & (distance >= inner)] = colour


def below(picture: Picture, skyline: npt.NDArray[np.float64], colour: Colour) -> None:
    """Everything under a line of heights [WIDTH], in pixels from above."""
    picture[np.arange(HEIGHT)[:, None] >= skyline] = colour


# --- scenes -----------------------------------------------------------------------------------------------------------


def sunrise(seconds: float, rng: np.random.Generator) -> Picture:
    """A red sun rises out of the sea; boats leave."""
    picture = sheet((70, 90, 160), (255, 170, 110))
    disc(picture, 420, 250 - 22 * seconds, 46, (255, 90, 50))
    x = np.arange(WIDTH)
    for depth in range(5):
        swell = 5 * np.sin(x / (30 + 9 * depth) + (1.5 + 0.2 * depth) * seconds + depth)
        below(picture, 225 + 28 * depth + swell, (20 + 9 * depth, 70 + 8 * depth, 120 - 8 * depth))
    for start, row in ((80, 232), (260, 262)):
        boat(picture, start + 14 * seconds, row + 3 * np.sin(2 * seconds + start))
    return picture


def boat(picture: Picture, x: float, y: float) -> None:
    """A dark hull with a white sail."""
    box(picture, x - 26, y - 6, x + 26, y + 6, (60, 30, 20))
    for row in range(40):
        box(picture, x - row / 2, y - 48 + row, x + 2, y - 47 + row, WHITE)


def pan(seconds: float, rng: np.random.Generator) -> Picture:
    """A frying pan from above: pale rings turn golden, then red slices drop in."""
    picture = sheet((225, 205, 180), (195, 170, 140))
    box(picture, 430, 165, 640, 195, (35, 35, 35))
    ring(picture, 300, 180, 0, 160, (50, 50, 55))
    ring(picture, 300, 180, 0, 145, (75, 72, 70))
    browned = min(seconds / 3.5, 1.0)
    for n in range(16):
        angle, far = rng.uniform(0, 6.28), rng.uniform(10, 110)
        x, y = 300 + far * np.cos(angle + 0.2 * seconds), 180 + far * np.sin(angle + 0.2 * seconds)
        ring(picture, x, y, 10, 18, (250 - int(40 * browned), 240 - int(90 * browned), 215 - int(170 * browned)))
        if n % 3 == 0 and seconds > 3.5:
            disc(picture, y + 120, x - 120, 20, RED)
    return picture


def football(seconds: float, rng: np.random.Generator) -> Picture:
    """A striped pitch, a goal, and a ball that flies into its corner."""
    picture = sheet((60, 150, 60), (40, 120, 45))
    for stripe in range(0, WIDTH, 160):
        box(picture, stripe, 120, stripe + 80, HEIGHT, (70, 165, 65))
    box(picture, 0, 0, WIDTH, 120, (120, 130, 150))
    for line in range(200, 441, 20):
        box(picture, line, 50, line + 1, 170, (200, 200, 200))
    for edges in ((196, 50, 202, 170), (438, 50, 444, 170), (196, 46, 444, 52)):
        box(picture, *edges, WHITE)
    keeper = 320 + 60 * min(max(seconds - 2, 0) / 2, 1)
    box(picture, keeper - 10, 110, keeper + 10, 170, (240, 200, 40))
    disc(picture, keeper, 100, 10, (230, 180, 150))
    flown = min(max(seconds - 1.5, 0) / 2.5, 1)
    disc(picture, 120 + 110 * flown, 320 - 250 * flown + 40 * np.sin(3.14 * flown), 18 - 9 * flown, WHITE)
    return picture


def planet(seconds: float, rng: np.random.Generator) -> Picture:
    """A banded planet among stars, with four moons that go round it."""
    picture = sheet(BLACK, (8, 8, 24))
    picture[rng.integers(0, HEIGHT, 250), rng.integers(0, WIDTH, 250)] = WHITE
    disc(picture, 320, 180, 90, (205, 160, 115))
    rows = np.arange(HEIGHT)
    banded = (np.sin(rows / 9) > 0.2)[:, None] & (picture == (205, 160, 115)).all(axis=2)
    picture[banded] = (170, 110, 75)
    disc(picture, 355, 215, 14, (190, 80, 50))
    for n, far in enumerate((130, 170, 220, 290)):
        angle = seconds * (1.3 - 0.28 * n) + n
        if np.sin(angle) > 0 or abs(far * np.cos(angle)) > 90:  # not behind the planet
            disc(picture, 320 + far * np.cos(angle), 180 + 0.15 * far * np.sin(angle), 7, (230, 230, 215))
    return picture


def rain(seconds: float, rng: np.random.Generator) -> Picture:
    """Grey clouds, slanting rain and a bent tree on the shore."""
    picture = sheet((70, 75, 85), (125, 130, 140))
    for n in range(9):
        ring(picture, 75 * n + 8 * seconds, 40 + 18 * (n % 3), 0, 75, (95, 100, 110), flat=0.5)
    box(picture, 0, 310, WIDTH, HEIGHT, (60, 75, 60))
    bend = 1.0 + 0.3 * np.sin(5 * seconds)
    for step in range(90):
        x = 480 - bend * step**2 / 160
        box(picture, x - 5, 310 - step, x + 5, 312 - step, (55, 40, 30))
    ring(picture, 480 - bend * 60, 215, 0, 50, (40, 80, 45), flat=0.7)
    drops = (rng.uniform(0, (WIDTH, HEIGHT), (220, 2)) + seconds * np.array((-160, 700))) % (WIDTH, HEIGHT)
    for x, y in drops:
        box(picture, x, y, x + 2, y + 14, (190, 205, 225))
    return picture


def aqueduct(seconds: float, rng: np.random.Generator) -> Picture:
    """Two rows of stone arches across a valley; the view moves along them."""
    picture = sheet((120, 180, 235), (215, 230, 240))
    x = np.arange(WIDTH) + 25 * seconds
    below(picture, 250 + 40 * np.sin(x / 110), (110, 140, 80))
    stone = (205, 180, 140)
    box(picture, 0, 80, WIDTH, 98, stone)
    for top, width, bottom in ((98, 80, 190), (190, 160, 330)):
        box(picture, 0, top, WIDTH, top + 14, stone)
        for pillar in range(-1, WIDTH // width + 2):
            left = pillar * width - (25 * seconds) % width
            box(picture, left, top, left + width * 0.2, bottom, stone)
            _spandrels(picture, left + width * 0.2, left + width, top + 14, stone)
    return picture


def _spandrels(picture: Picture, left: float, right: float, top: float, colour: Colour) -> None:
    """The stone above a round arch."""
    radius = (right - left) / 2
    for row in range(int(radius)):
        half = np.sqrt(radius**2 - (radius - row) ** 2)
        box(picture, left, top + row, left + radius - half, top + row + 1, colour)
        box(picture, right - radius + half, top + row, right, top + row + 1, colour)


def chess(seconds: float, rng: np.random.Generator) -> Picture:
    """A board with pieces, one of which crosses it."""
    picture = sheet((90, 60, 40), (70, 45, 30))
    rows, columns = np.mgrid[0:320, 0:320] // 40
    board = np.where(((rows + columns) % 2 == 0)[..., None], (240, 217, 181), (181, 136, 99))
    picture[20:340, 160:480] = board
    for n in range(9):
        square = rng.integers(0, 8, 2)
        disc(picture, 180 + 40 * square[0], 40 + 40 * square[1], 14, (30, 30, 30) if n % 2 else (250, 250, 250))
    gone = min(seconds / 4, 1.0)
    x, y = 180 + 280 * gone, 320 - 280 * gone
    disc(picture, x, y, 17, WHITE)
    disc(picture, x, y, 9, (200, 30, 90))
    return picture


def night_city(seconds: float, rng: np.random.Generator) -> Picture:
    """Dark towers whose windows light up one after the other."""
    picture = sheet((8, 8, 30), (40, 30, 70))
    disc(picture, 540, 60, 24, (240, 240, 220))
    for n in range(8):
        left, top = 80 * n, int(rng.integers(60, 200))
        box(picture, left + 4, top, left + 76, HEIGHT, (18, 18, 26))
        for y in range(top + 12, HEIGHT - 8, 22):
            for x in range(left + 12, left + 68, 16):
                if rng.uniform(0, SCENE_SECONDS + 1) < seconds:
                    box(picture, x, y, x + 9, y + 12, YELLOW)
    return picture


def train(seconds: float, rng: np.random.Generator) -> Picture:
    """A blue train passes in front of snowy mountains."""
    picture = sheet((170, 205, 240), (225, 235, 245))
    x = np.arange(WIDTH)
    ridge = 75 + 110 * np.abs(np.sin(x / 95.0)) + 15 * np.abs(np.sin(x / 23.0))
    below(picture, ridge, (245, 248, 252))
    below(picture, 0.6 * ridge + 80, (95, 100, 115))
    box(picture, 0, 260, WIDTH, HEIGHT, (90, 120, 70))
    box(picture, 0, 296, WIDTH, 302, (60, 55, 50))
    for coach in range(4):
        left = -620 + 210 * seconds + 150 * coach
        box(picture, left, 235, left + 144, 290, (30, 70, 160))
        for window in range(5):
            box(picture, left + 10 + 27 * window, 245, left + 28 + 27 * window, 264, (235, 240, 200))
        for wheel in (24, 120):
            disc(picture, left + wheel, 292, 9, (25, 25, 25))
    return picture


def autumn(seconds: float, rng: np.random.Generator) -> Picture:
    """Dark trunks; yellow leaves fall onto a path."""
    picture = sheet((190, 150, 80), (150, 100, 45))
    for n in range(9):
        left = 70 * n + rng.uniform(-15, 15)
        box(picture, left, 0, left + rng.uniform(14, 30), 300, (70, 52, 40))
    below(picture, np.full(WIDTH, 290.0), (165, 115, 50))
    leaves = rng.uniform(0, (WIDTH, HEIGHT), (90, 2)) + np.array((15 * np.sin(2 * seconds), 75 * seconds))
    for x, y in leaves % (WIDTH, HEIGHT):
        ring(picture, x, y, 0, 7, (240, 190, 40), flat=0.6)
    return picture


SCENES = (
    Scene(sunrise, "The sun comes up over a calm sea, and the first boats leave the harbour."),
    Scene(pan, "Fry the onions in butter until they are golden, then add the tomatoes."),
    Scene(football, "The striker shoots from twenty metres, and the keeper cannot reach it."),
    Scene(planet, "Four of Jupiter's many moons can be seen with a small telescope."),
    Scene(rain, "Heavy rain and strong gusts are expected on the north coast tonight."),
    Scene(aqueduct, "Roman engineers carried water across this valley on arches of stone."),
    Scene(chess, "She gives up her queen, and wins the game four moves later."),
    Scene(night_city, "After dark the windows of the office towers light up one by one."),
    Scene(train, "The last train to the mountains leaves at a quarter past nine."),
    Scene(autumn, "In October the leaves of the beeches turn yellow and cover the path."),
)
