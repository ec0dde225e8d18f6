"""Colours kept: a transfer of the luminance alone (Gatys et al. 2016, Preserving color)."""

from typing import TYPE_CHECKING

import numpy as np

from fastrnn.optional import require

if TYPE_CHECKING:
    import PIL.Image

# NTSC's luminance and the two differences that carry the colour, from RGB.
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def luminance(image: "PIL.Image.Image") -> np.ndarray:
    """The luminance of a picture (H, W), in [0, 1]."""
    return np.asarray(image) / 255 @ YIQ[0]


def in_grey(
    content: "PIL.Image.Image", styles: list["PIL.Image.Image"]
) -> tuple["PIL.Image.Image", list["PIL.Image.Image"]]:
    """The luminance of content and styles as pictures, that of each style moved and scaled to the
    content's mean and deviation (Gatys et al. 2016, Preserving color, section 3.1)."""
    goal = luminance(content)
    matched = []
    for style in styles:
        y = luminance(style)
        scale = goal.std() / max(y.std(), np.finfo(float).eps)
        matched.append(_grey((y - y.mean()) * scale + goal.mean()))
    return _grey(goal), matched


def _grey(y: np.ndarray) -> "PIL.Image.Image":
    levels = np.clip(np.rint(y * 255), 0, 255).astype(np.uint8)
    return require("PIL.Image").fromarray(levels).convert("RGB")


def recolor(picture: np.ndarray, content: "PIL.Image.Image") -> np.ndarray:
    """The luminance of a picture (H, W, 3) uint8 with the colours of the content."""
    height, width = picture.shape[:2]
    resized = content.resize((width, height), require("PIL.Image").Resampling.LANCZOS)
    yiq = np.asarray(resized) / 255 @ YIQ.T
    yiq[..., 0] = picture / 255 @ YIQ[0]
    return np.clip(np.rint(yiq @ np.linalg.inv(YIQ).T * 255), 0, 255).astype(np.uint8)
