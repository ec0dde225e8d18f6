"""The embedded data set: pictures of coloured shapes in relations, with captions from a grammar.

Nothing is shipped: a seed makes the pictures, five captions each, and features computed from the
pixels alone, so a captioner has to look to be right.
"""

from typing import NamedTuple

import numpy as np

SIZE = 64  # pixels a side
CAPTIONS = 5  # a picture
BACKBONE = "scenes"  # the name under which these features are remembered

COLOURS = {
    "red": (0.85, 0.15, 0.15),
    "green": (0.15, 0.65, 0.25),
    "blue": (0.15, 0.30, 0.85),
    "yellow": (0.95, 0.85, 0.20),
    "purple": (0.60, 0.20, 0.70),
    "orange": (0.95, 0.50, 0.10),
}
SHAPES = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid"),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus sign"),
}
SIZES = {
    "small": (0.09, 0.12, ("small", "little", "tiny")),
    "large": (0.17, 0.21, ("large", "big", "huge")),
}
RELATIONS = {
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath"),
}
CONVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
OFFSETS = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
PLACES = {
    (0, 0): "top left",
    (1, 0): "top",
    (2, 0): "top right",
    (0, 1): "left",
    (1, 1): "middle",
    (2, 1): "right",
    (0, 2): "bottom left",
    (1, 2): "bottom",
    (2, 2): "bottom right",
}


class Thing(NamedTuple):
    """One shape of a scene; x, y and radius in units of the picture's side."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    radius: float


class Scene(NamedTuple):
    """One or two things; relation is that of the first to the second ("" where it is alone)."""

    things: tuple[Thing, ...]
    relation: str


# ---- what is in a picture -----------------------------------------------------------------------


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random scene: a quarter show one thing, the others two of different colours."""

    def thing(x: float, y: float, colour: str) -> Thing:
        size = str(rng.choice([*SIZES]))
        low, high, _ = SIZES[size]
        return Thing(colour, str(rng.choice([*SHAPES])), size, x, y, rng.uniform(low, high))

    first, second = map(str, rng.choice([*COLOURS], 2, replace=False))
    if rng.random() < 0.25:
        column, row = rng.integers(3, size=2)
        x, y = (np.array([column, row]) + 0.5) / 3 * 0.84 + 0.08
        return Scene((thing(x, y, first),), "")
    relation = str(rng.choice([*RELATIONS]))
    along = np.array(OFFSETS[relation]) * rng.uniform(0.22, 0.27)
    across = np.array(OFFSETS[relation])[::-1] * rng.uniform(-0.12, 0.12)
    centre = 0.5 + rng.uniform(-0.03, 0.03, size=2)
    (x1, y1), (x2, y2) = centre + along + across, centre - along - across
    return Scene((thing(x1, y1, first), thing(x2, y2, second)), relation)


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """One caption of a scene: what is named first, and which words, is chance."""

    def name(thing: Thing, article: str = "a") -> str:
        words = [thing.colour, str(rng.choice(SHAPES[thing.shape]))]
        if rng.random() < 0.6:
            words.insert(0, str(rng.choice(SIZES[thing.size][2])))
        if article == "a" and words[0][0] in "aeiou":
            article = "an"
        return " ".join([article, *words])

    opening = str(rng.choice(["", "", "there is ", "a picture of ", "we see "]))
    if not scene.relation:
        (thing,) = scene.things
        place = PLACES[min(2, int(thing.x * 3)), min(2, int(thing.y * 3))]
        where = str(rng.choice(["in the", "at the"] if place != "middle" else ["in the"]))
        end = str(rng.choice(["", " of the picture"]))
        return f"{opening}{name(thing)} {where} {place}{end}"
    (first, second), relation = scene.things, scene.relation
    if rng.random() < 0.5:
        first, second, relation = second, first, CONVERSE[relation]
    form = rng.random()
    if form < 0.15:
        return f"{opening}{name(first)} and {name(second)}"
    words = str(rng.choice(RELATIONS[relation]))
    if form < 0.35:
        return f"{name(first, 'the')} is {words} {name(second, 'the')}"
    return f"{opening}{name(first)} {words} {name(second)}"


# ---- pixels --------------------------------------------------------------------------------------

_Y, _X = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE


def _distance(thing: Thing) -> np.ndarray:
    """Signed distance of every pixel from the outline, negative inside, in sides."""
    x, y, r = _X - thing.x, _Y - thing.y, thing.radius
    if thing.shape == "circle":
        return np.hypot(x, y) - r
    if thing.shape == "ring":
        return np.abs(np.hypot(x, y) - 0.75 * r) - 0.25 * r
    if thing.shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * r
    if thing.shape == "cross":
        bars = (
            np.maximum(np.abs(x) - 0.3 * r, np.abs(y) - r),
            np.maximum(np.abs(x) - r, np.abs(y) - 0.3 * r),
        )
        return np.minimum(*bars)
    slopes = 0.866 * np.abs(x) - 0.5 * y - 0.5 * r  # triangle, point up
    return np.maximum(slopes, y - 0.5 * r)


