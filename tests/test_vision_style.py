"""Style transfer: the losses by hand and by calculus, what the network keeps, pictures that are
stopped and go on to the same bits, and the command as scripts use it."""

import copy
import math
import os
import re
import signal
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import util
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastrnn.vision import style
from fastrnn.vision.images import over_white
from fastrnn.vision.style import (
    checkpoint,
    colors,
    content_loss,
    gram_matrix,
    layers,
    memory,
    network,
    optimise,
    pictures,
    programs,
    style_loss,
    style_transfer,
    total_variation_loss,
)
from fastrnn.vision.style import estimate as estimates
from fastrnn.vision.style.estimate import TIMED_STEPS, estimate
from fastrnn.vision.style.objective import Objective, gram_once, scale_mask
from fastrnn.vision.style.settings import SETTINGS, Settings
from fastrnn.vision.style.transfer import Transfer

QUICK = {"weights": "none", "size": 64, "scales": 2, "growth": 2.0, "steps": 4, "device": "cpu"}
# The homework's layers.
SHALLOW = {"content_layers": (3,), "style_layers": (1, 4, 6, 7)}
FEW = settings(max_examples=20, deadline=None)


def picture(width=60, height=45, seed=0):
    """Smooth coloured blobs (height, width, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(256, size=(6, 8, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def features_of(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def files(tmp_path):
    """A content and two styles as PNG files, by name."""
    paths = {name: tmp_path / f"{name}.png" for name in ("content", "one", "two")}
    for seed, path in enumerate(paths.values()):
        Image.fromarray(picture(60 + 7 * seed, 45, seed)).save(path)
    return paths


# ---- losses --------------------------------------------------------------------------------------


def test_losses_by_hand():
    F = torch.tensor([[[[1.0, 2.0]], [[0.0, -1.0]]]])  # C = 2, H = 1, W = 2
    P = torch.tensor([[[[0.0, 2.0]], [[3.0, 1.0]]]])
    assert content_loss(0.5, F, P).item() == 0.5 * (1 + 0 + 9 + 4)
    assert gram_matrix(F, normalize=False).tolist() == [[[5.0, -2.0], [-2.0, 1.0]]]
    assert gram_matrix(F).tolist() == [[[1.25, -0.5], [-0.5, 0.25]]]
    A = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    expected = 3 * (0.25**2 + 2 * 0.5**2 + 0.25**2)
    assert style_loss([None, F], [1], [A], [3.0]).item() == expected
    assert style_loss([F, None, F], [0, 2], [A, A], [1, 2]).item() == expected
    img = torch.zeros(1, 3, 2, 3)
    img[0, 1] = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
    assert total_variation_loss(img, 2.0).item() == 2 * ((4 + 1 + 1) + (1 + 4))


shapes = st.tuples(*(st.integers(1, n) for n in (2, 4, 5, 5)))


@FEW
@given(shapes, st.sampled_from([torch.float32, torch.float64]), st.integers(0, 99))
def test_losses_are_their_formulas(shape, dtype, seed):
    F, P = features_of(shape, seed, dtype), features_of(shape, seed + 100, dtype)
    N, C, H, W = shape
    f = F.numpy().reshape(N, C, H * W)
    raw = np.einsum("nik,njk->nij", f, f)
    loose = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-10}
    np.testing.assert_allclose(gram_matrix(F, normalize=False), raw, **loose)
    np.testing.assert_allclose(gram_matrix(F), raw / (C * H * W), **loose)
    assert gram_matrix(F).dtype == content_loss(1, F, P).dtype == dtype
    expected = 0.7 * ((F - P).numpy() ** 2).sum()
    np.testing.assert_allclose(content_loss(0.7, F, P), expected, **loose)
    targets = [gram_matrix(P), gram_matrix(F)]
    G, A = raw / (C * H * W), targets[0].numpy()
    got = style_loss([F, P], [0, 0], targets, [2.0, 5.0])
    np.testing.assert_allclose(got, 2 * ((G - A) ** 2).sum(), **loose)


@FEW
@given(shapes, st.integers(0, 99))
def test_gram_does_not_know_where(shape, seed):
    F = features_of(shape, seed)
    moved = F.flatten(2)[:, :, torch.randperm(shape[2] * shape[3])].reshape(shape)
    torch.testing.assert_close(gram_matrix(moved), gram_matrix(F))
    G = gram_matrix(F)
    assert torch.equal(G, G.transpose(1, 2))
    assert torch.linalg.eigvalsh(G).min() > -1e-12


@FEW
@given(st.integers(1, 2), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_total_variation(N, H, W, seed):
    x = features_of((N, 3, H, W), seed)
    assert total_variation_loss(torch.full_like(x, 3.0), 1.0) == 0
    loops = sum(
        (x[n, c, i + a, j + b] - x[n, c, i, j]) ** 2
        for n in range(N)
        for c in range(3)
        for a, b in ((1, 0), (0, 1))
        for i in range(H - a)
        for j in range(W - b)
    )
    np.testing.assert_allclose(total_variation_loss(x, 0.3), 0.3 * float(loops), atol=1e-12)
    torch.testing.assert_close(
        total_variation_loss(x, 1.0), total_variation_loss(x.transpose(2, 3).flip(2), 1.0)
    )


def test_losses_have_the_gradients_of_calculus():
    F, P = features_of((2, 3, 3, 4)).requires_grad_(), features_of((2, 3, 3, 4), 1)
    A = gram_matrix(P)
    assert torch.autograd.gradcheck(lambda x: content_loss(0.3, x, P), F)
    assert torch.autograd.gradcheck(gram_matrix, F)
    assert torch.autograd.gradcheck(lambda x: style_loss([x], [0], [A], [7.0]), F)
    assert torch.autograd.gradcheck(lambda x: total_variation_loss(x, 0.3), F)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda F: content_loss(1, F[0], F[0]), ValueError, "content_current: expected shape"),
        (lambda F: content_loss(1, F, F[:, :2]), ValueError, r"content_original: .* got \(1, 2, 4"),
        (lambda F: gram_matrix(F[0]), ValueError, r"features: expected shape \(N, C, H, W\), got"),
        (lambda F: gram_matrix(F[:, :, :0]), ValueError, "features: expected shape"),
        (lambda F: style_loss([F], [0], [], []), ValueError, "one for each of the 1 .* got 0 and"),
        (lambda F: style_loss([F], [], [], []), ValueError, "one for each of the 0"),
        (lambda F: style_loss([F], [1], [F], [1]), IndexError, "expected 0 to 0, got 1"),
        (lambda F: style_loss([F], [-1], [F], [1]), IndexError, "expected 0 to 0, got -1"),
        (lambda F: style_loss([F], [0], [F], [1]), ValueError, r"expected \(1, 3, 3\) for layer 0"),
        (lambda F: total_variation_loss(F[:, :2], 1), ValueError, r"img: expected .* \(1, 2, 4, 5"),
        (lambda F: total_variation_loss(F[0], 1), ValueError, "img: expected shape"),
    ],
)
def test_losses_refuse(call, error, said):
    with pytest.raises(error, match=said):
        call(features_of((1, 3, 4, 5)))


# ---- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "layers"), [("squeezenet1_1", (0, 1, 3, 7)), ("vgg16", (0, 1, 2, 5, 6))]
)
def test_features_are_those_after_each_module(backbone, layers):
    modules = network.load(backbone, "none", layers, pooling="max", seed=3, device="cpu")
    assert len(modules) == max(layers) + 1
    x = features_of((1, 3, 40, 33), dtype=torch.float32)
    feats = network.features(modules, x, layers)
    expected, y = [], x
    for module in modules:
        y = module(y.clone()).clone()
        expected.append(y)
    for i, F in enumerate(feats):
        assert (F is not None) == (i in layers)
        if i in layers:
            torch.testing.assert_close(F, expected[i])


@pytest.mark.parametrize(
    ("backbone", "layers"), [("squeezenet1_1", (4, 9, 12)), ("vgg16", (1, 6, 20))]
)
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_features_do_not_know_where_the_edges_are(backbone, layers, pooling):
    modules = network.load(backbone, "none", layers, pooling=pooling, seed=3, device="cpu")
    flat = torch.full((1, 3, 75, 96), 0.7)
    for F in network.features(modules, flat, layers):
        if F is not None:
            assert F.amax() > 0
            torch.testing.assert_close(F, F[..., :1, :1].expand_as(F))


def losses_and_gradient(transfer, x, segments):
    objective = transfer.objective(0)
    objective.segments = segments
    x = x.clone().requires_grad_()
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        terms = objective(x)
    sum(terms.values()).backward()
    return {name: term.item() for name, term in terms.items()}, x.grad, sum(kept.values())


def test_segments_save_memory_and_change_no_gradient():
    chosen = QUICK | SHALLOW | {"scales": 1, "size": 96}
    transfer = Transfer(picture(), [picture(seed=1)], **chosen)
    x = transfer.space.noise(pictures.with_margin(transfer.sizes[0]), seed=5)
    n = len(transfer.modules)
    whole = losses_and_gradient(transfer, x, [(0, n)])
    for segments in ([(0, 2), (2, 5), (5, n)], [(0, 6), (6, n)]):
        losses, gradient, kept = losses_and_gradient(transfer, x, segments)
        assert losses == whole[0]
        torch.testing.assert_close(gradient, whole[1], rtol=1e-5, atol=0)
        assert kept < 0.8 * whole[2]


def test_trace_knows_what_backward_keeps():
    layers = Settings().style_layers
    modules = network.load("squeezenet1_1", "none", layers, pooling="max", seed=0, device="cpu")
    x = torch.randn(1, 3, 45, 64, requires_grad=True)
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network.features(modules, x, layers)
    traced = memory.trace(modules, (64, 45))
    union = {address: n for module in traced.saved for address, n in module.items()}
    assert sum(union.values()) == pytest.approx(sum(kept.values()), rel=0.02)


def test_segments_are_as_few_as_the_limit_allows():
    s = Settings()
    modules = network.load("squeezenet1_1", "none", s.layers, pooling="max", seed=0, device="cpu")
    traced, cuts = memory.trace(modules, (256, 256)), network.cuts(modules)
    assert 1 not in cuts  # before a rectifier that works in place
    needs = []
    for limit in (math.inf, 200e6, 120e6, 0):
        segments = memory.choose_segments(traced, s, cuts, limit)
        assert [start for start, _ in segments] == [0, *(stop for _, stop in segments[:-1])]
        assert segments[-1][1] == len(modules)
        needs.append((len(segments), memory.activations(traced, s, segments)))
    assert needs[0][0] == 1
    counts, bytes_ = zip(*needs, strict=True)
    assert list(counts) == sorted(counts)
    assert list(bytes_) == sorted(bytes_, reverse=True)
    assert bytes_[-1] < 0.85 * bytes_[0]
    every = {address: n for module in traced.saved for address, n in module.items()}
    every |= {traced.outputs[layer]: traced.sizes[layer] for layer in s.layers}
    targets = sum(traced.sizes[layer] for layer in s.content_layers)
    beside = 2 * targets + memory.WORKSPACE * max(traced.sizes)
    assert bytes_[0] == sum(every.values()) + beside


# ---- the objective -------------------------------------------------------------------------------


def objective_of(modules, masks=None, styles=1, size=(45, 60), **changed):
    s = Settings(**QUICK | changed)
    content, *others = (features_of((1, 3, *size), i, torch.float32) for i in range(styles + 1))
    return Objective(modules, s, content, others, masks)


@pytest.fixture(scope="module")
def squeezenet():
    return network.load(
        "squeezenet1_1", "none", Settings().layers, pooling="average", seed=0, device="cpu"
    )


def test_objective_is_the_losses_relative_to_their_targets(squeezenet):
    objective = objective_of(squeezenet, content_weight=2.0, style_weight=3.0, tv_weight=0.5)
    x = features_of((1, 3, 45, 60), 9, torch.float32)
    terms = objective(x)
    content, other = (features_of((1, 3, 45, 60), i, torch.float32) for i in (0, 1))
    places, layers = Settings().content_layers, Settings().style_layers
    feats, P, S = (network.features(squeezenet, y, range(10)) for y in (x, content, other))
    shares = {i: 2 / len(places) / P[i].square().sum().item() for i in places}
    targets = [gram_matrix(S[layer]) for layer in layers]
    weights = [3 / 6 / A.square().sum().item() for A in targets]
    expected = {
        "content": sum(content_loss(share, feats[i], P[i]) for i, share in shares.items()),
        "style": style_loss(feats, layers, targets, weights),
        "tv": total_variation_loss(x, 0.5 / x.numel()),
    }
    for name, loss in expected.items():
        torch.testing.assert_close(terms[name], loss, rtol=1e-5, atol=0)
    assert objective(content)["content"] == 0
    assert objective(other)["style"] == pytest.approx(0, abs=1e-10)


def test_layer_weights_and_blend_are_shares(squeezenet):
    x = features_of((1, 3, 45, 60), 9, torch.float32)
    one = objective_of(squeezenet, styles=2, blend=(1, 0))(x)["style"].item()
    two = objective_of(squeezenet, styles=2, blend=(0, 2))(x)["style"].item()
    both = objective_of(squeezenet, styles=2, blend=(2, 6))(x)["style"].item()
    same = objective_of(squeezenet, styles=2)(x)["style"].item()
    assert both == pytest.approx(0.25 * one + 0.75 * two, rel=1e-5)
    assert same == pytest.approx((one + two) / 2, rel=1e-5)
    alone = [objective_of(squeezenet, style_layers=(layer,))(x)["style"].item() for layer in (1, 6)]
    mixed = objective_of(squeezenet, style_layers=(1, 6), layer_weights=(1, 3))(x)["style"].item()
    assert mixed == pytest.approx(0.25 * alone[0] + 0.75 * alone[1], rel=1e-5)


def test_weights_mean_the_same_at_every_size(squeezenet):
    s = Settings(**QUICK | SHALLOW)
    tiles = []
    for i in range(3):
        tile = torch.from_numpy(picture(64, 64, i) / 64 - 2).float().permute(2, 0, 1)[None]
        tile = torch.cat([tile, tile.flip(3)], 3)
        tiles.append(torch.cat([tile, tile.flip(2)], 2))  # without seams
    losses = []
    for n in (3, 6):
        x, content, other = (tile.repeat(1, 1, n, n) for tile in tiles)
        terms = Objective(squeezenet, s, content, [other], None)(x)
        losses.append([term.item() for term in terms.values()])
    np.testing.assert_allclose(*losses, rtol=0.15)  # borders count less and less


def test_a_white_mask_is_no_mask(squeezenet):
    x = features_of((1, 3, 45, 60), 9, torch.float32)
    white = torch.ones(1, 1, 45, 60)
    plain, masked = (
        objective_of(squeezenet, styles=2, blend=(1, 3), masks=m)(x) for m in (None, [white] * 2)
    )
    assert plain == masked


def test_a_mask_is_where_its_style_is(squeezenet):
    left = torch.zeros(1, 1, 64, 96)
    left[..., :48] = 1
    objective = objective_of(squeezenet, masks=[left], size=(64, 96), style_layers=(1,))
    x = features_of((1, 3, 64, 96), 9, torch.float32).requires_grad_()
    objective(x)["style"].backward()
    assert x.grad[..., :47].abs().median() > 0
    assert x.grad[..., 52:].abs().max() == 0
    full = objective_of(squeezenet, size=(64, 96), style_layers=(1,))
    shares = [sum(map(sum, o.style_weights)) for o in (objective, full)]
    assert shares[0] == pytest.approx(shares[1] / 2)  # half of the picture counts half


@FEW
@given(shapes, st.integers(0, 99))
def test_gram_once_is_gram_matrix(shape, seed):
    F = features_of(shape, seed).requires_grad_()
    dG = features_of((shape[0], shape[1], shape[1]), seed + 1)
    gradients = []
    for gram in (gram_matrix, gram_once):
        torch.testing.assert_close(gram(F), gram_matrix(F))
        gradients.append(*torch.autograd.grad(gram(F), F, dG))
    torch.testing.assert_close(*gradients)


@FEW
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_scaled_masks_have_squares_of_mean_one(H, W, seed):
    mask = torch.rand(1, 1, 20, 30, generator=torch.Generator().manual_seed(seed))
    scaled = scale_mask(mask, (H, W))
    assert scaled.shape == (1, 1, H, W)
    assert scaled.square().mean().item() == pytest.approx(1, rel=1e-5)


# ---- pictures ------------------------------------------------------------------------------------


def test_pictures_survive_the_networks_space():
    space = pictures.Space((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "cpu")
    pixels = np.random.default_rng(0).integers(256, size=(7, 9, 3), dtype=np.uint8)
    x = space.tensor(Image.fromarray(pixels), (9, 7))
    np.testing.assert_array_equal(space.array(x), pixels)
    grey = space.tensor(Image.fromarray(np.full((1, 1, 3), 51, np.uint8)), (1, 1)).flatten()
    expected = (0.2 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(grey, expected, rtol=1e-5)
    wild = 100 * torch.randn(1, 3, 4, 4)
    clamped = wild.clone()
    space.clamp_(clamped)
    back = clamped * space.std + space.mean
    assert -1e-6 < back.min() < back.max() < 1 + 1e-6
    inside = (wild > space.low) & (wild < space.high)
    assert torch.equal(wild[inside], clamped[inside])


def test_colors_are_kept():
    content = Image.fromarray(picture())
    grey, (matched,) = colors.in_grey(content, [Image.fromarray(picture(seed=1) // 2)])
    y, other = colors.luminance(grey), colors.luminance(matched)
    assert abs(y - colors.luminance(content)).max() < 1 / 255
    assert other.mean() == pytest.approx(y.mean(), abs=0.01)
    assert other.std() == pytest.approx(y.std(), abs=0.01)
    same = colors.recolor(np.asarray(content), content)
    assert abs(same.astype(int) - np.asarray(content)).max() <= 1
    mild = (picture(seed=2) // 8 + 112).astype(np.uint8)
    pale = Image.fromarray((picture() // 8 + 112).astype(np.uint8))
    yiq = colors.recolor(mild, pale) / 255 @ colors.YIQ.T
    np.testing.assert_allclose(yiq[..., 0], mild / 255 @ colors.YIQ[0], atol=0.005)
    np.testing.assert_allclose(yiq[..., 1:], np.asarray(pale) / 255 @ colors.YIQ[1:].T, atol=0.01)


def test_styles_get_the_colors_of_the_content():
    content, style = cut_out(picture() // 2 + 60), cut_out(picture(80, 50, 1) // 4 + 90, 0.4)
    shown, (matched,) = colors.with_colors(
        pictures.read("content", content), [pictures.read("style", style)]
    )
    opaque = [np.asarray(image)[np.asarray(image)[..., 3] > 0, :3] for image in (shown, matched)]
    np.testing.assert_allclose(*(pixels.mean(axis=0) for pixels in opaque), atol=2)
    np.testing.assert_allclose(*(np.cov(pixels.T) for pixels in opaque), rtol=0.2, atol=60)
    np.testing.assert_array_equal(np.asarray(matched)[..., 3], style[..., 3])
    np.testing.assert_array_equal(shown, content)


# ---- style_transfer ------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_transfer_lowers_its_loss(optimizer):
    chosen = QUICK | {"optimizer": optimizer, "steps": 15, "scales": 1, "tv_weight": 0.01}
    chosen |= {"style_weight": 10.0}
    result = style_transfer(picture(), picture(seed=1), **chosen)
    assert result.picture.shape == (48, 64, 3)
    assert result.picture.dtype == np.uint8
    assert result.sizes == [(64, 48)]
    assert result.losses.keys() == {"total", "content", "style", "tv"}
    total = result.losses["total"]
    np.testing.assert_allclose(total, sum(result.losses[n] for n in ("content", "style", "tv")))
    assert total[-1] < 0.7 * total[0]


def test_only_the_ratios_of_the_weights_matter():
    found = []
    for factor in (1.0, 1e-4):
        weights = {f"{name}_weight": factor for name in ("content", "style", "tv")}
        chosen = QUICK | weights | {"scales": 1, "optimizer": "adam"}
        transfer = Transfer(picture(), [picture(seed=1)], **chosen)
        optimise.run(transfer, on_save=found.append, save_every=4)
    assert (found[0].picture - found[1].picture).abs().mean() < 1e-3


def test_learning_rates():
    s = Settings(optimizer="adam", learning_rate=2.0, steps=10)
    rates = [optimise.learning_rate(s, step, 100) for step in range(11)]
    assert rates[0] == 2
    assert rates[-1] == pytest.approx(0.2)
    assert rates == sorted(rates, reverse=True)
    s = Settings(optimizer="lbfgs", learning_rate=2.0)
    rates = [optimise.learning_rate(s, step, 100) for step in (0, 1, 9)]
    assert rates == [2 * optimise.FIRST_MOVE * 100, 2, 2]


def test_the_first_step_of_lbfgs_is_not_lost_in_rounding():
    transfer = Transfer(picture(), [picture(seed=1)], **QUICK | {"steps": 1, "scales": 1})
    states = []
    optimise.run(transfer, on_save=states.append, save_every=1)
    moved = (states[0].picture - transfer.initial()).abs().mean().item()
    assert moved == pytest.approx(optimise.FIRST_MOVE, rel=0.3)  # less what was clamped


def test_what_a_transfer_begins_with():
    frozen = QUICK | {"learning_rate": 1e-9, "steps": 1, "scales": 1, "size": 60}
    same = style_transfer(picture(), [picture(seed=1)], **frozen).picture
    np.testing.assert_array_equal(same, picture())
    other = style_transfer(picture(), [picture(seed=1)], init=picture(seed=4), **frozen).picture
    np.testing.assert_array_equal(other, picture(seed=4))
    first, again, third = (
        style_transfer(picture(), picture(seed=1), init="noise", seed=seed, **frozen).picture
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != third).mean() > 0.9
    assert first.std() < 40


def test_scales_go_from_coarse_to_fine():
    steps = []
    chosen = QUICK | {"scales": 3, "size": 160}
    result = style_transfer(picture(40, 80), [picture(seed=1)], on_step=steps.append, **chosen)
    assert result.sizes == [(20, 40), (40, 80), (80, 160)]
    assert result.picture.shape == (160, 80, 3)
    assert [step.size for step in steps] == [size for size in result.sizes for _ in range(4)]
    assert [step.number for step in steps] == [*range(1, 13)]
    assert steps[-1].pixels == 4 * (800 + 3200 + 12800)
    assert [sum(s.losses.values()) for s in steps] == pytest.approx(list(result.losses["total"]))


@pytest.mark.parametrize("by", [{"keep_colors": True}, {"colors": "luminance"}])
def test_kept_colors_are_the_contents(by):
    result = style_transfer(
        picture(), [picture(seed=1)], optimizer="adam", **by, **QUICK | {"steps": 8}
    )
    content = np.asarray(Image.fromarray(picture()).resize((64, 48), Image.Resampling.LANCZOS))
    differences = abs(result.picture / 255 @ colors.YIQ.T - content / 255 @ colors.YIQ.T)
    assert np.median(differences[..., 1:]) < 0.01
    assert np.median(differences[..., 0]) > 0.01


@pytest.mark.parametrize(
    ("given", "weight"),
    [
        ({}, 300),
        ({"colors": "histogram"}, 300),
        ({"colors": None, "keep_colors": True}, 150),
        ({"colors": "luminance"}, 150),
        ({"keep_colors": True, "style_weight": 3}, 3),
    ],
)
def test_where_colors_are_kept_the_style_weighs_less(given, weight):
    assert Settings(**given).style_weight == weight


def test_where_colors_are_kept_the_network_sees_none():
    inputs = Transfer(picture(), [picture(seed=1)], keep_colors=True, **QUICK).inputs
    for image in (inputs.content, *inputs.styles):
        pixels = np.asarray(image)
        assert (pixels == pixels[..., :1]).all()


def test_masked_styles_stay_on_their_sides():
    left = np.zeros((45, 60), np.uint8)
    left[:, :30] = 255
    frozen = QUICK | {"tv_weight": 0.0, "content_weight": 0.0, "style_layers": (1,)}
    result = style_transfer(picture(), [picture(seed=1)], masks=[left], **frozen | {"scales": 1})
    moved = abs(result.picture.astype(int) - style_transfer(
        picture(), [picture(seed=1)], masks=[left],
        **frozen | {"scales": 1, "steps": 1, "learning_rate": 1e-9},
    ).picture).max(axis=2)  # fmt: skip
    assert moved[:, :30].mean() > 5
    assert moved[:, 36:].max() == 0


def test_the_estimate_counts_steps_by_their_scale(monkeypatch):
    transfer = Transfer(picture(), [picture(seed=1)], **QUICK)
    monkeypatch.setattr(estimates, "_seconds_a_step", lambda transfer, scale, steps: 10**scale)
    seconds = [estimate(transfer, done).seconds for done in (0, 3, 4, 5, 8)]
    assert seconds == [44, 41, 40, 30, 0]


def test_the_estimate_measures():
    transfer = Transfer(picture(), [picture(seed=1)], **QUICK)
    whole, rest = estimate(transfer), estimate(transfer, done=8)
    assert whole.seconds > 0
    assert rest.seconds == 0
    assert whole.bytes == rest.bytes > memory.PROGRAM
    assert Transfer(picture(), [picture(seed=1)], **QUICK | {"memory": 1e-3}).segments[1][1:]


def test_pixels_are_counted_by_their_scale():
    transfer = Transfer(picture(), [picture(seed=1)], **QUICK)
    assert transfer.pixels() == 4 * (64 * 48 + 32 * 24)
    assert transfer.pixels(5) == 4 * 32 * 24 + 64 * 48


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"backbone": "resnet18"}, r"backbone: expected one of .*'vgg19'\], got 'resnet18'"),
        ({"optimizer": "sgd"}, r"optimizer: expected one of \['adam', 'lbfgs'\], got 'sgd'"),
        ({"size": 0}, "size: expected an integer of at least 1, got 0"),
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"scales": 0}, "scales: expected an integer of at least 1, got 0"),
        ({"style_scale": 0.0}, "style_scale: expected a number above 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate: expected a number above 0, got nan"),
        ({"memory": -1.0}, "memory: expected a number above 0, got -1.0"),
        ({"tv_weight": -1.0}, "tv_weight: expected a number of at least 0, got -1.0"),
        ({"content_weight": math.inf}, "content_weight: expected a number of at least 0, got inf"),
        ({"style_layers": ()}, "style_layers: expected one or more different layers, each a"),
        ({"style_layers": (1, 1)}, r"style_layers: expected one or more different .* got \[1, 1\]"),
        ({"style_layers": (6, "fire4")}, "style_layers: expected one or more different layers"),
        ({"content_layers": (-1,)}, "content_layers: squeezenet1_1 has 0 to 12, or .*got -1"),
        ({"content_layers": ["relu4_2"]}, "content_layers: squeezenet1_1 has .*; got relu4_2"),
        ({"style_layers": (1, 13)}, "style_layers: squeezenet1_1 has 0 to 12, .*; got 13"),
        ({"layer_weights": (1,)}, "layer_weights: expected one for each of the 6 style layers"),
        ({"layer_weights": (0,) * 6}, "layer_weights: expected numbers of at least 0, not all 0"),
        ({"blend": (1, -1)}, "blend: expected numbers of at least 0, not all 0"),
        ({"blend": (1, 1)}, "blend: expected 1, one for each style, got 2"),
        (
            {"backbone": "vgg16", "style_layers": ("pool5",), "size": 8, "scales": 1},
            "^content: with its margin 24 x 22 pixels are too few for layer 30; a larger",
        ),
        ({"style_scale": 1e4}, r"^size: 640000 x 480000 pixels take \d+ GB of memory, of which"),
        ({"size": 10**6}, r"^size: 1000000 x 750000 pixels take \d+ GB of memory, of which"),
        ({"device": "nowhere"}, "device: 'nowhere' cannot be used"),
        ({"masks": [picture(60, 45)] * 2}, "masks: expected 1, one for each style, got 2"),
        ({"masks": [picture(45, 60)]}, "mask 1: expected the aspect of the content, 60 x 45"),
        ({"masks": [np.zeros((45, 60), np.uint8)]}, "mask 1: nothing is white in it"),
        ({"init": np.zeros((4, 4, 4), np.uint8)}, "init: all of it is transparent"),
        ({"init": np.zeros((4, 4, 5), np.uint8)}, r"init: expected shape .* got \(4, 4, 5\)"),
        ({"content": np.zeros((4, 4, 4), np.uint8)}, "content: all of it is transparent"),
        ({"keep_colors": True, "colors": "histogram"}, "keep_colors: is colors luminance; got"),
        ({"growth": 1.0}, "growth: expected a finite number above 1, got 1.0"),
        ({"averaging": 1.0}, r"averaging: expected a number in \[0, 1\), got 1.0"),
        ({"pooling": "min"}, "pooling: expected one of .*got 'min'"),
        ({"styles": []}, "styles: expected one or more"),
    ],
)  # fmt: skip
def test_transfers_refuse(changed, said):
    given = {"content": picture(), "styles": [picture(seed=1)]} | QUICK | changed
    with pytest.raises(ValueError, match=said):
        style_transfer(**given)


def test_arrays_have_to_be_bytes():
    with pytest.raises(TypeError, match="content: expected uint8, got float64"):
        style_transfer(picture() / 255, picture(seed=1), **QUICK)


# ---- the command ---------------------------------------------------------------------------------


def call(capsys, *args):
    """Exit code, stdout, stderr of the command in this process."""
    return util.call(capsys, "style", *args)


def options(**changed):
    return [x for name, value in (QUICK | changed).items()
            for x in (f"--{name.replace('_', '-')}", value)]  # fmt: skip


def written(folder):
    return {path.name for path in folder.iterdir()}


def pixels_of(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(programs, "plot_losses", lambda *args: None)


def test_the_command_writes_what_it_promises(capsys, tmp_path, files):
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = [files["content"], files["one"], files["two"], "--blend", "1,3"]
    code, said, err = call(
        capsys, *arguments, *options(), "--save-every", 3, "--out", folder / "a.png"
    )
    assert (code, err) == (0, "")
    names = {"a.png", "a-losses.png", "a-report.html", "a-000003.png", "a-000006.png"}
    assert written(folder) == names
    expected = style_transfer(
        files["content"], [files["one"], files["two"]], blend=(1, 3), **QUICK
    ).picture
    np.testing.assert_array_equal(pixels_of(folder / "a.png"), expected)
    assert pixels_of(folder / "a-000003.png").shape == (24, 32, 3)
    assert pixels_of(folder / "a-000006.png").shape == (48, 64, 3)
    assert (pixels_of(folder / "a-losses.png")[..., :3].min(axis=2) < 128).mean() > 0.005
    before, after = said.splitlines()
    assert before.startswith(
        f"{folder / 'a.png'}: squeezenet1_1, 4 steps of lbfgs at each of 32 x 24, 64 x 48; expected"
    )
    assert after.startswith(f"{folder / 'a.png'}: done in ")
    assert after.endswith(f"see {folder / 'a-report.html'}")
    assert re.search(r"done in \d+ s \(expected \d+ s\), \S+ GB \(expected \S+ GB\)", after)


def interrupt_at(monkeypatch, n):
    """Ctrl-C in the n-th step."""
    steps = []

    def show(shown, before, step):
        steps.append(step)
        if len(steps) == n:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("fastrnn.cli.style._show", show)
    return steps


def test_the_bar_goes_by_pixels(capsys, tmp_path, files, monkeypatch, undrawn):
    shown = MagicMock(n=0)
    shown.__enter__.return_value = shown

    def bar(description, unit):
        return lambda items: shown.begin(len(items)) and shown

    def update(n):
        shown.n += n

    shown.update.side_effect = update
    monkeypatch.setattr("fastrnn.cli.style.bar", bar)
    arguments = [files["content"], files["one"], "--out", tmp_path / "a.png"]
    assert call(capsys, *arguments, *options())[0] == 0
    total = 4 * (64 * 48 + 32 * 24) // 1000
    shown.begin.assert_called_once_with(total)
    assert shown.n == total
    assert shown.update.call_count == 8
    assert shown.set_postfix.call_args.args[0]["step"] == "8/8"
    shown.__exit__.assert_called_once()


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("n", [1, 4, 6, 8])
def test_a_stopped_transfer_goes_on_to_the_same_bits(
    capsys, tmp_path, files, monkeypatch, undrawn, optimizer, n
):
    arguments = [files["content"], files["one"], *options(optimizer=optimizer), "--init", "noise"]
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    assert call(capsys, *arguments, "--out", whole)[0] == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, n)
        code, _, err = call(capsys, *arguments, "--out", cut)
    assert code == 130
    assert "resume with the same command and --resume\n" in err
    assert not cut.exists()
    code, _, err = call(capsys, *arguments, "--out", cut)
    assert code == 1
    assert err == f"fastrnn: {tmp_path / 'cut-checkpoint.pt'}: of a transfer that was stopped; " \
                  "resume or delete it\n"  # fmt: skip
    steps = interrupt_at(monkeypatch, 0)
    code, said, err = call(capsys, *arguments, "--out", cut, "--resume")
    assert (code, err) == (0, "")
    assert f"{n} of them done" in said
    assert [step.number for step in steps] == [*range(n + 1, 9)]
    np.testing.assert_array_equal(pixels_of(cut), pixels_of(whole))
    assert not (tmp_path / "cut-checkpoint.pt").exists()


def test_a_resumed_transfer_is_the_same_to_the_last_bit_of_the_losses():
    transfer = Transfer(picture(), [picture(seed=1)], **QUICK | {"optimizer": "lbfgs"})
    states = []
    whole = optimise.run(
        transfer, on_save=lambda state: states.append(copy.deepcopy(state)), save_every=3
    )
    rest = optimise.run(transfer, states[1])
    np.testing.assert_array_equal(rest.losses["total"], whole.losses["total"])
    np.testing.assert_array_equal(rest.picture, whole.picture)


def test_resume_refuses_what_is_not_the_same(capsys, tmp_path, files, monkeypatch, undrawn):
    out = tmp_path / "a.png"
    arguments = [files["content"], files["one"], "--out", out]
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert call(capsys, *arguments, *options())[0] == 130
    stopped = tmp_path / "a-checkpoint.pt"
    before = stopped.read_bytes()
    other = [files["content"], files["two"], "--out", out, "--resume"]
    code, _, err = call(capsys, *other, *options(steps=5, seed=1))
    assert code == 1
    assert err == (
        f"fastrnn: {stopped}: of another transfer; not as it was: style 1, weights, steps, seed\n"
    )
    stopped.write_bytes(before[: len(before) // 2])
    code, _, err = call(capsys, *arguments, *options(), "--resume")
    assert code == 1
    assert f"{stopped}: not a checkpoint (" in err
    torch.save({"format": 1}, stopped)
    assert "not a checkpoint of format 2" in call(capsys, *arguments, *options(), "--resume")[2]
    stopped.unlink()
    assert "no checkpoint to continue from" in call(capsys, *arguments, *options(), "--resume")[2]
    assert not out.exists()


def test_checkpoints_hold_no_pickled_objects(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"format": checkpoint.FORMAT, "identity": Path(), "state": ()}, path)
    with pytest.raises(ValueError, match="not a checkpoint"):
        checkpoint.load(path, {})


@pytest.mark.parametrize("name", ["content", "style", "tv"])
def test_a_loss_that_is_not_finite_keeps_the_last_good_picture(
    capsys, tmp_path, files, monkeypatch, undrawn, name
):
    out = tmp_path / "a.png"
    out.write_bytes(b"good")
    calls, evaluate = [], Objective.__call__

    def broken(self, x):
        calls.append(1)
        terms = evaluate(self, x)
        return (
            terms | {name: terms[name] * math.nan} if len(calls) == 2 * TIMED_STEPS + 6 else terms
        )

    monkeypatch.setattr(Objective, "__call__", broken)
    arguments = [files["content"], files["one"], "--out", out, "--save-every", 2]
    code, _, err = call(capsys, *arguments, *options())
    assert code == 1
    assert err == (
        f"fastrnn: the {name} loss became nan at step 2 of 64 x 48 pixels; a lower learning rate "
        "than 1, or the optimizer adam, may help\n"
    )
    assert out.read_bytes() == b"good"
    kept = programs.prepare(out, files["content"], [files["one"]], resume=True, **QUICK).start
    assert len(kept.losses) == 4
    assert torch.isfinite(kept.picture).all()


GOOD = ["content.png", "one.png", "--out", "a.png"]


def test_a_gradient_that_is_not_a_number_is_found_in_the_last_step(monkeypatch):
    evaluate = Objective.__call__

    def broken(self, x):
        terms = evaluate(self, x)
        return terms | {"tv": terms["tv"] + (0 * x).sqrt().sum()}  # of gradient 0 * inf

    monkeypatch.setattr(Objective, "__call__", broken)
    with pytest.raises(FloatingPointError, match="the picture became NaN at step 1 of 64 x 48"):
        style_transfer(picture(), picture(seed=1), **QUICK | {"steps": 1, "scales": 1})


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["missing.png", "one.png", "--out", "a.png"], 1, "missing.png: no such file"),
        (["content.png", "missing.png", "--out", "a.png"], 1, "missing.png: no such file"),
        (["content.png", "text.png", "--out", "a.png"], 1, "text.png: not a readable picture"),
        (["content.png", "one.png", "--out", "no/a.png"], 1, "no: no such folder"),
        (["content.png", "one.png", "--out", "a.bmp"], 1, "a.bmp: expected a name that ends"),
        (["content.png", "one.png"], 2, "Missing option '--out'"),
        (["content.png", "--out", "a.png"], 2, "Missing argument 'STYLE...'"),
        ([*GOOD, "--mask", "no.png"], 1, "no.png: no such"),
        (
            ["content.png", "one.png", "two.png", "--out", "a.png", "--mask", "one.png"],
            1, "masks: expected 2, one for each style, got 1",
        ),
        ([*GOOD, "--blend", "1,2"], 1, "blend: expected 1, one"),
        ([*GOOD, "--blend", "x"], 2, "numbers between commas"),
        ([*GOOD, "--steps", "0"], 2, "steps: expected an integer of at least 1"),
        ([*GOOD, "--style-layers", "99"], 2, "has 0 to 12"),
        ([*GOOD, "--content-layers", "relu9"], 2, "fire8, fire9; got relu9"),
        ([*GOOD, "--size", "1000000"], 1, "pixels take"),
        ([*GOOD, "--weights", "no.pth"], 1, "no.pth: no such"),
        ([*GOOD, "--weights", "text.png"], 1, "not a file of"),
        ([*GOOD, "--init", "nought"], 1, "nought: no such file"),
        ([*GOOD, "--device", "moon"], 1, "device: 'moon' cannot"),
    ],
)  # fmt: skip
def test_errors_come_before_any_file(capsys, tmp_path, files, monkeypatch, args, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    before = written(tmp_path)
    got, out, err = call(capsys, *options(), *args)
    assert (got, out) == (code, "")
    assert said in err
    assert written(tmp_path) == before


def test_options_reach_the_transfer(capsys, tmp_path, monkeypatch):
    seen = {}

    def prepare(out, content, styles, **options):
        seen.update(options, out=out, content=content, styles=styles)
        raise ValueError("enough")

    monkeypatch.setattr(programs, "prepare", prepare)
    expected = {
        "out": Path("a.png"), "content": Path("c.jpg"), "styles": (Path("s.jpg"), Path("t.jpg")),
        "masks": (Path("m.png"), Path("n.png")), "init": "noise", "resume": True, "size": 100,
        "keep_colors": True, "colors": "luminance", "content_weight": 2.0, "style_weight": 3.0,
        "tv_weight": 4.0,
        "blend": (1.0, 2.5), "style_scale": 0.5, "backbone": "vgg16", "weights": "none",
        "content_layers": ("relu4_2",), "style_layers": ("1", "relu2_1"),
        "layer_weights": (1.0, 0.0),
        "pooling": "max", "steps": 7, "growth": 1.5, "averaging": 0.5,
        "scales": 2, "optimizer": "adam", "learning_rate": 0.1, "seed": 5, "device": "cuda:1",
        "memory": 2.5,
    }  # fmt: skip
    args = ["c.jpg", "s.jpg", "t.jpg", "--mask", "m.png", "--mask", "n.png", "--resume"]
    for name, value in expected.items():
        if name not in ("content", "styles", "masks", "resume"):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else value
            args += [f"--{name.replace('_', '-')}", *([] if value is True else [text])]
    assert call(capsys, *args)[0] == 1
    assert seen == expected
    seen.clear()
    call(capsys, "c.jpg", "s.jpg", "--out", "a.png")
    assert seen.keys() == {"out", "content", "styles", "resume"}


def test_help_names_every_setting(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0
    for name in SETTINGS:
        assert f"--{name.replace('_', '-')}" in out
    for heading in ("Picture:", "Losses:", "Network:", "Steps:", "Run:"):
        assert heading in out


# ---- the published pictures ----------------------------------------------------------------------


@pytest.mark.skipif(
    not os.environ.get("FASTRNN_DATA"), reason="FASTRNN_DATA names no folder of data sets"
)
def test_a_real_style_replaces_the_contents_textures():
    data = Path(os.environ["FASTRNN_DATA"])
    result = style_transfer(
        data / "styles/tubingen.jpg",
        data / "styles/starry_night.jpg",
        weights=str(data / "weights/squeezenet1_1.pth"),
        size=128,
        scales=2,
        steps=20,
    )
    assert result.losses["style"][-1] < 0.1 * result.losses["style"][0]
    assert result.losses["content"][-1] < Settings().content_weight


def test_public_names():
    assert set(style.__all__) == {
        *("Result", "Settings", "content_loss", "gram_matrix", "style_loss"),
        *("style_transfer", "total_variation_loss"),
    }


def test_no_picture_that_is_read_is_overwritten(capsys, tmp_path, files):
    before = {path: path.read_bytes() for path in files.values()}
    for out in files["content"], files["one"]:
        code, _, err = call(capsys, files["content"], files["one"], "--out", out, *options())
        assert code == 1
        assert err == f"fastrnn: {out}: would be overwritten; choose another --out\n"
    losses = files["content"].rename(tmp_path / "a-losses.png")
    code, _, err = call(capsys, losses, files["one"], "--out", tmp_path / "a.png", *options())
    assert (code, err) == (1, f"fastrnn: {losses}: would be overwritten; choose another --out\n")
    assert losses.read_bytes() == before[files["content"]]
    assert written(tmp_path) == {"a-losses.png", "one.png", "two.png"}


def test_a_name_that_cannot_be_written_is_found_before_the_work(capsys, tmp_path, files):
    out = tmp_path / f"{'a' * 240}.png"
    code, _, err = call(capsys, files["content"], files["one"], "--out", out, *options())
    assert code == 1
    assert "cannot be written (File name too long)" in err
    assert written(tmp_path) == {path.name for path in files.values()}


def test_a_picture_that_cannot_be_written_leaves_the_last_state(
    capsys, tmp_path, files, monkeypatch, undrawn
):
    arguments = [files["content"], files["one"], "--out", tmp_path / "a.png", *options()]
    with monkeypatch.context() as patch:
        patch.setattr(programs, "write_picture", lambda *_: (_ for _ in ()).throw(OSError("full")))
        assert call(capsys, *arguments)[0] == 1
    assert (tmp_path / "a-checkpoint.pt").exists()
    assert call(capsys, *arguments, "--resume")[0] == 0
    names = {path.name for path in files.values()}
    assert written(tmp_path) == {"a.png", "a-report.html", *names}


def test_a_mask_with_little_white_counts_at_every_scale():
    dot = np.zeros((450, 600), np.uint8)
    dot[200, 300] = 60
    masks = [dot, np.full_like(dot, 255)]
    result = style_transfer(picture(), [picture(seed=1), picture(seed=2)], masks=masks, **QUICK)
    assert np.isfinite(result.losses["total"]).all()


def test_torchs_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    style_transfer(picture(), picture(seed=1), **QUICK | {"steps": 1, "scales": 1})
    assert torch.equal(torch.rand(1), expected)


def test_more_memory_than_asked_for_is_said(capsys, tmp_path, files, undrawn):
    out = tmp_path / "a.png"
    arguments = [files["content"], files["one"], "--out", out]
    code, _, err = call(capsys, *arguments, *options(memory=0.1))
    assert code == 0
    assert "more than --memory 0.1" in err
    assert "--memory" not in call(capsys, *arguments, *options())[2]


@pytest.mark.parametrize(
    ("changed", "content", "scales"),
    [
        ({"size": 63}, (45, 60), 1),
        ({"size": 128}, (45, 60), 3),
        ({"size": 128, "growth": 2.0}, (45, 60), 2),
        ({"size": 512}, (45, 60), 7),
        ({"size": 512, "scales": 2}, (45, 60), 2),
        ({"size": 512}, (80, 1600), 1),  # a banner, of which less would be no picture
        ({"size": 512}, (300, 75), 5),
    ],
)
def test_scales_begin_where_there_is_a_picture_to_see(changed, content, scales):
    transfer = Transfer(
        np.zeros((*content, 3), np.uint8),
        [picture()],
        **QUICK | {"scales": None, "growth": Settings().growth} | changed,
    )
    assert len(transfer.sizes) == scales
    assert max(transfer.sizes[-1]) == changed["size"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_small_pictures_are_pictures(size):
    chosen = QUICK | {"size": size, "scales": None, "steps": 10}
    assert style_transfer(picture(), picture(seed=1), **chosen).picture.shape[1] == size


@pytest.mark.parametrize("shape", [(1, 6000), (6000, 1), (80, 1600), (1, 1)])
def test_thin_pictures_are_pictures(shape):
    thin = np.full((*shape, 3), 90, np.uint8)
    chosen = QUICK | {"steps": 2, "scales": None}
    painted = style_transfer(thin, picture(seed=1), **chosen).picture
    assert max(painted.shape) == 64
    style_transfer(picture(), thin, **chosen)


# ---- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [63, 64])
def test_edges_are_painted_like_the_inside(size):
    speckled = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    chosen = QUICK | {"steps": 10, "scales": 1, "tv_weight": 0.0, "size": size}
    painted = style_transfer(picture(64, 64), speckled, **chosen).picture.astype(float)
    down, right = (abs(np.diff(painted, axis=axis)).mean(axis=2) for axis in (0, 1))
    texture = down[:, :-1] + right[:-1]
    inside = texture[10:-10, 10:-10].mean()
    for edge in (texture[:3], texture[-3:], texture[:, :3], texture[:, -3:]):
        assert edge.mean() > 0.7 * inside


# ---- transparency --------------------------------------------------------------------------------


def cut_out(pixels, left=0.5):
    """A picture of which the left share is opaque, the rest transparent ink of another kind."""
    alpha = np.zeros(pixels.shape[:2], np.uint8)
    alpha[:, : round(left * pixels.shape[1])] = 255
    return np.dstack([pixels, alpha])


def test_a_cut_out_content_keeps_its_alpha_and_its_background_is_not_painted(tmp_path, capsys):
    content = cut_out(picture(64, 48))
    chosen = QUICK | {"tv_weight": 0.0, "content_weight": 0.0, "style_layers": (1,), "scales": 1}
    painted = style_transfer(content, picture(seed=1), **chosen).picture
    assert painted.shape == (48, 64, 4)
    np.testing.assert_array_equal(painted[..., 3], content[..., 3])
    transfer = Transfer(content, [picture(seed=1)], **chosen)
    states = []
    optimise.run(transfer, on_save=states.append)
    canvas = transfer.space.array(pictures.cropped(states[-1].picture)).astype(int)
    assert (canvas[:, 38:] == 255).all()
    assert abs(canvas[:, :30] - content[:, :30, :3]).mean() > 5
    source, style_file = tmp_path / "content.png", tmp_path / "style.png"
    Image.fromarray(content).save(source)
    Image.fromarray(picture(seed=1)).save(style_file)
    assert call(capsys, source, style_file, "--out", tmp_path / "a.png", *options())[0] == 0
    assert pixels_of(tmp_path / "a.png").shape == (48, 64, 4)


@pytest.mark.parametrize(
    ("name", "form", "mode"),
    [("a.PNG", "PNG", "RGBA"), ("a.jpg", "JPEG", "RGB"), ("a.webp", "WEBP", "RGBA")],
)
def test_pictures_are_written_in_the_format_of_their_name(tmp_path, name, form, mode):
    pixels = cut_out(picture(64, 48))
    programs.write_picture(tmp_path / name, pixels)
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.mode) == (form, mode)
        seen = np.asarray(over_white(image)).astype(int)
    assert abs(seen - np.asarray(over_white(Image.fromarray(pixels)))).mean() < 3
    assert written(tmp_path) == {name}


def test_a_picture_with_alpha_looks_over_white_as_it_was_painted():
    alpha = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(2).reshape(16, 32))
    over_white = np.full((16, 32, 3), 255 - np.asarray(alpha)[..., None] // 2, np.uint8)
    painted = pictures.with_opacity(over_white, alpha)
    np.testing.assert_array_equal(painted[..., 3], alpha)
    share = painted[..., 3:] / 255
    again = painted[..., :3] * share + 255 * (1 - share)
    assert abs(again - over_white).max() <= 1


def test_style_is_not_learnt_from_what_is_transparent():
    ink = picture(64, 64, 1)
    chosen = QUICK | {"scales": 1, "style_scale": 2.0}

    def grams(style):
        (targets,) = Transfer(picture(64, 64), [style], **chosen).objective(0).style_targets
        return targets

    alone, within = grams(ink[:, :32]), grams(cut_out(ink))
    flattened = grams(np.where(cut_out(ink)[..., 3:] > 0, ink, np.uint8(255)))
    for a, w, f in zip(alone, within, flattened, strict=True):
        assert (w - a).norm() < 0.35 * (f - a).norm()


def test_black_ink_on_nothing_is_ink_on_white():
    ink = np.zeros((48, 64, 4), np.uint8)
    ink[10:20, ::3, 3] = 255
    space = Transfer(picture(), [ink], **QUICK).space
    seen = space.array(space.tensor(pictures.read("style", ink), (64, 48)))
    np.testing.assert_array_equal(seen, np.repeat(255 - ink[..., 3:], 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_mask_may_be_drawn_in_the_alpha_channel(tmp_path, mode):
    alpha = np.zeros((45, 60), np.uint8)
    alpha[:, :30] = 255
    drawn = Image.fromarray(np.zeros((45, 60), np.uint8)).convert("LA")
    drawn.putalpha(Image.fromarray(alpha))
    if mode == "P":
        Image.fromarray(alpha // 255).save(tmp_path / "m.gif", transparency=0)
    else:
        drawn.convert(mode).save(tmp_path / "m.png")
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(pictures.read_mask("mask", path, (60, 45)), alpha)


def test_a_mask_has_to_lie_on_the_content():
    right = np.zeros((45, 60), np.uint8)
    right[:, 30:] = 255
    with pytest.raises(ValueError, match="mask 1: nothing is white in it where the content"):
        style_transfer(cut_out(picture()), picture(seed=1), masks=[right], **QUICK)


# ---- layers and pooling --------------------------------------------------------------------------


def test_layers_have_the_names_of_the_papers():
    vgg = Settings(backbone="vgg19", content_layers=["relu4_2"], style_layers=["relu1_1", "20"])
    assert (vgg.content_layers, vgg.style_layers) == ((22,), (1, 20))
    for backbone in layers.NAMES:
        modules = network.load(
            backbone, "none", [len(layers.NAMES[backbone]) - 1], pooling="max", seed=0, device="cpu"
        )
        kinds = {"conv": "Conv2d", "relu": "ReLU", "pool": "MaxPool2d", "fire": "Fire"}
        assert [type(module).__name__ for module in modules] == [
            kinds[name[:4]] for name in layers.NAMES[backbone]
        ]


@pytest.mark.parametrize("backbone", layers.NAMES)
def test_average_pooling_has_the_shapes_of_the_others(backbone):
    last = [len(layers.NAMES[backbone]) - 1]
    x, feats = features_of((1, 3, 75, 90), dtype=torch.float32).abs(), {}
    for pooling in ("max", "average"):
        modules = network.load(backbone, "none", last, pooling=pooling, seed=0, device="cpu")
        at = next(i for i, name in enumerate(layers.NAMES[backbone]) if name.startswith("pool"))
        feats[pooling] = [network.features(modules, x, last)[-1].shape, modules[at](x)]
    assert feats["max"][0] == feats["average"][0]
    assert (feats["average"][1] < feats["max"][1]).all()
    assert feats["average"][1].mean().item() == pytest.approx(x.mean().item(), rel=0.02)


@pytest.mark.parametrize("backbone", ["vgg16", "vgg19"])
def test_a_transfer_by_vgg_lowers_its_loss(backbone):
    chosen = QUICK | {"backbone": backbone, "size": 32, "scales": 1, "content_layers": ["relu3_1"]}
    result = style_transfer(
        picture(), picture(seed=1), style_layers=["relu1_1", "relu2_1"], **chosen
    )
    assert result.losses["total"][-1] < result.losses["total"][0]


# ---- steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [{"optimizer": "adam", "learning_rate": 100.0},
                                    {"optimizer": "lbfgs", "learning_rate": 100.0}])  # fmt: skip
def test_a_loss_that_rises_is_an_error_and_nothing_is_written(capsys, tmp_path, files, chosen):
    arguments = [files["content"], files["one"], "--out", tmp_path / "a.png"]
    code, _, err = call(capsys, *arguments, *options(steps=8, **chosen))
    assert code == 1
    assert re.search(
        r"the loss rose from \S+ to \S+ in the 8 steps of 32 x 24 pixels; a lower learning rate "
        "than 100",
        err,
    )
    assert written(tmp_path) == {path.name for path in files.values()}


def test_adam_goes_on_at_the_next_scale_where_it_was():
    transfer = Transfer(picture(), [picture(seed=1)], **QUICK | {"optimizer": "adam"})
    states = []
    optimise.run(transfer, on_save=lambda s: states.append(copy.deepcopy(s)), save_every=4)
    begun = optimise._begun(states[0], transfer, 1)
    before, after = (s.optimizer["state"][0] for s in (states[0], begun))
    assert after["step"] == before["step"] == 4
    for name in ("exp_avg", "exp_avg_sq"):
        assert after[name].shape == begun.picture.shape == (1, 3, 64, 80)
        assert after[name].mean() == pytest.approx(before[name].mean().item(), rel=0.2, abs=1e-3)
    assert (after["exp_avg_sq"] >= 0).all()
    assert states[1].optimizer["state"][0]["step"] == 8


def test_averages_are_those_of_the_pictures():
    xs = [torch.full((1,), value) for value in (1.0, 2.0, 6.0, 0.0)]
    average = None
    for step, x in enumerate(xs):
        average = optimise.averaged(average, x, 0.6, step)
    # The plain mean of the first two, then a weight of 0.4 for the newest.
    assert average.item() == pytest.approx(0.6 * (0.6 * 1.5 + 0.4 * 6))
    assert optimise.averaged(None, xs[0], 0.0, 0) is None


def test_a_transfer_shows_its_average_and_goes_on_from_it(capsys, tmp_path, files, undrawn):
    chosen = QUICK | {"averaging": 0.5, "optimizer": "adam"}
    transfer, states = Transfer(picture(), [picture(seed=1)], **chosen), []
    whole = optimise.run(transfer, on_save=lambda s: states.append(copy.deepcopy(s)), save_every=2)
    np.testing.assert_array_equal(whole.picture, transfer.picture(states[3].average))
    assert (states[3].average - states[3].picture).abs().max() > 0
    for state in states:
        np.testing.assert_array_equal(optimise.run(transfer, state).picture, whole.picture)
