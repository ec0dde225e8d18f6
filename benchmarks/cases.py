"""What is raced. A case names the work; operands.py and texts.py draw what it starts from, peers/
run it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from fastrnn import Options
from fastrnn.layers.recurrent import GATES

Shape = tuple[int, int, int, int]

CELLS = tuple(GATES)

# (N, T, D, H) and why
SHAPES: dict[Shape, str] = {
    (1, 1, 64, 64): "one step of a small stream: the cost of a call",
    (1, 100, 64, 64): "a small sequence alone: nothing to share between rows",
    (1, 100, 128, 256): "weights larger than L1, one row: bandwidth",
    (10, 17, 256, 512): "captioning, the notebook's RNN batch",
    (25, 17, 256, 512): "captioning, the notebook's LSTM batch",
    (32, 50, 100, 128): "text classification",
    (128, 50, 64, 64): "many small sequences",
    (64, 100, 300, 256): "text classification with large vectors",
    (64, 30, 512, 1024): "weights larger than L2",
    (256, 100, 256, 512): "throughput",
}
# With --quick they are left out.
LARGEST_SHAPES = {(64, 100, 300, 256), (64, 30, 512, 1024), (256, 100, 256, 512)}
LENGTHS_SHAPES = ((25, 17, 256, 512), (32, 50, 100, 128), (64, 100, 300, 256), (256, 100, 256, 512))
MEMORY_SHAPES = ((64, 100, 300, 256), (256, 100, 256, 512))
STEP_SIZES = (32, 64, 128, 256, 512)
# H of models of audio, which read a sample at a time: D = 1.
AUDIO_SIZES = (8, 16, 24, 32, 40)
# In one call of the direction "steps".
MANY_STEPS = 1000
# The share of the steps of the race "resets" before which a row starts anew.
RESETS = 0.1
# One of T, N and H grows, the others stay.
SCALING = {
    "T": [(16, T, 128, 128) for T in (1, 4, 16, 64, 256)],
    "N": [(N, 50, 128, 128) for N in (1, 4, 16, 64, 256)],
    "H": [(16, 50, H, H) for H in (32, 64, 128, 256, 512)],
}
# The race "torch": how a layer or a cell of PyTorch is used, and on which shapes. "" is a layer as
# it comes, "states" one that is given the states before.
USES: dict[str, Sequence[Shape]] = {
    "": tuple(SHAPES),
    "time first": ((1, 100, 64, 64), (32, 50, 100, 128)),
    "states": ((8, 1, 64, 64), (8, 1, 512, 128)),
    "cell": ((1, 100, 64, 64), (8, 1, 64, 64)),
    "packed": ((25, 17, 256, 512), (32, 50, 100, 128), (64, 100, 300, 256)),
    "bidirectional, 2 layers": ((32, 50, 100, 128),),
    "projected": ((32, 50, 100, 128),),
}
# Raced in float64, too.
FLOAT64_SHAPES = ((1, 100, 64, 64), (10, 17, 256, 512), (32, 50, 100, 128))
# The race "models": the cell, the direction and the sizes of the first recurrent layer.
MODELS: dict[str, tuple[str, str, Shape]] = {
    "text recognition": ("lstm", "forward+backward", (16, 256, 960, 200)),
    "recurrent policy": ("lstm", "forward+backward", (2, 128, 512, 128)),
    "forecaster": ("lstm", "forward+backward", (128, 48, 5, 128)),
    "noise suppression": ("gru", "forward", (1, 300, 256, 256)),
    "amplifier": ("lstm", "forward+backward", (16, 512, 1, 24)),
    "voice activity": ("lstm", "forward+backward", (32, 250, 128, 128)),
    "tagger": ("lstm", "forward+backward", (32, 40, 300, 200)),
}
# Races of PyTorch's modules with their namesakes of fastrnn.torch.
OF_MODULES = ("torch", "models")
# The uses and models that have sequences of different lengths, and those whose states start anew.
RAGGED = ("packed", "text recognition", "tagger")
RESTARTED = ("recurrent policy",)


class Form(NamedTuple):
    """What the race "cells" sets beside which plain cells."""

    cells: Sequence[str]
    options: Options | None = None
    functions: str = ""  # of a cell of its own: "mgu" for mgu_forward
    steep: bool = False  # its derivative has steps


FORMS = {
    "layer norm": Form(("lstm", "gru")),
    "projection": Form(("lstm",)),
    "peepholes": Form(("lstm",)),
    "zoneout": Form(("lstm",), Options(zoneout_h=0.1, zoneout_c=0.1, seed=1)),
    "zoneout of h": Form(("gru",), Options(zoneout_h=0.1, seed=1)),
    "dropout of x": Form(("lstm",), Options(dropout_x=0.25, seed=1)),
    "dropout of h": Form(("lstm", "gru"), Options(dropout_h=0.25, seed=1)),
    "dropout of candidates": Form(("lstm",), Options(dropout_candidate=0.25, seed=1)),
    "dropout of weights": Form(("lstm",), Options(dropout_weights=0.25, seed=1)),
    "clip": Form(("lstm",), Options(clip=1.0), steep=True),
    "clip of gradients": Form(("lstm",), Options(clip_gradient=0.01)),
    "hard sigmoid": Form(("lstm",), Options(hard_sigmoid=0.2), steep=True),
    "capped relu": Form(("rnn",), Options(cap=1.0), steep=True),
    "MGU": Form(("gru",), functions="mgu"),
    "minGRU": Form(("gru",), functions="min_gru"),
    "minLSTM": Form(("lstm",), functions="min_lstm"),
    "IndRNN": Form(("rnn",), functions="ind_rnn", steep=True),
}
FORMS_SHAPES = ((25, 17, 256, 512), (64, 100, 300, 256))
# The minimal cells are for long sequences.
LONG_SHAPES = {"minGRU": ((16, 1000, 128, 256),)}

# The directions of cases that start from texts, and the rows of the files of word vectors.
TEXT = ("training", "fit", "predict", "load")
VECTORS = (40_000, 400_000)


@dataclass(frozen=True)
class Case:
    """One row of a race.

    direction: "forward", as inference, or "forward+backward" of a layer; "bidirectional", the
    latter of two layers, one of which runs from each sequence's end to its start; "step", one time
    step by the step function; "stream", by a streaming object; "steps", T steps of one in a call,
    whose figures are a step's; "iteration", loss, gradients and adam of the captioner (N captions
    of T words from D features, word vectors of W, V words). In the race "lengths" every sequence
    ends at its own length; in the race "resets" states start anew before some steps; in the race
    "cells" the cell is the plain one and form what is set beside it.

    Of texts, V being the words of the vocabulary: "training", an epoch of a classifier on N
    sentences of up to T words with vectors of D numbers; "fit", from N sentences as strings to a
    trained bag of words or averaged vectors; "predict", from a string of T words to probabilities;
    "load", the vectors of V words from a file that has N words with D numbers each.
    """

    race: str
    cell: str
    direction: str
    N: int
    T: int
    D: int
    H: int
    dtype: str = "float32"
    W: int = 0
    V: int = 0
    form: str = ""

    @property
    def name(self) -> str:
        """Unique among cases."""
        name = f"{self.race} {self.cell} {self.direction} {self.shape} {self.dtype}"
        return f"{name} {self.form}".rstrip()

    @property
    def shape(self) -> str:
        """(N,T,D,H) as text."""
        return f"({self.N},{self.T},{self.D},{self.H})"

    @property
    def of_text(self) -> bool:
        """Whether it starts from texts."""
        return self.direction in TEXT

    @property
    def of_modules(self) -> bool:
        """Whether it is a module of models.py; those that are neither start from arrays."""
        return self.race in OF_MODULES

    @property
    def of_forms(self) -> bool:
        """Whether it is one of FORMS, or with form="" the plain cell beside it."""
        return self.race == "cells"

    @property
    def functions(self) -> str:
        """What the names of fastrnn's functions begin with: the cell, or that of FORMS."""
        return (self.of_forms and self.form and FORMS[self.form].functions) or self.cell

    @property
    def steep(self) -> bool:
        """Whether its derivative has steps."""
        return self.of_forms and self.form != "" and FORMS[self.form].steep

    @property
    def one_step(self) -> bool:
        """Whether it is one time step, whose results are the states after it."""
        return self.direction in ("step", "stream")

    @property
    def units(self) -> int:
        """How much of what its figures tell is done by one call: T steps, else 1."""
        return self.T if self.direction == "steps" else 1

    @property
    def lengths(self) -> np.ndarray | None:
        """(N,) lengths, uniform in 1..T, where the race or the form has them."""
        if self.race != "lengths" and self.form not in RAGGED:
            return None
        return np.random.default_rng(0).integers(1, self.T + 1, size=self.N)

    @property
    def resets(self) -> np.ndarray | None:
        """(N, T) bool, true where a row's state starts anew before the step, where the race or the
        form has that."""
        if self.race != "resets" and self.form not in RESTARTED:
            return None
        return np.random.default_rng(0).random((self.N, self.T)) < RESETS

    @property
    def steps(self) -> int:
        """Steps of all sequences together."""
        return self.N * self.T if self.lengths is None else int(self.lengths.sum())

    @property
    def flops(self) -> float:
        """Floating-point operations of its matrix products, a backward pass counting twice; 0 of a
        case that starts from texts, is a module or one of FORMS."""
        if self.of_text or self.of_modules or self.of_forms:
            return 0.0
        inputs = self.W or self.D
        products = 2.0 * self.steps * (inputs + self.H) * GATES[self.cell] * self.H
        if self.direction == "iteration":
            products += 2.0 * (self.steps * self.H * self.V + self.N * self.D * self.H)
        passes = {"forward+backward": 3, "bidirectional": 6, "iteration": 3}
        return products * passes.get(self.direction, 1)

    def asdict(self) -> dict[str, object]:
        """For JSON; Case.of reads it."""
        return asdict(self)

    @classmethod
    def of(cls, row: dict[str, object]) -> "Case":
        """The case of a result's row; earlier ones have no form."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__ if name in row})


@dataclass(frozen=True)
class Choice:
    """What the races have in common: cells, dtype, shapes instead of the standard ones (empty:
    those); quick leaves out the largest shapes and every other point of a line of sizes.
    """

    cells: Sequence[str]
    dtype: str
    shapes: Sequence[Shape] = ()
    quick: bool = False

    def among(self, shapes: Iterable[Shape]) -> list[Shape]:
        """The shapes to race of a race's standard ones."""
        left_out = LARGEST_SHAPES if self.quick else ()
        return [*self.shapes] or [shape for shape in shapes if shape not in left_out]

    def of_line(self, points: Sequence) -> Sequence:
        """The points to race of a line of sizes."""
        return points[::2] if self.quick else points

    def cases(self, race: str, directions: Iterable[str], shapes: Iterable[Shape]) -> list[Case]:
        """Every cell in every direction over every shape, one after the other."""
        shapes = [*shapes]
        return [
            Case(race, cell, direction, *shape, dtype=self.dtype)
            for cell in self.cells
            for shape in shapes
            for direction in directions
        ]


