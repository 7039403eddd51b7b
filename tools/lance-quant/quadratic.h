/* quadratic.h: what a change of a linear layer's weights costs: change^T E[x x^T] change for each row, as far as the
 * products of inputs are known, which is within blocks of STATISTICS_BLOCK; inputs of different blocks count as
 * unrelated.
 *
 * Immutable when it is open; any thread reads it.
 */
#ifndef LANCE_QUANT_QUADRATIC_H
#define LANCE_QUANT_QUADRATIC_H

#include "base/error.h"
#include "daemon/engine/tap.h"

struct quadratic {
    int width, blocks;
    float *form;     /* [blocks, BLOCK, BLOCK], E[x x^T] */
    float *feedback; /* [blocks, BLOCK, BLOCK]: row i has what column `order[i]`, rounded, leaves to those after it in
                      * `order`, for each unit of its change; in places of `order` */
    uint8_t *order;  /* [blocks, BLOCK]: columns of a block, those that count most first */
};

/* Of inputs divided by `scale` [width]; `moments` [blocks, BLOCK, BLOCK]. ERROR_NO_MEMORY. Cost: three times BLOCK^3
 * for each block. */
int quadratic_open(struct quadratic *out, const float *moments, const float *scale, int width, int threads,
                   struct error *error);
void quadratic_close(struct quadratic *quadratic);

/* The columns of a block: STATISTICS_BLOCK but in the last. */
static inline int quadratic_columns(const struct quadratic *q, int block)
{
    const int left = q->width - block * STATISTICS_BLOCK;
    return left < STATISTICS_BLOCK ? left : STATISTICS_BLOCK;
}

/* Row `i` of a block of the form. */
static inline const float *quadratic_row(const struct quadratic *q, int block, int i)
{
    return q->form + ((size_t)block * STATISTICS_BLOCK + (size_t)i) * STATISTICS_BLOCK;
}

/* What `change` [width] of a row costs. */
double quadratic_cost(const struct quadratic *quadratic, const float *change);

#endif
