"""Picture files: which there are in a folder, and their pixels."""

import os
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn.optional import require
from fastrnn.printing import printable
from fastrnn.storage import check_regular

if TYPE_CHECKING:
    import PIL.Image

# Pillow's readers that hand over to another program, or have none to hand over to.
NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
HEIF = {".heic", ".heics", ".heif", ".heifs", ".hif"}
# What systems leave in folders, besides hidden files.
LEFT_BY_SYSTEMS = {"__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini"}
NAMED = 3  # files that a message names
# How many times as long as wide a picture may be before the ends of it are cut off.
LONGEST = 4
ORIENTATION = 0x0112  # of EXIF


class Found(NamedTuple):
    """Files of a folder in alphabetical order: pictures, and others, which are none."""

    pictures: list[Path]
    others: list[Path]


@cache
def suffixes() -> frozenset[str]:
    """The endings of the names of pictures: what Pillow reads, and with pillow-heif HEIF."""
    image = _pillow()
    registered = image.registered_extensions().items()
    return frozenset(suffix for suffix, name in registered if name in _formats()) | HEIF


@cache
def _formats() -> tuple[str, ...]:
    return tuple(sorted(_pillow().OPEN.keys() - NOT_READ))


@cache
def _pillow():
    """Pillow's module with all its readers."""
    image = require("PIL.Image")
    image.init()
    with suppress(ModuleNotFoundError):  # which is said of the picture that needs it
        require("pillow_heif").register_heif_opener()
    return image


def is_ignored(path: Path) -> bool:
    """Whether a file or folder is hidden, or of those that systems leave everywhere."""
    return path.name.startswith(".") or path.name.lower() in LEFT_BY_SYSTEMS


def find_images(folder: Path | str, *, below: bool = True) -> Found:
    """The files of a folder, with below also of the folders in it, links to folders followed;
    pictures are told by their names' endings, or without one by their content.

    Raises NotADirectoryError or FileNotFoundError where there is no folder or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    found = Found([], [])
    for path in sorted(_files(folder, below)):
        (found.pictures if _is_picture(path) else found.others).append(path)
    if not found.pictures:
        also = f"; {left_out(found.others, folder)}" if found.others else ""
        raise FileNotFoundError(f"{folder}: no pictures that Pillow reads{also}")
    return found


def look_for(place: Path, note: Callable[[str], object]) -> Found:
    """A picture file, or what find_images finds in a folder; note gets a line on other files there.
    Raises FileNotFoundError where there is nothing, or no picture in a folder."""
    if not place.exists():
        raise FileNotFoundError(f"{place}: no such file or folder")
    if not place.is_dir():
        return Found([place], [])
    found = find_images(place)
    if found.others:
        note(left_out(found.others, place))
    return found


def _files(folder: Path, below: bool):
    def fail(error: OSError):
        raise error

    seen = {os.path.realpath(folder)}  # links may lead in circles
    for at, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        yield from (path for name in names if not is_ignored(path := Path(at, name)))
        inner = [name for name in sorted(folders) if below and not is_ignored(Path(at, name))]
        folders[:] = [name for name in inner if _real(at, name) not in seen]
        seen |= {_real(at, name) for name in folders}


def _real(at: str, name: str) -> str:
    return os.path.realpath(Path(at, name))


def _is_picture(path: Path) -> bool:
    if path.suffix:
        return path.suffix.lower() in suffixes()
    image = _pillow()
    telling = [name for name in _formats() if image.OPEN[name][1]]  # those with a signature
    try:
        check_regular(path)
        with image.open(path, formats=telling):
            return True
    except Exception:  # whatever another file leads to
        return False


def left_out(others: Collection[Path], folder: Path) -> str:
    """A line on the files in a folder that are no pictures: how many there are, some by name."""
    names = [printable(path.relative_to(folder).as_posix()) for path in [*others][:NAMED]]
    what = "file that is no picture by its name"
    if len(others) > 1:
        what = "files that are no pictures by their names"
    return f"left out {len(others):,} {what}: {some(names, len(others))}"


def some(names: Sequence[str], count: int) -> str:
    """The first names of so many, and how many more there are."""
    more = [f"and {count - NAMED} more"] if count > NAMED else []
    return ", ".join([*names[:NAMED], *more])


# ---- pixels --------------------------------------------------------------------------------------


def open_rgb(path: Path | str, at_least: int | None = None) -> "PIL.Image.Image":
    """A picture as Pillow's RGB image: open_picture's, over white."""
    return over_white(open_picture(path, at_least))


def open_picture(path: Path | str, at_least: int | None = None) -> "PIL.Image.Image":
    """A picture as Pillow's image, upright, the first of several, RGB or, where some of it is
    transparent, RGBA; of 16 bits the upper 8.

    Inputs: path; at_least, pixels of the shorter side of which no more are wanted (None: all): a
    larger JPEG is read in a half, a quarter or an eighth of its size, in a fraction of the time.
    Raises OSError that names the file where it is missing, broken, no picture, or has more pixels
    than PIL.Image.MAX_IMAGE_PIXELS.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if Path(path).suffix.lower() in HEIF:
            require("pillow_heif")
        return _decoded(path, at_least)
    except Exception as error:  # Pillow raises whatever a broken file leads it to
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        reason = reason.replace(str(path), Path(path).name)
        raise OSError(f"{path}: not a readable picture ({reason})") from None


