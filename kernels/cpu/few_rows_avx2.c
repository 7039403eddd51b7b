/* few_rows_avx2.c: products of a few rows with 4-bit weights, decoded in registers between the multiply-adds; see
 * multiply_codes in micro.h.
 *
 * For up to six rows a panel in memory costs more than the sums: here each 16 columns' weights of one depth are made by
 * two multiply-adds and used at once. The sums are those of avx2_tile, in its order.
 *
 * AWQ's and MLX's codes are not shifted down one by one: each is taken where it lies, 0, 4, 8 or 12 bits up in a half
 * of its lane, and multiplied by a scale that is so much smaller. That is exact: bf16's last binary place is the 133rd,
 * float32's the 149th. */
#include "kernels/cpu/micro.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "kernels/cpu/codes_avx2.h"
#include "kernels/cpu/few_rows_avx2.h"

struct few_rows {
    const struct linear_source *w;
    int column, first, depth;
    const float *strip; /* [depth][rows] */
    float *c;
    size_t c_row;
};

enum { PLACES = 4 }; /* of codes in half a lane */

/* What codes at each place are multiplied by, and what is added then (NVFP4's are shifted, so have one place). */
struct place_lanes {
    __m256 scale[PLACES], second;
};

/* Kept apart from the loop over the depths, whose sums need the registers. */
static __attribute__((noinline)) struct place_lanes place_lanes(const enum weight_format format,
                                                                const struct linear_source *w, size_t group,
                                                                size_t groups)
{
    const struct group_lanes g = format == WEIGHT_AWQ_INT4   ? group_lanes(WEIGHT_AWQ_INT4, w, group, groups, 8)
                                 : format == WEIGHT_MLX_INT4 ? group_lanes(WEIGHT_MLX_INT4, w, group, groups, 8)
                                                             : group_lanes(WEIGHT_NVFP4, w, group, groups, 8);
    struct place_lanes p = {.scale = {g.scale}, .second = g.second};
#pragma GCC unroll 3
    for (int place = 1; place < PLACES; place++)
        p.scale[place] = _mm256_mul_ps(p.scale[place - 1], _mm256_set1_ps(0.0625f));
    return p;
}

/* Code i of the eight in each lane, as a weight. */
static inline __attribute__((always_inline)) __m256 weight_lanes(const enum weight_format format, __m256i codes,
                                                                const int i, const struct place_lanes *p,
                                                                __m256 levels)
{
    if (format == WEIGHT_NVFP4)
        return code_lanes(format, codes, i, p->scale[0], p->second, levels);
    const __m256i half = i < PLACES ? codes : _mm256_srli_epi32(codes, 16);
    const __m256i code = _mm256_and_si256(half, _mm256_set1_epi32(15 << 4 * (i % PLACES)));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(code), p->scale[i % PLACES], p->second);
}

/* Eight depths, of which v[half] has the codes. */
static inline __attribute__((always_inline)) void eight_depths(const enum weight_format format, const int rows,
                                                               const __m256i v[2], const struct place_lanes g[2],
                                                               const float *strip, __m256 levels, __m256 sum[6][2])
{
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++, strip += rows) {
        const __m256 left = weight_lanes(format, v[0], i, &g[0], levels);
        const __m256 right = weight_lanes(format, v[1], i, &g[1], levels);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            const __m256 value = _mm256_broadcast_ss(strip + r);
            sum[r][0] = _mm256_fmadd_ps(value, left, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(value, right, sum[r][1]);
        }
    }
}

static inline __attribute__((always_inline)) void multiply(const enum weight_format format, const int rows,
                                                           const struct few_rows *f)
{
    const struct linear_source *w = f->w;
    const size_t row_bytes = (size_t)w->in_features / 2, groups = (size_t)(w->in_features / w->group_size);
    const uint8_t *codes[TILE_COLUMNS];
    for (int j = 0; j < TILE_COLUMNS; j++)
        codes[j] = (const uint8_t *)w->data + (size_t)(f->column + j) * row_bytes + (size_t)f->first / 2;
    const __m256 levels = _mm256_loadu_ps(fp4_levels());
    const float *strip = f->strip;
    struct place_lanes g[2];
    int in_group = 0; /* columns of the group that are left */
    __m256 sum[6][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        sum[r][0] = sum[r][1] = _mm256_setzero_ps();
        _mm_prefetch(f->c + (size_t)r * f->c_row, _MM_HINT_T0); /* rows of c may be pages apart */
        _mm_prefetch(f->c + (size_t)r * f->c_row + 15, _MM_HINT_T0);
    }
    for (int k = 0; k < f->depth; k += CODES_AT_ONCE) {
        __m256i v[2][8];
        load_codes(codes, (size_t)k / 2, TILE_COLUMNS * row_bytes, v[0]);
        load_codes(codes + 8, (size_t)k / 2, TILE_COLUMNS * row_bytes, v[1]);
        for (int d = 0; d < 8; d++, strip += 8 * rows, in_group -= 8) {
            if (in_group == 0) {
                const int at = f->first + k + 8 * d;
                const size_t group = (size_t)f->column * groups + (size_t)(at / w->group_size);
                g[0] = place_lanes(format, w, group, groups);
                g[1] = place_lanes(format, w, group + 8 * groups, groups);
                in_group = w->group_size - at % w->group_size;
            }
            eight_depths(format, rows, (const __m256i[]){v[0][d], v[1][d]}, g, strip, levels, sum);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        float *c = f->c + (size_t)r * f->c_row;
        _mm256_storeu_ps(c, _mm256_add_ps(sum[r][0], _mm256_loadu_ps(c)));
        _mm256_storeu_ps(c + 8, _mm256_add_ps(sum[r][1], _mm256_loadu_ps(c + 8)));
    }
}

/* One function for each number of rows, so that the sums stay in registers. */
#define FEW_ROWS(name, format, rows)                                                                                   \
    static __attribute__((noinline)) void name##_##rows(const struct few_rows *f)                                      \
    {                                                                                                                  \
        multiply(format, rows, f);                                                                                     \
    }
#define FEW_ROWS_OF(name, format)                                                                                      \
    FEW_ROWS(name, format, 1)                                                                                          \
    FEW_ROWS(name, format, 2)                                                                                          \
    FEW_ROWS(name, format, 3)                                                                                          \
    FEW_ROWS(name, format, 4)                                                                                          \
    FEW_ROWS(name, format, 5)                                                                                          \
    FEW_ROWS(name, format, 6)
FEW_ROWS_OF(awq, WEIGHT_AWQ_INT4)
FEW_ROWS_OF(mlx, WEIGHT_MLX_INT4)
FEW_ROWS_OF(nvfp4, WEIGHT_NVFP4)

bool avx2_multiply_codes(const struct linear_source *w, int column, int first, int depth, int rows, const float *strip,
                         float *c, size_t c_row)
{
    static void (*const functions[3][6])(const struct few_rows *) = {
        {awq_1, awq_2, awq_3, awq_4, awq_5, awq_6},
        {mlx_1, mlx_2, mlx_3, mlx_4, mlx_5, mlx_6},
        {nvfp4_1, nvfp4_2, nvfp4_3, nvfp4_4, nvfp4_5, nvfp4_6},
    };
    if (!weight_is_four_bit(w->format) || w->group_size % 8 || first % 8 || depth % CODES_AT_ONCE)
        return false;
    const struct few_rows f = {w, column, first, depth, strip, c, c_row};
    functions[w->format == WEIGHT_AWQ_INT4 ? 0 : w->format == WEIGHT_MLX_INT4 ? 1 : 2][rows - 1](&f);
    return true;
}

#endif
