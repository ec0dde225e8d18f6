"""A run's folder: what was trained, on what, and how to look at new pictures the same way.

run.json            settings, vocabulary, and where features come from
model.safetensors   the parameters (the best validated ones), and pca/mean, pca/components
checkpoint.json     and checkpoint-*.safetensors, to resume
1/, 2/, ...         the same of an ensemble's other models
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn import runs, storage
from fastrnn.captioning.captioner import Captioner, together
from fastrnn.captioning.model import SHAPING, CaptioningRNN, shapes
from fastrnn.captioning.settings import OF_MODEL, of_file
from fastrnn.captioning.vocabulary import check_indices
from fastrnn.nn.single import CELLS
from fastrnn.settings import OBJECT, TEXT, check, integer, mapped, one_of, recorded

MODEL = "model.safetensors"
KINDS = {
    "model": OBJECT,
    "settings": OBJECT,
    "data": TEXT,
    "source": mapped(TEXT),
    "word_to_idx": mapped(integer(0)),
}
# Of a model, as run.json has it beside OF_MODEL.
MODEL_KINDS = {
    **dict.fromkeys(("input_dim", "wordvec_dim", "hidden_dim"), integer(1)),
    "cell_type": one_of(*CELLS),
    "dtype": one_of("float32", "float64"),
}


class Run(NamedTuple):
    """A trained captioner, of one model or several alike; settings, as given to train; data, its
    folder; source, of the features; reduction, a PCA's mean (D,) and components (D, K), or None."""

    models: list[CaptioningRNN]
    settings: dict[str, object]
    data: str
    source: dict[str, str]
    reduction: tuple[np.ndarray, np.ndarray] | None

    @property
    def model(self) -> CaptioningRNN:
        """The first one, which all are like."""
        return self.models[0]

    @property
    def captioner(self) -> Captioner:
        """What says captions."""
        return together(self.models)

    def use(self, backend: str | None) -> None:
        """Compute by this backend."""
        for model in self.models:
            model.backend = backend


def member(folder: Path, i: int) -> Path:
    """Where a run's model i has its checkpoint."""
    return folder / str(i) if i else folder


def _prefix(i: int) -> str:
    return f"{i}/params" if i else "params"


def write_settings(folder: Path | str, run: Run) -> None:
    """Write run.json, before training."""
    model = run.model
    runs.write(
        Path(folder),
        "caption",
        {
            "model": {
                "input_dim": model.params["W_proj"].shape[0],
                "wordvec_dim": model.params["W_embed"].shape[1],
                "hidden_dim": model.params["W_proj"].shape[1],
                "cell_type": model.cell_type,
                "dtype": model.dtype.name,
                **{name: getattr(model, name) for name in OF_MODEL},
            },
            "settings": run.settings,
            "data": run.data,
            "source": run.source,
            "word_to_idx": model.word_to_idx,
        },
    )


def write_model(folder: Path | str, run: Run) -> None:
    """Write model.safetensors."""
    tensors = {
        f"{_prefix(i)}/{name}": w
        for i, model in enumerate(run.models)
        for name, w in model.params.items()
    }
    if run.reduction is not None:
        tensors["pca/mean"], tensors["pca/components"] = run.reduction
    storage.write_tensors(Path(folder) / MODEL, tensors)


def read_settings(folder: Path) -> dict:
    """run.json. Raises FileNotFoundError or ValueError that names the file."""
    content = runs.read(folder, "caption", KINDS)
    with storage.named(folder / runs.RUN, "a run of caption train"):
        check_indices(content["word_to_idx"])
        content["settings"] = of_file(content["settings"])
        content["model"] = _model_of_file(content["model"])
    return content


def _model_of_file(written):
    own = {name: written[name] for name in MODEL_KINDS}
    check(own, MODEL_KINDS)
    options = {name: value for name, value in written.items() if name not in own}
    return own | recorded(options, OF_MODEL)


def read_run(folder: Path | str) -> Run:
    """A finished run. Raises FileNotFoundError or ValueError that names the file at fault."""
    content = read_settings(Path(folder))
    path = Path(folder) / MODEL
    if not path.exists():
        raise FileNotFoundError(f"{folder}: not trained to the end (no {MODEL}); resume it first")
    tensors, described = storage.read_tensors(path), content["model"]
    sizes = (described[name] for name in ("input_dim", "wordvec_dim", "hidden_dim", "cell_type"))
    shaping = {name: described[name] for name in SHAPING}
    expected = shapes(len(content["word_to_idx"]), *sizes, **shaping)
    models = []
    for i in range(content["settings"]["ensemble"]):
        params = storage.take(path, tensors, _prefix(i), expected, described["dtype"])
        models.append(CaptioningRNN(content["word_to_idx"], **described, params=params))
    reduction = None
    if "pca/mean" in tensors:  # of a grid's places, for attention
        size, dtype = (tensors["pca/mean"].size, described["input_dim"]), tensors["pca/mean"].dtype
        pca = storage.take(path, tensors, "pca", {"mean": size[:1], "components": size}, dtype)
        reduction = pca["mean"], pca["components"]
    return Run(models, content["settings"], content["data"], content["source"], reduction)
