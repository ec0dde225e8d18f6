"""Transfer learning: folders of pictures, features kept in files, one loop for every mode, resumed
to the bit, the course's functions, and the command as scripts use it."""

import csv
import hashlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import util
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image, ImageDraw

torch = pytest.importorskip("torch")
models = pytest.importorskip("torchvision.models")

from fastrnn import cli, storage  # noqa: E402
from fastrnn.cli import progress  # noqa: E402
from fastrnn.vision import backbones, images  # noqa: E402
from fastrnn.vision import transfer as tr  # noqa: E402
from fastrnn.vision.transfer import data, features, modes, networks, plots, prediction, programs  # noqa: E402
from fastrnn.vision.transfer import settings as st_  # noqa: E402
from fastrnn.vision.transfer import training as tg  # noqa: E402
from fastrnn.vision.transfer.mixing import mixed  # noqa: E402
from fastrnn.vision.transfer.scores import AUXILIARY  # noqa: E402

CPU = torch.device("cpu")
SIZE = 64
SMALL = ["--weights", "none", "--image-size", str(SIZE), "--cache", "none"]
EPOCHS = st_.SETTINGS["epochs"]


@pytest.fixture(scope="module", autouse=True)
def few_epochs_and_a_cache_of_its_own(tmp_path_factory):
    """Freeze is quick to learn these few pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(st_.SETTINGS, "epochs", EPOCHS._replace(default=8))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def draw(path, shape, seed):
    """A disc or a square of some colour on noise; squares are bluer."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 80, (72, 96, 3), dtype=np.uint8))
    x, y, r = rng.integers(20, 60), rng.integers(20, 50), rng.integers(14, 20)
    color = (250, 90, 40) if shape == "disc" else (40, 90, 250)
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "disc" else pen.rectangle)((x - r, y - r, x + r, y + r), fill=color)
    image.save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 7 + 6 pictures to train on and 4 + 4 to validate."""
    base = tmp_path_factory.mktemp("photos")
    for split, counts in (("train", (7, 6)), ("val", (4, 4))):
        for shape, count in zip(("disc", "square"), counts, strict=True):
            folder = base / split / shape
            folder.mkdir(parents=True)
            for i in range(count):
                name = f"{split}{shape}{i}"
                draw(folder / f"{name}.png", shape, zlib.crc32(name.encode()))
    return base


@pytest.fixture
def copied(photos, tmp_path):
    return shutil.copytree(photos, tmp_path / "copied")


def complete(**given):
    return st_.complete({"weights": "none", "image_size": SIZE} | given)


def state_of(model):
    return {name: w.clone() for name, w in model.state_dict().items()}


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    for name, w in one.items():
        assert torch.equal(w, other[name]), name


# ---- settings ------------------------------------------------------------------------------------


def test_settings_given_come_before_the_modes_and_the_defaults():
    defaults = {name: setting.default for name, setting in st_.SETTINGS.items()}
    assert st_.complete({}) == st_.complete({"mode": "freeze"}) == defaults
    tuned = {name: s.tuned["finetune"] for name, s in st_.SETTINGS.items() if "finetune" in s.tuned}
    found = st_.complete({"mode": "finetune", "epochs": 3})
    assert found == defaults | tuned | {"mode": "finetune", "epochs": 3}


@pytest.mark.parametrize(
    ("name", "value"),
    [("mode", "thaw"), ("epochs", 0), ("epochs", 1.0), ("views", True), ("seed", -1),
     ("dropout", 1.0), ("warmup", -0.1), ("learning_rate", 0), ("learning_rate", math.inf),
     ("layer_decay", 1.1), ("weight_decay", -1), ("image_size", 0), ("amp", 1), ("backbone", 5),
     ("device", "tpu"), ("batch_size", "8"), ("label_smoothing", math.nan)],
)  # fmt: skip
def test_settings_refuse(name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got "):
        st_.complete({name: value})


def test_settings_refuse_unknown_names():
    with pytest.raises(ValueError, match="^epoch: no such setting; there are backbone, "):
        st_.complete({"epoch": 1})


def test_staged_is_freeze_as_tuned_then_finetune_as_given():
    given = {"mode": "staged", "epochs": 4, "learning_rate": 1.0, "seed": 3, "dropout": 0.2}
    first, second = st_.stages(st_.complete(given))
    shared = {"seed": 3, "dropout": 0.2}
    assert first == st_.complete({"mode": "freeze"} | shared)
    assert second == st_.complete(given) | {"mode": "finetune"}
    assert st_.stages(first) == [first]


# ---- folders and transforms ----------------------------------------------------------------------


def test_folders_are_read_in_order_with_the_hashes_of_the_files(copied):
    (copied / "train" / ".hidden").mkdir()
    (copied / "train" / "notes.txt").touch()
    (copied / "train" / "disc" / "notes.txt").touch()
    (copied / "val" / "disc" / "upper.PNG").write_bytes(
        (copied / "val" / "disc" / "valdisc0.png").read_bytes()
    )
    seen = []
    train, val = data.read_folders(copied, lambda found: seen.extend(found) or found)
    assert train.classes == val.classes == ["disc", "square"]
    assert train.labels == [0] * 7 + [1] * 6
    assert val.labels == [0] * 5 + [1] * 4
    assert train.paths == sorted(copied.glob("train/*/*.png"))
    assert seen == train.paths + val.paths
    for path, key in zip(val.paths, val.keys, strict=True):
        assert key == hashlib.sha256(path.read_bytes()).hexdigest()


def break_data(folder, how):
    if how == "no train":
        shutil.rmtree(folder / "train")
    elif how == "no classes":
        shutil.rmtree(folder / "train")
        (folder / "train").mkdir()
    elif how == "one class":
        shutil.rmtree(folder / "train/square")
    elif how == "empty class":
        for path in (folder / "train/square").iterdir():
            path.unlink()
    elif how == "another class":
        (folder / "val/square").rename(folder / "val/star")
    else:
        found = sorted(folder.glob("train/disc/*")) + sorted(folder.glob("val/square/*"))
        for path in found[: int(how)]:
            path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no train", "copied: no folder train beside val; expected train/CLASS/* and val/CLASS/*"),
        ("no classes", "train: no folders in it; expected one for each class"),
        ("one class", "train: expected at least two classes, got 'disc'"),
        ("empty class", "train/square: no pictures that Pillow reads"),
        ("another class", "val/star: class 'star' is not one of disc, square"),
        ("1", "1 of 21 pictures cannot be read: "),
        ("9", "; and 6 more"),
    ],
)
def test_train_refuses_data_before_it_writes(capsys, copied, tmp_path, how, message):
    break_data(copied, how)
    code, out, err = call(capsys, "train", copied, "--out", tmp_path / "run", *SMALL)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    if how.isdigit():
        assert err.count("not a readable picture") == min(3, int(how))
        assert "train/disc/traindisc0.png" in err


def test_digest_tells_contents_classes_and_order_apart(photos):
    train, val = data.read_folders(photos)
    found = {
        data.digest(train, val),
        data.digest(val, train),
        data.digest(train),
        data.digest(train._replace(keys=train.keys[::-1]), val),
        data.digest(train._replace(labels=[1, *train.labels[1:]]), val),
        data.digest(train._replace(classes=["a", "b"]), val),
    }
    assert len(found) == 6
    assert data.digest(train._replace(paths=[]), val) in found


def test_resize_is_in_proportion_to_the_crop():
    to = backbones.preprocessing("squeezenet1_1")
    assert data.resized(to, None) == to
    assert data.resized(to, 288)[:2] == (329, 288)


def image_of(photos):
    return Image.open(photos / "train/disc/traindisc0.png").convert("RGB")


def test_views_are_the_evaluations_its_mirror_image_and_random_ones(photos):
    to = data.resized(backbones.preprocessing("squeezenet1_1"), SIZE)
    image = image_of(photos)
    expected = backbones.eval_transform(to)(image)
    assert torch.equal(data.view(to, 0)(image), expected)
    assert torch.equal(data.view(to, 1)(image), expected.flip(2))
    one, other = (data.view(to, 2)(image) for _ in range(2))
    assert one.shape == expected.shape == (3, SIZE, SIZE)
    assert not torch.equal(one, other)


def test_an_example_is_random_by_its_seed_alone(photos):
    to = data.resized(backbones.preprocessing("squeezenet1_1"), SIZE)
    read = data.Reader(data.augmentation(to))
    path = photos / "train/disc/traindisc0.png"
    before = torch.get_rng_state()
    one = read[path, 1, (0, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    same, other = read[path, 1, (0, 1, 2)], read[path, 1, (0, 2, 1)]
    assert one[1] == 1
    assert torch.equal(one[0], same[0])
    assert not torch.equal(one[0], other[0])


def test_batches_are_the_same_for_any_number_of_workers_and_from_any_start(photos):
    train, _ = data.read_folders(photos)
    to = data.resized(backbones.preprocessing("squeezenet1_1"), SIZE)
    make = [data.random_batches(train, data.Reader(data.augmentation(to)), 4, 5, n) for n in (0, 1)]
    whole, by_worker = ([*batches(3, 0)] for batches in make)
    before = torch.get_rng_state()
    rest = [*make[0](3, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(y) for _, y in whole] == [4, 3, 3, 3]
    for (x, y), (x2, y2) in zip(whole + whole[2:], by_worker + rest, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert sorted(torch.cat([y for _, y in whole]).tolist()) == train.labels
    assert not torch.equal(next(iter(make[0](4, 0)))[0], whole[0][0])


def test_every_example_of_every_epoch_is_augmented_in_its_own_way(photos):
    train, _ = data.read_folders(photos)
    to = data.resized(backbones.preprocessing("squeezenet1_1"), SIZE)
    same = train._replace(paths=train.paths[:1] * 3, labels=[0] * 3)
    batches = data.random_batches(same, data.Reader(data.augmentation(to)), 3, 0, 0)
    seen = {x.numpy().tobytes() for epoch in (0, 1) for x in next(iter(batches(epoch, 0)))[0]}
    assert len(seen) == 6


def ignores_interrupt(image):
    return torch.tensor(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)


def test_workers_leave_an_interrupt_to_the_main_process(photos):
    example = photos / "train/disc/traindisc0.png", 0, (0,)
    # A shell's background jobs begin with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for workers in (0, 1):
            ((x, _),) = data.loader(data.Reader(ignores_interrupt), [[example]], workers)
            assert x.tolist() == [workers == 1]
    finally:
        signal.signal(signal.SIGINT, before)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_has_every_example_once_in_even_batches(count, size, seed, epoch):
    batches = data.shuffled(count, size, seed, epoch)
    lengths = {len(batch) for batch in batches}
    assert sorted(np.concatenate(batches)) == [*range(count)]
    assert len(batches) == math.ceil(count / size)
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    other = np.concatenate(data.shuffled(count, size, seed, epoch + 1))
    assert count < 10 or (np.concatenate(batches) != other).any()


# ---- features ------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """The numbers of pictures that backbones have read, one for each batch."""
    seen, real = [], features.of_batches

    def counting(model, head, batches, device):
        hook = model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        try:
            return real(model, head, batches, device)
        finally:
            hook.remove()

    monkeypatch.setattr(features, "of_batches", counting)
    return seen


def network(seed=0, backbone="squeezenet1_1", classes=2):
    return networks.new_network(complete(seed=seed, backbone=backbone), classes)


def features_of(pictures, cache, *, seed=0, size=SIZE, views=2, workers=0, **changed):
    to = data.resized(backbones.preprocessing("squeezenet1_1"), size)._replace(**changed)
    model, head = network(seed)
    options = {"name": "squeezenet1_1", "batch_size": 10, "cache": cache, "workers": workers}
    wanted = dict(zip(pictures.keys, ((path, views) for path in pictures.paths), strict=True))
    return features.look(model, head, wanted, to, CPU, **options).of(pictures, views)


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "resnet18"])
def test_features_are_what_the_last_layer_reads(backbone):
    model, head = network(backbone=backbone)
    x, y = torch.randn(3, 3, SIZE, SIZE), torch.tensor([1, 0, 1])
    rows, labels = features.of_batches(model.train(), head, [(x[:2], y[:2]), (x[2:], y[2:])], CPU)
    assert rows.shape == (3, 512)
    assert torch.equal(labels, y)
    assert not model.training
    with torch.no_grad():
        torch.testing.assert_close(head(rows), model(x), rtol=1e-4, atol=1e-5)
    assert not head._forward_pre_hooks


def test_features_are_computed_once_a_picture_view_size_and_weights(copied, tmp_path, calls):
    train, _ = data.read_folders(copied)
    cache = tmp_path / "cache"
    first = features_of(train, cache)
    assert calls == [10, 10, 6]  # two views of a picture, which is opened once
    assert first.rows.shape == (2, 13, 512)
    assert first.labels.tolist() == [train.labels] * 2
    assert not torch.equal(first.rows[0], first.rows[1])
    calls.clear()

    again = features_of(train, cache)
    assert calls == []
    assert torch.equal(again.rows, first.rows)
    features_of(train, cache, views=3)
    assert calls == [3, 3, 3, 3, 1]  # the third view
    calls.clear()
    for other in ({"seed": 1}, {"size": 48}, {"resize": SIZE}, {"std": (1.0, 1.0, 1.0)}):
        assert not torch.equal(features_of(train, cache, **other).rows, first.rows)
        assert calls == [10, 10, 6]
        calls.clear()

    draw(train.paths[3], "square", 99)
    changed, _ = data.read_folders(copied)
    rows = features_of(changed, cache).rows
    assert calls == [2]
    same = torch.arange(13) != 3
    assert torch.equal(rows[:, same], first.rows[:, same])
    assert not torch.equal(rows[:, 3], first.rows[:, 3])
    calls.clear()
    features_of(train, cache)  # what had been known is still known
    assert calls == []


def test_weights_are_the_same_whatever_the_last_layer():
    model, head = network()
    before = features.weights_digest(model, head)
    with torch.no_grad():
        head.weight.zero_()
        assert features.weights_digest(model, head) == before
        model.features[0].bias[3] += 1e-6
    assert features.weights_digest(model, head) != before


def test_kept_features_survive_damage_and_an_interrupt(photos, tmp_path, calls, monkeypatch):
    train, _ = data.read_folders(photos)
    cache = tmp_path / "deep" / "cache"
    first = features_of(train, cache)
    views = sorted(cache.glob("squeezenet1_1-*-view*.safetensors"))
    assert len(views) == 2
    for damage in (b"rubbish", views[0].read_bytes()[:-5], b""):
        views[0].write_bytes(damage)
        calls.clear()
        for _ in range(2):
            torch.testing.assert_close(features_of(train, cache).rows, first.rows)
        assert sum(calls) == 13

    (pixels,) = cache.glob("pixels-*")
    pixels.unlink()
    calls.clear()
    assert torch.equal(features_of(train, cache).rows, features_of(train, cache).rows)
    assert pixels.exists() and not calls

    def interrupted(batches):
        for i, batch in enumerate(batches):
            if i == 1:
                raise KeyboardInterrupt
            yield batch

    other = tmp_path / "other"
    real = features.look
    monkeypatch.setattr(
        features, "look", lambda *args, **options: real(*args, **options, progress=interrupted)
    )
    with pytest.raises(KeyboardInterrupt):
        features_of(train, other)
    monkeypatch.undo()
    calls.clear()
    torch.testing.assert_close(features_of(train, other).rows, first.rows)


def test_cache_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert features.cache_folder() == tmp_path / "fastrnn/features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert features.cache_folder() == tmp_path / ".cache/fastrnn/features"


def test_moments_keep_away_from_zero():
    rows = torch.tensor([[[1.0, 5], [3, 5]], [[1, 5], [3, 5]]])
    mean, std = features.moments(rows)
    assert mean.tolist() == [2, 5]
    least = 1e-3 * rows.std(correction=0).item()
    assert std.tolist() == pytest.approx([1 + least, least])


def test_feature_batches_draw_every_example_once_in_a_view_of_it():
    rows = torch.arange(3 * 10).reshape(3, 10, 1)  # 10 view + example
    labels = torch.arange(10).expand(3, -1)
    batches = features.random_batches(rows, labels, 4, 0)
    found, views = torch.cat([x for x, _ in batches(0, 0)]).flatten(), set()
    for x, y in batches(0, 0):
        assert torch.equal(x.flatten() % 10, y)
        views |= set((x.flatten() // 10).tolist())
    assert sorted((found % 10).tolist()) == [*range(10)]
    assert views == {0, 1, 2}
    assert torch.equal(torch.cat([x for x, _ in batches(0, 1)]).flatten(), found[4:])
    assert not torch.equal(torch.cat([x for x, _ in batches(1, 0)]).flatten(), found)


# ---- networks ------------------------------------------------------------------------------------


def test_fold_takes_the_standardisation_into_the_weights():
    layer, into = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[6.0, 10.0]]))
        layer.bias.fill_(1.0)
    networks.fold(layer, torch.tensor([1.0, 2.0]), torch.tensor([2.0, 5.0]), into)
    assert into.weight.tolist() == [[3, 2]]
    assert into.bias.item() == 1 - 3 * 1 - 2 * 2


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "resnet18"])
def test_learning_rates_rise_from_the_first_layer_to_the_head(backbone):
    model, head = network(backbone=backbone)
    groups = networks.parameter_groups(model, head, 0.1, 0.01, 5.0, 0.3)
    params = [w for group in groups for w in group["params"]]
    assert len(params) == len({id(w) for w in params}) == len([*model.parameters()])
    assert all(w.requires_grad for w in params)
    rates = [group["lr"] for group in groups]
    assert rates[0] == pytest.approx(0.1 * 0.01)
    assert rates[-1] == rates[-2] == pytest.approx(0.5)
    assert rates[:-2] == sorted(rates[:-2])
    owners = 26 if backbone == "squeezenet1_1" else 41  # modules with parameters
    assert rates[-3] == pytest.approx(0.1)
    assert min(rate for rate in rates if rate > rates[0]) == pytest.approx(
        0.1 * 0.01 ** (1 - 1 / (owners - 2))
    )
    for group in groups:
        assert group["weight_decay"] == (0.3 if group["params"][0].ndim > 1 else 0)
        assert len({w.ndim > 1 for w in group["params"]}) == 1


@pytest.mark.parametrize("backbone", ["vit_b_32", "convnext_tiny"])
def test_only_what_multiplies_inputs_decays(backbone):
    with torch.device("meta"):
        model = backbones.build(backbone, "none")
        head = backbones.replace_head(model, lambda n: torch.nn.Linear(n, 2))
    groups = networks.parameter_groups(model, head, 0.1, 0.5, 1.0, 0.3)
    decaying = {id(w) for group in groups if group["weight_decay"] for w in group["params"]}
    names = {name for name, w in model.named_parameters() if id(w) in decaying}
    assert all(name.endswith("weight") for name in names)
    assert not any(
        word in name for name in names for word in ("norm", "ln_", "layer_scale", "token")
    )
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert len(names) >= len(layers)


def test_schedule_rises_then_falls_to_zero():
    factor = networks.warmup_cosine(12, 0.25)
    found = [factor(step) for step in range(13)]
    assert found[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert found[3:] == sorted(found[3:], reverse=True)
    assert factor(3 + 4.5) == pytest.approx(0.5)
    assert found[12] == pytest.approx(0)
    assert networks.warmup_cosine(4, 0)(0) == 1
    assert networks.warmup_cosine(1, 0.9)(0) == 1


def test_new_network_is_the_seeds():
    (one, head), (same, _), (other, _) = (network(seed) for seed in (0, 0, 1))
    assert (head.in_features, head.out_features) == (512, 2)
    assert_same_state(state_of(one), state_of(same))
    assert not torch.equal(one.classifier[-1].weight, other.classifier[-1].weight)


# ---- the loop ------------------------------------------------------------------------------------


@pytest.fixture
def points(rng):
    """DataLoaders of points in the plane, which of them lie above a line, and their sizes."""
    x = torch.from_numpy(rng.standard_normal((50, 2)).astype(np.float32))
    y = (x[:, 0] > 0.3 * x[:, 1]).long()
    y[::9] = 1 - y[::9]
    sets = {"train": torch.utils.data.TensorDataset(x[:30], y[:30])}
    sets["val"] = torch.utils.data.TensorDataset(x[30:], y[30:])
    loaders = {k: torch.utils.data.DataLoader(s, batch_size=7) for k, s in sets.items()}
    return loaders, {"train": 30, "val": 20}


def linear(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(2, 2)


def accuracy(model, loader):
    right = [int(model(x).argmax(1)[i] == y[i]) for x, y in loader for i in range(len(y))]
    return sum(right) / len(right)


def run_course(points, model, epochs, *, lr=0.5, gamma=0.5, **options):
    loaders, sizes = points
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=gamma)
    loss = torch.nn.CrossEntropyLoss()
    return tr.train_model(
        "cpu", loaders, sizes, model, loss, optimizer, scheduler, epochs, **options
    )


def test_no_epochs_only_evaluate(capsys, points):
    model = linear()
    before = state_of(model)
    assert run_course(points, model, 0) is model
    assert_same_state(state_of(model), before)
    assert not model.training
    found = accuracy(model, points[0]["val"])
    assert 0 < found < 1
    out = capsys.readouterr().out
    assert f"val Acc on pretrain: {found:.6f}\nBest val Acc: {found:.6f}\n" in out
    assert f" Acc: {found:.4f}\n" in out


def test_train_model_is_the_homeworks_loop(capsys, points):
    """Against a plain loop: the weights of the best epoch, and what is printed of each."""
    model, twin = linear(), linear()
    run_course(points, model, 5, lr=3.0)
    loaders, _ = points
    optimizer = torch.optim.SGD(twin.parameters(), lr=3.0, momentum=0.9)
    expected, lines = [], []
    for epoch in range(5):
        losses, right = 0.0, 0
        for group in optimizer.param_groups:
            group["lr"] = 3.0 * 0.5 ** (epoch // 2)
        for x, y in loaders["train"]:
            optimizer.zero_grad()
            scores = twin(x)
            loss = torch.nn.functional.cross_entropy(scores, y)
            loss.backward()
            optimizer.step()
            losses, right = losses + loss.item() * len(y), right + (scores.argmax(1) == y).sum()
        x, y = loaders["val"].dataset.tensors
        val_loss = torch.nn.functional.cross_entropy(twin(x), y).item()
        found = accuracy(twin, loaders["val"])
        expected.append((found, -val_loss, state_of(twin)))
        lines += [f"Epoch {epoch + 1}/5", "-" * 9]
        lines += [f"train Loss: {losses / 30:.4f} Acc: {right / 30:.4f}"]
        lines += [f"val Loss: {val_loss:.4f} Acc: {found:.4f}"]
    best = max(expected, key=lambda e: e[:2])
    assert best is not expected[-1]
    assert_same_state(state_of(model), best[2])
    out = capsys.readouterr().out
    assert "\n".join(lines) in out
    assert out.endswith(f"Best val Acc: {best[0]:.6f}\n")


def test_of_epochs_of_the_same_accuracy_the_one_with_the_least_loss_is_best(points):
    seen, model = [], linear()
    run_course(points, model, 3, lr=1e-5, gamma=1, verbose=False, on_iteration=seen.append)
    history = seen[-1].history
    assert len({epoch["val_accuracy"] for epoch in history}) == 1
    losses = [epoch["val_loss"] for epoch in history]
    assert losses[0] > losses[1] > losses[2]
    x, y = points[0]["val"].dataset.tensors
    found = torch.nn.functional.cross_entropy(model(x), y).item()
    assert found < (losses[1] + losses[2]) / 2


def test_scheduler_steps_by_epoch_or_by_iteration(points):
    for each_epoch, expected in ((True, 3), (False, 3 * 5)):
        model = linear()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)
        parts = (torch.nn.CrossEntropyLoss(), optimizer, scheduler, 3)
        tr.train_model("cpu", *points, model, *parts, each_epoch=each_epoch, verbose=False)
        assert scheduler.last_epoch == expected
    tr.train_model("cpu", *points, model, parts[0], optimizer, None, 1, verbose=False)


def test_patience_stops_and_nothing_is_printed_unless_verbose(capsys, points):
    seen = []
    run_course(points, linear(), 50, lr=1e-12, patience=3, verbose=False, on_iteration=seen.append)
    training = seen[-1]
    assert len(seen) == training.iteration == 5 * training.epoch
    assert training.epoch == 1 + int(np.argmax([e["score"] for e in training.history])) + 3
    assert training.iterations_per_epoch == 5
    assert capsys.readouterr().out == ""


def test_frozen_modules_stay_in_evaluation_mode(points):
    torch.manual_seed(0)
    frozen = torch.nn.Sequential(
        torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.9)
    )
    free = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.1))
    model = torch.nn.Sequential(frozen, free, torch.nn.Linear(4, 2))
    frozen.requires_grad_(False)
    tg.train_mode(model)
    assert model.training
    assert not any(m.training for m in frozen.modules())
    assert all(m.training for m in free.modules())
    before = state_of(model)
    run_course(points, model, 2, verbose=False)
    after = state_of(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        *("1.0.weight", "1.0.bias", "1.0.running_mean", "1.0.running_var"),
        *("1.0.num_batches_tracked", "2.weight", "2.bias"),
    }


def test_a_loss_that_is_not_finite_ends_the_training(points):
    loaders, _ = points
    x, _ = loaders["train"].dataset.tensors
    x[15, 0] = np.nan
    with pytest.raises(FloatingPointError, match="nan at iteration 3; a lower learning rate"):
        run_course(points, linear(), 1, verbose=False)
    loaders["val"].dataset.tensors[0][3] = np.inf
    with pytest.raises(FloatingPointError, match="the loss became nan on val"):
        run_course(points, linear(), 0, verbose=False)


def test_loaders_and_sizes_are_checked(points):
    loaders, sizes = points
    with pytest.raises(ValueError, match=r"dataset_sizes\['val'\]: expected 20, .* got 21"):
        run_course((loaders, sizes | {"val": 21}), linear(), 1)
    with pytest.raises(ValueError, match="^dataloaders: expected train and val, got train$"):
        run_course(({"train": loaders["train"]}, sizes), linear(), 1)
    with pytest.raises(ValueError, match="^dataset_sizes: expected train and val, got neither$"):
        tr.freeze("cpu", loaders, {}, ["a", "b"], weights="none")
    for phase in ("train", "val"):
        with pytest.raises(ValueError, match=rf"dataloaders\['{phase}'\]: expected examples"):
            run_course((loaders | {phase: []}, sizes), linear(), 1)


def test_mixed_precision_computes_in_it_and_learns(points):
    seen = []

    class Model(torch.nn.Linear):
        def forward(self, x):
            scores = super().forward(x)
            seen.append(scores.dtype)
            return scores

    torch.manual_seed(0)
    model = Model(2, 2)
    before = accuracy(model, points[0]["val"])
    seen.clear()
    run_course(points, model, 4, amp=True, verbose=False)
    assert set(seen) == {torch.bfloat16}
    assert accuracy(model, points[0]["val"]) > before


def test_schedule_waits_where_mixed_precision_overflows(points):
    """GradScaler begins with a factor of 65536, which halves where gradients are not finite."""
    model, seen = linear(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-36)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    loss = torch.nn.CrossEntropyLoss()
    parts = (model, lambda scores, y: 2e34 * loss(scores, y), optimizer, scheduler, 1)
    options = {"each_epoch": False, "amp": True, "verbose": False, "on_iteration": seen.append}
    tr.train_model("cpu", *points, *parts, **options)
    training = seen[-1]
    halved = 16 - math.log2(training.scaler.get_scale())
    assert 0 < halved < 5
    assert scheduler.last_epoch == training.iteration - halved


def test_cuda_is_used_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tg.device_of("auto") == tg.device_of("cpu") == CPU
    with pytest.raises(ValueError, match="device: there is no CUDA"):
        tg.device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert tg.device_of("auto").type == tg.device_of("cuda").type == "cuda"
    assert tg.device_of("cpu") == CPU


# ---- modes on any DataLoader ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaders(photos):
    """DataLoaders of the photos, shuffled to train, and their sizes."""
    to = data.resized(backbones.preprocessing("resnet18"), SIZE)
    read, found = data.Reader(backbones.eval_transform(to)), {}
    for split, pictures in zip(("train", "val"), data.read_folders(photos), strict=True):
        examples = zip(pictures.paths, pictures.labels, strict=True)
        dataset = [read[path, label, (0,)] for path, label in examples]
        found[split] = torch.utils.data.DataLoader(dataset, 5, shuffle=split == "train")
    return found, {"train": 13, "val": 8}


NAMES = ["disc", "square"]
UNTUNED = {"weights": "none", "verbose": False}


def test_freeze_trains_the_last_layer_alone(capsys, loaders):
    untrained, _ = networks.new_network(
        st_.complete({"backbone": "resnet18", "weights": "none"}), 2
    )
    options = {"weights": "none", "num_epochs": 12, "views": 1}
    model = tr.freeze("cpu", *loaders, NAMES, **options)
    before, after = state_of(untrained), state_of(model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        *("fc.weight", "fc.bias"),
    }
    assert not any(m.training for m in model.modules())
    found = accuracy(model, loaders[0]["val"])
    assert found > 0.6
    out = capsys.readouterr().out
    assert "val Acc on pretrain: 0." in out
    assert out.endswith(f"Best val Acc: {found:.6f}\n")
    assert out.count("Epoch ") == 12


def test_the_folded_network_says_what_was_learnt_on_features(loaders):
    options = complete(backbone="resnet18", epochs=5)
    model, head = networks.new_network(options, 2)
    before = state_of(head)
    train = features.of_loader(model, head, loaders[0]["train"], CPU, 3)
    val = features.of_loader(model, head, loaders[0]["val"], CPU, 1)
    assert train.rows.shape == (3, 13, 512)
    assert not torch.equal(train.labels[0], train.labels[1])  # passes in other orders
    training = modes.train_last_layer(head, train, val, options, CPU)
    mean, std = features.moments(train.rows)
    with torch.no_grad():
        on_features = training.model((val.rows[0] - mean) / std)
        x = torch.cat([x for x, _ in loaders[0]["val"]])
        torch.testing.assert_close(model(x), on_features, rtol=1e-3, atol=1e-4)
    assert not torch.equal(before["weight"], head.weight)
    best = max(epoch["val_accuracy"] for epoch in training.history)
    assert accuracy(model, loaders[0]["val"]) == best


def test_finetune_trains_all_layers(capsys, loaders):
    untrained, _ = networks.new_network(
        st_.complete({"backbone": "resnet18", "weights": "none"}), 2
    )
    model = tr.finetune("cpu", *loaders, NAMES, weights="none", num_epochs=2)
    before, after = state_of(untrained), state_of(model)
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert capsys.readouterr().out.endswith(
        f"Best val Acc: {accuracy(model, loaders[0]['val']):.6f}\n"
    )


@pytest.mark.parametrize("mode", [tr.freeze, tr.finetune])
def test_modes_are_the_seeds(loaders, mode):
    options = UNTUNED | {"backbone": "squeezenet1_1", "num_epochs": 1}
    one, same, other = (
        state_of(mode("cpu", *loaders, NAMES, seed=seed, **options)) for seed in (0, 0, 1)
    )
    assert_same_state(one, same)
    assert not torch.equal(one["classifier.3.weight"], other["classifier.3.weight"])


def test_modes_refuse_settings_and_backbones(loaders):
    with pytest.raises(ValueError, match="^epochs: expected an integer of at least 1, got 0"):
        tr.freeze("cpu", *loaders, NAMES, weights="none", num_epochs=0)
    with pytest.raises(ValueError, match="^speed: no such setting"):
        tr.finetune("cpu", *loaders, NAMES, weights="none", speed=1)
    with pytest.raises(ValueError, match="^backbone: expected one of alexnet, "):
        tr.finetune("cpu", *loaders, NAMES, backbone="none")


# ---- pictures ------------------------------------------------------------------------------------


class Bright(torch.nn.Module):
    """Class 1 for pictures above 0, class 0 below."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3).eval()
        self.drop = torch.nn.Dropout()

    def forward(self, x):
        level = self.drop(x).mean(dim=(1, 2, 3))
        return torch.stack([-level, level], dim=1)


