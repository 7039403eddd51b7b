/* pack.cu: from a matrix as the checkpoint stores it to the layouts of matrix.cuh; once, when it is opened. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_parts.cuh"
#include "kernels/formats/group.h"

#include <string.h>

namespace {

enum { THREADS = 256, SIGN_BIT = 128 };

/* Exact in bf16, even where an FP8 scale is subnormal. */
__device__ inline float scale_of(const struct raw_rows &raw, size_t group)
{
    return raw.scales ? load_act(&raw.scales[group]) : e4m3_to_float(raw.scales_fp8[group]);
}

/* Zero or offset of a group; `bias` is added to an AWQ zero. */
__device__ inline float second_of(const struct raw_rows &raw, size_t group, float bias)
{
    return raw.zeros ? (float)raw.zeros[group] + bias : raw.offsets ? load_act(&raw.offsets[group]) : 0.0f;
}

/* Words of codes of whole row tiles. */
__global__ void __launch_bounds__(THREADS) pack_codes(struct raw_rows raw, struct matrix w)
{
    int tiles = w.columns / TILE_COLUMNS;
    size_t index = (size_t)blockIdx.x * THREADS + threadIdx.x;
    size_t word = index % 4, lane = index / 4 % 32, tile = index / 128;
    int row_tile = (int)(tile / (size_t)tiles), column_tile = (int)(tile % (size_t)tiles);
    if (row_tile * TILE_ROWS >= raw.rows)
        return;
    uint32_t packed = 0;
    for (int i = 0; i < 4; i++) {
        int row = row_tile * TILE_ROWS + (int)lane / 4 + 8 * (i % 2);
        int column = column_tile * TILE_COLUMNS + 16 * (int)word + 4 * ((int)lane % 4) + 2 * (i / 2);
        if (row >= raw.rows || column >= raw.in_features)
            continue;
        uint32_t two = raw.data[((size_t)row * (size_t)raw.in_features + (size_t)column) / 2];
        packed |= (two & 15) << (4 * i) | (two >> 4) << (4 * i + 16);
    }
    uint32_t *words = (uint32_t *)(w.codes + (size_t)(raw.first / TILE_ROWS) * (size_t)tiles * 32);
    words[index] = packed;
}

/* Pairs of scales, and of zeros or offsets, of whole row tiles. */
__global__ void __launch_bounds__(THREADS) pack_groups(struct raw_rows raw, struct matrix w)
{
    size_t index = (size_t)blockIdx.x * THREADS + threadIdx.x;
    size_t of_tile = (size_t)groups_per_tile(w), groups = (size_t)(raw.in_features / raw.group_size);
    size_t g = index / of_tile % 8, span = index / of_tile / 8 % (size_t)spans(w);
    size_t group = span * of_tile + index % of_tile;
    int row = (int)(index / of_tile / 8 / (size_t)spans(w)) * TILE_ROWS + (int)g;
    if (row >= raw.rows || group >= groups)
        return;
    size_t low = (size_t)row * groups + group, high = low + 8 * groups;
    bool two = row + 8 < raw.rows;
    size_t to = (size_t)(raw.first / TILE_ROWS) * (size_t)spans(w) * 8 * of_tile + index;
    w.scales[to] = pack_act2(scale_of(raw, low), two ? scale_of(raw, high) : 0.0f);
    if (w.seconds)
        w.seconds[to] = pack_act2(second_of(raw, low, AWQ_BIAS), two ? second_of(raw, high, AWQ_BIAS) : 0.0f);
}

/* Scale and offset of a group of bytes: code * scale + offset, both exact as float32. */
__device__ inline float2 byte_pair_of(const struct raw_rows &raw, size_t group)
{
    float scale = scale_of(raw, group);
    float offset = raw.format == WEIGHT_INT8    ? -(float)SIGN_BIT * scale
                   : raw.format == WEIGHT_AWQ_INT8 ? -(float)raw.zeros[group] * scale
                                                   : load_act(&raw.offsets[group]);
    return make_float2(scale, offset);
}

