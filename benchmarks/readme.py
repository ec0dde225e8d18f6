"""The README's benchmark section: what stands between two marks is made from a run."""

import statistics
from pathlib import Path

from fastrnn import storage
from fastrnn.benchmarks import report, results
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import SUBJECT
from fastrnn.benchmarks.race import Row
from fastrnn.benchmarks.tables import Table, markdown

BEGIN, END = "<!-- bench: made by `fastrnn bench readme` -->", "<!-- bench: end -->"


def update(readme: Path, result: dict[str, object]) -> None:
    """Rewrite a README's section from a run. Raises ValueError where it has not the two marks."""
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or not 0 <= text.find(BEGIN) < text.find(END):
        raise ValueError(f"{readme}: expected one {BEGIN} and after it {END}")
    before, rest = text.split(BEGIN)
    after = rest.split(END, 1)[1]
    with storage.replacing(readme) as temporary:
        content = f"{before}{BEGIN}\n{section(result)}\n{END}{after}"
        temporary.write_text(content, encoding="utf-8")


def section(result: dict[str, object]) -> str:
    """How many times as fast as the best peer, shape by cell and direction; one step; texts; the
    rest in a line a race."""
    races = results.by_race(result["rows"])
    parts = []
    if layers := races.pop("layers", None):
        parts.append(_body(_layers(layers)))
        parts.append(f"All rows: {results.summary(layers)}.")
    if steps := races.pop("step", None):
        parts.append("One step of one row, microseconds:")
        parts.append(_body(_steps(steps)))
    if texts := races.pop("text", None):
        parts.append(f"{report.TITLES['text']}; ratios are times of a peer / of fastrnn:")
        parts.append(_body(report.table("text", texts)))
    races.pop("scaling", None)
    if races:
        lines = [f"- {report.TITLES[race]}: {_line(rows)}" for race, rows in races.items()]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, report.where(result)])


def _body(table: Table) -> str:
    """The table alone, without its title."""
    return markdown(table).split("\n\n", 1)[1]


def _layers(rows: list[Row]) -> Table:
    columns = results.group(rows, lambda row: (row["cell"], row["direction"]))
    lines = []
    for shape, some in results.group(rows, lambda row: Case.of(row).shape).items():
        at = {(row["cell"], row["direction"]): row for row in some}
        lines.append([shape, *(_verdict(at[c]) if c in at else "" for c in columns)])
    means = [statistics.geometric_mean(results.best_ratios(some)) for some in columns.values()]
    lines.append(["geometric mean", *(f"{mean:.2f}" for mean in means)])
    head = ["(N,T,D,H)", *(" ".join(column) for column in columns)]
    return Table("", head, lines, [], labels=1)


def _verdict(row: Row) -> str:
    peer, ratio = results.best(row)
    return f"**{ratio:.2f}** {peer}" if ratio < 1 else f"{ratio:.2f} {peer}"


def _steps(rows: list[Row]) -> Table:
    """The lstm's, else the first cell's: a line a size, a column a racer."""
    cells = results.group(rows, lambda row: row["cell"])
    cell, rows = next(iter(cells.items())) if "lstm" not in cells else ("lstm", cells["lstm"])
    lines, racers = {}, {}
    for row in rows:
        for racer, seconds in row["seconds"].items():
            name = f"{SUBJECT} {row['direction']}" if racer == SUBJECT else racer
            racers[name] = None
            lines.setdefault(row["H"], {}).setdefault(name, f"{seconds * 1e6:.1f}")
    # fastrnn's columns stand first, in whichever rows they were found.
    names = sorted(racers, key=lambda name: results.peer_of(name) != SUBJECT)
    body = [[f"{H}", *(line.get(name, "") for name in names)] for H, line in lines.items()]
    return Table("", [f"{cell}, D = H", *names], body, [], labels=1)


def _line(rows: list[Row]) -> str:
    cells = results.group(rows, lambda row: row["cell"])
    return "; ".join(f"{cell} {results.summary(some)}" for cell, some in cells.items())
