/* micro_avx512.c: the micro-kernels with AVX-512 (F, BW, DQ, VL and VNNI); see micro.h.
 *
 * Every sum runs in the order of micro_avx2.c, so both give the same bytes: what AVX2 keeps in two vectors stands in
 * the two halves of one here, or two columns are summed side by side. Compiled with those instructions enabled, so
 * nothing here but micro_avx512() may run before that function has said that the processor has them.
 */
#include "kernels/cpu/micro.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) &&                 \
    defined(__AVX512VNNI__)

#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/micro_avx2.h"

enum { WIDTH = 16, SUM_WIDTH = 8 };
typedef float vec __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t ivec __attribute__((vector_size(WIDTH * sizeof(int32_t))));

static inline vec v_muladd(vec a, vec b, vec c)
{
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

static inline vec v_max(vec a, vec b)
{
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
}

static inline vec v_min(vec a, vec b)
{
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
}

#include "kernels/cpu/micro_body.h"

enum { ROWS = 12, PANELS = 2 }; /* 12 x 2 sums, 2 panel vectors and 1 broadcast: 27 of 32 registers */

static inline __attribute__((always_inline)) void tile_of(const int rows, const int panels, size_t depth,
                                                          const float *a, size_t a_row, size_t a_step,
                                                          const float *panel, size_t distance, float *c, size_t c_row,
                                                          bool accumulate)
{
    __m512 sum[ROWS][PANELS];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) {
            sum[r][p] = _mm512_setzero_ps();
            _mm_prefetch(c + (size_t)r * c_row + 16 * p, _MM_HINT_T0); /* rows of c are pages apart */
        }
    for (size_t k = 0; k < depth; k++, a += a_step, panel += TILE_COLUMNS) {
        __m512 right[PANELS];
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++)
            right[p] = _mm512_loadu_ps(panel + (size_t)p * distance);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512 value = _mm512_set1_ps(a[(size_t)r * a_row]);
#pragma GCC unroll 2
            for (int p = 0; p < panels; p++)
                sum[r][p] = _mm512_fmadd_ps(value, right[p], sum[r][p]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++, c += c_row)
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) {
            if (accumulate)
                sum[r][p] = _mm512_add_ps(sum[r][p], _mm512_loadu_ps(c + 16 * p));
            _mm512_storeu_ps(c + 16 * p, sum[r][p]);
        }
}

#define TILE_CASE(rows)                                                                                                \
    case rows:                                                                                                         \
        if (panels == 2)                                                                                               \
            tile_of(rows, 2, depth, a, a_row, a_step, panel, distance, c, c_row, accumulate);                          \
        else                                                                                                           \
            tile_of(rows, 1, depth, a, a_row, a_step, panel, distance, c, c_row, accumulate);                          \
        break;

static void avx512_tile(int rows, int panels, size_t depth, const float *a, size_t a_row, size_t a_step,
                        const float *panel, size_t distance, float *c, size_t c_row, bool accumulate)
{
    switch (rows) {
        TILE_CASE(1) TILE_CASE(2) TILE_CASE(3) TILE_CASE(4) TILE_CASE(5) TILE_CASE(6)
        TILE_CASE(7) TILE_CASE(8) TILE_CASE(9) TILE_CASE(10) TILE_CASE(11) TILE_CASE(12)
    }
}

static void avx512_pack(const float *const *source, int width, size_t depth, float *out)
{
    const __mmask16 columns = first_lanes((size_t)width);
    for (size_t k = 0; k < depth; k += 16) {
        const __mmask16 present = first_lanes(depth - k);
        __m512 v[16];
#pragma GCC unroll 16
        for (int j = 0; j < 16; j++)
            v[j] = j < width && source[j] ? _mm512_maskz_loadu_ps(present, source[j] + k) : _mm512_setzero_ps();
        transpose16(v);
        float *to = out + k * (size_t)width;
        if (present == 0xffff) {
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                _mm512_mask_storeu_ps(to + (size_t)i * (size_t)width, columns, v[i]);
        } else {
            for (int i = 0; k + (size_t)i < depth; i++)
                _mm512_mask_storeu_ps(to + (size_t)i * (size_t)width, columns, v[i]);
        }
    }
}

