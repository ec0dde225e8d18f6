"""Pictures on their way in and out: read, resized, as a network sees them."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastrnn.optional import require
from fastrnn.printing import printable
from fastrnn.vision.images import open_picture, over_white, with_alpha

if TYPE_CHECKING:
    import PIL.Image
    import torch

Picture: TypeAlias = "Path | str | np.ndarray | PIL.Image.Image"

ASPECT_TOLERANCE = 0.02
# Pixels by which the canvas goes on beyond a picture, to be cut off in the end: convolutions
# without padding and with strides see what lies at an edge in one place only, or not at all.
MARGIN = 8


def read(name: str, source: Picture) -> "PIL.Image.Image":
    """A picture as Pillow's image, upright, RGB, or RGBA where some of it is transparent.

    Inputs: its name in errors; a path, an image of Pillow's, or an array (H, W, 3), (H, W, 4) with
    alpha, or (H, W), uint8.
    Raises OSError for an unreadable file, TypeError or ValueError for another array, ValueError
    where all is transparent.
    """
    from_file = isinstance(source, str | Path)
    image = open_picture(source) if from_file else with_alpha(_as_image(name, source))
    if image.mode == "RGBA" and image.getextrema()[3][1] == 0:
        raise ValueError(f"{named(name, source)}: all of it is transparent")
    return image


def named(name: str, source: Picture) -> str:
    """A picture's name in errors, and its file's."""
    return f"{name}, {printable(str(source))}" if isinstance(source, str | Path) else name


def _as_image(name, source):
    if not isinstance(source, np.ndarray):
        return source
    if source.dtype != np.uint8:
        raise TypeError(f"{name}: expected uint8, got {source.dtype}")
    if source.shape[2:] not in ((), (3,), (4,)) or source.ndim < 2 or not source.size:
        raise ValueError(
            f"{name}: expected shape (H, W, 3), (H, W, 4) or (H, W), got {source.shape}"
        )
    return require("PIL.Image").fromarray(source)


def alpha(image: "PIL.Image.Image") -> "PIL.Image.Image | None":
    """How opaque a picture is, grey, None where all of it is."""
    return image.getchannel("A") if image.mode == "RGBA" else None


def read_mask(name: str, source: Picture, size: tuple[int, int]) -> "PIL.Image.Image":
    """A mask as Pillow's grey image, of a picture of so many pixels (width, height): its alpha
    channel where some of it is transparent, or else its luminance.

    Raises what read does, and ValueError for another aspect or where nothing is white.
    """
    image = read(name, source)
    mask = alpha(image) or image.convert("L")
    if abs(mask.width * size[1] / (mask.height * size[0]) - 1) > ASPECT_TOLERANCE:
        raise ValueError(
            f"{named(name, source)}: expected the aspect of the content, {size[0]} x {size[1]}, "
            f"got {mask.width} x {mask.height}"
        )
    if mask.getextrema()[1] == 0:
        raise ValueError(f"{named(name, source)}: nothing is white in it")
    return mask


def with_opacity(picture: np.ndarray, opaque: "PIL.Image.Image") -> np.ndarray:
    """A picture (H, W, 3) uint8 that was painted over white as one (H, W, 4) with so much alpha,
    that looks the same over white."""
    opaque = opaque.resize(picture.shape[1::-1], require("PIL.Image").Resampling.LANCZOS)
    share = np.asarray(opaque)[..., None] / 255
    bare = np.where(share > 0, 255 - (255 - picture) / np.maximum(share, 1 / 255), picture)
    bare = np.clip(np.rint(bare), 0, 255).astype(np.uint8)
    return np.concatenate([bare, np.asarray(opaque)[..., None]], axis=2)


def fitted(size: tuple[int, int], longer: float) -> tuple[int, int]:
    """The size, aspect kept, whose longer side is so many pixels."""
    return tuple(max(1, round(side * longer / max(size))) for side in size)


def with_margin(size: tuple[int, int]) -> tuple[int, int]:
    """The canvas of a picture of (W, H)."""
    return tuple(side + 2 * MARGIN for side in size)


def mirrored(x: "torch.Tensor") -> "torch.Tensor":
    """A tensor (N, C, H, W) with MARGIN around it: its mirror image, or where it is too small for
    one what lies at its edges."""
    mode = "reflect" if min(x.shape[2:]) > MARGIN else "replicate"
    return require("torch.nn.functional").pad(x, (MARGIN,) * 4, mode=mode)


def cropped(x: "torch.Tensor") -> "torch.Tensor":
    """A tensor (N, C, H, W) without its margin."""
    return x[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


class Space:
    """The normalised space a network sees: (x - mean) / std of each channel, x in [0, 1]."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: str) -> None:
        torch = require("torch")
        self.device = device
        self.mean, self.std = (torch.tensor(c, device=device).view(1, 3, 1, 1) for c in (mean, std))
        self.low, self.high = -self.mean / self.std, (1 - self.mean) / self.std

    def tensor(self, image: "PIL.Image.Image", size: tuple[int, int]) -> "torch.Tensor":
        """A picture (1, 3, H, W), over white, resized to (W, H)."""
        image = over_white(image).resize(size, require("PIL.Image").Resampling.LANCZOS)
        rgb = require("torch").from_numpy(np.array(image)).to(self.device)
        return (rgb.permute(2, 0, 1)[None] / 255 - self.mean) / self.std

    def array(self, x: "torch.Tensor") -> np.ndarray:
        """A tensor (1, 3, H, W) as a picture (H, W, 3) uint8."""
        rgb = (x.detach() * self.std + self.mean).clamp(0, 1)[0].permute(1, 2, 0)
        return (rgb * 255).round().byte().cpu().numpy()

    def clamp_(self, x: "torch.Tensor") -> None:
        """Move what lies outside of [0, 1] to its border, in place."""
        x.data.clamp_(self.low, self.high)

    def noise(self, size: tuple[int, int], seed: int) -> "torch.Tensor":
        """A grey picture of (W, H) with Gaussian noise, the same on every device."""
        torch = require("torch")
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn((1, 3, *size[::-1]), generator=generator)
        return ((0.5 + 0.1 * drawn).clamp(0, 1).to(self.device) - self.mean) / self.std

    def mask(self, mask: "PIL.Image.Image", size: tuple[int, int]) -> "torch.Tensor":
        """A mask (1, 1, H, W) in [0, 1], resized to (W, H)."""
        # In floating point, as a small white place would round to black.
        resized = mask.convert("F").resize(size, require("PIL.Image").Resampling.BOX)
        return require("torch").from_numpy(np.array(resized))[None, None].to(self.device) / 255
