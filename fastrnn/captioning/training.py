"""CaptioningSolver: the Solver's loss and validation for captions."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.captioning.metrics import corpus_bleu, references_by_image
from fastrnn.captioning.model import CaptioningRNN
from fastrnn.captioning.vocabulary import decode_captions
from fastrnn.layers import checks
from fastrnn.solver import Solver, SolverOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

VALIDATION_IMAGES = 1000


class CaptioningSolver(Solver):
    """Trains a CaptioningRNN on data of load_coco_data; the other parameters are the Solver's.

    With val_every, every that many epochs the loss on validation captions and BLEU-1..4 of captions
    *generated* for up to 1,000 validation pictures are measured; BLEU-4, ties broken by BLEU-1,
    chooses the best model. 0, the default, does not validate, as in the course notebooks.
    scheduled_sampling, the share of words in the last epoch, from 0 in the first, that the model's
    own take the place of (Bengio et al. 2015). Where data has train_views (images, K, D), a caption
    is learnt each time from its picture or one of its K other views, drawn at random.
    Raises ValueError where the model and the data do not fit.
    """

    def __init__(
        self,
        model: CaptioningRNN,
        data: Mapping[str, Any],
        *,
        val_every: int = 0,
        scheduled_sampling: float = 0.0,
        **options: "Unpack[SolverOptions]",
    ) -> None:
        D, expected = data["train_features"].shape[-1], model.params["W_proj"].shape[0]
        if expected != D:
            raise ValueError(f"data: expected features of {expected} columns, got {D}")
        if len(data["idx_to_word"]) != len(model.word_to_idx):
            raise ValueError(
                f"data: expected the model's vocabulary of {len(model.word_to_idx)} words, got "
                f"{len(data['idx_to_word'])}"
            )
        self.scheduled_sampling = checks.probability("scheduled_sampling", scheduled_sampling)
        super().__init__(model.params, len(data["train_captions"]), **options)
        self.model, self.data, self.val_every = model, data, val_every

    def loss(self, examples: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """Loss and gradients of the training captions with these indices."""
        captions = self.data["train_captions"][examples]
        features = self._seen(self.data["train_image_idxs"][examples])
        sampled = self.scheduled_sampling * min(1.0, self.epoch / max(1, self.num_epochs - 1))
        return self.model.loss(features, captions, self.rng, sampled=sampled)

    def _seen(self, images: np.ndarray) -> np.ndarray:
        """Features of training pictures, each in one of its views."""
        features, views = self.data["train_features"][images], self.data.get("train_views")
        if views is not None:
            drawn = self.rng.integers(-1, views.shape[1], size=len(images))
            other = drawn >= 0
            features[other] = views[images[other]][np.arange(other.sum()), drawn[other]]
        return features

    def validate(self) -> dict[str, float]:
        """val_loss, bleu1..bleu4 and score; empty in epochs without validation."""
        if not self.val_every or self.epoch % self.val_every or not len(self.data["val_captions"]):
            return {}
        bleu = generated_bleu(self.model, self.data, references=self._references)
        figures = {"val_loss": self._val_loss()} | bleu
        return figures | {"score": figures["bleu4"] + 1e-3 * figures["bleu1"]}

    @cached_property
    def _references(self) -> dict[int, list[list[str]]]:
        return references_by_image(self.data, "val")

    def _val_loss(self) -> float:
        data, total, n = self.data, 0.0, len(self.data["val_captions"])
        for begin in range(0, n, self.batch_size):
            captions = data["val_captions"][begin : begin + self.batch_size]
            images = data["val_image_idxs"][begin : begin + self.batch_size]
            total += len(captions) * self.model.score(data["val_features"][images], captions)
        return total / n


def generated_bleu(
    model: CaptioningRNN,
    data: Mapping[str, Any],
    split: str = "val",
    max_images: int = VALIDATION_IMAGES,
    references: dict[int, list[list[str]]] | None = None,
    **options,
) -> dict[str, float]:
    """BLEU-1..4 of captions generated for the first max_images pictures of a split; references of
    references_by_image, if they are at hand; options go to model.sample.

    Returns: "bleu1" ... "bleu4".
    """
    references = references or references_by_image(data, split)
    images = list(references)[:max_images]
    samples = []
    for begin in range(0, len(images), 100):
        features = data[f"{split}_features"][images[begin : begin + 100]]
        samples += decode_captions(model.sample(features, **options), data["idx_to_word"])
    return corpus_bleu([references[image] for image in images], samples)
