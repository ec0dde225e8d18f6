#include "layer.h"

static int within(idx first, idx count, idx end)
{
    return first >= 0 && count > 0 && first + count <= end;
}

const char *fastrnn_spec_error(const cell_spec *c)
{
    idx covered = 0;
    if (!within(0, c->gates, MAX_GATES) || !within(0, c->states, MAX_STATES)
        || !within(0, c->phases, MAX_PHASES) || c->scratch > MAX_SCRATCH)
        return "more gates, states, scratch or phases than there are, or none";
    if (c->gradient_blocks < c->gates)
        return "gradient_blocks: fewer than gates";
    for (idx i = 0; i < c->phases; i++) {
        const forward_phase *const f = &c->forward[i];
        const backward_phase *const b = &c->backward[i];
        if (!within(f->gate, f->gates, c->gates) || !f->activate || !b->differentiate)
            return "a phase without its gates or formulas";
        if (f->continued && (i > 0 || f->continued > f->gates || (f->gates == 1 && c->gates > 1)))
            return "continued: gates that cannot go on from x Wx + b";
        if (f->left == SCRATCH && !c->scratch)
            return "a phase that multiplies no scratch";
        for (idx j = 0; j < MAX_PIECES && b->piece[j].gates; j++)
            if (!within(b->piece[j].block, b->piece[j].gates, c->gradient_blocks)
                || !within(b->piece[j].gate, b->piece[j].gates, c->gates))
                return "a piece of gates that there are not";
    }
    for (idx i = 0; i < MAX_PIECES && c->weights[i].gates; i++) {
        const weight_block *const w = &c->weights[i];
        if (w->gate != covered || !within(w->block, w->gates, c->gradient_blocks)
            || (w->left == SCRATCH && !c->operand))
            return "weights: not all gates, one after the other";
        covered += w->gates;
    }
    return covered == c->gates ? NULL : "weights: not all gates, one after the other";
}
