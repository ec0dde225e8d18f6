"""The smaller cells of layers.minimal as objects: see fastrnn.nn.modules."""

import numpy as np

from fastrnn.cells import NAMES
from fastrnn.nn.direction import Form
from fastrnn.nn.modules import Recurrent


class _Minimal(Recurrent):
    """What these cells have in common: params are weight_ih_lk (G*H, D), above the first layer
    (G*H, S*H), weight_hh_lk, of an IndRNN (H,) and of an MGU (G*H, H), and one bias_lk (G*H,)."""

    cell: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: type = np.float32,
        gate_order: str | None = None,
        init: str = "pytorch",
        seed: int | np.random.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        record = NAMES[self.cell]
        form = Form(
            self.cell,
            num_layers,
            bidirectional,
            record.gates if gate_order is None else gate_order,
            nonlinearity=record.form["nonlinearity"] if nonlinearity is None else nonlinearity,
            transposed=True,
        )
        own = {"bias": bias, "dropout": dropout, "dtype": dtype, "init": init}
        super().__init__(form, input_size, hidden_size, **own, seed=seed, backend=backend)


class MGU(_Minimal):
    """Layers of minimal gated units (Zhou et al. 2016); the step is fastrnn.mgu_step_forward's.

    Inputs: those of fastrnn.nn.RNN but options; nonlinearity, None for the cell's own; gate_order,
    "fn" or "nf".
    Raises ValueError for a value, TypeError for a dtype or a flag.
    """

    cell = "mgu"


class MinGRU(_Minimal):
    """Layers of minGRU (Feng et al. 2024); the step is fastrnn.min_gru_step_forward's.

    Inputs: those of MGU; nonlinearity, "linear" (None) or "positive"; gate_order, "zn" or "nz".
    Raises ValueError for a value, TypeError for a dtype or a flag.
    """

    cell = "min_gru"


class MinLSTM(_Minimal):
    """Layers of minLSTM (Feng et al. 2024); the step is fastrnn.min_lstm_step_forward's.

    Inputs: those of MGU; nonlinearity, "linear" (None) or "positive"; gate_order, "fin" or "nfi".
    Raises ValueError for a value, TypeError for a dtype or a flag.
    """

    cell = "min_lstm"


class IndRNN(_Minimal):
    """Layers of an IndRNN (Li et al. 2018); the step is fastrnn.ind_rnn_step_forward's.

    Inputs: those of MGU but gate_order; nonlinearity, "relu" (None) or "tanh".
    Raises ValueError for a value, TypeError for a dtype or a flag.
    """

    cell = "ind_rnn"
