"""Labelled files and streams of lines with all that can be wrong in them, nltk's corpora from a
mirror on this machine, and the embedded grammar."""

import hashlib
import http.server
import io
import itertools
import os
import re
import sys
import threading
import tracemalloc
import urllib.request
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.text import corpus
from fastrnn.text.corpus import Corpus, nltk_corpus, read_labelled, read_lines, split
from fastrnn.text.grammar import make_reviews


@pytest.fixture
def file(tmp_path):
    """Write bytes, or text as UTF-8, to a file."""

    def write(content):
        path = tmp_path / "texts.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def lines_of(pieces, encoding="utf-8"):
    """read_lines of a standard input that comes in pieces."""
    pieces = iter(pieces)
    with pytest.MonkeyPatch.context() as patch:
        stdin = SimpleNamespace(read1=lambda n: next(pieces, b""))
        patch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
        yield from read_lines("-", encoding=encoding)


def cut(data, places):
    """data in pieces, none of them empty."""
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


# ---- lines ---------------------------------------------------------------------------------------

TEXTS = st.text("ab \t\r\n\n\f\x0b\x1c\x85\u2028あ\ufeff", max_size=40)
PLACES = st.lists(st.integers(0, 200), max_size=5)
ENCODINGS = ["utf-8", "utf-16", "utf-16-be", "utf-32", "gb18030", "utf-7"]


@given(TEXTS, PLACES, st.sampled_from(ENCODINGS))
def test_lines_end_at_newlines_alone_wherever_the_stream_is_cut(text, places, encoding):
    text = text.lstrip("\ufeff")
    *expected, last = text.split("\n")
    expected += [last] if last else []
    got = list(lines_of(cut(text.encode(encoding), places), encoding))
    assert got == [line.removesuffix("\r") for line in expected]


@given(TEXTS, st.integers(0, 40), PLACES)
def test_wrong_bytes_are_found_wherever_the_stream_is_cut(text, place, places):
    text = text.lstrip("\ufeff")
    before, after = text[:place], text[place:]
    *lines, last = before.split("\n")
    for wrong, problem in ((b"\xff", "not utf-8 (byte 0xff at"), (b"\0", "a NUL at")):
        stream = lines_of(cut(before.encode() + wrong + after.encode(), places))
        got = [next(stream) for _ in lines]
        assert got == [line.removesuffix("\r") for line in lines]  # what was good has come
        with pytest.raises(ValueError) as error:
            next(stream)
        place = f"standard input:{len(lines) + 1}: "
        assert str(error.value).startswith(f"{place}{problem} column {len(last) + 1}")


@pytest.mark.parametrize("place", range(1, 7))
def test_wrong_bytes_of_a_decoder_that_keeps_state(place):
    data = "あ\nあ".encode("euc_jp") + b"\xd6z"
    stream = lines_of([data[:place], data[place:]], "euc_jp")
    with pytest.raises(ValueError, match=r":2: not euc_jp \(byte 0xd6 at column 2\)"):
        list(stream)


def test_lines_of_a_file_are_those_that_wc_counts(file):
    assert list(read_lines(file("one\r\n\ntwo"))) == ["one", "", "two"]
    assert list(read_lines(file("one\n\n"))) == ["one", ""]
    assert list(read_lines(file("\n"))) == [""]
    assert list(read_lines(file(""))) == []
    assert list(read_lines(file("a\rb\n"))) == ["a\rb"]


def test_byte_order_mark_is_dropped_at_the_beginning_alone(file):
    assert list(read_lines(file("\ufeff1 one\n\ufefftwo"))) == ["1 one", "\ufefftwo"]
    assert list(lines_of([b"\xef", b"\xbb", b"\xbfone"])) == ["one"]
    little = "\ufeffone\n".encode("utf-16-le")
    for encoding in ("utf-16", "utf-16-le"):
        assert list(read_lines(file(little), encoding=encoding)) == ["one"]


