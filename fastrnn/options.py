"""What a recurrent cell may do otherwise than the plain one, and the random bits of its masks."""

from typing import NamedTuple

import numpy as np


class Options(NamedTuple):
    """Regularisation and other forms of a recurrent cell; see docs/cells.md.

    What is random is so in forward functions with training=True, which need a new seed for every
    batch: it then depends on seed, row and step alone. With training=False states are mixed by
    zoneout's probabilities, and nothing is dropped. Values that are dropped become 0, the others
    are divided by 1 - p. Probabilities are in [0, 1).
    """

    zoneout_h: float = 0.0  # that a unit's h stays what it was (Krueger et al. 2017)
    zoneout_c: float = 0.0  # and its c; lstm
    dropout_x: float = 0.0  # of x, the same units at every step (Gal and Ghahramani 2016)
    dropout_h: float = 0.0  # of h before its product with Wh, likewise
    dropout_candidate: float = 0.0  # of g, or of n of a gru, anew at every step (Semeniuta 2016)
    dropout_weights: float = 0.0  # of Wh, the same at every step and row (Merity et al. 2017)
    clip: float | None = None  # what gates and candidates are of is clipped to [-clip, clip] (ONNX)
    clip_gradient: float | None = None  # and its gradient to [-clip, clip] (Graves 2013)
    hard_sigmoid: float | None = None  # gates are max(0, min(1, hard_sigmoid a + 0.5)); lstm, gru
    cap: float | None = None  # of relu: min(max(a, 0), cap) (Hannun et al. 2014); rnn
    seed: int = 0  # in [0, 2**64)
    first_step: int = 0  # of a piece of a sequence, the steps taken before it

    @property
    def is_random(self) -> bool:
        """Whether forward passes with training=True draw masks."""
        return any(self[: self._fields.index("clip")])

    def without_dropout(self) -> "Options":
        """What is left of them in predictions."""
        names = (name for name in self._fields if name.startswith("dropout"))
        return self._replace(**dict.fromkeys(names, 0.0))

    def __repr__(self) -> str:
        usual = self._field_defaults
        said = (f"{k}={v!r}" for k, v in self._asdict().items() if v != usual[k])
        return f"Options({', '.join(said)})"


class LayerNorm(NamedTuple):
    """Layer normalisation of an lstm or a gru (Ba, Kiros and Hinton 2016); see docs/cells.md.

    LN(v) is (v - mean) / sqrt(variance + eps) over all the numbers of a row; x Wx and h Wh are
    replaced by LN(x Wx) gain_x and LN(h Wh) gain_h, and tanh(c) by tanh(LN(c) gain_c + shift_c).
    """

    gain_x: np.ndarray  # (G*H,), as the gates lie in Wx
    gain_h: np.ndarray  # (G*H,)
    gain_c: np.ndarray | None = None  # (H,); lstm
    shift_c: np.ndarray | None = None  # (H,); lstm
    eps: float = 1e-5


# Kinds of masks; the first four are the kernels', in their order.
ZONEOUT_H, ZONEOUT_C, DROPOUT_H, DROPOUT_CANDIDATE, DROPOUT_X, DROPOUT_WEIGHTS = range(6)


def below(seed: int, kind: int, p: float, rows: range, width: int, step: int = 0) -> np.ndarray:
    """Which units of the rows are dropped with probability p: bool (len(rows), width), from 16
    random bits a unit, which depend on seed, kind, row and step alone; see src_c/philox.h."""
    bits = [_bits(seed, kind, row, step, width) for row in rows]
    return np.array(bits, np.uint16).reshape(len(rows), width) < limit(p)


def limit(p: float) -> int:
    """Below which 16 bits are with probability p."""
    return min(round(p * 2**16), 2**16 - 1)


def _bits(seed, kind, row, step, width):
    key, counter = (np.array(v, np.uint64) for v in ([seed, 0], [0, step, row, kind]))
    words = np.random.Philox(key=key, counter=counter).random_raw(-(-width // 4))
    return words.view(np.uint16)[:width]
