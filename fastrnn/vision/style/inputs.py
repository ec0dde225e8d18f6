"""The pictures of a transfer, read and checked."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fastrnn.optional import require
from fastrnn.vision.style import colors
from fastrnn.vision.style.pictures import Picture, alpha, read, read_mask

if TYPE_CHECKING:
    import PIL.Image


class Inputs(NamedTuple):
    """Pillow's images, RGB, or RGBA where some of them is transparent: content and styles, coloured
    as the network is to see them; init, "content", "noise" or an image; colors, the content as it
    came. masks, one a style, or None: where in the picture it is painted, grey."""

    content: "PIL.Image.Image"
    styles: list["PIL.Image.Image"]
    masks: list["PIL.Image.Image"] | None
    init: "str | PIL.Image.Image"
    colors: "PIL.Image.Image"

    def hashes(self) -> dict[str, str]:
        """A hash of every picture's pixels, by its name."""
        named = {"content": self.colors}
        named |= {f"style {i}": style for i, style in enumerate(self.styles, 1)}
        named |= {f"mask {i}": mask for i, mask in enumerate(self.masks or [], 1)}
        return {name: _hash(image) for name, image in named.items()} | {
            "init": self.init if isinstance(self.init, str) else _hash(self.init)
        }


def _hash(image: "PIL.Image.Image") -> str:
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()


def read_inputs(
    content: Picture,
    styles: Sequence[Picture],
    masks: Sequence[Picture] | None,
    init: Picture,
    *,
    coloring: str,
) -> Inputs:
    """Read the pictures of a transfer; coloring, one of colors.COLORINGS.

    Raises what pictures.read and read_mask do, and ValueError for another number of masks, no
    style, or a mask that is white nowhere but where the content is transparent.
    """
    if not styles:
        raise ValueError("styles: expected one or more")
    if masks is not None and len(masks) != len(styles):
        raise ValueError(f"masks: expected {len(styles)}, one for each style, got {len(masks)}")
    original = read("content", content)
    images = [read(f"style {i}", style) for i, style in enumerate(styles, 1)]
    if masks is not None:
        masks = [read_mask(f"mask {i}", mask, original.size) for i, mask in enumerate(masks, 1)]
    if (opaque := alpha(original)) is not None:
        masks = _within(opaque, masks) if masks else [opaque] * len(images)
    if not (isinstance(init, str) and init in ("content", "noise")):
        init = read("init", init)
    shown, images = colors.COLORINGS[coloring](original, images)
    return Inputs(shown, images, masks, init, original)


def _within(opaque, masks):
    """The masks without what the content has transparent: nothing is painted there."""
    multiply = require("PIL.ImageChops").multiply
    inside = [multiply(mask.resize(opaque.size), opaque) for mask in masks]
    for i, mask in enumerate(inside, 1):
        if mask.getextrema()[1] == 0:
            raise ValueError(f"mask {i}: nothing is white in it where the content is opaque")
    return inside