def test_lines_are_handed_on_as_they_come():
    asked = []

    def pieces():
        for piece in (b"one\ntw", b"o\nthree"):
            asked.append(piece)
            yield piece

    stream = lines_of(pieces())
    assert next(stream) == "one"
    assert len(asked) == 1
    assert [*stream] == ["two", "three"]


def test_a_long_stream_does_not_grow_the_process():
    piece = (b"word " * 400 + b"\n") * 100
    tracemalloc.start()
    try:
        n = sum(1 for _ in lines_of(piece for _ in range(300)))  # 60 MB
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n == 30_000
    assert peak < 2_000_000


def test_a_long_line_is_read_in_linear_time():
    pieces = (b"x" * 4096 for _ in range(20_000))  # one line of 80 MB, in quadratic time 800 GB
    assert [len(line) for line in lines_of(pieces)] == [20_000 * 4096]


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (b"0 fine\n1 a na\xefve one\n", "utf-8", ":2: not utf-8 (byte 0xef at column 7); pass the"),
        ("0 caf\u00e9 ".encode()[:-2], "utf-8", ":1: not utf-8 (byte 0xc3 at column 6); pass the"),
        (
            "1 one\n".encode("utf-16"),
            "utf-8",
            "column 1); pass the file's encoding; it begins with",
        ),
        (b"0 one\n\xff\xfe", "utf-8", ":2: not utf-8 (byte 0xff at column 1); pass the file's"),
        (b"1 one\n", "utf-16", ":1: not utf-16 (byte 0x31 at column 1)"),
        (b"oA/\xd8\nm", "utf-16", ":1: not utf-16 (byte 0x2f at column 1)"),
        ("1 a\0b".encode("utf-16"), "utf-16", ":1: a NUL at column 4; expected text"),
        ("1 one\n".encode("utf-16-le"), "latin-1", ":1: a NUL at column 2; expected text"),
        (b"1 one\n\x89PNG\0", "cp1252", ":2: a NUL at column 5; expected text"),
        (b"1 one\n1 \x81", "cp1252", ":2: not cp1252 (byte 0x81 at column 3)"),
        (b"1 one", "utf-99", "encoding: unknown encoding: utf-99"),
        (b"1 one", "base64", "encoding: 'base64' is not a text encoding"),
    ],
)
def test_bytes_of_another_encoding_are_named(file, content, encoding, message):
    path = file(content)
    with pytest.raises(ValueError) as error:
        read_labelled(path, encoding=encoding)
    assert message in str(error.value)
    assert str(error.value).startswith("encoding: " if "encoding: " in message else f"{path}:")
    assert ("mark of utf-16" in str(error.value)) == ("begins with" in message)


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_labelled(tmp_path / "missing.txt")


# ---- labelled files ------------------------------------------------------------------------------


def test_labelled_lines(file):
    got = read_labelled(
        file("1 good  food .\r\n0\tbad\u2028food\r\n\r\n \t\n 2 \n3\n1 it 's\x85 ok \t")
    )
    assert got.labels == ["1", "0", "2", "3", "1"]
    assert got.texts == ["good  food .", "bad\u2028food", "", "", "it 's\x85 ok"]
    assert got.skipped == 2


def test_labels_outside_of_the_classes_are_refused(file):
    path = file("1 one\n\n0 two\nx three\ny four\n")
    with pytest.raises(ValueError) as error:
        read_labelled(path, classes=["0", "1"])
    problem = "is not one of 0, 1; --unseen takes others as wrong"
    assert str(error.value) == f"{path}:4: label 'x' {problem}"
    assert read_labelled(path, classes=("0", "1", "x", "y", "z")).labels == ["1", "0", "x", "y"]
    with pytest.raises(ValueError, match=r":1: label '1' is not one of c0, c1, .*, c9, \.\.\.;"):
        read_labelled(path, classes=[f"c{i}" for i in range(11)])
    unlabelled = file("".join(f"word{i} and more\n" for i in range(50)))
    assert len(set(read_labelled(unlabelled, classes=[f"word{i}" for i in range(50)]).labels)) == 50


