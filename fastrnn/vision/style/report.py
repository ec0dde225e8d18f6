"""The report of a picture of `fastrnn style`, beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fastrnn import report
from fastrnn.vision.style.inputs import Inputs
from fastrnn.vision.style.optimise import Result
from fastrnn.vision.style.plots import LABELS, STYLES
from fastrnn.vision.style.settings import Settings
from fastrnn.vision.thumbnails import thumbnail

MOST_INPUTS, MOST_ON_THE_WAY = 12, 8
# Of the longer side, and of the file: of the result, and of what it was made of.
LARGE = {"side": 1024, "most_bytes": 300_000}
MIDDLE = {"side": 512, "most_bytes": 80_000}


def write(
    path: Path,
    name: str,
    result: Result,
    inputs: Inputs,
    names: Sequence[str],
    settings: Settings,
    figures: Mapping[str, object],
    on_the_way: Sequence[Path] = (),
) -> None:
    """Write the page of a transfer: name, of the picture, and names, of the content and the styles;
    figures, of what it took; on_the_way, files of pictures. What keeps it from being written is a
    warning."""
    with report.attempted(path):
        width, height = result.sizes[-1]
        picture = _card(name, "the result", result.picture, LARGE)
        parts = [
            report.examples("Result", [picture], {}, width="large", full=False),
            report.examples("Made of", _inputs(inputs, names), {}, full=False),
        ]
        if on_the_way:
            step = -(-len(on_the_way) // MOST_ON_THE_WAY)
            cards = [_card(p.stem, p.name, p, MIDDLE) for p in on_the_way[::-step][::-1]]
            parts.append(report.examples("On the way", cards, {}, full=False))
        lines = [
            report.series(LABELS.get(name, name), result.losses[name], quiet=name == "total")
            for name in STYLES
        ]
        scales = ", ".join(f"{w} × {h}" for w, h in result.sizes)
        parts.append(report.curves("Losses, weighted", lines, x="step", y="loss", log=True))
        tiles = {"pixels": f"{width} × {height}"} | dict(figures)
        sections = {
            "picture": report.section("Picture", parts, tiles),
            "settings": report.settings(vars(settings) | {"sizes": scales}),
        }
        report.write(path, f"fastrnn style: {names[0]}", sections)


def _card(title: str, alt: str, source, sizes: dict[str, int]) -> dict[str, object]:
    return report.card(title, pictures=[thumbnail(source, alt, **sizes)])


def _inputs(inputs: Inputs, names: Sequence[str]) -> list[dict]:
    images = [inputs.colors, *inputs.styles]
    kinds = ["content", *(f"style {i}" for i in range(1, len(images)))]
    cards = [
        report.card(name, pictures=[thumbnail(image, kind, **MIDDLE)], lines=[("as", kind)])
        for name, kind, image in zip(names, kinds, images, strict=True)
    ]
    for i, mask in enumerate(inputs.masks or (), 1):
        cards.append(_card(f"where style {i} belongs", f"mask {i}", mask, MIDDLE))
    return cards[:MOST_INPUTS]
