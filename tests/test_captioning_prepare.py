"""caption prepare: names, captions of any length, a full disk, a kill."""

import errno
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image
from util import call

from fastrnn.captioning import data, load_coco_data, metrics, partial
from fastrnn.captioning import prepare as prep
from fastrnn.cli import caption

LIMITED = """
import resource, signal, sys
from fastrnn.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
main(sys.argv[2:])
"""


@pytest.fixture
def photos(tmp_path, rng):
    """A folder of 12 pictures and a CSV of two captions each."""
    return make(tmp_path, rng, [f"p{i:02}.png" for i in range(12)])


def make(tmp_path, rng, names):
    folder = tmp_path / "photos"
    lines = ["image,caption"]
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture = rng.integers(256, size=(40 + i, 50, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / name)
        lines += [f'"{name}",A cat number {i} .', f'"{name}","A dog, and ""a"" cat ."']
    (tmp_path / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def arguments(photos, out):
    return ["caption", "prepare", "--images", photos, "--captions", photos.parent / "captions.csv",
            "--out", out, "--backbone", "scenes", "--pca", "4", "--val", "3"]  # fmt: skip


def prepare(photos, **options):
    options = {"backbone": "scenes", "val": 3, "pca": 4} | options
    return prep.prepare(photos, photos.parent / "captions.csv", photos.parent / "out", **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- names and captions --------------------------------------------------------------------------

SPLITS = ("train", "dev", "test")
STRANGE = [
    "a\u2028b.png",
    "\u2028ab.png",
    "a\x85b.png",
    "a\x0bb.png",
    "a\x1cb.png",
    "é ü.png",
    "sub/a b.png",
]


def test_names_with_other_line_ends_make_a_data_set_that_opens(tmp_path, rng):
    photos = make(tmp_path, rng, STRANGE)
    assert prepare(photos, val=2).problems == []
    content = load_coco_data(tmp_path / "out")
    assert {*content["train_urls"], *content["val_urls"]} == {*STRANGE}


@pytest.mark.parametrize("name", ["a\nb.png", "a\rb.png", "a\r\nb.png", "a\udc80b.png"])
def test_names_that_fit_no_line_are_left_out(photos, name):
    Image.new("RGB", (9, 9)).save(photos / name)
    content = {
        "images": [{"id": i, "file_name": path.name} for i, path in enumerate(photos.iterdir())],
        "annotations": [{"image_id": i, "caption": "A cat"} for i in range(13)],
    }
    (photos.parent / "captions.csv").write_text(json.dumps(content))
    (problem,) = prepare(photos).problems
    assert problem == f"{name}: a name with line ends, or not of Unicode, fits no list"
    load_coco_data(photos.parent / "out")


def test_captions_are_kept_as_they_were_written(photos):
    prepare(photos)
    content = load_coco_data(photos.parent / "out", max_train=5)
    assert 'A dog, and "a" cat .' in content["val_texts"]
    assert (len(content["val_texts"]), len(content["train_texts"])) == (6, 5)
    with (photos.parent / "out/val2014_texts.txt").open("a") as file:
        file.write("one more\n")
    with pytest.raises(ValueError, match="val_texts: expected 6 lines, got 7"):
        load_coco_data(photos.parent / "out")


@pytest.mark.parametrize("long", ["dog " * 20_000, "\u72d7" * 20_000])
def test_long_captions_of_pictures_to_validate_are_cut_and_counted(capsys, photos, long):
    """Also where no spaces stand between the words."""
    with (photos.parent / "captions.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"p{i:02}.png,{long}\n" for i in range(12))
    code, _, err = call(capsys, *arguments(photos, photos.parent / "out"))
    assert code == 0
    assert "3 validation and test captions cut to 100 words" in err
    content = load_coco_data(photos.parent / "out")
    assert content["val_captions"].shape == (9, 102)
    assert content["train_captions"].shape == (27, 17)
    references = metrics.references_by_image(content, "val")
    assert {max(map(len, captions)) for captions in references.values()} == {100}


def test_what_the_file_was_taken_for_is_said_in_a_line(capsys, photos):
    (photos.parent / "captions.csv").write_text(
        "image,caption,split\n" + "".join(f"p{i:02}.png,A cat,{SPLITS[i % 3]}\n" for i in range(12))
    )
    code, out, _ = call(capsys, *arguments(photos, photos.parent / "out"))
    assert code == 0
    said, done = out.splitlines()
    assert said.endswith("CSV with the columns image, caption, split, 12 captions")
    assert "4 + 4 + 4 pictures, 4 + 4 + 4 captions" in done
    content = load_coco_data(photos.parent / "out")
    assert list(content["test_urls"]) == ["p02.png", "p05.png", "p08.png", "p11.png"]
    assert content["test_features"].shape == (4, 4)


def test_a_data_set_without_a_test_split_takes_the_place_of_one_with_it(photos):
    base = photos.parent / "captions.csv"
    rows = base.read_text()
    base.write_text(
        "image,caption,split\n" + "".join(f"p{i:02}.png,A cat,{SPLITS[i % 3]}\n" for i in range(12))
    )
    prepare(photos)
    (photos.parent / "out/train2014_images.txt").write_text("of the published data set")
    before = {*contents(photos.parent / "out")}
    base.write_text(rows)
    prepare(photos, pca=0)
    after = {*contents(photos.parent / "out")}
    gone = before - after
    assert gone == {name for name in before if name.startswith("test") or "pca" in name}
    assert "train2014_images.txt" in after  # only what prepare writes is deleted
    assert "test_captions" not in load_coco_data(photos.parent / "out", pca_features=False)


# ---- a full disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 500, 5_000, 12_000, 22_000])
@pytest.mark.parametrize("there", [False, True])
def test_full_disk_is_one_line_and_leaves_what_was(capsys, photos, room, there):
    out = photos.parent / "out"
    if there:
        prepare(photos, val=4)
    before = contents(out) if there else {}
    command = [sys.executable, "-c", LIMITED, str(room), *map(str, arguments(photos, out))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fastrnn: {out}")
    assert line.endswith(os.strerror(errno.EFBIG))
    assert out.exists() == there
    assert (contents(out) if there else {}) == before


def test_room_for_all_is_asked_for_before_the_work(photos, monkeypatch):
    usage = partial.shutil.disk_usage(photos)._replace(free=1000)
    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        prepare(photos)
    assert not (photos.parent / "out").exists()


# ---- a kill --------------------------------------------------------------------------------------


class Killed(BaseException):
    """In the place of a kill, which leaves no time for anything either."""


def stopping(n):
    def progress(paths):
        for i, path in enumerate(paths):
            if i == n:
                raise Killed
            yield path

    return progress


def begin(photos, n=9):
    with pytest.raises(Killed):
        prepare(photos, progress=stopping(n))


def going_on(photos, **options):
    """How many pictures were looked at, and what was said of those before."""
    looked, said = [], []

    def progress(paths):
        looked.extend(paths)
        return paths

    prepare(photos, progress=progress, note=said.append, **options)
    return len(looked), said[1:]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(
        prep.batches, "__kwdefaults__", prep.batches.__kwdefaults__ | {"batch_size": 4}
    )


def test_a_killed_prepare_goes_on_to_the_same_files(photos):
    out = photos.parent / "out"
    (photos / "p05.png").write_bytes(b"broken")
    prepare(photos)
    whole = {name: load(out / name) for name in contents(out)}
    for path in out.iterdir():
        path.unlink()
    begin(photos, n=11)
    assert {path.name for path in out.iterdir()} == {partial.ROWS, partial.BATCHES}
    looked, said = going_on(photos)
    assert (looked, said) == (4, [f"{out}: going on where 8 of 12 pictures have been done"])
    again = {name: load(out / name) for name in contents(out)}
    assert again.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_equal(again[name], values)


def load(path):
    if path.suffix != ".h5":
        return path.read_bytes()
    with h5py.File(path) as file:
        return {name: values[:] for name, values in file.items()}


REST = b'"pictures": {"p09.png": [0, 0]}, "crc32": 0}'


@pytest.mark.parametrize(("n", "said"), [(9, ["the same command goes on from here"]), (3, [])])
def test_an_interrupted_command_says_how_it_goes_on(capsys, photos, monkeypatch, n, said):
    def interrupted(*_):
        def progress(paths):
            for i, path in enumerate(paths):
                if i == n:
                    raise KeyboardInterrupt
                yield path

        return progress

    monkeypatch.setattr(caption, "bar", interrupted)
    code, _, err = call(capsys, *arguments(photos, photos.parent / "out"))
    assert code == 130
    assert [*filter(None, err.splitlines())] == [*said, "fastrnn: interrupted"]


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda rows, lines: rows.write_bytes(rows.read_bytes()[:-1]), 8),
        (lambda rows, lines: rows.write_bytes(rows.read_bytes() + b"xyz"), 4),
        (lambda rows, lines: rows.write_bytes(b"\1" + rows.read_bytes()[1:]), 12),
        (lambda rows, lines: lines.write_bytes(lines.read_bytes()[:-9]), 8),
        (lambda rows, lines: lines.write_bytes(lines.read_bytes() + b"{}\n[1"), 4),
        (lambda rows, lines: lines.write_bytes(lines.read_bytes() + b'{"shape": [-1], ' + REST), 4),
        (
            lambda rows, lines: lines.write_bytes(lines.read_bytes() + b'{"shape": [1e3], ' + REST),
            4,
        ),
        (lambda rows, lines: lines.write_bytes(b""), 12),
        (lambda rows, lines: rows.unlink(), 12),
    ],
)
def test_what_a_power_cut_has_spoilt_is_done_again(photos, damage, left):
    begin(photos)
    out = photos.parent / "out"
    damage(out / partial.ROWS, out / partial.BATCHES)
    assert going_on(photos)[0] == left
    assert np.isfinite(load_coco_data(out)["train_features"][:]).all()


def test_rows_of_other_weights_or_other_pictures_are_not_taken_up(photos, rng):
    begin(photos)
    made = rng.integers(256, size=(40, 50, 3), dtype=np.uint8)
    Image.fromarray(made).save(photos / "p01.png")
    assert going_on(photos)[0] == 5
    begin(photos)
    pytest.importorskip("torch")
    with pytest.raises(Killed):
        prepare(photos, backbone="squeezenet1_1", weights="none", progress=stopping(5))
    assert going_on(photos)[0] == 12


def test_two_processes_do_not_write_one_data_set(photos):
    script = (
        "import sys, time; from fastrnn.storage import locked\n"
        "with locked(sys.argv[1]): print(flush=True); time.sleep(60)"
    )
    out = photos.parent / "out"
    out.mkdir()
    with subprocess.Popen([sys.executable, "-c", script, out], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(BlockingIOError, match="another process is at work in it"):
            prepare(photos)
        other.kill()


def test_features_are_reduced_and_written_in_blocks(photos, monkeypatch):
    prepare(photos)
    whole = {name: load(photos.parent / "out" / name) for name in contents(photos.parent / "out")}
    monkeypatch.setattr(partial, "BLOCK", 2)
    monkeypatch.setattr(data, "_BLOCK", 2)
    prepare(photos)
    for name, values in whole.items():
        again = load(photos.parent / "out" / name)
        if isinstance(values, dict):
            for key in values.keys() - {"components", "mean", "features"}:
                np.testing.assert_array_equal(again[key], values[key])
            if "pca" not in name and "features" in values:
                np.testing.assert_array_equal(again["features"], values["features"])
            elif "features" in values:
                np.testing.assert_allclose(again["features"], values["features"], atol=1e-4)
        else:
            assert again == values


def test_what_was_taken_of_weights_is_said(photos):
    models, torch = (pytest.importorskip(name) for name in ("torchvision.models", "torch"))
    state = models.squeezenet1_1(num_classes=5).state_dict()
    torch.save({"state_dict": state}, path := photos.parent / "weights.pth")
    said = []
    prepare(photos, backbone="squeezenet1_1", weights=str(path), note=said.append)
    taken = "weights of 'state_dict', without its last layer, of 5 classes"
    assert f"{path}: {taken}" in said
