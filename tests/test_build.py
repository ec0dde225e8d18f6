"""The ways to install: from the sdist, with rude CFLAGS, without the extension, without a compiler.

Each is built in a copy of the tree by the setuptools of this environment.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import Cython
import numpy
import pytest

TREE = Path(__file__).parent.parent
SOURCES = ("benchmarks", "fastrnn", "src_c", "LICENSE", "README.md", "pyproject.toml", "setup.py")


@pytest.fixture
def tree(tmp_path):
    copy = tmp_path / "tree"
    copy.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "_kernels.c")
    for name in SOURCES:
        if (TREE / name).is_dir():
            shutil.copytree(TREE / name, copy / name, ignore=ignore)
        else:
            shutil.copy(TREE / name, copy / name)
    return copy


def build(tree, kind, check=True, **variables):
    """python -m build without network; the finished process and what lies in dist/."""
    done = subprocess.run(
        [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", "dist"],
        cwd=tree,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done, sorted((tree / "dist").glob("*")) if check else []


def run_installed(wheel, folder, script):
    """Unpack a wheel and run a script on it alone; its output."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    # -c puts the working directory first on the path.
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def compiled_in(wheel):
    """Whose code a wheel holds beside its own, with versions, as its bill of materials has it."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if ".dist-info/sboms/" in name]
        bill = json.loads(archive.read(name))
    product, parts = bill["metadata"]["component"], bill["components"]
    assert wheel.name.startswith(f"{product['name']}-{product['version']}-")
    assert product["licenses"] == [{"expression": "MIT"}]
    (needs,) = bill["dependencies"]
    assert needs == {"ref": product["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]}
    return {part["name"]: part["version"] for part in parts}


LSTM = """
import os, numpy as np, fastrnn
assert fastrnn.__file__.startswith(os.getcwd())
rng = np.random.default_rng(0)
args = [rng.standard_normal(s) for s in ((40, 20, 30), (40, 32), (30, 128), (32, 128), (128,))]
expected, _ = fastrnn.lstm_forward(*args, backend="numpy")
"""


def test_sdist_holds_every_source_and_builds_whatever_the_flags(tree, tmp_path):
    _, (sdist,) = build(tree, "sdist", FASTRNN_NO_EXTENSION="1")  # which an sdist does not heed
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
        archive.extractall(tmp_path / "unpacked", filter="data")
    for path in [
        *tree.glob("src_c/*.[ch]"),
        *tree.glob("fastrnn/**/*.py*"),
        *tree.glob("benchmarks/**/*.py"),
    ]:
        relative = path.relative_to(tree).as_posix()
        if not relative.endswith((".pyc", "__pycache__")):
            assert relative in names, relative
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    _, (wheel,) = build(unpacked, "wheel", CFLAGS="-Ofast")
    assert compiled_in(wheel) == {"cython": Cython.__version__, "numpy": numpy.__version__}
    done = run_installed(
        wheel,
        tmp_path / "installed",
        LSTM + "fastrnn.set_num_threads(4)\n"
        "h, _ = fastrnn.lstm_forward(*args)\n"
        "np.testing.assert_allclose(h, expected, rtol=1e-12, atol=1e-14)\n"
        "assert fastrnn.show_config()['backend'] == 'cython'\n"
        "assert np.float32(2e-38) / np.float32(4) > 0  # a subnormal number\n",
    )
    assert done.returncode == 0, done.stderr
    for module in (tmp_path / "installed").rglob("*.so"):
        # Hidden symbols cannot meet those of another library.
        command = ["nm", "-D", "--defined-only", "--format=just-symbols", module]
        symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert symbols.split() == [f"PyInit_{module.name.split('.')[0]}"]


def test_install_without_extension_never_falls_back(tree, tmp_path):
    _, (wheel,) = build(tree, "wheel", FASTRNN_NO_EXTENSION="1")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".so", ".pyd"))]
    assert compiled_in(wheel) == {}
    done = run_installed(
        wheel,
        tmp_path / "installed",
        LSTM + "assert fastrnn.show_config()['extension'] == 'not built'\n"
        "try:\n    fastrnn.lstm_forward(*args)\n"
        "except ImportError as error:\n    print(error)\n"
        "fastrnn.set_backend('numpy')\n"
        "assert np.array_equal(fastrnn.lstm_forward(*args)[0], expected)\n",
    )
    assert done.returncode == 0, done.stderr
    assert 'backend="cython": the extension is not built here' in done.stdout


def test_install_without_compiler_fails_in_one_sentence(tree):
    done, _ = build(tree, "wheel", check=False, CC="/no/such/compiler")
    assert done.returncode != 0
    assert "fastrnn: no working C compiler (/no/such/compiler" in done.stdout + done.stderr
    assert "FASTRNN_NO_EXTENSION=1" in done.stdout + done.stderr


def test_big_endian_cpus_are_refused():
    big = ["-U__BYTE_ORDER__", "-D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__"]
    command = [*os.environ.get("CC", "cc").split(), "-E", *big, TREE / "src_c" / "kernels.h"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "fastrnn: no kernels for big-endian CPUs; FASTRNN_NO_EXTENSION=1" in done.stderr
