"""fastrnn caption prepare | train | evaluate | sample."""

import csv
import time
from contextlib import closing
from pathlib import Path

import click

from fastrnn.captioning import evaluation, programs
from fastrnn.captioning.settings import PREPARE, SETTINGS, complete
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
from fastrnn.cli.progress import TrainingBar, bar
from fastrnn.cli.report import OPEN, show
from fastrnn.report import PAGE
from fastrnn.settings import completed
from fastrnn.storage import is_stdout, writing

SEVERAL = click.option(
    "--with",
    "others",
    type=FOLDER,
    multiple=True,
    help="Another run, to say captions together with; may be given several times.",
)
LENGTH_PENALTY = click.option(
    "--length-penalty",
    default=1.0,
    show_default=True,
    help="Power of the length that a beam's log-probabilities are divided by.",
)
CONSENSUS = click.option(
    "--consensus",
    type=Within(0),
    default=0.0,
    show_default=True,
    help="Weight of the captions of the nearest training pictures in the choice of a beam's.",
)
REMINDERS = click.option(
    "--reminders",
    type=Within(0),
    default=0.0,
    show_default=True,
    help="Weight of the same in that of words: the more, the more different ones.",
)
DIVERSE_GROUPS = click.option(
    "--diverse-groups",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Groups of a beam, each kept from saying what those before it say.",
)
DIVERSITY = click.option(
    "--diversity",
    type=Within(0),
    default=0.5,
    show_default=True,
    help="How much a word loses for each that says it, in log-probability.",
)
UNK = click.option("--unk/--no-unk", default=False, show_default=True, help="Whether to say <UNK>.")
BLOCK_NGRAMS = click.option(
    "--block-ngrams",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Say no so many words in a row twice in a caption; 0: any.",
)
BACKEND = click.option(
    "--backend", type=click.Choice(["cython", "numpy"]), help="Implementation (default: cython)."
)


@click.group("caption")
def command() -> None:
    """Captions for pictures.

    \b
    Examples:
      fastrnn caption train                                  on made-up scenes
      fastrnn caption prepare --images photos --captions photos.csv --out data
      fastrnn caption train data --cell lstm --out run
      fastrnn caption evaluate run --beam 5
      fastrnn caption evaluate run --beam 5 --with run2 --with run3
      fastrnn caption sample run --images new --out new.csv
    """


@command.command("prepare", cls=Command)
@click.option("--images", type=FOLDER, required=True, help="Folder of pictures.")
@click.option(
    "--captions",
    type=FILE,
    required=True,
    help="CSV or TSV with the columns image,caption, perhaps split; COCO's captions JSON; "
    "Karpathy's dataset JSON; Flickr8k.token.txt; Flickr30k's results.csv.",
)
@click.option("--out", type=FOLDER, required=True, help="Data folder to write.")
@options_of(PREPARE)
@click.option(
    "--grid",
    type=click.IntRange(0),
    default=0,
    cls=Option,
    heading="Features",
    help="Components of a grid of places to keep, too, for attention. [0: none]",
)
@click.option(
    "--views",
    type=click.IntRange(0),
    default=0,
    cls=Option,
    heading="Features",
    help="Crops and mirrors of a training picture to keep, too, to learn from. [0: none]",
)
def prepare(images, captions, out, grid, views, **settings) -> None:
    """Turn a folder of pictures and their captions into a data set.

    A picture that cannot be read, a caption without a picture or without words and a picture
    without captions are named, counted and left out; half of the pictures lost is an error. Where
    it was stopped, also by a kill, the same command goes on.

    \b
    Example:
      fastrnn caption prepare --images photos --captions captions.csv --out data --pca 512
    """
    from fastrnn.captioning.partial import ROWS
    from fastrnn.captioning.prepare import MOST_WORDS, prepare
    from fastrnn.captioning.views import add_grids, add_views

    with usage():
        settings = completed(given(settings), PREPARE)
    for name, wanted in (("--grid", grid), ("--views", views)):
        if wanted and settings["split"] in ("val", "test"):
            reason = (
                f"expected none with --split {settings['split']}: they are of training pictures"
            )
            raise click.BadParameter(reason, param_hint=name)
    try:
        shown = bar("features", "image")
        report = prepare(images, captions, out, progress=shown, note=say, **settings)
    except KeyboardInterrupt:
        if (out / ROWS).exists():
            say("the same command goes on from here", err=True)
        raise
    for problem in report.problems[:20]:
        say(f"left out: {problem}", err=True)
    if len(report.problems) > 20:
        say(f"left out: {len(report.problems) - 20} more", err=True)
    if report.cut:
        say(f"{report.cut} validation and test captions cut to {MOST_WORDS} words", err=True)
    splits = [
        (report.train_images, report.train_captions),
        (report.val_images, report.val_captions),
        *([(report.test_images, report.test_captions)] if report.test_images else []),
    ]
    pictures, texts = (" + ".join(map(str, counts)) for counts in zip(*splits, strict=True))
    say(
        f"{out}: {pictures} pictures, {texts} captions, {report.vocabulary} words, "
        f"{report.features} features, {len(report.problems)} left out"
    )
    if views:
        add_views(out, views, seed=settings["seed"], progress=bar("views", "image"))
        say(f"{out}: {views} views of every training picture")
    if grid:
        places, components = add_grids(out, grid, progress=bar("grids", "image"))
        say(f"{out}: grids of {places} places, {components} features each")


