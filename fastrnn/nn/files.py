"""Weights from files of other libraries."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from fastrnn.nn import keras, onnx, state_dict
from fastrnn.nn.assemble import Untold
from fastrnn.nn.modules import EPS, Recurrent
from fastrnn.options import Options

# How files are read, and the keyword that chooses what in them, by what their names end with.
READERS = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), (state_dict.of_torch_file, "prefix")),
    ".safetensors": (state_dict.of_safetensors, "prefix"),
    **dict.fromkeys((".keras", ".h5", ".hdf5"), (keras.of_file, "layer")),
    ".onnx": (onnx.of_file, "node"),
}


def load(
    source: Path | str | Mapping[str, np.ndarray],
    *,
    prefix: str | None = None,
    layer: str | Sequence[str] | None = None,
    node: str | Sequence[str] | None = None,
    cell: str | None = None,
    nonlinearity: str | None = None,
    reset_after: bool = True,
    dropout: float = 0.0,
    options: Options | None = None,
    eps: float = EPS,
) -> Recurrent:
    """A module with weights from elsewhere, of their dtype; float16 is widened.

    Inputs: source, a state_dict of PyTorch, of tensors or arrays, or the path of a file: with
    PyTorch's names .safetensors, or what torch.save wrote, .pt, .pth, .bin, .ckpt; of Keras .keras,
    .h5, .hdf5; .onnx. Of several recurrent modules in it one is chosen by prefix, of PyTorch's
    names, by layer, the name of one of Keras's, or by node, of one of ONNX's; several layers or
    nodes, from the lowest on, are one stack, whatever lies between them in the file. What is taken
    where the source does not say it: cell, of one of the smaller ones ("mgu", "min_gru", "min_lstm"
    or "ind_rnn"), of which files of `save` say it; nonlinearity, of an RNN, an IndRNN, a minGRU or
    a minLSTM, None for the cell's own; reset_after of a GRU, dropout between
    layers, options of the cells, eps of layer normalisation.
    Raises ValueError, which names the file, for what it has not or fastrnn has not, TypeError for
    another source, for what is no Options or, of a state_dict, a dtype, OSError where a file cannot
    be read, ModuleNotFoundError where a package is missing that reads it.
    """
    untold = Untold(nonlinearity, reset_after, dropout, options=options, eps=eps, cell=cell)
    untold = untold.checked()
    given = {"prefix": prefix, "layer": layer, "node": node}
    if isinstance(source, Mapping):
        reader, own = state_dict.of_mapping, "prefix"
    else:
        if not isinstance(source, str | PathLike):
            got = type(source).__name__
            raise TypeError(f"source: expected a path or a state_dict, got {got}")
        source = Path(source)
        if source.suffix.lower() not in READERS:
            raise ValueError(
                f"source: expected a name that ends with one of {[*READERS]}, got {str(source)!r}"
            )
        reader, own = READERS[source.suffix.lower()]
    for name, value in given.items():
        if name != own and value is not None:
            raise ValueError(
                f"{name}: expected None of a source chosen from by {own}, got {value!r}"
            )
    return reader(source, given[own], untold)