/* Sixteen rows of the file from byte `first` on, `bytes` of them (at most 64): lane j of v[d] holds bytes 4d .. 4d+3 of
 * row j. Rows from `count` on are zero. */
static inline __attribute__((always_inline)) void load_rows(const uint8_t *data, size_t row_bytes, int count,
                                                            size_t bytes, __m512i v[16])
{
    const __mmask64 present = bytes >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << bytes) - 1;
    __m512 f[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; j++) {
        _mm_prefetch(data + (size_t)(16 + j) * row_bytes, _MM_HINT_T0); /* for the panel that comes next */
        f[j] = _mm512_castsi512_ps(_mm512_maskz_loadu_epi8(j < count ? present : 0, data + (size_t)j * row_bytes));
    }
    transpose16(f);
#pragma GCC unroll 16
    for (int j = 0; j < 16; j++)
        v[j] = _mm512_castps_si512(f[j]);
}

/* Scales of a group in `count` rows, and zero points (offsets, in MLX's format). */
static inline __attribute__((always_inline)) void load_scales(const enum weight_format format,
                                                              const struct linear_source *w, int row, int count,
                                                              size_t groups, size_t group, __m512 *scales,
                                                              __m512 *zeros)
{
    float scale[TILE_COLUMNS] = {0}, zero[TILE_COLUMNS] = {0};
    for (int j = 0; j < count; j++) {
        size_t at = (size_t)(row + j) * groups + group;
        scale[j] = group_scale(w, at);
        zero[j] = group_second(format, w, at);
    }
    *scales = _mm512_loadu_ps(scale);
    *zeros = _mm512_loadu_ps(zero);
}

/* 4-bit rows become a panel; depth and first are multiples of 8, and so is the group size. A code's value comes out
 * of a vector of all sixteen. */
static inline __attribute__((always_inline)) void decode_codes(const enum weight_format format,
                                                               const struct linear_source *w, int row, int count,
                                                               int first, int depth, float *out)
{
    const __m512 values = format == WEIGHT_NVFP4 ? _mm512_loadu_ps(fp4_levels())
                                                 : _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const size_t row_bytes = (size_t)w->in_features / 2, groups = (size_t)(w->in_features / w->group_size);
    const uint8_t *data = (const uint8_t *)w->data + (size_t)row * row_bytes;
    __m512 scales = _mm512_setzero_ps(), zeros = scales;
    int next_group = first; /* column at which other scales begin */
    for (int k = 0; k < depth; k += 128) {
        __m512i v[16];
        load_rows(data + (size_t)(first + k) / 2, row_bytes, count, (size_t)(depth - k) / 2, v);
        for (int d = 0; d < 16 && k + 8 * d < depth; d++) {
            int column = first + k + 8 * d;
            if (column >= next_group) {
                int group = column / w->group_size;
                next_group = (group + 1) * w->group_size;
                load_scales(format, w, row, count, groups, (size_t)group, &scales, &zeros);
            }
            float *to = out + (size_t)(k + 8 * d) * TILE_COLUMNS;
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++, to += TILE_COLUMNS) {
                /* The permutation looks at the low four bits of its index only. */
                __m512 value = _mm512_permutexvar_ps(_mm512_srli_epi32(v[d], 4 * i), values);
                if (format == WEIGHT_AWQ_INT4)
                    value = _mm512_sub_ps(value, zeros);
                value = _mm512_mul_ps(value, scales);
                _mm512_storeu_ps(to, format == WEIGHT_MLX_INT4 ? _mm512_add_ps(value, zeros) : value);
            }
        }
    }
}

/* bf16 rows become a panel; depth is even. */
static void decode_bf16(const struct linear_source *w, int row, int count, int first, int depth, float *out)
{
    const size_t row_bytes = (size_t)w->in_features * 2;
    const uint8_t *data = (const uint8_t *)w->data + (size_t)row * row_bytes + (size_t)first * 2;
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    for (int k = 0; k < depth; k += 32) {
        __m512i v[16];
        load_rows(data + (size_t)k * 2, row_bytes, count, (size_t)(depth - k) * 2, v);
        for (int d = 0; d < 16 && k + 2 * d < depth; d++) {
            float *to = out + (size_t)(k + 2 * d) * TILE_COLUMNS;
            _mm512_storeu_ps(to, _mm512_castsi512_ps(_mm512_slli_epi32(v[d], 16)));
            _mm512_storeu_ps(to + TILE_COLUMNS, _mm512_castsi512_ps(_mm512_and_si512(v[d], high)));
        }
    }
}

