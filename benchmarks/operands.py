"""What a case starts from, the same in every process; the captioner that two peers start from."""

from pathlib import Path

import numpy as np

from fastrnn.benchmarks import texts
from fastrnn.benchmarks.cases import GATES, Case
from fastrnn.captioning.model import CaptioningRNN

Operands = dict[str, np.ndarray]


def draw(case: Case, folder: Path) -> Operands | dict[str, object]:
    """Arrays by name, in fastrnn's layout: x, h0, Wx, Wh, b and dh, scaled so that no activation
    saturates; bh for a gru, c0 for a step of an lstm, lengths where the case has them; features
    and captions alone for a captioning iteration. What texts.draw draws, with its files in folder,
    for a case that starts from texts.
    """
    if case.of_text:
        return texts.draw(case, folder)
    rng = np.random.default_rng(0)
    N, T, D, H, G = case.N, case.T, case.D, case.H, GATES[case.cell]

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        a = rng.standard_normal(shape, case.dtype)
        a *= scale  # in place: the memory race looks at the largest size of the process
        return a

    if case.direction == "iteration":
        captions = rng.integers(4, case.V, size=(N, T + 1))
        return {"features": normal(N, D), "captions": captions}
    operands = {
        "x": normal(N, T, D),
        "h0": normal(N, H),
        "Wx": normal(D, G * H, scale=D**-0.5),
        "Wh": normal(H, G * H, scale=H**-0.5),
        "b": normal(G * H),
        "dh": normal(N, T, H),
    }
    if case.cell == "gru":
        operands["bh"] = normal(G * H)
    if case.cell == "lstm" and case.direction in ("step", "stream"):
        operands["c0"] = normal(N, H)
    if case.lengths is not None:
        operands["lengths"] = case.lengths
    return operands


def captioner(case: Case) -> CaptioningRNN:
    """fastrnn's captioner of a case, with the same parameters in every process."""
    words = ["<NULL>", "<START>", "<END>", "<UNK>", *(f"w{i}" for i in range(case.V - 4))]
    word_to_idx = {word: i for i, word in enumerate(words)}
    dtype = np.dtype(case.dtype).type
    return CaptioningRNN(word_to_idx, case.D, case.W, case.H, case.cell, dtype, seed=0)
