"""Oracle 3, a stranger: the layers of PyTorch, their values and every gradient by its autograd."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from util import COLUMNS, LAYERS, TWIN, assert_close, differentiable, draw, run, upstream

from fastrnn.cells import LSTM
from fastrnn.weights import Layer, reorder, to_torch

MODULES = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
CELLS = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}


def call(module, x, states, parameters, suffix="", **keywords):
    """A module of PyTorch with these parameters."""
    (_, D), (_, H) = (parameters[name].shape for name in ("weight_ih", "weight_hh"))
    built = module(D, H, dtype=parameters["weight_ih"].dtype, **keywords)
    named = {f"{name}{suffix}": w for name, w in parameters.items()}
    return torch.func.functional_call(built, named, (x, states))


def in_torch(cell, gates, Wx, Wh, b, bh):
    """Our weights as PyTorch's; ours without a second bias are its with zeros."""
    bh = torch.zeros_like(b) if bh is None else bh
    return to_torch(cell, Layer(Wx, Wh, b, bh), gates=gates)


def step(cell, x, *operands, bh=None, gates=None, reset_after=True, **keywords):
    if cell in MINIMAL:
        return (MINIMAL[cell](x, *operands, **({"gates": gates} if gates else {}), **keywords),)
    if cell == "lstm" and len(operands) == 6:
        return projected_lstm_step(x, *operands, gates or "ifog")
    *states, Wx, Wh, b = operands
    if not reset_after:
        return (original_gru_step(x, *states, *ordered(gates, Wx, Wh, b, bh)),)
    parameters = in_torch(cell, gates, Wx, Wh, b, bh)
    if cell == "lstm":
        return call(CELLS[cell], x, tuple(states), parameters)
    return (call(CELLS[cell], x, *states, parameters, **keywords),)


def ordered(gates, *weights):
    """Wx, Wh, b and bh, which may be None, of a GRU, with the gates r z n."""
    return [w if w is None else reorder(w, gates or "rzn", "rzn") for w in weights]


def original_gru_step(x, h, Wx, Wh, b, bh):
    """Of which PyTorch has no module: the equations of Cho et al. (2014)."""
    ar, az, an = (x @ Wx + b).chunk(3, dim=-1)
    Ur, Uz, Un = Wh.chunk(3, dim=-1)
    br, bz, bn = (torch.zeros_like(b) if bh is None else bh).chunk(3)
    r, z = torch.sigmoid(ar + h @ Ur + br), torch.sigmoid(az + h @ Uz + bz)
    return z * h + (1 - z) * torch.tanh(an + (r * h) @ Un + bn)


def projected_lstm_step(x, h, c, Wx, Wh, b, projection, gates):
    a = by_gate(x @ Wx + b + h @ Wh, LSTM.orders[gates])
    i, f, o = (torch.sigmoid(a[gate]) for gate in "ifo")
    c = f * c + i * torch.tanh(a["g"])
    return (o * torch.tanh(c)) @ projection, c


def by_gate(a, gates):
    return dict(zip(gates, a.chunk(len(gates), dim=-1), strict=True))


def mgu_step(x, h, Wx, Wh, b, gates="fn"):
    a, U = by_gate(x @ Wx + b, gates), by_gate(Wh, gates)
    f = torch.sigmoid(a["f"] + h @ U["f"])
    return (1 - f) * h + f * torch.tanh(a["n"] + (f * h) @ U["n"])


def candidate(a, nonlinearity):
    return a if nonlinearity == "linear" else torch.where(a >= 0, a + 0.5, torch.sigmoid(a))


def min_gru_step(x, h, Wx, b, gates="zn", nonlinearity="linear"):
    a = by_gate(x @ Wx + b, gates)
    return torch.lerp(h, candidate(a["n"], nonlinearity), torch.sigmoid(a["z"]))


