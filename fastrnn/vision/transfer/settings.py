"""Settings of a transfer, from which `fastrnn transfer train` has its options."""

from fastrnn.settings import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Kind,
    Setting,
    completed,
    integer,
    number,
    one_of,
    optional,
    recorded,
)

MODES = ("freeze", "finetune", "staged")
STRING = Kind("a string", lambda v: isinstance(v, str))
FACTOR = number("a number in (0, 1]", lambda v: 0 < v <= 1)
BOOL = Kind("True or False", lambda v: isinstance(v, bool), bool)

# Tuned on the course's ants and bees; docs/transfer.md has the trials. Checkpoints depend on the
# order.
SETTINGS = {
    "backbone": Setting(
        "squeezenet1_1", STRING, "A classification network of torchvision's.", heading="Model"
    ),
    "weights": Setting(
        "default",
        STRING,
        "default (torchvision downloads them), a file, or none (random).",
        heading="Model",
    ),
    "mode": Setting(
        "freeze",
        one_of(*MODES),
        "What is trained: the last layer, all, or one after the other.",
        heading="Model",
    ),
    "image_size": Setting(
        None,
        optional(integer(1)),
        "Pixels that the network sees. [the weights' own]",
        heading="Model",
    ),
    "val_share": Setting(
        None,
        optional(number("a number in (0, 1)", lambda v: 0 < v < 1)),
        "Share of each class to validate on, without DIR/val. [0.2]",
        heading="Pictures",
        earlier=None,
    ),
    "skip_unreadable": Setting(
        False,
        BOOL,
        "Leave out pictures that cannot be read, and name them.",
        heading="Pictures",
        earlier=False,
    ),
    "views": Setting(
        4, integer(1), "As which a picture is learnt: itself, mirrored, random; freeze."
    ),
    "dropout": Setting(0.5, SHARE, "Of what the last layer reads; freeze."),
    "epochs": Setting(
        60,
        integer(1),
        "Most passes over the pictures.",
        {"finetune": 12, "staged": 10},
        resumable=True,
    ),
    "batch_size": Setting(32, integer(1), "Pictures a minibatch."),
    "learning_rate": Setting(
        3e-3,
        POSITIVE,
        "The highest, of the layer before the last.",
        {"finetune": 1e-4, "staged": 2e-4},
    ),
    "layer_decay": Setting(0.1, FACTOR, "Factor on it down to the first layer; not of freeze."),
    "head_factor": Setting(
        10.0,
        POSITIVE,
        "Factor on it for the new last layer; not of freeze.",
        {"finetune": 30.0, "staged": 1.0},
    ),
    "weight_decay": Setting(1e-2, NOT_NEGATIVE, "What a step takes of a weight, by learning rate."),
    "label_smoothing": Setting(0.1, SHARE, "Probability that is spread over all classes."),
    "warmup": Setting(
        0.3,
        SHARE,
        "Share of the steps in which it rises, before it falls to 0.",
        {"finetune": 0.15, "staged": 0.1},
    ),
    "average": Setting(
        0.0,
        SHARE,
        "Decay of the weights' running mean, which is validated and kept; 0: the weights.",
        earlier=0.0,
    ),
    "mixup": Setting(
        0.0,
        NOT_NEGATIVE,
        "Pictures are mixed, by shares of beta(x, x); 0: they are not; not of freeze.",
        earlier=0.0,
    ),
    "cutmix": Setting(
        0.0,
        NOT_NEGATIVE,
        "Rectangles of pictures are put into others, likewise; not of freeze.",
        earlier=0.0,
    ),
    "tta": Setting(
        False,
        BOOL,
        "A picture's scores are the mean of its own and of its mirror image's.",
        heading="Run",
        earlier=False,
        resumable=True,
    ),
    "patience": Setting(0, integer(0), "Epochs without a better accuracy; 0: any.", resumable=True),
    "amp": Setting(None, optional(BOOL), "Mixed precision. [on CUDA]", heading="Run"),
    "device": Setting(
        "auto",
        one_of("auto", "cpu", "cuda"),
        "auto: CUDA where there is one.",
        heading="Run",
        resumable=True,
    ),
    "workers": Setting(
        0,
        integer(0),
        "Processes that read pictures, besides this one.",
        heading="Run",
        resumable=True,
    ),
    "seed": Setting(0, integer(0), "Of all that is random.", heading="Run"),
}


def complete(given: dict[str, object]) -> dict[str, object]:
    """All settings: those given, then the mode's, then the defaults.

    Raises ValueError for an unknown name or a value that is not of its kind.
    """
    return completed(given, SETTINGS, [given.get("mode")])


def of_file(written: dict[str, object]) -> dict[str, object]:
    """All settings of a run, of this version or an earlier one. Raises ValueError where they are
    not what such a version has written."""
    return complete(recorded(written, SETTINGS))


def stages(settings: dict[str, object]) -> list[dict[str, object]]:
    """The settings of each training that a mode consists of: freeze or finetune, or for staged one
    after the other, the first with what is tuned for it."""
    if settings["mode"] != "staged":
        return [settings]
    freeze = complete({"mode": "freeze"})
    tuned = {name: freeze[name] for name, s in SETTINGS.items() if "staged" in s.tuned}
    return [settings | tuned | {"mode": "freeze"}, settings | {"mode": "finetune"}]
