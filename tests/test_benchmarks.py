"""The benchmark suite: what it counts, what it refuses, what it says; one race of two peers."""

import io
import json
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from util import call

from fastrnn import storage
from fastrnn.benchmarks import (
    cases,
    guard,
    operands,
    page,
    peers,
    process,
    race,
    report,
    results,
    tables,
    texts,
    worker,
)
from fastrnn.benchmarks.cases import CELLS, Case, Choice

CONFIG = {"threads": 2, "isa": "avx2", "dtype": "float32", "rounds": 2, "quick": False}


def made_up(case, **ratios):
    """A row in which fastrnn takes a microsecond, for a step of many, and each racer so many."""
    if case.race == "memory":
        sizes = {name: ratio * 2**20 for name, ratio in ratios.items()}
        figures = {"bytes": {"fastrnn": 2**20, **sizes}, "ratios": ratios}
    else:
        call = 1e-6 * case.units
        turns = {name: [ratio * call] for name, ratio in {"fastrnn": 1, **ratios}.items()}
        figures = race.figures(case, turns, [1e12] if case.flops else [])
    return {**case.asdict(), "name": case.name, **figures}


def made_up_run(**ratios):
    """Every case of every race."""
    chosen = cases.choose(cases.RACES, Choice(CELLS, "float32"))
    return report.result([made_up(case, **ratios) for case in chosen], CONFIG)


LSTM = Case("layers", "lstm", "forward", 2, 3, 5, 7)

# ---- cases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "G"), [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_flops_of_a_layer(cell, G):
    forward = 2 * 2 * 3 * (5 + 7) * G * 7
    assert Case("layers", cell, "forward", 2, 3, 5, 7).flops == forward
    assert Case("layers", cell, "forward+backward", 2, 3, 5, 7).flops == 3 * forward
    assert Case("layers", cell, "bidirectional", 2, 3, 5, 7).flops == 6 * forward


def test_flops_of_an_iteration_count_every_product():
    case = Case("captioning", "lstm", "iteration", 2, 3, 5, 7, W=4, V=11)
    layer, projection, scores = 2 * 6 * (4 + 7) * 28, 2 * 2 * 5 * 7, 2 * 6 * 7 * 11
    assert case.flops == 3 * (layer + projection + scores)


def test_flops_of_lengths_count_the_steps_there_are():
    full = Case("layers", "gru", "forward+backward", 40, 20, 5, 7)
    some = Case("lengths", "gru", "forward+backward", 40, 20, 5, 7)
    assert some.lengths.min() >= 1
    assert some.lengths.max() <= 20
    assert some.steps == some.lengths.sum() < full.steps == 800
    assert some.flops / full.flops == pytest.approx(some.steps / full.steps)


def test_names_are_unique_and_rows_give_their_case_back():
    chosen = cases.choose(cases.RACES, Choice(CELLS, "float32"))
    assert len({case.name for case in chosen}) == len(chosen)
    for case in chosen:
        assert Case.of(json.loads(json.dumps(case.asdict() | {"seconds": {}}))) == case
    quick = cases.choose(cases.RACES, Choice(CELLS, "float32", quick=True))
    assert set(quick) < set(chosen)
    assert [case.N for case in quick if case.direction == "load"] == [40_000]


def test_resets_are_some_of_the_steps():
    resets = Case("resets", "gru", "forward+backward", 100, 50, 5, 7).resets
    assert resets.shape == (100, 50)
    assert resets.mean() == pytest.approx(cases.RESETS, abs=0.02)
    assert LSTM.resets is None


def test_shapes_replace_the_standard_ones():
    choice = Choice(["gru"], "float64", [(2, 3, 5, 7)])
    chosen = cases.choose(["layers", "lengths", "resets", "memory"], choice)
    assert [(case.race, case.direction) for case in chosen] == [
        ("layers", "forward"),
        ("layers", "forward+backward"),
        ("lengths", "forward+backward"),
        ("lengths", "bidirectional"),
        ("resets", "forward+backward"),
        ("memory", "forward+backward"),
    ]
    assert {(case.shape, case.dtype) for case in chosen} == {("(2,3,5,7)", "float64")}


def test_operands_are_the_same_in_every_process(tmp_path):
    first, second = operands.draw(LSTM, tmp_path), operands.draw(LSTM, tmp_path)
    for name, a in first.items():
        np.testing.assert_array_equal(a, second[name])
        assert a.dtype == "float32"


