"""torchvision's classification networks: their weights, preprocessing, and another last layer."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastrnn.optional import require
from fastrnn.vision import weights as files
from fastrnn.vision.images import without_ends
from fastrnn.vision.weights import Report, silent

if TYPE_CHECKING:
    import torch

# Classifiers of inner layers, which only training from scratch wants.
AUXILIARY = ("AuxLogits", "aux1", "aux2")


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


def build(name: str, weights: str = "default", report: Report = silent) -> "torch.nn.Module":
    """A classification network for ImageNet's 1000 classes, ready to evaluate.

    Inputs: its name; weights, "default" (torchvision downloads and checks them, once), "none"
    (random, from torch's generator), or the path of a state dict, as weights.load takes it: where
    it has another last layer, or none, this one is random; report, called with a line that says
    what was taken where this is not all of it.
    Raises ValueError for an unknown name or weights that do not fit, FileNotFoundError, and
    ConnectionError where the weights cannot be had.
    """
    model = _empty(name, weights)
    if weights == "default":
        _load(model, _download(name), name, silent)
    elif weights != "none":
        _load(model, files.read(weights), weights, report)
    return model.eval()


def build_features(
    name: str, weights: str = "default", report: Report = silent
) -> "torch.nn.Module":
    """The `features` of a network that has such a part; of weights in a file only these are looked
    at, which may be all that it has. Inputs, Raises: build's."""
    if weights in ("default", "none"):
        return build(name, weights).features
    model = _empty(name, weights)
    _load(model, files.read(weights), weights, report, part=files.PART)
    return model.eval().features


def _load(model, content, source, report, **options) -> None:
    files.load(
        model, content, source, head=_head(model), optional=AUXILIARY, report=report, **options
    )


def _head(model: "torch.nn.Module") -> str:
    """The path of the largest module that has no parameters but those of the last layer."""
    path, layer = last_layer(model)
    own = {*layer.parameters()}
    while (parent := path.rpartition(".")[0]) and {
        *model.get_submodule(parent).parameters()
    } == own:
        path = parent
    return path


def _empty(name: str, weights: str) -> "torch.nn.Module":
    """A network with random weights. Raises what build does before it loads any."""
    _published(name)
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
    return model


def _download(name: str) -> dict[str, "torch.Tensor"]:
    published = _published(name)
    try:
        return published.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:  # no connection; another checksum
        raise ConnectionError(
            f"{name}: its weights could not be downloaded from {published.url} ({error}); "
            "weights (--weights) may be a file that you have, too"
        ) from None


def last_layer(model: "torch.nn.Module") -> tuple[str, "torch.nn.Module"]:
    """The path and the last of a network's layers. Raises ValueError for one without layers."""
    nn = require("torch.nn")
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError(f"model: expected one with a last layer, got {type(model).__name__}")
    return layers[-1]


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
        for name in AUXILIARY:
            if hasattr(model, name):
                setattr(model, name, None)
    path, layer = last_layer(model)
    if isinstance(layer, nn.Conv2d):
        dropout, _, _, pool = model.classifier
        head = make(layer.in_channels)
        model.classifier = nn.Sequential(pool, nn.Flatten(), dropout, head)
    else:
        head = make(layer.in_features)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, head)
    return head
