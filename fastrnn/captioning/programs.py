"""What the commands of `fastrnn caption` do, as functions: train, evaluate, sample."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from fastrnn import figures, runs, storage
from fastrnn.captioning import data as coco
from fastrnn.captioning import features, prepare, views
from fastrnn.captioning.captioner import Captioner, Ensemble
from fastrnn.captioning.heatmaps import plot_looks, seen_part
from fastrnn.captioning.metrics import references_by_image
from fastrnn.captioning.model import SHAPING, CaptioningRNN, shapes
from fastrnn.captioning.plots import plot_curves
from fastrnn.captioning.run import (
    OF_TRAINING,
    OPTIONS,
    Run,
    read_run,
    read_settings,
    write_model,
    write_settings,
)
from fastrnn.captioning.training import CaptioningSolver, generated_bleu
from fastrnn.captioning.vocabulary import decode_captions
from fastrnn.nn import single
from fastrnn.nn.single import CELLS
from fastrnn.optim import RULES
from fastrnn.plots import gallery
from fastrnn.printing import printable
from fastrnn.settings import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    check,
    integer,
    one_of,
    optional,
)
from fastrnn.solver import CHECKPOINT, Solver, check_shapes
from fastrnn.text.embeddings import load_vectors
from fastrnn.vision import backbones
from fastrnn.vision.images import list_images, open_rgb

# Tuned on 700 photographs; docs/captioning.md has the trials.
DEFAULTS = {
    "cell": "lstm",
    "backend": None,
    "epochs": 25,
    "hidden": 256,
    "wordvec": 128,
    "batch_size": 50,
    "learning_rate": 1e-3,
    "lr_decay": 0.95,
    "update_rule": "adam",
    "dropout": 0.5,
    **{name: value for name, (_, value) in (OPTIONS | OF_TRAINING).items()},
    "clip_norm": 5.0,
    "patience": 8,
    "max_train": None,
    "pca": None,
    "seed": 0,
}
KINDS = {
    "cell": one_of(*CELLS),
    "backend": one_of(None, "numpy", "cython"),
    "update_rule": one_of(*RULES),
    "dropout": SHARE,
    **{name: kind for name, (kind, _) in (OPTIONS | OF_TRAINING).items()},
    "pca": one_of(None, False, True),
    "clip_norm": NOT_NEGATIVE,
    "max_train": optional(integer(1)),
    **dict.fromkeys(("epochs", "hidden", "wordvec", "batch_size"), integer(1)),
    **dict.fromkeys(("learning_rate", "lr_decay"), POSITIVE),
    **dict.fromkeys(("patience", "seed"), integer(0)),
}
# The scenes are many and hold more to learn: which colour goes with which shape, and what is where.
SCENES = {"train": 5000, "val": 250}
SCENES_DEFAULTS = {
    "epochs": 10,
    "batch_size": 100,
    "learning_rate": 5e-3,
    "lr_decay": 0.8,
    "dropout": 0.1,
}
GALLERY_IMAGES = 12
HEATMAPS, ATTENTION = 4, "attention.png"


class Job:
    """A training run in its folder."""

    def __init__(self, folder: Path, base: Path, settings: dict[str, object]) -> None:
        self.folder, self.base, self.settings = folder, base, settings
        if settings["pca"] is None:
            settings["pca"] = coco.has_pca(base)
        pca, seed = settings["pca"], settings["seed"]
        self.data = coco.load_coco_data(base, settings["max_train"], pca, seed=seed)
        looks = settings["decoder"] == "attention"
        if looks:
            self.data = views.with_grids(self.data, base)
        elif settings["views"]:
            self.data = views.with_views(self.data, base)
        for split in coco.SPLITS:
            self.data[f"{split}_features"].check_finite()
        words, D = self.data["word_to_idx"], self.data["train_features"].shape[-1]
        sizes = D, settings["wordvec"], settings["hidden"], settings["cell"]
        shaping = {name: settings[name] for name in SHAPING}
        check_shapes(folder, shapes(len(words), *sizes, **shaping))
        model = CaptioningRNN(
            words,
            *sizes,
            **{name: settings[name] for name in ("dropout", *OPTIONS)},
            backend=settings["backend"],
            seed=seed,
        )
        if settings["embeddings"] and not (folder / CHECKPOINT).exists():
            found = load_vectors(settings["embeddings"], words)
            model.take_vectors(found.words, found.vectors)
        self.solver = CaptioningSolver(
            model,
            self.data,
            val_every=1,
            update_rule=settings["update_rule"],
            optim_config={"learning_rate": settings["learning_rate"]},
            lr_decay=settings["lr_decay"],
            num_epochs=settings["epochs"],
            batch_size=settings["batch_size"],
            clip_norm=settings["clip_norm"] or None,
            patience=settings["patience"] or None,
            averaging=settings["averaging"],
            scheduled_sampling=settings["scheduled_sampling"],
            seed=seed,
            verbose=False,
            checkpoint=folder,
        )
        if looks:
            reduction = coco.reduction_in(views.grid_file(base, "train"))
        else:
            reduction = coco.pca_reduction(base) if pca else None
        self.run = Run(model, settings, str(base), coco.feature_source(base, pca), reduction)

    def summary(self) -> str:
        """What is about to be trained, in a line."""
        data, model = self.data, self.run.model
        parameters = sum(w.size for w in model.params.values())
        return (
            f"{self.folder}: {model.cell_type}, {parameters:,} parameters, "
            f"{len(data['train_captions']):,} captions of {len(data['train_features']):,} "
            f"pictures, {len(data['val_features']):,} to validate, "
            f"{len(data['idx_to_word']):,} words"
        )

    def train(self, on_iteration: Callable[[Solver], None] | None = None) -> None:
        """Train to the end. Raises KeyboardInterrupt after a checkpoint on Ctrl-C."""
        self.solver.on_iteration = on_iteration
        self.solver.train()

    def finish(self) -> dict[str, dict[str, float]]:
        """Write the model, metrics.json, curves.png and gallery.png; return the metrics."""
        write_model(self.folder, self.run)
        plot_curves(self.folder / "curves.png", self.solver.loss_history, self.solver.history)
        seconds = sum(epoch["seconds"] for epoch in self.solver.history)
        captions = self.solver.epoch * self.solver.num_examples
        training = {
            "epochs": self.solver.epoch,
            "seconds": seconds,
            "captions_per_second": captions / max(seconds, 1e-9),
        }
        metrics = runs.add_metrics(self.folder, {"training": training})
        if len(self.data["val_captions"]):
            metrics = _evaluate([self.folder], self.base, "val", self.settings["backend"])
            self._gallery()
        return metrics

    def _gallery(self) -> None:
        references = references_by_image(self.data, "val")
        images = list(references)[:GALLERY_IMAGES]
        folder = Path(self.run.source.get("images", self.base))
        paths = [folder / str(url) for url in self.data["val_urls"][images]]
        shown = [(path, image) for path, image in zip(paths, images, strict=True) if path.is_file()]
        if not shown:
            return
        rows = self.data["val_features"][[image for _, image in shown]]
        captions = _say(self.run.model, rows, self.data["idx_to_word"], beam_size=5)
        true = [[" ".join(words) for words in references[image][:2]] for _, image in shown]
        pictures = [np.asarray(open_rgb(path)) for path, _ in shown]
        figures.save(gallery(pictures, captions, true), self.folder / "gallery.png")
        if self.run.model.decoder == "attention":
            self._heatmaps(shown[:HEATMAPS])

    def _heatmaps(self, shown: list[tuple[Path, int]]) -> None:
        """attention.png, of the network's part of each picture."""
        to = backbones.preprocessing(self.run.source["backbone"])
        parts = [seen_part(np.asarray(open_rgb(path)), to.resize, to.crop) for path, _ in shown]
        rows, model = self.data["val_features"][[image for _, image in shown]], self.run.model
        said = model.sample(rows, beam_size=5, suppress_unk=True)
        decoded = (decode_captions(caption, self.data["idx_to_word"]) for caption in said)
        words = [caption.removesuffix("<END>").split() for caption in decoded]
        figures.save(plot_looks(parts, words, model.looks(rows, said)), self.folder / ATTENTION)


