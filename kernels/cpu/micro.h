/* micro.h: the innermost loops of the CPU backend, as a table per instruction set.
 *
 * Everything above this table is plain C and the same everywhere; everything in it runs
 * on one thread, on data in cache. micro_portable.c fills it with C that any machine
 * runs, micro_avx2.c with AVX2, FMA and F16C, micro_avx512.c with AVX-512, micro_neon.c with ARM's NEON (chosen at run
 * time, see cpu_open.c). The last three give the same bytes: every sum runs in the same order, whatever the width of
 * the vectors.
 *
 * The two packed layouts of the blocked product (product.h):
 *   panel  16 columns of the right factor,     [depth][16]
 *   strip  up to tile_rows rows of the left,   [depth][rows]
 */
#ifndef LANCE_CPU_MICRO_H
#define LANCE_CPU_MICRO_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/kernels.h"

enum {
    TILE_COLUMNS = 16,
    TILE_ROWS_MAX = 12,
    DEPTH_BLOCK = 256,  /* products are summed in blocks of this depth, so that a panel stays in the L1 cache */
    CACHE_LINE = 64,    /* bytes */
    PACK_SLACK = 8      /* floats that pack() may write behind its output */
};

/* A product with one row: y[column] = dot(x, w[column]) for some columns. */
struct gemv {
    const struct linear_source *w;
    const float *x;      /* as gemv_prepare left it */
    float *y;
    const float *bias;   /* or NULL */
    bool add;
};

struct micro {
    const char *name;
    int tile_rows, tile_panels;

    /* c[r*c_row + j] = sum over k of a[r*a_row + k*a_step] * panel[k*16 + j], r < rows <= tile_rows, j < 16;
     * added to c when `accumulate`. `panels` (at most tile_panels) lie `distance` floats
     * apart, their sums 16 columns. */
    void (*tile)(int rows, int panels, size_t depth, const float *a, size_t a_row, size_t a_step, const float *panel,
                 size_t distance, float *c, size_t c_row, bool accumulate);
    /* out[k*width + j] = source[j][k], j < width, k < depth; a NULL source is a row of zeros.
     * May write PACK_SLACK floats past the end. */
    void (*pack)(const float *const *source, int width, size_t depth, float *out);
    /* Weights [row, first..first+depth) as float32. */
    void (*decode_row)(const struct linear_source *w, int row, int first, int depth, float *out);
    /* The same for `count` rows (at most 16, missing ones zero) as a panel; depth <= DEPTH_BLOCK. */
    void (*decode_panel)(const struct linear_source *w, int row, int count, int first, int depth, float *out);
    /* decode_panel of 16 rows, and tile with one strip of `rows` (at most tile_rows) added to c, in one: the same
     * sums, without the panel. False, with nothing done, where the weights are of another kind. NULL: there is no such
     * way. */
    bool (*multiply_codes)(const struct linear_source *w, int row, int first, int depth, int rows, const float *strip,
                           float *c, size_t c_row);

    /* Floats that a prepared x takes; bring x into the order that gemv wants. */
    size_t (*gemv_prepared_floats)(const struct linear_source *w);
    void (*gemv_prepare)(const struct linear_source *w, const float *x, float *out);
    void (*gemv)(const struct gemv *g, int first_column, int columns);

    /* Rows of elementwise work. y may be x. */
    void (*rms_norm)(const float *x, size_t n, const float *weight, float eps, float *y);
    void (*l2_norm)(const float *x, size_t n, const float *gamma, bool with_silu, float *y);
    void (*rope)(float *x, size_t half, const float *cosines, const float *sines);
    void (*swiglu)(const float *gate, const float *up, size_t n, float *out);
    void (*silu)(const float *x, size_t n, float *y);
    void (*add)(const float *x, size_t n, float *y);
    void (*scale)(float *x, size_t n, float factor);
    float (*max)(const float *x, size_t n);
    /* x = exp(x - shift); returns the sum. */
    float (*exp_sum)(float *x, size_t n, float shift);
};

const struct micro *micro_portable(void);
/* NULL when this processor or this build has no AVX2, FMA and F16C. */
const struct micro *micro_avx2(void);
/* NULL when this processor or this build has no AVX-512 (F, BW, DQ, VL and VNNI) beside those. */
const struct micro *micro_avx512(void);
/* NULL when this build is not for 64-bit ARM. */
const struct micro *micro_neon(void);

#endif