/* A byte's code from 0 on; INT8's have a sign. */
__device__ inline uint8_t byte_code(const struct raw_rows &raw, size_t index)
{
    return raw.format == WEIGHT_INT8 ? raw.data[index] ^ SIGN_BIT : raw.data[index];
}

/* Codes of bytes, and with each group's first its pair. */
__global__ void __launch_bounds__(THREADS) pack_bytes(struct raw_rows raw, struct matrix w)
{
    size_t index = (size_t)blockIdx.x * THREADS + threadIdx.x;
    size_t row = index / (size_t)raw.in_features, column = index % (size_t)raw.in_features;
    if (row >= (size_t)raw.rows)
        return;
    size_t group_size = (size_t)raw.group_size, groups = (size_t)raw.in_features / group_size;
    size_t to = (size_t)raw.first + row;
    ((uint8_t *)w.codes)[to * (size_t)w.columns + column] = byte_code(raw, index);
    if (column % group_size == 0)
        w.pairs[to * groups + column / group_size] = byte_pair_of(raw, row * groups + column / group_size);
}

__device__ inline float raw_value(const struct raw_rows &raw, size_t index)
{
    if (raw.format == WEIGHT_F32)
        return ((const float *)raw.data)[index];
    if (raw.format == WEIGHT_BF16)
        return load_act((const bf16 *)raw.data + index);
    size_t group = index / (size_t)raw.group_size;
    if (raw.has_byte_codes) {
        float2 pair = byte_pair_of(raw, group);
        return fmaf((float)byte_code(raw, index), pair.x, pair.y);
    }
    uint32_t code = code_at(raw.data, index);
    float scale = scale_of(raw, group), second = second_of(raw, group, AWQ_BIAS);
    return raw.format == WEIGHT_AWQ_INT4   ? value_of(MATRIX_AWQ, code, scale, second)
           : raw.format == WEIGHT_MLX_INT4 ? value_of(MATRIX_MLX, code, scale, second)
                                           : value_of(MATRIX_NVFP4, code, scale, second) * raw.tensor_scale;
}

__global__ void __launch_bounds__(THREADS) pack_values(struct raw_rows raw, struct matrix w)
{
    size_t index = (size_t)blockIdx.x * THREADS + threadIdx.x;
    size_t row = index / (size_t)raw.in_features, column = index % (size_t)raw.in_features;
    if (row < (size_t)raw.rows)
        store_act(w.values + ((size_t)raw.first + row) * (size_t)w.columns + column, raw_value(raw, index));
}

} // namespace

void pack_rows(struct cuda_state *state, const struct raw_rows *raw, const struct matrix *w)
{
    size_t values = (size_t)raw->rows * (size_t)raw->in_features;
    if (w->layout == MATRIX_BF16) {
        LAUNCH(pack_values, dim3(cuda_pieces(values, THREADS)), dim3(THREADS), 0, state, *raw, *w);
        return;
    }
    if (w->layout == MATRIX_BYTES) {
        LAUNCH(pack_bytes, dim3(cuda_pieces(values, THREADS)), dim3(THREADS), 0, state, *raw, *w);
        return;
    }
    size_t row_tiles = ((size_t)raw->rows + TILE_ROWS - 1) / TILE_ROWS;
    size_t words = row_tiles * (size_t)(w->columns / TILE_COLUMNS) * 128;
    size_t pairs = row_tiles * (size_t)spans(*w) * 8 * (size_t)groups_per_tile(*w);
    LAUNCH(pack_codes, dim3(cuda_pieces(words, THREADS)), dim3(THREADS), 0, state, *raw, *w);
    LAUNCH(pack_groups, dim3(cuda_pieces(pairs, THREADS)), dim3(THREADS), 0, state, *raw, *w);
}
