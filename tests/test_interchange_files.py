"""Files of any format that are not what their names say, or are damaged."""

import json
import os
import zipfile

import h5py
import numpy as np
import pytest
import torch

import fastrnn
from fastrnn import nn
from fastrnn.nn.modules import Recurrent
from fastrnn.weights import from_torch, to_keras

MODULE = nn.LSTM(3, 4, seed=0)
PARAMS = {name.removesuffix("_l0"): a for name, a in MODULE.params.items()}


def write_torch(path):
    torch.save({name: torch.from_numpy(a) for name, a in MODULE.params.items()}, path)


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        for i, a in enumerate(to_keras("lstm", from_torch("lstm", **PARAMS))):
            file[f"layers/lstm/cell/vars/{i}"] = a


def write_keras(path):
    layer = {"class_name": "LSTM", "config": {"name": "lstm", "activation": "tanh"}}
    model = {"class_name": "Sequential", "config": {"name": "model", "layers": [layer]}}
    write_hdf5(path.with_suffix(".h5"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(model))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")
    path.with_suffix(".h5").unlink()


WRITERS = {
    ".pt": write_torch,
    ".safetensors": lambda path: nn.save(MODULE, path),
    ".keras": write_keras,
    ".h5": write_hdf5,
    ".onnx": lambda path: nn.to_onnx(MODULE, path),
}
every_format = pytest.mark.parametrize("suffix", WRITERS)


@pytest.fixture
def path(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix](path)
    return path


def assert_refused(path):
    with pytest.raises(ValueError) as error:
        nn.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@every_format
def test_every_format_is_read_from_here(path):
    assert nn.load(path).params.keys() == MODULE.params.keys()


@every_format
def test_files_that_are_cut_are_refused(path):
    content = path.read_bytes()
    for length in (0, 1, 7, 8, 100, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        assert_refused(path)


@every_format
def test_files_of_other_formats_are_refused(suffix, path, tmp_path):
    for other, write in WRITERS.items():
        if {other, suffix} != {".keras"} and other != suffix:
            write(tmp_path / f"other{other}")
            path.write_bytes((tmp_path / f"other{other}").read_bytes())
            assert_refused(path)


@every_format
def test_damaged_bytes_are_refused_or_read_as_numbers(path, rng):
    content = path.read_bytes()
    for place in rng.integers(len(content), size=60).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert isinstance(nn.load(path), Recurrent)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)


@every_format
def test_what_is_no_regular_file_is_refused(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    with pytest.raises(FileNotFoundError, match=str(path)):
        nn.load(path)
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=str(path)):
        nn.load(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=f"^{path}: expected a regular file, got a pipe"):
        nn.load(path)


def test_archives_with_a_huge_config_are_refused(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (1 << 27))
    with pytest.raises(
        ValueError, match=f"^{path}: not a Keras file .config.json: expected at most"
    ):
        nn.load(path)


@every_format
def test_missing_packages_are_named(suffix, path, monkeypatch):
    package, extra = {
        ".pt": ("torch", "vision"),
        ".safetensors": ("safetensors", "captioning"),
        ".keras": ("h5py", "captioning"),
        ".h5": ("h5py", "captioning"),
        ".onnx": ("onnx", "onnx"),
    }[suffix]
    real = fastrnn.optional.importlib.import_module

    def missing(name):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name)

    monkeypatch.setattr(fastrnn.optional.importlib, "import_module", missing)
    message = rf'^this needs {package}, which is not installed: pip install .*"fastrnn\[{extra}\]"'
    with pytest.raises(ModuleNotFoundError, match=message):
        nn.load(path)


def test_numbers_that_no_array_holds_are_refused(tmp_path):
    """A header that declares more numbers than there are."""
    path = tmp_path / "model.safetensors"
    tensors = {"weight_ih_l0": {"dtype": "F32", "shape": [1 << 40, 3], "data_offsets": [0, 16]}}
    header = json.dumps(tensors).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    assert_refused(path)
    assert np.isfinite(MODULE.params["weight_ih_l0"]).all()