# ---- correctness before timing -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ({"h": np.array([1.0, 2.001])}, "h differs from the reference by 5.0e-04"),
        ({"h": np.array([1.0, np.nan])}, "h differs from the reference by nan"),
        ({"h": np.ones((2, 1))}, r"h: expected shape \(2,\), got \(2, 1\)"),
        ({"dx": np.array([1.0, 2.0])}, r"h: expected shape \(2,\), got None"),
    ],
)
def test_wrong_results_are_refused(got, message):
    expected = {"h": np.array([1.0, 2.0])}
    worker.check({"h": np.array([1.0, 2.0001])}, expected, 1e-4)
    with pytest.raises(ValueError, match=message):
        worker.check(got, expected, 1e-4)


def test_zeros_are_zeros():
    """As the gradient of Wh where no step follows a state."""
    worker.check({"dWh": np.zeros(2)}, {"dWh": np.zeros(2)}, 1e-4)
    with pytest.raises(ValueError, match="dWh differs from the reference by inf"):
        worker.check({"dWh": np.array([0, 1e-9])}, {"dWh": np.zeros(2)}, 1e-4)


def test_worker_times_only_what_has_matched(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "SETTLE_SECONDS", 0)

    def serve(*commands):
        lines, answers = io.StringIO("".join(map("{}\n".format, commands))), io.StringIO()
        worker.serve("numpy", tmp_path, lines, answers)
        return [json.loads(line) for line in answers.getvalue().splitlines()]

    def command(do, **arguments):
        return json.dumps({"do": do, **arguments})

    build = command("build", case=LSTM.asdict(), compare=True)
    time = command("time", idiom="", seconds=0.001)
    other = Case("layers", "lstm", "forward", 2, 3, 5, 8).asdict()
    built, timed = serve(command("expect", case=LSTM.asdict()), build, time)[1:]
    assert built == {"answer": {"": None}}
    assert 0 < timed["answer"] < 1
    _, refused, _ = serve(command("expect", case=other), build, time)
    assert refused == {"error": "h: expected shape (2, 3, 8), got (2, 3, 7)"}


def small_cases(dtype):
    """One of each race, cell and direction that starts from arrays."""
    races = [name for name in cases.RACES if name not in ("text", "cells", *cases.OF_MODULES)]
    chosen = cases.choose(races, Choice(CELLS, dtype))
    kinds = {(case.race, case.cell, case.direction): case for case in chosen}
    for case in kinds.values():
        if not case.of_text:  # as those of memory
            N, (W, V) = min(case.N, 5), (3, 11) if case.V else (0, 0)
            yield replace(case, N=N, T=min(case.T, 4), D=6, H=7, W=W, V=V)


@pytest.mark.parametrize("peer", ["fastrnn", "torch"])
@pytest.mark.parametrize("case", [*small_cases("float64")], ids=lambda case: case.name)
def test_peers_run_the_same_cases(peer, case, tmp_path):
    """Values and gradients, through the conversion of weights and layouts."""
    worker.Worker("numpy", tmp_path).expect(case.asdict())
    assert worker.Worker(peer, tmp_path).build(case.asdict(), True)


# PyTorch says so once in a process.
NO_ONEDNN = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@NO_ONEDNN
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("race", cases.OF_MODULES)
def test_modules_are_raced_by_torch_and_fastrnn(race, dtype, tmp_path):
    """Every form; what is compared are values and the gradients of all parameters."""
    reference, tested = (worker.Worker(name, tmp_path) for name in ("torch", "fastrnn"))
    idioms = {}
    for case in cases.choose([race], Choice(CELLS, dtype, [(1, 1, 6, 7), (3, 4, 6, 7)])):
        assert peers.reference(case) == "torch"
        reference.expect(case.asdict())
        for name in tested.build(case.asdict(), True):
            idioms.setdefault(name, set()).add(case.form)
    others = {"torch": {"functions": {""}}, "models": {"loop": {"recurrent policy"}}}
    every = {"torch": set(cases.USES), "models": set(cases.MODELS)}
    assert idioms == {"": every[race]} | others[race]


def test_standard_modules_are_those_of_the_programs():
    """Sizes, and the forms that are one cell's alone."""
    chosen = cases.choose(cases.OF_MODULES, Choice(CELLS, "float32"))
    assert {case.cell for case in chosen if case.form == "projected"} == {"lstm"}
    float64 = {case.shape for case in chosen if case.dtype == "float64"}
    assert float64 == {"(1,100,64,64)", "(10,17,256,512)", "(32,50,100,128)"}
    (recognition,) = (case for case in chosen if case.form == "text recognition")
    assert recognition.lengths.shape == (16,)
    assert recognition.lengths.max() <= 256
    (policy,) = (case for case in chosen if case.form == "recurrent policy")
    assert policy.resets.shape == (2, 128)
    assert {case.flops for case in chosen} == {0}