@pytest.mark.parametrize(
    ("labels", "line", "problem"),
    [
        ([*range(1000)] * 2, None, ""),
        ([*range(1000), *range(1001)], 2002, "label number 1001"),
        ([*range(20)], None, ""),
        ([0, *range(21)], 4, "occurs once, as do 20 of the 21 labels"),
        ([*range(30), *range(20)], None, ""),
        ([*range(31), *range(20)], 22, "occurs once, as do 11 of the 31 labels"),
    ],
)
def test_text_without_labels_is_recognised(file, labels, line, problem):
    path = file("\n" + "".join(f"l{label} some words\n" for label in labels))
    if line is None:
        assert read_labelled(path).labels == [f"l{label}" for label in labels]
        return
    with pytest.raises(ValueError) as error:
        read_labelled(path)
    assert str(error.value).startswith(f"{path}:{line}: label 'l{labels[line - 2]}' ")
    assert f"{problem}; the first token of a line is read as its label" in str(error.value)


def test_a_long_token_is_shown_shortened(file):
    with pytest.raises(ValueError) as error:
        read_labelled(file("x" * 100_000), classes=["0"])
    assert len(str(error.value).rpartition("texts.txt")[2]) < 100


@pytest.mark.parametrize("content", ["", "\n", " \r\n\t\n", "\ufeff"])
def test_a_file_without_examples_is_refused(file, content):
    with pytest.raises(ValueError, match="no examples"):
        read_labelled(file(content))


# ---- split ---------------------------------------------------------------------------------------


def labelled(**counts):
    labels = [label for label, n in counts.items() for _ in range(n)]
    return Corpus([f"{label} {i}" for i, label in enumerate(labels)], labels, skipped=3)


@given(st.integers(2, 40), st.integers(2, 40), st.floats(0.001, 0.999), st.integers(0, 5))
def test_split_divides_every_class(a, b, fraction, seed):
    whole = labelled(a=a, b=b)
    left, held = split(whole, fraction, seed)
    assert sorted(left.texts + held.texts) == sorted(whole.texts)
    for part in (left, held):
        assert [text.split()[0] for text in part.texts] == part.labels
        places = [int(text.split()[1]) for text in part.texts]
        assert places == sorted(places)
    for label, n in (("a", a), ("b", b)):
        assert 1 <= held.labels.count(label) < n
        assert abs(held.labels.count(label) - fraction * n) <= 1


