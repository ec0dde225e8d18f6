"""What is raced: recurrent layers over shapes, and whole captioning iterations.

A case builds operands from a seed and returns a function to time; build(case) with the reference
backend gives what the others must match.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

import fastrnn
from fastrnn import optim
from fastrnn.captioning.model import CELLS, CaptioningRNN

# (N, T, D, H) and why
SHAPES = {
    (1, 1, 64, 64): "one step of a small stream: the cost of a call",
    (1, 100, 64, 64): "a small sequence alone: nothing to share between rows",
    (1, 100, 128, 256): "weights larger than L1, one row: bandwidth",
    (10, 17, 256, 512): "captioning, the notebook's RNN batch",
    (25, 17, 256, 512): "captioning, the notebook's LSTM batch",
    (32, 50, 100, 128): "text classification",
    (64, 100, 300, 256): "text classification with large vectors",
    (128, 50, 64, 64): "many small sequences",
    (256, 100, 256, 512): "throughput",
}
DIRECTIONS = ("forward", "forward+backward")


@dataclass(frozen=True)
class Case:
    """kind "layer" (then direction is one of DIRECTIONS) or "captioning" (one iteration: loss,
    gradients, adam; N captions of T words from D features with word vectors W and V words)."""

    kind: str
    cell: str
    N: int
    T: int
    D: int
    H: int
    direction: str = "iteration"
    dtype: str = "float32"
    W: int = 0
    V: int = 0

    @property
    def name(self) -> str:
        """Unique among cases."""
        sizes = ",".join(map(str, (self.N, self.T, self.D, self.H)))
        return f"{self.cell} {self.direction} ({sizes}) {self.dtype}"

    @property
    def flops(self) -> float:
        """Floating-point operations of its matrix products; a backward pass counts twice."""
        G = CELLS[self.cell]
        rows = self.N * self.T
        inputs = self.W or self.D
        products = 2.0 * rows * (inputs + self.H) * G * self.H
        if self.kind == "captioning":
            products += 2.0 * (rows * self.H * self.V + self.N * self.D * self.H)
        return products * (1 if self.direction == "forward" else 3)

    def asdict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def layer_cases(cells, shapes, dtype) -> list[Case]:
    """Both directions of every cell and shape."""
    return [
        Case("layer", cell, *shape, direction=direction, dtype=dtype)
        for cell in cells
        for shape in shapes
        for direction in DIRECTIONS
    ]


def captioning_cases(cells, dtype) -> list[Case]:
    """The captioner of the notebooks: 25 captions of 17 words, 1,004 words in the vocabulary."""
    return [Case("captioning", c, 25, 16, 512, 512, dtype=dtype, W=256, V=1004) for c in cells]


def build(case: Case) -> Callable[[], list[np.ndarray]]:
    """The function to time; it returns everything that it computed, to be compared."""
    return _layer(case) if case.kind == "layer" else _captioning(case)


def _layer(case: Case) -> Callable[[], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    N, T, D, H, G = case.N, case.T, case.D, case.H, CELLS[case.cell]

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(case.dtype)

    x, h0, dh = normal(N, T, D), normal(N, H), normal(N, T, H)
    Wx, Wh, b = normal(D, G * H, scale=D**-0.5), normal(H, G * H, scale=H**-0.5), normal(G * H)
    forward = getattr(fastrnn, f"{case.cell}_forward")
    backward = getattr(fastrnn, f"{case.cell}_backward")
    if case.direction == "forward":
        return lambda: [forward(x, h0, Wx, Wh, b)[0]]

    def both() -> list[np.ndarray]:
        h, cache = forward(x, h0, Wx, Wh, b)
        return [h, *backward(dh, cache)]

    return both


def _captioning(case: Case) -> Callable[[], list[np.ndarray]]:
    words = ["<NULL>", "<START>", "<END>", "<UNK>", *(f"w{i}" for i in range(case.V - 4))]
    model = CaptioningRNN(
        {word: i for i, word in enumerate(words)},
        case.D,
        case.W,
        case.H,
        case.cell,
        np.dtype(case.dtype).type,
        seed=0,
    )
    rng = np.random.default_rng(0)
    features = rng.standard_normal((case.N, case.D)).astype(case.dtype)
    captions = rng.integers(4, case.V, size=(case.N, case.T + 1))
    states: dict[str, dict[str, object]] = {name: {} for name in model.params}

    def iteration() -> list[np.ndarray]:
        loss, grads = model.loss(features, captions)
        for name, dw in grads.items():
            model.params[name], _ = optim.adam(model.params[name], dw, states[name])
        return [np.array(loss), *grads.values()]

    return iteration
