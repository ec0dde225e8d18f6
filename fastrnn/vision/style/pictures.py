"""Pictures on their way in and out: read, resized, as a network sees them."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastrnn.optional import require
from fastrnn.vision.images import open_rgb

if TYPE_CHECKING:
    import PIL.Image
    import torch

Picture: TypeAlias = "Path | str | np.ndarray | PIL.Image.Image"

ASPECT_TOLERANCE = 0.02


def read(name: str, source: Picture) -> "PIL.Image.Image":
    """A picture as Pillow's RGB image, upright.

    Inputs: its name in errors; a path, an image of Pillow's, or an array (H, W, 3) or (H, W) uint8.
    Raises OSError for an unreadable file, TypeError or ValueError for another array.
    """
    if isinstance(source, str | Path):
        return open_rgb(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8:
            raise TypeError(f"{name}: expected uint8, got {source.dtype}")
        if source.shape[2:] not in ((), (3,)) or source.ndim < 2 or not source.size:
            raise ValueError(f"{name}: expected shape (H, W, 3) or (H, W), got {source.shape}")
        source = require("PIL.Image").fromarray(source)
    return source.convert("RGB")


def read_mask(name: str, source: Picture, size: tuple[int, int]) -> "PIL.Image.Image":
    """A mask as Pillow's grey image, of a picture of so many pixels (width, height).

    Raises what read does, and ValueError for another aspect or where nothing is white.
    """
    mask = read(name, source).convert("L")
    if abs(mask.width * size[1] / (mask.height * size[0]) - 1) > ASPECT_TOLERANCE:
        raise ValueError(
            f"{name}: expected the aspect of the content, {size[0]} x {size[1]}, got "
            f"{mask.width} x {mask.height}"
        )
    if mask.getextrema()[1] == 0:
        raise ValueError(f"{name}: nothing is white in it")
    return mask


def fitted(size: tuple[int, int], longer: float) -> tuple[int, int]:
    """The size, aspect kept, whose longer side is so many pixels."""
    return tuple(max(1, round(side * longer / max(size))) for side in size)


class Space:
    """The normalised space a network sees: (x - mean) / std of each channel, x in [0, 1]."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: str) -> None:
        torch = require("torch")
        self.device = device
        self.mean, self.std = (torch.tensor(c, device=device).view(1, 3, 1, 1) for c in (mean, std))
        self.low, self.high = -self.mean / self.std, (1 - self.mean) / self.std

    def tensor(self, image: "PIL.Image.Image", size: tuple[int, int]) -> "torch.Tensor":
        """A picture (1, 3, H, W), resized to (W, H)."""
        image = image.resize(size, require("PIL.Image").Resampling.LANCZOS)
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
