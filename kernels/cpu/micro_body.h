/* micro_body.h: the micro-kernels that are the same for every instruction set, compiled
 * once by each micro_*.c.
 *
 * They are written with the compilers' own vector type `vec`. The including file chooses
 * its width and the three operations that C has no operator for:
 *   WIDTH                                  floats in a vec
 *   SUM_WIDTH                              floats that sums are taken in, see below
 *   v_muladd(a, b, c), v_max, v_min        a*b + c (fused where that is one instruction), larger, smaller
 *
 * Sums run in 4 (dot) or 2 (exp_sum) rows of SUM_WIDTH floats that are added at the end, in vectors of any width that
 * divides a pair of rows: so AVX-512, whose vectors hold two rows of AVX2's, and NEON, whose vectors hold half a row,
 * give the same bytes as AVX2.
 */
#include <math.h>
#include <string.h>

#include "kernels/cpu/micro.h"
#include "kernels/formats/linear_source.h"

static inline vec v_load(const float *from)
{
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline void v_store(float *to, vec v)
{
    memcpy(to, &v, sizeof v);
}

/* The first n floats (all of them when n is larger than that), the rest of the vector filled with `fill`. */
static inline vec v_load_first(const float *from, size_t n, float fill)
{
    if (n >= WIDTH)
        return v_load(from);
    float part[WIDTH];
    for (size_t i = 0; i < WIDTH; i++)
        part[i] = i < n ? from[i] : fill;
    return v_load(part);
}

static inline void v_store_first(float *to, size_t n, vec v)
{
    if (n >= WIDTH) {
        v_store(to, v);
        return;
    }
    float part[WIDTH];
    v_store(part, v);
    for (size_t i = 0; i < n; i++)
        to[i] = part[i];
}

static inline vec v_set(float value)
{
    return value - (vec){0};
}

/* exp within about one unit in the last place (the polynomial is Cephes' expf); arguments outside [-87, 88] are moved
 * to the nearer end. */
static inline vec v_exp(vec x)
{
    const vec to_integer = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    x = v_min(v_max(x, v_set(-87.0f)), v_set(88.0f));
    vec n = v_muladd(x, v_set(1.44269504088896341f), to_integer) - to_integer;
    vec r = v_muladd(n, v_set(-0.693359375f), x);
    r = v_muladd(n, v_set(2.12194440e-4f), r);
    vec p = v_set(1.9875691500e-4f);
    p = v_muladd(p, r, v_set(1.3981999507e-3f));
    p = v_muladd(p, r, v_set(8.3334519073e-3f));
    p = v_muladd(p, r, v_set(4.1665795894e-2f));
    p = v_muladd(p, r, v_set(1.6666665459e-1f));
    p = v_muladd(p, r, v_set(5.0000001201e-1f));
    p = v_muladd(p, r * r, r) + 1.0f;
    return p * (vec)((__builtin_convertvector(n, ivec) + 127) << 23);
}

static inline vec v_silu(vec x)
{
    return x / (1.0f + v_exp(-x));
}

/* The sum of SUM_WIDTH floats, in halves; part is overwritten. Unrolled, it stays in registers: a loop goes through
 * memory, which takes as long as the sums of a short row. */
static inline float sum_row(float part[SUM_WIDTH])
{
#pragma GCC unroll 2
    for (int width = SUM_WIDTH / 2; width > 1; width /= 2)
#pragma GCC unroll 4
        for (int i = 0; i < width; i++)
            part[i] += part[i + width];
    return part[0] + part[1];
}

/* Sum of x[i] * y[i]. */
static inline __attribute__((always_inline)) float dot(const float *x, const float *y, size_t n)
{
    enum { ROWS_OF_SUMS = 4, CHAINS = ROWS_OF_SUMS * SUM_WIDTH / WIDTH };
    enum { VECTORS_OF_A_ROW = WIDTH < SUM_WIDTH ? SUM_WIDTH / WIDTH : 1 };
    vec sum[CHAINS] = {{0}};
    size_t i = 0;
    for (; i + CHAINS * WIDTH <= n; i += CHAINS * WIDTH)
        for (int c = 0; c < CHAINS; c++)
            sum[c] = v_muladd(v_load(x + i + c * WIDTH), v_load(y + i + c * WIDTH), sum[c]);
    for (; i < n; i += SUM_WIDTH) /* what is left, to the first row of sums */
        for (size_t c = 0; c < VECTORS_OF_A_ROW && i + c * WIDTH < n; c++) {
            const size_t at = i + c * WIDTH, rest = n - at, count = rest < SUM_WIDTH ? rest : SUM_WIDTH;
            sum[c] = v_muladd(v_load_first(x + at, count, 0.0f), v_load_first(y + at, count, 0.0f), sum[c]);
        }
    float part[ROWS_OF_SUMS][SUM_WIDTH];
    memcpy(part, sum, sizeof part);
    for (int j = 0; j < SUM_WIDTH; j++)
        part[0][j] = (part[0][j] + part[1][j]) + (part[2][j] + part[3][j]);
    return sum_row(part[0]);
}

static void body_rms_norm(const float *x, size_t n, const float *weight, float eps, float *y)
{
    float factor = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
    for (size_t i = 0; i < n; i += WIDTH)
        v_store_first(y + i, n - i, v_load_first(x + i, n - i, 0.0f) * factor * v_load_first(weight + i, n - i, 0.0f));
}

static void body_l2_norm(const float *x, size_t n, const float *gamma, bool with_silu, float *y)
{
    float norm = sqrtf(dot(x, x, n));
    float factor = sqrtf((float)n) / (norm > 1e-12f ? norm : 1e-12f);
    for (size_t i = 0; i < n; i += WIDTH) {
        vec v = v_load_first(x + i, n - i, 0.0f) * factor * v_load_first(gamma + i, n - i, 0.0f);
        v_store_first(y + i, n - i, with_silu ? v_silu(v) : v);
    }
}

static void body_rope(float *x, size_t half, const float *cosines, const float *sines)
{
    for (size_t i = 0; i < half; i += WIDTH) {
        size_t n = half - i;
        vec a = v_load_first(x + i, n, 0.0f), b = v_load_first(x + half + i, n, 0.0f);
        vec c = v_load_first(cosines + i, n, 0.0f), s = v_load_first(sines + i, n, 0.0f);
        v_store_first(x + i, n, a * c - b * s);
        v_store_first(x + half + i, n, b * c + a * s);
    }
}

static void body_swiglu(const float *gate, const float *up, size_t n, float *out)
{
    for (size_t i = 0; i < n; i += WIDTH)
        v_store_first(out + i, n - i, v_silu(v_load_first(gate + i, n - i, 0.0f)) * v_load_first(up + i, n - i, 0.0f));
}

static void body_silu(const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i += WIDTH)
        v_store_first(y + i, n - i, v_silu(v_load_first(x + i, n - i, 0.0f)));
}

