"""The report in a run's folder.

report.json   the sections that trainings and evaluations have made
report.html   the page of them, with the settings and all figures of the run
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fastrnn import runs, storage
from fastrnn.report import parts
from fastrnn.report.page import page

PAGE, SECTIONS = "report.html", "report.json"
FORMAT = 1
LIMIT = 5_000_000  # bytes of a page
MOST_FIGURES = 50  # entries of metrics.json


@contextmanager
def attempted(path: Path) -> Iterator[None]:
    """A block that makes a report of a run whose results are safe: what keeps it from being made,
    whatever that is, is only a warning."""
    try:
        yield
    except Exception as error:
        reason = str(error) or type(error).__name__
        warnings.warn(f"{path}: no report ({reason})", RuntimeWarning, stacklevel=3)


def add(folder: Path, sections: Mapping[str, dict]) -> None:
    """Add sections to a run's report, over those of the same key, and write its page anew.

    Raises OSError where it cannot be written, ValueError where the run's files are damaged.
    """
    path = folder / SECTIONS
    earlier = storage.read_json(path) if path.exists() else {}
    if earlier.get("format") != FORMAT:  # another version's, whose pages are others
        earlier = {"sections": {}}
    kept = {key: value for key, value in earlier["sections"].items() if key not in sections}
    if "training" in sections:  # first, and otherwise in the order of time
        kept = {"training": sections["training"]} | kept
    path_of_run = folder / runs.RUN  # which a model has not that was saved from Python
    run = storage.read_json(path_of_run) if path_of_run.exists() else {}
    about = _about(run.get("settings"), runs.read_metrics(folder))
    title = f"fastrnn {run.get('program', '')}: {folder.resolve().name}"
    merged = kept | sections
    with storage.named(path, "the sections of a report"):
        text = _fitted(title, merged, about)
    storage.write_json(path, {"format": FORMAT, "sections": merged})
    _write(folder / PAGE, text)


def write(
    path: Path, title: str, sections: Mapping[str, dict], *, limit: int | None = LIMIT
) -> None:
    """Write a page of sections, of what has no folder of its own, of at most limit bytes (None: as
    many as it takes). Raises OSError."""
    _write(path, _fitted(title, dict(sections), limit=limit))


def _write(path: Path, text: str) -> None:
    with storage.writing(path, newline="\n") as file:
        file.write(text)


def _about(settings: Mapping[str, object] | None, metrics: Mapping[str, dict]) -> list[dict]:
    """The sections that stand in a run's other files: its figures, alike ones in a table, and its
    settings."""
    alike: dict[tuple[str, ...], list[list]] = {}
    for name, figures in [*metrics.items()][-MOST_FIGURES:]:
        plain = {k: v for k, v in figures.items() if isinstance(v, int | float | str | None)}
        alike.setdefault((*plain,), []).append([name, *plain.values()])
    tables = [parts.table("", ["", *columns], rows) for columns, rows in alike.items()]
    about = [parts.section("All figures", tables)]
    return about if settings is None else [*about, parts.settings(settings)]


def _fitted(
    title: str,
    sections: dict[str, dict],
    about: Sequence[dict] = (),
    *,
    limit: int | None = LIMIT,
) -> str:
    """A page of at most limit bytes. While it is larger, the sections are changed: the oldest ones
    lose their examples, then whole parts."""
    while len((text := page(title, [*sections.values(), *about])).encode()) > (limit or math.inf):
        found = [(one, part) for one in sections.values() for part in one["parts"]]
        if not found:
            raise ValueError(f"expected a page of at most {limit:,} bytes, got {len(text):,}")
        section, part = next((pair for pair in found if pair[1].get("cards")), found[0])
        if part.get("cards"):
            part["cards"] = []
        else:
            section["parts"].remove(part)
        section["left_out"].append(part["title"])
    return text
