"""More than one process: training by DistributedDataParallel, prediction by Dask's workers, and the
page about them."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from util import FORKS, TWIN, assert_close, assert_same_bits

from fastrnn.text import TextClassifier
from fastrnn.text.grammar import make_reviews

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    (ROOT / "examples" / f"distributed_{name}.py").read_text() for name in ("text", "predict")
]
PAGE = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")


# Dask reads Parquet files in a way that pandas 3.1 warns of.
WARNINGS = ",".join(["error", *FORKS[1:], "ignore:The inplace keyword in DataFrame.reset_index"])


def program(*args):
    """What a Python program prints, whose warnings are errors, also those of its own processes."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": WARNINGS}
    command = [sys.executable, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- training ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """trained(n): what n processes printed, and each one's gradients of the first batch."""
    train = tmp_path_factory.mktemp("reviews") / "train.txt"
    texts, labels, _ = make_reviews(236, seed=1)
    lines = [f"{label} {text}\n" for label, text in zip(labels, texts, strict=True)]
    train.write_text("".join([*lines, "pos\n"]))  # a text without words, too

    def run(processes):
        folder = tmp_path_factory.mktemp("gradients")
        torchrun = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes
        replicas = Path(__file__).with_name("replicas.py")
        printed = program(*torchrun, replicas, folder, "--train", train, "--epochs", 1)
        gradients = [dict(np.load(folder / f"{rank}.npz")) for rank in range(processes)]
        return printed, gradients

    return {n: run(n) for n in (1, 2)}


def test_gradients_are_those_of_one_process_with_the_whole_batch(trained):
    """Means over 64 sentences, or of two means over 32: the same sums in another order."""
    (whole,), (first, second) = trained[1][1], trained[2][1]
    assert len(whole) == 7
    for name, gradient in whole.items():
        assert gradient.any()
        assert_same_bits(first[name], second[name])
        assert_close(first[name], gradient, TWIN["float32"])


def test_replicas_stay_equal_to_the_bit(trained):
    """After three steps."""
    said = re.findall(r"process (\d): \d+\.\d% right, weights ([0-9a-f]{16})\n", trained[2][0])
    (first, digest), (second, other) = sorted(said)
    assert (first, second) == ("0", "1")
    assert digest == other


# ---- prediction ----------------------------------------------------------------------------------


def test_workers_predict_what_one_process_does(tmp_path):
    texts, labels, _ = make_reviews(600, seed=0)
    settings = {"hidden_dim": 8, "embedding_dim": 8, "epochs": 1, "random_state": 0}
    classifier = TextClassifier("lstm", **settings).fit(texts, labels)
    classifier.save(tmp_path / "run")
    frame = pd.DataFrame({"id": np.arange(600), "text": texts})
    (tmp_path / "texts").mkdir()
    for part in range(4):  # one of them is empty
        rows = frame[part * 200 : (part + 1) * 200]
        rows.to_parquet(tmp_path / "texts" / f"part.{part}.parquet", index=False)
    folders = [tmp_path / name for name in ("run", "texts", "out")]
    printed = program(ROOT / "examples" / "distributed_predict.py", *folders, 2)
    assert re.fullmatch(r"[\d,]+ texts/s, threads of each worker: \[1, 1\]\n", printed)
    assert len([*folders[2].iterdir()]) == 4
    got = pd.read_parquet(folders[2]).sort_values("id")
    assert got["text"].tolist() == texts
    assert got["label"].tolist() == classifier.predict(texts).tolist()
    assert len(set(got["label"])) == 2


# ---- the page ------------------------------------------------------------------------------------


def test_page_quotes_the_examples_and_spark_alone_is_not_run():
    *quoted, spark = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(quoted) == 5
    for block in quoted:
        assert any(block in script for script in SCRIPTS), block
    assert "pandas_udf" in spark
    ast.parse(spark)
    assert "Not run" in PAGE[: PAGE.index(spark)].rsplit("##", 1)[1]


def test_page_links_to_what_there_is():
    for link in re.findall(r"\]\((?!http)(.*?)\)", PAGE):
        assert (ROOT / "docs" / link).is_file()
