"""fastrnn transfer train | evaluate | predict."""

import csv
import time
from contextlib import closing
from pathlib import Path

import click

from fastrnn.cli.options import FOLDER, OUTPUT, Command, check_output, given, options_of, usage
from fastrnn.cli.output import say
from fastrnn.cli.progress import TrainingBar, bar
from fastrnn.cli.report import OPEN, show
from fastrnn.metrics import report_table
from fastrnn.optional import require
from fastrnn.report import PAGE
from fastrnn.storage import is_stdout, writing
from fastrnn.vision.transfer import programs
from fastrnn.vision.transfer.features import cache_folder
from fastrnn.vision.transfer.settings import SETTINGS, complete

# What a run ends with is not found missing after an hour of training.
PACKAGES = ("torch", "torchvision", "PIL", "jinja2", "matplotlib", "safetensors", "sklearn", "tqdm")
DEVICE = click.option(
    "--device",
    type=click.Choice(SETTINGS["device"].kind.values),
    default=SETTINGS["device"].default,
    show_default=True,
)


def _cache(context, parameter, value: str | None) -> Path | None:
    if value is None:
        return cache_folder()
    return None if value == "none" else Path(value)


@click.group("transfer")
def command() -> None:
    """Classes for pictures, by a network that was trained on ImageNet and gets a new last layer.

    A labelled folder has a folder of pictures for each class.

    \b
    Examples:
      fastrnn transfer train photos --out run       photos/train/CLASS/*, photos/val/CLASS/*
      fastrnn transfer evaluate run other
      fastrnn transfer predict run new --out classes.csv
    """


@command.command("train", cls=Command)
@click.argument("data", metavar="DIR", type=FOLDER, required=False)
@options_of(SETTINGS)
@click.option(
    "--cache",
    metavar="DIR|none",
    callback=_cache,
    help="Folder that keeps features of pictures. [fastrnn/features in the user's cache]",
)
@click.option("--out", type=FOLDER, help="Folder of the run. [a new one in runs/]")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@OPEN
def train(data, cache, out, resume, opens, **settings) -> None:
    """Train on DIR/train/CLASS/*, validate on DIR/val/CLASS/*.

    freeze learns the last layer alone, on features that are computed once and kept; finetune all
    layers, the first ones slowly; staged does freeze, with its own defaults, and then finetune.
    Every epoch is validated; the best one is kept. Writes run.json, model.safetensors,
    metrics.json, report.html, curves.png, confusion.png, predictions.png (errors first), and
    checkpoints from which --resume continues exactly, also after Ctrl-C or a crash; it may change
    --patience, --workers and --device. Brackets show what is the default, and for which modes
    another value is.

    \b
    Examples:
      fastrnn transfer train photos
      fastrnn transfer train photos --mode finetune --backbone resnet18 --out run
      fastrnn transfer train --resume --out run
    """
    settings = given(settings)
    _check_usage(data, settings, out, resume)
    for package in PACKAGES:
        require(package)
    started = time.perf_counter()
    if resume:
        work = programs.resume(out, data, settings, cache, bar)
    else:
        work = programs.begin(out, data, settings, cache, bar)
    with work as job:
        say(job.summary())
        try:
            with closing(TrainingBar()) as progress:
                job.run(progress)
        except KeyboardInterrupt:
            say(f"resume with: fastrnn transfer train --resume --out {job.folder}", err=True)
            raise
        metrics = job.finish()
    click.echo(report_table(metrics["val"]))
    before, after = (metrics[name]["accuracy"] for name in ("pretrain", "val"))
    click.echo(
        f"accuracy on val: {before:.4f} on pretrain, {after:.4f} after {job.settings['mode']}"
    )
    seconds = time.perf_counter() - started
    say(f"{job.folder}: done in {seconds:.0f} s, see {PAGE}")
    if opens:
        show(job.folder / PAGE)


def _check_usage(data: Path | None, settings: dict, out: Path | None, resume: bool) -> None:
    if resume and out is None:
        raise click.UsageError("--resume needs --out")
    if data is None and not resume:
        raise click.UsageError("Missing argument 'DIR'.")
    with usage():
        complete(settings)


@command.command("evaluate")
@click.argument("run", type=FOLDER)
@click.argument("data", metavar="DIR", type=FOLDER)
@click.option("--name", help="Of the figures and pictures (default: the folder's).")
@DEVICE
@OPEN
def evaluate(run, data, name, device, opens) -> None:
    """Accuracy, precision, recall and F1 of a run on DIR/CLASS/*, or where there is a DIR/val, on
    DIR/val/CLASS/*.

    Adds them to the run's metrics.json and report.html under a name, and draws confusion-NAME.png
    and predictions-NAME.png (for val, as train does, without the name). The same name replaces
    them, but never the figures of train.

    \b
    Example:
      fastrnn transfer evaluate run other
    """
    click.echo(report_table(programs.evaluate(run, data, name=name, device=device, bar=bar)))
    if opens:
        show(run / PAGE)


@command.command("predict")
@click.argument("run", type=FOLDER)
@click.argument("folder", type=FOLDER)
@click.option(
    "--out", type=OUTPUT, required=True, help="CSV to write: file,class,probability; -: to stdout."
)
@DEVICE
def predict(run, folder, out, device) -> None:
    """The class of each picture in a folder, and its probability.

    Pictures that cannot be read are named and left out.

    \b
    Example:
      fastrnn transfer predict run new --out classes.csv
    """
    check_output(out)
    predictions = programs.predict(
        programs.load(run, device), folder, progress=bar("predict", "picture")
    )
    done = left_out = 0
    with writing(out, newline="", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "class", "probability"])
        for name, label, probability, problem in predictions:
            if problem is None:
                rows.writerow([name, label, f"{probability:.6f}"])
                done += 1
            else:
                say(f"left out: {name}: cannot be read ({problem})", err=True)
                left_out += 1
    say(f"{out}: {done} pictures, {left_out} left out", err=is_stdout(out))
