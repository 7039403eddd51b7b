/* linear_source.h: a checkpoint's matrix: whether it makes sense, which every backend asks before it opens one, and its
 * weights as float32, one by one. C and C++. */
#ifndef LANCE_FORMATS_LINEAR_SOURCE_H
#define LANCE_FORMATS_LINEAR_SOURCE_H

#include "base/error.h"
#include "kernels/formats/group.h"

static inline int linear_source_refuse(struct error *error, const char *what)
{
    return error_set(error, ERROR_BAD_FILE, "matrix: %s", what);
}

/* 0, or ERROR_BAD_FILE when the source lacks something its format needs or its groups do not divide its columns. */
static inline int linear_source_check(const struct linear_source *s, struct error *error)
{
    if (s->out_features <= 0 || s->in_features <= 0 || !s->data)
        return linear_source_refuse(error, "it has no rows, no columns or no data");
    if (s->bias && s->bias_format != WEIGHT_F32 && s->bias_format != WEIGHT_BF16)
        return linear_source_refuse(error, "the bias is neither float32 nor bf16");
    switch (s->format) {
    case WEIGHT_F32:
    case WEIGHT_BF16:
        return 0;
    case WEIGHT_AWQ_INT4:
        if (!s->scales || !s->zeros)
            return linear_source_refuse(error, "AWQ INT4 weights need scales and zeros");
        break;
    case WEIGHT_MLX_INT4:
        if (!s->scales || !s->offsets)
            return linear_source_refuse(error, "MLX INT4 weights need scales and offsets");
        break;
    case WEIGHT_NVFP4:
        if (!s->scales && !s->scales_fp8)
            return linear_source_refuse(error, "NVFP4 weights need scales");
        break;
    case WEIGHT_INT8:
    case WEIGHT_AWQ_INT8:
    case WEIGHT_MLX_INT8:
        if (!s->scales || (weight_has_zeros(s->format) && !s->zeros) || (weight_has_offsets(s->format) && !s->offsets))
            return linear_source_refuse(error, "8-bit weights need scales, and zeros or offsets where they have them");
        break;
    default:
        return linear_source_refuse(error, "unknown weight format");
    }
    if (s->group_size <= 0 || s->in_features % s->group_size || (weight_is_four_bit(s->format) && s->in_features % 2))
        return error_set(error, ERROR_BAD_FILE,
                         "matrix: groups of %d do not divide %d columns (of 4-bit weights an even number is needed)",
                         s->group_size, s->in_features);
    return 0;
}

/* Element `i` of a bias, or of weights that are not quantised. */
static inline float element_at(enum weight_format format, const void *base, size_t i)
{
    return format == WEIGHT_BF16 ? bf16_at(base, i) : f32_at(base, i);
}

/* Scale of a group of a quantised matrix, the per-tensor scale included. */
static inline float group_scale(const struct linear_source *w, size_t group)
{
    float scale = w->scales ? bf16_at(w->scales, group) : e4m3_to_float(((const uint8_t *)w->scales_fp8)[group]);
    return w->format == WEIGHT_NVFP4 ? scale * w->tensor_scale : scale;
}

/* Its second number: zero or offset. `format` is the matrix's, as a constant where that pays. */
static inline float group_second(enum weight_format format, const struct linear_source *w, size_t group)
{
    return weight_has_zeros(format)     ? (float)w->zeros[group]
           : weight_has_offsets(format) ? bf16_at(w->offsets, group)
                                        : 0.0f;
}

/* Weights [row, first..first+depth) as float32. */
static inline void linear_source_decode(const struct linear_source *w, int row, int first, int depth, float *out)
{
    size_t start = (size_t)row * (size_t)w->in_features + (size_t)first;
    if (w->format == WEIGHT_F32) {
        memcpy(out, (const char *)w->data + start * sizeof *out, (size_t)depth * sizeof *out);
        return;
    }
    if (w->format == WEIGHT_BF16) {
        const char *data = (const char *)w->data + start * 2;
        for (int i = 0; i < depth; i++)
            out[i] = bf16_at(data, (size_t)i);
        return;
    }
    for (int i = 0; i < depth;) {
        size_t group = (start + (size_t)i) / (size_t)w->group_size;
        int in_group = w->group_size - (first + i) % w->group_size;
        int n = depth - i < in_group ? depth - i : in_group;
        group_decode(w->format, (const uint8_t *)w->data, start + (size_t)i, n, group_scale(w, group),
                     group_second(w->format, w, group), out + i);
        i += n;
    }
}

#endif
