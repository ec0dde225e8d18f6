"""Word vectors from text files: every form of file, and everything that can be wrong with one."""

import bz2
import gzip
import lzma
import os
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.text import embeddings, read_labelled
from fastrnn.text.embeddings import load_vectors

ROWS = b"the 1 2 3\n, -0.5 0 1e-3\nna\xc3\xafve 7 8 9\n"
NAIVE = "na\u00efve"


@pytest.fixture
def file(tmp_path):
    """Writes bytes and gives the path."""

    def write(content, name="vectors.txt"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def in_binary(end):
    """ROWS as word2vec writes them with -binary 1, each vector with what ends it."""
    rows = (row.split(b" ") for row in ROWS.splitlines())
    return b"".join(
        word + b" " + np.array(numbers, "<f4").tobytes() + end for word, *numbers in rows
    )


def problems(got):
    return {kind: tuple(problem) for kind, problem in got.report.problems.items()}


# ---- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        ROWS,
        ROWS[:-1],
        ROWS.replace(b"\n", b"\r\n"),
        ROWS.replace(b"\n", b" \n"),  # as the word2vec program writes
        b"\xef\xbb\xbf" + ROWS,
        b"3 3\n" + ROWS,
        b"3 3\r\n" + ROWS.replace(b"\n", b" \r\n"),
        ROWS.replace(b" ", b"\t"),
        ROWS.replace(b" ", b"\t", 1).replace(b"\n, ", b"\n,\t").replace(b"ve ", b"ve\t"),
        b"3 3\n" + ROWS.replace(b" ", b"\t"),
        b"3 3\n" + in_binary(b""),
        b"3 3\n" + in_binary(b"\n"),
    ],
    ids=["glove", "no end", "CRLF", "padded", "BOM", "word2vec", "word2vec CRLF padded", "tabs",
         "a tab a row", "word2vec tabs", "word2vec binary", "word2vec binary, line ends"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["txt", "gz", "bz2", "xz", "zip"])
def test_every_form_of_file_gives_the_same(file, tmp_path, content, kind):
    packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    path = file(packed.get(kind, bytes)(content))
    if kind == "zip":
        path = zipped(tmp_path / "v.zip", {"a/": b"", "a/read.me": b"no", "a/v.txt": content})
    words, vectors, report = load_vectors(path, [NAIVE, "cat", "the", ","])
    assert words == [NAIVE, "the", ","]
    np.testing.assert_array_equal(vectors, np.float32([[7, 8, 9], [1, 2, 3], [-0.5, 0, 1e-3]]))
    assert vectors.dtype == np.float32
    assert report[:3] == (3, 4, 3)
    assert report.announced == (3 if b"3 3" in content else None)
    assert str(report) == "3 of 4 words in 3 rows"
    assert report.problems == {}


# Everything that splits lines or fields elsewhere, but not here; no digits, so that no word ends
# with a number.
WORDS = st.text("ab \r\t\x0b\x1c\x85\xa0\u2028é中.", max_size=4)