static void body_add(const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i += WIDTH)
        v_store_first(y + i, n - i, v_load_first(y + i, n - i, 0.0f) + v_load_first(x + i, n - i, 0.0f));
}

static void body_scale(float *x, size_t n, float factor)
{
    for (size_t i = 0; i < n; i += WIDTH)
        v_store_first(x + i, n - i, v_load_first(x + i, n - i, 0.0f) * factor);
}

static float body_max(const float *x, size_t n)
{
    vec top = v_set(x[0]), other = top;
    size_t i = 0;
    for (; i + 2 * WIDTH <= n; i += 2 * WIDTH) {
        top = v_max(top, v_load(x + i));
        other = v_max(other, v_load(x + i + WIDTH));
    }
    for (; i < n; i += WIDTH)
        top = v_max(top, v_load_first(x + i, n - i, x[0]));
    top = v_max(top, other);
    float max = top[0];
    for (int j = 1; j < WIDTH; j++)
        max = top[j] > max ? top[j] : max;
    return max;
}

static float body_exp_sum(float *x, size_t n, float shift)
{
    enum { VECTORS = 2 * SUM_WIDTH / WIDTH }; /* at a time: where it is two, they hide each other's latency */
    vec sum[VECTORS] = {{0}};
    size_t i = 0;
    for (; i + VECTORS * WIDTH <= n; i += VECTORS * WIDTH)
        for (int c = 0; c < VECTORS; c++) {
            vec e = v_exp(v_load(x + i + c * WIDTH) - shift);
            v_store(x + i + c * WIDTH, e);
            sum[c] += e;
        }
    float rows[2][SUM_WIDTH];
    memcpy(rows, sum, sizeof rows);
    for (int j = 0; j < SUM_WIDTH; j++)
        rows[0][j] += rows[1][j];
    float total = sum_row(rows[0]);
    for (; i < n; i += WIDTH) {
        float part[WIDTH];
        v_store(part, v_exp(v_load_first(x + i, n - i, 0.0f) - shift));
        for (size_t j = i; j < n && j < i + WIDTH; j++)
            total += x[j] = part[j - i];
    }
    return total;
}

static void body_decode_row(const struct linear_source *w, int row, int first, int depth, float *out)
{
    linear_source_decode(w, row, first, depth, out);
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

static inline void gemv_store(const struct gemv *g, int column, float value)
{
    value += g->bias ? g->bias[column] : 0.0f;
    g->y[column] = g->add ? g->y[column] + value : value;
}

static void body_gemv(const struct gemv *g, int first_column, int columns)
{
    enum { PIECE = 1024 };
    float weights[PIECE];
    for (int column = first_column; column < first_column + columns; column++) {
        float sum = 0;
        for (int at = 0; at < g->w->in_features; at += PIECE) {
            int depth = g->w->in_features - at < PIECE ? g->w->in_features - at : PIECE;
            body_decode_row(g->w, column, at, depth, weights);
            sum += dot(weights, g->x + at, (size_t)depth);
        }
        gemv_store(g, column, sum);
    }
}

/* What these are of a struct micro. */
#define BODY_LOOPS                                                                                                     \
    .decode_row = body_decode_row, .rms_norm = body_rms_norm, .l2_norm = body_l2_norm, .rope = body_rope,              \
    .swiglu = body_swiglu, .silu = body_silu, .add = body_add, .scale = body_scale, .max = body_max,                   \
    .exp_sum = body_exp_sum
