/* digits.h: a row brought into the order that products of one row want, the same for every instruction set but plain C;
 * for micro_*.c.
 *
 * Against 4-bit weights the sums of one row (gemv) run in integers, which takes half the instructions of floats and is
 * exact: x is brought to 24-bit fixed point, in three signed digits of 8 bits, with a scale for each piece of 64 or 128
 * columns (the error is 2^-24 of the piece's largest value, as in a float), and codes times digits are summed
 * by the byte multiplier. Zero points are taken off once per piece, with the sum of x:
 *   sum (code - zero) * scale * x  =  scale * x_scale * (sum code * digits  -  zero * sum digits)
 * and MLX's offsets added likewise:  x_scale * (scale * sum code * digits  +  offset * sum digits).
 * NVFP4 levels are looked up as the bytes 2*level + 12, which are positive, and so have a "zero" of 12.
 *
 * 32 bytes are 64 codes; lane l of 32 bits holds columns 8l .. 8l+7, low nibbles the even ones. Prepared x: for each
 * such block and each digit 32 bytes for the even and 32 for the odd columns; then for each piece the lanes' sums of
 * the digits; then the scales of the pieces. */
#ifndef LANCE_CPU_DIGITS_H
#define LANCE_CPU_DIGITS_H

#include <math.h>
#include <string.h>

#include "kernels/cpu/micro.h"

enum { CODES = 64, LANES = 8, DIGITS = 3, BLOCK_FLOATS = DIGITS * 2 * LANES, NVFP4_ZERO = 12, PAIRS = 16 };

/* Whether the 4-bit weights are of a shape that the sums in integers take. */
static inline bool gemv_of_codes(const struct linear_source *w)
{
    int g = w->group_size;
    return weight_is_four_bit(w->format) && w->in_features % CODES == 0 &&
           (g % CODES == 0 || g == 8 || g == 16 || g == 32);
}

/* Columns of a piece: the sums of 128 columns of codes up to 15 still fit AVX2's multiplier's 16 bits. */
static inline int gemv_piece(enum weight_format format, int group)
{
    return format != WEIGHT_NVFP4 && group % (2 * CODES) == 0 ? 2 * CODES : CODES;
}

/* Which of a piece's groups each lane belongs to. */
static inline void lanes_of_groups(int group, int lanes[LANES])
{
    for (int lane = 0; lane < LANES; lane++)
        lanes[lane] = group < CODES ? lane * (CODES / LANES) / group : 0;
}

/* Floats that prepared digits of a row take. */
static inline size_t digits_floats(const struct linear_source *w)
{
    const size_t pieces = (size_t)(w->in_features / gemv_piece(w->format, w->group_size));
    return (size_t)(w->in_features / CODES) * BLOCK_FLOATS + pieces * (LANES + 1);
}

/* 64 columns as digits; adds them to the lanes' sums. A factor of 0 stands for columns that are zero or no numbers, and
 * makes zeros of both. */
static inline void digits_of_block(const float *x, float factor, int8_t *digits, float *sums)
{
    for (int lane = 0; lane < LANES; lane++) {
        int sum = 0;
        for (int i = 0; i < CODES / LANES; i++) {
            const float scaled = factor != 0.0f ? x[CODES / LANES * lane + i] * factor : 0.0f;
            int value = (int)lrintf(scaled); /* rounds to nearest */
            sum += value;
            for (int d = 0; d < DIGITS; d++) {
                int8_t digit = (int8_t)(uint8_t)value;
                digits[(2 * d + i % 2) * (CODES / 2) + 4 * lane + i / 2] = digit;
                value = (value - digit) / 256;
            }
        }
        sums[lane] += (float)sum;
    }
}

/* The largest size in a piece of x, and whether all of it are numbers. */
static inline float largest_of_piece(const float *x, int piece, bool *finite)
{
    float largest[LANES] = {0}, total[LANES] = {0};
    for (int k = 0; k < piece; k += LANES)
        for (int j = 0; j < LANES; j++) {
            const float size = fabsf(x[k + j]);
            largest[j] = size > largest[j] ? size : largest[j];
            total[j] += size;
        }
    float top = 0.0f, sum = 0.0f;
    for (int j = 0; j < LANES; j++) {
        top = largest[j] > top ? largest[j] : top;
        sum += total[j];
    }
    *finite = isfinite(sum);
    return top;
}

static inline void digits_prepare(const struct linear_source *w, const float *x, float *out)
{
    const float largest_value = 127 * 65536 + 127 * 256; /* three digits hold 127 more: room for rounding */
    const int in = w->in_features, piece = gemv_piece(w->format, w->group_size), pieces = in / piece;
    int8_t *digits = (int8_t *)out;
    float *sums = out + in / CODES * BLOCK_FLOATS, *scales = sums + LANES * pieces;
    memset(sums, 0, (size_t)(LANES * pieces) * sizeof *sums);
    for (int p = 0; p < pieces; p++, x += piece, sums += LANES) {
        bool finite; /* otherwise the result is no number either */
        const float top = largest_of_piece(x, piece, &finite);
        scales[p] = finite ? top / largest_value : NAN;
        const float factor = finite && top > 1e-30f ? largest_value / top : 0.0f;
        for (int k = 0; k < piece; k += CODES, digits += BLOCK_FLOATS * sizeof(float))
            digits_of_block(x + k, factor, digits, sums);
    }
}

/* Even and odd columns apart, 16 at a time, as pairs of bf16 weights are taken apart. */
static inline void pairs_prepare(const struct linear_source *w, const float *x, float *out)
{
    const int paired = w->in_features / PAIRS * PAIRS;
    for (int k = 0; k < paired; k++)
        out[k / PAIRS * PAIRS + k % 2 * (PAIRS / 2) + k % PAIRS / 2] = x[k];
    memcpy(out + paired, x + paired, (size_t)(w->in_features - paired) * sizeof *x);
}

/* What struct micro has as gemv_prepared_floats and gemv_prepare. */
static inline size_t row_floats(const struct linear_source *w)
{
    return gemv_of_codes(w) ? digits_floats(w) : (size_t)w->in_features;
}

static inline void row_prepare(const struct linear_source *w, const float *x, float *out)
{
    if (gemv_of_codes(w))
        digits_prepare(w, x, out);
    else if (w->format == WEIGHT_BF16)
        pairs_prepare(w, x, out);
    else
        memcpy(out, x, (size_t)w->in_features * sizeof *x);
}

#endif
