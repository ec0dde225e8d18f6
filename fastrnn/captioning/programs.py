"""What the commands of `fastrnn caption` do, as functions: train, evaluate, sample."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn import figures, runs, storage
from fastrnn.captioning import data as coco
from fastrnn.captioning import evaluation, features, prepare, report, views
from fastrnn.captioning.captioner import Captioner, together
from fastrnn.captioning.consensus import Consensus, Neighbours, Reminded
from fastrnn.captioning.heatmaps import plot_looks, seen_part
from fastrnn.captioning.metrics import words_of
from fastrnn.captioning.model import SHAPING, CaptioningRNN, shapes
from fastrnn.captioning.plots import plot_curves
from fastrnn.captioning.run import Run, member, read_run, read_settings, write_model, write_settings
from fastrnn.captioning.settings import OF_MODEL, SETTINGS, complete
from fastrnn.captioning.training import CaptioningSolver
from fastrnn.captioning.vocabulary import NULL
from fastrnn.plots import gallery
from fastrnn.printing import printable
from fastrnn.solver import CHECKPOINT, Solver, check_shapes
from fastrnn.text.embeddings import load_vectors
from fastrnn.vision.images import look_for, open_rgb

SCENES = {"train": 5000, "val": 250}  # pictures, where there are no data
GALLERY_RANDOM, GALLERY_ENDS = 8, 4  # pictures; as many of the best as of the worst
GALLERY_OF = 200  # pictures of which a training shows some
HEATMAPS = 4  # pictures
# Settings that CaptioningSolver takes under the same names.
OF_SOLVER = "update_rule", "lr_decay", "batch_size", "averaging", "scheduled_sampling"
SAYING = {"suppress_unk": True, "block_ngrams": 3}  # as the commands do unless they are told


class Job:
    """A training run in its folder, of one model or an ensemble, whose seeds follow each other."""

    def __init__(self, folder: Path, base: Path, settings: dict[str, object]) -> None:
        self.folder, self.base, self.settings = folder, base, settings
        if settings["pca"] is None:
            settings["pca"] = coco.has_pca(base)
        self.data = _read(base, settings)
        self.cut = _cut(self.data, "val")
        self.solvers = [self._solver(i) for i in range(settings["ensemble"])]
        if settings["decoder"] == "attention":
            reduction = coco.reduction_in(views.grid_file(base, "train"))
        else:
            reduction = coco.pca_reduction(base) if settings["pca"] else None
        source = coco.feature_source(base, settings["pca"])
        models = [solver.model for solver in self.solvers]
        self.run = Run(models, settings, str(base), source, reduction)

    def _solver(self, i: int) -> CaptioningSolver:
        settings, model = self.settings, self._model(i)
        return CaptioningSolver(
            model,
            self.data,
            val_every=1,
            optim_config={"learning_rate": settings["learning_rate"]},
            num_epochs=settings["epochs"],
            clip_norm=settings["clip_norm"] or None,
            patience=settings["patience"] or None,
            **{name: settings[name] for name in OF_SOLVER},
            seed=settings["seed"] + i,
            verbose=False,
            checkpoint=member(self.folder, i),
        )

    def _model(self, i: int) -> CaptioningRNN:
        """An untrained model, the ensemble's i-th."""
        settings, folder = self.settings, member(self.folder, i)
        words, D = self.data["word_to_idx"], self.data["train_features"].shape[-1]
        sizes = D, settings["wordvec"], settings["hidden"], settings["cell"]
        shaping = {name: settings[name] for name in SHAPING}
        check_shapes(folder, shapes(len(words), *sizes, **shaping))
        options = {name: settings[name] for name in (*OF_MODEL, "backend")}
        model = CaptioningRNN(words, *sizes, **options, seed=settings["seed"] + i)
        if settings["embeddings"] and not (folder / CHECKPOINT).exists():
            found = load_vectors(settings["embeddings"], words)
            model.take_vectors(found.words, found.vectors)
        return model

    def summary(self) -> str:
        """What is about to be trained, in a line."""
        data, model = self.data, self.run.model
        parameters = sum(w.size for w in model.params.values())
        several = f"{len(self.solvers)} of them, " if len(self.solvers) > 1 else ""
        return (
            f"{self.folder}: {model.cell_type}, {parameters:,} parameters, {several}"
            f"{len(data['train_captions']):,} captions of {len(data['train_features']):,} "
            f"pictures, {len(data['val_features']):,} to validate, "
            f"{len(data['idx_to_word']):,} words"
            + (f"; {self.cut} captions cut to {prepare.MOST_WORDS} words" if self.cut else "")
        )

    def train(self, on_iteration: Callable[[Solver], None] | None = None) -> None:
        """Train to the end. Raises KeyboardInterrupt after a checkpoint on Ctrl-C."""
        for solver in self.solvers:
            solver.on_iteration = on_iteration
            solver.train()

    def restore(self) -> None:
        """Continue from the checkpoints that there are."""
        for i, solver in enumerate(self.solvers):
            if (member(self.folder, i) / CHECKPOINT).exists():
                solver.restore()

    def finish(self) -> dict[str, dict[str, float]]:
        """Write the model, metrics.json, curves.png and gallery.png; return the metrics."""
        write_model(self.folder, self.run)
        for i, solver in enumerate(self.solvers):
            path = self.folder / (f"curves-{i}.png" if i else "curves.png")
            plot_curves(path, solver.loss_history, solver.history)
        seconds = sum(epoch["seconds"] for solver in self.solvers for epoch in solver.history)
        epochs = sum(solver.epoch for solver in self.solvers)
        captions = epochs * len(self.data["train_captions"])
        training = {
            "epochs": epochs,
            "seconds": seconds,
            "captions_per_second": captions / max(seconds, 1e-9),
        }
        metrics = runs.add_metrics(self.folder, {"training": training})
        if len(self.data["val_captions"]):
            run = read_run(self.folder)
            run.use(self.settings["backend"])
            held, training = (
                evaluation.open_pictures(run, self.base, split) for split in ("val", "train")
            )
            metrics, _, _ = _judge(
                self.folder, run.captioner, held, training, "val greedy", **SAYING
            )
            some = np.random.default_rng(0).permutation(len(held.urls))[:GALLERY_OF]
            held = held.take(some)
            samples = evaluation.say(run.captioner, held.features, beam_size=5, **SAYING)
            _draw(self.folder / "gallery.png", held, samples)
            looks = _looks(run, held) if run.model.decoder == "attention" else None
            if looks:
                figures.save(plot_looks(*looks), self.folder / "attention.png")
            own = evaluation.score(held.references, samples, _captions(training)).figures
            scores = {"model": own, **evaluation.beside(held, training)}
            report.write(self.folder, "val", held, samples, scores, self.solvers, looks)
        return metrics


