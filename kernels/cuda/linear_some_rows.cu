/* linear_some_rows.cu: products of 4-bit matrices with some 17 to 128 rows, as prompts and small pictures make them:
 * too many for linear_few_rows.cu, which would read x over and over, too few to pay for weights that are decoded to
 * memory and read from there, at nine times the bytes.
 *
 * A block makes 64 columns of y for 64 rows of x, as y^T = W x^T like the product of few rows: codes are decoded in
 * registers to the left factor of m16n8k16, exactly, and AWQ's and NVFP4's scales multiply the float32 sums of their
 * group. Slices of 64 columns of both factors pass through STAGES buffers of shared memory, filled by asynchronous
 * copies that run ahead of the arithmetic. Of a block's four warps two share a pair of row tiles of W, and the steps of
 * each slice; their sums are added at the end. Where there are too few blocks for a card, several share the columns
 * of W, and the one that ends last adds up what they made, in the order of the columns: the same bytes each time. */
#include "kernels/cuda/four_bit.cuh"
#include "kernels/cuda/last_part.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_parts.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/state.cuh"

#include <string.h>

namespace {

enum {
    WARPS = 4,
    THREADS = WARPS * 32,
    STAGES = 4,
    BLOCK_TILES = 4, /* row tiles of W, */
    BLOCK_COLUMNS = BLOCK_TILES * TILE_ROWS, /* which are columns of y */
    BLOCK_ROWS = 64, /* of x */
    PIECES = BLOCK_ROWS / 8,
    WARP_TILES = 2,
    WARP_STEPS = 2,  /* of a slice */
    TOTAL_STRIDE = BLOCK_COLUMNS + 4, /* lanes of a warp store their sums to different banks */
    BLOCKS_WANTED = 2, /* of a multiprocessor */
    SPLITS_MAX = 8,
    SPLIT_SLICES = 4, /* at least, of each block that shares the columns */
};

struct call {
    struct some_rows_part part[LINEAR_GROUP];
    int count, rows;
    const bf16 *x;
    bool add;
    float *partial;    /* [block][BLOCK_ROWS][BLOCK_COLUMNS], where blocks share columns */
    unsigned *arrived; /* [row of blocks][tile that blocks share], 0 between launches */
    int shared_tiles;
    uint32_t span_of_tile;
};

/* A slice of both factors. Rows of x are cut into pieces of 16 bytes, which lie in another order in each of four rows:
 * the four that half a warp reads at once are in different banks. */
template <enum matrix_layout LAYOUT, int GROUPS> struct stage {
    bf16 x[BLOCK_ROWS][TILE_COLUMNS];
    uint4 codes[BLOCK_TILES][32];
    uint32_t scales[BLOCK_TILES][8 * GROUPS];
    uint32_t seconds[LAYOUT == MATRIX_NVFP4 ? 1 : BLOCK_TILES][8 * GROUPS];
};

/* What a block makes. */
struct place {
    const struct some_rows_part *part;
    int tile, split;               /* of the part's; of the blocks that share it */
    int first_row_tile, first_row; /* of W and of x */
    int first_slice, end_slice;
};

__device__ inline struct place place_of_block(const struct call &call)
{
    struct place at;
    int block = (int)blockIdx.x, index = 0;
    while (index + 1 < call.count && call.part[index + 1].first_block <= block)
        index++;
    at.part = &call.part[index];
    block -= at.part->first_block;
    at.tile = block / at.part->splits;
    at.split = block % at.part->splits;
    at.first_row_tile = at.tile * BLOCK_TILES;
    at.first_row = (int)blockIdx.y * BLOCK_ROWS;
    int slices = at.part->w.columns / TILE_COLUMNS;
    at.first_slice = at.split * slices / at.part->splits;
    at.end_slice = (at.split + 1) * slices / at.part->splits;
    return at;
}

/* Where a lane finds the piece of 16 bytes of a row of x. */
__device__ inline int place_of_piece(int row, int piece)
{
    return (piece ^ row % 4 * 2) * 8;
}

/* What a thread copies of each slice: addresses in the block's first columns, so that a slice's are constants away. */
template <enum matrix_layout LAYOUT, int GROUPS> struct copier {
    static constexpr int rows_apart = THREADS / 8, x_copies = BLOCK_ROWS / rows_apart;
    static constexpr int group_pieces = 2 * GROUPS; /* of 16 bytes, of each row tile */
    static constexpr int group_threads = (LAYOUT == MATRIX_NVFP4 ? 1 : 2) * BLOCK_TILES * group_pieces;
    const bf16 *x; /* the thread's piece of each rows_apart-th row, */
    int x_rows;    /* so many of which are there */
    int stride, column;
    const uint4 *codes;
    const uint32_t *groups; /* scales, of other threads zeros or offsets */
    bool has_codes, has_groups; /* or they are past the last row of W */
    uint32_t span_of_tile;

    __device__ __forceinline__ copier(const struct call &call, const struct place &at)
    {
        const struct matrix &w = at.part->w;
        int thread = (int)threadIdx.x, row = at.first_row + thread / 8;
        int row_tiles = (w.out_features + TILE_ROWS - 1) / TILE_ROWS;
        stride = w.in_features;
        column = thread % 8 * 8;
        x = call.x + (size_t)row * (size_t)stride + column;
        x_rows = (call.rows - row + rows_apart - 1) / rows_apart;
        int tile = at.first_row_tile + thread / 32;
        has_codes = tile < row_tiles;
        codes = w.codes + (size_t)tile * (size_t)(w.columns / TILE_COLUMNS) * 32 + thread % 32;
        tile = at.first_row_tile + thread / group_pieces % BLOCK_TILES;
        has_groups = tile < row_tiles;
        groups = (thread < BLOCK_TILES * group_pieces ? w.scales : w.seconds) +
                 (size_t)tile * (size_t)spans(w) * (8 * GROUPS) + thread % group_pieces * 4;
        span_of_tile = call.span_of_tile;
    }

    /* Start the copies of a slice. What is outside of the factors is zero. */
    __device__ __forceinline__ void copy(struct stage<LAYOUT, GROUPS> &to, int slice) const
    {
        int thread = (int)threadIdx.x, row = thread / 8, first = slice * TILE_COLUMNS;
        bool has_column = column + first < stride;
#pragma unroll
        for (int i = 0; i < x_copies; i++)
            copy_async_16(&to.x[row + i * rows_apart][place_of_piece(row, thread % 8)],
                          x + (size_t)(i * rows_apart) * (size_t)stride + first, has_column && i < x_rows);
        copy_async_16(&to.codes[thread / 32][thread % 32], codes + (size_t)slice * 32, has_codes);
        if (thread >= group_threads)
            return;
        int span = GROUPS > 1 ? slice : span_by(span_of_tile, slice);
        int of_tile = thread / group_pieces % BLOCK_TILES, within = thread % group_pieces * 4;
        uint32_t *groups_to = thread < BLOCK_TILES * group_pieces
                                  ? &to.scales[of_tile][within]
                                  : &to.seconds[LAYOUT == MATRIX_NVFP4 ? 0 : of_tile][within];
        copy_async_16(groups_to, groups + (size_t)span * (8 * GROUPS), has_groups);
    }
};

/* A warp's left factors of a slice, and the scales of their rows. */
template <int GROUPS> struct left_factors {
    uint32_t a[WARP_TILES][WARP_STEPS][4];
    uint32_t scale[WARP_TILES][WARP_STEPS];
};

template <enum matrix_layout LAYOUT, int GROUPS>
__device__ __forceinline__ void decode(struct left_factors<GROUPS> &to, const struct stage<LAYOUT, GROUPS> &from,
                                       int first_tile, int half)
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < WARP_TILES; m++) {
        uint4 codes = from.codes[first_tile + m][lane];
        const uint32_t word[WARP_STEPS] = {half ? codes.z : codes.x, half ? codes.w : codes.y};
#pragma unroll
        for (int step = 0; step < WARP_STEPS; step++) {
            int group = GROUPS > 1 ? (half * WARP_STEPS + step) * GROUPS / 4 : 0;
            int index = lane / 4 * GROUPS + group;
            to.scale[m][step] = from.scales[first_tile + m][index];
            uint32_t second = LAYOUT == MATRIX_NVFP4 ? 0 : from.seconds[first_tile + m][index];
            decode_step<LAYOUT>(to.a[m][step], word[step], to.scale[m][step], second);
        }
    }
}

