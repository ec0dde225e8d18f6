"""Sums of gradients, those of few rows among them."""

import numpy as np

from fastrnn.backends.caches import RowGradient


def added(
    total: np.ndarray | RowGradient | None, dw: np.ndarray | RowGradient, factor: float = 1.0
) -> np.ndarray | RowGradient:
    """total (None: nothing yet) and factor times dw, a gradient of the same parameter; both are
    overwritten."""
    values = dw.values if isinstance(dw, RowGradient) else dw
    values *= factor
    if total is None:
        return dw
    if not isinstance(dw, RowGradient):
        total += dw
        return total
    rows = np.union1d(total.rows, dw.rows)
    values = np.zeros((len(rows), *dw.values.shape[1:]), dw.values.dtype)
    for part in (total, dw):
        values[np.searchsorted(rows, part.rows)] += part.values
    return RowGradient(rows, values)
