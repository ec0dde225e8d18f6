"""PyTorch on the CPU: torch.nn modules, autograd, packed sequences, torch.optim.Adam."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands, captioner
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.conventions import OURS, TORCH, reorder
from fastrnn.captioning.model import NULL

LAYERS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
STEPS = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}
# Their names without the suffix of the layers, in the order of our gradients.
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """A module's forward pass in inference mode, or with autograd's gradients of everything; for a
    step the cell and the layer, for an iteration each implementation of Adam."""
    if case.direction == "iteration":
        options = {"Adam": {}, "Adam foreach": {"foreach": True}, "Adam fused": {"fused": True}}
        return {name: _iteration(case, operands, **o) for name, o in options.items()}
    if case.direction in ("step", "stream"):
        cell, layer = STEPS[case.cell].__name__, f"nn.{LAYERS[case.cell].__name__}"
        return {cell: _step(case, operands), layer: _layer_step(case, operands)}
    return {"": (_forward if case.direction == "forward" else _both)(case, operands)}


# ---- layers --------------------------------------------------------------------------------------


def _module(kind: type, case: Case, operands: Operands, suffix: str, **options) -> torch.nn.Module:
    """A layer or a cell with our weights."""
    Wx, Wh, b = (reorder(operands[w], OURS[case.cell], TORCH[case.cell]) for w in ("Wx", "Wh", "b"))
    bh = operands.get("bh", np.zeros_like(b))
    module = kind(Wx.shape[0], case.H, dtype=torch.from_numpy(b).dtype, **options)
    with torch.no_grad():
        for name, w in zip(WEIGHTS, (Wx.T, Wh.T, b, bh), strict=True):
            getattr(module, name + suffix).copy_(torch.from_numpy(w))
    return module


def recurrent(case: Case, operands: Operands) -> torch.nn.Module:
    """The layer with our weights."""
    return _module(LAYERS[case.cell], case, operands, "_l0", batch_first=True)


def recurrent_gradients(cell: str, module: torch.nn.Module) -> dict[str, np.ndarray]:
    """Those of a layer's weights, by our names, in our layout."""
    grads = (getattr(module, f"{name}_l0").grad.numpy() for name in WEIGHTS)
    ours = zip(("Wx", "Wh", "b", "bh"), grads, strict=True)
    return {name: reorder(a.T, TORCH[cell], OURS[cell]) for name, a in ours}


def _states(case: Case, operands: Operands) -> tuple[torch.Tensor, ...]:
    h0 = operands["h0"]
    names = ("h0", "c0") if case.cell == "lstm" else ("h0",)
    return tuple(torch.from_numpy(operands.get(name, np.zeros_like(h0))) for name in names)


def _as_argument(states: tuple[torch.Tensor, ...]) -> object:
    return states if len(states) > 1 else states[0]


def _forward(case: Case, operands: Operands) -> Idiom:
    module, x = recurrent(case, operands), torch.from_numpy(operands["x"])
    states = _as_argument(tuple(s[None] for s in _states(case, operands)))
    return Idiom(
        partial(module, x, states), lambda result: {"h": result[0].numpy()}, torch.inference_mode
    )


def _both(case: Case, operands: Operands) -> Idiom:
    module = recurrent(case, operands)
    x, dh = (torch.from_numpy(operands[name]) for name in ("x", "dh"))
    h0, *c0 = (s[None] for s in _states(case, operands))
    call = _packed(module, operands) if "lengths" in operands else module
    inputs = [x.requires_grad_(), h0.requires_grad_()]
    inputs += [getattr(module, f"{name}_l0") for name in WEIGHTS]

    def run() -> tuple[torch.Tensor, ...]:
        h = call(x, _as_argument((h0, *c0)))[0]
        return h, *torch.autograd.grad(h, inputs, dh)

    return Idiom(run, partial(_collect, case.cell))


