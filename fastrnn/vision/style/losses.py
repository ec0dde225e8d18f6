"""The losses of neural style transfer: content, style, total variation; differentiable."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def content_loss(
    content_weight: float, content_current: "torch.Tensor", content_original: "torch.Tensor"
) -> "torch.Tensor":
    """content_weight * sum (F - P)^2 over all elements (EECS 598 homework 2, section 2.1).

    Inputs: the features F of the current picture and P of the content picture, (N, C, H, W).
    Returns: a scalar. Raises ValueError where they are not of one such shape.
    """
    _check_features("content_current", content_current)
    if content_original.shape != content_current.shape:
        raise ValueError(
            f"content_original: expected the shape of content_current, "
            f"{tuple(content_current.shape)}, got {tuple(content_original.shape)}"
        )
    return content_weight * (content_current - content_original).square().sum()


def gram_matrix(features: "torch.Tensor", normalize: bool = True) -> "torch.Tensor":
    """G_ij = sum_k F_ik F_jk over the places k, divided by C H W if normalize (Gatys et al. 2016).

    Inputs: features (N, C, H, W). Returns: (N, C, C). Raises ValueError for another shape.
    """
    _check_features("features", features)
    flat = features.flatten(2)
    gram = flat @ flat.transpose(1, 2)
    return gram / flat[0].numel() if normalize else gram


def style_loss(
    feats: Sequence["torch.Tensor | None"],
    style_layers: Sequence[int],
    style_targets: Sequence["torch.Tensor"],
    style_weights: Sequence[float],
) -> "torch.Tensor":
    """sum_l w_l sum_ij (G_ij - A_ij)^2 with normalised Gram matrices (homework 2, section 2.2).

    Inputs: feats, the features of the current picture by layer, (N, C, H, W), of which others than
    style_layers are not read; for each of style_layers its target A (N, C, C) and its weight.
    Returns: a scalar. Raises ValueError for another number of targets or weights or a wrong shape,
    IndexError for a layer that feats has not.
    """
    if not len(style_layers) == len(style_targets) == len(style_weights) > 0:
        raise ValueError(
            f"style_targets, style_weights: expected one for each of the {len(style_layers)} "
            f"style_layers, of which there is one at least, got {len(style_targets)} and "
            f"{len(style_weights)}"
        )
    for layer in style_layers:
        if not 0 <= layer < len(feats):
            raise IndexError(f"style_layers: expected 0 to {len(feats) - 1}, got {layer}")
    grams = [gram_matrix(feats[layer]) for layer in style_layers]
    for layer, gram, target in zip(style_layers, grams, style_targets, strict=True):
        if target.shape != gram.shape:
            raise ValueError(
                f"style_targets: expected {tuple(gram.shape)} for layer {layer}, got "
                f"{tuple(target.shape)}"
            )
    return gram_loss(grams, style_targets, style_weights)


def gram_loss(
    grams: Sequence["torch.Tensor"],
    targets: Sequence["torch.Tensor"],
    weights: Sequence[float],
) -> "torch.Tensor":
    """sum_l w_l sum_ij (G_ij - A_ij)^2 of Gram matrices that are there already: a scalar."""
    return sum(
        w * (gram - target).square().sum()
        for gram, target, w in zip(grams, targets, weights, strict=True)
    )


def total_variation_loss(img: "torch.Tensor", tv_weight: float) -> "torch.Tensor":
    """tv_weight times the sum of squared differences of vertical and of horizontal neighbours
    (homework 2, section 2.3).

    Inputs: img (N, 3, H, W). Returns: a scalar. Raises ValueError for another shape.
    """
    if img.ndim != 4 or img.shape[1] != 3:
        raise ValueError(f"img: expected shape (N, 3, H, W), got {tuple(img.shape)}")
    vertical = img[:, :, 1:, :] - img[:, :, :-1, :]
    horizontal = img[:, :, :, 1:] - img[:, :, :, :-1]
    return tv_weight * (vertical.square().sum() + horizontal.square().sum())


def _check_features(name: str, features: "torch.Tensor") -> None:
    if features.ndim != 4 or 0 in features.shape:
        raise ValueError(f"{name}: expected shape (N, C, H, W), got {tuple(features.shape)}")
