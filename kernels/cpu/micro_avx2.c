/* micro_avx2.c: the micro-kernels with AVX2, FMA and F16C; see micro.h.
 *
 * Compiled with those instructions enabled, so nothing here but micro_avx2() may run
 * before that function has said that the processor has them.
 */
#include "kernels/cpu/micro.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>

enum { WIDTH = 8, SUM_WIDTH = 8 };
typedef float vec __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t ivec __attribute__((vector_size(WIDTH * sizeof(int32_t))));

static inline vec v_muladd(vec a, vec b, vec c)
{
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

static inline vec v_max(vec a, vec b)
{
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
}

static inline vec v_min(vec a, vec b)
{
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
}

#include "kernels/cpu/micro_body.h"
#include "kernels/cpu/codes_avx2.h"
#include "kernels/cpu/few_rows_avx2.h"
#include "kernels/cpu/micro_avx2.h"

static inline float v_sum(vec v)
{
    float part[WIDTH];
    v_store(part, v);
    return sum_row(part);
}

enum { ROWS = 6 }; /* 6 x 2 sums, 2 panel vectors and 1 broadcast: 15 of 16 registers */

static inline __attribute__((always_inline)) void avx2_tile_rows(const int rows, size_t depth, const float *a,
                                                                 size_t a_row, size_t a_step, const float *panel,
                                                                 float *c, size_t c_row, bool accumulate)
{
    __m256 sum[ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        sum[r][0] = sum[r][1] = _mm256_setzero_ps();
        _mm_prefetch(c + (size_t)r * c_row, _MM_HINT_T0); /* rows of c may be pages apart */
        _mm_prefetch(c + (size_t)r * c_row + 15, _MM_HINT_T0);
    }
#pragma GCC unroll 8
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

static void avx2_tile(int rows, int panels, size_t depth, const float *a, size_t a_row, size_t a_step,
                      const float *panel, size_t distance, float *c, size_t c_row, bool accumulate)
{
    (void)panels, (void)distance; /* one at a time */
    switch (rows) {
    case 1: avx2_tile_rows(1, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 2: avx2_tile_rows(2, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 3: avx2_tile_rows(3, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 4: avx2_tile_rows(4, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    case 5: avx2_tile_rows(5, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
    default: avx2_tile_rows(6, depth, a, a_row, a_step, panel, c, c_row, accumulate); break;
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

static inline __m256i first_lanes(int count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __attribute__((always_inline)) void decode_codes(const enum weight_format format,
                                                               const struct linear_source *w, int row, int count,
                                                               int first, int depth, float *out)
{
    const size_t row_bytes = (size_t)w->in_features / 2, groups = (size_t)(w->in_features / w->group_size);
    const uint8_t *codes[8];
    for (int j = 0; j < 8; j++)
        codes[j] = (const uint8_t *)w->data + (size_t)(row + (j < count ? j : 0)) * row_bytes + (size_t)first / 2;
    const __m256 levels = _mm256_loadu_ps(fp4_levels());
    const __m256 present = _mm256_castsi256_ps(first_lanes(count));
    struct group_lanes g = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    int in_group = 0; /* columns of the group that are left */
    for (int k = 0; k < depth; k += CODES_AT_ONCE) {
        __m256i v[8];
        load_codes(codes, (size_t)k / 2, TILE_COLUMNS * row_bytes, v);
        for (int d = 0; d < 8; d++, in_group -= 8) {
            if (in_group == 0) {
                const int at = first + k + 8 * d;
                g = group_lanes(format, w, (size_t)row * groups + (size_t)(at / w->group_size), groups, count);
                g.scale = _mm256_and_ps(g.scale, present);
                g.second = _mm256_and_ps(g.second, present);
                in_group = w->group_size - at % w->group_size;
            }
            float *to = out + (size_t)(k + 8 * d) * TILE_COLUMNS;
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++, to += TILE_COLUMNS)
                _mm256_storeu_ps(to, code_lanes(format, v[d], i, g.scale, g.second, levels));
        }
    }
}

/* Eight rows of bf16, 16 columns at a time. */
static inline void decode_bf16(const struct linear_source *w, int row, int count, int first, int depth, float *out)
{
    const size_t row_bytes = (size_t)w->in_features * 2;
    const uint8_t *data[8];
    for (int j = 0; j < 8; j++)
        data[j] = (const uint8_t *)w->data + (size_t)(row + (j < count ? j : 0)) * row_bytes + (size_t)first * 2;
    const __m256i high = _mm256_set1_epi32((int)0xffff0000u), present = first_lanes(count);
    for (int k = 0; k < depth; k += 16) {
        __m256i v[8];
        load_codes(data, (size_t)k * 2, TILE_COLUMNS * row_bytes, v);
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
    } else if (weight_is_four_bit(w->format) && w->group_size % 8 == 0 && first % 8 == 0) {
        done = depth / 64 * 64;
        for (int half = 0; half < TILE_COLUMNS; half += 8) {
            int rows = count - half < 0 ? 0 : count - half > 8 ? 8 : count - half;
            int start = rows ? row + half : row;
            if (w->format == WEIGHT_AWQ_INT4)
                decode_codes(WEIGHT_AWQ_INT4, w, start, rows, first, done, out + half);
            else if (w->format == WEIGHT_MLX_INT4)
                decode_codes(WEIGHT_MLX_INT4, w, start, rows, first, done, out + half);
            else
                decode_codes(WEIGHT_NVFP4, w, start, rows, first, done, out + half);
        }
    }
    if (done < depth)
        body_decode_panel(w, row, count, first + done, depth - done, out + (size_t)done * TILE_COLUMNS, avx2_pack);
}

/* One byte for each group of a block. */
static inline __attribute__((always_inline)) __m128i load_bytes(const uint8_t *from, int group)
{
    return group == 8    ? _mm_loadl_epi64((const __m128i *)from)
           : group == 16 ? _mm_loadu_si32(from)
                         : _mm_loadu_si16(from);
}

/* Scales of a piece of a row, one per lane, without the tensor's own, and zero points likewise. `first` is the piece's
 * first group, `group` the group size (a constant where that pays), `spread` which group a lane belongs to. */
static inline __attribute__((always_inline)) __m256 piece_scales(const uint8_t *scales, const uint8_t *scales_fp8,
                                                                size_t first, int group, __m256i spread)
{
    if (group >= CODES)
        return _mm256_set1_ps(scales ? bf16_at(scales, first) : e4m3_to_float(scales_fp8[first]));
    if (scales) {
        __m128i bits;
        if (group == 8)
            bits = _mm_loadu_si128((const __m128i *)(scales + 2 * first));
        else if (group == 16)
            bits = _mm_loadl_epi64((const __m128i *)(scales + 2 * first));
        else
            bits = _mm_loadu_si32(scales + 2 * first);
        __m256 wide = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
        return _mm256_permutevar8x32_ps(wide, spread);
    }
    return _mm256_permutevar8x32_ps(e4m3_lanes(load_bytes(scales_fp8 + first, group)), spread);
}

static inline __attribute__((always_inline)) __m256 piece_zeros(const uint8_t *zeros, size_t first, int group,
                                                               __m256i spread)
{
    if (group >= CODES)
        return _mm256_set1_ps((float)zeros[first]);
    __m256 wide = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_bytes(zeros + first, group)));
    return _mm256_permutevar8x32_ps(wide, spread);
}

enum { FETCH_AHEAD = 4096 }; /* bytes */

/* The codes' products with x in one digit, in pairs: 16 sums of 16 bits. */
static inline __attribute__((always_inline)) __m256i multiply_codes(__m256i even, __m256i odd, const int8_t *digits)
{
    return _mm256_add_epi16(_mm256_maddubs_epi16(even, _mm256_loadu_si256((const __m256i *)digits)),
                            _mm256_maddubs_epi16(odd, _mm256_loadu_si256((const __m256i *)(digits + 32))));
}

static inline __attribute__((always_inline)) void gemv_codes(const enum weight_format format, const int group,
                                                             const struct gemv *g, int first_column, int columns)
{
    const struct linear_source *w = g->w;
    const uint8_t *scales = w->scales, *scales_fp8 = w->scales_fp8, *all_zeros = w->zeros, *offsets = w->offsets;
    const int in = w->in_features, groups = in / group, piece = gemv_piece(format, group), pieces = in / piece;
    const float *x_sums = g->x + (size_t)(in / CODES) * BLOCK_FLOATS, *x_scales = x_sums + (size_t)pieces * 8;
    /* NVFP4's bytes are twice the level. */
    const float factor = format == WEIGHT_NVFP4 ? 0.5f * w->tensor_scale : 1.0f;
    const __m256i nibble = _mm256_set1_epi8(15), one = _mm256_set1_epi16(1), byte = _mm256_set1_epi16(256);
    const __m256i table = _mm256_broadcastsi128_si256(nvfp4_bytes());
    int lanes[LANES];
    lanes_of_groups(group, lanes);
    const __m256i spread = _mm256_loadu_si256((const __m256i *)lanes);

    for (int column = first_column; column < first_column + columns; column++) {
        const uint8_t *data = (const uint8_t *)w->data + (size_t)column * (size_t)in / 2;
        __m256 total = _mm256_setzero_ps();
        for (int p = 0; p < pieces; p++) {
            __m256i sum[DIGITS];
#pragma GCC unroll 2
            for (int block = 0; block < piece / CODES; block++) {
                int number = p * (piece / CODES) + block;
                const int8_t *digits = (const int8_t *)(g->x + number * BLOCK_FLOATS);
                if (block == 0) /* where the digits fill the L1 cache the processor does not fetch far enough ahead */
                    _mm_prefetch(data + number * (CODES / 2) + FETCH_AHEAD, _MM_HINT_T1);
                __m256i codes = _mm256_loadu_si256((const __m256i *)(data + number * (CODES / 2)));
                __m256i even = _mm256_and_si256(codes, nibble);
                __m256i odd = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
                if (format == WEIGHT_NVFP4) {
                    even = _mm256_shuffle_epi8(table, even);
                    odd = _mm256_shuffle_epi8(table, odd);
                }
#pragma GCC unroll 3
                for (int d = 0; d < DIGITS; d++) {
                    __m256i product = multiply_codes(even, odd, digits + 64 * d);
                    sum[d] = block ? _mm256_add_epi16(sum[d], product) : product;
                }
            }
            size_t first = (size_t)column * (size_t)groups + (size_t)(p * piece / group);
            __m256 scale = piece_scales(scales, scales_fp8, first, group, spread);
            __m256 zero = format == WEIGHT_NVFP4      ? _mm256_set1_ps(NVFP4_ZERO)
                          : format == WEIGHT_MLX_INT4 ? piece_scales(offsets, NULL, first, group, spread)
                                                      : piece_zeros(all_zeros, first, group, spread);
            __m256i low = _mm256_add_epi32(_mm256_madd_epi16(sum[0], one), _mm256_madd_epi16(sum[1], byte));
            __m256i high = _mm256_slli_epi32(_mm256_madd_epi16(sum[2], one), 16);
            __m256 value = _mm256_cvtepi32_ps(_mm256_add_epi32(low, high));
            __m256 sums = _mm256_loadu_ps(x_sums + 8 * (size_t)p), x_scale = _mm256_broadcast_ss(x_scales + p);
            if (format == WEIGHT_MLX_INT4) {
                value = _mm256_fmadd_ps(zero, sums, _mm256_mul_ps(scale, value));
            } else {
                value = _mm256_fnmadd_ps(zero, sums, value);
                x_scale = _mm256_mul_ps(scale, x_scale);
            }
            total = _mm256_fmadd_ps(x_scale, value, total);
        }
        gemv_store(g, column, factor * v_sum((vec)total));
    }
}

/* Float32 and bf16 weights, 16 columns at a time; a pair of bf16 columns is one 32-bit lane. */
static inline __attribute__((always_inline)) void gemv_wide(const enum weight_format format, const struct gemv *g,
                                                            int first_column, int columns)
{
    const int in = g->w->in_features, whole = in / PAIRS * PAIRS;
    const size_t size = format == WEIGHT_F32 ? 4 : 2;
    const __m256i high = _mm256_set1_epi32((int)0xffff0000u);
    for (int column = first_column; column < first_column + columns; column++) {
        const char *data = (const char *)g->w->data + (size_t)column * (size_t)in * size;
        __m256 even = _mm256_setzero_ps(), odd = even;
        for (int k = 0; k < whole; k += PAIRS) {
            __m256i first = _mm256_loadu_si256((const __m256i *)(data + (size_t)k * size)), second;
            if (format == WEIGHT_F32) {
                second = _mm256_loadu_si256((const __m256i *)(data + (size_t)k * size + 32));
            } else {
                second = _mm256_and_si256(first, high);
                first = _mm256_slli_epi32(first, 16);
            }
            even = _mm256_fmadd_ps(_mm256_castsi256_ps(first), _mm256_loadu_ps(g->x + k), even);
            odd = _mm256_fmadd_ps(_mm256_castsi256_ps(second), _mm256_loadu_ps(g->x + k + 8), odd);
        }
        float value = v_sum((vec)_mm256_add_ps(even, odd));
        for (int k = whole; k < in; k++)
            value += element_at(format, data, (size_t)k) * g->x[k];
        gemv_store(g, column, value);
    }
}

/* One function for each kind of weights, with the commonest group sizes as constants. They are kept apart from each
 * other: inlined into one, they would spill the registers that they are all about. */
enum gemv_kind {
    KIND_F32, KIND_BF16, KIND_AWQ_128, KIND_AWQ_64, KIND_AWQ, KIND_MLX_128, KIND_MLX, KIND_NVFP4_16, KIND_NVFP4,
        KIND_COUNT
};

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
GEMV_FUNCTION(mlx_128, gemv_codes(WEIGHT_MLX_INT4, 128, g, first, columns))
GEMV_FUNCTION(mlx, gemv_codes(WEIGHT_MLX_INT4, g->w->group_size, g, first, columns))
GEMV_FUNCTION(nvfp4_16, gemv_codes(WEIGHT_NVFP4, 16, g, first, columns))
GEMV_FUNCTION(nvfp4, gemv_codes(WEIGHT_NVFP4, g->w->group_size, g, first, columns))

static enum gemv_kind gemv_kind_of(const struct linear_source *w)
{
    int group = w->group_size;
    switch (w->format) {
    case WEIGHT_F32: return KIND_F32;
    case WEIGHT_BF16: return KIND_BF16;
    case WEIGHT_AWQ_INT4: return group == 128 ? KIND_AWQ_128 : group == 64 ? KIND_AWQ_64 : KIND_AWQ;
    case WEIGHT_MLX_INT4: return group == 128 ? KIND_MLX_128 : KIND_MLX;
    default: break;
    }
    return group == 16 ? KIND_NVFP4_16 : KIND_NVFP4;
}

static void avx2_gemv(const struct gemv *g, int first_column, int columns)
{
    static void (*const functions[KIND_COUNT])(const struct gemv *g, int first, int columns) = {
        gemv_f32, gemv_bf16, gemv_awq_128, gemv_awq_64, gemv_awq, gemv_mlx_128, gemv_mlx, gemv_nvfp4_16, gemv_nvfp4};
    if (weight_is_quantised(g->w->format) && !gemv_of_codes(g->w))
        body_gemv(g, first_column, columns);
    else
        functions[gemv_kind_of(g->w)](g, first_column, columns);
}

const struct micro *micro_avx2(void)
{
    static const struct micro micro = {
        .name = "cpu-avx2",
        .tile_rows = ROWS,
        .tile_panels = 1,
        .tile = avx2_tile,
        .pack = avx2_pack,
        .decode_panel = avx2_decode_panel,
        .multiply_codes = avx2_multiply_codes,
        .gemv_prepared_floats = row_floats,
        .gemv_prepare = row_prepare,
        .gemv = avx2_gemv,
        BODY_LOOPS,
    };
    unsigned a, b, c = 0, d;
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C; /* clang 14 has no builtin question for it */
    return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &micro : NULL;
}

#else

const struct micro *micro_avx2(void)
{
    return NULL;
}

#endif
