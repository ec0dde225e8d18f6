"""PyTorch's modules that are raced: its layers as they are called, and the recurrent part of real
programs at their real sizes, written anew.

What each is after: "text recognition", kraken's; "recurrent policy", PPO's of sb3-contrib;
"forecaster", darts's; "noise suppression", DeepFilterNet's; "amplifier", of neural amp modelling;
"voice activity", Silero's; "tagger", stanza's.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastrnn.benchmarks.cases import Case

LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}
CHARACTERS, ACTIONS, QUANTILES, TAGS = 120, 6, 20, 50


class Model(NamedTuple):
    """A module and what it is called with; what it returns, or the first thing of it, is y."""

    module: nn.Module
    inputs: tuple


def make(case: Case) -> Model:
    """The module of a case, the same in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, inputs = MAKERS[case.form](case)
    dtype = getattr(torch, case.dtype)
    return Model(module.to(dtype), tuple(_cast(a, dtype) for a in inputs))


def _cast(a: object, dtype: torch.dtype) -> object:
    if isinstance(a, tuple):
        return tuple(state.to(dtype) for state in a)
    return a.to(dtype) if a.is_floating_point() else a


def first(result: Tensor | tuple) -> Tensor:
    """y of what a module returns."""
    return result[0] if isinstance(result, tuple) else result


# ---- layers --------------------------------------------------------------------------------------


class Packed(nn.Module):
    """A layer over padded sequences (N, T, D) that are packed for it and padded again."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, lengths: Tensor, states: tuple | None = None) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = self.layer(packed, states)
        return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]


class Loop(nn.Module):
    """A cell, called step by step over x (N, T, D)."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state, h = None, []
        for x_t in x.unbind(1):
            state = self.cell(x_t, state)
            h.append(first(state))
        return torch.stack(h, 1)


def _batch_first(case: Case, **options: object) -> Model:
    layer = LAYERS[case.cell](case.D, case.H, batch_first=True, **options)
    return Model(layer, (torch.randn(case.N, case.T, case.D),))


def _time_first(case: Case) -> Model:
    layer = LAYERS[case.cell](case.D, case.H)
    return Model(layer, (torch.randn(case.T, case.N, case.D),))


def _given_states(case: Case) -> Model:
    h0, c0 = torch.randn(2, 1, case.N, case.H)
    layer, (x,) = _batch_first(case)
    return Model(layer, (x, (h0, c0) if case.cell == "lstm" else h0))


def _packed(case: Case) -> Model:
    layer, (x,) = _batch_first(case)
    return Model(Packed(layer), (x, torch.from_numpy(case.lengths)))


def _cell(case: Case) -> Model:
    cell = CELLS[case.cell](case.D, case.H)
    return Model(Loop(cell), (torch.randn(case.N, case.T, case.D),))


# ---- models --------------------------------------------------------------------------------------


class TextRecognition(nn.Module):
    """Columns of pixels' features (N, T, D) to scores of characters, by layers that pack one by
    one."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        bidirectional = partial(nn.LSTM, batch_first=True, bidirectional=True)
        sizes = (D, 2 * H, 2 * H)
        self.layers = nn.ModuleList(Packed(bidirectional(size, H)) for size in sizes)
        self.scores = nn.Linear(2 * H, CHARACTERS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, lengths)
        return self.scores(x)


class RecurrentPolicy(nn.Module):
    """Features (T, N, D) to scores of actions and a value; starts (N, T) says where an episode
    begins, and the state with it."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(D, H)
        self.head = nn.Linear(H, ACTIONS + 1)

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        h = c = x.new_zeros(1, x.shape[1], self.lstm.hidden_size)
        hs = []
        for x_t, kept in zip(x, (~starts).to(x.dtype).T.unsqueeze(-1), strict=True):
            y, (h, c) = self.lstm(x_t[None], (kept * h, kept * c))
            hs.append(y)
        return self.head(torch.cat(hs))

    def at_once(self, x: Tensor, starts: Tensor) -> Tensor:
        """The same in one call, by a layer of fastrnn.torch."""
        y, _ = self.lstm(x, reset=starts)
        return self.head(y)


