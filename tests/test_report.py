"""A run's report: what stands in it is harmless and bounded, and a browser shows it as it is
meant."""

import base64
import hashlib
import html.parser
import json
import os
import re
import shutil
import warnings
import webbrowser
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from test_captioning_attention import data, photos  # noqa: F401
from util import call

from fastrnn import plots, report, runs, storage
from fastrnn.captioning import programs as caption
from fastrnn.cli import report as opened
from fastrnn.metrics import classifier_report
from fastrnn.report import files
from fastrnn.report.classifier import MOST_PAIRS, classified, labelled
from fastrnn.report.page import page
from fastrnn.report.parts import MOST_POINTS
from fastrnn.text.explanation import Explanation
from fastrnn.text.report import explained, write_explained
from fastrnn.vision.style import programs as style
from fastrnn.vision.thumbnails import thumbnail
from fastrnn.vision.transfer import programs as transfer

SCRIPT = "</script><script>document.title='hurt'</script><img/src=x/onerror=document.title='hurt'>"
HOSTILE = {
    "script": SCRIPT,
    "quotes": "\"' onclick='x' {{ 7 * 7 }} {% raw %} & &amp;",
    "right to left": "שלום עולם \u202eמרחבא",
    "emoji": "👩‍👩‍👧‍👦🏴‍☠️ é̂̃",
    "long": "x" * 3000,
    "bytes": os.fsdecode(b"\xff\xfe\x00.png"),
    "lines": "a\u2028b\r\nc\x07",
}
PROGRAMS = ("caption", "classify", "transfer", "style")


def pixels(seed=0, width=90, height=60):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def write_pictures(folder, names):
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        Image.fromarray(pixels(i)).save(folder / name, format="png")


