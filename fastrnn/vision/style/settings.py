"""What a transfer is told to do, from which `fastrnn style` has its options."""

import math
from collections.abc import Callable, Iterable, Sequence

from fastrnn.settings import (
    NOT_NEGATIVE,
    POSITIVE,
    SWITCH,
    TEXT,
    Kind,
    Setting,
    completed,
    decisive,
    integer,
    one_of,
)

# The layers that are used unless others are given: indices of the modules of the network's
# features. SqueezeNet's are the homework's; VGG's are relu4_2 and relu1_1 ... relu5_1, the
# rectified ones of Gatys et al. 2016.
CONTENT_LAYERS = {"squeezenet1_1": [3], "vgg16": [20], "vgg19": [22]}
STYLE_LAYERS = {
    "squeezenet1_1": [1, 4, 6, 7],
    "vgg16": [1, 6, 11, 18, 25],
    "vgg19": [1, 6, 11, 20, 29],
}
LEARNING_RATES = {"adam": 0.05, "lbfgs": 1.0}
LBFGS_HISTORY = 20  # differences of pictures and gradients that it keeps
COARSEST = 128  # pixels, the least longer side with which scales begin unless told otherwise


def _several(text: str, of: type, holds: Callable[[Sequence], bool]) -> Kind:
    return Kind(text, lambda v: isinstance(v, list) and holds(v), list[of])


LAYERS = _several(
    "one or more different layers from 0",
    int,
    lambda v: len(v) == len({*v}) > 0 and all(map(integer(0).holds, v)),
)
SHARES = _several(
    "numbers of at least 0, not all 0",
    float,
    lambda v: all(map(NOT_NEGATIVE.holds, v)) and 0 < sum(v) < math.inf,
)

# None, which may be given too, is what is tuned, or depends on other settings.
SETTINGS = {
    "size": Setting(512, integer(1), "Longer side in pixels.", heading="Picture"),
    "keep_colors": Setting(
        False,
        SWITCH,
        "Keep the content's colours: only luminance is transferred.",
        heading="Picture",
    ),
    "content_weight": Setting(1.0, NOT_NEGATIVE, "Of the content.", heading="Losses"),
    "style_weight": Setting(200.0, NOT_NEGATIVE, "Of the styles.", heading="Losses"),
    "tv_weight": Setting(
        1.0, NOT_NEGATIVE, "Of the total variation: more is smoother.", heading="Losses"
    ),
    "blend": Setting(None, SHARES, "What each STYLE counts. [the same]", heading="Losses"),
    "style_scale": Setting(
        1.0, POSITIVE, "Longer side of a STYLE over that of the picture.", heading="Losses"
    ),
    "backbone": Setting(
        "squeezenet1_1", one_of(*STYLE_LAYERS), "Network that looks.", heading="Network"
    ),
    "weights": Setting(
        "default",
        TEXT,
        "A file, default (torchvision downloads them) or none (random).",
        heading="Network",
    ),
    "content_layers": Setting(
        None, LAYERS, "Counted in its features.", CONTENT_LAYERS, heading="Network"
    ),
    "style_layers": Setting(
        None, LAYERS, "Counted in its features.", STYLE_LAYERS, heading="Network"
    ),
    "layer_weights": Setting(None, SHARES, "What each counts. [the same]", heading="Network"),
    "steps": Setting(150, integer(1), "At each scale.", heading="Steps"),
    "scales": Setting(
        None,
        integer(1),
        f"From coarse to fine, each twice as large as the one before. [from {COARSEST} pixels on]",
        heading="Steps",
    ),
    "optimizer": Setting("lbfgs", one_of(*LEARNING_RATES), "How a step is made.", heading="Steps"),
    "learning_rate": Setting(None, POSITIVE, "Of the first step.", LEARNING_RATES, heading="Steps"),
    "seed": Setting(0, integer(0), "Of all that is random.", heading="Run"),
    "device": Setting(None, TEXT, "cpu, cuda, ... [cuda where there is one]", heading="Run"),
    "memory": Setting(
        4.0,
        POSITIVE,
        "GB above which activations are computed again rather than kept.",
        heading="Run",
        resumable=True,
    ),
}


class Settings:
    """How a picture is made, an attribute for each of SETTINGS.

    backbone, one of STYLE_LAYERS; weights, "default" (torchvision downloads them), a path, or
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

    def __init__(self, **given: object) -> None:
        left_out = {name for name, s in SETTINGS.items() if s.default is given.get(name) is None}
        given = {name: _listed(given[name]) for name in given if name not in left_out}
        variants = [given.get(name, SETTINGS[name].default) for name in ("backbone", "optimizer")]
        values = completed(given, SETTINGS, variants)
        if values["layer_weights"] is None:
            values["layer_weights"] = [1.0] * len(values["style_layers"])
        if values["scales"] is None:
            values["scales"] = 1 + max(0, math.floor(math.log2(values["size"] / COARSEST)))
        if len(values["layer_weights"]) != len(values["style_layers"]):
            raise ValueError(
                f"layer_weights: expected one for each of the {len(values['style_layers'])} style "
                f"layers, got {len(values['layer_weights'])}"
            )
        for name, value in values.items():
            setattr(self, name, tuple(value) if isinstance(value, list) else value)

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers that are used, in order."""
        return tuple(sorted({*self.content_layers, *self.style_layers}))

    def identity(self) -> dict[str, object]:
        """What a transfer has to agree in to be continued, but weights and device, which are
        compared as what they turned out to be; activations may be computed again or not."""
        values = decisive(vars(self), SETTINGS)
        return {name: value for name, value in values.items() if name not in ("weights", "device")}


def _listed(value):
    return [*value] if isinstance(value, Iterable) and not isinstance(value, str) else value
