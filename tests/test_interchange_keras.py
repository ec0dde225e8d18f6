"""Keras's files: its own numbers, of every layer, form and file, and what is refused."""

import json
import os
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
from util import TWIN, assert_close, assert_same_bits

from fastrnn import Options, nn
from fastrnn.weights import from_torch, to_keras

N, T, D, H = 3, 6, 5, 4
# In a process of its own, which PyTorch serves as Keras's backend. Writes NAME.keras, NAME.h5,
# NAME.weights.h5 and what each model returns.
SCRIPT = f"""
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers as L

folder, x = Path(sys.argv[1]), np.load(Path(sys.argv[1]) / "x.npy")
rng = np.random.default_rng(1)


def write(name, *layers, model=None):
    model = model or keras.Sequential([L.Input((None, {D})), *layers])
    model.set_weights([rng.standard_normal(w.shape) / 2 for w in model.get_weights()])
    for suffix in (".keras", ".h5"):
        model.save(folder / (name + suffix))
    model.save_weights(folder / (name + ".weights.h5"))
    np.save(folder / (name + ".npy"), keras.ops.convert_to_numpy(model(x)))


def layer(kind, **keywords):
    return kind({H}, return_sequences=True, **keywords)


FORMS = {{
    "lstm": (L.LSTM, {{}}),
    "lstm_without_bias": (L.LSTM, {{"use_bias": False}}),
    "gru": (L.GRU, {{}}),
    "gru_original": (L.GRU, {{"reset_after": False}}),
    "gru_original_without_bias": (L.GRU, {{"reset_after": False, "use_bias": False}}),
    "rnn": (L.SimpleRNN, {{}}),
    "rnn_relu": (L.SimpleRNN, {{"activation": "relu"}}),
    "lstm_hard": (L.LSTM, {{"recurrent_activation": "hard_sigmoid"}}),
    "gru_hard": (L.GRU, {{"recurrent_activation": "hard_sigmoid"}}),
    "gru_original_hard": (
        L.GRU,
        {{"recurrent_activation": "hard_sigmoid", "reset_after": False}},
    ),
}}
for name, (kind, keywords) in FORMS.items():
    write(name, layer(kind, **keywords))
    write(name + "_both", L.Bidirectional(layer(kind, **keywords)))
for name, (kind, keywords) in FORMS.items():
    if (folder / f"ours_{{name}}.npz").exists():
        model = keras.Sequential([L.Input((None, {D})), layer(kind, **keywords)])
        model.set_weights([*np.load(folder / f"ours_{{name}}.npz").values()])
        np.save(folder / f"ours_{{name}}.npy", keras.ops.convert_to_numpy(model(x)))
# What concerns a call, or training alone; and no sequence.
write("last", L.Bidirectional(L.LSTM({H}, dropout=0.2, recurrent_dropout=0.3)))
write("stack", layer(L.LSTM, name="low"), L.Dropout(0.5), layer(L.LSTM, name="high"))
write("stack_both", *(L.Bidirectional(layer(L.GRU), name=name) for name in ("low", "high")))

x_in = L.Input((None, {D}))
inner = keras.Sequential([L.Input((None, {H})), layer(L.LSTM, name="forward_net")], name="inner")
low = layer(L.LSTM, name="low")(x_in)
middle = layer(L.LSTM, name="middle")(L.SpatialDropout1D(0.5)(low))
write("functional", model=keras.Model(x_in, middle))
y = L.LayerNormalization()(inner(middle))
y, h, c = layer(L.LSTM, return_state=True, name="states")(y)
y = layer(L.LSTM, name="started")(y, initial_state=[h, c])
write("nested", model=keras.Model(x_in, y))

REFUSED = {{
    "linear": layer(L.LSTM, activation="linear"),
    "relu": layer(L.GRU, activation="relu"),
    "hard": layer(L.LSTM, recurrent_activation="hard_silu"),
    "backwards": layer(L.LSTM, go_backwards=True),
    "sum": L.Bidirectional(layer(L.GRU), merge_mode="sum"),
    "different": L.Bidirectional(
        layer(L.SimpleRNN),
        backward_layer=layer(L.SimpleRNN, activation="relu", go_backwards=True),
    ),
    "dense": L.Dense(2),
}}
for name, refused in REFUSED.items():
    refused.name = name
    write("refused_" + name, refused)
"""
FORMS = ("lstm", "lstm_without_bias", "gru", "gru_original", "gru_original_without_bias")
FORMS += ("rnn", "rnn_relu", "lstm_hard", "gru_hard", "gru_original_hard")
FORMS = [name + end for name in FORMS for end in ("", "_both")]
# What files of weights alone do not say.
HARD = Options(hard_sigmoid=1 / 6)
UNTOLD = {
    "rnn_relu": {"nonlinearity": "relu"},
    "gru_original_without": {"reset_after": False},
    **{name: {"options": HARD} for name in ("lstm_hard", "gru_hard", "gru_original_hard")},
}

