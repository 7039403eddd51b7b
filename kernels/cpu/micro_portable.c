/* micro_portable.c: the micro-kernels for any processor; see micro.h. */
#include <stdint.h>

enum { WIDTH = 4, SUM_WIDTH = 4 };
typedef float vec __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t ivec __attribute__((vector_size(WIDTH * sizeof(int32_t))));

static inline vec v_muladd(vec a, vec b, vec c)
{
    return a * b + c;
}

static inline vec v_max(vec a, vec b)
{
    ivec larger = a > b;
    return (vec)(((ivec)a & larger) | ((ivec)b & ~larger));
}

static inline vec v_min(vec a, vec b)
{
    ivec smaller = a < b;
    return (vec)(((ivec)a & smaller) | ((ivec)b & ~smaller));
}

#include "kernels/cpu/micro_body.h"

enum { ROWS = 2 }; /* 2 x 16 sums fit the 16 vector registers of baseline x86-64 */

static inline void portable_tile_rows(const int rows, size_t depth, const float *a, size_t a_row, size_t a_step,
                                      const float *panel, float *c, size_t c_row, bool accumulate)
{
    float sum[ROWS][TILE_COLUMNS] = {{0}};
    for (size_t k = 0; k < depth; k++, a += a_step, panel += TILE_COLUMNS)
        for (int r = 0; r < rows; r++) {
            float value = a[(size_t)r * a_row];
            for (int j = 0; j < TILE_COLUMNS; j++)
                sum[r][j] += value * panel[j];
        }
    for (int r = 0; r < rows; r++, c += c_row)
        for (int j = 0; j < TILE_COLUMNS; j++)
            c[j] = accumulate ? c[j] + sum[r][j] : sum[r][j];
}

static void portable_tile(int rows, int panels, size_t depth, const float *a, size_t a_row, size_t a_step,
                          const float *panel, size_t distance, float *c, size_t c_row, bool accumulate)
{
    (void)panels, (void)distance; /* one at a time */
    if (rows == ROWS)
        portable_tile_rows(ROWS, depth, a, a_row, a_step, panel, c, c_row, accumulate);
    else
        portable_tile_rows(1, depth, a, a_row, a_step, panel, c, c_row, accumulate);
}

static void portable_pack(const float *const *source, int width, size_t depth, float *out)
{
    for (int j = 0; j < width; j++) {
        const float *from = source[j];
        for (size_t k = 0; k < depth; k++)
            out[k * (size_t)width + (size_t)j] = from ? from[k] : 0.0f;
    }
}

static void portable_decode_panel(const struct linear_source *w, int row, int count, int first, int depth, float *out)
{
    body_decode_panel(w, row, count, first, depth, out, portable_pack);
}

const struct micro *micro_portable(void)
{
    static const struct micro micro = {
        .name = "cpu-portable",
        .tile_rows = ROWS,
        .tile_panels = 1,
        .tile = portable_tile,
        .pack = portable_pack,
        .decode_panel = portable_decode_panel,
        .gemv_prepared_floats = body_gemv_prepared_floats,
        .gemv_prepare = body_gemv_prepare,
        .gemv = body_gemv,
        BODY_LOOPS,
    };
    return &micro;
}
