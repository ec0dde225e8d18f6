/* A recurrent layer: what a cell is, what a caller gives and gets, and what a call works with.

   A batch row's rank is its place when the longest rows come first. */
#ifndef FASTRNN_LAYER_H
#define FASTRNN_LAYER_H
#include "kernels.h"
#include <stdint.h>

typedef struct layer layer;

/* ---- a cell ---------------------------------------------------------------------------------- */

enum { MAX_STATES = 2, MAX_SCRATCH = 2, MAX_PHASES = 2, MAX_PIECES = 2 };

/* Formulas over a block of rows (FN(block) of block.inl.h), for `count` vectors of units from u. */
typedef void epilogue(const void *block, idx u, idx count);

/* What multiplies Wh: the state before the step, dropped out where options say so, or what a phase
   left in scratch[0]. */
enum { PREVIOUS_H, SCRATCH };

/* What backward may leave to gradients of weights, a row a step: what scratch[0] held, the state
   before the step dropped out, c of the step before zoneout. */
enum { OF_SCRATCH, DROPPED_H, NEW_C, OPERANDS };

/* What a gate's gradient is multiplied with for that of a parameter of one number a unit: the cell
   state before the step, or the operand NEW_C. */
enum { C_BEFORE, BY_NEW_C };

/* Layer normalisation: of x Wx, of h Wh and of c. */
enum { OF_X, OF_H, OF_C };
enum { GAIN_X, GAIN_H, GAIN_C, SHIFT_C, NORM_PARAMETERS };

/* Where the gradients of what is normalised begin among the blocks: of x Wx, of h Wh, and of what
   these become, of h Wh where it is not the gates' (else 0), of c (0: it is not normalised). */
typedef struct {
    idx of_x, of_h, of_u, of_c;
} norm_blocks;

/* One product of a step and the formulas that follow it: `left` times the gates of Wh from `gate`
   on. The first `continued` of them go on from x Wx + b, the others start from bh. Only the first
   phase may continue, and not where it has one gate of several, whose vectors lie otherwise.
   projects, of the last phase alone: scratch[0] times Whr, which has the units of h. gates == 0:
   formulas without a product. */
typedef struct {
    int left, projects;
    idx gate, gates, continued;
    epilogue *activate;
} forward_phase;

/* The same backward: gradients of the gates (of the step after, or within_step of this one) from
   block on times Wh^T of the gates from `gate` on, summed over the pieces. projects: the block past
   the gates, the gradient of h, times Whr^T. */
typedef struct {
    int within_step, projects;
    struct {
        idx block, gate, gates;
    } piece[MAX_PIECES]; /* they end at gates == 0; without any, what arrives is dstates[0] */
    epilogue *differentiate;
} backward_phase;

/* dWh of the gates from `gate` on is left^T times the gradients from block on. */
typedef struct {
    int left;
    idx block, gate, gates;
} weight_block;

/* All that the engine knows of a cell. Gates stand in the order of its formulas; in the arrays gate
   g lies at column offsets[g] of the layer, neighbours of one phase, piece or weight_block side by
   side. Block b of the gates' gradients is gate b's, where there is such a gate. */
struct cell_spec {
    const char *name;
    idx gates, states;     /* states: h is the first */
    idx scratch;           /* arrays [N, H] that one phase leaves to the next */
    int saves_gates;       /* activated gates are kept for backward: they are not states themselves */
    int saves_extra;       /* and one array [N,T,H] more */
    idx gradient_blocks;   /* of H columns: gates, and what reaches bh but not b; or h, of P */
    int operand;           /* backward leaves OF_SCRATCH */
    idx phases;
    forward_phase forward[MAX_PHASES];
    backward_phase backward[MAX_PHASES];
    weight_block weights[MAX_PIECES]; /* they end at gates == 0; none: no product */
    int diagonal;                     /* Wh is [H]: gate 0 has that times h before the step */
    idx vectors;                      /* other parameters of one number a unit */
    struct {
        idx gate; /* whose gradient it is made of, and what that is multiplied with */
        int factor;
    } vector[MAX_VECTORS];
    /* Layer normalisation; of_x is 0 where there is none. The cell then has one phase, whose product has
       all gates, and its formulas get whole rows of x Wx and of h Wh, both without biases. */
    norm_blocks norm;
};

