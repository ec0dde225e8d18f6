"""Initial weights, by the names of whose conventions they follow.

Each function takes rng, a parameter's kind ("weight_ih", "weight_hh", "weight_hr", "bias_ih",
"bias_hh", "peephole"), its shape as PyTorch has it and the hidden size H, and returns the array.
Gains and shifts of layer normalisation begin as of_norm says, in each.
"""

import numpy as np

SCHEMES = ("pytorch", "keras", "scaled")


def pytorch(rng: np.random.Generator, kind: str, shape: tuple[int, ...], H: int) -> np.ndarray:
    """Everything uniform in [-H^-1/2, H^-1/2], as torch.nn begins."""
    return rng.uniform(-(H**-0.5), H**-0.5, shape)


def keras(rng: np.random.Generator, kind: str, shape: tuple[int, ...], H: int) -> np.ndarray:
    """Glorot-uniform input weights (Glorot and Bengio 2010), orthogonal recurrent ones (Saxe et al.
    2014), biases and peepholes 0, as Keras begins."""
    if kind.startswith(("bias", "peephole")):
        return np.zeros(shape)
    if kind == "weight_hh":
        return orthogonal(rng, *shape[::-1]).T
    limit = (6 / sum(shape)) ** 0.5
    return rng.uniform(-limit, limit, shape)


def scaled(rng: np.random.Generator, kind: str, shape: tuple[int, ...], H: int) -> np.ndarray:
    """Normal weights of variance 1 / fan-in, biases and peepholes 0, as the course begins."""
    if kind.startswith(("bias", "peephole")):
        return np.zeros(shape)
    return rng.standard_normal(shape) * shape[1] ** -0.5


def of_units(rng: np.random.Generator, H: int) -> np.ndarray:
    """Uniform in [0, 1): what an IndRNN multiplies h with, unit by unit (Li et al. 2018)."""
    return rng.random(H)


def of_norm(name: str, cell: str) -> float:
    """With what a gain or a shift of layer normalisation begins: 1 and 0; but with a gain of 1 for
    h Wh an LSTM's gradients grow with every step, a thousandfold by 300, with 1/2 they do not."""
    if cell == "lstm" and name.startswith("gain_h"):
        return 0.5
    return float(name.startswith("gain"))


def orthogonal(rng: np.random.Generator, n: int, m: int) -> np.ndarray:
    """A random matrix (n, m), n <= m, of orthonormal rows, by Gram-Schmidt, twice (Giraud et al.
    2005). Not np.linalg.qr, whose bits depend on the number of BLAS threads."""
    Q = rng.standard_normal((n, m))
    for i in range(n):
        for _ in range(2):
            Q[i] -= np.einsum("j,jk->k", np.einsum("jk,k->j", Q[:i], Q[i]), Q[:i])
        Q[i] /= np.sqrt(np.einsum("k,k", Q[i], Q[i]))
    return Q
