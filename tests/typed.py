"""What users' type checkers see: calls of the public API, with the types of what they return.

Not run, but checked by mypy, for which a call of a function without types is an error, and so is a
mistake below that it does not find."""

from pathlib import Path

import numpy as np
import torch
from typing_extensions import assert_type

import fastrnn
import fastrnn.torch
from fastrnn import gradcheck, nn, optim, weights
from fastrnn.captioning import (
    BLEU_score,
    CaptioningRNN,
    CaptioningSolver,
    corpus_bleu,
    decode_captions,
    load_coco_data,
    sample_coco_minibatch,
)
from fastrnn.cells import GRUCache, LSTMCache, RNNCache
from fastrnn.text import TextClassifier, TextModel, load_vectors, read_labelled, read_lines

Array = np.ndarray


def functions(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> None:
    h, rnn_cache = fastrnn.rnn_forward(x, h0, Wx, Wh, b, nonlinearity="relu")
    assert_type(rnn_cache, RNNCache)
    options = fastrnn.Options(zoneout_h=0.1, seed=1)
    h, lstm_cache = fastrnn.lstm_forward(x, h0, Wx, Wh, b, c0=h0, gates="ifgo", options=options)
    assert_type(h, Array)
    assert_type(lstm_cache, LSTMCache)
    dx, *_ = fastrnn.lstm_backward(None, lstm_cache, dhT=h0)
    assert_type(dx, Array)
    prepared = fastrnn.prepare("gru", Wx, Wh, b, training=True)
    assert_type(prepared, fastrnn.PreparedWeights)
    h, gru_cache = fastrnn.gru_forward(x, h0, prepared, lengths=np.array([1]), layout="time_first")
    assert_type(gru_cache, GRUCache)
    fastrnn.gru_backward(h, gru_cache, backend="numpy")
    _, next_c, _ = fastrnn.lstm_step_forward(x, h0, h0, Wx, Wh, b)
    assert_type(next_c, Array)
    fastrnn.mgu_forward(x, h0, Wx, Wh, b)
    fastrnn.min_gru_forward(x, h0, Wx, b)
    fastrnn.ind_rnn_forward(x, h0, Wx, b, b)
    fastrnn.lstm_forward(x, h0, Wx, Wh, b, revers=True)  # type: ignore[call-arg]
    fastrnn.lstm_forward(x, "h0", Wx, Wh, b)  # type: ignore[arg-type]


def others(x: Array, w: Array, b: Array, words: Array) -> None:
    out, cache = fastrnn.affine_forward(x, w, b)
    fastrnn.affine_backward(out, cache)
    out, embedding = fastrnn.word_embedding_forward(words, w)
    dW = fastrnn.word_embedding_backward(out, embedding, sparse=True)
    loss, _ = fastrnn.temporal_softmax_loss(out, words, label_smoothing=0.1)
    assert_type(loss, float)
    w, config = optim.adam(w, dW, {"learning_rate": 1e-3}, out=w)
    assert_type(config, dict[str, object])
    context, _, looked = fastrnn.attention_forward(x, x, x)
    assert_type(context, Array)
    fastrnn.attention_backward(context, None, looked)
    assert_type(gradcheck.rel_error(x, x), float)


def streams(x: Array, w: Array, b: Array) -> None:
    stream = fastrnn.Stream("lstm", w, w, b, batch=2)
    assert_type(stream.step(x, out=x), Array)
    assert_type(stream.state, dict[str, Array])
    chain = fastrnn.Chain([stream], head=(w, b))
    assert_type(chain.steps(x), Array)
    chain.reset(np.array([0]))
    fastrnn.Stream("lstm", w, w, b, batch="two")  # type: ignore[arg-type]


def backends() -> None:
    fastrnn.use_isa("avx2")
    with fastrnn.use_backend("numpy"):
        fastrnn.set_num_threads(1)
    assert_type(fastrnn.get_num_threads(), int)
    fastrnn.show_config()
    fastrnn.release_memory()


def stacks(x: Array, folder: Path) -> None:
    lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True, dropout=0.1, seed=0)
    y, _, cache = lstm.forward(x, training=True)
    assert_type(y, Array)
    _, grads, _ = lstm.backward(y, cache)
    assert_type(grads, dict[str, Array])
    assert_type(lstm.params, dict[str, Array])
    chain = nn.GRU(3, 4).stream(batch=1)
    assert_type(chain, fastrnn.Chain)
    nn.save(nn.load(folder / "model.safetensors"), folder / "again.safetensors")
    nn.to_onnx(lstm, folder / "model.onnx", lengths=True)
    nn.GRU("three", 4)  # type: ignore[arg-type]
    layer = weights.from_torch("lstm", *lstm.params.values())
    assert_type(layer, weights.Layer)


def modules(model: torch.nn.Module) -> None:
    fastrnn.torch.convert(model, report=print)
    fastrnn.torch.LSTM(3, 4, num_layers=2, options=fastrnn.Options(dropout_h=0.1))


def programs(folder: Path) -> None:
    data = load_coco_data(folder)
    _, features, _ = sample_coco_minibatch(data, 10)
    model = CaptioningRNN({"<NULL>": 0}, input_dim=3, cell_type="gru")
    assert_type(model.dropout, float)
    CaptioningRNN({"<NULL>": 0}, zonout=0.1)  # type: ignore[call-arg]
    CaptioningSolver(model, data, num_epochs=1).train()
    CaptioningSolver(model, data, num_epoch=1)  # type: ignore[call-arg]
    decoded = decode_captions(model.sample(features, beam_size=3), data["idx_to_word"])
    assert_type(
        corpus_bleu([[["a"]]], [decoded] if isinstance(decoded, str) else decoded), dict[str, float]
    )
    BLEU_score("a b", "a b")
    read_lines(folder / "lines.txt")
    texts, *_ = read_labelled(folder / "train.txt")
    load_vectors(folder / "glove.txt", ["a"])
    assert_type(TextModel.load(folder).predict_proba(texts), Array)
    classifier = TextClassifier("gru", hidden_dim=16, class_weight={"a": 2.0}, random_state=0)
    assert_type(classifier.fit(texts, [0, 1]).predict(texts), Array)
    TextClassifier(hidden_dim=16, hiden_dim=16)  # type: ignore[call-arg]
    TextClassifier(hidden_dim="16")  # type: ignore[arg-type]
