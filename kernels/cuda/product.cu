/* product.cu: a bf16 matrix product on tensor cores, for machines without cuBLASLt (and its oracle where there is one).
 *
 * A block makes one tile of `out`. Slices of both factors, DEPTH deep, pass through STAGES buffers in shared memory,
 * filled by asynchronous copies that run ahead of the arithmetic and lie there as tile_place says. Every element is
 * summed in the order of depth, whatever the tile: the same bytes each time. */
#include "kernels/cuda/product.cuh"

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"

#include <stdio.h>
#include <string.h>

namespace {

enum { DEPTH = TILE_DEPTH, STAGES = 4, SWEEP_ROWS = 8 };

template <int TILE_ROWS, int TILE_COLUMNS> constexpr size_t shared_bytes()
{
    return (size_t)STAGES * (TILE_ROWS + TILE_COLUMNS) * DEPTH * sizeof(bf16);
}

/* Copy a slice [TILE, DEPTH] of a matrix to shared memory, zeros outside of it. VECTOR elements at a time: every row
 * starts aligned to that many, and `depth` is a multiple of it. */
template <int TILE, int THREADS, int VECTOR>
__device__ inline void load_slice(bf16 *shared, const bf16 *matrix, int stride, int first_row, int rows,
                                  int first, int depth)
{
    constexpr int pieces = DEPTH / VECTOR;
    /* all at once, but for single elements, which would take more registers than there are */
#pragma unroll(VECTOR == 1 ? 4 : TILE * pieces / THREADS)
    for (int i = (int)threadIdx.x; i < TILE * pieces; i += THREADS) {
        int row = i / pieces, column = i % pieces * VECTOR;
        bool valid = first_row + row < rows && first + column < depth;
        const bf16 *from = valid ? matrix + (size_t)(first_row + row) * (size_t)stride + first + column : matrix;
        bf16 *to = shared + tile_place(row, column);
        if (VECTOR == 8)
            copy_async_16(to, from, valid);
        else if (VECTOR == 4)
            copy_async_8(to, from, valid);
        else
            *to = valid ? *from : __float2bfloat16_rn(0.0f);
    }
}

/* Where a block's tile begins in `out`. */
struct corner {
    int row, column;
};

/* Blocks that run together share rows and columns: SWEEP_ROWS tiles of rows before the next tile of columns. */
template <int TILE_ROWS, int TILE_COLUMNS>
__device__ __forceinline__ struct corner tile_of_block(int row_tiles, int column_tiles)
{
    int sweep = (int)blockIdx.x / (SWEEP_ROWS * column_tiles), within = (int)blockIdx.x % (SWEEP_ROWS * column_tiles);
    int sweep_rows = row_tiles - sweep * SWEEP_ROWS < SWEEP_ROWS ? row_tiles - sweep * SWEEP_ROWS : SWEEP_ROWS;
    return {(sweep * SWEEP_ROWS + within % sweep_rows) * TILE_ROWS, within / sweep_rows * TILE_COLUMNS};
}

/* sum += left right^T, a warp's part of a slice: left and right point at the first of its rows of each, a multiple of
 * 8. */
template <int ROW_PIECES, int COLUMN_PIECES>
__device__ __forceinline__ void multiply_slice(float (&sum)[ROW_PIECES][COLUMN_PIECES][4], const bf16 *left,
                                               const bf16 *right)
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        uint32_t a[ROW_PIECES][4], b[COLUMN_PIECES][2];
#pragma unroll
        for (int i = 0; i < ROW_PIECES; i++)
            load_matrices(a[i], left + tile_place(16 * i + lane % 16, k + lane / 16 * 8));
#pragma unroll
        for (int j = 0; j < COLUMN_PIECES; j += 2) {
            uint32_t two[4];
            load_matrices(two, right + tile_place(8 * j + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 8));
            b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
        }
#pragma unroll
        for (int i = 0; i < ROW_PIECES; i++)
#pragma unroll
            for (int j = 0; j < COLUMN_PIECES; j++)
                mma_16x8x16(sum[i][j], a[i], b[j]);
    }
}

/* Two neighbouring results of a row, the second only where the row goes on. */
__device__ __forceinline__ void store_two(const struct product &p, bf16 *out, bool in_pairs, bool has_second, float v0,
                                          float v1)
{
    if (in_pairs && has_second) {
        if (p.add) {
            float2 old = load_act2(out);
            v0 += old.x;
            v1 += old.y;
        }
        store_act2(out, v0, v1);
        return;
    }
    store_act(out, p.add ? v0 + load_act(out) : v0);
    if (has_second)
        store_act(out + 1, p.add ? v1 + load_act(out + 1) : v1);
}

