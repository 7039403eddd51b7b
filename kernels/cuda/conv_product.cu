/* conv_product.cu: convolution as a product on tensor cores, the gathered matrix never formed.
 *
 * A block of 256 threads makes a tile of 128 output pixels by COLUMNS output channels. Along the depth it takes
 * 32 elements at a time: asynchronous copies bring what lies under the taps (zeros for padding) and the weights into
 * shared memory, STAGES - 1 tiles ahead of the product. A copy moves CHUNK channels: 8 (16 bytes) when the channel
 * count allows, else 4. Since the depth runs on from tap to tap, no channel count is padded: one tile may hold parts of
 * several taps. Each thread keeps one place along the depth for all its rows, and steps it without division.
 *
 * Shared rows of 32 elements are 64 bytes, so two of them fill the 32 banks: the 16-byte pieces of a row are permuted
 * by the row's number so that the eight rows of one matrix load lie in different banks. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/conv_parts.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"

namespace {

enum { THREADS = 256, WARPS = THREADS / 32, ROWS = 128, DEPTH = TILE_DEPTH, STAGES = 3 };

/* How the warps share a tile: warps_across of them lie along the columns. */
template <int COLUMNS> struct layout {
    static constexpr int warps_across = COLUMNS == 128 ? 4 : COLUMNS == 64 ? 2 : 1;
    static constexpr int warp_rows = ROWS / (WARPS / warps_across);
    static constexpr int warp_columns = COLUMNS / warps_across;
    static constexpr int row_tiles = warp_rows / 16; /* of one mma */
    static constexpr int column_tiles = warp_columns / 8;
};

template <int CHUNK> __device__ inline void copy_chunk(bf16 *to, const bf16 *from, bool valid)
{
    if (CHUNK == 8)
        copy_async_16(to, from, valid);
    else
        copy_async_8(to, from, valid);
}

/* What one thread copies: its place along the depth, which it steps without division, and what lies there for each of
 * the rows it copies for (row, row + ROW_STEP, ...). */
template <int CHUNK> struct copier {
    static constexpr int chunks = DEPTH / CHUNK;       /* of a row */
    static constexpr int row_step = THREADS / chunks;  /* rows that one round of copies covers */
    static constexpr int rounds = ROWS / row_step;

    int row, k;              /* in the tile */
    int depth, depth_end;
    int channel, t, h, w;    /* of the tap */
    conv_corner corner[rounds];
    const bf16 *under[rounds];
};

/* Bring `channel` back below in_channels, tap by tap. */
template <int CHUNK> __device__ __forceinline__ void next_taps(const conv_problem &p, copier<CHUNK> &c)
{
    while (c.channel >= p.in_channels) {
        c.channel -= p.in_channels;
        if (++c.w == p.kernel_w) {
            c.w = 0;
            if (++c.h == p.kernel_h) {
                c.h = 0;
                c.t++;
            }
        }
    }
    if (c.depth < c.depth_end)
#pragma unroll
        for (int i = 0; i < c.rounds; i++)
            c.under[i] = conv_under_tap(p, c.corner[i], c.t, c.h, c.w);
}

template <int CHUNK>
__device__ __forceinline__ void start_copier(const conv_problem &p, copier<CHUNK> &c, int first_pixel, int last_pixel)
{
    const int thread = threadIdx.x;
    c.row = thread / c.chunks;
    c.k = thread % c.chunks * CHUNK;
    c.t = conv_first_tap(p, last_pixel);
    c.h = c.w = 0;
    c.channel = c.k;
    c.depth = c.t * p.kernel_h * p.kernel_w * p.in_channels + c.k;
    c.depth_end = p.kernel_t * p.kernel_h * p.kernel_w * p.in_channels;
#pragma unroll
    for (int i = 0; i < c.rounds; i++)
        c.corner[i] = conv_corner_of(p, min(first_pixel + c.row + i * c.row_step, last_pixel));
    next_taps(p, c);
}

