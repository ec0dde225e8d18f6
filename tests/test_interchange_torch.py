"""Weights under PyTorch's names: its modules' numbers, there and back; what is refused of any
file."""

import errno
import warnings

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch.nn.utils import parametrizations
from util import GATES, TWIN, assert_close, assert_same_bits

from fastrnn import Options, nn, storage
from fastrnn.cells import NAMES

N, T, D, H = 3, 6, 5, 4
OURS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
THEIRS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
FORMS = {
    **{cell: (cell, {}) for cell in GATES},
    **{f"{cell}_both_stacked": (cell, {"num_layers": 3, "bidirectional": True}) for cell in GATES},
    "rnn_relu": ("rnn", {"nonlinearity": "relu"}),
    "gru_without_bias": ("gru", {"bias": False, "num_layers": 2}),
    "lstm_projected": ("lstm", {"proj_size": 2, "num_layers": 2, "bidirectional": True}),
}
# What a state_dict does not say.
UNTOLD = {"rnn_relu": {"nonlinearity": "relu"}}
every_form = pytest.mark.parametrize("form", FORMS)


def theirs_of(form, dtype=torch.float32):
    cell, keywords = FORMS[form]
    torch.manual_seed(0)
    return THEIRS[cell](D, H, **keywords, batch_first=True, dtype=dtype)


def assert_gives(module, theirs, rng):
    x = rng.standard_normal((N, T, D)).astype(module.dtype)
    with torch.no_grad():
        expected, last = theirs(torch.from_numpy(x))
    y, state, _ = module.forward(x)
    assert_close(y, expected.numpy(), TWIN[module.dtype.name])
    for a, b in zip(*(s if isinstance(s, tuple) else (s,) for s in (state, last)), strict=True):
        assert_close(a, b.numpy(), TWIN[module.dtype.name])


# Of PyTorch's projections, as it runs them.
quiet = pytest.mark.filterwarnings("ignore:LSTM with projections")


@quiet
@every_form
def test_state_dicts_give_the_numbers_of_torch(form, dtype, rng):
    theirs = theirs_of(form, getattr(torch, dtype.name))
    module = nn.load(theirs.state_dict(), **UNTOLD.get(form, {}), dropout=0.5)
    assert (module.dtype, module.dropout) == (dtype, 0.5)
    assert_gives(module, theirs, rng)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "encoder.lstm."])
def test_files_give_the_numbers_of_torch(suffix, prefix, tmp_path, rng):
    theirs, path = theirs_of("lstm_both_stacked"), tmp_path / f"model{suffix}"
    state = {f"{prefix}{name}": a for name, a in theirs.state_dict().items()}
    state["head.weight"] = torch.zeros(3, dtype=torch.bfloat16)
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"model": state, "step": 3, "optimizer": {0: None}}, path)
    for source in (path, str(path)):
        assert_gives(nn.load(source), theirs, rng)


@pytest.mark.parametrize("cell", GATES)
def test_cells_are_modules_of_one_layer(cell, rng):
    kind = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[cell]
    theirs, module = kind(D, H), None
    module = nn.load({f"cell.{name}": a for name, a in theirs.state_dict().items()})
    x = rng.standard_normal((N, 1, D)).astype("f")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x[:, 0]))
    expected = expected[0] if cell == "lstm" else expected
    assert_close(module.forward(x)[0][:, 0], expected.numpy(), TWIN["float32"])


def test_arrays_are_taken_and_not_shared():
    arrays = nn.LSTM(D, H, seed=0).params
    module = nn.load(arrays)
    for name, a in arrays.items():
        assert_same_bits(module.params[name], a)
        assert not np.shares_memory(module.params[name], a)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(half, tmp_path):
    state = theirs_of("gru").to(half).state_dict()
    torch.save(state, tmp_path / "model.pt")
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    for source in (state, tmp_path / "model.pt", tmp_path / "model.safetensors"):
        module = nn.load(source)
        for name, a in state.items():
            assert_same_bits(module.params[name], a.float().numpy())


def test_eighths_of_precision_are_refused(tmp_path):
    path, state = tmp_path / "model.safetensors", theirs_of("gru").state_dict()
    state["bias_hh_l0"] = state["bias_hh_l0"].to(torch.float8_e4m3fn)
    safetensors.torch.save_file(state, path)
    with pytest.raises(ValueError, match=f"^{path}: .*bias_hh_l0: NumPy has no dtype F8_E4M3"):
        nn.load(path)


# ---- save ----------------------------------------------------------------------------------------


def ours_of(form, **others):
    cell, keywords = FORMS[form]
    return OURS[cell](D, H, **keywords, seed=0, **others)


