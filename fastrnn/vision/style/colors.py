"""Whose colours a picture has: the styles', or the content's (Gatys et al. 2016, Preserving
color)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.optional import require
from fastrnn.vision.images import over_white

if TYPE_CHECKING:
    import PIL.Image

# NTSC's luminance and the two differences that carry the colour, from RGB.
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
LEAST_VARIANCE = 1e-5  # that colours are taken to have: that of rounding to 8 bits

Images = tuple["PIL.Image.Image", list["PIL.Image.Image"]]


def luminance(image: "PIL.Image.Image") -> np.ndarray:
    """The luminance of a picture (H, W), over white, in [0, 1]."""
    return np.asarray(over_white(image)) / 255 @ YIQ[0]


def as_they_are(content: "PIL.Image.Image", styles: list["PIL.Image.Image"]) -> Images:
    """Content and styles."""
    return content, styles


def in_grey(content: "PIL.Image.Image", styles: list["PIL.Image.Image"]) -> Images:
    """The luminance of content and styles as pictures, that of each style moved and scaled to the
    content's mean and deviation (section 3.2)."""
    goal = luminance(content)[..., None]
    matched = [_matched(luminance(style)[..., None], style, goal, content) for style in styles]
    return _picture(goal, content), matched


def with_colors(content: "PIL.Image.Image", styles: list["PIL.Image.Image"]) -> Images:
    """The content, and the styles with its colours: the mean and covariance of its pixels
    (section 3.1)."""
    goal = np.asarray(over_white(content)) / 255
    return content, [
        _matched(np.asarray(over_white(style)) / 255, style, goal, content) for style in styles
    ]


COLORINGS: dict[str, Callable[..., Images]] = {
    "style": as_they_are,
    "luminance": in_grey,
    "histogram": with_colors,
}


def _matched(pixels, image, goal, of):
    """An image of the pixels (H, W, C), moved and mixed so that where it is opaque they have the
    mean and covariance that the goal has where its own image is."""
    mean, covariance = _moments(pixels, image)
    wanted_mean, wanted = _moments(goal, of)
    mix = _power(wanted, 0.5) @ _power(covariance, -0.5)
    return _picture((pixels - mean) @ mix.T + wanted_mean, image)


def _moments(pixels, image):
    flat, weights = pixels.reshape(-1, pixels.shape[2]), None
    if image.mode == "RGBA":
        weights = np.asarray(image.getchannel("A")).ravel()
    covariance = np.atleast_2d(np.cov(flat.T, aweights=weights, ddof=0))
    return np.average(flat, axis=0, weights=weights), covariance


def _power(covariance, exponent):
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.maximum(values, LEAST_VARIANCE) ** exponent @ vectors.T


def _picture(pixels, image):
    """Pixels (H, W, C) in [0, 1], grey or RGB, as transparent as an image."""
    levels = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
    picture = require("PIL.Image").fromarray(np.broadcast_to(levels, (*levels.shape[:2], 3)).copy())
    if image.mode == "RGBA":
        picture.putalpha(image.getchannel("A"))
    return picture


def recolor(picture: np.ndarray, content: "PIL.Image.Image") -> np.ndarray:
    """The luminance of a picture (H, W, 3) uint8 with the colours of the content, over white."""
    height, width = picture.shape[:2]
    resized = over_white(content).resize((width, height), require("PIL.Image").Resampling.LANCZOS)
    yiq = np.asarray(resized) / 255 @ YIQ.T
    yiq[..., 0] = picture / 255 @ YIQ[0]
    return np.clip(np.rint(yiq @ np.linalg.inv(YIQ).T * 255), 0, 255).astype(np.uint8)
