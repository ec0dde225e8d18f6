"""fastrnn classify as scripts use it: outputs, files, exit codes, one-line errors."""

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import util
from PIL import Image

from fastrnn import cli, storage
from fastrnn.cli import classify, progress
from fastrnn.text import grammar, prediction, programs
from fastrnn.text.corpus import Corpus, read_labelled, split
from fastrnn.text.model import TextModel
from fastrnn.text.settings import SETTINGS

QUICK = ["--epochs", "2", "--hidden-dim", "8", "--embedding-dim", "6", "--learning-rate", "0.01"]
FASTRNN = [sys.executable, "-m", "fastrnn.cli"]


def call(capsys, *args):
    """Exit code, stdout, stderr of the command in this process."""
    return util.call(capsys, "classify", *args)


def done(capsys, *args):
    """The output of a command that has to succeed."""
    return util.done(capsys, "classify", *args)


def write(path, corpus):
    lines = map("{} {}\n".format, corpus.labels, corpus.texts)
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Labelled files of 120 and 40 reviews."""
    folder = tmp_path_factory.mktemp("reviews")
    train, dev = split(grammar.make_reviews(160, seed=1), 0.25, seed=0)
    return write(folder / "train.txt", train), write(folder / "dev.txt", dev)


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train, dev = map(str, files)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["classify", "train", train, "--dev", dev, "--out", str(folder), *QUICK])
    assert exit_.value.code in (0, None)
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without pictures, which take most of a small run's time."""
    for name in ("plot_curves", "plot_confusion", "plot_reliability"):
        monkeypatch.setattr(programs.plots, name, lambda *args: None)


@pytest.fixture
def small_reviews(monkeypatch):
    monkeypatch.setattr(programs, "REVIEWS", {"train": 100, "dev": 30})


def assert_drawn(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("L"))
    assert (pixels < 128).mean() > 0.005


def assert_same_model(one, other):
    one, other = TextModel.load(one), TextModel.load(other)
    assert one.vocabulary.words == other.vocabulary.words
    for network, twin in zip(one.networks, other.networks, strict=True):
        for name, w in network.params.items():
            np.testing.assert_array_equal(twin.params[name], w)


# ---- train ---------------------------------------------------------------------------------------


def test_train_writes_what_it_promises(trained, files):
    names = {path.name.partition("-")[0] for path in trained.iterdir()}
    pictures = {"curves.png", "confusion.png", "reliability.png"}
    others = {"run.json", "classifier.json", "classifier", "metrics.json", "0"}
    assert names == others | pictures | {"report.json", "report.html"}
    for name in pictures:
        assert_drawn(trained / name)
    content = storage.read_json(trained / "run.json")
    assert content["format"] == 1
    assert content["settings"].keys() == SETTINGS.keys()
    assert content["settings"]["hidden_dim"] == 8
    assert (
        content["settings"]["batch_size"] < SETTINGS["batch_size"].default
    )  # of few sentences fewer
    assert [content["data"][name] for name in ("train", "dev")] == [*map(str, files)]
    metrics = storage.read_json(trained / "metrics.json")
    assert metrics.keys() == {"training", "dev"}
    figures = {"epochs", "seconds", "sentences_per_second", "model_bytes"}
    assert metrics["training"].keys() == figures
    files_of_model = [*trained.glob("classifier*")]
    assert len(files_of_model) == 2
    size = sum(path.stat().st_size for path in files_of_model)
    assert metrics["training"]["model_bytes"] == size
    assert metrics["training"]["epochs"] == 2
    corpus = read_labelled(files[1])
    model = TextModel.load(trained)
    said = [model.classes[i] for i in model.predict_proba(corpus.texts).argmax(axis=1)]
    assert metrics["dev"]["accuracy"] == np.mean([*map(str.__eq__, said, corpus.labels)])


def test_train_says_what_it_trains_and_what_came_of_it(capsys, files, tmp_path, undrawn):
    train, dev = tmp_path / "train.txt", tmp_path / "dev.txt"
    train.write_text("\n" + files[0].read_text() + " \n")
    dev.write_text(files[1].read_text() + "\n")
    out = done(capsys, "train", train, "--dev", dev, "--out", tmp_path / "run", *QUICK)
    summary, head, *_, last = out.splitlines()
    model = TextModel.load(tmp_path / "run")
    parameters = sum(w.size for w in model.networks[0].params.values())
    words = len(set(" ".join(read_labelled(train).texts).split()))
    assert summary == (
        f"{tmp_path / 'run'}: lstm, {parameters:,} parameters, 120 sentences, 40 to validate, "
        f"{words} words, 2 classes, 3 blank lines left out"
    )
    assert head.split() == ["precision", "recall", "f1", "support", "class"]
    assert last.startswith(f"{tmp_path / 'run'}: done in ")


def test_train_without_data_makes_reviews(capsys, tmp_path, monkeypatch, small_reviews):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        out = done(capsys, "train", "--seed", 3, *QUICK)
        assert f"classify-{number}: lstm" in out
        assert "100 sentences, 30 held out to validate" in out
    folder = tmp_path / "runs/classify-1"
    train, dev = (read_labelled(folder / f"data/{name}.txt") for name in ("train", "dev"))
    expected = split(grammar.make_reviews(130, seed=3), 30 / 130, seed=3)
    assert [(c.texts, c.labels) for c in (train, dev)] == [(c.texts, c.labels) for c in expected]
    before = storage.read_json(folder / "metrics.json")
    bow = before["training"]["bow_dev_accuracy"]
    assert f"lstm {before['dev']['accuracy']:.4f}, a bag of words" in out
    assert f", {bow:.4f}\n" in out
    done(capsys, "evaluate", folder, folder / "data/dev.txt")
    assert storage.read_json(folder / "metrics.json") == before
    done(capsys, "train", "--seed", 3, "--model", "bow", "--out", "bow")
    metrics = storage.read_json(tmp_path / "bow/metrics.json")
    assert metrics["dev"]["accuracy"] == bow
    assert "bow_dev_accuracy" not in metrics["training"]


