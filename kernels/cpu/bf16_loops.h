/* bf16_loops.h: the loops of bf16.h around the products, in plain C: rounding, packing and decoding (see there). */
#ifndef LANCE_CPU_BF16_LOOPS_H
#define LANCE_CPU_BF16_LOOPS_H

#include <string.h>

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/micro.h"
#include "kernels/formats/linear_source.h"

static inline void loops_round(const float *from, size_t n, size_t padded, bf16 *to)
{
    for (size_t i = 0; i < n; i++)
        to[i] = bf16_nearest(from[i]);
    memset(to + n, 0, (padded - n) * sizeof *to);
}

static inline void loops_pack_columns(const float *const *source, size_t depth, bf16 *panel)
{
    const size_t padded = bf16_steps((int)depth) * BF16_STEP;
    for (size_t j = 0; j < BF16_TILE; j++)
        for (size_t k = 0; k < padded; k++)
            panel[k / 2 * (2 * BF16_TILE) + 2 * j + k % 2] = source[j] && k < depth ? bf16_nearest(source[j][k]) : 0;
}

static inline void loops_pack_depth(const float *const *source, int count, int width, bf16 *panels,
                                    size_t panel_distance)
{
    const int padded = (int)bf16_steps(count) * BF16_STEP, columns = (width + BF16_TILE - 1) / BF16_TILE * BF16_TILE;
    for (int k = 0; k < padded; k++)
        for (int j = 0; j < columns; j++)
            panels[(size_t)(j / BF16_TILE) * panel_distance +
                   (size_t)(k / 2 * (2 * BF16_TILE) + 2 * (j % BF16_TILE) + k % 2)] =
                k < count && j < width ? bf16_nearest(source[k][j]) : 0;
}

/* Weights of one row as float32, rounded one step at a time. */
static inline void loops_decode(const struct linear_source *w, int row, int first, int depth, bf16 *to)
{
    float values[BF16_STEP];
    for (int k = 0; k < depth; k += BF16_STEP, to += BF16_STEP) {
        const int n = depth - k < BF16_STEP ? depth - k : BF16_STEP;
        linear_source_decode(w, row, first + k, n, values);
        loops_round(values, (size_t)n, BF16_STEP, to);
    }
}

static inline void loops_store_transposed(const float *c, size_t c_row, int rows, int columns, const float *bias,
                                          bool add, float *out, size_t out_row)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            float value = c[(size_t)j * c_row + (size_t)i] + (bias ? bias[j] : 0.0f);
            float *to = out + (size_t)i * out_row + j;
            *to = add ? *to + value : value;
        }
}

#endif
