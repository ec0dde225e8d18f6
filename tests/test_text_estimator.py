"""TextClassifier by scikit-learn's conventions: its own checks, inputs, errors, tools, files."""

import copy
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import DataConversionWarning, NotFittedError, SkipTestWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import validate_data
from util import assert_same_bits

import fastrnn
from fastrnn.text import TextClassifier, TextModel, read_labelled
from fastrnn.text.corpus import Corpus, split
from fastrnn.text.grammar import make_reviews
from fastrnn.text.training import Training

TEXTS, LABELS, _ = make_reviews(200, seed=0)
Y = np.array(LABELS)
UNSEEN, UNSEEN_LABELS, _ = make_reviews(100, seed=1)
SMALL = {
    "hidden_dim": 6,
    "embedding_dim": 5,
    "epochs": 2,
    "batch_size": 32,
    "learning_rate": 0.03,
    "lr_decay": 0.9,
}


def quick(model="bow", **params):
    """A classifier that trains in milliseconds."""
    return TextClassifier(model, **SMALL | {"random_state": 0} | params)


def assert_same_predictions(a, b):
    assert_same_bits(a.predict_proba(UNSEEN), b.predict_proba(UNSEEN))


@pytest.fixture(scope="module")
def lstm():
    return quick("lstm").fit(TEXTS, Y)


# ---- scikit-learn's checks -----------------------------------------------------------------------


