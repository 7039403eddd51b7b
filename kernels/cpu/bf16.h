/* bf16.h: the innermost loops of products in bf16 with float32 sums, as a table per kind of instruction.
 *
 * linear_bf16.c, attention_bf16.c and conv_bf16.c are plain C over this table, as the float32 operators are over
 * micro.h. bf16_amx.c fills it with tile instructions (TDPBF16PS), bf16_avx512.c with dot products (VDPBF16PS), and
 * bf16_plain.c with C that sums in the order of either, for tests on any processor: the same bytes.
 *
 * Layouts, depth in steps of BF16_STEP:
 *   rows    a row's numbers one after the other, rows any distance apart;         16 of them are a tile
 *   panel   16 columns of the right factor, [step][16 pairs][16 columns][2]; a pair is two neighbours in depth
 * Every sum runs over the depth in order, from zero or from what is there, in float32: it does not matter whether it is
 * interrupted and taken up again, or which rows and columns are beside it.
 */
#ifndef LANCE_CPU_BF16_H
#define LANCE_CPU_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/formats/numbers.h"
#include "kernels/kernels.h"

typedef uint16_t bf16;

enum {
    BF16_TILE = 16,                            /* rows and columns of a tile */
    BF16_STEP = 32,                            /* depth of a tile */
    BF16_PANEL_STEP = BF16_STEP * BF16_TILE,   /* numbers of a panel in one step */
    BF16_SEGMENTS = 32                         /* places that the depth may be in, see struct bf16_product */
};

/* c[16 * row_tiles][16 * column_tiles] (+)= rows times panels. The depth lies in `segments` places of `steps` steps
 * each: row r of segment s at rows[s] + r * row_distance, while a panel's segments follow each other. */
struct bf16_product {
    const bf16 *const *rows;
    size_t row_distance;
    int segments;
    size_t steps;
    const bf16 *panels;
    size_t panel_distance;
    int row_tiles, column_tiles; /* 1 or 2 */
    float *c;
    size_t c_row;
    bool accumulate;
};

struct bf16_loops {
    const char *name; /* of the backend */

    /* Around the calls of multiply() on one thread: the processor's tile state, rounding of subnormals. */
    void (*begin)(unsigned *saved);
    void (*end)(unsigned saved);
    void (*multiply)(const struct bf16_product *p);

    /* n floats, rounded to nearest even; subnormals become zero. Zeros up to `padded`. */
    void (*round)(const float *from, size_t n, size_t padded, bf16 *to);
    /* A panel whose columns are the 16 rows at `source` of `depth` floats each, zeros up to a
     * whole step; NULL is zeros. */
    void (*pack_columns)(const float *const *source, size_t depth, bf16 *panel);
    /* Panels whose depth runs over `count` rows of `width` floats: [width / 16, rounded up], `panel_distance` apart;
     * zeros up to whole steps and panels. */
    void (*pack_depth)(const float *const *source, int count, int width, bf16 *panels, size_t panel_distance);
    /* Weights [row, first..first+depth), rounded; zeros up to a whole step. first is a multiple of BF16_STEP. */
    void (*decode)(const struct linear_source *w, int row, int first, int depth, bf16 *to);
    /* out[i * out_row + j] = c[j * c_row + i] (+ bias[j]) (+ what is there), i < rows, j < columns. */
    void (*store_transposed)(const float *c, size_t c_row, int rows, int columns, const float *bias, bool add,
                             float *out, size_t out_row);
};

/* To nearest even, as VCVTNEPS2BF16 does: subnormals become zero, what is no number stays that. */
static inline bf16 bf16_nearest(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7f800000) == 0)
        return (bf16)(bits >> 16 & 0x8000);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (bf16)(bits >> 16 | 0x40);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline size_t bf16_steps(int depth) /* of BF16_STEP, rounded up */
{
    return ((size_t)depth + BF16_STEP - 1) / BF16_STEP;
}

const struct bf16_loops *bf16_plain_amx(void);
const struct bf16_loops *bf16_plain_avx512(void);
/* NULL, with an error that says what is missing, where the processor, the system or this build has none. */
const struct bf16_loops *bf16_avx512(struct error *error);
const struct bf16_loops *bf16_amx(struct error *error);

#endif
