"""A trained classifier of texts: vocabulary, classes, one network or an ensemble; and its files.

classifier.json           format, classes, settings, vocabulary, and the name of the other file
classifier-*.safetensors  the parameters, "0/W_embed" being of the first network
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fastrnn import storage
from fastrnn.backends import use_backend
from fastrnn.nn.graphs import write
from fastrnn.settings import OBJECT, TEXT, Kind, check, integer, listed, optional
from fastrnn.text.encoders import Bag, Recurrent
from fastrnn.text.networks import Network, initial_params, shapes
from fastrnn.text.onnx import serialized
from fastrnn.text.settings import complete
from fastrnn.text.vocabulary import Sentences, Vocabulary, as_sets

DESCRIPTION = "classifier.json"
FORMAT = 1
KINDS = {
    "settings": OBJECT,
    "classes": listed(Kind("text or a number", lambda v: isinstance(v, str | int | float))),
    "networks": integer(1),
    "vocabulary": listed(TEXT),
    "tensors": TEXT,
    "extra": optional(OBJECT),
}
# What one forward pass of predictions reads: sentences, of similar lengths, and words with their
# padding.
BATCH, WORDS = 256, 1 << 14


def encode(vocabulary: Vocabulary, texts: Sequence[str], settings: dict[str, object]) -> Sentences:
    """Texts as a model of these settings reads them."""
    sentences = vocabulary.encode(texts)
    return as_sets(sentences) if settings["model"] == "bow" else sentences


def encoder_of(settings: dict[str, object], C: int) -> Bag | Recurrent:
    """What the settings (settings.SETTINGS) say of how to read a sentence; C classes."""
    model, words, scale = (settings[n] for n in ("model", "word_dropout", "embedding_scale"))
    tuned, W = not settings["freeze"], settings["embedding_dim"]
    if model == "bow":
        return Bag(C, "sum", words, scale=0.0)
    if model == "avg":
        return Bag(W, "mean", words, tuned, scale)
    return Recurrent(
        model,
        W,
        settings["hidden_dim"],
        settings["bidirectional"],
        settings["pooling"],
        words,
        settings["embedding_dropout"],
        tuned,
        scale,
        settings["zoneout"],
        settings["recurrent_dropout"],
    )


def shapes_of(settings: dict[str, object], V: int, C: int) -> dict[str, tuple[int, ...]]:
    """Of the parameters of the network of these settings for V words and C classes."""
    return shapes(encoder_of(settings, C), V, C, settings["model"] != "bow")


def build(
    settings: dict[str, object],
    V: int,
    C: int,
    *,
    vectors: np.ndarray | None = None,
    seed: int | tuple[int, ...] | None = None,
) -> Network:
    """The untrained network of these settings for V words and C classes; vectors, seed as
    initial_params'."""
    encoder, linear = encoder_of(settings, C), settings["model"] != "bow"
    start = {"dtype": settings["dtype"], "vectors": vectors, "seed": seed}
    return _network(settings, encoder, initial_params(encoder, V, C, linear, **start))


def _network(settings, encoder, params):
    dropout = settings["dropout"] if "W" in params else 0.0
    return Network(encoder, params, dropout=dropout, backend=settings["backend"])


