"""caption evaluate: on a run's own data and on others', beside captions by no model."""

import csv
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image
from util import call, done

from fastrnn import runs, storage
from fastrnn.captioning import evaluation, load_coco_data, programs, scenes
from fastrnn.captioning import prepare as prep
from fastrnn.captioning.run import read_run

QUICK = {"epochs": 3, "hidden": 16, "wordvec": 8, "batch_size": 50}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Photographs, a data set of them with a run, and another whose test split is the first's
    validation split and whose vocabulary and components are its own."""
    base = tmp_path_factory.mktemp("evaluation")
    pictures, captions = scenes.make(40, seed=5)
    (base / "photos").mkdir()
    rows = []
    for i, (picture, texts) in enumerate(zip(pictures, captions, strict=True)):
        Image.fromarray(picture).save(base / f"photos/{i:02}.png")
        split = ("train", "val", "test")[min(i // 16, 2)]
        rows += [[f"{i:02}.png", text, split] for text in texts]
    write(base / "own.csv", rows, {"train": "train", "test": "val", "val": "train"})
    write(base / "other.csv", rows, {split: split for split in ("train", "val", "test")})
    for name, options in (("own", {"min_count": 1}), ("other", {"min_count": 9, "pca": 5})):
        options = {"backbone": "scenes", "pca": 8} | options
        prep.prepare(base / "photos", base / f"{name}.csv", base / name, **options)
    with programs.begin(base / "run", base / "own", QUICK) as job:
        job.train()
        job.finish()
    return base


def write(path, rows, names):
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["image", "caption", "split"])
        out.writerows([image, text, names[split]] for image, text, split in rows)


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole / "run", tmp_path / "run")


def figures(run, name):
    return {k: v for k, v in runs.read_metrics(run)[name].items() if k != "seconds"}


def test_training_shows_and_scores_what_it_validates_on(whole):
    assert {"bleu4", "rouge_l", "cider", "words", "novel"} <= figures(
        whole / "run", "val greedy"
    ).keys()
    assert (whole / "run/gallery.png").stat().st_size > 10_000


def test_evaluate_writes_figures_baselines_and_a_line_a_picture(capsys, run):
    out = done(capsys, "caption", "evaluate", run, "--beam", 2)
    assert "val beam 2: bleu1 " in out
    header, *table = out.splitlines()[-5:]
    assert header.split()[:6] == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]
    assert [line.split()[0] for line in table] == ["model", "constant", "nearest", "human"]
    results = storage.read_json(run / "results-val-beam-2.json")
    scores = results["scores"]
    assert results["pictures"] == 8
    assert scores["model"] == figures(run, "val beam 2")
    assert scores["constant"]["novel"] == scores["nearest"]["novel"] == 0
    assert scores["human"]["cider"] > scores["constant"]["cider"]
    with (run / "results-val-beam-2.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"{i}.png" for i in range(32, 40)]
    cider = np.mean([float(row["cider"]) for row in rows])
    assert cider == pytest.approx(scores["model"]["cider"], abs=1e-4)
    assert all(len(row["references"].split(" / ")) == 5 for row in rows)
    assert (run / "gallery-val-beam-2.png").stat().st_size > 10_000


def test_an_ensemble_is_runs_of_seeds_that_follow_each_other(capsys, whole, tmp_path):
    runs_of = {"both": ["--ensemble", 2], 0: [], 1: ["--seed", 1]}
    given = ["--epochs", 2, "--hidden", 16, "--wordvec", 8]
    for name, more in runs_of.items():
        out = tmp_path / str(name)
        done(capsys, "caption", "train", whole / "own", "--out", out, *given, *more)
    for pair in zip(read_run(tmp_path / "both").models, "01", strict=True):
        one = read_run(tmp_path / pair[1]).model
        for name, w in pair[0].params.items():
            np.testing.assert_array_equal(w, one.params[name])
    done(capsys, "caption", "evaluate", tmp_path / "both", "--beam", 2)
    done(capsys, "caption", "evaluate", tmp_path / "0", "--beam", 2, "--with", tmp_path / "1")
    own = figures(tmp_path / "both", "val beam 2")
    assert own == figures(tmp_path / "0", "val beam 2 of 2 runs")
    assert (tmp_path / "both/curves-1.png").exists()
    assert runs.read_metrics(tmp_path / "both")["training"]["epochs"] == 4
    stale = tmp_path / "stale"
    (stale / "1").mkdir(parents=True)
    (stale / "1/checkpoint.json").write_text("{}")
    code, _, err = call(
        capsys, "caption", "train", whole / "own", "--out", stale, *given, "--ensemble", 2
    )
    assert code == 1
    assert "has a run already" in err
    assert not (stale / "run.json").exists()


def test_consensus_asks_what_is_said_of_training_pictures_alike(capsys, whole, run, tmp_path):
    """With all weight on it the captions are those of the beam that are the most like theirs."""
    done(capsys, "caption", "evaluate", run, "--beam", 4)
    done(capsys, "caption", "evaluate", run, "--beam", 4, "--consensus", 1e9)
    plain, chosen = (figures(run, f"val beam 4{how}") for how in ("", " consensus 1e+09"))
    assert chosen["cider"] > plain["cider"]
    out = done(
        capsys, "caption", "evaluate", run, "--beam", 4, "--diverse-groups", 2, "--reminders", 3
    )
    assert "val beam 4 in 2 groups reminders 3: bleu1" in out
    assert figures(run, "val beam 4 in 2 groups reminders 3")["words"] >= plain["words"]
    assert (run / "results-val-beam-4-consensus-1e+09.csv").exists()
    out, sample = tmp_path / "new.csv", ["--images", whole / "photos", "--consensus", 1e9]
    code, _, err = call(capsys, "caption", "sample", run, *sample, "--beam", 1, "--out", out)
    assert code == 2
    assert "--consensus chooses among the captions of a --beam of 2 or more" in err
    done(capsys, "caption", "sample", run, *sample, "--beam", 4, "--out", out)
    with (run / "results-val-beam-4-consensus-1e+09.csv").open(newline="") as file:
        expected = {row["image"]: row["caption"] for row in csv.DictReader(file)}
    with out.open(newline="") as file:
        said = {row["image"]: row["caption"] for row in csv.DictReader(file)}
    assert {name: said[name] for name in expected} == expected
    content = storage.read_json(run / "run.json")
    storage.write_json(run / "run.json", content | {"data": str(tmp_path / "gone")})
    code, _, err = call(capsys, "caption", "sample", run, *sample, "--out", out)
    assert code == 1
    assert f"{tmp_path / 'gone'}: no such folder; the run's own data set is to be asked" in err


def test_another_data_set_is_seen_with_the_runs_eyes(capsys, whole, run):
    """Its own vocabulary and components do not matter: the same pictures and captions give the same
    figures. Those of the run's own validation stay as they are."""
    before = figures(run, "val greedy")
    code, out, err = call(capsys, "caption", "evaluate", run, whole / "other", "--split", "test")
    assert code == 0
    assert f"0 words of its captions are unknown to {run}" in err
    assert figures(run, "other test greedy") == before == figures(run, "val greedy")
    assert "other test greedy: bleu1 " in out
    own, other = (load_coco_data(whole / name)["word_to_idx"] for name in ("own", "other"))
    assert own != other
    done(capsys, "caption", "evaluate", run, whole / "other", "--name", "again")
    assert (run / "results-again-val-greedy.csv").exists()