/* Whether a unit of h reaches others: threads that share units then have to meet. */
static inline int has_product(const cell_spec *c)
{
    return c->weights[0].gates > 0;
}

/* What is wrong with a spec; NULL: nothing. The front asks before it uses any. */
const char *fastrnn_spec_error(const cell_spec *);

/* ---- a call ---------------------------------------------------------------------------------- */

/* How arrays of steps lie: [N,T,...]; [T,N,...]; or the rows that take a step, step by step, the
   longest row first, [sum of lengths,...]. */
enum { BATCH_FIRST, TIME_FIRST, PACKED };

/* Masks: which states keep their old value; what of h reaches Wh, once a sequence; what of the
   candidate reaches the state. */
enum { ZONEOUT_H, ZONEOUT_C, DROPOUT_H, DROPOUT_CANDIDATE, MASKS };

/* What formulas that know of options do otherwise. At random, unit u of row n is dropped, or keeps its
   old state, at step t where the 16 bits that philox.h has for (kind, n, first_step + t, u) are below
   below[kind]; else states are mixed by their probabilities, and nothing is dropped. */
typedef struct {
    const void *vectors;     /* [vectors, H], or NULL: 0 */
    idx places[MAX_VECTORS]; /* of the spec's vectors among them */
    double zoneout[MAX_STATES], dropout_h, dropout_candidate;
    double clip, clip_gradient; /* of what activations get, and of its gradient; 0: none */
    double slope;               /* of a hard sigmoid in place of the sigmoid; or 0 */
    double cap;                 /* of relu; 0: none */
    int relu;                   /* in place of tanh of the vanilla RNN */
    int random;
    uint64_t seed, first_step;
    uint32_t below[MASKS];
} options;

/* What a caller gives. With index, x is a table of which row n reads x[index[n, t]] at step t. */
typedef struct {
    const cell_spec *cell;
    idx N, T, D, H, table;
    idx P;                              /* units of h: H but for a cell that projects, then at most H */
    idx offsets[MAX_GATES];             /* of gates in Wx, Wh, b, activated gates, gradients */
    const void *x;                      /* [N,T,D], or [table,D] */
    const void *initial[MAX_STATES];    /* [N,H], h [N,P]; NULL: 0 */
    const idx *lengths, *index;         /* [N] [N,T]; NULL: T, x as it is */
    const unsigned char *reset;         /* [N,T]: the state starts anew before that step; or NULL */
    int reverse, layout;                /* PACKED: lengths fall */
    int reset_to_initial;               /* not to 0 */
    const options *options;             /* NULL, but where the cell's formulas read them */
    const void *norm[NORM_PARAMETERS];  /* [GH] [GH] [H] [H], likewise */
    double epsilon;
} problem;

/* Wx [D,GH], Wh [P,GH], Whr [H,P], or transposed [GH,D], [GH,P], [P,H]; Wh may be diagonal [H], or
   NULL; biases [GH], bh or NULL. */
typedef struct {
    const void *Wx, *Wh, *Whr, *b, *bh;
    int transposed;
} weights;

/* The same as panels. Forward's hold the biases. NULL: not packed, or no product. */
typedef struct {
    const void *Wx, *Wh[MAX_PHASES]; /* Wh: the gates of each forward phase, or Whr */
    const void *Wx_T, *Wh_T, *Whr_T; /* backward: the transposes */
} panels;

/* What forward leaves. NULL: not wanted. */
typedef struct {
    void *states[MAX_STATES]; /* [N,T,H], h [N,T,P] */
    void *gates, *extra;      /* [N,T,GH], activated; [N,T,H] */
    void *products[2];        /* [N,T,GH]: x Wx and h Wh, of a cell with layer normalisation */
    void *last[MAX_STATES];   /* [N,H], h [N,P]: h_n, c_n, after a row's last step */
} activations;