def _packed(module: torch.nn.Module, operands: Operands) -> Callable:
    lengths, T = torch.from_numpy(operands["lengths"]), operands["x"].shape[1]

    def call(x: torch.Tensor, states: object) -> tuple[torch.Tensor, torch.Tensor]:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(module(packed, states)[0], batch_first=True, total_length=T)

    return call


def _collect(cell: str, result: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray]:
    h, dx, dh0, *weights = (a.detach().numpy() for a in result)
    ours = dict(zip(("dWx", "dWh", "db", "dbh"), weights, strict=True))
    gradients = {name: reorder(a.T, TORCH[cell], OURS[cell]) for name, a in ours.items()}
    return {"h": h, "dx": dx, "dh0": dh0[0], **gradients}


# ---- one step ------------------------------------------------------------------------------------


def _step(case: Case, operands: Operands) -> Idiom:
    cell = _module(STEPS[case.cell], case, operands, "")
    x, states = torch.from_numpy(operands["x"][:, 0]), _as_argument(_states(case, operands))
    return Idiom(partial(cell, x, states), _named, torch.inference_mode)


def _layer_step(case: Case, operands: Operands) -> Idiom:
    def collect(result: tuple) -> dict[str, np.ndarray]:
        return {name: a[0] for name, a in _named(result[1]).items()}

    return _forward(case, operands)._replace(collect=collect)


def _named(states: object) -> dict[str, np.ndarray]:
    states = states if isinstance(states, tuple) else (states,)
    return {name: state.numpy() for name, state in zip("hc", states, strict=False)}


# ---- captioning ----------------------------------------------------------------------------------


class _Captioner(torch.nn.Module):
    """The model of fastrnn.captioning, written as PyTorch's users write it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        ours = captioner(case)
        p, dtype = ours.params, torch.from_numpy(ours.params["b"]).dtype
        self.null = ours.word_to_idx[NULL]
        self.proj = torch.nn.Linear(case.D, case.H, dtype=dtype)
        self.embed = torch.nn.Embedding(case.V, case.W, dtype=dtype)
        self.cell = recurrent(case, p)
        self.vocab = torch.nn.Linear(case.H, case.V, dtype=dtype)
        with torch.no_grad():
            self.embed.weight.copy_(torch.from_numpy(p["W_embed"]))
            for name in ("proj", "vocab"):
                linear = getattr(self, name)
                linear.weight.copy_(torch.from_numpy(p[f"W_{name}"].T))
                linear.bias.copy_(torch.from_numpy(p[f"b_{name}"]))

    def forward(self, features: torch.Tensor, captions: torch.Tensor) -> torch.Tensor:
        h0 = self.proj(features)[None]
        states = (h0, torch.zeros_like(h0)) if isinstance(self.cell, torch.nn.LSTM) else h0
        h, _ = self.cell(self.embed(captions[:, :-1]), states)
        scores, words = self.vocab(h).flatten(0, 1), captions[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(
            scores, words, ignore_index=self.null, reduction="sum"
        )
        return loss / len(captions)

    def gradients(self, cell: str) -> dict[str, np.ndarray]:
        """By our names, in our layout."""
        grads = {name: p.grad.numpy() for name, p in self.named_parameters()}
        ours = {"W_embed": grads["embed.weight"]}
        for name in ("proj", "vocab"):
            ours[f"W_{name}"], ours[f"b_{name}"] = grads[f"{name}.weight"].T, grads[f"{name}.bias"]
        return ours | recurrent_gradients(cell, self.cell)


def _iteration(case: Case, operands: Operands, **options: bool) -> Idiom:
    model = _Captioner(case)
    features, captions = (torch.from_numpy(operands[name]) for name in ("features", "captions"))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, **options)

    def run() -> torch.Tensor:
        adam.zero_grad()
        loss = model(features, captions)
        loss.backward()
        adam.step()
        return loss

    return Idiom(run, lambda loss: {"loss": loss.detach().numpy(), **model.gradients(case.cell)})