def test_the_order_of_the_words_matters_in_the_reviews(capsys, tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr(programs, "REVIEWS", {"train": 3000, "dev": 500})
    settings = ["--model", "gru", "--hidden-dim", 32, "--embedding-dim", 32, "--epochs", 5]
    done(capsys, "train", "--learning-rate", 5e-3, "--out", tmp_path / "run", *settings)
    metrics = storage.read_json(tmp_path / "run/metrics.json")
    assert metrics["dev"]["accuracy"] > metrics["training"]["bow_dev_accuracy"] + 0.1


def test_train_holds_a_tenth_of_every_class_out(capsys, tmp_path, files, undrawn):
    out = done(capsys, "train", files[0], "--out", tmp_path / "run", *QUICK)
    assert "108 sentences, 12 held out to validate" in out
    report = storage.read_json(tmp_path / "run/metrics.json")["dev"]
    assert [figures["support"] for figures in report["per_class"].values()] == [6, 6]


def test_train_repeats_by_seed(capsys, tmp_path, files, undrawn):
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        done(capsys, "train", files[0], "--out", tmp_path / name, "--seed", seed, *QUICK)
    assert_same_model(tmp_path / "one", tmp_path / "two")
    with pytest.raises(AssertionError):
        assert_same_model(tmp_path / "one", tmp_path / "other")


def test_train_on_a_corpus_of_nltk(capsys, tmp_path, monkeypatch, undrawn):
    corpus = grammar.make_reviews(60, seed=2)._replace(skipped=4)
    monkeypatch.setattr(programs, "nltk_corpus", {"sentence_polarity": corpus}.__getitem__)
    out, again = tmp_path / "run", tmp_path / "again"
    said = done(capsys, "train", "--corpus", "nltk:sentence_polarity", "--out", out, *QUICK)
    assert "54 sentences, 6 held out to validate" in said
    assert "4 blank lines left out" in said
    data = out / "data"
    arguments = [data / "train.txt", "--dev", data / "dev.txt", "--out", again]
    done(capsys, "train", *arguments, *QUICK)
    assert_same_model(out, again)
    monkeypatch.setattr(programs, "nltk_corpus", None)
    done(capsys, "train", "--resume", "--out", out)


def test_options_reach_the_settings(capsys, tmp_path, files, undrawn):
    given = {
        "model": "gru", "tokenizer": "words", "ngrams": 1, "min_count": 2, "embedding_dim": 5,
        "hidden_dim": 4, "bidirectional": True, "pooling": "last+max", "dropout": 0.25,
        "embedding_dropout": 0.125, "word_dropout": 0.0625, "weight_decay": 0.01,
        "zoneout": 0.1, "recurrent_dropout": 0.2,
        "learning_rate": 0.002, "lr_decay": 0.75, "update_rule": "rmsprop", "clip_norm": 2.0,
        "max_words": 50, "metric": "macro-f1", "calibrate": True, "quantize": "int8",
        "epochs": 1, "pretrain_epochs": 3, "batch_size": 16, "patience": 7, "ensemble": 2,
        "backend": "numpy", "seed": 9,
    }  # fmt: skip
    arguments = []
    for name, value in given.items():
        arguments += ["--" + name.replace("_", "-"), *([] if value is True else [value])]
    arguments += ["--class-weight", "neg=2", "--class-weight", "pos=0.5", "--no-freeze"]
    done(capsys, "train", files[0], "--out", tmp_path / "run", *arguments)
    settings = storage.read_json(tmp_path / "run/run.json")["settings"]
    weights = {"class_weight": {"neg": 2.0, "pos": 0.5}, "freeze": False, "embeddings": None}
    unsettable = {name: SETTINGS[name].default for name in ("dtype", "embedding_scale")}
    assert settings == given | weights | unsettable
    options = {parameter.name for parameter in classify.command.commands["train"].params}
    assert SETTINGS.keys() - options == unsettable.keys()


@pytest.mark.parametrize("model", ["bow", "avg", "rnn", "lstm", "gru", "min_gru", "ind_rnn"])
def test_every_model_trains_draws_and_predicts(capsys, tmp_path, files, model):
    out = tmp_path / "run"
    done(capsys, "train", files[0], "--model", model, "--class-weight", "balanced",
         "--ensemble", 2, "--out", out, *QUICK)  # fmt: skip
    for name in ("curves.png", "curves-1.png", "confusion.png", "reliability.png"):
        assert_drawn(out / name)
    (tmp_path / "new.txt").write_bytes(b"a good film\r\n\r\n \nunheard of")
    rows = done(capsys, "predict", out, tmp_path / "new.txt", "--proba").splitlines()
    assert len(rows) == 1 + 4
    assert rows[2].split("\t") == rows[3].split("\t")  # neither has words
    for label, *p in (row.split("\t") for row in rows[1:]):
        assert label == ("neg", "pos")[np.argmax([*map(float, p)])]


def test_what_was_done_to_the_model_is_said_and_kept(capsys, tmp_path, files, undrawn):
    run, text = tmp_path / "run", "a film not good " * 3
    train = tmp_path / "train.txt"
    train.write_text(files[0].read_text() + f"neg {text}\npos {text}\n")
    out = done(capsys, "train", train, "--dev", files[1], "--out", run, "--max-words", 11,
               "--calibrate", "--quantize", "int8", *QUICK)  # fmt: skip
    lengths = [len(line.split()) - 1 for line in train.read_text().splitlines()]
    cut = sum(length > 11 for length in lengths)
    assert f", {cut} cut to 11 words" in out.splitlines()[0]
    metrics, model = storage.read_json(run / "metrics.json"), TextModel.load(run)
    calibration, quantization = metrics["calibration"], metrics["quantization"]
    assert calibration["temperature"] == model.temperature != 1
    assert calibration["ece_after"] == pytest.approx(metrics["dev"]["ece"])
    assert quantization["accuracy_after"] == metrics["dev"]["accuracy"]
    assert quantization["bytes_after"] < quantization["bytes_before"]
    assert "temperature {temperature:.3f}: ECE {ece_before:.4f}, now".format_map(calibration) in out
    assert f"int8: accuracy {quantization['accuracy_before']:.4f}, now " in out
    assert f"the model's files: {metrics['training']['model_bytes'] / 1000:.1f} kB" in out


def test_a_long_tail_of_classes_is_learnt(capsys, tmp_path, undrawn):
    """With a class of one example, which is not held out."""
    lines = [f"common-{i % 4} word{i % 4} a b\n" for i in range(200)]
    train = tmp_path / "train.txt"
    train.write_text("".join([*lines, "rare once seen\n"]))
    done(
        capsys, "train", train, "--model", "bow", "--metric", "macro-f1", "--out", tmp_path / "run"
    )
    metrics = storage.read_json(tmp_path / "run/metrics.json")
    assert metrics["dev"]["per_class"]["rare"]["support"] == 0
    assert TextModel.load(tmp_path / "run").classes[-1] == "rare"


def test_embeddings_are_reported(capsys, tmp_path, files, undrawn, monkeypatch):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("the 1 2 3\nwas 4 5 6\nzzz 7 8 9\na 1 2\n")
    monkeypatch.chdir(tmp_path)
    arguments = ["train", files[0], "--embeddings", "vectors.txt", "--freeze", "--out", "run"]
    out = done(capsys, *arguments, *QUICK)
    words = len(TextModel.load(tmp_path / "run").vocabulary) - 1
    assert f"embeddings: 2 of {words:,} words in 4 rows; left out: 1 too few values (line 4" in out
    report = storage.read_json(tmp_path / "run/metrics.json")["embeddings"]
    assert report == {
        "rows": 4, "wanted": words, "found": 2, "announced": None,
        "problems": {"too few values": 1},
    }  # fmt: skip
    settings = storage.read_json(tmp_path / "run/run.json")["settings"]
    assert settings["embeddings"] == str(vectors)
    assert settings["embedding_dim"] == 3


def test_embeddings_of_an_archive_are_chosen(capsys, tmp_path, files, undrawn):
    with zipfile.ZipFile(tmp_path / "glove.zip", "w") as archive:
        archive.writestr("glove.2d.txt", "the 1 2\nwas 3 4\n")
        archive.writestr("glove.3d.txt", "the 1 2 3\nwas 3 4 5\n")
    arguments = ["train", files[0], "--embeddings", tmp_path / "glove.zip", *QUICK, "--out"]
    code, _, err = call(capsys, *arguments, tmp_path / "no")
    assert code == 1 and "expected one text file in it, got glove.2d.txt, glove.3d.txt" in err
    member = ["--embeddings-member", "glove.3d.txt"]
    assert "2 of" in done(capsys, *arguments, tmp_path / "run", *member)
    settings = storage.read_json(tmp_path / "run/run.json")["settings"]
    assert settings["embeddings"] == str(tmp_path / "glove.zip/glove.3d.txt")
    assert settings["embedding_dim"] == 3
    done(capsys, "train", "--resume", "--out", tmp_path / "run")
    assert call(capsys, "train", files[0], "--out", tmp_path / "no", *member)[0] == 2


# ---- resume --------------------------------------------------------------------------------------


def interrupt_at(monkeypatch, n):
    """As if Ctrl-C were pressed during iteration n, counted over all networks."""
    seen = []

    def on_iteration(self, solver):
        seen.append(solver)
        if len(seen) == n:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress.TrainingBar, "__call__", on_iteration)


