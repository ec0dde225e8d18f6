"""Text from outside, as a terminal may have it."""

import re

# Control characters, line ends, what reverses the direction of writing, and halves of characters.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """A text in one line, with escapes for what would command the terminal."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))
