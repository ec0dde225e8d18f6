"""What a file of texts is, by its name and its first lines; what may be read in two ways is
refused."""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from reprlib import repr as shortened
from typing import NamedTuple

from fastrnn.text.formats import DOCUMENT, LABEL, LABELLED, LINES, PREFIX, QUOTE, Form, cells

AUTO = "auto"
HEAD = 1000  # lines that are looked at
SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
SUFFIXES |= dict.fromkeys((".json", ".jsonl", ".ndjson"), "jsonl")
DELIMITERS = ",;\t|"
# What people call the columns of a table and the names of an object, the most usual first.
TEXTS = ("text", "texts", "sentence", "review", "content", "message", "comment", "tweet")
TEXTS += ("document", "body", "utterance", "question_text", "phrase")
LABELS = ("label", "labels", "class", "category", "sentiment", "target", "polarity", "intent")
LABELS += ("topic", "rating", "stars")
LONGEST_NAME = 3  # words that may be a column's name
FEW = 3  # lines that look labelled: fewer may do so by chance
BARS = "|||"  # which some data sets have between label and text

Rows = Sequence[Sequence[str]]


class Asked(NamedTuple):
    """What is known of a file beside its lines: its name; the columns that were asked for; the
    labels there may be; whether every text has one."""

    name: object
    text: str | None
    label: str | None
    classes: Collection[str]
    labelled: bool


def form_of(
    head: Sequence[str],
    name: object,
    *,
    file_format: str = AUTO,
    text_column: str | None = None,
    label_column: str | None = None,
    classes: Collection[str] = (),
    labelled: bool = True,
) -> Form:
    """How to read a file that begins with the lines of head.

    Inputs: name, the file's; file_format, one of formats.LABELLED, where texts need no label also
    "lines", or "auto"; text_column, label_column, names or, from 1, numbers; classes, the labels
    that there may be; labelled, whether every text has one.
    Raises ValueError for an unknown format, and, with the file's name and the option that helps,
    for a column that is not there and for what may be read in two ways.
    """
    known = (AUTO, *LABELLED) if labelled else (AUTO, *LABELLED, LINES)
    if file_format not in known:
        raise ValueError(f"format: expected one of {', '.join(known)}, got {file_format!r}")
    asked = Asked(name, text_column, label_column, {*classes}, labelled)
    filled = [line for line in head if line.strip()]
    kind = _guess(filled, asked) if file_format == AUTO else file_format
    if kind in ("tsv", "csv"):
        return _of_table(filled, kind, asked)
    if kind == "jsonl":
        return _of_objects(filled, asked)
    if text_column or label_column:
        raise ValueError(f"{name}: read as {kind}, which has no columns; pass another --format")
    named = file_format == AUTO and kind == "space" and filled and _is_header(filled[0].split())
    return Form(kind, header=bool(named))


# ---- the kind of file ----------------------------------------------------------------------------


def _guess(filled: list[str], asked: Asked) -> str:
    suffix = Path(str(asked.name)).suffix.lower()
    plain = "space" if asked.labelled else LINES
    if suffix in SUFFIXES or not filled:
        return SUFFIXES.get(suffix, plain)
    if all(map(_is_object, filled)) or _is_document(filled):  # which reading refuses
        return "jsonl"
    if asked.labelled and all(BARS in line for line in filled):
        raise ValueError(
            f"{asked.name}: all lines have a {BARS}, which no format has between label and text: "
            "put a tab in its place; or, if it is a word, say what the file is, --format space"
        )
    if prefixed := sum(LABEL.search(line) is not None for line in filled):
        if prefixed == len(filled):
            return "fasttext"
        why = f"{prefixed} of the first {len(filled)} lines have a {PREFIX}"
        raise _ambiguous(asked, why, "fasttext", plain)
    tables = {"tsv": _sample(filled, "tsv"), "csv": _sample(filled, "csv")}
    for kind, rows in tables.items():
        sought = asked.text or asked.label or _is_header(rows[0], asked.labelled)
        if sought and len(rows[0]) > 1:
            return kind
    return (_guess_labelled if asked.labelled else _guess_unlabelled)(filled, tables, asked)


