"""The reference backend, and for word vectors the loop that tutorials have."""

import numpy as np

import fastrnn
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.text.fastrnn import functions


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """What every result is compared with."""
    fastrnn.set_backend("numpy")
    if case.direction == "load":
        return {"": _load(case, **operands)}
    return functions(case, operands)


def _load(case: Case, path, words) -> Idiom:
    def run() -> np.ndarray:
        wanted, vectors = set(words), {}
        with path.open(encoding="utf-8") as file:
            for line in file:
                word, *values = line.split()
                if word in wanted:
                    vectors[word] = np.asarray(values, case.dtype)
        return np.stack([vectors[word] for word in words])

    return Idiom(run, lambda vectors: {"vectors": vectors})
