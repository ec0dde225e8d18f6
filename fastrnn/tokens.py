"""The words of a text in any script: how all programs cut raw text."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from itertools import chain, groupby

# Scripts that put no spaces between words, by the first and last characters of their blocks.
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # radicals of Chinese characters
    (0x3005, 0x3006),  # their marks of repetition and closing
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),  # Bopomofo, Katakana
    (0x3400, 0x4DBF),  # Chinese characters
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),  # Burmese
    (0xAA60, 0xAADF),  # Burmese, Tai Viet
    (0xF900, 0xFAFF),  # Chinese characters for compatibility
    (0xFF66, 0xFF9F),  # narrow Katakana
    (0x1AFF0, 0x1B16F),  # Kana
    (0x20000, 0x3FFFF),  # Chinese characters
)
# What continues a letter beside the marks of Unicode: the joiners, and letters that are written
# as marks are: Thai and Lao am, narrow Katakana's marks of voice.
CONTINUING = (0x200C, 0x200D, 0x0E33, 0x0EB3, 0xFF9E, 0xFF9F)
SENTENCE = 8  # letters without a space between them: few words are as long
# Apostrophes are ', a space without width is a space, and what only says how a line is set is
# nothing: soft hyphen, word joiner, byte order mark, marks of direction.
ALIKE = (
    dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\uff07"), "'")
    | {0x200B: " "}
    | dict.fromkeys((0xAD, 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, 0xFEFF))
    | dict.fromkeys(range(0x2066, 0x206A))
)


def words(text: str, *, joining: str = "'", punctuation: bool = True) -> list[str]:
    """Lower-case words, and with punctuation its marks and other symbols, each by itself.

    A word is a run of letters with their marks, digits and _, in which a character of joining may
    stand between two of them. Of scripts that put no spaces between words each letter with its
    marks is a word. The text is brought into Unicode's form NFC; typographic apostrophes are '.
    """
    return _pattern(joining, punctuation).findall(normalized(text))


def normalized(text: str) -> str:
    """A text in the one form that what looks and means the same has."""
    text = text.lower()
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text).translate(ALIKE)
    return text.replace("i\u0307", "i")  # what lower() makes of a Turkish capital with its dot


def is_sentence(word: str) -> bool:
    """Whether what white space has separated is a sentence of a script without spaces."""
    return not word.isascii() and len(_letters_alone().findall(word)) >= SENTENCE


@cache
def _pattern(joining: str, punctuation: bool) -> re.Pattern:
    every = chain(range(0x300, 0x20000), range(0xE0100, 0xE01F0))
    marks = _inside({c for c in every if unicodedata.category(chr(c))[0] == "M"}.union(CONTINUING))
    alone = _letters_alone().pattern[1:-1]
    word = rf"[^\W{alone}]+(?:[{marks}]+[^\W{alone}]*)*"
    symbols = rf"|[^\w\s][{marks}]*" if punctuation else ""
    return re.compile(rf"{word}(?:[{re.escape(joining)}]{word})*|[{alone}][{marks}]*{symbols}")


@cache
def _letters_alone() -> re.Pattern:
    """A letter that is a word by itself."""
    blocks = chain.from_iterable(range(first, last + 1) for first, last in UNSPACED)
    return re.compile(
        f"[{_inside({c for c in blocks if chr(c).isalpha()}.difference(CONTINUING))}]"
    )


def _inside(codes: Iterable[int]) -> str:
    """Code points as what stands between the brackets of a regular expression."""
    runs = []
    for _, group in groupby(enumerate(sorted(codes)), lambda pair: pair[1] - pair[0]):
        run = [code for _, code in group]
        runs.append(f"\\U{run[0]:08x}-\\U{run[-1]:08x}")
    return "".join(runs)
