"""torchvision's classification networks: their weights, preprocessing, and another last layer."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastrnn.optional import require
from fastrnn.vision import tensors
from fastrnn.vision.images import without_ends

if TYPE_CHECKING:
    import torch


class Preprocessing(NamedTuple):
    """What published weights were trained to see: the shorter side is resized, the centre cropped
    (pixels), and the channels, in [0, 1], are standardised by mean and std. resize None: the whole
    picture is squeezed into the square."""

    resize: int | None
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


def names() -> list[str]:
    """torchvision's classification networks."""
    models = require("torchvision.models")
    return models.list_models(module=models)


def _published(name: str):
    """The best weights that torchvision publishes for a network. Raises ValueError that lists the
    names where there is no such network."""
    if name not in (known := names()):
        raise ValueError(f"backbone: expected one of {', '.join(known)}, got {name!r}")
    return require("torchvision.models").get_model_weights(name).DEFAULT


def preprocessing(name: str) -> Preprocessing:
    """The preprocessing of a network's published weights. Raises ValueError for an unknown name."""
    published = _published(name).transforms()
    return Preprocessing(
        published.resize_size[0],
        published.crop_size[0],
        tuple(published.mean),
        tuple(published.std),
        published.interpolation.value,
    )


def eval_transform(to: Preprocessing) -> Callable:
    """From an RGB image of Pillow's to what a network evaluates, (3, crop, crop) float32."""
    torch, v2 = require("torch"), require("torchvision.transforms.v2")
    size = (to.crop, to.crop) if to.resize is None else to.resize
    return v2.Compose(
        [
            *([] if to.resize is None else [v2.Lambda(without_ends)]),
            v2.Resize(size, interpolation=v2.InterpolationMode(to.interpolation)),
            v2.CenterCrop(to.crop),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(to.mean, to.std),
        ]
    )


def build(name: str, weights: str = "default") -> "torch.nn.Module":
    """A classification network for ImageNet's 1000 classes, ready to evaluate.

    Inputs: its name; weights, "default" (torchvision downloads and checks them, once), a path to a
    state dict, or "none" (random, from torch's generator).
    Raises ValueError for an unknown name or weights that do not fit, FileNotFoundError, and
    ConnectionError where the weights cannot be had.
    """
    published = _published(name)
    if weights not in ("default", "none") and not Path(weights).is_file():
        raise FileNotFoundError(f"{weights}: no such file; weights are a path, default or none")
    # A vision transformer has an embedding for every place of pictures of one size.
    size = {"image_size": preprocessing(name).crop} if name.startswith("vit_") else {}
    with warnings.catch_warnings():
        # GoogLeNet and Inception announce another way to draw what is random.
        warnings.simplefilter("ignore", FutureWarning)
        model = require("torchvision.models").get_model(name, weights=None, **size)
    if hasattr(model, "transform_input"):  # their published weights want other means
        model.transform_input = True
    if weights == "default":
        model.load_state_dict(_download(name, published))
    elif weights != "none":
        load_state_dict(model, weights)
    return model.eval()


def _download(name: str, published) -> dict[str, "torch.Tensor"]:
    try:
        return published.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:  # no connection; another checksum
        raise ConnectionError(
            f"{name}: its weights could not be downloaded from {published.url} ({error}); "
            "weights may be a file that you have, too"
        ) from None


def load_state_dict(model: "torch.nn.Module", path: Path | str) -> None:
    """Load a state dict from a file, tensors only.

    Raises FileNotFoundError, and ValueError that names missing keys, unexpected ones and those of
    another shape.
    """
    state = tensors.read(path, "a file of tensors")
    expected, got = model.state_dict(), state if isinstance(state, dict) else {}
    missing, extra = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    both = sorted(expected.keys() & got.keys())
    wrong = [k for k in both if expected[k].shape != getattr(got[k], "shape", None)]
    if missing or extra or wrong:
        raise ValueError(
            f"{path}: not the weights of this model (missing {_some(missing)}; unexpected "
            f"{_some(extra)}; of another shape {_some(wrong)})"
        )
    model.load_state_dict(got)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "") or "none"


def replace_head(
    model: "torch.nn.Module", make: Callable[[int], "torch.nn.Module"]
) -> "torch.nn.Module":
    """Put another layer in the place of the last one of a torchvision classification network.

    Inputs: model, changed; make, called with the number of inputs of the last layer. SqueezeNet's
    last layer, a convolution before a rectifier and the pooling, becomes a linear one after the
    pooling; auxiliary classifiers, which only training from scratch wants, are taken off.
    Returns: the new layer. Raises ValueError for a network that ends in no such layer.
    """
    nn = require("torch.nn")
    if getattr(model, "aux_logits", False):
        model.aux_logits = False
        for name in ("AuxLogits", "aux1", "aux2"):
            if hasattr(model, name):
                setattr(model, name, None)
    layers = (nn.Linear, nn.Conv2d)
    last = [(name, m) for name, m in model.named_modules() if isinstance(m, layers)][-1:]
    if not last:
        raise ValueError(f"model: expected one with a last layer, got {type(model).__name__}")
    path, layer = last[0]
    if isinstance(layer, nn.Conv2d):
        dropout, _, _, pool = model.classifier
        head = make(layer.in_channels)
        model.classifier = nn.Sequential(pool, nn.Flatten(), dropout, head)
    else:
        head = make(layer.in_features)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, head)
    return head
