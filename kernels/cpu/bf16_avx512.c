/* bf16_avx512.c: products in bf16 with AVX512-BF16's dot products, and the loops around them
 * for bf16_amx.c too; see bf16.h.
 *
 * Compiled with those instructions enabled, so nothing here but bf16_avx512() may run before that function has said
 * that the processor has them.
 */
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/bf16_avx512.h"

#include "base/error.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)

#include <cpuid.h>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/bf16_loops.h"

/* Thirty-two floats, the first sixteen in `low`. */
static inline __m512i rounded(__m512 low, __m512 high)
{
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

void bf16_avx512_round(const float *from, size_t n, size_t padded, bf16 *to)
{
    for (size_t i = 0; i < padded; i += 16) {
        const __mmask16 present = i < n ? first_lanes(n - i) : 0;
        _mm256_mask_storeu_epi16(to + i, first_lanes(padded - i),
                                 (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(present, from + i)));
    }
}

void bf16_avx512_pack_columns(const float *const *source, size_t depth, bf16 *panel)
{
    for (size_t k = 0; k < depth; k += BF16_STEP, panel += BF16_PANEL_STEP) {
        const __mmask16 low = first_lanes(depth - k), high = depth - k > 16 ? first_lanes(depth - k - 16) : 0;
        __m512 v[16];
#pragma GCC unroll 16
        for (int j = 0; j < 16; j++)
            v[j] = !source[j] ? _mm512_setzero_ps()
                              : _mm512_castsi512_ps(rounded(_mm512_maskz_loadu_ps(low, source[j] + k),
                                                            _mm512_maskz_loadu_ps(high, source[j] + k + 16)));
        transpose16(v); /* of pairs */
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            _mm512_storeu_ps((float *)(void *)(panel + 32 * i), v[i]);
    }
}

/* Lane 2j from the first half, lane 2j + 1 from the second. */
static inline __m512i interleave(void)
{
    uint16_t lanes[32];
    for (int i = 0; i < 32; i++)
        lanes[i] = (uint16_t)(i / 2 + i % 2 * 16);
    return _mm512_loadu_si512(lanes);
}

void bf16_avx512_pack_depth(const float *const *source, int count, int width, bf16 *panels, size_t panel_distance)
{
    const int padded = (int)bf16_steps(count) * BF16_STEP;
    const __m512i order = interleave();
    for (int k = 0; k < padded; k += 2)
        for (int j = 0; j < width; j += BF16_TILE) {
            const __mmask16 present = first_lanes((size_t)(width - j));
            __m512 even = k < count ? _mm512_maskz_loadu_ps(present, source[k] + j) : _mm512_setzero_ps();
            __m512 odd = k + 1 < count ? _mm512_maskz_loadu_ps(present, source[k + 1] + j) : _mm512_setzero_ps();
            _mm512_storeu_si512(panels + (size_t)(j / BF16_TILE) * panel_distance + (size_t)k * BF16_TILE,
                                _mm512_permutexvar_epi16(order, rounded(even, odd)));
        }
}

static inline __m512i both_halves(__m256i low, __m256i high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* The values of a group's sixteen codes. */
static inline __attribute__((always_inline)) __m256i values_of(const enum weight_format format,
                                                               const struct linear_source *w, size_t group)
{
    const __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512 scale = _mm512_set1_ps(group_scale(w, group)), second = _mm512_set1_ps(group_second(format, w, group));
    __m512 value;
    if (format == WEIGHT_AWQ_INT4)
        value = _mm512_mul_ps(_mm512_sub_ps(codes, second), scale);
    else if (format == WEIGHT_MLX_INT4)
        value = _mm512_add_ps(_mm512_mul_ps(codes, scale), second);
    else
        value = _mm512_mul_ps(_mm512_loadu_ps(fp4_levels()), scale);
    return (__m256i)_mm512_cvtneps_pbh(value);
}

/* One step: two codes of a byte become two indices of 16 bits, whose low bits choose among the values of the two groups
 * that sixteen codes each belong to. */
static inline __attribute__((always_inline)) void decode_step(const uint8_t *data, size_t ahead, __m512i values,
                                                              bf16 *to)
{
    _mm_prefetch(data + ahead, _MM_HINT_T0);
    const __m512i low = _mm512_set1_epi16(15);
    const __m512i second = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1);
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)data));
    const __m512i pairs = _mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12));
    const __m512i index = _mm512_or_si512(_mm512_and_si512(pairs, low), second);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(index, values));
}

/* Whole steps of a row whose groups are of 16 columns, or of whole steps. */
static inline __attribute__((always_inline)) void
decode_codes(const enum weight_format format, const struct linear_source *w, int row, int first, int depth, bf16 *to)
{
    const size_t start = (size_t)row * (size_t)w->in_features;
    const uint8_t *data = (const uint8_t *)w->data + (start + (size_t)first) / 2, *end = data + depth / 2;
    size_t group = (start + (size_t)first) / (size_t)w->group_size;
    /* The same place some rows on: what is decoded of a row is too short for the processor to see where it leads. */
    const size_t ahead = 4 * (size_t)w->in_features / 2;
    if (w->group_size == BF16_STEP / 2) {
        for (; data < end; data += BF16_STEP / 2, to += BF16_STEP, group += 2)
            decode_step(data, ahead, both_halves(values_of(format, w, group), values_of(format, w, group + 1)), to);
        return;
    }
    int steps = (w->group_size - first % w->group_size) / BF16_STEP; /* of the group that there still are */
    while (data < end) {
        const __m256i values = values_of(format, w, group++);
        for (; steps > 0 && data < end; steps--, data += BF16_STEP / 2, to += BF16_STEP)
            decode_step(data, ahead, both_halves(values, values), to);
        steps = w->group_size / BF16_STEP;
    }
}