static void avx512_decode_panel(const struct linear_source *w, int row, int count, int first, int depth, float *out)
{
    int done = 0;
    if (w->format == WEIGHT_F32 && (uintptr_t)w->data % sizeof(float) == 0) {
        const float *source[TILE_COLUMNS];
        for (int j = 0; j < TILE_COLUMNS; j++)
            source[j] = j < count ? (const float *)w->data + (size_t)(row + j) * (size_t)w->in_features + first : NULL;
        avx512_pack(source, TILE_COLUMNS, (size_t)depth, out);
        return;
    }
    if (w->format == WEIGHT_BF16) {
        done = depth / 2 * 2;
        decode_bf16(w, row, count, first, done, out);
    } else if (weight_is_four_bit(w->format) && w->group_size % 8 == 0 && first % 8 == 0) {
        done = depth / 8 * 8;
        if (w->format == WEIGHT_AWQ_INT4)
            decode_codes(WEIGHT_AWQ_INT4, w, row, count, first, done, out);
        else if (w->format == WEIGHT_MLX_INT4)
            decode_codes(WEIGHT_MLX_INT4, w, row, count, first, done, out);
        else
            decode_codes(WEIGHT_NVFP4, w, row, count, first, done, out);
    }
    if (done < depth)
        body_decode_panel(w, row, count, first + done, depth - done, out + (size_t)done * TILE_COLUMNS, avx512_pack);
}

/* One row (gemv), as digits.h says; a vector holds two of the matrix's rows (columns of y), one in each half. */
enum { COLUMNS = 4 }; /* of y at a time: each vector of digits is loaded once for all of them */

static inline __m512 both_halves(__m256 a, __m256 b)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1);
}

static inline __m512i load_halves(const uint8_t *a, const uint8_t *b)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)a)),
                              _mm256_loadu_si256((const __m256i *)b), 1);
}

static inline __m512i digits_twice(const int8_t *digits)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)digits));
}

/* Scales of a piece of one matrix row, one per lane, without the tensor's own. `first` is the piece's first group. */
static inline __attribute__((always_inline)) __m256 piece_scales(const uint8_t *scales, const uint8_t *scales_fp8,
                                                                size_t first, int group, __m256i spread)
{
    if (group >= CODES)
        return _mm256_set1_ps(scales ? bf16_at(scales, first) : e4m3_to_float(scales_fp8[first]));
    const __mmask8 present = (__mmask8)((1u << (CODES / group)) - 1);
    if (scales) {
        __m128i bits = _mm_maskz_loadu_epi16(present, scales + 2 * first);
        return _mm256_permutevar8x32_ps(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)),
                                        spread);
    }
    /* E4M3 moved into a float has an exponent that is 120 too small. */
    __m256i wide = _mm256_cvtepu8_epi32(_mm_maskz_loadu_epi8(present, scales_fp8 + first));
    __m256i magnitude = _mm256_slli_epi32(_mm256_and_si256(wide, _mm256_set1_epi32(0x7f)), 20);
    __m256i sign = _mm256_slli_epi32(_mm256_and_si256(wide, _mm256_set1_epi32(0x80)), 24);
    __m256 value = _mm256_mul_ps(_mm256_castsi256_ps(_mm256_or_si256(magnitude, sign)), _mm256_set1_ps(0x1p120f));
    return _mm256_permutevar8x32_ps(value, spread);
}

static inline __attribute__((always_inline)) __m256 piece_zeros(const uint8_t *zeros, size_t first, int group,
                                                               __m256i spread)
{
    if (group >= CODES)
        return _mm256_set1_ps((float)zeros[first]);
    __m128i bytes = _mm_maskz_loadu_epi8((__mmask8)((1u << (CODES / group)) - 1), zeros + first);
    return _mm256_permutevar8x32_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), spread);
}

