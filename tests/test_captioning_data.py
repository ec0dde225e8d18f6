"""The published layout, lazily read; vocabulary; BLEU; prepare and all that can be wrong."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from fastrnn import storage
from fastrnn.captioning import (
    BLEU_score,
    CaptioningRNN,
    corpus_bleu,
    data,
    evaluate_model,
    features,
    load_coco_data,
    sample_coco_minibatch,
    scenes,
    vocabulary,
)
from fastrnn.captioning import prepare as prep

WORDS = [*vocabulary.SPECIAL, "a", "cat", "dog"]


@pytest.fixture
def base(tmp_path, rng):
    """A data set of 9 training and 3 validation pictures with 5 and 4 features."""
    splits = {}
    for split, images in (("train", 9), ("val", 3)):
        splits[split] = {
            "captions": rng.integers(len(WORDS), size=(2 * images, 6)),
            "image_idxs": np.repeat(np.arange(images), 2),
            "features": rng.standard_normal((images, 5)),
            "features_pca": rng.standard_normal((images, 4)),
            "urls": [f"http://host/{split}{i}.jpg" for i in range(images)],
        }
    reduction = (np.zeros(5, np.float32), np.ones((5, 4), np.float32))
    data.write_coco_data(tmp_path, WORDS, splits, source={"backbone": "x"}, reduction=reduction)
    return tmp_path


# ---- the layout ----------------------------------------------------------------------------------


def test_files_are_those_of_the_published_data_set(base):
    names = {"coco2014_captions.h5", "coco2014_vocab.json"}
    for split in ("train", "val"):
        names |= {f"{split}2014_vgg16_fc7.h5", f"{split}2014_vgg16_fc7_pca.h5"}
        names |= {f"{split}2014_urls.txt"}
    assert {path.name for path in base.iterdir()} == names
    with h5py.File(base / "coco2014_captions.h5") as file:
        keys = {f"{s}_{n}" for s in ("train", "val") for n in ("captions", "image_idxs")}
        assert set(file) == keys
        assert file["train_captions"].dtype == file["val_image_idxs"].dtype == np.int32
    with h5py.File(base / "val2014_vgg16_fc7.h5") as file:
        assert file["features"].shape == (3, 5)
        assert file["features"].dtype == np.float32


def test_load_gives_the_notebooks_dictionary(base):
    content = load_coco_data(base)
    assert set(content) == {"idx_to_word", "word_to_idx"} | {
        f"{s}_{n}" for s in ("train", "val") for n in ("captions", "image_idxs", "features", "urls")
    }
    assert content["train_features"].shape == (9, 4)
    assert load_coco_data(base, pca_features=False)["train_features"].shape == (9, 5)
    assert content["word_to_idx"]["cat"] == content["idx_to_word"].index("cat") == 5
    assert data.feature_source(base) == {"backbone": "x"}
    assert data.pca_reduction(base)[1].shape == (5, 4)


def test_max_train_draws_without_repeats(base):
    content, again, other = (load_coco_data(base, max_train=10, seed=s) for s in (0, 0, 1))
    assert content["train_captions"].shape == (10, 6)
    np.testing.assert_array_equal(content["train_captions"], again["train_captions"])
    assert (content["train_image_idxs"] != other["train_image_idxs"]).any()
    assert len(np.unique(content["train_image_idxs"])) == 9  # every picture before a second caption
    pairs = set(
        zip(content["train_image_idxs"], map(tuple, content["train_captions"]), strict=True)
    )
    assert len(pairs) == 10
    assert len(content["val_captions"]) == 6


def test_features_are_read_by_row_in_any_order(base, rng):
    whole = np.array(load_coco_data(base, pca_features=False)["train_features"])
    lazy = load_coco_data(base, pca_features=False)["train_features"]
    for rows in ([3], [8, 0, 8, 2], rng.integers(9, size=50), [], np.array([0, 8])):
        np.testing.assert_array_equal(lazy[np.array(rows, int)], whole[np.array(rows, int)])
    np.testing.assert_array_equal(lazy[2:5], whole[2:5])
    assert len(lazy) == 9


def test_minibatch_goes_together(base):
    content = load_coco_data(base)
    captions, rows, urls = sample_coco_minibatch(content, 50, "train", rng=3)
    for caption, row, url in zip(captions, rows, urls, strict=True):
        image = int(url.removeprefix("http://host/train").removesuffix(".jpg"))
        np.testing.assert_array_equal(row, content["train_features"][[image]][0])
        assert caption.tolist() in content["train_captions"][2 * image : 2 * image + 2].tolist()
    with pytest.raises(ValueError, match="split: expected one of"):
        sample_coco_minibatch(content, 5, "test")


@pytest.mark.parametrize(
    "name", ["coco2014_captions.h5", "coco2014_vocab.json", "train2014_vgg16_fc7_pca.h5"]
)
def test_load_names_the_broken_or_missing_file(base, name):
    (base / name).write_bytes(b"\x00broken")
    with pytest.raises(ValueError, match=name):
        load_coco_data(base)
    (base / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_coco_data(base)


def test_load_says_which_features_there_are(base):
    (base / "train2014_vgg16_fc7.h5").unlink()
    with pytest.raises(FileNotFoundError, match="pca_features=True"):
        load_coco_data(base, pca_features=False)


def test_load_refuses_indices_out_of_range(base):
    with h5py.File(base / "coco2014_captions.h5", "r+") as file:
        file["val_image_idxs"][0] = 3
    with pytest.raises(ValueError, match=r"val_image_idxs: expected indices in \[0, 3\)"):
        load_coco_data(base)


# ---- words ---------------------------------------------------------------------------------------


def test_tokenize_keeps_words_whole():
    caption = 'A girl\'s T-shirt , "blue" (on) the 2nd café .'
    assert vocabulary.tokenize(caption) == [
        "a", "girl's", "t-shirt", "blue", "on", "the", "2nd", "café",
    ]  # fmt: skip


def test_vocabulary_counts_then_sorts():
    captions = [["b", "a", "c"], ["b", "a"], ["b", "<UNK>"]]
    assert vocabulary.build_vocabulary(captions, 2) == [*vocabulary.SPECIAL, "b", "a"]


def test_encode_pads_cuts_and_marks_unknown_words():
    word_to_idx = {word: i for i, word in enumerate(WORDS)}
    encoded = vocabulary.encode([["a", "bird"], ["a", "cat", "a", "dog"]], word_to_idx, 3)
    np.testing.assert_array_equal(encoded, [[1, 4, 3, 2, 0], [1, 4, 5, 4, 2]])


# ---- BLEU ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "said", "expected"),
    [
        ("<START> a cat sat <END>", "a cat sat <END>", 1.0),
        ("<START> a cat sat <END>", "a dog sat <END>", 2 / 3),
        ("<START> a cat <UNK> sat <END>", "a <UNK> <END>", np.exp(1 - 3 / 1)),  # brevity penalty
        ("<START> a cat <END>", "dog dog <END>", 0.0),
        ("<START> a cat <END>", "<END>", 0.0),
        ("<START> the cat <END>", "the the the <END>", 1 / 3),  # clipped counts
    ],
)
def test_bleu_score_as_the_notebook(truth, said, expected):
    assert BLEU_score(truth, said) == pytest.approx(expected, abs=1e-15)


def test_corpus_bleu_uses_all_references_and_no_unknown_word():
    references = [[["a", "cat", "sat", "here"], ["the", "cat", "<UNK>"]]]
    full = corpus_bleu(references, ["a cat sat here <END>"])
    assert full == {f"bleu{n}": pytest.approx(1.0) for n in range(1, 5)}
    mixed = corpus_bleu(references, ["the cat sat <END>"])
    assert mixed["bleu1"] == pytest.approx(1.0)
    assert corpus_bleu(references, ["the cat <UNK> <END>"])["bleu1"] == pytest.approx(2 / 3)
    assert corpus_bleu(references, ["<END>"])["bleu1"] == 0
    assert corpus_bleu(references, ["cat a <END>"])["bleu2"] == 0


def test_evaluate_model_averages_greedy_bleu(base, capsys):
    content = load_coco_data(base)
    model = CaptioningRNN(content["word_to_idx"], 4, 3, 5, "lstm", seed=0)
    scores = evaluate_model(model, content, 20)
    assert set(scores) == {"train", "val"}
    assert all(0 <= score <= 1 for score in scores.values())
    assert f"Average BLEU score for val: {scores['val']:f}" in capsys.readouterr().out


# ---- scenes --------------------------------------------------------------------------------------


def test_scenes_repeat_by_seed_and_differ_between_seeds():
    (pictures, captions), (again, same), (others, _) = (scenes.make(20, s) for s in (0, 0, 1))
    np.testing.assert_array_equal(pictures, again)
    assert captions == same
    assert (pictures != others).any()
    assert pictures.shape == (20, scenes.SIZE, scenes.SIZE, 3)


def test_scene_captions_are_true_and_various():
    rng = np.random.default_rng(0)
    said = set()
    for _ in range(300):
        scene = scenes.draw_scene(rng)
        for _ in range(5):
            caption = scenes.describe(scene, rng)
            said.add(caption)
            for thing in scene.things:
                assert thing.colour in caption
                assert any(name in caption for name in scenes.SHAPES[thing.shape])
            absent = set(scenes.COLOURS) - {thing.colour for thing in scene.things}
            assert not any(colour in caption.split() for colour in absent)
    assert len(said) > 1000


def test_scene_relations_hold_in_the_pixels():
    """The colour masks of the features find each thing on the side that the relation says; edges of
    other colours leave traces, the things' own colours dominate."""
    rng = np.random.default_rng(1)
    palette = [*scenes.COLOURS]
    y, x = np.mgrid[: scenes.SIZE, : scenes.SIZE]
    checked = 0
    for _ in range(80):
        scene = scenes.draw_scene(rng)
        masks = scenes._colour_masks(scenes.render(scene, rng)[None] / np.float32(255))[0]
        found = np.argsort(masks.sum(axis=(1, 2)))[-len(scene.things) :]
        assert set(found) == {palette.index(thing.colour) for thing in scene.things}
        if scene.relation:
            first, second = (
                [np.average(axis, weights=masks[palette.index(t.colour)]) for axis in (x, y)]
                for t in scene.things
            )
            step = np.subtract(first, second) @ scenes.OFFSETS[scene.relation]
            assert step > 0.2 * scenes.SIZE
            checked += 1
    assert checked > 40


