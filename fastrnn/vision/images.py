"""Picture files: which there are in a folder, and their pixels."""

from pathlib import Path

import numpy as np

from fastrnn.optional import require
from fastrnn.storage import check_regular

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def list_images(folder: Path | str, *, below: bool = False) -> list[Path]:
    """Picture files in a folder, with below also in the folders within, by suffix, in alphabetical
    order, hidden ones left out.

    Raises NotADirectoryError or FileNotFoundError where there is no folder or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    paths = [*folder.iterdir()]
    if below:  # rglob follows no links but its own folder
        paths += [path for inner in paths if inner.is_dir() for path in inner.rglob("*")]
    found = sorted(
        path
        for path in paths
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise FileNotFoundError(f"{folder}: no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return found


def open_rgb(path: Path | str):
    """A picture as Pillow's RGB image, upright; of 16 bits the upper 8, without its alpha channel.

    Raises OSError that names the file where it is missing, broken or no picture.
    """
    image, ops = require("PIL.Image"), require("PIL.ImageOps")
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        check_regular(path)
        with image.open(path) as picture:
            return _to_rgb(ops.exif_transpose(picture))
    except Exception as error:  # Pillow raises whatever a broken file leads it to
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        reason = reason.replace(str(path), Path(path).name)
        raise OSError(f"{path}: not a readable picture ({reason})") from None


def _to_rgb(picture):
    if picture.mode == "F":
        raise ValueError("floating-point pixels, whose range nothing tells")
    if picture.mode.startswith("I"):  # convert() would clip 16 bits, not scale them
        pixels = np.asarray(picture)
        picture = require("PIL.Image").fromarray((pixels.clip(0, 65535) // 257).astype(np.uint8))
    return picture.convert("RGB")
