"""What a transfer is told to do, from which `fastrnn style` has its options."""

import math
from collections.abc import Callable, Iterable, Sequence

from fastrnn.settings import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SWITCH,
    TEXT,
    Kind,
    Setting,
    completed,
    decisive,
    integer,
    number,
    one_of,
)
from fastrnn.vision.style.layers import indices

# The layers that are used unless others are given; VGG's are those of Gatys et al. 2016.
_GATYS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
CONTENT_LAYERS = {
    "squeezenet1_1": ["relu1", "fire3", "fire5"],
    "vgg16": ["relu4_2"],
    "vgg19": ["relu4_2"],
}
STYLE_LAYERS = {
    "squeezenet1_1": ["relu1", "fire2", "fire3", "fire4", "fire5", "fire6"],
    "vgg16": _GATYS,
    "vgg19": _GATYS,
}
LEARNING_RATES = {"adam": 0.05, "lbfgs": 1.0}
LBFGS_HISTORY = 20  # differences of pictures and gradients that it keeps
# Pixels of the longer and of the shorter side with which scales begin unless told otherwise.
COARSEST, NARROWEST = 64, 32


def _several(text: str, of: type, holds: Callable[[Sequence], bool]) -> Kind:
    return Kind(text, lambda v: isinstance(v, list) and holds(v), list[of])


LAYERS = _several(
    "one or more different layers, each a name or an index",
    str,
    lambda v: v and all(isinstance(layer, int | str) for layer in v),
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
        "Keep the content's colours: the same as --colors luminance.",
        heading="Picture",
    ),
    "colors": Setting(
        None,
        one_of("style", "luminance", "histogram"),
        "Of the style; the content's, kept (luminance); or those of a style that is given the "
        "content's (histogram). [style]",
        heading="Picture",
    ),
    "content_weight": Setting(1.0, NOT_NEGATIVE, "Of the content.", heading="Losses"),
    "style_weight": Setting(
        300.0, NOT_NEGATIVE, "Of the styles.", {"luminance": 150.0}, heading="Losses"
    ),
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
    "pooling": Setting(
        "average", one_of("average", "max"), "What its pooling layers take.", heading="Network"
    ),
    "content_layers": Setting(
        None, LAYERS, "By name, or counted in its features.", CONTENT_LAYERS, heading="Network"
    ),
    "style_layers": Setting(
        None, LAYERS, "By name, or counted in its features.", STYLE_LAYERS, heading="Network"
    ),
    "layer_weights": Setting(None, SHARES, "What each counts. [the same]", heading="Network"),
    "steps": Setting(70, integer(1), "At each scale.", heading="Steps"),
    "scales": Setting(
        None,
        integer(1),
        f"From coarse to fine. [from {COARSEST} x {NARROWEST} pixels on]",
        heading="Steps",
    ),
    "growth": Setting(
        1.4142,
        number("a finite number above 1", lambda v: 1 < v < math.inf),
        "Of a scale's sides from the one before.",
        heading="Steps",
    ),
    "optimizer": Setting("lbfgs", one_of(*LEARNING_RATES), "How a step is made.", heading="Steps"),
    "learning_rate": Setting(None, POSITIVE, "Of the first step.", LEARNING_RATES, heading="Steps"),
    "averaging": Setting(
        0.0,
        SHARE,
        "The picture is an average, in which each step counts this much of what the next does.",
        heading="Steps",
    ),
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
    "none" (random); pooling, "average" or "max", whatever the network was trained with. size, the
    longer side in pixels; scales, from coarse to fine, each growth times the one before (None: as
    many as have COARSEST by NARROWEST pixels or more); steps at each scale. optimizer, "adam" or
    "lbfgs"; learning_rate (None: LEARNING_RATES'); averaging, what a step's picture counts in the
    average that is shown, over what the next one's does (0: there is no average). content_weight,
    style_weight, tv_weight, which mean the same at every size; content_layers, style_layers, each a
    name or an index (None: those of the backbone); layer_weights, what each style layer counts, and
    blend, what each style counts (None: the same); style_scale, the longer side of a style over
    that of the picture. colors, "style", the styles'; "luminance", which alone is transferred, or
    "histogram", the content's given to the styles before (None: "style", with keep_colors
    "luminance"). seed of all that is random; device, "cpu", "cuda", ... (None: CUDA where there is
    one); memory, GB, above which activations are computed twice rather than kept.
    Raises ValueError that names the setting.
    """

    def __init__(self, **given: object) -> None:
        left_out = {name for name, s in SETTINGS.items() if s.default is given.get(name) is None}
        given = {name: _listed(given[name]) for name in given if name not in left_out}
        variants = [given.get(name, SETTINGS[name].default) for name in ("backbone", "optimizer")]
        colors = given.get("colors", "luminance" if given.get("keep_colors") else "style")
        values = completed({"colors": colors} | given, SETTINGS, [*variants, colors])
        for name in ("content_layers", "style_layers"):
            values[name] = indices(name, values[name], values["backbone"])
        if values["layer_weights"] is None:
            values["layer_weights"] = [1.0] * len(values["style_layers"])
        if values["keep_colors"] and values["colors"] != "luminance":
            raise ValueError(f"keep_colors: is colors luminance; got {values['colors']} too")
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
