"""From probabilities to decisions: a temperature that makes them honest, and of labels of which a
text may have several the thresholds.

Letters: N texts, C classes.
"""

import numpy as np

# Where a temperature is looked for: where dev has no error, colder is better for ever.
COLDEST, HOTTEST = 1 / 16, 16.0
STEPS = 60  # of the golden section: the last is 1e-12 wide
LEAST = 1e-12  # probability that a logarithm is taken of


def tempered(proba: np.ndarray, temperature: float, multilabel: bool) -> np.ndarray:
    """Probabilities (N, C) with the logarithms of their odds divided by a temperature; a class's
    odds are against the others, multilabel against its absence. As they are where it is 1."""
    if temperature == 1:
        return proba
    power = proba.dtype.type(1 / temperature)
    if multilabel:
        return proba**power / (proba**power + (1 - proba) ** power)
    odds = (proba / proba.max(axis=1, keepdims=True)) ** power
    return odds / odds.sum(axis=1, keepdims=True)


def log_loss(y: np.ndarray, proba: np.ndarray) -> float:
    """Cross-entropy in nats averaged over texts: y (N,) indices of the classes, or (N, C) bool of
    which classes are true, where it is summed over these."""
    if y.ndim == 2:
        at_label = np.where(y, proba, 1 - proba)
    else:
        at_label = proba[np.arange(len(y)), y]
    logs = np.log(np.maximum(at_label, np.finfo(proba.dtype).tiny), dtype=np.float64)
    return -float(logs.sum() / len(y))


def best_temperature(y: np.ndarray, proba: np.ndarray) -> float:
    """The temperature with the least log_loss (Guo et al. 2017), which is convex in 1 / T, found by
    golden section."""
    proba = np.clip(proba.astype(np.float64), LEAST, 1 - LEAST)

    def loss(inverse: float) -> float:
        return log_loss(y, tempered(proba, 1 / inverse, y.ndim == 2))

    low, high, ratio = 1 / HOTTEST, 1 / COLDEST, (5**0.5 - 1) / 2
    for _ in range(STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return 2 / (low + high)


def best_thresholds(y: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """For each class the threshold (C,) with the best F1 (Yang 2001), 0.5 where that is as good and
    where no text has the class; y (N, C) bool."""
    return np.array([_best_threshold(y[:, c], proba[:, c]) for c in range(y.shape[1])])


def _best_threshold(y: np.ndarray, proba: np.ndarray) -> float:
    if not y.any():
        return 0.5
    order = np.argsort(-proba, kind="stable")
    proba, found = proba[order].astype(np.float64), np.cumsum(y[order])
    below = np.append(proba[1:], -1.0)
    f1 = 2 * found / (np.arange(1, len(y) + 1) + found[-1])
    f1[proba == below] = -1  # no threshold parts these
    within = (below < 0.5) & (proba >= 0.5)
    threshold = np.where(within, 0.5, (proba + np.maximum(below, 0)) / 2)
    best = np.flatnonzero(f1 == f1.max())
    return float(threshold[best[np.argmin(abs(threshold[best] - 0.5))]])