def _read(base: Path, settings: dict[str, object]) -> dict[str, object]:
    """The data set as the model of these settings sees it."""
    data = coco.load_coco_data(base, settings["max_train"], settings["pca"], seed=settings["seed"])
    if settings["decoder"] == "attention":
        data = views.with_grids(data, base)
    elif settings["views"]:
        data = views.with_views(data, base)
    for split in coco.SPLITS:
        data[f"{split}_features"].check_finite()
    if not len(data["train_captions"]):
        raise ValueError(f"{base}: no captions to train on")
    return data


def _cut(data: dict[str, object], split: str) -> int:
    """Cut the captions of a split to prepare.MOST_WORDS, for memory goes with the longest one;
    return how many were longer."""
    captions, most = data[f"{split}_captions"], prepare.MOST_WORDS + 2  # <START> and <END>
    data[f"{split}_captions"] = captions[:, :most]
    return int((captions[:, most:] != data["word_to_idx"][NULL]).any(axis=1).sum())


@contextmanager
def begin(out: Path | None, data: Path | None, settings: dict[str, object]) -> Iterator[Job]:
    """A new run in a folder that has none yet (None: a new one in runs/), on a data set (None: the
    scenes, made in the run's folder); settings over the defaults. The folder is the job's alone
    until the block ends.

    Raises FileExistsError where there is a run already, BlockingIOError where another process is
    at work, ValueError for settings or data that cannot be.
    """
    settings = complete(settings, scenes=data is None)
    checkpoints = [str(member(Path(), i) / CHECKPOINT) for i in range(settings["ensemble"])]
    out = runs.new("caption", out, checkpoints)
    job = None if data is None else Job(out, data.resolve(), settings)
    with runs.at_work(out):
        runs.new("caption", out, checkpoints)  # another process may have been quicker
        if job is None:
            prepare.prepare_scenes(out / "data", **SCENES, seed=settings["seed"])
            job = Job(out, (out / "data").resolve(), settings)
        write_settings(out, job.run)
        yield job


@contextmanager
def resume(folder: Path, data: Path | None, settings: dict[str, object]) -> Iterator[Job]:
    """The run in a folder, continued from its checkpoint, or begun again where it was killed before
    the first one; data is where its data set has moved to, settings may change what is resumable.
    The folder is the job's alone until the block ends.

    Raises FileNotFoundError where there is no run, BlockingIOError where another process is at work
    in it, ValueError for other settings or other data.
    """
    content = read_settings(folder)
    runs.check_resumable(folder, settings, SETTINGS)
    with runs.at_work(folder):
        job = Job(folder, _data_of(folder, content["data"], data), content["settings"] | settings)
        if job.run.model.word_to_idx != content["word_to_idx"]:
            raise ValueError(f"{job.base}: not the vocabulary that {folder} was trained with")
        job.restore()
        write_settings(folder, job.run)
        yield job