@command.command("train", cls=Command)
@click.argument("data", type=FOLDER, required=False)
@options_of(SETTINGS)
@click.option("--out", type=FOLDER, help="Folder of the run. [a new one in runs/]")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@OPEN
def train(data, out, resume, opens, **settings) -> None:
    """Train a captioner on a data set, or without DATA on made-up scenes.

    Every epoch captions are generated for validation pictures; the best model by BLEU-4 is kept.
    Writes run.json, model.safetensors, metrics.json, report.html, curves.png, gallery.png and a
    checkpoint from which --resume continues exactly, also after Ctrl-C or a crash; it may change
    --epochs, --patience and --backend. Brackets show what is the default, and what it is for the
    scenes.

    \b
    Examples:
      fastrnn caption train
      fastrnn caption train data --cell rnn --epochs 30 --out run
      fastrnn caption train --resume --out run
    """
    settings = given(settings)
    if resume and out is None:
        raise click.UsageError("--resume needs --out")
    with usage():
        complete(settings)
    started = time.perf_counter()
    if resume:
        work = programs.resume(out, data, settings)
    else:
        work = programs.begin(out, data, settings)
    with work as job:
        say(job.summary())
        try:
            with closing(TrainingBar()) as progress:
                job.train(progress)
        except KeyboardInterrupt:
            say(f"resume with: fastrnn caption train --resume --out {job.folder}", err=True)
            raise
        _print_metrics(job.finish())
    pictures = [name for name in ("gallery.png", "curves.png") if (job.folder / name).exists()]
    seconds = time.perf_counter() - started
    say(f"{job.folder}: done in {seconds:.0f} s, see {' and '.join([PAGE, *pictures])}")
    if opens:
        show(job.folder / PAGE)