@given(
    words=st.lists(WORDS, min_size=1, max_size=12, unique=True),
    dim=st.integers(1, 4),
    others=st.lists(WORDS, max_size=3),
    end=st.sampled_from(["\n", "\r\n", " \n"]),
    header=st.booleans(),
    block=st.integers(16, 60),
    data=st.data(),
)
def test_any_words_and_numbers_come_back(
    tmp_path_factory, words, dim, others, end, header, block, data
):
    numbers = st.floats(-1e38, 1e38).map(repr) | st.decimals(-9, 9, places=5).map(str)
    texts = data.draw(st.lists(st.lists(numbers, min_size=dim, max_size=dim), min_size=len(words),
                               max_size=len(words)))  # fmt: skip
    rows = [" ".join([word, *text]) + end for word, text in zip(words, texts, strict=True)]
    path = tmp_path_factory.mktemp("any") / "v"
    head = f"{len(words)} {dim}{end}" * header
    path.write_bytes((head + "".join(rows)).removesuffix(end).encode())
    wanted = data.draw(st.permutations([words[0], *words[::2], *others]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "_BLOCK", block)
        got = load_vectors(path, wanted, dtype=np.float64)
        narrow = load_vectors(path, wanted)
    assert got.words == narrow.words == [word for word in dict.fromkeys(wanted) if word in words]
    expected = [[float(text) for text in texts[words.index(word)]] for word in got.words]
    np.testing.assert_array_equal(got.vectors, expected)
    np.testing.assert_array_equal(narrow.vectors, np.array(expected).astype(np.float32))
    assert got.report.rows == len(words)
    assert got.report.problems == {}


def test_words_hold_spaces_and_the_last_fields_are_the_vector(file):
    path = file(b"a 9 9 9\n. 1 1 1\n. . 2 2 2\n. . . 3 3 3\nb c 4 4 4\nd e 5 5 5\n")
    got = load_vectors(path, [". . .", ".", "b c", "b", "d"])
    assert got.words == [". . .", ".", "b c"]
    np.testing.assert_array_equal(got.vectors[:, 0], [3, 1, 4])
    assert got.report.problems == {}
    assert load_vectors(file(b". . 2 2 2\n"), [". ."]).vectors.shape == (1, 3)
    assert load_vectors(file(b"1 3\nat 3 2 2 2\n"), ["at 3"]).vectors.shape == (1, 3)


@pytest.mark.parametrize("end", [b"\n", b" \r\n"])
def test_rows_that_are_not_wanted_are_skipped(file, monkeypatch, end):
    looked_at = []
    take = embeddings._take
    monkeypatch.setattr(embeddings, "_take", lambda *a: looked_at.append(a[0]) or take(*a))
    load_vectors(file(ROWS.replace(b"\n", end)), ["the"])
    assert looked_at == [b"the 1 2 3" + end]


def test_vocabulary_is_any_collection_and_may_be_empty(file):
    path = file(ROWS)
    assert load_vectors(path, {",": 0, "the": 1}).words == [",", "the"]
    assert set(load_vectors(path, {",", "the"}).words) == {",", "the"}
    none = load_vectors(path, [])
    assert none.words == []
    assert none.vectors.shape == (0, 3)
    assert none.report[:3] == (3, 0, 0)


def test_dim_is_that_of_most_first_rows_or_of_the_header(file):
    rows = b"a 1 2\nb 1 2 3\n2000 1 2 3\nc x 2 3\nd 1 2 3\n"
    assert load_vectors(file(rows), ["2000"]).vectors.tolist() == [[1, 2, 3]]
    got = load_vectors(file(b"5 2\n" + rows), list("abcd"))
    assert got.words == ["a"]
    assert problems(got) == {"too many values": (3, [3, 4, 6])}


def test_bytes_of_progress_add_up_to_the_file(file, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "_BLOCK", 1000)
    rows = b"".join(b"w%d %f %f\n" % (i, np.sin(i), np.cos(i)) for i in range(50_000))
    zipped(tmp_path / "v.zip", {"v.txt": rows, "then.md": b"more" * 999})
    for path in (file(rows), file(gzip.compress(rows), "v.gz"), tmp_path / "v.zip"):
        steps = []
        load_vectors(path, ["w1"], progress=steps.append)
        assert sum(steps) == path.stat().st_size
        assert min(steps) >= 0
        assert max(steps) < 0.2 * sum(steps)


@pytest.mark.parametrize("end", [b"\n", b""], ids=["rows", "one endless row"])
def test_memory_is_bounded(file, end):
    numbers = b" 0.12345" * 100
    head = b"".join(b"%d%b\n" % (i, numbers) for i in range(400))
    path = file(head + b"".join(b"x%d%b%b" % (i, numbers, end) for i in range(30_000)))
    tracemalloc.start()
    try:
        load_vectors(path, ["7", "x5"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 24e6
    assert peak < 8e6


# ---- what is left out, counted and named ---------------------------------------------------------


def test_bad_rows_are_counted_with_their_lines_and_nothing_else_is_lost(file):
    rows = [
        b"8 3",
        b"the 1 2 3",
        b"\x96 1 2 3",
        b"\xe2\x80 1 2 3",  # the start of a dash
        b"short 1 2",
        b"",
        b"long 1 2 3 4",
        b"unwanted 1 2",
        b"unwanted 1 2 3 4 5",
        b"text 1 two 3",
        b"empty 1  3",
        b"nan 1 nan 3",
        b"inf 1 -inf 3",
        b"huge 1 1e39 3",
        b"the 4 5 6",
        b"other 1 x",
        b"inf 4 5 6",
        b"the 4 5 x",
        b"last 7 8 9",
    ]
    words = ["the", "short", "long", "text", "empty", "nan", "inf", "huge", "last"]
    words += ["\ufffd", "\u2013", "\udc96"]
    got = load_vectors(file(b"\r\n".join(rows)), words)
    assert got.words == ["the", "inf", "last"]
    np.testing.assert_array_equal(got.vectors, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert problems(got) == {
        "broken bytes": (2, [3, 4]),
        "too few values": (4, [5, 6, 8, 16]),
        "too many values": (2, [7, 9]),
        "not a number": (2, [10, 11]),
        "not finite": (3, [12, 13, 14]),
        "repeated word": (2, [15, 18]),
    }
    assert str(got.report) == (
        "3 of 12 words in 18 rows (8 announced); left out: 2 broken bytes (lines 3, 4); 4 too few "
        "values (lines 5, 6, 8, 16); 2 too many values (lines 7, 9); 2 not a number (lines 10, 11);"
        " 3 not finite (lines 12, 13, 14); 2 repeated word (lines 15, 18)"
    )
    assert load_vectors(file(b"huge 1 1e39 3"), ["huge"], dtype=np.float64).words == ["huge"]


def test_report_names_only_the_first_lines(file, monkeypatch):
    monkeypatch.setattr(embeddings, "_BLOCK", 64)
    path = file(b"the 1 2\n" + 2000 * b"\xff 1 2\nok 1 2\n")
    report = load_vectors(path, ["the"]).report
    assert report.problems["broken bytes"] == (2000, [2, 4, 6, 8, 10])
    assert str(report) == (
        "1 of 1 words in 4,001 rows; left out: 2,000 broken bytes (lines 2, 4, 6, 8, 10, …)"
    )
    one = load_vectors(file(b"the 1 2\n\xff 1 2\n"), ["the"]).report
    assert str(one) == "1 of 1 words in 2 rows; left out: 1 broken bytes (line 2)"


def test_surrogates_in_the_vocabulary_match_no_bytes(file):
    got = load_vectors(file(b"the 1 2\n\xed\xb2\x96 1 2\n\x96 1 2\n? 1 2\n"), ["the", "\udc96"])
    assert got.words == ["the"]
    assert problems(got) == {"broken bytes": (2, [2, 3])}


# ---- what is refused -----------------------------------------------------------------------------

BINARY = struct.pack("<5f", 0.1, -2, 3e-9, 1, 7)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (gzip.compress(b""), "empty"),
        (b"3 2\n", "a word and 2 numbers as text, found none among the first 0"),
        (
            b"\n\n\n",
            "a word and its numbers as text, found none among the first 3",
        ),
        (b"3 0\nthe\ncat\n", "0 of 2 words in 3 rows; left out: 2 too few values"),
        (b"a b c\nd e f\n", "expected rows of a word and its numbers"),
        (b"2 3\nthe 1 2\ncat 1 2\n", "a word and 3 numbers as text, found none among the first 2"),
        (b"the " + BINARY + b"\ncat " + BINARY + b"\n", r"nor word2vec's binary form"),
        (b"2 5\nthe " + BINARY + b"cat " + BINARY[:-1], r"ends within row 2 of 2"),
        (b"9 5\nthe " + BINARY + b"the", r"ends within row 2 of 9"),
        (b"2 5\ndog " + BINARY + b"\xff " + BINARY, r"0 of 2 words .*: 1 broken bytes \(line 3\)"),
        (b"\xba\x16\x4f\x2f\x0c\0\0\0", r"a model of fastText; expected its word vectors"),
        (b"dog 1 2\ncow 1 x\nTHE 1\n", "0 of 2 words in 3 rows; left out: 1 too few values"),
        (gzip.compress(ROWS)[:-12], "cannot be decompressed"),
        (gzip.compress(ROWS)[:-4], "cannot be decompressed"),
        (gzip.compress(ROWS)[:12] + b"????????????????????", "cannot be decompressed"),
        (gzip.compress(ROWS) + b"trailing", "cannot be decompressed"),
        (bz2.compress(ROWS)[:-5], "cannot be decompressed"),
        (bz2.compress(ROWS)[:20] + b"????????????????????", "cannot be decompressed"),
        (lzma.compress(ROWS)[:-12], "cannot be decompressed"),
        (lzma.compress(ROWS)[:20] + b"????????????????????", "cannot be decompressed"),
        (b"PK\x03\x04 and no more", "cannot be decompressed"),
    ],
)
def test_unusable_files_are_named(file, content, message):
    path = file(content)
    with pytest.raises(ValueError, match=message) as error:
        load_vectors(path, ["the", "cat"])
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"a.txt": b"", "b.txt": b"", "c.md": b""},
            "one text file in it, got a.txt, b.txt",
        ),
        ({"a.vec": ROWS, "b.vec": ROWS}, "one text file in it, got a.vec, b.vec"),
    ],
)
def test_archives_of_several_texts_are_refused(tmp_path, members, message):
    with pytest.raises(ValueError, match=message):
        load_vectors(zipped(tmp_path / "v.zip", members), ["the"])