@contextmanager
def begin(out: Path | None, data: Path | None, settings: dict[str, object]) -> Iterator[Job]:
    """A new run in a folder that has none yet (None: a new one in runs/), on a data set (None: the
    scenes, made in the run's folder); settings over the defaults. The folder is the job's alone
    until the block ends.

    Raises FileExistsError where there is a run already, BlockingIOError where another process is
    at work, ValueError for settings or data that cannot be.
    """
    out = runs.new("caption", out, [CHECKPOINT])
    settings = DEFAULTS | ({} if data else SCENES_DEFAULTS) | settings
    check(settings, KINDS)
    single.form(settings["cell"], settings["zoneout"], settings["recurrent_dropout"])
    job = None if data is None else Job(out, data.resolve(), settings)
    with runs.at_work(out):
        runs.new("caption", out, [CHECKPOINT])  # another process may have been quicker
        if job is None:
            prepare.prepare_scenes(out / "data", **SCENES, seed=settings["seed"])
            job = Job(out, (out / "data").resolve(), settings)
        write_settings(out, job.run)
        yield job


# What a resumed run may change: anything else would make it another run.
RESUMABLE = {"epochs", "patience", "backend"}


@contextmanager
def resume(folder: Path, data: Path | None, settings: dict[str, object]) -> Iterator[Job]:
    """The run in a folder, continued from its checkpoint, or begun again where it was killed before
    the first one; data is where its data set has moved to, settings may change what is RESUMABLE.
    The folder is the job's alone until the block ends.

    Raises FileNotFoundError where there is no run, BlockingIOError where another process is at work
    in it, ValueError for other settings or other data.
    """
    content = read_settings(folder)
    runs.check_resumable(folder, settings, RESUMABLE)
    with storage.named(folder / runs.RUN, "a run of caption train"):
        check({name: content["settings"][name] for name in KINDS}, KINDS)
    with runs.at_work(folder):
        job = Job(folder, _data_of(folder, content["data"], data), content["settings"] | settings)
        if job.run.model.word_to_idx != content["word_to_idx"]:
            raise ValueError(f"{job.base}: not the vocabulary that {folder} was trained with")
        if (folder / CHECKPOINT).exists():
            job.solver.restore(folder)
        write_settings(folder, job.run)
        yield job


