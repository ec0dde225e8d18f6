"""Dropout, as a mask to multiply with, forward and backward."""

import numpy as np


def dropout(
    rng: np.random.Generator | None, p: float, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray | None:
    """A mask, 0 with probability p, else 1 / (1 - p), so that prediction needs no change (inverted
    dropout, Srivastava et al. 2014).

    Inputs: rng; p in [0, 1); shape and dtype of the mask.
    Returns: the mask, or None, for all ones, where rng is None or p is 0.
    """
    if rng is None or p == 0:
        return None
    kept = rng.random(shape, dtype=np.float32) >= p
    return kept * np.dtype(dtype).type(1 / (1 - p))
