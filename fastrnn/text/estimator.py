"""TextClassifier: the classifiers of texts with scikit-learn's interface."""

import warnings
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.optional import require
from fastrnn.settings import plain
from fastrnn.storage import named
from fastrnn.text.corpus import Corpus, split
from fastrnn.text.model import DESCRIPTION, TextModel
from fastrnn.text.settings import SETTINGS
from fastrnn.text.targets import Targets, targets, targets_in
from fastrnn.text.training import Training

_base = require("sklearn.base")
_utils = require("sklearn.utils")
_validation = require("sklearn.utils.validation")


class TextClassifier(_base.ClassifierMixin, _base.BaseEstimator):
    """A classifier of texts, from a bag of words to an LSTM.

    X is a sequence of strings (list, array, pandas Series), y their labels, one a text or several.
    A parameter that is None takes what is tuned for the model, or else the default
    (settings.SETTINGS).

    model           "bow", "avg", "rnn", "lstm", "gru", "mgu", "min_gru", "min_lstm", "ind_rnn",
                    "layer_norm_lstm" or "layer_norm_gru"
    tokenizer       "space": tokens are separated by white space; "words": lower-cased words and
                    punctuation marks
    ngrams          longest runs of tokens that count as words, of bow and avg
    min_count       rarer words are unknown
    max_words       words of a text that a recurrent network learns from, its first ones, so that
                    memory stays bounded; predictions read all of it; 0: all
    embeddings      file of word vectors (as load_vectors reads it); None: random ones
    embedding_dim   size of random word vectors
    embedding_scale standard deviation of the word vectors before training
    freeze          keep the word vectors as they are
    hidden_dim      hidden units a direction, of recurrent networks
    bidirectional   read the text backwards too
    pooling         "last", "mean", "max" of the states over time, or several joined by +
    dropout         of the features; embedding_dropout, of elements of the word vectors;
                    word_dropout, of words
    zoneout         that a unit of rnn, lstm, gru stays as it was at the word before, in h and c; in
                    predictions the mean of both (Krueger et al. 2017)
    recurrent_dropout  of h before its product with the recurrent weights, the same units at every
                    word of a text (Gal and Ghahramani 2016)
    update_rule     a name in fastrnn.optim
    learning_rate   of the first epoch; lr_decay, its factor after each epoch
    weight_decay    as fastrnn.optim's
    clip_norm       most that the norm of the gradients may be; 0: any
    epochs          most passes over the data; batch_size, texts a step
    pretrain_epochs passes over X and fit's unlabelled texts before that
    early_stopping  hold out validation_fraction of each class, unless fit gets dev, and keep the
                    epoch that is best there
    patience        epochs without a better one after which to stop, where there is held-out data
                    or dev; 0: never
    class_weight    dict from label to weight, 1 for the labels it leaves out; "balanced", N texts /
                    (C classes * texts of the class); None, 1. Where a text may have several labels
                    a weight is of the texts that have the label, "balanced" the number of the
                    others by theirs
    metric          what chooses the best epoch: "accuracy", "macro-f1" (of rare classes as much as
                    of frequent ones) or "micro-f1" (of all labels together)
    calibrate       divide the logarithms of the odds by the temperature that is best on dev
    quantize        "int8": matrices, word vectors among them, are a byte a weight when saved, and
                    are rounded to that; None
    ensemble        networks, with seeds one after the other, whose probabilities are averaged
    dtype           "float32" or "float64"
    backend         "cython", "numpy" or None, the current one
    random_state    int, RandomState or None; with an int the same bits for any number of threads

    Attributes: classes_ (C,), the labels in ascending order; model_, a TextModel; of fit alone
    history_, a dict for each epoch of each network, and n_iter_, the epochs of the longest.
    """

    def __init__(
        self,
        model: str = "lstm",
        *,
        tokenizer: str | None = None,
        ngrams: int | None = None,
        min_count: int | None = None,
        max_words: int | None = None,
        embeddings: Path | str | None = None,
        embedding_dim: int | None = None,
        embedding_scale: float | None = None,
        hidden_dim: int | None = None,
        bidirectional: bool | None = None,
        pooling: str | None = None,
        freeze: bool | None = None,
        dropout: float | None = None,
        embedding_dropout: float | None = None,
        word_dropout: float | None = None,
        zoneout: float | None = None,
        recurrent_dropout: float | None = None,
        weight_decay: float | None = None,
        learning_rate: float | None = None,
        lr_decay: float | None = None,
        update_rule: str | None = None,
        clip_norm: float | None = None,
        epochs: int | None = None,
        pretrain_epochs: int | None = None,
        batch_size: int | None = None,
        patience: int | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        metric: str | None = None,
        calibrate: bool | None = None,
        quantize: str | None = None,
        ensemble: int | None = None,
        dtype: str | None = None,
        backend: str | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        given = dict(locals())  # scikit-learn wants each to be kept as it came
        del given["self"]
        vars(self).update(given)

    def fit(
        self,
        X: Iterable[str],
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        dev: tuple[Iterable[str], ArrayLike] | None = None,
        unlabelled: Iterable[str] = (),
    ) -> "TextClassifier":
        """Train on texts X (N,) with labels y, which sample_weight (N,) may weigh; dev, texts and
        labels that choose the best epoch; unlabelled, further texts, of which with X a recurrent
        network first learns which word comes next. y is (N,), or where a text may have several
        labels an indicator matrix (N, C) or a sequence of lists, tuples or sets of labels.

        Returns: self. Raises ValueError for texts that are no strings, labels that are no classes,
        lengths that differ, fewer than two classes or a parameter out of range.
        """
        texts = _labelled(X, y)
        weights = None if sample_weight is None else _weights(sample_weight, texts)
        known = targets(y)
        classes, y = known.classes, known.y
        if len(classes) < 2 and not known.multilabel:
            raise ValueError(f"y: expected at least 2 classes, got {len(classes)} class(es)")
        settings = self._settings()
        held_out = None
        if dev is not None:
            if len(dev) != 2:
                raise ValueError(f"dev: expected texts and their labels, got {len(dev)} values")
            held_out = _labelled(*dev), targets_in(dev[1], known, "dev")
        elif self.early_stopping:
            rows, held = _hold_out(y, self.validation_fraction, settings["seed"])
            held_out = [texts[row] for row in held], y[held]
            texts, y = [texts[row] for row in rows], y[rows]
            weights = None if weights is None else weights[rows]
        training = Training(
            settings,
            texts,
            y,
            classes.tolist(),
            dev=held_out,
            sample_weight=weights,
            unlabelled=_texts(unlabelled),
        )
        if training.cut:
            most = training.settings["max_words"]
            text = f"{training.cut:,} texts have more words than max_words={most:,}; the rest of"
            warnings.warn(f"{text} each is not learnt from", stacklevel=2)
        self.model_, self.classes_ = training.run(), classes
        self.history_ = [solver.history for solver in training.solvers]
        self.n_iter_ = max(map(len, self.history_))
        return self

    def _settings(self) -> dict[str, object]:
        params = plain(self.get_params(deep=False))
        generator = _utils.check_random_state(self.random_state)
        seeded = isinstance(self.random_state, Integral)
        seed = int(self.random_state if seeded else generator.randint(2**31 - 1))
        given = {name: params[name] for name in SETTINGS if params.get(name) is not None}
        return given | {"seed": seed}

    def predict_proba(self, X: Iterable[str]) -> np.ndarray:
        """Probabilities (N, C) in the order of classes_, each by itself where a text may have
        several labels."""
        return self._fitted().predict_proba(_texts(X))

    def predict_log_proba(self, X: Iterable[str]) -> np.ndarray:
        """Logarithms of predict_proba (N, C)."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Iterable[str]) -> np.ndarray:
        """The likeliest label of each text (N,); where a text may have several, 1 for those that
        reach their thresholds (N, C), in the order of classes_."""
        model, proba = self._fitted(), self.predict_proba(X)
        decided = model.decide(proba)
        return decided.astype(int) if model.multilabel else self.classes_[decided]

    def score(
        self, X: Iterable[str], y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Accuracy; where a text may have several labels the share of texts with exactly the true
        ones."""
        if self._fitted().multilabel:
            known = Targets(self.classes_, np.zeros((0, len(self.classes_)), bool))
            y = targets_in(y, known, "y")
        return super().score(X, y, sample_weight)

    def _fitted(self) -> TextModel:
        if not hasattr(self, "model_"):  # check_is_fitted takes half as long as a prediction
            _validation.check_is_fitted(self, "model_")
        return self.model_

    def save(self, folder: Path | str) -> None:
        """Write the fitted classifier into a folder as TextModel.save does: JSON and safetensors,
        no pickle. A RandomState is written as the seed that fit drew from it."""
        model, params = self._fitted(), plain(self.get_params(deep=False))
        if isinstance(self.class_weight, dict):  # JSON would make strings of the labels
            params["class_weight"] = [*params["class_weight"].items()]
        if not isinstance(params["random_state"], int | None):
            params["random_state"] = model.settings["seed"]
        model.save(folder, {"params": params, "labels": self.classes_.dtype.str})

    def to_onnx(self, path: Path | str, *, lengths: bool = True) -> None:
        """Write the fitted networks as an ONNX model, as TextModel.to_onnx does; its probabilities
        are in the order of classes_."""
        self._fitted().to_onnx(path, lengths=lengths)

    @classmethod
    def load(cls, folder: Path | str) -> "TextClassifier":
        """A fitted classifier that save or `fastrnn classify train` wrote; the labels of the latter
        are strings.

        Raises FileNotFoundError or ValueError that names the file at fault.
        """
        model = TextModel.load(folder)
        saved = model.extra or {"params": cls._params(model.settings), "labels": None}
        with named(Path(folder) / DESCRIPTION, "a classifier's description"):
            estimator = cls(**saved["params"])
            if isinstance(estimator.class_weight, list):
                estimator.class_weight = dict(estimator.class_weight)
            estimator.classes_ = np.array(model.classes, saved["labels"])
        estimator.model_ = model
        return estimator

    @classmethod
    def _params(cls, settings: dict[str, object]) -> dict[str, object]:
        """The parameters with which fit makes these settings."""
        names = settings.keys() & set(cls._get_param_names())
        return {name: settings[name] for name in names} | {"random_state": settings["seed"]}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        return tags


def _labelled(X: Iterable[str], y: ArrayLike) -> list[str]:
    texts = _texts(X)
    _utils.check_consistent_length(texts, y)
    if not texts:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    return texts


def _texts(X: Iterable[str]) -> list[str]:
    if isinstance(X, str) or not isinstance(X, Iterable):
        raise ValueError(f"X: expected a sequence of strings, got {type(X).__name__}")
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape) != 1:
        raise ValueError(f"X should be a 1d array, got an array of shape {shape} instead.")
    texts = list(X)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"X: expected strings, got {type(text).__name__} at {i}")
    return texts


def _weights(sample_weight: ArrayLike, texts: list[str]) -> np.ndarray:
    weights = _utils.check_array(
        sample_weight,
        dtype=np.float64,
        ensure_2d=False,
        ensure_non_negative=True,
        input_name="sample_weight",
    )
    if weights.shape != (len(texts),):
        raise ValueError(f"sample_weight.shape == {weights.shape}, expected {(len(texts),)}!")
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


def _hold_out(y: np.ndarray, fraction: float, seed: int) -> list[np.ndarray]:
    """Rows to train on, and rows to hold out."""
    labels = [tuple(np.flatnonzero(row)) for row in y] if y.ndim == 2 else y.tolist()
    rows = Corpus(range(len(y)), labels)  # rows for texts: weights are divided like them
    return [np.array(part.texts) for part in split(rows, fraction, seed)]
