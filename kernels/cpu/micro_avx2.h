/* micro_avx2.h: what micro_avx512.c takes from micro_avx2.c: a row brought into the order
 * that products with one row want.
 *
 * One row (gemv). Against 4-bit weights the sums run in integers, which takes half the instructions of floats and is
 * exact: x is brought to 24-bit fixed point, in three signed digits of 8 bits, with a scale for each piece of 64 or 128
 * columns (the error is 2^-24 of the piece's largest value, as in a float), and codes times digits are summed
 * by the byte multiplier. Zero points are taken off once per piece, with the sum of x:
 *   sum (code - zero) * scale * x  =  scale * x_scale * (sum code * digits  -  zero * sum digits)
 * and MLX's offsets added likewise:  x_scale * (scale * sum code * digits  +  offset * sum digits).
 * NVFP4 levels are looked up as the bytes 2*level + 12, which are positive, and so have a "zero" of 12.
 *
 * 32 bytes are 64 codes; lane l of 32 bits holds columns 8l .. 8l+7, low nibbles the even ones. Prepared x: for each
 * such block and each digit a vector for the even and one for the odd columns; then for each piece the lanes' sums of
 * the digits; then the scales of the pieces. */
#ifndef LANCE_CPU_MICRO_AVX2_H
#define LANCE_CPU_MICRO_AVX2_H

#include <immintrin.h>

#include "kernels/cpu/micro.h"

enum { CODES = 64, DIGITS = 3, BLOCK_FLOATS = DIGITS * 2 * 8, NVFP4_ZERO = 12, PAIRS = 16 };

/* Whether the 4-bit weights are of a shape that the sums in integers take. */
static inline bool gemv_of_codes(const struct linear_source *w)
{
    int g = w->group_size;
    return weight_is_four_bit(w->format) && w->in_features % CODES == 0 &&
           (g % CODES == 0 || g == 8 || g == 16 || g == 32);
}

/* Columns of a piece: the sums of 128 columns of codes up to 15 still fit the multiplier's 16 bits. */
static inline int gemv_piece(enum weight_format format, int group)
{
    return format != WEIGHT_NVFP4 && group % (2 * CODES) == 0 ? 2 * CODES : CODES;
}

/* What each code of NVFP4 is to the byte multiplier: 2*level + 12. */
static inline __m128i nvfp4_bytes(void)
{
    return _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
}

size_t avx2_gemv_prepared_floats(const struct linear_source *w);
void avx2_gemv_prepare(const struct linear_source *w, const float *x, float *out);

#endif
