"""Word vectors from the files of GloVe and word2vec: only those that a vocabulary needs."""

import codecs
import io
import re
from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from statistics import mode
from typing import NamedTuple

import numpy as np

from fastrnn.text.compressed import blocks as blocks_of
from fastrnn.text.compressed import split_member

_BLOCK = 1 << 18  # bytes whose rows are looked at together: few enough to stay in the cache
_LONGEST = 1 << 20  # bytes read in search of a row's end: a file without one must not fill memory
_LINES_SHOWN = 5
_HEADER = re.compile(rb"(\d+) ([1-9]\d*)[ \r]*\n")
_FASTTEXT = b"\xba\x16\x4f\x2f"  # what its models begin with


class Problem(NamedTuple):
    """How many rows are left out for one reason, and the numbers of the first of their lines."""

    count: int
    lines: list[int]


class Report(NamedTuple):
    """rows read; words wanted and found; announced, the rows by the header (None: no header);
    problems by kind, those that occurred of "broken bytes", "too few values", "too many values",
    "not a number", "not finite", "repeated word". str(report) is one line for people.
    """

    rows: int
    wanted: int
    found: int
    announced: int | None
    problems: dict[str, Problem]

    def __str__(self) -> str:
        text = f"{self.found:,} of {self.wanted:,} words in {self.rows:,} rows"
        if self.announced not in (None, self.rows):
            text += f" ({self.announced:,} announced)"
        left_out = []
        for kind, (count, lines) in self.problems.items():
            where = ", ".join(map(str, lines)) + ", …" * (count > len(lines))
            left_out.append(f"{count:,} {kind} (line{'s' * (count > 1)} {where})")
        return f"{text}; left out: {'; '.join(left_out)}" if left_out else text


class Vectors(NamedTuple):
    """The words found, in the vocabulary's order; their vectors (len(words), dim); the report."""

    words: list[str]
    vectors: np.ndarray
    report: Report


class _Layout(NamedTuple):
    header: bytes  # the first line where it is one
    announced: int | None
    dim: int
    spaces: int  # in a row whose word has none
    binary: bool = False


def load_vectors(
    path: Path | str,
    vocabulary: Collection[str],
    *,
    dtype: np.dtype | type = np.float32,
    progress: Callable[[int], object] = lambda n: None,
) -> Vectors:
    """Read the vectors of a vocabulary's words, in one pass and in memory for those alone.

    Inputs: path, UTF-8 rows "word number number ...", with spaces or tabs, or word2vec's binary
    form; as it is, as .gz, .bz2, .xz, or in a .zip that holds one file or one of vectors (all told
    by content, not by name); of several in an archive one as archive.zip/name; vocabulary, words or
    a mapping from words; dtype, float32 or float64; progress, called with the bytes of the file
    that were read since its last call, in all the file's size: the update method of a tqdm bar.
    Returns: Vectors; a number is what float() makes of its text, rounded to dtype.

    A first line of two whole numbers is word2vec's header, rows and dim. Without one dim is how
    many numbers most of the first rows end with. The last dim fields of a row are its vector and
    all before them its word, spaces included. Of the usable rows of a word the first one counts.
    Rows that are left out are counted, for every word where it is not UTF-8 and where there are too
    few or too many values (unless within 256 KiB one row has too many by as much as others have too
    few; a surplus field is part of the word unless it is a number), and for words of the vocabulary
    also where a value is no number, NaN or infinite, and where the word has been found before.

    Raises FileNotFoundError; TypeError for another dtype or words that are no strings; and
    ValueError that names the file where it is empty, is damaged, has several texts, ends within a
    binary row, has no usable row among the first ones, or has none of the words.
    """
    path, dtype = Path(path), np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype: expected float32 or float64, got {dtype}")
    if not split_member(path)[0].is_file():
        raise FileNotFoundError(f"{path}: no such file")
    words = list(dict.fromkeys(vocabulary))
    if isinstance(vocabulary, str) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"vocabulary: expected a collection of strings, got {vocabulary!r:.60}")
    # A word that has no UTF-8 is never found: in the file its bytes are broken ones.
    index = {word.encode("utf-8", "surrogatepass"): i for i, word in enumerate(words)}
    blocks = blocks_of(path, "word vectors", _BLOCK, _LONGEST, progress)
    first = next(blocks, b"").removeprefix(codecs.BOM_UTF8)
    if b"\t" in first and _has_tabs(first):
        first, blocks = _spaced(first), map(_spaced, blocks)
    layout = _layout(path, first)
    vectors = np.empty((len(words), layout.dim), dtype)
    taken = np.zeros(len(words), bool)
    fill = _fill_binary if layout.binary else _fill
    try:
        rows, problems = fill(
            chain([first[len(layout.header) :]], blocks), layout, index, vectors, taken
        )
    except EOFError as error:
        raise ValueError(f"{path}: {error}") from None
    found = [word for word, there in zip(words, taken, strict=True) if there]
    report = Report(rows, len(words), len(found), layout.announced, problems)
    if words and not found:
        raise ValueError(f"{path}: {report}")
    return Vectors(found, vectors if taken.all() else vectors[taken], report)


def _has_tabs(block: bytes) -> bool:
    """Whether in most of the first rows tabs stand before numbers, alone or beside spaces."""
    rows = io.BytesIO(block).readlines()[:100]
    more = [_numbers_at_end(_spaced(row)) > _numbers_at_end(row) for row in rows]
    return 2 * sum(more) > len(rows)


def _spaced(block: bytes) -> bytes:
    return block.replace(b"\t", b" ")


