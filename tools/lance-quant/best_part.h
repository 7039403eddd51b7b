/* best_part.h: quantising one part (layout.h) by the recipe "best".
 *
 * Beside a norm and the layers behind it, down's columns have a scale, too: the rows of up are divided by it, which
 * changes nothing, since each row is rounded by itself.
 */
#ifndef LANCE_QUANT_BEST_PART_H
#define LANCE_QUANT_BEST_PART_H

#include "daemon/engine/tap.h"
#include "tools/lance-quant/layout.h"

/* The scale of a part's columns that was found for the rows in front of it. All zero: none yet. */
struct best_found {
    bool is_there, scaled;
    int layer;
    float *scale; /* [in_features] */
};

struct best_work {
    const struct source *source;
    const struct statistics *statistics;
    const struct recipe *recipe;
    int threads;
    struct output *output;
    struct best_found *found; /* [PARTS_PER_LAYER], kept from one part to the next; its owner frees the scales */
};

/* What is known of the part's inputs, into `moments` (statistics.h): their products, or else their squares, or else how
 * large they are, or nothing, which counts all of them alike: *seen is false then. */
int part_moments(const struct part *part, const struct statistics *statistics, float *moments, bool *seen,
                 struct error *error);
float *part_allocate_moments(int width); /* NULL: no memory */

/* Write the tensors of `part`, which is number `index` of a layer. Deterministic, whatever `threads`. Memory: the
 * part's codes, and what is known of its inputs three times. */
int best_part_quantise(const struct best_work *work, int layer, int index, const struct part *part,
                       struct error *error);

#endif