def choose(races: Iterable[str], choice: Choice) -> list[Case]:
    """The cases of some races."""
    return [case for race in races for case in RACES[race](choice)]


BOTH = ("forward+backward",)


def _layers(choice: Choice) -> list[Case]:
    return choice.cases("layers", ("forward", *BOTH), choice.among(SHAPES))


def _captioning(choice: Choice) -> list[Case]:
    """The captioner of the notebooks: 25 captions of 17 words, 1,004 words in the vocabulary."""
    drawn = choice.cases("captioning", ("iteration",), [(25, 16, 512, 512)])
    return [replace(case, W=256, V=1004) for case in drawn]


def _steps(choice: Choice) -> list[Case]:
    sizes = [(H, H) for H in choice.of_line(STEP_SIZES)]
    sizes += [(1, H) for H in choice.of_line(AUDIO_SIZES)]
    one = choice.cases("step", ("step", "stream"), [(1, 1, *size) for size in sizes])
    return one + choice.cases("step", ("steps",), [(1, MANY_STEPS, *size) for size in sizes])


def _lengths(choice: Choice) -> list[Case]:
    return choice.cases("lengths", (*BOTH, "bidirectional"), choice.among(LENGTHS_SHAPES))


def _resets(choice: Choice) -> list[Case]:
    return choice.cases("resets", BOTH, choice.among(LENGTHS_SHAPES))