@every_form
def test_what_is_saved_comes_back_bit_for_bit(form, dtype, tmp_path):
    path = tmp_path / "model.safetensors"
    for order in NAMES[FORMS[form][0]].orders:
        ordered = {} if order == "h" else {"gate_order": order}
        module = ours_of(form, dtype=dtype, dropout=0.25, **ordered)
        nn.save(module, path)
        back = nn.load(path)
        assert (back.form, back.dropout, back.dtype) == (module.form, 0.25, dtype)
        assert [*back.params] == [*module.params]
        for name, a in module.params.items():
            assert_same_bits(back.params[name], a, name)


@pytest.mark.parametrize(
    ("cell", "keywords"),
    [
        ("rnn", {"options": Options(cap=2, clip=np.float32(0.5)), "nonlinearity": "relu"}),
        ("lstm", {"peepholes": True, "gate_order": "fico", "num_layers": 2}),
        ("lstm", {"peepholes": True, "options": Options(zoneout_c=0.5, seed=2**64 - 1)}),
        ("lstm", {"peepholes": True, "proj_size": 2, "options": Options(clip=0.5)}),
        ("gru", {"options": Options(hard_sigmoid=1 / 6, dropout_x=0.1, first_step=np.int64(3))}),
    ],
)
def test_options_and_peepholes_go_with_the_file(cell, keywords, dtype, tmp_path, rng):
    module = OURS[cell](D, H, bidirectional=True, dtype=dtype, seed=0, **keywords)
    nn.save(module, tmp_path / "model.safetensors")
    back = nn.load(tmp_path / "model.safetensors", options=Options(clip=9.0))  # which it says
    assert back.form == module.form
    assert [*back.params] == [*module.params]
    x = rng.standard_normal((N, T, D)).astype(dtype)
    assert_same_bits(back.forward(x)[0], module.forward(x)[0])


def test_peepholes_come_with_a_state_dict_and_options_with_the_call(tmp_path, rng):
    module = nn.LSTM(D, H, peepholes=True, options=Options(zoneout_h=0.3), seed=0)
    state = {f"net.{name}": torch.from_numpy(a) for name, a in module.params.items()}
    torch.save({"model": state}, tmp_path / "model.pt")
    x = rng.standard_normal((N, T, D)).astype("f")
    for source in (tmp_path / "model.pt", state):
        back = nn.load(source, options=module.form.options)
        assert_same_bits(back.forward(x)[0], module.forward(x)[0])
        assert nn.load(source).form.options is None


def test_options_that_do_not_fit_are_refused(tmp_path):
    params = nn.GRU(D, H).params
    with pytest.raises(ValueError, match=r"^zoneout_c: expected nothing for gru"):
        nn.load(params, options=Options(zoneout_c=0.1))
    with pytest.raises(TypeError, match=r"^options: expected fastrnn.Options, got dict$"):
        nn.load(tmp_path / "missing.pt", options={"zoneout_h": 0.1})
    params["peephole_l0"] = np.zeros(3 * H, "f")
    with pytest.raises(ValueError, match=r"^peephole_l0: expected none of a gru$"):
        nn.load(params)
    params = nn.LSTM(D, H).params | {"peephole_l0": np.zeros(4 * H, "f")}
    with pytest.raises(ValueError, match=r"^peephole_l0: expected shape \(12,\), got \(16,\)$"):
        nn.load(params)


def test_the_original_gru_comes_back(tmp_path):
    for false, dropout in ((False, 0.5), (np.False_, np.float32(0.5))):
        module = nn.GRU(D, H, reset_after=false, dropout=dropout, seed=0)
        nn.save(module, tmp_path / "model.safetensors")
        back = nn.load(tmp_path / "model.safetensors")
        assert (back.form, back.dropout) == (module.form, 0.5)


@quiet
@every_form
def test_torch_loads_what_is_saved(form, tmp_path, rng):
    orders = {"lstm": {"gate_order": "iofg"}, "gru": {"gate_order": "zrn"}, "rnn": {}}
    module, theirs = ours_of(form, **orders[FORMS[form][0]]), theirs_of(form)
    nn.save(module, tmp_path / "model.safetensors")
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    assert_gives(module, theirs, rng)


def test_what_is_no_module_is_not_saved(tmp_path):
    with pytest.raises(
        TypeError, match=r"^module: expected an RNN, LSTM or GRU of fastrnn.nn, got"
    ):
        nn.save(theirs_of("gru"), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="^path: expected a name that ends with .safetensors, got"):
        nn.save(nn.GRU(D, H), tmp_path / "model.pt")
    module = nn.GRU(D, H)
    module.params["bias_hh_l0"] = np.zeros(3, "f")
    with pytest.raises(ValueError, match=r"^bias_hh_l0: expected shape \(12,\), got \(3,\)$"):
        nn.save(module, tmp_path / "model.safetensors")
    assert not [*tmp_path.iterdir()]


