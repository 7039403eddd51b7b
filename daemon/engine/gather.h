/* gather.h: adds up the inputs of a model's linear layers, as a tap (daemon/engine/tap.h) shows them, into statistics.
 *
 * Used by one thread, which is the one that steps jobs; its own threads live for one call. The sums are the same with
 * any number of threads: each belongs to one, which adds in the order of the rows.
 */
#ifndef LANCE_GATHER_H
#define LANCE_GATHER_H

#include "daemon/engine/model/linear_input.h"
#include "daemon/engine/statistics.h"

struct gather;

/* Adds the products of `width` inputs of all rows, which lie `stride` apart, to the upper half of `sums` [width, BLOCK]
 * (STATISTICS_BLOCK): a fast one needs a library of linear algebra, which the engine has not. */
typedef void gather_products(const float *values, int rows, int stride, int width, float *sums);

/* `statistics` is counted into, and outlives it. With `products`, products of inputs as well. ERROR_NO_MEMORY. */
int gather_open(struct gather **out, struct statistics *statistics, gather_products *products, int threads,
                struct error *error);
void gather_close(struct gather *gather); /* NULL is allowed */

/* For lance_tap_open, with the gather as its context. */
void gather_watch(void *context, const struct linear_input *input);

/* 0, or what went wrong since it was opened: statistics of other shapes, no memory, inputs that are no numbers. */
int gather_check(const struct gather *gather, struct error *error);

/* Rows that layer 0 saw, of both experts: tokens that went through the model. */
uint64_t gather_tokens(const struct gather *gather);

#endif
