"""What a program's settings are: of each one record, from which all is made that has to do with it,
and what values it may have."""

import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class Kind(NamedTuple):
    """What a setting's value has to be, in words and as a test; values, for its option, their type
    or a tuple of all."""

    text: str
    holds: Callable[[object], bool]
    values: type | tuple[object, ...] = str


def integer(least: int) -> Kind:
    """An integer of at least so much."""
    return Kind(
        f"an integer of at least {least}",
        lambda v: isinstance(v, Integral) and not isinstance(v, bool) and v >= least,
        int,
    )


def number(text: str, holds: Callable[[float], bool]) -> Kind:
    """A number of which a test holds."""
    return Kind(text, lambda v: isinstance(v, Real) and not isinstance(v, bool) and holds(v), float)


def one_of(*values: object) -> Kind:
    """One of these."""
    named = tuple(v for v in values if v is not None)
    return Kind(
        f"one of {list(values)}",
        lambda v: any(v is w or v == w for w in values),
        bool if named == (False, True) else named,
    )


def optional(kind: Kind) -> Kind:
    """None, or a value of this kind."""
    return Kind(f"None or {kind.text}", lambda v: v is None or kind.holds(v), kind.values)


def listed(kind: Kind) -> Kind:
    """A list of values of this kind."""
    return Kind(
        f"a list, each {kind.text}",
        lambda v: isinstance(v, list) and all(map(kind.holds, v)),
        list[kind.values],
    )


def mapped(kind: Kind) -> Kind:
    """An object of values of this kind."""
    return Kind(
        f"an object, each value {kind.text}",
        lambda v: isinstance(v, dict) and all(map(kind.holds, v.values())),
    )


SHARE = number("a number in [0, 1)", lambda v: 0 <= v < 1)
TEXT = Kind("text", lambda v: isinstance(v, str))
PATH = Kind("a path", lambda v: isinstance(v, str), Path)
SWITCH = one_of(False, True)
OBJECT = Kind("an object", lambda v: isinstance(v, dict))
NUMBER = number("a number", lambda v: True)
FINITE = number("a finite number", math.isfinite)
POSITIVE = number("a number above 0", lambda v: 0 < v < float("inf"))
NOT_NEGATIVE = number("a number of at least 0", lambda v: 0 <= v < float("inf"))


def check(given: Mapping[str, object], kinds: Mapping[str, Kind]) -> None:
    """Raise ValueError for an unknown name or a value that is not of its kind."""
    unknown = sorted(given.keys() - kinds.keys())
    if unknown:
        raise ValueError(f"{unknown[0]}: no such setting; there are {', '.join(kinds)}")
    for name, value in given.items():
        if not kinds[name].holds(value):
            raise ValueError(f"{name}: expected {kinds[name].text}, got {value!r:.200}")


REQUIRED = ...


class Setting(NamedTuple):
    """A setting of a program, whose table has it by its name; its option is called likewise.

    default; kind; help, in a line, to which --help adds the default; tuned, what it is in place of
    the default, by the name of a model, a mode or the like; heading, under which its option stands
    ("": there is none); earlier, what it was in versions that had no such setting (REQUIRED: all
    had it); resumable, whether a run that is resumed may change it.
    """

    default: object
    kind: Kind
    help: str
    tuned: Mapping[str, object] = MappingProxyType({})
    heading: str = "Training"
    earlier: object = REQUIRED
    resumable: bool = False


Settings = Mapping[str, Setting]


def _kinds(settings: Settings) -> dict[str, Kind]:
    return {name: setting.kind for name, setting in settings.items()}


def completed(
    given: Mapping[str, object], settings: Settings, variants: Collection[object] = ()
) -> dict[str, object]:
    """All settings, in the order of their table: those given, as plain has them, then those tuned
    for one of the variants, then the defaults. Raises ValueError as check does."""
    given = plain(dict(given))
    check(given, _kinds(settings))
    values = {name: setting.default for name, setting in settings.items()}
    for variant in variants:
        values |= {name: s.tuned[variant] for name, s in settings.items() if variant in s.tuned}
    return values | given


def recorded(written: Mapping[str, object], settings: Settings) -> dict[str, object]:
    """All settings of a file: those that were written, in their order, and behind them what others
    meant to a version that had them not. Raises ValueError as check does, and for one that is
    missing."""
    later = {name: s.earlier for name, s in settings.items() if name not in written}
    if missing := [name for name, value in later.items() if value is REQUIRED]:
        raise ValueError(f"{missing[0]}: missing")
    values = {**written, **later}
    check(values, _kinds(settings))
    return values


def decisive(values: Mapping[str, object], settings: Settings) -> dict[str, object]:
    """Those settings that a training has to have been begun with to be continued: others may
    change, or are as they were before there was a setting for it."""
    return {
        name: value
        for name, value in values.items()
        if not settings[name].resumable and value != settings[name].earlier
    }


def plain(value: object) -> object:
    """For JSON: no scalar of NumPy's, no path, also inside of lists and dicts."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value
