"""Packages that only some programs need, imported when they are needed."""

import importlib
from types import ModuleType

EXTRAS = {
    "PIL": ("pillow", "captioning"),
    "click": ("click", "captioning,text"),
    "h5py": ("h5py", "captioning"),
    "matplotlib": ("matplotlib", "captioning,text"),
    "nltk": ("nltk", "captioning,text"),
    "safetensors": ("safetensors", "captioning,text"),
    "sklearn": ("scikit-learn", "text"),
    "torch": ("torch", "vision"),
    "torchvision": ("torchvision", "vision"),
    "tqdm": ("tqdm", "captioning,text"),
}


def require(module: str) -> ModuleType:
    """Import a module of an optional package.

    Raises ModuleNotFoundError that names the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package, extra = EXTRAS[module.split(".")[0]]
        if error.name and error.name.split(".")[0] != module.split(".")[0]:
            raise  # the package is there, one of its own needs is not
        raise ModuleNotFoundError(
            f'this needs {package}, which is not installed: pip install "fastrnn[{extra}]"',
            name=error.name,
        ) from None