def render(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The picture (SIZE, SIZE, 3) uint8: a shaded light or dark ground, antialiased shapes of
    slightly varying colour, noise."""
    ground = rng.uniform(0.82, 0.97) if rng.random() < 0.5 else rng.uniform(0.03, 0.18)
    slope = rng.uniform(-0.08, 0.08, size=2)
    picture = np.repeat((ground + slope[0] * (_X - 0.5) + slope[1] * (_Y - 0.5))[..., None], 3, 2)
    for thing in scene.things:
        colour = np.clip(np.array(COLOURS[thing.colour]) + rng.normal(0, 0.03, 3), 0, 1)
        cover = np.clip(0.5 - _distance(thing) * SIZE, 0, 1)[..., None]
        picture = (1 - cover) * picture + cover * colour
    picture += rng.normal(0, 0.02, picture.shape)
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)


# ---- features ------------------------------------------------------------------------------------

PATCH = 8  # samples a side of what a colour looks like
GRID = 4  # cells a side of where it is


def features(pictures: np.ndarray) -> np.ndarray:
    """What a linear layer can use: for every colour whether it is there, where its centre lies, how
    large it is, what it looks like when brought to one place and size, and which cells of a grid it
    covers.

    Inputs: pictures (n, SIZE, SIZE, 3) uint8.
    Returns: (n, colours * (PATCH**2 + GRID**2 + 4)) float32, of the order of 1.
    Raises ValueError for another shape or dtype.
    """
    pictures = np.asarray(pictures)
    if pictures.dtype != np.uint8 or pictures.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(
            f"pictures: expected (n, {SIZE}, {SIZE}, 3) uint8, got {pictures.shape} "
            f"{pictures.dtype}"
        )
    parts = np.array_split(pictures, max(1, len(pictures) // 64))  # masks take some memory
    return np.concatenate([_features(part) for part in parts])


def _features(pictures: np.ndarray) -> np.ndarray:
    n, colours, cell = len(pictures), len(COLOURS), SIZE // GRID
    masks = _colour_masks(pictures / np.float32(255))  # (n, colours, SIZE, SIZE)
    area = masks.sum(axis=(2, 3))
    there = np.clip(area / 30 - 0.5, 0, 1)  # half the smallest shape's pixels; edges have fewer
    mass = area + 1e-6
    x = (masks.sum(axis=2) * _X[0]).sum(axis=2) / mass
    y = (masks.sum(axis=3) * _X[0]).sum(axis=2) / mass
    distance2 = (_X - x[..., None, None]) ** 2 + (_Y - y[..., None, None]) ** 2
    radius = np.sqrt((masks * distance2).sum(axis=(2, 3)) / mass)

    # The mask sampled on a square of 3.6 radii of gyration about the centre.
    steps = 3.6 * ((np.arange(PATCH) + 0.5) / PATCH - 0.5)
    columns = _pixel(x[..., None] + radius[..., None] * steps)  # (n, colours, PATCH)
    rows = _pixel(y[..., None] + radius[..., None] * steps)
    picture, colour = np.arange(n)[:, None, None, None], np.arange(colours)[:, None, None]
    patch = masks[picture, colour, rows[..., :, None], columns[..., None, :]]

    place = np.stack([np.ones_like(x), 4 * (x - 0.5), 4 * (y - 0.5), 10 * (radius - 0.1)], axis=2)
    grid = masks.reshape(n, colours, GRID, cell, GRID, cell).mean(axis=(3, 5))
    looks = np.concatenate([patch.reshape(n, colours, PATCH**2), place], axis=2)
    parts = [looks * there[..., None], grid.reshape(n, colours, GRID**2)]
    width = PATCH**2 + GRID**2 + place.shape[2]
    return np.concatenate(parts, axis=2).reshape(n, colours * width).astype(np.float32)


def _pixel(coordinate: np.ndarray) -> np.ndarray:
    return np.clip((coordinate * SIZE).astype(int), 0, SIZE - 1)


def _colour_masks(pictures: np.ndarray) -> np.ndarray:
    """How much each pixel is of each colour, in [0, 1]: (n, colours, SIZE, SIZE). Grey is none."""
    palette = np.array([*COLOURS.values()], np.float32)
    away = ((pictures[:, None] - palette[:, None, None]) ** 2).sum(axis=4)
    grey = pictures.mean(axis=3, keepdims=True)
    away_grey = ((pictures - grey) ** 2).sum(axis=3)[:, None]
    weights = np.exp(-np.concatenate([away, away_grey], axis=1) / 0.02)
    return weights[:, :-1] / (weights.sum(axis=1, keepdims=True) + 1e-6)


# ---- the data set --------------------------------------------------------------------------------


def make(n: int, seed: int) -> tuple[np.ndarray, list[list[str]]]:
    """n pictures (n, SIZE, SIZE, 3) uint8 and CAPTIONS captions of each."""
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng) for _ in range(n)]
    pictures = np.stack([render(scene, rng) for scene in scenes])
    return pictures, [[describe(scene, rng) for _ in range(CAPTIONS)] for scene in scenes]
