"""Settings of a captioner and of a data set to be prepared, from which `fastrnn caption train` and
`fastrnn caption prepare` have their options."""

from fastrnn.captioning.data import SPLITS, TEST
from fastrnn.captioning.decoders import ATTENTION, DECODERS
from fastrnn.captioning.features import VIEWS
from fastrnn.nn import single
from fastrnn.optim import RULES
from fastrnn.settings import (
    NOT_NEGATIVE,
    PATH,
    POSITIVE,
    SHARE,
    SWITCH,
    TEXT,
    Setting,
    completed,
    integer,
    one_of,
    optional,
    recorded,
)

# Those that CaptioningRNN takes, too.
OF_MODEL = {
    "dropout": Setting(
        0.5, SHARE, "Of word vectors and hidden states.", {"scenes": 0.1}, heading="Model"
    ),
    "zoneout": Setting(
        0.0, SHARE, "Of a unit's state: that it stays as it was.", heading="Model", earlier=0.0
    ),
    "recurrent_dropout": Setting(
        0.0,
        SHARE,
        "Of h where it goes back in, the same at every word.",
        heading="Model",
        earlier=0.0,
    ),
    "feature_dropout": Setting(
        0.0, SHARE, "Of a picture's features.", heading="Model", earlier=0.0
    ),
    "label_smoothing": Setting(
        0.0, SHARE, "Share of a target that all words get.", heading="Model", earlier=0.0
    ),
    "tied": Setting(False, SWITCH, "Score words by their vectors.", heading="Model", earlier=False),
    "decoder": Setting(
        "plain",
        one_of(*DECODERS),
        "Attention needs prepare --grid.",
        heading="Model",
        earlier="plain",
    ),
    "attention": Setting(
        "additive",
        one_of(*ATTENTION),
        "How places are scored.",
        heading="Model",
        earlier="additive",
    ),
    "attention_dim": Setting(128, integer(1), "Units of attention.", heading="Model", earlier=128),
    "attention_penalty": Setting(
        0.0,
        NOT_NEGATIVE,
        "For places that are not looked at once.",
        heading="Model",
        earlier=0.0,
    ),
}
# Tuned on 700 photographs; docs/captioning.md has the trials. The scenes are many and hold more to
# learn: which colour goes with which shape, and what is where.
SETTINGS = {
    "cell": Setting("lstm", one_of(*single.CELLS), "Recurrent network.", heading="Model"),
    "hidden": Setting(256, integer(1), "Hidden units.", heading="Model"),
    "wordvec": Setting(128, integer(1), "Size of a word vector.", heading="Model"),
    **OF_MODEL,
    "embeddings": Setting(
        None,
        optional(PATH),
        "GloVe or word2vec file that word vectors begin with.",
        heading="Model",
        earlier=None,
    ),
    "ensemble": Setting(
        1,
        integer(1),
        "Networks whose probabilities are averaged.",
        heading="Model",
        earlier=1,
    ),
    "epochs": Setting(
        25, integer(1), "Most passes over the captions.", {"scenes": 10}, resumable=True
    ),
    "patience": Setting(
        8, integer(0), "Epochs without a better BLEU before it stops; 0: never.", resumable=True
    ),
    "batch_size": Setting(50, integer(1), "Captions a minibatch.", {"scenes": 100}),
    "learning_rate": Setting(1e-3, POSITIVE, "Of the first epoch.", {"scenes": 5e-3}),
    "lr_decay": Setting(
        0.95, POSITIVE, "Factor on the learning rate after each epoch.", {"scenes": 0.8}
    ),
    "update_rule": Setting("adam", one_of(*RULES), "How a step changes the weights."),
    "clip_norm": Setting(5.0, NOT_NEGATIVE, "Most global norm of the gradients; 0: any."),
    "averaging": Setting(
        0.0, SHARE, "What an iteration keeps of the parameters' average.", earlier=0.0
    ),
    "scheduled_sampling": Setting(
        0.0, SHARE, "Share of words that the model's replace.", earlier=0.0
    ),
    "views": Setting(False, SWITCH, "Learn from other views, if there are any.", earlier=False),
    "max_train": Setting(None, optional(integer(1)), "Use so many training captions."),
    "pca": Setting(None, optional(SWITCH), "Reduced features. [if there are any]"),
    "seed": Setting(0, integer(0), "Of all that is random.", heading="Run"),
    "backend": Setting(
        None,
        one_of(None, "cython", "numpy"),
        "Implementation. [cython]",
        heading="Run",
        resumable=True,
    ),
}


def complete(given: dict[str, object], *, scenes: bool = False) -> dict[str, object]:
    """All settings: those given, then for scenes those tuned on them, then the defaults.

    Raises ValueError for an unknown name or a value that is not of its kind.
    """
    settings = completed(given, SETTINGS, ["scenes"] if scenes else [])
    single.form(settings["cell"], settings["zoneout"], settings["recurrent_dropout"])
    return settings


def of_file(written: dict[str, object]) -> dict[str, object]:
    """All settings of a run, of this version or an earlier one. Raises ValueError where they are
    not what such a version has written."""
    return recorded(written, SETTINGS)


# Of a data set.
PREPARE = {
    "backbone": Setting("squeezenet1_1", TEXT, "torchvision model.", heading="Features"),
    "weights": Setting(
        "default",
        TEXT,
        "Its weights: a file, default (torchvision downloads them) or none (random).",
        heading="Features",
    ),
    "view": Setting(
        "centre",
        one_of(*VIEWS),
        "What the network is shown: the square in a picture's centre, or the whole, squeezed.",
        heading="Features",
    ),
    "pca": Setting(512, integer(0), "Most principal components; 0: none.", heading="Features"),
    "min_count": Setting(2, integer(1), "Rarer words become <UNK>.", heading="Captions"),
    "max_words": Setting(
        15,
        integer(1),
        "Words of a training caption; others are whole, up to 100.",
        heading="Captions",
    ),
    "val": Setting(
        0.125,
        POSITIVE,
        "Validation pictures: a fraction, or from 1 on their number.",
        heading="Splits",
    ),
    "split": Setting(
        None,
        one_of(None, *SPLITS, TEST),
        "Put all pictures into this split, of a data set to evaluate on.",
        heading="Splits",
    ),
    "seed": Setting(0, integer(0), "Of the split.", heading="Splits"),
    "strict": Setting(
        False, SWITCH, "Refuse where else something would be left out.", heading="Run"
    ),
}
