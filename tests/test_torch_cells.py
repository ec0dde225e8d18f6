"""Loops over the cells of fastrnn.torch, whose steps add up their weights' gradients themselves:
the same gradients as torch.nn's whatever is done with the graph."""

import gc
import threading
import weakref

import pytest
import torch
from test_torch_modules import (  # the fixture is used by being here
    D,
    H,
    N,
    assert_equal,
    pair,
    torchs_threads_do_not_wait,  # noqa: F401
)
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import fastrnn

CELLS = ("RNNCell", "LSTMCell", "GRUCell")
T = 4
cells = pytest.mark.parametrize("name", CELLS)


def loop(cell, x, state=None):
    """h (T, N, H) of all steps, and the last state."""
    outputs = []
    for x_t in x:
        state = cell(x_t, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs), state


def detached(state):
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()


def gradients(cell):
    return [p.grad for p in cell.parameters()]


# Each is given a cell and x (T, N, D) with a gradient, and returns tensors.


def whole(cell, x):
    y, _ = loop(cell, x)
    y.square().sum().backward()
    return y, x.grad, *gradients(cell)


def in_parts(cell, x):
    state = None
    for part in x.split(2):
        y, state = loop(cell, part, state)
        y.square().sum().backward()
        state = detached(state)
    return gradients(cell)


def twice(cell, x):
    loss = loop(cell, x)[0].square().sum()
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in cell.parameters()]
    loss.backward()
    return *once, *gradients(cell)


def some_gradients_alone(cell, x):
    loss = loop(cell, x)[0].square().sum()
    wanted = x, *cell.parameters(), [x, cell.weight_hh]
    found = [torch.autograd.grad(loss, of, retain_graph=True) for of in wanted]
    loss.backward(inputs=[x], retain_graph=True)
    loss.backward(inputs=[cell.bias_hh])
    return *sum(found, ()), x.grad, *gradients(cell)


def branches(cell, x):
    _, state = loop(cell, x[:2])
    a, b = (loop(cell, part, state)[0].sum() for part in (x[2:], x[1:]))
    b.backward(retain_graph=True)
    first = [p.grad.clone() for p in cell.parameters()]
    a.backward()
    return *first, x.grad, *gradients(cell)


def graphs_apart(cell, x):
    losses = [loop(cell, x * k)[0].square().sum() for k in (1, 2, 3)]
    for loss in losses[::-1]:
        loss.backward()
    return gradients(cell)


def hooks_of_parameters(cell, x):
    hooked, accumulated = [], []
    cell.weight_hh.register_hook(lambda d: 2 * d)
    cell.weight_ih.register_hook(lambda d: hooked.append(d.clone()))
    cell.bias_ih.register_post_accumulate_grad_hook(lambda p: accumulated.append(p.grad.clone()))
    loop(cell, x)[0].square().sum().backward()
    return *hooked, *accumulated, *gradients(cell)


def hooks_of_modules(cell, x):
    seen = []
    cell.register_full_backward_hook(lambda _, dx, dy: seen.extend((*dx, *dy)))
    loop(cell, x)[0].square().sum().backward()
    return *seen, *gradients(cell)


def in_the_eyes_of_anomaly_mode(cell, x):
    with torch.autograd.detect_anomaly(check_nan=True):
        return whole(cell, x)


def parametrized(cell, x):
    parametrizations.weight_norm(cell, "weight_hh")
    return whole(cell, x)


def with_other_weights_between(cell, x):
    other = {name: (2 * p).detach().requires_grad_() for name, p in cell.named_parameters()}
    h = cell(x[0])
    h = torch.func.functional_call(cell, other, (x[1], h))
    h = cell(x[2], h)
    (h[0] if isinstance(h, tuple) else h).square().sum().backward()
    return *gradients(cell), *(p.grad for p in other.values())


def with_weights_of_a_graph(cell, x):
    other = {name: 2 * p for name, p in cell.named_parameters()}
    h = None
    for x_t in x:
        h = torch.func.functional_call(cell, other, (x_t, h))
    (h[0] if isinstance(h, tuple) else h).square().sum().backward()
    return gradients(cell)


def penalty(cell, x):
    y, _ = loop(cell, x)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (y.sum() + dx.square().sum()).backward()
    return dx, *gradients(cell)


def penalty_of_weights(cell, x):
    y, _ = loop(cell, x)
    found = torch.autograd.grad(y.square().sum(), list(cell.parameters()), create_graph=True)
    sum(d.square().sum() for d in found).backward()
    return *found, x.grad, *gradients(cell)


def batches_of_gradients(cell, x):
    y, _ = loop(cell, x)
    of, eye = (x, *cell.parameters()), torch.eye(y[-1].numel()).view(-1, *y[-1].shape)
    return torch.autograd.grad(y[-1], of, eye, is_grads_batched=True)


def elsewhere(cell, x):
    with torch.autograd.graph.save_on_cpu():
        return whole(cell, x)


def unpacked_otherwise(cell, x):
    def strided(t):
        return t.unsqueeze(-1).expand(*t.shape, 2).contiguous()[..., 0]

    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, strided):
        return whole(cell, x)


def computed_again(cell, x, use_reentrant=False):
    def step(x_t, *state):
        state = cell(x_t, (state if len(state) == 2 else state[0]) if state else None)
        return state if isinstance(state, tuple) else (state,)

    state, outputs = (), []
    for x_t in x:
        state = checkpoint(step, x_t, *state, use_reentrant=use_reentrant)
        outputs.append(state[0])
    y = torch.stack(outputs) + loop(cell, x)[0]
    y.square().sum().backward()
    return y, x.grad, *gradients(cell)