class OfNumbers(TextClassifier):
    """Reads a row of numbers as a text of one word a number, since the checks have no texts."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(self._words(X, reset=True), y, sample_weight)

    def predict_proba(self, X):
        return super().predict_proba(self._words(X, reset=False))

    def _words(self, X, reset):
        X = validate_data(self, X, reset=reset)
        return [" ".join(f"{i}:{3 * x:.0f}" for i, x in enumerate(row)) for row in X]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = False, True
        return tags


def expected_failures(estimator):
    reason = "to repeat an example is not to weigh it: the minibatches are others"
    return {"check_sample_weight_equivalence_on_dense_data": reason}


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning:sklearn")
@estimator_checks.parametrize_with_checks(
    [
        OfNumbers("bow", learning_rate=0.05, batch_size=8, epochs=15),
        OfNumbers("lstm", learning_rate=0.02, batch_size=8, hidden_dim=8, embedding_dim=8),
    ],
    expected_failed_checks=expected_failures,
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_checks_without_data_pass_on_the_class_itself():
    estimator, name = TextClassifier(), "TextClassifier"
    for check in (
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_estimators_unfitted,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_mixin_order,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
        estimator_checks.check_valid_tag_types,
    ):
        check(name, estimator)
    with pytest.warns(SkipTestWarning, match="string=True"):
        estimator_checks.check_estimator(estimator)


def test_repr_shows_what_differs():
    assert repr(TextClassifier("gru", hidden_dim=9)) == "TextClassifier(hidden_dim=9, model='gru')"


# ---- texts and labels ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [tuple, iter, np.array, lambda X: np.array(X, object), pd.Series]
    + [lambda X: pd.Series(X, index=range(len(X), 0, -1))],
)
def test_texts_in_any_sequence(kind, lstm):
    clf = quick("lstm").fit(kind(TEXTS), Y)
    assert_same_predictions(clf, lstm)
    assert_same_bits(clf.predict_proba(kind(UNSEEN)), lstm.predict_proba(UNSEEN))


BINARY = np.arange(200) % 2


@pytest.mark.parametrize(
    ("y", "dtype"),
    [
        (BINARY.tolist(), int),
        (BINARY.astype(np.int8), np.int8),
        ([*BINARY], int),
        (2.0 * BINARY, float),
        (BINARY.astype(np.float32), np.float32),
        (BINARY == 1, bool),
        (np.take(["no", "yes"], BINARY), "<U3"),
        (np.take(["no", "yes"], BINARY).astype(object), object),
        ([*np.take(["no", "yes"], BINARY)], "<U3"),
        (pd.Series(np.take(["no", "yes"], BINARY), dtype="category"), object),
        (np.arange(200) % 5 - 2, int),
        (np.take(["a", "b", "c"], np.arange(200) % 3), "<U1"),
    ],
)
def test_labels_of_any_type(y, dtype, tmp_path):
    clf = quick().fit(TEXTS, y)
    classes, indices = np.unique(y, return_inverse=True)
    assert_same_predictions(clf, quick().fit(TEXTS, indices))
    clf.save(tmp_path)
    for classifier in (clf, TextClassifier.load(tmp_path)):
        assert_same_predictions(classifier, clf)
        assert classifier.classes_.tolist() == classes.tolist()
        assert classifier.classes_.dtype == classifier.predict(UNSEEN).dtype == dtype
        accuracy = (classifier.predict(TEXTS) == np.asarray(y)).mean()
        assert classifier.score(TEXTS, y) == accuracy > 1 / len(classes)


def test_a_column_of_labels_is_taken_with_a_warning(lstm):
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        clf = quick("lstm").fit(TEXTS, Y[:, None])
    assert_same_predictions(clf, lstm)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.one_of(st.text(max_size=20), st.sampled_from(UNSEEN)), max_size=8))
def test_a_text_is_classified_alone(lstm, texts):
    proba = lstm.predict_proba(texts)
    assert proba.shape == (len(texts), 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(lstm.predict(texts), lstm.classes_[proba.argmax(axis=1)])
    np.testing.assert_array_equal(lstm.predict_log_proba(texts), np.log(proba))
    np.testing.assert_allclose(lstm.predict_proba(texts[::-2]), proba[::-2], rtol=1e-6)


def test_logarithm_of_a_certain_answer_does_not_warn():
    clf = quick().fit(TEXTS, Y)
    clf.model_.networks[0].params["b"][0] = 1000
    assert clf.predict_log_proba(["the"]).tolist() == [[0, -np.inf]]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("one text", "X: expected a sequence of strings, got str"),
        (None, "X: expected a sequence of strings, got NoneType"),
        (7, "X: expected a sequence of strings, got int"),
        (np.array(TEXTS)[:, None], r"X should be a 1d array, got an array of shape \(200, 1\)"),
        (
            pd.DataFrame({"text": TEXTS}),
            r"X should be a 1d array, got an array of shape \(200, 1\)",
        ),
        (np.array("text"), r"X should be a 1d array, got an array of shape \(\)"),
        (np.ones(200), "X: expected strings, got float64 at 0"),
        ([*TEXTS[:-1], np.nan], "X: expected strings, got float at 199"),
        ([text.encode() for text in TEXTS], "X: expected strings, got bytes at 0"),
        ([text.split() for text in TEXTS], "X: expected strings, got list at 0"),
    ],
)
def test_what_is_no_text_is_refused(X, message, lstm):
    with pytest.raises(ValueError, match=message):
        quick().fit(X, Y)
    for method in (lstm.predict, lstm.predict_proba, lstm.predict_log_proba):
        with pytest.raises(ValueError, match=message):
            method(X)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, r"y should be a 1d array, got an array of shape \(\)"),
        (
            np.arange(600).reshape(200, 3),
            r"y should be a 1d array, got an array of shape \(200, 3\)",
        ),
        ([["a", "b"]] * 199, r"inconsistent numbers of samples: \[200, 199\]"),
        ([[], *[["a", 1]] * 199], "y: expected labels of one type"),
        ([[]] * 200, r"y: expected labels of one type, got \[\]"),
        (Y[1:], r"inconsistent numbers of samples: \[200, 199\]"),
        (np.linspace(0, 1, 200), "Unknown label type: continuous"),
        (np.array(BINARY, object), "Unknown label type: unknown"),
        (np.array([*LABELS[:-1], None], object), "y: expected strings, got NoneType at 199"),
        (np.ones(200), r"y: expected at least 2 classes, got 1 class\(es\)"),
    ],
)
def test_what_is_no_label_is_refused(y, message):
    with pytest.raises(ValueError, match=message):
        quick().fit(TEXTS, y)


def test_no_texts():
    with pytest.raises(ValueError, match=r"0 sample\(s\) while a minimum of 1 is required"):
        quick().fit([], [])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model": "transformer"}, "model: expected one of"),
        ({"pooling": "first"}, "pooling: expected some of"),
        ({"epochs": 0}, "epochs: expected an integer of at least 1, got 0"),
        ({"dropout": 1}, "dropout: expected a number in"),
        ({"tokenizer": "chars"}, "tokenizer: expected one of"),
        ({"update_rule": "lbfgs"}, "update_rule: expected one of"),
        ({"backend": "cuda"}, "backend: expected"),
        ({"class_weight": "even"}, "class_weight: expected None, 'balanced' or a dict"),
        ({"class_weight": {"meh": 2}}, "class_weight: 'meh' is not one of neg, pos"),
        ({"random_state": -1}, "Seed must be between"),
        ({"random_state": "now"}, "'now' cannot be used to seed"),
        ({"early_stopping": True, "validation_fraction": 1}, "fraction: expected a number between"),
    ],
)
def test_bad_parameters_are_named_by_fit(params, message):
    clf = quick(**params)
    with pytest.raises(ValueError, match=message):
        clf.fit(TEXTS, Y)
    assert not hasattr(clf, "classes_")


def test_a_fit_that_fails_leaves_the_last_one(lstm):
    clf = copy.deepcopy(lstm).set_params(epochs=0)
    with pytest.raises(ValueError, match="epochs"):
        clf.fit(TEXTS, BINARY)
    assert_same_predictions(clf, lstm)
    assert clf.classes_.tolist() == ["neg", "pos"]


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "save"])
def test_unfitted(method):
    with pytest.raises(NotFittedError, match="This TextClassifier instance is not fitted yet"):
        getattr(TextClassifier(), method)(TEXTS)


# ---- weights -------------------------------------------------------------------------------------

SKEWED = np.array(["a", "b", "c", "a", "a"] * 40)


@pytest.mark.parametrize("class_weight", ["balanced", {"a": 2.5, "c": 0.5}, {np.str_("b"): 3}])
def test_class_weight_weighs_the_examples_of_a_class(class_weight):
    by_class = quick(class_weight=class_weight).fit(TEXTS, SKEWED)
    as_dict = class_weight if class_weight == "balanced" else {"a": 1, "b": 1} | class_weight
    weights = compute_sample_weight(as_dict, SKEWED)
    assert_same_predictions(by_class, quick().fit(TEXTS, SKEWED, weights))
    assert (
        by_class.predict_proba(UNSEEN) != quick().fit(TEXTS, SKEWED).predict_proba(UNSEEN)
    ).any()
    twice = quick(class_weight=class_weight).fit(TEXTS, SKEWED, sample_weight=[3] * 200)
    assert_same_predictions(twice, quick().fit(TEXTS, SKEWED, 3 * weights))


def test_an_example_without_weight_teaches_nothing():
    turned = np.where(Y == "pos", "neg", "pos")
    clf = quick(epochs=20).fit(TEXTS * 2, [*Y, *turned], np.repeat([1, 0], 200))
    assert clf.score(TEXTS, Y) > 0.95
    assert quick(epochs=20).fit(TEXTS * 2, [*Y, *turned]).score(TEXTS, Y) < 0.9


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(199), r"sample_weight.shape == \(199,\), expected \(200,\)"),
        (np.ones((200, 1)), r"sample_weight.shape == \(200, 1\), expected \(200,\)"),
        (np.zeros(200), "Sample weights must contain at least one non-zero number"),
        (np.repeat([1.0, -1.0], 100), "Negative values in data passed to sample_weight"),
        (np.repeat([1.0, np.nan], 100), "sample_weight contains NaN"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        quick().fit(TEXTS, Y, weights)


# ---- the best epoch ------------------------------------------------------------------------------

DEV = UNSEEN, UNSEEN_LABELS


def test_dev_chooses_the_epoch():
    clf = quick(epochs=12, patience=2, random_state=2).fit(TEXTS, Y, dev=DEV)
    assert clf.n_iter_ == len(clf.history_[0]) < 12
    accuracies = [epoch["dev_accuracy"] for epoch in clf.history_[0]]
    assert clf.score(*DEV) == max(accuracies) > accuracies[-1]
    both = quick(random_state=2, epochs=12, patience=2, ensemble=2).fit(TEXTS, Y, dev=DEV)
    assert both.history_[0][-1]["dev_loss"] == clf.history_[0][-1]["dev_loss"]
    assert both.n_iter_ == max(map(len, both.history_))
    assert "dev_accuracy" not in quick().fit(TEXTS, Y).history_[0][0]


def test_early_stopping_holds_out_texts_with_labels_and_weights():
    y = ["rare"] * 3 + LABELS[3:]
    clf = quick(epochs=6, early_stopping=True, validation_fraction=0.25, random_state=5)
    clf.fit(TEXTS, y, sample_weight=[len(text) for text in TEXTS])
    left, held = split(Corpus(TEXTS, y), 0.25, seed=5)
    expected = quick(epochs=6, random_state=5)
    weights = [len(text) for text in left.texts]
    expected.fit(left.texts, left.labels, weights, dev=(held.texts, held.labels))
    assert_same_predictions(clf, expected)
    assert clf.history_[0][-1]["dev_loss"] == expected.history_[0][-1]["dev_loss"]


def test_dev_goes_before_early_stopping():
    clf = quick(early_stopping=True).fit(TEXTS, Y, dev=DEV)
    assert_same_predictions(clf, quick().fit(TEXTS, Y, dev=DEV))


@pytest.mark.parametrize(
    ("dev", "message"),
    [
        ((UNSEEN, ["meh"] * 100), r"dev: y contains previously unseen labels: \['meh'\]"),
        ((UNSEEN, Y), r"inconsistent numbers of samples: \[100, 200\]"),
        (([], []), "minimum of 1 is required"),
        ((UNSEEN, Y[:100], np.ones(100)), "dev: expected texts and their labels, got 3 values"),
    ],
)
def test_bad_dev_is_refused(dev, message):
    with pytest.raises(ValueError, match=message):
        quick().fit(TEXTS, Y, dev=dev)


def test_a_class_of_one_example_is_learnt_from():
    y = np.array([*Y[:-1], "once"])
    clf = quick(early_stopping=True).fit(TEXTS, y)
    assert "once" in clf.classes_
    with pytest.raises(ValueError, match="no class has two examples"):
        quick(early_stopping=True).fit(TEXTS[:20], TEXTS[:20])


# ---- several labels a text -----------------------------------------------------------------------

TAGGED = ["b a c d", "a", "b c", "c", "", "a c d"] * 20
TAGS = [["x", "y"], ["x"], ["y"], [], [], ["x"]] * 20
INDICATOR = np.array([[1, 1], [1, 0], [0, 1], [0, 0], [0, 0], [1, 0]] * 20)
FITTING = {"learning_rate": 0.05, "epochs": 8}


@pytest.mark.parametrize("model", ["bow", "lstm"])
def test_several_labels_as_a_matrix_or_as_sequences(model, tmp_path):
    whole = quick(model, **FITTING).fit(TAGGED, INDICATOR)
    assert whole.classes_.tolist() == [0, 1]
    assert whole.predict(TAGGED).tolist() == INDICATOR.tolist()
    proba = whole.predict_proba(TAGGED)
    assert proba.shape == (120, 2) and ((proba >= 0.5) == INDICATOR).all()
    for matrix in (csr_matrix(INDICATOR), pd.DataFrame(INDICATOR), INDICATOR.tolist()):
        assert_same_bits(quick(model, **FITTING).fit(TAGGED, matrix).predict_proba(TAGGED), proba)
        assert whole.score(TAGGED, matrix) == 1
    for kind in (list, tuple, set, np.array):
        rows = [kind(tags) for tags in TAGS]
        clf = quick(model, **FITTING).fit(TAGGED, rows)
        assert_same_bits(clf.predict_proba(TAGGED), proba)
        assert clf.classes_.tolist() == ["x", "y"]
        assert clf.score(TAGGED, rows) == clf.score(TAGGED, pd.Series(rows)) == 1
    clf.save(tmp_path)
    for again in (TextClassifier.load(tmp_path), pickle.loads(pickle.dumps(clf))):
        assert_same_bits(again.predict_proba(TAGGED), proba)
        assert again.predict(TAGGED).tolist() == INDICATOR.tolist()
        assert again.classes_.tolist() == ["x", "y"]


def test_several_labels_go_where_scikit_learn_s_go():
    scores = cross_val_score(quick(**FITTING), TAGGED, INDICATOR, cv=3)
    assert (scores == 1).all()
    three = np.column_stack([INDICATOR, INDICATOR[:, 0]])  # two would be a binary problem to it
    clf = quick(**FITTING).fit(TAGGED, three, np.ones(120))
    for name in ("f1_macro", "roc_auc", "average_precision"):
        assert get_scorer(name)(clf, TAGGED, three) == 1


def test_one_label_that_a_text_has_or_has_not():
    rows = [["x"] if "x" in tags else [] for tags in TAGS]
    clf = quick(**FITTING).fit(TAGGED, rows)
    assert clf.predict(TAGGED).tolist() == INDICATOR[:, :1].tolist()


def test_several_labels_are_chosen_by_dev_and_weighed():
    given = FITTING | {"metric": "macro-f1", "class_weight": {"y": 3.0}, "calibrate": True}
    clf = quick(early_stopping=True, **given).fit(TAGGED, TAGS, np.ones(120))
    assert clf.score(TAGGED, TAGS) == 1
    assert all({"dev_macro_f1", "dev_accuracy"} <= epoch.keys() for epoch in clf.history_[0])
    dev = TAGGED[:6], TAGS[:6]
    other = quick(**given | {"class_weight": "balanced"}).fit(TAGGED, TAGS, dev=dev)
    assert other.model_.thresholds.shape == (2,)
    with pytest.raises(ValueError, match=r"dev: y contains previously unseen labels: \['z'\]"):
        quick().fit(TAGGED, TAGS, dev=(["a"], [["z"]]))
    with pytest.raises(ValueError, match="dev: expected several labels a text"):
        quick().fit(TAGGED, TAGS, dev=(["a"], ["x"]))


# ---- random_state --------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_work_is_split")
@pytest.mark.parametrize("model", ["bow", "avg", "gru", "lstm"])
def test_a_seed_gives_the_same_bits_for_any_number_of_threads(model):
    clf = quick(model, random_state=np.int64(3), early_stopping=True)
    probabilities = []
    for threads in (1, 2, 3):
        fastrnn.set_num_threads(threads)
        probabilities.append(clone(clf).fit(TEXTS, Y).predict_proba(UNSEEN))
    assert_same_bits(probabilities[1], probabilities[0])
    assert_same_bits(probabilities[2], probabilities[0])
    other = clf.set_params(random_state=4).fit(TEXTS, Y)
    assert (other.predict_proba(UNSEEN) != probabilities[0]).any()


@pytest.mark.parametrize("seed", [3, np.int64(3)])
def test_a_seed_is_that_of_training(seed):
    of_command = SMALL | {"model": "avg", "seed": 3}
    training = Training(of_command, TEXTS, (Y == "pos").astype(int), ["neg", "pos"])
    clf = quick("avg", random_state=seed).fit(TEXTS, Y)
    assert_same_bits(clf.predict_proba(UNSEEN), training.run().predict_proba(UNSEEN))


def test_a_generator_is_drawn_from():
    generator = np.random.RandomState(5)
    first, second = (quick("avg", random_state=generator).fit(TEXTS, Y) for _ in range(2))
    assert (first.predict_proba(UNSEEN) != second.predict_proba(UNSEEN)).any()
    again = quick("avg", random_state=np.random.RandomState(5)).fit(TEXTS, Y)
    assert_same_predictions(again, first)
    state = np.random.get_state()[1].copy()
    quick("avg", random_state=7).fit(TEXTS, Y)
    assert (np.random.get_state()[1] == state).all()


# ---- scikit-learn's tools ------------------------------------------------------------------------


def lower(texts):
    return [text.lower() for text in texts]


def test_pipeline_with_parameters_and_weights():
    shouted, weights = [text.upper() for text in TEXTS], np.arange(200)
    pipeline = make_pipeline(FunctionTransformer(lower), quick("avg"))
    pipeline.set_params(textclassifier__model="bow")
    pipeline.fit(shouted, Y, textclassifier__sample_weight=weights)
    expected = quick().fit(TEXTS, Y, weights)
    assert_same_bits(
        pipeline.predict_proba([t.upper() for t in UNSEEN]), expected.predict_proba(UNSEEN)
    )


def test_cross_validation_and_search_in_two_processes():
    texts, labels, _ = make_reviews(600, seed=4)
    clf = quick(epochs=8)
    assert cross_val_score(clf, texts, labels, cv=2, scoring="roc_auc").min() > 0.6
    grid = {"learning_rate": [1e-9, 0.03], "min_count": np.array([1, 2])}
    search = GridSearchCV(clf, grid, cv=2, n_jobs=2, scoring="neg_log_loss").fit(texts, labels)
    alone = GridSearchCV(clf, grid, cv=2, scoring="neg_log_loss").fit(texts, labels)
    assert search.best_params_ == alone.best_params_
    assert search.best_params_["learning_rate"] == 0.03
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(search.cv_results_[name], alone.cv_results_[name])


def test_calibration_brings_probabilities_nearer_to_the_truth():
    texts, labels, _ = make_reviews(600, seed=4)
    sure = quick(epochs=40)  # of what it has learnt by heart
    calibrated = CalibratedClassifierCV(sure, cv=2).fit(texts, labels)
    losses = [
        log_loss(UNSEEN_LABELS, clf.predict_proba(UNSEEN))
        for clf in (calibrated, sure.fit(texts, labels))
    ]
    assert losses[0] < losses[1]


@pytest.mark.parametrize("ensemble", [VotingClassifier, StackingClassifier])
def test_ensembles_with_others(ensemble):
    texts, labels, _ = make_reviews(600, seed=4)
    others = make_pipeline(CountVectorizer(), LogisticRegression())
    soft = {"voting": "soft"} if ensemble is VotingClassifier else {"cv": 2}
    both = ensemble([("ours", quick("avg", epochs=8)), ("others", others)], **soft)
    assert both.fit(texts, labels).score(UNSEEN, UNSEEN_LABELS) > 0.6


# ---- copies and files ----------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"tokenizer": "words"}, {"min_count": 2}, {"ensemble": 2}])
@pytest.mark.parametrize("model", ["bow", "lstm"])
def test_pickles(model, params, tmp_path):
    clf = quick(model, **params).fit(TEXTS, Y)
    joblib.dump(clf, tmp_path / "clf.joblib")
    copies = (
        pickle.loads(pickle.dumps(clf)),
        joblib.load(tmp_path / "clf.joblib"),
        copy.deepcopy(clf),
    )
    for again in copies:
        assert_same_predictions(again, clf)
        assert again.get_params() == clf.get_params()


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"model": "lstm", "bidirectional": True, "pooling": "last+max", "hidden_dim": np.int64(4)},
        {"model": "gru", "ensemble": 2, "early_stopping": True, "validation_fraction": 0.25},
        {"model": "rnn", "dtype": "float64", "backend": "numpy"},
        {"model": "avg", "class_weight": {0: 2, 1: 1.5}, "dropout": np.float32(0.25)},
        {"class_weight": {np.int8(1): np.float64(3)}, "random_state": None},
        {"class_weight": "balanced", "tokenizer": "words", "ngrams": 2, "clip_norm": 0},
    ],
)
def test_load_gives_what_was_saved(params, tmp_path):
    clf = quick(**params).fit(TEXTS, BINARY)
    clf.save(tmp_path)
    loaded = TextClassifier.load(tmp_path)
    assert_same_predictions(loaded, clf)
    assert loaded.predict_proba(UNSEEN).dtype == (clf.dtype or "float32")
    assert loaded.get_params() == clf.get_params()
    np.testing.assert_array_equal(loaded.predict(UNSEEN), clf.predict(UNSEEN))
    if clf.random_state is not None:
        assert_same_predictions(clone(loaded).fit(TEXTS, BINARY), clf)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded.set_params(epochs=9).save(tmp_path)
    assert TextClassifier.load(tmp_path).epochs == 9


def test_a_generator_is_saved_as_its_seed(tmp_path):
    clf = quick("avg", random_state=np.random.RandomState(0)).fit(TEXTS, Y)
    clf.save(tmp_path)
    loaded = TextClassifier.load(tmp_path)
    assert isinstance(loaded.random_state, int)
    assert_same_predictions(clone(loaded).fit(TEXTS, Y), clf)


def test_word_vectors_from_a_path(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2 3\nwas 3 1 0\na -1 2 5\n")
    clf = quick("avg", embeddings=path, freeze=True).fit(TEXTS, Y)
    index, W = clf.model_.vocabulary.index, clf.model_.networks[0].params["W_embed"]
    difference = W[index["was"]] - W[index["the"]]  # whatever shift and scale all vectors get
    np.testing.assert_allclose(difference / difference[0], [1, -0.5, -1.5], rtol=1e-5)
    clf.save(tmp_path / "clf")
    loaded = TextClassifier.load(tmp_path / "clf")
    assert loaded.embeddings == str(path)
    path.unlink()
    assert_same_predictions(TextClassifier.load(tmp_path / "clf"), clf)


def test_the_folder_of_a_command_loads(tmp_path):
    given = SMALL | {"model": "gru", "clip_norm": 2.0, "class_weight": {"pos": 2.0}}
    of_command = given | {"seed": 3}
    model = Training(of_command, TEXTS, (Y == "pos").astype(int), ["neg", "pos"]).run()
    model.save(tmp_path)
    clf = TextClassifier.load(tmp_path)
    assert_same_bits(clf.predict_proba(UNSEEN), model.predict_proba(UNSEEN))
    assert clf.classes_.tolist() == ["neg", "pos"]
    assert clf.predict(UNSEEN).dtype == "<U3"
    params = clf.get_params()
    assert {name: params[name] for name in given} == given
    assert params["random_state"] == 3
    assert_same_predictions(clone(clf).fit(TEXTS, Y), clf)


def test_the_files_are_those_of_the_model(lstm, tmp_path):
    lstm.save(tmp_path)
    proba = TextModel.load(tmp_path).predict_proba(UNSEEN)
    assert_same_bits(proba, lstm.predict_proba(UNSEEN))


def test_other_versions_are_refused(lstm, tmp_path):
    lstm.save(tmp_path)
    path = tmp_path / "classifier.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(ValueError, match=r"classifier.json: expected format \d+, got 99"):
        TextClassifier.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no trained classifier"):
        TextClassifier.load(tmp_path / "nowhere")


# ---- what it learns ------------------------------------------------------------------------------


def test_bag_of_words_learns_what_scikit_learn_does():
    train, test = make_reviews(4000, seed=2), make_reviews(2000, seed=3)
    words = CountVectorizer(binary=True, token_pattern=r"\S+")
    theirs = make_pipeline(words, LogisticRegression()).fit(train.texts, train.labels)
    ours = quick(epochs=20, random_state=1).fit(train.texts, train.labels)
    accuracies = [clf.score(test.texts, test.labels) for clf in (ours, theirs)]
    assert abs(accuracies[0] - accuracies[1]) < 0.015
    probabilities = [clf.predict_proba(test.texts)[:, 1] for clf in (ours, theirs)]
    assert np.corrcoef(*probabilities)[0, 1] > 0.98


@pytest.mark.skipif(
    not os.environ.get("FASTRNN_DATA"), reason="FASTRNN_DATA names no folder of real data"
)
def test_bag_of_words_on_the_real_sentences():
    folder = Path(os.environ["FASTRNN_DATA"]) / "sentiment"
    train, dev = (read_labelled(folder / f"{name}.txt") for name in ("train", "dev"))
    clf = TextClassifier("bow", epochs=3, random_state=0).fit(train.texts, train.labels)
    assert clf.score(dev.texts, dev.labels) >= 0.95


def test_docs_answer_requests_together(tmp_path, monkeypatch):
    """The program that docs/text.md has for it."""
    page = (Path(__file__).parent.parent / "docs" / "text.md").read_text(encoding="utf-8")
    (code,) = (part for part in page.split("```python\n") if "def answer():" in part)
    monkeypatch.chdir(tmp_path)
    model = TextClassifier("avg", embedding_dim=4, epochs=3, random_state=0)
    model.fit(["good", "bad"] * 20, ["yes", "no"] * 20).save("run")
    names = {}
    exec(code.split("```")[0], names)
    texts = ["good", "bad", "so", "a good one"] * 50
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(names["classify"], texts)] == model.predict(texts).tolist()
