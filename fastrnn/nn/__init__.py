"""Recurrent layers as modules on NumPy arrays: stacked, in both directions, step by step."""

from fastrnn.nn.modules import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]
