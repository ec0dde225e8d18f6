"""From probabilities to decisions: several labels a text, temperature, thresholds; weights of
int8."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as skm
from util import ELEMENT, TWIN, assert_close, assert_same_bits

from fastrnn import RowGradient, storage
from fastrnn.gradcheck import eval_numerical_gradient
from fastrnn.metrics import (
    accuracy,
    calibration_error,
    classifier_report,
    f1_scores,
    multilabel_report,
    report_table,
)
from fastrnn.text import TextModel, Training
from fastrnn.text.calibration import best_temperature, best_thresholds, log_loss, tempered
from fastrnn.text.model import build
from fastrnn.text.quantization import dequantized, quantized
from fastrnn.text.settings import complete
from fastrnn.text.vocabulary import Sentences

TAGGED = ["b a c d", "a", "b c", "c", "", "a c d"] * 20
INDICATOR = np.array([[1, 1], [1, 0], [0, 1], [0, 0], [0, 0], [1, 0]] * 20)
QUICK = {"embedding_dim": 5, "hidden_dim": 6, "epochs": 4, "learning_rate": 0.03, "batch_size": 32}


def trained(model="lstm", y=INDICATOR, **given):
    classes = ["x", "y"]
    settings = QUICK | {"model": model} | given
    return Training(settings, TAGGED, y, classes, dev=(TAGGED[:60], y[:60]))


# ---- several labels a text -----------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("model", ["bow", "avg", "gru"])
def test_loss_of_several_labels_and_its_gradients(model, weighted, rng):
    given = complete({"model": model, "embedding_dim": 3, "hidden_dim": 4, "dtype": "float64"})
    network = build(given, 9, 3, seed=0, multilabel=True)
    sentences = Sentences(rng.integers(1, 9, size=7), np.array([0, 2, 2, 6, 7]))
    y = rng.random((4, 3)) < 0.4
    weights = rng.random((4, 3)) if weighted else None

    def loss():
        return network.loss(sentences, y, weights)

    value, grads = loss()
    scores = torch.tensor(network.scores(sentences))
    terms = torch.nn.functional.binary_cross_entropy_with_logits(
        scores, torch.tensor(y, dtype=torch.float64), reduction="none"
    ).numpy()
    assert value == pytest.approx((terms * (1 if weights is None else weights)).sum() / 4)
    for name, dw in grads.items():
        w = network.params[name]
        if isinstance(dw, RowGradient):
            full = np.zeros_like(w)
            full[dw.rows] = dw.values
            dw = full
        assert_close(dw, eval_numerical_gradient(lambda _: loss()[0], w), ELEMENT, name)
    assert_close(network.proba(sentences), torch.sigmoid(scores).numpy(), TWIN["float64"])


def test_sigmoids_of_large_scores_are_no_warnings():
    network = build(complete({"model": "bow"}), 2, 2, seed=0, multilabel=True)
    network.params["b"][:] = 1000, -1000
    sentence = Sentences(np.array([], np.intp), np.array([0, 0]))
    assert network.proba(sentence).tolist() == [[1, 0]]
    loss, grads = network.loss(sentence, np.array([[False, True]]))
    assert loss == 2000 and grads["b"].tolist() == [1, -1]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (INDICATOR[:3], "y: expected 0 or 1 of shape (N, C) = (120, 2), N at least 1"),
        (INDICATOR[:, :1], "y: expected 0 or 1 of shape (N, C) = (120, 2), N at least 1"),
        (2 * INDICATOR, "y: expected 0 or 1 of shape (N, C) = (120, 2), N at least 1"),
    ],
)
def test_what_is_no_indicator_is_refused(y, message):
    with pytest.raises(ValueError) as caught:
        Training(QUICK, TAGGED, y, ["x", "y"])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1", "micro-f1"])
@pytest.mark.parametrize("several", [False, True])
def test_the_metric_chooses_the_best_epoch(metric, several):
    y = INDICATOR if several else INDICATOR[:, 0]
    training = trained(y=y, metric=metric, patience=0, learning_rate=0.3, lr_decay=1.0)
    training.run()
    (solver,) = training.solvers
    key = "dev_" + metric.replace("-", "_")
    scores = [epoch[key] - 1e-6 * epoch["dev_loss"] for epoch in solver.history]
    assert solver.best_score == max(scores)


# ---- figures -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 40), c=st.integers(1, 6), seed=st.integers(0, 999))
def test_figures_of_several_labels_agree_with_scikit_learn(n, c, seed):
    rng = np.random.default_rng(seed)
    y, proba, thresholds = rng.random((n, c)) < 0.3, rng.random((n, c)), rng.random(c)
    report = multilabel_report(y, proba, [f"label {i}" for i in range(c)], thresholds)
    predicted = proba >= thresholds
    assert json.loads(json.dumps(report)) == report
    assert report["accuracy"] == (predicted == y).all(axis=1).mean() == accuracy(y, predicted)
    assert report["hamming_loss"] == pytest.approx((y != predicted).mean())
    for average in ("micro", "macro"):
        scores = [skm.precision_score, skm.recall_score, skm.f1_score]
        names = [f"{average}_{name}" for name in ("precision", "recall", "f1")]
        for name, score in zip(names, scores, strict=True):
            # Of one column scikit-learn would take y for two classes.
            each = [score(y[:, i], predicted[:, i], zero_division=0) for i in range(c)]
            whole = score(y.ravel(), predicted.ravel(), zero_division=0)
            expected = np.mean(each) if average == "macro" else whole
            assert report[name] == pytest.approx(expected), name
    assert f1_scores(y, predicted, c) == pytest.approx((report["macro_f1"], report["micro_f1"]))
    assert [row["support"] for row in report["per_class"].values()] == y.sum(axis=0).tolist()
    assert [row["threshold"] for row in report["per_class"].values()] == thresholds.tolist()
    expected = -np.log(np.where(y, proba, 1 - proba)).sum() / n
    assert report["log_loss"] == pytest.approx(expected) == log_loss(y, proba)
    assert report["ece"] == calibration_error(y, proba)


def test_f1_of_one_label_a_text(rng):
    y, predicted = rng.integers(4, size=(2, 50))
    macro, micro = f1_scores(y, predicted, 5)
    assert macro == pytest.approx(
        skm.f1_score(y, predicted, average="macro", labels=range(4), zero_division=0)
    )
    assert micro == pytest.approx(accuracy(y, predicted))
    proba = rng.dirichlet(np.ones(4), 50)
    report = classifier_report(y, proba, "abcd")
    assert report["ece"] == calibration_error(y, proba)
    assert report["log_loss"] == pytest.approx(log_loss(y, proba))


def test_table_of_several_labels():
    y = np.array([[1, 0], [1, 1], [0, 0]])
    table = report_table(
        multilabel_report(y, np.array([[0.9, 0.6], [0.8, 0.9], [0, 0]]), "xy", [0.5, 0.7])
    )
    assert "3 examples: all labels right 1.0000, micro F1 1.0000, macro F1 1.0000, ECE" in table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.ones((2, 3))}, "y: expected (N, 2) of 0 and 1 with N > 0, got (2, 3)"),
        ({"y": np.full((2, 2), 2)}, "y: expected (N, 2) of 0 and 1 with N > 0, got (2, 2)"),
        ({"y": np.ones((0, 2))}, "y: expected (N, 2) of 0 and 1 with N > 0, got (0, 2)"),
        ({"proba": np.full((2, 2), np.nan)}, "proba: expected (2, 2) numbers from 0 to 1"),
        ({"proba": np.ones((1, 2))}, "proba: expected (2, 2) numbers from 0 to 1, got (1, 2)"),
        ({"classes": ["a", "a"]}, "classes: expected one or more different names"),
        ({"thresholds": [0.5]}, "thresholds: expected (2,) numbers, got (1,)"),
    ],
)
def test_bad_input_of_several_labels_is_named(change, message):
    good = {"y": np.eye(2), "proba": np.eye(2), "classes": ["a", "b"], "thresholds": [0.5, 0.5]}
    with pytest.raises(ValueError) as caught:
        multilabel_report(**good | change)
    assert str(caught.value).startswith(message)


# ---- temperature and thresholds ------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("true", [0.3, 1.0, 2.5])
def test_temperature_undoes_what_made_probabilities_dishonest(true, several, rng):
    scores = 2 * rng.standard_normal((4000, 3))
    honest = torch.sigmoid(torch.tensor(scores)) if several else torch.tensor(scores).softmax(1)
    honest = honest.numpy()
    y = rng.random(honest.shape) < honest
    if not several:
        y = (rng.random((4000, 1)) > honest.cumsum(axis=1)).sum(axis=1)
    proba = tempered(honest, 1 / true, several)
    assert best_temperature(y, proba) == pytest.approx(true, rel=0.1)
    again = tempered(proba, true, several)
    np.testing.assert_allclose(again, honest, rtol=1e-9, atol=1e-12)
    assert tempered(proba, 1.0, several) is proba
    if not several:
        np.testing.assert_allclose(again.sum(axis=1), 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("temperature", [1 / 16, 16.0])
def test_extreme_temperatures_give_probabilities(dtype, temperature):
    certain = np.array([[1, 0], [1e-30, 1], [0.5, 0.5]], dtype)
    many = np.full((1, 2000), 1 / 2000, dtype)
    for proba in (certain, many):
        one = tempered(proba, temperature, multilabel=False)
        np.testing.assert_allclose(one.sum(axis=1), 1, rtol=1e-4)
        several = tempered(proba, temperature, multilabel=True)
        assert one.dtype == several.dtype == dtype
        assert ((several >= 0) & (several <= 1)).all()
    assert best_temperature(np.array([0, 1]), np.eye(2, dtype=dtype)) <= 16


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 25), levels=st.integers(1, 8), seed=st.integers(0, 999))
def test_no_threshold_has_a_better_f1(n, levels, seed):
    rng = np.random.default_rng(seed)
    y = rng.random((n, 1)) < 0.4
    proba = (rng.integers(levels + 1, size=(n, 1)) / levels).astype(np.float32)
    (threshold,) = best_thresholds(y, proba)

    def f1(t):
        return skm.f1_score(y[:, 0], (proba >= t)[:, 0], zero_division=0)

    tried = [*np.unique(proba), 0.5, 2]
    assert f1(threshold) == pytest.approx(max(map(f1, tried)))
    if f1(0.5) == max(map(f1, tried)):
        assert threshold == 0.5
    assert 0 <= threshold <= 1


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("ensemble", [1, 2])
def test_calibration_is_kept_and_measured(several, ensemble, tmp_path):
    y = INDICATOR if several else INDICATOR[:, 1]
    y = np.where(np.random.default_rng(0).random(y.shape) < 0.15, 1 - y, y)
    plain = trained(y=y, ensemble=ensemble).run()
    training = trained(y=y, ensemble=ensemble, calibrate=True)
    model, figures = training.run(), training.figures["calibration"]
    assert model.temperature == figures["temperature"] != 1 == plain.temperature
    assert figures["log_loss_after"] < figures["log_loss_before"]
    before, after = (m.predict_proba(TAGGED[:60]) for m in (plain, model))
    for when, proba in (("before", before), ("after", after)):
        assert figures[f"ece_{when}"] == calibration_error(y[:60], proba)
    assert_same_bits(after, tempered(before, model.temperature, several))
    model.save(tmp_path)
    again = TextModel.load(tmp_path)
    assert_same_bits(again.predict_proba(TAGGED), model.predict_proba(TAGGED))
    if several:
        np.testing.assert_array_equal(again.thresholds, model.thresholds)
        np.testing.assert_array_equal(model.thresholds, best_thresholds(y[:60] == 1, after))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": [0.5]}, "thresholds: expected 2 numbers, got 1"),
        ({"thresholds": ["a", "b"]}, "thresholds: expected None or a list"),
        ({"temperature": 0}, "temperature: expected a number above 0"),
    ],
)
def test_damaged_decisions_are_refused(change, message, tmp_path):
    trained(epochs=1).run().save(tmp_path)
    path = tmp_path / "classifier.json"
    storage.write_json(path, storage.read_json(path) | change)
    with pytest.raises(ValueError, match="not a classifier's description") as caught:
        TextModel.load(tmp_path)
    assert message in str(caught.value)


# ---- weights of int8 -----------------------------------------------------------------------------


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_int8_is_near_and_says_itself_again(dtype, short, rng):
    w = (rng.standard_normal((50, 30)) * 10.0 ** rng.integers(-9, 9, (50, 1))).astype(dtype)
    w[3], w[5, 1:] = 0, 0
    w = w[:9].T.copy() if short else w
    q, scale = quantized(w)
    assert (q.dtype, scale.dtype) == (np.int8, np.float32)
    assert scale.shape == ((1, 9) if short else (50, 1))
    near = dequantized(q, scale, w.dtype)
    assert near.dtype == dtype
    assert (abs(near - w) <= 0.5001 * scale).all()
    assert (scale <= abs(w).max(axis=0 if short else 1, keepdims=True) / 127 * 1.0001).all()
    for a, b in zip(quantized(near), (q, scale), strict=True):
        assert_same_bits(a, b)
    with pytest.raises(ValueError, match="finite"):
        quantized(np.array([[np.nan]]))


@pytest.mark.parametrize("model", ["bow", "lstm"])
def test_a_model_of_int8_is_small_and_saved_as_it_predicts(model, tmp_path):
    given = {"model": model, "ensemble": 2, "embedding_dim": 64, "hidden_dim": 32}
    sizes = {}
    for quantize in (None, "int8"):
        training = trained(**given, quantize=quantize)
        folder, trained_model = tmp_path / str(quantize), training.run()
        trained_model.save(folder)
        again = TextModel.load(folder)
        proba = trained_model.predict_proba(TAGGED)
        assert_same_bits(again.predict_proba(TAGGED), proba)
        again.save(tmp_path / "again")
        (first,), (second,) = (f.glob("*.safetensors") for f in (folder, tmp_path / "again"))
        assert first.read_bytes() == second.read_bytes()
        sizes[quantize] = first.stat().st_size
    figures = training.figures["quantization"]
    assert figures["accuracy_after"] == pytest.approx(figures["accuracy_before"], abs=0.05)
    if model == "lstm":
        assert sizes["int8"] < 0.35 * sizes[None]
        assert figures["bytes_after"] < 0.35 * figures["bytes_before"]


def test_damaged_weights_of_int8_are_refused(tmp_path):
    trained(epochs=1, quantize="int8").run().save(tmp_path)
    (path,), description = tmp_path.glob("*.safetensors"), tmp_path / "classifier.json"
    tensors = storage.read_tensors(path)
    del tensors["0/W.scale"]
    tag = path.stem.partition("-")[2]
    storage.write_named(description, tag, storage.read_json(description), tensors)
    with pytest.raises(ValueError) as caught:
        TextModel.load(tmp_path)
    assert str(caught.value) == f"{path}: 0/W.scale: expected (1, 2) float32, got nothing"
