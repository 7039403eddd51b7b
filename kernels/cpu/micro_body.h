/* micro_body.h: the micro-kernels in plain C, compiled once by each micro_*.c with that
 * file's instruction set, for the compiler to vectorise.
 *
 * The including file defines MULADD(a, b, c) as a*b + c, fused where that is one
 * instruction. Sums run over LANES independent partial sums, so that they can be kept in
 * vector registers without changing the order of additions.
 */
#ifndef MULADD
#error "define MULADD(a, b, c) before including micro_body.h"
#endif

#include <string.h>

#include "kernels/cpu/micro.h"
#include "kernels/cpu/weights.h"

enum { LANES = 16 };

static inline float lanes_sum(float *lane)
{
    for (int width = LANES / 2; width; width /= 2)
        for (int j = 0; j < width; j++)
            lane[j] += lane[j + width];
    return lane[0];
}

static inline float dot(const float *x, const float *y, size_t n)
{
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] = MULADD(x[i + j], y[i + j], lane[j]);
    for (; i < n; i++)
        lane[i % LANES] = MULADD(x[i], y[i], lane[i % LANES]);
    return lanes_sum(lane);
}

/* exp(x) within about one unit in the last place (the polynomial is Cephes' expf); arguments
 * outside [-87, 88] are moved to the nearer end. */
static inline float fast_exp(float x)
{
    const float to_integer = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = MULADD(x, 1.44269504088896341f, to_integer) - to_integer;
    float r = MULADD(n, -0.693359375f, x);
    r = MULADD(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = MULADD(p, r, 1.3981999507e-3f);
    p = MULADD(p, r, 8.3334519073e-3f);
    p = MULADD(p, r, 4.1665795894e-2f);
    p = MULADD(p, r, 1.6666665459e-1f);
    p = MULADD(p, r, 5.0000001201e-1f);
    p = MULADD(p, r * r, r) + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

static inline float sigmoid_times(float x, float y)
{
    return y * x / (1.0f + fast_exp(-x));
}

static void body_rms_norm(const float *x, size_t n, const float *weight, float eps, float *y)
{
    float factor = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * factor * weight[i];
}

static void body_l2_norm(const float *x, size_t n, const float *gamma, bool with_silu, float *y)
{
    float norm = sqrtf(dot(x, x, n));
    float factor = sqrtf((float)n) / (norm > 1e-12f ? norm : 1e-12f);
    if (with_silu) {
        for (size_t i = 0; i < n; i++)
            y[i] = sigmoid_times(x[i] * factor * gamma[i], 1.0f);
    } else {
        for (size_t i = 0; i < n; i++)
            y[i] = x[i] * factor * gamma[i];
    }
}

static void body_rope(float *x, size_t half, const float *cosines, const float *sines)
{
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * cosines[i] - b * sines[i];
        x[half + i] = b * cosines[i] + a * sines[i];
    }
}

static void body_swiglu(const float *gate, const float *up, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = sigmoid_times(gate[i], up[i]);
}

static void body_silu(const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = sigmoid_times(x[i], 1.0f);
}

static void body_add(const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void body_scale(float *x, size_t n, float factor)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

static float body_max(const float *x, size_t n)
{
    float lane[LANES];
    for (int j = 0; j < LANES; j++)
        lane[j] = x[0];
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    float max = lane[0];
    for (int j = 1; j < LANES; j++)
        max = lane[j] > max ? lane[j] : max;
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

static float body_exp_sum(float *x, size_t n, float shift)
{
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            x[i + j] = fast_exp(x[i + j] - shift);
            lane[j] += x[i + j];
        }
    for (; i < n; i++) {
        x[i] = fast_exp(x[i] - shift);
        lane[i % LANES] += x[i];
    }
    return lanes_sum(lane);
}

static void body_decode_row(const struct linear_source *w, int row, int first, int depth, float *out)
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
        for (; i < end; i++) {
            size_t at = start + (size_t)i;
            int code = data[at / 2] >> (at % 2 * 4) & 15;
            out[i] = (w->format == WEIGHT_AWQ_INT4 ? (float)code - zero : nvfp4_level[code]) * scale;
        }
    }
}

/* The panel of a matrix that pack() can transpose, from rows decoded first. */
static inline void body_decode_panel(const struct linear_source *w, int row, int count, int first, int depth,
                                     float *out,
                                     void (*pack)(const float *const *source, int width, size_t depth, float *out))
{
    float rows[TILE_COLUMNS][DEPTH_BLOCK];
    const float *source[TILE_COLUMNS];
    for (int j = 0; j < TILE_COLUMNS; j++) {
        source[j] = j < count ? rows[j] : NULL;
        if (j < count)
            body_decode_row(w, row + j, first, depth, rows[j]);
    }
    pack(source, TILE_COLUMNS, (size_t)depth, out);
}

static inline size_t body_gemv_prepared_floats(const struct linear_source *w)
{
    return (size_t)w->in_features;
}

static inline void body_gemv_prepare(const struct linear_source *w, const float *x, float *out)
{
    memcpy(out, x, (size_t)w->in_features * sizeof *x);
}

static inline void gemv_store(const struct gemv *g, int row, int column, float value)
{
    float *y = g->y + (size_t)row * g->y_stride + column;
    value += g->bias ? g->bias[column] : 0.0f;
    *y = g->add ? *y + value : value;
}

static void body_gemv(const struct gemv *g, int first_column, int columns)
{
    enum { PIECE = 1024 };
    float weights[PIECE];
    for (int column = first_column; column < first_column + columns; column++) {
        float sum[GEMV_ROWS_MAX] = {0};
        for (int at = 0; at < g->w->in_features; at += PIECE) {
            int depth = g->w->in_features - at < PIECE ? g->w->in_features - at : PIECE;
            body_decode_row(g->w, column, at, depth, weights);
            for (int row = 0; row < g->rows; row++)
                sum[row] += dot(weights, g->x + (size_t)row * g->x_stride + at, (size_t)depth);
        }
        for (int row = 0; row < g->rows; row++)
            gemv_store(g, row, column, sum[row]);
    }
}
