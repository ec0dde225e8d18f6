"""The calls of a case: layers forward and backward, losses, prepared weights, streams, rules.

A program draws all it needs and returns a generator function of the backend, which makes the calls
and yields a name and a value for each result; it runs as often as there are ways to run it. jitter
is applied to every operand and to what a backward pass reads.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator

import numpy as np

import fastrnn

from .draws import COPIES, Draw

Results = Iterator[tuple[str, object]]
Jitter = Callable[[object], object]
Run = Callable[[str, Jitter], Results]


class Broken(Exception):
    """Something is wrong whatever the other backend says."""


def public_functions() -> dict[str, Callable]:
    """All that computes on arrays: what takes backend=, by name."""
    all_names = {name: getattr(fastrnn, name) for name in fastrnn.__all__} | fastrnn.optim.RULES
    functions = {name: f for name, f in all_names.items() if inspect.isfunction(f)}
    return {n: f for n, f in functions.items() if "backend" in inspect.signature(f).parameters}


# ---- layers --------------------------------------------------------------------------------------

STANDARD = {"rnn": "1", "lstm": "4", "gru": "3"}
GATES = STANDARD | {"mgu": "2", "min_gru": "2", "min_lstm": "3", "ind_rnn": "1"}
STATES = dict.fromkeys(GATES, "h") | {"lstm": "hc"}
AXES = {"h": "N P", "c": "N H"}
ORDERS = {
    "lstm": ("ifog", "fico", "ifgo", "iofg"),
    "gru": ("rzn", "zrn"),
    "mgu": ("fn", "nf"),
    "min_gru": ("zn", "nz"),
    "min_lstm": ("fin", "nfi"),
}
NONLINEARITIES = {
    "rnn": ("tanh", "relu"),
    "min_gru": ("linear", "positive"),
    "min_lstm": ("linear", "positive"),
    "ind_rnn": ("relu", "tanh"),
}
WEIGHTS = ("Wx", "Wh", "u", "b", "gates", "bh", "reset_after", "nonlinearity", "transposed")
WEIGHTS += ("projection",)


def weights_of(draw: Draw, cell: str) -> dict[str, object]:
    """Those of WEIGHTS that the cell has, with or without what may be left out; h has P columns."""
    columns, given = f"{GATES[cell]}*H", draw.some(0.3, transposed=lambda: draw.chance(0.8))
    if cell in NONLINEARITIES:
        given |= draw.some(0.5, nonlinearity=lambda: draw.pick(NONLINEARITIES[cell]))
        # Infinities that no tanh ends cancel or not by the order of a sum.
        draw.special &= given.get("nonlinearity", NONLINEARITIES[cell][0]) == "tanh"
    draw.sizes["P"], matrices = draw.sizes["H"], [("Wx", "D", columns)]
    if cell == "lstm" and draw.sizes["H"] > 1 and draw.chance(0.3):
        draw.sizes["P"] = draw.number(1, draw.sizes["H"] - 1)
        matrices.append(("projection", "H", "P"))
    if cell in STANDARD or cell == "mgu":
        matrices.append(("Wh", "P", columns))
    for name, rows, across in matrices:
        axes = f"{across} {rows}" if given.get("transposed") else f"{rows} {across}"
        given[name] = draw.weights(axes, draw.sizes[rows])
    if cell == "ind_rnn":
        given["u"] = draw.weights("H", 9)
    given["b"] = draw.reals(columns)
    if cell in ORDERS:
        given |= draw.some(0.5, gates=lambda: draw.pick(ORDERS[cell]))
    if cell == "gru":
        given |= draw.some(0.5, bh=lambda: draw.reals(columns))
        given |= draw.some(0.5, reset_after=lambda: draw.chance(0.4))
    return given


def options_of(draw: Draw, cell: str, nonlinearity: str, indexed: bool) -> fastrnn.Options:
    """Some of those that the cell has."""

    def p():
        return draw.pick((0.0, 0.1, 0.5, 0.9))

    kinds = dict.fromkeys(("zoneout_h", "dropout_h", "dropout_weights"), p)
    kinds |= {
        "clip": lambda: draw.pick((0.5, 2.0, 20)),
        "clip_gradient": lambda: draw.pick((0.1, 1)),
    }
    kinds |= {
        "seed": lambda: draw.pick((0, 1, 2**63, 2**64 - 1)),
        "first_step": lambda: draw.number(0, 9),
    }
    if not indexed:
        kinds["dropout_x"] = p
    if cell != "rnn":
        kinds |= {"dropout_candidate": p, "hard_sigmoid": lambda: draw.pick((0.2, 1 / 6))}
    if cell == "lstm":
        kinds["zoneout_c"] = p
    if nonlinearity == "relu":
        kinds["cap"] = lambda: draw.pick((0.5, 20.0))
    given = draw.some(0.25, **kinds)
    if draw.chance(0.05):
        given = draw.spoilt(given)
    return fastrnn.Options(**given)


def beside_weights(
    draw: Draw, cell: str, given: dict[str, object], indexed: bool
) -> dict[str, object]:
    """Options, and peepholes or layer normalisation."""
    if cell not in STANDARD:
        return {}
    nonlinearity = given.get("nonlinearity", "tanh")
    beside = draw.some(0.25, options=lambda: options_of(draw, cell, nonlinearity, indexed))
    if cell == "lstm":
        beside |= draw.some(0.25, peepholes=lambda: draw.reals("3*H"))
    others = "projection" in given or "peepholes" in beside
    if cell != "rnn" and not others and given.get("reset_after", True) is True:
        beside |= draw.some(0.25, layer_norm=lambda: layer_norm_of(draw, cell))
    return beside


def layer_norm_of(draw: Draw, cell: str) -> fastrnn.LayerNorm:
    """Its parameters."""
    norm = {name: draw.reals(f"{GATES[cell]}*H") for name in ("gain_x", "gain_h")}
    if cell == "lstm":
        norm |= {name: draw.reals("H") for name in ("gain_c", "shift_c")}
    norm |= draw.some(0.5, eps=lambda: draw.pick((1e-5, 1e-3, 1)))
    return fastrnn.LayerNorm(**(draw.spoilt(norm) if draw.chance(0.05) else norm))


def _cell(draw, name):
    cell, step = name.removesuffix("_step"), name.endswith("_step")
    given = weights_of(draw, cell) | draw.some(0.4, training=lambda: draw.chance(0.5))
    indexed = not step and draw.chance(0.25)
    given |= beside_weights(draw, cell, given, indexed)
    if step:
        given |= {f"prev_{s}": draw.reals(AXES[s]) for s in STATES[cell]}
    else:
        some = [s for s in STATES[cell] if s == "h" or draw.chance(0.5)]
        given |= {f"{s}0": draw.reals(AXES[s]) for s in some}
        given |= draw.some(
            0.3,
            lengths=lambda: draw.integers(draw.shape("N"), draw.sizes["T"] + 1),
            reverse=lambda: draw.chance(0.8),
            reset=lambda: draw.bools("N T", 0.3),
            reset_to=lambda: draw.pick(("zeros", "initial")),
            return_sequence=lambda: draw.chance(0.3),
        )
    if indexed:
        given["index"] = draw.integers(draw.shape("N T"), draw.sizes["U"])
    given["x"] = draw.reals("N D" if step else "U D" if indexed else "N T D")
    return given if step or indexed or draw.chance(0.6) else _laid_out(draw, given)


def _laid_out(draw, given):
    """The same in a layout that is said."""
    layout, axes = draw.pick(("batch_first", "time_first", "packed")), draw.shape("T N D")
    if layout == "packed":
        lengths = np.sort(draw.integers(draw.shape("N"), draw.sizes["T"] + 1))[::-1]
        given["lengths"] = draw.placed(lengths)
        axes = int(lengths.sum(dtype=int)), draw.sizes["D"]
    if layout != "batch_first":
        given["x"] = draw.reals(axes)
        if "reset" in given:
            given["reset"] = draw.placed(draw.values(axes[:-1]) > 0.5)
    return given | {"layout": layout}


def _affine(draw, name):
    given = {"w": draw.weights("D M", draw.sizes["D"]), "b": draw.reals("M")}
    if name.startswith("temporal"):
        return given | {"x": draw.reals("N T D")}
    N, D = draw.shape("N D")
    return given | {"x": draw.reals(draw.pick(((N, D), (N, D), (N, 1, D), (N, D, 1, 1))))}


def _word_embedding(draw, name):
    axes = draw.pick(("N T", "N T", "N", "N T U", ""))
    return {"W": draw.reals("V W"), "x": draw.integers(draw.shape(axes), draw.sizes["V"])}


def _embedding_bag(draw, name):
    lengths = draw.integers(draw.shape("N"), draw.sizes["T"] + 1)
    x = draw.integers((int(lengths.sum(dtype=int)),), draw.sizes["V"])
    given = {"W": draw.reals("V W"), "x": x, "lengths": lengths}
    return given | draw.some(0.5, mode=lambda: draw.pick(("sum", "mean")))


def _attention(draw, name):
    by_index = draw.chance(0.4)
    looked_at = "U" if by_index else "N"
    given = {"query": draw.reals("N H")}
    given |= {"keys": draw.reals(f"{looked_at} W H"), "values": draw.reals(f"{looked_at} W D")}
    if by_index:
        given["index"] = draw.integers(draw.shape("N"), draw.sizes["U"])
    return given | draw.some(0.5, w=lambda: draw.reals("H"))


OPERANDS = {
    **{f"{cell}{step}": _cell for cell in GATES for step in ("", "_step")},
    **dict.fromkeys(("affine", "temporal_affine", "temporal_fc"), _affine),
    "word_embedding": _word_embedding,
    "embedding_bag": _embedding_bag,
    "attention": _attention,
}
# Of the gradients that backward functions take; dout is like out.
GRADIENTS = {"dh": "N T P", "dhT": "N P", "dcT": "N H", "dnext_h": "N P", "dnext_c": "N H"}
GRADIENTS |= {"dcontext": "N D", "dweights": "N W"}


def _out_shape(draw, name, given):
    if name.endswith("embedding"):
        return *given["x"].shape, draw.sizes["W"]
    axes = {"affine": "N M", "embedding_bag": "N W"}
    return draw.shape(axes.get(name, "N T M"))


def _douts(draw, name, backward, given):
    douts = {}
    gradients = dict(GRADIENTS)
    if "layout" in given:
        gradients["dh"] = *given["x"].shape[:-1], draw.sizes["P"]
    for parameter, about in inspect.signature(backward).parameters.items():
        if parameter == "dout":
            douts[parameter] = draw.reals(_out_shape(draw, name, given))
        elif parameter in GRADIENTS and about.default is None:
            douts |= draw.some(0.5, **{parameter: lambda p=parameter: draw.reals(gradients[p])})
        elif parameter in GRADIENTS:
            may_be_none = not parameter.startswith("dnext") and draw.chance(0.15)
            douts[parameter] = None if may_be_none else draw.reals(gradients[parameter])
        elif parameter not in ("cache", "backend"):
            douts |= draw.some(0.5, **{parameter: lambda: draw.chance(0.7)})
    return douts


def layer(draw: Draw, name: str) -> Run:
    """Forward and backward, perhaps each by another backend; perhaps a fault on the way."""
    forward, backward = (getattr(fastrnn, f"{name}_{way}") for way in ("forward", "backward"))
    given = OPERANDS[name](draw, name)
    douts = _douts(draw, name, backward, given)
    fault = draw.pick(("forward", "prepare", "cache", "backward")) if draw.chance(0.45) else None
    if fault == "forward":
        given = draw.spoilt(given)
    if fault == "backward":
        douts = draw.spoilt(douts)
    prepared = _prepared(draw, name.removesuffix("_step"), given, fault == "prepare")
    changed = _changed(draw, backward, fault == "cache")
    other = {"numpy": "cython", "cython": "numpy"} if draw.chance(0.2) else {}
    draw.note(f"{name}_forward", given)
    draw.note(f"{name}_backward", douts | {"cache": changed})

    def run(backend: str, jitter: Jitter) -> Results:
        args = dict(jitter(given))
        if prepared:
            args["Wx"] = prepared(backend, jitter)
        *outputs, cache = forward(**args, backend=backend)
        yield from _named("out", outputs)
        yield from _named("cache", cache)
        if given.get("training", True) is True or fault:
            cache = jitter(changed(cache))
            gradients = backward(**jitter(douts), cache=cache, backend=other.get(backend, backend))
            yield from _named("d", gradients)

    return run


def _prepared(draw, cell, given, faulty):
    """Nothing, or a function that prepares the weights, which given then is without."""
    if cell not in GATES or not (faulty or draw.chance(0.2)):
        return None
    weights = {key: given.pop(key) for key in WEIGHTS if key in given}
    weights = _as_prepare_has_them(cell, weights)
    weights |= draw.some(0.5, training=lambda: draw.chance(0.7))
    changed = draw.copier()
    if faulty and draw.chance(0.5):
        weights = draw.spoilt(weights)
    elif faulty:
        changed = draw.spoilt_field(fastrnn.PreparedWeights)
    draw.note("prepare", weights | {"then": changed})
    return lambda backend, jitter: changed(fastrnn.prepare(**jitter(weights), backend=backend))


def _as_prepare_has_them(cell, weights):
    """With what multiplies h, if anything, as Wh."""
    others = {key: value for key, value in weights.items() if key != "u"}
    return {"Wh": weights.get("u"), **others, "cell": cell}


def _changed(draw, backward, faulty):
    """What becomes of a cache before the backward pass: a copy, or one that is not its own."""
    if not faulty:
        return draw.copier()
    if draw.chance(0.1):
        draw.legal, another = False, draw.pick(foreign_caches())
        return lambda cache: another
    return draw.spoilt_field(inspect.get_annotations(backward)["cache"])


@functools.cache
def foreign_caches() -> tuple[object, ...]:
    """Of other calls than the one at hand."""
    x, h, b = np.ones((2, 3, 3)), np.ones((3, 3)), np.ones(3)
    made = [
        *(fastrnn.affine_forward(h, h, b), fastrnn.temporal_affine_forward(x, h, b)),
        *(fastrnn.word_embedding_forward([0, 1], h), fastrnn.embedding_bag_forward([0], [1], h)),
        *(fastrnn.rnn_forward(x, h[:2], h, h, b), fastrnn.rnn_step_forward(h, h, h, h, b)),
    ]
    W, b = np.ones((3, 12)), np.ones(12)
    for training in (False, True):
        made.append(fastrnn.lstm_forward(x, h[:2], W, W, b, training=training))
        made.append(fastrnn.gru_step_forward(h, h, W[:, :9], W[:, :9], b[:9], training=training))
    return None, (), *(cache for *_, cache in made)


def _named(prefix, values):
    """Each of some results; a lone one, too."""
    if hasattr(values, "_asdict"):
        values = values._asdict()
    if isinstance(values, np.ndarray):
        values = [values]
    named = values.items() if isinstance(values, dict) else enumerate(values)
    for name, value in named:
        if name != "packed":  # a backend's own
            yield f"{prefix}.{name}", value


# ---- losses --------------------------------------------------------------------------------------


def loss(draw: Draw, name: str) -> Run:
    """softmax_loss or temporal_softmax_loss."""
    axes = "N T" if name.startswith("temporal") else "N"
    given = {"x": draw.reals(f"{axes} V")}
    given["y"] = draw.integers(draw.shape(axes), draw.sizes["V"])
    if name.startswith("temporal"):
        given |= draw.some(
            0.5,
            mask=lambda: draw.pick((lambda: draw.bools(axes, 0.7), lambda: draw.reals(axes)))(),
            label_smoothing=lambda: draw.pick((0.0, 0.1, 0.9)),
            verbose=lambda: draw.chance(0.2),
        )
    if draw.chance(0.35):
        given = draw.spoilt(given)
    draw.note(name, given)

    def run(backend: str, jitter: Jitter) -> Results:
        yield from _named("out", getattr(fastrnn, name)(**jitter(given), backend=backend))

    return run


# ---- streams -------------------------------------------------------------------------------------


_STREAMS = "those before"


def stream(draw: Draw, name: str) -> Run:
    """A stream, or a chain of some, and a handful of its methods one after the other; a refused one
    changes nothing."""
    draw.sizes["N"], chained = max(draw.sizes["N"], 1), name == "Chain"
    layers = _streams(draw, draw.number(1, 3) if chained else 1)
    links = _links(draw) if chained else {}
    cells = [(given["cell"], P) for given, *_, P in layers]
    columns = "M" if "head" in links else "P"
    actions = [_action(draw, name, cells, columns) for _ in range(draw.number(1, 5))]

    def run(backend: str, jitter: Jitter) -> Results:
        made = [
            _stream(jitter(given), prepared, jitter(beside), backend)
            for given, prepared, beside, _ in layers
        ]
        if chained:
            given = {key: _moved(value, jitter) for key, value in links.items()}
            made = fastrnn.Chain(**({"streams": made} | given))
        else:
            (made,) = made
        copied = []
        for i, (method, action) in enumerate(actions):
            original, before = made, frozen(made.state)
            try:
                value, made = action(made, jitter)
            except Exception as error:
                value = error  # and the next one is taken
                if frozen(made.state) != before:
                    raise Broken(f"{backend}: {method} refused ({error}), but changed") from error
            if made is not original:
                copied.append((original, before))
            yield f"{i}.{method}", value
            for j, state in enumerate(made.state if chained else [made.state]):
                yield from _named(f"{i}.state{j}", state)
        if any(frozen(original.state) != before for original, before in copied):
            raise Broken(f"{backend}: a copy's step changed what was copied")

    return run


def _streams(draw, count):
    """The arguments of so many streams that fit each other, whether they are prepared, and P."""
    D, layers = draw.sizes["D"], []
    for _ in range(count):
        cell = draw.pick(sorted(GATES))
        given = _as_prepare_has_them(cell, weights_of(draw, cell))
        beside = beside_weights(draw, cell, given, False)
        if draw.sizes["N"] > 1 or draw.chance(0.5):
            given["batch"] = draw.sizes["N"]
        if draw.chance(0.1):
            given = draw.spoilt(given)
        draw.note("Stream", given | beside)
        layers.append((given, draw.chance(0.3), beside, draw.sizes["P"]))
        draw.sizes["D"] = draw.sizes["P"]
    draw.sizes["D"] = D
    return layers


def _links(draw):
    """The other arguments of a chain, or one in place of its streams."""
    links = {}
    if draw.chance(0.5):
        head = {"w": draw.weights("P M", draw.sizes["P"]), "b": draw.reals("M")}
        links["head"] = tuple((draw.spoilt(head) if draw.chance(0.1) else head).values())
    given = links | {"streams": _STREAMS}
    if draw.chance(0.1):
        given = draw.spoilt(given)
    draw.note("Chain", given)
    return {key: value for key, value in given.items() if value is not _STREAMS}


def _moved(value, jitter):
    return tuple(map(jitter, value)) if isinstance(value, tuple) else value


def _stream(args, prepared, beside, backend):
    if not prepared:
        return fastrnn.Stream(**args, **beside, backend=backend)
    args = dict(args)
    batch = {key: args.pop(key) for key in ("batch",) if key in args}
    weights = fastrnn.prepare(**args, backend=backend)
    return fastrnn.Stream(args["cell"], weights, **batch, **beside, backend=backend)


def _action(draw, name, cells, columns):
    """The name of a method, and a function of a stream that returns a value and a stream."""
    method = draw.pick(("step", "step", "steps", "steps", "reset", "state", "copy"))
    if method in ("step", "steps"):
        return method, _stepping(draw, name, method, columns)
    if method == "reset":
        N = draw.sizes["N"]
        rows = draw.pick((None, draw.integers((2,), N), draw.bools("N", 0.5)))
        given = draw.spoilt({"rows": rows}) if draw.chance(0.2) else {"rows": rows}
        if isinstance(given["rows"], np.ndarray) and given["rows"].size > 1000:
            given["rows"] = None  # NumPy would walk through all of them
        draw.note(f"{name}.reset", given)
        return method, lambda stream, jitter: (stream.reset(**given), stream)
    if method == "state":
        states = [_state(draw, *cell) for cell in cells]
        if draw.chance(0.3):
            states[-1] = draw.spoilt(states[-1])
        return method, lambda stream, jitter: (_set_state(stream, jitter, states), stream)
    copied = draw.pick(COPIES)
    return method, lambda stream, jitter: (None, copied(stream))


def _state(draw, cell, P):
    widths = {"h": P, "c": draw.sizes["H"]}
    return {s: draw.reals((draw.sizes["N"], widths[s])) for s in STATES.get(str(cell), "h")}


def _set_state(stream, jitter, states):
    states = [jitter(state) for state in states]
    stream.state = states if isinstance(stream, fastrnn.Chain) else states[0]


def _stepping(draw, name, method, columns):
    axes = "T N" if method == "steps" else "N"
    x = draw.values(draw.shape(f"{axes} D"))
    out = np.zeros(draw.shape(f"{axes} {columns}"), draw.dtype)
    on_input = x.shape == out.shape and draw.chance(0.5)
    if on_input:  # or overlapping it
        memory, shift = draw.placed(np.zeros(x.size + 3, draw.dtype), True), draw.number(0, 3)
        given = {"x": memory[shift:][: x.size], "out": memory[3 - shift :][: x.size]}
        given = {key: a.reshape(x.shape) for key, a in given.items()}
    else:
        given = {"x": draw.placed(x)} | draw.some(0.4, out=lambda: draw.placed(out, True))
    if method == "steps":
        given |= draw.some(0.3, reset=lambda: draw.bools("T N", 0.3))
    if not on_input and draw.chance(0.2):
        given = draw.spoilt(given)
    draw.note(f"{name}.{method}", given)

    def action(stream, jitter):
        if on_input:
            given["x"][...] = x
        args = jitter(given) | {key: given[key] for key in ("out",) if key in given}
        return np.array(getattr(stream, method)(**args)), stream

    return action


def frozen(value: object) -> object:
    """What tells whether a value has changed."""
    if isinstance(value, dict):
        return {key: frozen(a) for key, a in value.items()}
    if isinstance(value, tuple | list):
        return [frozen(a) for a in value]
    if isinstance(value, np.ndarray) and value.dtype != object:
        # A long double has bytes of no meaning.
        held = np.asarray(value, "d" if value.dtype.char == "g" else None)
        return value.shape, value.dtype, held.tobytes() if value.nbytes < 2**40 else None
    return repr(value)


# ---- update rules --------------------------------------------------------------------------------

# Values of the settings of all rules; and which settings and state each has.
SETTINGS = {
    "learning_rate": (0.0, 1e-3, 0.1, np.float32(0.01)),
    "weight_decay": (0.0, 0.01),
    **dict.fromkeys(("momentum", "beta1", "beta2", "decay_rate"), (0.0, 0.5, 0.9)),
    "epsilon": (1e-8, 0.1),
    "t": (0, 3),
}
OF_RULES = {
    "sgd": ((), ()),
    "sgd_momentum": (("momentum",), ("velocity",)),
    "rmsprop": (("decay_rate", "epsilon"), ("cache",)),
    "adam": (("beta1", "beta2", "epsilon", "t"), ("m", "v")),
}


def rule(draw: Draw, name: str) -> Run:
    """A few steps of an update rule; a refused one changes nothing."""
    shape = draw.pick((draw.shape("V W"), draw.shape("V W"), draw.shape("W"), (), (3, 2, 5)))
    values = draw.values(shape)
    given = _parameter(draw, values) | {"dw": _gradient(draw, shape)}
    given |= draw.some(0.8, config=lambda: _config(draw, name, shape))
    w, steps = given["w"], draw.number(1, 3)
    fault = draw.pick(("arguments", "config", "dw")) if draw.chance(0.4) else None
    if fault == "config" and given.get("config"):
        given["config"] = draw.spoilt(given["config"])
    elif fault == "dw" and isinstance(given["dw"], tuple):
        given["dw"] = draw.spoilt_field(fastrnn.RowGradient)(given["dw"])
    elif fault:
        given = draw.spoilt(given)
    draw.note(name, given)

    def run(backend: str, jitter: Jitter) -> Results:
        w[...] = jitter(values)
        args = jitter(given) | {key: given[key] for key in ("w", "out") if key in given}
        args["config"] = copy.deepcopy(args.get("config"))
        for i in range(steps):
            before = frozen(args)
            try:
                after, args["config"] = getattr(fastrnn.optim, name)(**args, backend=backend)
            except Exception as error:
                if frozen(args) != before:
                    raise Broken(f"{backend}: refused ({error}), but changed") from error
                raise
            yield f"{i}.w", np.array(after)
            yield from _named(f"{i}.config", args["config"])
            args["w"] = after

    return run


def _parameter(draw, values):
    """w, and perhaps where the next one goes: over it, elsewhere, or a row further."""
    onto = draw.pick((None, None, "w", "elsewhere", "shifted"))
    if onto == "shifted" and values.ndim and len(values) > 1:
        memory = draw.placed(np.concatenate([values, values[:1]]), True)
        draw.legal = False  # it may be refused
        return {"w": memory[:-1], "out": memory[1:]}
    w = draw.placed(values, True)
    if onto == "elsewhere":
        return {"w": w, "out": draw.placed(values, True)}
    return {"w": w, "out": w} if onto == "w" else {"w": w}


def _gradient(draw, shape):
    """Of all rows or of some."""
    if not shape or not shape[0] or draw.chance(0.6):
        return draw.reals(shape)
    rows = draw.rows(shape[0])
    return fastrnn.RowGradient(rows, draw.reals((len(rows), *shape[1:])))


def _config(draw, name, shape):
    """Settings, and perhaps the state, of which averages of squares are not negative."""
    settings, state = OF_RULES[name]
    choices = {key: SETTINGS[key] for key in (*settings, "learning_rate", "weight_decay")}
    config = draw.some(0.4, **{key: lambda v=v: draw.pick(v) for key, v in choices.items()})
    if draw.chance(0.3):
        config |= {key: np.array(abs(draw.values(shape))) for key in state}
    return config


# ---- all -----------------------------------------------------------------------------------------


@functools.cache
def programs() -> dict[str, Callable[[Draw], Run]]:
    """A program for each public function, by name: a function without one has no operands here."""
    found = {"Stream": stream, "Chain": stream}
    for name in public_functions():
        stem = name.removesuffix("_backward").removesuffix("_forward")
        if name in fastrnn.optim.RULES:
            found[name] = rule
        elif name.endswith("_loss"):
            found[name] = loss
        elif stem != name:
            found[stem] = layer
    return found
