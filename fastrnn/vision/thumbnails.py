"""Small copies of pictures, for pages."""

import io
from pathlib import Path

import numpy as np

from fastrnn import report
from fastrnn.optional import require
from fastrnn.vision.images import open_rgb

SIDE, MOST_BYTES = 240, 16_000  # of the longer side in pixels, and of the JPEG file


def thumbnail(
    source, alt: str, caption: str = "", *, side: int = SIDE, most_bytes: int = MOST_BYTES
) -> dict[str, object]:
    """A report's picture of a file, an image of Pillow's or an array (H, W, 3) uint8, made smaller
    than side and most_bytes.

    Raises OSError that names the file where it cannot be read.
    """
    image = open_rgb(source) if isinstance(source, Path) else source
    if isinstance(image, np.ndarray):
        image = require("PIL.Image").fromarray(image)
    image = _on_white(image)
    image.thumbnail((side, side))
    for quality in (82, 70, 55, 40, 25, 10):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= most_bytes:
            break
    return report.picture(file.getvalue(), image.size, alt, caption)


def _on_white(image):
    """A copy, of what is seen through with white behind it."""
    if "A" not in image.getbands():
        return image.convert("RGB") if image.mode != "RGB" else image.copy()
    white = require("PIL.Image").new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")
