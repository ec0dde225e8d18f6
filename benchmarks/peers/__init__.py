"""How each peer runs a case: one module a peer, which is imported in its own process alone.

A module has build(case, operands) -> idioms by name: the ways in which a user of that peer would
write the case ("" where there is one; none where the peer cannot run it). Here are those for cases
that start from arrays, in text/ those for cases that start from texts, in modules/ those of
PyTorch's modules, in cells/ those of the race "cells". To add a peer, write its module, in each
folder that it has cases of, and its line in PACKAGES.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from types import ModuleType
from typing import NamedTuple

import numpy as np

from fastrnn.benchmarks.cases import Case

# What a peer needs beside fastrnn, as pip calls it.
PACKAGES = {
    "fastrnn": (),
    "numpy": (),
    "torch": ("torch",),
    "onnxruntime": ("onnx", "onnxruntime"),
    "jax": ("jax",),
    "openvino": ("onnx", "openvino"),
    "tract": ("onnx", "tract"),
    "ncnn": ("ncnn",),
    "sklearn": ("scikit-learn",),
    "pandas": ("pandas",),
    "gensim": ("gensim",),
    "fasttext": ("fasttext",),
    "spacy": ("spacy",),
}
SUBJECT = "fastrnn"
OTHERS = tuple(peer for peer in PACKAGES if peer != SUBJECT)


# Whose results the others' have to be: PyTorch's, where its own modules are raced.
REFERENCE, REFERENCE_OF_MODULES = "numpy", "torch"


class Idiom(NamedTuple):
    """run() is timed, inside of the context that within() makes; collect makes arrays by name, in
    fastrnn's layout, of what run returned: they must be the reference's. None is not compared."""

    run: Callable[[], object]
    collect: Callable[..., dict[str, np.ndarray]] | None
    within: Callable[[], AbstractContextManager] = nullcontext


def missing(peer: str) -> list[str]:
    """The packages that a peer needs and that are not installed."""
    return [package for package in PACKAGES[peer] if not _installed(package)]


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def check_installed(peers: Iterable[str]) -> None:
    """Raises ModuleNotFoundError that names the extra to install."""
    for peer in peers:
        if packages := missing(peer):
            raise ModuleNotFoundError(
                f"the peer {peer} needs {' and '.join(packages)}, which is not installed: "
                'pip install "fastrnn[bench]"',
                name=packages[0],
            )


def reference(case: Case) -> str:
    """The peer with whose results the others' of a case are compared."""
    return REFERENCE_OF_MODULES if case.of_modules else REFERENCE


def knows(peer: str, case: Case) -> bool:
    """Whether a peer has a module for this kind of case."""
    return importlib.util.find_spec(_module(peer, case)) is not None


def find(peer: str, case: Case) -> ModuleType:
    """The module of a peer for this kind of case."""
    return importlib.import_module(_module(peer, case))


def _module(peer: str, case: Case) -> str:
    kinds = {".text": case.of_text, ".modules": case.of_modules, ".cells": case.of_forms}
    kind = next((kind for kind, of_it in kinds.items() if of_it), "")
    return f"{__name__}{kind}.{peer}"
