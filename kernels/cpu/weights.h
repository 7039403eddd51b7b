/* weights.h: single elements of the checkpoint's number formats as float32. */
#ifndef LANCE_CPU_WEIGHTS_H
#define LANCE_CPU_WEIGHTS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

/* bfloat16 at a possibly unaligned address, element `i`. */
static inline float bf16_at(const void *base, size_t i)
{
    uint16_t half;
    memcpy(&half, (const char *)base + i * sizeof half, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float f32_at(const void *base, size_t i)
{
    float value;
    memcpy(&value, (const char *)base + i * sizeof value, sizeof value);
    return value;
}

static inline float element_at(enum weight_format format, const void *base, size_t i)
{
    return format == WEIGHT_BF16 ? bf16_at(base, i) : f32_at(base, i);
}

/* FP8 E4M3: sign, 4 bits of exponent with bias 7, 3 bits of mantissa; no infinities. Moved into a float as it is, the
 * exponent is 120 too small. */
static inline float e4m3_to_float(uint8_t code)
{
    uint32_t bits = (uint32_t)(code & 0x7f) << 20 | (uint32_t)(code & 0x80) << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value * 0x1p120f;
}

/* Scale of a group of a 4-bit matrix, the per-tensor scale included. */
static inline float group_scale(const struct linear_source *w, size_t group)
{
    float scale = w->scales ? bf16_at(w->scales, group) : e4m3_to_float(((const uint8_t *)w->scales_fp8)[group]);
    return w->format == WEIGHT_NVFP4 ? scale * w->tensor_scale : scale;
}

#endif