def _guess_labelled(filled: list[str], tables: dict[str, Rows], asked: Asked) -> str:
    """tsv, csv or space, of lines without a header that all have a label."""
    if all("\t" in line for line in filled):
        if _width(tables["tsv"]):
            return "tsv"
        if any(_words(row[0]) > 1 for row in tables["tsv"]):
            raise _ambiguous(asked, "all lines have tabs, but not as many", "tsv", "space")
    rows, firsts = tables["csv"], [line.split()[0] for line in filled]
    regular = _width(rows) > 1
    if all(any(mark in first for mark in ",;|") for first in firsts):
        if regular:
            return "csv"
        raise _ambiguous(asked, "all lines have commas, but not as many", "csv", "space")
    if regular and all(first.startswith(QUOTE) for first in firsts):
        return "csv"
    lasts = [row[-1] for row in rows]
    short = max(map(_words, lasts)) <= LONGEST_NAME
    if regular and short and _are_few(lasts) and 1 < len({*lasts}) < len({*firsts}):
        raise _ambiguous(asked, "lines seem to end with labels, after a comma", "csv", "space")
    named = filled[0].split()
    if len(named) == 2 and not _is_header(named) and _may_be_header(firsts, asked.classes):
        raise ValueError(
            f"{asked.name}: the first line, {shortened(filled[0])}, may be an example, or name the "
            "columns; pass --format space, or delete it"
        )
    return "space"


def _guess_unlabelled(filled: list[str], tables: dict[str, Rows], asked: Asked) -> str:
    """Lines are texts, unless all of them have a label that is known."""
    for kind, rows in tables.items():
        if _width(rows) == 2 and _of_classes(rows, asked.classes):
            return kind
    firsts = {line.split()[0] for line in filled}
    if firsts <= asked.classes and max(map(_words, filled)) > 1:
        if len(filled) < FEW:
            raise _ambiguous(asked, "all lines begin with labels, or words", "space", LINES)
        return "space"
    return LINES


def _ambiguous(asked: Asked, why: str, *kinds: str) -> ValueError:
    return ValueError(f"{asked.name}: {why}; say what it is, --format {' or '.join(kinds)}")


def _is_object(line: str) -> bool:
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_document(filled: list[str]) -> bool:
    """Whether lines begin one array of objects, or an object over several lines."""
    first, second = (*map(str.strip, filled[:2]), "")[:2]
    within = first not in ("[", "{") or second.startswith(("{", QUOTE))
    return DOCUMENT.match(first) is not None and within


def _words(text: str) -> int:
    return len(text.split())


def _are_few(values: Sequence[str]) -> bool:
    """Whether values come again as labels do."""
    return len(values) >= FEW and 2 * len(set(values)) <= len(values)


# ---- tables --------------------------------------------------------------------------------------


def _sample(filled: list[str], kind: str, delimiter: str | None = None) -> list[list[str]]:
    """The first rows of a table, as far as they can be read; at least one, of nothing."""
    rows = []
    try:
        for _, row, _ in cells(filled, kind, delimiter or _delimiter(filled), ""):
            rows += [[*map(str.strip, row)]] if row else []
    except ValueError:  # perhaps the last one's end is behind the head
        pass
    return rows or [[""]]


def _delimiter(filled: list[str]) -> str:
    """The one that makes a table of lines, or the comma."""
    regular = (d for d in DELIMITERS if _width(_sample(filled, "csv", d)) > 1)
    return next(regular, ",")


def _width(rows: Rows) -> int:
    """How many columns all rows have; 0 where that differs."""
    widths = {*map(len, rows)}
    return widths.pop() if len(widths) == 1 else 0


def _is_header(row: Sequence[str], labelled: bool = True) -> bool:
    """Whether a row has a usual name of texts and, where there have to be labels, of those."""
    names = {*map(str.lower, row)}
    wanted = (TEXTS, LABELS) if labelled else (TEXTS,)
    return len(row) > 1 and not any(names.isdisjoint(usual) for usual in wanted)


