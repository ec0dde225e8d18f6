"""A run's folder: what was trained, on what, and how to look at new pictures the same way.

run.json            settings, vocabulary, and where features come from
model.safetensors   the parameters (the best validated ones), and pca/mean, pca/components
checkpoint.json     and checkpoint-*.safetensors, to resume
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn import runs, storage
from fastrnn.captioning.model import CaptioningRNN

MODEL = "model.safetensors"


class Run(NamedTuple):
    """A trained captioner; settings, as given to train; data, its folder; source, of the features;
    reduction, a PCA's mean (D,) and components (D, K), or None."""

    model: CaptioningRNN
    settings: dict[str, object]
    data: str
    source: dict[str, str]
    reduction: tuple[np.ndarray, np.ndarray] | None


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
                "dropout": model.dropout,
            },
            "settings": run.settings,
            "data": run.data,
            "source": run.source,
            "word_to_idx": model.word_to_idx,
        },
    )


def write_model(folder: Path | str, run: Run) -> None:
    """Write model.safetensors."""
    tensors = {f"params/{name}": w for name, w in run.model.params.items()}
    if run.reduction is not None:
        tensors["pca/mean"], tensors["pca/components"] = run.reduction
    storage.write_tensors(Path(folder) / MODEL, tensors)


def read_run(folder: Path | str) -> Run:
    """A finished run. Raises FileNotFoundError or ValueError that names the file at fault."""
    content = runs.read(Path(folder), "caption")
    path = Path(folder) / MODEL
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: not trained to the end (no {MODEL}); resume it first")
    tensors = storage.read_tensors(path)
    model = CaptioningRNN(content["word_to_idx"], **content["model"])
    for name, w in model.params.items():
        saved = tensors.get(f"params/{name}")
        if saved is None or saved.shape != w.shape or saved.dtype != w.dtype:
            got = "nothing" if saved is None else f"{saved.shape} {saved.dtype}"
            raise ValueError(f"{path}: params/{name}: expected {w.shape} {w.dtype}, got {got}")
        model.params[name] = saved
    reduction = None
    if "pca/mean" in tensors:
        reduction = tensors["pca/mean"], tensors["pca/components"]
    return Run(model, content["settings"], content["data"], content["source"], reduction)
