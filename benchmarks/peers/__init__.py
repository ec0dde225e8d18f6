"""How each peer runs a case: one module a peer, which is imported in its own process alone.

A module has build(case, operands) -> idioms by name: the ways in which a user of that peer would
write the case ("" where there is one; none where the peer cannot run it). To add a peer, write its
module and its line in PACKAGES.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import NamedTuple

import numpy as np

# What a peer needs beside fastrnn.
PACKAGES = {
    "fastrnn": (),
    "numpy": (),
    "torch": ("torch",),
    "onnxruntime": ("onnx", "onnxruntime"),
    "jax": ("jax",),
}
SUBJECT = "fastrnn"
OTHERS = tuple(peer for peer in PACKAGES if peer != SUBJECT)


class Idiom(NamedTuple):
    """run() is timed, inside of the context that within() makes; collect makes arrays by name, in
    fastrnn's layout, of what run returned: they must be the reference's. None is not compared."""

    run: Callable[[], object]
    collect: Callable[..., dict[str, np.ndarray]] | None
    within: Callable[[], AbstractContextManager] = nullcontext


def missing(peer: str) -> list[str]:
    """The packages that a peer needs and that are not installed."""
    return [package for package in PACKAGES[peer] if not importlib.util.find_spec(package)]


def check_installed(peers: Iterable[str]) -> None:
    """Raises ModuleNotFoundError that names the extra to install."""
    for peer in peers:
        if packages := missing(peer):
            raise ModuleNotFoundError(
                f"the peer {peer} needs {' and '.join(packages)}, which is not installed: "
                'pip install "fastrnn[bench]"',
                name=packages[0],
            )


def find(peer: str) -> ModuleType:
    """The module of a peer."""
    return importlib.import_module(f"fastrnn.benchmarks.peers.{peer}")
