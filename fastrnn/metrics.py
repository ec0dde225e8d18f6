"""Figures of a classifier from the probabilities it gives, and a table of them for the terminal."""

from collections.abc import Sequence

import numpy as np

from fastrnn.optional import require
from fastrnn.printing import printable

BINS = 10
MOST_ROWS = 20
MOST_CONFUSED = 1000  # classes whose confusions are counted: a number for every two


def classifier_report(y: np.ndarray, proba: np.ndarray, classes: Sequence[str]) -> dict:
    """What a classifier's probabilities are worth against the truth, ready for JSON.

    Inputs: y (N,) indices of the true classes; proba (N, C), rows that sum to 1; classes, C names.
    Returns: examples; accuracy; log_loss in nats, a probability of 0 counting as 2.2e-16; brier,
    summed over classes, and halved where there are two; macro_f1 over the classes with examples;
    per_class, name to precision, recall, f1 (0 where undefined) and support; confusion (C, C), rows
    true, columns predicted, of more than 1,000 classes None; reliability, of each of 10 bins of
    confidence, ((m - 1) / 10, m / 10], the mean confidence and the accuracy (None in an empty one)
    and the count; ece, the expected calibration error, |accuracy - confidence| averaged over them
    by count (Guo et al. 2017, eq. 3).
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
        "accuracy": accuracy(y, predicted),
        "log_loss": float(skm.log_loss(y, proba, labels=indices)),
        "brier": float(skm.brier_score_loss(y, proba, labels=indices)),
        "ece": ece,
        "macro_f1": float(np.mean(scores[2], where=scores[3] > 0)),
        "per_class": {name: dict(zip(keys, row, strict=True)) for name, *row in rows},
        "confusion": None if len(names) > MOST_CONFUSED else _confusion(y, predicted, len(names)),
        "reliability": reliability,
    }


def _confusion(y, predicted, C):
    return np.bincount(y * C + predicted, minlength=C * C).reshape(C, C).tolist()


def multilabel_report(
    y: np.ndarray, proba: np.ndarray, classes: Sequence[str], thresholds: np.ndarray
) -> dict:
    """What probabilities of labels, of which an example may have several, are worth, ready for
    JSON.

    Inputs: y (N, C) bool, which are true; proba (N, C); classes, C names; thresholds (C,), the
    probabilities from which a label is predicted.
    Returns: examples; accuracy, the share of examples with exactly the true labels; hamming_loss;
    micro_ and macro_precision, _recall and _f1 (0 where undefined); per_class, name to precision,
    recall, f1, support and threshold; log_loss in nats, summed over labels; reliability and ece of
    all N*C probabilities as classifier_report's, accuracy being the share of those that are true.
    Raises ValueError for no examples, equal names and for any misfit.
    """
    y, proba, names = np.asarray(y), np.asarray(proba), [str(name) for name in classes]
    thresholds = np.asarray(thresholds, np.float64)
    _check_multilabel(y, proba, names, thresholds)
    y, predicted = y.astype(bool), proba >= thresholds
    counts = _counts(y, predicted, len(names))
    of_class, micro = _scores(*counts), _scores(*(count.sum() for count in counts))
    averages = {f"micro_{name}": float(score) for name, score in micro.items()}
    averages |= {f"macro_{name}": float(score.mean()) for name, score in of_class.items()}
    columns = of_class | {"support": counts[0], "threshold": thresholds}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    ece, reliability = _calibration(proba.ravel(), y.ravel())
    return {
        "examples": len(y),
        "accuracy": accuracy(y, predicted),
        "hamming_loss": float((y != predicted).mean()),
        **averages,
        "log_loss": _log_loss(y, proba),
        "ece": ece,
        "per_class": {
            name: dict(zip(columns, row, strict=True))
            for name, row in zip(names, rows, strict=True)
        },
        "reliability": reliability,
    }


def _log_loss(y, proba):
    at_label = np.where(y, proba, 1 - proba.astype(np.float64))
    return -float(np.log(np.maximum(at_label, np.finfo(np.float64).eps)).sum() / len(y))


def accuracy(y: np.ndarray, predicted: np.ndarray) -> float:
    """The share of examples that are right, y and predicted (N,) classes, or in all their labels,
    y and predicted (N, C) bool."""
    right = y == predicted
    return float((right.all(axis=1) if right.ndim == 2 else right).mean())


def f1_scores(y: np.ndarray, predicted: np.ndarray, C: int) -> tuple[float, float]:
    """F1 averaged over the classes with examples, of several labels over all C (0 of one without
    examples and predictions), and of all decisions together; y and predicted as accuracy takes
    them."""
    counts = _counts(y, predicted, C)
    macro, micro = _scores(*counts), _scores(*(count.sum() for count in counts))
    there = counts[0] > 0 if y.ndim == 1 else np.ones(C, bool)
    return float(macro["f1"].mean(where=there)), float(micro["f1"])


def _counts(y, predicted, C):
    """How many examples of each class there are, how many are predicted, and how many rightly."""
    if y.ndim == 2:
        return tuple(marked.sum(axis=0) for marked in (y, predicted, y & predicted))
    return tuple(np.bincount(of, minlength=C) for of in (y, predicted, y[y == predicted]))


def _scores(true, said, both):
    shares = {"precision": (both, said), "recall": (both, true), "f1": (2 * both, true + said)}
    return {name: part / np.maximum(whole, 1) for name, (part, whole) in shares.items()}


def calibration_error(y: np.ndarray, proba: np.ndarray) -> float:
    """The expected calibration error of probabilities (N, C), as the reports have it; y (N,)
    classes, or (N, C) bool."""
    if y.ndim == 2:
        return _calibration(proba.ravel(), y.ravel())[0]
    return _calibration(proba.max(axis=1), proba.argmax(axis=1) == y)[0]


def _check_multilabel(y, proba, names, thresholds):
    if not names or len(set(names)) < len(names):
        raise ValueError(f"classes: expected one or more different names, got {names[:20]}")
    if y.ndim != 2 or not len(y) or y.shape[1] != len(names) or not ((y == 0) | (y == 1)).all():
        raise ValueError(f"y: expected (N, {len(names)}) of 0 and 1 with N > 0, got {y.shape}")
    if proba.shape != y.shape or not ((proba >= 0) & (proba <= 1)).all():
        raise ValueError(f"proba: expected {y.shape} numbers from 0 to 1, got {proba.shape}")
    if thresholds.shape != (len(names),):
        raise ValueError(f"thresholds: expected ({len(names)},) numbers, got {thresholds.shape}")


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
    """A classifier_report or multilabel_report as lines of text, of more than 20 classes the 20
    with the least F1 (those without examples last). Names stand last, so that no script's width
    moves a column."""
    rows, lines = [*report["per_class"].items()], ["precision  recall      f1  support  class"]
    if len(rows) > MOST_ROWS:
        lines.insert(0, f"the {MOST_ROWS} worst of {len(rows)} classes:")
        rows = sorted(rows, key=lambda row: (not row[1]["support"], row[1]["f1"]))[:MOST_ROWS]
    figures = "{precision:9.4f}{recall:8.4f}{f1:8.4f}{support:9d}  "
    lines += [figures.format_map(row) + shorten(name) for name, row in rows]
    total = "{examples} examples: accuracy {accuracy:.4f}, macro F1 {macro_f1:.4f}, ECE {ece:.4f}"
    if "micro_f1" in report:
        total = (
            "{examples} examples: all labels right {accuracy:.4f}, micro F1 {micro_f1:.4f}, "
            "macro F1 {macro_f1:.4f}, ECE {ece:.4f}"
        )
    return "\n".join([*lines, total.format_map(report)])


def shorten(name: str) -> str:
    """A class's name as it may be printed, cut to 24 letters."""
    name = printable(name)
    return name if len(name) <= 24 else name[:23] + "…"