def min_lstm_step(x, h, Wx, b, gates="fin", nonlinearity="linear"):
    """As the paper has it for its logarithms: f / (f + i) is a sigmoid."""
    a = by_gate(x @ Wx + b, gates)
    forget = torch.sigmoid(F.softplus(-a["i"]) - F.softplus(-a["f"]))
    return torch.lerp(candidate(a["n"], nonlinearity), h, forget)


def ind_rnn_step(x, h, Wx, u, b, nonlinearity="relu"):
    return getattr(torch, nonlinearity)(F.linear(x, Wx.T, b) + u * h)


# Of these there are no modules: loops of autograd's operations.
MINIMAL = {"mgu": mgu_step, "min_gru": min_gru_step, "min_lstm": min_lstm_step}
MINIMAL |= {"ind_rnn": ind_rnn_step}


def sequence(cell, x, h0, *, c0=None, bh=None, lengths=None, reset=None, reverse=False, **keywords):
    N, T, _ = x.shape
    projected, names = "projection" in keywords, ("Wx", "Wh", "u", "b", "projection")
    weights = [keywords.pop(name) for name in names if name in keywords]
    lengths = torch.full((N,), T) if lengths is None else lengths
    t, end = torch.arange(T), lengths[:, None]
    order = torch.where(t < end, end - 1 - t, t) if reverse else t.expand(N, T)

    def in_order(a):
        return a.gather(1, order[..., None].expand_as(a))

    if reset is not None or projected or cell in MINIMAL:
        reset = torch.zeros((N, T), dtype=bool) if reset is None else reset
        reset = in_order(reset[..., None].expand(N, T, 1))
        keywords |= {} if bh is None else {"bh": bh}
        h, *last = step_by_step(cell, in_order(x), h0, c0, weights, lengths, reset, **keywords)
    else:
        h, *last = packed(cell, in_order(x), h0, c0, *weights, bh, lengths, **keywords)
    return in_order(h), *last


