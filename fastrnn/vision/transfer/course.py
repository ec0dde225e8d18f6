"""The course's functions, on any DataLoader: train a network, all of a published one, or its last
layer."""

from collections.abc import Callable, Mapping, Sequence
from operator import length_hint
from typing import TYPE_CHECKING

from fastrnn.optional import require
from fastrnn.vision.transfer.features import of_loader
from fastrnn.vision.transfer.modes import train_all_layers, train_last_layer
from fastrnn.vision.transfer.networks import new_network
from fastrnn.vision.transfer.settings import complete
from fastrnn.vision.transfer.training import Batches, Training
from fastrnn.vision.weights import silent

if TYPE_CHECKING:
    import torch


def train_model(
    device: "torch.device | str",
    dataloaders: Mapping[str, Batches],
    dataset_sizes: Mapping[str, int],
    model: "torch.nn.Module",
    criterion: Callable,
    optimizer: "torch.optim.Optimizer",
    scheduler: "torch.optim.lr_scheduler.LRScheduler | None",
    num_epochs: int = 25,
    *,
    each_epoch: bool = True,
    patience: int | None = None,
    amp: bool = False,
    verbose: bool = True,
    on_iteration: Callable[[Training], None] | None = None,
) -> "torch.nn.Module":
    """Train a network, validating it before the first epoch and after each.

    Inputs: dataloaders, of (inputs, classes), and dataset_sizes, both by "train" and "val"; model,
    changed; modules all of whose parameters are frozen stay in evaluation mode, and auxiliary
    classifiers learn, too; criterion, the mean loss of a batch; scheduler, stepped after every
    epoch, ReduceLROnPlateau with val's loss or accuracy, or, without each_epoch, iteration (None:
    constant rates); num_epochs, 0 only to validate; patience, epochs without a better accuracy
    before it stops; amp, mixed precision; verbose, print losses and accuracies.
    Returns: model in evaluation mode, with the weights of the epoch of the best validation
    accuracy. Raises ValueError for a missing phase, where dataset_sizes is not val's number of
    examples, for a class that has no score, and for a batch of which batch normalisation cannot
    learn; TypeError for a model that returns no scores; FloatingPointError where the loss is not
    finite or has risen far above what it was before training.
    """
    _check_phases(dataloaders, dataset_sizes)
    device = require("torch").device(device)
    training = Training(
        model.to(device),
        lambda epoch, first: dataloaders["train"],
        dataloaders["val"],
        criterion,
        optimizer,
        scheduler,
        device=device,
        num_epochs=num_epochs,
        iterations_per_epoch=length_hint(dataloaders["train"]),
        each_epoch=each_epoch,
        patience=patience,
        val_size=dataset_sizes["val"],
        amp=amp,
        on_iteration=on_iteration,
        verbose=verbose,
    )
    training.train()
    if verbose:
        _report(training)
    return model


def finetune(
    device: "torch.device | str",
    dataloaders: Mapping[str, Batches],
    dataset_sizes: Mapping[str, int],
    class_names: Sequence[str],
    *,
    backbone: str = "resnet18",
    weights: str = "default",
    num_epochs: int | None = None,
    seed: int = 0,
    verbose: bool = True,
    on_iteration: Callable[[Training], None] | None = None,
    **settings: object,
) -> "torch.nn.Module":
    """A published network with a new last layer, all of whose layers are trained.

    Inputs: dataloaders, of (pictures as the weights want them, classes), and dataset_sizes, both by
    "train" and "val"; class_names; backbone and weights, as backbones.build takes them; num_epochs
    (None: what is tuned); settings, others of settings.SETTINGS. Seeds torch's generator.
    Returns: the network, in evaluation mode, with the weights of the epoch of the best validation
    accuracy. Raises as train_model and backbones.build do, and ValueError for settings.
    """
    _check_phases(dataloaders, dataset_sizes)
    settings |= {"mode": "finetune", "backbone": backbone, "weights": weights, "seed": seed}
    report = print if verbose else silent
    settings, device, model, head = _begin(device, class_names, settings, num_epochs, report)
    train, val = dataloaders["train"], dataloaders["val"]
    options = {"val_size": dataset_sizes["val"], "on_iteration": on_iteration, "verbose": verbose}
    training = train_all_layers(
        model, head, lambda epoch, first: train, len(train), val, settings, device, **options
    )
    if verbose:
        _report(training)
    return model


def freeze(
    device: "torch.device | str",
    dataloaders: Mapping[str, Batches],
    dataset_sizes: Mapping[str, int],
    class_names: Sequence[str],
    *,
    backbone: str = "resnet18",
    weights: str = "default",
    num_epochs: int | None = None,
    seed: int = 0,
    verbose: bool = True,
    on_iteration: Callable[[Training], None] | None = None,
    **settings: object,
) -> "torch.nn.Module":
    """A published network of which only the last layer, a new one, is trained.

    What this layer reads is computed once: in as many passes over the training DataLoader as the
    setting `views` says, each of which is as much augmented as the DataLoader's transform makes it.
    Afterwards no other layer's weights want gradients. Inputs, Returns, Raises: finetune's.
    """
    _check_phases(dataloaders, dataset_sizes)
    settings |= {"mode": "freeze", "backbone": backbone, "weights": weights, "seed": seed}
    report = print if verbose else silent
    settings, device, model, head = _begin(device, class_names, settings, num_epochs, report)
    train = of_loader(model, head, dataloaders["train"], device, settings["views"])
    val = of_loader(model, head, dataloaders["val"], device, 1)
    options = {"val_size": dataset_sizes["val"], "on_iteration": on_iteration, "verbose": verbose}
    training = train_last_layer(head, train, val, settings, device, **options)
    model.requires_grad_(False)
    head.requires_grad_(True)
    if verbose:
        _report(training)
    return model


def _begin(device, class_names, settings, num_epochs, report):
    """All settings, the device, a new network on it, and its last layer."""
    if num_epochs is not None:
        settings = settings | {"epochs": num_epochs}
    settings, device = complete(settings), require("torch").device(device)
    model, head = new_network(settings, len(class_names), report)
    return settings, device, model.to(device), head


def _check_phases(*by_phase: Mapping[str, object]) -> None:
    for name, given in zip(("dataloaders", "dataset_sizes"), by_phase, strict=True):
        if not {"train", "val"} <= given.keys():
            raise ValueError(f"{name}: expected train and val, got {', '.join(given) or 'neither'}")


def _report(training: Training) -> None:
    before = training.pretrain["val_accuracy"]
    best = max((epoch["val_accuracy"] for epoch in training.history), default=before)
    seconds = sum(epoch["seconds"] for epoch in training.history)
    print(f"Training complete in {seconds // 60:.0f}m {seconds % 60:.0f}s")
    print(f"val Acc on pretrain: {before:.6f}\nBest val Acc: {best:.6f}")
