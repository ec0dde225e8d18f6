/* The recurrent cells: their list, and, where bodies are made for a dtype, their formulas. Each name
   is that of a cell_spec. */
#ifndef FASTRNN_CELLS
#define FASTRNN_CELLS(X) \
    X(rnn) X(rnn_relu) X(rnn_options) X(lstm) X(lstm_options) X(lstm_projected) X(gru) \
    X(gru_options) X(gru_original) X(gru_original_options)
#endif

#ifdef FN
#include "gru.inl.h"
#include "lstm.inl.h"
#include "rnn.inl.h"
#endif
