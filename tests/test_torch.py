"""Oracle 3, a stranger: the layers of PyTorch, their values and every gradient by its autograd."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from util import LAYERS, TWIN, assert_close, differentiable, draw, run, upstream

from fastrnn.layers.checks import GATE_ORDERS


def in_torch_order(a, gates):
    """Gates i f o g in a given order to the i f g o of PyTorch, along the last axis."""
    places = dict(zip(gates, a.chunk(4, dim=-1), strict=True))
    return torch.cat([places[gate] for gate in "ifgo"], dim=-1)


def recurrent(module, x, states, Wx, Wh, b, suffix, **keywords):
    """A module of PyTorch with our weights; it has a second bias, which is zero here."""
    names = (f"{name}_{end}{suffix}" for name in ("weight", "bias") for end in ("ih", "hh"))
    parameters = dict(zip(names, (Wx.T, Wh.T, b, torch.zeros_like(b)), strict=True))
    built = module(*Wx.shape[:1], *Wh.shape[:1], dtype=x.dtype, **keywords)
    return torch.func.functional_call(built, parameters, (x, states))


def rnn(x, h0, Wx, Wh, b):
    out, _ = recurrent(torch.nn.RNN, x, h0[None], Wx, Wh, b, "_l0", batch_first=True)
    return (out,)


def rnn_step(x, prev_h, Wx, Wh, b):
    return (recurrent(torch.nn.RNNCell, x, prev_h, Wx, Wh, b, ""),)


def lstm(x, h0, *weights, gates):
    states = h0[None], torch.zeros_like(h0[None])
    weights = [in_torch_order(w, gates) for w in weights]
    out, _ = recurrent(torch.nn.LSTM, x, states, *weights, "_l0", batch_first=True)
    return (out,)


def lstm_step(x, prev_h, prev_c, *weights, gates):
    weights = [in_torch_order(w, gates) for w in weights]
    return recurrent(torch.nn.LSTMCell, x, (prev_h, prev_c), *weights, "")


def temporal_softmax_loss(x, y, mask=None):
    losses = F.cross_entropy(x.flatten(0, 1), y.flatten(), reduction="none")
    weight = 1 if mask is None else mask.flatten()
    return (torch.sum(losses * weight) / len(x),)


STRANGERS = {
    "rnn": rnn,
    "rnn_step": rnn_step,
    "lstm": partial(lstm, gates="ifog"),
    "lstm_step": partial(lstm_step, gates="ifog"),
    "affine": lambda x, w, b: (F.linear(x, w.T, b),),
    "affine_of_images": lambda x, w, b: (F.linear(x.flatten(1), w.T, b),),
    "temporal_affine": lambda x, w, b: (F.linear(x, w.T, b),),
    "word_embedding": lambda words, W: (F.embedding(words, W),),
    "softmax_loss": lambda x, y: (F.cross_entropy(x, y),),
    "temporal_softmax_loss": temporal_softmax_loss,
    "temporal_softmax_loss_bool": temporal_softmax_loss,
    "temporal_softmax_loss_real": temporal_softmax_loss,
}
for name in ("fico", "ifgo", "iofg"):
    STRANGERS[f"lstm_{name}"] = partial(lstm, gates=GATE_ORDERS[name])
    STRANGERS[f"lstm_{name}_step"] = partial(lstm_step, gates=GATE_ORDERS[name])


@pytest.mark.parametrize("shape", [(3, 1, 4, 5), (7, 11, 16, 33)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_torch(name, shape, backend, dtype, rng):
    operands = draw(LAYERS[name], rng, dtype, *shape)
    ours = run(LAYERS[name], operands)
    tensors = {name: torch.from_numpy(a.copy()) for name, a in operands.items()}
    inputs = {name: tensors[name].requires_grad_() for name in differentiable(tensors)}
    outputs = STRANGERS[name](*tensors.values())
    values = [out.detach().numpy() for out in outputs]
    gradients = torch.autograd.grad(
        outputs, inputs.values(), [torch.from_numpy(dout) for dout in upstream(values)]
    )
    for i, value in enumerate(values):
        assert_close(np.asarray(ours[f"out_{i}"], dtype), value, TWIN[dtype.name])
    for name, gradient in zip(inputs, gradients, strict=True):
        assert_close(ours[f"d{name}"], gradient.numpy(), TWIN[dtype.name])