def test_dev_texts_that_are_also_trained_on_are_counted(capsys, tmp_path, files, undrawn):
    train, dev = files[0], tmp_path / "dev.txt"
    lines = train.read_text().splitlines(keepends=True)
    dev.write_text("".join([*lines[:3], lines[3].replace(" ", " perhaps ", 1)]))
    arguments = ["train", train, "--dev", dev, "--out", tmp_path / "run", *QUICK]
    _, _, err = call(capsys, *arguments)
    assert f"; 3 of 4 texts of {dev} are also trained on\n" in err


@pytest.mark.parametrize("iteration", [1, 6, 9, 20])
def test_interrupted_training_resumes_to_the_same_model(
    capsys, tmp_path, monkeypatch, files, undrawn, iteration
):
    """Two networks of twelve iterations each."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = [*QUICK, "--batch-size", "20", "--ensemble", "2", "--patience", "0"]
    arguments = ["train", files[0], "--dev", files[1], *settings, "--out"]
    done(capsys, *arguments, whole)
    with monkeypatch.context() as patch:
        interrupt_at(patch, iteration)
        code, _, err = call(capsys, *arguments, cut)
    assert code == 130
    assert err.split("\n") == [
        "; ".join(f"{path}: read as space, a label and the text" for path in files),
        f"resume with: fastrnn classify train --resume --out {cut}",
        "",  # click's, behind ^C
        "fastrnn: interrupted",
        "",
    ]
    assert call(capsys, "evaluate", cut, files[1])[0] == 1  # not trained to the end
    done(capsys, "train", "--resume", "--out", cut)
    assert_same_model(whole, cut)
    for figure in ("accuracy", "log_loss"):
        one, other = (storage.read_json(f / "metrics.json")["dev"][figure] for f in (whole, cut))
        assert one == other


def test_pretraining_is_part_of_a_run(capsys, tmp_path, monkeypatch, files, undrawn):
    """Twelve iterations are the language model's."""
    texts = tmp_path / "new.csv"
    texts.write_text("id,text\n" + "".join(f"{i},so fine a film {i}\n" for i in range(70)))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ["train", files[0], *QUICK, "--unlabelled", texts, "--pretrain-epochs", "4"]
    out = done(capsys, *arguments, "--out", whole)
    assert "70 without labels" in out
    figures = storage.read_json(whole / "metrics.json")["training"]["pretraining"]
    assert figures["epochs"] == 4 and figures["train_loss"] > 0
    for iteration in (5, 14):
        interrupt_at(monkeypatch, iteration)
        run = ["train", "--resume"] if cut.exists() else arguments
        assert call(capsys, *run, "--out", cut)[0] == 130
    monkeypatch.undo()
    done(capsys, "train", "--resume", "--out", cut)
    assert_same_model(whole, cut)
    texts.write_text("id,text\n1,so\n")
    code, _, err = call(capsys, "train", "--resume", "--out", cut)
    assert code == 1
    assert f"{texts} is not what it was trained with" in err
    code, _, err = call(capsys, *arguments[:-4], "--unlabelled", tmp_path / "no.txt")
    assert (code, "no.txt: No such file" in err) == (1, True)


def test_resume_trains_longer(capsys, tmp_path, files, undrawn):
    long, short = tmp_path / "long", tmp_path / "short"
    done(capsys, "train", files[0], "--out", long, *QUICK, "--epochs", "4")
    done(capsys, "train", files[0], "--out", short, *QUICK)
    done(capsys, "train", "--resume", "--out", short, "--epochs", "4", "--patience", "9")
    assert_same_model(long, short)
    assert storage.read_json(short / "run.json")["settings"]["epochs"] == 4
    assert storage.read_json(short / "metrics.json")["training"]["epochs"] == 4


