"""Files: whole or not there, checked when they are read, errors that name them; nobody else's are
touched."""

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_solver import LeastSquares
from util import call, done

from fastrnn import figures, runs, storage, torch_files
from fastrnn.captioning import data as coco
from fastrnn.captioning import features, prepare
from fastrnn.captioning import programs as captions
from fastrnn.captioning.run import read_run
from fastrnn.nn import graphs
from fastrnn.printing import printable
from fastrnn.solver import CHECKPOINT
from fastrnn.text import programs as texts
from fastrnn.text.corpus import read_lines
from fastrnn.text.embeddings import load_vectors
from fastrnn.text.model import TextModel
from fastrnn.vision.images import open_rgb
from fastrnn.vision.style import programs as style

TENSORS = {"a": np.arange(6.0).reshape(2, 3), "b": np.zeros(()), "c": np.ones((2, 3))}


# ---- writing -------------------------------------------------------------------------------------


def test_replaced_file_keeps_its_mode_and_a_link_its_place(tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("{}")
    target.chmod(0o600)
    link.symlink_to(target.name)
    storage.write_json(link, {"x": 1})
    assert link.is_symlink()
    assert storage.read_json(target) == {"x": 1}
    assert target.stat().st_mode & 0o777 == 0o600
    dangling = tmp_path / "dangling.json"
    dangling.symlink_to("made.json")
    storage.write_json(dangling, {"x": 2})
    assert dangling.is_symlink() and storage.read_json(tmp_path / "made.json") == {"x": 2}
    assert len([*tmp_path.iterdir()]) == 4


def test_a_pipe_is_written_through(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (storage.write_json, lambda path, value: storage.write_tensors(path, TENSORS)):
        got = []
        reader = threading.Thread(target=lambda got=got: got.append(pipe.read_bytes()))
        reader.start()
        write(pipe, {"x": 1})
        reader.join(30)
        assert len(got[0]) > 5
        assert pipe.is_fifo()
    storage.check_writable(pipe)


def test_a_device_is_written_to(tmp_path):
    storage.write_tensors("/dev/null", TENSORS)
    with pytest.raises(OSError, match="No space left") as caught:
        storage.write_json("/dev/full", {})
    assert caught.value.filename == "/dev/full"
    assert Path("/dev/full").is_char_device() and Path("/dev/null").is_char_device()


WRITERS = {
    "json": lambda path: storage.write_json(path, {"x": 1}),
    "tensors": lambda path: storage.write_tensors(path, TENSORS),
    "graph": lambda path: graphs.write(path, b"a model"),
    "figure": lambda path: figures.save(figures.new(1, 1), path),
    "picture": lambda path: style.write_picture(path, np.zeros((2, 2, 3), np.uint8)),
    "torch": lambda path: torch_files.write(path, {"x": 1}),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("path", ["/dev/fd/{}", "/proc/self/fd/{}", "/proc/thread-self/fd/{}", "l"])
def test_an_open_file_is_written_where_it_stands(tmp_path, path, name):
    """As a shell's 3>file leaves it; a name for it may be gone."""
    WRITERS[name](tmp_path / "alone")
    expected = len((tmp_path / "alone").read_bytes())
    (tmp_path / "alone").unlink()
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.write(b"before")
        file.flush()
        link = tmp_path / "link"
        link.symlink_to("further")
        (tmp_path / "further").symlink_to(f"/dev/fd/{file.fileno()}")
        there = link if path == "l" else path.format(file.fileno())
        storage.check_writable(there)
        WRITERS[name](there)
        file.write(b"after")
        file.seek(0)
        content = file.read()
    assert content.startswith(b"before") and content.endswith(b"after")
    assert len(content) == len(b"before") + expected + len(b"after")
    assert {p.name for p in tmp_path.iterdir()} == {"link", "further"} and link.is_symlink()


def test_a_socket_is_written_to(tmp_path):
    """As servers and Node give it for a standard output."""
    one, other = socket.socketpair()
    with one, other:
        storage.write_json(f"/dev/fd/{one.fileno()}", {})
        assert other.recv(9) == b"{}\n"


def test_links_in_a_circle_stay(tmp_path):
    path = tmp_path / "x"
    path.symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    for write in (lambda: storage.write_json(path, {}), lambda: storage.check_writable(path)):
        with pytest.raises(OSError, match="Too many levels of symbolic links") as caught:
            write()
        assert str(path) in str(caught.value)
    assert path.is_symlink() and len([*tmp_path.iterdir()]) == 2


def test_a_file_that_is_mounted_by_itself_gets_another_content(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("a longer one than before")

    def busy(*_):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    storage.write_json(path, {})
    assert path.read_text() == "{}\n" and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_standard_output_as_a_file_gets_everything_in_order(tmp_path, kind):
    script = (
        "from fastrnn import storage\n"
        "print('before', flush=True)\n"
        "with storage.writing('/dev/stdout') as file:\n    file.write('text\\n')\n"
        "storage.write_json('/dev/stdout', {})\n"
        "storage.write_json('-', {})\n"
        "print('after')\n"
    )
    out = tmp_path / "out"
    with out.open("wb") as file:
        stdout = file if kind == "file" else subprocess.PIPE
        got = subprocess.run([sys.executable, "-c", script], stdout=stdout, check=True).stdout
    assert (out.read_bytes() if kind == "file" else got) == b"before\ntext\n{}\n{}\nafter\n"
    assert len([*tmp_path.iterdir()]) == 1


def test_error_of_writing_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "x.json"
    storage.write_json(path, {"old": 1})
    with pytest.raises(OSError) as caught, storage.replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "full")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    with pytest.raises(FileNotFoundError) as caught:
        storage.write_json(tmp_path / "no" / "x.json", {})
    assert caught.value.filename == str(tmp_path / "no" / "x.json")
    with pytest.raises(IsADirectoryError):
        storage.write_json(tmp_path, {})
    assert storage.read_json(path) == {"old": 1}
    assert [*tmp_path.iterdir()] == [path]


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
"""


@pytest.mark.parametrize("room", [0, 700, 2500, 13_000])
def test_full_disk_while_hdf5_is_written_is_an_error(tmp_path, room):
    """HDF5 alone ends in a segmentation fault wherever there is room for some of the file."""
    script = LIMITED + (
        "import numpy as np\n"
        "from fastrnn.captioning.data import write_coco_data\n"
        "split = {'captions': np.zeros((9, 5)), 'image_idxs': [0] * 9, 'urls': ['u'] * 9,\n"
        "         'features': np.ones((9, 512))}\n"
        "write_coco_data(sys.argv[2], ['<NULL>'], {'train': split, 'val': split})\n"
    )
    command = [sys.executable, "-c", script, str(room), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    path = tmp_path / "train2014_vgg16_fc7.h5"
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"OSError: [Errno 27] {os.strerror(27)}: {str(path)!r}"
    assert not [*tmp_path.iterdir()]


# ---- what is ours --------------------------------------------------------------------------------

STRANGERS = [
    "checkpoint-backup.safetensors",
    "checkpoint-0000001.safetensors",
    "checkpoint-0000001-0001.safetensors.bak",
    "my-checkpoint-0000001-0001.safetensors",
    ".checkpoint-mine.json",
    ".run-2.json",
    ".notes-1-2.json",
    "classifier-old.safetensors",
]


def test_only_our_own_files_are_deleted(tmp_path):
    for name in STRANGERS:
        (tmp_path / name).write_text("a user's")
    folder = tmp_path / "checkpoint-0000000-0009.safetensors"
    folder.mkdir()
    ours = ["checkpoint-0000002-0001.safetensors", ".checkpoint-12-140000000000.json",
            ".checkpoint-0000001-0000-12-140000000000.safetensors"]  # fmt: skip
    for name in ours:
        (tmp_path / name).write_text("left by a kill")
    LeastSquares(num_epochs=2, checkpoint=tmp_path).train()
    assert all((tmp_path / name).read_text() == "a user's" for name in STRANGERS)
    assert folder.is_dir()
    assert not any((tmp_path / name).exists() for name in ours)
    for name in (".run-1-2.json", ".metrics-1-2.json", ".model-1-2.safetensors", ".curves-1-2.png"):
        (tmp_path / name).write_text("left by a kill")
    with runs.at_work(tmp_path):
        left = {path.name for path in tmp_path.iterdir()}
    state = storage.read_json(tmp_path / CHECKPOINT)
    assert left == {*STRANGERS, folder.name, CHECKPOINT, state["tensors"]}


def test_restore_clears_what_a_kill_behind_the_last_checkpoint_left(tmp_path):
    LeastSquares(num_epochs=1, checkpoint=tmp_path).train()
    (tmp_path / "checkpoint-0000000-0000.safetensors").write_text("old")
    LeastSquares(num_epochs=1, checkpoint=tmp_path).restore()
    assert len([*tmp_path.iterdir()]) == 2


def test_a_folder_is_locked_for_others(tmp_path):
    with (
        storage.locked(tmp_path),
        pytest.raises(BlockingIOError, match="another process is at work"),
        storage.locked(tmp_path),
    ):
        pass
    with storage.locked(tmp_path, shared=True), storage.locked(tmp_path, shared=True):
        pass
    with storage.locked(tmp_path):
        assert not [*tmp_path.iterdir()]


def test_a_lock_ends_with_its_block_though_a_child_has_its_handle(tmp_path):
    with storage.locked(tmp_path):
        child = os.fork()
        if not child:
            threading.Event().wait(60)
            os._exit(0)
    try:
        with storage.locked(tmp_path):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_where_there_are_no_locks_work_goes_on(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with storage.locked(tmp_path):
        pass
    monkeypatch.setattr(storage, "fcntl", None)
    with storage.locked(tmp_path):
        pass


# ---- reading -------------------------------------------------------------------------------------


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def exchange(path):
    """Exchange the names of two tensors of one shape."""
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"?"').replace(b'"c"', b'"a"')
                     .replace(b'"?"', b'"c"'))  # fmt: skip


DAMAGE = {
    "bit": lambda path: flip(path, -9),
    "page": lambda path: path.write_bytes(path.read_bytes()[:-48] + bytes(48)),
    "names": exchange,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_tensors_are_noticed(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    storage.write_tensors(path, TENSORS)
    for name, a in storage.read_tensors(path).items():
        np.testing.assert_array_equal(a, TENSORS[name])
    DAMAGE[damage](path)
    with pytest.raises(ValueError, match="damaged: its tensors are not those") as caught:
        storage.read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_tensors_of_another_time_are_noticed(tmp_path):
    """Whole, but not those that the JSON file was written with."""
    path = tmp_path / "model.json"
    storage.write_named(path, "0" * 12, {}, TENSORS)
    content = storage.read_json(path)
    assert storage.read_named(path, content).keys() == TENSORS.keys()
    storage.write_tensors(tmp_path / content["tensors"], TENSORS | {"b": np.ones(())})
    with pytest.raises(ValueError, match=f"{content['tensors']}: damaged"):
        storage.read_named(path, content)


def test_files_of_the_version_without_checksums_are_read(tmp_path):
    from safetensors.numpy import load_file, save_file

    LeastSquares(num_epochs=1, checkpoint=tmp_path).train()
    state = storage.read_json(tmp_path / CHECKPOINT)
    save_file(load_file(tmp_path / state["tensors"]), tmp_path / state["tensors"])
    del state["sha256"]
    storage.write_json(tmp_path / CHECKPOINT, state)
    solver = LeastSquares(num_epochs=1, checkpoint=tmp_path)
    solver.restore()
    assert solver.epoch == 1


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "..", ".", "", None, 3])
def test_tensors_are_beside_their_file(tmp_path, name):
    with pytest.raises(ValueError, match="tensors: expected the name of a file beside it"):
        storage.read_named(tmp_path / "model.json", {"tensors": name})


# What a checkpoint of LeastSquares says, changed, and what is said of it.
CHECKPOINTS = {
    "order short": (lambda s, t: t.update(order=t["order"][:-1]), "order: expected integers"),
    "order float": (lambda s, t: t.update(order=t["order"] * 1.0), "order: expected integers"),
    "order range": (lambda s, t: t["order"].__setitem__(0, 30), "order: expected 0 to 29"),
    "no order": (lambda s, t: t.pop("order"), "'order'"),
    "params nan": (lambda s, t: t["params/w"].fill(np.nan), "parameter w: expected finite"),
    "params missing": (lambda s, t: t.pop("params/b"), "parameter b: expected"),
    "best shape": (lambda s, t: t.update({"best/w": np.zeros(5)}), "best parameter w: expected"),
    "best dtype": (lambda s, t: t.update({"best/w": np.zeros(4, "f")}), "best parameter w: exp"),
    "best missing": (lambda s, t: t.pop("best/b"), "best parameter b: expected"),
    "no best score": (lambda s, t: s.update(best_score=None), "best parameter b: expected None"),
    "optim shape": (lambda s, t: t.update({"optim/w/m": np.zeros((4, 1))}), "optim w/m: expected"),
    "optim missing": (lambda s, t: t.pop("optim/w/v"), "optim w/v: expected"),
    "optim unknown": (lambda s, t: t.update({"optim/x/m": np.zeros(4)}), "optim x/m: expected"),
    "optim name": (lambda s, t: s["optim"].pop("w"), "optim: expected"),
    "optim value": (lambda s, t: s["optim"]["w"].update(learning_rate="1"), "optim: expected an"),
    "group": (lambda s, t: t.update({"other/x": np.zeros(1)}), "'other'"),
    "epoch": (lambda s, t: s.update(epoch=-1), "epoch: expected an integer of at least 0"),
    "epoch more": (lambda s, t: s.update(epoch=3), "history: expected 3 entries, got 2"),
    "position": (lambda s, t: s.update(position=7), "position: expected the end of a batch"),
    "position far": (lambda s, t: s.update(position=99), "position: expected the end of a batch"),
    "history": (lambda s, t: s.update(history=[1, 2]), "history: expected a list"),
    "losses": (lambda s, t: s.update(loss_history=[1.0]), "loss_history: expected 8 entries"),
    "loss": (lambda s, t: s["loss_history"].__setitem__(0, np.nan), "loss_history: expected a"),
    "generator": (lambda s, t: s.update(generator={}), "not a checkpoint"),
    "generator other": (lambda s, t: s["generator"].update(bit_generator="MT"), "not a checkpoint"),
    "no seconds": (lambda s, t: s.pop("seconds"), "'seconds'"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHECKPOINTS)
def test_restore_refuses_before_it_changes_anything(tmp_path, change):
    """Whole files, with right checksums, of another content."""
    LeastSquares(num_epochs=2, validated=True, checkpoint=tmp_path).train()
    path = tmp_path / CHECKPOINT
    state = storage.read_json(path)
    tensors = storage.read_named(path, state)
    alter, message = CHECKPOINTS[change]
    alter(state, tensors)
    storage.write_named(path, "0000009-0009", state, tensors)
    solver = LeastSquares(validated=True, checkpoint=tmp_path)
    before = {k: repr(v) for k, v in vars(solver).items() if k != "rng"}
    generator = solver.rng.bit_generator.state
    with pytest.raises(ValueError) as caught:
        solver.restore()
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert {k: repr(v) for k, v in vars(solver).items() if k != "rng"} == before
    assert solver.rng.bit_generator.state == generator


READERS = {
    "json": storage.read_json,
    "tensors": storage.read_tensors,
    "picture": open_rgb,
    "lines": lambda path: [*read_lines(path)],
    "vectors": lambda path: load_vectors(path, ["a"]),
    "captions": prepare.read_captions,
    "features": coco.Features,
}


@pytest.mark.parametrize("name", READERS)
def test_only_regular_files_are_read_and_errors_name_them(tmp_path, name):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path, tmp_path / "missing"):
        with pytest.raises((OSError, ValueError)) as caught:
            READERS[name](path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [b"[" * 200_000, b"\xff\xfe", b"[1]", b'"x"', b"", b"{", b'{"a": ' + b"9" * 5000 + b"}", b"\0"],
)
def test_no_json_object_is_refused_with_its_name(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text)
    with pytest.raises(ValueError) as caught:
        storage.read_json(path)
    assert str(caught.value).startswith(f"{path}: ")


# ---- run folders, from outside -------------------------------------------------------------------

SMALL = ["--epochs", "1", "--backend", "numpy"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small run of each program, and the scenes that one was trained on."""
    base = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "REVIEWS", {"train": 60, "dev": 20})
        for name in ("plot_curves", "plot_confusion", "plot_reliability"):
            patch.setattr(texts.plots, name, lambda *_: None)
        patch.setattr(captions, "plot_curves", lambda *_: None)
        prepare.prepare_scenes(base / "data", 12, 4, seed=0)
        with captions.begin(base / "caption", base / "data", {"epochs": 1, "hidden": 4}) as job:
            job.train()
            job.finish()
        settings = {"epochs": 1, "hidden_dim": 4, "embedding_dim": 3}
        with texts.begin(base / "classify", settings, None) as job:
            job.finish(job.training.run())
    return base


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def damaged(run, file, how):
    """Damage a file of a run in one way."""
    path = next(run.glob(file))
    content = path.read_bytes()
    if how == "bit":
        flip(path, -len(content) // 3)
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "deep":
        path.write_bytes(b'{"a":' * 100_000)
    elif how in ("folder", "pipe"):
        path.unlink()
        (path.mkdir if how == "folder" else lambda: os.mkfifo(path))()
    else:
        values = {"list": [1], "text": "x", "null": None, "object": {"x": 1}}
        change_json(path, **dict.fromkeys(json.loads(content), values[how]))
    return path


FILES = {
    "caption": ("run.json", "model.safetensors", "checkpoint.json", "checkpoint-*.safetensors"),
    "classify": ("run.json", "classifier.json", "classifier-*.safetensors", "0/checkpoint.json",
                 "0/checkpoint-*.safetensors"),
}  # fmt: skip


def commands(program, run, base):
    if program == "classify":
        yield [program, "evaluate", run, run / "data/dev.txt"]
        yield [program, "predict", run, run / "data/dev.txt"]
    else:
        yield [program, "evaluate", run]
        images = base / "data/images"
        yield [program, "sample", run, "--images", images, "--out", run / "captions.csv"]
    yield [program, "train", "--resume", "--out", run]  # last, as it writes the model anew


@pytest.mark.filterwarnings("default:.*no report")  # evaluate has its figures without a run.json
@pytest.mark.parametrize(
    ("program", "file"), [(program, file) for program, files in FILES.items() for file in files]
)
def test_damaged_runs_give_one_line_with_the_files_name(
    capsys, whole, tmp_path, monkeypatch, program, file
):
    for target in (texts.plots, captions):
        monkeypatch.setattr(target, "plot_curves", lambda *_: None)
    monkeypatch.setattr(texts.plots, "plot_confusion", lambda *_: None)
    monkeypatch.setattr(texts.plots, "plot_reliability", lambda *_: None)
    hows = ["cut", "empty", "folder", "pipe"]
    hows += ["deep", "list", "text", "null", "object"] if file.endswith("json") else ["bit"]
    for how in hows:
        run = tmp_path / how
        shutil.copytree(whole / program, run)
        path = damaged(run, file, how)
        codes = []
        for arguments in commands(program, run, whole):
            code, _, err = call(capsys, *arguments)
            codes.append(code)
            if code:
                assert code == 1 and err.startswith("fastrnn: ") and err.count("\n") == 1, err
                assert str(path.parent) in err, (how, err)
        assert 1 in codes, how


@pytest.mark.parametrize("program", FILES)
def test_settings_larger_than_the_tensors_allocate_nothing(capsys, whole, tmp_path, program):
    run = tmp_path / "run"
    shutil.copytree(whole / program, run)
    path, name = run / "run.json", "hidden" if program == "caption" else "hidden_dim"
    content = json.loads(path.read_text())
    content["settings"][name] = 10**7
    if program == "caption":
        content["model"]["hidden_dim"] = 10**7
    path.write_text(json.dumps(content))
    code, _, err = call(capsys, program, "train", "--resume", "--out", run)
    assert code == 1 and "checkpoint.json: parameter" in err
    if program == "caption":
        code, _, err = call(capsys, program, "evaluate", run)
        assert code == 1 and "model.safetensors: params/W_proj: expected" in err


@pytest.mark.parametrize("program", FILES)
def test_a_second_training_in_a_folder_is_refused(capsys, whole, tmp_path, program):
    run = tmp_path / "run"
    shutil.copytree(whole / program, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with storage.locked(run):
        for arguments in [*commands(program, run, whole)][::2]:
            code, _, err = call(capsys, *arguments)
            assert (code, err) == (1, f"fastrnn: {run}: another process is at work in it\n")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_names_from_outside_are_printed_in_one_line(capsys, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole / "classify", run)
    change_json(run / "classifier.json", classes=["\x1b[31mred", "a\nb\u2028c"])
    test = tmp_path / "test.txt"
    test.write_text("x y\n" * 3)
    out = done(capsys, "classify", "predict", run, test)
    assert len(out.splitlines()) == 3 and "\x1b" not in out
    assert set(out.split("\n")) <= {"\\x1b[31mred", "a\\nb\\u2028c", ""}
    assert TextModel.load(run).classes == ["\x1b[31mred", "a\nb\u2028c"]
    code, _, err = call(capsys, "classify", "predict", run, tmp_path / "no\x1b[2J\nfile")
    assert code == 1 and "no\\x1b[2J\\nfile: No such file" in err and err.count("\n") == 1
    code, _, err = call(capsys, "classify", "evaluate", run, test)
    assert code == 1 and "\x1b" not in err and err.count("\n") == 1
    assert printable("é ñ \U0001f642 a\tb\udcff") == "é ñ \U0001f642 a\\tb\\udcff"


# ---- before the work -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", "sample", "CAPTION", "--images", "IMAGES", "--out", "OUT"],
        ["caption", "sample", "CAPTION", "--images", "IMAGES", "--out", "x", "--gallery", "OUT"],
        ["caption", "prepare", "--images", "IMAGES", "--captions", "x", "--out", "OUT"],
        ["caption", "train", "DATA", "--out", "OUT"],
        ["caption", "train", "--out", "OUT"],
        ["classify", "train", "--out", "OUT"],
        ["classify", "predict", "CLASSIFY", "TEXT", "--out", "OUT"],
        ["bench", "--out", "OUT"],
    ],
)
def test_what_cannot_be_written_is_found_before_the_work(
    capsys, whole, tmp_path, monkeypatch, arguments
):
    """/proc: nobody can write there, root included."""
    monkeypatch.chdir(tmp_path)
    for work in (coco, "load_coco_data"), (features, "extract"), (texts, "make_reviews"):
        monkeypatch.setattr(*work, None)
    places = {"CAPTION": whole / "caption", "CLASSIFY": whole / "classify", "DATA": whole / "data",
              "IMAGES": whole / "data/images", "OUT": "/proc/out",
              "TEXT": whole / "classify/data/dev.txt"}  # fmt: skip
    code, _, err = call(capsys, *(places.get(argument, argument) for argument in arguments))
    assert code == 1
    assert err.startswith("fastrnn: /proc/out: cannot be written") and err.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_features_that_do_not_fit_are_found_before_the_work(capsys, whole, tmp_path, monkeypatch):
    base = tmp_path / "data"
    shutil.copytree(whole / "data", base)
    path = base / "val2014_vgg16_fc7_pca.h5"

    def refused(message):
        code, _, err = call(capsys, "caption", "train", base, "--out", tmp_path / "run")
        assert code == 1 and err.count("\n") == 1
        assert str(path) in err and message in err, err
        assert not (tmp_path / "run").exists()

    with h5py.File(path, "r+") as file:
        file["features"][3, 1] = np.nan
    refused("row 3: expected finite numbers")
    code, _, err = call(capsys, "caption", "evaluate", whole / "caption", base)
    assert code == 1 and "row 3: expected finite numbers" in err
    for shape, message in (
        ((4, 3), "as many columns as train has"),
        ((4,), "expected 2 dimensions of numbers"),
        ((4, 3, 2), "expected 2 dimensions of numbers"),
    ):
        path.unlink()  # HDF5 remembers the file that was opened
        with h5py.File(path, "w") as file:
            file["features"] = np.zeros(shape, np.float32)
        refused(message)
    path.unlink()
    with h5py.File(path, "w") as file:
        file["features/x"] = np.zeros(3)
    refused("no dataset features")
    path = base / "val2014_urls.txt"
    (base / "val2014_vgg16_fc7_pca.h5").unlink()
    shutil.copy(whole / "data/val2014_vgg16_fc7_pca.h5", base)
    path.write_bytes(b"\xff\n")
    refused("not UTF-8")


@pytest.mark.parametrize("bad", ["width", "nan"])
def test_features_of_pictures_are_checked_with_the_first_batch(whole, monkeypatch, bad):
    asked = []

    def network(*_):
        width = len(read_run(whole / "caption").reduction[0]) + (bad == "width")
        rows = np.full((1, width), np.nan if bad == "nan" else 0.0, np.float32)
        return lambda path: asked.append(path), lambda batch: np.repeat(rows, len(batch), 0)

    monkeypatch.setattr(features, "scenes_network", network)
    monkeypatch.setattr(features.extract, "__kwdefaults__",
                        features.extract.__kwdefaults__ | {"batch_size": 2})  # fmt: skip
    with pytest.raises(ValueError, match="scenes: (expected .* features|features that are not)"):
        captions.caption_images([whole / "caption"], whole / "data/images")
    assert len(asked) == 2
