/* gemv_neon.h: products of one row with 4-bit weights on ARM, compiled twice: by micro_neon.c for every 64-bit ARM
 * processor, and by gemv_neon_dot.c with the dot-product instruction, which the including file calls dot_of_bytes.
 *
 * Digits and order of the sums are those of digits.h and of micro_avx2.c, so that the bytes are, too. */
#ifndef LANCE_CPU_GEMV_NEON_H
#define LANCE_CPU_GEMV_NEON_H

#include <arm_neon.h>

#include "kernels/cpu/digits.h"
#include "kernels/formats/linear_source.h"

/* Eight lanes of a sum in float32. */
struct lanes {
    float32x4_t low, high;
};

/* The lanes' sum, in the order of sum_row (micro_body.h). */
static inline float lanes_sum(struct lanes of)
{
    const float32x4_t half = vaddq_f32(of.low, of.high);
    const float32x2_t quarter = vadd_f32(vget_low_f32(half), vget_high_f32(half));
    return vget_lane_f32(quarter, 0) + vget_lane_f32(quarter, 1);
}

#ifdef dot_of_bytes

/* Scales, zeros or offsets of a piece's groups, one a lane. */
static inline struct lanes lanes_of(const struct linear_source *w, size_t first, const int lanes[LANES],
                                    float (*number)(const struct linear_source *w, size_t group))
{
    float values[LANES];
    for (int lane = 0; lane < LANES; lane++)
        values[lane] = lane && lanes[lane] == lanes[lane - 1] ? values[lane - 1]
                                                              : number(w, first + (size_t)lanes[lane]);
    return (struct lanes){vld1q_f32(values), vld1q_f32(values + 4)};
}

static float scale_number(const struct linear_source *w, size_t group) /* without the tensor's own */
{
    return w->scales ? bf16_at(w->scales, group) : e4m3_to_float(((const uint8_t *)w->scales_fp8)[group]);
}

static float second_number(const struct linear_source *w, size_t group)
{
    return w->format == WEIGHT_NVFP4 ? (float)NVFP4_ZERO : group_second(w->format, w, group);
}

/* Four lanes' values of a piece, from its digits' sums, added to their total. */
static inline float32x4_t add_piece(bool has_offsets, float32x4_t total, const int32x4_t sum[DIGITS],
                                    float32x4_t scale, float32x4_t second, float32x4_t sums, float x_scale)
{
    const int32x4_t low = vaddq_s32(sum[0], vshlq_n_s32(sum[1], 8));
    const float32x4_t value = vcvtq_f32_s32(vaddq_s32(low, vshlq_n_s32(sum[2], 16)));
    if (has_offsets)
        return vfmaq_f32(total, vdupq_n_f32(x_scale), vfmaq_f32(vmulq_f32(scale, value), second, sums));
    return vfmaq_f32(total, vmulq_n_f32(scale, x_scale), vfmsq_f32(value, second, sums));
}

static void gemv_codes(const struct gemv *g, int first_column, int columns)
{
    static const uint8_t levels[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0}; /* see digits.h */
    const struct linear_source *w = g->w;
    const int in = w->in_features, group = w->group_size, piece = gemv_piece(w->format, group), pieces = in / piece;
    const bool is_nvfp4 = w->format == WEIGHT_NVFP4, has_offsets = w->format == WEIGHT_MLX_INT4;
    const float *x_sums = g->x + (size_t)(in / CODES) * BLOCK_FLOATS, *x_scales = x_sums + LANES * (size_t)pieces;
    const float factor = is_nvfp4 ? 0.5f * w->tensor_scale : 1.0f; /* NVFP4's bytes are twice the level */
    const uint8x16_t nibble = vdupq_n_u8(15), table = vld1q_u8(levels);
    int lanes[LANES];
    lanes_of_groups(group, lanes);
    for (int column = first_column; column < first_column + columns; column++) {
        const uint8_t *data = (const uint8_t *)w->data + (size_t)column * (size_t)in / 2;
        struct lanes total = {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)};
        for (int p = 0; p < pieces; p++) {
            int32x4_t sum[2][DIGITS];
            for (int half = 0; half < 2; half++)
                for (int d = 0; d < DIGITS; d++)
                    sum[half][d] = vdupq_n_s32(0);
            for (int block = p * (piece / CODES); block < (p + 1) * (piece / CODES); block++) {
                const int8_t *digits = (const int8_t *)(g->x + block * BLOCK_FLOATS);
                for (int half = 0; half < 2; half++) {
                    const uint8x16_t codes = vld1q_u8(data + block * (CODES / 2) + 16 * half);
                    uint8x16_t even = vandq_u8(codes, nibble), odd = vshrq_n_u8(codes, 4);
                    if (is_nvfp4) {
                        even = vqtbl1q_u8(table, even);
                        odd = vqtbl1q_u8(table, odd);
                    }
                    for (int d = 0; d < DIGITS; d++) {
                        const int8_t *these = digits + CODES * d + 16 * half;
                        sum[half][d] = dot_of_bytes(sum[half][d], vreinterpretq_s8_u8(even), vld1q_s8(these));
                        sum[half][d] = dot_of_bytes(sum[half][d], vreinterpretq_s8_u8(odd), vld1q_s8(these + 32));
                    }
                }
            }
            const size_t first = (size_t)column * (size_t)(in / group) + (size_t)(p * piece / group);
            const struct lanes scale = lanes_of(w, first, lanes, scale_number);
            const struct lanes second = lanes_of(w, first, lanes, second_number);
            const float *sums = x_sums + LANES * (size_t)p;
            total.low = add_piece(has_offsets, total.low, sum[0], scale.low, second.low, vld1q_f32(sums), x_scales[p]);
            total.high = add_piece(has_offsets, total.high, sum[1], scale.high, second.high, vld1q_f32(sums + 4),
                                   x_scales[p]);
        }
        const float value = factor * lanes_sum(total) + (g->bias ? g->bias[column] : 0.0f);
        g->y[column] = g->add ? g->y[column] + value : value;
    }
}

#endif
#endif
