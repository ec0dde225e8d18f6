"""Is a gradient right? Numerical derivatives by central differences, and one number to judge by."""

from collections.abc import Callable, Sequence

import numpy as np


def rel_error(x: np.ndarray, y: np.ndarray) -> float:
    """Largest relative difference: max |x - y| / max(1e-8, |x| + |y|), for arrays of one shape.

    Returns 0.0 for empty arrays. Raises ValueError where the shapes differ.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.shape != y.shape:
        raise ValueError(f"y: expected shape {x.shape} like x, got {y.shape}")
    return float(np.max(np.abs(x - y) / np.maximum(1e-8, np.abs(x) + np.abs(y)), initial=0.0))


def eval_numerical_gradient_array(
    f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, df: np.ndarray | float, h: float = 1e-5
) -> np.ndarray:
    """Gradient of sum(f(x) * df) with respect to x, element by element.

    Inputs: f, from an array like x to an array like df; x, any shape, float64, changed while f
    runs and then restored; df, the gradient of f's result; h, half the distance of the two points.
    Returns: an array like x. Raises TypeError unless x is a float64 array, ValueError unless df is
    a number or has the shape of f(x).
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.float64:
        got = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"x: expected a float64 array for central differences, got {got}")
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        kept = x[i]
        try:
            x[i] = kept + h
            above = np.array(f(x))
            x[i] = kept - h
            below = np.array(f(x))
        finally:
            x[i] = kept
        if np.ndim(df) and np.shape(df) != above.shape:
            raise ValueError(f"df: expected shape {above.shape} like f(x), got {np.shape(df)}")
        gradient[i] = np.sum((above - below) * df) / (2 * h)
    return gradient


def eval_numerical_gradient(
    f: Callable[[np.ndarray], float],
    x: np.ndarray,
    df: np.ndarray | float = 1.0,
    *,
    verbose: bool = False,
    h: float = 1e-5,
) -> np.ndarray:
    """Gradient of a scalar function, or of sum(f(x) * df), with respect to x.

    Inputs and errors as eval_numerical_gradient_array; verbose prints the largest element.
    Returns: an array like x.
    """
    gradient = eval_numerical_gradient_array(f, x, df, h)
    if verbose:
        print("largest element:", np.max(np.abs(gradient), initial=0.0))
    return gradient


def check_vjp(
    forward: Callable[..., tuple],
    backward: Callable[..., Sequence[np.ndarray]],
    inputs: Sequence[np.ndarray],
    *,
    seed: int = 0,
    h: float = 1e-6,
) -> float:
    """Check a backward pass along random directions: <u, (f(x + h v) - f(x - h v)) / 2h> against
    <backward(u), v>, one direction v for each input (as autograd's check_vjp).

    Inputs: forward(*inputs) -> (out_1, ..., cache); backward(dout_1, ..., cache) -> gradients in
    the order of the inputs (a bare array where there is one); inputs, float64 arrays, unchanged.
    Returns: the largest relative error over the inputs. Raises TypeError for other dtypes and
    ValueError for a gradient that has not the shape of its input.
    """
    for i, x in enumerate(inputs):
        if not isinstance(x, np.ndarray) or x.dtype != np.float64:
            got = getattr(x, "dtype", type(x).__name__)
            raise TypeError(f"inputs[{i}]: expected a float64 array, got {got}")
    rng = np.random.default_rng(seed)
    *outputs, cache = forward(*inputs)
    douts = [rng.standard_normal(out.shape) for out in outputs]
    gradients = backward(*douts, cache)
    if isinstance(gradients, np.ndarray):
        gradients = (gradients,)
    errors = []
    for i, (x, dx) in enumerate(zip(inputs, gradients, strict=True)):
        if dx.shape != x.shape:
            raise ValueError(f"gradients[{i}]: expected shape {x.shape}, got {dx.shape}")
        direction = rng.standard_normal(x.shape)
        ends = []
        for sign in (+1, -1):
            moved = [*inputs[:i], x + sign * h * direction, *inputs[i + 1 :]]
            ends.append(forward(*moved)[:-1])
        numerical = sum(
            np.sum(dout * (above - below)) / (2 * h)
            for dout, above, below in zip(douts, *ends, strict=True)
        )
        errors.append(rel_error(np.array(numerical), np.sum(dx * direction)))
    return float(np.max(errors, initial=0.0))  # NaN comes through, as max() would not let it