FORMS = cases.choose(["cells"], Choice(CELLS, "float64", [(3, 4, 6, 7)]))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which torch.compile looks at
@pytest.mark.parametrize("case", FORMS, ids=lambda case: f"{case.cell}, {case.form}")
def test_cells_and_options_are_raced_by_loops_of_torch(case, tmp_path, monkeypatch):
    """Every form, values and gradients; what is compiled is traced, its code is not generated."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    worker.Worker("numpy", tmp_path).expect(case.asdict())
    assert set(worker.Worker("fastrnn", tmp_path).build(case.asdict(), True)) == {"", "plain"}
    some = {"projection": {"script", "layer"}, "clip of gradients": set()}
    idioms = {"eager", "compiled"} | some.get(case.form, {"script"})
    assert set(worker.Worker("torch", tmp_path).build(case.asdict(), True)) == idioms
    assert [p for p in peers.PACKAGES if peers.knows(p, case)] == ["fastrnn", "numpy", "torch"]


def test_gradients_with_steps_are_compared_in_float64(tmp_path):
    for form, dtype in {"clip": "float64", "zoneout": "float32"}.items():
        case = Case("cells", "lstm", "forward+backward", 3, 4, 6, 7, form=form)
        worker.Worker("numpy", tmp_path).expect(case.asdict())
        with np.load(tmp_path / worker.EXPECTED) as expected:
            assert {a.dtype for a in expected.values()} == {np.dtype(dtype)}
        assert worker.Worker("fastrnn", tmp_path).build(case.asdict(), True)


STEPS = {("step", direction) for direction in ("step", "stream", "steps")}
INFERENCE = STEPS | {("layers", "forward")}
# Races and directions in float32 and in float64.
PEERS_OF_SOME = {
    "jax": dict.fromkeys(
        ("float32", "float64"),
        {(case.race, case.direction) for case in small_cases("float32")}
        - {("captioning", "iteration")},
    ),
    "onnxruntime": {"float32": INFERENCE, "float64": set()},
    "openvino": {"float32": INFERENCE, "float64": set()},
    "tract": {"float32": STEPS, "float64": set()},
    "ncnn": {"float32": STEPS, "float64": set()},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("peer", PEERS_OF_SOME)
def test_peers_run_what_they_can(peer, dtype, tmp_path):
    """Results are those of the reference; what a peer has no idiom for, it says so."""
    if packages := peers.missing(peer):
        pytest.skip(f"{' and '.join(packages)} not installed")
    reference, tested = (worker.Worker(name, tmp_path) for name in ("numpy", peer))
    ran = set()
    for case in small_cases(dtype):
        reference.expect(case.asdict())
        if tested.build(case.asdict(), True):
            ran.add((case.cell, case.race, case.direction))
    some = PEERS_OF_SOME[peer][dtype]
    assert ran == {(cell, *kind) for cell in CELLS for kind in some}


SMALL_TEXTS = {
    case.direction + " " + case.cell: case
    for case in (
        Case("text", "lstm", "training", 128, 12, 5, 7, "float64", V=30),
        Case("text", "bow", "fit", 3000, 12, 0, 0, "float64", V=300),
        Case("text", "avg", "fit", 3000, 12, 5, 0, "float64", V=300),
        Case("text", "lstm", "predict", 1, 6, 5, 7, "float64", V=30),
        Case("text", "bow", "predict", 1, 6, 0, 0, "float64", V=30),
        Case("text", "avg", "predict", 1, 6, 5, 0, "float64", V=30),
        Case("text", "vectors", "load", 40, 1, 6, 0, "float64", V=11),
    )
}
PEERS_OF_TEXTS = {
    "fastrnn": set(SMALL_TEXTS),
    "torch": {"training lstm", "predict lstm"},
    "onnxruntime": {"predict lstm"},
    "sklearn": {"fit bow", "predict bow"},
    "pandas": {"load vectors"},
    "gensim": {"load vectors"},
    "fasttext": {"fit avg", "predict avg"},
    "spacy": {"fit bow", "predict bow"},
}
FLOAT32_ALONE = ("onnxruntime", "fasttext", "spacy")


# gensim leaves a file open.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored.*FileIO:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("peer", PEERS_OF_TEXTS)
def test_peers_run_the_same_texts(peer, tmp_path):
    """Results are those of the reference; what a peer has no idiom for, it says so."""
    if packages := peers.missing(peer):
        pytest.skip(f"{' and '.join(packages)} not installed")
    reference, tested = (worker.Worker(name, tmp_path) for name in ("numpy", peer))
    ran = set()
    for name, case in SMALL_TEXTS.items():
        if peer in FLOAT32_ALONE:
            case = replace(case, dtype="float32")
        reference.expect(case.asdict())
        built = tested.build(case.asdict(), True)
        fits = case.direction == "fit"
        assert all((accuracy is not None) is fits for accuracy in built.values())
        ran |= {name} if built else set()
    assert ran == PEERS_OF_TEXTS[peer]


def test_peers_are_asked_only_what_they_know():
    text, known = SMALL_TEXTS["predict lstm"], dict.fromkeys(peers.PACKAGES, True)
    layers_alone = dict.fromkeys(("jax", "openvino", "tract", "ncnn"), False)
    assert {peer: peers.knows(peer, text) for peer in known} == known | layers_alone
    others = ("sklearn", "pandas", "gensim", "fasttext", "spacy")
    assert {peer: peers.knows(peer, LSTM) for peer in known} == known | dict.fromkeys(others, False)
    module = Case("torch", "lstm", "forward", 2, 3, 5, 7)
    assert {peer for peer in known if peers.knows(peer, module)} == {"fastrnn", "torch"}


@pytest.mark.parametrize("races", [["--races", "models"], []])
def test_modules_are_not_raced_without_torch(races, capsys, tmp_path, monkeypatch):
    """All races are those that can be run; asked for by name they are an error."""
    monkeypatch.setitem(peers.PACKAGES, "torch", ("no_such_package",))
    monkeypatch.setattr(race, "race", lambda chosen, *_, **__: [made_up(case) for case in chosen])
    code, out, err = call(
        capsys, "bench", "--peers", "numpy", *races, "--cells", "rnn", "--out", tmp_path / "out"
    )
    if races:
        assert code == 1
        assert "the peer torch needs no_such_package" in err
    else:
        assert code == 0
        assert report.TITLES["text"] in out
        assert report.TITLES["torch"] not in out


def test_race_asks_each_peer_what_it_knows():
    """Accuracies come with the times; a share of the peak comes where there are flops."""
    layer, fit = race.race(
        [LSTM, SMALL_TEXTS["fit bow"]], ["sklearn"], threads=1, rounds=1, seconds=0.001
    )
    assert set(layer["seconds"]) == {"fastrnn"}
    assert layer["share_of_peak"] > 0
    assert "accuracy" not in layer
    assert set(fit["seconds"]) == set(fit["accuracy"]) == {"fastrnn", "sklearn"}
    assert 0.8 < min(fit["accuracy"].values()) < 1
    assert "share_of_peak" not in fit


def test_a_worse_accuracy_is_refused(tmp_path):
    case = SMALL_TEXTS["fit bow"].asdict()
    np.savez(tmp_path / worker.EXPECTED, accuracy=0.5)
    with pytest.raises(ValueError, match="accuracy differs from the reference"):
        worker.Worker("fastrnn", tmp_path).build(case, True)


def test_made_up_sentences_are_like_real_ones():
    sentences, y = texts.make_sentences(20_000, 40, 8000)
    assert sentences.lengths.mean() == pytest.approx(10, abs=0.1)
    assert (sentences.lengths.min(), sentences.lengths.max()) == (1, 40)
    counts = np.sort(np.bincount(sentences.words, minlength=8000))[::-1]
    assert 5 < counts[0] / counts[9] < 20  # Zipf's law
    assert sentences.words.min() == 1  # none is unknown
    assert y.mean() == pytest.approx(0.5, abs=0.02)


def test_made_up_vectors_are_a_file_that_is_written_once(tmp_path):
    case = SMALL_TEXTS["load vectors"]
    drawn = texts.draw(case, tmp_path)
    lines = drawn["path"].read_text().splitlines()
    assert [line.split()[0] for line in lines] == [f"w{i}" for i in range(40)]
    assert {len(line.split()) for line in lines} == {7}
    assert len(set(drawn["words"])) == 11
    written = drawn["path"].stat().st_mtime_ns
    assert texts.draw(case, tmp_path) == drawn
    assert drawn["path"].stat().st_mtime_ns == written


def test_missing_peer_names_the_extra(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(peers.PACKAGES, "jax", ("no_such_package",))
    code, _, err = call(capsys, "bench", "--peers", "numpy,jax", "--out", tmp_path / "out")
    assert code == 1
    assert err == (
        "fastrnn: the peer jax needs no_such_package, which is not installed: "
        'pip install "fastrnn[bench]"\n'
    )
    assert not (tmp_path / "out").exists()


def test_environment_bounds_every_pool():
    env = process.environment("torch", 3, "avx2")
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
    assert {env[name] for name in names} == {"3"}
    assert env["OPENBLAS_NUM_THREADS"] == "1"
    assert process.environment("numpy", 3, "avx2")["OPENBLAS_NUM_THREADS"] == "3"
    assert env["FASTRNN_ISA"] == "avx2"


def test_peers_are_held_to_an_instruction_set(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--one")
    held = process.HELD["avx2"] | {"XLA_FLAGS": "--one --xla_cpu_max_isa=AVX2"}
    assert process.environment("torch", 3, "avx2").items() >= held.items()
    free = process.environment("torch", 3, "avx512")
    assert free["XLA_FLAGS"] == "--one"
    assert not {*process.HELD["avx2"], "XLA_FLAGS"} - {*os.environ} & {*free}
    monkeypatch.setenv("FASTRNN_ISA", "avx2")
    assert process.environment("torch", 3, "best").items() >= held.items()
    monkeypatch.delenv("XLA_FLAGS")
    assert process.environment("torch", 3, "avx2").items() >= process.HELD["avx2"].items()


def test_report_names_the_peers_that_are_not_held():
    held = report.result([made_up(LSTM, torch=2)], CONFIG)
    free = held | {"rows": [made_up(LSTM, torch=2, openvino=3, tract=3, jax=0.5)]}
    free["machine"] = held["machine"] | {"isa": "avx512"}
    assert report.where(free).endswith(
        " Not held to avx2, which nothing can do: tract, the matrix products of jax."
    )
    assert "Not held" not in report.where(free | {"config": CONFIG | {"isa": "avx512"}})
    assert "Not held" not in report.where(free | {"machine": free["machine"] | {"isa": "avx2"}})
    assert "Not held" not in report.where(held)


def test_page_counts_the_peers_that_are_held_and_says_what_the_others_did():
    rows = [made_up(LSTM, torch=2, tract=0.5)]
    result = report.result([made_up(LSTM, torch=2)], CONFIG) | {"rows": rows}
    text = page.section(result)
    assert "2.00 torch" in text
    assert "All rows: 2.00; with tract too, 0.50." in text
    text = page.section(result | {"config": CONFIG | {"isa": "avx512"}})
    assert "**0.50** tract" in text
    assert "All rows: 0.50." in text


# ---- figures -------------------------------------------------------------------------------------


def test_ratios_are_taken_round_by_round():
    """The third round was slow for all."""
    turns = {"fastrnn": [1, 2, 90], "torch": [2, 6, 180], "torch b": [3, 3, 90]}
    figures = race.figures(LSTM, turns, [LSTM.flops, LSTM.flops / 2, LSTM.flops])
    assert figures["seconds"] == {"fastrnn": 2, "torch": 6, "torch b": 3}
    assert figures["ratios"] == {"torch": 2, "torch b": 1.5}
    assert figures["share_of_peak"] == 1
    assert figures["gflops"] == LSTM.flops / 2 / 1e9


def test_many_steps_in_a_call_are_told_a_step():
    case = replace(LSTM, direction="steps", N=1, T=1000)
    figures = race.figures(case, {"fastrnn": [2], "torch": [6]}, [case.flops])
    assert figures["seconds"] == {"fastrnn": 0.002, "torch": 0.006}
    assert figures["ratios"] == {"torch": 3}
    assert figures["share_of_peak"] == 0.5
    assert figures["gflops"] == case.flops / 2 / 1e9


def test_best_peer_is_the_best_idiom_of_the_fastest():
    row = made_up(LSTM, **{"numpy": 4, "torch a": 3, "torch b": 1.5, "fastrnn full length": 0.5})
    assert results.by_peer(row) == pytest.approx({"numpy": 4, "torch": 1.5})
    assert results.best(row) == ("torch", pytest.approx(1.5))
    name, ratio = results.best(made_up(LSTM))
    assert name == ""
    assert math.isnan(ratio)


def test_summary_counts_losses():
    rows = [made_up(LSTM, torch=4), made_up(LSTM, torch=0.25), made_up(LSTM)]
    assert results.summary(rows) == "1.00 (geometric mean of 2 rows; least 0.25, 1 below 1)"
    assert results.summary(rows[:1]) == "4.00"
    assert results.summary(rows[2:]) == "no peer to compare with"


def test_cost_of_lengths():
    """Half of the steps in half of the time."""
    row = made_up(Case("lengths", "rnn", "forward+backward", 4, 10, 5, 7), torch=3)
    row["ratios"]["fastrnn full length"] = 2
    assert results.cost_of_lengths(row, steps=20) == 1
    del row["ratios"]["fastrnn full length"]
    assert results.cost_of_lengths(row, steps=20) is None


# ---- what is shown -------------------------------------------------------------------------------


def test_tables_as_text_and_markdown():
    table = tables.Table("Layers", ["case", "shape", "time"], [["rnn", "(1,2)", "9"]], ["a note"])
    assert tables.text(table).splitlines() == [
        "Layers:",
        "case  shape  time",
        "-----------------",
        "rnn   (1,2)     9",
        "a note",
    ]
    assert tables.markdown(table).splitlines() == [
        "## Layers",
        "",
        "| case | shape | time |",
        "| --- | --- | ---: |",
        "| rnn | (1,2) | 9 |",
        "",
        "- a note",
    ]


def test_table_of_texts():
    fit, training = (SMALL_TEXTS[name] for name in ("fit bow", "training lstm"))
    rows = [
        made_up(training, **{"torch padded": 5, "torch packed": 4.1}),
        {**made_up(fit, sklearn=0.5), "accuracy": {"fastrnn": 0.96, "sklearn": 0.957}},
    ]
    assert tables.text(report.table("text", rows)).splitlines() == [
        "Texts:",
        "case           work                             fastrnn  best peer  ratio  torch  sklearn",
        "-----------------------------------------------------------------------------------------",
        "lstm training  128 sentences    128,000,000 sentences/s      torch   4.10   4.10",
        "bow fit        3,000 sentences                  1000 ns    sklearn   0.50            0.50",
        "lstm training: torch padded 5.00, torch packed 4.10",
        "bow fit, accuracy on other sentences: fastrnn 96.0%, sklearn 95.7%",
    ]


def test_table_of_cells():
    """The cost is told by the plain cell's time; every idiom of a peer has its column."""
    case = Case("cells", "gru", "forward+backward", 2, 3, 5, 7, form="zoneout of h")
    rows = [made_up(case, **{"fastrnn plain": 0.8, "torch eager": 6, "torch compiled": 3})]
    rows.append(made_up(replace(case, cell="lstm", form="clip")))
    assert report.table("cells", rows)[1:3] == (
        ["case", "(N,T,D,H)", "plain", "time", "cost", "best peer", "ratio"]
        + ["torch eager", "torch compiled"],
        [
            ["zoneout of h, gru forward+backward", "(2,3,5,7)", "800 ns", "1000 ns", "1.25"]
            + ["torch", "3.00", "6.00", "3.00"],
            ["clip, lstm forward+backward", "(2,3,5,7)", "", "1000 ns", "", "", "", "", ""],
        ],
    )
    text = page.section(report.result(rows, CONFIG))
    assert "\n| zoneout of h, gru forward+backward | (2,3,5,7) | 800 ns | 1000 ns | 1.25 |" in text


