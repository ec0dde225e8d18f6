"""All pages of the built site in a browser as wide as a telephone: a screen reader can name what is
on them, they are no wider, and write no error. .ci/run builds the site and names its folder,
FASTRNN_SITE."""

import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

SITE = os.environ.get("FASTRNN_SITE")
PAGES = [
    page
    for path in sorted(Path(SITE or os.devnull).rglob("*.html"))
    if not (page := path.relative_to(SITE).as_posix()).startswith("_static")
]
# What Chromium tells a screen reader of, and what that has to be able to say of it.
NAMED = {"button", "checkbox", "combobox", "image", "link", "searchbox", "slider", "textbox"}
TOO_WIDE = """
    return [document.documentElement, ...document.querySelectorAll(".bd-article-container")]
        .some((e) => e.scrollWidth > e.clientWidth)"""


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(browser):
    """The site's address."""
    if SITE is None:
        pytest.skip("FASTRNN_SITE: the folder of a built site")
    metrics = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.implicitly_wait(30)  # for what a search finds
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=SITE)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("page", PAGES)
def test_page_suits_telephones_and_screen_readers(site, browser, page):
    browser.get(site + page)
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [(node["role"]["value"], node["name"]["value"]) for node in tree if not node["ignored"]]
    assert not [role for role, name in roles if role in NAMED and not name.strip()]
    assert [role for role, _ in roles].count("main") == 1
    assert browser.find_element("tag name", "html").get_attribute("lang") == "en"
    assert not browser.execute_script(TOO_WIDE)
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


def test_search_finds_a_function(site, browser):
    browser.get(f"{site}search.html?q=lstm_forward")
    found = browser.find_element("css selector", "#search-results li a")
    assert found.get_attribute("href") == f"{site}reference/functions.html#fastrnn.lstm_forward"
