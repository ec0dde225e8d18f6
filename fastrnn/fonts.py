"""Letters in figures: fonts that have them, how wide they are, long names in several lines."""

import unicodedata
import warnings
from contextlib import suppress
from functools import cache

from fastrnn.optional import require

# Letters that no font has to draw: what joins others, and what chooses a variant of them.
UNDRAWN = {*map(ord, "\n\t\u200b\u200c\u200d\u2060\ufe0e\ufe0f")}
BREAKS = " _-/.,"  # after which a line may end


def choose(figure) -> None:
    """Name behind a matplotlib figure's usual font those installed ones that have the letters which
    it lacks. Warns once of a letter that none has."""
    texts = figure.findobj(require("matplotlib.text").Text)
    letters = {ord(letter) for text in texts for letter in text.get_text()} - UNDRAWN
    lacking = letters - _letters(_usual("normal"))
    if not lacking:
        return
    others, unknown = _fallbacks(frozenset(lacking))
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), *others])
    _warn(unknown - _warned)


@cache
def _usual(weight: str) -> str:
    """The file of the font that figures have."""
    manager = require("matplotlib.font_manager")
    return manager.findfont(manager.FontProperties(weight=weight))


@cache
def _fallbacks(lacking: frozenset[int]) -> tuple[list[str], set[int]]:
    """The families that have most of the letters, and then most of what is left; and what is left
    in the end."""
    names, left, families = [], {*lacking}, _families()
    while left:
        name = max(families, key=lambda name: (len(families[name] & left), *_likeness(name)))
        if not families[name] & left:
            break
        names.append(name)
        left -= families[name]
    return names, left


def _likeness(name: str) -> tuple[bool, bool]:
    """How like the usual one a family is."""
    return "Sans" in name, "Mono" not in name


@cache
def _families() -> dict[str, frozenset[int]]:
    """The letters of each installed family that has an upright font."""
    fonts = require("matplotlib.font_manager")
    known = {font.fname for font in fonts.fontManager.ttflist}
    for path in sorted({*fonts.findSystemFonts()} - known):  # installed after its list was made
        with suppress(OSError, RuntimeError):
            fonts.fontManager.addfont(path)
    upright = [font for font in fonts.fontManager.ttflist if font.style == "normal"]
    # matplotlib's Last Resort has a box for every letter.
    return {f.name: _letters(f.fname) for f in upright if "Last Resort" not in f.name}


@cache
def _letters(path: str) -> frozenset[int]:
    """The letters of a font, none of one that is drawn in colours or not at all."""
    try:
        font = require("matplotlib.ft2font").FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


_warned: set[int] = set()


def _warn(unknown: set[int]) -> None:
    if letters := sorted(unknown):
        _warned.update(letters)
        shown = ", ".join(f"{chr(letter)} (U+{letter:04X})" for letter in letters[:5])
        more = f" and {len(letters) - 5} more letters" if len(letters) > 5 else ""
        warnings.warn(f"figures: no installed font has {shown}{more}", stacklevel=4)


# ---- long names ----------------------------------------------------------------------------------


@cache
def _advance(letter: str, weight: str) -> float:
    """How far a letter moves on, in the font's size."""
    path = _usual(weight)
    if ord(letter) not in _letters(path):
        return 0.0 if unicodedata.category(letter) in ("Mn", "Me", "Cf") else 1.0
    font = require("matplotlib.ft2font").FT2Font(path)
    font.set_size(100, 72)
    return font.load_char(ord(letter)).linearHoriAdvance / 65536 / 100


def width(text: str, size: float, weight: str = "normal") -> float:
    """How wide a line is in inches, in a font of so many points."""
    return sum(_advance(letter, weight) for letter in text) * size / 72


def folded(text: str, inches: float, lines: int, size: float, weight: str = "normal") -> list[str]:
    """A text in lines that are no wider, ended after a word where that is enough; what does not fit
    into so many lines loses its middle."""
    for breaks in (BREAKS, ""):
        found = _lines(text, inches, size, weight, breaks)
        if len(found) <= lines:
            return found
    least, most = 0, len(text) // 2  # letters that stay at each end
    while least < most:
        kept = (least + most + 1) // 2
        fits = len(_lines(_cut(text, kept), inches, size, weight, "")) <= lines
        least, most = (kept, most) if fits else (least, kept - 1)
    return _lines(_cut(text, least), inches, size, weight, "")


def _cut(text: str, kept: int) -> str:
    return f"{text[:kept]}…{text[len(text) - kept :]}"


def _lines(text, inches, size, weight, breaks) -> list[str]:
    found, line, wide = [], "", 0.0
    for letter in text:
        wide += width(letter, size, weight)
        if wide > inches and line:
            end = max((line.rfind(mark) for mark in breaks), default=-1) + 1 or len(line)
            found.append(line[:end].rstrip())
            line = line[end:]
            wide = width(line + letter, size, weight)
        line += letter
    return [*found, line]
