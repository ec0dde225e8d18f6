"""Sections as a page of HTML."""

import base64
import hashlib
import math
import time
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from fastrnn.optional import require
from fastrnn.printing import printable

# Figures whose names are no words.
NAMES = {
    **{f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{"rouge_l": "ROUGE-L", "cider": "CIDEr-D", "meteor": "METEOR"},
    **{
        "distinct1": "distinct-1",
        "distinct2": "distinct-2",
        "f1": "F1",
        "ece": "ECE",
        "brier": "Brier score",
        "tv": "total variation",
        "pca": "PCA",
    },
}


def page(title: str, sections: Sequence[dict]) -> str:
    """A page of sections, which loads nothing: a policy in it forbids everything but
    its own style, its own script and its own pictures."""
    style, script = (_source(name) for name in ("page.css", "page.js"))
    return _template().render(
        title=title,
        sections=sections,
        style=style,
        script=script,
        policy="default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_digest(style)}; script-src {_digest(script)}",
        now=time.strftime("%Y-%m-%d %H:%M"),
    )


def label(key: str) -> str:
    """A figure's name as it is read."""
    return NAMES.get(key) or str(key).replace("_", " ").replace(" f1", " F1")


def figure(value: object) -> str:
    """A value as a table has it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) >= 1e4
        return f"{value:,.0f}" if whole or math.fabs(value) >= 1e4 else f"{value:.4g}"
    return str(value)


@cache
def _template():
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_printed,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"label": label, "figure": figure}
    environment.tests["number"] = lambda value: isinstance(value, int | float)
    return environment.from_string(_source("page.html"))


def _printed(value: object) -> object:
    """A text without control characters and halves of characters, before it is escaped."""
    return printable(value) if type(value) is str else value


def _source(name: str) -> str:
    return files("fastrnn.report").joinpath(name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
