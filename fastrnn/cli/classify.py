"""fastrnn classify train | evaluate | predict | explain."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import click

from fastrnn.cli.options import (
    FILE,
    FOLDER,
    OUTPUT,
    Command,
    Option,
    Within,
    check_output,
    given,
    options_of,
    usage,
)
from fastrnn.cli.output import say
from fastrnn.cli.progress import TrainingBar, bar, file_bar
from fastrnn.cli.report import OPEN, show
from fastrnn.metrics import report_table
from fastrnn.optional import require
from fastrnn.printing import printable
from fastrnn.report import PAGE
from fastrnn.storage import writing
from fastrnn.text import prediction, programs
from fastrnn.text.corpus import ERRORS, NLTK_CORPORA, decoder_of
from fastrnn.text.detection import AUTO
from fastrnn.text.explanation import as_text
from fastrnn.text.formats import LABELLED, LINES
from fastrnn.text.model import TextModel
from fastrnn.text.networks import RECURRENT
from fastrnn.text.report import explained, write_explained
from fastrnn.text.settings import SETTINGS, complete

# The parameters that reading() makes, and --unseen.
READING = ("file_format", "text_column", "label_column", "encoding", "errors", "unseen")
# What a run ends with is not found missing after an hour of training.
PACKAGES = ("jinja2", "matplotlib", "safetensors", "sklearn", "tqdm")


def data(*names: str, **attributes):
    """An option that says what to read."""
    return click.option(*names, cls=Option, heading="Data", **attributes)


def _encoding(context, parameter, value):
    """The name of an encoding that there is."""
    try:
        decoder_of(value or "utf-8")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def reading(kinds: Sequence[str]) -> Callable:
    """The options that say how a file is read, as text.corpus.read_rows takes them."""
    options = (
        data(
            "--format",
            "file_format",
            type=click.Choice([AUTO, *kinds]),
            help="Of the file: label and words, fastText's, a table, objects of JSON; auto says "
            "what it took. [auto]",
        ),
        data("--text-column", help="Its name or number, of a table or of objects. [a usual name]"),
        data("--label-column", help="Likewise."),
        data("--encoding", help="Of the file. [utf-8]", callback=_encoding),
        data("--errors", type=click.Choice(ERRORS), help="replace: U+FFFD for bad bytes. [strict]"),
    )

    def add(function: Callable) -> Callable:
        for option in reversed(options):
            function = option(function)
        return function

    return add


UNSEEN = data("--unseen", is_flag=True, default=None, help="Take labels that the model has not.")


def _weights(context, parameter, values):
    """LABEL=X, LABEL=X, ... as a dict; "balanced" as it is."""
    if not values:
        return None
    if values == ("balanced",):
        return "balanced"
    try:
        pairs = (value.rpartition("=") for value in values)
        weights = {label: float(weight) for label, _, weight in pairs}
    except ValueError:
        raise click.BadParameter("expected balanced, or LABEL=X once or more") from None
    for label, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise click.BadParameter(f"{label}: expected a number of at least 0, got {weight}")
    return weights


@click.group("classify")
def command() -> None:
    """Classes for texts, by a bag of words, averaged word vectors, or a recurrent network.

    A labelled file has an example a line: a label, then the text; or it is a file of fastText, TSV,
    CSV or JSON objects. White space separates tokens; a blank line is left out, and counted.

    \b
    Examples:
      fastrnn classify train                                 on made-up reviews
      fastrnn classify train train.txt --dev dev.txt --embeddings glove.zip --out run
      fastrnn classify evaluate run test.txt
      fastrnn classify predict run new.txt --out labels.txt
    """


@command.command("train", cls=Command)
@click.argument("train", type=FILE, required=False)
@data("--dev", help="Labelled file to validate on. [a tenth of TRAIN]", type=FILE)
@data("--unlabelled", help="File of texts whose language is learnt first.", type=FILE)
@data(
    "--corpus",
    help=f"In place of TRAIN: reviews, made up by the program, or one of nltk's, nltk:NAME with a "
    f"NAME of {', '.join(NLTK_CORPORA)}. [reviews]",
    type=click.Choice(["reviews", *(f"nltk:{name}" for name in NLTK_CORPORA)]),
    metavar="CORPUS",
)
@UNSEEN
@reading(LABELLED)
@options_of(
    SETTINGS,
    pooling={"metavar": "KIND"},
    class_weight={"metavar": "LABEL=X", "multiple": True, "callback": _weights},
)
@click.option(
    "--embeddings-member",
    cls=Option,
    heading="Model",
    help="Which of the files in the archive, a name. [the only one]",
)
@click.option("--out", type=FOLDER, help="Folder of the run. [a new one in runs/]")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@OPEN
def train(train, dev, unlabelled, corpus, out, resume, opens, **settings) -> None:
    """Train a classifier on a labelled file, or without TRAIN on made-up reviews.

    Every epoch is validated; the best one is kept. Writes run.json, the model (classifier.json,
    classifier-*.safetensors), metrics.json, report.html, curves.png, confusion.png,
    reliability.png, what was made up or came from nltk as data/train.txt and data/dev.txt, and
    checkpoints from which --resume continues exactly, also after Ctrl-C or a crash; it may change
    --epochs, --patience and --backend. Brackets show what is the default, and for which models
    another value is.

    \b
    Examples:
      fastrnn classify train --model gru --hidden-dim 64
      fastrnn classify train train.txt --dev dev.txt --class-weight balanced --out run
      fastrnn classify train few.txt --unlabelled many.txt --out run
      fastrnn classify train --corpus nltk:sentence_polarity
      fastrnn classify train --resume --out run --epochs 20
    """
    files = {"train": train, "dev": dev, "unlabelled": unlabelled, "corpus": corpus}
    files = given(files | {name: settings.pop(name) for name in READING})
    settings = given(settings)
    if member := settings.pop("embeddings_member", None):
        if "embeddings" not in settings:
            raise click.UsageError("--embeddings-member is of an archive: it needs --embeddings")
        settings["embeddings"] /= member
    _check_usage(files, settings, out, resume)
    for package in PACKAGES:
        require(package)
    started = time.perf_counter()
    if resume:
        work = programs.resume(out, settings | files, file_bar)
    else:
        work = programs.begin(out, settings, file_bar, **files)
    with work as job:
        if job.told:
            say("; ".join(job.told), err=True)
        say(job.summary())
        try:
            with closing(TrainingBar()) as progress:
                model = job.training.run(progress)
        except KeyboardInterrupt:
            say(f"resume with: fastrnn classify train --resume --out {job.folder}", err=True)
            raise
        _print_results(job.finish(model), model.settings["model"])
    seconds = time.perf_counter() - started
    say(f"{job.folder}: done in {seconds:.0f} s, see {PAGE}")
    if opens:
        show(job.folder / PAGE)


def _check_usage(files: dict, settings: dict, out: Path | None, resume: bool) -> None:
    if resume and out is None:
        raise click.UsageError("--resume needs --out")
    if "-" in (str(files.get(name)) for name in programs.FILES):
        raise click.UsageError(
            "TRAIN, --dev and --unlabelled are files, which --resume reads again; got -"
        )
    if {"train", "corpus"} <= files.keys():
        raise click.UsageError("TRAIN or --corpus, not both")
    if "train" not in files and files.keys() - {"corpus"} and not resume:
        raise click.UsageError("--dev, --format, --encoding and the like need TRAIN")
    with usage():
        model = complete(settings)["model"]
    if "unlabelled" in files and model not in RECURRENT:
        raise click.UsageError(f"--unlabelled needs a recurrent --model, got {model}")


def _print_results(metrics: dict[str, dict], model: str) -> None:
    click.echo(report_table(metrics["dev"]))
    if fitted := metrics.get("calibration"):
        click.echo(
            "temperature {temperature:.3f}: ECE {ece_before:.4f}, now {ece_after:.4f}".format_map(
                fitted
            )
        )
    if fitted := metrics.get("quantization"):
        before, after = (_size(fitted[f"bytes_{when}"]) for when in ("before", "after"))
        change = "accuracy {accuracy_before:.4f}, now {accuracy_after:.4f}".format_map(fitted)
        click.echo(f"int8: {change}; weights {before}, now {after}")
    click.echo(f"the model's files: {_size(metrics['training']['model_bytes'])}")
    if (bow := metrics["training"].get("bow_dev_accuracy")) is not None:
        click.echo(
            f"{model} {metrics['dev']['accuracy']:.4f}, a bag of words, which does not know their "
            f"order, {bow:.4f}"
        )


@command.command("evaluate")
@click.argument("run", type=FOLDER)
@click.argument("test", type=FILE)
@click.option("--name", help="Of the figures and pictures (default: the file's).")
@UNSEEN
@reading(LABELLED)
@OPEN
def evaluate(run, test, name, opens, **options) -> None:
    """Accuracy, precision, recall and F1 of a run on a labelled file.

    Adds them to the run's metrics.json and report.html under a name, and draws confusion-NAME.png
    and reliability-NAME.png. The same name replaces them, but never the figures of train: those of
    another dev.txt are called dev.txt.

    \b
    Example:
      fastrnn classify evaluate run test.txt
    """
    tell = partial(say, err=True)
    asked = {"name": name, "tell": tell} | given(options)
    click.echo(report_table(programs.evaluate(run, test, **asked)))
    if opens:
        show(run / PAGE)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


@command.command("explain")
@click.argument("run", type=FOLDER)
@click.argument(
    "file", metavar="[FILE|-]", type=click.Path(dir_okay=False, allow_dash=True), required=False
)
@click.option("--label", help="The class to explain (default: each text's likeliest).")
@click.option("--top", type=click.IntRange(1), default=8, show_default=True, help="Words to name.")
@click.option(
    "--count",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Errors to explain, without FILE.",
)
@click.option("--html", type=FILE, help="Page to write with the texts in colour.")
@reading((*LABELLED, LINES))
def explain(run, file, label, top, count, html, **options) -> None:
    """The words that moved the predictions for a file's texts, which it reads as predict does.

    A word's figure is what the class's probability loses when the word is left out. Without FILE it
    is the errors of the run on what it validated on, the worst first. --html writes a page that
    loads nothing.

    \b
    Examples:
      fastrnn classify explain run --html errors.html
      echo "not bad at all" | fastrnn classify explain run -
    """
    if html:
        check_output(html, "--html")
    classes, cards = [*map(str, TextModel.load(run).classes)], []
    asked = {"label": label, "count": count, "tell": partial(say, err=True)} | given(options)
    asked["watch"] = bar("explain", "batch", delay=1, leave=False)  # of long texts alone
    for said, c, truth in programs.explain(run, file, **asked):
        note = f" (true: {truth})" if truth else ""
        click.echo(as_text(said, classes[c], c, top, printable(note)))
        if html:
            cards.append(explained(said, classes[c], c, truth))
    if html:
        write_explained(html, f"fastrnn classify explain {run}", cards)
        say(f"{html}: {len(cards)} texts in colour", err=True)


@command.command("predict")
@click.argument("run", type=FOLDER)
@click.argument("file", metavar="FILE|-", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--out", type=OUTPUT, help="File to write, in UTF-8 (default, and -: stdout).")
@click.option("--proba", is_flag=True, help="The probabilities of all classes, too.")
@click.option(
    "--top", type=click.IntRange(1), metavar="K", help="The K likeliest, each with its probability."
)
@click.option("--threshold", type=Within(0, 1), help="Name no label that is less likely.")
@click.option("--line-buffered", is_flag=True, help="Answer every line at once.")
@reading((*LABELLED, LINES))
def predict(run, file, out, line_buffered, proba, top, threshold, **options) -> None:
    """The class of each line of a file, or with - of the standard input.

    One label a line, as many lines and in the same order as the input; a line without words has a
    class, too. With --proba a line is the label and, after tabs, the probability of every class,
    and the first line has the columns' names.

    A file is a text a line (--format lines), unless auto finds labels of the run before the texts,
    or a table or objects with a usual name for texts, or these are asked for: then labels are no
    words, and a row of the table is a line.

    With --top a line is K times a label and its probability, between tabs. Of a run whose texts may
    have several labels a line is all that reach their thresholds, or --threshold, between |, and
    may be empty; of other runs it is empty where no label reaches --threshold.

    Input of any length is classified some thousand lines at a time, so that a slow source waits for
    its answers; --line-buffered, and a terminal, get each at once.

    \b
    Examples:
      fastrnn classify predict run new.txt --proba --out labels.tsv
      tail -f log | fastrnn classify predict run - --line-buffered
    """
    if proba and top:
        raise click.UsageError("--proba or --top, not both")
    if out:
        check_output(out)
    model = TextModel.load(run)
    at_once = line_buffered or (file == "-" and sys.stdin.isatty())
    chunk = 0 if at_once else prediction.CHUNK
    tell, answer = partial(say, err=True), {"proba": proba, "top": top or 0, "threshold": threshold}
    texts = prediction.predict(model, file, **answer, chunk=chunk, tell=tell, **given(options))
    if out:
        with writing(out, newline="\n") as file:
            file.writelines(texts)
    else:
        for text in texts:
            click.echo(text, nl=False)  # flushes
