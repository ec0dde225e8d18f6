"""Neural style transfer: the losses, and pictures that minimise them."""

from fastrnn.vision.style.losses import (
    content_loss,
    gram_matrix,
    style_loss,
    total_variation_loss,
)
from fastrnn.vision.style.optimise import Result, style_transfer
from fastrnn.vision.style.settings import Settings

__all__ = [
    "Result",
    "Settings",
    "content_loss",
    "gram_matrix",
    "style_loss",
    "style_transfer",
    "total_variation_loss",
]
