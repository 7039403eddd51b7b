/* group.h: the codes of a group, what they are worth, and which is nearest to a value; the formats are listed in
 * weights.h. The one definition of each: what a kernel decodes in its own way is tested against it. C and C++; what a
 * kernel on a card may call says so.
 *
 * A group's `scale` has the per-tensor scale in it; its `second` number is AWQ's zero, MLX's offset, and 0 in NVFP4 and
 * INT8. A code is the number in its 4 or 8 bits, INT8's too: its sign is in code_value.
 */
#ifndef LANCE_FORMATS_GROUP_H
#define LANCE_FORMATS_GROUP_H

#include "kernels/formats/numbers.h"
#include "kernels/formats/weights.h"

enum { INT4_CODES = 16, INT8_CODES = 256, INT8_HIGHEST = 127, INT8_GROUP = 128 };

/* The 4-bit code of the element `index` of a matrix, counted row by row; on a card, too. */
NUMBERS_FUNCTION unsigned code_at(const uint8_t *codes, size_t index)
{
    return codes[index / 2] >> (index % 2 * 4) & 15u;
}

static inline void code_put(uint8_t *codes, size_t index, unsigned code)
{
    const unsigned place = (unsigned)(index % 2 * 4);
    codes[index / 2] = (uint8_t)((codes[index / 2] & ~(15u << place)) | code << place);
}

/* What a code is worth in its group. */
static inline float code_value(enum weight_format format, unsigned code, float scale, float second)
{
    switch (format) {
    case WEIGHT_AWQ_INT4:
    case WEIGHT_AWQ_INT8: return ((float)code - second) * scale;
    case WEIGHT_MLX_INT4:
    case WEIGHT_MLX_INT8: return (float)code * scale + second;
    case WEIGHT_INT8: return (float)(int8_t)code * scale;
    default: return fp4_to_float(code) * scale;
    }
}

/* The code that is nearest to a value; not for NaN, nor for a scale of 0. INT8 is symmetric: -128 is never it. */
static inline unsigned code_nearest(enum weight_format format, float value, float scale, float second)
{
    if (format == WEIGHT_NVFP4)
        return float_to_fp4(value / scale);
    if (format == WEIGHT_INT8)
        return (uint8_t)(int8_t)fminf(fmaxf(rintf(value / scale), -INT8_HIGHEST), INT8_HIGHEST);
    const float place = weight_has_zeros(format) ? rintf(value / scale) + second : rintf((value - second) / scale);
    return (unsigned)fminf(fmaxf(place, 0.0f), (float)((weight_is_four_bit(format) ? INT4_CODES : INT8_CODES) - 1));
}

/* `n` weights of one group, from the matrix's element `first` on, as float32. */
static inline void group_decode(enum weight_format format, const uint8_t *codes, size_t first, int n, float scale,
                                float second, float *out)
{
    switch (format) { /* outside of the loops, which so have one formula each */
    case WEIGHT_AWQ_INT4:
        for (int i = 0; i < n; i++)
            out[i] = code_value(WEIGHT_AWQ_INT4, code_at(codes, first + (size_t)i), scale, second);
        return;
    case WEIGHT_MLX_INT4:
        for (int i = 0; i < n; i++)
            out[i] = code_value(WEIGHT_MLX_INT4, code_at(codes, first + (size_t)i), scale, second);
        return;
    case WEIGHT_INT8:
        for (int i = 0; i < n; i++)
            out[i] = code_value(WEIGHT_INT8, codes[first + (size_t)i], scale, second);
        return;
    case WEIGHT_AWQ_INT8:
        for (int i = 0; i < n; i++)
            out[i] = code_value(WEIGHT_AWQ_INT8, codes[first + (size_t)i], scale, second);
        return;
    case WEIGHT_MLX_INT8:
        for (int i = 0; i < n; i++)
            out[i] = code_value(WEIGHT_MLX_INT8, codes[first + (size_t)i], scale, second);
        return;
    default:
        for (int i = 0; i < n; i++)
            out[i] = code_value(WEIGHT_NVFP4, code_at(codes, first + (size_t)i), scale, second);
    }
}

/* The other way round: the nearest codes of `n` values of one group. */
static inline void group_encode(enum weight_format format, const float *values, int n, float scale, float second,
                                uint8_t *codes, size_t first)
{
    for (int i = 0; i < n; i++) {
        const unsigned code = code_nearest(format, values[i], scale, second);
        if (weight_is_four_bit(format))
            code_put(codes, first + (size_t)i, code);
        else
            codes[first + (size_t)i] = (uint8_t)code;
    }
}

#endif