/* Start the copies of one step into a stage's tiles, left [ROWS, DEPTH] and right [COLUMNS, DEPTH], and step on. */
template <int COLUMNS, int CHUNK>
__device__ __forceinline__ void copy_tiles(const conv_problem &p, copier<CHUNK> &c, bf16 *left, bf16 *right,
                                           int first_column)
{
    constexpr int row_step = copier<CHUNK>::row_step, column_rounds = (COLUMNS + row_step - 1) / row_step;
    bool inside = c.depth < c.depth_end;
#pragma unroll
    for (int i = 0; i < c.rounds; i++) {
        bool valid = inside && c.under[i];
        copy_chunk<CHUNK>(left + tile_place(c.row + i * c.row_step, c.k), valid ? c.under[i] + c.channel : p.x, valid);
    }
#pragma unroll
    for (int i = 0; i < column_rounds; i++) {
        int row = c.row + i * c.row_step, column = first_column + row;
        bool valid = inside && column < p.out_channels;
        if (row < COLUMNS)
            copy_chunk<CHUNK>(right + tile_place(row, c.k),
                              valid ? p.weight + (long long)column * c.depth_end + c.depth : p.weight, valid);
    }
    c.depth += DEPTH;
    c.channel += DEPTH;
    if (c.channel >= p.in_channels)
        next_taps(p, c);
}

/* sum += left right^T: a warp's part, from warp_row and warp_column on, of a stage's tiles. */
template <int ROW_TILES, int COLUMN_TILES>
__device__ __forceinline__ void multiply(float (&sum)[ROW_TILES][COLUMN_TILES][4], const bf16 *left, const bf16 *right,
                                         int warp_row, int warp_column)
{
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        uint32_t a[ROW_TILES][4], b[COLUMN_TILES / 2][4];
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++) /* matrices: rows 0-7, rows 8-15, then the same 8 deeper */
            load_matrices(a[i], left + tile_place(warp_row + i * 16 + lane % 16, k + lane / 16 * 8));
#pragma unroll
        for (int j = 0; j < COLUMN_TILES / 2; j++) /* columns 0-7 in both halves of the depth, then columns 8-15 */
            load_matrices(b[j],
                          right + tile_place(warp_column + j * 16 + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
            for (int j = 0; j < COLUMN_TILES; j++) {
                uint32_t pair[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
                mma_16x8x16(sum[i][j], a[i], pair);
            }
    }
}

/* Two neighbouring results of a pixel, the second only where there is such a channel. */
__device__ __forceinline__ void store_two(const conv_problem &p, bf16 *out, bool in_pairs, bool has_second, float first,
                                          float second)
{
    if (in_pairs) {
        const float2 old = p.add ? load_act2(out) : make_float2(0.0f, 0.0f);
        store_act2(out, old.x + first, old.y + second);
        return;
    }
    store_act(out, p.add ? load_act(out) + first : first);
    if (has_second)
        store_act(out + 1, p.add ? load_act(out + 1) + second : second);
}

/* A warp's sums, with bias and what was there before, go to `out` from first_pixel and first_column on. */
template <int ROW_TILES, int COLUMN_TILES>
__device__ __forceinline__ void store_sums(const conv_problem &p, const float (&sum)[ROW_TILES][COLUMN_TILES][4],
                                           int first_pixel, int last_pixel, int first_column)
{
    const int lane = (int)threadIdx.x % 32;
    const bool in_pairs = p.out_channels % 2 == 0 && reinterpret_cast<uintptr_t>(p.out) % 4 == 0;
#pragma unroll
    for (int j = 0; j < COLUMN_TILES; j++) {
        const int column = first_column + j * 8 + lane % 4 * 2;
        const bool has_first = column < p.out_channels, has_second = column + 1 < p.out_channels;
        const float first_bias = p.bias && has_first ? p.bias[column] : 0.0f;
        const float second_bias = p.bias && has_second ? p.bias[column + 1] : 0.0f;
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) { /* of the 16 rows of an mma */
                const int pixel = first_pixel + i * 16 + half * 8 + lane / 4;
                if (pixel <= last_pixel && has_first)
                    store_two(p, p.out + static_cast<long long>(pixel) * p.out_channels + column, in_pairs, has_second,
                              sum[i][j][half * 2] + first_bias, sum[i][j][half * 2 + 1] + second_bias);
            }
    }
}

