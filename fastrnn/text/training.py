"""Training of text classifiers: batches of similar lengths, ensembles."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn.metrics import accuracy, calibration_error, f1_scores
from fastrnn.nn.single import CELLS
from fastrnn.settings import decisive, plain
from fastrnn.solver import CHECKPOINT, Gradients, Solver, SolverOptions, check_shapes
from fastrnn.text import pretraining
from fastrnn.text.calibration import best_temperature, best_thresholds, log_loss
from fastrnn.text.embeddings import Vectors, load_vectors
from fastrnn.text.encoders import Params, Recurrent
from fastrnn.text.gradients import added
from fastrnn.text.model import TextModel, batches, build, encode, probabilities, shapes_of
from fastrnn.text.networks import Network
from fastrnn.text.pretraining import LanguageModel, pieces
from fastrnn.text.quantization import packed, rounded_params
from fastrnn.text.settings import SETTINGS, complete
from fastrnn.text.vocabulary import Sentences, Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Unpack

# What max_words does the examples say; the others act when the networks are trained.
INDECISIVE = "max_words", "calibrate", "quantize"
PRETRAINED = "pretraining"  # the folder of the language model's checkpoint
# Batches that are shuffled together and then sorted by length.
BUCKET = 20
# What a recurrent network's gradients are computed of at a time: words with their padding, times
# its hidden units, which count as FEWEST_UNITS if they are fewer: 32,768 words.
STEP_UNITS, FEWEST_UNITS = 1 << 23, 256


class Examples(NamedTuple):
    """Sentences with their classes, and what each counts."""

    sentences: Sentences
    y: np.ndarray  # (N,) class indices; of sentences with several (N, C) bool
    weights: np.ndarray | None = None  # like y, None: 1


class TextSolver(Solver):
    """Trains a Network on examples; the other parameters are the Solver's.

    With dev every epoch is validated: dev_loss and dev_accuracy, and where metric is "macro-f1" or
    "micro-f1" that F1; the metric chooses the best epoch, ties broken by the loss. Several labels
    are right together, those with a probability of at least 0.5 being the model's. weight_decay is
    of everything but biases.
    """

    def __init__(
        self,
        network: Network,
        train: Examples,
        dev: Examples | None = None,
        *,
        weight_decay: float = 0.0,
        metric: str = "accuracy",
        **options: "Unpack[SolverOptions]",
    ) -> None:
        self.network, self.examples, self.dev = network, train, dev
        self.metric = metric
        super().__init__(network.params, len(train.y), **options)
        for name, config in self.optim_configs.items():
            decays = not name.startswith("b")  # a bias does not
            config["weight_decay"] = weight_decay if decays else 0.0

    def shuffle(self) -> np.ndarray:
        """Batches of sentences of similar lengths, in random order; the smaller one last, of any
        lengths."""
        size, order = self.batch_size, self.rng.permutation(self.num_examples)
        whole = len(order) // size
        # Several buckets, or an epoch would have the batches of the one before.
        bucket = size * max(1, min(BUCKET, whole // 4))
        lengths = self.examples.sentences.lengths
        for begin in range(0, whole * size, bucket):
            part = order[begin : min(begin + bucket, whole * size)]
            part[:] = part[np.argsort(lengths[part], kind="stable")]
        batches = order[: whole * size].reshape(whole, size)[self.rng.permutation(whole)]
        return np.concatenate([batches.ravel(), order[whole * size :]])

    def loss(self, examples: np.ndarray) -> tuple[float, Gradients]:
        """Loss and gradients of the training sentences with these indices; a recurrent network's
        are summed over parts where it would have more than STEP_UNITS to keep."""
        rows, lengths = len(examples), self.examples.sentences.lengths[examples]
        encoder = self.network.encoder
        if not isinstance(encoder, Recurrent):
            return self._loss(examples)
        most = STEP_UNITS // max(FEWEST_UNITS, encoder.hidden * len(encoder.directions))
        if rows * lengths.max() <= most:
            return self._loss(examples)
        loss, grads = 0.0, {}
        for part in batches(lengths, rows, most):
            share = len(part) / rows
            more, of_part = self._loss(examples[part])
            loss += share * more
            grads = {name: added(grads.get(name), dw, share) for name, dw in of_part.items()}
        return loss, grads

    def _loss(self, examples):
        sentences, y, weights = self.examples
        weights = None if weights is None else weights[examples]
        return self.network.loss(sentences.take(examples), y[examples], weights, self.rng)

    def validate(self) -> dict[str, float]:
        """dev_loss (nats a sentence), dev_accuracy, dev_macro_f1 or dev_micro_f1 where it is the
        metric, and score; empty without dev."""
        if self.dev is None:
            return {}
        proba, y = probabilities(self.network, self.dev.sentences), self.dev.y
        predicted = proba >= 0.5 if self.network.multilabel else proba.argmax(axis=1)
        key = f"dev_{self.metric.replace('-', '_')}"
        figures = {"dev_loss": log_loss(y, proba), "dev_accuracy": accuracy(y, predicted)}
        if self.metric != "accuracy":
            macro, micro = f1_scores(y, predicted, proba.shape[1])
            figures[key] = macro if self.metric == "macro-f1" else micro
        return figures | {"score": figures[key] - 1e-6 * min(figures["dev_loss"], 1e3)}


def _beginnings(sentences: Sentences, most: int) -> Sentences:
    """At most so many words of each."""
    starts = np.repeat(sentences.first[:-1], sentences.lengths)
    return sentences.keep(np.arange(len(sentences.words)) - starts < most)


def _size(params: Iterable[Params]) -> int:
    return sum(w.nbytes for of_network in params for w in of_network.values())


class Training:
    """The training of a classifier: vocabulary, word vectors and a solver for each network of the
    ensemble, whose seeds follow each other; before them, with unlabelled texts, that of a language
    model, whose recurrent network they all start from.

    Parameters: settings, what differs from settings.SETTINGS; texts, y (N,) indices into classes,
    or (N, C) bool where a text may have several or none; dev, texts and y to choose the best epoch
    and to stop by; sample_weight (N,); folder for checkpoints, from which it continues if there are
    any; progress, of reading embeddings, as load_vectors takes it; unlabelled, further texts, of
    which a recurrent network learns beforehand what comes next.

    Attributes: settings, complete; vocabulary; solvers; pretraining, the language model's solver or
    None; vectors, what was found in embeddings; cut, how many texts a recurrent network reads the
    first max_words words of; figures, by run, on dev of what was done to the trained networks:
    "quantization", "calibration".
    Raises ValueError for settings, for fewer than two classes, where there is nothing to train, or
    for unlabelled texts where the model is no recurrent network.
    """

    def __init__(
        self,
        settings: dict[str, object],
        texts: Sequence[str],
        y: np.ndarray,
        classes: Sequence[object],
        *,
        dev: tuple[Sequence[str], np.ndarray] | None = None,
        sample_weight: np.ndarray | None = None,
        folder: Path | str | None = None,
        progress: Callable[[int], object] | None = None,
        unlabelled: Sequence[str] = (),
    ) -> None:
        y = np.asarray(y)
        self.multilabel = y.ndim == 2
        self.classes = _named(classes, self.multilabel)
        y = _checked("texts", "y", texts, y, len(self.classes), self.multilabel)
        self.settings, self.figures = complete(settings, len(y)), {}
        s = self.settings
        if unlabelled and s["model"] not in CELLS:
            raise ValueError(f"unlabelled: {s['model']} reads no order; expected a recurrent model")
        given = {name: s[name] for name in ("ngrams", "tokenizer", "min_count")}
        self.vocabulary = Vocabulary.of(chain(texts, unlabelled), **given)
        self.vectors = self._load_vectors(progress)
        sentences = encode(self.vocabulary, texts, s)
        most = s["max_words"] if s["model"] in CELLS else 0
        self.cut = int((sentences.lengths > most).sum()) if most else 0
        if self.cut:
            sentences = _beginnings(sentences, most)
        examples = Examples(sentences, y, self._weights(y, sample_weight))
        held_out = None
        if dev is not None:
            dev_y = _checked("dev texts", "dev y", *dev, len(self.classes), self.multilabel)
            held_out = Examples(encode(self.vocabulary, dev[0], s), dev_y)
        expected = shapes_of(s, len(self.vocabulary), len(self.classes))
        for i in range(s["ensemble"] if folder else 0):
            check_shapes(Path(folder) / str(i), expected)
        # Hashing all data is only worth it where a checkpoint may be taken up.
        identity = "" if folder is None else self._identity(examples)
        self.solvers = [
            self._solver(i, examples, held_out, folder and Path(folder) / str(i), identity)
            for i in range(s["ensemble"])
        ]
        self.pretraining = None
        if unlabelled:
            read = pieces(encode(self.vocabulary, [*texts, *unlabelled], s))
            self.pretraining = self._pretraining(read, folder and Path(folder) / PRETRAINED)

    def _load_vectors(self, progress: Callable[[int], object] | None) -> Vectors | None:
        s = self.settings
        if s["embeddings"] is None:
            return None
        watch = {} if progress is None else {"progress": progress}
        vectors = load_vectors(s["embeddings"], self.vocabulary.words[1:], **watch)
        s["embedding_dim"] = vectors.vectors.shape[1]
        return vectors

    def _weights(self, y, sample_weight):
        of_class = class_weights(self.settings["class_weight"], self.classes, y)
        if of_class is None and sample_weight is None:
            return None
        weights = np.ones(y.shape)
        if of_class is not None:
            weights = np.where(y, of_class, 1.0) if self.multilabel else of_class[y]
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight, np.float64)
            if sample_weight.shape != y.shape[:1] or not _are_weights(sample_weight):
                raise ValueError(
                    f"sample_weight: expected {y.shape[:1]} numbers of at least 0, got "
                    f"{sample_weight.shape}"
                )
            weights = weights * (sample_weight[:, None] if self.multilabel else sample_weight)
        return weights.astype(self.settings["dtype"])

    def _solver(self, i, examples, held_out, folder, identity):
        s, seed = self.settings, self.settings["seed"] + i
        V = len(self.vocabulary)
        vectors = None
        if self.vectors is not None:
            rng = np.random.default_rng((seed, 1))
            vectors = initial_vectors(self.vocabulary, self.vectors, s["embedding_scale"], rng)
        random = {"vectors": vectors, "seed": (seed, 2)}
        network = build(s, V, len(self.classes), **random, multilabel=self.multilabel)
        return TextSolver(
            network,
            examples,
            held_out,
            weight_decay=s["weight_decay"],
            metric=s["metric"],
            update_rule=s["update_rule"],
            optim_config={"learning_rate": s["learning_rate"]},
            lr_decay=s["lr_decay"],
            num_epochs=s["epochs"],
            batch_size=s["batch_size"],
            clip_norm=s["clip_norm"] or None,
            patience=s["patience"] or None,
            seed=seed,
            verbose=False,
            checkpoint=folder,
            identity=identity,
        )

    def _pretraining(self, sentences: Sentences, folder: Path | None) -> TextSolver:
        s, network = self.settings, self.solvers[0].network
        V = len(self.vocabulary)
        own = {name: network.params[name].copy() for name in network.encoder.shapes(V)}
        counts = np.bincount(sentences.words, minlength=V)
        options = {"dropout": s["dropout"], "backend": s["backend"], "seed": (s["seed"], 3)}
        model = LanguageModel(network.encoder, own, counts, **options)
        examples = Examples(sentences, np.zeros(len(sentences.lengths), np.intp))
        return TextSolver(
            model,
            examples,
            optim_config={"learning_rate": pretraining.LEARNING_RATE},
            lr_decay=pretraining.LR_DECAY,
            num_epochs=s["pretrain_epochs"],
            batch_size=pretraining.BATCH,
            clip_norm=s["clip_norm"] or None,
            seed=s["seed"],
            verbose=False,
            checkpoint=folder,
            identity="" if folder is None else self._identity(examples),
        )

    def _identity(self, examples: Examples) -> str:
        """What a checkpoint has to be of: settings but those that may change, data."""
        kept = decisive(self.settings, SETTINGS)
        kept = {name: value for name, value in kept.items() if name not in INDECISIVE}
        text = json.dumps([plain(kept), self.classes, self.vocabulary.words], default=str)
        content = hashlib.sha256(text.encode())
        for a in (*examples.sentences, examples.y, examples.weights):
            content.update(b"" if a is None else np.ascontiguousarray(a))
        return content.hexdigest()

    def run(self, on_iteration: Callable[[Solver], None] | None = None) -> TextModel:
        """Train to the end. Raises KeyboardInterrupt after a checkpoint on Ctrl-C."""
        if self.pretraining is not None:
            _finish(self.pretraining, on_iteration)
            learnt = self.pretraining.params
            for solver in self.solvers:
                for name in solver.network.encoder.shapes(len(self.vocabulary)):
                    solver.params[name][...] = learnt[name]
        for solver in self.solvers:
            _finish(solver, on_iteration)
        networks = [solver.network.copy() for solver in self.solvers]
        options = {"thresholds": np.full(len(self.classes), 0.5) if self.multilabel else None}
        model = TextModel(self.vocabulary, self.classes, networks, self.settings, **options)
        if self.settings["quantize"]:
            model = self._quantized(model)
        return model if self.solvers[0].dev is None else self._decided(model)

    def _quantized(self, model: TextModel) -> TextModel:
        """The model of the weights that int8 can say."""
        params = [network.params for network in model.networks]
        rounded = [network.of(rounded_params(network.params)) for network in model.networks]
        figures = {"bytes_before": _size(params), "bytes_after": _size(map(packed, params))}
        models, dev = (model, model.of(rounded)), self.solvers[0].dev
        if dev is not None:
            right = [accuracy(dev.y, m.decide(m.proba(dev.sentences))) for m in models]
            figures |= zip(("accuracy_before", "accuracy_after"), right, strict=True)
        self.figures["quantization"] = figures
        return models[1]

    def _decided(self, model: TextModel) -> TextModel:
        """The model with the temperature and thresholds that are best on dev."""
        sentences, y, _ = self.solvers[0].dev
        if self.settings["calibrate"]:
            proba = model.proba(sentences)
            model.temperature = best_temperature(y, proba)
            before, after = proba, model.proba(sentences)
            self.figures["calibration"] = {
                "temperature": model.temperature,
                "ece_before": calibration_error(y, before),
                "ece_after": calibration_error(y, after),
                "log_loss_before": log_loss(y, before),
                "log_loss_after": log_loss(y, after),
            }
        if self.multilabel:
            model.thresholds = best_thresholds(y, model.proba(sentences))
        return model


def _finish(solver: Solver, on_iteration: Callable[[Solver], None] | None) -> None:
    """Train to the end, from the checkpoint if there is one."""
    if solver.checkpoint is not None and (solver.checkpoint / CHECKPOINT).exists():
        solver.restore()
    solver.on_iteration = on_iteration
    solver.train()


def initial_vectors(
    vocabulary: Vocabulary, vectors: Vectors, scale: float, rng: np.random.Generator
) -> np.ndarray:
    """Word vectors (V, W) of the deviation `scale` around 0: those of the file, shifted and scaled;
    for other words random ones; for unknown words 0. A network learns little from vectors as large
    as GloVe's, of which a step of Adam moves less than a hundredth."""
    W = scale * rng.standard_normal((len(vocabulary), vectors.vectors.shape[1]))
    W[0] = 0
    centred = vectors.vectors - vectors.vectors.mean(axis=0)
    found = [vocabulary.index[word] for word in vectors.words]
    W[found] = scale / max(centred.std(), np.finfo(np.float32).tiny) * centred
    return W


