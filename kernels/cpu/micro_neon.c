/* micro_neon.c: the micro-kernels for 64-bit ARM, whose every processor has NEON and fused multiply-adds; see micro.h.
 *
 * Every sum runs in the order of micro_avx2.c, whose vectors are pairs of these, so both give the same bytes. */
#include "kernels/cpu/micro.h"

#ifdef __aarch64__

#include <arm_neon.h>
#include <stdint.h>
#ifdef __linux__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

enum { WIDTH = 4, SUM_WIDTH = 8 };
typedef float vec __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t ivec __attribute__((vector_size(WIDTH * sizeof(int32_t))));

static inline vec v_muladd(vec a, vec b, vec c)
{
    return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

/* As x86's instructions do it: the second one where one of them is no number. */
static inline vec v_max(vec a, vec b)
{
    return (vec)vbslq_f32(vcgtq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
}

static inline vec v_min(vec a, vec b)
{
    return (vec)vbslq_f32(vcltq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
}

#include "kernels/cpu/gemv_neon_dot.h"
#include "kernels/cpu/micro_body.h"

/* Without the dot-product instruction: products of bytes as 16 bits, whose neighbours are added twice: a code is at
 * most 24 and a digit 128. */
static inline int32x4_t widened_dot(int32x4_t sum, int8x16_t codes, int8x16_t digits)
{
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(codes), vget_low_s8(digits)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(codes, digits));
    return vaddq_s32(sum, vpaddq_s32(low, high));
}
#define dot_of_bytes widened_dot
#include "kernels/cpu/gemv_neon.h"

enum { ROWS = 6, VECTORS = TILE_COLUMNS / WIDTH }; /* 6 x 4 sums, 4 panel vectors and 1 broadcast: 29 of 32 registers */

static inline __attribute__((always_inline)) void neon_tile_rows(const int rows, size_t depth, const float *a,
                                                                 size_t a_row, size_t a_step, const float *panel,
                                                                 float *c, size_t c_row, bool accumulate)
{
    float32x4_t sum[ROWS][VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            sum[r][v] = vdupq_n_f32(0.0f);
    for (size_t k = 0; k < depth; k++, a += a_step, panel += TILE_COLUMNS) {
        float32x4_t right[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            right[v] = vld1q_f32(panel + WIDTH * v);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            const float32x4_t value = vld1q_dup_f32(a + (size_t)r * a_row);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sum[r][v] = vfmaq_f32(sum[r][v], value, right[v]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++, c += c_row)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            const float32x4_t there = accumulate ? vld1q_f32(c + WIDTH * v) : vdupq_n_f32(0.0f);
            vst1q_f32(c + WIDTH * v, accumulate ? vaddq_f32(sum[r][v], there) : sum[r][v]);
        }
}

static void neon_tile(int rows, int panels, size_t depth, const float *a, size_t a_row, size_t a_step,
                      const float *panel, size_t distance, float *c, size_t c_row, bool accumulate)
{
    (void)panels, (void)distance; /* one at a time */
    switch (rows) {
    case 1: neon_tile_rows(1, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 2: neon_tile_rows(2, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 3: neon_tile_rows(3, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 4: neon_tile_rows(4, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 5: neon_tile_rows(5, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    default: neon_tile_rows(6, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    }
}

/* Four sources side by side at four depths: rows become columns. */
static inline void pack4(const float *const *source, size_t k, size_t width, float *out)
{
    float32x4x2_t pair[2];
    for (int j = 0; j < 2; j++) {
        const float32x4_t first = source[2 * j] ? vld1q_f32(source[2 * j] + k) : vdupq_n_f32(0.0f);
        const float32x4_t second = source[2 * j + 1] ? vld1q_f32(source[2 * j + 1] + k) : vdupq_n_f32(0.0f);
        pair[j] = vtrnq_f32(first, second);
    }
    for (int i = 0; i < 2; i++) {
        const float32x4_t a = pair[0].val[i], b = pair[1].val[i];
        vst1q_f32(out + (k + (size_t)i) * width, vcombine_f32(vget_low_f32(a), vget_low_f32(b)));
        vst1q_f32(out + (k + (size_t)i + 2) * width, vcombine_f32(vget_high_f32(a), vget_high_f32(b)));
    }
}

static void neon_pack(const float *const *source, int width, size_t depth, float *out)
{
    const size_t whole = depth / WIDTH * WIDTH;
    int j = 0;
    for (; j + WIDTH <= width; j += WIDTH)
        for (size_t k = 0; k < whole; k += WIDTH)
            pack4(source + j, k, (size_t)width, out + j);
    for (size_t k = whole; k < depth; k++)
        for (int column = 0; column < j; column++)
            out[k * (size_t)width + (size_t)column] = source[column] ? source[column][k] : 0.0f;
    for (; j < width; j++)
        for (size_t k = 0; k < depth; k++)
            out[k * (size_t)width + (size_t)j] = source[j] ? source[j][k] : 0.0f;
}

static void neon_decode_panel(const struct linear_source *w, int row, int count, int first, int depth, float *out)
{
    body_decode_panel(w, row, count, first, depth, out, neon_pack);
}

/* Sixteen weights as float32: v[0..1] the first eight lanes, v[2..3] the other eight; of bf16 the even and the odd
 * columns, as pairs_prepare() has x. */
static inline void load_wide(enum weight_format format, const char *data, int k, float32x4_t v[4])
{
    if (format == WEIGHT_F32) {
        for (int i = 0; i < 4; i++)
            v[i] = vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)data + (size_t)(k + 4 * i) * 4));
        return;
    }
    const uint8_t *from = (const uint8_t *)data + (size_t)k * 2;
    const uint16x8_t first = vreinterpretq_u16_u8(vld1q_u8(from)), second = vreinterpretq_u16_u8(vld1q_u8(from + 16));
    const uint16x8_t even = vuzp1q_u16(first, second), odd = vuzp2q_u16(first, second);
    v[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(even), 16));
    v[1] = vreinterpretq_f32_u32(vshll_high_n_u16(even, 16));
    v[2] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(odd), 16));
    v[3] = vreinterpretq_f32_u32(vshll_high_n_u16(odd, 16));
}

/* Float32 and bf16 weights. */
static void gemv_wide(const struct gemv *g, int first_column, int columns)
{
    const enum weight_format format = g->w->format;
    const int in = g->w->in_features, whole = in / PAIRS * PAIRS;
    const size_t size = format == WEIGHT_F32 ? 4 : 2;
    for (int column = first_column; column < first_column + columns; column++) {
        const char *data = (const char *)g->w->data + (size_t)column * (size_t)in * size;
        float32x4_t sum[4], v[4];
        for (int i = 0; i < 4; i++)
            sum[i] = vdupq_n_f32(0.0f);
        for (int k = 0; k < whole; k += PAIRS) {
            load_wide(format, data, k, v);
            for (int i = 0; i < 4; i++)
                sum[i] = vfmaq_f32(sum[i], v[i], vld1q_f32(g->x + k + WIDTH * i));
        }
        float value = lanes_sum((struct lanes){vaddq_f32(sum[0], sum[2]), vaddq_f32(sum[1], sum[3])});
        for (int k = whole; k < in; k++)
            value += element_at(format, data, (size_t)k) * g->x[k];
        gemv_store(g, column, value);
    }
}

static void neon_gemv(const struct gemv *g, int first_column, int columns)
{
    if (gemv_of_codes(g->w))
        gemv_codes(g, first_column, columns);
    else if (weight_is_quantised(g->w->format))
        body_gemv(g, first_column, columns);
    else
        gemv_wide(g, first_column, columns);
}

static void neon_dot_gemv(const struct gemv *g, int first_column, int columns)
{
    if (gemv_of_codes(g->w))
        neon_dot_gemv_codes(g, first_column, columns);
    else
        neon_gemv(g, first_column, columns);
}

static bool has_dot_products(void)
{
#ifdef __linux__
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
    return true; /* every ARM processor of Apple's computers */
#endif
}

#define NEON_TABLE(its_gemv)                                                                                           \
    {                                                                                                                  \
        .name = "cpu-neon", .tile_rows = ROWS, .tile_panels = 1, .tile = neon_tile, .pack = neon_pack,                 \
        .decode_panel = neon_decode_panel, .gemv_prepared_floats = row_floats,                          \
        .gemv_prepare = row_prepare, .gemv = its_gemv, BODY_LOOPS,                                               \
    }

const struct micro *micro_neon(void)
{
    static const struct micro plain = NEON_TABLE(neon_gemv), with_dot_products = NEON_TABLE(neon_dot_gemv);
    return has_dot_products() ? &with_dot_products : &plain;
}

#else

const struct micro *micro_neon(void)
{
    return NULL;
}

#endif
