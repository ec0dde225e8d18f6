"""Figures that are drawn into files: no display, no global state of pyplot's."""

import warnings
from pathlib import Path

from fastrnn import fonts
from fastrnn.optional import require
from fastrnn.storage import replacing


def new(width: float, height: float):
    """An empty matplotlib figure of so many inches."""
    figure = require("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def save(figure, path: Path | str) -> None:
    """Write a figure as a PNG file, atomically, in fonts that have its letters."""
    fonts.choose(figure)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)  # it has been said
        figure.savefig(temporary, dpi=120, format="png")
