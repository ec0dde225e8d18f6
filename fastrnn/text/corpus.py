"""Labelled texts: read from files or from nltk's corpora, and divided in two."""

import codecs
import io
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from reprlib import repr as shortened
from types import ModuleType
from typing import BinaryIO, NamedTuple

import numpy as np

from fastrnn.optional import require
from fastrnn.storage import named, reading
from fastrnn.text import formats
from fastrnn.text.detection import AUTO, HEAD, form_of
from fastrnn.text.formats import PREFIX, Form, Row

ERRORS = ("strict", "replace")
BLOCK = 1 << 18  # bytes of a file in memory at a time
MAX_CLASSES = 1000
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

# nltk's corpora in which a text has one category, and what their readers need besides. Not reuters,
# whose texts have several, and not ptb, of which nltk has no texts.
NLTK_CORPORA = {
    "brown": [],
    "machado": ["tokenizers/punkt_tab"],
    "masc_tagged": [],
    "movie_reviews": ["tokenizers/punkt_tab"],
    "pros_cons": [],
    "sentence_polarity": [],
    "subjectivity": [],
}


class Corpus(NamedTuple):
    """texts, tokens between white space; labels, one a text, or if there are several a tuple;
    skipped, blank lines left out."""

    texts: list[str]
    labels: list[str] | list[tuple[str, ...]]
    skipped: int = 0


def split(corpus: Corpus, fraction: float, seed: int) -> tuple[Corpus, Corpus]:
    """Hold out a fraction of every class, drawn from seed; of texts with several labels, of every
    set of them.

    Inputs: fraction, above 0 and below 1; rounded so that each class has an example on both sides.
    Returns: what is left and what is held out, both in the corpus's order. The only example of a
    class is left; of sets of labels that occur once those are held out whose labels all are left.
    Raises ValueError for another fraction, and where nothing can be held out.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: expected a number between 0 and 1, got {fraction}")
    members = defaultdict(list)
    several = isinstance(corpus.labels[0], list | tuple)
    for i, label in enumerate(corpus.labels):
        members[tuple(sorted(label)) if several else label].append(i)
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(corpus.labels), bool)
    for _, rows in sorted(members.items()):
        if len(rows) > 1:
            n = min(max(1, round(fraction * len(rows))), len(rows) - 1)
            held_out[rng.permutation(rows)[:n]] = True
    once = [rows[0] for _, rows in sorted(members.items()) if len(rows) == 1]
    if several:
        _hold_out_once(corpus.labels, once, fraction, held_out, rng)
    if not held_out.any():
        raise ValueError(f"no class has two examples, and {len(once)} have one: none is held out")
    left, held = (
        Corpus([corpus.texts[i] for i in rows], [corpus.labels[i] for i in rows])
        for rows in (np.flatnonzero(~held_out), np.flatnonzero(held_out))
    )
    return left, held


def _hold_out_once(
    labels: Sequence[Sequence[str]],
    rows: list[int],
    fraction: float,
    held_out: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Hold out a fraction of these rows, as far as others with each of their labels are left."""
    left = Counter(chain.from_iterable(labels[i] for i in np.flatnonzero(~held_out)))
    wanted = round(fraction * len(rows))
    for row in rng.permutation(rows).tolist():
        if wanted and all(left[label] > 1 for label in labels[row]):
            held_out[row] = True
            left.subtract(labels[row])
            wanted -= 1


def read_labelled(
    path: Path | str,
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    file_format: str = AUTO,
    text_column: str | None = None,
    label_column: str | None = None,
    classes: Sequence[str] | None = None,
    multilabel: bool = False,
    unseen: bool = False,
    tell: Callable[[str], object] = lambda said: None,
) -> Corpus:
    """Read examples: texts, each with its label, or with multilabel with a tuple of labels.

    Inputs: file_format, one of formats.LABELLED, or "auto", for what the file seems to be, which
    tell then gets in a line; text_column and label_column, names or, from 1, numbers, where columns
    are not called as usual.
    Lines are those of read_lines, white space is str.split's. A blank line is left out and counted;
    a label alone is an example without words.
    Raises what read_lines raises, and ValueError
    - for a file that may be read in two ways, and rows that are not of the format;
    - for a text without a label, and without multilabel for one with several;
    - for a label that is none of classes, where those are given, unless unseen;
    - where neither they nor file_format are, for more than MAX_CLASSES labels, and for more than 20
      of which more than a third occur once: then they are no labels;
    - for a file without an example.
    """
    form, rows = read_rows(
        path,
        encoding=encoding,
        errors=errors,
        file_format=file_format,
        text_column=text_column,
        label_column=label_column,
        classes=classes or (),
    )
    examples, skipped = [], 0
    for row in rows:
        if row.labels:
            examples.append(_checked(path, row, form, classes or (), multilabel))
        elif row.text:
            raise ValueError(f"{path}:{row.line}: no label")
        else:
            skipped += 1
    if not examples:
        raise ValueError(f"{path}: no examples; expected lines of a label and the words of a text")
    if (file_format == AUTO) if classes is None else not unseen:
        _check_labels(path, examples, form, classes)
    if file_format == AUTO:
        tell(f"{path}: read as {form}")
    labels = [row.labels if multilabel else row.labels[0] for row in examples]
    return Corpus([row.text for row in examples], labels, skipped)


