"""A transfer that is ready to run: its pictures, its network, its scales."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.optional import require
from fastrnn.vision import backbones, tensors
from fastrnn.vision.style import colors, memory, network, pictures
from fastrnn.vision.style.inputs import read_inputs
from fastrnn.vision.style.objective import Objective
from fastrnn.vision.style.pictures import Picture
from fastrnn.vision.style.settings import Settings

if TYPE_CHECKING:
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
        self.inputs = read_inputs(content, styles, masks, init, keep_colors=s.keep_colors)
        device = _device(s.device)
        self.notes: list[str] = []
        options = {"seed": s.seed, "device": device, "report": self.notes.append}
        self.modules = network.load(s.backbone, s.weights, s.layers, **options)
        known = backbones.preprocessing(s.backbone)
        self.space = pictures.Space(known.mean, known.std, device)
        self.sizes = [
            pictures.fitted(self.inputs.content.size, s.size / 2**k)
            for k in reversed(range(s.scales))
        ]
        for size in self._style_sizes(0):
            memory.trace(self.modules, size)
        self.segments = [self._choose_segments(size) for size in self.sizes]

    def _style_sizes(self, scale: int) -> list[tuple[int, int]]:
        longer = max(self.sizes[scale]) * self.settings.style_scale
        return [pictures.fitted(style.size, longer) for style in self.inputs.styles]

    def _held(self, size: tuple[int, int]) -> int:
        return memory.held(self.modules, self.settings, size, self.space.device)

    def _choose_segments(self, size: tuple[int, int]) -> network.Segments:
        limit = self.settings.memory * 1e9 - self._held(size)
        traced, cuts = memory.trace(self.modules, size), network.cuts(self.modules)
        return memory.choose_segments(traced, self.settings, cuts, limit)

    def memory(self) -> int:
        """The bytes that it takes at the largest scale, from shapes."""
        size = self.sizes[-1]
        traced = memory.trace(self.modules, size)
        used = memory.activations(traced, self.settings, self.segments[-1])
        return self._held(size) + used

    def pixels(self, steps: int | None = None) -> int:
        """Pixels that the first steps compute (None: all)."""
        n = self.settings.steps
        steps = n * len(self.sizes) if steps is None else steps
        return sum(
            math.prod(size) * min(max(steps - n * i, 0), n) for i, size in enumerate(self.sizes)
        )

    def initial(self) -> "torch.Tensor":
        """What the first scale begins with (1, 3, H, W)."""
        init = self.inputs.init
        if isinstance(init, str) and init == "noise":
            return self.space.noise(self.sizes[0], self.settings.seed)
        return self.space.tensor(self.inputs.content if init == "content" else init, self.sizes[0])

    def enlarged(self, x: "torch.Tensor", scale: int) -> "torch.Tensor":
        """A picture (1, 3, H, W) in the size of a scale, ready to be optimised."""
        width, height = self.sizes[scale]
        interpolate = require("torch.nn.functional").interpolate
        x = x.detach().to(self.space.device)
        x = interpolate(x, (height, width), mode="bicubic", align_corners=False)
        self.space.clamp_(x)
        return x.requires_grad_()

    def objective(self, scale: int) -> Objective:
        """The losses at a scale."""
        inputs, size = self.inputs, self.sizes[scale]
        styles = zip(inputs.styles, self._style_sizes(scale), strict=True)
        return Objective(
            self.modules,
            self.settings,
            self.space.tensor(inputs.content, size),
            [self.space.tensor(style, own) for style, own in styles],
            inputs.masks and [self.space.mask(mask, size) for mask in inputs.masks],
            self.segments[scale],
        )

    def picture(self, x: "torch.Tensor") -> np.ndarray:
        """What is shown of (1, 3, H, W): (H, W, 3) uint8."""
        array = self.space.array(x)
        return colors.recolor(array, self.inputs.colors) if self.settings.keep_colors else array

    def identity(self) -> dict[str, object]:
        """By name, what another transfer has to agree in to come to the same bits."""
        weights = ((name, w) for module in self.modules for name, w in module.named_parameters())
        own = {"weights": tensors.digest(weights), "device": self.space.device}
        return self.inputs.hashes() | own | self.settings.identity()


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
