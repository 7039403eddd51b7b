/* matrix_fixture.h: random matrices in every format of a checkpoint, with their values decoded independently. */
#ifndef LANCE_TESTS_MATRIX_FIXTURE_H
#define LANCE_TESTS_MATRIX_FIXTURE_H

#include "tests/unit/kernel_fixture.h"

/* A matrix in some format, and its values decoded independently. */
struct matrix {
    struct linear_source source;
    double *values; /* [out, in] */
    float *bias_values;
    void *blocks[5];
};

static inline float *decode_bias(enum weight_format format, const void *bias, int n)
{
    float *values = checked_alloc((size_t)n * sizeof *values);
    for (int i = 0; i < n; i++) {
        uint16_t half;
        if (format == WEIGHT_F32) {
            memcpy(&values[i], (const char *)bias + 4 * i, 4);
        } else {
            memcpy(&half, (const char *)bias + 2 * i, 2);
            values[i] = float_of_bf16(half);
        }
    }
    return values;
}

static inline double e4m3(uint8_t code)
{
    int exponent = code >> 3 & 15, mantissa = code & 7;
    return exponent ? ldexp(1.0 + mantissa / 8.0, exponent - 7) : ldexp(mantissa, -9);
}

static inline struct matrix make_matrix(enum weight_format format, int out, int in, int group, bool fp8,
                                 enum weight_format bias_format, bool with_bias)
{
    static const double level[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    struct matrix m = {.source = {.format = format, .out_features = out, .in_features = in, .group_size = group,
                                  .tensor_scale = format == WEIGHT_NVFP4 ? 0.75f : 1.0f, .bias_format = bias_format}};
    size_t n = (size_t)out * (size_t)in;
    m.values = zero_doubles(n);
    if (format == WEIGHT_F32 || format == WEIGHT_BF16) {
        size_t size = format == WEIGHT_F32 ? 4 : 2;
        char *data = checked_alloc(n * size);
        for (size_t i = 0; i < n; i++) {
            float value = random_float();
            uint16_t half = bf16_of(value);
            memcpy(data + i * size, format == WEIGHT_F32 ? (void *)&value : (void *)&half, size);
            m.values[i] = format == WEIGHT_F32 ? (double)value : (double)float_of_bf16(half);
        }
        m.source.data = unaligned_copy(data, n * size, &m.blocks[0]);
        free(data);
    } else {
        size_t groups = n / (size_t)group;
        uint8_t *data = checked_alloc(n / 2), *zeros = checked_alloc(groups), *scales8 = checked_alloc(groups);
        uint16_t *scales = checked_alloc(groups * 2), *offsets = checked_alloc(groups * 2);
        for (size_t i = 0; i < n / 2; i++)
            data[i] = (uint8_t)random_u32();
        for (size_t i = 0; i < groups; i++) {
            zeros[i] = random_u32() % 16;
            scales8[i] = random_u32() % 0x70; /* subnormals too */
            scales[i] = bf16_of(0.1f + 0.1f * random_float());
            if (format == WEIGHT_MLX_INT4 && i % 2)
                scales[i] ^= 0x8000; /* MLX has negative scales, too */
            offsets[i] = bf16_of(2.0f * random_float());
        }
        for (size_t i = 0; i < n; i++) {
            int code = data[i / 2] >> (i % 2 ? 4 : 0) & 15;
            size_t g = i / (size_t)group;
            double scale = fp8 ? e4m3(scales8[g]) : (double)float_of_bf16(scales[g]);
            if (format == WEIGHT_AWQ_INT4)
                m.values[i] = (code - zeros[g]) * scale;
            else if (format == WEIGHT_MLX_INT4)
                m.values[i] = code * scale + (double)float_of_bf16(offsets[g]);
            else
                m.values[i] = (code & 8 ? -1.0 : 1.0) * level[code & 7] * scale * (double)m.source.tensor_scale;
        }
        m.source.data = unaligned_copy(data, n / 2, &m.blocks[0]);
        if (fp8)
            m.source.scales_fp8 = unaligned_copy(scales8, groups, &m.blocks[1]);
        else
            m.source.scales = unaligned_copy(scales, groups * 2, &m.blocks[1]);
        if (format == WEIGHT_AWQ_INT4)
            m.source.zeros = unaligned_copy(zeros, groups, &m.blocks[2]);
        if (format == WEIGHT_MLX_INT4)
            m.source.offsets = unaligned_copy(offsets, groups * 2, &m.blocks[2]);
        free(data), free(zeros), free(scales8), free(scales), free(offsets);
    }
    if (with_bias) {
        char *bias = checked_alloc((size_t)out * 4);
        for (int i = 0; i < out; i++) {
            float value = random_float();
            uint16_t half = bf16_of(value);
            if (bias_format == WEIGHT_F32)
                memcpy(bias + 4 * i, &value, 4);
            else
                memcpy(bias + 2 * i, &half, 2);
        }
        m.source.bias = unaligned_copy(bias, (size_t)out * 4, &m.blocks[3]);
        m.bias_values = decode_bias(bias_format, m.source.bias, out);
        free(bias);
    }
    return m;
}

static inline void free_matrix(struct matrix *m)
{
    free(m->values);
    free(m->bias_values);
    for (size_t i = 0; i < sizeof m->blocks / sizeof *m->blocks; i++)
        free(m->blocks[i]);
}

#endif
