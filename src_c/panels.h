/* A layer's weights regrouped into panels. */
#ifndef FASTRNN_PANELS_H
#define FASTRNN_PANELS_H
#include "layer.h"
#include "layout.h"

/* Where the panels of forward's products lie, and, added to the list, how they are filled. */
void place_forward_panels(arena *, const kernel_table *, layer *, pack_list *);

/* The same of backward's, which are of the transposes: [GH, D], [GH, P] and [P, H]. */
void place_backward_panels(arena *, const kernel_table *, layer *, pack_list *);

void run_packs(const kernel_table *, const pack_list *, int threads);

#endif