def test_visualize_model_shows_the_pixels_and_both_classes(tmp_path):
    mean, std = np.array(plots.MEAN), np.array(plots.STD)
    pixels = np.random.default_rng(0).uniform(size=(5, 6, 7, 3)) * 0.3
    pixels[[1, 4]] += 0.6
    x = torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2).float()
    y = torch.tensor([0, 1, 1, 0, 0])
    loaders = {"val": [(x[:2], y[:2]), (x[2:4], y[2:4]), (x[4:], y[4:])]}
    model = Bright().train()
    model.norm.eval()
    figure = tr.visualize_model("cpu", loaders, model, ["dim", "$bright$"], 3)
    assert model.training
    assert model.drop.training
    assert not model.norm.training
    drawn = [axes for axes in figure.axes if axes.images]
    titles = [text for axes in drawn for text in axes.findobj(Text) if " / " in text.get_text()]
    assert [title.get_text() for title in titles] == [
        "dim / dim", "$bright$ / $bright$", "$bright$ / dim",
    ]  # fmt: skip
    assert [title.get_color() for title in titles] == [plots.RIGHT, plots.RIGHT, plots.WRONG]
    for axes, expected in zip(drawn, pixels, strict=False):
        np.testing.assert_allclose(axes.images[0].get_array(), expected, atol=1e-6)

    path = tmp_path / "seen.png"
    figure = tr.visualize_model("cpu", loaders, model.eval(), ["dim", "bright"], 99, path=path)
    assert len([axes for axes in figure.axes if axes.images]) == 5
    assert not model.training
    assert_drawn(path)
    with pytest.raises(ValueError, match="num_images: expected at least 1, got 0"):
        tr.visualize_model("cpu", loaders, model, ["dim", "bright"], 0)


