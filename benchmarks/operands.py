"""What a case starts from, the same in every process; the captioner that two peers start from."""

from pathlib import Path

import numpy as np

from fastrnn.benchmarks import texts
from fastrnn.benchmarks.cases import GATES, Case
from fastrnn.captioning.model import CaptioningRNN
from fastrnn.cells import NAMES

Operands = dict[str, np.ndarray]

# What the names of a layer's own arrays end with: of the one that runs forward, of its reverse.
WAYS = ("", "_reverse")


def draw(case: Case, folder: Path) -> Operands | dict[str, object]:
    """Arrays by name, in fastrnn's layout: x, h0, Wx, Wh, b and dh, scaled so that no activation
    saturates; bh for a gru, c0 for steps of an lstm, lengths and reset where the case has them. A
    bidirectional case has h0 and weights of both WAYS, and dh is (N, T, 2*H). Features and captions
    alone for a captioning iteration. What texts.draw draws, with its files in folder, for a case
    that starts from texts; nothing for one of modules, which models.py makes.
    """
    if case.of_modules:
        return {}
    if case.of_text:
        return texts.draw(case, folder)
    if case.of_forms:
        return draw_form(case)
    rng = np.random.default_rng(0)
    N, T, D, H, G = case.N, case.T, case.D, case.H, GATES[case.cell]

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        a = rng.standard_normal(shape, case.dtype)
        a *= scale  # in place: the memory race looks at the largest size of the process
        return a

    if case.direction == "iteration":
        captions = rng.integers(4, case.V, size=(N, T + 1))
        return {"features": normal(N, D), "captions": captions}
    ways = WAYS if case.direction == "bidirectional" else WAYS[:1]
    operands = {"x": normal(N, T, D), "dh": normal(N, T, len(ways) * H)}
    for way in ways:
        operands |= {
            f"h0{way}": normal(N, H),
            f"Wx{way}": normal(D, G * H, scale=D**-0.5),
            f"Wh{way}": normal(H, G * H, scale=H**-0.5),
            f"b{way}": normal(G * H),
        }
        if case.cell == "gru":
            operands[f"bh{way}"] = normal(G * H)
    if case.cell == "lstm" and (case.one_step or case.direction == "steps"):
        operands["c0"] = normal(N, H)
    given = {"lengths": case.lengths, "reset": case.resets}
    return operands | {name: a for name, a in given.items() if a is not None}


def draw_form(case: Case) -> Operands:
    """Arrays by name in the order of their gradients, x, h0 and the weights; last dh. Scaled as
    draw's; u and peepholes so that states do not grow, nor roundings with them."""
    cell, projected = case.functions, case.form == "projection"
    N, T, D, H, G = case.N, case.T, case.D, case.H, len(NAMES[cell].gates)
    P = H // 2 if projected else H
    shapes = {"x": (N, T, D), "h0": (N, P), "Wx": (D, G * H)}
    between = {"min_gru": {}, "min_lstm": {}, "ind_rnn": {"u": (H,)}}
    shapes |= between.get(cell, {"Wh": (P, G * H)}) | {"b": (G * H,)}
    if cell == "gru":
        shapes["bh"] = (G * H,)
    if projected:
        shapes["projection"] = H, P
    if case.form == "peepholes":
        shapes["peepholes"] = (3 * H,)
    if case.form == "layer norm":
        shapes |= {"gain_x": (G * H,), "gain_h": (G * H,)}
        shapes |= {"gain_c": (H,), "shift_c": (H,)} if cell == "lstm" else {}
    shapes["dh"] = N, T, P
    rng = np.random.default_rng(0)
    drawn = {name: rng.standard_normal(shape, case.dtype) for name, shape in shapes.items()}
    for name in drawn.keys() & {"Wx", "Wh", "projection"}:
        drawn[name] *= np.dtype(case.dtype).type(len(drawn[name]) ** -0.5)
    for name in drawn.keys() & {"u", "peepholes"}:
        drawn[name] *= np.dtype(case.dtype).type(0.25)
    return drawn


def captioner(case: Case) -> CaptioningRNN:
    """fastrnn's captioner of a case, with the same parameters in every process."""
    words = ["<NULL>", "<START>", "<END>", "<UNK>", *(f"w{i}" for i in range(case.V - 4))]
    word_to_idx = {word: i for i, word in enumerate(words)}
    dtype = np.dtype(case.dtype).type
    return CaptioningRNN(word_to_idx, case.D, case.W, case.H, case.cell, dtype, seed=0)
