"""Oracle 1, calculus: every backward pass against numerical derivatives; and gradcheck itself."""

import numpy as np
import pytest
from util import (
    CALCULUS,
    ELEMENT,
    LAYERS,
    SHAPES,
    assert_close,
    differentiable,
    draw,
    run,
    upstream,
)

from fastrnn.gradcheck import (
    check_vjp,
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    rel_error,
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_backward_is_the_derivative_along_any_direction(name, shape, implementation, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, np.float64, *shape)
    names = differentiable(operands)

    def forward(*inputs):
        return layer.forward(*(operands | dict(zip(names, inputs, strict=True))).values())

    assert check_vjp(forward, layer.backward, [operands[name] for name in names]) < CALCULUS


@pytest.mark.parametrize("name", [name for name, layer in LAYERS.items() if layer.last_states])
def test_backward_of_the_last_states_alone_is_their_derivative(name, implementation, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, np.float64, 5, 6, 7, 17)
    names = differentiable(operands)

    def forward(*inputs):
        return layer.forward(*(operands | dict(zip(names, inputs, strict=True))).values())[1:]

    def backward(*dlast_and_cache):
        return layer.backward(None, *dlast_and_cache)

    assert check_vjp(forward, backward, [operands[name] for name in names]) < CALCULUS


@pytest.mark.parametrize("shape", [(2, 1, 3, 2), (2, 3, 2, 3)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_backward_is_the_derivative_element_by_element(name, shape, implementation, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, np.float64, *shape)
    results = run(layer, operands)
    *outputs, _ = layer.forward(*operands.values())
    for operand in differentiable(operands):
        numerical = sum(
            # The operand changes in its place.
            eval_numerical_gradient_array(
                lambda _, i=i: layer.forward(*operands.values())[i], operands[operand], dout
            )
            for i, dout in enumerate(upstream(outputs))
        )
        assert_close(results[f"d{operand}"], numerical, ELEMENT)


# ---- gradcheck -----------------------------------------------------------------------------------


def square(x):
    return x**2, x


def square_backward(dout, x):
    return 2 * x * dout


def test_rel_error_is_the_largest_relative_difference():
    assert rel_error(np.array([1.0, 2.0]), np.array([1.0, 2.5])) == 0.5 / 4.5
    assert rel_error(np.array([1e-12]), np.array([0.0])) == 1e-12 / 1e-8
    assert rel_error(np.empty(0), np.empty(0)) == 0
    assert np.isnan(rel_error(np.array([np.nan, 1]), np.array([1, 1])))


def test_rel_error_does_not_broadcast():
    with pytest.raises(ValueError) as error:
        rel_error(np.zeros((2, 3)), np.zeros(3))
    assert str(error.value) == "y: expected shape (2, 3) like x, got (3,)"


def test_numerical_gradient_of_a_polynomial(rng):
    x, df = rng.standard_normal((2, 3, 4))
    assert_close(eval_numerical_gradient_array(lambda x: x**2, x, df), 2 * x * df, ELEMENT)
    assert_close(eval_numerical_gradient(lambda x: np.sum(x**3), x), 3 * x**2, ELEMENT)
    assert_close(eval_numerical_gradient(lambda x: x**2, x, df), 2 * x * df, ELEMENT)


def test_numerical_gradient_says_its_largest_element_if_verbose(capsys):
    eval_numerical_gradient(lambda x: np.sum(3 * x), np.zeros(2))
    assert capsys.readouterr().out == ""
    gradient = eval_numerical_gradient(lambda x: np.sum(3 * x), np.zeros(2), verbose=True)
    assert capsys.readouterr().out == f"largest element: {gradient.max()}\n"


def test_numerical_gradient_restores_x(rng):
    x = rng.standard_normal((3, 4))
    before = x.copy()
    eval_numerical_gradient(lambda x: np.sum(x), x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(("x", "got"), [(np.zeros(2, np.float32), "float32"), ([0.0], "list")])
def test_gradcheck_wants_float64(x, got):
    with pytest.raises(TypeError) as error:
        eval_numerical_gradient_array(lambda x: x, x, 1.0)
    assert str(error.value) == f"x: expected a float64 array for central differences, got {got}"
    with pytest.raises(TypeError) as error:
        check_vjp(square, square_backward, [x])
    assert str(error.value) == f"inputs[0]: expected a float64 array, got {got}"


def test_check_vjp_passes_a_right_gradient_and_leaves_the_inputs(rng):
    x = rng.standard_normal((3, 4))
    before = x.copy()
    assert check_vjp(square, square_backward, [x]) < CALCULUS
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda dout, x: 2.001 * x * dout,
        lambda dout, x: 2 * x,
        lambda dout, x: np.zeros_like(x),
        lambda dout, x: 2 * x * dout + np.eye(*x.shape),
    ],
    ids=["factor", "upstream_forgotten", "zero", "some_elements"],
)
def test_check_vjp_catches_a_wrong_gradient(wrong, rng):
    assert check_vjp(square, wrong, [rng.standard_normal((3, 4))]) > CALCULUS


def test_check_vjp_wants_a_gradient_for_every_input_in_its_shape(rng):
    x = rng.standard_normal((3, 4))
    with pytest.raises(ValueError) as error:
        check_vjp(square, lambda dout, x: x[0], [x])
    assert str(error.value) == "gradients[0]: expected shape (3, 4), got (4,)"
    with pytest.raises(ValueError):
        check_vjp(square, lambda dout, x: (x, x), [x])


def test_check_vjp_does_not_pass_nan():
    inputs = [np.ones((2, 3))]
    wrong = check_vjp(lambda x: (2 * x, None), lambda dout, _: (dout * np.nan,), inputs)
    assert np.isnan(wrong)


def test_numerical_gradient_refuses_a_gradient_of_another_shape():
    with pytest.raises(ValueError, match="df: expected shape"):
        eval_numerical_gradient_array(lambda x: 2 * x, np.ones(3), np.ones((3, 1)))