void bf16_avx512_decode(const struct linear_source *w, int row, int first, int depth, bf16 *to)
{
    int done = 0;
    if (w->format == WEIGHT_BF16) {
        done = depth;
        memcpy(to, (const char *)w->data + ((size_t)row * (size_t)w->in_features + (size_t)first) * 2,
               (size_t)depth * 2);
        memset(to + depth, 0, (bf16_steps(depth) * BF16_STEP - (size_t)depth) * sizeof *to);
    } else if (w->format == WEIGHT_F32) {
        done = depth;
        bf16_avx512_round((const float *)w->data + (size_t)row * (size_t)w->in_features + (size_t)first, (size_t)depth,
                          bf16_steps(depth) * BF16_STEP, to);
    } else if (weight_is_four_bit(w->format) &&
               (w->group_size == BF16_STEP / 2 || w->group_size % BF16_STEP == 0)) {
        done = depth / BF16_STEP * BF16_STEP;
        if (w->format == WEIGHT_AWQ_INT4)
            decode_codes(WEIGHT_AWQ_INT4, w, row, first, done, to);
        else if (w->format == WEIGHT_MLX_INT4)
            decode_codes(WEIGHT_MLX_INT4, w, row, first, done, to);
        else
            decode_codes(WEIGHT_NVFP4, w, row, first, done, to);
    }
    if (done < depth)
        loops_decode(w, row, first + done, depth - done, to + done);
}

void bf16_avx512_store_transposed(const float *c, size_t c_row, int rows, int columns, const float *bias, bool add,
                                  float *out, size_t out_row)
{
    for (int i = 0; i < rows; i += 16)
        for (int j = 0; j < columns; j += 16) {
            const __mmask16 present = first_lanes((size_t)(columns - j));
            const __m512 biases = bias ? _mm512_maskz_loadu_ps(present, bias + j) : _mm512_setzero_ps();
            __m512 v[16];
#pragma GCC unroll 16
            for (int n = 0; n < 16; n++)
                v[n] = _mm512_loadu_ps(c + (size_t)(j + n) * c_row + (size_t)i);
            transpose16(v);
            for (int n = 0; n < 16 && i + n < rows; n++) {
                float *to = out + (size_t)(i + n) * out_row + j;
                __m512 value = _mm512_add_ps(v[n], biases);
                if (add)
                    value = _mm512_add_ps(_mm512_maskz_loadu_ps(present, to), value);
                _mm512_mask_storeu_ps(to, present, value);
            }
        }
}

/* The dot products take subnormals for zero whatever the processor's state. */
static void avx512_begin(unsigned *saved)
{
    *saved = 0;
}

static void avx512_end(unsigned saved)
{
    (void)saved;
}

enum { ROWS = 8 }; /* 8 x 2 sums at a time */

/* Some rows of all of a product's depth times `tiles` panels. */
static inline __attribute__((always_inline)) void multiply_rows(const struct bf16_product *p, size_t first_row,
                                                                const int tiles)
{
    __m512 sum[ROWS][2];
    float *c = p->c + first_row * p->c_row;
#pragma GCC unroll 8
    for (size_t r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int t = 0; t < tiles; t++)
            sum[r][t] = p->accumulate ? _mm512_loadu_ps(c + r * p->c_row + 16 * t) : _mm512_setzero_ps();
    const bf16 *panel = p->panels;
    for (int s = 0; s < p->segments; s++) {
        const bf16 *a = p->rows[s] + first_row * p->row_distance;
        for (size_t pair = 0; pair < p->steps * (BF16_STEP / 2); pair++, a += 2, panel += 2 * BF16_TILE) {
            __m512i right[2];
#pragma GCC unroll 2
            for (int t = 0; t < tiles; t++)
                right[t] = _mm512_loadu_si512(panel + (size_t)t * p->panel_distance);
#pragma GCC unroll 8
            for (size_t r = 0; r < ROWS; r++) {
                int32_t both;
                memcpy(&both, a + r * p->row_distance, sizeof both);
                const __m512i left = _mm512_set1_epi32(both);
#pragma GCC unroll 2
                for (int t = 0; t < tiles; t++)
                    sum[r][t] = _mm512_dpbf16_ps(sum[r][t], (__m512bh)left, (__m512bh)right[t]);
            }
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int t = 0; t < tiles; t++)
            _mm512_storeu_ps(c + r * p->c_row + 16 * t, sum[r][t]);
}

static void avx512_multiply(const struct bf16_product *p)
{
    for (size_t row = 0; row < (size_t)(BF16_TILE * p->row_tiles); row += ROWS)
        if (p->column_tiles == 2)
            multiply_rows(p, row, 2);
        else
            multiply_rows(p, row, 1);
}

const struct bf16_loops *bf16_avx512(struct error *error)
{
    static const struct bf16_loops loops = {
        .name = "cpu-avx512-bf16",
        .begin = avx512_begin,
        .end = avx512_end,
        .multiply = avx512_multiply,
        .round = bf16_avx512_round,
        .pack_columns = bf16_avx512_pack_columns,
        .pack_depth = bf16_avx512_pack_depth,
        .decode = bf16_avx512_decode,
        .store_transposed = bf16_avx512_store_transposed,
    };
    unsigned a, b, c, d;
    const bool has = micro_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 5;
    if (!has)
        error_set(error, ERROR_UNSUPPORTED, "this processor has no AVX512-BF16");
    return has ? &loops : NULL;
}

#else

const struct bf16_loops *bf16_avx512(struct error *error)
{
    error_set(error, ERROR_UNSUPPORTED, "this program was built without AVX512-BF16");
    return NULL;
}

#endif
