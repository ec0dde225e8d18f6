#include "layer.h"

static int within(idx first, idx count, idx end)
{
    return first >= 0 && count > 0 && first + count <= end;
}

/* Blocks of gradients are gates' own, or all past them. */
static int matched(const cell_spec *c, idx block, idx gate, idx gates)
{
    return within(gate, gates, c->gates)
        && (block < c->gates ? block == gate : within(block, gates, c->gradient_blocks));
}

static int may_project(const cell_spec *c, idx i)
{
    const forward_phase *const f = &c->forward[i];
    const backward_phase *const b = &c->backward[i];
    return i > 0 && i == c->phases - 1 && f->left == SCRATCH && f->gates == 1 && b->within_step
        && b->piece[0].block == c->gates && b->piece[0].gates == 1 && b->piece[1].gates == 0
        && c->gradient_blocks == c->gates + 1 && c->operand;
}

const char *fastrnn_spec_error(const cell_spec *c)
{
    idx covered = 0, products = 0;
    if (!within(0, c->gates, MAX_GATES) || !within(0, c->states, MAX_STATES)
        || !within(0, c->phases, MAX_PHASES) || c->scratch > MAX_SCRATCH)
        return "more gates, states, scratch or phases than there are, or none";
    if (c->gradient_blocks < c->gates)
        return "gradient_blocks: fewer than gates";
    for (idx i = 0; i < c->phases; i++) {
        const forward_phase *const f = &c->forward[i];
        const backward_phase *const b = &c->backward[i];
        if ((f->gates && !within(f->gate, f->gates, c->gates)) || !f->activate || !b->differentiate)
            return "a phase without its gates or formulas";
        products += f->gates > 0 || b->piece[0].gates > 0;
        if (f->continued && (i > 0 || f->gate > 0 || f->continued > f->gates
                             || (f->gates == 1 && c->gates > 1)))
            return "continued: gates that cannot go on from x Wx + b";
        if (f->left == SCRATCH && !c->scratch)
            return "a phase that multiplies no scratch";
        if (f->projects != b->projects || (f->projects && !may_project(c, i)))
            return "projects: not the last phase, of scratch and back of the block past the gates";
        for (idx j = 0; j < MAX_PIECES && b->piece[j].gates; j++)
            if (!matched(c, b->piece[j].block, b->piece[j].gate, b->piece[j].gates))
                return "a piece of gates that there are not";
    }
    for (idx i = 0; i < MAX_PIECES && c->weights[i].gates; i++) {
        const weight_block *const w = &c->weights[i];
        if (w->gate != covered || !matched(c, w->block, w->gate, w->gates)
            || (w->left == SCRATCH && !c->operand))
            return "weights: not all gates, one after the other";
        covered += w->gates;
    }
    if (covered != (products ? c->gates : 0))
        return "weights: not all gates, one after the other";
    if (is_normalised(c)
        && (c->phases != 1 || c->forward[0].gates != c->gates || c->forward[0].continued
            || c->gradient_blocks < c->norm.of_x + c->gates || c->norm.of_h != c->weights[0].block
            || c->norm.of_h != c->backward[0].piece[0].block || (c->norm.of_c && !c->scratch)))
        return "norm: not one phase of all gates, or gradients where there are none";
    if (c->diagonal && products)
        return "diagonal: Wh cannot be a matrix, too";
    if (c->vectors && !within(0, c->vectors, MAX_VECTORS - c->diagonal))
        return "more vectors than there are";
    for (idx i = 0; i < c->vectors; i++)
        if (!within(c->vector[i].gate, 1, c->gates)
            || (c->vector[i].factor == C_BEFORE && c->states < 2))
            return "a vector of a gate or a state that there is not";
    return NULL;
}