MODULES = {
    "packed": Case("torch", "lstm", "update", 2, 3, 5, 7, "float64", form="packed"),
    "step": Case("torch", "gru", "forward", 1, 1, 5, 7),
    "policy": Case("models", "lstm", "forward+backward", 2, 3, 5, 7, form="recurrent policy"),
}


def test_tables_of_modules():
    rows = [
        made_up(MODULES["packed"], torch=5),
        made_up(MODULES["step"], **{"torch": 0.5, "fastrnn functions": 0.25}),
    ]
    assert tables.text(report.table("torch", rows)).splitlines() == [
        "PyTorch's layers and those of fastrnn.torch:",
        "case                 (N,T,D,H)          torch.nn  fastrnn.torch  ratio",
        "----------------------------------------------------------------------",
        "packed, lstm update  (2,3,5,7) float64   5000 ns        1000 ns   5.00",
        "gru forward          (1,1,5,7)            500 ns        1000 ns   0.50",
        "ratio, lstm: 5.00",
        "ratio, gru: 0.50",
        "ratio, all cells: 1.58 (geometric mean of 2 rows; least 0.50, 1 below 1)",
        "gru (1,1,5,7): 750 ns more than fastrnn's functions",
    ]
    rows = [made_up(MODULES["policy"], **{"torch": 50, "fastrnn loop": 20})]
    table = report.table("models", rows)
    assert table.rows == [
        ["recurrent policy, lstm forward+backward", "(2,3,5,7)", "50.0 us", "1000 ns", "50.00"]
    ]
    assert table.notes[-1] == "recurrent policy: 20.0 us by fastrnn.torch without reset="
    alone = report.table("models", [made_up(MODULES["policy"])])
    assert alone.rows[0][2:] == ["", "1000 ns", ""]


