/* matrix.cuh: how a matrix lies in device memory, for the kernels that read one.
 *
 * linear.cu repacks a checkpoint's matrix once, when it is opened. There are three layouts.
 *
 * BF16 (also float32 matrices, which are rounded, and quantised ones whose groups or zeros do not fit those below):
 *   row-major [out_features rounded up to 16, columns], with zeros around [out_features, in_features].
 *
 * 4-bit: tiles of 16 rows and 64 columns, [row tile][column tile], each of 32 x 16 bytes, so that a warp reads a
 * tile with one 16-byte load per lane and finds in its registers what m16n8k16 wants of the left factor. Word j of
 * lane 4*g + t holds the columns 16j + 4t .. 16j + 4t + 3 of the tile (the order of the summed dimension is free as
 * long as both factors follow it):
 *   nibbles 0, 4   row g,     columns +0, +1         nibbles 2, 6   row g,     columns +2, +3
 *   nibbles 1, 5   row g + 8, columns +0, +1         nibbles 3, 7   row g + 8, columns +2, +3
 * so that (word >> 4 i) & 0x000f000f is the pair for a[i] (see mma.cuh).
 * Scales, and zeros or offsets, are bf16 pairs (row g low, row g + 8 high): [row tile][span][g][group of the tile],
 * where a span is what has its own set of groups: a tile, or, when groups are wider than a tile, a group.
 *
 * Bytes: row-major [out_features rounded up to 16, columns], with zeros around, each code * scale + offset of its group
 * whatever the checkpoint's own way to say that: float32 pairs [out_features rounded up to 16][group]. Groups are of a
 * multiple of 16 columns, so that the 16 codes of a load have one. */
#ifndef LANCE_CUDA_MATRIX_CUH
#define LANCE_CUDA_MATRIX_CUH

#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/act.cuh"

enum matrix_layout { MATRIX_BF16, MATRIX_AWQ, MATRIX_MLX, MATRIX_NVFP4, MATRIX_BYTES };

enum { TILE_ROWS = 16, TILE_COLUMNS = 64, AWQ_BIAS = 128, NVFP4_GROUP = 16, BYTES_GROUP = 16 };

/* Everything points into device memory; a plain value, passed to kernels. */
struct matrix {
    enum matrix_layout layout;
    int out_features, in_features;
    int columns;                 /* in_features rounded up: to 32 (BF16) or 64 (4-bit, bytes) */
    int group_size;              /* 4-bit: 16, 32 or a multiple of 64, of NVFP4 NVFP4_GROUP; bytes: a multiple of 16 */
    bf16 *values;
    uint4 *codes;          /* 4-bit: tiles; bytes: rows */
    uint32_t *scales;
    uint32_t *seconds;     /* AWQ: zeros + AWQ_BIAS; MLX: offsets; NVFP4: NULL */
    float2 *pairs;         /* bytes: scale and offset of each group */
    float tensor_scale;
    float *bias;           /* [out_features] or NULL */
    bf16 *bias_bf16;
};

/* What linear_open makes; embed.cu reads it, too. */
struct linear {
    struct matrix matrix;
    void *memory;
    size_t bytes;
};

/* Groups within a column tile, 1 when they are wider. */
__host__ __device__ inline int groups_per_tile(const struct matrix &w)
{
    return w.group_size < TILE_COLUMNS ? TILE_COLUMNS / w.group_size : 1;
}

/* Spans of one row tile, and the span that a column tile belongs to. */
__host__ __device__ inline int span_of(const struct matrix &w, int column_tile)
{
    return w.group_size > TILE_COLUMNS ? column_tile / (w.group_size / TILE_COLUMNS) : column_tile;
}
__host__ __device__ inline int spans(const struct matrix &w)
{
    return span_of(w, w.columns / TILE_COLUMNS - 1) + 1;
}

/* A tile's number times this, 2^32nds of it, is the tile's span (span_of) without dividing; right for all tiles of a
 * 4-bit matrix of fewer than 2^22 columns. 0: the tile is its own span. */
