"""The reference backend, with whose results the others' are compared."""

import fastrnn
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.cells.fastrnn import idiom


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """The functions of the specification."""
    fastrnn.set_backend("numpy")
    return {"": idiom(case, operands)}
