"""torchvision's classification networks: every family's last layer, weights from files and from a
server, preprocessing as published."""

import dataclasses
import functools
import hashlib
import http.server
import re
import sys
import threading
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models import regnet

from fastrnn.vision import backbones, images, weights

CLASSES = 7


@pytest.fixture
def regnet_on_meta(monkeypatch):
    """RegNet computes its widths with tensors, which have to have values."""
    widths = regnet.BlockParams.from_init_params

    def with_values(**arguments):
        with torch.device("cpu"):
            return widths(**arguments)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", with_values)


@pytest.mark.usefixtures("regnet_on_meta")
@pytest.mark.parametrize("name", backbones.names())
def test_every_classifier_gets_another_last_layer(name):
    inputs = []

    def make(n):
        inputs.append(n)
        return nn.Linear(n, CLASSES)

    with torch.device("meta"):
        model = backbones.build(name, "none")
        head = backbones.replace_head(model, make)
        seen = []
        head.register_forward_hook(lambda layer, x, y: seen.append((x[0].shape, y.shape)))
        crop = backbones.preprocessing(name).crop
        scores = model.train()(torch.empty(2, 3, crop, crop))
    assert isinstance(scores, torch.Tensor)  # without auxiliary ones
    assert scores.shape == (2, CLASSES)
    assert seen == [((2, inputs[0]), (2, CLASSES))]
    assert [*model.modules()][-1] is head
    weights.give(model, dict(model.state_dict()))  # which tells no versions of modules
    assert not any(p.shape[0] == 1000 for key, p in model.named_parameters() if "bias" in key)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_32"])
def test_a_head_sees_what_the_old_one_saw(name):
    torch.manual_seed(0)
    model = backbones.build(name, "none")
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = model(x)
        old = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
        backbones.replace_head(model, lambda _: nn.Identity())
        torch.testing.assert_close(old(model(x)), expected)


def test_squeezenets_head_is_its_convolution_without_the_rectifier():
    torch.manual_seed(0)
    model = backbones.build("squeezenet1_1", "none")
    x, conv = torch.randn(2, 3, 64, 64), model.classifier[1]
    with torch.inference_mode():
        expected = conv(model.features(x)).mean((2, 3))
        head = backbones.replace_head(model, lambda n: nn.Linear(n, 1000))
        head.weight.copy_(conv.weight[:, :, 0, 0])
        head.bias.copy_(conv.bias)
        torch.testing.assert_close(model(x), expected)


def test_a_model_without_layers_is_refused():
    with pytest.raises(ValueError, match="model: expected one with a last layer, got ReLU"):
        backbones.replace_head(nn.ReLU(), lambda n: nn.Linear(n, 2))


# ---- weights -------------------------------------------------------------------------------------


@pytest.fixture
def state():
    torch.manual_seed(1)
    return models.squeezenet1_1().state_dict()