def test_page_shows_modules():
    rows = [
        made_up(MODULES["packed"], torch=5),
        made_up(MODULES["step"], **{"torch": 0.5, "fastrnn functions": 0.25}),
        made_up(MODULES["policy"], **{"torch": 50, "fastrnn loop": 20}),
    ]
    text = page.section(report.result(rows, CONFIG))
    assert "| layer, (N,T,D,H) | lstm update | gru forward |" in text
    assert "| packed, (2,3,5,7) float64 | 5.00 |  |" in text
    assert "| (1,1,5,7) |  | **0.50** |" in text
    assert "1 below 1); gru (1,1,5,7): 750 ns more than fastrnn's functions." in text
    policy = "recurrent policy, lstm forward+backward | (2,3,5,7) | 50.0 us | 1000 ns | 50.00"
    assert f"\n| {policy} |\n" in text
    assert "\n- recurrent policy: 20.0 us by fastrnn.torch without reset=" in text


def test_durations_have_the_unit_that_suits_them():
    shown = [report.duration(s) for s in (2.54e-6, 2.5e-5, 2.5e-3, 2.5)]
    assert shown == ["2540 ns", "25.0 us", "2.50 ms", "2.50 s"]


def test_report_says_where_fastrnn_wins_and_loses(tmp_path):
    run = made_up_run(numpy=3, torch=0.5)
    assert set(report.write(tmp_path, run)) == {
        "bench.json", "bench.md", "bench.png", "scaling.png", "latency.png",
    }  # fmt: skip
    assert results.read(tmp_path / "bench.json") == run
    text = report.as_text(run["rows"])
    assert "ratio, lstm: 0.50 (geometric mean of 20 rows; least 0.50, 20 below 1)" in text
    for name in ("bench.png", "scaling.png", "latency.png"):
        with Image.open(tmp_path / name) as picture:
            assert (np.asarray(picture.convert("L")) < 128).mean() > 0.005  # something is drawn
    for title in report.TITLES.values():
        assert f"## {title}\n" in (tmp_path / "bench.md").read_text()


