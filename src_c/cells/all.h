/* The recurrent cells: their list, and, where bodies are made for a dtype, their formulas. Each name
   is that of a cell_spec. */
#ifndef FASTRNN_CELLS
#define FASTRNN_CELLS(X) X(rnn) X(rnn_relu) X(lstm) X(gru) X(gru_original)
#endif

#ifdef FN
#include "gru.inl.h"
#include "lstm.inl.h"
#include "rnn.inl.h"
#endif