def test_a_save_that_fails_leaves_the_file_before_it(tmp_path, monkeypatch):
    path, module = tmp_path / "model.safetensors", nn.GRU(D, H, seed=0)
    nn.save(module, path)

    def fail(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(storage, "_sync", fail)
    with pytest.raises(OSError, match=str(path)):
        nn.save(nn.GRU(D, H, seed=1), path)
    assert [*tmp_path.iterdir()] == [path]
    assert_same_bits(nn.load(path).params["bias_hh_l0"], module.params["bias_hh_l0"])


# ---- what is refused -----------------------------------------------------------------------------


def state_of(**changes):
    """Of a GRU with changes; None for a key that is missing."""
    state = {name: a.numpy() for name, a in theirs_of("gru_both_stacked").state_dict().items()}
    return {name: a for name, a in (state | changes).items() if a is not None}


def zeros(*shape, dtype="f"):
    return np.zeros(shape, dtype)


REFUSED = {
    "nothing": ({}, "expected weights under PyTorch's names, such as lstm.weight_ih_l0, got none"),
    "other_names": (
        {"conv.weight": zeros(2, 2), 3: zeros(1)},
        "expected weights under PyTorch's names, such as lstm.weight_ih_l0, got none",
    ),
    "no_recurrent_weights": (
        {"weight_ih_l0": zeros(12, 5)},
        "weight_hh_l0: expected an array, got only ['weight_ih_l0']",
    ),
    "rows_of_no_cell": (
        {"weight_ih_l0": zeros(8, 5), "weight_hh_l0": zeros(8, 4)},
        "weight_hh_l0: expected shape (G*H, H) with 1, 3 or 4 for G, got (8, 4)",
    ),
    "no_hidden_units": (
        {"weight_ih_l0": zeros(0, 5), "weight_hh_l0": zeros(0, 0)},
        "weight_hh_l0: expected shape (G*H, H) with 1, 3 or 4 for G, got (0, 0)",
    ),
    "axes": (
        state_of(weight_hh_l0=zeros(12)),
        "weight_hh_l0: expected shape (G*H, P), got (12,)",
    ),
    "a_shape": (
        state_of(weight_ih_l1=zeros(12, 4)),
        "weight_ih_l1: expected shape (12, 8), got (12, 4)",
    ),
    "another_size": (
        state_of(weight_hh_l1=zeros(1 << 10, 1 << 8)),
        "weight_hh_l1: expected shape (12, 4), got (1024, 256)",
    ),
    "a_layer_left_out": (
        state_of(
            **{
                f"{name}_l1{end}": None
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                for end in ("", "_reverse")
            }
        ),
        "weight_ih_l1: expected an array, got only ",
    ),
    "a_bias_left_out": (state_of(bias_hh_l2=None), "bias_hh_l2: expected an array, got only "),
    "a_dtype": (
        state_of(bias_ih_l0=zeros(12, dtype="d")),
        "bias_ih_l0: expected float32 like the others, got float64",
    ),
    "integers": (
        {"weight_ih_l0": zeros(12, 5, dtype=int), "weight_hh_l0": zeros(12, 4, dtype=int)},
        "weight_hh_l0: expected float32 or float64, got int64",
    ),
    "numbers_that_are_not_finite": (
        state_of(bias_ih_l0=zeros(12) + np.inf),
        "bias_ih_l0: expected finite numbers, got others",
    ),
    "a_projected_gru": (
        {"weight_ih_l0": zeros(12, 5), "weight_hh_l0": zeros(12, 2), "weight_hr_l0": zeros(2, 4)},
        "weight_hr_l0: expected none of a gru",
    ),
    "a_sparse_tensor": (
        {"weight_ih_l0": torch.zeros(12, 5).to_sparse(), "weight_hh_l0": torch.zeros(12, 4)},
        "weight_ih_l0: expected a dense tensor of numbers, got torch.sparse_coo",
    ),
    "a_tensor_of_no_numbers": (
        {"weight_ih_l0": torch.zeros(12, 5, device="meta"), "weight_hh_l0": torch.zeros(12, 4)},
        "weight_ih_l0: expected a dense tensor of numbers, got torch.strided torch.float32 on meta",
    ),
    "one_number_many_times": (
        {"weight_ih_l0": torch.zeros(1).expand(12, 1 << 40), "weight_hh_l0": torch.zeros(12, 4)},
        "weight_ih_l0: expected 52776558133248 bytes, got 4",
    ),
}


@pytest.mark.filterwarnings("ignore:.*sparse tensor")
@pytest.mark.parametrize("case", REFUSED)
def test_state_dicts_that_do_not_fit_are_refused(case, tmp_path):
    state, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError)) as error:
        nn.load(state)
    assert str(error.value).startswith(message)
    tensors = {
        name: torch.from_numpy(a) if isinstance(a, np.ndarray) else a for name, a in state.items()
    }
    path = tmp_path / "model.pt"
    torch.save(tensors, path)
    with pytest.raises(ValueError, match=f"^{path}: ") as error:
        nn.load(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_prefixes_choose(tmp_path):
    a, b = theirs_of("gru").state_dict(), theirs_of("lstm").state_dict()
    state = {f"encoder.rnn.{k}": v for k, v in a.items()} | {
        f"encoder2.{k}": v for k, v in b.items()
    }
    torch.save(state, tmp_path / "model.pt")
    for source, name in ((state, ""), (tmp_path / "model.pt", f"{tmp_path}/model.pt: ")):
        for prefix in (None, "decoder", "encode"):
            with pytest.raises(ValueError) as error:
                nn.load(source, prefix=prefix)
            expected = f"prefix: expected one of ['encoder.rnn', 'encoder2'], got {prefix!r}"
            assert str(error.value) == name + expected
        for prefix in ("encoder", "encoder.", "encoder.rnn", "encoder.rnn."):
            assert nn.load(source, prefix=prefix).form.cell == "gru"
        assert nn.load(source, prefix="encoder2").form.cell == "lstm"


def test_parametrized_weights_are_refused():
    normed = torch.nn.Sequential(theirs_of("gru"))
    parametrizations.weight_norm(normed[0], "weight_hh_l0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older kind is deprecated
        older = torch.nn.utils.weight_norm(theirs_of("gru"), "weight_ih_l0")
    for module, name in (
        (normed, "0.parametrizations.weight_hh_l0.original0"),
        (older, "weight_ih_l0_g"),
    ):
        with pytest.raises(ValueError) as error:
            nn.load(module.state_dict())
        message = f"{name}: expected the weights themselves, got what a parametrization computes"
        assert str(error.value).startswith(message)


def test_files_of_what_runs_code_are_refused(tmp_path):
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    torch.save(theirs_of("gru"), whole)
    broken.write_bytes(b"\x80\x02no pickle")
    advice = "; save the state_dict() of the module)"
    for path, found in ((whole, ": torch.nn.modules.rnn.GRU"), (broken, "")):
        with pytest.raises(ValueError) as error:
            nn.load(path)
        expected = f"{path}: not a file of PyTorch's weights (more than tensors{found}{advice}"
        assert str(error.value) == expected


@pytest.mark.parametrize(
    ("source", "keywords", "message"),
    [
        ("model.npz", {}, "source: expected a name that ends with one of ['.pt', "),
        ("model.pt", {"layer": "a"}, "layer: expected None of a source chosen from by prefix, got"),
        ("model.h5", {"node": "a"}, "node: expected None of a source chosen from by layer, got"),
        ("m.onnx", {"prefix": "a"}, "prefix: expected None of a source chosen from by node, got"),
        ({}, {"node": "a"}, "node: expected None of a source chosen from by prefix, got"),
        ({}, {"prefix": 3}, "expected weights under PyTorch's names"),
        (
            {},
            {"nonlinearity": "selu"},
            "nonlinearity: expected one of ['tanh', 'relu'] for rnn, got 'selu'",
        ),
    ],
)
def test_arguments_are_checked(source, keywords, message):
    with pytest.raises(ValueError) as error:
        nn.load(source, **keywords)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "source", [3, None, torch.nn.GRU(D, H), nn.GRU(D, H)], ids=lambda a: type(a).__qualname__
)
def test_what_is_no_source_is_refused(source):
    with pytest.raises(TypeError, match="^source: expected a path or a state_dict, got "):
        nn.load(source)


@pytest.mark.parametrize(
    "metadata",
    [
        "{",
        "[]",
        '{"cell": 3}',
        '{"nonlinearity": "selu"}',
        '{"dropout": NaN}',
        '{"dropout": "x"}',
        '{"gate_order": "xyz"}',
        '{"reset_after": 3}',
        '{"options": 3}',
        '{"options": {"zoneout": 0.1}}',
        '{"options": {"zoneout_h": [0.1]}}',
        '{"options": {"clip": NaN}}',
        '{"options": {"seed": -1}}',
    ],
)
def test_metadata_that_is_not_ours_is_refused(metadata, tmp_path):
    path = tmp_path / "model.safetensors"
    for cell in GATES:
        params = OURS[cell](D, H).params
        safetensors.numpy.save_file(params, path, {"fastrnn": metadata})
        if (
            ("gate_order" in metadata and cell == "rnn")
            or ("reset_after" in metadata and cell != "gru")
            or ("nonlinearity" in metadata and cell != "rnn")
        ):
            continue
        with pytest.raises(ValueError, match=f"^{path}: "):
            nn.load(path)
