"""fastrnn: recurrent networks on the CPU at hardware speed, as functions on NumPy arrays.

Letters in every docstring: N batch, T time steps, D input, H hidden, V vocabulary, W word vector,
G gates (1 rnn and ind_rnn, 2 mgu and min_gru, 3 gru and min_lstm, 4 lstm). Arrays are (N, T, ...),
C order, float32 or float64.
"""

from fastrnn import gradcheck, optim
from fastrnn.backends import (
    get_num_threads,
    release_memory,
    set_backend,
    set_num_threads,
    show_config,
    use_backend,
    use_isa,
)
from fastrnn.backends.caches import RowGradient
from fastrnn.layers.attention import attention_backward, attention_forward
from fastrnn.layers.dense import (
    affine_backward,
    affine_forward,
    embedding_bag_backward,
    embedding_bag_forward,
    temporal_affine_backward,
    temporal_affine_forward,
    temporal_fc_backward,
    temporal_fc_forward,
    word_embedding_backward,
    word_embedding_forward,
)
from fastrnn.layers.losses import softmax_loss, temporal_softmax_loss
from fastrnn.layers.minimal import (
    ind_rnn_backward,
    ind_rnn_forward,
    ind_rnn_step_backward,
    ind_rnn_step_forward,
    mgu_backward,
    mgu_forward,
    mgu_step_backward,
    mgu_step_forward,
    min_gru_backward,
    min_gru_forward,
    min_gru_step_backward,
    min_gru_step_forward,
    min_lstm_backward,
    min_lstm_forward,
    min_lstm_step_backward,
    min_lstm_step_forward,
)
from fastrnn.layers.prepared import PreparedWeights, prepare
from fastrnn.layers.recurrent import (
    gru_backward,
    gru_forward,
    gru_step_backward,
    gru_step_forward,
    lstm_backward,
    lstm_forward,
    lstm_step_backward,
    lstm_step_forward,
    rnn_backward,
    rnn_forward,
    rnn_step_backward,
    rnn_step_forward,
)
from fastrnn.layers.streaming import Chain, Stream
from fastrnn.options import LayerNorm, Options

__all__ = [
    "Chain",
    "LayerNorm",
    "Options",
    "PreparedWeights",
    "RowGradient",
    "Stream",
    "affine_backward",
    "affine_forward",
    "attention_backward",
    "attention_forward",
    "embedding_bag_backward",
    "embedding_bag_forward",
    "get_num_threads",
    "gradcheck",
    "gru_backward",
    "gru_forward",
    "gru_step_backward",
    "gru_step_forward",
    "ind_rnn_backward",
    "ind_rnn_forward",
    "ind_rnn_step_backward",
    "ind_rnn_step_forward",
    "lstm_backward",
    "lstm_forward",
    "lstm_step_backward",
    "lstm_step_forward",
    "mgu_backward",
    "mgu_forward",
    "mgu_step_backward",
    "mgu_step_forward",
    "min_gru_backward",
    "min_gru_forward",
    "min_gru_step_backward",
    "min_gru_step_forward",
    "min_lstm_backward",
    "min_lstm_forward",
    "min_lstm_step_backward",
    "min_lstm_step_forward",
    "optim",
    "prepare",
    "release_memory",
    "rnn_backward",
    "rnn_forward",
    "rnn_step_backward",
    "rnn_step_forward",
    "set_backend",
    "set_num_threads",
    "show_config",
    "softmax_loss",
    "temporal_affine_backward",
    "temporal_affine_forward",
    "temporal_fc_backward",
    "temporal_fc_forward",
    "temporal_softmax_loss",
    "use_backend",
    "use_isa",
    "word_embedding_backward",
    "word_embedding_forward",
]


def __getattr__(name: str) -> str:
    # Reading the metadata costs more than the rest of the import, and few ask.
    if name == "__version__":
        from importlib.metadata import version

        return version("fastrnn")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
