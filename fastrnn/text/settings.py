"""Settings of a text classifier: defaults, what is tuned for each model, what values they may have.

What a setting means stands in TextClassifier, and in `fastrnn classify train --help`.
"""

from pathlib import Path

import numpy as np

from fastrnn.nn import single
from fastrnn.optim import RULES
from fastrnn.settings import NOT_NEGATIVE, POSITIVE, SHARE, Kind, check, integer, one_of
from fastrnn.text.networks import MODELS
from fastrnn.text.pooling import POOLINGS
from fastrnn.text.vocabulary import TOKENIZERS

SETTINGS = {
    "model": "lstm",
    "tokenizer": "space",
    "ngrams": 1,
    "min_count": 1,
    "max_words": 5000,
    "embeddings": None,
    "embedding_dim": 100,
    "embedding_scale": 0.1,
    "hidden_dim": 128,
    "bidirectional": False,
    "pooling": "last",
    "freeze": False,
    "dropout": 0.3,
    "embedding_dropout": 0.3,
    "word_dropout": 0.0,
    "zoneout": 0.0,
    "recurrent_dropout": 0.0,
    "weight_decay": 0.0,
    "learning_rate": 1e-3,
    "lr_decay": 0.7,
    "update_rule": "adam",
    "clip_norm": 1.0,
    "epochs": 8,
    "batch_size": 64,
    "patience": 3,
    "class_weight": None,
    "metric": "accuracy",
    "calibrate": False,
    "quantize": None,
    "ensemble": 1,
    "dtype": "float32",
    "backend": None,
    "seed": 0,
}
# Tuned on the course's 40,000 sentences; docs/text.md has the trials.
OF_MODEL = {
    "bow": {
        "learning_rate": 5e-2,
        "lr_decay": 0.5,
        "epochs": 5,
        "batch_size": 512,
        "clip_norm": 0.0,
    },
    "avg": {"learning_rate": 3e-3, "epochs": 10, "dropout": 0.5},
    # Its gradients grow with every word: a thousandfold by 300, beyond float32 by 3,000.
    "layer_norm_lstm": {"max_words": 500},
}
# With fewer examples batches are smaller, down to SMALLEST_BATCH: an epoch needs steps.
STEPS_AN_EPOCH = 100
SMALLEST_BATCH = 8


def _is_pooling(value: object) -> bool:
    names = value.split("+") if isinstance(value, str) else [value]
    return set(names) <= POOLINGS.keys() and len(set(names)) == len(names)


KINDS = {
    "model": one_of(*MODELS),
    "tokenizer": one_of(*TOKENIZERS),
    "embeddings": Kind("a path or None", lambda v: v is None or isinstance(v, str)),
    "bidirectional": one_of(False, True),
    "freeze": one_of(False, True),
    "metric": one_of("accuracy", "macro-f1", "micro-f1"),
    "calibrate": one_of(False, True),
    "quantize": one_of(None, "int8"),
    "pooling": Kind(f"some of {list(POOLINGS)} joined by +", _is_pooling),
    "update_rule": one_of(*RULES),
    "dtype": one_of("float32", "float64"),
    "backend": one_of(None, "numpy", "cython"),
    "class_weight": Kind(
        "None, 'balanced' or a dict",
        lambda v: v is None or isinstance(v, dict) or (isinstance(v, str) and v == "balanced"),
    ),
    **dict.fromkeys(("seed", "patience", "max_words"), integer(0)),
    **dict.fromkeys(("ngrams", "min_count", "epochs", "batch_size", "ensemble"), integer(1)),
    **dict.fromkeys(("embedding_dim", "hidden_dim"), integer(1)),
    **dict.fromkeys(("dropout", "embedding_dropout", "word_dropout"), SHARE),
    **dict.fromkeys(("zoneout", "recurrent_dropout"), SHARE),
    **dict.fromkeys(("embedding_scale", "learning_rate", "lr_decay"), POSITIVE),
    **dict.fromkeys(("weight_decay", "clip_norm"), NOT_NEGATIVE),
}


def plain(value: object) -> object:
    """For JSON: no scalar of NumPy's, no path, also inside of lists and dicts."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def complete(given: dict[str, object], examples: int | None = None) -> dict[str, object]:
    """All settings: those given, then the model's, then the defaults; examples, how many there are
    to train on.

    Raises ValueError for an unknown name or a value that is not of its kind.
    """
    given = plain(given)
    check(given, KINDS)
    settings = SETTINGS | OF_MODEL.get(given.get("model"), {}) | given
    if examples is not None and "batch_size" not in given:
        most = max(SMALLEST_BATCH, examples // STEPS_AN_EPOCH)
        settings["batch_size"] = min(settings["batch_size"], most)
    if settings["ngrams"] > 1 and settings["model"] not in ("bow", "avg"):
        raise ValueError(f"ngrams: {settings['model']} reads words one by one; expected 1")
    if settings["model"] in single.CELLS:
        single.form(settings["model"], settings["zoneout"], settings["recurrent_dropout"])
    if settings["freeze"] and settings["embeddings"] is None:
        raise ValueError("freeze: random vectors would stay random; it needs embeddings")
    if settings["embeddings"] is not None and settings["model"] == "bow":
        raise ValueError("embeddings: a bag of words has no word vectors")
    return settings
