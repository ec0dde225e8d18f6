"""What values a program's settings may have."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import NamedTuple


class Kind(NamedTuple):
    """What a setting's value has to be, in words and as a test."""

    text: str
    holds: Callable[[object], bool]


def integer(least: int) -> Kind:
    """An integer of at least so much."""
    return Kind(
        f"an integer of at least {least}",
        lambda v: isinstance(v, Integral) and not isinstance(v, bool) and v >= least,
    )


def number(text: str, holds: Callable[[float], bool]) -> Kind:
    """A number of which a test holds."""
    return Kind(text, lambda v: isinstance(v, Real) and not isinstance(v, bool) and holds(v))


def one_of(*values: object) -> Kind:
    """One of these."""
    return Kind(f"one of {list(values)}", lambda v: any(v is w or v == w for w in values))


def optional(kind: Kind) -> Kind:
    """None, or a value of this kind."""
    return Kind(f"None or {kind.text}", lambda v: v is None or kind.holds(v))


def listed(kind: Kind) -> Kind:
    """A list of values of this kind."""
    return Kind(
        f"a list, each {kind.text}",
        lambda v: isinstance(v, list) and all(map(kind.holds, v)),
    )


def mapped(kind: Kind) -> Kind:
    """An object of values of this kind."""
    return Kind(
        f"an object, each value {kind.text}",
        lambda v: isinstance(v, dict) and all(map(kind.holds, v.values())),
    )


SHARE = number("a number in [0, 1)", lambda v: 0 <= v < 1)
TEXT = Kind("text", lambda v: isinstance(v, str))
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
