"""Labelled texts in the files that people have: what they are taken for, what they hold, and what
is refused rather than read in the wrong way."""

import io
import json
import sys
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from util import call, done

from fastrnn import storage
from fastrnn.text import programs, read_labelled
from fastrnn.text.corpus import read_rows
from fastrnn.text.model import TextModel

GOOD, BAD = "good film , really", 'bad "film", it\'s\n so'


def of_json(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


CARDS = "credit card\tmy card is lost\ncredit report\twrong entry in it\n" * 3
# name, content, options; what it is told to be, labels, texts
READ = {
    "space": (
        "a.txt", "pos good film\nneg\n\n", {}, "space, a label", ["pos", "neg"], ["good film", ""],
    ),
    "space header": (
        "a.txt", "label text\npos a b\nneg c\n", {}, "first row left out", ["pos", "neg"],
        ["a b", "c"],
    ),
    "space tabs": ("a.txt", "pos\ta\tb\nneg\tc\n", {}, "space", ["pos", "neg"], ["a\tb", "c"]),
    "space commas": (
        "a.txt", "pos a , b\nneg c , d\npos e , b\n", {}, "space", ["pos", "neg", "pos"],
        ["a , b", "c , d", "e , b"],
    ),
    "fasttext, labels last": (
        "a.txt", "a b __label__pos\nc __label__neg\n", {}, "fasttext", ["pos", "neg"],
        ["a b", "c"],
    ),
    "fasttext": (
        "a.txt", "__label__pos a b\n__label__neg\tc\n", {}, "fasttext", ["pos", "neg"],
        ["a b", "c"],
    ),
    "tsv two words": (
        "a.txt", CARDS, {}, "tsv, the label in column 1, the text in column 2",
        ["credit card", "credit report"] * 3, ["my card is lost", "wrong entry in it"] * 3,
    ),
    "tsv label last": (
        "a.txt", "good film it was\tpos\nbad film it was\tneg\nso so it was\tneg\n", {},
        "the label in column 2", ["pos", "neg", "neg"],
        ["good film it was", "bad film it was", "so so it was"],
    ),
    "tsv header": (
        "a.tsv",
        'Id\tSentence\tLabel\n1\ta "b\te\n2\tc\td\n3\t"say ""x"""\td\n',
        {}, "the label in column 3, the text in column 2, the first row left out", ["e", "d", "d"],
        ["a \"b", "c", 'say "x"'],
    ),
    "csv": (
        "a.csv", 'text,label\n"bad ""film"", it\'s\n so",neg\n\n"good, x",pos\n', {},
        "csv, the label in column 2", ["neg", "pos"], [BAD, "good, x"],
    ),
    "csv in txt": (
        "a.txt", 'pos,"a, b"\nneg,"c, d"\npos,"c"\n', {}, "csv, the label in column 1",
        ["pos", "neg", "pos"], ["a, b", "c, d", "c"],
    ),
    "csv quoted": (
        "a.txt", '"pos","a, b"\n"neg","c d"\n"pos","c"\n', {}, "csv", ["pos", "neg", "pos"],
        ["a, b", "c d", "c"],
    ),
    "csv semicolon": (
        "a.csv", "sentiment;review\npos;a, b\nneg;c, d, e\n", {}, "csv", ["pos", "neg"],
        ["a, b", "c, d, e"],
    ),
    "csv lines in it": (
        "a.csv", 'label,text\npos,"a\n\nwell, b\npo,c"\nneg,d\n', {}, "csv", ["pos", "neg"],
        ["a\n\nwell, b\npo,c", "d"],
    ),
    "bars": ("a.txt", "pos|a b\nneg|c\n", {}, "csv, the label in", ["pos", "neg"], ["a b", "c"]),
    "csv names": (
        "a.csv", "v1,v2,,\nham,a b,,\nspam,c,,\n", {"label_column": "V1", "text_column": "v2"},
        "first row", ["ham", "spam"], ["a b", "c"],
    ),
    "quora": (
        "a.csv", "qid,question_text,target\n1,a b,0\n2,c,1\n", {}, "the text in column 2",
        ["0", "1"], ["a b", "c"],
    ),
    "phrases": (
        "a.txt", "PhraseId\tSentenceId\tPhrase\tSentiment\n1\t1\ta b\t3\n2\t1\tb\t2\n", {},
        "tsv, the label in column 4, the text in column 3", ["3", "2"], ["a b", "b"],
    ),
    "three bars asked": (
        "a.txt", "pos ||| a\n", {"file_format": "space"}, "", ["pos"], ["||| a"],
    ),
    "csv numbers": (
        "a.csv", "1,x,a b\n2,y,c\n", {"label_column": "2", "text_column": "3"}, "csv", ["x", "y"],
        ["a b", "c"],
    ),
    "csv one name": (
        "a.csv", "mood,words\npos,a b\nneg,c\n", {"label_column": "mood"}, "csv", ["pos", "neg"],
        ["a b", "c"],
    ),
    "csv long": (
        "a.csv", "label,text\npos," + "x " * 200_000 + "\nneg,y\n", {}, "csv", ["pos", "neg"],
        [("x " * 200_000).strip(), "y"],
    ),
    "jsonl": (
        "a.txt", of_json({"text": GOOD, "label": 1}, {"label": True, "text": "b\nc"}), {},
        "jsonl, the label in label, the text in text", ["1", "true"], [GOOD, "b\nc"],
    ),
    "jsonl names": (
        "a.jsonl", of_json({"q": "a", "y": "x y", "z": 0}),
        {"text_column": "q", "label_column": "y"}, "jsonl", ["x y"], ["a"],
    ),
    "asked space": (
        "a.csv", "pos,x good\nneg,y bad\n", {"file_format": "space"}, "", ["pos,x", "neg,y"],
        ["good", "bad"],
    ),
    "asked fasttext": (
        "a.txt", "__label__a x __label__a\n", {"file_format": "fasttext"}, "", ["a"], ["x"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_labelled_files(tmp_path, case):
    name, content, options, told, labels, texts = READ[case]
    path, said = tmp_path / name, []
    path.write_text(content, encoding="utf-8")
    got = read_labelled(path, tell=said.append, **options)
    assert (got.labels, got.texts) == (labels, texts)
    if told:
        (line,) = said
        assert line.startswith(f"{path}: read as ") and told in line and "\n" not in line
    else:
        assert not said


ONE_DOCUMENT = ":1: not jsonl (expected an object a line, got one document; jq -c '.[]' FILE makes"
REFUSED = {
    "some prefixed": (
        "a.txt", "__label__a b\nc d\n", {},
        "1 of the first 2 lines have a __label__; say what it is, --format fasttext or space",
    ),
    "two labels": (
        "a.txt", "__label__a x\n__label__a __label__b y\n", {},
        ":2: expected one label, got 2: 'a', 'b'",
    ),
    "two in json": (
        "a.jsonl", of_json({"text": "x", "label": ["a", "b"]}), {},
        ":1: expected one label, got 2: 'a', 'b'",
    ),
    "no label": ("a.txt", "__label__a x\ny\n", {"file_format": "fasttext"}, ":2: no label"),
    "no label in csv": ("a.csv", "label,text\na,b\n,c\n", {}, ":3: no label"),
    "ragged tabs": ("a.txt", "credit card\ta\tb\ncredit report\tc\n", {}, "--format tsv or space"),
    "ragged commas": ("a.txt", "a,b c\nd,e, f\n", {}, "--format csv or space"),
    "label last": (
        "a.txt", "a fine one,pos\na bad one,neg\nno word,neg\nso it is,pos\n", {},
        "--format csv or space",
    ),
    "header unknown": (
        "a.csv", "v1,v2\nham,a b c\nspam,d e f\nham,g h i\nspam,j k\n", {},
        "the first row, 'v1', 'v2', may be an example, or name the columns",
    ),
    "tsv header unknown": (
        "a.txt", "kind\twords\nham\ta b\nham\tc d\n", {}, "--label-column and --text-column",
    ),
    "header half known": ("a.tsv", "label\twords\na\tb c\nd\te f\n", {}, "may be an example"),
    "columns": (
        "a.csv", "1,x,a b\n2,y,c\n", {},
        "which column of '1', 'x', 'a b' it is has to be said by --text-column",
    ),
    "two texts": ("a.csv", "label,title,review,comment\na,b,c,d\n", {}, "said by --text-column"),
    "no column": (
        "a.csv", "label,text\na,b\n", {"text_column": "body"},
        "--text-column: no 'body' in the first row, 'label', 'text'",
    ),
    "column 3": (
        "a.csv", "label,text\na,b\n", {"text_column": "3"},
        "--text-column: expected 1 to 2, got 3",
    ),
    "no columns": (
        "a.txt", "pos a\nneg b\n", {"text_column": "text"}, "read as space, which has no columns",
    ),
    "not a table": ("a.csv", "pos a\nneg b\n", {}, "or pass another --format"),
    "quote that closes": (
        "a.csv", 'label,text\npos,"a\npos,b\nneg,c"\nneg,d\n', {},
        ":2: a quote that opens here takes in 1 rows",
    ),
    "space header unknown": (
        "a.txt", "kind words\na b\na c d\nb c\nb a\n", {},
        "the first line, 'kind words', may be an example, or name the columns; pass --format space",
    ),
    "json array": ("a.json", '[{"text": "a"}]', {}, ONE_DOCUMENT),
    "json array in txt": ("a.txt", '[{"text": "a"}]', {}, ONE_DOCUMENT),
    "json array in lines": ("a.txt", '[\n {\n  "text": "a"\n }\n]\n', {}, ONE_DOCUMENT),
    "json object in lines": ("a.txt", '{\n "data": [{}]\n}\n', {}, ONE_DOCUMENT),
    "three bars": ("a.txt", "pos|||a\nneg ||| b c\n", {}, "all lines have a |||, which no format"),
    "stray quote": (
        "a.csv", 'label,text\npos,"a\nneg,b\nneg,c\n', {}, ":2: not csv (unexpected end of data)",
    ),
    "ragged csv": (
        "a.csv", "label,text\npos,a, b\n", {}, ":2: expected 2 columns, got 3 (a text in",
    ),
    "ragged tsv": ("a.tsv", "label\ttext\npos\ta\nneg\n", {}, ":3: expected 2 columns, got 1"),
    "not json": (
        "a.jsonl", of_json({"text": "x", "label": "a"}) + "{\n", {}, ":2: not jsonl (Expecting",
    ),
    "no object": ("a.jsonl", "[1]\n", {}, ":1: not jsonl (expected an object, got list)"),
    "deep": ("a.jsonl", "[" * 100_000, {}, ":1: not jsonl ("),
    "no text": (
        "a.jsonl", of_json({"text": "x", "label": "a"}, {"label": "a"}), {},
        ":2: not jsonl (expected a text in 'text', got only label)",
    ),
    "no such key": (
        "a.jsonl", of_json({"q": "x", "label": "a"}), {},
        "which of 'q', 'label' it is has to be said by --text-column",
    ),
    "text a number": (
        "a.jsonl", of_json({"text": 3, "label": "a"}), {},
        ":1: not jsonl (expected a text in 'text', got int)",
    ),
    "label an object": (
        "a.jsonl", of_json({"text": "", "label": {}}), {},
        ":1: not jsonl (expected a label, got an object)",
    ),
    "format": (
        "a.txt", "a b\n", {"file_format": "xml"},
        "format: expected one of auto, space, fasttext, tsv, csv, jsonl, got 'xml'",
    ),
    "empty": ("a.csv", "\n", {}, "no examples"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_misread_is_refused(tmp_path, case):
    name, content, options, message = REFUSED[case]
    path, said = tmp_path / name, []
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        read_labelled(path, tell=said.append, **options)
    assert message in str(caught.value) and not said
    assert str(caught.value).startswith(("format: ", f"{path}:"))


def test_several_labels_are_read_where_they_are_wanted(tmp_path):
    for name, content in (
        ("a.txt", "__label__a __label__b x __label__b y\n__label__c z\n"),
        (
            "a.jsonl",
            of_json({"text": "x y", "label": ["a", "b", "a"]}, {"text": "z", "label": "c"}),
        ),
    ):
        (tmp_path / name).write_text(content)
        got = read_labelled(tmp_path / name, multilabel=True)
        assert got.labels == [("a", "b"), ("c",)]
        assert [text.split() for text in got.texts] == [["x", "y"], ["z"]]


PIECES = [
    "a",
    "b",
    " ",
    " ",
    "\t",
    ",",
    ";",
    "|",
    '"',
    "\n",
    "\n",
    "\n",
    "__label__",
    "label",
    "text",
    "{}",
]
PIECES += ['{"text": "x", "label": "a"}\n', "\ufeff", "\r", "0", "[", "'"]


@example('""', "a.txt", None, None, "auto", [], False)
@given(
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join),
    st.sampled_from(["a.txt", "a.csv", "a.tsv", "a.jsonl"]),
    st.sampled_from([None, "1", "text", "9"]),
    st.sampled_from([None, "2", "label"]),
    st.sampled_from(["auto", "space", "fasttext", "tsv", "csv", "jsonl"]),
    st.sampled_from([[], ["a", "b"]]),
    st.booleans(),
)
def test_any_text_is_read_or_refused(
    tmp_path_factory, content, name, text, label, file_format, classes, labelled
):
    path = tmp_path_factory.mktemp("any") / name
    path.write_text(content, encoding="utf-8", newline="")
    asked = {"text_column": text, "label_column": label, "file_format": file_format}
    with suppress(ValueError):
        rows = [*read_rows(path, classes=classes, labelled=labelled, **asked)[1]]
        numbers = [row.line for row in rows]
        assert numbers == sorted({*numbers}) and {*numbers} <= {*range(1, content.count("\n") + 2)}
    with suppress(ValueError):
        got = read_labelled(path, classes=classes or None, **asked)
        assert len(got.texts) == len(got.labels) > 0 and all(got.labels)


def test_rows_of_a_stream_come_with_their_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('label,text\n\na,"b\nc"\nd,e\n')
    form, rows = read_rows(path)
    assert form.header and [*rows] == [(2, (), ""), (3, ("a",), "b\nc"), (5, ("d",), "e")]


# ---- the command ---------------------------------------------------------------------------------

QUICK = ["--model", "bow", "--epochs", "3"]
EXAMPLES = [("credit card", "my card is lost"), ("credit report", "a wrong entry in it")]


@pytest.fixture
def undrawn(monkeypatch):
    for name in ("plot_curves", "plot_confusion", "plot_reliability"):
        monkeypatch.setattr(programs.plots, name, lambda *args: None)


@pytest.fixture
def trained(capsys, tmp_path, undrawn):
    path = tmp_path / "train.csv"
    path.write_text("v1,v2\n" + "".join(f"{label},{text}\n" for label, text in EXAMPLES * 20))
    columns = ["--label-column", "v1", "--text-column", "v2"]
    done(capsys, "classify", "train", path, *columns, "--out", tmp_path / "run", *QUICK)
    return tmp_path / "run"


def test_a_run_remembers_how_its_files_are_read(capsys, trained):
    assert TextModel.load(trained).classes == ["credit card", "credit report"]
    code, _, err = call(capsys, "classify", "train", "--resume", "--out", trained)
    assert code == 0 and "train.csv: read as csv, the label in column 1" in err
    code, _, err = call(
        capsys, "classify", "train", "--resume", "--out", trained, "--format", "csv"
    )
    assert code == 1 and "a resumed run keeps its settings, file_format among them" in err


def test_evaluate_reads_another_format(capsys, trained, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(of_json(*({"category": label, "text": text} for label, text in EXAMPLES)))
    code, out, err = call(capsys, "classify", "evaluate", trained, path)
    assert code == 0 and "2 examples: accuracy 1.0000" in out
    assert err == f"{path}: read as jsonl, the label in category, the text in text\n"


PREDICTED = {
    "csv": (
        "a.csv", "id,text\n1,card lost\n2,entry in\n", [],
        "read as csv, the text in column 2, the first row left out",
    ),
    "tsv": (
        "a.txt", "credit card\tcard lost\ncredit card\tentry in\n", [],
        "read as tsv, the label in",
    ),
    "fasttext": (
        "a.txt", "__label__entry card lost\n__label__card entry\n", [], "read as fasttext",
    ),
    "jsonl": (
        "a.jsonl", of_json({"text": "card"}, {"text": "entry"}), [], "read as jsonl, the text",
    ),
    "one column": ("a.csv", 'text\n"card, lost"\nentry\n', [], "read as csv, the text in column 1"),
    "lines": ("a.txt", "card , lost\nentry\n", [], ""),
    "asked lines": ("a.csv", "card,lost\nentry\n", ["--format", "lines"], ""),
    "asked": ("a.csv", "entry;card\ncard;entry\n", ["--format", "csv", "--text-column", "2"], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", PREDICTED)
def test_predict_reads_labels_as_labels(capsys, trained, tmp_path, case):
    name, content, options, told = PREDICTED[case]
    (tmp_path / name).write_text(content)
    code, out, err = call(capsys, "classify", "predict", trained, tmp_path / name, *options)
    assert (code, out.splitlines()) == (0, ["credit card", "credit report"])
    assert told in err if told else err == ""


def test_predict_asks_for_the_column_of_an_unknown_table(capsys, trained, tmp_path):
    (tmp_path / "a.csv").write_text("id,words\n1,card lost\n2,entry in\n")
    arguments = ["classify", "predict", trained, tmp_path / "a.csv"]
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (1, "") and "has to be said by --text-column" in err
    out = done(capsys, *arguments, "--text-column", "words")
    assert out.splitlines() == ["credit card", "credit report"]


def test_predict_on_the_file_it_was_trained_with(capsys, tmp_path, undrawn):
    """Its labels are no words: those of the other class."""
    path = tmp_path / "train.txt"
    path.write_text("good bad thing\nbad good thing\n" * 10)
    done(capsys, "classify", "train", path, "--out", tmp_path / "run", *QUICK)
    code, out, err = call(capsys, "classify", "predict", tmp_path / "run", path)
    assert code == 0 and out.split() == ["good", "bad"] * 10
    assert err == f"{path}: read as space, a label and the text\n"
    (tmp_path / "one.txt").write_text("good bad\n")
    code, _, err = call(capsys, "classify", "predict", tmp_path / "run", tmp_path / "one.txt")
    assert code == 1 and "say what it is, --format space or lines" in err


def test_predict_says_what_standard_input_is(capsys, trained, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"__label__x card lost\nentry\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, err = call(capsys, "classify", "predict", trained, "-")
    assert (code, out.splitlines()) == (0, ["credit card", "credit report"])
    assert err == "standard input: read as fasttext\n"


@pytest.mark.parametrize("tokenizer", ["space", "words"])
def test_sentences_without_spaces_are_noticed(capsys, tmp_path, undrawn, tokenizer):
    path, run = tmp_path / "train.txt", tmp_path / "run"
    lines = (
        f"{'好' if i % 2 else '坏'} 这家餐厅的服务真的很{'好' if i % 2 else '坏'}{i}\n"
        for i in range(20)
    )
    path.write_text("".join(lines), encoding="utf-8")
    arguments = ["train", path, "--tokenizer", tokenizer, "--out", run, *QUICK]
    code, _, err = call(capsys, "classify", *arguments)
    assert code == 0 and ("--tokenizer words" in err) == (tokenizer == "space")
    assert tokenizer == "space" or "服" in TextModel.load(run).vocabulary.index


def test_runs_of_versions_without_formats_keep_their_labels(capsys, tmp_path, undrawn):
    """The prefix was a part of them, and run.json said nothing of formats."""
    path = tmp_path / "train.txt"
    path.write_text("__label__a good\n__label__b bad\n" * 10)
    run = tmp_path / "run"
    done(capsys, "classify", "train", path, "--format", "space", "--out", run, *QUICK)
    assert TextModel.load(run).classes == ["__label__a", "__label__b"]
    content = storage.read_json(run / "run.json")
    for name in programs.PLAIN:
        del content["data"][name]
    storage.write_json(run / "run.json", content)
    done(capsys, "classify", "train", "--resume", "--out", run)
    assert "accuracy 1.0000" in done(capsys, "classify", "evaluate", run, path)


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict"])
def test_bad_bytes_are_replaced_where_that_is_asked_for(capsys, tmp_path, undrawn, verb):
    path, run = tmp_path / "train.txt", tmp_path / "run"
    path.write_bytes(b"pos good caf\xe9 \0\nneg bad\n" * 10)
    options = ["--out", run, *QUICK] if verb == "train" else []
    target = [path] if verb == "train" else [run, path]
    if verb != "train":
        done(capsys, "classify", "train", path, "--out", run, *QUICK, "--errors", "replace")
    assert call(capsys, "classify", verb, *target, *options)[0] == 1
    done(capsys, "classify", verb, *target, *options, "--errors", "replace")
    assert "caf\ufffd" in TextModel.load(run).vocabulary.index
