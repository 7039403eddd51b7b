/* micro_avx2.c: the micro-kernels with AVX2, FMA and F16C; see micro.h.
 *
 * Compiled with those instructions enabled, so nothing here but micro_avx2() may run
 * before that function has said that the processor has them.
 */
#include "kernels/cpu/micro.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

#define MULADD(a, b, c) __builtin_fmaf((a), (b), (c))
#include "kernels/cpu/micro_body.h"

enum { ROWS = 6 }; /* 6 x 2 sums, 2 panel vectors and 1 broadcast: 15 of 16 registers */

static inline __attribute__((always_inline)) void avx2_tile_rows(const int rows, size_t depth, const float *a,
                                                                 size_t a_row, size_t a_step, const float *panel,
                                                                 float *c, size_t c_row, bool accumulate)
{
    __m256 sum[ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    for (size_t k = 0; k < depth; k++, a += a_step, panel += TILE_COLUMNS) {
        __m256 left = _mm256_loadu_ps(panel), right = _mm256_loadu_ps(panel + 8);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m256 value = _mm256_broadcast_ss(a + (size_t)r * a_row);
            sum[r][0] = _mm256_fmadd_ps(value, left, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(value, right, sum[r][1]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++, c += c_row) {
        if (accumulate) {
            sum[r][0] = _mm256_add_ps(sum[r][0], _mm256_loadu_ps(c));
            sum[r][1] = _mm256_add_ps(sum[r][1], _mm256_loadu_ps(c + 8));
        }
        _mm256_storeu_ps(c, sum[r][0]);
        _mm256_storeu_ps(c + 8, sum[r][1]);
    }
}

static void avx2_tile(int rows, size_t depth, const float *a, size_t a_row, size_t a_step, const float *panel,
                      float *c, size_t c_row, bool accumulate)
{
    switch (rows) {
    case 1: avx2_tile_rows(1, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 2: avx2_tile_rows(2, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 3: avx2_tile_rows(3, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 4: avx2_tile_rows(4, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 5: avx2_tile_rows(5, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    default: avx2_tile_rows(6, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    }
}

/* Rows become columns: v[i] lane j <- v[j] lane i. */
static inline __attribute__((always_inline)) void transpose8(__m256 v[8])
{
    __m256 a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

/* Up to eight sources side by side. Rows narrower than a vector are stored in rising order, each store covering
 * what the one before wrote too much. */
static inline void pack8(const float *const *source, int count, size_t depth, size_t width, float *out)
{
    size_t k = 0;
    for (; k + 8 <= depth; k += 8) {
        __m256 v[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            v[j] = j < count && source[j] ? _mm256_loadu_ps(source[j] + k) : _mm256_setzero_ps();
        transpose8(v);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            _mm256_storeu_ps(out + (k + (size_t)i) * width, v[i]);
    }
    for (; k < depth; k++)
        for (int j = 0; j < count; j++)
            out[k * width + (size_t)j] = source[j] ? source[j][k] : 0.0f;
}

static void avx2_pack(const float *const *source, int width, size_t depth, float *out)
{
    if (width == TILE_COLUMNS) {
        pack8(source, 8, depth, TILE_COLUMNS, out);
        pack8(source + 8, 8, depth, TILE_COLUMNS, out + 8);
    } else {
        pack8(source, width, depth, (size_t)width, out);
    }
}

static inline __m256 nvfp4_levels(void)
{
    return _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
}

/* Eight weight rows of 64 columns each: lane j of v[d] holds the codes of columns 8d .. 8d+7 of row j. */
static inline __attribute__((always_inline)) void load_codes(const uint8_t *const row[8], size_t byte, __m256i v[8])
{
    __m256 f[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        f[j] = _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(row[j] + byte)));
    transpose8(f);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        v[j] = _mm256_castps_si256(f[j]);
}

static inline __attribute__((always_inline)) void decode_codes(enum weight_format format, const struct linear_source *w,
                                                               int row, int count, int first, int depth, float *out)
{
    const uint8_t *codes[8];
    size_t groups = (size_t)(w->in_features / w->group_size);
    for (int j = 0; j < 8; j++)
        codes[j] = (const uint8_t *)w->data + (size_t)(row + (j < count ? j : 0)) * (size_t)w->in_features / 2;
    float scale[8] = {0}, zero[8] = {0};
    __m256 scales = _mm256_setzero_ps(), zeros = scales;
    const __m256i mask = _mm256_set1_epi32(15), sign = _mm256_set1_epi32((int)0x80000000u);
    int group = -1;
    for (int k = 0; k < depth; k += 64) {
        __m256i v[8];
        load_codes(codes, (size_t)(first + k) / 2, v);
        for (int d = 0; d < 8; d++) {
            int now = (first + k + 8 * d) / w->group_size;
            if (now != group) {
                group = now;
                for (int j = 0; j < count; j++) {
                    size_t at = (size_t)(row + j) * groups + (size_t)group;
                    scale[j] = group_scale(w, at);
                    if (format == WEIGHT_AWQ_INT4)
                        zero[j] = (float)w->zeros[at];
                }
                scales = _mm256_loadu_ps(scale);
                zeros = _mm256_loadu_ps(zero);
            }
            __m256i c = v[d];
            float *to = out + (size_t)(k + 8 * d) * TILE_COLUMNS;
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++, to += TILE_COLUMNS) {
                __m256 value;
                if (format == WEIGHT_AWQ_INT4) {
                    __m256i code = _mm256_and_si256(_mm256_srli_epi32(c, 4 * i), mask);
                    value = _mm256_sub_ps(_mm256_cvtepi32_ps(code), zeros);
                } else {
                    /* The permutation looks at the low three bits of its index only. */
                    value = _mm256_permutevar8x32_ps(nvfp4_levels(), _mm256_srli_epi32(c, 4 * i));
                    __m256i minus = _mm256_and_si256(_mm256_slli_epi32(c, 28 - 4 * i), sign);
                    value = _mm256_xor_ps(value, _mm256_castsi256_ps(minus));
                }
                _mm256_storeu_ps(to, _mm256_mul_ps(value, scales));
            }
        }
    }
}

/* Eight rows of bf16, 16 columns at a time. */
static inline void decode_bf16(const struct linear_source *w, int row, int count, int first, int depth, float *out)
{
    const uint8_t *data[8];
    for (int j = 0; j < 8; j++)
        data[j] = (const uint8_t *)w->data + (size_t)(row + (j < count ? j : 0)) * (size_t)w->in_features * 2;
    const __m256i high = _mm256_set1_epi32((int)0xffff0000u);
    int lanes[8];
    for (int j = 0; j < 8; j++)
        lanes[j] = j < count ? -1 : 0;
    const __m256i present = _mm256_loadu_si256((const __m256i *)lanes);
    for (int k = 0; k < depth; k += 16) {
        __m256i v[8];
        load_codes(data, (size_t)(first + k) * 2, v);
#pragma GCC unroll 8
        for (int d = 0; d < 8; d++) {
            float *to = out + (size_t)(k + 2 * d) * TILE_COLUMNS;
            __m256i pair = _mm256_and_si256(v[d], present);
            _mm256_storeu_ps(to, _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)));
            _mm256_storeu_ps(to + TILE_COLUMNS, _mm256_castsi256_ps(_mm256_and_si256(pair, high)));
        }
    }
}

static void avx2_decode_panel(const struct linear_source *w, int row, int count, int first, int depth, float *out)
{
    int done = 0;
    if (w->format == WEIGHT_F32) {
        const float *source[TILE_COLUMNS];
        for (int j = 0; j < TILE_COLUMNS; j++)
            source[j] = j < count ? (const float *)w->data + (size_t)(row + j) * (size_t)w->in_features + first : NULL;
        if ((uintptr_t)w->data % sizeof(float) == 0) {
            avx2_pack(source, TILE_COLUMNS, (size_t)depth, out);
            return;
        }
    } else if (w->format == WEIGHT_BF16) {
        done = depth / 16 * 16;
        for (int half = 0; half < TILE_COLUMNS; half += 8) {
            int rows = count - half < 0 ? 0 : count - half > 8 ? 8 : count - half;
            decode_bf16(w, rows ? row + half : row, rows, first, done, out + half);
        }
    } else if (w->group_size % 8 == 0 && first % 8 == 0) {
        done = depth / 64 * 64;
        for (int half = 0; half < TILE_COLUMNS; half += 8) {
            int rows = count - half < 0 ? 0 : count - half > 8 ? 8 : count - half;
            int start = rows ? row + half : row;
            if (w->format == WEIGHT_AWQ_INT4)
                decode_codes(WEIGHT_AWQ_INT4, w, start, rows, first, done, out + half);
            else
                decode_codes(WEIGHT_NVFP4, w, start, rows, first, done, out + half);
        }
    }
    if (done < depth)
        body_decode_panel(w, row, count, first + done, depth - done, out + (size_t)done * TILE_COLUMNS, avx2_pack);
}

const struct micro *micro_avx2(void)
{
    static const struct micro micro = {
        .name = "cpu-avx2",
        .tile_rows = ROWS,
        .tile = avx2_tile,
        .pack = avx2_pack,
        .decode_row = body_decode_row,
        .decode_panel = avx2_decode_panel,
        .gemv_prepared_floats = body_gemv_prepared_floats,
        .gemv_prepare = body_gemv_prepare,
        .gemv = body_gemv,
        .rms_norm = body_rms_norm,
        .l2_norm = body_l2_norm,
        .rope = body_rope,
        .swiglu = body_swiglu,
        .silu = body_silu,
        .add = body_add,
        .scale = body_scale,
        .max = body_max,
        .exp_sum = body_exp_sum,
    };
    bool here = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    return here ? &micro : NULL;
}

#else

const struct micro *micro_avx2(void)
{
    return NULL;
}

#endif