def test_predictions_begin_with_the_most_confident_errors(photos, tmp_path, monkeypatch):
    _, val = data.read_folders(photos)
    confident = np.array([0.9, 0.6, 0.8, 0.7, 0.75, 0.55, 0.95, 0.85])
    right = np.array([1, 0, 1, 0, 1, 1, 0, 1], bool)
    said = np.where(right, val.labels, 1 - np.array(val.labels))
    proba = np.where(np.arange(2) == said[:, None], confident[:, None], 1 - confident[:, None])
    seen = []
    monkeypatch.setattr(plots, "gallery", lambda *args, colors, **_: seen.append((*args, colors)))
    monkeypatch.setattr(plots.figures, "save", lambda *args: None)
    plots.plot_predictions(tmp_path / "x.png", val, proba)
    ((pictures, titles, notes, colors),) = seen
    order = [6, 3, 1, 5, 4, 2, 7, 0]
    assert colors == [plots.WRONG] * 3 + [plots.RIGHT] * 5
    assert [title.split()[-1] for title in titles] == [f"{confident[i]:.0%}" for i in order]
    assert titles[0] == "square / disc 95%"
    assert [note for (note,) in notes] == [val.names()[i] for i in order]
    assert titles[1] == "disc / square 70%"
    assert np.array_equal(pictures[0], np.asarray(Image.open(val.paths[6])))