def _data_of(folder: Path, recorded: str, given: Path | None) -> Path:
    """The data set of a run: the one given, the recorded one, or, where the run was moved together
    with its data, the one in its folder."""
    base = given or Path(recorded)
    if given is None and not base.is_dir() and (folder / "data").is_dir():
        base = folder / "data"
    return base.resolve()


class Evaluation(NamedTuple):
    """metrics, all in metrics.json; scores, of the model and of what it is to be read beside;
    notes, a line each."""

    metrics: dict[str, dict[str, float]]
    scores: dict[str, dict[str, float]]
    notes: list[str]


def evaluate(
    folders: Sequence[Path],
    data: Path | None,
    split: str,
    backend: str | None,
    name: str | None = None,
    consensus: float = 0.0,
    reminders: float = 0.0,
    **options,
) -> Evaluation:
    """Figures of a run, or several together, on a split of its data set, or of another, all of
    whose words it need not know; consensus, the weight of what is said of training pictures alike
    in the choice of a beam's captions, reminders, in that of words; other options go to sample.
    They are added to the first run's metrics.json under the split and the decoding, after the name
    of another data set (None: its folder's); into its folder go, under the same name,
    results-*.json, which has the baselines, too, results-*.csv, a line a picture, and
    gallery-*.png. Raises ValueError for a name that is no file's."""
    if name is not None and (not name or Path(name).name != name):
        raise ValueError(f"name: expected one for a file, got {name!r}")
    folder = folders[0]
    with ExitStack() as stack:
        for each in folders:
            stack.enter_context(runs.looked_at(each))
        run, captioner = _together(folders, backend)
        home, base = (_data_of(folder, run.data, given) for given in (None, data))
        held = evaluation.open_pictures(run, base, split)
        if not home.is_dir() and held.known:
            home = base  # it has moved
        training = evaluation.open_pictures(run, home, "train") if home.is_dir() else None
        captioner, choice = _asking(run, captioner, home, training, consensus, reminders)
        other = name if name is not None else "" if base == home else base.name
        how = _decoding(consensus, reminders, **options)
        several = f"of {len(folders)} runs" if len(folders) > 1 else ""
        title = " ".join(filter(None, (other, split, how, several)))
        metrics, samples, judged = _judge(
            folder, captioner, held, training, title, **choice, **options
        )
        scores = {"model": judged.figures, **evaluation.beside(held, training)}
        _write_results(folder, base, held, samples, judged, title, scores)
        report.write(folder, title, held, samples, scores)
    notes = judged.missing
    if not held.known:
        notes = [f"{base}: {held.unknown} words of its captions are unknown to {folder}", *notes]
    return Evaluation(metrics, scores, notes)


def _decoding(consensus, reminders, *, beam_size=1, diverse_groups=1, **_) -> str:
    words = ["greedy" if beam_size == 1 else f"beam {beam_size}"]
    words += [f"in {diverse_groups} groups"] * (diverse_groups > 1)
    words += [f"consensus {consensus:g}"] * bool(consensus)
    words += [f"reminders {reminders:g}"] * bool(reminders)
    return " ".join(words)


def _asking(run, captioner, home, training, consensus, reminders):
    """The captioner, reminded of words, and what of sample chooses among a beam's captions. Raises
    FileNotFoundError where the run's data set, which is asked, is not there."""
    if not consensus and not reminders:
        return captioner, {}
    if training is None:
        raise FileNotFoundError(f"{home}: no such folder; the run's own data set is to be asked")
    asked = Neighbours(training.features, training.references)
    if reminders:
        captioner = Reminded(captioner, asked, reminders)
    choose = Consensus(asked, run.model.idx_to_word, consensus) if consensus else None
    return captioner, {"choose": choose}


def _together(folders: Sequence[Path], backend: str | None) -> tuple[Run, Captioner]:
    """The first of these runs, and what says captions: its model, or those of all."""
    found = [read_run(folder) for folder in folders]
    for run in found:
        run.use(backend)
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
    return first, together([model for run in found for model in run.models])


def _judge(folder, captioner, held, training, title, **options):
    """All metrics of a run, with those of its captions under a title; these captions, decoded,
    and their scores."""
    started = time.perf_counter()
    samples = evaluation.say(captioner, held.features, **options)
    seconds = time.perf_counter() - started
    judged = evaluation.score(held.references, samples, _captions(training))
    metrics = runs.add_metrics(folder, {title: judged.figures | {"seconds": seconds}})
    return metrics, samples, judged


def _captions(training: evaluation.Pictures | None) -> list[list[str]] | None:
    return training and [words for captions in training.references for words in captions]