def test_split_is_repeatable_random_and_keeps_no_count():
    whole = labelled(a=100, b=60)
    first, again, other = (split(whole, 0.25, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert Counter(first[1].labels) == {"a": 25, "b": 15}
    assert first[0].skipped == first[1].skipped == 0
    assert first[1].texts[:25] != whole.texts[:25]
    backwards = Corpus(whole.texts[::-1], whole.labels[::-1])
    assert Counter(split(backwards, 0.25, 0)[1].labels) == {"a": 25, "b": 15}


def test_split_leaves_the_only_example_of_a_class():
    left, held = split(labelled(a=5, b=1, c=1), 0.5, 0)
    assert Counter(left.labels) == {"a": 3, "b": 1, "c": 1}
    assert Counter(held.labels) == {"a": 2}


@pytest.mark.parametrize("kind", [list, tuple])
def test_split_of_several_labels_leaves_each_of_them(kind):
    rng = np.random.default_rng(0)
    labels = [kind(rng.permutation(6)[: rng.integers(4)].astype(str).tolist()) for _ in range(300)]
    labels += [kind(["0", "1", "2", "3"]), kind(["3", "2", "1", "0"]), kind(["once"])]
    labels += [kind(map(str, range(n))) for n in (5, 6)]
    corpus = Corpus([f"text {i}" for i in range(len(labels))], labels)
    left, held = split(corpus, 0.4, 0)
    assert len(left.texts) + len(held.texts) == len(labels)
    assert 0.3 < len(held.texts) / len(labels) < 0.5
    assert (
        {*itertools.chain(*held.labels)} <= {*itertools.chain(*left.labels)} == {*"012345", "once"}
    )
    of = dict(zip(corpus.texts, labels, strict=True))
    for part in (left, held):
        assert [of[text] for text in part.texts] == part.labels
    sets = Counter(frozenset(label) for label in held.labels)
    assert sets[frozenset("0123")] == 1
    assert split(corpus, 0.4, 0) == (left, held) != split(corpus, 0.4, 1)


def test_split_refuses_what_it_cannot_divide():
    with pytest.raises(ValueError, match="no class has two examples"):
        split(labelled(a=1, b=1), 0.5, 0)
    for fraction in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="fraction: expected a number between 0 and 1"):
            split(labelled(a=5), fraction, 0)


# ---- nltk's corpora ------------------------------------------------------------------------------

POLARITY = {
    "rt-polarity.neg": "simplistic , silly and tedious .\nit 's so laddish .\n\n",
    "rt-polarity.pos": "A  Rock is destined .\n",
}


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """nltk with an empty data folder and sentence_polarity on a server on this machine."""
    nltk = pytest.importorskip("nltk")
    root, data = tmp_path / "mirror", tmp_path / "data"
    root.mkdir()
    (data / "corpora").mkdir(parents=True)
    archive = root / "sentence_polarity.zip"
    write_zip(archive, "sentence_polarity", POLARITY)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=root)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    content = archive.read_bytes()
    (root / "index.xml").write_text(
        '<nltk_data><packages><package id="sentence_polarity" name="Polarity" subdir="corpora" '
        f'size="{len(content)}" unzipped_size="{sum(map(len, POLARITY.values()))}" unzip="1" '
        f'sha256_checksum="{hashlib.sha256(content).hexdigest()}" '
        f'checksum="{hashlib.md5(content).hexdigest()}" url="{url}/{archive.name}"/></packages>'
        "<collections/></nltk_data>"
    )
    downloader = nltk.downloader.Downloader(f"{url}/index.xml", str(data))
    monkeypatch.setattr(nltk, "download", downloader.download)
    monkeypatch.setattr(nltk.data, "path", [str(data)])
    # nltk's own refuses addresses of this machine, and a proxy would not find the server.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    monkeypatch.setattr(nltk.downloader, "urlopen", opener.open)
    # The stream that nltk prints errors to was bound when it was imported.
    printed, function = io.StringIO(), nltk.downloader.Downloader.download
    defaults = tuple(printed if hasattr(d, "write") else d for d in function.__defaults__)
    monkeypatch.setattr(function, "__defaults__", defaults)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def stop():
        server.shutdown()
        server.server_close()
        thread.join()

    yield SimpleNamespace(root=root, archive=archive, corpora=data / "corpora", stop=stop)
    stop()
    for name in corpus.NLTK_CORPORA:
        getattr(nltk.corpus, name)._unload()
    assert printed.getvalue() == ""


def write_zip(path, folder, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{folder}/{name}", text)


def write_folder(path, files):
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)


def test_nltk_corpus_is_downloaded_once(mirror, capsys):
    got = nltk_corpus("sentence_polarity")
    assert got.labels == ["neg", "neg", "pos"]
    assert got.texts == [
        "simplistic , silly and tedious .", "it 's so laddish .", "A Rock is destined .",
    ]  # fmt: skip
    assert got.skipped == 1
    mirror.stop()
    assert nltk_corpus("sentence_polarity") == got
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("zipped", [False, True])
def test_nltk_corpus_reads_what_is_installed(mirror, zipped):
    mirror.stop()
    files = {
        "cats.txt": "ca01 news\ncb01 hobbies\n",
        "ca01": "The/at jury/nn said/vbd\tso/rb ./.\n\nNo/at ./.\n",
        "cb01": "Two/cd words/nns\n",
    }
    if zipped:
        write_zip(mirror.corpora / "brown.zip", "brown", files)
    else:
        write_folder(mirror.corpora / "brown", files)
    assert nltk_corpus("brown") == Corpus(
        ["Two words", "The jury said so .", "No ."], ["hobbies", "news", "news"]
    )