class TextModel:
    """What training leaves and prediction needs.

    Attributes: vocabulary; classes, a list of names; networks, whose probabilities are averaged;
    settings, as given to train; extra, what the description holds for others.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        classes: Sequence[str],
        networks: Sequence[Network],
        settings: dict[str, object],
        extra: dict[str, object] | None = None,
    ) -> None:
        self.vocabulary, self.classes = vocabulary, list(classes)
        self.networks, self.settings, self.extra = list(networks), settings, extra or {}
        self._params = [ready(network) for network in self.networks]

    def __reduce__(self):  # prepared weights are not worth pickling
        content = self.vocabulary, self.classes, self.networks, self.settings, self.extra
        return TextModel, content

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities (N, C) of texts of white-space separated tokens, in float32 or float64 as
        the model is. Raises ValueError for one string in place of several."""
        if isinstance(texts, str):
            raise ValueError("texts: expected a sequence of strings, got one string")
        return self.proba(encode(self.vocabulary, texts, self.settings))

    def proba(self, sentences: Sentences) -> np.ndarray:
        """Probabilities (N, C) of sentences as encode makes them."""
        ready = zip(self.networks, self._params, strict=True)
        members = [probabilities(network, sentences, params) for network, params in ready]
        return members[0] if len(members) == 1 else np.mean(members, axis=0)

    def save(self, folder: Path | str, extra: dict[str, object] | None = None) -> None:
        """Write the two files into a folder, which is made if it is missing; extra, in place of the
        model's. A model that was there is whole until the new one is."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{i}/{name}": w
            for i, network in enumerate(self.networks)
            for name, w in network.params.items()
        }
        description = {
            "format": FORMAT,
            "classes": self.classes,
            "networks": len(self.networks),
            "settings": self.settings,
            "vocabulary": self.vocabulary.words,
            "extra": self.extra if extra is None else extra,
        }
        tag = storage.digest(tensors)[:12]
        storage.write_named(folder / DESCRIPTION, tag, description, tensors)

    def to_onnx(self, path: Path | str, *, lengths: bool = True) -> None:
        """Write the networks as an ONNX model of opset 14, atomically.

        It takes words (N, T), int64, indices as encode makes them, 0 past a text's length, and
        lengths (N,), int32, unless with lengths=False all texts have T words; it returns
        probabilities (N, C). N and T may be any. The vocabulary stays with the caller. Raises
        ValueError for zoneout and for a cell that ONNX has not.
        """
        write(path, serialized(self.networks, lengths=lengths))

    @classmethod
    def load(cls, folder: Path | str) -> "TextModel":
        """Read what save wrote.

        Raises FileNotFoundError, or ValueError that names the file for another format or for
        tensors that do not fit the description.
        """
        path = Path(folder) / DESCRIPTION
        if not path.exists():
            raise FileNotFoundError(
                f"{folder}: no trained classifier (no {DESCRIPTION}); was its training finished?"
            )
        content = storage.read_json(path)
        if content.get("format") != FORMAT:
            raise ValueError(f"{path}: expected format {FORMAT}, got {content.get('format')!r}")
        with storage.named(path, "a classifier's description"):
            settings, vocabulary, classes, count = _described(content)
        tensors = storage.read_named(path, content)
        path = storage.named_tensors(path, content)
        encoder, dtype = encoder_of(settings, len(classes)), np.dtype(settings["dtype"])
        expected = shapes_of(settings, len(vocabulary), len(classes))
        networks = []
        for i in range(count):
            params = storage.take(path, tensors, str(i), expected, dtype)
            networks.append(_network(settings, encoder, params))
        return cls(vocabulary, classes, networks, settings, content.get("extra"))


def _described(content):
    check({name: content[name] for name in KINDS}, KINDS)
    settings, classes, count = (content[name] for name in ("settings", "classes", "networks"))
    settings = complete(settings)
    vocabulary = Vocabulary(content["vocabulary"], settings["ngrams"], settings["tokenizer"])
    if len(set(classes)) < max(2, len(classes)):
        raise ValueError(f"classes: expected two or more, all different, got {classes!r:.200}")
    return settings, vocabulary, classes, count


def ready(network: Network) -> dict[str, object]:
    """The parameters of a network for many predictions."""
    params = dict(network.params)
    if isinstance(network.encoder, Recurrent):
        with use_backend(network.backend):
            params |= network.encoder.prepared(params)
    return params


def probabilities(
    network: Network, sentences: Sentences, params: dict[str, object] | None = None
) -> np.ndarray:
    """Probabilities (N, C), computed in batches of similar lengths."""
    N, lengths = len(sentences.first) - 1, sentences.lengths
    if N <= 1:
        return _softmax(network.scores(sentences, params))
    result = np.empty((N, len(network.params["b"])), network.params["b"].dtype)
    for batch in batches(lengths, BATCH, WORDS):
        result[batch] = _softmax(network.scores(sentences.take(batch), params))
    return result


def batches(lengths: np.ndarray, rows: int, words: int) -> Iterator[np.ndarray]:
    """The indices of sentences of these lengths, the longest first, in batches of at most so many
    rows and, where there are several, at most so many words with their padding."""
    order, begin = np.argsort(-lengths, kind="stable"), 0
    while begin < len(order):
        longest = max(1, lengths[order[begin]])
        batch = order[begin : begin + max(1, min(rows, words // longest))]
        yield batch
        begin += len(batch)


def _softmax(scores: np.ndarray) -> np.ndarray:
    # The ufuncs, not the methods: of one sentence's scores they take half the time.
    e = np.exp(scores - np.maximum.reduce(scores, axis=1, keepdims=True))
    e /= np.add.reduce(e, axis=1, keepdims=True)
    return e