def test_page_is_made_from_runs(capsys, tmp_path):
    run, other, path = (tmp_path / name for name in ("run.json", "other.json", "page.md"))
    storage.write_json(run, made_up_run(numpy=3, torch=0.5))
    storage.write_json(other, made_up_run(torch=2) | {"config": CONFIG | {"isa": "avx512"}})
    path.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    processor = results.read(run)["machine"]["processor"]
    for _ in range(2):  # the second time changes nothing
        assert call(capsys, "bench", "page", run, path)[0] == 0
        text = path.read_text()
        assert text.startswith(f"before\n{page.BEGIN}\n### avx2, {processor}\n\n| (N,T,D,H) | rnn")
        assert text.endswith(f"\n{page.END}\nafter\n")
        assert "old" not in text
        assert "| (25,17,256,512) | **0.50** torch |" in text
        assert "2 threads, avx2, float32" in text
        assert "| lstm predict | a sentence of 10 words | 1000 ns | torch | **0.50** |" in text
        steps = "fastrnn step | fastrnn stream | fastrnn steps | numpy | torch | best peer, steps"
        assert f"\n| N = 1 | {steps} |\n" in text
        times = "1000 ns | 1000 ns | 1000 ns | 3000 ns | 500 ns | 500 ns torch"
        assert f"\n| gru, D = 1, H = 8 | {times} |\n" in text
        assert f"\n| lstm, D = H, H = 512 | {times} |\n" in text
        assert "\n| rnn, D" not in text
    one = text
    assert call(capsys, "bench", "page", run, other, path)[0] == 0
    before, after = path.read_text().split(f"\n\n### avx512, {processor}\n\n")
    assert before == one.split(f"\n{page.END}")[0]
    assert "| (25,17,256,512) | 2.00 torch |" in after
    for text in ("no marks\n", f"{page.END}{page.BEGIN}", 2 * f"{page.BEGIN}{page.END}"):
        path.write_text(text)
        code, _, err = call(capsys, "bench", "page", run, path)
        assert code == 1
        assert "expected one <!-- bench" in err
        assert path.read_text() == text