@pytest.fixture(scope="module")
def pages(data, tmp_path_factory):  # noqa: F811
    """The report of a tiny run of every program, by its name, on classes and files with names as
    bad as they may be."""
    base = tmp_path_factory.mktemp("reports")
    names = [name.replace("/", "∕").replace("\0", "")[:60] for name in HOSTILE.values()]
    for split in ("train", "val"):
        for kind in ("<b>bees", names[1]):
            write_pictures(base / "photos" / split / kind, names)
    lines = [f"{label} {SCRIPT} word{i}" for i in range(12) for label in (SCRIPT, "🐝")]
    (base / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    write_pictures(base / "style", ("content.png", names[0]))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot_confusion", "plot_curves"):  # fonts may not have these names
            patch.setattr(plots, name, lambda *args: None)
        patch.setattr(transfer, "plot_predictions", lambda *args: None)
        settings = {"epochs": 2, "hidden": 16, "wordvec": 8, "decoder": "attention"}
        with caption.begin(base / "caption", data, settings) as job:
            job.train()
            job.finish()
        text = ["--model", "avg", "--epochs", 2, "--out", base / "classify"]
        ran(["classify", "train", base / "train.txt", *text])
        small = {"weights": "none", "image_size": 32, "epochs": 2}
        with transfer.begin(base / "transfer", base / "photos", small) as job:
            job.run()
            job.finish()
        sources = base / "style/content.png", [base / "style" / names[0]]
        small = {"weights": "none", "size": 64, "steps": 3, "device": "cpu"}
        style.finish(style.prepare(base / "out.png", *sources, **small), save_every=1)
    found = {name: base / name / report.PAGE for name in PROGRAMS}
    return found | {"style": base / "out-report.html"}


def ran(arguments):
    from fastrnn import cli

    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    assert end.value.code in (0, None)


def hostile_sections():
    """Every kind of part, with names as bad as they may be."""
    bad = [*HOSTILE.values()]
    y, proba = np.arange(70) % 7, np.full((70, 7), 0.05) + 0.65 * np.eye(7)[np.arange(70) * 3 % 7]
    figures = classifier_report(y, proba, bad)
    picture = thumbnail(pixels(), bad[0], bad[1])

    def show(i):
        return {
            "pictures": [picture],
            "words": [(word, 0.1 * n - 0.2) for n, word in enumerate(bad)],
            "lines": [(bad[i % 7], bad[(i + 1) % 7])],
        }

    cards = [report.card(name, pictures=[picture] * 9) for name in bad]
    lines = [report.series(name, np.sin(np.arange(10_000) / 99)) for name in bad]
    parts = [
        report.table(bad[4], bad, [bad, [None, True, 3, 0.5, 1e9, np.nan, bad[4]]] * 3),
        report.curves(bad[0], lines, x=bad[0], y=bad[1], log=True),
        report.examples(bad[2], cards, {}, width="large"),
    ]
    tagged = np.eye(7, dtype=bool)[y]
    # Of class k so many tenths are right: a cell of every shade.
    k, n = np.repeat(np.arange(11), 10), np.tile(np.arange(10), 11)
    shaded = np.full((110, 11), 0.01) + 0.89 * np.eye(11)[np.where(n < k, k, (k + 1) % 11)]
    names = [str(i) for i in range(11)]
    shades = classified("shades", classifier_report(k, shaded, names), k, shaded, names, show)
    return {
        "training": report.section(bad[4], parts, dict.fromkeys(bad, bad[4])),
        "judged": classified(bad[3], figures, y, proba, bad, show),
        "labelled": labelled(bad[3], figures, tagged, proba > 0.5, proba, bad, show),
        "shades": shades,
        "settings": report.settings(dict(zip(bad, bad, strict=True))),
    }


# ---- what stands in a page -----------------------------------------------------------------------


class Parser(html.parser.HTMLParser):
    """The tags of a page with their attributes, and what scripts and styles contain."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.raw = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        if self.cdata_elem:
            self.raw.append((self.tags[-1], text))


def assert_harmless(text):
    """Nothing is loaded, and no script is run but the page's own."""
    assert text.startswith("<!DOCTYPE html>\n")
    found = Parser(text)
    own = [raw for (tag, attributes), raw in found.raw if (tag, attributes) == ("script", {})]
    styles = [raw for (tag, _), raw in found.raw if tag == "style"]
    (policy,) = [a["content"] for _, a in found.tags if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for (raw,), directive in ((own, "script-src"), (styles, "style-src")):
        digest = base64.b64encode(hashlib.sha256(raw.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
        assert not re.search(r"\burl\(|@import|https?://(?!www\.w3\.org/2000/svg)|\beval\b", raw)
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/jpeg;base64,")), (tag, value)
        if tag == "script" and attributes:
            assert attributes == {"type": "application/json"}
    assert "\u202e" not in text and "\x07" not in text
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_runs_report_is_whole_and_harmless(pages, program):
    text = pages[program].read_text(encoding="utf-8")
    assert len(text.encode()) < files.LIMIT
    found = assert_harmless(text)
    tags = [tag for tag, _ in found.tags]
    assert tags.count("h1") == 1 and {"h2", "th", "svg", "figure", "img"} - {"svg"} <= {*tags} | (
        {"img"} if program == "classify" else set()
    )
    assert all(a.get("alt") for tag, a in found.tags if tag == "img")
    for raw in (raw for (tag, a), raw in found.raw if tag == "script" and a):
        assert all(line.keys() >= {"name", "x", "y"} for line in json.loads(raw))
    assert not [*pages[program].parent.glob(".*")]


def test_names_are_escaped_wherever_they_stand():
    assert_harmless(page(SCRIPT, [*hostile_sections().values()]))


def test_explained_texts_are_whole_and_escaped(tmp_path):
    tokens = [*HOSTILE.values(), *["word"] * 500]
    said = Explanation(tokens, np.array([0.25, 0.75]), np.array([[0, 0.5]] * 506 + [[0, -1]]))
    write_explained(tmp_path / "x.html", SCRIPT, [explained(said, SCRIPT, 1, "<i>")] * 150)
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    marks = [a for tag, a in assert_harmless(text).tags if tag == "mark"]
    assert len(marks) == 150 * 507
    assert [(a["class"], a["title"]) for a in marks[505:507]] == [
        *(("pro2", "+0.5000"), ("contra5", "-1.0000"))
    ]


def test_what_a_picture_is_seen_through_is_white_and_files_are_small(tmp_path):
    image = Image.new("RGBA", (3000, 40), (0, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    for source in (image, pixels(1, 2000, 1500)):
        made = thumbnail(source, "x")
        jpeg = base64.b64decode(made["data"])
        assert len(jpeg) <= 16_000
        assert max(made["width"], made["height"]) == 240
        (tmp_path / "x.jpg").write_bytes(jpeg)
        with Image.open(tmp_path / "x.jpg") as shown:
            assert shown.size == (made["width"], made["height"])
            assert source is not image or shown.getpixel((200, 1)) == (255, 255, 255)


# ---- bounds --------------------------------------------------------------------------------------


def test_a_page_is_bounded_and_the_oldest_parts_go_first():
    picture = report.picture(bytes(30_000), (10, 10), "x")
    cards = [report.card("x", pictures=[picture])] * 100

    def many(title):
        return report.section(
            title, [report.examples(title, cards, {}), report.curves("c", [], x="", y="")]
        )

    sections = {name: many(name) for name in ("one", "two", "three")}
    text = files._fitted("x", sections)
    assert len(text) <= files.LIMIT
    left = [[len(part.get("cards", "c")) for part in one["parts"]] for one in sections.values()]
    assert left == [[0, 1], [0, 1], [100, 1]]
    assert text.count("to keep this page small: one") == text.count("small: two") == 1
    with pytest.raises(ValueError, match="a page of at most 5,000,000 bytes"):
        files._fitted("x" * files.LIMIT, {})


@pytest.mark.parametrize(("C", "pairs"), [(25, 0), (26, MOST_PAIRS), (1500, MOST_PAIRS)])
def test_of_many_classes_the_pairs_are_shown_that_are_confused_most(C, pairs):
    rng = np.random.default_rng(0)
    y = rng.integers(C, size=3000)
    proba = rng.dirichlet(np.ones(C), size=3000) + np.eye(C)[y] * 0.001
    proba /= proba.sum(axis=1, keepdims=True)
    proba[:9] = np.eye(C)[3]
    y[:9] = 5
    classes = [f"class {i}" for i in range(C)]
    figures = classifier_report(y, proba, classes)
    judged = classified("x", figures, y, proba, classes, lambda i: {"words": [(str(i), 0.0)]})
    predictions = judged["parts"][0]
    assert bool(predictions["matrix"]) == (not pairs) and len(predictions["pairs"]) == pairs
    assert len(predictions["cards"]) == 100
    if pairs:
        first = predictions["pairs"][0]
        assert (first["true"], first["predicted"]) == ("class 5", "class 3")
        assert first["count"] >= 9 and first["key"] == "c5-3"
    assert [card["words"][0][0] for card in predictions["cards"][:3]] == ["0", "1", "2"]
    assert len(page("x", [judged])) < 1e6


def test_cells_count_what_was_predicted_and_name_only_groups_with_examples():
    y, proba = np.array([0, 0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    judged = classified(
        "x", classifier_report(y, proba, "ab"), y, proba, "ab", lambda i: {"lines": [("i", i)]}
    )
    predictions = judged["parts"][0]
    cells = [
        [(cell["count"], cell["key"]) for cell in row] for row in predictions["matrix"]["rows"]
    ]
    assert cells == [[(1, "c0-0"), (2, "c0-1")], [(0, None), (1, "c1-1")]]
    shown = [(dict(c["lines"])["i"], c["right"], c["groups"]) for c in predictions["cards"]]
    assert shown == [
        (1, False, ["wrong", "c0-1"]),
        (2, False, ["wrong", "c0-1"]),
        (3, True, ["right", "c1-1"]),
        (0, True, ["right", "c0-0"]),
    ]
    assert predictions["groups"] == [
        ["wrong", "errors, the surest first", 2],
        ["right", "right, the least sure first", 2],
    ]


def test_long_series_keep_their_least_and_greatest_numbers():
    y = np.sin(np.arange(200_000.0))
    y[77_777], y[123_456], y[5] = 40, -40, np.nan
    line = report.series("x", y)
    found = [float(word) for word in line["y"].split() if word != "-"]
    assert len(found) <= MOST_POINTS and max(found) == 40 and min(found) == -40
    x = [float(word) for word in line["x"].split()]
    assert x == sorted(x) and 77_778 in x
    assert report.series("x", [1, np.inf, 2])["y"] == "1 - 2"


# ---- when it is written --------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    runs.write(tmp_path, "classify", {"settings": {"epochs": 3, "of": None}, "data": {}})
    runs.add_metrics(tmp_path, {"dev": {"accuracy": 0.5}, "training": {"seconds": 1.5}})
    return tmp_path


def test_sections_are_kept_and_the_training_stands_first(run):
    for key in ("dev", "test", "training", "dev"):
        report.add(run, {key: report.section(f"about {key}", [])})
    text = (run / report.PAGE).read_text()
    assert re.findall(r"<h2.*?<bdi>(.*?)</bdi>", text) == [
        *("about training", "about test", "about dev", "All figures", "Settings")
    ]
    (run / files.SECTIONS).write_text('{"format": 99}')  # of another version
    report.add(run, {"new": report.section("new", [])})
    assert storage.read_json(run / files.SECTIONS)["sections"].keys() == {"new"}


@pytest.mark.parametrize("damaged", ['{"format": 1}', "{", '{"format": 1, "sections": {"a": 1}}'])
def test_what_keeps_a_report_from_being_made_is_a_warning(run, damaged):
    path = run / files.SECTIONS
    path.write_text(damaged)
    expected = f"{re.escape(str(run))}: no report"
    with pytest.warns(RuntimeWarning, match=expected), report.attempted(run):
        report.add(run, {"new": report.section("new", [])})
    assert path.read_text() == damaged and not (run / report.PAGE).exists()


def test_a_run_without_a_report_is_a_run(tmp_path, capfd):
    """Its page cannot be written, and all else is there."""
    lines = [f"{label} {word}" for word in "abcdefgh" for label in ("x", "y")]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    (tmp_path / "run" / report.PAGE).mkdir(parents=True)
    options = tmp_path / "train.txt", "--model", "bow", "--out", tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, out, err = call(capfd, "classify", "train", *options)
    assert code == 0 and "accuracy" in out
    assert "no report (" in err and "Warning" not in err
    assert "dev" in runs.read_metrics(tmp_path / "run")


def test_evaluate_adds_to_the_report(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "plot_confusion", lambda *args: None)
    run = shutil.copytree(pages["classify"].parent, tmp_path / "run")
    (tmp_path / "new.txt").write_text("🐝 word1\n🐝 word2")
    ran(["classify", "evaluate", run, tmp_path / "new.txt"])
    sections = storage.read_json(run / files.SECTIONS)["sections"]
    assert [*sections] == ["training", "dev", "new"]
    assert "Texts of new" in (run / report.PAGE).read_text(encoding="utf-8")


def test_open_shows_the_page_or_says_where_it_is(tmp_path, monkeypatch, capsys):
    path, shown = tmp_path / "a b<é>.html", []
    path.touch()
    monkeypatch.setattr(webbrowser, "open", lambda address: shown.append(address) or len(shown) < 2)
    monkeypatch.setattr(opened.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    opened.show(path)
    assert not shown and f"{path}: no browser here" in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":0")
    opened.show(path)
    assert shown == [path.as_uri()] and not capsys.readouterr().err
    opened.show(path)  # there was one, but it did not open
    assert f"{path}: no browser here" in capsys.readouterr().err
    opened.show(tmp_path / "none.html")
    assert len(shown) == 2


# ---- in a browser --------------------------------------------------------------------------------


@contextmanager
def looked_at(browser, path, width=1400, scheme="light"):
    """A page in a browser, without errors and without anything beside what is seen."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(path.as_uri())
    yield
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.title != "hurt" and not browser.get_log("browser")


def run_script(browser, script):
    return browser.execute_script(script)


# Texts, and what lies behind them, whose contrast is too low; the names are those of WCAG 2.
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function rgba(color) {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255);
}
function behind(element) {
  if (!element) return [1, 1, 1];
  const [r, g, b, a] = rgba(getComputedStyle(element).backgroundColor);
  if (a > 0.99) return [r, g, b];
  const under = behind(element.parentElement);
  return [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
}
function luminance(color) {
  const [r, g, b] = color.map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const low = [];
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || e.disabled || !e.checkVisibility() || e.closest("svg")) continue;
  const pair = [rgba(getComputedStyle(e).color).slice(0, 3), behind(e)].map(luminance);
  const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  if (ratio < 4.5) low.push([e.tagName, e.className, e.textContent.slice(0, 20), ratio]);
}
return low;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("program", [*PROGRAMS, "hostile"])
def test_a_browser_shows_it(browser, pages, tmp_path, program, width, scheme):
    path = pages.get(program, tmp_path / "hostile.html")
    if program == "hostile":
        report.write(path, SCRIPT, hostile_sections())
    with looked_at(browser, path, width, scheme):
        assert run_script(browser, CONTRAST) == []
        assert run_script(browser, "return document.querySelectorAll('.chart svg path').length")
        broken = "return [...document.images].filter((i) => !i.complete || !i.naturalWidth).length"
        assert run_script(browser, broken) == 0
        dark = run_script(browser, "return getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(19, 21, 24)") == (scheme == "dark")
        run_script(browser, "document.getElementById('theme').click()")
        now = run_script(browser, "return getComputedStyle(document.body).backgroundColor")
        assert (now == "rgb(19, 21, 24)") == (scheme == "light")


SHOWN = (
    "return [...document.querySelectorAll('.card:not([hidden]) h4 bdi')].map((e) => e.textContent)"
)


def test_a_cell_opens_its_examples(browser, tmp_path):
    y, proba = (
        np.array([0, 0, 0, 1, 1]),
        np.array([[0.9, 0.1]] + [[0.2, 0.8]] * 2 + [[0.3, 0.7]] * 2),
    )
    judged = classified(
        "x", classifier_report(y, proba, ["a", "b"]), y, proba, ["a", "b"], lambda i: {}
    )
    report.write(tmp_path / "x.html", "x", {"x": judged})
    with looked_at(browser, tmp_path / "x.html"):
        assert run_script(browser, SHOWN) == ["b · 80.0%"] * 2  # the errors
        for cell, expected in (("c0-0", ["a · 90.0%"]), ("c1-1", ["b · 70.0%"] * 2)):
            run_script(browser, f"document.querySelector('[data-group=\"{cell}\"]').click()")
            assert run_script(browser, SHOWN) == expected
        focused = browser.switch_to.active_element
        assert focused.get_attribute("class") == "status"
        assert focused.text == "true b, predicted b: 2 shown here"
        run_script(browser, "document.querySelector('.choices [data-group=\"\"]').click()")
        assert len(run_script(browser, SHOWN)) == 5


AXIS = "return [...document.querySelectorAll('.chart svg text')].map((e) => e.textContent)"
PATH = "return document.querySelector('.chart path').getAttribute('d').length"


@pytest.mark.parametrize("count", [1, 2, 10_000])
def test_curves_are_zoomed_and_read(browser, tmp_path, count):
    from selenium.webdriver import ActionChains, Keys

    lines = [
        report.series("loss", 1 / np.arange(1.0, count + 1)),
        report.series("dev", [0.5], [1], points=True),
    ]
    curves = report.curves("loss", lines, x="iteration", y="loss", log=False)
    report.write(tmp_path / "x.html", "x", {"x": report.section("x", [curves])})
    with looked_at(browser, tmp_path / "x.html"):
        svg = browser.find_element("css selector", ".chart svg")
        output = browser.find_element("css selector", ".chart output")
        before = run_script(browser, AXIS)
        assert run_script(browser, PATH) < 30_000
        svg.send_keys(Keys.ARROW_RIGHT)
        assert output.text == "iteration 1: loss 1 · dev 0.5"
        if count > 1:
            svg.send_keys(Keys.ARROW_RIGHT)
            assert output.text == "iteration 2: loss 0.5 · dev 0.5"
        if count == 10_000:
            drag = ActionChains(browser).move_to_element(svg).click_and_hold()
            drag.move_by_offset(60, 0).release().perform()
            zoomed = run_script(browser, AXIS)
            assert zoomed != before and "2,000" not in zoomed
            ActionChains(browser).double_click(svg).perform()
            assert run_script(browser, AXIS) == before
        run_script(browser, "document.querySelector('[data-act=log]').click()")
        svg.send_keys("+")
        assert run_script(browser, AXIS) != before
        svg.send_keys("0")
        run_script(browser, "document.querySelector('[data-act=log]').click()")
        assert run_script(browser, AXIS) == before
        run_script(browser, "document.querySelector('[data-series=loss]').click()")
        assert run_script(browser, "return document.querySelectorAll('.chart path').length") == 1