def test_words_that_a_run_has_never_seen_match_nothing(capsys, whole, run, tmp_path):
    other = shutil.copytree(whole / "other", tmp_path / "b")
    texts = (other / "test2014_texts.txt").read_text()
    (other / "test2014_texts.txt").write_text(texts.replace(" a ", " zebra "))
    code, _, err = call(capsys, "caption", "evaluate", run, other, "--split", "test")
    assert code == 0
    assert f"{other}: 1 words of its captions are unknown to {run}" in err
    assert figures(run, "b test greedy")["bleu1"] < figures(run, "val greedy")["bleu1"]


def test_a_data_set_that_has_moved_is_the_runs_own(capsys, whole, run, tmp_path):
    content = storage.read_json(run / "run.json")
    storage.write_json(run / "run.json", content | {"data": str(tmp_path / "gone")})
    done(capsys, "caption", "evaluate", run, whole / "own", "--beam", 2)
    assert "val beam 2" in runs.read_metrics(run)
    out = done(capsys, "caption", "evaluate", run, whole / "other", "--split", "test")
    assert [line.split()[0] for line in out.splitlines()[-2:]] == ["model", "human"]
    assert "novel" not in figures(run, "other test greedy")


def test_all_pictures_may_be_there_to_evaluate_on(capsys, whole, run, tmp_path):
    arguments = [
        "--images",
        whole / "photos",
        "--captions",
        whole / "own.csv",
        "--out",
        tmp_path / "b",
    ]
    out = done(capsys, "caption", "prepare", *arguments, "--backbone", "scenes", "--split", "test")
    assert "0 + 0 + 40 pictures, 0 + 0 + 200 captions" in out
    out = done(capsys, "caption", "evaluate", run, tmp_path / "b", "--split", "test")
    assert "b test greedy: bleu1 " in out
    for command, message in (
        (["evaluate", run, tmp_path / "b"], "no captions of the split val"),
        (["train", tmp_path / "b", "--out", tmp_path / "new"], "no captions to train on"),
    ):
        code, _, err = call(capsys, "caption", *command)
        assert (code, err) == (1, f"fastrnn: {tmp_path / 'b'}: {message}\n")
    assert not (tmp_path / "new").exists()