def read_rows(
    path: Path | str,
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    head: int = HEAD,
    **asked: object,
) -> tuple[Form, Iterator[Row]]:
    """How a file, or with "-" the standard input, is read, and its rows, as they come.

    Inputs: head, the lines by which that is judged; asked, as form_of takes it. Raises what form_of
    raises, and when it gets there, what read_lines and formats.rows raise.
    """
    first, lines = _ahead(read_lines(path, encoding=encoding, errors=errors), head)
    form = form_of(first, name_of(path), **asked)
    return form, formats.rows(lines, form, name_of(path))


def name_of(path: Path | str) -> str:
    """What is read from a path, for messages."""
    return "standard input" if str(path) == "-" else str(path)


def _ahead(lines: Iterator[str], n: int) -> tuple[list[str], Iterator[str]]:
    """The first n lines, and all lines; an error among the first comes when it is its turn."""
    first, problems = [], []
    try:
        first.extend(islice(lines, n))
    except ValueError as error:
        problems.append(error)

    def all_lines() -> Iterator[str]:
        yield from first
        for error in problems:
            raise error
        yield from lines

    return first, all_lines()


def _checked(
    path: Path | str, row: Row, form: Form, classes: Sequence[str], multilabel: bool
) -> Row:
    """A row whose labels are named as classes are. Raises ValueError for several, if one is
    expected."""
    if len(row.labels) > 1 and not multilabel:
        shown = ", ".join(map(shortened, row.labels))
        raise ValueError(f"{path}:{row.line}: expected one label, got {len(row.labels)}: {shown}")
    if form.kind != "fasttext":
        return row
    # A version that knew no formats has trained with the prefix as a part of the label.
    whole = (f"{PREFIX}{label}" for label in row.labels)
    pairs = zip(row.labels, whole, strict=True)
    return row._replace(labels=tuple(w if w in classes else label for label, w in pairs))


def _check_labels(
    path: Path | str, examples: list[Row], form: Form, classes: Sequence[str] | None
) -> None:
    counts = Counter(chain.from_iterable(row.labels for row in examples))  # as they appear
    hint = "the first token of a line is read as its label" if form.kind == "space" else form
    override = f"--format {form.kind} takes any"
    wrong, problem = [], ""
    if classes is not None:
        known = set(classes)
        wrong = [label for label in counts if label not in known]
        problem = f"is not one of {', '.join(classes[:10])}{', ...' * (len(classes) > 10)}"
        problem += "; --unseen takes others as wrong"
    elif len(counts) > MAX_CLASSES:
        wrong = [*counts][MAX_CLASSES:]
        problem = f"is label number {MAX_CLASSES + 1}; {hint}; {override}"
    elif len(counts) > 20:
        once = [label for label, n in counts.items() if n == 1]
        wrong = once if 3 * len(once) > len(counts) else []
        problem = f"occurs once, as do {len(once)} of the {len(counts)} labels; {hint}; {override}"
    if wrong:
        line = next(row.line for row in examples if wrong[0] in row.labels)
        raise ValueError(f"{path}:{line}: label {shortened(wrong[0])} {problem}")


def read_lines(
    path: Path | str, *, encoding: str = "utf-8", errors: str = "strict"
) -> Iterator[str]:
    """Read the lines of a file, or with "-" of the standard input, as they come.

    A line ends at "\\n" and nowhere else, a "\\r" before it is dropped; behind the last "\\n" there
    is a line only if it is not empty. A byte order mark is dropped. In memory there is a block of
    the file, or its longest line.
    Raises, when it gets there, ValueError with file and line for bytes that are not of the encoding
    and for NUL, unless errors is "replace": then U+FFFD stands for them; ValueError for an unknown
    encoding and for other errors; OSError.
    """
    decoder = decoder_of(encoding, errors)
    if str(path) == "-":
        with named(name_of(path), "text"):
            yield from _lines(sys.stdin.buffer, name_of(path), encoding, decoder)
    else:
        with reading(path, "text"), Path(path).open("rb") as file:
            yield from _lines(file, path, encoding, decoder)


