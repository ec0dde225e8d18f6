"""What a report is made of: sections of tables, curves and examples, ready for JSON.

Whatever is too long for a page is cut here, so that no data set makes a part large.
"""

import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

MOST_POINTS = 10_000  # of a series; of longer ones the least and the greatest of a stretch are kept
MOST_ROWS = 200  # of a table
MOST_LETTERS = 300  # of a text in a table or a card
MOST_WORDS = 150  # of a card's text
MOST_CARDS = 100  # of an evaluation
SHADES = 5  # of a word's colour, in either direction


def section(
    title: str, parts: Iterable[dict], tiles: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Parts under a heading; tiles, the figures that are read first."""
    return {
        "title": cut(title),
        "tiles": [[cut(name), cut(value)] for name, value in (tiles or {}).items()],
        "parts": [*parts],
        "left_out": [],
    }


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    note: str = "",
    folded: bool = False,
) -> dict[str, object]:
    """A table, the first column its rows' names; folded, shown when it is asked for."""
    rows = [[cut(value) for value in row] for row in rows]
    if len(rows) > MOST_ROWS:
        note = " ".join(filter(None, (note, f"The first {MOST_ROWS} of {len(rows):,} rows.")))
    return {
        "kind": "table",
        "full": folded,
        "title": cut(title),
        "note": note,
        "columns": [cut(name) for name in columns],
        "rows": rows[:MOST_ROWS],
        "folded": folded,
    }


def series(
    name: str,
    y: Sequence[float],
    x: Sequence[float] | None = None,
    *,
    points: bool = False,
    quiet: bool = False,
) -> dict[str, object]:
    """A curve for `curves`: y over x (None: 1, 2, ...), numbers that are not finite being gaps;
    points, each with a mark; quiet, drawn behind the others."""
    y = np.asarray(y, float)
    x = np.arange(1, len(y) + 1) if x is None else np.asarray(x, float)
    if len(y) > MOST_POINTS:
        kept = _extremes(y)
        x, y = x[kept], y[kept]
    shown = {"points": points, "quiet": quiet}
    return {"name": cut(name), "x": _numbers(x), "y": _numbers(y)} | shown


def _extremes(y: np.ndarray) -> np.ndarray:
    """Where, in each of MOST_POINTS / 2 stretches, the least and the greatest number lies."""
    bounds = np.linspace(0, len(y), MOST_POINTS // 2 + 1).astype(int)
    least, greatest = np.where(np.isnan(y), np.inf, y), np.where(np.isnan(y), -np.inf, y)
    found = set()
    for first, end in pairwise(bounds):
        found |= {first + int(least[first:end].argmin()), first + int(greatest[first:end].argmax())}
    return np.array(sorted(found))


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{v:.5g}" if math.isfinite(v) else "-" for v in values.tolist())


def curves(
    title: str, lines: Iterable[dict], *, x: str, y: str, log: bool | None = None
) -> dict[str, object]:
    """A chart of series, with the names of its axes; log, whether y is logarithmic at first (None:
    it never is)."""
    about = {"kind": "curves", "full": False, "title": cut(title)}
    return about | {"series": [*lines], "x": x, "y": y, "log": log}


def training_curves(
    loss_history: Sequence[float],
    history: Sequence[dict[str, float]],
    validation: str,
    scores: Mapping[str, str],
    *,
    title: str = "",
    nats: str = "loss (nats)",
) -> list[dict[str, object]]:
    """The parts that a Solver's loss_history and history make: the loss by iteration, scores by
    epoch, and all figures of the epochs in a table.

    Inputs: validation, the split's name in the history's keys; scores, keys of the history to the
    names of their curves; title, before the charts' names.
    """
    per_epoch = len(loss_history) / max(1, len(history))
    losses = [series("each iteration", loss_history, quiet=True)]
    for key, name in (("train_loss", "training, epoch mean"), (f"{validation}_loss", validation)):
        losses += _by_epoch(history, key, name, per_epoch)
    lead = f"{title}: " if title else ""
    parts = [curves(f"{lead}loss", losses, x="iteration", y=nats, log=False)]
    scored = [one for key, name in scores.items() for one in _by_epoch(history, key, name)]
    if scored:
        parts.append(curves(f"{lead}scores", scored, x="epoch", y="score"))
    columns = [*dict.fromkeys(key for epoch in history for key in epoch)]
    rows = [[epoch.get(key) for key in columns] for epoch in history]
    return [*parts, table(f"{lead}every epoch", columns, rows, folded=True)]


def trained(
    solvers: Sequence,
    validation: str,
    scores: Mapping[str, str],
    best: tuple[str, str],
    *,
    nats: str = "loss (nats)",
) -> dict[str, object]:
    """The section of a training by one or several Solvers: its curves, as training_curves has them,
    and in tiles the highest score of an epoch, best being its key and its name."""
    parts = []
    for i, solver in enumerate(solvers, 1):
        title = f"network {i}" if len(solvers) > 1 else ""
        history = solver.loss_history, solver.history
        parts += training_curves(*history, validation, scores, title=title, nats=nats)
    epochs = [epoch for solver in solvers for epoch in solver.history]
    key, name = best
    tiles = {
        f"{name}, best epoch": max((e[key] for e in epochs if key in e), default=None),
        "epochs": len(epochs),
        "seconds": sum(epoch["seconds"] for epoch in epochs),
        "parameters": sum(w.size for solver in solvers for w in solver.params.values()),
    }
    return section("Training", parts, tiles)


def _by_epoch(history, key: str, name: str, scale: float = 1) -> list[dict]:
    found = [(epoch["epoch"] * scale, epoch[key]) for epoch in history if key in epoch]
    if not found:
        return []
    x, y = zip(*found, strict=True)
    return [series(name, y, x, points=True)]


def picture(jpeg: bytes, size: tuple[int, int], alt: str, caption: str = "") -> dict[str, object]:
    """A picture for `card`: a JPEG file's bytes and its (width, height)."""
    width, height = size
    data = b64encode(jpeg).decode()
    return {
        "data": data,
        "width": width,
        "height": height,
        "alt": cut(alt),
        "caption": cut(caption),
    }


def card(
    title: str,
    *,
    right: bool | None = None,
    lines: Iterable[tuple[str, object]] = (),
    pictures: Iterable[dict] = (),
    words: Sequence[tuple[str, float]] = (),
    most_words: int = MOST_WORDS,
    groups: Iterable[str] = (),
) -> dict[str, object]:
    """An example: its title, whether it is right (None: nobody asks), named lines, pictures, and
    words, of which most_words are shown, each with a number: how much it speaks for what is said.

    groups: the keys of what it is shown with, see `examples`.
    """
    largest = max((abs(by) for _, by in words), default=0) or 1
    shown = [[cut(word), round(SHADES * by / largest), by] for word, by in words[:most_words]]
    return {
        "title": cut(title),
        "right": right,
        "lines": [[cut(name), cut(value)] for name, value in lines],
        "pictures": [*pictures],
        "words": shown,
        "more_words": max(0, len(words) - most_words),
        "groups": [*groups],
    }


def examples(
    title: str,
    cards: Sequence[dict],
    groups: Mapping[str, str],
    *,
    note: str = "",
    matrix: dict | None = None,
    pairs: Sequence[dict] = (),
    width: str | None = None,
    full: bool = True,
) -> dict[str, object]:
    """Cards, of which one group is shown at a time; groups, keys to names, the first one shown
    first. matrix and pairs, of classifier.classified, open groups of their own. width of a card,
    "picture", "text" or "large" (None: by what they show); full, whether nothing stands beside the
    part."""
    counts = {key: sum(key in one["groups"] for one in cards) for key in groups}
    return {
        "kind": "examples",
        "title": cut(title),
        "note": note,
        "groups": [[key, name, counts[key]] for key, name in groups.items() if counts[key]],
        "matrix": matrix,
        "pairs": [*pairs],
        "cards": [*cards],
        "width": width or ("picture" if any(one["pictures"] for one in cards) else "text"),
        "full": full,
    }


def settings(values: Mapping[str, object]) -> dict[str, object]:
    """The section of a program's settings."""
    rows = [[name, _in_words(value)] for name, value in values.items()]
    return section("Settings", [table("", ["setting", "value"], rows)])


def _in_words(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def cut(value: object, most: int = MOST_LETTERS) -> object:
    """A text of at most so many letters; numbers, truth values and None as they are."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"
