"""What the commands of `fastrnn transfer` that change a run do, as functions: train, evaluate.

A run's folder:
run.json                 settings, classes, and where the data are
model.safetensors        the trained network's state dict
metrics.json             figures of the training and of every evaluation
report.html              all that in a page, of what report.json keeps
predictions.csv          what it says of every picture validated; of evaluations with their names
pictures.csv             what was trained and validated on
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
from fastrnn.settings import OBJECT, TEXT, check, decisive, integer, listed
from fastrnn.vision import backbones, weights
from fastrnn.vision.images import NAMED, left_out, some
from fastrnn.vision.transfer import data, features, inventory, modes
from fastrnn.vision.transfer.data import Pictures
from fastrnn.vision.transfer.networks import new_network
from fastrnn.vision.transfer.plots import plot_predictions
from fastrnn.vision.transfer.prediction import BATCH, write_predictions
from fastrnn.vision.transfer.report import write as write_report
from fastrnn.vision.transfer.settings import SETTINGS, complete, of_file, stages
from fastrnn.vision.transfer.training import Training, device_of

if TYPE_CHECKING:
    import torch

MODEL, PICTURES = "model.safetensors", "pictures.csv"
# In metrics.json beside the evaluations, which have the names of their folders.
RESERVED = ("training", "pretrain")
OWN = "val"  # what training has validated on
# Of run.json, and of what it says of the data.
KINDS = {"settings": OBJECT, "classes": listed(TEXT), "data": OBJECT}
SOURCE = {"folder": TEXT, "sha256": TEXT}
Note = Callable[[str], object]


def _no_bar(_description: str, _unit: str) -> data.Progress:
    return iter


class Job:
    """A training run in its folder, on the pictures in the folder base, which began with so many
    epochs; the network is made before they are read, which takes longer."""

    def __init__(
        self,
        folder: Path,
        base: Path,
        settings: dict[str, object],
        cache: Path | None,
        bar: features.Bar,
        note: Note,
        first_epochs: int,
    ) -> None:
        self.folder, self.base = folder, base
        self.cache, self.bar, self.note, self.first_epochs = cache, bar, note, first_epochs
        self.found = data.find_folders(base, settings["val_share"], settings["seed"])
        self.settings = settings | {"val_share": self.found.val_share}
        self.device = device_of(settings["device"])
        to = backbones.preprocessing(settings["backbone"])
        self.to = data.resized(to, settings["image_size"])
        self.model, self.head = new_network(settings, len(self.found.classes), note)
        self._check_size()
        self.model.to(self.device)
        self.known: features.Known | None = None  # of freeze
        self.train, self.val = self._look()
        self.digest = data.digest(self.train, self.val)
        self._tell()
        self.trainings: list[Training] = []

    def _look(self) -> tuple[Pictures, Pictures]:
        """Open every picture once; of freeze also compute what is learnt from."""
        classes, train, val, _, _ = self.found
        paths, skip = [path for path, _ in train + val], self.settings["skip_unreadable"]
        if self.settings["mode"] == "finetune":
            seen = data.look(paths, data.enough(self.to), self.bar("reading", "picture"))
        else:
            views = self.settings["views"]
            counts = dict.fromkeys((path for path, _ in val), 1 + self.settings["tta"])
            counts |= dict.fromkeys((path for path, _ in train), views)
            self.known, seen = _features(
                self.model,
                self.head,
                counts,
                self.to,
                self.device,
                self.bar("reading", "picture"),
                name=self.settings["backbone"],
                batch_size=self.settings["batch_size"],
                workers=self.settings["workers"],
                cache=self.cache,
                progress=self.bar("features", "batch"),
            )
        data.check_readable(train + val, seen, skip, self.note)
        parts = [data.pictures_of(part, classes, seen, self.base) for part in (train, val)]
        for part, name in zip(parts, ("train", "val"), strict=True):
            lost = {label for _, label in getattr(self.found, name)} - {*part.labels}
            if lost:
                raise OSError(f"{name}: no picture of class {classes[min(lost)]!r} can be read")
        return tuple(parts)

    def _tell(self) -> None:
        """Note what of the data may not be as it is thought to be."""
        if self.found.others:
            self.note(left_out(self.found.others, self.base))
        if self.found.val_share is not None:
            self.note(
                f"no folder val: {len(self.val.paths)} of "
                f"{len(self.val.paths) + len(self.train.paths)} pictures are set aside to validate"
            )
        _tell_trained_on(self.val, self.train.keys, self.train.pixels, self.note)
        _tell_absent(self.val, self.note)

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
        """Write run.json, and which pictures there are, before training."""
        source = {
            "folder": str(self.base),
            "train": len(self.train.paths),
            "val": len(self.val.paths),
            "sha256": self.digest,
        }
        content = {"settings": self.settings, "classes": self.train.classes, "data": source}
        content["begun"] = {"epochs": self.first_epochs}
        runs.write(self.folder, "transfer", content)
        inventory.write(self.folder / PICTURES, self.train, self.val)

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
        train, val = self.known.of(self.train, settings["views"]), self.known.of(self.val, 1)
        return modes.train_last_layer(self.head, train, val, settings, self.device, **options)

    def _finetune(self, settings: dict[str, object], options: dict[str, object]) -> Training:
        size, seed, workers = (settings[name] for name in ("batch_size", "seed", "workers"))
        at_least, plain = data.enough(self.to), backbones.eval_transform(self.to)
        to_train = data.Reader(data.augmentation(self.to), at_least)
        return modes.train_all_layers(
            self.model,
            self.head,
            data.random_batches(self.train, to_train, size, seed, workers),
            len(data.shuffled(len(self.train.paths), size, seed, 0)),
            data.loader(data.Reader(plain, at_least), data.in_order(self.val, size), workers),
            settings,
            self.device,
            **options,
        )

    def _identity(self) -> str:
        """What a checkpoint has to be of: settings but those that may change, data, weights."""
        # More epochs than it began with make it no other training.
        begun = SETTINGS | {"epochs": SETTINGS["epochs"]._replace(resumable=False)}
        kept = decisive(self.settings | {"epochs": self.first_epochs}, begun)
        content = [kept, self.digest, features.weights_digest(self.model, self.head)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

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
        known = self.known if self.settings["mode"] == "freeze" else None
        report, proba = _report(run, self.head, self.val, known, self.bar)
        _keep(self.folder, report, self.val, proba, OWN)
        write_report(self.folder, OWN, report, self.val, proba, self.trainings)
        return figures | {OWN: report}


@contextmanager
def begin(
    out: Path | str | None,
    folder: Path | str,
    given: dict[str, object],
    cache: Path | str | None = None,
    bar: features.Bar = _no_bar,
    note: Note = lambda _: None,
) -> Iterator[Job]:
    """A new run in a folder that has none yet (None: a new one in runs/), which is made when all
    pictures have been read, and is the job's alone until the block ends.

    Inputs: folder, as data.find_folders takes it; given, settings over the defaults; cache, a
    folder to keep features in (None: they are not kept); note gets a line on what was not expected
    of the pictures.
    Raises FileExistsError where there is a run already, BlockingIOError where another process is
    at work, and what reading and building raise.
    """
    others = [f"checkpoint-{mode}.pt" for mode in ("freeze", "finetune")] + [MODEL, runs.METRICS]
    out = runs.new("transfer", out and Path(out), others)
    cache = cache and Path(cache)
    settings = complete(given)
    if settings["weights"] not in ("default", "none"):
        settings["weights"] = str(Path(settings["weights"]).resolve())
    job = Job(out, Path(folder).resolve(), settings, cache, bar, note, settings["epochs"])
    with runs.at_work(out):
        runs.new("transfer", out, others)  # another process may have been quicker
        job.write_settings()
        yield job


def _read_run(folder: Path) -> tuple[dict[str, object], list[str], dict[str, object]]:
    """What run.json says: the settings, the classes, and where the data are; and how many epochs
    it began with."""
    content = runs.read(folder, "transfer", KINDS)
    with storage.named(folder / runs.RUN, "a run of transfer train"):
        check({name: content["data"][name] for name in SOURCE}, SOURCE)
        begun = content.get("begun", {})
        check(begun, {"epochs": integer(1)})
        settings = of_file(content["settings"])
        begun = {"epochs": settings["epochs"]} | begun
        return settings, content["classes"], content["data"] | begun


@contextmanager
def resume(
    out: Path | str,
    folder: Path | str | None,
    given: dict[str, object],
    cache: Path | str | None = None,
    bar: features.Bar = _no_bar,
    note: Note = lambda _: None,
) -> Iterator[Job]:
    """The run in a folder, continued from its checkpoint, or begun again where there is none yet;
    folder is where its data have moved to, given may change what is resumable.
    The run's folder is the job's alone until the block ends.

    Raises FileNotFoundError where there is no run, BlockingIOError where another process is at work
    in it, ValueError for other settings, another format, or where the data have changed.
    """
    out, cache = Path(out), cache and Path(cache)
    saved, _, source = _read_run(out)
    runs.check_resumable(out, given, SETTINGS)
    base = Path(folder or source["folder"])
    with runs.at_work(out):
        settings, begun = complete(saved | given), source["epochs"]
        job = Job(out, base.resolve(), settings, cache, bar, note, begun)
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

    def preprocessing(self) -> backbones.Preprocessing:
        """What its pictures are made before it reads them."""
        to = backbones.preprocessing(self.settings["backbone"])
        return data.resized(to, self.settings["image_size"])

    @property
    def views(self) -> int:
        """As how many a picture is classified: itself, perhaps its mirror image."""
        return 1 + self.settings["tta"]

    def transform(self) -> Callable:
        """From an RGB image of Pillow's to what the network reads."""
        return backbones.eval_transform(self.preprocessing())