def assert_drawn(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("L"))
    assert (pixels < 128).mean() > 0.005


# ---- the command ---------------------------------------------------------------------------------


def call(capsys, *args):
    """Exit code, stdout, stderr of the command in this process."""
    return util.call(capsys, "transfer", *args)


def done(capsys, *args):
    """The output of a command that has to succeed."""
    return util.done(capsys, "transfer", *args)


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without pictures, which take most of a small run's time."""
    for name in ("plot_curves", "plot_confusion"):
        monkeypatch.setattr(programs.plots, name, lambda *args: None)
    monkeypatch.setattr(programs, "plot_predictions", lambda *args: None)


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(SystemExit) as exit_:
        cli.main(["transfer", "train", str(photos), "--out", str(folder), *SMALL])
    assert exit_.value.code in (0, None)
    return folder


def test_train_writes_what_it_promises(trained, photos):
    pictures = {"curves.png", "confusion.png", "predictions.png"}
    names = {"run.json", "model.safetensors", "metrics.json", "checkpoint-freeze.pt"}
    names |= {"predictions.csv", "pictures.csv", "report.html", "report.json"}
    assert {path.name for path in trained.iterdir()} == names | pictures
    for name in pictures:
        assert_drawn(trained / name)
    content = storage.read_json(trained / "run.json")
    assert content["format"] == 1
    assert content["classes"] == NAMES
    assert content["settings"] == complete()
    assert content["data"]["folder"] == str(photos.resolve())
    metrics = storage.read_json(trained / "metrics.json")
    assert metrics.keys() == {"pretrain", "training", "val"}
    assert metrics["training"].keys() == {"epochs", "seconds"}
    assert metrics["training"]["epochs"] == 8
    assert 0 <= metrics["pretrain"]["accuracy"] < metrics["val"]["accuracy"]
    run = programs.load(trained)
    read = data.Reader(run.transform())
    found = {
        path: int(run.model(read[path, 0, ()][0][None]).argmax())
        for path in photos.glob("val/*/*.png")
    }
    right = [NAMES[c] == path.parent.name for path, c in found.items()]
    assert metrics["val"]["accuracy"] == np.mean(right) >= 0.75
    assert metrics["val"]["examples"] == len(right) == 8


def test_a_runs_backbone_is_the_published_one(trained):
    untrained, _ = networks.new_network(complete(), 2)
    model = programs.load(trained).model
    before, after = state_of(untrained), state_of(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.3.weight", "classifier.3.bias"}


@pytest.mark.parametrize("mode", ["finetune", "staged"])
def test_train_in_the_other_modes(capsys, photos, tmp_path, mode):
    out = done(
        capsys, "train", photos, "--mode", mode, "--out", tmp_path / "run", *SMALL,
        "--epochs", 2, "--cache", tmp_path / "cache",
    )  # fmt: skip
    summary, head, *_, accuracies, last = out.splitlines()
    parameters = sum(w.numel() for w in network()[0].parameters())
    assert summary == (
        f"{tmp_path / 'run'}: {mode} squeezenet1_1, {parameters:,} parameters, 13 pictures of "
        f"{SIZE} pixels, 8 to validate, 2 classes, on {tg.device_of('auto').type}"
    )
    assert head.split() == ["precision", "recall", "f1", "support", "class"]
    metrics = storage.read_json(tmp_path / "run/metrics.json")
    before, after = metrics["pretrain"]["accuracy"], metrics["val"]["accuracy"]
    assert accuracies == f"accuracy on val: {before:.4f} on pretrain, {after:.4f} after {mode}"
    assert last.startswith(f"{tmp_path / 'run'}: done in ")
    assert metrics["training"]["epochs"] == (10 if mode == "staged" else 2)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert ("curves-freeze.png" in names) == ("checkpoint-freeze.pt" in names) == (mode == "staged")
    assert "checkpoint-finetune.pt" in names
    assert (tmp_path / "cache").exists() == (mode == "staged")
    untrained, _ = networks.new_network(complete(), 2)
    state = torch.load(tmp_path / "run/checkpoint-finetune.pt", weights_only=True)["model"]
    same = [name for name, w in state_of(untrained).items() if torch.equal(w, state[name])]
    assert same == []


def test_staged_begins_and_never_ends_below_what_freeze_reached(
    capsys, photos, trained, tmp_path, undrawn
):
    run = tmp_path / "run"
    done(capsys, "train", photos, "--mode", "staged", "--learning-rate", 1, "--epochs", 1,
         "--out", run, *SMALL)  # fmt: skip
    frozen, staged = (programs.load(folder).model for folder in (trained, run))
    assert_same_state(state_of(frozen), state_of(staged))


def interrupt_at(monkeypatch, iteration):
    """Ctrl-C after so many iterations, of all trainings together."""
    real, seen = progress.TrainingBar.__call__, []

    def on_iteration(self, solver):
        real(self, solver)
        seen.append(solver)
        if len(seen) == iteration:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress.TrainingBar, "__call__", on_iteration)


@pytest.mark.parametrize(
    ("mode", "iterations"),
    [("freeze", (1, 4, 10)), ("finetune", (4, 5)), ("staged", (3, 38))],
)
def test_interrupted_training_resumes_to_the_same_bits(
    capsys, tmp_path, monkeypatch, photos, undrawn, mode, iterations
):
    """Epochs of four iterations, eight epochs of freeze: cut in an epoch and at its end."""
    whole = tmp_path / "whole"
    epochs = 8 if mode == "freeze" else 2
    options = ["--mode", mode, "--epochs", epochs, "--batch-size", "4", "--patience", 0, *SMALL]
    done(capsys, "train", photos, *options, "--out", whole)
    for iteration in iterations:
        cut = tmp_path / f"cut{iteration}"
        with monkeypatch.context() as patch:
            interrupt_at(patch, iteration)
            code, _, err = call(capsys, "train", photos, *options, "--out", cut)
        assert code == 130
        said = [line for line in err.splitlines() if not line.startswith("epoch ")]
        assert said[0] == f"resume with: fastrnn transfer train --resume --out {cut}"
        assert call(capsys, "evaluate", cut, photos)[0] == 1  # not trained to the end
        torch.rand(3)
        done(capsys, "train", "--resume", "--out", cut)
        one, other = (state_of(programs.load(folder).model) for folder in (whole, cut))
        assert_same_state(one, other)
        stage = "freeze" if mode == "freeze" else "finetune"
        states = [
            torch.load(folder / f"checkpoint-{stage}.pt", weights_only=True)
            for folder in (whole, cut)
        ]
        assert states[0]["loss_history"] == states[1]["loss_history"]
        assert_same_state(states[0]["model"], states[1]["model"])
        for epoch, like in zip(states[0]["history"], states[1]["history"], strict=True):
            assert epoch | {"seconds": 0} == like | {"seconds": 0}


