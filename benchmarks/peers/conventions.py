"""In which order each library stacks the gates of its weights."""

import numpy as np

OURS = {"rnn": "h", "lstm": "ifog", "gru": "rzn"}
TORCH = {"rnn": "h", "lstm": "ifgo", "gru": "rzn"}
ONNX = {"rnn": "h", "lstm": "iofg", "gru": "zrn"}


def reorder(a: np.ndarray, before: str, after: str) -> np.ndarray:
    """Weights (..., G*H) with the gates along the last axis in another order."""
    gates = dict(zip(before, np.split(a, len(before), axis=-1), strict=True))
    return np.concatenate([gates[gate] for gate in after], axis=-1)
