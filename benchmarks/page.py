"""The tables of docs/benchmarks.md: what stands between two marks is made from a run."""

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from fastrnn import storage
from fastrnn.benchmarks import report, results
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import SUBJECT
from fastrnn.benchmarks.race import Row
from fastrnn.benchmarks.tables import RATIO, Table, markdown

BEGIN, END = "<!-- bench: made by `fastrnn bench page` -->", "<!-- bench: end -->"

RATIOS = "ratios are times of a peer / of fastrnn"


def update(path: Path, runs: Iterable[dict[str, object]]) -> None:
    """Rewrite a page's tables from runs. Raises ValueError where it has not the two marks."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or not 0 <= text.find(BEGIN) < text.find(END):
        raise ValueError(f"{path}: expected one {BEGIN} and after it {END}")
    before, rest = text.split(BEGIN)
    after = rest.split(END, 1)[1]
    with storage.replacing(path) as temporary:
        sections = "\n\n".join(map(section, runs))
        content = f"{before}{BEGIN}\n{sections}\n{END}{after}"
        temporary.write_text(content, encoding="utf-8")


def section(result: dict[str, object]) -> str:
    """Under the instruction set and the processor: how many times as fast as the best peer that had
    no more than these, shape by cell and direction; one step; texts; PyTorch's modules; the rest in
    a line a race."""
    races = results.by_race(result["rows"])
    parts = [f"### {result['config']['isa']}, {result['machine']['processor']}"]
    if layers := races.pop("layers", None):
        ahead = report.unheld(result)
        held = results.without(layers, ahead)
        parts.append(_body(_matrix(held, "(N,T,D,H)", lambda case: case.shape, _verdict)))
        also = f"; with {' and '.join(ahead)} too, {results.summary(layers)}" if ahead else ""
        parts.append(f"All rows: {results.summary(held)}{also}.")
    if steps := races.pop("step", None):
        parts.append("One step of one row; steps: a step of many in one call:")
        parts.append(_body(_steps(steps)))
    if texts := races.pop("text", None):
        parts.append(f"{report.TITLES['text']}; {RATIOS}:")
        parts.append(_body(report.table("text", texts)))
    if layers := races.pop("torch", None):
        times = "times of torch.nn's / of fastrnn.torch's"
        parts.append(f"PyTorch's layers, {times}; update: forward, backward and Adam's step:")
        parts.append(_body(_matrix(layers, "layer, (N,T,D,H)", _use, _ratio)))
        notes = [results.summary(layers), *report.notes_on_modules(layers)]
        parts.append(f"All rows: {'; '.join(notes)}.")
    if models := races.pop("models", None):
        parts.append(f"{report.TITLES['models']}:")
        parts.append(_body(report.table("models", models)))
    if cells := races.pop("cells", None):
        parts.append(f"{report.TITLES['cells']}; cost, time / the plain cell's; {RATIOS}:")
        parts.append(_body(report.table("cells", cells)))
    races.pop("scaling", None)
    if races:
        lines = [f"- {report.TITLES[race]}: {_line(rows)}" for race, rows in races.items()]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, report.where(result)])


def _body(table: Table) -> str:
    """The table alone, without its title, in bold where a peer is faster."""
    if RATIO in table.head:
        at = table.head.index(RATIO)
        for row in table.rows:
            if row[at] and float(row[at]) < 1:
                row[at] = f"**{row[at]}**"
    return markdown(table).split("\n\n", 1)[1]


def _matrix(
    rows: list[Row], corner: str, label: Callable[[Case], str], cell: Callable[[Row], str]
) -> Table:
    """A line a label, a column a cell and direction."""
    columns = results.group(rows, lambda row: (row["cell"], row["direction"]))
    lines = []
    for name, some in results.group(rows, lambda row: label(Case.of(row))).items():
        at = {(row["cell"], row["direction"]): row for row in some}
        lines.append([name, *(cell(at[c]) if c in at else "" for c in columns)])
    means = [statistics.geometric_mean(results.best_ratios(some)) for some in columns.values()]
    lines.append(["geometric mean", *(f"{mean:.2f}" for mean in means)])
    head = [corner, *(" ".join(column) for column in columns)]
    return Table("", head, lines, [], labels=1)


def _verdict(row: Row) -> str:
    return f"{_ratio(row)} {results.best(row)[0]}"


def _ratio(row: Row) -> str:
    _, ratio = results.best(row)
    return f"**{ratio:.2f}**" if ratio < 1 else f"{ratio:.2f}"


def _use(case: Case) -> str:
    return (case.form and f"{case.form}, ") + report.size(case)


def _steps(rows: list[Row]) -> Table:
    """A line a cell and size, of an rnn none where there are others; a column a racer."""
    cells = results.group(rows, lambda row: row["cell"])
    if len(cells) > 1:
        cells.pop("rnn", None)
    lines, racers = {}, {}
    for row in (row for some in cells.values() for row in some):
        line = lines.setdefault(f"{row['cell']}, {results.inputs(row)}, H = {row['H']}", {})
        for name, text in _times_of_steps(row).items():
            racers[name] = None
            line.setdefault(name, text)
    # fastrnn's columns stand first, in whichever rows they were found.
    names = sorted(racers, key=lambda name: results.peer_of(name) != SUBJECT)
    body = [[size, *(line.get(name, "") for name in names)] for size, line in lines.items()]
    return Table("", ["N = 1", *names], body, [], labels=1)


def _times_of_steps(row: Row) -> dict[str, str]:
    """By column: fastrnn's direction, each racer; of many steps in one call the best peer alone."""
    seconds, peer = dict(row["seconds"]), results.best(row)[0]
    texts = {f"{SUBJECT} {row['direction']}": report.duration(seconds.pop(SUBJECT))}
    if row["direction"] != "steps":
        return texts | {racer: report.duration(s) for racer, s in seconds.items()}
    if peer:
        least = min(s for racer, s in seconds.items() if results.peer_of(racer) == peer)
        texts["best peer, steps"] = f"{report.duration(least)} {peer}"
    return texts


def _line(rows: list[Row]) -> str:
    cells = results.group(rows, lambda row: row["cell"])
    return "; ".join(f"{cell} {results.summary(some)}" for cell, some in cells.items())
