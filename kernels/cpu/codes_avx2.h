/* codes_avx2.h: 4-bit weights as float32, eight rows of a matrix at a time, one in each lane; for micro_avx2.c and
 * few_rows_avx2.c, which are compiled with AVX2, FMA and F16C.
 *
 * A code is worth one multiply-add: code * scale + second, where the second number of AWQ is -zero * scale. That gives
 * the bytes of (code - zero) * scale: scales are bf16, so that every product here has less than 24 bits, and nothing is
 * rounded before the end. */
#ifndef LANCE_CPU_CODES_AVX2_H
#define LANCE_CPU_CODES_AVX2_H

#include <immintrin.h>

#include "kernels/formats/linear_source.h"

enum { CODES_AT_ONCE = 64 }; /* columns */

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

/* 32 bytes each of eight rows: lane j of v[d] holds bytes 4d .. 4d+3 of row j. What is `next` bytes on, in the rows of
 * the next panel, is fetched meanwhile. */
static inline __attribute__((always_inline)) void load_codes(const uint8_t *const row[8], size_t byte, size_t next,
                                                             __m256i v[8])
{
    __m256 f[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        _mm_prefetch(row[j] + byte + next, _MM_HINT_T0);
        f[j] = _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(row[j] + byte)));
    }
    transpose8(f);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        v[j] = _mm256_castps_si256(f[j]);
}

/* What the codes of a group are multiplied by, and what is added then: for eight rows. */
struct group_lanes {
    __m256 scale, second;
};

static inline __attribute__((always_inline)) __m256 bf16_lanes(const void *numbers, size_t group, size_t groups,
                                                              int count)
{
    uint16_t bits[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        memcpy(&bits[j], (const uint8_t *)numbers + 2 * (group + (size_t)(j < count ? j : 0) * groups), 2);
    const __m128i all = _mm_setr_epi16((short)bits[0], (short)bits[1], (short)bits[2], (short)bits[3], (short)bits[4],
                                       (short)bits[5], (short)bits[6], (short)bits[7]);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(all), 16));
}

static inline __attribute__((always_inline)) __m128i byte_lanes(const uint8_t *numbers, size_t group, size_t groups,
                                                               int count)
{
    uint8_t b[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        b[j] = numbers[group + (size_t)(j < count ? j : 0) * groups];
    return _mm_setr_epi8((char)b[0], (char)b[1], (char)b[2], (char)b[3], (char)b[4], (char)b[5], (char)b[6], (char)b[7],
                         0, 0, 0, 0, 0, 0, 0, 0);
}

/* Eight numbers of E4M3, which moved into a half has an exponent that is 8 too small. */
static inline __attribute__((always_inline)) __m256 e4m3_lanes(__m128i bytes)
{
    const __m128i half = _mm_cvtepu8_epi16(bytes);
    const __m128i magnitude = _mm_slli_epi16(_mm_and_si128(half, _mm_set1_epi16(0x7f)), 7);
    const __m128i sign = _mm_slli_epi16(_mm_and_si128(half, _mm_set1_epi16(0x80)), 8);
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(magnitude, sign)), _mm256_set1_ps(256.0f));
}

/* Of `count` rows, the others' being those of the first. `group` is the first row's, counted through the matrix;
 * `groups` are a row's. */
static inline __attribute__((always_inline)) struct group_lanes group_lanes(const enum weight_format format,
                                                                           const struct linear_source *w, size_t group,
                                                                           size_t groups, int count)
{
    struct group_lanes g = {.second = _mm256_setzero_ps()};
    if (format == WEIGHT_NVFP4) {
        g.scale = w->scales ? bf16_lanes(w->scales, group, groups, count)
                            : e4m3_lanes(byte_lanes(w->scales_fp8, group, groups, count));
        g.scale = _mm256_mul_ps(g.scale, _mm256_set1_ps(w->tensor_scale));
        return g;
    }
    g.scale = bf16_lanes(w->scales, group, groups, count);
    if (format == WEIGHT_MLX_INT4) {
        g.second = bf16_lanes(w->offsets, group, groups, count);
    } else {
        const __m256 zero = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(byte_lanes(w->zeros, group, groups, count)));
        g.second = _mm256_sub_ps(_mm256_setzero_ps(), _mm256_mul_ps(zero, g.scale));
    }
    return g;
}

/* Code i of the eight in each lane. NVFP4's `levels` are those without a sign. */
static inline __attribute__((always_inline)) __m256 code_lanes(const enum weight_format format, __m256i codes,
                                                              const int i, __m256 scale, __m256 second, __m256 levels)
{
    const __m256i low = i ? _mm256_srli_epi32(codes, 4 * i) : codes;
    if (format != WEIGHT_NVFP4)
        return _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_and_si256(low, _mm256_set1_epi32(15))), scale, second);
    /* The permutation looks at the low three bits of its index only. */
    const __m256i minus =
        _mm256_and_si256(_mm256_slli_epi32(codes, 28 - 4 * i), _mm256_set1_epi32((int)0x80000000u));
    return _mm256_mul_ps(_mm256_xor_ps(_mm256_permutevar8x32_ps(levels, low), _mm256_castsi256_ps(minus)), scale);
}

#endif