/* Two values, one in each half, for a piece that begins at group `at` of one matrix row and at `at2` of another. */
#define PAIR_OF(load) both_halves(load(at), load(at2))

enum { PAIRS_OF_COLUMNS = COLUMNS / 2 };

/* Of the next rows a cache line each, number `line`, or, where the rows are short, as many in the order in which they
 * lie in memory: lines out of order within a page keep the processor from fetching ahead by itself (Zen 4 then takes
 * twice as long; rows of more than half a page take longer in order). */
static inline __attribute__((always_inline)) void fetch_next_rows(const uint8_t *rows, size_t row_bytes, size_t line)
{
    enum { SHORT_ROW_BYTES = 2048 };
    const bool in_order = row_bytes <= SHORT_ROW_BYTES;
    const size_t step = in_order ? (size_t)COLUMNS * CACHE_LINE : CACHE_LINE;
    const size_t distance = in_order ? CACHE_LINE : row_bytes;
#pragma GCC unroll 4
    for (size_t c = 0; c < COLUMNS; c++)
        _mm_prefetch(rows + line * step + c * distance, _MM_HINT_T0);
}

/* The digits' products with the codes of one block, number `number` of its rows, are added to the sums. */
static inline __attribute__((always_inline)) void add_block(const enum weight_format format, const struct gemv *g,
                                                            int number, const size_t row[COLUMNS],
                                                            __m512i sum[PAIRS_OF_COLUMNS][DIGITS])
{
    const __m512i nibble = _mm512_set1_epi8(15), table = _mm512_broadcast_i32x4(nvfp4_bytes());
    const int8_t *digits = (const int8_t *)(g->x + number * BLOCK_FLOATS);
    const uint8_t *data = (const uint8_t *)g->w->data + (size_t)number * (CODES / 2);
    const size_t row_bytes = (size_t)g->w->in_features / 2;
    if (number % 2 == 0)
        fetch_next_rows((const uint8_t *)g->w->data + (row[0] + COLUMNS) * row_bytes, row_bytes, (size_t)number / 2);
#pragma GCC unroll 2
    for (int c = 0; c < PAIRS_OF_COLUMNS; c++) {
        __m512i codes = load_halves(data + row[2 * c] * row_bytes, data + row[2 * c + 1] * row_bytes);
        __m512i even = _mm512_and_si512(codes, nibble);
        __m512i odd = _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble);
        if (format == WEIGHT_NVFP4) {
            even = _mm512_shuffle_epi8(table, even);
            odd = _mm512_shuffle_epi8(table, odd);
        }
#pragma GCC unroll 3
        for (int d = 0; d < DIGITS; d++) {
            sum[c][d] = _mm512_dpbusd_epi32(sum[c][d], even, digits_twice(digits + 64 * d));
            sum[c][d] = _mm512_dpbusd_epi32(sum[c][d], odd, digits_twice(digits + 64 * d + 32));
        }
    }
}

/* What the sums of a piece are worth, which begins at group `at` of one row and `at2` of another, is added to the
 * total; `sums` are those of x's digits. */
static inline __attribute__((always_inline)) __m512 add_piece(const enum weight_format format, const int group,
                                                              const struct linear_source *w, size_t at, size_t at2,
                                                              __m256i spread, const __m512i sum[DIGITS], __m512 sums,
                                                              __m512 x_scale, __m512 total)
{
    const uint8_t *scales = w->scales, *scales_fp8 = w->scales_fp8, *all_zeros = w->zeros, *offsets = w->offsets;
#define SCALE_AT(group_at) piece_scales(scales, scales_fp8, group_at, group, spread)
#define OFFSET_AT(group_at) piece_scales(offsets, NULL, group_at, group, spread)
#define ZERO_AT(group_at) piece_zeros(all_zeros, group_at, group, spread)
    const __m512 scale = PAIR_OF(SCALE_AT);
    const __m512 zero = format == WEIGHT_NVFP4      ? _mm512_set1_ps(NVFP4_ZERO)
                        : format == WEIGHT_MLX_INT4 ? PAIR_OF(OFFSET_AT)
                                                    : PAIR_OF(ZERO_AT);
    __m512i whole = _mm512_add_epi32(sum[0], _mm512_slli_epi32(sum[1], 8));
    whole = _mm512_add_epi32(whole, _mm512_slli_epi32(sum[2], 16));
    __m512 value = _mm512_cvtepi32_ps(whole);
    if (format == WEIGHT_MLX_INT4) {
        value = _mm512_fmadd_ps(zero, sums, _mm512_mul_ps(scale, value));
    } else {
        value = _mm512_fnmadd_ps(zero, sums, value);
        x_scale = _mm512_mul_ps(scale, x_scale);
    }
    return _mm512_fmadd_ps(x_scale, value, total);
}

