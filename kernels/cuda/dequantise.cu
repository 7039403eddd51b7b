/* dequantise.cu: rows of a quantised matrix as bf16, for products of many rows.
 *
 * A warp decodes one tile of 16 rows and 64 columns, a lane two pieces of four columns in each of its four words:
 * together the four lanes of a row fill whole 32-byte sectors. Of a matrix of bytes a thread decodes sixteen. */
#include "kernels/cuda/four_bit.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_parts.cuh"
#include "kernels/cuda/mma.cuh"

namespace {

enum { WARPS = 8 };

template <enum matrix_layout LAYOUT>
__global__ void __launch_bounds__(WARPS * 32)
    dequantise_kernel(struct matrix w, int first_tile, bf16 *to)
{
    int lane = (int)threadIdx.x % 32, tiles = w.columns / TILE_COLUMNS, groups = groups_per_tile(w);
    int row_tile = (int)blockIdx.x, column_tile = (int)blockIdx.y * WARPS + (int)threadIdx.x / 32;
    if (column_tile >= tiles)
        return;
    uint4 codes =
        load_once(w.codes + ((size_t)(first_tile + row_tile) * (size_t)tiles + (size_t)column_tile) * 32 + lane);
    const uint32_t word[4] = {codes.x, codes.y, codes.z, codes.w};
    size_t pairs = pair_index(w, first_tile + row_tile, column_tile, lane / 4, 0);
    bf16 *low_row = to + (size_t)(row_tile * TILE_ROWS + lane / 4) * (size_t)w.columns + column_tile * TILE_COLUMNS +
                    lane % 4 * 4;
#pragma unroll
    for (int step = 0; step < 4; step++) {
        int group = step * groups / 4;
        uint32_t scales = w.scales[pairs + (size_t)group];
        uint32_t seconds = LAYOUT == MATRIX_NVFP4 ? 0 : w.seconds[pairs + (size_t)group];
#pragma unroll
        for (int high = 0; high < 2; high++) {
            float scale = (high ? high_float(scales) : low_float(scales)) * w.tensor_scale;
            float second = high ? high_float(seconds) : low_float(seconds);
            uint32_t zeros = high ? both_high(seconds) : both_low(seconds);
            uint32_t value[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float2 number = unpack_act2(as_bits(numbers_of<LAYOUT>(word[step] >> (4 * (2 * i + high)), zeros)));
                value[i] = LAYOUT == MATRIX_MLX
                               ? pack_act2(fmaf(number.x, scale, second), fmaf(number.y, scale, second))
                               : pack_act2(number.x * scale, number.y * scale);
            }
            *(uint2 *)(low_row + 8 * (size_t)high * (size_t)w.columns + 16 * step) = make_uint2(value[0], value[1]);
        }
    }
}

__global__ void __launch_bounds__(WARPS * 32) bytes_kernel(struct matrix w, int first, int rows, bf16 *to)
{
    size_t index = (size_t)blockIdx.x * WARPS * 32 + threadIdx.x, loads = (size_t)w.columns / BYTES_GROUP;
    int row = (int)(index / loads), column = (int)(index % loads) * BYTES_GROUP;
    if (row >= rows)
        return;
    uint4 codes = load_once(w.codes + ((size_t)first + (size_t)row) * loads + index % loads);
    const uint32_t word[4] = {codes.x, codes.y, codes.z, codes.w};
    float2 pair = byte_pair(w, first + row, column);
    uint4 *out = (uint4 *)(to + (size_t)row * (size_t)w.columns + column);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t two[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            two[i] = two_bytes(word[2 * half + i / 2] >> (16 * (i % 2)), pair);
        out[half] = make_uint4(two[0], two[1], two[2], two[3]);
    }
}

} // namespace

void dequantise(struct cuda_state *state, cudaStream_t stream, const struct matrix *w, int first, int rows, bf16 *to)
{
    int row_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    dim3 blocks((unsigned)row_tiles, cuda_pieces((size_t)(w->columns / TILE_COLUMNS), WARPS)), threads(WARPS * 32);
    int first_tile = first / TILE_ROWS;
    switch (w->layout) {
    case MATRIX_AWQ:
        LAUNCH_ON(stream, dequantise_kernel<MATRIX_AWQ>, blocks, threads, 0, state, *w, first_tile, to);
        break;
    case MATRIX_MLX:
        LAUNCH_ON(stream, dequantise_kernel<MATRIX_MLX>, blocks, threads, 0, state, *w, first_tile, to);
        break;
    case MATRIX_NVFP4:
        LAUNCH_ON(stream, dequantise_kernel<MATRIX_NVFP4>, blocks, threads, 0, state, *w, first_tile, to);
        break;
    case MATRIX_BYTES: {
        int padded = row_tiles * TILE_ROWS;
        size_t loads = (size_t)padded * (size_t)(w->columns / BYTES_GROUP);
        LAUNCH_ON(stream, bytes_kernel, dim3(cuda_pieces(loads, WARPS * 32)), threads, 0, state, *w, first, padded, to);
        break;
    }
    case MATRIX_BF16:
        break;
    }
}