def test_nltk_corpus_divides_texts_into_sentences(mirror):
    write_folder(
        mirror.corpora / "movie_reviews",
        {"neg/cv0.txt": "it is bad . very bad .\nthe end .\n", "pos/cv1.txt": "fine !\n"},
    )
    with pytest.raises(
        ValueError, match="nltk: punkt_tab is not installed and cannot be downloaded"
    ):
        nltk_corpus("movie_reviews")
    tables = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")
    write_folder(
        mirror.corpora.parent / "tokenizers" / "punkt_tab" / "english",
        dict.fromkeys(tables, ""),
    )
    assert nltk_corpus("movie_reviews") == Corpus(
        ["it is bad .", "very bad .", "the end .", "fine !"], ["neg", "neg", "neg", "pos"]
    )


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda mirror: mirror.stop(), "refused"),
        (lambda mirror: mirror.archive.unlink(), "404"),
        (lambda mirror: mirror.archive.write_bytes(b"short"), "size mismatch"),
        (
            lambda mirror: mirror.archive.write_bytes(mirror.archive.read_bytes()[::-1]),
            "Integrity check failed",
        ),
        (lambda mirror: (mirror.root / "index.xml").unlink(), "404"),
        (
            lambda mirror: (mirror.root / "index.xml").write_text("<html>log in<br>"),
            "no element found",
        ),
    ],
    ids=["no network", "no file", "short", "other bytes", "no index", "a page for an index"],
)
def test_failed_download_is_one_line_and_leaves_nothing(mirror, harm, reason):
    harm(mirror)
    with pytest.raises(ValueError) as error:
        nltk_corpus("sentence_polarity")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("nltk: sentence_polarity is not installed and cannot be downloaded (")
    assert message.endswith("python -m nltk.downloader sentence_polarity")
    assert reason in message
    assert not [*mirror.corpora.iterdir()]


@pytest.mark.parametrize("name", ["gutenberg", "reuters", "nonsense", "__name__", ""])
def test_other_names_are_refused_before_any_download(mirror, name):
    mirror.stop()
    with pytest.raises(ValueError, match=f"^nltk:{name}: not a corpus .*, sentence_polarity, "):
        nltk_corpus(name)


def test_named_corpora_have_categories(mirror):
    nltk = sys.modules["nltk"]
    for name in corpus.NLTK_CORPORA:
        reader = vars(getattr(nltk.corpus, name))["_LazyCorpusLoader__reader_cls"]
        assert issubclass(reader, nltk.corpus.reader.CategorizedCorpusReader)


# ---- the embedded grammar ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reviews():
    return make_reviews(10_000, 0)


def test_reviews_are_repeatable():
    """The same words on every machine, whatever NumPy and Python: models are compared on them."""
    got = make_reviews(500, 0)
    assert got == make_reviews(500, 0) != make_reviews(500, 1)
    assert got.texts[0] == "so , what a dull picture , at least for me ."
    joined = "\n".join(map(" ".join, zip(got.labels, got.texts, strict=True)))
    assert hashlib.sha256(joined.encode()).hexdigest()[:16] == "142914553a782bab"


def test_reviews_are_balanced_varied_and_short(reviews):
    assert Counter(reviews.labels) == {"pos": 5000, "neg": 5000}
    assert 50 < reviews.labels[:100].count("pos") + 20 < 90
    lengths = [len(text.split()) for text in reviews.texts]
    assert min(lengths) >= 4
    assert max(lengths) <= 32
    assert 11 < sum(lengths) / len(lengths) < 15
    assert 250 < len({word for text in reviews.texts for word in text.split()}) < 500
    different = set(reviews.texts)
    assert len(different) > 0.98 * 10_000
    assert sum(text in different for text in make_reviews(2000, 1).texts) < 0.04 * 2000


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_any_number_of_reviews(n):
    got = make_reviews(n, 3)
    assert len(got.texts) == len(got.labels) == n
    assert got.labels.count("pos") == (n + 1) // 2


def test_a_negative_number_of_reviews_is_refused():
    with pytest.raises(ValueError, match="n: expected 0 reviews or more, got -1"):
        make_reviews(-1, 0)


