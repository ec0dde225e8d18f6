"""Packages that only some programs need, imported when they are needed."""

import importlib
from types import ModuleType

# Module to its package and the extras that bring it.
EXTRAS = {
    "PIL": ("pillow", "captioning", "vision"),
    "click": ("click", "captioning", "text", "vision"),
    "h5py": ("h5py", "captioning", "keras"),
    "jinja2": ("jinja2", "captioning", "text", "vision"),
    "matplotlib": ("matplotlib", "captioning", "text", "vision"),
    "nltk": ("nltk", "captioning", "text"),
    "onnx": ("onnx", "onnx"),
    "pillow_heif": ("pillow-heif", "heic"),
    "safetensors": ("safetensors", "captioning", "text", "vision", "torch"),
    "sklearn": ("scikit-learn", "text", "vision"),
    "torch": ("torch", "vision", "torch"),
    "torchvision": ("torchvision", "vision"),
    "tqdm": ("tqdm", "captioning", "text", "vision"),
}


def require(module: str) -> ModuleType:
    """Import a module of an optional package.

    Raises ModuleNotFoundError that names the extras of which one is to be installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package, *extras = EXTRAS[module.split(".")[0]]
        if error.name and error.name.split(".")[0] != module.split(".")[0]:
            raise  # the package is there, one of its own needs is not
        commands = " or ".join(f'"fastrnn[{extra}]"' for extra in extras)
        raise ModuleNotFoundError(
            f"this needs {package}, which is not installed: pip install {commands}",
            name=error.name,
        ) from None