def _named(classes: Sequence[object], multilabel: bool) -> list[object]:
    """Classes that a file can have. Raises ValueError for others, and for too few."""
    classes = plain(list(classes))
    if len(set(classes)) < max(1 if multilabel else 2, len(classes)):
        raise ValueError(f"classes: expected two or more, all different, got {classes}")
    try:
        json.dumps(classes)
    except TypeError:
        raise ValueError(
            f"classes: expected strings, numbers or bools, got {classes[0]!r}"
        ) from None
    return classes


def _checked(
    texts_name: str, y_name: str, texts: Sequence[str], y: np.ndarray, C: int, multilabel: bool
) -> np.ndarray:
    """y as indices, multilabel as bools. Raises ValueError where texts and y are not what training
    reads."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{texts_name}: expected a sequence of strings")
    y = np.asarray(y)
    if multilabel:
        if y.shape != (len(texts), C) or not len(texts) or not ((y == 0) | (y == 1)).all():
            raise ValueError(
                f"{y_name}: expected 0 or 1 of shape (N, C) = ({len(texts)}, {C}), N at least 1, "
                f"got {y.dtype} {y.shape}"
            )
        return y.astype(bool)
    if y.dtype.kind not in "iu" or y.shape != (len(texts),) or not len(texts):
        raise ValueError(
            f"{y_name}: expected integers of shape (N,) = ({len(texts)},), N at least 1, got "
            f"{y.dtype} {y.shape}"
        )
    if y.min() < 0 or y.max() >= C:
        raise ValueError(f"{y_name}: expected 0 to {C - 1}, got {y.min()} to {y.max()}")
    return y.astype(np.intp)


def _are_weights(weights: np.ndarray) -> bool:
    return bool((np.isfinite(weights) & (weights >= 0)).all())


def class_weights(
    given: str | dict[object, float] | None, classes: Sequence[object], y: np.ndarray
) -> np.ndarray | None:
    """What an example of each class counts (C,): given by name, 1 where it is missing; "balanced",
    N / (C count) (King and Zeng 2001), and where y is (N, C), of each class the examples that have
    it, (N - count) / count; None, 1.

    Raises ValueError for another value or an unknown class.
    """
    if given is None:
        return None
    if given == "balanced" and y.ndim == 2:
        counts = np.maximum(y.sum(axis=0), 1)
        return (len(y) - counts) / counts
    if given == "balanced":
        counts = np.maximum(np.bincount(y, minlength=len(classes)), 1)
        return len(y) / (len(classes) * counts)
    if not isinstance(given, dict):
        raise ValueError(f"class_weight: expected None, 'balanced' or a dict, got {given!r}")
    unknown = [name for name in given if name not in classes]
    if unknown:
        raise ValueError(
            f"class_weight: {unknown[0]!r} is not one of {', '.join(map(str, classes))}"
        )
    weights = np.array([float(given.get(name, 1.0)) for name in classes])
    if not _are_weights(weights) or not weights.any():
        raise ValueError(f"class_weight: expected numbers of at least 0, got {given!r}")
    return weights
