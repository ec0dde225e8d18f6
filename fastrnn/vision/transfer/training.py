"""Training of torch networks, alike for every mode: steps, validation, checkpoints that resume bit
for bit.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from fastrnn import storage, torch_files
from fastrnn.optional import require
from fastrnn.settings import NUMBER, OBJECT, check, mapped, optional
from fastrnn.training import PROGRESS, Loop
from fastrnn.vision import weights
from fastrnn.vision.transfer.scores import AUXILIARY, check_targets, scores_of

if TYPE_CHECKING:
    import torch

FORMAT = 1
# Times the loss before training, or that of guessing: what no training that learns ends with.
DIVERGED = 10.0
LOWER = "a lower learning rate or more warm-up may help"
# Attributes of a Training that a checkpoint has as they are.
STATE = PROGRESS | {"pretrain": mapped(NUMBER), "best_state": optional(OBJECT)}
Batches = Iterable[tuple["torch.Tensor", "torch.Tensor"]]


def device_of(name: str) -> "torch.device":
    """The device for "auto" (CUDA where there is one), "cpu" or "cuda". Raises ValueError for CUDA
    where there is none."""
    torch = require("torch")
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ValueError("device: there is no CUDA device here")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def outputs(
    model: "torch.nn.Module",
    batches: Batches,
    device: "torch.device",
    amp: bool = False,
    *,
    mirrored: bool = False,
) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    """Scores (n, C) float32 of a network in evaluation mode, and classes (n,), batch by batch;
    mirrored, the means of those of the pictures (n, 3, H, W) and of their mirror images."""
    torch = require("torch")
    model.eval()
    for inputs, targets in batches:
        with torch.inference_mode(), torch.autocast(device.type, enabled=amp):
            inputs = inputs.to(device)
            scores, *_ = scores_of(model(inputs))
            if mirrored:
                scores = (scores + scores_of(model(inputs.flip(-1)))[0]) / 2
        yield scores.float(), targets.to(device)


def probabilities(
    model: "torch.nn.Module", batches: Batches, device: "torch.device", *, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Classes (N,) int64 and a network's probabilities (N, C) float32 of all batches; mirrored,
    outputs'."""
    torch = require("torch")
    rows, labels = zip(*outputs(model, batches, device, mirrored=mirrored), strict=True)
    return torch.cat(labels).cpu().numpy(), torch.cat(rows).softmax(dim=1).cpu().numpy()


def running_mean(model: "torch.nn.Module", decay: float) -> "torch.nn.Module":
    """A running mean of a network's weights and of what its batch normalisations have seen, in its
    `module`; at first it follows faster than the decay says, since it begins with random ones."""

    def mean(before: list, now: list, updates: "torch.Tensor") -> None:
        share = 1 - min(decay, (1 + int(updates)) / (10 + int(updates)))
        for old, new in zip(before, now, strict=True):
            if old.is_floating_point():
                old.lerp_(new, share)
            else:
                old.copy_(new)

    averaged = require("torch.optim.swa_utils").AveragedModel
    return averaged(model, multi_avg_fn=mean, use_buffers=True)


def train_mode(model: "torch.nn.Module") -> None:
    """Training mode for what is trained, evaluation mode for modules all of whose parameters are
    frozen: their batch normalisation would go on moving its statistics."""
    model.train()
    for module in model.modules():
        parameters = [*module.parameters()]
        if parameters and not any(w.requires_grad for w in parameters):
            module.eval()


class Totals:
    """Sums over examples of the loss and of what is right, and how many there were."""

    def __init__(self, loss: float = 0.0, right: int = 0, examples: int = 0) -> None:
        self.loss, self.right, self.examples = loss, right, examples

    def add(self, loss: float, scores: "torch.Tensor", targets: "torch.Tensor") -> None:
        """A batch with its mean loss."""
        self.loss += loss * len(targets)
        classes = targets if targets.ndim == 1 else targets.argmax(dim=1)
        self.right += int((scores.argmax(dim=1) == classes).sum())
        self.examples += len(targets)

    def means(self, phase: str) -> dict[str, float]:
        """Loss and accuracy, under the names of a phase. Raises ValueError for no examples."""
        if not self.examples:
            raise ValueError(f"dataloaders[{phase!r}]: expected examples, got none")
        n = self.examples
        return {f"{phase}_loss": self.loss / n, f"{phase}_accuracy": self.right / n}