def _memory(choice: Choice) -> list[Case]:
    layers = choice.cases("memory", BOTH, choice.shapes or choice.of_line(MEMORY_SHAPES))
    vectors = [] if choice.shapes or choice.quick else _vectors("memory", choice, VECTORS[-1:])
    return layers + vectors


def _scaling(choice: Choice) -> list[Case]:
    # A shape that lies on two lines is raced once.
    points = dict.fromkeys(shape for line in SCALING.values() for shape in choice.of_line(line))
    return choice.cases("scaling", BOTH, points)


def _text(choice: Choice) -> list[Case]:
    """Whatever the cells and the shapes: the course's sizes."""
    lstm, bow = {"D": 100, "H": 128, "V": 8000}, {"D": 0, "H": 0, "V": 8000}
    avg = bow | {"D": 100}
    common = {"race": "text", "dtype": choice.dtype}
    return [
        Case(cell="lstm", direction="training", N=2560, T=40, **lstm, **common),
        Case(cell="bow", direction="fit", N=20_000, T=40, **bow, **common),
        Case(cell="avg", direction="fit", N=20_000, T=40, **avg, **common),
        Case(cell="lstm", direction="predict", N=1, T=10, **lstm, **common),
        Case(cell="bow", direction="predict", N=1, T=10, **bow, **common),
        Case(cell="avg", direction="predict", N=1, T=10, **avg, **common),
        *_vectors("text", choice, choice.of_line(VECTORS)),
    ]