def test_reviews_are_well_formed(reviews):
    for text in reviews.texts:
        assert text == " ".join(text.split())
        assert re.fullmatch(r"[a-z',:!. ]+ [.!]", text), text
        assert not re.search(r"\b(a [aeiou]|an [^aeiou])", text), text
        things = re.findall(r"\bthe (\w+)(?= (?:was|were|and|,|made))", text)
        assert len(things) == len(set(things)), text


GOOD = {"good", "great", "charming", "superb", "wonderful", "lovely", "fantastic", "gripping"}
BAD = {"bad", "poor", "dull", "awful", "terrible", "clumsy", "dreadful", "disappointing"}
THING = r"\w+(?: \w+)?"
READINGS = {  # a pattern, and whether the review agrees with the sign of its word
    rf"the {THING} was (\w+)": True,
    rf"the {THING} was (?:not|never|hardly|far from|by no means|not at all) (\w+)": False,
    rf"nobody could call the {THING} (\w+)": False,
    rf"nobody can say that the {THING} was not (\w+)": True,
    rf"although the {THING} was (\w+) , .*": False,
    rf".* , although the {THING} was (\w+)": False,
    rf"the {THING} was (\w+) , but .*": False,
    rf"despite the (\w+) {THING} .*": False,
    rf"if it had not been for the (\w+) {THING} , it would have been .*": True,
    rf"it would have been an? \w+ {THING} without the (\w+) {THING}": True,
    r"it would have been (\w+) if .*": False,
    r"without .* it would have been (\w+)": False,
    r"i expected an? (\w+) .* and got .*": False,
    r"i expected an? .* and got an? (\w+) one": True,
    r".* called it (\w+) , but i do not agree": False,
    rf"it takes more than an? (\w+) {THING} to make .*": False,
    rf"an? \w+ {THING} can not \w+ an? (\w+) {THING}": True,
    rf"the {THING} was no \w+ than the (\w+) {THING}": True,
    rf"the {THING} was (?:far |much |so much |a lot )?\w+ than the (\w+) {THING}": False,
}


def test_labels_are_what_a_reader_says():
    """Reviews without opening and end, read by patterns that know nothing of the grammar."""
    texts, labels, _ = make_reviews(20_000, 7)
    for pattern, agrees in READINGS.items():
        matches = map(re.compile(rf"{pattern} \.").fullmatch, texts)
        read = [(m, label) for m, label in zip(matches, labels, strict=True) if m]
        for match, label in read:
            if match[1] in GOOD | BAD:
                assert label == ("pos" if (match[1] in GOOD) == agrees else "neg"), match[0]
        assert len({label for _, label in read}) == 2


def test_counting_words_goes_only_so_far(reviews):
    """Far better than chance, far worse than what the grammar allows; pairs help."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    accuracy = []
    for n in (1, 2):
        count = text.CountVectorizer(binary=True, ngram_range=(1, n), token_pattern=r"\S+")
        model = linear.LogisticRegression().fit(count.fit_transform(reviews.texts), reviews.labels)
        held_out = make_reviews(2000, 1)
        accuracy.append(model.score(count.transform(held_out.texts), held_out.labels))
    assert 0.75 < accuracy[0] < 0.82
    assert 0.85 < accuracy[1] < 0.92


# ---- real data -----------------------------------------------------------------------------------

REAL = Path(os.environ.get("FASTRNN_DATA", ""))


@pytest.mark.skipif(
    not os.environ.get("FASTRNN_DATA"), reason="FASTRNN_DATA names no folder of real data"
)
def test_real_sentences():
    train, dev = (read_labelled(REAL / "sentiment" / name) for name in ("train.txt", "dev.txt"))
    assert (len(train.texts), len(dev.texts)) == (40_000, 10_000)
    assert set(train.labels) == set(dev.labels) == {"0", "1"}
    assert train.skipped == dev.skipped == 0
    assert train.texts[0] == "i was sadly mistaken ."
    with pytest.raises(ValueError, match=r"unlabelled\.txt:\d+: label .* occurs once, as do "):
        read_labelled(REAL / "sentiment" / "unlabelled.txt")
