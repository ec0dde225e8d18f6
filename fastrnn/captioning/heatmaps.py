"""Where attention looks to say each word, over the picture."""

import math
from collections.abc import Sequence

import numpy as np

from fastrnn import figures
from fastrnn.printing import printable

COLUMNS = 8
# Of the light, what a spotlight leaves everywhere; of the places, the share that has not all of it.
DARKEST, LIGHTEST = 0.2, 0.95


def plot_looks(pictures: Sequence[np.ndarray], words: Sequence[Sequence[str]], looks: Sequence):
    """A figure of pictures, each once as it is and then once for every word, bright where it is
    looked at.

    Inputs: pictures, (height, width, 3) each; words said of each; looks (T, L) of each, a row a
    word, of a square grid of L places that covers the picture.
    """
    rows = [math.ceil((1 + len(said)) / COLUMNS) for said in words]
    figure = figures.new(1.5 * COLUMNS, 1.75 * sum(rows))
    axes = figure.subplots(sum(rows), COLUMNS, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    first = 0
    for picture, said, weights, n in zip(pictures, words, looks, rows, strict=True):
        cells = iter(axes[first : first + n].ravel())
        next(cells).imshow(picture)
        for axis, word, places in zip(cells, said, weights, strict=False):
            side = math.isqrt(len(places))
            height, width = picture.shape[:2]
            axis.imshow(picture.mean(axis=2), cmap="gray")
            axis.imshow(
                places.reshape(side, side),
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                interpolation="bicubic",
                cmap="inferno",
                alpha=0.6,
            )
            axis.set_title(printable(word), fontsize=9, parse_math=False)
        first += n
    return figure


def spotlight(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A picture (height, width, 3) uint8, dark where little is looked at: places (L,), of a square
    grid that covers it."""
    side = math.isqrt(len(places))
    # What is looked at most may be a place or two, beside which all others would be black.
    lit = np.minimum(places / max(np.quantile(places, LIGHTEST), 1e-12), 1).reshape(side, side)
    for length in picture.shape[:2]:  # rows, then, of what is transposed, columns
        at = (np.arange(length) + 0.5) * side / length - 0.5
        lit = np.stack([np.interp(at, np.arange(side), column) for column in lit.T])
    lit = DARKEST + (1 - DARKEST) * lit
    return np.rint(picture * lit[:, :, None]).astype(np.uint8)


def seen_part(picture: np.ndarray, resize: int | None, crop: int) -> np.ndarray:
    """The square in the middle of a picture (height, width, 3) that a network sees whose input's
    shorter side is resized and then cropped (resize None: the whole)."""
    if resize is None:
        return picture
    height, width = picture.shape[:2]
    side = max(1, round(min(height, width) * crop / resize))
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]