def test_scene_features_refuse_other_pictures():
    with pytest.raises(ValueError, match="pictures: expected"):
        scenes.features(np.zeros((1, 8, 8, 3), np.uint8))
    assert scenes.features(np.zeros((0, 64, 64, 3), np.uint8)).shape[0] == 0


# ---- prepare -------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path, rng):
    """A folder of 12 pictures and a CSV of two captions each."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["image,caption"]
    for i in range(12):
        picture = rng.integers(256, size=(40 + i, 50, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"p{i}.png")
        lines += [f"p{i}.png,A cat number {i} .", f'p{i}.png,"A dog, and ""a"" cat ."']
    (tmp_path / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


def prepare(photos, captions=None, out=None, **options):
    captions = captions or photos.parent / "captions.csv"
    options = {"backbone": "scenes", "val": 3, "pca": 4} | options
    return prep.prepare(photos, captions, out or photos.parent / "out", **options)


def test_prepare_splits_by_picture_and_writes_the_layout(photos):
    report = prepare(photos)
    assert report[:4] == (9, 3, 18, 6)
    assert report.features == 4
    assert report.problems == []
    content = load_coco_data(photos.parent / "out")
    assert not set(content["train_urls"]) & set(content["val_urls"])
    assert content["train_features"].shape == (9, 4)
    decoded = vocabulary.decode_captions(content["val_captions"], content["idx_to_word"])
    assert "<START> a dog and a cat <END>" in decoded
    assert data.feature_source(photos.parent / "out")["backbone"] == "scenes"


def test_prepare_reduces_new_pictures_the_same_way(photos):
    prepare(photos)
    out = photos.parent / "out"
    content = load_coco_data(out)
    whole = load_coco_data(out, pca_features=False)["val_features"][:]
    reduced = prep.apply_pca(whole, *data.pca_reduction(out))
    np.testing.assert_allclose(reduced, content["val_features"][:], rtol=1e-5, atol=1e-5)
    train = content["train_features"][:]
    assert train.var(axis=0).mean() == pytest.approx(1, rel=1e-4)
    gram = train.T @ train
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-3)  # decorrelated


def test_prepare_is_repeatable_and_the_seed_moves_the_split(photos):
    outs = [photos.parent / f"out{i}" for i in range(3)]
    for out, seed in zip(outs, (0, 0, 1), strict=True):
        prepare(photos, out=out, seed=seed)
    urls = [(out / "val2014_urls.txt").read_text() for out in outs]
    assert urls[0] == urls[1] != urls[2]


def test_prepare_leaves_out_names_and_counts_what_is_broken(photos):
    (photos / "p0.png").write_bytes(b"\x89PNG broken")
    (photos / "p1.png").write_bytes((photos / "p1.png").read_bytes()[:-40])
    (photos / "p2.png").unlink()
    Image.new("RGB", (9, 9)).save(photos / "extra.png")
    with (photos.parent / "captions.csv").open("a") as file:
        file.write("p3.png, ... \n")
    report = prepare(photos)
    reasons = [problem.split(":")[0] for problem in report.problems]
    assert reasons == ["extra.png", "p0.png", "p1.png", "p2.png", "p3.png"]
    assert "no captions" in report.problems[0]
    assert "cannot be read" in report.problems[1]
    assert "no such picture" in report.problems[3]
    assert "without words" in report.problems[4]
    assert report.train_images + report.val_images == 9
    with pytest.raises(ValueError, match=r"problems, first extra\.png: no captions"):
        prepare(photos, strict=True, out=photos.parent / "strict")
    assert not (photos.parent / "strict").exists()


def test_prepare_refuses_when_most_pictures_are_lost(photos):
    for i in range(7):
        (photos / f"p{i}.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"only 5 of the 12 pictures"):
        prepare(photos)
    assert not (photos.parent / "out").exists()


def test_prepare_reads_coco_and_karpathy_json(photos):
    coco = {
        "images": [{"id": i, "file_name": f"p{i}.png"} for i in range(12)],
        "annotations": [{"image_id": i, "caption": f"A cat {i}"} for i in range(12)],
    }
    path = photos.parent / "captions.json"
    path.write_text(json.dumps(coco))
    assert prepare(photos, path)[:4] == (9, 3, 9, 3)
    kinds = ["train"] * 6 + ["restval"] * 2 + ["val"] * 3 + ["test"]
    karpathy = {
        "images": [
            {"filename": f"p{i}.png", "split": kind, "sentences": [{"raw": "A cat"}] * 2}
            for i, kind in enumerate(kinds)
        ]
    }
    path.write_text(json.dumps(karpathy))
    assert prepare(photos, path)[:4] == (8, 3, 16, 6)
    urls = (photos.parent / "out" / "val2014_urls.txt").read_text().split()
    assert urls == ["p10.png", "p8.png", "p9.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"picture,text\na,b\n", "expected the columns image,caption"),
        (b"image,caption\nonly-one-column\n", r":2: expected image,caption"),
        (b"image,caption\n", "no captions"),
        (b"image,caption\na.png,\xff\xfe\n", "not UTF-8"),
        (b'{"images": ', "not a JSON file"),
        (b'{"images": [{"id": 1}], "annotations": []}', "'file_name' is missing"),
        (b'{"pictures": []}', "'images' is missing"),
        (b'[{"image": "a"}]', "expected COCO's captions"),
    ],
)
def test_prepare_refuses_other_caption_files(photos, content, message):
    path = photos.parent / "strange"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        prepare(photos, path)
    assert str(path) in str(error.value)


def test_captions_keep_commas_and_line_breaks(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text(
        'image,caption\na.png,a dog, running\nb.png,"a cat\nsits"\nc.png,one\u2028two\n'
    )
    captions = prep.read_captions(path).captions
    assert captions == {
        "a.png": ["a dog, running"],
        "b.png": ["a cat\nsits"],
        "c.png": ["one\u2028two"],
    }


def test_annotations_without_a_picture_are_named(photos):
    coco = {
        "images": [{"id": i, "file_name": f"p{i}.png"} for i in range(12)],
        "annotations": [{"image_id": i, "caption": f"A cat {i}"} for i in range(13)],
    }
    path = photos.parent / "captions.json"
    path.write_text(json.dumps(coco))
    assert prepare(photos, path).problems == ["id 12: 1 captions, but no such picture"]
    coco["annotations"][0]["caption"] = None
    path.write_text(json.dumps(coco))
    with pytest.raises(ValueError, match=r"p0\.png: expected text for a caption, got None"):
        prepare(photos, path)


def test_splits_of_the_file_must_not_be_empty(photos):
    images = [
        {"filename": f"p{i}.png", "split": "val", "sentences": [{"raw": "A cat"}]}
        for i in range(12)
    ]
    path = photos.parent / "captions.json"
    path.write_text(json.dumps({"images": images}))
    with pytest.raises(ValueError, match="no pictures of the split train"):
        prepare(photos, path)
    for i, image in enumerate(images):
        image["split"] = ["train", "val", "test"][i % 3]
    path.write_text(json.dumps({"images": images}))
    report = prepare(photos, path)
    assert (report[:2], report.test_images, report.problems) == ((4, 4), 4, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": 12}, "val: expected 1 to 11 of 12 pictures, got 12"),
        ({"val": 0.001}, "val: expected 1 to 11 of 12 pictures, got 0.001 of them, 0"),
        ({"pca": -1}, "pca: expected an integer of at least 0, got -1"),
        ({"backbone": "resnet1"}, "backbone: expected one of"),
        ({"backbone": "resnet18", "weights": "missing.pth"}, "missing.pth: no such file"),
    ],
)
def test_prepare_refuses_bad_options(photos, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare(photos, **options)


# ---- torchvision backbones -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "columns"),
    [("squeezenet1_1", 512), ("resnet18", 512), ("mobilenet_v3_small", 1024), ("vit_b_32", 768)],
)
def test_backbone_features_are_those_before_the_last_layer(photos, backbone, columns):
    (photos / "p0.png").write_bytes(b"broken")
    paths = sorted(photos.iterdir())[:4]
    got = features.extract(paths, backbone, "none", batch_size=2)
    assert got.features.shape == (3, columns)
    assert got.names == [p.name for p in paths[1:]]
    assert set(got.unreadable) == {"p0.png"}
    single = features.extract(paths[2:3], backbone, "none").features
    np.testing.assert_allclose(single[0], got.features[1], rtol=1e-3, atol=1e-4)


def test_weights_that_do_not_fit_are_named(photos, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3), "other": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"missing features.0.bias.*unexpected other"):
        prepare(photos, backbone="squeezenet1_1", weights=str(path))
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a file of tensors"):
        prepare(photos, backbone="squeezenet1_1", weights=str(path))


# ---- real data -----------------------------------------------------------------------------------

REAL = Path(os.environ.get("FASTRNN_DATA", ""))
needs_data = pytest.mark.skipif(
    not os.environ.get("FASTRNN_DATA"), reason="FASTRNN_DATA names no folder of real data"
)


@needs_data
def test_published_vocabulary_decodes():
    words = storage.read_json(REAL / "coco_captioning/coco2014_vocab.json")
    assert len(words["idx_to_word"]) == len(words["word_to_idx"]) == 1004
    assert words["idx_to_word"][:4] == vocabulary.SPECIAL
    caption = [1, *(words["word_to_idx"][w] for w in ("a", "man", "standing")), 2, 0]
    decoded = vocabulary.decode_captions(np.array(caption), words["idx_to_word"])
    assert decoded == "<START> a man standing <END>"


@needs_data
def test_prepare_reads_real_photographs(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((REAL / "flickr8k/images").iterdir())[:24]:
        (images / path.name).symlink_to(path.resolve())
    lines = (REAL / "flickr8k/captions.txt").read_text().splitlines()
    names = {path.name for path in images.iterdir()}
    kept = [lines[0], *(line for line in lines if line.split(",")[0] in names)]
    (tmp_path / "captions.csv").write_text("\n".join(kept))
    report = prep.prepare(
        images,
        tmp_path / "captions.csv",
        tmp_path / "out",
        weights=str(REAL / "weights/squeezenet1_1.pth"),
        val=4,
    )
    assert report[:4] == (20, 4, 100, 20)
    assert report.features == 20  # as many components as training pictures
    assert report.problems == []
