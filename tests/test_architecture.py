"""The rules of docs/design.md: imports point downward, optional packages stay in their places, both
backends have the same functions with the same parameters."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import fastrnn
from fastrnn.backends import caches, get_backend
from fastrnn.optional import EXTRAS

ROOT = Path(fastrnn.__file__).parent
TREE = ROOT.parent

# What each part may import of fastrnn; a part is the first name below fastrnn.
BELOW = {
    "optional": set(),
    "printing": set(),
    "tokens": set(),
    "gradcheck": set(),
    "optim": {"backends", "layers"},
    "storage": {"optional"},
    "figures": {"fonts", "optional", "storage"},
    "fonts": {"optional"},
    "options": set(),
    "cells": {"options"},
    "backends": {"cells", "options"},
    "layers": {"backends", "cells", "options"},
    "weights": {"cells"},
    "nn": {"backends", "cells", "layers", "optional", "options", "storage", "weights"},
    "training": {"settings"},
    "solver": {"backends", "optim", "settings", "storage", "training"},
    "metrics": {"optional", "printing"},
    "settings": set(),
    "runs": {"settings", "storage"},
    "plots": {"figures", "fonts", "printing"},
    "report": {"optional", "printing", "runs", "storage"},
    "vision": {
        *("figures", "metrics", "optional", "plots", "printing", "report", "runs", "settings"),
        "storage",
        "training",
    },
    "captioning": {
        *("backends", "figures", "layers", "nn", "optim", "optional", "plots", "printing", "runs"),
        *("report", "settings", "solver", "storage", "text", "tokens", "vision", "weights"),
    },
    "text": {
        *("backends", "cells", "layers", "metrics", "nn", "optim", "optional", "plots"),
        *("printing", "report", "runs", "settings", "solver", "storage", "tokens", "weights"),
    },
    "benchmarks": {
        *("backends", "captioning", "cells", "figures", "layers", "nn", "optim", "optional"),
        *("options", "storage", "text", "torch", "weights"),
    },
    "torch": {"backends", "cells", "layers", "nn", "optional", "options", "weights"},
    "cli": {
        *("backends", "benchmarks", "captioning", "layers", "metrics", "optional", "printing"),
        *("report", "settings", "storage", "text", "training", "vision"),
    },
    "__init__": {"backends", "gradcheck", "layers", "optim", "options"},
}
# The only files that may import these, as patterns.
OPTIONAL = {
    "threadpoolctl": {"backends/threadpool.py"},
    "torch": {
        *("torch/*", "vision/*", "captioning/features.py", "nn/state_dict.py"),
        *("benchmarks/models.py", "benchmarks/peers/*torch.py", "benchmarks/peers/modules/*.py"),
    },
    "torchvision": {"vision/*"},
    "h5py": {"captioning/data.py", "nn/keras.py", "benchmarks/hdf5_memory.py"},
    "nltk": {"captioning/metrics.py", "text/corpus.py"},
    "matplotlib": {"figures.py", "fonts.py"},
    "onnx": {"nn/graphs.py", "nn/onnx.py"},
    "onnxruntime": {"benchmarks/peers/*onnxruntime.py"},
    "gensim": {"benchmarks/peers/*gensim.py"},
    "fasttext": {"benchmarks/peers/*fasttext.py"},
    "spacy": {"benchmarks/peers/*spacy.py"},
    "pandas": {"benchmarks/peers/*pandas.py"},
    "jax": {"benchmarks/peers/jax.py"},
    "openvino": {"benchmarks/peers/openvino.py"},
    "tract": {"benchmarks/peers/tract.py"},
    "ncnn": {"benchmarks/peers/ncnn.py"},
    "PIL": {"vision/*", "captioning/prepare.py"},
    "pillow_heif": {"vision/images.py"},
    "safetensors": {"storage.py"},
    "jinja2": {"report/page.py"},
    "tqdm": {"cli/progress.py"},
    "click": {"cli/*"},
    "sklearn": {
        "text/estimator.py",
        "text/targets.py",
        "metrics.py",
        "benchmarks/peers/*sklearn.py",
    },
    "typing_extensions": {"captioning/training.py", "text/training.py"},  # for type checkers alone
}
SCREEN = 50  # lines of a function without its docstring
# The specification of all cells, options and layouts is one walk back through time.
LONGER = {"backends/reference.py backward"}
BRINGING = ("captioning", "text", "vision", "heic", "torch", "onnx", "keras")  # of users


def sources():
    for path in [*ROOT.rglob("*.py")]:
        yield path.relative_to(ROOT).as_posix(), path
    for path in (TREE / "benchmarks").rglob("*.py"):
        yield path.relative_to(TREE).as_posix(), path


SOURCES = sorted(sources())


def imports(path):
    """Modules that a file imports, by statement or by require("module")."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "require"
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value


