"""Image captioning on fastrnn's layers: model, data, training, decoding, metrics."""

from fastrnn.captioning.captioner import Ensemble
from fastrnn.captioning.data import (
    decode_captions,
    load_coco_data,
    sample_coco_minibatch,
    write_coco_data,
)
from fastrnn.captioning.metrics import BLEU_score, corpus_bleu, evaluate_model
from fastrnn.captioning.model import CaptioningRNN
from fastrnn.captioning.training import CaptioningSolver

__all__ = [
    "BLEU_score",
    "CaptioningRNN",
    "CaptioningSolver",
    "Ensemble",
    "corpus_bleu",
    "decode_captions",
    "evaluate_model",
    "load_coco_data",
    "sample_coco_minibatch",
    "write_coco_data",
]
