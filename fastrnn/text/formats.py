"""Rows of labelled texts in the formats that people have.

space       a label, white space, the text
fasttext    __label_LABEL once or more, and the text
tsv, csv    a table, whose first row may name its columns; csv with quotes, tsv as it stands
jsonl       an object a line; its label may be a list of several
lines       a text a line, without a label
"""

import csv
import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

LABELLED = ("space", "fasttext", "tsv", "csv", "jsonl")
LINES = "lines"
PREFIX = "__label__"
LONGEST = 1 << 30  # characters of a cell
QUOTE = '"'

# The first line of one JSON document, where an object a line is expected.
DOCUMENT = re.compile(r"\s*(\[\s*(\{|$)|\{\s*$)")
CONVERSION = "jq -c '.[]' FILE makes lines of an array"

LABEL = re.compile(rf"(?<!\S){PREFIX}(\S+)")


class Row(NamedTuple):
    """The line it begins in, its labels, its text; a blank row has neither label nor text."""

    line: int
    labels: tuple[str, ...]
    text: str


class Form(NamedTuple):
    """How a file is read: its kind, a format; where texts and labels stand (None: there are no
    labels), in a table the numbers of columns from 0, in objects names; whether the first row is
    left out; what separates the columns of csv."""

    kind: str
    text: int | str = 1
    label: int | str | None = 0
    header: bool = False
    delimiter: str = ","

    def __str__(self) -> str:
        said = f"{self.kind}, a label and the text" if self.kind == "space" else self.kind
        if self.kind in ("tsv", "csv", "jsonl"):
            for what, place in (("label", self.label), ("text", self.text)):
                if place is not None:
                    shown = place if isinstance(place, str) else f"column {place + 1}"
                    said += f", the {what} in {shown}"
        return f"{said}, the first row left out" if self.header else said


def rows(lines: Iterable[str], form: Form, name: object) -> Iterator[Row]:
    """The rows in the lines of a file, as they come.

    Raises, when it gets there, ValueError with the file's name and the line for what is not of the
    form.
    """
    read = _READERS[form.kind](lines, form, name)
    if form.header:
        next((row for row in read if row.labels or row.text), None)
    return read


def cells(
    lines: Iterable[str], kind: str, delimiter: str, name: object
) -> Iterator[tuple[int, list[str], list[str]]]:
    """The rows of a table, tsv or csv: the line each begins in; its cells, none of a blank one; the
    lines that are whole within its quotes.

    Raises ValueError with the file's name and the line for quotes that are not csv's.
    """
    if kind == "tsv":
        for number, line in enumerate(lines, 1):
            yield number, [*map(_unquoted, line.split("\t"))] if line.strip() else [], []
        return
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    taken: list[str] = []  # the lines of a row
    ended = (taken.append(line) or f"{line}\n" for line in lines)
    table = csv.reader(ended, **_dialect(delimiter))
    begin = 1
    try:
        for row in table:
            yield begin, row if any(map(str.strip, row)) else [], taken[1:-1]
            begin = table.line_num + 1
            taken.clear()
    except csv.Error as error:
        raise ValueError(f"{name}:{begin}: not csv ({error})") from None


def _dialect(delimiter: str) -> dict[str, object]:
    return {"delimiter": delimiter, "skipinitialspace": True, "strict": True}


def _unquoted(cell: str) -> str:
    """A cell of tsv without the quotes that some programs write around one with quotes in it."""
    inner = cell[1:-1].replace(2 * QUOTE, "")
    if len(cell) > 1 and cell[0] == cell[-1] == QUOTE and QUOTE not in inner:
        return cell[1:-1].replace(2 * QUOTE, QUOTE)
    return cell


def _lines(lines: Iterable[str], form: Form, name: object) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        yield Row(number, (), line)


def _space(lines: Iterable[str], form: Form, name: object) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        parts = line.split(None, 1)
        yield Row(number, (*parts[:1],), "".join(parts[1:]).rstrip())


def _fasttext(lines: Iterable[str], form: Form, name: object) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        labels = dict.fromkeys(LABEL.findall(line))
        yield Row(number, (*labels,), LABEL.sub("", line).strip())


def _table(lines: Iterable[str], form: Form, name: object) -> Iterator[Row]:
    width, seen = 0, set()
    for number, row, inner in cells(lines, form.kind, form.delimiter, name):
        width = width or len(row)
        if not row:
            yield Row(number, (), "")
        elif len(row) == width:
            label = "" if form.label is None else row[form.label].strip()
            seen.add(label)
            if inner and (taken := sum(_is_row(line, form, width, seen) for line in inner)):
                raise ValueError(f"{name}:{number}: a quote that opens here takes in {taken} rows")
            yield Row(number, (label,) if label else (), row[form.text].strip())
        else:
            hint = " (a text in which there are some stands in quotes)" * (form.kind == "csv")
            raise ValueError(f"{name}:{number}: expected {width} columns, got {len(row)}{hint}")


def _is_row(line: str, form: Form, width: int, labels: Collection[str]) -> bool:
    """Whether a line alone is a row with one of some labels."""
    try:
        row = next(csv.reader([line], **_dialect(form.delimiter)), [])
    except csv.Error:
        return False
    return form.label is not None and len(row) == width and row[form.label].strip() in labels


def _objects(lines: Iterable[str], form: Form, name: object) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            yield Row(number, (), "")
            continue
        try:
            if number == 1 and DOCUMENT.match(line):
                raise ValueError(f"expected an object a line, got one document; {CONVERSION}")
            content = json.loads(line)
            if not isinstance(content, dict):
                raise ValueError(f"expected an object, got {type(content).__name__}")
            label = None if form.label is None else content.get(form.label)
            yield Row(number, _names(label), _text(content, form.text).strip())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}:{number}: not jsonl ({error})") from None


def _names(label: object) -> tuple[str, ...]:
    """Labels as JSON has them: none, one, or a list."""
    if isinstance(label, dict):
        raise ValueError("expected a label, got an object")
    several = label if isinstance(label, list) else [label]
    named = (x.strip() if isinstance(x, str) else json.dumps(x) for x in several if x is not None)
    return (*dict.fromkeys(filter(None, named)),)


def _text(content: dict[str, object], key: int | str) -> str:
    text = content.get(key)
    if not isinstance(text, str):
        got = type(text).__name__ if key in content else f"only {', '.join(content)}"
        raise ValueError(f"expected a text in {key!r}, got {got}")
    return text


_READERS = {
    "space": _space,
    "fasttext": _fasttext,
    "tsv": _table,
    "csv": _table,
    "jsonl": _objects,
    LINES: _lines,
}