/* dh, dlast: what comes from outside, NULL: 0. The others are results. */
typedef struct {
    const void *dh, *dlast[MAX_STATES];
    void *dx, *dinitial[MAX_STATES];
    void *dWx, *dWh, *dWhr, *db, *dbh; /* of the shapes of the weights; dWhr and dbh or NULL */
    void *vectors;                     /* [vectors, H] or NULL */
    void *norm[NORM_PARAMETERS];
    int accumulate;                    /* all but dx and dinitial go on from what they hold */
} gradients;

/* How a call is cut. */
typedef struct {
    int threads;
    int by_units; /* threads share the hidden units and meet after every step; else batch rows */
    int packed;   /* weights are read as panels, not as they lie */
} plan;

/* Step t processes the ranks below batch_size(t) = offsets[t + 1] - offsets[t]; rank i of it is row
   rows[offsets[t] + i] of the arrays, for row sorted_indices[i] of the batch. */
typedef struct {
    idx steps;
    idx *rows, *offsets, *sorted_indices; /* [sum of lengths] [steps + 1] [N] */
} schedule;

/* Work space forward, over the steps t0..t1. States are [N, stride] by rank, stride being at least H
   rounded up to two vectors; the first is there twice, read and written in turns, and so is dropped_h,
   h times scales_h, where it is wanted. gates_x, x Wx + b, has room for gates_x_rows rows of a share
   of batch rows, or of all by_units, or of the table; or, of each row of a batch whose weights are
   read as they lie, for itself and for h Wh [2, GH + lanes]. z [N, z_stride]: with layer normalisation
   h Wh by rank, as panels. */
typedef struct {
    idx t0, t1, stride, gates_x_rows, z_stride;
    void *states[MAX_STATES], *dropped_h, *scales_h, *scratch[MAX_SCRATCH], *gates_x, *z;
    const void **x_rows; /* [parts, gates_x_rows] */
    int *flags;          /* [parts, FLAG_STRIDE], 0: see barrier.h */
} forward_workspace;

/* Work space backward, over a chunk of steps t0..t1, whose gate gradients lie without gaps in dgates
   [.., dgates_stride]; dgates_next [N, dgates_stride] receives those of step t0 for the next chunk. A
   call of the kernel takes the steps from..to of it. dstates [N, stride] by rank hold what reaches a
   state other than through a product. */
typedef struct {
    idx t0, t1, from, to, stride, dgates_stride, operand_stride;
    void *dstates[MAX_STATES], *dgates, *dgates_next;
    void *operands[OPERANDS]; /* [.., operand_stride]; NULL: not wanted */
    void *scales_h;           /* [N, stride], likewise */
    void *z;       /* what products leave: where weights are read as they lie [parts, stride]; with layer
                      normalisation [N, stride] by rank */
    void *moments; /* [.., 2, 2]: mean and scale of x Wx and h Wh; with layer normalisation */
    int *flags;
} backward_workspace;

struct layer {
    problem problem;
    weights weights;
    panels panels;
    activations kept;
    gradients gradients;
    plan plan;
    schedule time;
    forward_workspace forward;
    backward_workspace backward;
};

/* Whether x Wx and h Wh are normalised; P is then H. */
static inline int is_normalised(const cell_spec *c)
{
    return c->norm.of_x > 0;
}

/* Whether h is what a phase projects. */
static inline int is_projected(const cell_spec *c)
{
    return c->forward[c->phases - 1].projects;
}

/* Units of a state, and of what a phase computes. */
static inline idx units_of_state(const problem *p, idx s)
{
    return s ? p->H : p->P;
}

static inline idx units_forward(const problem *p, const forward_phase *phase)
{
    return phase->projects ? p->P : p->H;
}

static inline idx units_backward(const problem *p, const backward_phase *phase)
{
    return phase->within_step ? p->H : p->P;
}