def load(folder: Path | str, device: str = "auto") -> Run:
    """The trained network of a run. Raises FileNotFoundError where there is none, ValueError for a
    file that does not fit."""
    return _load(Path(folder), device)[0]


def _load(folder: Path, device: str) -> tuple[Run, "torch.nn.Module"]:
    """The trained network, and its last layer."""
    torch, (settings, classes, _) = require("torch"), _read_run(folder)
    path = folder / MODEL
    if not path.exists():
        raise FileNotFoundError(f"{folder}: no {MODEL}; was its training finished?")
    found = device_of(device)
    model, head = new_network(settings | {"weights": "none"}, len(classes))
    state = {name: torch.from_numpy(w) for name, w in storage.read_tensors(path).items()}
    try:
        weights.give(model, state)
    except ValueError as error:
        raise ValueError(f"{path}: not the network that {runs.RUN} describes ({error})") from None
    return Run(settings, classes, model.to(found).eval(), found), head


def evaluate(
    folder: Path | str,
    pictures: Path | str,
    *,
    name: str | None = None,
    device: str = "auto",
    skip_unreadable: bool = False,
    bar: features.Bar = _no_bar,
    note: Note = lambda _: None,
) -> dict:
    """Figures of a run on a folder of folders, or on its val/ or test/ where it has one, added to
    the run's metrics.json, with pictures and a table, under a name (None: the folder's, after that
    of its own folder where else training's own figures would be replaced; val for the run's own).

    Returns: metrics.classifier_report's. Raises ValueError for a name that is taken or no file's,
    and for classes that the run lacks, OSError for pictures that cannot be read, unless these are
    to be skipped.
    """
    folder, pictures = Path(folder), Path(pictures)
    settings, classes, source = _read_run(folder)
    runs.check_name(folder, name, RESERVED, OWN)
    found, others, is_own = _to_evaluate(pictures, classes, settings, Path(source["folder"]))
    with runs.looked_at(folder):
        trained, (run, head) = inventory.read(folder / PICTURES), _load(folder, device)
        counts = dict.fromkeys((path for path, _ in found), run.views)
        known, seen = _read_features(run, head, counts, bar)
        data.check_readable(found, seen, skip_unreadable, note)
        read = data.pictures_of(found, classes, seen, pictures)
        if others:
            note(left_out(others, pictures))
        _tell_trained_on(read, *trained, note)
        _tell_absent(read, note)
        report, proba = _report(run, head, read, known, bar)
        if name is None:
            place = pictures.resolve()
            candidates = place.name, f"{place.parent.name}-{place.name}"
            if is_own:
                candidates = OWN, *candidates
                report = _as_before(report, runs.read_metrics(folder).get(OWN))
            name = runs.free_name(folder, report, candidates, RESERVED, OWN)
        _keep(folder, report, read, proba, name)
        write_report(folder, name, report, read, proba)
        return report