OURS = {
    "lstm": (nn.LSTM, {}),
    "lstm_without_bias": (nn.LSTM, {"bias": False}),
    "gru": (nn.GRU, {}),
    "gru_original": (nn.GRU, {"reset_after": False}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where Keras has written its files."""
    folder = tmp_path_factory.mktemp("keras")
    x = np.random.default_rng(0).standard_normal((N, T, D)).astype("f")
    np.save(folder / "x.npy", x)
    for name, (kind, keywords) in OURS.items():
        module = kind(D, H, seed=0, **keywords)
        params = {name.removesuffix("_l0"): a for name, a in module.params.items()}
        layer, after = from_torch(module.form.cell, **params), module.form.reset_after
        arrays = to_keras(module.form.cell, layer, reset_after=after)
        np.savez(folder / f"ours_{name}.npz", *arrays)
    own = {"KERAS_BACKEND": "torch", "KERAS_HOME": str(folder)}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def assert_gives(module, folder, name):
    y, _, _ = module.forward(np.load(folder / "x.npy"))
    assert_close(y, np.load(folder / f"{name}.npy"), TWIN["float32"], name)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
@pytest.mark.parametrize("name", FORMS)
def test_layers_give_the_numbers_of_keras(name, suffix, folder):
    keywords = {}
    if suffix == ".weights.h5":
        keywords = next((own for form, own in UNTOLD.items() if name.startswith(form)), {})
    assert_gives(nn.load(folder / f"{name}{suffix}", **keywords), folder, name)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_layers_that_return_no_sequence_give_the_last_state(suffix, folder):
    _, (h, _), _ = nn.load(folder / f"last{suffix}").forward(np.load(folder / "x.npy"))
    assert_close(np.concatenate([*h], axis=1), np.load(folder / "last.npy"), TWIN["float32"])


@pytest.mark.parametrize("name", OURS)
def test_keras_gives_our_numbers(name, folder):
    kind, keywords = OURS[name]
    assert_gives(kind(D, H, seed=0, **keywords), folder, f"ours_{name}")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["stack", "stack_both", "functional"])
def test_layers_on_top_of_each_other_are_one_stack(name, suffix, folder):
    module = nn.load(folder / f"{name}{suffix}", dropout=0.5)
    assert (module.form.layers, module.dropout) == (2, 0.5)
    assert_gives(module, folder, name)


def test_layers_of_weights_alone_are_one_stack_where_the_caller_says_so(folder):
    path = folder / "stack_both.weights.h5"
    message = r"layer: expected one or several of \['low', 'high'\], got None, and they are not one"
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        nn.load(path)
    assert_gives(nn.load(path, layer=["low", "high"]), folder, "stack_both")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_layers_are_chosen_by_name(suffix, folder):
    path = folder / f"nested{suffix}"
    names = ["low", "middle", "inner/forward_net", "states", "started"]
    with pytest.raises(ValueError) as error:
        nn.load(path)
    expected = f"layer: expected one or several of {names}, got None, and they are not one stack"
    expected += ", of one kind and size"
    assert str(error.value) == f"{path}: {expected}"
    stack = nn.load(path, layer=names)
    for k, name in enumerate(names):
        alone = nn.load(path, layer=name)
        assert_same_bits(stack.params[f"weight_ih_l{k}"], alone.params["weight_ih_l0"])


REFUSED = {
    "linear": "linear: activation: expected 'tanh', got 'linear'",
    "relu": "relu: activation: expected 'tanh', got 'relu'",
    "hard": "hard: recurrent_activation: expected 'sigmoid' or 'hard_sigmoid', got 'hard_silu'",
    "backwards": "backwards: go_backwards: expected False, got True",
    "sum": "sum: merge_mode: expected 'concat', got 'sum'",
    "different": "different: activation: expected the same in both directions",
    "dense": "expected recurrent layers, got none",
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_fastrnn_has_not_is_refused_by_name(name, suffix, folder):
    path = folder / f"refused_{name}{suffix}"
    with pytest.raises(ValueError) as error:
        nn.load(path)
    assert str(error.value) == f"{path}: {REFUSED[name]}"
    assert nn.load(folder / "lstm.keras", layer=["lstm"]).form.layers == 1


# ---- files of earlier versions -------------------------------------------------------------------


def test_archives_of_keras_2_are_read(folder, tmp_path):
    """Whose layers lie elsewhere in the same HDF5 file."""
    path = tmp_path / "old.keras"
    with (
        zipfile.ZipFile(folder / "stack_both.keras") as new,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as old,
    ):
        (tmp_path / "weights.h5").write_bytes(new.read("model.weights.h5"))
        with h5py.File(tmp_path / "weights.h5", "r+") as file:
            file.move("layers", "_layer_checkpoint_dependencies")
        old.write(tmp_path / "weights.h5", "model.weights.h5")
        old.writestr("config.json", new.read("config.json"))
    assert_gives(nn.load(path), folder, "stack_both")


def write_as_keras_2(path, module, config=None):
    """A bidirectional LSTM as Keras 2.4 writes a model, or its weights alone."""
    with h5py.File(path, "w") as file:
        group = file if config is None else file.create_group("model_weights")
        for way, end in (("forward", "_l0"), ("backward", "_l0_reverse")):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            arrays = to_keras("lstm", from_torch("lstm", *(module.params[n + end] for n in names)))
            for name, a in zip(("kernel", "recurrent_kernel", "bias"), arrays, strict=True):
                group[f"words/words/{way}_lstm_1/lstm_cell_7/{name}:0"] = a
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)


def config_of_keras_2(**others):
    own = {"units": H, "activation": "tanh", "recurrent_activation": "sigmoid", **others}
    wrapped = {"class_name": "LSTM", "config": {"name": "lstm_1", **own}}
    layers = [
        {"class_name": "InputLayer", "config": {"name": "input_1"}, "inbound_nodes": []},
        {
            "class_name": "Bidirectional",
            "config": {"name": "words", "merge_mode": "concat", "layer": wrapped},
            "name": "words",
            "inbound_nodes": [[["input_1", 0, 0, {}]]],
        },
    ]
    return {"class_name": "Functional", "config": {"name": "model_1", "layers": layers}}


@pytest.mark.parametrize("config", [None, config_of_keras_2()], ids=["weights", "model"])
def test_models_of_keras_2_are_read(config, tmp_path, rng):
    module = nn.LSTM(D, H, bidirectional=True, seed=0)
    write_as_keras_2(tmp_path / "old.h5", module, config)
    x = rng.standard_normal((N, T, D)).astype("f")
    y = nn.load(tmp_path / "old.h5", layer="words").forward(x)[0]
    assert_close(y, module.forward(x)[0], TWIN["float32"])


SLOPES = {"1.2.2": 0.2, "2.4.0": 0.2, "3.0.0-tf": 1 / 6}


@pytest.mark.parametrize("version", [*SLOPES, "4.0.0", None])
def test_a_hard_sigmoid_is_that_of_the_version(version, tmp_path):
    path = tmp_path / "old.h5"
    config = config_of_keras_2(recurrent_activation="hard_sigmoid")
    write_as_keras_2(path, nn.LSTM(D, H, bidirectional=True), config)
    with h5py.File(path, "r+") as file:
        if version is not None:
            file.attrs["keras_version"] = version
    if version in SLOPES:
        given = Options(dropout_x=0.1, dropout_h=0.2)
        expected = given._replace(hard_sigmoid=SLOPES[version])
        assert nn.load(path, options=given).form.options == expected
        return
    with pytest.raises(ValueError) as error:
        nn.load(path)
    message = "words: recurrent_activation: expected 'sigmoid' in a file that names no Keras of 1"
    assert str(error.value).startswith(f"{path}: {message} to 3, got 'hard_sigmoid'")


# ---- files that are not what they say ------------------------------------------------------------


def damaged(change):
    def write(path, module):
        write_as_keras_2(path, module, config_of_keras_2())
        with h5py.File(path, "r+") as file:
            change(file)

    return write


KERNEL = "model_weights/words/words/forward_lstm_1/lstm_cell_7/kernel:0"


def replace(file, name=KERNEL, **keywords):
    del file[name]
    file.create_dataset(name, **keywords)


def elsewhere(file):
    virtual = h5py.VirtualLayout((D, 4 * H), "f4")
    virtual[:] = h5py.VirtualSource("other.h5", "a", (D, 4 * H))
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, virtual)


def linked(file):
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("other.h5", "a")


NUMBERS = np.zeros((D, 4 * H), "f")
DAMAGED = {
    "a_huge_shape": (
        lambda file: replace(file, shape=(1 << 40, 4 * H), dtype="f4", chunks=(64, 4 * H)),
        "words/kernel: expected 70368744177664 bytes, got 0",
    ),
    "a_huge_shape_of_little": (
        lambda file: replace(
            file, shape=(1 << 40, 4 * H), dtype="f4", chunks=(64, 4 * H), compression="gzip"
        ),
        "words/kernel: expected 70368744177664 bytes, got 0",
    ),
    "numbers_in_another_file": (
        lambda file: replace(
            file, shape=(D, 4 * H), dtype="f4", external=[("other.bin", 0, 16 * D * H)]
        ),
        "words/kernel: expected its numbers in the file itself",
    ),
    "numbers_of_another_file": (elsewhere, "words/kernel: expected its numbers in the file itself"),
    "a_link_into_another_file": (linked, "words: expected kernel, got "),
    "no_weights": (
        lambda file: file.__delitem__("model_weights/words"),
        "words: expected its weights, got none",
    ),
    "one_direction": (
        lambda file: file.__delitem__("model_weights/words/words/backward_lstm_1"),
        "words: expected weights of 2 cells, got 1",
    ),
    "another_shape": (
        lambda file: replace(file, data=np.zeros((D, 4 * H + 1), "f")),
        "words/kernel: expected shape (D, 4*H) = (5, 16), got (5, 17)",
    ),
    "another_size": (
        lambda file: replace(file, data=np.zeros((D, 4 * H + 4), "f")),
        "words/recurrent_kernel: expected shape (H, 4*H) = (5, 20), got (4, 16)",
    ),
    "integers": (
        lambda file: replace(file, data=NUMBERS.astype(int)),
        "not a Keras file (TypeError: words/kernel: expected float32 or float64, got int64)",
    ),
    "numbers_that_are_not_finite": (
        lambda file: replace(file, data=NUMBERS + np.nan),
        "words/kernel: expected finite numbers, got others",
    ),
    "no_config": (
        lambda file: file.attrs.__setitem__("model_config", "{"),
        "not a Keras file (Expecting property name",
    ),
    "a_config_of_something_else": (
        lambda file: file.attrs.__setitem__("model_config", "[NaN]"),
        "not a Keras file (TypeError: ",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused(case, tmp_path):
    change, message = DAMAGED[case]
    path = tmp_path / "damaged.h5"
    damaged(change)(path, nn.LSTM(D, H, bidirectional=True, seed=0))
    with pytest.raises(ValueError) as error:
        nn.load(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)