class Training(Loop):
    """Trains a network in place; afterwards it has the weights of the best validated epoch, and is
    in evaluation mode.

    Parameters: model, on its device; batches_of(epoch, first), the (inputs, classes) of an epoch
    from batch number `first` on; val, those to validate on; criterion, the mean loss of a batch;
    optimizer; scheduler (None: constant rates), stepped after every iteration or, with each_epoch,
    every epoch; keep_start, whether the weights that it starts from may be the best; average, the
    decay of a running mean of the weights, which is what is validated and kept (0: the weights
    are); val_size, the number of val's examples if it is to be checked; amp, mixed precision;
    verbose, print losses and accuracies; the others are the Loop's.

    Attributes: pretrain, val's figures before training; of history train_loss, train_accuracy,
    val_loss, val_accuracy, score (the accuracy, ties broken by the loss); the others are the
    Loop's.
    """

    def __init__(
        self,
        model: "torch.nn.Module",
        batches_of: Callable[[int, int], Batches],
        val: Batches,
        criterion: Callable,
        optimizer: "torch.optim.Optimizer",
        scheduler: "torch.optim.lr_scheduler.LRScheduler | None",
        *,
        device: "torch.device",
        each_epoch: bool = False,
        keep_start: bool = False,
        average: float = 0.0,
        val_size: int | None = None,
        amp: bool = False,
        verbose: bool = False,
        **options,
    ) -> None:
        super().__init__(**options)
        self.model, self.batches_of, self.val = model, batches_of, val
        self.criterion, self.optimizer, self.scheduler = criterion, optimizer, scheduler
        self.device, self.amp, self.each_epoch = device, amp, each_epoch
        self.keep_start, self.val_size, self.verbose = keep_start, val_size, verbose
        if not each_epoch and self._of_plateaus():
            raise ValueError(
                "each_epoch: expected True for ReduceLROnPlateau, which looks at an epoch's figures"
            )
        self.average = running_mean(model, average) if average else None
        self.scaler = require("torch").amp.GradScaler(device.type, enabled=amp)
        self.totals = Totals()
        self._validated = 0  # examples
        self._chance = math.log(2)  # the loss of guessing
        self.pretrain: dict[str, float] | None = None
        self.best_state: dict[str, torch.Tensor] | None = None

    @property
    def judged(self) -> "torch.nn.Module":
        """The network that is validated and kept."""
        return self.model if self.average is None else self.average.module

    def start(self) -> None:
        """Validate the network that training begins with. Raises ValueError where val has not as
        many examples as it should have."""
        if self.pretrain is not None:
            return
        self.pretrain = self.validate()
        if self.val_size not in (None, self._validated):
            raise ValueError(
                f"dataset_sizes['val']: expected {self._validated}, the examples that its loader "
                f"gives, got {self.val_size}"
            )
        if self.keep_start:
            self.best_score = self.pretrain["score"]
            self.keep_best()
        if self.verbose:
            _print("on pretrain", self.pretrain, "val")

    def batches(self) -> Batches:
        """Those of the epoch from position, a number of batches, on, in training mode."""
        train_mode(self.model)
        return self.batches_of(self.epoch, self.position)

    def step(self, batch: tuple["torch.Tensor", "torch.Tensor"]) -> float:
        """Update the network by the gradients of a batch."""
        inputs, targets = (a.to(self.device) for a in batch)
        self.optimizer.zero_grad()
        with require("torch").autocast(self.device.type, enabled=self.amp):
            scores, *others = self._scores(inputs)
            check_targets("train", targets, self.criterion, scores.shape[1])
            loss = self.criterion(scores, targets)
            for auxiliary in others:
                loss = loss + AUXILIARY * self.criterion(auxiliary, targets)
        value = _finite(loss, f"at iteration {self.iteration + 1}")
        scale = self.scaler.get_scale()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        updated = self.scaler.get_scale() >= scale  # else the gradients overflowed
        if self.average is not None and updated:
            self.average.update_parameters(self.model)
        if self.scheduler is not None and not self.each_epoch and updated:
            self.scheduler.step()
        self.position += 1
        self.totals.add(value, scores.detach(), targets)
        return value

    def _scores(self, inputs: "torch.Tensor") -> tuple["torch.Tensor", ...]:
        try:
            return scores_of(self.model(inputs))
        except ValueError as error:
            if len(inputs) == 1 and "more than 1 value per channel" in str(error):
                raise ValueError(
                    "dataloaders['train']: a batch of one example, of which batch normalisation "
                    "cannot learn; choose another batch_size, or leave the last one out (drop_last)"
                ) from None
            raise

    def figures(self) -> dict[str, float]:
        """train_loss and train_accuracy of the epoch."""
        return self.totals.means("train")

    def validate(self) -> dict[str, float]:
        """val_loss, val_accuracy and score of the network as it stands."""
        totals = Totals()
        for scores, targets in outputs(self.judged, self.val, self.device, self.amp):
            check_targets("val", targets, self.criterion, scores.shape[1])
            loss = _finite(self.criterion(scores, targets), "on val")
            totals.add(loss, scores, targets)
            self._chance = math.log(scores.shape[1])
        figures, self._validated = totals.means("val"), totals.examples
        score = figures["val_accuracy"] - 1e-6 * min(figures["val_loss"], 1e3)
        return figures | {"score": score}

    def keep_best(self) -> None:
        """Remember the network's weights."""
        self.best_state = {k: w.clone() for k, w in self.judged.state_dict().items()}

    def end_epoch(self, validated: dict[str, float]) -> None:
        """Step a scheduler of epochs."""
        if self.scheduler is not None and self.each_epoch:
            self._step_scheduler(validated)
        self.totals = Totals()
        if self.verbose:
            _print(f"Epoch {self.epoch}/{self.num_epochs}", self.history[-1], "train", "val")

    def _of_plateaus(self) -> bool:
        plateaus = require("torch").optim.lr_scheduler.ReduceLROnPlateau
        return isinstance(self.scheduler, plateaus)

    def _step_scheduler(self, validated: dict[str, float]) -> None:
        if self._of_plateaus():
            loss = self.scheduler.mode == "min"
            self.scheduler.step(validated["val_loss" if loss else "val_accuracy"])
        else:
            self.scheduler.step()

    def finish(self) -> None:
        """The best weights are the network's, in evaluation mode. Raises FloatingPointError where
        the loss has ended far above what it began with."""
        end = self.history[-1]["train_loss"] if self.history else 0.0
        start = self.pretrain["val_loss"]
        if end > DIVERGED * max(start, self._chance):
            raise FloatingPointError(
                f"the training diverged: its loss rose from {start:.4g} to {end:.4g}; {LOWER}"
            )
        if self.best_state is not None:
            weights.give(self.model, self.best_state)
        self.model.eval()

    # ---- checkpoints -----------------------------------------------------------------------------

    def _parts(self) -> dict[str, object]:
        """What has a state of its own, by its name in a checkpoint."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        more = {"scheduler": self.scheduler, "average": self.average}
        return parts | {name: part for name, part in more.items() if part is not None}

    def save(self) -> None:
        """Write a checkpoint, if there is a file for it: the new one or the old one is whole."""
        if self.checkpoint is None:
            return
        torch = require("torch")
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {name: getattr(self, name) for name in STATE}
        state |= {"format": FORMAT, "identity": self.identity, "totals": vars(self.totals)}
        state["generators"] = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
        torch_files.write(self.checkpoint, state)

    def restore(self) -> None:
        """Continue from the checkpoint as if never interrupted.

        Raises ValueError where it is no checkpoint, or of another training.
        """
        torch, path = require("torch"), self.checkpoint
        state = torch_files.read(path, "a checkpoint")
        found = isinstance(state, dict) and (state.get("format"), state.get("identity"))
        if found != (FORMAT, self.identity):
            raise ValueError(f"{path}: of another training: its data or settings were others")
        with storage.named(path, "a checkpoint"):
            self._check_state(state)
        for name, part in self._parts().items():
            if state[name]:  # a scaler without mixed precision has none
                part.load_state_dict(state[name])
        for name in STATE:
            setattr(self, name, state[name])
        self.totals = Totals(**state["totals"])
        cpu, *cuda = state["generators"]
        torch.set_rng_state(cpu)
        if len(cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(cuda)

    def _check_state(self, state: dict[str, object]) -> None:
        """Raise ValueError or KeyError where a checkpoint cannot be of this training, before
        anything is changed."""
        check({name: state[name] for name in STATE}, STATE)
        Totals(**state["totals"])
        expected = {name: w.shape for name, w in self.model.state_dict().items()}
        for part in ("model", "best_state"):
            if state[part] is not None and expected != {n: w.shape for n, w in state[part].items()}:
                raise ValueError(f"{part}: expected the tensors of this network")
        missing = {*self._parts(), "generators"} - state.keys()
        if missing:
            raise ValueError(f"expected {', '.join(sorted(missing))}")


def _finite(loss: "torch.Tensor", when: str) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss became {value} {when}; {LOWER}")
    return value


def _print(title: str, figures: dict[str, float], *phases: str) -> None:
    print(title, "-" * len(title), sep="\n")
    for phase in phases:
        loss, accuracy = figures[f"{phase}_loss"], figures[f"{phase}_accuracy"]
        print(f"{phase} Loss: {loss:.4f} Acc: {accuracy:.4f}")
