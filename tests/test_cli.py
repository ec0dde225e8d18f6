"""The command line as scripts use it: outputs, files, exit codes, one-line errors."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from PIL import Image
from util import call

from fastrnn import cli, storage
from fastrnn.captioning import prepare, programs, run, scenes

QUICK = ["--epochs", "2", "--hidden", "16", "--wordvec", "8", "--batch-size", "50"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    base = tmp_path_factory.mktemp("scenes")
    prepare.prepare_scenes(base, 40, 10, seed=0)
    return base


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(SystemExit) as exit_:
        cli.main(["caption", "train", str(data), "--out", str(folder), *QUICK])
    assert exit_.value.code in (0, None)
    return folder


# ---- caption -------------------------------------------------------------------------------------


def test_train_writes_what_it_promises(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"run.json", "model.safetensors", "metrics.json", "curves.png", "gallery.png"} <= names
    assert "checkpoint.json" in names
    metrics = storage.read_json(trained / "metrics.json")
    assert set(metrics["val greedy"]) >= {"bleu1", "bleu2", "bleu3", "bleu4"}
    for name in ("curves.png", "gallery.png"):
        with Image.open(trained / name) as picture:
            pixels = np.asarray(picture.convert("L"))
        assert (pixels < 128).mean() > 0.005  # something is drawn


def test_train_without_data_makes_scenes(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "SCENES", {"train": 30, "val": 6})
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        code, out, _ = call(capsys, "caption", "train", *QUICK)
        assert code == 0
        assert "150 captions of 30 pictures, 6 to validate" in out
        assert (tmp_path / f"runs/caption-{number}/data/coco2014_captions.h5").is_file()
        assert (tmp_path / f"runs/caption-{number}/gallery.png").is_file()


def test_train_repeats_by_seed_and_backends_agree(capsys, data, tmp_path):
    outs = {}
    for name, extra in {
        "one": [], "two": [], "other": ["--seed", "1"], "numpy": ["--backend", "numpy"],
    }.items():  # fmt: skip
        out = tmp_path / name
        assert call(capsys, "caption", "train", data, "--out", out, *QUICK, *extra)[0] == 0
        outs[name] = run.read_run(out).model.params
    for name, w in outs["one"].items():
        np.testing.assert_array_equal(outs["two"][name], w)
        np.testing.assert_allclose(outs["numpy"][name], w, rtol=1e-2, atol=1e-3)  # float32, 8 steps
    assert any((outs["other"][name] != w).any() for name, w in outs["one"].items())


def test_evaluate_adds_to_metrics(capsys, trained, data):
    code, out, _ = call(capsys, "caption", "evaluate", trained, "--beam", "3")
    assert code == 0
    assert "val beam 3: bleu1" in out
    metrics = storage.read_json(trained / "metrics.json")
    assert {"val greedy", "val beam 3", "training"} <= set(metrics)
    code, out, _ = call(capsys, "caption", "evaluate", trained, data, "--split", "train")
    assert code == 0
    assert "train greedy" in out


def test_sample_captions_a_folder(capsys, trained, tmp_path):
    pictures, _ = scenes.make(5, seed=9)
    folder = tmp_path / "new"
    (folder / "sub").mkdir(parents=True)
    names = ["0.png", "1.png", "2.ppm", "sub/3.avif", "sub/4.png"]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(folder / name)
    (folder / "notes.txt").write_text("words")
    (folder / "broken.jpg").write_bytes(b"no picture")
    out, gallery = tmp_path / "new.csv", tmp_path / "gallery.png"
    arguments = ["caption", "sample", trained, "--images", folder, "--out", out]
    code, text, err = call(capsys, *arguments, "--gallery", gallery)
    assert code == 0
    assert "5 captions, 1 pictures left out" in text
    assert "left out: broken.jpg: cannot be read" in err
    assert "note: left out 1 file that is no picture by its name: notes.txt" in err
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["image"] for row in rows] == names
    for row in rows:
        assert not {"<NULL>", "<START>", "<END>", "<UNK>"} & set(row["caption"].split())
    assert gallery.stat().st_size > 10_000
    draws = []
    for seed in (1, 1, 2):
        assert call(capsys, *arguments, "--temperature", "2", "--seed", seed)[0] == 0
        draws.append(out.read_text())
    assert draws[0] == draws[1] != draws[2]


def test_sample_captions_one_picture(capfd, trained, data, tmp_path):
    picture, gallery = min((data / "images").iterdir()), tmp_path / "gallery.png"
    arguments = ["caption", "sample", trained, "--out", "-", "--images"]
    code, said, _ = call(capfd, *arguments, picture, "--gallery", gallery)
    assert code == 0 and gallery.is_file()
    [row] = csv.DictReader(said.splitlines())
    _, all_said, _ = call(capfd, *arguments, data / "images")
    assert row in [*csv.DictReader(all_said.splitlines())] and row["image"] == picture.name
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    for path, message in (
        (broken, "none of 1 pictures could be read (not a readable picture"),
        (tmp_path / "missing.jpg", "no such file or folder"),
    ):
        code, _, err = call(capfd, *arguments, path)
        assert code == 1 and f"fastrnn: {path}: {message}" in err


@pytest.mark.parametrize("out", ["-", "/dev/stdout"])
def test_sample_writes_to_standard_output_and_says_the_rest_elsewhere(
    capfd, trained, data, tmp_path, monkeypatch, out
):
    monkeypatch.chdir(tmp_path)
    arguments = ["caption", "sample", trained, "--images", data / "images", "--beam", 1]
    code, said, err = call(capfd, *arguments, "--out", out)
    assert code == 0 and f"{out}: 50 captions, 0 pictures left out\n" in err
    head, *rows = csv.reader(said.splitlines())
    assert head == ["image", "caption"] and len(rows) == 50
    assert not [*tmp_path.iterdir()]


def test_prepare_reports_and_the_run_remembers_the_backbone(capsys, tmp_path):
    pytest.importorskip("torch")
    folder = tmp_path / "photos"
    folder.mkdir()
    pictures, captions = scenes.make(12, seed=3)
    lines = ["image,caption"]
    for i, (picture, texts) in enumerate(zip(pictures, captions, strict=True)):
        Image.fromarray(picture).save(folder / f"{i:02}.png")
        lines += [f"{i:02}.png,{text}" for text in texts]
    (folder / "03.png").write_bytes(b"broken")
    captions_file = tmp_path / "captions.csv"
    captions_file.write_text("\n".join(lines))
    out, trained = tmp_path / "data", tmp_path / "run"
    code, text, err = call(
        capsys, "caption", "prepare", "--images", folder, "--captions", captions_file,
        "--backbone", "squeezenet1_1", "--weights", "none", "--pca", 6, "--val", 3, "--out", out,
    )  # fmt: skip
    assert code == 0
    assert "8 + 3 pictures, 40 + 15 captions" in text
    assert "6 features, 1 left out" in text
    assert "left out: 03.png: cannot be read" in err
    assert call(capsys, "caption", "train", out, "--out", trained, *QUICK)[0] == 0
    (folder / "03.png").unlink()
    code, text, _ = call(
        capsys, "caption", "sample", trained, "--images", folder, "--out", tmp_path / "s.csv"
    )
    assert code == 0
    assert "11 captions" in text


@pytest.mark.parametrize(
    ("given", "begun"),
    [
        ([], ""),
        (["--zoneout", "0.1", "--recurrent-dropout", "0.2"], ""),
        (["--ensemble", "2"], "1"),
    ],
)
def test_interrupted_training_resumes_to_the_same_model(capsys, data, tmp_path, given, begun):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = ["--hidden", "16", "--wordvec", "8", "--batch-size", "5", "--epochs", "6",
                "--patience", "100", *given]  # fmt: skip
    assert call(capsys, "caption", "train", data, "--out", whole, *settings)[0] == 0
    command = [sys.executable, "-m", "fastrnn.cli", "caption", "train", data, "--out", cut]
    process = subprocess.Popen(
        [*map(str, command), *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert "captions of 40 pictures" in process.stdout.readline()
    while not (cut / begun / "checkpoint.json").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"resume with: fastrnn caption train --resume --out {cut}" in error
    assert "Traceback" not in error
    assert call(capsys, "caption", "evaluate", cut)[0] == 1  # not trained to the end
    assert call(capsys, "caption", "train", "--resume", "--out", cut)[0] == 0
    expected, got = (run.read_run(folder).models for folder in (whole, cut))
    for model, same in zip(expected, got, strict=True):
        for name, w in model.params.items():
            np.testing.assert_array_equal(same.params[name], w)


# ---- usage and errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["nosuchprogram"],
        ["caption", "nosuchverb"],
        ["caption", "train", "--cell", "gru9"],
        ["caption", "train", "--epochs", "0"],
        ["caption", "train", "--resume"],
        ["caption", "prepare"],
        ["caption", "sample", "run", "--images", "x", "--out", "y", "--beam", "2", "--top-k", "3"],
        ["bench", "--shape", "1,2,3"],
        ["bench", "--cells", "tree"],
        ["bench", "--isa", "nonsense"],
        ["bench", "--peers", "nobody"],
        ["bench", "--races", "none"],
        ["bench", "compare", "one.json"],
        ["caption", "sample", "run", "--images", "x", "--out", "no/such/folder/y.csv"],
        ["caption", "sample", "run", "--images", "x", "--out", os.devnull, "--gallery", "no/y.png"],
        *(
            ["caption", "prepare", "--images", "x", "--captions", "y", "--out", "o", *given]
            for given in (["--split", "test", "--grid", "8"], ["--split", "val", "--views", "2"])
        ),
        ["caption", "train", "--clip-norm", "nan"],
        ["classify", "predict", "run", os.devnull, "--threshold", "nan"],
    ],
)
def test_wrong_usage_exits_with_2(capsys, args):
    code, _, err = call(capsys, *args)
    assert code == 2
    assert "Error" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["caption", "train", "nodata"],
            "nodata: not a data set (no coco2014_vocab.json; caption prepare writes it)",
        ),
        (["caption", "evaluate", "norun"], "norun: not a run of caption train (no run.json)"),
        (["caption", "train", "--resume", "--out", "norun"], "norun: not a run"),
        (
            ["caption", "prepare", "--images", "no", "--captions", "c.csv", "--out", "o"],
            "no: no such folder",
        ),
    ],
)
def test_failure_exits_with_1_and_one_line(capsys, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *args)
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("fastrnn: ")
    assert message.lower() in err.lower()
    assert not list(tmp_path.iterdir())  # nothing half-made
    _, _, err = call(capsys, *args, "--debug")
    assert "Traceback" in err


def test_train_does_not_overwrite_a_run(capsys, data, trained):
    before = {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    code, _, err = call(capsys, "caption", "train", data, "--out", trained, *QUICK)
    assert code == 1
    assert "has a run already" in err
    assert before == {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}


@pytest.mark.parametrize(
    "option", [["--learning-rate", "1e-9"], ["--seed", "5"], ["--hidden", "9"]]
)
def test_resume_refuses_to_become_another_run(capsys, trained, option):
    before = (trained / "run.json").read_text()
    code, _, err = call(capsys, "caption", "train", "--resume", "--out", trained, *option)
    assert code == 1
    assert "a resumed run keeps its settings" in err
    assert (trained / "run.json").read_text() == before


def test_settings_of_cells_go_with_the_run(capsys, data, tmp_path):
    given = ["--cell", "gru", "--zoneout", "0.25", "--recurrent-dropout", "0.5"]
    assert call(capsys, "caption", "train", data, "--out", tmp_path / "a", *QUICK, *given)[0] == 0
    model = run.read_run(tmp_path / "a").model
    assert (model.cell_type, model.zoneout, model.recurrent_dropout) == ("gru", 0.25, 0.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--zoneout", "1"], "zoneout: expected a number in [0, 1), got 1.0"),
        (
            ["--cell", "mgu", "--recurrent-dropout", "0.1"],
            "recurrent_dropout: expected 0 of mgu, which has none, got 0.1",
        ),
    ],
)
def test_settings_that_cells_have_not_are_refused(capsys, tmp_path, given, message):
    code, _, err = call(capsys, "caption", "train", "--out", tmp_path / "run", *given)
    assert code == 2 and err.endswith(f"Error: {message}\n")
    assert not [*tmp_path.iterdir()]


def test_runs_of_versions_without_zoneout_are_read(capsys, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    content = storage.read_json(tmp_path / "run/run.json")
    for settings in (content["model"], content["settings"]):
        assert settings.pop("zoneout") == settings.pop("recurrent_dropout") == 0
    (tmp_path / "run/run.json").write_text(json.dumps(content))
    assert call(capsys, "caption", "evaluate", tmp_path / "run")[0] == 0
    assert call(capsys, "caption", "train", "--resume", "--out", tmp_path / "run")[0] == 0


def test_run_moves_with_its_data_and_resumes_without_a_checkpoint(capsys, tmp_path, monkeypatch):
    """As after a kill before the first checkpoint."""
    monkeypatch.setattr(programs, "SCENES", {"train": 30, "val": 6})
    old, new = tmp_path / "old", tmp_path / "new"
    assert call(capsys, "caption", "train", "--out", old, *QUICK)[0] == 0
    expected = run.read_run(old).model.params
    for path in old.glob("*checkpoint*"):
        path.unlink()
    old.rename(new)
    assert call(capsys, "caption", "train", "--resume", "--out", new)[0] == 0
    for name, w in run.read_run(new).model.params.items():
        np.testing.assert_array_equal(w, expected[name])


@pytest.mark.parametrize("pca", [True, False])
def test_train_takes_the_published_layout_as_it_comes(capsys, data, tmp_path, pca):
    """One of the two kinds of features alone, of unknown origin."""
    base = tmp_path / "published"
    shutil.copytree(data, base)
    for split in ("train", "val"):
        (base / f"{split}2014_vgg16_fc7{'' if pca else '_pca'}.h5").unlink()
        with h5py.File(base / f"{split}2014_vgg16_fc7{'_pca' if pca else ''}.h5", "r+") as file:
            file["features"].attrs.clear()
            for name in {"mean", "components"} & set(file):
                del file[name]
        (base / f"{split}2014_urls.txt").write_text(
            "".join(f"http://host/{i}.jpg\n" for i in range(40 if split == "train" else 10))
        )
    out = tmp_path / "run"
    code, text, _ = call(capsys, "caption", "train", base, "--out", out, *QUICK)
    assert code == 0
    assert "see report.html and curves.png" in text
    assert call(capsys, "caption", "evaluate", out, "--beam", 2)[0] == 0
    code, _, err = call(
        capsys, "caption", "sample", out, "--images", data / "images", "--out", tmp_path / "s.csv"
    )
    assert code == 1
    assert "trained on features from elsewhere" in err


def test_run_of_another_format_is_refused(capsys, trained, tmp_path):
    content = storage.read_json(trained / "run.json")
    (tmp_path / "run.json").write_text(json.dumps(content | {"format": 99}))
    code, _, err = call(capsys, "caption", "evaluate", tmp_path)
    assert code == 1
    assert "expected format 1, got 99" in err


@pytest.mark.parametrize(
    "args", [[], ["caption"], *(["caption", v] for v in ("prepare", "train", "evaluate", "sample"))]
)
def test_help_shows_examples(capsys, args):
    code, out, _ = call(capsys, *args, "--help")
    assert code == 0
    assert "Usage: fastrnn" in out
    if args:
        assert "Example" in out


def test_info_says_what_runs(capsys):
    code, out, _ = call(capsys, "info")
    assert code == 0
    for word in ("backend", "cython", "isa", "cpus", "threads"):
        assert word in out


@pytest.mark.parametrize(
    ("package", "args", "extra"),
    [
        ("click", ["info"], "captioning"),
        ("h5py", ["caption", "train", "data"], "captioning"),
        ("safetensors", ["caption", "train"], "captioning"),
        ("torch", ["caption", "prepare"], "vision"),
    ],
)
def test_missing_package_names_the_extra(tmp_path, data, package, args, extra):
    """A package that cannot be imported, as if it were not installed."""
    script = (
        "import sys\n"
        f"class Missing:\n"
        f"    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {package!r}:\n"
        f"            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from fastrnn.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    if args == ["caption", "prepare"]:
        (tmp_path / "c.csv").write_text("image,caption\n00000.png,a cat\n")
        args = [*args, "--images", data / "images", "--captions", tmp_path / "c.csv",
                "--out", tmp_path / "o"]  # fmt: skip
    if args[-1] == "data":
        args = [*args[:-1], data]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert f'pip install "fastrnn[{extra}]"' in done.stderr


def test_modules_of_torch_name_the_extra():
    code = "import sys; sys.modules['torch'] = None; import fastrnn.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    message = "ModuleNotFoundError: this needs torch, which is not installed: pip install "
    assert done.stderr.splitlines()[-1] == f'{message}"fastrnn[vision]" or "fastrnn[torch]"'
