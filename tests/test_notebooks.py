"""The notebooks' overfitting runs: 100 captions by an RNN, 50 by an LSTM, learnt by heart."""

import os
from pathlib import Path

import numpy as np
import pytest

from fastrnn.captioning import (
    CaptioningRNN,
    CaptioningSolver,
    decode_captions,
    load_coco_data,
    prepare,
)

REAL = os.environ.get("FASTRNN_DATA")
# As printed: captions, batch size, decay of the learning rate, loss that should be reached.
RUNS = {"rnn": (100, 10, 0.95, 0.1), "lstm": (50, 25, 0.995, 0.5)}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A data set of photographs, or where there are none, of scenes."""
    folder = tmp_path_factory.mktemp("data")
    if REAL is None:
        prepare.prepare_scenes(folder, 700, 20, seed=0)
    else:
        prepare.prepare(
            Path(REAL, "flickr8k/images"),
            Path(REAL, "flickr8k/captions.txt"),
            folder,
            weights=str(Path(REAL, "weights/squeezenet1_1.pth")),
            val=100,
        )
    return folder


@pytest.mark.parametrize("cell", RUNS)
def test_overfitting_reaches_the_printed_loss_on_both_backends(base, cell):
    """Hidden 512, word vectors 256, adam at 5e-3, 50 epochs; the same history from both backends,
    to 1e-3 relative in float64."""
    n, batch_size, lr_decay, bound = RUNS[cell]
    data = load_coco_data(base, max_train=n)
    histories = {}
    for backend in ("cython", "numpy"):
        model = CaptioningRNN(
            data["word_to_idx"],
            data["train_features"].shape[1],
            256,
            512,
            cell,
            np.float64,
            backend=backend,
            seed=1,
        )
        solver = CaptioningSolver(
            model,
            data,
            update_rule="adam",
            num_epochs=50,
            batch_size=batch_size,
            optim_config={"learning_rate": 5e-3},
            lr_decay=lr_decay,
            seed=1,
            verbose=False,
        )
        solver.train()
        histories[backend] = solver.loss_history
        assert solver.iteration == 50 * n // batch_size
        assert np.mean(solver.loss_history[-solver.iterations_per_epoch :]) < bound
    np.testing.assert_allclose(histories["cython"], histories["numpy"], rtol=1e-3)

    said = model.sample(data["train_features"][data["train_image_idxs"]], 30)
    texts = [decode_captions(c, data["idx_to_word"]) for c in (data["train_captions"], said)]
    by_heart = sum(f"<START> {b}" == a for a, b in zip(*texts, strict=True))
    assert by_heart > 0.9 * n  # "the samples on training data should be very good"
