/* group.h: the 4-bit codes of a group, what they are worth, and which is nearest to a value; the formats are listed in
 * weights.h. The one definition of each: what a kernel decodes in its own way is tested against it. C and C++; what a
 * kernel on a card may call says so.
 *
 * A group's `scale` has the per-tensor scale in it; its `second` number is AWQ's zero, MLX's offset, and 0 in NVFP4.
 */
#ifndef LANCE_FORMATS_GROUP_H
#define LANCE_FORMATS_GROUP_H

#include "kernels/formats/numbers.h"
#include "kernels/formats/weights.h"

enum { INT4_CODES = 16 };

/* The code of the element `index` of a matrix, counted row by row; on a card, too. */
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
    case WEIGHT_AWQ_INT4: return ((float)code - second) * scale;
    case WEIGHT_MLX_INT4: return (float)code * scale + second;
    default: return fp4_to_float(code) * scale;
    }
}

/* The code that is nearest to a value; not for NaN, nor for a scale of 0. */
static inline unsigned code_nearest(enum weight_format format, float value, float scale, float second)
{
    if (format == WEIGHT_NVFP4)
        return float_to_fp4(value / scale);
    const float place = format == WEIGHT_AWQ_INT4 ? rintf(value / scale) + second : rintf((value - second) / scale);
    return (unsigned)fminf(fmaxf(place, 0.0f), (float)(INT4_CODES - 1));
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
    default:
        for (int i = 0; i < n; i++)
            out[i] = code_value(WEIGHT_NVFP4, code_at(codes, first + (size_t)i), scale, second);
    }
}

/* The other way round: the nearest codes of `n` values of one group. */
static inline void group_encode(enum weight_format format, const float *values, int n, float scale, float second,
                                uint8_t *codes, size_t first)
{
    for (int i = 0; i < n; i++)
        code_put(codes, first + (size_t)i, code_nearest(format, values[i], scale, second));
}

#endif