def decoder_of(encoding: str, errors: str = "strict") -> codecs.IncrementalDecoder:
    """What decodes a text in pieces. Raises ValueError for an unknown encoding, and for errors that
    is none of ERRORS."""
    if errors not in ERRORS:
        raise ValueError(f"errors: expected one of {', '.join(ERRORS)}, got {errors!r}")
    try:
        "\n".encode(encoding)  # refuses also codecs that are not for text
        return codecs.getincrementaldecoder(encoding)(errors)
    except LookupError as error:
        raise ValueError(f"encoding: {error}") from None


def _lines(
    file: BinaryIO, name: object, encoding: str, decoder: codecs.IncrementalDecoder
) -> Iterator[str]:
    number, begun = 1, ""  # the line that is being read
    for block in chain(iter(lambda: file.read1(BLOCK), b""), [b""]):
        text, problem = _decode(decoder, block, encoding)
        if number == 1 and not begun:
            text = text.removeprefix("\ufeff")
        *lines, last = text.split("\n")
        for line in lines:
            yield (begun + line).removesuffix("\r")
            begun = ""
        number += len(lines)
        begun += last
        if problem:
            if number == 1 and not begun and block.startswith(UTF16_MARKS):
                problem += "; it begins with the mark of utf-16"
            raise ValueError(f"{name}:{number}: {problem.format(column=len(begun) + 1)}")
    if begun:
        yield begun.removesuffix("\r")


def _decode(decoder: codecs.IncrementalDecoder, block: bytes, encoding: str) -> tuple[str, str]:
    """The next text, as far as it is good, and what is wrong behind it ("": nothing); an empty
    block is the file's end."""
    pending, _ = state = decoder.getstate()
    text, problem = "", ""
    try:
        text = decoder.decode(block, final=not block)
    except UnicodeError as error:  # with "replace" of utf-16 without a mark
        start = getattr(error, "start", 0)
        decoder.setstate(state)
        with suppress(UnicodeError):  # of utf-16 without a mark nothing is good
            text = decoder.decode(block[: max(0, start - len(pending))])
        byte = (pending + block)[start]
        problem = (
            f"not {encoding} (byte 0x{byte:02x} at column {{column}}); pass the file's encoding"
        )
    if decoder.errors == "replace":
        text = text.replace("\0", "\ufffd")
    text, nul, _ = text.partition("\0")
    if nul:
        problem = "a NUL at column {column}; expected text, got a binary file or another encoding"
    return text, problem


def nltk_corpus(name: str) -> Corpus:
    """The sentences of one of nltk's corpora, each labelled with its category.

    Inputs: name, one of NLTK_CORPORA. What is not installed nltk downloads, to where it keeps data.
    Returns: sentences in the corpus's own case, tokens joined by blanks; sentences without tokens
    are left out and counted. Where whole texts have categories, a sentence has its text's.
    Raises ValueError for another name, and for a download that fails.
    """
    if name not in NLTK_CORPORA:
        raise ValueError(
            f"nltk:{name}: not a corpus in which a text has one category; there are "
            f"{', '.join(NLTK_CORPORA)}"
        )
    nltk = require("nltk")
    for resource in (f"corpora/{name}", *NLTK_CORPORA[name]):
        _fetch(nltk, resource)
    reader = getattr(nltk.corpus, name)
    examples = [
        (" ".join(sentence), category)
        for category in reader.categories()
        for sentence in reader.sents(categories=category)
    ]
    texts = [text for text, _ in examples if text]
    labels = [label for text, label in examples if text]
    return Corpus(texts, labels, len(examples) - len(texts))


def _fetch(nltk: ModuleType, resource: str) -> None:
    try:
        nltk.data.find(f"{resource}/")  # with the slash a zip file counts as well
    except LookupError:
        package = resource.split("/")[1]
        try:
            nltk.download(package, quiet=True, raise_on_error=True, print_error_to=io.StringIO())
        except (OSError, ValueError, SyntaxError) as error:  # the last of XML
            reason = " ".join(str(error).split())
            raise ValueError(
                f"nltk: {package} is not installed and cannot be downloaded ({reason}); "
                f"where there is a network: python -m nltk.downloader {package}"
            ) from None
