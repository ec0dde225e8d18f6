"""Figures of a classifier from the probabilities it gives, and a table of them for the terminal."""

from collections.abc import Sequence

import numpy as np

from fastrnn.optional import require
from fastrnn.printing import printable

BINS = 10
MOST_ROWS = 20


def classifier_report(y: np.ndarray, proba: np.ndarray, classes: Sequence[str]) -> dict:
    """What a classifier's probabilities are worth against the truth, ready for JSON.

    Inputs: y (N,) indices of the true classes; proba (N, C), rows that sum to 1; classes, C names.
    Returns: examples; accuracy; log_loss in nats, a probability of 0 counting as 2.2e-16; brier,
    summed over classes, and halved where there are two; macro_f1 over all C classes; per_class,
    name to precision, recall, f1 (0 where undefined) and support; confusion (C, C), rows true,
    columns predicted; reliability, of each of 10 bins of confidence, ((m - 1) / 10, m / 10], the
    mean confidence and the accuracy (None in an empty one) and the count; ece, the expected
    calibration error, |accuracy - confidence| averaged over them by count (Guo et al. 2017, eq. 3).
    Raises ValueError for no examples, for less than two different names and for any misfit.
    """
    y, proba, names = np.asarray(y), np.asarray(proba), [str(name) for name in classes]
    _check(y, proba, names)
    skm, indices = require("sklearn.metrics"), np.arange(len(names))
    proba = proba / proba.sum(axis=1, keepdims=True, dtype=np.float64)
    predicted = proba.argmax(axis=1)
    *scores, _ = skm.precision_recall_fscore_support(y, predicted, labels=indices, zero_division=0)
    scores.append(np.bincount(y, minlength=len(names)))  # scikit-learn's are sometimes floats
    keys = ("precision", "recall", "f1", "support")
    rows = zip(names, *(score.tolist() for score in scores), strict=True)
    ece, reliability = _calibration(proba.max(axis=1), predicted == y)
    return {
        "examples": len(y),
        "accuracy": float(np.mean(predicted == y)),
        "log_loss": float(skm.log_loss(y, proba, labels=indices)),
        "brier": float(skm.brier_score_loss(y, proba, labels=indices)),
        "ece": ece,
        "macro_f1": float(np.mean(scores[2])),
        "per_class": {name: dict(zip(keys, row, strict=True)) for name, *row in rows},
        "confusion": skm.confusion_matrix(y, predicted, labels=indices).tolist(),
        "reliability": reliability,
    }


def _check(y: np.ndarray, proba: np.ndarray, names: list[str]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"classes: expected two or more different names, got {names[:20]}")
    if y.ndim != 1 or y.size == 0 or y.dtype.kind not in "iu":
        raise ValueError(f"y: expected (N,) integers with N > 0, got {y.shape} {y.dtype}")
    if y.min() < 0 or y.max() >= len(names):
        raise ValueError(f"y: expected 0 to {len(names) - 1}, got {y.min()} to {y.max()}")
    shape = (len(y), len(names))
    if proba.shape != shape or proba.dtype.kind not in "fiu":
        raise ValueError(f"proba: expected {shape} numbers, got {proba.shape} {proba.dtype}")
    least, total = proba.min(axis=1), proba.sum(axis=1, dtype=np.float64)
    fine = (least >= 0) & (abs(total - 1) < 1e-3)  # neither holds for NaN
    if not fine[i := fine.argmin()]:
        got = f"row {i} with minimum {least[i]:g} and sum {total[i]:g}"
        raise ValueError(f"proba: expected rows without negatives that sum to 1, got {got}")


def _calibration(confidence: np.ndarray, correct: np.ndarray) -> tuple[float, list[dict]]:
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence)
    sums = np.array([np.bincount(bins, weights, BINS) for weights in (confidence, correct, None)])
    reliability = [
        {"confidence": p / n if n else None, "accuracy": a / n if n else None, "count": int(n)}
        for p, a, n in sums.T.tolist()
    ]
    return float(abs(sums[1] - sums[0]).sum() / len(bins)), reliability


def report_table(report: dict) -> str:
    """A classifier_report as lines of text, of more than 20 classes the 20 with the least F1 (those
    without examples last). Names stand last, so that no script's width moves a column."""
    rows, lines = [*report["per_class"].items()], ["precision  recall      f1  support  class"]
    if len(rows) > MOST_ROWS:
        lines.insert(0, f"the {MOST_ROWS} worst of {len(rows)} classes:")
        rows = sorted(rows, key=lambda row: (not row[1]["support"], row[1]["f1"]))[:MOST_ROWS]
    figures = "{precision:9.4f}{recall:8.4f}{f1:8.4f}{support:9d}  "
    lines += [figures.format_map(row) + shorten(name) for name, row in rows]
    total = "{examples} examples: accuracy {accuracy:.4f}, macro F1 {macro_f1:.4f}, ECE {ece:.4f}"
    return "\n".join([*lines, total.format_map(report)])


def shorten(name: str) -> str:
    """A class's name as it may be printed, cut to 24 letters."""
    name = printable(name)
    return name if len(name) <= 24 else name[:23] + "…"
