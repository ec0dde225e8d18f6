"""A trained classifier of texts: vocabulary, classes, one network or an ensemble; and its files.

classifier.json           format, classes, settings, vocabulary, and the name of the other file
classifier-*.safetensors  the parameters, "0/W_embed" being of the first network
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fastrnn import storage
from fastrnn.backends import use_backend
from fastrnn.nn.graphs import write
from fastrnn.settings import (
    FINITE,
    OBJECT,
    POSITIVE,
    TEXT,
    Kind,
    check,
    integer,
    listed,
    optional,
)
from fastrnn.text.calibration import tempered
from fastrnn.text.encoders import Bag, Recurrent
from fastrnn.text.networks import Network, initial_params, shapes
from fastrnn.text.onnx import serialized
from fastrnn.text.quantization import packed, unpacked
from fastrnn.text.settings import of_file
from fastrnn.text.vocabulary import Sentences, Vocabulary, as_sets

DESCRIPTION = "classifier.json"
FORMAT = 1
KINDS = {
    "settings": OBJECT,
    "classes": listed(Kind("text or a number", lambda v: isinstance(v, str | int | float))),
    "networks": integer(1),
    "vocabulary": listed(TEXT),
    "tensors": TEXT,
    "thresholds": optional(listed(FINITE)),
    "temperature": POSITIVE,
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
    multilabel: bool = False,
) -> Network:
    """The untrained network of these settings for V words and C classes; vectors, seed as
    initial_params', multilabel as Network's."""
    encoder, linear = encoder_of(settings, C), settings["model"] != "bow"
    start = {"dtype": settings["dtype"], "vectors": vectors, "seed": seed}
    params = initial_params(encoder, V, C, linear, **start)
    return _network(settings, encoder, params, multilabel)


def _network(settings, encoder, params, multilabel):
    dropout = settings["dropout"] if "W" in params else 0.0
    options = {"dropout": dropout, "backend": settings["backend"]}
    return Network(encoder, params, **options, multilabel=multilabel)


class TextModel:
    """What training leaves and prediction needs.

    Attributes: vocabulary; classes, a list of names; networks, whose probabilities are averaged;
    settings, as given to train; extra, what the description holds for others; thresholds (C,), the
    probabilities from which a text has a label, where it may have several, otherwise None;
    temperature, by which the logarithms of the odds are divided.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        classes: Sequence[str],
        networks: Sequence[Network],
        settings: dict[str, object],
        extra: dict[str, object] | None = None,
        *,
        thresholds: np.ndarray | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.vocabulary, self.classes = vocabulary, list(classes)
        self.networks, self.settings, self.extra = list(networks), settings, extra or {}
        self.thresholds, self.temperature = thresholds, temperature
        self._params = [ready(network) for network in self.networks]

    def __reduce__(self):  # prepared weights are not worth pickling
        content = self.vocabulary, self.classes, self.networks, self.settings, self.extra
        options = {"thresholds": self.thresholds, "temperature": self.temperature}
        return partial(TextModel, **options), content

    @property
    def multilabel(self) -> bool:
        """Whether a text may have several labels, or none."""
        return self.thresholds is not None

    def of(self, networks: Sequence[Network]) -> "TextModel":
        """The same model with other networks."""
        decision = {"thresholds": self.thresholds, "temperature": self.temperature}
        content = self.vocabulary, self.classes, networks, self.settings, self.extra
        return TextModel(*content, **decision)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities (N, C) of texts of white-space separated tokens, in float32 or float64 as
        the model is; a row sums to 1 unless the model is multilabel. Raises ValueError for one
        string in place of several."""
        if isinstance(texts, str):
            raise ValueError("texts: expected a sequence of strings, got one string")
        return self.proba(encode(self.vocabulary, texts, self.settings))

    def proba(self, sentences: Sentences) -> np.ndarray:
        """Probabilities (N, C) of sentences as encode makes them."""
        ready = zip(self.networks, self._params, strict=True)
        members = [probabilities(network, sentences, params) for network, params in ready]
        proba = members[0] if len(members) == 1 else np.mean(members, axis=0)
        return tempered(proba, self.temperature, self.multilabel)

    def decide(self, proba: np.ndarray) -> np.ndarray:
        """The labels of texts with these probabilities (N, C): indices (N,) of the likeliest; of a
        multilabel model which ones reach their thresholds, bool (N, C)."""
        return proba >= self.thresholds if self.multilabel else proba.argmax(axis=1)

    def save(self, folder: Path | str, extra: dict[str, object] | None = None) -> None:
        """Write the two files into a folder, which is made if it is missing; extra, in place of the
        model's. A model that was there is whole until the new one is."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        as_stored = packed if self.settings["quantize"] else dict
        tensors = {
            f"{i}/{name}": w
            for i, network in enumerate(self.networks)
            for name, w in as_stored(network.params).items()
        }
        description = {
            "format": FORMAT,
            "classes": self.classes,
            "networks": len(self.networks),
            "settings": self.settings,
            "vocabulary": self.vocabulary.words,
            "thresholds": None if self.thresholds is None else self.thresholds.tolist(),
            "temperature": self.temperature,
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
        write(path, serialized(self.networks, lengths=lengths, temperature=self.temperature))

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
            settings, vocabulary, classes, count, decision = _described(content)
        tensors = storage.read_named(path, content)
        path = storage.named_tensors(path, content)
        encoder, dtype = encoder_of(settings, len(classes)), np.dtype(settings["dtype"])
        expected = shapes_of(settings, len(vocabulary), len(classes))
        take, networks = unpacked if settings["quantize"] else storage.take, []
        for i in range(count):
            params = take(path, tensors, str(i), expected, dtype)
            multilabel = decision["thresholds"] is not None
            networks.append(_network(settings, encoder, params, multilabel))
        return cls(vocabulary, classes, networks, settings, content.get("extra"), **decision)


def _described(content):
    content = {"thresholds": None, "temperature": 1.0} | content  # of earlier versions
    check({name: content[name] for name in KINDS}, KINDS)
    settings, classes, count = (content[name] for name in ("settings", "classes", "networks"))
    settings = of_file(settings)
    vocabulary = Vocabulary(content["vocabulary"], settings["ngrams"], settings["tokenizer"])
    thresholds, C = content["thresholds"], len(classes)
    if len(set(classes)) < max(1 if thresholds else 2, C):
        raise ValueError(f"classes: expected two or more, all different, got {classes!r:.200}")
    if thresholds is not None and len(thresholds) != C:
        raise ValueError(f"thresholds: expected {C} numbers, got {len(thresholds)}")
    thresholds = None if thresholds is None else np.array(thresholds, np.float64)
    decision = {"thresholds": thresholds, "temperature": content["temperature"]}
    return settings, vocabulary, classes, count, decision


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
        return network.proba(sentences, params)
    result = np.empty((N, len(network.params["b"])), network.params["b"].dtype)
    for batch in batches(lengths, BATCH, WORDS):
        result[batch] = network.proba(sentences.take(batch), params)
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
