"""Every number that the course's two notebooks print for the layers, and a student's worked example
of back-propagation through time."""

import numpy as np
import pytest
from util import (
    ELEMENT,
    HALF_A_THOUSANDTH,
    LAYERS,
    PRINTED_DIGITS,
    SAME_ORDER,
    TWIN,
    assert_close,
    draw,
    upstream,
)

import fastrnn
from fastrnn.gradcheck import eval_numerical_gradient, eval_numerical_gradient_array, rel_error


def ramp(first, last, *shape):
    return np.linspace(first, last, num=np.prod(shape)).reshape(shape)


# name: operands, and the outputs with the rel_error that the notebooks print beside them.
FORWARD = {
    "rnn_step": (
        (
            ramp(-0.4, 0.7, 3, 10),
            ramp(-0.2, 0.5, 3, 4),
            ramp(-0.1, 0.9, 10, 4),
            ramp(-0.3, 0.7, 4, 4),
            ramp(-0.2, 0.4, 4),
        ),
        [
            (
                [
                    [-0.58172089, -0.50182032, -0.41232771, -0.31410098],
                    [0.66854692, 0.79562378, 0.87755553, 0.92795967],
                    [0.97934501, 0.99144213, 0.99646691, 0.99854353],
                ],
                6.292421426471037e-09,
            )
        ],
    ),
    "rnn": (
        (
            ramp(-0.1, 0.3, 2, 3, 4),
            ramp(-0.3, 0.1, 2, 5),
            ramp(-0.2, 0.4, 4, 5),
            ramp(-0.4, 0.1, 5, 5),
            ramp(-0.7, 0.1, 5),
        ),
        [
            (
                [
                    [
                        [-0.42070749, -0.27279261, -0.11074945, 0.05740409, 0.22236251],
                        [-0.39525808, -0.22554661, -0.0409454, 0.14649412, 0.32397316],
                        [-0.42305111, -0.24223728, -0.04287027, 0.15997045, 0.35014525],
                    ],
                    [
                        [-0.55857474, -0.39065825, -0.19198182, 0.02378408, 0.23735671],
                        [-0.27150199, -0.07088804, 0.13562939, 0.33099728, 0.50158768],
                        [-0.51014825, -0.30524429, -0.06755202, 0.17806392, 0.40333043],
                    ],
                ],
                7.728466158305164e-08,
            )
        ],
    ),
    "word_embedding": (
        (np.array([[0, 3, 1, 2], [2, 1, 0, 3]]), ramp(0, 1, 5, 3)),
        [
            (
                [
                    [
                        [0.0, 0.07142857, 0.14285714],
                        [0.64285714, 0.71428571, 0.78571429],
                        [0.21428571, 0.28571429, 0.35714286],
                        [0.42857143, 0.5, 0.57142857],
                    ],
                    [
                        [0.42857143, 0.5, 0.57142857],
                        [0.21428571, 0.28571429, 0.35714286],
                        [0.0, 0.07142857, 0.14285714],
                        [0.64285714, 0.71428571, 0.78571429],
                    ],
                ],
                1.000000094736443e-08,
            )
        ],
    ),
    "lstm_step": (
        (
            ramp(-0.4, 1.2, 3, 4),
            ramp(-0.3, 0.7, 3, 5),
            ramp(-0.4, 0.9, 3, 5),
            ramp(-2.1, 1.3, 4, 20),
            ramp(-0.7, 2.2, 5, 20),
            ramp(0.3, 0.7, 20),
        ),
        [
            (
                [
                    [0.24635157, 0.28610883, 0.32240467, 0.35525807, 0.38474904],
                    [0.49223563, 0.55611431, 0.61507696, 0.66844003, 0.7159181],
                    [0.56735664, 0.66310127, 0.74419266, 0.80889665, 0.858299],
                ],
                5.7054130404539434e-09,
            ),
            (
                [
                    [0.32986176, 0.39145139, 0.451556, 0.51014116, 0.56717407],
                    [0.66382255, 0.76674007, 0.87195994, 0.97902709, 1.08751345],
                    [0.74192008, 0.90592151, 1.07717006, 1.25120233, 1.42395676],
                ],
                5.8143123088804145e-09,
            ),
        ],
    ),
    "lstm": (
        (
            ramp(-0.4, 0.6, 2, 3, 5),
            ramp(-0.4, 0.8, 2, 4),
            ramp(-0.2, 0.9, 5, 16),
            ramp(-0.3, 0.6, 4, 16),
            ramp(0.2, 0.7, 16),
        ),
        [
            (
                [
                    [
                        [0.01764008, 0.01823233, 0.01882671, 0.0194232],
                        [0.11287491, 0.12146228, 0.13018446, 0.13902939],
                        [0.31358768, 0.33338627, 0.35304453, 0.37250975],
                    ],
                    [
                        [0.45767879, 0.4761092, 0.4936887, 0.51041945],
                        [0.6704845, 0.69350089, 0.71486014, 0.7346449],
                        [0.81733511, 0.83677871, 0.85403753, 0.86935314],
                    ],
                ],
                8.610537452106624e-08,
            )
        ],
    ),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward_prints_the_notebook_s_error(name, backend):
    """The error is that of 8 printed decimals: the same for every right implementation."""
    operands, printed = FORWARD[name]
    *outputs, _ = getattr(fastrnn, f"{name}_forward")(*operands)
    for out, (expected, error) in zip(outputs, printed, strict=True):
        assert rel_error(np.array(expected), out) == pytest.approx(error, rel=PRINTED_DIGITS)


# name: seed, shapes of the operands in the order in which they are drawn, the notebook's bound, and
# the errors that it prints for each of them.
BACKWARD = {
    "rnn_step": (
        231,
        [(4, 5), (4, 6), (5, 6), (6, 6), (6,)],
        1e-8,
        [
            4.680739701325456e-10,
            2.4640321713487985e-10,
            7.092020215603479e-10,
            5.034265173186601e-10,
            7.30162216654e-11,
        ],
    ),
    "rnn": (
        231,
        [(2, 10, 3), (2, 5), (3, 5), (5, 5), (5,)],
        5e-7,
        [
            1.531950838055161e-09,
            3.3746901505769888e-09,
            7.427241147803513e-09,
            1.3118350414505446e-07,
            3.083335732377195e-10,
        ],
    ),
    "temporal_affine": (
        231,
        [(2, 3, 4), (4, 5), (5,)],
        1e-9,
        [1.8055922665452894e-10, 1.577204836001982e-10, 5.283576721020155e-12],
    ),
    "lstm_step": (
        231,
        [(4, 5), (4, 6), (4, 6), (5, 24), (6, 24), (24,)],
        1e-6,
        [
            7.481575302257938e-10,
            2.982650711677508e-10,
            7.650761924704044e-11,
            2.3114133245750027e-09,
            9.799799942884514e-08,
            2.747391209539675e-10,
        ],
    ),
    "lstm": (
        232,
        [(2, 10, 3), (2, 6), (3, 24), (6, 24), (24,)],
        1e-7,
        [
            6.934610940788449e-10,
            1.7191742787512714e-10,
            3.513538003903274e-09,
            5.230244747647281e-08,
            6.191166792854841e-10,
        ],
    ),
}


@pytest.mark.parametrize("name", BACKWARD)
def test_backward_is_as_exact_as_the_notebook_prints(name, backend):
    seed, shapes, bound, printed = BACKWARD[name]
    forward, backward = (getattr(fastrnn, f"{name}_{way}") for way in ("forward", "backward"))
    draw = np.random.RandomState(seed).randn
    operands = [draw(*shape) for shape in shapes]
    *outputs, cache = forward(*operands)
    douts = [draw(*out.shape) for out in outputs]
    for x, dx, error in zip(operands, backward(*douts, cache), printed, strict=True):
        # As in the notebook, x is one of the operands and changes in its place.
        dx_num = sum(
            eval_numerical_gradient_array(lambda _, k=k: forward(*operands)[k], x, dout)
            for k, dout in enumerate(douts)
        )
        assert rel_error(dx_num, dx) < min(bound, SAME_ORDER * error)


def test_word_embedding_gradient_prints_the_notebook_s_error(backend):
    legacy = np.random.RandomState(231)
    x, W, dout = legacy.randint(5, size=(50, 3)), legacy.randn(5, 6), legacy.randn(50, 3, 6)
    _, cache = fastrnn.word_embedding_forward(x, W)
    dW = fastrnn.word_embedding_backward(dout, cache)
    dW_num = eval_numerical_gradient(lambda W: fastrnn.word_embedding_forward(x, W)[0], W, dout)
    error = rel_error(dW, dW_num)
    assert error < 1e-11
    assert error == pytest.approx(3.2774595693100364e-12, rel=PRINTED_DIGITS)


def test_temporal_softmax_prints_the_notebook_s_losses(backend):
    """The notebook does not seed this cell: it draws on from where temporal affine stopped."""
    legacy = np.random.RandomState(231)
    legacy.randn(2 * 3 * 4 + 4 * 5 + 5 + 2 * 3 * 5)

    def loss_of_small_scores(N, T, V, p):
        x = 0.001 * legacy.randn(N, T, V)
        y = legacy.randint(V, size=(N, T))
        return fastrnn.temporal_softmax_loss(x, y, legacy.rand(N, T) <= p)[0]

    losses = [loss_of_small_scores(*case) for case in [(100, 1, 10, 1.0), (100, 10, 10, 1.0)]]
    losses.append(loss_of_small_scores(5000, 10, 10, 0.1))
    printed = [2.3027781774290146, 23.025985953127226, 2.2643611790293394]
    assert losses == pytest.approx(printed, rel=TWIN["float64"])

    x, y = legacy.randn(7, 8, 9), legacy.randint(9, size=(7, 8))
    mask = legacy.rand(7, 8) > 0.5
    _, dx = fastrnn.temporal_softmax_loss(x, y, mask, verbose=False)
    dx_num = eval_numerical_gradient(
        lambda x: fastrnn.temporal_softmax_loss(x, y, mask)[0], x, verbose=False
    )
    assert rel_error(dx, dx_num) < min(1e-7, SAME_ORDER * 2.583585303524283e-08)


# ---- the worked example ------------------------------------------------------------------------
# T = 2, in columns: z_t = W_hx x_t + W_hh h_{t-1}, h_t = tanh(z_t), y_t = w_hy h_t, and the loss
# L = 1/2 sum (y_t - target_t)^2. The notes give no targets: 2 comes closest to their dL/dy_2.

X, TARGETS = np.array([1.0, 2.0]), np.array([1.0, 2.0])
W_HX = np.array([[0.5], [-0.3]])
W_HH = np.array([[0.1, 0.2], [0.4, 0.5]])
W_HY = np.array([[0.6, 0.4]])


def worked_example(w_hy=W_HY):
    """h (T, 2), y (T,) and the caches of the same example in rows: every matrix transposed."""
    rows = X.reshape(1, 2, 1), np.zeros((1, 2)), W_HX.T, W_HH.T, np.zeros(2)
    h, h_cache = fastrnn.rnn_forward(*rows)
    y, y_cache = fastrnn.temporal_affine_forward(h, w_hy.T, np.zeros(1))
    return h[0], y[0, :, 0], h_cache, y_cache


def printed(numbers):
    return pytest.approx(numbers, abs=HALF_A_THOUSANDTH, rel=0)


def test_worked_example_step_1(backend):
    """y_1 = 0.6 * 0.462 - 0.4 * 0.291 = 0.161. The notes' 0.277 is its first product alone."""
    h, y, *_ = worked_example()
    assert h[0] == printed([0.462, -0.291])
    assert y[0] == printed(0.161)
    assert W_HY[0, 0] * h[0, 0] == printed(0.277)


def test_worked_example_step_2(backend):
    """W_hh h_1 = (-0.012, 0.039), so h_2 = tanh(0.988, -0.561) = (0.756, -0.509). The notes'
    (0.744, -0.545) needs W_hh h_1 = (-0.041, -0.011), and the transpose of W_hh does not give it
    either."""
    h, y, *_ = worked_example()
    assert W_HH @ h[0] == printed([-0.012, 0.039])
    assert h[1] == printed([0.756, -0.509])
    assert y[1] == printed(0.250)
    assert np.arctanh([0.744, -0.545]) - 2 * W_HX[:, 0] == printed([-0.041, -0.011])
    assert np.tanh(2 * W_HX[:, 0] + W_HH.T @ h[0]) == printed([0.730, -0.574])


def test_worked_example_gradient_of_the_outputs(backend):
    """dL/dy_2 = y_2 - target_2 is -1.750 for a target of 2. The notes' -1.754 needs one of 2.004,
    or y_2 = 0.246, which neither the right h_2 gives nor theirs (0.228)."""
    _, y, *_ = worked_example()
    assert y[1] - TARGETS[1] == printed(-1.750)
    assert y[1] + 1.754 == printed(2.004)
    assert W_HY[0] @ [0.744, -0.545] == printed(0.228)


def test_worked_example_gradient_of_the_output_weights(backend):
    """h_2 is dy_2/dw_hy, not dL/dy_2 as the notes have it; so dL/dw_hy = sum_t dL/dy_t h_t."""
    h, y, _, y_cache = worked_example()
    _, dw, _ = fastrnn.temporal_affine_backward((y - TARGETS).reshape(1, 2, 1), y_cache)
    numerical = eval_numerical_gradient(
        lambda w: 0.5 * np.sum((worked_example(w)[1] - TARGETS) ** 2), W_HY.copy()
    )
    assert_close(dw.T, numerical, ELEMENT)
    assert_close(dw.T, ((y - TARGETS) @ h)[None], TWIN["float64"])


def test_worked_example_gradients_of_a_step(backend):
    """dz W_hx^T and dz W_hh, side by side in the notes, are in rows and in columns. In columns they
    are W_hx^T dz and W_hh^T dz, in rows, where W_hx is D by H, dz W_hx^T and dz W_hh^T; and the
    gradient of W_hh is dz h_{t-1}^T, an outer product."""
    h, *_ = worked_example()
    _, cache = fastrnn.rnn_step_forward(X[1:, None], h[:1], W_HX.T, W_HH.T, np.zeros(2))
    dh = np.array([[0.3, -0.7]])
    dx, dprev_h, dWx, dWh, db = fastrnn.rnn_step_backward(dh, cache)
    dz = (dh * (1 - h[1] ** 2))[0]
    for gradient, by_hand in [
        (dx.T, W_HX.T @ dz[:, None]),
        (dprev_h.T, W_HH.T @ dz[:, None]),
        (dWx.T, np.outer(dz, X[1])),
        (dWh.T, np.outer(dz, h[0])),
        (db, dz),
    ]:
        assert_close(gradient, by_hand, TWIN["float64"])


def test_notes_identity_of_exponentials_is_coth():
    """(e^z + e^-z) / (e^z - e^-z) = (e^2z + 1) / (e^2z - 1) is 1 / tanh z. In print z has become 3
    and e^2z e^23, with which it does not hold."""
    up, down = np.exp(3), np.exp(-3)
    coth = (up + down) / (up - down)
    assert coth == pytest.approx((np.exp(6) + 1) / (np.exp(6) - 1), rel=TWIN["float64"])
    assert coth == pytest.approx(1 / np.tanh(3), rel=TWIN["float64"])
    assert abs(coth - (np.exp(23) + 1) / (np.exp(23) - 1)) > HALF_A_THOUSANDTH


def test_lstm_gradients_by_hand(backend, rng):
    """What the notes' formulas should be: they print do = dh tanh'(c), it is dh tanh(c); they leave
    tanh'(c) out of dc += dh o tanh'(c); and their dc_{t-1} = dc c_{t-1} is df, dc_{t-1} is dc f."""
    x, prev_h, prev_c, Wx, Wh, _ = operands = draw(
        LAYERS["lstm_step"], rng, np.float64, 1, 1, 3, 4
    ).values()
    next_h, next_c, cache = fastrnn.lstm_step_forward(*operands)
    dh, dc = upstream([next_h, next_c])
    i, f, o, g = np.split(cache.activations, 4, axis=1)
    tanh_c = np.tanh(next_c)
    dc_t = dc + dh * o * (1 - tanh_c**2)
    di, df, do, dg = dc_t * g, dc_t * prev_c, dh * tanh_c, dc_t * i
    da = np.hstack([di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g**2)])
    by_hand = da @ Wx.T, da @ Wh.T, dc_t * f, x.T @ da, prev_h.T @ da, da[0]
    for gradient, expected in zip(fastrnn.lstm_step_backward(dh, dc, cache), by_hand, strict=True):
        assert_close(gradient, expected, TWIN["float64"])
