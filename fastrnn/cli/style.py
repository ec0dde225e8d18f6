"""fastrnn style."""

from collections.abc import Callable
from functools import partial

import click

from fastrnn.cli.options import FILE, OUTPUT, Command, Option, given
from fastrnn.cli.output import say
from fastrnn.cli.progress import bar
from fastrnn.cli.report import OPEN, show
from fastrnn.optional import require
from fastrnn.storage import is_stdout
from fastrnn.vision.style import programs
from fastrnn.vision.style.optimise import Step
from fastrnn.vision.style.settings import (
    BACKBONES,
    COARSEST,
    CONTENT_LAYERS,
    LEARNING_RATES,
    OPTIMIZERS,
    STYLE_LAYERS,
    Settings,
)

# What a transfer ends with is not found missing after an hour.
PACKAGES = ("PIL", "jinja2", "matplotlib", "torch", "torchvision", "tqdm")


class Numbers(click.ParamType):
    """Numbers between commas, as a tuple."""

    def __init__(self, kind: type) -> None:
        self.kind, self.name = kind, f"{kind.__name__},..."

    def convert(self, value, param, ctx):
        try:
            return tuple(map(self.kind, value.split(",")))
        except ValueError:
            self.fail(f"expected numbers between commas, got {value!r}", param, ctx)


def option(heading: str, name: str, text: str, **attributes):
    """An option under a heading."""
    return click.option(name, cls=Option, heading=heading, help=text, **attributes)


def setting(heading: str, name: str, text: str, **attributes):
    """The option for one of Settings, with its default in the help."""
    flag, default = "--" + name.replace("_", "-"), getattr(Settings, name)
    if isinstance(default, bool):
        attributes["is_flag"] = True
        attributes["default"] = None
    elif default is not None:
        attributes.setdefault("type", type(default))
        text += f" [{default:g}]" if isinstance(default, float) else f" [{default}]"
    return option(heading, flag, text, **attributes)


def _by_backbone(layers: dict[str, tuple[int, ...]]) -> str:
    return "; ".join(f"{name} {','.join(map(str, own))}" for name, own in layers.items())


def _by_optimizer() -> str:
    return ", ".join(f"{name} {rate:g}" for name, rate in LEARNING_RATES.items())


@click.command("style", cls=Command)
@click.argument("content", type=FILE)
@click.argument("styles", metavar="STYLE...", type=FILE, nargs=-1, required=True)
@setting("Picture", "size", "Longer side in pixels.")
@setting("Picture", "keep_colors", "Keep the content's colours: only luminance is transferred.")
@option(
    "Picture",
    "--mask",
    "For each STYLE, in their order: a picture that is white where it belongs.",
    type=FILE,
    multiple=True,
)
@option("Picture", "--init", "Begin with: content, noise or FILE. [content]", metavar="FILE")
@setting("Losses", "content_weight", "Of the content.")
@setting("Losses", "style_weight", "Of the styles.")
@setting("Losses", "tv_weight", "Of the total variation: more is smoother.")
@setting("Losses", "blend", "What each STYLE counts. [the same]", type=Numbers(float))
@setting("Losses", "style_scale", "Longer side of a STYLE over that of the picture.")
@setting("Network", "backbone", "Network that looks.", type=click.Choice(BACKBONES))
@setting("Network", "weights", "A file, default (torchvision downloads them) or none (random).")
@setting(
    "Network",
    "content_layers",
    f"Counted in its features. [{_by_backbone(CONTENT_LAYERS)}]",
    type=Numbers(int),
)
@setting(
    "Network",
    "style_layers",
    f"Counted in its features. [{_by_backbone(STYLE_LAYERS)}]",
    type=Numbers(int),
)
@setting("Network", "layer_weights", "What each counts. [the same]", type=Numbers(float))
@setting("Steps", "steps", "At each scale.")
@setting(
    "Steps",
    "scales",
    f"From coarse to fine, each twice as large as the one before. [from {COARSEST} pixels on]",
    type=int,
)
@setting("Steps", "optimizer", "How a step is made.", type=click.Choice(OPTIMIZERS))
@setting("Steps", "learning_rate", f"Of the first step. [{_by_optimizer()}]", type=float)
@setting("Run", "seed", "Of all that is random.")
@setting("Run", "device", "cpu, cuda, ... [cuda where there is one]")
@setting("Run", "memory", "GB above which activations are computed again rather than kept.")
@click.option("--out", type=OUTPUT, required=True, help="Picture to write, a .png file.")
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
      fastrnn style photo.jpg scream.jpg --keep-colors --style-weight 100 --out scream.png
      fastrnn style photo.jpg sky.jpg city.jpg --mask up.png --mask down.png --out two.png
      fastrnn style photo.jpg monet.jpg --backbone vgg19 --optimizer lbfgs --out water.png
    """
    settings = given(settings)
    try:
        Settings(**settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for package in PACKAGES:
        require(package)
    options = given({"masks": mask or None, "init": init}) | settings
    job = programs.prepare(out, content, styles, resume=resume, **options)
    expected = programs.forecast(job)
    tell = partial(say, err=is_stdout(out))
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
