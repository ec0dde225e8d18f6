"""From pictures to features: a torchvision network without its head, or the scenes' own pixels.

The one module of captioning that uses torch.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn.captioning import scenes
from fastrnn.optional import require

Progress = Callable[[Iterable], Iterable]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Extracted(NamedTuple):
    """features (len(names), D) of the pictures that could be read; why the others could not."""

    names: list[str]
    features: np.ndarray
    unreadable: dict[str, str]


def list_images(folder: Path | str) -> list[Path]:
    """Picture files in a folder, by suffix, in alphabetical order.

    Raises NotADirectoryError or FileNotFoundError where there is no folder or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise FileNotFoundError(f"{folder}: no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return found


def extract(
    paths: Sequence[Path],
    backbone: str,
    weights: str | None = None,
    *,
    batch_size: int = 32,
    progress: Progress = iter,
) -> Extracted:
    """Features of picture files.

    Inputs: paths; backbone, "scenes" or the name of a torchvision classification model; weights,
    "default" (torchvision downloads and checks them), a path to its state dict, or "none" (random,
    from seed 0); progress wraps the iteration over pictures.
    Returns: Extracted; a picture that cannot be read is left out and named with its error.
    Raises ValueError for an unknown backbone or weights that do not fit, FileNotFoundError.
    """
    network = scenes_network if backbone == scenes.BACKBONE else torch_network
    load, run = network(backbone, weights)
    names, rows, batch, unreadable = [], [], [], {}
    for path in progress(paths):
        try:
            batch.append(load(path))
        except Exception as error:  # Pillow raises whatever a broken file leads it to
            reason = str(error).replace(str(path), path.name)
            unreadable[path.name] = reason or type(error).__name__
            continue
        names.append(path.name)
        if len(batch) == batch_size:
            rows.append(run(batch))
            batch = []
    if batch:
        rows.append(run(batch))
    features = np.concatenate(rows) if rows else np.empty((0, 0), np.float32)
    return Extracted(names, features, unreadable)


def open_rgb(path: Path):
    """A picture as Pillow's RGB image, upright. Raises OSError or ValueError for a broken file."""
    image, ops = require("PIL.Image"), require("PIL.ImageOps")
    with image.open(path) as picture:
        return ops.exif_transpose(picture).convert("RGB")


def scenes_network(_backbone: str = scenes.BACKBONE, _weights: str | None = None):
    """load(path) and run(batch) for the features of the embedded scenes."""

    def load(path: Path) -> np.ndarray:
        return np.asarray(open_rgb(path).resize((scenes.SIZE, scenes.SIZE)))

    return load, lambda batch: scenes.features(np.stack(batch))


def torch_network(backbone: str, weights: str | None):
    """load(path) and run(batch) for a torchvision classification model without its last layer."""
    torch, models = require("torch"), require("torchvision.models")
    known = models.list_models(module=models)
    if backbone not in known:
        raise ValueError(f"backbone: expected one of {[scenes.BACKBONE, *known]}, got {backbone!r}")
    published = models.get_model_weights(backbone).DEFAULT
    torch.manual_seed(0)
    model = models.get_model(backbone, weights=published if weights == "default" else None)
    if weights not in ("default", "none"):
        load_state_dict(model, weights)
    remove_head(backbone, model)
    model.eval()
    transform = published.transforms()

    def run(batch: list) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.stack(batch)).flatten(1).numpy()

    return lambda path: transform(open_rgb(path)), run


def load_state_dict(model, path: str | None) -> None:
    """Load a state dict from a file, tensors only.

    Raises FileNotFoundError, and ValueError that names missing and unexpected keys.
    """
    torch = require("torch")
    if path is None:
        raise ValueError('weights: expected "default", "none" or a path, got None')
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken file leads it to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a file of tensors ({reason})") from None
    expected, got = model.state_dict(), state if isinstance(state, dict) else {}
    missing, extra = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    wrong = [k for k in expected.keys() & got.keys() if expected[k].shape != got[k].shape]
    if missing or extra or wrong:
        raise ValueError(
            f"{path}: not the weights of this model (missing {_some(missing)}; unexpected "
            f"{_some(extra)}; of another shape {_some(sorted(wrong))})"
        )
    model.load_state_dict(got)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "") or "none"


def remove_head(backbone: str, model) -> None:
    """Replace the last layer by nothing, so that the model returns what that layer would see (for
    VGG: fc7). Raises ValueError for a model without a known head."""
    nn = require("torch.nn")
    if backbone.startswith("squeezenet"):  # its head is a convolution: pool its input instead
        model.classifier = nn.AdaptiveAvgPool2d(1)
        return
    for name in ("fc", "classifier", "head", "heads"):
        head = getattr(model, name, None)
        if isinstance(head, nn.Linear):
            setattr(model, name, nn.Identity())
            return
        if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear):
            head[-1] = nn.Identity()
            return
    raise ValueError(f"backbone: {backbone} has no head that can be taken off")
