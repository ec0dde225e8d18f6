"""PyTorch on the CPU: torch.nn modules, autograd, packed sequences, torch.optim.Adam."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch.nn.utils.rnn import (
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    unpack_sequence,
)

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.models import CELLS, LAYERS
from fastrnn.benchmarks.operands import WAYS, Operands, captioner
from fastrnn.benchmarks.peers import Idiom
from fastrnn.captioning.vocabulary import NULL
from fastrnn.weights import Layer, from_torch, to_torch

# Ours, in the order of a module's parameters, which are these for each direction.
WEIGHTS = ("Wx", "Wh", "b", "bh")

States = tuple[torch.Tensor, ...]


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """A module's forward pass in inference mode, or with autograd's gradients of everything; for a
    step the cell and the layer, for an iteration each implementation of Adam, for states that start
    anew a loop over time and the pieces between as sequences of their own."""
    if case.direction == "iteration":
        options = {"Adam": {}, "Adam foreach": {"foreach": True}, "Adam fused": {"fused": True}}
        return {name: _iteration(case, operands, **o) for name, o in options.items()}
    if case.one_step:
        return {"cell": _step(case, operands), "layer": _layer_step(case, operands)}
    if "reset" in operands:
        cell, layer = _module(CELLS[case.cell], case, operands), recurrent(case, operands)
        return {
            "loop": _both(case, operands, cell, partial(_loop, cell, operands["reset"])),
            "packed": _both(case, operands, layer, partial(_pieces, layer, operands["reset"])),
        }
    if case.direction in ("forward", "steps"):
        return {"": _forward(case, operands)}
    layer = recurrent(case, operands)
    lengths = operands.get("lengths")
    if lengths is None:
        return {"": _both(case, operands, layer, partial(_whole, layer))}
    return {"": _both(case, operands, layer, partial(_packed, layer, torch.from_numpy(lengths)))}


# ---- layers --------------------------------------------------------------------------------------


def _ways(operands: Operands) -> list[str]:
    """What the names of the weights of each direction end with."""
    return [way for way in WAYS if f"Wx{way}" in operands]


def _module(kind: type, case: Case, operands: Operands, **options) -> torch.nn.Module:
    """A layer or a cell with our weights."""
    weights = []
    for way in _ways(operands):
        Wx, Wh, b = (operands[f"{name}{way}"] for name in WEIGHTS[:3])
        layer = Layer(Wx, Wh, b, operands.get(f"bh{way}", np.zeros_like(b)))
        weights += to_torch(case.cell, layer).values()
    module = kind(len(Wx), case.H, dtype=torch.from_numpy(b).dtype, **options)
    with torch.no_grad():
        for parameter, w in zip(module.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(w))
    return module


def recurrent(case: Case, operands: Operands) -> torch.nn.Module:
    """The layer with our weights."""
    options = {"batch_first": True, "bidirectional": len(_ways(operands)) > 1}
    return _module(LAYERS[case.cell], case, operands, **options)


def recurrent_gradients(cell: str, module: torch.nn.Module) -> dict[str, np.ndarray]:
    """Those of a layer's weights, by our names, in our layout."""
    return dict(zip(WEIGHTS, _ours(cell, [w.grad for w in module.parameters()]), strict=True))


