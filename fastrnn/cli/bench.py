"""fastrnn bench."""

from pathlib import Path

import click

import fastrnn
from fastrnn.backends import get_backend
from fastrnn.captioning.model import CELLS
from fastrnn.cli.progress import bar


def _shape(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]):
    try:
        shapes = [tuple(int(n) for n in value.split(",")) for value in values]
    except ValueError:
        shapes = [()]
    if any(len(shape) != 4 or min(shape) < 1 for shape in shapes):
        raise click.BadParameter("expected N,T,D,H, for example 25,17,256,512")
    return shapes


@click.command("bench")
@click.option("--cells", default=",".join(CELLS), show_default=True, help="Comma-separated.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    callback=_shape,
    metavar="N,T,D,H",
    help="Instead of the standard ones; may be repeated.",
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32")
@click.option("--isa", default="best", show_default=True, help="baseline, avx2 or avx512.")
@click.option("--threads", type=click.IntRange(1), help="Default: the CPUs at hand.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--quick", is_flag=True, help="One short round: a look, not a measurement.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-results"),
    show_default=True,
    help="Folder for bench.json and bench.png.",
)
def command(cells, shapes, dtype, isa, threads, rounds, quick, out) -> None:
    """Race the backends on this machine: layers forward and backward, and captioning iterations.

    Each backend runs in its own process and is timed only after its results have matched; the two
    take turns, and medians of the rounds are shown, with the share of the multiply-add peak that is
    measured in the same rounds.

    \b
    Examples:
      fastrnn bench
      fastrnn bench --cells lstm --shape 25,17,256,512 --threads 1
    """
    from fastrnn.benchmarks import cases, race, report

    names = cells.split(",")
    unknown = set(names) - set(CELLS)
    if unknown:
        raise click.BadParameter(f"expected some of {','.join(CELLS)}, got {cells}")
    known = ["best", *get_backend("cython")._kernels.isas()]
    if isa not in known:
        raise click.BadParameter(f"expected one of {', '.join(known)}, got {isa}")
    chosen = cases.layer_cases(names, shapes or cases.SHAPES, dtype)
    if not shapes:
        chosen += cases.captioning_cases(names, dtype)
    threads = threads or fastrnn.get_num_threads()
    rows = race.race(
        chosen,
        threads=threads,
        isa=isa,
        rounds=1 if quick else rounds,
        seconds=0.05 if quick else 0.2,
        progress=bar("bench", "case"),
    )
    click.echo(report.table(rows))
    for row in rows:
        if row["kind"] == "captioning":
            rates = {peer: 1 / seconds for peer, seconds in row["seconds"].items()}
            shown = ", ".join(f"{peer} {rate:.1f}" for peer, rate in rates.items())
            click.echo(f"{row['cell']} captioning iterations a second: {shown}")
    report.write(out, rows, {"threads": threads, "isa": isa, "rounds": rounds, "quick": quick})
    click.echo(f"{out}: bench.json, bench.png")