def _to_evaluate(
    folder: Path, classes: list[str], settings: dict[str, object], own: Path
) -> tuple[list[tuple[Path, int]], list[Path], bool]:
    """What there is to evaluate in a folder, files that are no pictures, and whether it is what the
    training, of the folder own, has validated on."""
    own_val, share = data.split_folder(own, data.VAL), settings["val_share"]
    if share is not None and own_val is None and folder.resolve() == own:
        found = data.find_folders(folder, share, settings["seed"])
        return found.val, found.others, found.classes == classes
    split = data.split_folder(folder, data.VAL) or data.split_folder(folder, data.TEST) or folder
    found, others = data.find_pictures(split, classes)
    return found, others, own_val is not None and split.resolve() == own_val.resolve()


def _as_before(report: dict, before: dict | None) -> dict:
    """The figures as they were where these are the same but for the last bits, which depend on the
    pictures that the network reads together."""
    same = before is not None and report["confusion"] == before.get("confusion")
    return before if same and abs(report["log_loss"] - before["log_loss"]) < 1e-4 else report


def _features(
    model, head, counts: dict[Path, int], to, device, reading: data.Progress, **options
) -> tuple[features.Known, data.Seen]:
    """Features of picture files, of each so many views, by their content; and what has been seen
    of them."""
    keys: dict[Path, str] = {}
    problems: dict[Path, str] = {}
    wanted: dict[str, tuple[Path, int]] = {}
    for path in reading([*counts]):
        try:
            key = keys[path] = data.file_key(path)
        except OSError as error:
            problems[path] = str(error)
            continue
        _, before = wanted.get(key, (path, 0))
        wanted[key] = path, max(before, counts[path])
    known = features.look(model, head, wanted, to, device, **options)
    problems |= {path: known.problems[key] for path, key in keys.items() if key in known.problems}
    pixels = {path: known.pixels[key] for path, key in keys.items() if key not in known.problems}
    return known, data.Seen(keys, pixels, problems)