def _write_results(folder, base, held, samples, judged, title, scores):
    name = title.replace(" ", "-")
    content = {"data": str(base), "pictures": len(samples), "scores": scores}
    storage.write_json(folder / f"results-{name}.json", content)
    evaluation.write_by_picture(folder / f"results-{name}.csv", held, samples, judged.by_picture)
    _draw(folder / f"gallery-{name}.png", held, samples)


def _draw(path: Path, held: evaluation.Pictures, samples: list[str]) -> None:
    """A gallery of random pictures, then some of the best and the worst by CIDEr-D, of those whose
    files are there."""
    by_group, cider = report.chosen(held, samples, GALLERY_RANDOM, GALLERY_ENDS)
    pictures, titles, notes = [], [], []
    for group, images in by_group.items():
        kind = report.GROUPS[group]
        for i in images:
            with suppress(OSError):  # a broken one
                pictures.append(np.asarray(open_rgb(held.folder / held.urls[i])))
                titles.append(" ".join(words_of(samples[i])))
                true = [" ".join(words) for words in held.references[i][:2]]
                notes.append([f"{kind}, CIDEr-D {cider[i]:.2f}", *true])
    if pictures:
        figures.save(gallery(pictures, titles, notes), path)


def _looks(run: Run, held: evaluation.Pictures) -> report.Looks | None:
    """Where attention looks to say each word of some pictures' captions, on the part of them that
    the network sees; None where there are no pictures."""
    there = [i for i, url in enumerate(held.urls) if (held.folder / url).is_file()][:HEATMAPS]
    if not there:
        return None
    to = features.preprocessing(run.source["backbone"], run.source.get("view", "centre"))
    pictures = [np.asarray(open_rgb(held.folder / held.urls[i])) for i in there]
    grids = held.features.take(there)[:]
    said = run.captioner.sample(grids, beam_size=5, **SAYING)
    words = [[run.model.idx_to_word[int(i)] for i in caption if i] for caption in said]
    parts = [seen_part(picture, to.resize, to.crop) for picture in pictures]
    return report.Looks(parts, words, run.captioner.looks(grids, said))


def caption_images(
    folders: Sequence[Path],
    images: Path,
    weights: str | None = None,
    backend: str | None = None,
    *,
    progress: features.Progress = iter,
    consensus: float = 0.0,
    reminders: float = 0.0,
    note: Callable[[str], object] = lambda _: None,
    **options,
) -> tuple[dict[str, str], dict[str, str]]:
    """Captions of the picture files in a folder and in those within, or of one file, by a run, or
    several together; consensus and reminders as evaluate's, other options go to sample; note gets a
    line on other files.

    Returns: picture to caption, picture that could not be read to reason. Raises ValueError where
    the run does not know how its features were made, they are not as wide as its own, or no picture
    could be read, OSError where there is none.
    """
    run, captioner = _together(folders, backend)
    if not {"backbone", "weights"} <= run.source.keys():
        raise ValueError(
            f"{folders[0]}: trained on features from elsewhere; only evaluate can use it"
        )
    if consensus or reminders:
        home = _data_of(folders[0], run.data, None)
        training = evaluation.open_pictures(run, home, "train") if home.is_dir() else None
        captioner, choice = _asking(run, captioner, home, training, consensus, reminders)
        options |= choice
    found = look_for(images, note).pictures
    reduction = run.reduction
    weights = weights or run.source["weights"]
    columns = run.model.params["W_proj"].shape[0] if reduction is None else len(reduction[0])
    network = views.grid_network if run.model.decoder == "attention" else None
    got = features.extract(
        found,
        run.source["backbone"],
        weights,
        columns=columns,
        progress=progress,
        view=run.source.get("view", "centre"),
        network=network,
        base=_base(images),
    )
    if not got.names:
        why = next(iter(got.unreadable.values()))
        raise ValueError(f"{images}: none of {len(found)} pictures could be read ({why})")
    rows = got.features
    if reduction is not None:
        rows = prepare.apply_pca(rows, *reduction)
    captions = evaluation.say(captioner, rows, **({"suppress_unk": True} | options))
    said = [printable(" ".join(words_of(caption))) for caption in captions]
    return dict(zip(got.names, said, strict=True)), got.unreadable


def _base(place: Path) -> Path:
    """The folder from which the names of the pictures of a place, a folder or a file, are paths."""
    return place if place.is_dir() else place.parent


def draw_gallery(path: Path, place: Path, captions: dict[str, str]) -> None:
    """A PNG of random pictures of a folder, or of one, with their captions."""
    folder = _base(place)
    order = np.random.default_rng(0).permutation(len(captions))[: GALLERY_RANDOM + GALLERY_ENDS]
    names = [[*captions][i] for i in sorted(order)]
    pictures = [np.asarray(open_rgb(folder / name)) for name in names]
    figures.save(gallery(pictures, [captions[name] for name in names]), path)
