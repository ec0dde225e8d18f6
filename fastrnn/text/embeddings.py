"""Word vectors from the text files of GloVe and word2vec: only those that a vocabulary needs."""

import codecs
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from statistics import mode
from typing import BinaryIO, NamedTuple

import numpy as np

from fastrnn.storage import reading

_BLOCK = 1 << 18  # bytes whose rows are looked at together: few enough to stay in the cache
_LONGEST = 1 << 20  # bytes read in search of a row's end: a file without one must not fill memory
_LINES_SHOWN = 5


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


def load_vectors(
    path: Path | str,
    vocabulary: Collection[str],
    *,
    dtype: np.dtype | type = np.float32,
    progress: Callable[[int], object] = lambda n: None,
) -> Vectors:
    """Read the vectors of a vocabulary's words, in one pass and in memory for those alone.

    Inputs: path, UTF-8 rows "word number number ...", as text, as .gz, or in a .zip that holds one
    file or one .txt (told by content, not by name); vocabulary, words or a mapping from words;
    dtype, float32 or float64; progress, called with the bytes of the file that were read since its
    last call, in all the file's size: the update method of a tqdm bar.
    Returns: Vectors; a number is what float() makes of its text, rounded to dtype.

    A first line of two whole numbers is word2vec's header, rows and dim. Without one dim is how
    many numbers most of the first rows end with. The last dim fields of a row are its vector and
    all before them its word, spaces included. Of the usable rows of a word the first one counts.
    Rows that are left out are counted, for every word where it is not UTF-8 and where there are too
    few or too many values (unless within 256 KiB one row has too many by as much as others have too
    few; a surplus field is part of the word unless it is a number), and for words of the vocabulary
    also where a value is no number, NaN or infinite, and where the word has been found before.

    Raises FileNotFoundError; TypeError for another dtype or words that are no strings; and
    ValueError that names the file where it is empty, is damaged as .gz or .zip, has several texts,
    has no usable row among the first ones (as word2vec's binary files), or has none of the words.
    """
    path, dtype = Path(path), np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype: expected float32 or float64, got {dtype}")
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"{path}: no such file")
    words = list(dict.fromkeys(vocabulary))
    if isinstance(vocabulary, str) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"vocabulary: expected a collection of strings, got {vocabulary!r:.60}")
    # A word that has no UTF-8 is never found: in the file its bytes are broken ones.
    index = {word.encode("utf-8", "surrogatepass"): i for i, word in enumerate(words)}
    blocks = _blocks(path, progress)
    first = next(blocks, b"").removeprefix(codecs.BOM_UTF8)
    layout = _layout(path, first)
    vectors = np.empty((len(words), layout.dim), dtype)
    taken = np.zeros(len(words), bool)
    rows, problems = _fill(
        chain([first[len(layout.header) :]], blocks), layout, index, vectors, taken
    )
    found = [word for word, there in zip(words, taken, strict=True) if there]
    report = Report(rows, len(words), len(found), layout.announced, problems)
    if words and not found:
        raise ValueError(f"{path}: {report}")
    return Vectors(found, vectors if taken.all() else vectors[taken], report)


def _blocks(path: Path, progress: Callable[[int], object]) -> Iterator[bytes]:
    """A file's text in blocks of whole rows."""
    reported = 0
    with reading(path, "word vectors"), path.open("rb") as file:
        with _damage_named(path):
            stream = _decompressed(path, file)
        while True:
            with _damage_named(path):
                block = stream.read(_BLOCK) + stream.readline(_LONGEST)
            if not block:
                break
            progress(file.tell() - reported)
            reported = file.tell()
            yield block
        progress(path.stat().st_size - reported)  # what follows the text in a .zip


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    # zipfile raises RuntimeError for a password, NotImplementedError for a rare compression.
    except (EOFError, RuntimeError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot be decompressed ({error})") from None


def _decompressed(path: Path, file: BinaryIO) -> BinaryIO:
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if not magic.startswith(b"PK\x03\x04"):
        return file
    archive = zipfile.ZipFile(file)
    names = [
        info.filename
        for info in archive.infolist()
        if not info.is_dir() and not info.filename.startswith("__MACOSX/")  # holds icons and such
    ]
    texts = [name for name in names if name.endswith(".txt")] if len(names) > 1 else names
    if len(texts) != 1:
        raise ValueError(f"{path}: expected one text file in it, got {', '.join(texts or names)}")
    return archive.open(texts[0])


def _layout(path: Path, block: bytes) -> _Layout:
    """Find dim and the usual number of spaces from a file's first block."""
    rows = io.BytesIO(block).readlines()
    if not rows:
        raise ValueError(f"{path}: empty")
    header = re.match(rb"(\d+) ([1-9]\d*)[ \r]*\n", rows[0])
    rows = rows[header is not None :]
    numbers = [_numbers_at_end(row) for row in rows]
    dim = int(header[2]) if header else mode([n for n in numbers if n] or [1])
    for row, n in zip(rows, numbers, strict=True):
        if n >= dim:
            padding = row.count(b" ") - row.rstrip(b" \r\n").count(b" ")
            announced = int(header[1]) if header else None
            return _Layout(header[0] if header else b"", announced, dim, dim + padding)
    raise ValueError(
        f"{path}: expected rows of a word and {dim if header else 'its'} numbers as text, found "
        f"none among the first {len(rows)} (binary files are not read)"
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
