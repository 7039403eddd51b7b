/* matrix_fixture.h: matrices in every format of a checkpoint, with their values decoded by the reference
 * (kernels/formats): random ones, and such that have every code with every scale. */
#ifndef LANCE_TESTS_MATRIX_FIXTURE_H
#define LANCE_TESTS_MATRIX_FIXTURE_H

#include "kernels/formats/linear_source.h"
#include "tests/unit/kernel_fixture.h"

struct matrix {
    struct linear_source source;
    double *values; /* [out, in], each a float32 */
    float *bias_values;
    void *blocks[5];
};

/* What the groups of a quantised matrix are made of, until it is copied to where a file would have it. */
struct group_arrays {
    size_t weights, groups;
    uint8_t *codes, *zeros, *scales_fp8;
    uint16_t *scales, *offsets;
};

static inline struct group_arrays group_arrays_of(const struct linear_source *s)
{
    size_t weights = (size_t)s->out_features * (size_t)s->in_features, groups = weights / (size_t)s->group_size;
    return (struct group_arrays){.weights = weights, .groups = groups,
                                 .codes = checked_alloc(weight_bytes(s->format, weights)),
                                 .zeros = checked_alloc(groups), .scales_fp8 = checked_alloc(groups),
                                 .scales = checked_alloc(groups * 2), .offsets = checked_alloc(groups * 2)};
}

/* To unaligned places, those that the format has; the arrays are freed. */
static inline void place_groups(struct matrix *m, const struct group_arrays *a, bool fp8)
{
    struct linear_source *s = &m->source;
    s->data = unaligned_copy(a->codes, weight_bytes(s->format, a->weights), &m->blocks[0]);
    if (fp8)
        s->scales_fp8 = unaligned_copy(a->scales_fp8, a->groups, &m->blocks[1]);
    else
        s->scales = unaligned_copy(a->scales, a->groups * 2, &m->blocks[1]);
    if (weight_has_zeros(s->format))
        s->zeros = unaligned_copy(a->zeros, a->groups, &m->blocks[2]);
    if (weight_has_offsets(s->format))
        s->offsets = unaligned_copy(a->offsets, a->groups * 2, &m->blocks[2]);
    free(a->codes), free(a->zeros), free(a->scales_fp8), free(a->scales), free(a->offsets);
}

static inline void decode_values(struct matrix *m)
{
    const struct linear_source *s = &m->source;
    float *row = checked_alloc((size_t)s->in_features * sizeof *row);
    m->values = zero_doubles((size_t)s->out_features * (size_t)s->in_features);
    for (int o = 0; o < s->out_features; o++) {
        linear_source_decode(s, o, 0, s->in_features, row);
        for (int i = 0; i < s->in_features; i++)
            m->values[(size_t)o * (size_t)s->in_features + (size_t)i] = (double)row[i];
    }
    free(row);
}

static inline void fill_dense(struct matrix *m)
{
    const bool wide = m->source.format == WEIGHT_F32;
    size_t n = (size_t)m->source.out_features * (size_t)m->source.in_features, size = wide ? 4 : 2;
    char *data = checked_alloc(n * size);
    for (size_t i = 0; i < n; i++) {
        float value = random_float();
        uint16_t half = float_to_bf16(value);
        memcpy(data + i * size, wide ? (void *)&value : (void *)&half, size);
    }
    m->source.data = unaligned_copy(data, n * size, &m->blocks[0]);
    free(data);
}

static inline void fill_random_groups(struct matrix *m, bool fp8)
{
    struct group_arrays a = group_arrays_of(&m->source);
    for (size_t i = 0; i < weight_bytes(m->source.format, a.weights); i++)
        a.codes[i] = (uint8_t)random_u32();
    const float step = weight_is_of_bytes(m->source.format) ? 1.0f / 16 : 1.0f;
    for (size_t i = 0; i < a.groups; i++) {
        a.zeros[i] = random_u32() % (weight_is_of_bytes(m->source.format) ? 256 : 16);
        a.scales_fp8[i] = random_u32() % 0x70; /* subnormals too */
        a.scales[i] = float_to_bf16(step * (0.1f + 0.1f * random_float()));
        if (weight_has_offsets(m->source.format) && i % 2)
            a.scales[i] ^= 0x8000; /* MLX has negative scales, too */
        a.offsets[i] = float_to_bf16(2.0f * random_float());
    }
    place_groups(m, &a, fp8);
}

