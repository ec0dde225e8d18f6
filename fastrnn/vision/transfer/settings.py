"""Settings of a transfer: defaults, what is tuned for each mode, what values they may have.

What a setting means stands in `fastrnn transfer train --help`.
"""

from fastrnn.settings import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Kind,
    check,
    integer,
    number,
    one_of,
    optional,
)

MODES = ("freeze", "finetune", "staged")
SETTINGS = {
    "backbone": "squeezenet1_1",
    "weights": "default",
    "mode": "freeze",
    "image_size": None,
    "views": 4,
    "dropout": 0.5,
    "epochs": 60,
    "batch_size": 32,
    "learning_rate": 3e-3,
    "layer_decay": 0.1,
    "head_factor": 10.0,
    "weight_decay": 1e-2,
    "label_smoothing": 0.1,
    "warmup": 0.3,
    "patience": 0,
    "amp": None,
    "device": "auto",
    "workers": 0,
    "seed": 0,
    "val_share": None,
    "skip_unreadable": False,
}
# Tuned on the course's ants and bees; docs/transfer.md has the trials.
OF_MODE = {
    "freeze": {},
    "finetune": {"epochs": 12, "learning_rate": 1e-4, "head_factor": 30.0, "warmup": 0.15},
    "staged": {"epochs": 10, "learning_rate": 2e-4, "head_factor": 1.0, "warmup": 0.1},
}


KINDS = {
    **dict.fromkeys(("backbone", "weights"), Kind("a string", lambda v: isinstance(v, str))),
    "mode": one_of(*MODES),
    "image_size": optional(integer(1)),
    **dict.fromkeys(("views", "epochs", "batch_size"), integer(1)),
    **dict.fromkeys(("patience", "workers", "seed"), integer(0)),
    **dict.fromkeys(("dropout", "label_smoothing", "warmup"), SHARE),
    **dict.fromkeys(("learning_rate", "head_factor"), POSITIVE),
    "layer_decay": number("a number in (0, 1]", lambda v: 0 < v <= 1),
    "weight_decay": NOT_NEGATIVE,
    "amp": optional(Kind("True or False", lambda v: isinstance(v, bool))),
    "skip_unreadable": Kind("True or False", lambda v: isinstance(v, bool)),
    "val_share": optional(number("a number in (0, 1)", lambda v: 0 < v < 1)),
    "device": one_of("auto", "cpu", "cuda"),
}


def complete(given: dict[str, object]) -> dict[str, object]:
    """All settings: those given, then the mode's, then the defaults.

    Raises ValueError for an unknown name or a value that is not of its kind.
    """
    check(given, KINDS)
    return SETTINGS | OF_MODE[given.get("mode", SETTINGS["mode"])] | given


def stages(settings: dict[str, object]) -> list[dict[str, object]]:
    """The settings of each training that a mode consists of: freeze or finetune, or for staged one
    after the other, the first with what is tuned for it."""
    if settings["mode"] != "staged":
        return [settings]
    tuned = {name: SETTINGS[name] for name in OF_MODE["staged"]} | OF_MODE["freeze"]
    return [settings | tuned | {"mode": "freeze"}, settings | {"mode": "finetune"}]