static inline __attribute__((always_inline)) void gemv_codes(const enum weight_format format, const int group,
                                                             const struct gemv *g, int first_column, int columns)
{
    const struct linear_source *w = g->w;
    const int in = w->in_features, groups = in / group, piece = gemv_piece(format, group), pieces = in / piece;
    const float *x_sums = g->x + (size_t)(in / CODES) * BLOCK_FLOATS, *x_scales = x_sums + (size_t)pieces * 8;
    const float factor = format == WEIGHT_NVFP4 ? 0.5f * w->tensor_scale : 1.0f; /* NVFP4's bytes are twice the level */
    int lanes[LANES];
    lanes_of_groups(group, lanes);
    const __m256i spread = _mm256_loadu_si256((const __m256i *)lanes);

    for (int column = first_column; column < first_column + columns; column += COLUMNS) {
        size_t row[COLUMNS]; /* past the end the last one again, whose value is not stored */
        for (int c = 0; c < COLUMNS; c++)
            row[c] = (size_t)(column + c < first_column + columns ? column + c : first_column + columns - 1);
        __m512 total[PAIRS_OF_COLUMNS];
        for (int c = 0; c < PAIRS_OF_COLUMNS; c++)
            total[c] = _mm512_setzero_ps();
        for (int p = 0; p < pieces; p++) {
            __m512i sum[PAIRS_OF_COLUMNS][DIGITS];
            for (int c = 0; c < PAIRS_OF_COLUMNS; c++)
                for (int d = 0; d < DIGITS; d++)
                    sum[c][d] = _mm512_setzero_si512();
#pragma GCC unroll 2
            for (int block = 0; block < piece / CODES; block++)
                add_block(format, g, p * (piece / CODES) + block, row, sum);
            const size_t in_row = (size_t)(p * piece / group);
            const __m256 sums_once = _mm256_loadu_ps(x_sums + 8 * (size_t)p);
            const __m512 sums = both_halves(sums_once, sums_once);
#pragma GCC unroll 2
            for (int c = 0; c < PAIRS_OF_COLUMNS; c++)
                total[c] = add_piece(format, group, w, row[2 * c] * (size_t)groups + in_row,
                                     row[2 * c + 1] * (size_t)groups + in_row, spread, sum[c], sums,
                                     _mm512_set1_ps(x_scales[p]), total[c]);
        }
        float parts[COLUMNS][SUM_WIDTH];
        memcpy(parts, total, sizeof parts);
        for (int c = 0; c < COLUMNS && column + c < first_column + columns; c++)
            gemv_store(g, column + c, factor * sum_row(parts[c]));
    }
}

/* Float32 and bf16 weights, 16 columns of the matrix at a time: the first (even) eight in the low half,
 * the others in the high one. */