__host__ __device__ inline uint32_t span_factor(const struct matrix &w)
{
    uint32_t tiles_per_span = (uint32_t)w.group_size / TILE_COLUMNS;
    return tiles_per_span > 1 ? (uint32_t)(((UINT64_C(1) << 32) - 1) / tiles_per_span) + 1 : 0;
}
__device__ inline int span_by(uint32_t factor, int column_tile)
{
    return factor ? (int)((uint64_t)column_tile * factor >> 32) : column_tile;
}

/* Index of a group's pair of rows in `scales` and `seconds`. */
__device__ inline size_t pair_index(const struct matrix &w, int row_tile, int column_tile, int g, int group_of_tile)
{
    return (((size_t)row_tile * (size_t)spans(w) + (size_t)span_of(w, column_tile)) * 8 + (size_t)g) *
               (size_t)groups_per_tile(w) +
           (size_t)group_of_tile;
}

/* The halves of a pair of bf16. */
__device__ inline float low_float(uint32_t pair)
{
    return unpack_act2(pair).x;
}
__device__ inline float high_float(uint32_t pair)
{
    return unpack_act2(pair).y;
}

/* Value of a 4-bit E2M1 number: sign, two bits of exponent, one of mantissa. */
__device__ inline float level_of(uint32_t code)
{
    uint32_t magnitude = code & 7;
    float level = magnitude < 2 ? 0.5f * (float)magnitude
                                : (float)(2 + (magnitude & 1)) * (float)(1 << (magnitude >> 1)) * 0.25f;
    return code & 8 ? -level : level;
}

/* One weight from its code, before the per-tensor scale. `scale` and `second` are those of its group and row. */
__device__ inline float value_of(enum matrix_layout layout, uint32_t code, float scale, float second)
{
    switch (layout) {
    case MATRIX_AWQ:
        return ((float)code + AWQ_BIAS - second) * scale;
    case MATRIX_MLX:
        return fmaf((float)code, scale, second);
    default:
        return level_of(code) * scale;
    }
}

/* Scale and offset of the group of one place in a matrix of bytes; zeros past the last column. */
__device__ inline float2 byte_pair(const struct matrix &w, int row, int column)
{
    return column < w.in_features ? w.pairs[((size_t)row * (size_t)w.in_features + (size_t)column) / w.group_size]
                                  : make_float2(0.0f, 0.0f);
}

/* Any single weight; for embedding rows. */
__device__ inline float weight_at(const struct matrix &w, int row, int column)
{
    if (w.layout == MATRIX_BF16)
        return load_act(&w.values[(size_t)row * (size_t)w.columns + (size_t)column]);
    if (w.layout == MATRIX_BYTES) {
        float2 pair = byte_pair(w, row, column);
        uint8_t code = ((const uint8_t *)w.codes)[(size_t)row * (size_t)w.columns + (size_t)column];
        return fmaf((float)code, pair.x, pair.y);
    }
    int row_tile = row / TILE_ROWS, column_tile = column / TILE_COLUMNS, g = row % 8, high = row % TILE_ROWS / 8;
    int step = column % TILE_COLUMNS / 16, t = column % 16 / 4, within = column % 4;
    const uint32_t *words =
        (const uint32_t *)(w.codes +
                           ((size_t)row_tile * (size_t)(w.columns / TILE_COLUMNS) + (size_t)column_tile) * 32 + 4 * g +
                           t);
    uint32_t code = words[step] >> (4 * (within / 2 * 2 + high + 4 * (within % 2))) & 15;
    size_t at =
        pair_index(w, row_tile, column_tile, g, groups_per_tile(w) > 1 ? column % TILE_COLUMNS / w.group_size : 0);
    float scale = high ? high_float(w.scales[at]) : low_float(w.scales[at]);
    float second = !w.seconds ? 0.0f : high ? high_float(w.seconds[at]) : low_float(w.seconds[at]);
    return value_of(w.layout, code, scale, second) * w.tensor_scale;
}

#endif