def computed_again_by_a_graph_in_a_graph(cell, x):
    return computed_again(cell, x, use_reentrant=True)


def in_other_precision_after(cell, x):
    loss = loop(cell, x)[0].square().sum()
    cell.double()
    again = loop(cell, x.double())[0].square().sum()
    again.backward()
    return loss, *gradients(cell)


def after_a_failure(cell, x):
    _, state = loop(cell, x[:2])
    refuse = True

    def refusing(_):
        if refuse:
            raise ArithmeticError

    handle = state[0] if isinstance(state, tuple) else state
    handle.register_hook(refusing)
    loss = loop(cell, x[2:], state)[0].square().sum()
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            loss.backward(retain_graph=True)
    refuse = False
    loss.backward()
    return x.grad, *gradients(cell)


class Nothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dx):
        return None


def no_gradient_comes(cell, x):
    loss = sum(Nothing.apply(y_t).sum() for y_t in loop(cell, x)[0])
    loss.backward()
    return x.grad, *gradients(cell)


def states_alone(cell, x):
    for p in cell.parameters():
        p.requires_grad_(False)
    y, _ = loop(cell, x)
    y.square().sum().backward()
    return (x.grad,)


SCENES = (
    *(whole, in_parts, twice, some_gradients_alone, branches, graphs_apart, hooks_of_parameters),
    *(hooks_of_modules, in_the_eyes_of_anomaly_mode, parametrized, with_other_weights_between),
    *(with_weights_of_a_graph, penalty, penalty_of_weights, batches_of_gradients, elsewhere),
    *(unpacked_otherwise, computed_again, computed_again_by_a_graph_in_a_graph),
    *(in_other_precision_after, after_a_failure, no_gradient_comes, states_alone),
)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
@cells
def test_gradients_are_torchs(name, scene):
    x, found = torch.randn(T, N, D), []
    for cell in pair(name, D, H):
        found.append(list(scene(cell, x.clone().requires_grad_())))
    assert_equal(*found[::-1])


@cells
def test_each_parameter_may_be_frozen_and_thawed_while_a_graph_is_alive(name):
    x = torch.randn(T, N, D)
    for frozen in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        found = []
        for cell in pair(name, D, H):
            before = loop(cell, x)[0].square().sum()
            getattr(cell, frozen).requires_grad_(False)
            loop(cell, x)[0].square().sum().backward()
            found.append([*gradients(cell)])
            assert getattr(cell, frozen).grad is None
            getattr(cell, frozen).requires_grad_(True)
            before.backward()
            found[-1] += gradients(cell)
        assert_equal([d for d in found[1] if d is not None], [d for d in found[0] if d is not None])


@cells
def test_without_biases_and_with_weights_of_two_modules(name):
    found = []
    for cell, other in zip(pair(name, D, H, bias=False), pair(name, D, H, bias=False), strict=True):
        other.weight_hh = cell.weight_hh
        x = torch.randn(T, N, D, generator=torch.Generator().manual_seed(0))
        h = None
        for x_t in x:
            h = other(x_t, cell(x_t, h))
        (h[0] if isinstance(h, tuple) else h).sum().backward()
        found.append([*gradients(cell), *gradients(other)])
    assert_equal(*found[::-1])


@cells
def test_threads_do_not_add_to_each_others_sums(name):
    x, (theirs, ours) = torch.randn(8, T, N, D), pair(name, D, H)
    sum(loop(theirs, part)[0].square().sum() for part in x).backward()
    losses = [loop(ours, part)[0].square().sum() for part in x]  # which share one node
    threads = [threading.Thread(target=loss.backward) for loss in losses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_equal(gradients(ours), gradients(theirs))


@cells
def test_what_is_changed_in_a_loop_is_an_error(name):
    for change in ("weight", "bias", "input", "state"):
        _, cell = pair(name, D, H)
        x = torch.randn(T, N, D)
        y, state = loop(cell, x)
        with torch.no_grad():
            changed = {"weight": cell.weight_hh, "bias": cell.bias_hh, "input": x, "state": state}
            changed = changed[change]
            (changed[0] if isinstance(changed, tuple) else changed).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


@cells
def test_weights_of_another_shape_in_a_loop_are_an_error(name):
    _, cell = pair(name, D, H)
    h = cell(torch.randn(N, D))
    cell.weight_ih.data = torch.randn(len(cell.weight_ih), D + 1)
    h = cell(torch.randn(N, D + 1), h)
    with pytest.raises(ValueError, match=r"Wx: expected shape \(.*H, D\) = \(\d+, 4\)"):
        (h[0] if isinstance(h, tuple) else h).sum().backward()


@cells
def test_another_backend_may_compute_backward(name):
    x, found = torch.randn(T, N, D), []
    for cell in pair(name, D, H):
        y, _ = loop(cell, x)
        with fastrnn.use_backend("numpy"):
            y.square().sum().backward()
        found.append(gradients(cell))
    assert_equal(*found[::-1])


@cells
def test_nothing_is_kept_of_what_is_gone(name):
    _, cell = pair(name, D, H)
    loop(cell, torch.randn(T, N, D))[0].sum().backward()
    weight = weakref.ref(cell.weight_hh)
    del cell
    gc.collect()
    assert weight() is None


@cells
def test_a_loop_has_one_node_of_each_weight(name):
    _, cell = pair(name, D, H)
    nodes, steps = [loop(cell, torch.randn(T, N, D))[0].grad_fn], 0
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        steps += node.name() == "_StepBackward"
        new = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= new
        nodes += new
    assert steps == T
    assert sum(node.name() == "_TokenBackward" for node in seen) == 1