static inline __attribute__((always_inline)) void gemv_wide(const enum weight_format format, const struct gemv *g,
                                                            int first_column, int columns)
{
    const int in = g->w->in_features, whole = in / PAIRS * PAIRS;
    const size_t size = format == WEIGHT_F32 ? 4 : 2;
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    const __m512i shift = _mm512_inserti64x4(_mm512_set1_epi32(16), _mm256_setzero_si256(), 1);
    for (int column = first_column; column < first_column + columns; column += COLUMNS) {
        const char *data[COLUMNS];
        for (int c = 0; c < COLUMNS; c++) {
            const int row = column + c < first_column + columns ? column + c : first_column + columns - 1;
            data[c] = (const char *)g->w->data + (size_t)row * (size_t)in * size;
        }
        /* The next rows, in the order in which they lie in memory; L1 has no room for them. */
        const char *next = data[0] + COLUMNS * (size_t)in * size;
        __m512 sum[COLUMNS];
        for (int c = 0; c < COLUMNS; c++)
            sum[c] = _mm512_setzero_ps();
        for (int k = 0; k < whole; k += PAIRS) {
            const __m512 x = _mm512_loadu_ps(g->x + k);
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; c++) {
                const char *at = data[c] + (size_t)k * size;
                _mm_prefetch(next + (size_t)(COLUMNS * k + PAIRS * c) * size, _MM_HINT_T1);
                __m512i weights;
                if (format == WEIGHT_F32)
                    weights = _mm512_loadu_si512(at);
                else
                    weights = _mm512_and_si512(
                        _mm512_sllv_epi32(_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)at)), shift),
                        high);
                sum[c] = _mm512_fmadd_ps(_mm512_castsi512_ps(weights), x, sum[c]);
            }
        }
        for (int c = 0; c < COLUMNS && column + c < first_column + columns; c++) {
            float part[2][SUM_WIDTH];
            memcpy(part, &sum[c], sizeof part);
            for (int j = 0; j < SUM_WIDTH; j++)
                part[0][j] += part[1][j];
            float value = sum_row(part[0]);
            for (int k = whole; k < in; k++)
                value += element_at(format, data[c], (size_t)k) * g->x[k];
            gemv_store(g, column + c, value);
        }
    }
}

/* One function for each kind of weights, with the commonest group sizes as constants, kept apart so that each has the
 * registers to itself. */
#define GEMV_FUNCTION(kind, call)                                                                                      \
    static __attribute__((noinline)) void gemv_##kind(const struct gemv *g, int first, int columns)                    \
    {                                                                                                                  \
        call;                                                                                                          \
    }
GEMV_FUNCTION(f32, gemv_wide(WEIGHT_F32, g, first, columns))
GEMV_FUNCTION(bf16, gemv_wide(WEIGHT_BF16, g, first, columns))
GEMV_FUNCTION(awq_128, gemv_codes(WEIGHT_AWQ_INT4, 128, g, first, columns))
GEMV_FUNCTION(awq_64, gemv_codes(WEIGHT_AWQ_INT4, 64, g, first, columns))
GEMV_FUNCTION(awq, gemv_codes(WEIGHT_AWQ_INT4, g->w->group_size, g, first, columns))
GEMV_FUNCTION(mlx, gemv_codes(WEIGHT_MLX_INT4, g->w->group_size, g, first, columns))
GEMV_FUNCTION(nvfp4_16, gemv_codes(WEIGHT_NVFP4, 16, g, first, columns))
GEMV_FUNCTION(nvfp4, gemv_codes(WEIGHT_NVFP4, g->w->group_size, g, first, columns))

static void avx512_gemv(const struct gemv *g, int first, int columns)
{
    const int group = g->w->group_size;
    switch (g->w->format) {
    case WEIGHT_F32: gemv_f32(g, first, columns); return;
    case WEIGHT_BF16: gemv_bf16(g, first, columns); return;
    default: break;
    }
    if (!gemv_of_codes(g->w))
        body_gemv(g, first, columns);
    else if (g->w->format == WEIGHT_AWQ_INT4)
        (group == 128 ? gemv_awq_128 : group == 64 ? gemv_awq_64 : gemv_awq)(g, first, columns);
    else if (g->w->format == WEIGHT_MLX_INT4)
        gemv_mlx(g, first, columns);
    else
        (group == 16 ? gemv_nvfp4_16 : gemv_nvfp4)(g, first, columns);
}

const struct micro *micro_avx512(void)
{
    static const struct micro micro = {
        .name = "cpu-avx512",
        .tile_rows = ROWS,
        .tile_panels = PANELS,
        .tile = avx512_tile,
        .pack = avx512_pack,
        .decode_panel = avx512_decode_panel,
        .gemv_prepared_floats = row_floats,
        .gemv_prepare = row_prepare,
        .gemv = avx512_gemv,
        BODY_LOOPS,
    };
    return micro_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512vnni")
               ? &micro
               : NULL;
}

#else

const struct micro *micro_avx512(void)
{
    return NULL;
}

#endif
