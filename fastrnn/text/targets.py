"""What scikit-learn's users give as y: a label a text, or of each text several, as an indicator
matrix or as sequences of labels.

Letters: N texts, C classes.
"""

from collections.abc import Collection, Iterable
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.optional import require

_utils = require("sklearn.utils")
_multiclass = require("sklearn.utils.multiclass")


class Targets(NamedTuple):
    """classes (C,) in ascending order, of an indicator matrix 0 to C - 1; y, indices (N,) into them
    or, multilabel, bool (N, C)."""

    classes: np.ndarray
    y: np.ndarray

    @property
    def multilabel(self) -> bool:
        """Whether a text may have several labels, or none."""
        return self.y.ndim == 2


def targets(y: ArrayLike) -> Targets:
    """The classes in y, and y by them. Raises ValueError for what are no classes."""
    if _are_sequences(y):
        rows = [*y]
        labels = set(chain.from_iterable(rows))
        if not labels or len({*map(type, labels)}) > 1:
            raise ValueError(f"y: expected labels of one type, got {sorted(map(repr, labels))[:9]}")
        classes = np.array(sorted(labels))
        return Targets(classes, _indicator(rows, classes, "y"))
    if _is_indicator(y):
        matrix = _dense(y)
        return Targets(np.arange(matrix.shape[1]), matrix)
    return Targets(*np.unique(_column(y), return_inverse=True))


def targets_in(y: ArrayLike, known: Targets, name: str) -> np.ndarray:
    """y as targets has it, by the classes of others. Raises ValueError for other classes and for
    labels of the other form."""
    if known.multilabel and not _are_sequences(y):
        matrix = y if hasattr(y, "toarray") else np.asarray(y)
        if matrix.ndim != 2 or matrix.shape[1] != len(known.classes):
            raise ValueError(
                f"{name}: expected several labels a text, or an indicator matrix of "
                f"{len(known.classes)} columns, got shape {matrix.shape}"
            )
        return _dense(matrix)
    if known.multilabel:
        return _indicator([*y], known.classes, name)
    y = _column(y)
    _refuse_unseen(np.setdiff1d(y, known.classes).tolist(), name)
    return np.searchsorted(known.classes, y)


def _are_sequences(y: object) -> bool:
    """Whether each text has a list, tuple or set of labels; nested lists of 0 and 1 are a matrix,
    as scikit-learn has it."""
    if getattr(y, "ndim", 1) != 1 or not isinstance(y, Iterable) or isinstance(y, str):
        return False
    rows = [*y]
    kinds = list | tuple | set | frozenset | np.ndarray
    if not rows or not all(isinstance(row, kinds) for row in rows):
        return False
    ragged = len({len(row) for row in rows}) > 1 or not len(rows[0])
    return ragged or isinstance(rows[0], set | frozenset) or isinstance(rows[0][0], str)


def _is_indicator(y: object) -> bool:
    nested = isinstance(y, list | tuple) and len(y) and isinstance(y[0], list | tuple | np.ndarray)
    if not nested and getattr(y, "ndim", 1) != 2:
        return False
    return _multiclass.type_of_target(y) == "multilabel-indicator"


def _indicator(rows: list[Collection], classes: np.ndarray, name: str) -> np.ndarray:
    index = {label: i for i, label in enumerate(classes.tolist())}
    matrix = np.zeros((len(rows), len(classes)), bool)
    for i, row in enumerate(rows):
        _refuse_unseen([label for label in row if label not in index], name)
        matrix[i, [index[label] for label in row]] = True
    return matrix


def _refuse_unseen(labels: list, name: str) -> None:
    if labels:
        raise ValueError(f"{name}: y contains previously unseen labels: {labels}")


def _dense(y: ArrayLike) -> np.ndarray:
    matrix = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    if not ((matrix == 0) | (matrix == 1)).all():
        raise ValueError("y: expected an indicator matrix of 0 and 1")
    return matrix.astype(bool)


def _column(y: ArrayLike) -> np.ndarray:
    y = _utils.column_or_1d(y, warn=True)
    if y.dtype == object and len(y) and isinstance(y[0], str):
        for i, label in enumerate(y):  # scikit-learn looks at the first alone
            if not isinstance(label, str):
                raise ValueError(f"y: expected strings, got {type(label).__name__} at {i}")
    _multiclass.check_classification_targets(y)
    return y
