/* bf16_plain.c: products in bf16 in plain C, with the sums of the tile or of the dot-product instructions; see bf16.h.
 *
 * TDPBF16PS, 16 pairs at a time: the products of the even and of the odd numbers are summed apart, from zero, and then
 * added to each other and to what is there. VDPBF16PS, pair by pair: the odd product is added to what is there, then
 * the even one. Both take subnormal numbers for zero, which the processor is asked to do here too where it can be.
 */
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/bf16_loops.h"

#include <math.h>

#if defined(__SSE2__)
#include <xmmintrin.h>

static void plain_begin(unsigned *saved)
{
    enum { FLUSH_TO_ZERO = 0x8000, DENORMALS_ARE_ZERO = 0x0040 };
    *saved = _mm_getcsr();
    _mm_setcsr(*saved | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO);
}

static void plain_end(unsigned saved)
{
    _mm_setcsr(saved);
}
#else
static void plain_begin(unsigned *saved)
{
    *saved = 0;
}

static void plain_end(unsigned saved)
{
    (void)saved;
}
#endif

/* The numbers of a pair of columns as floats: the product of two is exact in float32, so that it does not matter
 * whether it is rounded before it is added. */
static inline void step_of_tiles(const bf16 *row, const bf16 *panel, float *c)
{
    float even[BF16_TILE] = {0}, odd[BF16_TILE] = {0};
    for (int pair = 0; pair < BF16_STEP / 2; pair++, panel += 2 * BF16_TILE) {
        const float a = bf16_to_float(row[2 * pair]), b = bf16_to_float(row[2 * pair + 1]);
        for (int j = 0; j < BF16_TILE; j++) {
            even[j] += a * bf16_to_float(panel[2 * j]);
            odd[j] += b * bf16_to_float(panel[2 * j + 1]);
        }
    }
    for (int j = 0; j < BF16_TILE; j++)
        c[j] += even[j] + odd[j];
}

/* One product after the other, in loops of their own: gcc 12 makes wrong code of both in one. */
static inline void step_of_pairs(const bf16 *row, const bf16 *panel, float *c)
{
    for (int k = 0; k < BF16_STEP; k++) {
        const int number = k ^ 1; /* the odd one of a pair first */
        const float a = bf16_to_float(row[number]);
        const bf16 *column = panel + k / 2 * (2 * BF16_TILE) + number % 2;
        for (int j = 0; j < BF16_TILE; j++)
            c[j] += a * bf16_to_float(column[2 * j]);
    }
}

static inline void multiply(const struct bf16_product *p, void (*step)(const bf16 *row, const bf16 *panel, float *c))
{
    for (int r = 0; r < BF16_TILE * p->row_tiles; r++)
        for (int t = 0; t < p->column_tiles; t++) {
            float sum[BF16_TILE] = {0}, *c = p->c + (size_t)r * p->c_row + (size_t)(t * BF16_TILE);
            const bf16 *panel = p->panels + (size_t)t * p->panel_distance;
            if (p->accumulate)
                memcpy(sum, c, sizeof sum);
            for (int s = 0; s < p->segments; s++)
                for (size_t k = 0; k < p->steps; k++, panel += BF16_PANEL_STEP)
                    step(p->rows[s] + (size_t)r * p->row_distance + k * BF16_STEP, panel, sum);
            memcpy(c, sum, sizeof sum);
        }
}

static void multiply_tiles(const struct bf16_product *p)
{
    multiply(p, step_of_tiles);
}

static void multiply_pairs(const struct bf16_product *p)
{
    multiply(p, step_of_pairs);
}

#define PLAIN_LOOPS(its_name, its_multiply)                                                                            \
    {                                                                                                                  \
        .name = its_name, .begin = plain_begin, .end = plain_end, .multiply = its_multiply, .round = loops_round,      \
        .pack_columns = loops_pack_columns, .pack_depth = loops_pack_depth, .decode = loops_decode,                    \
        .store_transposed = loops_store_transposed,                                                                    \
    }

const struct bf16_loops *bf16_plain_amx(void)
{
    static const struct bf16_loops loops = PLAIN_LOOPS("cpu-amx-bf16-emulated", multiply_tiles);
    return &loops;
}

const struct bf16_loops *bf16_plain_avx512(void)
{
    static const struct bf16_loops loops = PLAIN_LOOPS("cpu-avx512-bf16-emulated", multiply_pairs);
    return &loops;
}