def _of_table(filled: list[str], kind: str, asked: Asked) -> Form:
    delimiter = _delimiter(filled) if kind == "csv" else "\t"
    table = _sample(filled, kind, delimiter)
    first = table[0]
    if not filled or (len(first) == 1 and not asked.labelled):
        named = asked.text is not None or first[0].lower() in TEXTS
        return Form(kind, 0, None, named, delimiter)
    text = _place(asked.name, "--text-column", asked.text, first)
    label = _place(asked.name, "--label-column", asked.label, first)
    named = any(c and not c.isdecimal() for c in (asked.text, asked.label))
    header = named or _is_header(first, asked.labelled)
    if header:
        label = _called(first, LABELS, text) if label is None else label
        text = _called(first, TEXTS, label) if text is None else text
    elif text is None and label is None and len(first) == 2:
        label = _label_column(table, asked)
    if len(first) == 2 and text is None and label is not None:
        text = 1 - label
    elif len(first) == 2 and label is None and text is not None and asked.labelled:
        label = 1 - text
    if text is None or (label is None and asked.labelled):
        raise ValueError(
            f"{asked.name}: read as {kind}; which column of {_shown(first)} it is has to be said "
            f"by --{'text' if text is None else 'label'}-column, its name or number, or pass "
            "another --format"
        )
    return Form(kind, text, label, header, delimiter)


def _place(name: object, option: str, column: str | None, first: Sequence[str]) -> int | None:
    """Where a column is that was asked for by its name or number."""
    if column is None:
        return None
    if column.isdecimal():
        if not 1 <= int(column) <= len(first):
            raise ValueError(f"{name}: {option}: expected 1 to {len(first)}, got {column}")
        return int(column) - 1
    for names in (first, [*map(str.lower, first)]):
        if column in names or column.lower() in names:
            return names.index(column if column in names else column.lower())
    raise ValueError(f"{name}: {option}: no {shortened(column)} in the first row, {_shown(first)}")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(shortened, names))


def _called(names: Sequence[str], usual: Sequence[str], taken: int | None = None) -> int | None:
    """Where the one usual name is, or the most usual one; not where another one is taken."""
    places = [i for i, n in enumerate(names) if n.lower() in usual and i != taken]
    most = [i for i in places if names[i].lower() == usual[0]]
    return next((found[0] for found in (places, most) if len(found) == 1), None)


def _label_column(table: Rows, asked: Asked) -> int | None:
    """Which of two columns has the labels: the one of classes or, where there have to be some, of
    fewer values and words. Raises ValueError where the first row may be a header."""
    known = _of_classes(table, asked.classes)
    if len(known) == 1 or not asked.labelled:
        return known[0] if len(known) == 1 else None
    columns = [*zip(*(row for row in table if len(row) == 2), strict=True)]
    sizes = [(len({*column}), sum(map(_words, column))) for column in columns]
    fewer = [i for i in (0, 1) if all(a <= b for a, b in zip(sizes[i], sizes[1 - i], strict=True))]
    if len(fewer) != 1:
        return None
    short = max(map(_words, table[0])) <= LONGEST_NAME
    usual = not {*map(str.lower, table[0])}.isdisjoint(TEXTS + LABELS)
    if short and (usual or _may_be_header(columns[fewer[0]], asked.classes)):
        raise ValueError(
            f"{asked.name}: the first row, {_shown(table[0])}, may be an example, or name the "
            "columns; pass --label-column and --text-column, numbers or names, or another --format"
        )
    return fewer[0]


def _of_classes(table: Rows, classes: Collection[str]) -> list[int]:
    """Which of two columns have nothing but labels that are known."""
    return [i for i in (0, 1) if {row[i] for row in table if len(row) == 2} <= {*classes}]


def _may_be_header(labels: Sequence[str], classes: Collection[str]) -> bool:
    """Whether the first label is like none of the others, while these are as labels are."""
    first, *others = labels
    if classes:
        return first not in classes and others != [] and {*others} <= {*classes}
    counts = Counter(others)
    return first not in counts and min(counts.values(), default=0) > 1


# ---- objects -------------------------------------------------------------------------------------


def _of_objects(filled: list[str], asked: Asked) -> Form:
    if not filled or not _is_object(filled[0]):  # reading says what is wrong
        return Form("jsonl", "text", "label")
    names = [*json.loads(filled[0])]
    found = []
    for given, usual, option, needed in (
        (asked.text, TEXTS, "--text-column", True),
        (asked.label, LABELS, "--label-column", asked.labelled),
    ):
        place = _called(names, usual)
        if given is None and place is None and needed:
            raise ValueError(
                f"{asked.name}: read as jsonl; which of {_shown(names)} it is has to be said by "
                f"{option}, or pass another --format"
            )
        found.append(names[place] if given is None and place is not None else given)
    return Form("jsonl", *found)
