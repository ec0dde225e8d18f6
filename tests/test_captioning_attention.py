"""Grids and views of pictures, from prepare to captions said by several runs with attention."""

import csv

import h5py
import numpy as np
import pytest
from PIL import Image
from util import call, done

from fastrnn.captioning import data as coco
from fastrnn.captioning import (
    evaluation,
    features,
    heatmaps,
    load_coco_data,
    prepare,
    programs,
    run,
    scenes,
    views,
)
from fastrnn.captioning.settings import SETTINGS
from fastrnn.settings import REQUIRED

torch = pytest.importorskip("torch")

QUICK = ["--epochs", "2", "--hidden", "16", "--wordvec", "8", "--batch-size", "20"]
LOOK = ["--decoder", "attention", "--attention-dim", "8", "--attention-penalty", "0.1"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pictures and a file of their captions."""
    folder = tmp_path_factory.mktemp("photos")
    pictures, captions = scenes.make(9, seed=3)
    lines = ["image,caption"]
    for i, (picture, texts) in enumerate(zip(pictures, captions, strict=True)):
        Image.fromarray(picture).save(folder / f"{i}.png")
        lines += [f"{i}.png,{text}" for text in texts]
    captions_file = folder / "captions.csv"
    captions_file.write_text("\n".join(lines))
    return folder, captions_file


@pytest.fixture(scope="module")
def data(photos, tmp_path_factory):
    """As caption prepare makes it, with grids and views."""
    images, captions = photos
    base = tmp_path_factory.mktemp("data")
    options = {"backbone": "squeezenet1_1", "weights": "none", "val": 3}
    prepare.prepare(images, captions, base, pca=6, **options)
    views.add_views(base, 3)
    assert views.add_grids(base, 5) == (169, 5)
    return base


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        settings = {"epochs": 2, "hidden": 16, "wordvec": 8, "decoder": "attention", "seed": seed}
        with programs.begin(folder / str(seed), data, settings) as job:
            job.train()
            job.finish()
    return folder / "0", folder / "1"


def test_grids_are_what_the_network_pools(data):
    """Their mean over the places is the network's features, but for float16 and components that
    are left out."""
    path = views.grid_file(data, "train")
    grid, pooled = coco.Features(path, axes=3)[:], coco.Features(data / "train2014_vgg16_fc7.h5")[:]
    mean, axes = coco.reduction_in(path)
    assert grid.dtype == np.float16 and grid.shape == (6, 169, 5)
    np.testing.assert_allclose(grid.mean(axis=1, dtype=float), (pooled - mean) @ axes, atol=0.02)
    variance = grid.reshape(-1, 5).astype(float).var(axis=0)
    assert variance.mean() == pytest.approx(1, rel=0.01)
    with h5py.File(path) as file:
        assert file["features"].attrs["backbone"] == "squeezenet1_1"


@pytest.mark.parametrize(
    ("backbone", "shape"), [("resnet18", (49, 512)), ("vgg11", (196, 512))], ids=str
)
def test_grid_of_other_networks(photos, backbone, shape):
    load, grids = views.grid_network(backbone, "none", "whole")
    assert grids([load(photos[0] / "0.png")] * 2).shape == (2, *shape)


@pytest.mark.parametrize("backbone", ["densenet121", "scenes"])
def test_other_networks_have_no_grid(backbone):
    with pytest.raises(ValueError, match=f"for grids, got '{backbone}'"):
        views.grid_network(backbone, "none", "centre")


def test_a_view_is_the_whole_picture_or_its_centre(rng):
    """Of a picture twice as wide as it is high the centre has the middle half."""
    pixels = rng.integers(256, size=(256, 512, 3), dtype=np.uint8)
    changed = pixels.copy()
    changed[:, :100] = 0
    for view, same in (("whole", False), ("centre", True)):
        transform, _, _ = features.headless("squeezenet1_1", "none", view)
        before, after = (transform(Image.fromarray(a)) for a in (pixels, changed))
        assert before.shape == (3, 224, 224)
        assert bool((before == after).all()) == same
    with pytest.raises(ValueError, match="view: expected one of .'centre', 'whole'., got 'left'"):
        features.headless("squeezenet1_1", "none", "left")


def test_a_run_remembers_what_it_was_shown(capsys, photos, data, trained, tmp_path):
    assert run.read_run(trained[0]).source["view"] == "centre"
    images, captions = photos
    options = {"backbone": "squeezenet1_1", "weights": "none", "val": 3}
    prepare.prepare(images, captions, tmp_path / "data", view="whole", pca=6, **options)
    out = tmp_path / "run"
    done(capsys, "caption", "train", tmp_path / "data", "--out", out, *QUICK)
    code, _, err = call(capsys, "caption", "evaluate", out, data)
    assert code == 1
    assert "expected features of whole pictures, as the run has, got pictures' centres" in err


def test_views_are_the_mirrored_picture_and_crops(rng):
    pixels = rng.integers(256, size=(40, 60, 3), dtype=np.uint8)
    mirrored, *crops = map(np.asarray, views.views_of(Image.fromarray(pixels), 6, rng))
    np.testing.assert_array_equal(mirrored, pixels[:, ::-1])
    assert len(crops) == 5
    for i, crop in enumerate(crops):
        height, width = crop.shape[:2]
        assert 0.38 < height * width / 2400 <= 1
        assert height / width == pytest.approx(40 / 60, rel=0.06)
        whole = pixels[:, ::-1] if i % 2 else pixels
        windows = np.lib.stride_tricks.sliding_window_view(whole, crop.shape)
        assert (windows == crop).all(axis=(3, 4, 5)).any()


def test_views_are_reduced_as_their_pictures(data):
    own = views.with_views(load_coco_data(data), data)
    assert own["train_views"].shape == (6, 3, 6)
    again, base = own["train_views"][[2, 0]], own["train_views"][:]
    np.testing.assert_array_equal(again, base[[2, 0]])
    # A mirrored picture is much the same picture, and no other.
    distance = lambda a, b: np.linalg.norm(a[:, None] - b, axis=2)  # noqa: E731
    nearest = distance(base[:, 0], own["train_features"][:]).argmin(axis=1)
    np.testing.assert_array_equal(nearest, np.arange(6))


@pytest.mark.parametrize("load", [views.with_views, views.with_grids])
def test_what_does_not_fit_is_refused(data, tmp_path, load):
    content = load_coco_data(data)
    assert views.with_views(content, tmp_path) is content
    with pytest.raises(FileNotFoundError, match="caption prepare --grid writes it"):
        views.with_grids(content, tmp_path)
    for name in (views.VIEWS, "train2014_grid.h5", "val2014_grid.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["features"] = np.zeros((5, 2, 2), np.float16)
    with pytest.raises(ValueError, match="expected .*, got .*5"):
        load(content, tmp_path)


def test_a_data_set_must_tell_its_pictures(tmp_path):
    prepare.prepare_scenes(tmp_path, 4, 2, seed=0)
    for add in (views.add_grids, views.add_views):
        with pytest.raises(ValueError, match="does not tell a network and a folder of pictures"):
            add(tmp_path, 3)


def test_a_run_with_attention_draws_where_it_looks(trained):
    with Image.open(trained[0] / "attention.png") as picture:
        pixels = np.asarray(picture.convert("RGB"), float)
    assert pixels.std(axis=2).max() > 50  # heat has colours


def test_several_runs_say_captions_together(capsys, trained, photos, tmp_path):
    first, second = trained
    out = done(capsys, "caption", "evaluate", first, "--with", second, "--beam", 3, "--no-unk")
    assert "val beam 3 of 2 runs: bleu1" in out
    said = []
    for others in ([], ["--with", second], ["--with", first]):
        to = tmp_path / "said.csv"
        done(capsys, "caption", "sample", first, "--images", photos[0], "--out", to, *others)
        said.append([row["caption"] for row in csv.DictReader(to.read_text().splitlines())])
    assert len(said[0]) == 9
    assert said[0] == said[2]  # twice the same model


def test_a_run_with_attention_looks_at_another_data_sets_pictures(capsys, photos, data, trained):
    """Whatever grids that one has, it sees what it sees of its own."""
    folder = trained[0].parent / "others"
    options = {"backbone": "squeezenet1_1", "weights": "none"}
    prepare.prepare(*photos, folder / "test", split="test", pca=0, **options)
    prepare.prepare(*photos, folder / "own", val=3, pca=4, **options)
    views.add_grids(folder / "own", 3)
    found = run.read_run(trained[0])
    for split in ("val", "train"):
        known = evaluation.open_pictures(found, data, split)
        again = evaluation.open_pictures(found, folder / "own", split)
        assert again.urls == known.urls
        np.testing.assert_array_equal(again.features[:], known.features[:])
    done(capsys, "caption", "evaluate", trained[0], folder / "test", "--split", "test")
    assert "test test greedy" in done(capsys, "caption", "evaluate", trained[0])


def test_runs_that_do_not_go_together_are_named(capsys, trained, data, tmp_path):
    first, plain = trained[0], tmp_path / "plain"
    done(capsys, "caption", "train", data, "--out", plain, *QUICK, "--views", "--averaging", 0.9)
    code, _, err = call(capsys, "caption", "evaluate", first, "--with", plain)
    assert code == 1
    assert f"{plain}: not the decoder of {first}" in err


def test_prepare_and_train_take_all_options(capsys, photos, tmp_path):
    images, captions = photos
    base, out, vectors = tmp_path / "data", tmp_path / "run", tmp_path / "vectors.txt"
    vectors.write_text("a 1 2 3\nred 4 5 6\n")
    text = done(
        capsys, "caption", "prepare", "--images", images, "--captions", captions, "--out", base,
        "--weights", "none", "--pca", 6, "--val", 3, "--grid", 4, "--views", 2,
    )  # fmt: skip
    assert "2 views of every training picture" in text
    assert "grids of 169 places, 4 features each" in text
    done(
        capsys, "caption", "train", base, "--out", out, *QUICK, *LOOK, "--attention", "dot",
        "--tied", "--feature-dropout", 0.1, "--label-smoothing", 0.1, "--scheduled-sampling", 0.2,
        "--averaging", 0.9, "--embeddings", vectors,
    )  # fmt: skip
    model = run.read_run(out).model
    assert (model.decoder, model.attention, model.tied) == ("attention", "dot", True)
    resumed = done(capsys, "caption", "train", "--resume", "--out", out, "--epochs", 3)
    assert "3 epochs" in resumed or "epochs 3" in resumed
    code, _, err = call(capsys, "caption", "train", base, "--out", tmp_path / "r", *QUICK,
                        "--wordvec", 2, "--embeddings", vectors)  # fmt: skip
    assert code == 1 and "wordvec_dim: expected at least 3, got 2" in err


def test_runs_of_earlier_versions_are_read(trained, tmp_path):
    """Their settings are those that were there."""
    from fastrnn import runs, storage

    content = storage.read_json(trained[0] / runs.RUN)
    for name in [name for name, s in SETTINGS.items() if s.earlier is not REQUIRED]:
        content["model"].pop(name, None)
        content["settings"].pop(name, None)
    storage.write_json(tmp_path / runs.RUN, content)
    read = run.read_settings(tmp_path)
    assert read["model"]["decoder"] == "plain" and not read["model"]["tied"]
    assert read["settings"]["averaging"] == 0 and read["settings"]["embeddings"] is None


def test_a_spotlight_is_where_attention_looks():
    picture, places = np.full((60, 90, 3), 200, np.uint8), np.zeros(9)
    places[1], places[5] = 0.9, 0.1  # in the middle above, to the right
    lit = heatmaps.spotlight(picture, places)
    assert lit.shape == picture.shape and lit.dtype == np.uint8
    assert (lit[:10, 40:50] > 150).all() and (lit[50:, :10] == 40).all()
    assert lit[30, 85].mean() > lit[30, 5].mean()
    np.testing.assert_array_equal(heatmaps.spotlight(picture, np.full(9, 1 / 9)), picture)