def _decoded(path, at_least):
    image, ops = _pillow(), require("PIL.ImageOps")
    check_regular(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata, and the bound is checked here
        with image.open(path, formats=_formats()) as picture:
            if at_least is not None:
                picture.draft("RGB", (at_least, at_least))
            most, (width, height) = image.MAX_IMAGE_PIXELS, picture.size
            if most is not None and width * height > most:
                raise ValueError(f"{width} x {height} pixels; at most {most:,} are read")
            picture.load()
            turned = picture.getexif().get(ORIENTATION, 1) != 1
            return with_alpha(ops.exif_transpose(picture) if turned else picture)


def with_alpha(picture: "PIL.Image.Image") -> "PIL.Image.Image":
    """An image of Pillow's of any mode, transparent in whatever way, as RGBA, or RGB where it is
    opaque. Raises ValueError for floating-point pixels."""
    if picture.mode == "F":
        raise ValueError("floating-point pixels, whose range nothing tells")
    if picture.mode.startswith("I"):
        return _of_many_bits(picture)
    transparent = picture.info.get("transparency")
    if picture.mode == "RGB" and transparent and max(transparent) > 255:  # a PNG's of 16 bits
        picture = picture.copy()
        picture.info["transparency"] = tuple(channel >> 8 for channel in transparent)
    if transparent is None and picture.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    if picture.mode == "La":
        picture = picture.convert("LA")
    picture = picture.convert("RGBA")
    return picture.convert("RGB") if picture.getextrema()[3][0] == 255 else picture


def _of_many_bits(picture):
    """convert() would clip 16 bits, not scale them."""
    image, pixels = _pillow(), np.asarray(picture)
    grey = image.fromarray((pixels.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    transparent = picture.info.get("transparency")
    if transparent is not None and (clear := pixels == transparent).any():
        grey.putalpha(image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    return grey


def over_white(picture: "PIL.Image.Image") -> "PIL.Image.Image":
    """An image of Pillow's of any mode as RGB, what is transparent in it over white.

    Raises ValueError for floating-point pixels.
    """
    picture = with_alpha(picture)
    if picture.mode == "RGB":
        return picture
    opaque = _pillow().new("RGB", picture.size, "white")
    opaque.paste(picture, mask=picture.getchannel("A"))
    return opaque


def without_ends(picture: "PIL.Image.Image") -> "PIL.Image.Image":
    """A picture, of a very long or high one the middle: with its shorter side resized as a network
    wants it the whole could fill the memory."""
    shorter = min(picture.size)
    if max(picture.size) <= LONGEST * shorter:
        return picture
    width, height = (min(side, LONGEST * shorter) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
