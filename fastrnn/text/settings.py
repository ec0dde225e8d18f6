"""Settings of a text classifier, from which `fastrnn classify train` has its options and
TextClassifier its parameters; the latter says more of what they mean."""

from fastrnn.nn import single
from fastrnn.optim import RULES
from fastrnn.settings import (
    NOT_NEGATIVE,
    PATH,
    POSITIVE,
    SHARE,
    SWITCH,
    Kind,
    Setting,
    completed,
    integer,
    one_of,
    optional,
    recorded,
)
from fastrnn.text.networks import MODELS
from fastrnn.text.pooling import POOLINGS
from fastrnn.text.vocabulary import TOKENIZERS


def _is_pooling(value: object) -> bool:
    names = value.split("+") if isinstance(value, str) else [value]
    return set(names) <= POOLINGS.keys() and len(set(names)) == len(names)


POOLING = Kind(f"some of {list(POOLINGS)} joined by +", _is_pooling)
WEIGHTS = Kind(
    "None, 'balanced' or a dict",
    lambda v: v is None or isinstance(v, dict) or (isinstance(v, str) and v == "balanced"),
)
METRICS = "accuracy", "macro-f1", "micro-f1"

# Tuned on the course's 40,000 sentences; docs/text.md has the trials. Checkpoints depend on the
# order.
SETTINGS = {
    "model": Setting("lstm", one_of(*MODELS), "What reads the text.", heading="Model"),
    "tokenizer": Setting(
        "space", one_of(*TOKENIZERS), "words: lower-case words and marks.", heading="Model"
    ),
    "ngrams": Setting(
        1, integer(1), "Longest runs of tokens that are words of bow and avg.", heading="Model"
    ),
    "min_count": Setting(1, integer(1), "Rarer words are unknown.", heading="Model"),
    "max_words": Setting(
        5000,
        integer(0),
        "Of a text that a recurrent network learns from; 0: all.",
        earlier=0,
    ),
    "embeddings": Setting(
        None,
        optional(PATH),
        "Word vectors: GloVe's, word2vec's; .gz, .bz2, .xz, .zip.",
        heading="Model",
    ),
    "embedding_dim": Setting(
        100, integer(1), "Size of a word vector, without --embeddings.", heading="Model"
    ),
    "embedding_scale": Setting(
        0.1, POSITIVE, "Deviation of word vectors before training.", heading=""
    ),
    "hidden_dim": Setting(128, integer(1), "Hidden units of a recurrent network.", heading="Model"),
    "bidirectional": Setting(False, SWITCH, "Read the text backwards, too.", heading="Model"),
    "pooling": Setting(
        "last", POOLING, "Of the states: last, mean, max, or some joined by +.", heading="Model"
    ),
    "freeze": Setting(False, SWITCH, "Keep the word vectors as they are.", heading="Model"),
    "dropout": Setting(0.3, SHARE, "Of what the last layer reads.", {"avg": 0.5}),
    "embedding_dropout": Setting(0.3, SHARE, "Of the word vectors' elements."),
    "word_dropout": Setting(0.0, SHARE, "Of words."),
    "zoneout": Setting(
        0.0, SHARE, "Of the states of rnn, lstm, gru: that a unit stays as it was.", earlier=0.0
    ),
    "recurrent_dropout": Setting(
        0.0, SHARE, "Of h of rnn, lstm, gru, the same at every word (Gal).", earlier=0.0
    ),
    "weight_decay": Setting(0.0, NOT_NEGATIVE, "What a step takes of a weight, by learning rate."),
    "learning_rate": Setting(1e-3, POSITIVE, "Of the first epoch.", {"bow": 5e-2, "avg": 3e-3}),
    "lr_decay": Setting(
        0.7, POSITIVE, "Factor on the learning rate after each epoch.", {"bow": 0.5}
    ),
    "update_rule": Setting("adam", one_of(*RULES), "How a step changes the weights."),
    "clip_norm": Setting(
        1.0, NOT_NEGATIVE, "Most global norm of the gradients; 0: no limit.", {"bow": 0.0}
    ),
    "epochs": Setting(
        8, integer(1), "Most passes over the sentences.", {"bow": 5, "avg": 10}, resumable=True
    ),
    "pretrain_epochs": Setting(
        10, integer(1), "Passes over --unlabelled, before those over TRAIN.", earlier=10
    ),
    "batch_size": Setting(
        64, integer(1), "Sentences a minibatch; of few sentences fewer.", {"bow": 512}
    ),
    "patience": Setting(
        3, integer(0), "Epochs without a better --metric on dev; 0: any.", resumable=True
    ),
    "class_weight": Setting(
        None, WEIGHTS, "balanced, or for a class what an example counts; can be repeated."
    ),
    "metric": Setting(
        "accuracy", one_of(*METRICS), "What chooses the best epoch.", earlier="accuracy"
    ),
    "calibrate": Setting(
        False,
        SWITCH,
        "Fit a temperature on dev, which makes probabilities honest.",
        heading="Model",
        earlier=False,
    ),
    "quantize": Setting(
        None,
        one_of(None, "int8"),
        "Store matrices in a byte a weight.",
        heading="Model",
        earlier=None,
    ),
    "ensemble": Setting(
        1, integer(1), "Networks whose probabilities are averaged.", heading="Model"
    ),
    "dtype": Setting("float32", one_of("float32", "float64"), "Of all numbers.", heading=""),
    "backend": Setting(
        None,
        one_of(None, "cython", "numpy"),
        "Implementation. [cython]",
        heading="Run",
        resumable=True,
    ),
    "seed": Setting(0, integer(0), "Of all that is random.", heading="Run"),
}
# With fewer examples batches are smaller, down to SMALLEST_BATCH: an epoch needs steps.
STEPS_AN_EPOCH = 100
SMALLEST_BATCH = 8


def complete(given: dict[str, object], examples: int | None = None) -> dict[str, object]:
    """All settings: those given, then the model's, then the defaults; examples, how many there are
    to train on.

    Raises ValueError for an unknown name or a value that is not of its kind.
    """
    settings = completed(given, SETTINGS, [given.get("model")])
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


def of_file(written: dict[str, object]) -> dict[str, object]:
    """All settings of a run or a classifier, of this version or an earlier one. Raises ValueError
    where they are not what such a version has written."""
    return complete(recorded(written, SETTINGS))