def _layout(path: Path, block: bytes) -> _Layout:
    """Find dim and the usual number of spaces from a file's first block."""
    rows = io.BytesIO(block).readlines()
    if not rows:
        raise ValueError(f"{path}: empty")
    if block.startswith(_FASTTEXT):
        raise ValueError(f"{path}: a model of fastText; expected its word vectors, a .vec file")
    header = _HEADER.match(rows[0])
    rows = rows[header is not None :]
    numbers = [_numbers_at_end(row) for row in rows]
    dim = int(header[2]) if header else mode([n for n in numbers if n] or [1])
    for row, n in zip(rows, numbers, strict=True):
        if n >= dim:
            padding = row.count(b" ") - row.rstrip(b" \r\n").count(b" ")
            announced = int(header[1]) if header else None
            return _Layout(header[0] if header else b"", announced, dim, dim + padding)
    if header and not _converts(bytes.decode, block[header.end() :]):
        return _Layout(header[0], int(header[1]), dim, 0, binary=True)
    raise ValueError(
        f"{path}: expected rows of a word and {dim if header else 'its'} numbers as text, found "
        f"none among the first {len(rows)}, nor word2vec's binary form"
    )


def _numbers_at_end(row: bytes) -> int:
    fields = row.rstrip(b" \r\n").split(b" ")[1:]
    return sum(1 for _ in takewhile(partial(_converts, float), reversed(fields)))


def _converts(to: Callable[[bytes], object], field: bytes) -> bool:
    try:
        to(field)
    except ValueError:  # UnicodeDecodeError is one
        return False
    return True


def _fill(
    blocks: Iterable[bytes],
    layout: _Layout,
    index: dict[bytes, int],
    vectors: np.ndarray,
    taken: np.ndarray,
) -> tuple[int, dict[str, Problem]]:
    """Fill vectors and taken from the rows; count the rows and the problems."""
    starts = {word.partition(b" ")[0] for word in index}
    rows = 0
    problems: dict[str, Problem] = {}
    for block in blocks:
        lines = io.BytesIO(block).readlines()
        for i in _candidates(block, lines, starts, layout.spaces):
            if kind := _take(lines[i], index, vectors, taken):
                count, shown = problems.get(kind, (0, []))
                line = rows + i + 1 + bool(layout.header)
                problems[kind] = Problem(count + 1, [*shown, line][:_LINES_SHOWN])
        rows += len(lines)
    return rows, problems


def _candidates(block: bytes, rows: list[bytes], starts: set[bytes], spaces: int) -> list[int]:
    """The rows of a block that may be wanted or are not like others; all else is skipped."""
    words = [row.partition(b" ")[0] for row in rows]
    candidates = {i for i, word in enumerate(words) if word in starts}
    if np.count_nonzero(np.frombuffer(block, np.uint8) == ord(" ")) != spaces * len(rows):
        candidates.update(i for i, row in enumerate(rows) if row.count(b" ") != spaces)
    if not _converts(bytes.decode, b" ".join(words)):
        candidates.update(i for i, word in enumerate(words) if not _converts(bytes.decode, word))
    return sorted(candidates)


def _take(
    row: bytes, index: dict[bytes, int], vectors: np.ndarray, taken: np.ndarray
) -> str | None:
    """Put a row that is wanted in its place. Returns what is wrong with it, if anything."""
    dim = vectors.shape[1]
    word, *values = row.rstrip(b" \r\n").rsplit(b" ", dim)
    if not _converts(bytes.decode, word):
        return "broken bytes"
    if len(values) < dim:
        return "too few values"
    i = index.get(word)
    if i is None:
        _, space, last = word.rpartition(b" ")
        return "too many values" if space and _converts(float, last) else None
    if taken[i]:
        return "repeated word"
    try:
        with np.errstate(over="ignore"):
            vectors[i] = list(map(float, values))
    except ValueError:
        return "not a number"
    taken[i] = np.isfinite(vectors[i]).all()
    return None if taken[i] else "not finite"


def _fill_binary(
    blocks: Iterable[bytes],
    layout: _Layout,
    index: dict[bytes, int],
    vectors: np.ndarray,
    taken: np.ndarray,
) -> tuple[int, dict[str, Problem]]:
    """As _fill, of rows of a word, a space and float32; before a word there may be a line's end.
    Raises EOFError for a row without its end."""
    size, rows, rest = 4 * layout.dim, 0, b""
    problems: dict[str, Problem] = {}
    for block in blocks:
        rest, place = rest + block, 0
        while (space := rest.find(b" ", place)) >= 0 and space + size < len(rest):
            word = rest[place:space].lstrip(b"\r\n")
            rows, place = rows + 1, space + 1 + size
            values = np.frombuffer(rest, "<f4", layout.dim, space + 1)
            if kind := _take_binary(word, values, index, vectors, taken):
                count, shown = problems.get(kind, (0, []))
                problems[kind] = Problem(count + 1, [*shown, rows + 1][:_LINES_SHOWN])
        rest = rest[place:]
        if space < 0 and len(rest) > _LONGEST:
            break
    if rest.strip(b"\r\n"):
        raise EOFError(f"ends within row {rows + 1:,} of {layout.announced:,}, or is damaged")
    return rows, problems


def _take_binary(
    word: bytes,
    values: np.ndarray,
    index: dict[bytes, int],
    vectors: np.ndarray,
    taken: np.ndarray,
) -> str | None:
    """As _take, of a row's parts."""
    i = index.get(word)
    if i is None:
        return None if _converts(bytes.decode, word) else "broken bytes"
    if taken[i]:
        return "repeated word"
    vectors[i] = values
    taken[i] = np.isfinite(values).all()
    return None if taken[i] else "not finite"
