"""Figures of a classifier: by hand, by their definitions, by scikit-learn; table; pictures."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics as skm

from fastrnn import figures, fonts, plots
from fastrnn.metrics import classifier_report, report_table

NAMES = ["negative", "positive"]
# Five examples whose figures are small fractions; most confidences lie on the edge of a bin.
Y = np.array([0, 0, 1, 1, 1])
PROBA = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8], [0.55, 0.45]])


def random_case(rng, n, c, sharpness=1.0, skill=1.0):
    """True classes and the probabilities of a model that knows something about them."""
    y = rng.integers(c, size=n)
    scores = rng.standard_normal((n, c))
    scores[np.arange(n), y] += skill
    proba = np.exp(sharpness * scores)
    return y, proba / proba.sum(axis=1, keepdims=True)


# ---- figures -------------------------------------------------------------------------------------


def test_figures_by_hand():
    report = classifier_report(Y, PROBA, NAMES)
    assert report["examples"] == 5
    assert report["accuracy"] == 3 / 5
    assert report["confusion"] == [[1, 1], [1, 2]]
    thirds = pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})
    halves = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert report["per_class"] == {"negative": halves, "positive": thirds}
    assert report["macro_f1"] == pytest.approx(7 / 12)
    of_the_truth = (0.9, 0.4, 0.7, 0.8, 0.45)
    assert report["log_loss"] == pytest.approx(-sum(map(math.log, of_the_truth)) / 5)
    assert report["brier"] == pytest.approx((0.01 + 0.36 + 0.09 + 0.04 + 0.3025) / 5)
    # 0.55 and 0.6 share (0.5, 0.6], both wrong; 0.7, 0.8 and 0.9 are right, each alone.
    assert report["ece"] == pytest.approx((1.15 + 0.3 + 0.2 + 0.1) / 5)
    empty = {"confidence": None, "accuracy": None, "count": 0}
    alone = [{"confidence": c, "accuracy": 1.0, "count": 1} for c in (0.7, 0.8, 0.9)]
    wrong = {"confidence": pytest.approx(0.575), "accuracy": 0.0, "count": 2}
    assert report["reliability"] == [*[empty] * 5, wrong, *alone, empty]


def test_figures_of_three_classes_one_of_which_never_comes():
    report = classifier_report([0, 1], [[1, 0, 0], [0.5, 0.25, 0.25]], ["a", "b", "c"])
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert report["per_class"]["b"] == nothing | {"support": 1}  # never predicted
    assert report["per_class"]["c"] == nothing | {"support": 0}
    assert report["macro_f1"] == pytest.approx(2 / 3 / 2)  # of those that come
    assert report["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert report["brier"] == pytest.approx((0.25 + 0.5625 + 0.0625) / 2)  # not halved


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_perfect_and_overconfident_models(dtype):
    y = np.array([0, 1, 1, 0])
    perfect = classifier_report(y, np.eye(2, dtype=dtype)[y], NAMES)
    for name, value in {"accuracy": 1, "macro_f1": 1, "brier": 0, "ece": 0}.items():
        assert perfect[name] == value, name
    assert perfect["log_loss"] == pytest.approx(0, abs=1e-12)
    wrong = classifier_report(y, np.eye(2, dtype=dtype)[1 - y], NAMES)
    for name, value in {"accuracy": 0, "macro_f1": 0, "brier": 1, "ece": 1}.items():
        assert wrong[name] == value, name
    assert wrong["log_loss"] == pytest.approx(-math.log(np.finfo("float64").eps))
    assert wrong["reliability"][-1] == {"confidence": 1.0, "accuracy": 0.0, "count": 4}


def expected_calibration_error(confidence, correct):
    """Guo et al. 2017, equation 3, as it is written."""
    total = 0.0
    for m in range(1, 11):
        inside = [i for i, p in enumerate(confidence) if (m - 1) / 10 < p <= m / 10]
        if inside:
            acc = sum(correct[i] for i in inside) / len(inside)
            conf = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(acc - conf)
    return total


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 60),
    c=st.integers(2, 7),
    sharpness=st.sampled_from([0.1, 1.0, 8.0]),
    seed=st.integers(0, 999),
)
def test_figures_agree_with_their_definitions_and_with_scikit_learn(n, c, sharpness, seed):
    y, proba = random_case(np.random.default_rng(seed), n, c, sharpness)
    names = [f"class {i}" for i in range(c)]
    report = classifier_report(y, proba, names)
    predicted = proba.argmax(axis=1)
    expected = skm.classification_report(
        y, predicted, labels=range(c), target_names=names, output_dict=True, zero_division=0
    )
    for name in names:
        row = expected[name]
        row["f1"] = row.pop("f1-score")
        assert report["per_class"][name] == pytest.approx(row)
    there = [names[i] for i in np.unique(y)]
    f1 = np.mean([expected[name]["f1"] for name in there])
    assert report["macro_f1"] == pytest.approx(f1)
    assert report["accuracy"] == skm.accuracy_score(y, predicted)
    confusion = np.zeros((c, c), int)
    np.add.at(confusion, (y, predicted), 1)
    assert report["confusion"] == confusion.tolist()
    of_the_truth = np.maximum(proba[np.arange(n), y], np.finfo("float64").eps)
    assert report["log_loss"] == pytest.approx(-np.log(of_the_truth).mean())
    brier = ((proba - np.eye(c)[y]) ** 2).sum(axis=1).mean()
    assert report["brier"] == pytest.approx(brier / 2 if c == 2 else brier)
    confidence = proba.max(axis=1)
    ece = expected_calibration_error(confidence, predicted == y)
    assert report["ece"] == pytest.approx(ece, abs=1e-12)
    assert sum(b["count"] for b in report["reliability"]) == n


def test_single_precision_gives_the_same_and_json_keeps_it(rng):
    y, proba = random_case(rng, 500, 4)
    double = classifier_report(y, proba, list("abcd"))
    single = classifier_report(y.astype("uint8"), proba.astype("float32"), list("abcd"))
    for name in ("log_loss", "brier", "ece"):
        assert single[name] == pytest.approx(double[name], rel=1e-5)
    assert single["confusion"] == double["confusion"]
    assert json.loads(json.dumps(single, allow_nan=False)) == single


def test_inputs_are_not_modified():
    y, proba = Y.copy(), PROBA.astype("float32")
    before = proba.copy()
    classifier_report(y, proba, NAMES)
    np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(proba, before)


@pytest.mark.parametrize(
    ("y", "proba", "classes", "message"),
    [
        (Y, PROBA, ["a"], r"classes: expected two or more different names, got \['a'\]"),
        (Y, PROBA, ["a", "a"], "classes: expected two or more different names"),
        ([], np.zeros((0, 2)), NAMES, r"y: expected \(N,\) integers with N > 0, got \(0,\)"),
        (np.zeros(0, int), np.zeros((0, 2)), NAMES, "N > 0"),
        (Y[:, None], PROBA, NAMES, r"y: .* got \(5, 1\) int"),
        (Y.astype(float), PROBA, NAMES, r"y: .* got \(5,\) float64"),
        (["negative"], PROBA[:1], NAMES, "y: expected .* integers"),
        ([0, 0, 1, 1, 2], PROBA, NAMES, "y: expected 0 to 1, got 0 to 2"),
        ([0, 0, 1, 1, -1], PROBA, NAMES, "y: expected 0 to 1, got -1 to 1"),
        (Y, PROBA[:4], NAMES, r"proba: expected \(5, 2\) numbers, got \(4, 2\)"),
        (Y, PROBA[:, 1], NAMES, r"proba: expected \(5, 2\) numbers, got \(5,\)"),
        (Y, PROBA, ["a", "b", "c"], r"proba: expected \(5, 3\) numbers, got \(5, 2\)"),
        (Y, PROBA.astype(str), NAMES, r"proba: expected \(5, 2\) numbers, got \(5, 2\) <U"),
        (Y, PROBA * [[1], [1], [1], [0.5], [1]], NAMES, "row 3 with minimum 0.1 and sum 0.5"),
        (Y, PROBA + [[0.0, 0.002]], NAMES, r"proba: .* sum to 1, got row 0 .* sum 1\.002"),
        (Y, PROBA + [[0.5, -0.5]], NAMES, r"proba: .* got row 0 with minimum -0\.4 and sum 1"),
        (Y, PROBA * [[1], [1], [np.nan], [1], [1]], NAMES, "proba: .* row 2 with minimum nan"),
    ],
)
def test_bad_input_is_named(y, proba, classes, message):
    with pytest.raises(ValueError, match=message):
        classifier_report(y, proba, classes)


# ---- the table -----------------------------------------------------------------------------------


def test_table_shows_the_figures():
    assert report_table(classifier_report(Y, PROBA, NAMES)).splitlines() == [
        "precision  recall      f1  support  class",
        "   0.5000  0.5000  0.5000        2  negative",
        "   0.6667  0.6667  0.6667        3  positive",
        "5 examples: accuracy 0.6000, macro F1 0.5833, ECE 0.3500",
    ]


def test_table_cuts_long_names_and_keeps_its_columns(rng):
    names = ["short", "x" * 24, "y" * 25, "积极的"]
    head, *rows, _ = report_table(classifier_report(*random_case(rng, 99, 4), names)).splitlines()
    at = head.index("class")
    assert [row[at:] for row in rows] == ["short", "x" * 24, "y" * 23 + "…", "积极的"]
    assert {row[at - 1] for row in rows} == {" "}


def test_table_of_many_classes_shows_the_worst(rng):
    y, proba = random_case(rng, 900, 26)
    keep = y >= 3  # without examples, nothing is known of the first three classes
    names = [f"c{i}" for i in range(26)]
    report = classifier_report(y[keep], proba[keep], names)
    first, head, *rows, _ = report_table(report).splitlines()
    assert first == "the 20 worst of 26 classes:"
    shown = [row[head.index("class") :] for row in rows]
    f1 = {name: row["f1"] for name, row in report["per_class"].items()}
    assert shown == sorted(names[3:], key=f1.get)[:20]
    twenty = classifier_report(*random_case(rng, 99, 20), names[:20])
    assert [row.split()[-1] for row in report_table(twenty).splitlines()[1:-1]] == names[:20]


# ---- pictures ------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """The figures that plots would save, with all texts in their places."""
    kept = []

    def keep(figure, path):
        figure.canvas.draw()
        kept.append(figure)

    monkeypatch.setattr(figures, "save", keep)
    return kept


def assert_nothing_is_clipped(figure):
    box, page = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= page[0]
    assert box.y1 <= page[1]


def solver_history(epochs, rng, keys=("dev_loss", "dev_accuracy", "train_accuracy")):
    history = [{"epoch": e, "train_loss": 1 / e, "seconds": 0.1} for e in range(1, epochs + 1)]
    for epoch in history:
        epoch.update({key: float(value) for key, value in zip(keys, rng.random(3), strict=False)})
    return history


def draw_confusion(path, seed):
    plots.plot_confusion(path, np.random.default_rng(seed).integers(99, size=(3, 3)), list("abc"))


def draw_reliability(path, seed):
    y, proba = random_case(np.random.default_rng(seed), 99, 3)
    plots.plot_reliability(path, classifier_report(y, proba, list("abc")))


def draw_curves(path, seed):
    rng = np.random.default_rng(seed)
    plots.plot_curves(path, rng.random(20), solver_history(4, rng), "dev")


@pytest.mark.parametrize("draw", [draw_confusion, draw_reliability, draw_curves])
def test_pictures_are_whole_files_and_show_the_data(tmp_path, draw):
    pictures = []
    for name, seed in (("a.png", 0), ("again.png", 0), ("b.png", 1)):
        draw(tmp_path / name, seed)
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
            assert all(300 < pixels < 2000 for pixels in image.size)
            pictures.append(np.asarray(image.convert("L")).astype(int))
    assert pictures[0].std() > 5  # something is drawn
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert pictures[0].shape != pictures[2].shape or (pictures[0] != pictures[2]).sum() > 100
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "again.png", "b.png"}


def test_confusion_shows_counts_and_percentages_of_the_row(drawn):
    plots.plot_confusion("-", [[6, 2, 0], [1, 0, 1], [0, 0, 0]], ["a", "b", "c"])
    axes = drawn[0].axes[0]
    cells = [["6\n75.0%", "2\n25.0%", "0\n0.0%"], ["1\n50.0%", "0\n0.0%", "1\n50.0%"]]
    assert [text.get_text() for text in axes.texts] == [*cells[0], *cells[1], *["0\n0.0%"] * 3]
    for i, text in enumerate(axes.texts):
        assert text.get_position() == (i % 3, i // 3)
        assert text.get_color() == ("white" if i == 0 else "black")  # on dark blue, on light
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[0.75, 0.25, 0], [0.5, 0, 0.5], [0, 0, 0]]
    )
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]


@pytest.mark.parametrize("c", [2, 15, 16, 40, 101])
def test_confusion_is_readable_for_any_number_of_classes(drawn, c):
    names = [f"{i}_{'w' * 70}" for i in range(c)]
    plots.plot_confusion("-", np.full((c, c), 123456), names)
    figure = drawn[0]
    axes = figure.axes[0]
    assert_nothing_is_clipped(figure)
    assert len(axes.texts) == (c * c if c <= 15 else 0)
    cell = axes.get_window_extent().width / c
    for text in axes.texts:
        assert text.get_window_extent().width < cell
        assert text.get_window_extent().height < cell
    labels = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(labels) == {101: 34}.get(c, c)
    for above, below in itertools.pairwise(labels):
        assert below.y1 < above.y0
    name = axes.get_xticklabels()[0]
    apart = (labels[0].y0 - labels[1].y0) * math.sin(math.radians(name.get_rotation()))
    assert apart > name.get_fontsize() * figure.dpi / 72


def test_long_names_are_whole_in_galleries_and_stand_over_their_own_pictures():
    names = ["a_name_of_a_species_that_is_long" * 2, "WWWWWWW MMMMMM" * 5, "short"]
    pictures = [np.zeros((60, width, 3), np.uint8) for width in (9, 60, 300)] * 2
    titles = [f"{a} / {b} 95%" for a, b in itertools.product(names, names[:2])]
    figure = plots.gallery(pictures, titles, [[f"val/{title}.jpg"] for title in titles])
    figure.draw_without_rendering()
    assert_nothing_is_clipped(figure)
    drawn = [axis for axis in figure.axes if axis.images]
    for axis, title in zip(drawn, titles, strict=True):
        shown = axis.get_title(loc="left")
        assert shown.replace("\n", "").replace(" ", "") == title.replace(" ", "")
        assert "95%" in shown
        assert axis.get_xlabel().replace("\n", "").endswith(".jpg")
    for one, next_ in itertools.pairwise(drawn[:4]):
        for text in (one._left_title, one.xaxis.label):
            assert text.get_window_extent().x1 <= next_._left_title.get_window_extent().x0


@settings(deadline=None, max_examples=60)
@given(st.text("aWé 蜜_.\u0301", max_size=90), st.floats(0.3, 3), st.integers(1, 4))
def test_folded_texts_fit_and_lose_nothing_but_their_middle(text, inches, most):
    lines = fonts.folded(text, inches, most, 9)
    assert len(lines) <= most or inches < 0.6
    for line in lines:
        assert fonts.width(line, 9) <= inches + 1e-9 or len(line) == 1
    shown = "".join(lines).replace(" ", "")
    if "…" not in shown:
        assert shown == text.replace(" ", "")
    else:
        head, tail = shown.split("…")
        assert text.replace(" ", "").startswith(head)
        assert text.replace(" ", "").endswith(tail)


def test_letters_come_from_any_installed_font_and_those_of_none_are_named_once(
    tmp_path, monkeypatch
):
    from matplotlib import font_manager

    stix = fonts._letters(font_manager.findfont("STIXGeneral"))
    letter = chr(min(stix - fonts._letters(fonts._usual("normal"))))
    monkeypatch.setattr(fonts, "_warned", set())

    def draw(name):
        figure = figures.new(2, 2)
        figure.subplots().set_xticks([0, 1], [name, "b"])
        figures.save(figure, tmp_path / "a.png")
        return figure.axes[0].get_xticklabels()[0].get_fontfamily()

    families = {"STIXGeneral": stix, "STIXSizeOneSym": frozenset()}
    monkeypatch.setattr(fonts, "_families", lambda: families)
    fonts._fallbacks.cache_clear()
    assert draw(f"a{letter}")[-1] == "STIXGeneral"  # and no warning of matplotlib's
    assert "STIXGeneral" not in draw("a")
    with pytest.warns(UserWarning, match=r"^figures: no installed font has .* \(U\+10FFFD\)$"):
        draw("\U0010fffd")
    draw("\U0010fffd")
    fonts._fallbacks.cache_clear()


def test_class_names_are_shown_as_they_are(drawn):
    names = ["$5$", "$\\broken{$", "$a_b^c"]
    plots.plot_confusion("-", np.eye(3, dtype=int), names)
    assert [label.get_text() for label in drawn[0].axes[0].get_xticklabels()] == names


@pytest.mark.parametrize(("shape", "c"), [((2, 3), 2), ((2, 2), 3), ((4,), 2), ((0, 0), 1)])
def test_confusion_of_another_shape_is_refused(tmp_path, shape, c):
    with pytest.raises(
        ValueError, match=rf"confusion: expected shape \({c}, {c}\), got \({shape[0]}"
    ):
        plots.plot_confusion(tmp_path / "c.png", np.zeros(shape), list("abc")[:c])
    assert not [*tmp_path.iterdir()]


def test_reliability_leaves_empty_bins_out(drawn):
    report = classifier_report(Y, PROBA, NAMES)
    plots.plot_reliability("-", json.loads(json.dumps(report)))
    axes, below = drawn[0].axes
    diagonal, model = axes.lines
    np.testing.assert_array_equal(diagonal.get_xydata(), [(0, 0), (1, 1)])
    np.testing.assert_allclose(model.get_xydata(), [(0.575, 0), (0.7, 1), (0.8, 1), (0.9, 1)])
    heights = [bar.get_height() for bar in below.patches]
    np.testing.assert_allclose(heights, [0, 0, 0, 0, 0, 0.4, 0.2, 0.2, 0.2, 0])
    middles = [bar.get_x() + bar.get_width() / 2 for bar in below.patches]
    np.testing.assert_allclose(middles, np.arange(10) / 10 + 0.05)
    assert drawn[0].get_suptitle() == "expected calibration error 0.3500"
    assert (axes.get_ylabel(), below.get_xlabel()) == ("accuracy", "confidence")
    assert_nothing_is_clipped(drawn[0])


def test_curves_go_through_the_history(drawn, rng):
    losses, history = rng.random(12), solver_history(4, rng)
    del history[1]["dev_loss"], history[1]["dev_accuracy"]  # not validated
    plots.plot_curves("-", losses, history, "dev")
    loss, accuracy = drawn[0].axes
    each, mean, dev = (line.get_xydata() for line in loss.lines)
    np.testing.assert_allclose(each, np.column_stack([np.arange(1, 13), losses]))
    np.testing.assert_allclose(mean, [(3 * e, 1 / e) for e in (1, 2, 3, 4)])
    validated = [history[i] for i in (0, 2, 3)]
    np.testing.assert_allclose(dev, [(3 * e["epoch"], e["dev_loss"]) for e in validated])
    training, dev = (line.get_xydata() for line in accuracy.lines)
    np.testing.assert_allclose(training, [(e["epoch"], e["train_accuracy"]) for e in history])
    np.testing.assert_allclose(dev, [(e["epoch"], e["dev_accuracy"]) for e in validated])
    assert loss.get_ylim()[0] == 0
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ["training, each iteration", "training, epoch mean", "dev"]
    assert_nothing_is_clipped(drawn[0])


@pytest.mark.parametrize(
    ("epochs", "keys", "lines"),
    [
        (0, (), [1]),
        (3, (), [2]),
        (3, ("dev_loss",), [3]),
        (1, ("dev_loss", "dev_accuracy"), [3, 1]),
        (3, ("train_accuracy",), [2, 1]),
    ],
)
def test_curves_show_what_there_is(drawn, rng, epochs, keys, lines):
    plots.plot_curves("-", [0.9, 0.8, 0.7], solver_history(epochs, rng, keys), "dev")
    assert [len(axes.lines) for axes in drawn[0].axes] == lines
    for axes in drawn[0].axes:
        low, high = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert shown == [round(tick) for tick in shown]
        assert shown
    assert_nothing_is_clipped(drawn[0])


def test_a_classifier_that_is_always_wrong_has_a_table():
    report = classifier_report(np.array([0, 1]), np.array([[0.1, 0.9], [0.9, 0.1]]), ["a", "b"])
    assert [row["support"] for row in report["per_class"].values()] == [1, 1]
    assert "accuracy 0.0000" in report_table(report)
