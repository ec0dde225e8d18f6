"""A transfer that is ready to run: its pictures, its network, its scales."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastrnn import torch_files
from fastrnn.optional import require
from fastrnn.vision import backbones
from fastrnn.vision.style import colors, memory, network, pictures
from fastrnn.vision.style.inputs import read_inputs
from fastrnn.vision.style.objective import Objective
from fastrnn.vision.style.pictures import Picture
from fastrnn.vision.style.settings import COARSEST, NARROWEST, Settings

if TYPE_CHECKING:
    import PIL.Image
    import torch


class Transfer:
    """Everything that a transfer needs, read and checked; nothing is written.

    Inputs: content and styles, pictures (see pictures.read); masks, one for each style, white where
    it belongs, with the aspect of the content; init, "content", "noise" or a picture; Settings by
    name.
    Attributes: settings; sizes (W, H) of the scales, coarse to fine; segments of the network that
    each scale computes.
    Raises ValueError, TypeError or OSError that names what cannot be right.
    """

    def __init__(
        self,
        content: Picture,
        styles: Sequence[Picture],
        *,
        masks: Sequence[Picture] | None = None,
        init: Picture = "content",
        **settings,
    ) -> None:
        s = self.settings = Settings(**settings)
        if s.blend is not None and len(s.blend) != len(styles):
            raise ValueError(
                f"blend: expected {len(styles)}, one for each style, got {len(s.blend)}"
            )
        self.inputs = read_inputs(content, styles, masks, init, coloring=s.colors)
        device = _device(s.device)
        self.notes: list[str] = []
        options = {
            "pooling": s.pooling,
            "seed": s.seed,
            "device": device,
            "report": self.notes.append,
        }
        self.modules = network.load(s.backbone, s.weights, s.layers, **options)
        known = backbones.preprocessing(s.backbone)
        self.space = pictures.Space(known.mean, known.std, device)
        self.sizes = _sizes(self.inputs.content.size, s)
        for size in (self.sizes[-1], *self._style_sizes(-1)):
            self._check_memory(size, self._held(size))
        self._check_sizes({"content": content} | {f"style {i}": p for i, p in enumerate(styles, 1)})
        self.segments = [self._choose_segments(pictures.with_margin(size)) for size in self.sizes]
        self._check_memory(self.sizes[-1], self.memory())

    def _check_sizes(self, sources: dict[str, Picture]) -> None:
        """Raise ValueError where a picture is too small for the network at the first scale."""
        sizes = [self.sizes[0], *self._style_sizes(0)]
        for (name, source), size in zip(sources.items(), sizes, strict=True):
            try:
                memory.trace(self.modules, pictures.with_margin(size))
            except ValueError as error:
                raise ValueError(
                    f"{pictures.named(name, source)}: with its margin {error}; a larger size, "
                    "fewer scales or earlier layers may do"
                ) from None

    def _check_memory(self, size: tuple[int, int], needed: int) -> None:
        """Raise ValueError where a device has less than a picture of (W, H) needs."""
        there = memory.available(self.space.device)
        if there is not None and needed > there:
            raise ValueError(
                f"size: {size[0]} x {size[1]} pixels take {needed / 1e9:.0f} GB of memory, of "
                f"which there are {there / 1e9:.0f}; a smaller size or style_scale takes less, or "
                "the optimizer adam"
            )

    def _style_sizes(self, scale: int) -> list[tuple[int, int]]:
        longer = max(self.sizes[scale]) * self.settings.style_scale
        return [pictures.fitted(style.size, longer) for style in self.inputs.styles]

    def _held(self, size: tuple[int, int]) -> int:
        return memory.held(self.modules, self.settings, size, self.space.device)

    def _choose_segments(self, size: tuple[int, int]) -> network.Segments:
        limit = self.settings.memory * 1e9 - self._held(size)
        traced, cuts = memory.trace(self.modules, size), network.cuts(self.modules)
        return memory.choose_segments(traced, self.settings, cuts, limit)

    @property
    def steps(self) -> int:
        """Of all scales together."""
        return self.settings.steps * len(self.sizes)

    def memory(self) -> int:
        """The bytes that it takes at the largest scale, from shapes."""
        size = pictures.with_margin(self.sizes[-1])
        traced = memory.trace(self.modules, size)
        used = memory.activations(traced, self.settings, self.segments[-1])
        return self._held(size) + used

    def pixels(self, steps: int | None = None) -> int:
        """Pixels that the first steps compute (None: all)."""
        n = self.settings.steps
        steps = self.steps if steps is None else steps
        return sum(
            math.prod(size) * min(max(steps - n * i, 0), n) for i, size in enumerate(self.sizes)
        )

    def initial(self) -> "torch.Tensor":
        """The canvas that the first scale begins with (1, 3, H, W)."""
        init, size = self.inputs.init, self.sizes[0]
        if isinstance(init, str) and init == "noise":
            return self.space.noise(pictures.with_margin(size), self.settings.seed)
        image = self.inputs.content if init == "content" else init
        return pictures.mirrored(self.space.tensor(image, size))

    def enlarged(self, x: "torch.Tensor", scale: int) -> "torch.Tensor":
        """A canvas (1, 3, H, W) in the size of a scale, ready to be optimised."""
        width, height = self.sizes[scale]
        x = x.detach().to(self.space.device, copy=True)
        if pictures.with_margin((width, height)) != (x.shape[3], x.shape[2]):
            interpolate = require("torch.nn.functional").interpolate
            inner = pictures.cropped(x)
            inner = interpolate(inner, (height, width), mode="bicubic", align_corners=False)
            x = pictures.mirrored(inner)
            self.space.clamp_(x)
        return x.requires_grad_()

    def objective(self, scale: int) -> Objective:
        """The losses at a scale."""
        inputs, size = self.inputs, self.sizes[scale]
        styles = [*zip(inputs.styles, self._style_sizes(scale), strict=True)]
        return Objective(
            self.modules,
            self.settings,
            pictures.mirrored(self.space.tensor(inputs.content, size)),
            [pictures.mirrored(self.space.tensor(style, own)) for style, own in styles],
            inputs.masks and [self._mask(mask, size) for mask in inputs.masks],
            [self._mask(pictures.alpha(style), own) for style, own in styles],
            self.segments[scale],
        )

    def _mask(self, mask: "PIL.Image.Image | None", size: tuple[int, int]) -> "torch.Tensor | None":
        return None if mask is None else pictures.mirrored(self.space.mask(mask, size))

    def picture(self, x: "torch.Tensor") -> np.ndarray:
        """What is shown of a canvas (1, 3, H, W): (H, W, 3) uint8, or as transparent as the content
        (H, W, 4)."""
        array, original = self.space.array(pictures.cropped(x)), self.inputs.colors
        if self.settings.colors == "luminance":
            array = colors.recolor(array, original)
        opaque = pictures.alpha(original)
        return array if opaque is None else pictures.with_opacity(array, opaque)

    def identity(self) -> dict[str, object]:
        """By name, what another transfer has to agree in to come to the same bits."""
        weights = ((name, w) for module in self.modules for name, w in module.named_parameters())
        own = {"weights": torch_files.digest(weights), "device": self.space.device}
        return self.inputs.hashes() | own | self.settings.identity() | {"scales": len(self.sizes)}


def _sizes(size: tuple[int, int], settings: Settings) -> list[tuple[int, int]]:
    """The sizes of the scales, coarse to fine, of a picture of (W, H)."""
    s, finest = settings, pictures.fitted(size, settings.size)
    room = min(max(finest) / COARSEST, min(finest) / NARROWEST)
    fitting = 1 + max(0, math.floor(math.log(max(room, 1), s.growth) + 1e-6))
    scales = s.scales or fitting
    return [pictures.fitted(size, s.size / s.growth**k) for k in reversed(range(scales))]


def _device(name: str | None) -> str:
    """A device that can be used (None: CUDA where there is one). Raises ValueError for another."""
    torch = require("torch")
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {name!r} cannot be used ({reason})") from None
    return name