@pytest.mark.parametrize(("name", "path"), SOURCES, ids=[name for name, _ in SOURCES])
def test_imports_point_downward(name, path):
    part = name.split("/")[0].removesuffix(".py")
    allowed = BELOW[part] | {part}
    for module in imports(path):
        names = module.split(".")
        if names[0] == "fastrnn" and len(names) > 1 and names[1] in BELOW:
            assert names[1] in allowed, f"{name} imports {module}"


@pytest.mark.parametrize(("name", "path"), SOURCES, ids=[name for name, _ in SOURCES])
def test_optional_packages_stay_in_their_places(name, path):
    standard = sys.stdlib_module_names | {"fastrnn", "numpy"}
    for module in imports(path):
        package = module.split(".")[0]
        if package in standard:
            continue
        inside = any(fnmatch(name, place) for place in OPTIONAL[package])
        assert inside, f"{name} imports {module}"


def test_functions_fit_a_screen():
    longer = set()
    for name, path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno - docstring.count("\n")
                longer |= {f"{name} {node.name}"} if lines > SCREEN else set()
    assert longer == LONGER


def test_rules_name_only_what_exists():
    parts = {name.split("/")[0].removesuffix(".py") for name, _ in SOURCES}
    assert set(BELOW) == parts
    for place in set().union(*OPTIONAL.values()):
        assert any(fnmatch(name, place) for name, _ in SOURCES), place


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs tomllib, new in Python 3.11")
def test_missing_packages_name_the_extras_that_bring_them():
    import tomllib

    project = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    programs = {name: project["optional-dependencies"][name] for name in BRINGING}
    for module, (package, *extras) in EXTRAS.items():
        brings = re.compile(rf"{package}\b(?!-)")
        having = [name for name, needs in programs.items() if any(map(brings.match, needs))]
        assert extras == having, module


@pytest.mark.parametrize(
    "module",
    [
        *("fastrnn", "fastrnn.captioning", "fastrnn.nn", "fastrnn.solver", "fastrnn.text"),
        *("fastrnn.vision.backbones", "fastrnn.vision.style", "fastrnn.vision.transfer"),
    ],
)
def test_import_brings_no_optional_package(module):
    script = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "numpy" in loaded
    assert not set(OPTIONAL) & set(loaded)


def public_functions(module):
    return {
        name: f
        for name, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == module.__name__ and not name.startswith("_")
    }


def test_backends_have_the_same_functions_and_parameters():
    reference, compiled = (public_functions(get_backend(name)) for name in ("numpy", "cython"))
    own = ("prepare", "stream", "chain")
    compiled = {name: f for name, f in compiled.items() if name not in own}
    assert reference.keys() == compiled.keys()
    for name, f in reference.items():
        assert inspect.signature(f) == inspect.signature(compiled[name]), name


def test_layers_take_backend_and_document_themselves():
    for name in ("recurrent", "dense", "losses", "attention"):
        for function, f in public_functions(
            importlib.import_module(f"fastrnn.layers.{name}")
        ).items():
            parameter = inspect.signature(f).parameters["backend"]
            assert parameter.kind is parameter.KEYWORD_ONLY, function
            assert parameter.default is None, function
            assert "Returns:" in f.__doc__, function
            hints = set(inspect.get_annotations(f))
            assert hints == set(inspect.signature(f).parameters) | {"return"}, function


@pytest.mark.parametrize("cache", [caches.RNNCache, caches.LSTMCache])
def test_caches_begin_with_the_operands(cache):
    assert cache._fields[:2] == ("x", "h0")
    assert {"Wx", "Wh", "h"} <= set(cache._fields)


def test_public_names_exist():
    for name in fastrnn.__all__:
        assert hasattr(fastrnn, name)
    assert fastrnn.temporal_fc_forward is fastrnn.temporal_affine_forward
    assert fastrnn.__version__
    with pytest.raises(AttributeError):
        _ = fastrnn.no_such_name
