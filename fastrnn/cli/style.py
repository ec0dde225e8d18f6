"""fastrnn style."""

from collections.abc import Callable
from functools import partial

import click

from fastrnn.cli.options import FILE, OUTPUT, Command, Option, given, options_of, usage
from fastrnn.cli.output import say
from fastrnn.cli.progress import bar
from fastrnn.cli.report import OPEN, show
from fastrnn.optional import require
from fastrnn.storage import is_stdout
from fastrnn.vision.style import programs
from fastrnn.vision.style.optimise import Step
from fastrnn.vision.style.settings import SETTINGS, Settings

# What a transfer ends with is not found missing after an hour.
PACKAGES = ("PIL", "jinja2", "matplotlib", "torch", "torchvision", "tqdm")


@click.command("style", cls=Command)
@click.argument("content", type=FILE)
@click.argument("styles", metavar="STYLE...", type=FILE, nargs=-1, required=True)
@options_of(SETTINGS)
@click.option(
    "--mask",
    cls=Option,
    heading="Picture",
    help="For each STYLE, in their order: a picture that is white where it belongs.",
    type=FILE,
    multiple=True,
)
@click.option(
    "--init",
    cls=Option,
    heading="Picture",
    help="Begin with: content, noise or FILE. [content]",
    metavar="FILE",
)
@click.option("--out", type=OUTPUT, required=True, help="Picture to write, .png, .jpg, ...")
@click.option(
    "--save-every",
    type=click.IntRange(0),
    default=0,
    help="Steps between pictures, and checkpoints, on the way. [0: none]",
)
@click.option("--resume", is_flag=True, help="Continue what was stopped, with the same options.")
@OPEN
def command(content, styles, mask, init, out, save_every, resume, opens, **settings) -> None:
    """CONTENT, painted in the style of STYLE, or of several.

    Writes the picture and, beside F.png, F-report.html and the losses as F-losses.png. Weights mean
    the same at every size. Ctrl-C leaves F-checkpoint.pt, from which --resume continues exactly.

    \b
    Examples:
      fastrnn style photo.jpg starry_night.jpg --out stars.png
      fastrnn style photo.jpg scream.jpg --keep-colors --style-weight 200 --out scream.png
      fastrnn style photo.jpg sky.jpg city.jpg --mask up.png --mask down.png --out two.png
      fastrnn style photo.jpg monet.jpg --backbone vgg19 --style-layers relu1_1,relu2_1 --out w.png
    """
    settings = given(settings)
    with usage():
        Settings(**settings)
    for package in PACKAGES:
        require(package)
    options = given({"masks": mask or None, "init": init}) | settings
    job = programs.prepare(out, content, styles, resume=resume, **options)
    expected = programs.forecast(job)
    tell = partial(say, err=is_stdout(out))
    for line in job.transfer.notes:
        tell(line)
    tell(f"{_summary(job)}; expected: {_time(expected.seconds)}, {_memory(expected.bytes)}")
    if expected.bytes > 1e9 * job.transfer.settings.memory:
        click.echo(
            f"that is more than --memory {job.transfer.settings.memory:g}, and as little as this "
            "--size can do with",
            err=True,
        )
    before = job.transfer.pixels(job.done)
    try:
        with bar("style", "kpx")(range((job.transfer.pixels() - before) // 1000)) as shown:
            took = programs.finish(
                job, save_every=save_every, on_step=partial(_show, shown, before)
            )
    except KeyboardInterrupt:
        click.echo("resume with the same command and --resume", err=True)
        raise
    page = programs.beside(out, "report", ".html")
    tell(
        f"{out}: done in {_compared(_time, took.seconds, expected.seconds)}, "
        f"{_compared(_memory, took.bytes, expected.bytes)}, see {page}"
    )
    if opens:
        show(page)


def _summary(job: programs.Job) -> str:
    transfer, s = job.transfer, job.transfer.settings
    sizes = ", ".join(f"{width} x {height}" for width, height in transfer.sizes)
    parts = [f"{job.out}: {s.backbone}", f"{s.steps} steps of {s.optimizer} at each of {sizes}"]
    if job.done:
        parts.append(f"{job.done} of them done")
    if (n := len(transfer.segments[-1])) > 1:
        parts.append(f"{n} parts of the network computed twice")
    return ", ".join(parts)


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _memory(n: float) -> str:
    return f"{n / 1e9:.1f} GB"


def _compared(form: Callable[[float], str], actual: float | None, expected: float) -> str:
    if actual is None:  # nobody measured it
        return form(expected)
    return f"{form(actual)} (expected {form(expected)})"


def _show(shown, before: int, step: Step) -> None:
    """Move the bar by pixels, of which later steps have more; before: those of earlier runs."""
    loss = sum(step.losses.values())
    shown.set_postfix({"step": f"{step.number}/{step.total}", "loss": f"{loss:.3g}"}, refresh=False)
    shown.update((step.pixels - before) // 1000 - shown.n)