def test_a_member_of_an_archive_is_chosen_by_its_name(tmp_path):
    """As in the published glove.6B.zip."""
    members = {"x/a.50d.txt": ROWS, "x/a.2d.txt": b"the 4 5\n", "y/b.txt": b"", "z/b.txt": b""}
    path = zipped(tmp_path / "glove.zip", members)
    for name in ("a.2d.txt", "x/a.2d.txt"):
        assert load_vectors(path / name, ["the"]).vectors.tolist() == [[4, 5]]
    assert load_vectors(path / "a.50d.txt", ["the"]).vectors.shape == (1, 3)
    with pytest.raises(
        ValueError, match=r"glove.zip: expected one .* got x/a.50d.txt, .*; name on"
    ):
        load_vectors(path, ["the"])
    for name in ("b.txt", "c.txt"):
        with pytest.raises(ValueError, match=f"glove.zip: expected one '{name}' in it, got"):
            load_vectors(path / name, ["the"])
    plain = tmp_path / "plain.txt"
    plain.write_bytes(ROWS)
    with pytest.raises(ValueError, match=r"plain.txt: expected a zip archive, of 'a.txt' in it"):
        load_vectors(plain / "a.txt", ["the"])


def test_binary_rows_are_found_wherever_blocks_end(file, monkeypatch):
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((200, 7)).astype("<f4")
    rows = [b"w%d " % i + row.tobytes() + b"\n" * (i % 2) for i, row in enumerate(numbers)]
    rows.insert(5, b"nan " + np.full(7, np.nan, "<f4").tobytes())
    rows.insert(6, rows[0])
    path = file(b"202 7\n" + b"".join(rows), "v.bin")
    for block in (50, 61, 4000, 1 << 18):
        monkeypatch.setattr(embeddings, "_BLOCK", block)
        got = load_vectors(path, ["nan", *(f"w{i}" for i in range(0, 200, 3))])
        np.testing.assert_array_equal(got.vectors, numbers[::3])
        assert got.report[:4] == (202, 68, 67, 202)
        assert problems(got) == {"not finite": (1, [7]), "repeated word": (1, [8])}


