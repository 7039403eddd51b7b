/* search.h: the scale of each input channel that a norm and the linear layers behind it share (AWQ).
 *
 * The norm's output is divided by it and the columns of the layers are multiplied, which changes nothing but how well
 * the columns can be rounded. Source: awq_apply.py and nvfp4_apply.py of lance-quant (awq_search_scale).
 */
#ifndef LANCE_QUANT_SEARCH_H
#define LANCE_QUANT_SEARCH_H

#include "base/error.h"
#include "tools/lance-quant/codes.h"
#include "tools/lance-quant/matrix.h"

enum { SEARCH_GRID = 20 /* alpha is one of 0/20 to 20/20 */, SEARCH_MOST_MATRICES = 3 };

struct search {
    const struct matrix *matrices; /* all of the same in_features */
    int count;
    const float *mean_abs; /* [in_features]: of the activations */
    struct code_form form;
    int threads;
};

/* Fills `scale` [in_features] with the one that changes the layers' outputs least: the mean squared error, summed over
 * the layers. Deterministic, whatever `threads`. Cost: (SEARCH_GRID + 1) products of 512 rows with every matrix.
 * Errors: ERROR_NO_MEMORY. */
int search_scale(const struct search *search, float *scale, struct error *error);

#endif
