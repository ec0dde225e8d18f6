/* The recurrent cells: their list, and, where bodies are made for a dtype, their formulas. Each name
   is that of a cell_spec. */
#ifndef FASTRNN_CELLS
#define FASTRNN_CELLS(X)                                                                     \
    X(rnn) X(rnn_relu) X(rnn_options) X(lstm) X(lstm_options) X(lstm_projected) X(lstm_norm) \
    X(gru) X(gru_options) X(gru_original) X(gru_original_options) X(gru_norm)                \
    X(mgu) X(min_gru) X(min_gru_positive) X(min_lstm) X(min_lstm_positive)                   \
    X(ind_rnn) X(ind_rnn_tanh)
#endif

#ifdef FN
#include "gru.inl.h"
#include "gru_norm.inl.h"
#include "ind_rnn.inl.h"
#include "lstm.inl.h"
#include "lstm_norm.inl.h"
#include "mgu.inl.h"
#include "minimal.inl.h"
#include "rnn.inl.h"
#endif