/* sum += partial, of a group, times its scales of rows g and g + 8; partial is 0 then. */
__device__ __forceinline__ void add_scaled(float (&sum)[4], float (&partial)[4], uint32_t scales)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sum[i] = fmaf(i < 2 ? low_float(scales) : high_float(scales), partial[i], sum[i]);
        partial[i] = 0.0f;
    }
}

/* sum += a slice's part of the products. `rows`: of x, that the block has. */
template <enum matrix_layout LAYOUT, int GROUPS>
__device__ __forceinline__ void multiply_stage(float (&sum)[WARP_TILES][PIECES][4],
                                               const struct stage<LAYOUT, GROUPS> &from, int first_tile, int half,
                                               int rows)
{
    int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    struct left_factors<GROUPS> w;
    decode<LAYOUT, GROUPS>(w, from, first_tile, half);
#pragma unroll
    for (int j = 0; j < PIECES; j++) {
        if (j == PIECES / 2 && j * 8 >= rows)
            break;
        uint32_t b[WARP_STEPS][2];
#pragma unroll
        for (int step = 0; step < WARP_STEPS; step++) {
            int piece = 2 * (half * WARP_STEPS + step) + t / 2;
            uint2 four = *(const uint2 *)&from.x[8 * j + g][place_of_piece(g, piece) + t % 2 * 4];
            b[step][0] = four.x, b[step][1] = four.y;
        }
#pragma unroll
        for (int m = 0; m < WARP_TILES; m++) {
            [[maybe_unused]] float partial[4] = {}; /* of a group; MLX's weights have their scale already */
#pragma unroll
            for (int step = 0; step < WARP_STEPS; step++) {
                mma_16x8x16(LAYOUT == MATRIX_MLX ? sum[m][j] : partial, w.a[m][step], b[step]);
                if (LAYOUT != MATRIX_MLX && (GROUPS == 4 || step + 1 == WARP_STEPS))
                    add_scaled(sum[m][j], partial, w.scale[m][step]);
            }
        }
    }
}