def test_run_moves_with_its_data_and_resumes_without_a_checkpoint(
    capsys, tmp_path, small_reviews, undrawn
):
    """As after a kill before the first checkpoint."""
    old, new = tmp_path / "old", tmp_path / "new"
    done(capsys, "train", "--out", old, *QUICK)
    shutil.copytree(old, new)
    shutil.rmtree(new / "0")
    (new / "classifier.json").unlink()
    done(capsys, "train", "--resume", "--out", new)
    assert_same_model(old, new)


@pytest.mark.parametrize(
    "given",
    [["--learning-rate", "1e-9"], ["--seed", "5"], ["--dev", "dev.txt"], ["--encoding", "ascii"],
     ["--no-bidirectional"], ["train.txt"]],
)  # fmt: skip
def test_resume_refuses_to_become_another_run(capsys, trained, given):
    before = (trained / "run.json").read_text()
    code, _, err = call(capsys, "train", "--resume", "--out", trained, *given)
    assert code == 1
    name = given[0].removeprefix("--no-").strip("-").removesuffix(".txt").replace("-", "_")
    assert f"a resumed run keeps its settings, {name} among them" in err
    assert (trained / "run.json").read_text() == before


def test_resume_refuses_data_that_have_changed(capsys, tmp_path, monkeypatch, files, undrawn):
    train = tmp_path / "train.txt"
    shutil.copy(files[0], train)
    monkeypatch.chdir(tmp_path)
    done(capsys, "train", "train.txt", "--out", "run", *QUICK)
    done(capsys, "train", "--resume", "--out", "run")
    first, *others = train.read_text().splitlines(keepends=True)
    for text, message in (
        ("".join([*others, first]), f"{train} is not what it was trained with"),
        (None, f"{train}: No such file"),
    ):
        if text is None:
            train.unlink()
        else:
            train.write_text(text)
        code, _, err = call(capsys, "train", "--resume", "--out", tmp_path / "run")
        assert code == 1
        assert message in err


def test_resume_refuses_what_is_no_run(capsys, tmp_path, trained):
    code, _, err = call(capsys, "train", "--resume", "--out", tmp_path)
    assert code == 1
    assert "not a run of classify train (no run.json)" in err
    content = storage.read_json(trained / "run.json")
    (tmp_path / "run.json").write_text(json.dumps(content | {"format": 99}))
    code, _, err = call(capsys, "train", "--resume", "--out", tmp_path)
    assert code == 1
    assert "expected format 1, got 99" in err


