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
    """Write a figure, atomically, in fonts that have its letters: in the format that its name ends
    in, of those that matplotlib writes, else as a PNG file."""
    fonts.choose(figure)
    suffix = Path(path).suffix[1:].lower()
    kind = suffix if suffix in figure.canvas.get_supported_filetypes() else "png"
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)  # it has been said
        figure.savefig(temporary, dpi=120, format=kind)
