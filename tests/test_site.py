"""The plots of docs/learn/plots.md in a browser: what they compute is what fastrnn computes, and
they follow their sliders. That the site can be built, without a warning, is a step of .ci/run."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_examples import at_rest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def plots(browser, tmp_path_factory):
    """A browser that shows the page's own HTML with its script, and nothing else."""
    text = (DOCS / "learn/plots.md").read_text(encoding="utf-8")
    html = "".join(re.findall(r"^```\{raw\} html\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    page = tmp_path_factory.mktemp("site") / "plots.html"
    script = (DOCS / "static/plots.js").as_uri()
    page.write_text(f"<!doctype html>{html.replace('../_static/plots.js', script)}")
    browser.get(page.as_uri())
    yield browser
    assert not browser.get_log("browser")


@pytest.mark.parametrize("bias", [-2, 0, 1, 4])
@pytest.mark.parametrize("v", [0, 0.8, 1.25])
def test_gradients_shrink_as_they_do_in_the_networks(plots, v, bias):
    given = {"v": v, "bias": bias}
    found = plots.execute_script("return fastrnnPlots.rates(arguments[0])", given)
    W = np.full((4, 1, 1), float(v))
    for cell in ("rnn", "lstm", "gru"):
        step, _ = at_rest(cell, W, bias)
        assert found[cell.upper()] == pytest.approx(np.abs(np.linalg.eigvals(step)).max())


def test_a_pulse_is_kept_by_the_forget_gate(plots):
    given = {"f": 0.9, "i": 0.5, "o": 0.25}
    drawn = plots.execute_script("return fastrnnPlots.gates(arguments[0]).lines", given)
    c, h = (np.array(line, float) for line in drawn.values())
    np.testing.assert_allclose(c[5:25], 0.5 * 0.9 ** np.arange(20))
    assert c[25] == pytest.approx(0.5 * 0.9**20 + 0.5)
    np.testing.assert_allclose(h, 0.25 * np.tanh(c))


def test_plots_follow_their_sliders(plots):
    move = """
    const [plot, name, value] = arguments, input = plot.querySelector(`input[name=${name}]`);
    input.value = value;
    input.dispatchEvent(new Event("input", {bubbles: true}));
    return [...plot.querySelectorAll("polyline")].map((line) => line.getAttribute("points"));"""
    for plot, name, values, lines in zip(
        plots.find_elements("class name", "plot"),
        ("v", "f"),
        ((0.5, 1), (0.2, 1)),
        (3, 2),
        strict=True,
    ):
        before, after = (plots.execute_script(move, plot, name, value) for value in values)
        assert len(before) == len(after) == lines
        assert before != after
        assert plot.find_element("tag name", "output").text == str(values[1])
        assert not re.search("NaN|undefined", str(after))