def test_train_does_not_overwrite_a_run(capsys, trained, files):
    before = {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    code, _, err = call(capsys, "train", files[0], "--out", trained, *QUICK)
    assert code == 1
    assert "has a run already" in err
    assert before == {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}


# ---- evaluate ------------------------------------------------------------------------------------


def test_evaluate_prints_draws_and_adds_to_metrics(capsys, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = storage.read_json(run / "metrics.json")
    pictures = {name: (run / name).read_bytes() for name in ("confusion.png", "reliability.png")}
    test = write(tmp_path / "test.txt", Corpus(["good film .", "", "bad"], ["pos", "neg", "neg"]))
    table = done(capsys, "evaluate", run, test)
    assert "3 examples: accuracy" in table
    assert done(capsys, "evaluate", run, test, "--name", "again") == table
    metrics = storage.read_json(run / "metrics.json")
    assert metrics == before | dict.fromkeys(("test", "again"), metrics["test"])
    assert metrics["test"]["examples"] == 3
    for kind in ("confusion", "reliability"):
        assert_drawn(run / f"{kind}-test.png")
        assert_drawn(run / f"{kind}-again.png")
        assert (run / f"{kind}.png").read_bytes() == pictures[f"{kind}.png"]


def test_evaluate_draws_what_is_called_dev_as_train_does(capsys, trained, files, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for path in [*run.glob("*.png"), run / "metrics.json"]:
        path.unlink()
    done(capsys, "evaluate", run, files[1])
    report = storage.read_json(trained / "metrics.json")["dev"]
    assert storage.read_json(run / "metrics.json") == {"dev": report}
    for name in ("confusion.png", "reliability.png"):
        assert (run / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.parametrize(
    ("file", "name"),
    [("dev.txt", "dev.txt"), ("dev", "dev-2"), ("training.txt", "training.txt"),
     ("embeddings.csv", "embeddings.csv"), ("train.txt", "train")],
)  # fmt: skip
def test_evaluate_replaces_no_figures_of_train(capsys, tmp_path, files, file, name):
    """Neither those of what was held out nor others; whoever wants another name gives one."""
    run, test = tmp_path / "run", tmp_path / file
    done(capsys, "train", files[0], "--out", run, *QUICK)
    before = storage.read_json(run / "metrics.json")
    pictures = {path: path.read_bytes() for path in run.glob("*.png")}
    shutil.copy(files[1], test)
    for _ in range(2):
        done(capsys, "evaluate", run, test, "--format", "space")
        metrics = storage.read_json(run / "metrics.json")
        assert metrics == before | {name: metrics[name]}
        assert metrics[name]["examples"] == 40
    assert {path: path.read_bytes() for path in pictures} == pictures
    assert_drawn(run / f"confusion-{name}.png")
    code, _, err = call(capsys, "evaluate", run, test, "--name", "dev")
    assert code == 1 and "'dev' is what train validated on; choose another with --name" in err


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("pos fine\n\nbad film\n", [], "test.txt:3: label 'bad' is not one of neg, pos"),
        ("\n", [], "test.txt: no examples"),
        ("pos caf\xe9\n", [], "test.txt:1: not utf-8 (byte 0xe9 at column 8)"),
        ("pos fine\n", ["--name", "training"], "name: expected one for a file, and not training"),
        ("pos fine\n", ["--name", "a/b"], "got 'a/b'"),
        ("pos fine\n", ["--name", ""], "got ''"),
    ],
)
def test_evaluate_refuses(capsys, trained, tmp_path, text, options, message):
    before = {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    (tmp_path / "test.txt").write_text(text, encoding="latin-1")
    code, out, err = call(capsys, "evaluate", trained, tmp_path / "test.txt", *options)
    assert (code, out) == (1, "")
    assert message in err
    assert before == {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}


# ---- predict -------------------------------------------------------------------------------------

LINES = ["i loved the film .", "", " ", "unheard of", "the soup was not good", "bad \v dinner", "?"]


def expected_rows(folder, proba=False):
    model = TextModel.load(folder)
    rows = []
    for line in LINES:
        (p,) = model.predict_proba([line]).tolist()
        label = model.classes[int(np.argmax(p))]
        rows.append("\t".join([label, *map("{:.6g}".format, p)]) if proba else label)
    return rows


@pytest.mark.parametrize("chunk", [0, 1, 30, prediction.CHUNK])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
def test_predict_keeps_order_and_count(capsys, trained, tmp_path, monkeypatch, chunk, end, last):
    monkeypatch.setattr(prediction, "CHUNK", chunk)
    path = tmp_path / "new.txt"
    path.write_bytes((end.join(LINES) + end * bool(last)).encode())
    code, out, err = call(capsys, "predict", trained, path)
    assert (code, err) == (0, "")
    assert out.endswith("\n")
    assert out.splitlines() == expected_rows(trained)


def test_predict_gives_probabilities_in_the_order_it_says(capsys, trained, tmp_path):
    path, out = tmp_path / "new.txt", tmp_path / "labels.tsv"
    path.write_text("\n".join(LINES))
    code, said, err = call(capsys, "predict", trained, path, "--proba", "--out", out)
    assert (code, said, err) == (0, "", "")
    head, *rows = (row.split("\t") for row in out.read_text().splitlines())
    assert head == ["label", "p(neg)", "p(pos)"]
    expected = [row.split("\t") for row in expected_rows(trained, proba=True)]
    assert [row[0] for row in rows] == [row[0] for row in expected]
    for row, like in zip(rows, expected, strict=True):
        p = [*map(float, row[1:])]
        assert p == pytest.approx([*map(float, like[1:])], abs=2e-6)
        assert sum(p) == pytest.approx(1, abs=2e-6)
    assert {path.name for path in tmp_path.iterdir()} == {"new.txt", "labels.tsv"}


def test_predict_names_the_likeliest(capsys, trained, tmp_path):
    path = tmp_path / "new.txt"
    path.write_text("a good film\nnot good\n\n")
    proba = TextModel.load(trained).predict_proba(["a good film", "not good", ""])
    names, order = np.array(["neg", "pos"]), np.argsort(-proba, axis=1)
    for top in (1, 2, 9):
        rows = done(capsys, "predict", trained, path, "--top", top).splitlines()
        for row, best, p in zip(rows, order[:, :top], proba, strict=True):
            cells = row.split("\t")
            assert cells[::2] == names[best].tolist()
            np.testing.assert_allclose([*map(float, cells[1::2])], p[best], rtol=1e-5)
    largest = float(np.sort(proba.max(axis=1))[1])
    rows = done(capsys, "predict", trained, path, "--threshold", largest).splitlines()
    sure = proba.max(axis=1) >= largest
    assert [row != "" for row in rows] == sure.tolist() and 0 < sure.sum() < 3
    rows = done(capsys, "predict", trained, path, "--threshold", 0.7, "--top", 2).splitlines()
    assert [len(row.split("\t")) // 2 for row in rows] == (proba >= 0.7).sum(axis=1).tolist()


# ---- several labels a text -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """A run on a file of fastText's whose texts have up to three labels, and its dev set."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("tags")
    for name, n in (("train", 300), ("dev", 60)):
        lines = []
        for _ in range(n):
            tags = rng.permutation(4)[: rng.integers(1, 4)]
            words = rng.permutation([f"word-{tag}" for tag in tags] + ["a", "b"])
            lines.append(" ".join([*(f"__label__tag-{tag}" for tag in tags), *words]))
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    args = [folder / "train.txt", "--dev", folder / "dev.txt", "--out", folder / "run"]
    args += ["--model", "bow", "--metric", "micro-f1", "--batch-size", 16, "--epochs", 8]
    with pytest.raises(SystemExit) as exit_:
        cli.main(["classify", "train", *map(str, args)])
    assert exit_.value.code in (0, None)
    return folder


TAGS = [f"tag-{i}" for i in range(4)]


def test_several_labels_are_trained_and_judged(capsys, tagged):
    metrics = storage.read_json(tagged / "run/metrics.json")["dev"]
    assert metrics["micro_f1"] > 0.95 and metrics["accuracy"] > 0.8
    assert [*metrics["per_class"]] == TAGS
    assert not (tagged / "run/confusion.png").exists()
    assert_drawn(tagged / "run/reliability.png")
    out = done(capsys, "evaluate", tagged / "run", tagged / "dev.txt", "--name", "again")
    assert f"all labels right {metrics['accuracy']:.4f}, micro F1 {metrics['micro_f1']:.4f}" in out
    assert storage.read_json(tagged / "run/metrics.json")["again"] == metrics
    model = TextModel.load(tagged / "run")
    thresholds = [row["threshold"] for row in metrics["per_class"].values()]
    assert thresholds == model.thresholds.tolist()


def test_several_labels_are_predicted(capsys, tagged, tmp_path):
    path = tmp_path / "new.txt"
    path.write_text("word-2 a word-0\nb word-3\na\n")
    run = tagged / "run"
    assert done(capsys, "predict", run, path).splitlines() == ["tag-0|tag-2", "tag-3", ""]
    assert done(capsys, "predict", run, path, "--threshold", 1).splitlines() == [""] * 3
    everything = done(capsys, "predict", run, path, "--threshold", 0).splitlines()
    assert everything == ["|".join(TAGS)] * 3
    best = done(capsys, "predict", run, path, "--top", 2).splitlines()[0].split("\t")
    assert {*best[::2]} == {"tag-0", "tag-2"} and min(map(float, best[1::2])) > 0.5
    head, *rows = done(capsys, "predict", run, path, "--proba").splitlines()
    assert head.split("\t") == ["label", *(f"p({tag})" for tag in TAGS)]
    proba = TextModel.load(run).predict_proba(path.read_text().splitlines())
    shown = [[float(p) for p in row.split("\t")[1:]] for row in rows]
    np.testing.assert_allclose(shown, proba, rtol=1e-5)


def test_several_labels_are_explained(capsys, tagged, tmp_path):
    path = tmp_path / "new.txt"
    path.write_text("word-2 a word-0\n")
    out = done(capsys, "explain", tagged / "run", path, "--label", "tag-2", "--top", 1)
    assert out.splitlines()[1].split()[1] == "word-2"
    done(capsys, "explain", tagged / "run", "--count", 3)


def test_several_labels_are_held_out_and_resumed(capsys, tagged, tmp_path, undrawn):
    run, quick = tmp_path / "run", ["--model", "bow", "--epochs", 1]
    out = done(capsys, "train", tagged / "train.txt", "--out", run, *quick)
    assert "held out to validate" in out and "4 labels, several a text" in out
    done(capsys, "train", "--resume", "--out", run, "--epochs", 2)
    epochs = storage.read_json(run / "metrics.json")["training"]["epochs"]
    assert epochs == 2


def test_one_label_is_expected_where_it_was_trained_with_one(capsys, trained, tagged, tmp_path):
    code, _, err = call(capsys, "evaluate", trained, tagged / "dev.txt", "--name", "tags")
    assert code == 1 and "expected one label, got" in err


@pytest.mark.parametrize("several", [False, True])
def test_labels_that_a_run_has_not_are_always_wrong(capsys, trained, tagged, tmp_path, several):
    path, run = tmp_path / "test.txt", tagged / "run" if several else trained
    head = "__label__tag-1 __label__other word-1\n" if several else "nice film\n"
    path.write_text(head * 2 + ("__label__tag-1 word-1\n" if several else "pos good\n"))
    code, _, err = call(capsys, "evaluate", run, path)
    assert code == 1 and "--unseen takes others as wrong" in err
    done(capsys, "evaluate", run, path, "--unseen", "--name", "others")
    figures = storage.read_json(run / "metrics.json")["others"]
    unseen = figures["per_class"]["other" if several else "nice"]
    assert (unseen["recall"], unseen["support"]) == (0, 2)
    assert figures["accuracy"] <= 1 / 3
    assert figures["examples"] == 3


@pytest.mark.parametrize("several", [False, True])
def test_labels_of_dev_that_training_has_not(capsys, files, tagged, tmp_path, undrawn, several):
    train, dev = tagged / "train.txt" if several else files[0], tmp_path / "dev.txt"
    line = "__label__tag-1 __label__other word-1" if several else "nice film"
    own = (tagged / "dev.txt" if several else files[1]).read_text()
    dev.write_text(f"{own}{line}\n")
    args, run = ["train", train, "--dev", dev, "--model", "bow", "--epochs", 1], tmp_path / "run"
    code, _, err = call(capsys, *args, "--out", run)
    assert code == 1 and "--unseen takes others" in err
    done(capsys, *args, "--out", run, "--unseen")
    figures = storage.read_json(run / "metrics.json")["dev"]
    unseen = figures["per_class"]["other" if several else "nice"]
    assert (unseen["recall"], unseen["support"]) == (0, 1)
    assert figures["examples"] == len(own.splitlines()) + 1
    done(capsys, "train", "--resume", "--out", run, "--epochs", 2)


def test_labels_that_seem_none_are_taken_with_a_format(capsys, tmp_path, undrawn):
    """Over 1,000 of them, or most of them with one example."""
    quick = ["--model", "bow", "--epochs", 1]
    for name, labels in (
        ("many", [f"l{i}" for i in range(1100) for _ in "ab"]),
        ("tail", ["common"] * 30 + [f"rare{i}" for i in range(40)]),
    ):
        path = tmp_path / f"{name}.txt"
        path.write_text("".join(f"{label} word-{label} a\n" for label in labels))
        code, _, err = call(capsys, "train", path, "--out", tmp_path / name, *quick)
        assert code == 1 and "--format space takes any" in err
        args = ["--format", "space", "--out", tmp_path / name, *quick]
        done(capsys, "train", path, *args)
        metrics = storage.read_json(tmp_path / name / "metrics.json")["dev"]
        assert len(metrics["per_class"]) == len(set(labels))
        assert (metrics["confusion"] is None) == (name == "many")


# ---- explain -------------------------------------------------------------------------------------


def test_explain_shows_the_worst_errors_of_dev(capsys, trained, files, tmp_path):
    out = done(
        capsys, "explain", trained, "--html", tmp_path / "page.html", "--top", 3, "--count", 5
    )
    model, dev = TextModel.load(trained), read_labelled(files[1])
    proba = model.predict_proba(dev.texts)
    wrong = [i for i, label in enumerate(dev.labels) if model.classes[proba[i].argmax()] != label]
    heads = [line for line in out.splitlines() if not line.startswith("  ")]
    worst = sorted(wrong, key=lambda i: -proba[i].max())[:5]
    other = {"neg": "pos", "pos": "neg"}
    assert heads == [
        f"{other[dev.labels[i]]} {proba[i].max():.4f} (true: {dev.labels[i]})" for i in worst
    ]
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.count('<li class="card"') == len(heads)


def test_explain_texts_of_a_file_or_of_a_pipe(capsys, trained, tmp_path, monkeypatch):
    path = tmp_path / "new.txt"
    path.write_text("not a good film\n\n")
    out = done(capsys, "explain", trained, path, "--label", "neg")
    p = TextModel.load(trained).predict_proba(["not a good film", ""])[:, 0]
    heads = [line for line in out.splitlines() if not line.startswith("  ")]
    assert heads == [f"neg {x:.4f}" for x in p]
    assert {"not", "a", "good", "film"} == {line.split()[-1] for line in out.splitlines()[1:5]}
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    assert done(capsys, "explain", trained, "-", "--label", "neg") == out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "nice"], "label: expected one of neg, pos, got 'nice'"),
        (["no.txt"], "no.txt: No such file or directory"),
    ],
)
def test_explain_refuses(capsys, trained, options, message):
    code, _, err = call(capsys, "explain", trained, *options)
    assert code == 1 and message in err


