"""Small copies of pictures, for pages."""

import io
from pathlib import Path

import numpy as np

from fastrnn import report
from fastrnn.optional import require
from fastrnn.vision.images import open_rgb, over_white

SIDE, MOST_BYTES = 240, 16_000  # of the longer side in pixels, and of the JPEG file


def thumbnail(
    source, alt: str, caption: str = "", *, side: int = SIDE, most_bytes: int = MOST_BYTES
) -> dict[str, object]:
    """A report's picture of a file, an image of Pillow's or an array (H, W, 3) uint8, made smaller
    than side and most_bytes.

    Raises OSError that names the file where it cannot be read.
    """
    image = open_rgb(source, side) if isinstance(source, Path) else source
    if isinstance(image, np.ndarray):
        image = require("PIL.Image").fromarray(image)
    image = over_white(image).copy()
    image.thumbnail((side, side))
    for quality in (82, 70, 55, 40, 25, 10):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= most_bytes:
            break
    return report.picture(file.getvalue(), image.size, alt, caption)