def _data_of(folder: Path, recorded: str, given: Path | None) -> Path:
    """The data set of a run: the one given, the recorded one, or, where the run was moved together
    with its data, the one in its folder."""
    base = given or Path(recorded)
    if given is None and not base.is_dir() and (folder / "data").is_dir():
        base = folder / "data"
    return base.resolve()


def evaluate(
    folders: Sequence[Path],
    data: Path | None,
    split: str,
    backend: str | None,
    **options,
) -> dict[str, dict[str, float]]:
    """Corpus BLEU-1..4 of a run, or several together, on a split, added to the first one's
    metrics.json; options go to sample; returns all in there."""
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(runs.looked_at(folder))
        return _evaluate(folders, data, split, backend, **options)


def _evaluate(folders, data, split, backend, **options):
    run, captioner = _together(folders, backend)
    base = _data_of(folders[0], run.data, data)
    content = coco.load_coco_data(base, pca_features=run.settings["pca"])
    if content["word_to_idx"] != captioner.word_to_idx:
        raise ValueError(f"{base}: not the vocabulary that {folders[0]} was trained with")
    if run.model.decoder == "attention":
        content = views.with_grids(content, base)
    rows = content[f"{split}_features"]
    if rows.shape[-1] != (columns := run.model.params["W_proj"].shape[0]):
        raise ValueError(f"{rows.path}: expected {columns} columns, got {rows.shape[-1]}")
    rows.check_finite()
    started = time.perf_counter()
    figures = generated_bleu(captioner, content, split, len(rows), **options)
    figures["seconds"] = time.perf_counter() - started
    beam = options.get("beam_size", 1)
    name = "greedy" if beam == 1 else f"beam {beam}"
    if len(folders) > 1:
        name += f" of {len(folders)} runs"
    return runs.add_metrics(folders[0], {f"{split} {name}": figures})