def _ours(cell: str, arrays: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Arrays of the shapes of a module's parameters, in the order of WEIGHTS, in our layout."""
    result, each = [], len(WEIGHTS)
    for i in range(0, len(arrays), each):
        result += from_torch(cell, *(a.numpy() for a in arrays[i : i + each]))[:each]
    return result


def _states(case: Case, operands: Operands) -> States:
    """h0, and of an lstm c0, zeros where there is none; of each direction one after the other."""
    h0 = np.stack([operands[f"h0{way}"] for way in _ways(operands)])
    c0 = operands["c0"][None] if "c0" in operands else np.zeros_like(h0)
    return tuple(map(torch.from_numpy, (h0, c0) if case.cell == "lstm" else (h0,)))


def _as_argument(states: States) -> object:
    return states if len(states) > 1 else states[0]


def _forward(case: Case, operands: Operands) -> Idiom:
    module, x = recurrent(case, operands), torch.from_numpy(operands["x"])
    states = _as_argument(_states(case, operands))
    return Idiom(
        partial(module, x, states), lambda result: {"h": result[0].numpy()}, torch.inference_mode
    )


def _both(
    case: Case,
    operands: Operands,
    module: torch.nn.Module,
    call: Callable[[torch.Tensor, States], torch.Tensor],
) -> Idiom:
    """call makes h (N, T, H) of x and the states before, by a module."""
    x, dh = (torch.from_numpy(operands[name]) for name in ("x", "dh"))
    h0, *c0 = _states(case, operands)
    inputs = [x.requires_grad_(), h0.requires_grad_(), *module.parameters()]

    def run() -> tuple[torch.Tensor, ...]:
        h = call(x, (h0, *c0))
        return h, *torch.autograd.grad(h, inputs, dh)

    def collect(result: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray]:
        h, dx, dh0 = (a.detach().numpy() for a in result[:3])
        names = [f"d{name}{way}" for way in _ways(operands) for name in WEIGHTS]
        named = {f"dh0{way}": a for way, a in zip(_ways(operands), dh0, strict=True)}
        weights = zip(names, _ours(case.cell, result[3:]), strict=True)
        return {"h": h, "dx": dx, **named, **dict(weights)}

    return Idiom(run, collect)


def _whole(module: torch.nn.Module, x: torch.Tensor, states: States) -> torch.Tensor:
    return module(x, _as_argument(states))[0]


def _packed(
    module: torch.nn.Module, lengths: torch.Tensor, x: torch.Tensor, states: States
) -> torch.Tensor:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    h = module(packed, _as_argument(states))[0]
    return pad_packed_sequence(h, batch_first=True, total_length=x.shape[1])[0]


def _loop(
    cell: torch.nn.Module, reset: np.ndarray, x: torch.Tensor, states: States
) -> torch.Tensor:
    """The states times a mask before each step."""
    states, hs = [state[0] for state in states], []
    kept = torch.from_numpy(~reset).to(x.dtype)
    for x_t, mask in zip(x.unbind(1), kept.unsqueeze(-1).unbind(1), strict=True):
        after = cell(x_t, _as_argument(tuple(state * mask for state in states)))
        states = after if isinstance(after, tuple) else (after,)
        hs.append(states[0])
    return torch.stack(hs, 1)


def _pieces(
    module: torch.nn.Module, reset: np.ndarray, x: torch.Tensor, states: States
) -> torch.Tensor:
    """What lies between resets as sequences of their own: those that go on from the states before
    and those that start from zeros."""
    starts = reset.copy()
    starts[:, 0] = True
    places = np.flatnonzero(starts)
    lengths = np.diff(places, append=starts.size).tolist()
    packed = pack_sequence(x.flatten(0, 1).split(lengths), enforce_sorted=False)
    rows = np.flatnonzero(~reset[:, 0])
    pieces = torch.from_numpy(np.searchsorted(places, rows * reset.shape[1]))
    rows = torch.from_numpy(rows)
    first = tuple(
        state.new_zeros(1, len(places), state.shape[-1]).index_copy(1, pieces, state[:, rows])
        for state in states
    )
    h = unpack_sequence(module(packed, _as_argument(first))[0])
    return torch.cat(h).view(*reset.shape, -1)


# ---- one step ------------------------------------------------------------------------------------


def _step(case: Case, operands: Operands) -> Idiom:
    cell, x = _module(CELLS[case.cell], case, operands), torch.from_numpy(operands["x"][:, 0])
    states = _as_argument(tuple(state[0] for state in _states(case, operands)))
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
