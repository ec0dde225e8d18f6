"""A run's report: one page that loads nothing and shows what was trained, and how well."""

from fastrnn.report.files import PAGE, add, attempted, write
from fastrnn.report.parts import (
    card,
    curves,
    examples,
    picture,
    section,
    series,
    settings,
    table,
    trained,
    training_curves,
)

__all__ = [
    "PAGE",
    "add",
    "attempted",
    "card",
    "curves",
    "examples",
    "picture",
    "section",
    "series",
    "settings",
    "table",
    "trained",
    "training_curves",
    "write",
]
