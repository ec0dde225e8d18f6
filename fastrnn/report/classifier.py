"""The section of a report that shows what a classifier's predictions are worth."""

from collections.abc import Callable, Sequence

import numpy as np

from fastrnn.report.parts import MOST_CARDS, card, curves, cut, examples, section, series, table

TILES = ("accuracy", "macro_f1", "micro_f1", "ece", "log_loss", "examples")
MOST_IN_MATRIX = 25  # classes; of more the pairs that are confused most
MOST_UPRIGHT = 5  # letters of names above a matrix that are not turned
OF_NAME = 60  # letters of a class's name beside a cell
MOST_PAIRS = 40
WORST = 24  # errors that are shown, whatever their classes are
OF_CELL = 4  # examples of a cell or a pair; of one on the diagonal half as many
GROUPS = {"wrong": "errors, the surest first", "right": "right, the least sure first"}
HEADED = "Each is headed by what is predicted, and how surely."

# An example's picture or words, as keywords of parts.card.
Show = Callable[[int], dict[str, object]]


def classified(
    title: str,
    report: dict,
    y: np.ndarray,
    proba: np.ndarray,
    classes: Sequence[str],
    show: Show,
    note: str = "",
) -> dict[str, object]:
    """A section of a classifier with one label an example.

    Inputs: report, of metrics.classifier_report; y (N,) true classes; proba (N, C); classes, C
    names; show(i), of an example; note, what is to be known of them.
    """
    predicted, confidence = proba.argmax(axis=1), proba.max(axis=1)
    right = predicted == y
    # The surest errors first, then what was right by luck.
    order = np.lexsort((np.where(right, confidence, -confidence), right))
    cells, counts = np.unique(np.stack([y, predicted], axis=1), axis=0, return_counts=True)
    chosen, groups = _chosen(order, right, y, predicted, cells, counts)
    cards = []
    for i in chosen:
        said = f"{classes[predicted[i]]} · {confidence[i]:.1%}"
        cards.append(_card(said, None if right[i] else classes[y[i]], groups[i], show(i)))
    of_class = np.bincount(y, minlength=len(classes))
    opened = {key for keys in groups.values() for key in keys}
    shown = _confusion(cells, counts, of_class, classes, opened)
    wrong = f"{int((~right).sum()):,} of {len(y):,} are wrong. {HEADED} {note}"
    return _section(title, report, examples("Predictions", cards, GROUPS, note=wrong, **shown))


def labelled(
    title: str,
    report: dict,
    y: np.ndarray,
    predicted: np.ndarray,
    proba: np.ndarray,
    classes: Sequence[str],
    show: Show,
    note: str = "",
) -> dict[str, object]:
    """The same where an example may have several labels: y, predicted (N, C) bool."""
    right = (y == predicted).all(axis=1)
    # How far the probabilities are from the truth, where they are furthest.
    distance = abs(y - proba).max(axis=1)
    order = np.lexsort((-distance, right))
    chosen = [*order[~right[order]][: MOST_CARDS // 2], *order[right[order]][: MOST_CARDS // 4]]
    cards = []
    for i in chosen:
        said = ", ".join(f"{classes[c]} · {proba[i, c]:.1%}" for c in np.flatnonzero(predicted[i]))
        labels = ", ".join(classes[c] for c in np.flatnonzero(y[i])) or "no label"
        truth, group = (None, "right") if right[i] else (labels, "wrong")
        cards.append(_card(said or "no label", truth, [group], show(int(i))))
    wrong = (
        f"{int((~right).sum()):,} of {len(y):,} have a wrong label, or lack one. {HEADED} {note}"
    )
    return _section(title, report, examples("Predictions", cards, GROUPS, note=wrong))


def _card(said: str, truth: str | None, groups: list[str], shown: dict[str, object]) -> dict:
    """What is said of an example, and what is true (None: the same)."""
    lines = [] if truth is None else [("true", truth)]
    shown = shown | {"lines": [*lines, *shown.get("lines", ())]}
    return card(said, right=truth is None, groups=groups, **shown)


def _section(title: str, report: dict, predictions: dict) -> dict[str, object]:
    tiles = {key: report[key] for key in TILES if key in report}
    return section(title, [predictions, _reliability(report), _per_class(report)], tiles)


def _chosen(order, right, y, predicted, cells, counts):
    """Which examples are shown, in their order, and the groups of each."""
    groups: dict[int, list[str]] = {}
    wrong = [int(i) for i in order if not right[i]]
    for i in wrong[:WORST]:
        groups[i] = ["wrong"]
    by_cell: dict[tuple[int, int], list[int]] = {}
    for i in order.tolist():
        by_cell.setdefault((int(y[i]), int(predicted[i])), []).append(i)
    # The cells with most errors first, then the diagonal.
    ranked = sorted(range(len(cells)), key=lambda k: (cells[k][0] == cells[k][1], -counts[k]))
    for k in ranked:
        true, said = map(int, cells[k])
        for i in by_cell[true, said][: OF_CELL // 2 if true == said else OF_CELL]:
            if i in groups or len(groups) < MOST_CARDS:
                groups.setdefault(i, ["right" if true == said else "wrong"])
                groups[i].append(_key(true, said))
    return [i for i in order.tolist() if i in groups], groups


def _key(true: int, predicted: int) -> str:
    return f"c{true}-{predicted}"


def _confusion(cells, counts, of_class, classes: Sequence[str], opened: set[str]) -> dict:
    """The matrix, or of more than MOST_IN_MATRIX classes the pairs that are confused most, as
    keywords of parts.examples; opened, the keys of cells that have examples."""

    def cell(true: int, said: int, count: int) -> dict[str, object]:
        share, key = count / max(1, int(of_class[true])), _key(true, said)
        return {
            "count": count,
            "share": share,
            "shade": round(10 * share),
            "key": key if key in opened else None,
            "true": names[true],
            "predicted": names[said],
        }

    names = [cut(name, OF_NAME) for name in classes]
    found = {(int(t), int(s)): int(n) for (t, s), n in zip(cells, counts, strict=True)}
    if len(classes) <= MOST_IN_MATRIX:
        C = range(len(classes))
        rows = [[cell(true, said, found.get((true, said), 0)) for said in C] for true in C]
        upright = max(map(len, names)) <= MOST_UPRIGHT
        return {"matrix": {"classes": names, "rows": rows, "upright": upright}}
    errors = sorted((pair for pair in found if pair[0] != pair[1]), key=lambda p: -found[p])
    return {"pairs": [cell(*pair, found[pair]) for pair in errors[:MOST_PAIRS]]}


def _reliability(report: dict) -> dict[str, object]:
    filled = [b for b in report["reliability"] if b["count"]]
    confidence, accuracy = ([b[key] for b in filled] for key in ("confidence", "accuracy"))
    lines = [
        series("calibrated", (0, 1), (0, 1), quiet=True),
        series("this model", accuracy, confidence, points=True),
    ]
    return curves("Reliability", lines, x="confidence", y="accuracy")


def _per_class(report: dict) -> dict[str, object]:
    """Precision, recall, F1 and the like of the classes, the worst first."""
    rows = sorted(
        report["per_class"].items(), key=lambda row: (not row[1]["support"], row[1]["f1"])
    )
    columns = [*rows[0][1]]
    cells = [[name, *figures.values()] for name, figures in rows]
    return table("Classes, the worst first", ["class", *columns], cells, folded=len(rows) > 12)