def _read_features(run, head, counts, bar) -> tuple[features.Known, data.Seen]:
    return _features(
        run.model,
        head,
        counts,
        run.preprocessing(),
        run.device,
        bar("reading", "picture"),
        name=run.settings["backbone"],
        batch_size=BATCH,
        progress=bar("evaluating", "batch"),
    )


def _report(
    run: Run, head, pictures: Pictures, known: features.Known | None, bar: features.Bar
) -> tuple[dict, np.ndarray]:
    """Figures of a run on pictures, of which features may be known already, and their
    probabilities (N, C)."""
    if known is None:
        known, _ = _read_features(run, head, dict.fromkeys(pictures.paths, run.views), bar)
    rows, labels = known.of(pictures, run.views)
    # Of a linear layer the mean of scores is the score of the mean.
    proba = features.head_probabilities(head, rows.mean(dim=0), BATCH, run.device)
    return classifier_report(labels[0].numpy(), proba, pictures.classes), proba


def _tell_trained_on(pictures: Pictures, keys, pixels, note: Note) -> None:
    if both := data.seen_before(pictures, keys, pixels):
        names = pictures.names()
        note(
            f"{len(both)} of {len(names)} pictures to validate are also trained on, so figures "
            f"are too good: {some([names[i] for i in both[:NAMED]], len(both))}"
        )


def _tell_absent(pictures: Pictures, note: Note) -> None:
    if names := data.absent(pictures):
        shown = some([*map(repr, names[:NAMED])], len(names))
        note(f"no pictures to validate of {shown}: macro F1 is the mean of the other classes")


def _keep(folder: Path, report: dict, pictures: Pictures, proba: np.ndarray, name: str) -> None:
    """Draw the pictures of a report, write its table, and add it to metrics.json."""
    suffix = "" if name == OWN else f"-{name}"
    confusion = folder / f"confusion{suffix}.png"
    plots.plot_confusion(confusion, report["confusion"], pictures.classes)
    plot_predictions(folder / f"predictions{suffix}.png", pictures, proba)
    write_predictions(folder / f"predictions{suffix}.csv", pictures, proba)
    runs.add_metrics(folder, {name: report})