def test_page_of_the_project_has_the_marks():
    text = (Path(__file__).parent.parent / "docs/benchmarks.md").read_text()
    assert text.count(page.BEGIN) == text.count(page.END) == 1


# ---- the guard -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "slower"),
    [
        ({"torch": 2, "jax": 3}, {"torch": 1.9, "jax": 2.9}, False),  # within the tolerance
        ({"torch": 2, "jax": 3}, {"torch": 1, "jax": 3}, False),  # torch has become faster
        ({"torch": 2, "jax": 3}, {"torch": 1.5, "jax": 2.2}, True),  # fastrnn has become slower
        ({"torch": 2, "jax": 3}, {"torch": 1.5}, True),  # one peer in common
        ({"torch": 2}, {"torch": 4}, False),
    ],
)
def test_guard_judges_by_all_peers(old, new, slower):
    runs = [{"rows": [made_up(LSTM, **ratios)]} for ratios in (old, new)]
    assert bool(guard.slower(guard.compare(*runs), 0.15)) is slower


def test_compare_prints_the_slower_rows_and_fails(capsys, tmp_path):
    chosen = cases.choose(["layers"], Choice(["lstm"], "float32"))
    old = report.result([made_up(case, torch=2) for case in chosen], CONFIG)
    new = report.result([made_up(case, torch=2) for case in chosen[1:]], CONFIG)
    new["rows"][3] = made_up(chosen[4], torch=1.2)
    for name, run in {"old": old, "new": new}.items():
        storage.write_json(tmp_path / f"{name}.json", run)
    code, out, _ = call(capsys, "bench", "compare", tmp_path / "old.json", tmp_path / "new.json")
    assert code == 1
    assert chosen[4].name in out
    assert "-40%" in out
    assert "1 of 19 rows are slower by more than 15%" in out
    arguments = ["bench", "compare", tmp_path / "old.json", tmp_path / "new.json"]
    assert call(capsys, *arguments, "--tolerance", "0.5")[0] == 0
    storage.write_json(tmp_path / "new.json", {"format": 99})
    code, _, err = call(capsys, *arguments)
    assert code == 1
    assert "not a bench.json, expected format 1, got 99" in err