static inline void fill_bias(struct matrix *m)
{
    size_t n = (size_t)m->source.out_features;
    char *bias = checked_alloc(n * 4);
    for (size_t i = 0; i < n; i++) {
        float value = random_float();
        uint16_t half = float_to_bf16(value);
        if (m->source.bias_format == WEIGHT_F32)
            memcpy(bias + 4 * i, &value, 4);
        else
            memcpy(bias + 2 * i, &half, 2);
    }
    m->source.bias = unaligned_copy(bias, n * 4, &m->blocks[3]);
    m->bias_values = checked_alloc(n * sizeof *m->bias_values);
    for (size_t i = 0; i < n; i++)
        m->bias_values[i] = element_at(m->source.bias_format, m->source.bias, i);
    free(bias);
}

static inline struct matrix make_matrix(enum weight_format format, int out, int in, int group, bool fp8,
                                        enum weight_format bias_format, bool with_bias)
{
    struct matrix m = {.source = {.format = format, .out_features = out, .in_features = in, .group_size = group,
                                  .tensor_scale = format == WEIGHT_NVFP4 ? 0.75f : 1.0f, .bias_format = bias_format}};
    if (weight_is_quantised(format))
        fill_random_groups(&m, fp8);
    else
        fill_dense(&m);
    decode_values(&m);
    if (with_bias)
        fill_bias(&m);
    return m;
}

/* A quantised matrix of EXHAUSTIVE_COLUMNS columns, which groups of 8, 12, 16, 32, 64 and 96 divide, with every code in
 * groups that together have every zero up to `zeros` - 1, every FP8 scale but those that are no numbers, and scales and
 * offsets of any size and sign. */
enum { EXHAUSTIVE_COLUMNS = 192, EXHAUSTIVE_GROUPS = 256 };
static inline struct matrix make_exhaustive_matrix(enum weight_format format, int group, bool fp8, int zeros)
{
    static const float scales[] = {1.0f, -0.37f, 0x1p-100f, 0x1p100f, 0.0f, 3.14f, -0x1.8p-20f};
    static const float offsets[] = {0.0f, -1.0f, 0.0123f, 7.5f, -0x1p-60f};
    const size_t half = EXHAUSTIVE_GROUPS, all = 2 * half; /* once more for the codes that a
                                                            * small group has no room for */
    const unsigned codes = weight_is_of_bytes(format) ? INT8_CODES : INT4_CODES, rounds = codes / INT4_CODES;
    const int out = (int)(all * (size_t)group / EXHAUSTIVE_COLUMNS) + 1;
    struct matrix m = {.source = {.format = format, .out_features = out, .in_features = EXHAUSTIVE_COLUMNS,
                                  .group_size = group, .tensor_scale = format == WEIGHT_NVFP4 ? 0.75f : 1.0f}};
    struct group_arrays a = group_arrays_of(&m.source);
    memset(a.codes, 0, weight_bytes(format, a.weights));
    for (size_t i = 0; i < a.weights; i++) {
        const size_t in_group = i % (size_t)group, of_group = i / (size_t)group;
        const unsigned code = (unsigned)((in_group + of_group / half % 2 * (size_t)group) % INT4_CODES);
        if (weight_is_four_bit(format))
            code_put(a.codes, i, code);
        else
            a.codes[i] = (uint8_t)(code * rounds + of_group % rounds);
    }
    for (size_t i = 0; i < a.groups; i++) {
        a.zeros[i] = (uint8_t)(i % (size_t)zeros);
        a.scales_fp8[i] = i % 128 == 127 ? 0 : (uint8_t)i;
        a.scales[i] = float_to_bf16(scales[i % (sizeof scales / sizeof *scales)]);
        a.offsets[i] = float_to_bf16(offsets[i % (sizeof offsets / sizeof *offsets)]);
    }
    place_groups(&m, &a, fp8);
    decode_values(&m);
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
