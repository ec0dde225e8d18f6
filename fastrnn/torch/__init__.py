"""Recurrent modules of torch.nn, computed by fastrnn on the CPU. Needs torch."""

from fastrnn.torch.conversion import convert
from fastrnn.torch.modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "convert"]