def test_predict_nothing(capsys, trained, tmp_path):
    (tmp_path / "new.txt").touch()
    assert done(capsys, "predict", trained, tmp_path / "new.txt") == ""
    got = done(capsys, "predict", trained, tmp_path / "new.txt", "--proba")
    assert got == "label\tp(neg)\tp(pos)\n"


def test_predict_reads_another_encoding_and_writes_utf8(capsys, tmp_path, undrawn):
    train, out = tmp_path / "train.txt", tmp_path / "labels.txt"
    train.write_text("größe très\nklein petit\n" * 20, encoding="latin-1")
    code, _, err = call(capsys, "train", train, "--out", tmp_path / "run", *QUICK)
    assert code == 1
    assert f"{train}:1: not utf-8" in err
    latin = ["--encoding", "latin-1"]
    done(
        capsys,
        "train",
        train,
        "--model",
        "avg",
        "--learning-rate",
        0.1,
        "--out",
        tmp_path / "run",
        *latin,
    )
    done(capsys, "train", "--resume", "--out", tmp_path / "run")
    assert storage.read_json(tmp_path / "run/classifier.json")["classes"] == ["größe", "klein"]
    (tmp_path / "new.txt").write_text("petit\ntrès\n", encoding="latin-1")
    done(capsys, "predict", tmp_path / "run", tmp_path / "new.txt", "--out", out, *latin)
    assert out.read_bytes() == "klein\ngröße\n".encode()