/* A warp's sums, with bias and what was there before, go to `out` from `first` on. */
template <int ROW_PIECES, int COLUMN_PIECES>
__device__ __forceinline__ void store_sums(const struct product &p, const float (&sum)[ROW_PIECES][COLUMN_PIECES][4],
                                           struct corner first)
{
    int lane = (int)threadIdx.x % 32;
    bool pairs = p.out_stride % 2 == 0 && (uintptr_t)p.out % 4 == 0;
#pragma unroll
    for (int j = 0; j < COLUMN_PIECES; j++) {
        int column = first.column + 8 * j + lane % 4 * 2;
        float bias0 = p.bias && column < p.columns ? p.bias[column] : 0.0f;
        float bias1 = p.bias && column + 1 < p.columns ? p.bias[column + 1] : 0.0f;
#pragma unroll
        for (int i = 0; i < ROW_PIECES; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int row = first.row + 16 * i + lane / 4 + 8 * half;
                if (row < p.rows && column < p.columns)
                    store_two(p, p.out + (size_t)row * (size_t)p.out_stride + column, pairs, column + 1 < p.columns,
                              sum[i][j][2 * half] + bias0, sum[i][j][2 * half + 1] + bias1);
            }
    }
}

/* A warp's part of a tile is [WARP_ROWS, WARP_COLUMNS]. */
template <int TILE_ROWS, int TILE_COLUMNS, int WARP_ROWS, int WARP_COLUMNS, int VECTOR>
__global__ void __launch_bounds__(TILE_ROWS / WARP_ROWS * (TILE_COLUMNS / WARP_COLUMNS) * 32)
    product_kernel(struct product p, int row_tiles, int column_tiles)
{
    constexpr int warps_across = TILE_COLUMNS / WARP_COLUMNS;
    constexpr int threads = TILE_ROWS / WARP_ROWS * warps_across * 32;
    DYNAMIC_SHARED(bf16, shared);
    bf16 *left = shared, *right = shared + STAGES * TILE_ROWS * DEPTH;

    struct corner tile = tile_of_block<TILE_ROWS, TILE_COLUMNS>(row_tiles, column_tiles);
    int warp = (int)threadIdx.x / 32;
    int warp_row = warp / warps_across * WARP_ROWS, warp_column = warp % warps_across * WARP_COLUMNS;
    int slices = (p.depth + DEPTH - 1) / DEPTH;
    float sum[WARP_ROWS / 16][WARP_COLUMNS / 8][4] = {};

    auto load = [&](int slice) {
        if (slice < slices) {
            int stage = slice % STAGES;
            load_slice<TILE_ROWS, threads, VECTOR>(left + stage * TILE_ROWS * DEPTH, p.left, p.left_stride, tile.row,
                                                   p.rows, slice * DEPTH, p.depth);
            load_slice<TILE_COLUMNS, threads, 8>(right + stage * TILE_COLUMNS * DEPTH, p.right, p.right_stride,
                                                 tile.column, p.columns, slice * DEPTH, p.right_stride);
        }
        copy_async_commit(); /* empty past the end, so that the count of groups stays right */
    };
    for (int slice = 0; slice < STAGES - 1; slice++)
        load(slice);
    for (int slice = 0; slice < slices; slice++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads(); /* this slice has arrived for all, and all have left the buffer filled next */
        load(slice + STAGES - 1);
        int stage = slice % STAGES;
        multiply_slice(sum, left + (stage * TILE_ROWS + warp_row) * DEPTH,
                       right + (stage * TILE_COLUMNS + warp_column) * DEPTH);
    }
    store_sums(p, sum, {tile.row + warp_row, tile.column + warp_column});
}

