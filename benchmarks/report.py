"""A run as tables, as JSON, as Markdown and as pictures."""

import math
import platform
from importlib import metadata
from pathlib import Path

from fastrnn import storage
from fastrnn.backends import get_backend
from fastrnn.backends.threads import available_cpus
from fastrnn.benchmarks import charts, results
from fastrnn.benchmarks.cases import OF_MODULES, Case
from fastrnn.benchmarks.peers import PACKAGES, SUBJECT
from fastrnn.benchmarks.process import HELD, UNHELD
from fastrnn.benchmarks.race import Row
from fastrnn.benchmarks.tables import RATIO, Table, markdown, text

TITLES = {
    "layers": "Layers",
    "captioning": "Captioning, one iteration (loss, gradients, adam)",
    "step": "One time step of one row",
    "lengths": "Sequences of different lengths",
    "resets": "States that start anew within sequences",
    "memory": "Memory, the growth of the process at its largest",
    "scaling": "Growing T, N and H",
    "text": "Texts",
    "torch": "PyTorch's layers and those of fastrnn.torch",
    "models": "PyTorch models, and the same converted by fastrnn.torch",
    "cells": "Cells and options beside the plain cells",
}


def result(rows: list[Row], config: dict[str, object]) -> dict[str, object]:
    """What bench.json holds: the rows, what was asked for, and where it ran."""
    packages = {"numpy", *(p for peer in results.peers(rows) for p in PACKAGES[peer])}
    machine = {
        "processor": _processor(),
        "isa": get_backend("cython")._kernels.isas()[0],
        "cpus": available_cpus(),
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in sorted(packages)},
    }
    return {"format": results.FORMAT, "machine": machine, "config": config, "rows": rows}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def where(result: dict[str, object]) -> str:
    """One sentence on the machine and the settings; another on the peers that an instruction set
    does not hold."""
    machine, config = result["machine"], result["config"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = "1 thread" if config["threads"] == 1 else f"{config['threads']} threads"
    text = f"{machine['processor']}, {threads}, {config['isa']}, {config['dtype']}; {versions}."
    names = ", ".join(UNHELD[peer] for peer in unheld(result))
    return f"{text} Not held to {config['isa']}, which nothing can do: {names}." if names else text


def unheld(result: dict[str, object]) -> list[str]:
    """The peers that had more than the instruction set of the run: none where the machine has no
    more."""
    isa = result["config"]["isa"]
    if isa not in HELD or isa == result["machine"].get("isa"):
        return []
    return [peer for peer in results.peers(result["rows"]) if peer in UNHELD]


def tables(rows: list[Row]) -> list[Table]:
    """A table a race: the ratio is the time (or memory) of a peer / of fastrnn."""
    return [table(race, some) for race, some in results.by_race(rows).items()]


def write(out: Path, result: dict[str, object]) -> list[str]:
    """Write bench.json, bench.md and the pictures into a folder; returns the files' names."""
    out.mkdir(parents=True, exist_ok=True)
    storage.write_json(out / "bench.json", result)
    sections = [f"# fastrnn bench\n\n{where(result)}", *map(markdown, tables(result["rows"]))]
    with storage.replacing(out / "bench.md") as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return ["bench.json", "bench.md", *charts.draw(out, result["rows"])]


def as_text(rows: list[Row]) -> str:
    """The tables for a terminal."""
    return "\n\n".join(map(text, tables(rows)))


def table(race: str, rows: list[Row]) -> Table:
    """The table of one race."""
    if race in OF_MODULES:
        return _of_modules(race, rows)
    ratios_of = results.by_racer if race == "cells" else results.by_peer
    racers = list(dict.fromkeys(racer for row in rows for racer in ratios_of(row)))
    of_race = {"memory": _memory, "lengths": _lengths, "text": _text, "cells": _cells}
    figures = of_race.get(race, _times)
    columns = [figures(row) for row in rows]
    lines = []
    for row, column in zip(rows, columns, strict=True):
        name, ratio = results.best(row)
        ratios, case = ratios_of(row), Case.of(row)
        shown = [f"{ratios[racer]:.2f}" if racer in ratios else "" for racer in racers]
        what = _what(case), _work(case)
        lines.append([*what, *column.values(), name, name and f"{ratio:.2f}", *shown])
    work = "work" if race == "text" else "(N,T,D,H)"
    head = ["case", work, *columns[0], "best peer", RATIO, *racers]
    notes = _notes_on_texts(rows) if race == "text" else _notes(rows)
    return Table(TITLES[race], head, lines, notes)


def _of_modules(race: str, rows: list[Row]) -> Table:
    """Both times, of the modules that come with PyTorch and of fastrnn's."""
    lines = []
    for row in rows:
        case, (_, ratio) = Case.of(row), results.best(row)
        seconds = [row["seconds"].get(racer) for racer in ("torch", SUBJECT)]
        times = ["" if s is None else duration(s) for s in seconds]
        shown = "" if math.isnan(ratio) else f"{ratio:.2f}"
        lines.append([_what(case), size(case), *times, shown])
    head = ["case", "(N,T,D,H)", "torch.nn", "fastrnn.torch", RATIO]
    return Table(TITLES[race], head, lines, [*_notes(rows), *notes_on_modules(rows)])


def _what(case: Case) -> str:
    return (case.form and f"{case.form}, ") + f"{case.cell} {case.direction}"


def size(case: Case) -> str:
    """The shape, and the dtype where it is float64."""
    return case.shape + " float64" * (case.dtype == "float64")


def notes_on_modules(rows: list[Row]) -> list[str]:
    """What a call costs beside fastrnn's functions; what a loop takes that one call replaces."""
    notes = []
    for row in rows:
        seconds, what = row["seconds"], f"{row['cell']} {size(Case.of(row))}"
        if (functions := row["ratios"].get(f"{SUBJECT} functions")) is not None:
            cost = duration(seconds[SUBJECT] * (1 - functions))
            notes.append(f"{what}: {cost} more than fastrnn's functions")
        if (loop := seconds.get(f"{SUBJECT} loop")) is not None:
            notes.append(f"{row['form']}: {duration(loop)} by fastrnn.torch without reset=")
    return notes


def _work(case: Case) -> str:
    texts = {
        "training": f"{case.N:,} sentences",
        "fit": f"{case.N:,} sentences",
        "predict": f"a sentence of {case.T} words",
        "load": f"{case.V:,} of {case.N:,} words",
    }
    return texts.get(case.direction, case.shape)


def _notes(rows: list[Row]) -> list[str]:
    cells = results.group(rows, lambda row: row["cell"])
    notes = [f"ratio, {cell}: {results.summary(some)}" for cell, some in cells.items()]
    return notes + [f"ratio, all cells: {results.summary(rows)}"] * (len(cells) > 1)


def _notes_on_texts(rows: list[Row]) -> list[str]:
    """The ratios of every idiom where a peer has several, and the accuracies."""
    notes = []
    for row in rows:
        name = f"{row['cell']} {row['direction']}"
        idioms = {racer: ratio for racer, ratio in row["ratios"].items() if " " in racer}
        if idioms:
            ratios = ", ".join(f"{racer} {ratio:.2f}" for racer, ratio in idioms.items())
            notes.append(f"{name}: {ratios}")
        if "accuracy" in row:
            found = ", ".join(f"{racer} {share:.1%}" for racer, share in row["accuracy"].items())
            notes.append(f"{name}, accuracy on other sentences: {found}")
    return notes


def _times(row: Row) -> dict[str, str]:
    return {
        "time": duration(row["seconds"][SUBJECT]),
        "GFLOP/s": f"{row['gflops']:.1f}",
        "of peak": f"{row['share_of_peak']:.0%}",
    }


def _lengths(row: Row) -> dict[str, str]:
    cost = results.cost_of_lengths(row, Case.of(row).steps)
    return {**_times(row), "step's cost": "" if cost is None else f"{cost:.2f}"}


def _memory(row: Row) -> dict[str, str]:
    return {"MB": f"{row['bytes'][SUBJECT] / 2**20:.0f}"}


def _text(row: Row) -> dict[str, str]:
    seconds = row["seconds"][SUBJECT]
    if row["direction"] == "training":
        return {SUBJECT: f"{row['N'] / seconds:,.0f} sentences/s"}
    return {SUBJECT: duration(seconds)}


def _cells(row: Row) -> dict[str, str]:
    plain, ratio = (row[of].get(f"{SUBJECT} plain") for of in ("seconds", "ratios"))
    times = {"plain": "" if plain is None else duration(plain)}
    times["time"] = duration(row["seconds"][SUBJECT])
    return times | {"cost": "" if ratio is None else f"{1 / ratio:.2f}"}


def duration(seconds: float) -> str:
    """With the unit that suits it."""
    if seconds < 1e-5:
        return f"{seconds * 1e9:.0f} ns"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"