def test_predict_leaves_what_was_there_where_the_input_is_bad(capsys, trained, tmp_path):
    path, out = tmp_path / "new.txt", tmp_path / "labels.txt"
    path.write_bytes(b"good\n" * 3 + b"caf\xe9\n")
    out.write_text("old")
    code, _, err = call(capsys, "predict", trained, path, "--out", out)
    assert code == 1
    assert f"{path}:4: not utf-8" in err
    assert out.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"new.txt", "labels.txt"}


def test_predict_reads_standard_input(capsys, trained, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO("\r\n".join(LINES).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert done(capsys, "predict", trained, "-").splitlines() == expected_rows(trained)


def test_predict_answers_line_by_line_in_a_pipe_that_ends_early(trained):
    """With none of the packages that only training needs; and who reads may go."""
    blocked = (
        "import sys; sys.modules |= dict.fromkeys('h5py matplotlib nltk sklearn tqdm'.split())"
    )
    script = f"{blocked}; from fastrnn.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "classify", "predict", str(trained), "-", "--line-buffered"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    watchdog = threading.Timer(60, process.kill)  # an answer that never comes is a failure
    watchdog.start()
    for line, label in zip(LINES, expected_rows(trained), strict=True):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == label + "\n"
    watchdog.cancel()
    process.stdout.close()
    process.stdin.write("good\n")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error == ""


@pytest.mark.parametrize(
    ("command", "there"),
    [
        ("{} --out - | cat > got", []),
        ("{} --out /dev/stdout | cat > got", []),
        ("{} --out link | cat > got", ["link"]),
        ("{} --out >(cat > got); wait $!", []),
        ("{} --out pipe & cat pipe > got; wait", ["pipe"]),
        ("exec 3> got; {} --out /dev/fd/3", []),
        ("{} --out ./- && mv ./- got", []),
    ],
)
def test_predict_writes_wherever_a_shell_says(trained, tmp_path, command, there):
    (tmp_path / "new.txt").write_text("\n".join(LINES))
    if "link" in there:
        (tmp_path / "link").symlink_to("/proc/self/fd/1")
    if "pipe" in there:
        os.mkfifo(tmp_path / "pipe")
    predict = shlex.join([*FASTRNN, "classify", "predict", str(trained), "new.txt"])
    script = command.format(predict)
    subprocess.run(["bash", "-c", script], check=True, cwd=tmp_path, timeout=60)
    assert (tmp_path / "got").read_text().splitlines() == expected_rows(trained)
    assert {path.name for path in tmp_path.iterdir()} == {"new.txt", "got", *there}
    assert all(not path.is_file() or path.is_symlink() for path in map(tmp_path.joinpath, there))


def test_predict_takes_what_the_library_saved(capsys, tmp_path):
    from fastrnn.text import TextClassifier

    texts, labels = ["good film", "bad film", "so so"] * 10, [2, 0, 1] * 10
    classifier = TextClassifier("avg", epochs=30, learning_rate=0.1, random_state=0)
    classifier.fit(texts, labels).save(tmp_path / "model")
    (tmp_path / "new.txt").write_text("\n".join(texts[:3]))
    out = done(capsys, "predict", tmp_path / "model", tmp_path / "new.txt")
    assert out.split() == ["2", "0", "1"]
    test = write(tmp_path / "test.txt", Corpus(texts, [*map(str, labels)]))
    assert "accuracy 1.0000" in done(capsys, "evaluate", tmp_path / "model", test)


# ---- usage and errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["nosuchverb"],
        ["train", "--model", "tree"],
        ["train", "--pooling", "last+last"],
        ["train", "--epochs", "0"],
        ["train", "--metric", "f1"],
        ["train", "--quantize", "int4"],
        ["predict", ".", "dev.txt", "--proba", "--top", "2"],
        ["predict", ".", "dev.txt", "--top", "0"],
        ["predict", ".", "dev.txt", "--threshold", "1.5"],
        ["explain"],
        ["train", "--seed", "-1"],
        ["train", "--dropout", "1"],
        ["train", "--ngrams", "2"],
        ["train", "--hidden-dim", "8.5"],
        ["train", "--model", "bow", "--embeddings", "vectors.txt"],
        ["train", "--learning-rate", "0"],
        ["train", "--class-weight", "pos"],
        ["train", "--class-weight", "balanced", "--class-weight", "pos=1"],
        ["train", "train.txt", "--class-weight", "pos=-1"],
        ["train", "train.txt", "--class-weight", "pos=nan"],
        ["train", "train.txt", "--encoding", "morse"],
        ["evaluate", "run", "test.txt", "--encoding", "hex"],
        ["predict", "run", "new.txt", "--encoding", "morse"],
        ["train", "--resume"],
        ["train", "--corpus", "nltk:reuters"],
        ["train", "train.txt", "--corpus", "reviews"],
        ["train", "--dev", "dev.txt"],
        ["train", "--unlabelled", "new.txt"],
        ["train", "train.txt", "--unlabelled", "-"],
        ["train", "train.txt", "--unlabelled", "new.txt", "--model", "bow"],
        ["train", "--encoding", "latin-1"],
        ["train", "-"],
        ["evaluate", "run"],
        ["predict", "run"],
        ["predict", "run", "new.txt", "--out", "no/such/folder/labels.txt"],
    ],
)
def test_wrong_usage_exits_with_2(capsys, tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *args)
    assert code == 2
    assert "Error" in err
    assert not list(tmp_path.iterdir())