def test_weights_of_a_file(tmp_path, state):
    torch.save(state, path := tmp_path / "weights.pth")
    loaded = backbones.build("squeezenet1_1", str(path)).state_dict()
    assert all(torch.equal(loaded[name], w) for name, w in state.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.0.bias"), r"missing features\.0\.bias; unexpected none"),
        (lambda s: s.update({"features.extra": torch.zeros(1)}), "none; unexpected features.extra"),
        (
            lambda s: s.update({"features.0.bias": torch.zeros(2)}),
            r"of another shape features\.0\.bias",
        ),
        (lambda s: s.update({"features.0.bias": "text"}), r"of another shape features\.0\.bias"),
        (lambda s: s.clear(), r"missing features\.0\.bias, .*, .* and 47 more"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, state, change, message):
    change(state)
    torch.save(state, path := tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=message):
        backbones.build("squeezenet1_1", str(path))


def before(prefix, state):
    return {prefix + name: w for name, w in state.items()}


def without_head(state):
    return {name: w for name, w in state.items() if not name.startswith("classifier.")}


def averaged(state):
    model = models.squeezenet1_1()
    model.load_state_dict(state)
    return torch.optim.swa_utils.AveragedModel(model).state_dict()


LEFT_OUT = "without its last layer, of 5 classes"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {"epoch": 3, "state_dict": s, "optimizer": {}}, "weights of 'state_dict'"),
        (lambda s: {"net": {"model": s}}, "weights of 'net.model'"),
        (lambda s: {"model": s, "args": Namespace(lr=0.1)}, "weights of 'model'"),
        (lambda s: before("module.", s), "weights whose names begin with 'module.'"),
        (lambda s: before("_orig_mod.module.", s), "begin with '_orig_mod.module.'"),
        (lambda s: {"state_dict": before("model.", s) | {"loss.weight": torch.ones(2)}},
         "weights of 'state_dict' whose names begin with 'model.'"),
        (lambda s: {"model": before("module.backbone.", s)}, "begin with 'module.backbone.'"),
        (averaged, "begin with 'module.', without n_averaged beside them"),
        (lambda s: s | {"extra": torch.ones(1)}, "weights, without extra beside them"),
        (without_head, "weights, without a last layer"),
        (lambda s: without_head(s) | {"classifier.1.weight": torch.ones(5, 512, 1, 1),
                                      "classifier.1.bias": torch.ones(5)}, LEFT_OUT),
        (lambda s: without_head(s) | {"classifier.3.weight": torch.ones(5, 512),
                                      "classifier.3.bias": torch.ones(5)}, LEFT_OUT),
        (lambda s: {n.removeprefix("features."): w for n, w in without_head(s).items()},
         "weights, without a last layer"),
        (lambda s: {n.replace("features.", "features.module."): w for n, w in s.items()}, None),
    ],
)  # fmt: skip
def test_weights_are_found_in_what_wraps_them(tmp_path, state, change, said):
    content, body = change(state), without_head(state)
    torch.save(content, tmp_path / "weights.pth")
    if all(isinstance(w, torch.Tensor) for w in content.values()):
        save_file(content, tmp_path / "weights.safetensors")
    for path in tmp_path.iterdir():
        lines = []
        loaded = backbones.build("squeezenet1_1", str(path), lines.append).state_dict()
        assert all(torch.equal(loaded[name], w) for name, w in body.items())
        whole = said is None or "last layer" not in said
        of_head = (w["classifier.1.weight"] for w in (loaded, state))
        assert torch.equal(*of_head) == whole
        assert len(lines) == (said is not None)
        assert said is None or (lines[0].startswith(f"{path}: ") and said in lines[0])
        features = backbones.build_features("squeezenet1_1", str(path)).state_dict()
        assert all(torch.equal(w, body[f"features.{name}"]) for name, w in features.items())


OLD_NAMES = {
    "densenet121": lambda n: re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", n),
    "mnasnet0_5": str,
    "resnet18": str,
}


@pytest.mark.parametrize("name", OLD_NAMES)
def test_weights_of_earlier_versions(tmp_path, name):
    """Modules' versions, names and what is counted are others or not there."""
    state = {n: w for n, w in models.get_model(name).state_dict().items() if "num_batches" not in n}
    old = {OLD_NAMES[name](n): w for n, w in state.items()}
    torch.save(old, path := tmp_path / "weights.pth")
    loaded = backbones.build(name, str(path)).state_dict()
    assert all(torch.equal(loaded[n], w) for n, w in state.items())


def test_weights_of_earlier_vision_transformers():
    model, expected = (models.VisionTransformer(32, 16, 2, 2, 8, 16) for _ in range(2))
    numbers = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    state = expected.state_dict()
    old = {re.sub(r"mlp\.\d\.", lambda n: numbers[n[0]], name): w for name, w in state.items()}
    assert old.keys() != state.keys()
    weights.load(model, old, "old.pth", head="heads")
    assert all(torch.equal(w, state[name]) for name, w in model.state_dict().items())


def test_weights_of_other_auxiliary_classifiers(tmp_path):
    """Theirs are those of another number of classes, or not there."""
    of_five = models.GoogLeNet(num_classes=5, init_weights=False).state_dict()
    without = {n: w for n, w in of_five.items() if not n.startswith(backbones.AUXILIARY)}
    for state in of_five, without:
        torch.save(state, path := tmp_path / "weights.pth")
        loaded = backbones.build("googlenet", str(path)).state_dict()
        body = [name for name in without if not name.startswith("fc.")]
        assert all(torch.equal(loaded[name], state[name]) for name in body)


class Payload:
    """Would run code in an unpickler that lets it."""

    def __reduce__(self):
        return print, ("run",)


def test_weights_are_never_code(tmp_path, capsys):
    torch.save({"features.0.weight": Payload()}, path := tmp_path / "weights.pth")
    expected = r"not a file of tensors \(more than tensors: (__builtin__|builtins)\.print\)"
    with pytest.raises(ValueError, match=expected):
        backbones.build("squeezenet1_1", str(path))
    assert capsys.readouterr().out == ""


