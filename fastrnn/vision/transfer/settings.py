"""Settings of a transfer: defaults, what is tuned for each mode, what values they may have.

What a setting means stands in `fastrnn transfer train --help`.
"""

import math
from collections.abc import Callable
from numbers import Integral, Real

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
}
# Tuned on the course's ants and bees; docs/transfer.md has the trials.
OF_MODE = {
    "freeze": {},
    "finetune": {"epochs": 15, "learning_rate": 3e-4, "warmup": 0.1},
    "staged": {"epochs": 10, "learning_rate": 2e-4, "head_factor": 1.0, "warmup": 0.1},
}


def _integer(least: int) -> tuple[str, Callable[[object], bool]]:
    return (
        f"an integer of at least {least}",
        lambda v: isinstance(v, Integral) and not isinstance(v, bool) and v >= least,
    )


def _number(text: str, holds: Callable[[float], bool]) -> tuple[str, Callable[[object], bool]]:
    return text, lambda v: isinstance(v, Real) and not isinstance(v, bool) and holds(v)


def _one_of(*values: object) -> tuple[str, Callable[[object], bool]]:
    return f"one of {list(values)}", lambda v: any(v is w or v == w for w in values)


_NAME = ("a string", lambda v: isinstance(v, str))
_SHARE = _number("a number in [0, 1)", lambda v: 0 <= v < 1)
_POSITIVE = _number("a number above 0", lambda v: 0 < v < math.inf)
# What a setting has to be, in words and as a test.
KINDS = {
    **dict.fromkeys(("backbone", "weights"), _NAME),
    "mode": _one_of(*MODES),
    "image_size": ("None or an integer of at least 1", lambda v: v is None or _integer(1)[1](v)),
    **dict.fromkeys(("views", "epochs", "batch_size"), _integer(1)),
    **dict.fromkeys(("patience", "workers", "seed"), _integer(0)),
    **dict.fromkeys(("dropout", "label_smoothing", "warmup"), _SHARE),
    **dict.fromkeys(("learning_rate", "head_factor"), _POSITIVE),
    "layer_decay": _number("a number in (0, 1]", lambda v: 0 < v <= 1),
    "weight_decay": _number("a number of at least 0", lambda v: 0 <= v < math.inf),
    "amp": ("None, True or False", lambda v: v is None or isinstance(v, bool)),
    "device": _one_of("auto", "cpu", "cuda"),
}


def complete(given: dict[str, object]) -> dict[str, object]:
    """All settings: those given, then the mode's, then the defaults.

    Raises ValueError for an unknown name or a value that is not of its kind.
    """
    unknown = sorted(given.keys() - SETTINGS.keys())
    if unknown:
        raise ValueError(f"{unknown[0]}: no such setting; there are {', '.join(SETTINGS)}")
    for name, value in given.items():
        text, holds = KINDS[name]
        if not holds(value):
            raise ValueError(f"{name}: expected {text}, got {value!r}")
    return SETTINGS | OF_MODE[given.get("mode", SETTINGS["mode"])] | given


def stages(settings: dict[str, object]) -> list[dict[str, object]]:
    """The settings of each training that a mode consists of: freeze or finetune, or for staged one
    after the other, the first with what is tuned for it."""
    if settings["mode"] != "staged":
        return [settings]
    tuned = {name: SETTINGS[name] for name in OF_MODE["staged"]} | OF_MODE["freeze"]
    return [settings | tuned | {"mode": "freeze"}, settings | {"mode": "finetune"}]