# ---- the whole -----------------------------------------------------------------------------------


def test_bench_races_two_peers(capsys, tmp_path):
    code, out, _ = call(
        capsys, "bench", "--quick", "--cells", "lstm", "--shape", "3,4,5,6", "--threads", "1",
        "--peers", "numpy,torch", "--out", tmp_path,
        "--races", "layers,step,lengths,resets,memory,torch,models",
    )  # fmt: skip
    assert code == 0
    assert "lstm forward+backward  (3,4,5,6)" in out
    rows = results.by_race(results.read(tmp_path / "bench.json")["rows"])
    modules = [row for name in cases.OF_MODULES for row in rows.pop(name)]
    assert {row["form"] for row in modules} == {*cases.USES, *cases.MODELS} - {"noise suppression"}
    for row in modules:
        own = {"fastrnn", "fastrnn loop"} if row["form"] == "recurrent policy" else {"fastrnn"}
        assert set(row["seconds"]) == own | {"torch"}
    (memory,) = rows.pop("memory")
    assert set(memory["bytes"]) == {"fastrnn", "numpy", "torch"}
    racers = {
        "layers": {"fastrnn", "numpy", "torch"},
        "step": {"fastrnn", "numpy", "torch cell", "torch layer"},
        "lengths": {"fastrnn", "fastrnn full length", "numpy", "torch"},
        "resets": {"fastrnn", "numpy", "torch loop", "torch packed"},
    }
    for name, expected in racers.items():
        for row in rows[name]:
            steps = row["direction"] == "steps"
            assert set(row["seconds"]) == (racers["layers"] if steps else expected)
            assert min(row["seconds"].values()) > 0
            assert row["peak_gflops"] > row["gflops"] > 0
    assert (tmp_path / "bench.png").stat().st_size > 10_000
