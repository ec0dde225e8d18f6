"""What is minimised at one scale: the losses of a picture against its targets, weighed so that the
weights mean the same at every size, of every layer and network."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastrnn.optional import require
from fastrnn.vision.style.losses import (
    content_loss,
    gram_loss,
    gram_matrix,
    total_variation_loss,
)
from fastrnn.vision.style.network import Segments, features
from fastrnn.vision.style.settings import Settings

if TYPE_CHECKING:
    import torch

TERMS = ("content", "style", "tv")


class Objective:
    """The losses of a picture (1, 3, H, W): its call returns a scalar for each of TERMS.

    A content layer's loss is divided by the sum of the squares of its target, a style layer's by
    that of the target's Gram matrix: a loss of 1 is that of features, or Gram matrices, that are 0.
    The total variation is divided by the number of values. Each layer's weight is a share of their
    sum, and so is each style's, in which it counts by the area of its mask.

    Inputs: modules, settings; content (1, 3, H, W); styles, of any sizes; masks (1, 1, H, W) in
    [0, 1] of as many, where each is painted, or None; opaque, of each style what may be learnt from
    it, (1, 1, its H, W) in [0, 1], or None for all of it.
    """

    def __init__(
        self,
        modules: Sequence["torch.nn.Module"],
        settings: Settings,
        content: "torch.Tensor",
        styles: Sequence["torch.Tensor"],
        masks: Sequence["torch.Tensor"] | None,
        opaque: "Sequence[torch.Tensor | None] | None" = None,
        segments: Segments = (),
    ) -> None:
        self.modules, self.settings, self.segments = modules, settings, segments
        with require("torch").no_grad():
            feats = features(modules, content, settings.layers)
            self.content_targets = [feats[layer] for layer in settings.content_layers]
            self.content_weights = [
                settings.content_weight / len(self.content_targets) / _squares(target)
                for target in self.content_targets
            ]
            self.masks = masks and [
                [scale_mask(mask, feats[layer].shape[2:]) for layer in settings.style_layers]
                for mask in masks
            ]
            self.style_targets = [
                self._grams(x, mask)
                for x, mask in zip(styles, opaque or [None] * len(styles), strict=True)
            ]
            shares = _shares(settings.blend or [1.0] * len(styles), masks)
            self.style_weights = [
                [share * w / _squares(A) for w, A in zip(self._layer_shares(), grams, strict=True)]
                for share, grams in zip(shares, self.style_targets, strict=True)
            ]

    def _grams(self, style: "torch.Tensor", opaque: "torch.Tensor | None") -> list["torch.Tensor"]:
        feats = features(self.modules, style, self.settings.style_layers)
        own = [feats[layer] for layer in self.settings.style_layers]
        if opaque is not None:
            own = [F * scale_mask(opaque, F.shape[2:]) for F in own]
        return [gram_matrix(F) for F in own]

    def _layer_shares(self) -> list[float]:
        weights = self.settings.layer_weights
        return [self.settings.style_weight * w / sum(weights) for w in weights]

    def __call__(self, x: "torch.Tensor") -> dict[str, "torch.Tensor"]:
        s = self.settings
        feats = features(self.modules, x, s.layers, self.segments)
        content = sum(
            content_loss(w, feats[layer], target)
            for w, layer, target in zip(
                self.content_weights, s.content_layers, self.content_targets, strict=True
            )
        )
        current = [feats[layer] for layer in s.style_layers]
        if self.masks is None:
            grams = [[gram_once(F) for F in current]] * len(self.style_targets)
        else:
            grams = [
                [gram_once(F * mask) for F, mask in zip(current, masks, strict=True)]
                for masks in self.masks
            ]
        style = sum(map(gram_loss, grams, self.style_targets, self.style_weights))
        tv = total_variation_loss(x, s.tv_weight / x.numel())
        return dict(zip(TERMS, (content, style, tv), strict=True))


def gram_once(features: "torch.Tensor") -> "torch.Tensor":
    """gram_matrix with a gradient that takes one matrix product, not one for each of its factors,
    which are the same; second derivatives are not those of gram_matrix."""
    flat = features.permute(0, 2, 3, 1).flatten(1, 2)  # how channels_last lies in memory
    half = flat.transpose(1, 2) @ flat.detach() / features[0].numel()
    return half + half.transpose(1, 2) - half.detach()


def scale_mask(mask: "torch.Tensor", shape: Sequence[int]) -> "torch.Tensor":
    """A mask (1, 1, H, W) for features of another height and width, with squares of mean 1, so that
    an all-white one changes nothing (Gatys et al. 2017, Controlling perceptual factors, 4.1)."""
    scaled = require("torch.nn.functional").adaptive_avg_pool2d(mask, tuple(shape))
    return scaled / scaled.square().mean().sqrt()


def _shares(weights: Sequence[float], masks: Sequence["torch.Tensor"] | None) -> list[float]:
    """What each style counts: its share by weight and area of the part that masks cover, so that
    every place is drawn as strongly as without masks."""
    if masks is None:
        return [w / sum(weights) for w in weights]
    covered = float(require("torch").cat([*masks]).amax(0).mean())
    by_area = [w * float(mask.mean()) for w, mask in zip(weights, masks, strict=True)]
    return [covered * w / sum(by_area) for w in by_area]


def _squares(x: "torch.Tensor") -> float:
    return max(float(x.square().sum()), require("torch").finfo(x.dtype).tiny)