BAD = {
    "empty.txt": b"",
    "one.txt": b"pos a\npos b\n",
    "single.txt": b"pos a\nneg c\n",
    "text.txt": "\n".join(f"w{i} is no label" for i in range(50)).encode(),
    "broken.txt": b"pos fine\nneg caf\xe9\n",
    "binary.txt": b"pos \0\n",
    "unknown.txt": b"pos fine\r\n\r\nnice film\r\n",
    "rows.txt": b"no vectors here\n",
}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "no.txt"], "no.txt: No such file or directory"),
        (["train", "empty.txt"], "empty.txt: no examples"),
        (["train", "one.txt"], "expected at least two classes, got 1"),
        (["train", "single.txt"], "no class has two examples, and 2 have one: none is"),
        (["train", "text.txt"], "the first token of a line is read as its label"),
        (["train", "broken.txt"], "broken.txt:2: not utf-8 (byte 0xe9 at column 8)"),
        (["train", "binary.txt"], "binary.txt:1: a NUL at column 5"),
        (["train", "TRAIN", "--dev", "no.txt"], "no.txt: No such file or directory"),
        (["train", "TRAIN", "--dev", "unknown.txt"], "unknown.txt:3: label 'nice' is not one of"),
        (["train", "TRAIN", "--embeddings", "no.txt"], "no.txt: No such file or directory"),
        (["train", "TRAIN", "--embeddings", "rows.txt"], "rows.txt: expected rows of a word and"),
        (["train", "TRAIN", "--class-weight", "good=2"], "'good' is not one of neg, pos"),
        (["evaluate", "norun", "TRAIN"], "norun: no trained classifier"),
        (["predict", "norun", "TRAIN"], "norun: no trained classifier"),
        (["predict", "RUN", "no.txt"], "no.txt: No such file or directory"),
        (["predict", "RUN", "no.txt", "--out", "out.txt"], "no.txt: No such file or directory"),
    ],
)
def test_failure_exits_with_1_and_one_line(
    capsys, tmp_path, monkeypatch, files, trained, args, message
):
    monkeypatch.chdir(tmp_path)
    for name, content in BAD.items():
        (tmp_path / name).write_bytes(content)
    places = {"TRAIN": str(files[0]), "RUN": str(trained)}
    code, out, err = call(capsys, *[places.get(arg, arg) for arg in args])
    assert (code, out) == (1, "")
    assert err.startswith("fastrnn: ")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert {path.name for path in tmp_path.iterdir()} == BAD.keys()  # nothing half-made


@pytest.mark.parametrize("package", ["matplotlib", "safetensors", "sklearn", "tqdm"])
def test_missing_package_is_named_before_training(capsys, tmp_path, monkeypatch, files, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, out, err = call(capsys, "train", files[0], "--out", tmp_path / "run", *QUICK)
    assert (code, out) == (1, "")
    assert "which is not installed: pip install" in err
    assert not list(tmp_path.iterdir())


def test_missing_click_names_the_extras(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["classify", "train"])
    for extra in ("captioning", "text"):
        assert f'"fastrnn[{extra}]"' in exit_.value.code


@pytest.mark.parametrize("verb", [[], ["train"], ["evaluate"], ["predict"], ["explain"]])
def test_help_shows_examples(capsys, verb):
    out = done(capsys, *verb, "--help")
    assert "Example" in out
    if verb == ["train"]:
        for heading in ("Data:", "Model:", "Training:", "Run:"):
            assert heading in out.splitlines()


# ---- progress ------------------------------------------------------------------------------------


class Bar:
    """What the bars ask of tqdm's."""

    made = ()

    def __init__(self, **options):
        self.options, self.done, self.closed, self.shown = options, 0, False, {}
        Bar.made = [*Bar.made, self]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def update(self, n):
        self.done += n

    def set_postfix(self, figures, refresh):
        self.shown = figures

    def close(self):
        self.closed = True


def test_a_terminal_gets_a_bar_alone(monkeypatch, capsys):
    monkeypatch.setattr(progress, "require", lambda name: SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    solver = SimpleNamespace(num_epochs=2, iterations_per_epoch=1, iteration=1, epoch=0)
    solver.loss_history, solver.history = [1.0], []
    bar = progress.TrainingBar()
    bar(solver)
    solver.history.append({"epoch": 1, "train_loss": 1.0, "seconds": 0.0})
    bar.close()
    assert capsys.readouterr().err == ""


def test_lines_of_epochs_come_while_a_resumed_training_runs(capsys, monkeypatch):
    monkeypatch.setattr(progress, "require", lambda name: SimpleNamespace(tqdm=Bar))
    solver = SimpleNamespace(num_epochs=3, iterations_per_epoch=1, iteration=1, epoch=1)
    solver.loss_history = [2.0, 1.0]
    solver.history = [{"epoch": 1, "train_loss": 2.0, "seconds": 9.0}]
    bar = progress.TrainingBar()
    bar(solver)
    solver.history.append({"epoch": 2, "train_loss": 1.0, "bleu4": 0.25, "seconds": 8.0})
    bar(solver)
    assert capsys.readouterr().err == "epoch 2 of 3: loss 1, BLEU-4 0.2500, 8 s\n"
    solver.history.append({"epoch": 3, "val_accuracy": 0.5, "seconds": 7.0})
    bar.close()
    assert capsys.readouterr().err == "epoch 3 of 3: val accuracy 0.5000, 7 s\n"


def test_bars_show_bytes_and_the_best_of_every_network(
    capsys, tmp_path, files, monkeypatch, undrawn
):
    monkeypatch.setattr(Bar, "made", [])
    monkeypatch.setattr(progress, "require", lambda name: SimpleNamespace(tqdm=Bar))
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("the 1 2 3\n" * 40_000)
    options = ["--embeddings", vectors, "--ensemble", 2, "--batch-size", 50, "--epochs", 4]
    code, _, err = call(capsys, "train", files[0], *QUICK, *options, "--out", tmp_path / "run")
    assert code == 0
    reading, *networks = Bar.made
    assert reading.options["total"] == reading.done == vectors.stat().st_size
    assert len(networks) == 2
    for i, bar in enumerate(networks):
        history = storage.read_json(tmp_path / f"run/{i}/checkpoint.json")["history"]
        best = max(history[:3], key=lambda epoch: epoch["score"])
        assert bar.options["total"] == bar.done == 4 * 3
        assert bar.shown["epoch"] == 4
        assert bar.shown["best dev accuracy"] == f"{best['dev_accuracy']:.4f}"
    lines = [line for line in err.splitlines() if line.startswith("epoch ")]
    histories = [
        storage.read_json(tmp_path / f"run/{i}/checkpoint.json")["history"] for i in (0, 1)
    ]
    for line, epoch in zip(lines, [*histories[0], *histories[1]], strict=True):
        said, _, seconds = line.rpartition(", ")
        loss, accuracy = epoch["train_loss"], epoch["dev_accuracy"]
        assert said == f"epoch {epoch['epoch']} of 4: loss {loss:.4g}, dev accuracy {accuracy:.4f}"
        assert seconds == "0 s"
    training = storage.read_json(tmp_path / "run/metrics.json")["training"]
    assert training["epochs"] == 2 * 4
    assert training["sentences_per_second"] == pytest.approx(8 * 108 / training["seconds"])
    assert all(bar.closed for bar in Bar.made)