def test_run_moves_with_its_data_and_resumes_without_a_checkpoint(
    capsys, tmp_path, trained, copied, undrawn
):
    """As after a kill before the first checkpoint."""
    moved = shutil.copytree(trained, tmp_path / "moved")
    for name in ("checkpoint-freeze.pt", "model.safetensors", "metrics.json"):
        (moved / name).unlink()
    done(capsys, "train", copied, "--resume", "--out", moved, "--cache", "none", "--patience", 99)
    assert_same_state(*(state_of(programs.load(folder).model) for folder in (trained, moved)))
    content = storage.read_json(moved / "run.json")
    assert content["data"]["folder"] == str(copied.resolve())
    assert content["settings"]["patience"] == 99


def test_resume_may_change_the_patience(capsys, tmp_path, photos, undrawn):
    run, options = tmp_path / "run", ["--views", 1, "--learning-rate", 0.1, *SMALL]
    done(capsys, "train", photos, "--out", run, "--patience", 1, *options)
    before = storage.read_json(run / "metrics.json")["training"]["epochs"]
    assert before < 8
    done(capsys, "train", "--resume", "--out", run, "--patience", 9, "--cache", "none")
    assert storage.read_json(run / "metrics.json")["training"]["epochs"] == 8
    assert storage.read_json(run / "run.json")["settings"]["patience"] == 9


def test_train_chooses_a_folder(capsys, photos, tmp_path, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert f"transfer-{number}: freeze" in done(
            capsys, "train", photos, *SMALL, "--epochs", 1, "--views", 1
        )
    assert (tmp_path / "runs/transfer-2/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume needs --out"),
        ([], "Missing argument 'DIR'"),
        (["DIR", "--epochs", "0"], "epochs: expected an integer of at least 1, got 0"),
        (["DIR", "--mode", "thaw"], "'thaw' is not one of"),
    ],
)
def test_train_refuses_usage(capsys, photos, tmp_path, arguments, message):
    arguments = [photos if argument == "DIR" else argument for argument in arguments]
    code, out, err = call(capsys, "train", *arguments)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backbone", "vgg"], "backbone: expected one of alexnet, "),
        (["--weights", "nowhere.pth"], "nowhere.pth: no such file"),
        (["--image-size", "8"], "image_size: squeezenet1_1 reads no pictures of 8 x 8 pixels ("),
        (["--backbone", "vit_b_16"], "image_size: vit_b_16 reads no pictures of 64 x 64 pixels ("),
    ],
)
def test_train_refuses_networks_before_it_writes(capsys, photos, tmp_path, options, message):
    code, out, err = call(capsys, "train", photos, "--out", tmp_path / "run", *SMALL, *options)
    assert (code, out) == (1, "")
    assert message in err
    assert not (tmp_path / "run").exists()


def test_train_refuses_other_weights_and_names_the_keys(capsys, photos, tmp_path):
    path = tmp_path / "weights.pth"
    state = backbones.build("squeezenet1_1", "none").state_dict()
    state["stem.weight"] = state.pop("features.0.weight")
    torch.save(state, path)
    options = [*SMALL, "--weights", path]
    code, _, err = call(capsys, "train", photos, "--out", tmp_path / "run", *options)
    assert code == 1
    assert "missing features.0.weight; unexpected stem.weight" in err
    assert not (tmp_path / "run").exists()