typedef float totals[BLOCK_ROWS][TOTAL_STRIDE];

/* The sums of a block's warps, the second of each pair onto the first's. */
__device__ inline void add_warps(totals &to, const float (&sum)[WARP_TILES][PIECES][4], int first_tile, int half)
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int turn = 1; turn >= 0; turn--) {
        __syncthreads();
        if (half != turn)
            continue;
#pragma unroll
        for (int m = 0; m < WARP_TILES; m++)
#pragma unroll
            for (int j = 0; j < PIECES; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float *one = &to[8 * j + lane % 4 * 2 + i % 2][(first_tile + m) * TILE_ROWS + lane / 4 + i / 2 * 8];
                    *one = turn ? sum[m][j][i] : sum[m][j][i] + *one;
                }
    }
    __syncthreads();
}

/* Four neighbouring results of a row of y, as many as there are. */
__device__ inline void store_four(const struct some_rows_part &part, bool add, int row, int column, float4 four)
{
    const struct matrix &w = part.w;
    const float value[4] = {four.x, four.y, four.z, four.w};
    bf16 *to = part.y + (size_t)row * (size_t)w.out_features + column;
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (column + i < w.out_features) {
            float result = value[i] * w.tensor_scale + (w.bias ? w.bias[column + i] : 0.0f);
            store_act(to + i, add ? result + load_act(to + i) : result);
        }
}

/* A block's totals to y; or, where several share its columns, to memory, and the last one's sum of them all to y. */
__device__ inline void finish(const struct call &call, const struct place &at, const totals &total, int rows)
{
    constexpr int fours = BLOCK_COLUMNS / 4;
    const int splits = at.part->splits, thread = (int)threadIdx.x;
    const size_t block = (size_t)blockIdx.y * gridDim.x + blockIdx.x;
    float4 *mine = splits > 1 ? (float4 *)call.partial + block * BLOCK_ROWS * fours : nullptr;
    if (mine) {
        for (int i = thread; i < rows * fours; i += THREADS)
            mine[i] = *(const float4 *)&total[i / fours][i % fours * 4];
        if (!is_last_part(&call.arrived[(int)blockIdx.y * call.shared_tiles + at.part->first_tile + at.tile], splits))
            return;
    }
    for (int i = thread; i < rows * fours; i += THREADS) {
        float4 four = mine ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : *(const float4 *)&total[i / fours][i % fours * 4];
        for (int split = 0; mine && split < splits; split++) {
            float4 other = __ldcg(mine + (long)(split - at.split) * BLOCK_ROWS * fours + i);
            four.x += other.x, four.y += other.y, four.z += other.z, four.w += other.w;
        }
        store_four(*at.part, call.add, at.first_row + i / fours, at.tile * BLOCK_COLUMNS + i % fours * 4, four);
    }
}

