"""gensim: the file of word vectors by KeyedVectors."""

import numpy as np
from gensim.models import KeyedVectors

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """Word vectors alone."""
    return {"": _load(case, **operands)} if case.direction == "load" else {}


def _load(case: Case, path, words) -> Idiom:
    options = {"no_header": True, "datatype": np.dtype(case.dtype).type}

    def run() -> np.ndarray:
        return KeyedVectors.load_word2vec_format(path, **options)[words]

    return Idiom(run, lambda vectors: {"vectors": vectors})
