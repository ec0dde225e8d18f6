"""Tables as text and as Markdown."""

from typing import NamedTuple

RATIO = "ratio"  # the column of the time of the best peer / of fastrnn


class Table(NamedTuple):
    """Cells are text; the columns after the first labels ones are aligned as numbers."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]
    labels: int = 2


def text(table: Table) -> str:
    """Aligned columns under a line."""
    lines = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join(
            cell.ljust(width) if i < table.labels else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    shown.insert(1, "-" * max(map(len, shown)))
    return "\n".join([f"{table.title}:", *shown, *table.notes])


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown with its title above and its notes below."""
    alignment = ["---" if i < table.labels else "---:" for i in range(len(table.head))]
    lines = ["| " + " | ".join(line) + " |" for line in (table.head, alignment, *table.rows)]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"## {table.title}", "", *lines, "", *notes]).rstrip()
