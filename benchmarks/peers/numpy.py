"""The reference backend: what NumPy alone does, and what every result is compared with."""

import fastrnn
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.fastrnn import functions


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """The functions of the specification."""
    fastrnn.set_backend("numpy")
    return functions(case, operands)
