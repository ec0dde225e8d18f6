"""Recurrent layers as modules on NumPy arrays: stacked, in both directions, step by step; and their
weights in the files of other libraries."""

from fastrnn.nn.files import load
from fastrnn.nn.graphs import to_onnx
from fastrnn.nn.minimal import MGU, IndRNN, MinGRU, MinLSTM
from fastrnn.nn.modules import GRU, LSTM, RNN
from fastrnn.nn.state_dict import save

__all__ = [
    "GRU",
    "LSTM",
    "MGU",
    "RNN",
    "IndRNN",
    "MinGRU",
    "MinLSTM",
    "load",
    "save",
    "to_onnx",
]
