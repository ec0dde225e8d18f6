"""PyTorch on the CPU: its operations in a loop over time, since it has none of these cells.

A step takes a, x Wx + b of the step, the states s, the weights w by the operands' names and the
masks m of the step; it returns the states after it. Gates lie as in fastrnn, i f o g and r z n;
numbers are those of FORMS.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fastrnn.benchmarks.cases import FORMS, Case
from fastrnn.benchmarks.operands import Operands
from fastrnn.benchmarks.peers import Idiom
from fastrnn.options import (
    DROPOUT_CANDIDATE,
    DROPOUT_H,
    DROPOUT_WEIGHTS,
    DROPOUT_X,
    ZONEOUT_C,
    ZONEOUT_H,
    below,
)
from fastrnn.weights import Layer, from_torch, to_torch

# As the compiler of torch.jit.script spells them.
States = list[Tensor]
Named = dict[str, Tensor]


# ---- steps ---------------------------------------------------------------------------------------


def _lstm_of(gates: Tensor, c: Tensor) -> States:
    i, f, o, g = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return [o.sigmoid() * c.tanh(), c]


def lstm(a: Tensor, s: States, w: Named, m: Named) -> States:
    return _lstm_of(torch.addmm(a, s[0], w["Wh"]), s[1])


def lstm_layer_norm(a: Tensor, s: States, w: Named, m: Named) -> States:
    u = s[0] @ w["Wh"]
    i, f, o, g = (a + torch.layer_norm(u, [u.shape[1]], w["gain_h"])).chunk(4, 1)
    c = f.sigmoid() * s[1] + i.sigmoid() * g.tanh()
    normal = torch.layer_norm(c, [c.shape[1]], w["gain_c"], w["shift_c"])
    return [o.sigmoid() * normal.tanh(), c]


def lstm_projection(a: Tensor, s: States, w: Named, m: Named) -> States:
    h, c = lstm(a, s, w, m)
    return [h @ w["projection"], c]


def lstm_peepholes(a: Tensor, s: States, w: Named, m: Named) -> States:
    i, f, o, g = torch.addmm(a, s[0], w["Wh"]).chunk(4, 1)
    to_i, to_f, to_o = w["peepholes"].chunk(3)
    c = (f + to_f * s[1]).sigmoid() * s[1] + (i + to_i * s[1]).sigmoid() * g.tanh()
    return [(o + to_o * c).sigmoid() * c.tanh(), c]


def lstm_zoneout(a: Tensor, s: States, w: Named, m: Named) -> States:
    h, c = lstm(a, s, w, m)
    return [torch.where(m["stays_h"], s[0], h), torch.where(m["stays_c"], s[1], c)]


def lstm_dropout_of_h(a: Tensor, s: States, w: Named, m: Named) -> States:
    return lstm(a, [s[0] * m["h"], s[1]], w, m)


def lstm_dropout_of_candidates(a: Tensor, s: States, w: Named, m: Named) -> States:
    i, f, o, g = torch.addmm(a, s[0], w["Wh"]).chunk(4, 1)
    c = f.sigmoid() * s[1] + i.sigmoid() * (g.tanh() * m["candidate"])
    return [o.sigmoid() * c.tanh(), c]


def lstm_clip(a: Tensor, s: States, w: Named, m: Named) -> States:
    return _lstm_of(torch.addmm(a, s[0], w["Wh"]).clamp(-1.0, 1.0), s[1])


class ClipGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, a: Tensor) -> Tensor:
        return a.view_as(a)

    @staticmethod
    def backward(context, da: Tensor) -> Tensor:
        return da.clamp(-0.01, 0.01)


def lstm_clip_of_gradients(a: Tensor, s: States, w: Named, m: Named) -> States:
    return _lstm_of(ClipGradient.apply(torch.addmm(a, s[0], w["Wh"])), s[1])


def lstm_hard_sigmoid(a: Tensor, s: States, w: Named, m: Named) -> States:
    gates = torch.addmm(a, s[0], w["Wh"])
    H = s[0].shape[1]
    i, f, o = (0.2 * gates[:, : 3 * H] + 0.5).clamp(0.0, 1.0).chunk(3, 1)
    c = f * s[1] + i * gates[:, 3 * H :].tanh()
    return [o * c.tanh(), c]


def _gru_of(a: Tensor, u: Tensor, h: Tensor) -> Tensor:
    H = h.shape[1]
    r, z = (a[:, : 2 * H] + u[:, : 2 * H]).sigmoid().chunk(2, 1)
    n = (a[:, 2 * H :] + r * u[:, 2 * H :]).tanh()
    return n + z * (h - n)


def gru_layer_norm(a: Tensor, s: States, w: Named, m: Named) -> States:
    u = s[0] @ w["Wh"]
    return [_gru_of(a, torch.layer_norm(u, [u.shape[1]], w["gain_h"], w["bh"]), s[0])]


def gru_zoneout(a: Tensor, s: States, w: Named, m: Named) -> States:
    h = _gru_of(a, torch.addmm(w["bh"], s[0], w["Wh"]), s[0])
    return [torch.where(m["stays_h"], s[0], h)]


def gru_dropout_of_h(a: Tensor, s: States, w: Named, m: Named) -> States:
    return [_gru_of(a, torch.addmm(w["bh"], s[0] * m["h"], w["Wh"]), s[0])]


def rnn_capped_relu(a: Tensor, s: States, w: Named, m: Named) -> States:
    return [torch.addmm(a, s[0], w["Wh"]).clamp(0.0, 1.0)]


def mgu(a: Tensor, s: States, w: Named, m: Named) -> States:
    (a_f, a_n), (W_f, W_n), h = a.chunk(2, 1), w["Wh"].chunk(2, 1), s[0]
    f = torch.addmm(a_f, h, W_f).sigmoid()
    n = torch.addmm(a_n, f * h, W_n).tanh()
    return [h + f * (n - h)]


def min_gru(a: Tensor, s: States, w: Named, m: Named) -> States:
    z, n = a.chunk(2, 1)
    return [s[0] + z.sigmoid() * (n - s[0])]


def min_lstm(a: Tensor, s: States, w: Named, m: Named) -> States:
    f, i, n = a.chunk(3, 1)
    f, i = f.sigmoid(), i.sigmoid()
    return [(f * s[0] + i * n) / (f + i)]


def ind_rnn(a: Tensor, s: States, w: Named, m: Named) -> States:
    return [(a + w["u"] * s[0]).relu()]


STEPS = {
    ("lstm", "layer norm"): lstm_layer_norm,
    ("gru", "layer norm"): gru_layer_norm,
    ("lstm", "projection"): lstm_projection,
    ("lstm", "peepholes"): lstm_peepholes,
    ("lstm", "zoneout"): lstm_zoneout,
    ("gru", "zoneout of h"): gru_zoneout,
    ("lstm", "dropout of x"): lstm,  # before the loop, as that of weights
    ("lstm", "dropout of h"): lstm_dropout_of_h,
    ("gru", "dropout of h"): gru_dropout_of_h,
    ("lstm", "dropout of candidates"): lstm_dropout_of_candidates,
    ("lstm", "dropout of weights"): lstm,
    ("lstm", "clip"): lstm_clip,
    ("lstm", "clip of gradients"): lstm_clip_of_gradients,
    ("lstm", "hard sigmoid"): lstm_hard_sigmoid,
    ("rnn", "capped relu"): rnn_capped_relu,
    ("gru", "MGU"): mgu,
    ("gru", "minGRU"): min_gru,
    ("lstm", "minLSTM"): min_lstm,
    ("rnn", "IndRNN"): ind_rnn,
}


# ---- loops ---------------------------------------------------------------------------------------


class Loop(torch.nn.Module):
    """h (N, T, H) of x (N, T, D): x Wx + b of all steps in one product, then step by step."""

    def __init__(self, step: Callable[[Tensor, States, Named, Named], States]) -> None:
        super().__init__()
        self.step = step

    def forward(
        self, x: Tensor, Wx: Tensor, b: Tensor, s: States, w: Named, m: list[Named]
    ) -> Tensor:
        x_rows = x.flatten(0, 1)
        if "gain_x" in w:  # of a layer norm
            a = torch.layer_norm(x_rows @ Wx, [Wx.shape[1]], w["gain_x"], b)
        else:
            a = torch.addmm(b, x_rows, Wx)
        h: list[Tensor] = []
        for t, a_t in enumerate(a.view(x.shape[0], x.shape[1], -1).unbind(1)):
            s = self.step(a_t, s, w, m[t])
            h.append(s[0])
        return torch.stack(h, 1)


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """The loop as it is, with a compiled step, as a script; torch.nn's layer where it has one.

    Not compiled as a whole: of 17 steps it would be a tenth faster, after half a minute of
    compiling; of 100 that takes more than two minutes.
    """
    torch.compiler.reset()  # what it has compiled of other cases counts towards its limit
    step = STEPS[case.cell, case.form]
    loops = {"eager": Loop(step), "compiled": Loop(torch.compile(step, dynamic=False))}
    if step is not lstm_clip_of_gradients:  # no script has gradients of its own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of its end
            loops["script"] = torch.jit.script(Loop(step))
    idioms = {name: _loop(case, operands, loop) for name, loop in loops.items()}
    if "projection" in operands:
        idioms["layer"] = _projected_layer(case, operands)
    return idioms


def _loop(case: Case, operands: Operands, loop: Callable[..., Tensor]) -> Idiom:
    t = {name: torch.tensor(a) for name, a in operands.items() if name != "dh"}
    at_once, step_by_step = _masks(case, t)
    s = _states(case, t["h0"])

    def call() -> Tensor:
        given = t | {name: t[name] * mask for name, mask in at_once.items()}
        return loop(given["x"], given["Wx"], given["b"], s, given, step_by_step)

    return _both(call, t, operands["dh"])


def _states(case: Case, h0: Tensor) -> States:
    """c begins with zeros."""
    return [h0, h0.new_zeros(case.N, case.H)] if case.cell == "lstm" else [h0]


def _both(call: Callable[[], Tensor], inputs: Named, dh: np.ndarray) -> Idiom:
    """h, which call makes, and its gradients by the inputs."""
    of, dh = [a.requires_grad_() for a in inputs.values()], torch.from_numpy(dh)

    def run() -> tuple[Tensor, ...]:
        h = call()
        return h, *torch.autograd.grad(h, of, dh)

    def collect(result: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
        names = "h", *(f"d{name}" for name in inputs)
        return {name: a.detach().numpy() for name, a in zip(names, result, strict=True)}

    return Idiom(run, collect)


def _projected_layer(case: Case, operands: Operands) -> Idiom:
    """torch.nn's own, the only one of these that it has."""
    Wx, Wh, b, projection = (operands[name] for name in ("Wx", "Wh", "b", "projection"))
    weights = to_torch("lstm", Layer(Wx, Wh, b, np.zeros_like(b), projection.T))
    layer = torch.nn.LSTM(case.D, case.H, batch_first=True, proj_size=projection.shape[1])
    layer.load_state_dict(
        {f"{name}_l0": torch.tensor(w) for name, w in weights.items()}, assign=True
    )
    x, h0 = (torch.tensor(operands[name]) for name in ("x", "h0"))
    states = tuple(state[None] for state in _states(case, h0.requires_grad_()))
    inputs = {"x": x, "h0": h0} | dict(layer.named_parameters())
    both = _both(lambda: layer(x, states)[0], inputs, operands["dh"])

    def collect(result: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
        got = both.collect(result)
        d = from_torch("lstm", *(got.pop(f"d{name}_l0") for name in weights))
        return got | {"dWx": d.Wx, "dWh": d.Wh, "db": d.b, "dprojection": d.Whr.T}

    return both._replace(collect=collect)


# ---- masks ---------------------------------------------------------------------------------------


def _masks(case: Case, t: Named) -> tuple[Named, list[Named]]:
    """fastrnn's, drawn beforehand, which costs PyTorch nothing: what operands are multiplied with,
    and for each step its own by the names that steps know."""
    options, N, H = FORMS[case.form].options, case.N, case.H
    every: Named = {}
    of_steps: list[Named] = [{} for _ in range(case.T)]
    if options is None:
        return every, of_steps

    def dropped(kind: int, p: float, rows: int, width: int, step: int = 0) -> Tensor:
        return torch.from_numpy(below(options.seed, kind, p, range(rows), width, step))

    def kept(kind: int, p: float, *of: int) -> Tensor:
        return ~dropped(kind, p, *of) / t["x"].new_tensor(1 - p)

    if p := options.dropout_x:
        every["x"] = kept(DROPOUT_X, p, N, case.D)[:, None]
    if p := options.dropout_weights:
        every["Wh"] = kept(DROPOUT_WEIGHTS, p, t["Wh"].shape[1], H).T.contiguous()
    h = kept(DROPOUT_H, options.dropout_h, N, H)
    for step, masks in enumerate(of_steps):
        masks["h"] = h
        masks["stays_h"] = dropped(ZONEOUT_H, options.zoneout_h, N, H, step)
        masks["stays_c"] = dropped(ZONEOUT_C, options.zoneout_c, N, H, step)
        masks["candidate"] = kept(DROPOUT_CANDIDATE, options.dropout_candidate, N, H, step)
    return every, of_steps