def test_what_is_no_network_or_no_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="backbone: expected one of alexnet, .*, got 'resnet19'"):
        backbones.build("resnet19")
    with pytest.raises(FileNotFoundError, match="nothing.pth: no such file"):
        backbones.build("resnet18", str(tmp_path / "nothing.pth"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder, and the address at which a server gives its files."""
    (folder := tmp_path / "served").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def published(server, monkeypatch, state):
    """Publish a state dict under a name that ends in a checksum, right or wrong."""
    folder, address = server

    def at(checksum=None):
        torch.save(state, folder / "weights.pth")
        right = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()[:8]
        name = f"squeezenet1_1-{checksum or right}.pth"
        (folder / "weights.pth").rename(folder / name)
        entry = models.SqueezeNet1_1_Weights.DEFAULT
        elsewhere = dataclasses.replace(entry.value, url=f"{address}/{name}")
        monkeypatch.setattr(entry, "_value_", elsewhere)
        return folder / name

    return at


def test_published_weights_are_downloaded_once(published, state):
    file = published()
    for _ in range(2):
        loaded = backbones.build("squeezenet1_1", "default").state_dict()
        assert all(torch.equal(loaded[name], w) for name, w in state.items())
        file.unlink(missing_ok=True)


def test_a_wrong_checksum_is_an_error(published):
    published("00000000")
    with pytest.raises(ConnectionError, match=r"squeezenet1_1: .*invalid hash value"):
        backbones.build("squeezenet1_1", "default")


def test_no_server_is_an_error(published):
    published().unlink()
    with pytest.raises(
        ConnectionError, match=r"could not be downloaded from .*a file that you have"
    ):
        backbones.build("squeezenet1_1", "default")


# ---- pictures ------------------------------------------------------------------------------------


def picture(seed=0, size=(300, 260)):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_b0", "inception_v3", "vit_b_16"])
def test_preprocessing_is_the_published_one(name):
    transform = backbones.eval_transform(backbones.preprocessing(name))
    published = models.get_model_weights(name).DEFAULT.transforms()
    torch.testing.assert_close(transform(picture()), published(picture()))


def test_pictures_are_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture(size=(30, 20)).save(tmp_path / "a.jpg", exif=exif)
    picture(size=(30, 20)).convert("L").save(tmp_path / "b.PNG")
    (tmp_path / "c.txt").write_text("no picture")
    paths = images.find_images(tmp_path).pictures
    assert [path.name for path in paths] == ["a.jpg", "b.PNG"]
    assert [images.open_rgb(path).size for path in paths] == [(20, 30), (30, 20)]
    assert {images.open_rgb(path).mode for path in paths} == {"RGB"}


def test_sixteen_bits_are_scaled_and_floating_point_is_refused(tmp_path):
    ramp = np.linspace(0, 65535, 12).reshape(3, 4)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "b.tif")
    read = np.asarray(images.open_rgb(tmp_path / "a.png"))
    np.testing.assert_array_equal(read, (ramp.astype(int) // 257)[..., None].repeat(3, axis=2))
    with pytest.raises(OSError, match=r"b\.tif: not a readable picture \(floating-point"):
        images.open_rgb(tmp_path / "b.tif")


def inked(mode):
    """A picture of some mode, black ink in the middle of what is transparent, and how to save it
    with its transparency."""
    ink = np.zeros((8, 8), bool)
    ink[2:5, 2:6] = True
    clear, seven = np.where(ink, 255, 0).astype(np.uint8), np.where(ink, 0, 7)
    rgba = Image.merge("RGBA", [*Image.new("RGB", (8, 8)).split(), Image.fromarray(clear)])
    if mode in ("RGBA", "LA", "PA"):
        return rgba.convert("LA").convert(mode) if mode == "PA" else rgba.convert(mode), {}
    if mode == "quantized":
        return rgba.quantize(4), {}
    if mode == "I;16":
        return Image.fromarray(seven.astype(np.uint16)), {"transparency": 7}
    grey = Image.fromarray(seven.astype(np.uint8))
    if mode == "P":
        paletted = Image.fromarray(ink.astype(np.uint8)).convert("P")
        paletted.putpalette([0] * 6)
        return paletted, {"transparency": 0}
    return grey.convert(mode), {"transparency": 7 if mode == "L" else (7, 7, 7)}


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("png", mode) for mode in ("RGBA", "LA", "P", "quantized", "L", "RGB", "I;16")),
        *(("tif", mode) for mode in ("RGBA", "LA")),
        *((suffix, "RGBA") for suffix in ("webp", "tga", "jp2")),
        ("gif", "P"),
    ],
)
def test_what_is_transparent_is_white(tmp_path, suffix, mode):
    picture, options = inked(mode)
    options |= {"lossless": True} if suffix == "webp" else {}
    picture.save(path := tmp_path / f"a.{suffix}", **options)
    black = np.all(np.asarray(images.open_rgb(path)) == 0, axis=2)
    white = np.all(np.asarray(images.open_rgb(path)) == 255, axis=2)
    expected = np.zeros((8, 8), bool)
    expected[2:5, 2:6] = True
    np.testing.assert_array_equal(black, expected)
    np.testing.assert_array_equal(white, ~expected)
    kept = images.open_picture(path)
    np.testing.assert_array_equal(np.asarray(kept)[..., 3] > 0, expected)
    assert images.with_alpha(Image.new("RGBA", (2, 2), "red")).mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB", "I", "RGBX", "PA"])
def test_pictures_of_any_mode_are_rgb(mode):
    assert images.over_white(Image.new(mode, (3, 2))).mode == "RGB"


def test_half_transparent_is_half_white_and_of_an_animation_the_first_picture_is_read(tmp_path):
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert images.over_white(half).getpixel((0, 0)) == (127, 127, 127)
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for suffix in ("gif", "png", "tif"):
        frames[0].save(path := tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
        assert images.open_rgb(path).getpixel((1, 1)) == (255, 0, 0)


# What Pillow cannot write, and what it leaves to other programs.
UNWRITTEN = {".cur", ".fit", ".fits", ".flc", ".fli", ".ftc", ".ftu", ".gbr", ".iim", ".pcd"}
UNWRITTEN |= {".psd", ".pxr", ".xpm", ".ras", ".dcx"}


@pytest.mark.filterwarnings("ignore:IM image format")
def test_all_that_pillow_reads_is_a_picture_whatever_its_name(tmp_path):
    (below := tmp_path / "sub" / "sub").mkdir(parents=True)
    written = sorted(images.suffixes() - UNWRITTEN)
    assert {".avif", ".jfif", ".ppm", ".heic", ".jpg", ".webp", ".jp2", ".tga"} <= {*written}
    for i, suffix in enumerate(written):
        path = below / f"a{suffix.upper() if i % 2 else suffix}"
        mode = {".xbm": "1", ".msp": "1", ".pfm": "F", ".blp": "P"}.get(suffix, "RGB")
        picture(size=(64, 64)).convert(mode).save(path)
        if mode != "F":
            assert images.open_rgb(path).mode == "RGB", suffix
    picture().save(tmp_path / "without", format="PNG")
    (tmp_path / "README").write_text("P3 words")
    (tmp_path / "notes.txt").write_text("words")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.png", "__MACOSX/a.png", ".x/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"what systems leave")
    (below / "up").symlink_to(tmp_path)
    found = images.find_images(tmp_path)
    assert {p.suffix.lower() for p in found.pictures} == {*written, ""}
    assert len(found.pictures) == len(written) + 1
    assert [path.name for path in found.others] == ["README", "notes.txt"]
    assert images.find_images(tmp_path, below=False).pictures == [tmp_path / "without"]
    assert images.left_out(found.others, tmp_path) == (
        "left out 2 files that are no pictures by their names: README, notes.txt"
    )


def test_a_picture_that_needs_another_package_names_it(tmp_path, monkeypatch):
    picture().save(path := tmp_path / "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(OSError, match=r'a\.heic: .*pillow-heif.*pip install "fastrnn\[heic\]"'):
        images.open_rgb(path)
    assert images.find_images(tmp_path).pictures == [path]


def test_pictures_of_too_many_pixels_are_refused_and_large_jpegs_read_smaller(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    picture(size=(120, 80)).save(tmp_path / "a.png")
    picture(size=(120, 80)).save(tmp_path / "a.jpg")
    for name in ("a.png", "a.jpg"):
        with pytest.raises(OSError, match=rf"{name}: .* \(120 x 80 pixels; at most 6,000 are"):
            images.open_rgb(tmp_path / name)
    assert images.open_rgb(tmp_path / "a.jpg", 40).size == (60, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # which Pillow itself refuses
    with pytest.raises(OSError, match=r"a\.png: .*9600 pixels"):
        images.open_rgb(tmp_path / "a.png")


def test_pictures_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "a.png"
    picture().save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(OSError, match=r"a\.png: not a readable picture \("):
        images.open_rgb(path)
    with pytest.raises(FileNotFoundError, match=r"b\.png: no such file"):
        images.open_rgb(tmp_path / "b.png")
    with pytest.raises(NotADirectoryError, match=r"a\.png: no such folder"):
        images.find_images(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty: no pictures"):
        images.find_images(tmp_path / "empty")