def step_by_step(cell, x, h0, c0, weights, lengths, reset, *, reset_to="zeros", **keywords):
    """A loop over steps, in which the states are set back."""
    states = [h0]
    if cell == "lstm":
        states.append(h0.new_zeros(len(h0), len(weights[2]) // 4) if c0 is None else c0)
    anew = states if reset_to == "initial" else [torch.zeros_like(state) for state in states]
    h = []
    for t, x_t in enumerate(x.unbind(dim=1)):
        within = (t < lengths)[:, None]
        before = [
            torch.where(reset[:, t] & within, a, s) for a, s in zip(anew, states, strict=True)
        ]
        after = step(cell, x_t, *before, *weights, **keywords)
        states = [torch.where(within, a, s) for a, s in zip(after, states, strict=True)]
        h.append(torch.where(within, states[0], torch.zeros_like(states[0])))
    return torch.stack(h, dim=1), *states


def packed(cell, x, h0, c0, Wx, Wh, b, bh, lengths, gates=None, reset_after=True, **keywords):
    """h and the last states, time running forwards."""
    if not reset_after:
        return original_gru(x, h0, *ordered(gates, Wx, Wh, b, bh), lengths)
    states = h0[None]
    if cell == "lstm":
        states = h0[None], torch.zeros_like(h0[None]) if c0 is None else c0[None]
    parameters = in_torch(cell, gates, Wx, Wh, b, bh)
    x, T = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), x.shape[1]
    h, last = call(MODULES[cell], x, states, parameters, "_l0", batch_first=True, **keywords)
    h, _ = pad_packed_sequence(h, batch_first=True, total_length=T)
    return h, *(state[0] for state in (last if cell == "lstm" else (last,)))


def original_gru(x, h, Wx, Wh, b, bh, lengths):
    steps = []
    for t, x_t in enumerate(x.unbind(dim=1)):
        within = (t < lengths)[:, None]
        h = torch.where(within, original_gru_step(x_t, h, Wx, Wh, b, bh), h)
        steps.append(torch.where(within, h, torch.zeros_like(h)))
    return torch.stack(steps, dim=1), h


def temporal_softmax_loss(x, y, mask=None, **options):
    losses = F.cross_entropy(x.flatten(0, 1), y.flatten(), reduction="none", **options)
    weight = 1 if mask is None else mask.flatten()
    return (torch.sum(losses * weight) / len(x),)


def embedding_bag(mode):
    def forward(words, bags, W):
        return (F.embedding_bag(words, W, torch.cumsum(bags, 0) - bags, mode=mode),)

    return forward


def attention(query, keys, values, w=None, index=None):
    if index is not None:
        keys, values = keys[index], values[index]
    if w is None:
        scores = torch.einsum("nla,na->nl", keys, query) / query.shape[1] ** 0.5
    else:
        scores = torch.tanh(keys + query[:, None]) @ w
    weights = torch.softmax(scores, dim=1)
    return torch.einsum("nl,nld->nd", weights, values), weights


STRANGERS = {
    "affine": lambda x, w, b: (F.linear(x, w.T, b),),
    "affine_of_images": lambda x, w, b: (F.linear(x.flatten(1), w.T, b),),
    "temporal_affine": lambda x, w, b: (F.linear(x, w.T, b),),
    **dict.fromkeys(
        ("word_embedding", "word_embedding_sparse"), lambda words, W: (F.embedding(words, W),)
    ),
    "embedding_bag": embedding_bag("sum"),
    **dict.fromkeys(("embedding_bag_mean", "embedding_bag_mean_sparse"), embedding_bag("mean")),
    **dict.fromkeys(("attention", "attention_dot", "attention_index"), attention),
    "attention_dot_index": lambda query, keys, values, index: attention(
        query, keys, values, index=index
    ),
    "softmax_loss": lambda x, y: (F.cross_entropy(x, y),),
    "temporal_softmax_loss": temporal_softmax_loss,
    "temporal_softmax_loss_bool": temporal_softmax_loss,
    "temporal_softmax_loss_real": temporal_softmax_loss,
    "temporal_softmax_loss_smoothed": partial(temporal_softmax_loss, label_smoothing=0.3),
}


def stranger(name, tensors):
    """Outputs of PyTorch for the operands of a layer, by name."""
    layer = LAYERS[name]
    cell = layer.function.removesuffix("_step")
    if cell not in COLUMNS:
        return STRANGERS[name](*tensors.values())
    keywords = dict(layer.keywords)
    if keywords.pop("transposed", False):
        names = "Wx", "Wh", "projection"
        tensors = tensors | {n: tensors[n].T for n in names if n in tensors}
    if cell != layer.function:
        by_name = {"bh": tensors["bh"]} if "bh" in tensors else {}
        positional = [a for key, a in tensors.items() if key not in by_name]
        return step(cell, *positional, **by_name, **keywords)
    if "index" in tensors:
        tensors = tensors | {"x": tensors["x"][tensors["index"]]}
        del tensors["index"]
    return sequence(cell, **tensors, **keywords)[: 1 + len(layer.last_states)]


@pytest.mark.parametrize("shape", [(3, 1, 4, 5), (7, 11, 16, 33)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_torch(name, shape, backend, dtype, rng):
    operands = draw(LAYERS[name], rng, dtype, *shape)
    if "lengths" in operands:
        operands["lengths"] = np.maximum(operands["lengths"], 1)  # as PyTorch wants them
    ours = run(LAYERS[name], operands)
    tensors = {name: torch.from_numpy(a.copy()) for name, a in operands.items()}
    inputs = {name: tensors[name].requires_grad_() for name in differentiable(tensors)}
    outputs = stranger(name, tensors)
    values = [out.detach().numpy() for out in outputs]
    gradients = torch.autograd.grad(
        outputs, inputs.values(), [torch.from_numpy(dout) for dout in upstream(values)]
    )
    for i, value in enumerate(values):
        assert_close(np.asarray(ours[f"out_{i}"], dtype), value, TWIN[dtype.name])
    for name, gradient in zip(inputs, gradients, strict=True):
        assert_close(ours[f"d{name}"], gradient.numpy(), TWIN[dtype.name])