def test_train_does_not_overwrite_a_run(capsys, trained, photos):
    before = {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    code, _, err = call(capsys, "train", photos, "--out", trained, *SMALL)
    assert code == 1
    assert "has a run already" in err
    assert before == {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}


def test_resume_refuses_to_become_another_run(capsys, trained, copied, tmp_path):
    before = (trained / "run.json").read_text()
    resumed = ["train", "--resume", "--out", trained, "--cache", "none"]
    code, _, err = call(capsys, *resumed, "--seed", 5)
    assert code == 1
    assert "a resumed run keeps its settings, seed among them" in err
    draw(copied / "train/disc/traindisc0.png", "disc", 99)
    code, _, err = call(capsys, *resumed, copied)
    assert code == 1
    assert f"{copied} is not what it was trained with" in err
    assert (trained / "run.json").read_text() == before
    code, _, err = call(capsys, "train", "--resume", "--out", tmp_path)
    assert "not a run of transfer train (no run.json)" in err
    content = storage.read_json(trained / "run.json")
    storage.write_json(tmp_path / "run.json", content | {"format": 99})
    code, _, err = call(capsys, "train", "--resume", "--out", tmp_path)
    assert "expected format 1, got 99" in err


@pytest.mark.parametrize(
    ("damage", "message"), [("rubbish", "not a checkpoint ("), ("other", "of another training")]
)
def test_resume_refuses_a_checkpoint(capsys, trained, tmp_path, damage, message):
    run = shutil.copytree(trained, tmp_path / "run")
    path = run / "checkpoint-freeze.pt"
    if damage == "rubbish":
        path.write_bytes(b"rubbish")
    else:
        torch.save(torch.load(path, weights_only=True) | {"identity": "x"}, path)
    code, _, err = call(capsys, "train", "--resume", "--out", run, "--cache", "none")
    assert code == 1
    assert f"{path}: {message}" in err


# ---- evaluate ------------------------------------------------------------------------------------


def test_evaluate_prints_draws_and_adds_to_metrics(capsys, trained, photos, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    before = storage.read_json(run / "metrics.json")
    confusion = (run / "confusion.png").read_bytes()
    other = shutil.copytree(photos / "train/square", tmp_path / "test/square").parent
    table = done(capsys, "evaluate", run, other)
    assert "6 examples: accuracy" in table
    assert done(capsys, "evaluate", run, other, "--name", "again") == table
    metrics = storage.read_json(run / "metrics.json")
    assert metrics == before | dict.fromkeys(("test", "again"), metrics["test"])
    assert metrics["test"]["per_class"]["disc"]["support"] == 0
    for kind in ("confusion", "predictions"):
        assert_drawn(run / f"{kind}-test.png")
        assert_drawn(run / f"{kind}-again.png")
    assert (run / "confusion.png").read_bytes() == confusion


@pytest.mark.parametrize("folder", [".", "val"])
def test_evaluate_knows_the_runs_own_val(capsys, trained, photos, tmp_path, undrawn, folder):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "metrics.json").unlink()
    done(capsys, "evaluate", run, photos / folder)
    report = storage.read_json(trained / "metrics.json")["val"]
    assert storage.read_json(run / "metrics.json") == {"val": report}


@pytest.mark.parametrize(
    ("folder", "name"), [("val", "new-val"), ("training", "new-training"), ("pretrain/x", "x")]
)
def test_evaluate_replaces_no_figures_of_train(
    capsys, trained, photos, tmp_path, undrawn, folder, name
):
    run = shutil.copytree(trained, tmp_path / "run")
    before = storage.read_json(run / "metrics.json")
    place = shutil.copytree(photos / "train", tmp_path / "new" / folder)
    for _ in range(2):
        done(capsys, "evaluate", run, place)
        metrics = storage.read_json(run / "metrics.json")
        assert metrics == before | {name: metrics[name]}


@pytest.mark.parametrize(
    ("how", "options", "message"),
    [
        ("another class", [], "val/star: class 'star' is not one of disc, square"),
        ("none", ["--name", "pretrain"], "and not training or pretrain, got 'pretrain'"),
        ("none", ["--name", "a/b"], "got 'a/b'"),
        ("none", ["--name", "val"], "'val' is what train validated on; choose another"),
        ("gone", [], "copied: no such folder"),
        ("8", [], "1 of 8 pictures cannot be read"),
    ],
)
def test_evaluate_refuses(capsys, trained, copied, how, options, message):
    before = {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    if how == "gone":
        shutil.rmtree(copied)
    elif how != "none":
        break_data(copied, how)
    code, out, err = call(capsys, "evaluate", trained, copied, *options)
    assert (code, out) == (1, "")
    assert message in err
    assert before == {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}


def test_load_refuses_what_does_not_fit(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    storage.write_tensors(run / "model.safetensors", {"x": np.zeros(2)})
    with pytest.raises(ValueError, match=r"model.safetensors: not the network that run.json"):
        programs.load(run)
    (run / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors; was its training finished"):
        programs.load(run)


# ---- predict -------------------------------------------------------------------------------------


def test_predict_writes_a_row_a_picture(capsys, trained, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "BATCH", 3)
    folder = shutil.copytree(photos / "val/disc", tmp_path / "new")
    (folder / "notes.txt").touch()
    (folder / "broken.png").write_bytes(b"rubbish")
    (folder / "zlast.jpg").write_bytes(b"")
    shutil.copy(photos / "val/square/valsquare1.png", folder / "ä, b.png")
    out = tmp_path / "classes.csv"
    code, said, err = call(capsys, "predict", trained, folder, "--out", out)
    assert (code, said) == (0, f"{out}: 5 pictures, 3 left out\n")
    other, *left_out = err.splitlines()
    assert other == "note: left out 1 file that is no picture by its name: notes.txt"
    assert [line.split(" (")[0] for line in left_out] == [
        "left out: broken.png: cannot be read",
        "left out: zlast.jpg: cannot be read",
    ]
    with out.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["file", "class", "probability"]
    assert {name for name, _, _ in rows} == {f"valdisc{i}.png" for i in range(4)} | {"ä, b.png"}
    run = programs.load(trained)
    for name, label, probability in rows:
        x = run.transform()(Image.open(folder / name).convert("RGB"))
        p = run.model(x[None]).softmax(1)[0].detach().numpy()
        assert label == NAMES[p.argmax()]
        assert float(probability) == pytest.approx(p.max(), abs=2e-5)


@pytest.mark.parametrize("out", ["-", "/dev/stdout"])
def test_predict_writes_to_standard_output_and_says_the_rest_elsewhere(
    capfd, trained, photos, tmp_path, monkeypatch, out
):
    monkeypatch.chdir(tmp_path)
    code, said, err = call(capfd, "predict", trained, photos / "val/disc", "--out", out)
    assert code == 0 and f"{out}: 4 pictures, 0 left out\n" in err
    head, *rows = csv.reader(said.splitlines())
    assert head == ["file", "class", "probability"] and len(rows) == 4
    assert not [*tmp_path.iterdir()]


def test_predict_leaves_what_was_there_where_it_fails(capsys, trained, photos, tmp_path):
    out = tmp_path / "classes.csv"
    out.write_text("old")
    (tmp_path / "empty").mkdir()
    for run, folder, message in (
        (trained, tmp_path / "empty", "no pictures"),
        (trained, tmp_path / "gone", "no such file or folder"),
        (tmp_path / "empty", photos / "val/disc", "not a run of transfer train"),
    ):
        code, _, err = call(capsys, "predict", run, folder, "--out", out)
        assert code == 1
        assert message in err
        assert out.read_text() == "old"
    code, _, err = call(capsys, "predict", trained, photos / "val/disc", "--out", tmp_path / "a/b")
    assert code == 2
    assert "no such folder" in err


# ---- folders as people have them -----------------------------------------------------------------

QUICK = ["--epochs", 1, "--views", 1, *SMALL]


def people_have(base):
    """Folders of two classes, 10 pictures each in any format, some within others, and what else
    lies there."""
    assert ".heic" in images.suffixes()  # whose reader is registered then
    suffixes = ("avif", "jfif", "ppm", "heic", "PNG", "webp", "bmp", "tif", "gif", "jp2")
    for shape in ("disc", "square"):
        for i, suffix in enumerate(suffixes):
            folder = base / shape / ("2024/May" if i % 2 else ".")
            folder.mkdir(parents=True, exist_ok=True)
            draw(folder / f"{i}.{suffix}", shape, i + 100 * (shape == "disc"))
        (base / shape / "logo.svg").write_text("<svg/>")
    for name in ("__MACOSX/disc/a.png", "disc/Thumbs.db", ".hidden/a.png", "disc/._0.avif"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(b"what systems leave")
    (base / "README.txt").write_text("words")
    return base


OTHERS = "files that are no pictures by their names: "


@pytest.mark.parametrize("train", [".", "train", "Training"])
def test_without_val_a_share_of_whatever_pictures_is_set_aside(capsys, tmp_path, undrawn, train):
    base, run = tmp_path / "photos", tmp_path / "run"
    people_have(base / train)
    code, out, err = call(capsys, "train", base, "--val-share", 0.3, "--out", run, *QUICK)
    assert code == 0
    assert "14 pictures of 64 pixels, 6 to validate, 2 classes" in out
    at = "" if train == "." else f"{train}/"
    assert f"note: left out 3 {OTHERS}{at}README.txt, {at}disc/logo.svg, {at}square/logo" in err
    assert "note: no folder val: 6 of 20 pictures are set aside to validate" in err
    assert storage.read_json(run / "run.json")["settings"]["val_share"] == 0.3
    with (run / "predictions.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "class", "predicted", "probability", "probability_of_class"]
    assert sorted(label for _, label, *_ in rows) == ["disc"] * 3 + ["square"] * 3
    assert all((base / name).is_file() and f"{label}/" in name for name, label, *_ in rows)
    before = storage.read_json(run / "metrics.json")
    done(capsys, "evaluate", run, base)  # knows what was set aside
    assert storage.read_json(run / "metrics.json") == before
    done(capsys, "train", "--resume", "--out", run, "--cache", "none")
    assert storage.read_json(run / "metrics.json")["val"] == before["val"]


def test_what_is_set_aside_is_of_each_class_and_the_seeds(tmp_path):
    people_have(tmp_path)
    for path in (tmp_path / "square/2024").rglob("*.*"):
        path.unlink()

    def aside(share, seed=0):
        found = data.find_folders(tmp_path, share, seed)
        assert found.val_share == (share or data.VAL_SHARE)
        assert not {*found.train} & {*found.val}
        assert len(found.train + found.val) == 15
        return found.val

    assert [label for _, label in aside(0.2)] == [0, 0, 1]
    assert aside(None) == aside(0.2) == aside(0.2)
    assert aside(0.2, 1) != aside(0.2)
    assert [label for _, label in aside(1e-9)] == [0, 1]
    assert [label for _, label in aside(0.999)] == [0] * 9 + [1] * 4


@pytest.mark.parametrize("name", ["valid", "Validation"])
def test_splits_have_other_names(capsys, copied, name):
    (copied / "val").rename(copied / name)
    assert [len(part) for part in data.find_folders(copied)[1:3]] == [13, 8]
    with pytest.raises(ValueError, match=f"val_share: .*{name} is what is validated on"):
        data.find_folders(copied, 0.2)
    (copied / "val").mkdir()
    with pytest.raises(ValueError, match=r"expected one of \w+ and \w+, got both"):
        data.find_folders(copied)


def test_evaluate_takes_test_where_there_is_no_val(capsys, trained, copied, tmp_path, undrawn):
    run = shutil.copytree(trained, tmp_path / "run")
    (copied / "val").rename(copied / "test")
    shutil.rmtree(copied / "test/square")
    code, out, err = call(capsys, "evaluate", run, copied, "--save-table", tmp_path / "t.csv")
    assert code == 0 and "4 examples: accuracy" in out
    assert err == (
        "note: no pictures to validate of 'square': macro F1 is the mean of the other classes\n"
    )
    report = storage.read_json(run / "metrics.json")["copied"]
    assert report["macro_f1"] == report["per_class"]["disc"]["f1"]
    with (tmp_path / "t.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["class", "precision", "recall", "f1", "support"]
    assert [row[0] for row in rows] == ["disc", "square"] and rows[0][4] == "4"
    assert len((run / "predictions-copied.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("mode", ["freeze", "finetune"])
def test_pictures_that_are_also_trained_on_are_counted_and_named(
    capsys, copied, tmp_path, undrawn, mode
):
    shutil.copy(copied / "train/disc/traindisc3.png", copied / "val/disc/copy.png")
    image = Image.open(copied / "train/square/trainsquare1.png")
    image.save(copied / "val/square/other.bmp")  # the same pixels in another file
    arguments = ["train", copied, "--mode", mode, *QUICK[:-1], tmp_path / "cache"]
    for run in ("first", "with features kept"):
        code, _, err = call(capsys, *arguments, "--out", tmp_path / run)
        assert code == 0
        assert "note: 2 of 10 pictures to validate are also trained on, so figures are too good: "\
            "val/disc/copy.png, val/square/other.bmp\n" in err  # fmt: skip
    other = tmp_path / "other"
    shutil.copytree(copied / "val", other)
    _, _, err = call(capsys, "evaluate", tmp_path / run, other)
    assert err == (
        "note: 2 of 10 pictures to validate are also trained on, so figures are too good: "
        "disc/copy.png, square/other.bmp\n"
    )
    table = tmp_path / run / "pictures.csv"
    table.write_text("file,class\n")
    code, _, err = call(capsys, "evaluate", tmp_path / run, other)
    assert code == 1 and f"{table}: not a table of the pictures of a run (expected the" in err
    table.unlink()  # as of an earlier version
    assert call(capsys, "evaluate", tmp_path / run, other)[2] == ""


@pytest.mark.parametrize("mode", ["freeze", "finetune"])
def test_unreadable_pictures_are_skipped_if_wanted(capsys, copied, tmp_path, undrawn, mode):
    break_data(copied, "8")  # all of disc, and one to validate
    run, arguments = tmp_path / "run", ["--mode", mode, "--skip-unreadable", *QUICK]
    code, _, err = call(capsys, "train", copied, "--out", run, *arguments)
    assert (code, err.splitlines()[-1]) == (
        1, "fastrnn: train: no picture of class 'disc' can be read",
    )  # fmt: skip
    draw(copied / "train/disc/traindisc0.png", "disc", 5)
    code, out, err = call(capsys, "train", copied, "--out", run, *arguments)
    assert code == 0 and "7 pictures of 64 pixels, 7 to validate" in out
    assert err.count("note: left out: ") == 7 and "traindisc6.png: not a readable picture" in err
    done(capsys, "train", "--resume", "--out", run, "--cache", "none")
    code, out, err = call(capsys, "evaluate", run, copied / "val", "--skip-unreadable")
    assert code == 0 and "7 examples" in out and err.count("left out") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
@pytest.mark.parametrize("mode", ["freeze", "finetune"])
def test_what_is_no_file_is_named_and_not_waited_for(capsys, copied, tmp_path, mode):
    os.mkfifo(copied / "train/disc/pipe.png")
    (copied / "val/disc/lost.png").symlink_to(tmp_path / "nowhere")
    code, _, err = call(capsys, "train", copied, "--mode", mode, "--out", tmp_path / "run", *QUICK)
    assert code == 1 and "2 of 23 pictures cannot be read: " in err
    assert "pipe.png: not a readable picture (expected a regular file, got a pipe" in err
    assert "lost.png: not a readable picture (No such file or directory)" in err


def test_features_are_the_same_for_any_number_of_workers(photos):
    train, _ = data.read_folders(photos)
    one, other = (features_of(train, None, views=3, workers=n).rows for n in (0, 2))
    assert torch.equal(one, other)


def test_freeze_opens_every_picture_once(capsys, photos, tmp_path, undrawn, monkeypatch):
    opened, real = [], data.open_rgb
    monkeypatch.setattr(data, "open_rgb", lambda path, *_: opened.append(path) or real(path))
    done(capsys, "train", photos, "--out", tmp_path / "run", *SMALL)
    assert len(opened) == len({*opened}) == 21


def test_large_jpegs_are_read_in_part_of_their_size_with_nearly_the_same_view(tmp_path):
    draw(tmp_path / "small.png", "disc", 0)
    with Image.open(tmp_path / "small.png") as small:
        small.resize((1536, 1152)).save(path := tmp_path / "a.jpg", quality=95)
    to = data.resized(backbones.preprocessing("squeezenet1_1"), SIZE)
    transform = backbones.eval_transform(to)
    whole, part = (data.Reader(transform, n)[path, 0, (0,)][0] for n in (None, data.enough(to)))
    assert not torch.equal(whole, part)
    assert (whole - part).abs().mean() < 0.02
    for view in data.ViewsReader(to, 4)[path, "ff", range(4)][2]:
        assert view.shape == (3, SIZE, SIZE)


def test_a_finished_run_goes_on_with_more_epochs(capsys, photos, tmp_path, undrawn):
    run = tmp_path / "run"
    done(capsys, "train", photos, "--out", run, *SMALL, "--epochs", 2)
    done(capsys, "train", "--resume", "--out", run, "--cache", "none", "--epochs", 5)
    assert storage.read_json(run / "metrics.json")["training"]["epochs"] == 5
    done(capsys, "train", "--resume", "--out", run, "--cache", "none")
    content = storage.read_json(run / "run.json")
    assert content["settings"]["epochs"] == 5 and content["begun"] == {"epochs": 2}


# ---- predictions of anything ---------------------------------------------------------------------


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.reader(file)]


def test_predict_takes_files_and_folders_of_folders(capsys, trained, photos, tmp_path):
    people_have(tmp_path / "new")
    out, file = tmp_path / "o.csv", photos / "val/disc/valdisc0.png"
    code, said, err = call(capsys, "predict", trained, tmp_path / "new", "--out", out)
    assert (code, said) == (0, f"{out}: 20 pictures, 3 left out\n") and OTHERS in err
    assert {"disc/2024/May/1.jfif", "square/0.avif"} <= {row[0] for row in rows_of(out)}
    done(capsys, "predict", trained, file, tmp_path / "new/disc", "--out", out)
    assert [row[0] for row in rows_of(out)][1:3] == [str(file), str(tmp_path / "new/disc/0.avif")]
    assert len(rows_of(out)) == 12


def test_predict_gives_the_likeliest_classes_or_all(capsys, trained, photos, tmp_path):
    out, folder = tmp_path / "o.csv", photos / "val/disc"
    done(capsys, "predict", trained, folder, "--out", out, "--proba")
    header, *all_ = rows_of(out)
    assert header == ["file", "class", "probability", *NAMES]
    done(capsys, "predict", trained, folder, "--out", out, "--top", 9)
    header, *top = rows_of(out)
    assert header == ["file", "class", "probability", "class_2", "probability_2"]
    for every, best in zip(all_, top, strict=True):
        shares = dict(zip(NAMES, every[3:], strict=True))
        assert best[1::2] == sorted(NAMES, key=lambda name: -float(shares[name]))
        assert best[2::2] == [shares[name] for name in best[1::2]]
    code, _, err = call(capsys, "predict", trained, folder, "--out", out, "--top", 1, "--proba")
    assert code == 2 and "--proba or --top, not both" in err


def test_predict_of_thin_and_huge_pictures_and_of_those_before_an_end(
    capsys, trained, photos, tmp_path, monkeypatch
):
    folder, out = shutil.copytree(photos / "val/disc", tmp_path / "new"), tmp_path / "o.csv"
    Image.new("RGB", (300_000, 1)).save(folder / "thin.png")  # resized, it would fill any memory
    Image.new("L", (1, 300_000)).save(folder / "high.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    code, said, err = call(capsys, "predict", trained, folder, "--out", out)
    assert (code, said) == (0, f"{out}: 6 pictures, 1 left out\n")
    assert "left out: huge.png: cannot be read (" in err and "pixels" in err
    assert {"thin.png", "high.png"} <= {row[0] for row in rows_of(out)}

    monkeypatch.setattr(prediction, "BATCH", 2)
    real, seen = prediction.open_rgb, []

    def ending(path, *args):
        seen.append(path)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(path, *args)

    monkeypatch.setattr(prediction, "open_rgb", ending)
    code, said, err = call(capsys, "predict", trained, photos / "val/disc", "--out", out)
    assert (code, said) == (130, f"{out}: 2 pictures, 0 left out, ended early\n")
    assert len(rows_of(out)) == 3


@pytest.mark.parametrize("size", [(6000, 1), (1, 6000), (900, 100), (100, 410)])
def test_thin_pictures_are_seen_in_their_middle(size):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    to = data.resized(backbones.preprocessing("squeezenet1_1"), SIZE)
    seen = backbones.eval_transform(to)(image)
    cropped = images.without_ends(image)
    assert max(cropped.size) == 4 * min(cropped.size)
    v2 = pytest.importorskip("torchvision.transforms.v2")
    expected = v2.Compose(backbones.eval_transform(to).transforms[1:])(image)
    assert seen.shape == expected.shape == (3, SIZE, SIZE)
    assert (seen - expected).abs().mean() < 0.05


def test_programs_with_torch_wait_passively_unless_told(capsys, monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    for program, chosen, expected in (
        ("bench", {}, None),
        ("transfer", {"GOMP_SPINCOUNT": "9"}, None),
        ("transfer", {"OMP_WAIT_POLICY": "active"}, "active"),
        ("transfer", {}, "passive"),
    ):
        with monkeypatch.context() as patch:
            for name, value in chosen.items():
                patch.setenv(name, value)
            util.call(capsys, program, "--help")
            assert os.environ.get("OMP_WAIT_POLICY") == expected
    monkeypatch.delenv("OMP_WAIT_POLICY")


@pytest.mark.filterwarnings("default:figures:UserWarning")
def test_class_names_of_any_script_are_drawn_with_one_line_said(capsys, copied, tmp_path):
    for split in ("train", "val"):
        (copied / split / "disc").rename(copied / split / "蜜蜂\U0010fffd")
    code, _, err = call(capsys, "train", copied, "--out", tmp_path / "run", *QUICK)
    assert code == 0
    said = [line for line in err.splitlines() if "font" in line]
    assert len(said) == 1 and said[0].startswith("fastrnn: figures: no installed font has ")


# ---- imports, real data --------------------------------------------------------------------------


def test_import_brings_no_torch():
    script = "import sys, fastrnn.vision.transfer, fastrnn.cli.transfer; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "torchvision", "PIL", "matplotlib", "sklearn"} & {*loaded}


@pytest.mark.skipif(
    not os.environ.get("FASTRNN_DATA"), reason="FASTRNN_DATA names no folder of real data"
)
def test_freeze_learns_ants_and_bees(capsys, tmp_path, undrawn):
    base = Path(os.environ["FASTRNN_DATA"])
    weights = base / "weights/squeezenet1_1.pth"
    options = ["--weights", weights, "--cache", "none", "--epochs", EPOCHS.default]
    done(capsys, "train", base / "hymenoptera_data", *options, "--out", tmp_path / "run")
    metrics = storage.read_json(tmp_path / "run/metrics.json")
    assert metrics["pretrain"]["accuracy"] < 0.7
    assert metrics["val"]["accuracy"] > 0.9


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json", "checkpoint-freeze.pt"])
def test_train_leaves_other_files_alone(capsys, photos, tmp_path, name):
    (tmp_path / name).write_bytes(b"somebody's")
    code, _, err = call(capsys, "train", photos, "--out", tmp_path, *SMALL)
    assert code == 1
    assert "has a run already" in err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"somebody's"


def test_a_cache_that_is_no_folder_stops_before_the_run_is_made(capsys, photos, tmp_path):
    (cache := tmp_path / "cache").write_text("a file")
    code, _, err = call(capsys, "train", photos, "--out", tmp_path / "run", *SMALL[:-1], cache)
    assert code == 1
    assert str(cache) in err
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_program_is_refused(capsys, photos, tmp_path):
    storage.write_json(tmp_path / "run.json", {"format": 1, "program": "classify"})
    code, _, err = call(capsys, "evaluate", tmp_path, photos)
    assert (code, err) == (
        1, f"fastrnn: {tmp_path / 'run.json'}: expected a run of transfer, got 'classify'\n",
    )  # fmt: skip


def test_a_training_without_mixed_precision_goes_on_with_it(tmp_path):
    path = tmp_path / "checkpoint.pt"
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])

    def training(amp):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return tg.Training(
            model, lambda epoch, first: [(x, y)][first:], [(x, y)], torch.nn.CrossEntropyLoss(),
            torch.optim.SGD(model.parameters(), lr=0.1), None, device=torch.device("cpu"),
            num_epochs=2, iterations_per_epoch=1, amp=amp, checkpoint=path,
        )  # fmt: skip

    training(amp=False).train()
    again = training(amp=True)
    again.restore()
    assert again.epoch == 2


def test_predictions_of_names_that_are_not_unicode(capsys, trained, photos, tmp_path):
    (folder := tmp_path / "new").mkdir()
    name = os.fsdecode(b"\xff.png")
    source = next((photos / "val/disc").iterdir())
    try:
        shutil.copy(source, folder / name)
    except OSError:
        pytest.skip("this file system knows Unicode names only")
    done(capsys, "predict", trained, folder, "--out", tmp_path / "o.csv")
    assert b"\xff.png,d" in (tmp_path / "o.csv").read_bytes()


def test_what_freeze_returns_is_frozen(loaders):
    model = tr.freeze("cpu", *loaders, NAMES, num_epochs=1, views=1, **UNTUNED)
    wanting = {name for name, w in model.named_parameters() if w.requires_grad}
    assert wanting == {"fc.weight", "fc.bias"}


# ---- networks of every kind ----------------------------------------------------------------------

# One of each family of torchvision's classification networks, and the least pixels that it reads.
# As of many parameters, of the slow ones only the last layer is trained.
SMALL_ONES = {
    **dict.fromkeys(("densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5"), 64),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18"), 64),
    **dict.fromkeys(("shufflenet_v2_x0_5", "squeezenet1_0"), 64),
}
LARGE_ONES = {
    **dict.fromkeys(("alexnet", "convnext_tiny", "efficientnet_v2_s", "resnext50_32x4d"), 64),
    **dict.fromkeys(("swin_t", "swin_v2_t", "vgg11", "wide_resnet50_2"), 64),
    **{"inception_v3": 96, "maxvit_t": None, "vit_b_32": None},
}
FAMILIES = [
    *((name, "finetune", size) for name, size in SMALL_ONES.items()),
    *(
        pytest.param(name, "freeze", size, marks=pytest.mark.slow)
        for name, size in LARGE_ONES.items()
    ),
]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A folder of two classes of two pictures to train on, and one to validate."""
    base = tmp_path_factory.mktemp("few")
    for split, count in (("train", 2), ("val", 1)):
        for shape in NAMES:
            (base / split / shape).mkdir(parents=True)
            for i in range(count):
                draw(base / split / shape / f"{i}.png", shape, i)
    return base


def test_a_network_of_every_family_is_tried():
    known = {*SMALL_ONES, *LARGE_ONES}
    families = {re.match("[a-z]+(_v[23])?", name)[0] for name in backbones.names()}
    assert {re.match("[a-z]+(_v[23])?", name)[0] for name in known} == families


@pytest.mark.parametrize(("backbone", "mode", "size"), FAMILIES)
def test_families_are_trained_resumed_evaluated_and_predict(
    few, tmp_path, undrawn, backbone, mode, size
):
    given = {"backbone": backbone, "mode": mode, "weights": "none", "image_size": size}
    with programs.begin(tmp_path / "run", few, given | {"epochs": 1}) as job:
        job.run()
    with programs.resume(tmp_path / "run", None, {"epochs": 2}) as job:
        job.run()
        report = job.finish()["val"]
    assert [epoch["epoch"] for epoch in job.trainings[0].history] == [1, 2]
    found = programs.evaluate(str(tmp_path / "run"), str(few / "val"))
    assert found["log_loss"] == pytest.approx(report["log_loss"], rel=1e-3)
    run = programs.load(str(tmp_path / "run"))
    files, _ = prediction.find_files([str(few / "val")])
    said = [*prediction.predict(run, files)]
    assert len(said) == 2
    assert not any(one.problem for one in said)


@pytest.mark.parametrize(("name", "size"), [("inception_v3", 299), ("googlenet", 96)])
def test_train_model_learns_from_auxiliary_classifiers(name, size):
    """They have another loss, of AUXILIARY of its weight, and their parameters learn."""
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, size, size), torch.tensor([0, 1, 0, 1])
    model = models.get_model(name, num_classes=2, init_weights=False)
    before, seen = state_of(model), []
    loss = torch.nn.CrossEntropyLoss()

    def criterion(scores, targets):
        seen.append(loss(scores, targets))
        return seen[-1]

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sets, found = {phase: [(x, y)] for phase in ("train", "val")}, []
    options = {
        "verbose": False,
        "on_iteration": lambda training: found.extend(training.loss_history),
    }
    sizes = {"train": 4, "val": 4}
    tr.train_model("cpu", sets, sizes, model, criterion, optimizer, None, 1, **options)
    _, last, *others, _ = seen
    auxiliary = {n for n, _ in model.named_children() if n in backbones.AUXILIARY}
    assert len(others) == len(auxiliary)
    assert found == [pytest.approx(float((last + AUXILIARY * sum(others)).detach()), rel=1e-5)]
    changed = {n.partition(".")[0] for n, w in model.state_dict().items() if not w.equal(before[n])}
    assert auxiliary <= changed


# ---- what torch would say in its own words -------------------------------------------------------


@pytest.mark.parametrize(("mode", "figure"), [("min", "val_loss"), ("max", "val_accuracy")])
def test_a_plateau_of_what_is_validated_lowers_the_rate(points, mode, figure):
    loaders, sizes = points
    model, seen = linear(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, patience=1)
    loss, step = torch.nn.CrossEntropyLoss(), plateau.step
    plateau.step = lambda value: (seen.append(value), step(value))
    trained = []
    tr.train_model("cpu", loaders, sizes, model, loss, optimizer, plateau, 6, verbose=False,
                   on_iteration=trained.append)  # fmt: skip
    assert seen == [epoch[figure] for epoch in trained[-1].history]


def test_a_plateau_is_of_epochs(points):
    loaders, sizes = points
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    loss = torch.nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match="^each_epoch: expected True for ReduceLROnPlateau"):
        tr.train_model("cpu", loaders, sizes, model, loss, optimizer, plateau, 1, each_epoch=False)


@pytest.mark.parametrize("phase", ["train", "val"])
@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda y: y + 1, "expected classes 0 to 1, got class 2"),
        (lambda y: y - 1, "expected classes 0 to 1, got class -1"),
        (lambda y: y[:, None], r"expected classes 0 to 1, got a tensor \(7, 1\)"),
        (
            lambda y: y.float(),
            r"expected classes \(n,\) as integers, or shares \(n, 2\), got \(7,\)",
        ),
    ],
)
def test_classes_that_the_network_has_no_scores_for(points, phase, change, got):
    loaders, sizes = points
    x, y = zip(*loaders[phase], strict=True)
    wrong = [(a, change(b)) for a, b in zip(x, y, strict=True)]
    with pytest.raises(ValueError, match=rf"^dataloaders\['{phase}'\]: {got}"):
        run_course((loaders | {phase: wrong}, sizes), linear(), 1)


def test_classes_to_be_ignored_are(points):
    loaders, sizes = points
    batches = [(x, torch.where(y == 1, y, -100)) for x, y in loaders["train"]]
    run_course((loaders | {"train": batches}, sizes), linear(), 1, verbose=False)


def test_a_batch_of_one_under_batch_normalisation(points):
    """30 examples, 29 a batch: the second one has a single example."""
    loaders, sizes = points
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    train = torch.utils.data.DataLoader(loaders["train"].dataset, batch_size=29)
    with pytest.raises(ValueError, match=r"^dataloaders\['train'\]: a batch of one example"):
        run_course((loaders | {"train": train}, sizes), model, 1)


def test_a_network_without_scores(points):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Unflatten(1, (2, 1)))
    with pytest.raises(TypeError, match=r"^model: expected scores \(n, classes\), got a tensor"):
        run_course(points, model, 1)


def test_training_that_diverges_is_an_error(capsys, photos, tmp_path):
    options = [*SMALL, "--learning-rate", "100", "--out", tmp_path / "run"]
    code, _, err = call(capsys, "train", photos, *options)
    assert code == 1
    assert "the training diverged: its loss rose from 0." in err
    assert not (tmp_path / "run" / programs.MODEL).exists()


# ---- averaged weights, mixed pictures, mirror images ---------------------------------------------


def test_averaged_weights_are_validated_and_kept(points):
    """The mean follows the weights by 1 - min(decay, (1 + n) / (10 + n))."""
    loaders, _ = points
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), linear())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    seen = []
    training = tg.Training(
        model, lambda epoch, first: loaders["train"], loaders["val"], torch.nn.CrossEntropyLoss(),
        optimizer, None, device=CPU, num_epochs=1, iterations_per_epoch=5, average=0.3,
        on_iteration=lambda t: seen.append(state_of(model)),
    )  # fmt: skip
    training.train()
    expected = seen[0]
    for n, now in enumerate(seen[1:], 1):
        decay = min(0.3, (1 + n) / (10 + n))
        expected = {k: decay * w + (1 - decay) * now[k] for k, w in expected.items()}
    expected["0.num_batches_tracked"] = torch.tensor(5)
    torch.testing.assert_close(state_of(model), expected)
    assert training.history[0]["val_accuracy"] == accuracy(model, loaders["val"])


def test_averaged_weights_resume_to_the_same_bits(few, tmp_path, undrawn):
    given = {"weights": "none", "image_size": SIZE, "mode": "finetune", "average": 0.8, "epochs": 2}
    given |= {"mixup": 0.3, "cutmix": 1.0, "batch_size": 2}
    states = []
    for name, stop in (("whole", None), ("stopped", 3)):

        def interrupt(training, stop=stop):
            if training.iteration == stop:
                signal.raise_signal(signal.SIGINT)

        with programs.begin(tmp_path / name, few, given) as job:
            if stop is None:
                job.run()
            else:
                with pytest.raises(KeyboardInterrupt):
                    job.run(interrupt)
        if stop is not None:
            with programs.resume(tmp_path / name, None, {}) as job:
                job.run()
        states.append(state_of(job.model))
    assert_same_state(*states)


@pytest.mark.parametrize("ways", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_batches_have_the_shares_of_their_pixels(ways):
    """Pictures are one colour a class: what is left of it says how much of the class there is."""
    y = torch.tensor([0, 1, 1, 0])
    x = y.float().view(4, 1, 1, 1).expand(4, 3, 16, 16)
    options = {"mixup": 0.0, "cutmix": 0.0, "classes": 2, "seed": 3} | ways
    batches = mixed(lambda epoch, first: [(x, y)] * (6 - first), **options)
    whole, rest = [*batches(1, 0)], [*batches(1, 2)]
    for pictures, shares in whole:
        torch.testing.assert_close(pictures.mean(dim=(1, 2, 3)), shares[:, 1])
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    assert len({float(shares[1, 0]) for _, shares in whole}) > 1
    torch.testing.assert_close(rest, whole[2:])


def test_pictures_are_not_mixed_unless_told(points):
    batches = object()
    assert mixed(batches, mixup=0.0, cutmix=0.0, classes=2, seed=0) is batches


def test_mirror_images_are_scored_too(trained, photos, tmp_path, undrawn):
    run = shutil.copytree(trained, tmp_path / "run")
    with programs.resume(run, None, {"tta": True}) as job:
        job.run()
        report = job.finish()["val"]
    files, _ = prediction.find_files([photos / "val"])
    said = [one.proba for one in prediction.predict(programs.load(run), files)]
    loaded = programs.load(run)
    transform = loaded.transform()
    x = torch.stack([transform(images.open_rgb(path)) for path in files])
    with torch.inference_mode():
        scores = (loaded.model(x) + loaded.model(x.flip(-1))) / 2
    np.testing.assert_allclose(said, scores.softmax(dim=1).numpy(), atol=1e-5)
    y = torch.tensor([0] * 4 + [1] * 4)
    loss = torch.nn.functional.cross_entropy(scores, y)
    assert report["log_loss"] == pytest.approx(float(loss), rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("mode", ["freeze", "finetune"])
def test_cuda_trains_resumes_and_predicts(few, tmp_path, undrawn, mode):
    given = {"weights": "none", "image_size": SIZE, "mode": mode, "device": "cuda", "average": 0.5}
    with programs.begin(tmp_path / "run", few, given | {"epochs": 1}) as job:
        job.run()
    with programs.resume(tmp_path / "run", None, {"epochs": 2}) as job:
        job.run()
        report = job.finish()["val"]
    assert job.model.classifier[3].weight.is_cuda
    files, _ = prediction.find_files([few / "val"])
    runs = (programs.load(tmp_path / "run", device) for device in ("cuda", "cpu"))
    both = ([one.proba for one in prediction.predict(run, files)] for run in runs)
    np.testing.assert_allclose(*both, atol=1e-2)
    assert math.isfinite(report["log_loss"])