def of_another_backbone(base):
    for name in ("train2014_vgg16_fc7.h5", "train2014_vgg16_fc7_pca.h5"):
        with h5py.File(base / name, "r+") as file:
            file["features"].attrs["backbone"] = "resnet18"


def of_another_width(base):
    for split in ("train", "val", "test"):
        with h5py.File(base / f"{split}2014_vgg16_fc7.h5", "r+") as file:
            rows = file["features"][:, :7]
            source = dict(file["features"].attrs)
            del file["features"]
            file["features"] = rows
            file["features"].attrs.update(source)


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        (of_another_backbone, [], "expected features of scenes, as the run has, got resnet18"),
        (of_another_width, [], "columns, got 7"),
        (lambda base: None, ["--name", "a/b"], "name: expected one for a file"),
        (lambda base: None, ["--name", ""], "name: expected one for a file"),
    ],
)
def test_data_that_a_run_cannot_see_are_refused(
    capsys, whole, run, tmp_path, change, given, message
):
    other = shutil.copytree(whole / "other", tmp_path / "b")
    change(other)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    code, _, err = call(capsys, "caption", "evaluate", run, other, *given)
    assert (code, len(err.splitlines())) == (1, 1)
    assert message in err
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}


def test_a_split_that_is_not_there_is_refused(capsys, run):
    code, _, err = call(capsys, "caption", "evaluate", run, "--split", "test")
    assert (code, err) == (1, "fastrnn: split: expected one of train, val, got 'test'\n")


def test_one_caption_a_picture_has_no_human_to_stand_against_it(whole):
    held = evaluation.open_pictures(read_run(whole / "run"), whole / "own", "val")
    single = held._replace(references=[captions[:1] for captions in held.references])
    assert evaluation.beside(single, None) == {}


def test_long_captions_of_any_data_set_are_cut_before_they_are_scored(whole, tmp_path):
    base = shutil.copytree(whole / "own", tmp_path / "data")
    with h5py.File(base / "coco2014_captions.h5", "r+") as file:
        captions = file["val_captions"][:]
        del file["val_captions"]
        longer = np.pad(captions, ((0, 0), (0, 20_000)))
        longer[3] = 5
        file["val_captions"] = longer
    with programs.begin(tmp_path / "run", base, QUICK | {"epochs": 1}) as job:
        assert job.data["val_captions"].shape == (len(captions), prep.MOST_WORDS + 2)
        assert job.summary().endswith("; 1 captions cut to 100 words")


def test_each_human_stands_against_the_others(whole):
    held = evaluation.open_pictures(read_run(whole / "run"), whole / "own", "val")
    found = evaluation.beside(held, None)["human"]
    turns = [
        evaluation.score(
            [[c for i, c in enumerate(captions) if i != turn] for captions in held.references],
            [" ".join(captions[turn]) for captions in held.references],
        ).figures
        for turn in range(5)
    ]
    for name in ("bleu4", "rouge_l", "cider", "words"):
        assert found[name] == pytest.approx(np.mean([figures[name] for figures in turns]))
