/* best_scale.h: the scale of the columns of layers that share an input, for the recipe "best": of several, the one with
 * which some of the rows, rounded as they will be, cost least.
 */
#ifndef LANCE_QUANT_BEST_SCALE_H
#define LANCE_QUANT_BEST_SCALE_H

#include "daemon/engine/tap.h"
#include "tools/lance-quant/matrix.h"
#include "tools/lance-quant/recipe.h"

struct best_scale {
    const struct matrix *matrices; /* all of the same in_features */
    int count;
    const float *moments; /* of their input (statistics.h) */
    const struct recipe *recipe;
    int threads;
};

/* Fills `scale` [in_features]. Deterministic, whatever `threads`. ERROR_NO_MEMORY. */
int best_scale_find(const struct best_scale *search, float *scale, struct error *error);

#endif