def test_archives_hold_one_file_of_any_name(tmp_path):
    members = {"crawl/": b"", "crawl/it.vec": ROWS, "__MACOSX/crawl/._it.txt": b"\0\1"}
    assert load_vectors(zipped(tmp_path / "v.zip", members), ["the"]).words == ["the"]


def test_damaged_archives_are_named(tmp_path):
    path = zipped(tmp_path / "v.zip", {"v.txt": ROWS * 99})
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[60] ^= 0xFF
    locked = bytearray(whole)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[whole.index(mark) + place] |= 1
    for content in (damaged, locked, whole[:-40]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))}: cannot be decompressed"):
            load_vectors(path, ["the"])


def test_bad_arguments_are_named(file, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.txt: no such file"):
        load_vectors(tmp_path / "missing.txt", ["the"])
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_vectors(tmp_path, ["the"])
    path = file(ROWS)
    with pytest.raises(TypeError, match="dtype: expected float32 or float64, got int32"):
        load_vectors(path, ["the"], dtype=np.int32)
    for vocabulary in ("the", {0: "the"}, [b"the"]):
        with pytest.raises(TypeError, match="vocabulary: expected a collection of strings, got"):
            load_vectors(path, vocabulary)


# ---- real data -----------------------------------------------------------------------------------


@pytest.mark.skipif(
    not os.environ.get("FASTRNN_DATA"), reason="FASTRNN_DATA names no folder of real data"
)
def test_published_vectors_have_five_broken_rows():
    path = Path(os.environ["FASTRNN_DATA"]) / "glove/glove.6B.50d.subset.txt"
    rows = [row.split(" ") for row in path.read_text(encoding="cp1252").split("\n")]
    got = load_vectors(path, [row[0] for row in reversed(rows)], dtype=np.float64)
    # Dashes and quotes of a Windows code page: \x96 \x92s \x97 \x93 \x94
    broken = [218, 785, 1329, 1409, 1420]
    assert problems(got) == {"broken bytes": (5, broken)}
    assert "".join(rows[line - 1][0] for line in broken) == "\u2013\u2019s\u2014\u201c\u201d"
    kept = [row for line, row in enumerate(rows, 1) if line not in broken][::-1]
    assert got.words == [row[0] for row in kept]
    np.testing.assert_array_equal(got.vectors, [[float(text) for text in row[1:]] for row in kept])
    assert got.vectors.shape == (2441, 50)


@pytest.mark.skipif(
    not os.environ.get("FASTRNN_DATA"), reason="FASTRNN_DATA names no folder of real data"
)
def test_published_vectors_have_the_words_that_docs_say():
    base = Path(os.environ["FASTRNN_DATA"])
    words = {
        word for text in read_labelled(base / "sentiment/train.txt").texts for word in text.split()
    }
    found = load_vectors(base / "glove/glove.6B.50d.subset.txt", words).report
    page = (Path(__file__).parents[1] / "docs/text.md").read_text(encoding="utf-8")
    assert f"which has {found.found:,} of the {len(words):,} words" in page
