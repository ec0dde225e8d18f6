"""What the commands of `fastrnn classify` do with a run, as functions: train, evaluate, explain.

A run's folder:
run.json                settings, and where the data are
classifier.json         and classifier-*.safetensors, the trained model
metrics.json            figures of the training and of every evaluation
report.html             all that in a page, of what report.json keeps
0/, 1/, ...             a checkpoint of each network, to resume
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn import plots, runs, storage
from fastrnn.metrics import classifier_report, multilabel_report
from fastrnn.settings import OBJECT, TEXT, check, one_of, optional
from fastrnn.solver import CHECKPOINT
from fastrnn.text.calibration import log_loss
from fastrnn.text.compressed import split_member
from fastrnn.text.corpus import Corpus, nltk_corpus, read_labelled, read_rows, split
from fastrnn.text.detection import AUTO
from fastrnn.text.explanation import Explanation
from fastrnn.text.explanation import explain as explanation_of
from fastrnn.text.grammar import make_reviews
from fastrnn.text.model import DESCRIPTION, TextModel
from fastrnn.text.prediction import SEVERAL, texts_of
from fastrnn.text.report import Judged
from fastrnn.text.report import write as write_report
from fastrnn.text.settings import SETTINGS, complete, of_file
from fastrnn.text.training import Training
from fastrnn.tokens import is_sentence

# In metrics.json beside the evaluations, which have the names of their files.
RESERVED = ("training", "embeddings", "calibration", "quantization")
OWN = "dev"  # what training has validated on, whatever its file is called
# Of run.json, and of what it says of the data; how a version read files that does not say it.
KINDS = {"settings": OBJECT, "data": OBJECT}
SOURCE = {
    **dict.fromkeys(("corpus", "dev", "unlabelled"), optional(TEXT)),
    **dict.fromkeys(("text_column", "label_column"), optional(TEXT)),
    **dict.fromkeys(("encoding", "errors", "file_format", "train", "sha256"), TEXT),
    "unseen": one_of(False, True),
}
PLAIN = {
    "file_format": "space",
    "errors": "strict",
    "text_column": None,
    "label_column": None,
    "unseen": False,
}
READING = ("encoding", *PLAIN)  # of what run.json says, what read_labelled takes
FILES = ("train", "dev", "unlabelled")
REVIEWS = {"train": 10_000, "dev": 2_000}
HELD_OUT = 0.1  # of the examples, where there are none to validate

# Shows how far the reading of a file is: its block gets what takes the bytes read since last time.
Watch = Callable[[Path], AbstractContextManager[Callable[[int], object] | None]]


class Data(NamedTuple):
    """Texts to train on and to validate; what they were taken for, a line a file; texts without
    labels to pre-train on."""

    train: Corpus
    dev: Corpus
    told: Sequence[str] = ()
    unlabelled: Sequence[str] = ()


class Job:
    """A training run in its folder; source, what run.json says of the data."""

    def __init__(
        self,
        folder: Path,
        data: Data,
        source: dict[str, object],
        settings: dict[str, object],
        watch: Watch,
    ) -> None:
        self.folder, self.source = folder, source
        self.train, self.dev, self.told, self.unlabelled = data
        self.classes = _classes(self.train)
        embeddings = settings.get("embeddings")
        watched = watch(split_member(Path(embeddings))[0]) if embeddings else nullcontext()
        with watched as progress:
            options = {"progress": progress, "unlabelled": self.unlabelled}
            self.training = self._training_of(settings, folder=folder, **options)
        vocabulary = self.training.vocabulary
        sentences = sum(map(is_sentence, vocabulary.words))
        if vocabulary.tokenizer == "space" and 2 * sentences > len(vocabulary):
            self.told = [*self.told, "most words are sentences without spaces: --tokenizer words"]

    def _training_of(self, settings: dict[str, object], **options) -> Training:
        # What no epoch is right about chooses none.
        dev = _known(self.dev, self.classes)
        y, dev_y = (_indices(corpus, self.classes) for corpus in (self.train, dev))
        dev = dev.texts, dev_y
        return Training(settings, self.train.texts, y, self.classes, dev=dev, **options)

    def summary(self) -> str:
        """What is about to be trained, in a line."""
        training = self.training
        networks = [solver.network for solver in training.solvers]
        parameters = sum(w.size for network in networks for w in network.params.values())
        held_out = self.source["corpus"] or not self.source["dev"]
        several = training.multilabel
        parts = [
            f"{self.folder}: {training.settings['model']}",
            f"{parameters:,} parameters",
            f"{len(self.train.texts):,} sentences",
            f"{len(self.dev.texts):,} {'held out ' if held_out else ''}to validate",
            *[f"{len(self.unlabelled):,} without labels"] * bool(self.unlabelled),
            f"{len(training.vocabulary) - 1:,} words",
            f"{len(self.classes):,} {'labels, several a text' if several else 'classes'}",
        ]
        if skipped := self.train.skipped + self.dev.skipped:
            parts.append(f"{skipped:,} blank lines left out")
        if training.cut:
            parts.append(f"{training.cut:,} cut to {training.settings['max_words']:,} words")
        if training.vectors is not None:
            parts.append(f"embeddings: {training.vectors.report}")
        return ", ".join(parts)

    def write_settings(self) -> None:
        """Write run.json, before training."""
        runs.write(
            self.folder, "classify", {"settings": self.training.settings, "data": self.source}
        )

    def finish(self, model: TextModel) -> dict[str, dict]:
        """Write the model that training.run has returned, metrics.json and the pictures; return the
        metrics."""
        model.save(self.folder)
        for i, solver in enumerate(self.training.solvers):
            path = self.folder / (f"curves-{i}.png" if i else "curves.png")
            plots.plot_curves(path, solver.loss_history, solver.history, "dev")
        metrics = self._figures() | self.training.figures
        sizes = [path.stat().st_size for path in self.folder.glob(f"{Path(DESCRIPTION).stem}*")]
        metrics["training"]["model_bytes"] = sum(sizes)
        runs.add_metrics(self.folder, metrics)
        judged = _judge(model, self.dev)
        _keep(self.folder, judged, OWN)
        write_report(self.folder, OWN, model, self.dev.texts, judged, self.training.solvers)
        return metrics | {OWN: judged.figures}

    def _figures(self) -> dict[str, dict]:
        """Figures of the training, of all networks together, and of the embeddings."""
        solvers, vectors = self.training.solvers, self.training.vectors
        seconds = sum(epoch["seconds"] for solver in solvers for epoch in solver.history)
        epochs = sum(solver.epoch for solver in solvers)
        rate = epochs * len(self.train.texts) / max(seconds, 1e-9)
        training = {"epochs": epochs, "seconds": seconds, "sentences_per_second": rate}
        if (first := self.training.pretraining) is not None:
            spent = sum(epoch["seconds"] for epoch in first.history)
            training["pretraining"] = {"epochs": first.epoch, "seconds": spent}
            training["pretraining"]["train_loss"] = first.history[-1]["train_loss"]
        if self.source["corpus"] == "reviews" and self.training.settings["model"] != "bow":
            training["bow_dev_accuracy"] = self._bow_accuracy()
        if vectors is None:
            return {"training": training}
        problems = {kind: problem.count for kind, problem in vectors.report.problems.items()}
        embeddings = vectors.report._asdict() | {"problems": problems}
        return {"training": training, "embeddings": embeddings}

    def _bow_accuracy(self) -> float:
        """Accuracy on dev of a model to which the order of the words means nothing."""
        kept = {name: self.training.settings[name] for name in ("backend", "seed")}
        training = self._training_of({"model": "bow"} | kept)
        training.run()
        return max(epoch["dev_accuracy"] for epoch in training.solvers[0].history)


def _classes(corpus: Corpus) -> list[str]:
    """Its labels in ascending order."""
    several = isinstance(corpus.labels[0], tuple)
    return sorted({*chain.from_iterable(corpus.labels)} if several else {*corpus.labels})


def _known(corpus: Corpus, classes: Sequence[str]) -> Corpus:
    """The texts with one of these labels, or with these of their labels."""
    known = {*classes}
    if isinstance(corpus.labels[0], tuple):
        return corpus._replace(labels=[tuple(known.intersection(row)) for row in corpus.labels])
    rows = [i for i, label in enumerate(corpus.labels) if label in known]
    return Corpus([corpus.texts[i] for i in rows], [corpus.labels[i] for i in rows])


def _indices(corpus: Corpus, classes: Sequence[str]) -> np.ndarray:
    """The labels as Training takes them."""
    index = {label: i for i, label in enumerate(classes)}
    if isinstance(corpus.labels[0], str):
        return np.array([index[label] for label in corpus.labels], np.intp)
    y = np.zeros((len(corpus.labels), len(classes)), bool)
    for row, labels in zip(y, corpus.labels, strict=True):
        row[[index[label] for label in labels]] = True
    return y


@contextmanager
def begin(
    out: Path | None,
    settings: dict[str, object],
    watch: Watch,
    *,
    train: Path | None = None,
    dev: Path | None = None,
    unlabelled: Path | None = None,
    corpus: str = "reviews",
    encoding: str = "utf-8",
    **reading: object,
) -> Iterator[Job]:
    """A new run in a folder that has none yet (None: a new one in runs/), which is made when all
    that was given has been read, and is the job's alone until the block ends.

    Inputs: train and dev, labelled files; without train a corpus, "reviews" for the embedded one or
    "nltk:" and a name, divided and written to the run's data/; without dev a tenth of train is held
    out; unlabelled, a file of texts to pre-train on; settings over the defaults; reading, how files
    are read, as read_labelled takes it.
    Raises FileExistsError where there is a run already, BlockingIOError where another process is
    at work, and what reading raises.
    """
    others = DESCRIPTION, f"0/{CHECKPOINT}"
    out = runs.new("classify", out, others)
    seed = complete(settings)["seed"]
    if settings.get("embeddings"):
        settings = settings | {"embeddings": str(Path(settings["embeddings"]).resolve())}
    if train is None:
        data = _make(corpus, seed)
        source = {"corpus": corpus, "encoding": "utf-8"} | PLAIN
        source |= {"train": "data/train.txt", "dev": "data/dev.txt", "unlabelled": None}
    else:
        reading = PLAIN | {"file_format": AUTO, "encoding": encoding} | reading
        files = train, dev, unlabelled
        data, source = _read(*files, seed, reading), {"corpus": None} | reading
        resolved = (path and str(path.resolve()) for path in files)
        source |= zip(FILES, resolved, strict=True)
    job = Job(out, data, source | {"sha256": _digest(data)}, settings, watch)
    with runs.at_work(out):
        runs.new("classify", out, others)  # another process may have been quicker
        if train is None:
            _write_data(out / "data", data)
        job.write_settings()
        yield job


def _make(corpus: str, seed: int) -> Data:
    if corpus == "reviews":
        n = sum(REVIEWS.values())
        return Data(*split(make_reviews(n, seed), REVIEWS["dev"] / n, seed))
    return _hold_out(nltk_corpus(corpus.removeprefix("nltk:")), seed)


def _read(
    train: Path,
    dev: Path | None,
    unlabelled: Path | None,
    seed: int,
    reading: dict[str, object],
) -> Data:
    data = _read_labelled(train, dev, seed, reading)
    if unlabelled is None:
        return data
    how = {name: reading[name] for name in ("encoding", "errors")}
    form, rows = read_rows(unlabelled, classes={*_classes(data.train)}, labelled=False, **how)
    texts = [row.text for row in rows if row.text]
    if not texts:
        raise ValueError(f"{unlabelled}: no texts")
    return data._replace(told=[*data.told, f"{unlabelled}: read as {form}"], unlabelled=texts)


def _read_labelled(train: Path, dev: Path | None, seed: int, reading: dict[str, object]) -> Data:
    told: list[str] = []
    corpus = read_labelled(train, multilabel=True, tell=told.append, **reading)
    several = any(len(labels) > 1 for labels in corpus.labels)
    if not several:
        corpus = corpus._replace(labels=[label for (label,) in corpus.labels])
    classes = _classes(corpus)
    if len(classes) < 2:
        raise ValueError(f"{train}: expected at least two classes, got 1, {classes[0]!r}")
    if dev is None:
        try:
            return _hold_out(corpus, seed)._replace(told=told)
        except ValueError as error:
            hint = "the first token of a line is read as its label"
            raise ValueError(f"{train}: {error}; {told[0] if told else hint}") from None
    known = {"classes": classes, "multilabel": several, "tell": told.append}
    held = read_labelled(dev, **known, **reading)
    if both := sum(map({*corpus.texts}.__contains__, held.texts)):
        told.append(f"{both:,} of {len(held.texts):,} texts of {dev} are also trained on")
    return Data(corpus, held, told)


def _hold_out(corpus: Corpus, seed: int) -> Data:
    left, held = split(corpus, HELD_OUT, seed)
    return Data(left._replace(skipped=corpus.skipped), held)


def _digest(data: Data) -> str:
    content: list[object] = [(corpus.labels, corpus.texts) for corpus in data[:2]]
    content += [data.unlabelled] if data.unlabelled else []
    content = json.dumps(content)
    return hashlib.sha256(content.encode()).hexdigest()


def _write_data(folder: Path, data: Data) -> None:
    folder.mkdir(exist_ok=True)
    storage.sweep(folder, r"(train|dev)\.txt")
    for name, corpus in zip(("train", "dev"), data, strict=False):
        lines = map("{} {}\n".format, corpus.labels, corpus.texts)
        with storage.writing(folder / f"{name}.txt", newline="\n") as file:
            file.writelines(lines)


def _read_run(folder: Path) -> tuple[dict[str, object], dict[str, object]]:
    """What run.json says: the settings, and where the data are."""
    content = runs.read(folder, "classify", KINDS)
    with storage.named(folder / runs.RUN, "a run of classify train"):
        source = runs.filled(content["data"], PLAIN | {"unlabelled": None})
        check({name: source[name] for name in SOURCE}, SOURCE)
        return of_file(content["settings"]), source


def _read_again(folder: Path) -> tuple[dict[str, object], dict[str, object], Data]:
    """The settings of a run, where its data are, and what it was trained with. Raises ValueError
    where that has changed."""
    settings, source = _read_run(folder)
    paths = [source[name] and folder / source[name] for name in FILES]
    data = _read(*paths, settings["seed"], {name: source[name] for name in READING})
    if _digest(data) != source["sha256"]:
        files = " or ".join(str(path) for path in paths if path)
        raise ValueError(f"{folder}: {files} is not what it was trained with")
    return settings, source, data


@contextmanager
def resume(folder: Path, given: dict[str, object], watch: Watch) -> Iterator[Job]:
    """The run in a folder, continued from its checkpoints, or begun again where there is none yet;
    given may change what is resumable. The folder is the job's alone until the block ends.

    Raises FileNotFoundError where there is no run or its data are gone, BlockingIOError where
    another process is at work in it, ValueError for other settings, another format, or where the
    data have changed.
    """
    runs.check_resumable(folder, given, SETTINGS)
    saved, source, data = _read_again(folder)
    settings = saved | given
    with runs.at_work(folder):
        job = Job(folder, data, source, settings, watch)
        job.write_settings()
        yield job


def evaluate(
    folder: Path, test: Path, *, name: str | None = None, unseen: bool = False, **reading: object
) -> dict:
    """Figures of a run on a labelled file, added to its metrics.json, with pictures, under a name
    (None: the file's, with its suffix where without it training's own figures would be replaced);
    unseen, whether labels that the model does not know are taken, for classes that it never says;
    reading, as read_labelled takes it.

    Returns: metrics.classifier_report's, or multilabel_report's. Raises ValueError for a name that
    is taken or no file's, and without unseen for labels that the model does not know.
    """
    runs.check_name(folder, name, RESERVED, OWN)
    with runs.looked_at(folder):
        model = TextModel.load(folder)
        known = {"classes": [*map(str, model.classes)], "multilabel": model.multilabel}
        corpus = read_labelled(test, **known, unseen=unseen, **reading)
        judged = _judge(model, corpus)
        if name is None:
            names = test.stem, test.name
            name = runs.free_name(folder, judged.figures, names, RESERVED, OWN)
        _keep(folder, judged, name)
        write_report(folder, name, model, corpus.texts, judged)
        return judged.figures


def _judge(model: TextModel, corpus: Corpus) -> Judged:
    """What a model says of labelled texts."""
    classes = [*map(str, model.classes)]
    unseen = sorted({*_classes(corpus)} - {*classes})
    classes += unseen  # which the model never says
    proba = np.pad(model.predict_proba(corpus.texts), ((0, 0), (0, len(unseen))))
    truth = _indices(corpus, classes), proba, classes
    if model.multilabel:
        thresholds = np.append(model.thresholds, np.ones(len(unseen)))
        return Judged(multilabel_report(*truth, thresholds), *truth)
    return Judged(classifier_report(*truth), *truth)


def _keep(folder: Path, judged: Judged, name: str) -> None:
    """Draw the pictures of figures and add these to metrics.json."""
    report, classes = judged.figures, judged.classes
    suffix = "" if name == OWN else f"-{name}"
    if report.get("confusion"):
        plots.plot_confusion(folder / f"confusion{suffix}.png", report["confusion"], classes)
    plots.plot_reliability(folder / f"reliability{suffix}.png", report)
    runs.add_metrics(folder, {name: report})


class Explained(NamedTuple):
    """An explanation, the class that it is of and, where it is known, the true labels."""

    explanation: Explanation
    c: int
    truth: str = ""


def explain(
    folder: Path,
    path: Path | str | None = None,
    *,
    label: str | None = None,
    count: int = 20,
    tell: Callable[[str], object] = lambda said: None,
    watch: Callable[[Sequence], Iterable] = iter,
    **reading: object,
) -> Iterator[Explained]:
    """What the words of texts mean to a run's model.

    Inputs: path, tell, reading, as predict takes them; without a path the texts that the training
    validated on, of these up to count that the model is most wrong about; label, the class to
    explain (None: each text's likeliest); watch, as explanation.explain takes it.
    Raises ValueError for a label that the model does not know, and what reading raises.
    """
    model = TextModel.load(folder)
    classes = [*map(str, model.classes)]
    if label is not None and label not in classes:
        raise ValueError(f"label: expected one of {', '.join(classes[:10])}, got {label!r}")
    if path is None:
        examples = _errors(folder, model, classes, count)
    else:
        examples = ((text, "") for text in texts_of(model, path, tell, reading))
    for text, truth in examples:
        explanation = explanation_of(model, text, watch=watch)
        c = int(explanation.proba.argmax()) if label is None else classes.index(label)
        yield Explained(explanation, c, truth)


def _errors(
    folder: Path, model: TextModel, classes: list[str], count: int
) -> Iterator[tuple[str, str]]:
    """The texts of dev with the highest losses among those whose labels are wrong, and the labels
    that are right."""
    corpus = _read_again(folder)[2].dev
    y, proba = _indices(corpus, classes), model.predict_proba(corpus.texts)
    wrong = y != model.decide(proba)
    wrong = wrong.any(axis=1) if model.multilabel else wrong
    losses = np.array([log_loss(y[i : i + 1], proba[i : i + 1]) for i in range(len(y))])
    for i in np.argsort(-np.where(wrong, losses, -1), kind="stable")[: min(count, wrong.sum())]:
        labels = corpus.labels[i]
        yield corpus.texts[i], labels if isinstance(labels, str) else SEVERAL.join(labels)
