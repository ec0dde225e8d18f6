"""Layers of cells that torch.nn does not have, with arguments and results as its own have them.

On the CPU, in float32 and float64, they are computed by fastrnn; elsewhere, and where derivatives
of derivatives are wanted, by torch's operations, step by step. See docs/cells.md.
"""

import torch

from fastrnn.cells import form_of
from fastrnn.layers import checks
from fastrnn.nn import direction
from fastrnn.nn.direction import Form
from fastrnn.nn.init import of_norm
from fastrnn.nn.modules import EPS
from fastrnn.options import Options
from fastrnn.torch.modules import Layers


class _Alone(Layers, torch.nn.Module):
    """What they share; parameters are named as in fastrnn.nn."""

    own, peepholes, proj_size = None, False, 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        nonlinearity: str | None = None,
        eps: float | None = None,
        options: Options | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_size = checks.count("input_size", input_size)
        self.hidden_size = checks.count("hidden_size", hidden_size)
        self.num_layers = checks.count("num_layers", num_layers)
        self.bias = checks.flag("bias", bias)
        self.batch_first = checks.flag("batch_first", batch_first)
        self.dropout = checks.probability("dropout", dropout)
        self.bidirectional = checks.flag("bidirectional", bidirectional)
        if nonlinearity is not None:
            self.nonlinearity = form_of(self.cell, nonlinearity=nonlinearity).form["nonlinearity"]
        if eps is not None:
            if self.eps is None:
                raise ValueError(f"eps: expected None for {type(self).__name__}, got {eps!r}")
            self.eps = float(checks.positive("eps", eps))
        self.options = options
        self._flat_weights_names = []
        for k in range(num_layers):
            D = hidden_size * (1 + bidirectional) if k else input_size
            for end in (f"_l{k}", f"_l{k}_reverse")[: 1 + bidirectional]:
                for kind, shape in self._shapes(D).items():
                    weights = torch.empty(shape, device=device, dtype=dtype)
                    self.register_parameter(kind + end, torch.nn.Parameter(weights))
                    self._flat_weights_names.append(kind + end)
        self.reset_parameters()

    def _shapes(self, D):
        form = Form(self.cell, eps=self.eps)
        beside = {"bias": self.bias, "peepholes": self.peepholes}
        return direction.shapes_of(form, D, self.hidden_size, **beside)

    def reset_parameters(self) -> None:
        """Gains and shifts as nn.init.of_norm has them, what an IndRNN multiplies h with uniform in
        [0, 1), all else uniform in [-H^-1/2, H^-1/2], as torch.nn begins."""
        bound = self.hidden_size**-0.5
        for name, weights in self.named_parameters():
            if name.startswith(("gain", "shift")):
                torch.nn.init.constant_(weights, of_norm(name, self.cell))
            elif name.startswith("weight_hh") and weights.dim() == 1:
                torch.nn.init.uniform_(weights)
            else:
                torch.nn.init.uniform_(weights, -bound, bound)

    def extra_repr(self) -> str:
        usual = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        usual |= {"bidirectional": False, "nonlinearity": type(self).nonlinearity}
        usual |= {"eps": type(self).eps, "options": None}
        said = [f"{k}={getattr(self, k)!r}" for k, v in usual.items() if getattr(self, k) != v]
        return ", ".join([str(self.input_size), str(self.hidden_size), *said])


class LayerNormLSTM(_Alone):
    """Layers of LSTM cells whose x Wx, h Wh and c are normalised (Ba et al. 2016).

    Inputs: those of torch.nn.LSTM but proj_size; eps of the normalisation; options of the cells,
    whose seed torch's generator draws anew at every call in training.
    Parameters: torch.nn.LSTM's, and gain_ih and gain_hh (4*H,), gain_c and shift_c (H,).
    Raises ValueError for a value, TypeError for a flag.
    """

    cell, eps = "lstm", EPS


class LayerNormGRU(_Alone):
    """Layers of GRU cells whose x Wx and h Wh are normalised (Ba et al. 2016).

    Inputs: those of torch.nn.GRU; eps and options as in LayerNormLSTM.
    Parameters: torch.nn.GRU's, and gain_ih and gain_hh (3*H,).
    Raises ValueError for a value, TypeError for a flag.
    """

    cell, eps = "gru", EPS


class PeepholeLSTM(_Alone):
    """Layers of LSTM cells whose gates see c (Gers and Schmidhuber 2000).

    Inputs: those of torch.nn.LSTM but proj_size; options as in LayerNormLSTM.
    Parameters: torch.nn.LSTM's, and peephole (3*H,), of i, f and o.
    Raises ValueError for a value, TypeError for a flag.
    """

    cell, peepholes = "lstm", True


class MGU(_Alone):
    """Layers of minimal gated units (Zhou et al. 2016); the step is fastrnn.mgu_step_forward's.

    Inputs: those of torch.nn.GRU.
    Parameters: weight_ih (2*H, D), weight_hh (2*H, H) and bias (2*H,), f before n.
    Raises ValueError for a value, TypeError for a flag.
    """

    cell = "mgu"


class MinGRU(_Alone):
    """Layers of minGRU (Feng et al. 2024); the step is fastrnn.min_gru_step_forward's.

    Inputs: those of torch.nn.GRU; nonlinearity, "linear" or "positive".
    Parameters: weight_ih (2*H, D) and bias (2*H,), z before n.
    Raises ValueError for a value, TypeError for a flag.
    """

    cell, nonlinearity = "min_gru", "linear"


class MinLSTM(_Alone):
    """Layers of minLSTM (Feng et al. 2024), whose state is h alone; the step is
    fastrnn.min_lstm_step_forward's.

    Inputs: those of torch.nn.GRU; nonlinearity, "linear" or "positive".
    Parameters: weight_ih (3*H, D) and bias (3*H,), in the order f, i, n.
    Raises ValueError for a value, TypeError for a flag.
    """

    cell, nonlinearity = "min_lstm", "linear"


class IndRNN(_Alone):
    """Layers of an IndRNN (Li et al. 2018); the step is fastrnn.ind_rnn_step_forward's.

    Inputs: those of torch.nn.GRU; nonlinearity, "relu" or "tanh".
    Parameters: weight_ih (H, D), weight_hh (H,) and bias (H,).
    Raises ValueError for a value, TypeError for a flag.
    """

    cell, nonlinearity = "ind_rnn", "relu"
