"""The pictures of a transfer, read and checked."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fastrnn.vision.style import colors
from fastrnn.vision.style.pictures import Picture, read, read_mask

if TYPE_CHECKING:
    import PIL.Image


class Inputs(NamedTuple):
    """Pillow's images: content and styles (in_grey: their luminance); masks, one a style, or None;
    init, "content", "noise" or an image; colors, the content as it came."""

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
    keep_colors: bool,
) -> Inputs:
    """Read the pictures of a transfer.

    Raises what pictures.read and read_mask do, and ValueError for another number of masks or no
    style.
    """
    if not styles:
        raise ValueError("styles: expected one or more")
    if masks is not None and len(masks) != len(styles):
        raise ValueError(f"masks: expected {len(styles)}, one for each style, got {len(masks)}")
    original = read("content", content)
    shown, images = original, [read(f"style {i}", style) for i, style in enumerate(styles, 1)]
    if masks is not None:
        masks = [read_mask(f"mask {i}", mask, original.size) for i, mask in enumerate(masks, 1)]
    if not (isinstance(init, str) and init in ("content", "noise")):
        init = read("init", init)
    if keep_colors:
        shown, images = colors.in_grey(original, images)
    return Inputs(shown, images, masks, init, original)