class Forecaster(nn.Module):
    """Series and covariates (N, T, D) to quantiles of what comes next."""

    def __init__(self, D: int, H: int, cell: str = "LSTM") -> None:
        super().__init__()
        options = {"input_size": D, "hidden_size": H, "num_layers": 1, "batch_first": True}
        self.rnn = getattr(nn, cell)(**options)
        self.quantiles = nn.Linear(H, QUANTILES)

    def forward(self, x: Tensor) -> Tensor:
        return self.quantiles(self.rnn(x)[0])


class NoiseSuppression(nn.Module):
    """Frames of a spectrum (N, T, 2*D) to as many features and the state to go on from."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(2 * D, D), nn.ReLU())
        self.gru = nn.GRU(D, H, batch_first=True)
        self.after = nn.Sequential(nn.Linear(H, 2 * D), nn.ReLU())

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.gru(self.before(x), state)
        return self.after(y), state


class Amplifier(nn.Module):
    """Samples (N, T, D) to samples, from a state that is learnt."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(D, H, batch_first=True)
        self.h0, self.c0 = (nn.Parameter(0.1 * torch.randn(H)) for _ in range(2))
        self.head = nn.Linear(H, 1)

    def forward(self, x: Tensor) -> Tensor:
        states = tuple(s.expand(1, len(x), -1).contiguous() for s in (self.h0, self.c0))
        return self.head(self.lstm(x, states)[0])


class Tagger(nn.Module):
    """Vectors of words (N, T, D) to scores of tags, by two bidirectional layers whose first states
    are learnt."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        layers = nn.LSTM(D, H, num_layers=2, batch_first=True, bidirectional=True)
        self.encoder = Packed(layers)
        self.h0, self.c0 = (nn.Parameter(0.1 * torch.randn(4, 1, H)) for _ in range(2))
        self.scores = nn.Linear(2 * H, TAGS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states = tuple(s.expand(-1, len(x), -1).contiguous() for s in (self.h0, self.c0))
        return self.scores(self.encoder(x, lengths, states))


def _voice_activity(case: Case) -> Model:
    """A probability a frame."""
    loop, inputs = _cell(case)
    return Model(nn.Sequential(loop, nn.ReLU(), nn.Linear(case.H, 1), nn.Sigmoid()), inputs)


def _noise_suppression(case: Case) -> Model:
    inputs = torch.randn(case.N, case.T, 2 * case.D), torch.randn(1, case.N, case.H)
    return Model(NoiseSuppression(case.D, case.H), inputs)


def _recurrent_policy(case: Case) -> Model:
    inputs = torch.randn(case.T, case.N, case.D), torch.from_numpy(case.resets)
    return Model(RecurrentPolicy(case.D, case.H), inputs)


def _of(kind: Callable[[int, int], nn.Module]) -> Callable[[Case], Model]:
    """Of x (N, T, D) and, where the case has them, lengths."""

    def maker(case: Case) -> Model:
        lengths = () if case.lengths is None else (torch.from_numpy(case.lengths),)
        return Model(kind(case.D, case.H), (torch.randn(case.N, case.T, case.D), *lengths))

    return maker


MAKERS: dict[str, Callable[[Case], Model]] = {
    "": _batch_first,
    "time first": _time_first,
    "states": _given_states,
    "cell": _cell,
    "packed": _packed,
    "bidirectional, 2 layers": partial(_batch_first, num_layers=2, bidirectional=True),
    "projected": lambda case: _batch_first(case, proj_size=(case.H + 1) // 2),
    "text recognition": _of(TextRecognition),
    "recurrent policy": _recurrent_policy,
    "forecaster": _of(Forecaster),
    "noise suppression": _noise_suppression,
    "amplifier": _of(Amplifier),
    "voice activity": _voice_activity,
    "tagger": _of(Tagger),
}