template <int COLUMNS, int CHUNK> __global__ void __launch_bounds__(THREADS, 2) conv_product(const conv_problem p)
{
    using tile = layout<COLUMNS>;
    DYNAMIC_SHARED(bf16, left); /* [STAGES][ROWS, DEPTH], and after it [STAGES][COLUMNS, DEPTH] */
    bf16 *right = left + STAGES * ROWS * DEPTH;

    const int warp = (int)threadIdx.x / 32;
    const int first_pixel = (int)blockIdx.x * ROWS, first_column = (int)blockIdx.y * COLUMNS;
    const int last_pixel = min(first_pixel + ROWS, p.pixels) - 1;
    const int warp_row = warp / tile::warps_across * tile::warp_rows;
    const int warp_column = warp % tile::warps_across * tile::warp_columns;

    copier<CHUNK> c;
    start_copier(p, c, first_pixel, last_pixel);
    const int steps = (c.depth_end - (c.depth - c.k) + DEPTH - 1) / DEPTH;
    auto copy_to = [&](int stage) {
        copy_tiles<COLUMNS>(p, c, left + stage * ROWS * DEPTH, right + stage * COLUMNS * DEPTH, first_column);
    };

    float sum[tile::row_tiles][tile::column_tiles][4] = {};
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps)
            copy_to(step);
        copy_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads(); /* this step's tiles are there for all, and all are done with the stage filled next */
        if (step + STAGES - 1 < steps)
            copy_to((step + STAGES - 1) % STAGES);
        copy_async_commit();
        const int stage = step % STAGES;
        multiply(sum, left + stage * ROWS * DEPTH, right + stage * COLUMNS * DEPTH, warp_row, warp_column);
    }
    store_sums(p, sum, first_pixel + warp_row, last_pixel, first_column + warp_column);
}

/* How many channels one copy can move: 8, 4, or 0 when not even 4. */
int chunk_of(const conv_problem *p)
{
    uintptr_t addresses = (uintptr_t)p->x | (uintptr_t)p->past | (uintptr_t)p->weight;
    return p->in_channels % 8 == 0 && addresses % 16 == 0 ? 8 : p->in_channels % 4 == 0 && addresses % 8 == 0 ? 4 : 0;
}

template <int COLUMNS, int CHUNK> void run(struct cuda_state *state, const conv_problem *p)
{
    const size_t shared_bytes = STAGES * (ROWS + COLUMNS) * DEPTH * sizeof(bf16);
    const dim3 grid(cuda_pieces(static_cast<size_t>(p->pixels), ROWS),
                    cuda_pieces(static_cast<size_t>(p->out_channels), COLUMNS));
    LAUNCH((conv_product<COLUMNS, CHUNK>), grid, THREADS, shared_bytes, state, *p);
}

} // namespace

bool conv_product_fits(const conv_problem *p)
{
    enum { ENOUGH_OUT_CHANNELS = 8 };
    return chunk_of(p) && p->out_channels >= ENOUGH_OUT_CHANNELS;
}

void conv_product_run(struct cuda_state *state, const conv_problem *p)
{
    const int by_128 = (p->out_channels + 127) / 128 * 128, by_64 = (p->out_channels + 63) / 64 * 64;
    const bool wide = chunk_of(p) == 8;
    if (p->out_channels <= 16 && wide)
        run<16, 8>(state, p);
    else if (p->out_channels <= 16)
        run<16, 4>(state, p);
    else if (!wide)
        run<64, 4>(state, p);
    else if (by_64 < by_128) /* fewer columns that are not there */
        run<64, 8>(state, p);
    else
        run<128, 8>(state, p);
}
