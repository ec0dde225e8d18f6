"""fastrnn bench."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click

import fastrnn
from fastrnn.backends import get_backend
from fastrnn.benchmarks import cases, guard, page, peers, race, report, results, tables
from fastrnn.cli.options import FILE, FOLDER, Within
from fastrnn.cli.progress import bar
from fastrnn.storage import check_folder


def _some_of(known: Sequence[str]) -> Callable:
    """A comma-separated list of some names."""

    def read(context: click.Context, parameter: click.Parameter, text: str | None):
        names = list(dict.fromkeys(text.split(","))) if text else None
        if names and set(names) - set(known):
            raise click.BadParameter(f"expected some of {','.join(known)}, got {text}")
        return names

    return read


def _shapes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]):
    try:
        shapes = [tuple(int(n) for n in value.split(",")) for value in values]
    except ValueError:
        shapes = [()]
    if any(len(shape) != 4 or min(shape) < 1 for shape in shapes):
        raise click.BadParameter("expected N,T,D,H, for example 25,17,256,512")
    return shapes


def _isa(context: click.Context, parameter: click.Parameter, name: str | None):
    kernels = get_backend("cython")._kernels
    if name and name not in kernels.isas():
        raise click.BadParameter(f"expected one of {', '.join(kernels.isas())}, got {name}")
    return name or kernels.current_isa()


def _runnable() -> list[str]:
    """Without PyTorch there are no modules to race."""
    without = cases.OF_MODULES if peers.missing(peers.REFERENCE_OF_MODULES) else ()
    return [name for name in cases.RACES if name not in without]


@click.group("bench", invoke_without_command=True)
@click.option(
    "--cells",
    default=",".join(cases.CELLS),
    show_default=True,
    callback=_some_of(cases.CELLS),
    help="Comma-separated. The race text has its own.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    callback=_shapes,
    metavar="N,T,D,H",
    help="Instead of the standard ones; may be repeated. Then only layers are raced by default.",
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32")
@click.option(
    "--isa",
    callback=_isa,
    help="baseline, avx2, to which peers are held where they can be, or avx512. "
    "Default: FASTRNN_ISA, else the best here.",
)
@click.option("--threads", type=click.IntRange(1), help="A peer's. Default: the CPUs at hand.")
@click.option(
    "--peers",
    "chosen_peers",
    callback=_some_of(peers.OTHERS),
    help=f"Some of {','.join(peers.OTHERS)}. Default: those that are installed.",
)
@click.option(
    "--races",
    callback=_some_of(tuple(cases.RACES)),
    help=f"Some of {','.join(cases.RACES)}. Default: all; without PyTorch not "
    f"{','.join(cases.OF_MODULES)}.",
)
@click.option("--rounds", type=click.IntRange(1), help="Default: 5, and 1 with --quick.")
@click.option("--quick", is_flag=True, help="A few minutes: a look, not a measurement.")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("bench-results"),
    show_default=True,
    help="Folder for bench.json, bench.md and the pictures.",
)
@click.pass_context
def command(
    context, cells, shapes, dtype, isa, threads, chosen_peers, races, rounds, quick, out
) -> None:
    """Race fastrnn against other libraries on this machine.

    Every peer runs in its own process, the way its users write it, and is timed only after its
    results have matched; the peers take turns, and medians of the rounds are shown, with the share
    of the multiply-add peak that is measured in the same rounds.

    \b
    Examples:
      fastrnn bench
      fastrnn bench --cells lstm --shape 25,17,256,512 --peers torch --threads 1
      fastrnn bench compare old/bench.json new/bench.json
    """
    if context.invoked_subcommand:
        return
    if chosen_peers is None:
        chosen_peers = [peer for peer in peers.OTHERS if not peers.missing(peer)]
    check_folder(out)
    races = races or (["layers"] if shapes else _runnable())
    needed = [peers.REFERENCE_OF_MODULES] if set(races) & set(cases.OF_MODULES) else []
    peers.check_installed([*chosen_peers, *needed])
    threads, rounds = threads or fastrnn.get_num_threads(), rounds or (1 if quick else 5)
    rows = race.race(
        cases.choose(races, cases.Choice(cells, dtype, shapes, quick)),
        chosen_peers,
        threads=threads,
        isa=isa,
        rounds=rounds,
        seconds=0.03 if quick else 0.2,
        progress=bar("bench", "case"),
    )
    config = {"threads": threads, "isa": isa, "dtype": dtype, "rounds": rounds, "quick": quick}
    click.echo(report.as_text(rows))
    click.echo(f"\n{out}: {', '.join(report.write(out, report.result(rows, config)))}")


@command.command("compare")
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@click.option("--tolerance", type=Within(0, 1), default=0.15, show_default=True)
def compare(old: Path, new: Path, tolerance: float) -> None:
    """Fail where fastrnn has become slower between two runs.

    A row has where its ratio to every peer that both runs have fell by more than the tolerance; a
    slower machine changes no ratio. Exit code 1 where there is such a row.
    """
    verdicts = guard.compare(results.read(old), results.read(new))
    slower = guard.slower(verdicts, tolerance)
    if slower:
        click.echo(tables.text(guard.table(slower)))
    click.echo(f"{len(slower)} of {len(verdicts)} rows are slower by more than {tolerance:.0%}")
    if slower:
        raise SystemExit(1)


@command.command("page")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=FILE)
@click.argument("path", metavar="PAGE", type=FILE)
def update_page(runs: tuple[Path, ...], path: Path) -> None:
    """Rewrite the tables of a page, docs/benchmarks.md, from the bench.json of runs, one an
    instruction set."""
    page.update(path, map(results.read, runs))
