/* linear_source.h: whether a matrix of a checkpoint makes sense; every backend asks before it opens one. C and C++. */
#ifndef LANCE_KERNELS_LINEAR_SOURCE_H
#define LANCE_KERNELS_LINEAR_SOURCE_H

#include "kernels/kernels.h"

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
    default:
        return linear_source_refuse(error, "unknown weight format");
    }
    if (s->group_size <= 0 || s->in_features % s->group_size || s->in_features % 2)
        return error_set(error, ERROR_BAD_FILE,
                         "matrix: groups of %d do not divide %d columns of 4-bit weights (an even number is needed)",
                         s->group_size, s->in_features);
    return 0;
}

#endif
