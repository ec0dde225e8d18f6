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
from fastrnn.vision.transfer import prediction, programs
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
SKIP = click.option(
    "--skip-unreadable", is_flag=True, help="Leave out pictures that cannot be read, and name them."
)
TABLE = click.option(
    "--save-table", type=OUTPUT, help="CSV to write: precision, recall, F1 and support by class."
)


def _cache(context, parameter, value: str | None) -> Path | None:
    if value is None:
        return cache_folder()
    return None if value == "none" else Path(value)


@click.group("transfer")
def command() -> None:
    """Classes for pictures, by a network that was trained on ImageNet and gets a new last layer.

    A labelled folder has a folder of pictures for each class, in which there may be others. Read
    are all formats that Pillow reads, and HEIC with pillow-heif.

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
@TABLE
@OPEN
def train(data, cache, out, resume, save_table, opens, **settings) -> None:
    """Train on DIR/train/CLASS/*, validate on DIR/val/CLASS/* (or DIR/valid, DIR/validation).

    Without DIR/val a share of the pictures is set aside to validate; without either, DIR/CLASS/* is
    what is learnt.

    freeze learns the last layer alone, on features that are computed once and kept; finetune all
    layers, the first ones slowly; staged does freeze, with its own defaults, and then finetune.
    Every epoch is validated; the best one is kept. Writes run.json, model.safetensors,
    metrics.json, report.html, curves.png, confusion.png, predictions.png (errors first),
    predictions.csv, and checkpoints from which --resume continues exactly, also after Ctrl-C or a
    crash; it may change --patience, --workers, --device and --epochs, of which more let a run go on
    that has ended. Brackets show what is the default, and for which modes another value is.

    \b
    Examples:
      fastrnn transfer train photos
      fastrnn transfer train photos --mode finetune --backbone resnet18 --out run
      fastrnn transfer train --resume --out run
    """
    settings = given(settings)
    _check_usage(data, settings, out, resume)
    _check_table(save_table)
    for package in PACKAGES:
        require(package)
    started = time.perf_counter()
    if resume:
        work = programs.resume(out, data, settings, cache, bar, _note)
    else:
        work = programs.begin(out, data, settings, cache, bar, _note)
    with work as job:
        say(job.summary())
        try:
            with closing(TrainingBar()) as progress:
                job.run(progress)
        except KeyboardInterrupt:
            say(f"resume with: fastrnn transfer train --resume --out {job.folder}", err=True)
            raise
        metrics = job.finish()
    _print_table(metrics["val"], save_table)
    before, after = (metrics[name]["accuracy"] for name in ("pretrain", "val"))
    click.echo(
        f"accuracy on val: {before:.4f} on pretrain, {after:.4f} after {job.settings['mode']}"
    )
    seconds = time.perf_counter() - started
    say(f"{job.folder}: done in {seconds:.0f} s, see {PAGE} and predictions.csv")
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
@SKIP
@TABLE
@DEVICE
@OPEN
def evaluate(run, data, name, skip_unreadable, save_table, device, opens) -> None:
    """Accuracy, precision, recall and F1 of a run on DIR/CLASS/*, or where there is a DIR/val or a
    DIR/test, on that one's.

    Adds them to the run's metrics.json and report.html under a name, and writes
    confusion-NAME.png, predictions-NAME.png and predictions-NAME.csv (for val, as train does,
    without the name). The same name replaces them, but never the figures of train.

    \b
    Example:
      fastrnn transfer evaluate run other
    """
    _check_table(save_table)
    options = {"name": name, "device": device, "skip_unreadable": skip_unreadable}
    report = programs.evaluate(run, data, **options, bar=bar, note=_note)
    _print_table(report, save_table)
    if opens:
        show(run / PAGE)


def _note(text: str) -> None:
    say(f"note: {text}", err=True)


def _check_table(path: Path | None) -> None:
    if path is not None:
        check_output(path, "--save-table")


def _print_table(report: dict, path: Path | None) -> None:
    """The figures of a report, and those of all classes into a file."""
    if path is not None:
        columns = ["precision", "recall", "f1", "support"]
        with writing(path, newline="", errors="surrogateescape") as file:
            rows = csv.writer(file)
            rows.writerow(["class", *columns])
            rows.writerows(
                [name, *(figures[column] for column in columns)]
                for name, figures in report["per_class"].items()
            )
    click.echo(report_table(report), err=path is not None and is_stdout(path))


@command.command("predict")
@click.argument("run", type=FOLDER)
@click.argument("pictures", metavar="PICTURES...", type=click.Path(path_type=Path), nargs=-1,
                required=True)  # fmt: skip
@click.option(
    "--out", type=OUTPUT, required=True, help="CSV to write: file,class,probability; -: to stdout."
)
@click.option("--proba", is_flag=True, help="The probabilities of all classes, too.")
@click.option(
    "--top", type=click.IntRange(1), metavar="K", help="The K likeliest, each with its probability."
)
@DEVICE
def predict(run, pictures, out, proba, top, device) -> None:
    """The class of each picture, and its probability: of files, and of all in folders.

    With --proba there is a column for every class, too; with --top K there are K pairs of class and
    probability, class,probability,class_2,probability_2 and so on, the likeliest first. Pictures
    that cannot be read are named and left out; where the work ends early, what was done until then
    is written.

    \b
    Examples:
      fastrnn transfer predict run new --out classes.csv
      fastrnn transfer predict run a.jpg b.heic --top 3 --out -
    """
    if proba and top:
        raise click.UsageError("--proba or --top, not both")
    check_output(out)
    files, others = prediction.find_files(pictures, _note)
    trained = programs.load(run, device)
    predictions = prediction.predict(trained, files, progress=bar("predict", "picture"))
    done, left_out, early = 0, others, None
    with writing(out, newline="", errors="surrogateescape") as file:
        rows = csv.writer(file)
        count = min(top or 1, len(trained.classes))
        rows.writerow(_columns(count) + (trained.classes if proba else []))
        try:
            for name, p, problem in predictions:
                if problem is None:
                    every = [f"{share:.6f}" for share in p] if proba else []
                    rows.writerow([name, *_likeliest(trained.classes, p, count), *every])
                    done += 1
                else:
                    say(f"left out: {name}: cannot be read ({problem})", err=True)
                    left_out += 1
        except (Exception, KeyboardInterrupt) as error:
            if not done or isinstance(error, BrokenPipeError):
                raise
            early = error
    ended = ", ended early" if early else ""
    say(f"{out}: {done} pictures, {left_out} left out{ended}", err=is_stdout(out))
    if early:
        raise early


def _columns(count: int) -> list[str]:
    """The header of so many pairs of class and probability."""
    more = (f"{name}_{i}" for i in range(2, count + 1) for name in ("class", "probability"))
    return ["file", "class", "probability", *more]


def _likeliest(classes: list[str], p, count: int) -> list[str]:
    """Pairs of class and probability, the likeliest first."""
    order = (-p).argsort(kind="stable")[:count].tolist()
    return [cell for c in order for cell in (classes[c], f"{p[c]:.6f}")]
