"""What a transfer is told to do: defaults, and what no value may be."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

# The layers that are used unless others are given: indices of the modules of the network's
# features. SqueezeNet's are the homework's; VGG's are relu4_2 and relu1_1 ... relu5_1, the
# rectified ones of Gatys et al. 2016.
CONTENT_LAYERS = {"squeezenet1_1": (3,), "vgg16": (20,), "vgg19": (22,)}
STYLE_LAYERS = {
    "squeezenet1_1": (1, 4, 6, 7),
    "vgg16": (1, 6, 11, 18, 25),
    "vgg19": (1, 6, 11, 20, 29),
}
BACKBONES = tuple(STYLE_LAYERS)
LEARNING_RATES = {"adam": 0.05, "lbfgs": 1.0}
LBFGS_HISTORY = 20  # differences of pictures and gradients that it keeps
OPTIMIZERS = tuple(LEARNING_RATES)
COARSEST = 128  # pixels, the least longer side with which scales begin unless told otherwise


@dataclass(kw_only=True)
class Settings:
    """How a picture is made.

    backbone, one of BACKBONES; weights, "default" (torchvision downloads them), a path, or
    "none" (random). size, the longer side in pixels; scales, from coarse to fine, each twice
    the one before (None: as many as have COARSEST pixels or more); steps at each scale.
    optimizer, "adam" or "lbfgs"; learning_rate (None: LEARNING_RATES'). content_weight,
    style_weight, tv_weight, which mean the same at every size; content_layers, style_layers
    (None: those of the backbone); layer_weights, what each style layer counts, and blend, what
    each style counts (None: the same); style_scale, the longer side of a style over that of the
    picture. keep_colors, only the luminance is transferred. seed of all that is random; device,
    "cpu", "cuda", ... (None: CUDA where there is one); memory, GB, above which activations are
    computed twice rather than kept.
    Raises ValueError that names the setting.
    """

    backbone: str = "squeezenet1_1"
    weights: str = "default"
    size: int = 512
    scales: int | None = None
    steps: int = 150
    optimizer: str = "lbfgs"
    learning_rate: float | None = None
    content_weight: float = 1.0
    style_weight: float = 200.0
    tv_weight: float = 1.0
    content_layers: Sequence[int] | None = None
    style_layers: Sequence[int] | None = None
    layer_weights: Sequence[float] | None = None
    blend: Sequence[float] | None = None
    style_scale: float = 1.0
    keep_colors: bool = False
    seed: int = 0
    device: str | None = None
    memory: float = 4.0

    def __post_init__(self) -> None:
        for name, known in (("backbone", BACKBONES), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        self._fill("learning_rate", LEARNING_RATES[self.optimizer])
        self._fill("content_layers", CONTENT_LAYERS[self.backbone])
        self._fill("style_layers", STYLE_LAYERS[self.backbone])
        self._fill("layer_weights", (1.0,) * len(self.style_layers))
        for name in ("size", "scales", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self._fill("scales", 1 + max(0, math.floor(math.log2(self.size / COARSEST))))
        for name in ("learning_rate", "style_scale", "memory"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        for name in ("content_weight", "style_weight", "tv_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name}: expected a number of at least 0, got {getattr(self, name)}"
                )
        for name in ("content_layers", "style_layers"):
            layers = getattr(self, name)
            if not layers or len(set(layers)) < len(layers) or min(layers) < 0:
                raise ValueError(
                    f"{name}: expected one or more different layers from 0, got {[*layers]}"
                )
        for name in ("layer_weights", "blend"):
            values = getattr(self, name)
            if values is not None and not (min(values, default=-1) >= 0 < sum(values) < math.inf):
                raise ValueError(
                    f"{name}: expected numbers of at least 0, not all 0, got {[*values]}"
                )
        if len(self.layer_weights) != len(self.style_layers):
            raise ValueError(
                f"layer_weights: expected one for each of the {len(self.style_layers)} style "
                f"layers, got {len(self.layer_weights)}"
            )

    def _fill(self, name: str, default) -> None:
        value = getattr(self, name)
        if value is None:
            value = default
        setattr(self, name, tuple(value) if isinstance(value, Sequence) else value)

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers that are used, in order."""
        return tuple(sorted({*self.content_layers, *self.style_layers}))

    def identity(self) -> dict[str, object]:
        """What a transfer has to agree in to be continued, but weights and device, which are
        compared as what they turned out to be; activations may be computed again or not."""
        free = ("weights", "device", "memory")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in free}
