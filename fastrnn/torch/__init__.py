"""Recurrent modules of torch.nn, and some that it does not have, computed by fastrnn on the CPU.
Needs torch."""

from fastrnn.optional import require

try:
    from fastrnn.torch.cells import (
        MGU,
        IndRNN,
        LayerNormGRU,
        LayerNormLSTM,
        MinGRU,
        MinLSTM,
        PeepholeLSTM,
    )
    from fastrnn.torch.conversion import convert
    from fastrnn.torch.modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
except ModuleNotFoundError:
    require("torch")  # where it is missing, this says what brings it
    raise

__all__ = [
    "GRU",
    "LSTM",
    "MGU",
    "RNN",
    "GRUCell",
    "IndRNN",
    "LSTMCell",
    "LayerNormGRU",
    "LayerNormLSTM",
    "MinGRU",
    "MinLSTM",
    "PeepholeLSTM",
    "RNNCell",
    "convert",
]