def _vectors(race: str, choice: Choice, rows: Iterable[int]) -> list[Case]:
    """Word vectors from files of so many rows."""
    return [Case(race, "vectors", "load", N, 1, 100, 0, choice.dtype, V=20_000) for N in rows]


def _torch(choice: Choice) -> list[Case]:
    cases = [
        replace(case, form=form)
        for form, shapes in USES.items()
        for case in choice.cases("torch", ("forward", "update"), choice.among(shapes))
        if form != "projected" or case.cell == "lstm"
    ]
    double = replace(choice, dtype="float64")
    drawn = double.cases("torch", ("forward", "update"), choice.among(FLOAT64_SHAPES))
    return [*dict.fromkeys(cases + drawn)]


def _models(choice: Choice) -> list[Case]:
    return [
        Case("models", cell, direction, *shape, dtype=choice.dtype, form=form)
        for form, (cell, direction, standard) in MODELS.items()
        for shape in choice.shapes or [standard]
        if cell in choice.cells
    ]


def _cells(choice: Choice) -> list[Case]:
    return [
        replace(case, form=name)
        for name, form in FORMS.items()
        for case in choice.cases(
            "cells", BOTH, choice.among((*FORMS_SHAPES, *LONG_SHAPES.get(name, ())))
        )
        if case.cell in form.cells
    ]


RACES = {
    "layers": _layers,
    "captioning": _captioning,
    "step": _steps,
    "lengths": _lengths,
    "resets": _resets,
    "memory": _memory,
    "scaling": _scaling,
    "text": _text,
    "torch": _torch,
    "models": _models,
    "cells": _cells,
}
