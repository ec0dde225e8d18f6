"""What is trained: the last layer, on features that are computed once, or all layers."""

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING

from fastrnn.optional import require
from fastrnn.vision.transfer import features, networks
from fastrnn.vision.transfer.data import shuffled
from fastrnn.vision.transfer.mixing import mixed
from fastrnn.vision.transfer.training import Batches, Training

if TYPE_CHECKING:
    import torch


def train_all_layers(
    model: "torch.nn.Module",
    head: "torch.nn.Module",
    batches: Callable[[int, int], Batches],
    iterations_per_epoch: int,
    val: Batches,
    settings: dict[str, object],
    device: "torch.device",
    **options,
) -> Training:
    """Train a network, changed, whose last layer is head, with discriminative learning rates; the
    other inputs are a Training's."""
    names = ("learning_rate", "layer_decay", "head_factor", "weight_decay")
    mixing = {name: settings[name] for name in ("mixup", "cutmix", "seed")}
    batches = mixed(batches, classes=head.out_features, **mixing)
    groups = networks.parameter_groups(model, head, *(settings[name] for name in names))
    amp = device.type == "cuda" if settings["amp"] is None else settings["amp"]
    options |= {"amp": amp}
    return _train(model, groups, batches, iterations_per_epoch, val, settings, device, options)


def train_last_layer(
    head: "torch.nn.Linear",
    train: features.Features,
    val: features.Features,
    settings: dict[str, object],
    device: "torch.device",
    **options,
) -> Training:
    """Train a network's last layer, changed, on what it reads, of which each batch draws a view an
    example; options are a Training's.

    It learns on features standardised by train's mean and deviation, and then takes these two into
    its weights.
    """
    torch = require("torch")
    mean, std = features.moments(train.rows)
    rows, val_rows = (((f.rows - mean) / std).to(device) for f in (train, val))
    layer = deepcopy(head)
    model = torch.nn.Sequential(torch.nn.Dropout(settings["dropout"]), layer).to(device)
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    groups = [{"params": [*layer.parameters()], "lr": rate, "weight_decay": decay}]
    count, size, seed = rows.shape[1], settings["batch_size"], settings["seed"]
    batches = features.random_batches(rows, train.labels.to(device), size, seed)
    val_batches = [*zip(val_rows, val.labels, strict=True)]
    iterations = len(shuffled(count, size, seed, 0))
    training = _train(model, groups, batches, iterations, val_batches, settings, device, options)
    networks.fold(layer, mean.to(device), std.to(device), into=head)
    return training


def _train(model, groups, batches, iterations, val, settings, device, options) -> Training:
    torch = require("torch")
    optimizer = torch.optim.AdamW(groups)
    factor = networks.warmup_cosine(settings["epochs"] * iterations, settings["warmup"])
    training = Training(
        model,
        batches,
        val,
        torch.nn.CrossEntropyLoss(label_smoothing=settings["label_smoothing"]),
        optimizer,
        torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
        device=device,
        num_epochs=settings["epochs"],
        iterations_per_epoch=iterations,
        patience=settings["patience"] or None,
        average=settings["average"],
        **options,
    )
    if training.checkpoint and training.checkpoint.exists():
        training.restore()
    training.train()
    return training