@command.command("evaluate")
@click.argument("run", type=FOLDER)
@click.argument("data", type=FOLDER, required=False)
@click.option("--beam", type=click.IntRange(1), default=1, show_default=True, help="1: greedy.")
@LENGTH_PENALTY
@CONSENSUS
@REMINDERS
@DIVERSE_GROUPS
@DIVERSITY
@BLOCK_NGRAMS
@UNK
@SEVERAL
@click.option(
    "--split", type=click.Choice(["val", "test", "train"]), default="val", show_default=True
)
@click.option("--name", help="Of another data set's figures (default: its folder's name).")
@BACKEND
@OPEN
def evaluate(run, data, beam, split, name, backend, others, unk, opens, **options) -> None:
    """How good generated captions are, all references counting, beside captions by no model: one
    for all pictures, those of the nearest training pictures, one human's against the others'.

    DATA is where the run was trained unless another data set is given, whose words the run need not
    know. Adds to metrics.json and report.html; writes results-*.json, results-*.csv, a line a
    picture, and gallery-*.png into the run.

    \b
    Examples:
      fastrnn caption evaluate run --beam 5
      fastrnn caption evaluate run other --split test
    """
    _check_consensus(beam, options)
    options |= {"beam_size": beam, "suppress_unk": not unk}
    done = programs.evaluate([run, *others], data, split, backend, name, **options)
    for line in done.notes:
        say(line, err=True)
    _print_metrics(done.metrics)
    for line in evaluation.table(done.scores):
        say(line)
    if opens:
        show(run / PAGE)


@command.command("sample")
@click.argument("run", type=FOLDER)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="FILE|DIRECTORY",
    required=True,
    help="A picture, or a folder of pictures.",
)
@click.option(
    "--out", type=OUTPUT, required=True, help="CSV to write: image,caption; -: to stdout."
)
@click.option("--beam", type=click.IntRange(1), default=5, show_default=True, help="1: greedy.")
@click.option("--temperature", type=float, help="Draw at random instead (1: as the model has it).")
@click.option("--top-k", type=int, help="Draw from the likeliest words.")
@click.option("--top-p", type=float, help="Draw from the fewest words that cover this probability.")
@LENGTH_PENALTY
@CONSENSUS
@REMINDERS
@DIVERSE_GROUPS
@DIVERSITY
@UNK
@BLOCK_NGRAMS
@SEVERAL
@click.option("--weights", help="The backbone's weights, if they have moved since prepare.")
@click.option("--gallery", type=OUTPUT, help="PNG of some pictures with their captions.")
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@BACKEND
def sample(run, images, out, weights, gallery, backend, unk, beam, others, **options) -> None:
    """Captions for a picture, or those of a folder and of folders within.

    The run remembers its backbone and weights. Pictures that cannot be read are named and left out.

    \b
    Examples:
      fastrnn caption sample run --images new --out new.csv
      fastrnn caption sample run --images photo.jpg --out -
      fastrnn caption sample run --images new --out new.csv --temperature 0.7 --top-p 0.9
    """
    check_output(out)
    if gallery:
        check_output(gallery, "--gallery")
    random = any(options[name] is not None for name in ("temperature", "top_k", "top_p"))
    if random and click.get_current_context().get_parameter_source("beam").name == "COMMANDLINE":
        raise click.UsageError("--beam is not random: drop it or --temperature, --top-k, --top-p")
    _check_consensus(1 if random else beam, options)
    captions, unreadable = programs.caption_images(
        [run, *others],
        images,
        weights,
        backend,
        progress=bar("features", "image"),
        note=lambda text: say(f"note: {text}", err=True),
        suppress_unk=not unk,
        beam_size=1 if random else beam,
        **options,
    )
    with writing(out, newline="", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        rows.writerows(captions.items())
    for name, why in unreadable.items():
        say(f"left out: {name}: cannot be read ({why})", err=True)
    if gallery:
        programs.draw_gallery(gallery, Path(images), captions)
    taken = any(path and is_stdout(path) for path in (out, gallery))
    say(f"{out}: {len(captions)} captions, {len(unreadable)} pictures left out", err=taken)


def _check_consensus(beam: int, options: dict[str, object]) -> None:
    if options["consensus"] and beam == 1:
        raise click.UsageError("--consensus chooses among the captions of a --beam of 2 or more")


def _print_metrics(metrics: dict[str, dict[str, float]]) -> None:
    for name, figures in metrics.items():
        shown = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
        say(f"{name}: {shown}")