/* Over how many numbers a phase sums, pieces taken together. */
static inline idx depth_forward(const problem *p, const forward_phase *phase)
{
    return phase->left == SCRATCH ? p->H : p->P;
}

static inline idx depth_backward(const problem *p, const backward_phase *phase)
{
    return phase->projects ? p->P : p->cell->gates * p->H;
}

/* Whether a phase has the formulas of the gates, and of all states but h. */
static inline int has_gates(const cell_spec *c, const backward_phase *phase)
{
    return phase->projects == is_projected(c);
}

/* Whether masks of a kind are drawn. */
static inline int drops(const problem *p, int kind)
{
    return p->options && p->options->random && p->options->below[kind];
}

static inline idx batch_size(const layer *l, idx t)
{
    return t < 0 ? l->problem.N : t < l->time.steps ? l->time.offsets[t + 1] - l->time.offsets[t] : 0;
}

/* The row of a rank at step t in the arrays of steps. */
static inline idx row_of(const layer *l, idx t, idx rank)
{
    return l->time.rows[l->time.offsets[t] + rank];
}

/* Whether the state of a rank starts anew before step t. */
static inline int is_reset(const layer *l, idx t, idx rank)
{
    return rank < batch_size(l, t) && l->problem.reset[row_of(l, t, rank)];
}

/* Where the gates g..g+count begin. */
static inline idx first_column(const layer *l, idx g, idx count)
{
    idx column = l->problem.offsets[g];
    for (idx i = g + 1; i < g + count; i++)
        column = MIN(column, l->problem.offsets[i]);
    return column;
}

/* Where the blocks of gates' gradients block..block+count begin. */
static inline idx block_column(const layer *l, idx block, idx count)
{
    return block < l->problem.cell->gates ? first_column(l, block, count) : block * l->problem.H;
}

/* Of all blocks of gates' gradients. */
static inline idx gradient_columns(const problem *p)
{
    return (p->cell->gradient_blocks - is_projected(p->cell)) * p->H + is_projected(p->cell) * p->P;
}

/* ---- what the front calls -------------------------------------------------------------------- */

/* Bytes of the panels of a layer's weights, and these in that much memory: forward's, and with
   training backward's too. Need problem (but for arrays) and weights. 0 bytes: too many to count. */
size_t fastrnn_panel_bytes(const kernel_table *, const layer *, int training);
void fastrnn_pack(const kernel_table *, layer *, int training, void *memory);

/* Chooses the plan and returns the bytes of work space (0: too many to count); then, in that much
   memory, packs what is not packed, sorts, runs and writes kept. Need problem and weights, or
   panels. lasting: the plan is to serve many calls, so that what the machine is busy with now counts
   nothing. fastrnn_forward returns nonzero: interrupted (interrupt.h), and what was written means nothing. */
size_t fastrnn_plan_forward(const kernel_table *, layer *, int lasting);
int fastrnn_forward(const kernel_table *, layer *, void *memory);

/* The same backward: writes gradients. Needs kept, too. */
size_t fastrnn_plan_backward(const kernel_table *, layer *);
int fastrnn_backward(const kernel_table *, layer *, void *memory);

/* Both halves of fastrnn_forward: what one step after the other shares, and one step. */
void fastrnn_forward_setup(const kernel_table *, layer *, void *memory);
int fastrnn_forward_run(const kernel_table *, layer *);

/* Bytes of the panels of one B [K, columns]. */
size_t fastrnn_packed_bytes(const kernel_table *, idx K, idx columns);

/* C = A B + bias, as matmul_args has it but for out_rows; nonzero: interrupted. */
int fastrnn_matmul(const kernel_table *, const matmul_args *, int threads);

/* C = A^T B and the sum of B's rows, in so much work space; nonzero: interrupted. */
size_t fastrnn_matmul_grad_bytes(const kernel_table *, const weight_grad_args *, int threads);
int fastrnn_matmul_grad(const kernel_table *, const weight_grad_args *, int threads, void *memory);

#endif