template <int TILE_ROWS, int TILE_COLUMNS, int WARP_ROWS, int WARP_COLUMNS, int VECTOR>
void launch(struct cuda_state *state, const struct product *p)
{
    int row_tiles = (p->rows + TILE_ROWS - 1) / TILE_ROWS,
        column_tiles = (p->columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
    constexpr int threads = TILE_ROWS / WARP_ROWS * (TILE_COLUMNS / WARP_COLUMNS) * 32;
    LAUNCH((product_kernel<TILE_ROWS, TILE_COLUMNS, WARP_ROWS, WARP_COLUMNS, VECTOR>),
           dim3((unsigned)row_tiles * (unsigned)column_tiles), dim3(threads), (shared_bytes<TILE_ROWS, TILE_COLUMNS>()),
           state, *p, row_tiles, column_tiles);
}

/* Large tiles where these fill the card, small ones where there are too few of them. */
template <int VECTOR> void choose_tile(struct cuda_state *state, const struct product *p)
{
    long large = (long)((p->rows + 127) / 128) * ((p->columns + 127) / 128);
    if (large >= state->multiprocessors)
        launch<128, 128, 64, 32, VECTOR>(state, p);
    else
        launch<64, 64, 32, 32, VECTOR>(state, p);
}

} // namespace

void product_own(struct cuda_state *state, const struct product *p)
{
    if (p->rows <= 0 || p->columns <= 0)
        return;
    if ((uintptr_t)p->left % 16 == 0 && p->left_stride % 8 == 0 && p->depth % 8 == 0)
        choose_tile<8>(state, p);
    else if ((uintptr_t)p->left % 8 == 0 && p->left_stride % 4 == 0 && p->depth % 4 == 0)
        choose_tile<4>(state, p);
    else
        choose_tile<1>(state, p);
}

/* Another program's memory must not decide which product runs: results have other bytes. */
static void starve(struct cuda_state *state)
{
    cuda_fail(state, ERROR_NO_MEMORY, "cuBLASLt has no memory for a product; another program may have taken it");
}

/* The library has failed, and not for want of memory: from now on products of this shape are our own. */
static void refuse(struct cuda_state *state, const struct cublas_product *product)
{
    struct cublas *cublas = (struct cublas *)state->library;
    cublas_refuse(cublas, product);
    cuda_name_refused(state, REFUSED_PRODUCTS, cublas_refused(cublas));
    if (!state->kernels.notice[0])
        snprintf(state->kernels.notice, sizeof state->kernels.notice,
                 "cuBLASLt does not do a product of %d rows with %d columns of %d values; our own kernel does",
                 product->rows, product->columns, product->depth);
}

/* Through the library, where there is one; false when there is none or it cannot. */
static bool product_of_library(struct cuda_state *state, const struct product *p)
{
    struct cublas *cublas = (struct cublas *)state->library;
    if (!cublas)
        return false;
    void *workspace = cuda_scratch(state, SCRATCH_LIBRARY, CUBLAS_WORKSPACE_BYTES);
    if (!workspace || !cuda_running(state))
        return true; /* the job is over */
    struct { /* all that the call depends on */
        struct cublas_product product;
        void *workspace;
    } call;
    memset(&call, 0, sizeof call); /* its padding, too: recorded calls are compared as bytes */
    call.workspace = workspace;
    struct cublas_product &product = call.product;
    product.left = p->left;
    product.right = p->right;
    product.bias = p->bias_bf16;
    product.out = p->out;
    product.rows = p->rows, product.columns = p->columns, product.depth = p->depth;
    product.left_stride = p->left_stride, product.right_stride = p->right_stride, product.out_stride = p->out_stride;
    product.add = p->add;
    enum cublas_answer answer = cublas_can(cublas, &product);
    if (answer == CUBLAS_NO_MEMORY)
        starve(state);
    if (answer != CUBLAS_YES)
        return answer == CUBLAS_NO_MEMORY;
    const enum cuda_turn turn = cuda_graph_turn(state, &call, sizeof call);
    if (turn != TURN_ENQUEUE)
        return turn == TURN_DONE; /* otherwise product_own finds that the graph has another call */
    answer = cublas_multiply(cublas, &product, workspace, state->compute);
    if (state->recording) { /* it will be tried plainly */
        if (answer != CUBLAS_YES)
            cuda_graph_spoil(state, "a product of cuBLASLt cannot be recorded");
        return true;
    }
    switch (answer) {
    case CUBLAS_YES: cuda_pace(state, 1); break;
    case CUBLAS_NO: refuse(state, &product); break;
    case CUBLAS_NO_MEMORY: starve(state); break;
    }
    return answer != CUBLAS_NO;
}

void product_run(struct cuda_state *state, const struct product *p)
{
    if (p->rows > 0 && p->columns > 0 && !product_of_library(state, p))
        product_own(state, p);
}