template <enum matrix_layout LAYOUT, int GROUPS>
__global__ void __launch_bounds__(THREADS) some_rows_kernel(const __grid_constant__ struct call call)
{
    typedef struct stage<LAYOUT, GROUPS> stage_type;
    static_assert(sizeof(totals) <= STAGES * sizeof(stage_type), "the totals lie where the slices were");
    DYNAMIC_SHARED(stage_type, stages);
    const struct place at = place_of_block(call);
    int warp = (int)threadIdx.x / 32, first_tile = warp / 2 * WARP_TILES, half = warp % 2;
    int rows = call.rows - at.first_row < BLOCK_ROWS ? call.rows - at.first_row : BLOCK_ROWS;
    float sum[WARP_TILES][PIECES][4] = {};
    const struct copier<LAYOUT, GROUPS> from(call, at);

    auto load = [&](int slice) {
        if (slice < at.end_slice)
            from.copy(stages[slice % STAGES], slice);
        copy_async_commit(); /* empty past the end, so that the count of groups stays right */
    };
    for (int slice = at.first_slice; slice < at.first_slice + STAGES - 1; slice++)
        load(slice);
    for (int slice = at.first_slice; slice < at.end_slice; slice++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads(); /* this slice has arrived for all, and all have left the buffer filled next */
        load(slice + STAGES - 1);
        multiply_stage<LAYOUT, GROUPS>(sum, stages[slice % STAGES], first_tile, half, rows);
    }
    copy_async_wait<0>();
    totals &total = *(totals *)stages;
    add_warps(total, sum, first_tile, half); /* begins with a barrier: all have left the buffers */
    finish(call, at, total, rows);
}

template <enum matrix_layout LAYOUT, int GROUPS>
void launch(struct cuda_state *state, const struct call &call, dim3 grid)
{
    LAUNCH((some_rows_kernel<LAYOUT, GROUPS>), grid, dim3(THREADS), STAGES * sizeof(struct stage<LAYOUT, GROUPS>),
           state, call);
}

/* How many blocks share the columns of each tile of a matrix: as many as fill the card. */
int choose_splits(const struct cuda_state *state, const struct matrix &w, int tiles, int rows_across)
{
    int wanted = BLOCKS_WANTED * state->multiprocessors / (tiles * rows_across);
    int most = w.columns / TILE_COLUMNS / SPLIT_SLICES;
    int splits = wanted < most ? wanted : most;
    return splits < 1 ? 1 : splits > SPLITS_MAX ? SPLITS_MAX : splits;
}

} // namespace

bool some_rows_fits(const struct matrix *w, const bf16 *x)
{
    bool four_bit = w->layout == MATRIX_NVFP4 ||
                    ((w->layout == MATRIX_AWQ || w->layout == MATRIX_MLX) && w->group_size % TILE_COLUMNS == 0);
    return four_bit && w->in_features % 8 == 0 && act_aligned(act_address(x));
}

void linear_some_rows(struct cuda_state *state, const struct some_rows_part *parts, int count, const bf16 *x, int rows,
                      bool add)
{
    struct call call;
    memset(&call, 0, sizeof call); /* its padding, too: graphs compare arguments as bytes */
    const struct matrix &w = parts[0].w;
    int blocks = 0, rows_across = (int)cuda_pieces((size_t)rows, BLOCK_ROWS);
    for (int i = 0; i < count; i++) {
        struct some_rows_part &part = call.part[i];
        memcpy(&part, &parts[i], sizeof part);
        int own_tiles = (int)cuda_pieces((size_t)part.w.out_features, BLOCK_COLUMNS);
        part.splits = choose_splits(state, part.w, own_tiles, rows_across);
        part.first_block = blocks;
        part.first_tile = call.shared_tiles;
        blocks += own_tiles * part.splits;
        call.shared_tiles += part.splits > 1 ? own_tiles : 0;
    }
    call.count = count;
    call.rows = rows;
    call.x = x;
    call.add = add;
    call.span_of_tile = span_factor(w);
    if (call.shared_tiles) { /* no more of them than state->arrived has: choose_splits */
        size_t values = (size_t)blocks * (size_t)rows_across * BLOCK_ROWS * BLOCK_COLUMNS;
        call.partial = (float *)cuda_scratch(state, SCRATCH_PARTIALS, values * sizeof(float));
        call.arrived = state->arrived;
        if (!call.partial)
            return;
    }
    dim3 grid((unsigned)blocks, (unsigned)rows_across);
    switch (w.layout) {
    case MATRIX_AWQ:
        return launch<MATRIX_AWQ, 1>(state, call, grid);
    case MATRIX_MLX:
        return launch<MATRIX_MLX, 1>(state, call, grid);
    default:
        return launch<MATRIX_NVFP4, TILE_COLUMNS / NVFP4_GROUP>(state, call, grid);
    }
}
