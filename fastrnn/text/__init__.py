"""Text classification from a bag of words to an LSTM, on fastrnn's own layers."""

from typing import TYPE_CHECKING

from fastrnn.text.corpus import read_labelled, read_lines
from fastrnn.text.embeddings import load_vectors
from fastrnn.text.model import TextModel
from fastrnn.text.training import Training

if TYPE_CHECKING:
    from fastrnn.text.estimator import TextClassifier

__all__ = ["TextClassifier", "TextModel", "Training", "load_vectors", "read_labelled", "read_lines"]


def __getattr__(name: str) -> type:
    # The one name that needs scikit-learn.
    if name == "TextClassifier":
        from fastrnn.text.estimator import TextClassifier

        return TextClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
