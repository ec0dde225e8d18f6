"""What the commands of `fastrnn transfer` do, as functions: train, evaluate, predict.

A run's folder:
run.json                 settings, classes, and where the data are
model.safetensors        the trained network's state dict
metrics.json             figures of the training and of every evaluation
report.html              all that in a page, of what report.json keeps
checkpoint-MODE.pt       of freeze, finetune, or staged's both, to resume
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn import plots, runs, storage
from fastrnn.metrics import classifier_report
from fastrnn.optional import require
from fastrnn.settings import OBJECT, TEXT, check, decisive, listed
from fastrnn.vision import backbones
from fastrnn.vision.images import list_images, open_rgb
from fastrnn.vision.transfer import data, features, modes
from fastrnn.vision.transfer.data import Pictures
from fastrnn.vision.transfer.networks import new_network
from fastrnn.vision.transfer.plots import plot_predictions
from fastrnn.vision.transfer.report import write as write_report
from fastrnn.vision.transfer.settings import SETTINGS, complete, of_file, stages
from fastrnn.vision.transfer.training import Training, device_of, probabilities

if TYPE_CHECKING:
    import torch

MODEL = "model.safetensors"
# In metrics.json beside the evaluations, which have the names of their folders.
RESERVED = ("training", "pretrain")
OWN = "val"  # what training has validated on
# Of run.json, and of what it says of the data.
KINDS = {"settings": OBJECT, "classes": listed(TEXT), "data": OBJECT}
SOURCE = {"folder": TEXT, "sha256": TEXT}
BATCH = 32  # pictures that are evaluated together


def _no_bar(_description: str, _unit: str) -> data.Progress:
    return iter


class Job:
    """A training run in its folder, on the pictures in the folder base; the network is made before
    they are read, which takes longer."""

    def __init__(
        self,
        folder: Path,
        base: Path,
        settings: dict[str, object],
        cache: Path | None,
        bar: features.Bar,
    ) -> None:
        self.folder, self.base, self.settings = folder, base, settings
        self.cache, self.bar = cache, bar
        classes, _, _ = data.find_folders(base)
        self.device = device_of(settings["device"])
        to = backbones.preprocessing(settings["backbone"])
        self.to = data.resized(to, settings["image_size"])
        self.model, self.head = new_network(settings, len(classes))
        self._check_size()
        self.model.to(self.device)
        self.train, self.val = data.read_folders(base, bar("reading", "picture"))
        self.digest = data.digest(self.train, self.val)
        self.trainings: list[Training] = []

    def _check_size(self) -> None:
        """Whether the network reads pictures of that size, before any work."""
        torch, crop = require("torch"), self.to.crop
        try:
            with torch.no_grad():
                self.model(torch.zeros(1, 3, crop, crop))
        except Exception as error:  # whatever a layer raises
            raise ValueError(
                f"image_size: {self.settings['backbone']} reads no pictures of {crop} x {crop} "
                f"pixels ({error})"
            ) from None

    def summary(self) -> str:
        """What is about to be trained, in a line."""
        s, parameters = self.settings, sum(w.numel() for w in self.model.parameters())
        return (
            f"{self.folder}: {s['mode']} {s['backbone']}, {parameters:,} parameters, "
            f"{len(self.train.paths):,} pictures of {self.to.crop} pixels, {len(self.val.paths):,} "
            f"to validate, {len(self.train.classes)} classes, on {self.device.type}"
        )

    def write_settings(self) -> None:
        """Write run.json, before training."""
        source = {
            "folder": str(self.base),
            "train": len(self.train.paths),
            "val": len(self.val.paths),
            "sha256": self.digest,
        }
        content = {"settings": self.settings, "classes": self.train.classes, "data": source}
        runs.write(self.folder, "transfer", content)

    def run(self, on_iteration: Callable[[Training], None] | None = None) -> None:
        """Train to the end. Raises KeyboardInterrupt after a checkpoint on Ctrl-C."""
        identity = self._identity()
        for number, settings in enumerate(stages(self.settings)):
            options = {
                "checkpoint": self.folder / f"checkpoint-{settings['mode']}.pt",
                "identity": identity,
                "keep_start": number > 0,
                "on_iteration": on_iteration,
            }
            train = self._freeze if settings["mode"] == "freeze" else self._finetune
            self.trainings.append(train(settings, options))

    def _freeze(self, settings: dict[str, object], options: dict[str, object]) -> Training:
        def of(pictures: Pictures, views: int) -> features.Features:
            return features.of_pictures(
                self.model,
                self.head,
                pictures,
                self.to,
                views,
                self.device,
                name=settings["backbone"],
                batch_size=settings["batch_size"],
                workers=settings["workers"],
                cache=self.cache,
                bar=self.bar,
            )

        train, val = of(self.train, settings["views"]), of(self.val, 1)
        return modes.train_last_layer(self.head, train, val, settings, self.device, **options)

    def _finetune(self, settings: dict[str, object], options: dict[str, object]) -> Training:
        size, seed, workers = (settings[name] for name in ("batch_size", "seed", "workers"))
        transform = data.augmentation(self.to)
        return modes.train_all_layers(
            self.model,
            self.head,
            data.random_batches(self.train, transform, size, seed, workers),
            len(data.shuffled(len(self.train.paths), size, seed, 0)),
            data.loader(backbones.eval_transform(self.to), data.in_order(self.val, size), workers),
            settings,
            self.device,
            **options,
        )

    def _identity(self) -> str:
        """What a checkpoint has to be of: settings but those that may change, data, weights."""
        kept = decisive(self.settings, SETTINGS)
        weights = features.weights_digest(self.model, self.head)
        return hashlib.sha256(json.dumps([kept, self.digest, weights]).encode()).hexdigest()

    def finish(self) -> dict[str, dict]:
        """Write the model, metrics.json and the pictures; return the metrics."""
        state = {name: w.cpu().numpy() for name, w in self.model.state_dict().items()}
        storage.write_tensors(self.folder / MODEL, state)
        *earlier, last = self.trainings
        plots.plot_curves(self.folder / "curves.png", last.loss_history, last.history, "val")
        for training in earlier:
            path = self.folder / "curves-freeze.png"
            plots.plot_curves(path, training.loss_history, training.history, "val")
        epochs = [epoch for training in self.trainings for epoch in training.history]
        figures = {
            "pretrain": {"accuracy": self.trainings[0].pretrain["val_accuracy"]},
            "training": {"epochs": len(epochs), "seconds": sum(e["seconds"] for e in epochs)},
        }
        runs.add_metrics(self.folder, figures)
        run = Run(self.settings, self.train.classes, self.model, self.device)
        report, proba = _report(run, self.val, self.bar)
        _keep(self.folder, report, self.val, proba, OWN)
        write_report(self.folder, OWN, report, self.val, proba, self.trainings)
        return figures | {OWN: report}


@contextmanager
def begin(
    out: Path | None,
    folder: Path,
    given: dict[str, object],
    cache: Path | None = None,
    bar: features.Bar = _no_bar,
) -> Iterator[Job]:
    """A new run in a folder that has none yet (None: a new one in runs/), which is made when all
    pictures have been read, and is the job's alone until the block ends.

    Inputs: folder, with train/CLASS/* and val/CLASS/*; given, settings over the defaults; cache, a
    folder to keep features in (None: they are not kept).
    Raises FileExistsError where there is a run already, BlockingIOError where another process is
    at work, and what reading and building raise.
    """
    others = [f"checkpoint-{mode}.pt" for mode in ("freeze", "finetune")] + [MODEL, runs.METRICS]
    out = runs.new("transfer", out, others)
    settings = complete(given)
    if settings["weights"] not in ("default", "none"):
        settings["weights"] = str(Path(settings["weights"]).resolve())
    job = Job(out, folder.resolve(), settings, cache, bar)
    if cache and settings["mode"] != "finetune":
        cache.mkdir(parents=True, exist_ok=True)
    with runs.at_work(out):
        runs.new("transfer", out, others)  # another process may have been quicker
        job.write_settings()
        yield job


def _read_run(folder: Path) -> tuple[dict[str, object], list[str], dict[str, str]]:
    """What run.json says: the settings, the classes, and where the data are."""
    content = runs.read(folder, "transfer", KINDS)
    with storage.named(folder / runs.RUN, "a run of transfer train"):
        check({name: content["data"][name] for name in SOURCE}, SOURCE)
        return of_file(content["settings"]), content["classes"], content["data"]


@contextmanager
def resume(
    out: Path,
    folder: Path | None,
    given: dict[str, object],
    cache: Path | None = None,
    bar: features.Bar = _no_bar,
) -> Iterator[Job]:
    """The run in a folder, continued from its checkpoint, or begun again where there is none yet;
    folder is where its data have moved to, given may change what is resumable.
    The run's folder is the job's alone until the block ends.

    Raises FileNotFoundError where there is no run, BlockingIOError where another process is at work
    in it, ValueError for other settings, another format, or where the data have changed.
    """
    saved, _, source = _read_run(out)
    runs.check_resumable(out, given, SETTINGS)
    base = folder or Path(source["folder"])
    with runs.at_work(out):
        job = Job(out, base.resolve(), complete(saved | given), cache, bar)
        if job.digest != source["sha256"]:
            raise ValueError(f"{out}: {base} is not what it was trained with")
        job.write_settings()
        yield job


class Run(NamedTuple):
    """A trained network and what it needs."""

    settings: dict[str, object]
    classes: list[str]
    model: "torch.nn.Module"
    device: "torch.device"

    def transform(self) -> Callable:
        """From an RGB image of Pillow's to what the network reads."""
        to = backbones.preprocessing(self.settings["backbone"])
        return backbones.eval_transform(data.resized(to, self.settings["image_size"]))


def load(folder: Path, device: str = "auto") -> Run:
    """The trained network of a run. Raises FileNotFoundError where there is none, ValueError for a
    file that does not fit."""
    torch, (settings, classes, _) = require("torch"), _read_run(folder)
    path = folder / MODEL
    if not path.exists():
        raise FileNotFoundError(f"{folder}: no {MODEL}; was its training finished?")
    found = device_of(device)
    model, _ = new_network(settings | {"weights": "none"}, len(classes))
    state = {name: torch.from_numpy(w) for name, w in storage.read_tensors(path).items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path}: not the network that {runs.RUN} describes ({error})") from None
    return Run(settings, classes, model.to(found).eval(), found)


def evaluate(
    folder: Path,
    pictures: Path,
    *,
    name: str | None = None,
    device: str = "auto",
    bar: features.Bar = _no_bar,
) -> dict:
    """Figures of a run on a folder of folders, or on its val/ where it has one, added to the run's
    metrics.json, with pictures, under a name (None: the folder's, after that of its own folder
    where else training's own figures would be replaced; val for the run's own).

    Returns: metrics.classifier_report's. Raises ValueError for a name that is taken or no file's,
    and for classes that the run lacks.
    """
    _, classes, data_source = _read_run(folder)
    own = Path(data_source["folder"]) / "val"
    source = pictures / "val" if (pictures / "val").is_dir() else pictures
    runs.check_name(folder, name, RESERVED, OWN)
    found = data.find_pictures(source, classes)
    with runs.looked_at(folder):
        run = load(folder, device)
        read = data.read_pictures(found, run.classes, bar("reading", "picture"))
        report, proba = _report(run, read, bar)
        if name is None:
            place = pictures.resolve()
            candidates = place.name, f"{place.parent.name}-{place.name}"
            if source.resolve() == own.resolve():
                candidates = OWN, *candidates
            name = runs.free_name(folder, report, candidates, RESERVED, OWN)
        _keep(folder, report, read, proba, name)
        write_report(folder, name, report, read, proba)
        return report


def _report(run: Run, pictures: Pictures, bar: features.Bar) -> tuple[dict, np.ndarray]:
    """Figures of a run on pictures, and their probabilities (N, C)."""
    batches = data.loader(run.transform(), data.in_order(pictures, BATCH))
    y, proba = probabilities(run.model, bar("evaluating", "batch")(batches), run.device)
    return classifier_report(y, proba, pictures.classes), proba


def _keep(folder: Path, report: dict, pictures: Pictures, proba: np.ndarray, name: str) -> None:
    """Draw the pictures of a report and add it to metrics.json."""
    suffix = "" if name == OWN else f"-{name}"
    confusion = folder / f"confusion{suffix}.png"
    plots.plot_confusion(confusion, report["confusion"], pictures.classes)
    plot_predictions(folder / f"predictions{suffix}.png", pictures, proba)
    runs.add_metrics(folder, {name: report})


class Prediction(NamedTuple):
    """The class of a picture file and its probability, or why the file cannot be read."""

    file: str
    label: str | None = None
    probability: float | None = None
    problem: str | None = None


def predict(run: Run, images: Path, *, progress: data.Progress = iter) -> Iterator[Prediction]:
    """Classify the pictures of a folder, some together as they are read; those that cannot be read
    come as soon as that is known. Raises what list_images does."""
    torch, transform = require("torch"), run.transform()
    names, batch = [], []
    paths = list_images(images)
    for i, path in enumerate(progress(paths), 1):
        try:
            batch.append(transform(open_rgb(path)))
            names.append(path.name)
        except OSError as error:
            yield Prediction(path.name, problem=str(error).removeprefix(f"{path}: "))
        if batch and (len(batch) == BATCH or i == len(paths)):
            labels = torch.zeros(len(batch), dtype=torch.int64)
            _, proba = probabilities(run.model, [(torch.stack(batch), labels)], run.device)
            for name, row in zip(names, proba, strict=True):
                best = int(np.argmax(row))
                yield Prediction(name, run.classes[best], float(row[best]))
            names, batch = [], []
