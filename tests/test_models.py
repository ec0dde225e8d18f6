"""Models of PyTorch at the sizes of real ones, converted by fastrnn.torch: the same results and
gradients as before."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from util import TWIN, assert_close

import fastrnn.torch
from fastrnn.benchmarks import cases, models
from fastrnn.benchmarks.cases import CELLS, Choice

RECURRENT = torch.nn.RNNBase | torch.nn.RNNCellBase


def model(form, dtype):
    """A model at its own D and H; of N and T, where these are larger, a few."""
    chosen = cases.choose(["models"], Choice(CELLS, dtype.name))
    (case,) = (case for case in chosen if case.form == form)
    return models.make(replace(case, N=min(case.N, 4), T=min(case.T, 12)))


def results(module, inputs, call=None):
    """All that a module returns, and the gradients of it all: of what it reads, of parameters."""
    inputs = [a.detach().clone().requires_grad_() if a.is_floating_point() else a for a in inputs]
    outputs = (call or module)(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    douts = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in outputs]
    parameters = dict(module.named_parameters())
    wanted = {f"input {i}": a for i, a in enumerate(inputs) if a.requires_grad} | parameters
    grads = torch.autograd.grad(outputs, [*wanted.values()], douts)
    named = {f"output {i}": y.detach() for i, y in enumerate(outputs)}
    named |= dict(zip(wanted, grads, strict=True))
    return {name: a.numpy() for name, a in named.items()}


def assert_same(got, expected, dtype):
    assert list(got) == list(expected)
    for name, a in expected.items():
        assert_close(got[name], a, TWIN[dtype.name], name)


@pytest.mark.parametrize("form", cases.MODELS)
def test_converted_models_give_the_same(form, dtype):
    module, inputs = model(form, dtype)
    expected, original = results(module, inputs), deepcopy(module)
    found = [name for name, m in module.named_modules() if isinstance(m, RECURRENT)]
    lines = []
    converted = fastrnn.torch.convert(module, report=lines.append)
    assert [line.split(":")[0] for line in lines] == found
    for name in found:
        ours, theirs = converted.get_submodule(name), original.get_submodule(name)
        assert type(ours) is getattr(fastrnn.torch, type(theirs).__name__)
    for use in ("auto", "fastrnn"):  # as it comes, and where torch.nn may be faster, too
        for name in found:
            converted.get_submodule(name).use = use
        assert_same(results(converted, inputs), expected, dtype)
    original.load_state_dict(converted.state_dict())
    assert_same(results(original, inputs), expected, dtype)


def test_policy_s_loop_is_one_call_with_reset(dtype):
    """From episode to episode; the first step of each row goes on from zeros, as any start does."""
    module, inputs = model("recurrent policy", dtype)
    expected = results(module, inputs)
    converted = fastrnn.torch.convert(module)
    assert inputs[1].any()
    assert_same(results(converted, inputs, converted.at_once), expected, dtype)


def test_models_train_to_the_same(dtype):
    """Three steps of Adam, which go as far for a small gradient as for a large one: the ends are
    nearer to each other than a thousandth of the way."""
    module, inputs = model("tagger", dtype)
    copies = deepcopy(module), fastrnn.torch.convert(deepcopy(module))
    for copy in copies:
        adam = torch.optim.Adam(copy.parameters(), lr=1e-2)
        for _ in range(3):
            adam.zero_grad()
            copy(*inputs).square().mean().backward()
            adam.step()
    for before, *after in zip(*(m.parameters() for m in (module, *copies)), strict=True):
        way = (after[0] - before).norm()
        assert way > 0
        assert (after[1] - after[0]).norm() < 1e-3 * way
