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

/* Weights [row, first..first+depth) as float32. */
static inline void weights_decode_row(const struct linear_source *w, int row, int first, int depth, float *out)
{
    static const float nvfp4_level[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                          -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    size_t start = (size_t)row * (size_t)w->in_features + (size_t)first;
    switch (w->format) {
    case WEIGHT_F32:
        memcpy(out, (const char *)w->data + start * sizeof *out, (size_t)depth * sizeof *out);
        return;
    case WEIGHT_BF16: {
        const char *data = (const char *)w->data + start * 2;
        for (int i = 0; i < depth; i++)
            out[i] = bf16_at(data, (size_t)i);
        return;
    }
    case WEIGHT_AWQ_INT4:
    case WEIGHT_MLX_INT4:
    case WEIGHT_NVFP4:
        break;
    }
    const uint8_t *data = w->data;
    for (int i = 0; i < depth;) {
        size_t group = (start + (size_t)i) / (size_t)w->group_size;
        int in_group = w->group_size - (first + i) % w->group_size;
        int end = depth - i < in_group ? depth : i + in_group;
        float scale = group_scale(w, group);
        float zero = w->format == WEIGHT_AWQ_INT4 ? (float)w->zeros[group] : 0.0f;
        float offset = w->format == WEIGHT_MLX_INT4 ? bf16_at(w->offsets, group) : 0.0f;
        for (; i < end; i++) {
            size_t at = start + (size_t)i;
            int code = data[at / 2] >> (at % 2 * 4) & 15;
            out[i] = (w->format == WEIGHT_NVFP4 ? nvfp4_level[code] : (float)code - zero) * scale + offset;
        }
    }
}

#endif