def _together(folders: Sequence[Path], backend: str | None) -> tuple[Run, Captioner]:
    """The first of these runs, and what says captions: its model, or those of all."""
    found = [read_run(folder) for folder in folders]
    for run in found:
        run.model.backend = backend
    first = found[0]
    for folder, run in zip(folders[1:], found[1:], strict=True):
        for what, own, expected in (
            ("vocabulary", run.model.word_to_idx, first.model.word_to_idx),
            ("decoder", run.model.decoder, first.model.decoder),
            ("source of features", run.source, first.source),
        ):
            if own != expected:
                raise ValueError(f"{folder}: not the {what} of {folders[0]}")
        same = [*map(np.array_equal, run.reduction or (), first.reduction or ())]
        if (run.reduction is None) != (first.reduction is None) or not all(same):
            raise ValueError(f"{folder}: not the reduction of features of {folders[0]}")
    return first, first.model if len(found) == 1 else Ensemble([run.model for run in found])


def caption_images(
    folders: Sequence[Path],
    images: Path,
    weights: str | None = None,
    backend: str | None = None,
    *,
    progress: features.Progress = iter,
    **options,
) -> tuple[dict[str, str], dict[str, str]]:
    """Captions of picture files by a run, or several together; options go to sample.

    Returns: picture to caption, picture that could not be read to reason. Raises ValueError where
    the run does not know how its features were made, they are not as wide as its own, or no picture
    could be read.
    """
    run, captioner = _together(folders, backend)
    if not {"backbone", "weights"} <= run.source.keys():
        raise ValueError(
            f"{folders[0]}: trained on features from elsewhere; only evaluate can use it"
        )
    found, reduction = list_images(images), run.reduction
    weights = weights or run.source["weights"]
    columns = run.model.params["W_proj"].shape[0] if reduction is None else len(reduction[0])
    network = views.grid_network if run.model.decoder == "attention" else None
    got = features.extract(
        found,
        run.source["backbone"],
        weights,
        columns=columns,
        progress=progress,
        network=network,
    )
    if not got.names:
        raise ValueError(f"{images}: none of {len(found)} pictures could be read")
    rows = got.features
    if reduction is not None:
        rows = prepare.apply_pca(rows, *reduction)
    idx_to_word = [run.model.idx_to_word[i] for i in range(len(run.model.idx_to_word))]
    captions = _say(captioner, rows, idx_to_word, **options)
    return dict(zip(got.names, captions, strict=True)), got.unreadable


def _say(model: Captioner, rows: np.ndarray, idx_to_word: list[str], **options) -> list[str]:
    """Captions as people read them, without <END>."""
    options = {"suppress_unk": True} | options
    decoded = decode_captions(model.sample(rows, **options), idx_to_word)
    return [printable(caption.removesuffix("<END>").strip()) for caption in decoded]


def draw_gallery(path: Path, folder: Path, captions: dict[str, str]) -> None:
    """A PNG of the first pictures of a folder with their captions."""
    names = list(captions)[:GALLERY_IMAGES]
    pictures = [np.asarray(open_rgb(folder / name)) for name in names]
    figures.save(gallery(pictures, [captions[name] for name in names]), path)
