/* linear_few_rows.cu: products of up to 16 rows, as text decoding makes them: bound by reading the weights once.
 *
 * The weights are the left factor of m16n8k16, the rows of x the right one (its columns), so that y^T = W x^T. A block
 * owns 16 rows of W; its warps take the column tiles in turn, several 16-byte loads per lane in flight, turn codes into
 * bf16 in registers, and add their sums in a fixed order at the end. Integer codes less their zero, and the E2M1
 * levels, are exact in bf16; AWQ's and NVFP4's scales multiply the float32 sums of their group. (MLX weights, code *
 * scale + offset, are rounded to bf16 as for many rows, and so are those of bytes.)
 *
 * A launch costs as much as a small product, so that two things that stand beside these products are done in them, with
 * the same bytes as by themselves: each block norms the rows of x anew, in shared memory, while its first weights are
 * on their way; and of SwiGLU's two products half of a block's warps make one, half the other. */
#include "kernels/cuda/four_bit.cuh"
#include "kernels/cuda/growing.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_parts.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/row_norm.cuh"
#include "kernels/cuda/state.cuh"

#include <string.h>

namespace {

enum {
    AHEAD = 4,
    WARPS_MAX = 16,
    COLUMN_TILES_PER_WARP = 4,
    FOUR_BIT_PADDING = 16,    /* between normed rows: the four that a half of a warp reads lie in different banks, */
    BF16_PADDING = 32,        /* and the two that a quarter reads, of 16 bytes a lane */
    NORM_ROWS = 8,            /* at most, that a block norms itself, */
    NORM_BYTES = 36 << 10,    /* which must leave room for the sums in 48 KiB */
};

__device__ inline uint32_t bits_of(bf16 value)
{
    uint16_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Four elements of row `row` of x, whose rows are `stride` apart, from `column` on; zeros outside [rows, width].
 * `aligned`: a load of 8 bytes may be used. */
__device__ inline void load_four(uint32_t (&b)[2], const bf16 *x, int row, int rows, int column, int width,
                                 int stride, bool aligned)
{
    b[0] = b[1] = 0;
    if (row >= rows || column >= width)
        return;
    const bf16 *from = x + (size_t)row * (size_t)stride + column;
    if (aligned && column + 4 <= width) {
        uint2 four = *(const uint2 *)from;
        b[0] = four.x;
        b[1] = four.y;
        return;
    }
    uint32_t element[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        element[i] = column + i < width ? bits_of(from[i]) : 0u;
    b[0] = element[0] | element[1] << 16;
    b[1] = element[2] | element[3] << 16;
}

/* Which matrix and which 16 of its rows a warp works on, and which of the warps that do it is. */
struct warp_place {
    int part, row_tile, warp, warps;
};

__device__ inline struct warp_place place_of_warp(const struct few_rows_group &group)
{
    int part = 0, block = (int)blockIdx.x, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
    if (group.swiglu) {
        warps /= 2;
        part = warp >= warps;
        return {part, block, warp - part * warps, warps};
    }
    while (part + 1 < group.count && group.part[part + 1].first_block <= block)
        part++;
    return {part, block - group.part[part].first_block, warp, warps};
}

/* The rows of x normed, in the block's dynamic shared memory, `stride` values apart. All threads take part. */
__device__ inline const bf16 *norm_rows(const struct few_rows_group &group, const bf16 *x, int rows, int width,
                                        int stride)
{
    DYNAMIC_SHARED(bf16, normed);
    __shared__ float sums[NORM_ROWS][NORM_WARPS];
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, warps = (int)blockDim.x / WARP;
    int pieces = width > NORM_NARROW_WIDTH ? NORM_WARPS : 1, step = pieces * WARP * NORM_WIDE;
    for (int i = warp; i < rows * pieces; i += warps) {
        int row = i / pieces, first = (i % pieces * WARP + lane) * NORM_WIDE;
        float sum = warp_sum(squares_of_thread(x + (size_t)row * (size_t)width, first, step, width));
        if (lane == 0)
            sums[row][i % pieces] = sum;
    }
    __syncthreads();
    for (int i = warp; i < rows * pieces; i += warps) {
        int row = i / pieces, first = (i % pieces * WARP + lane) * NORM_WIDE;
        float sum = pieces == 1 ? sums[row][0] : warp_sum(lane < NORM_WARPS ? sums[row][lane] : 0.0f);
        float factor = rms_factor(sum, width, group.norm_eps);
        for (int at = first; at < width; at += step) {
            float v[NORM_WIDE], w[NORM_WIDE];
            load_act8(x + (size_t)row * (size_t)width + at, v);
            load_weights8(group.norm_weight + at, w);
#pragma unroll
            for (int j = 0; j < NORM_WIDE; j++)
                v[j] = v[j] * factor * w[j];
            store_act8(normed + row * stride + at, v);
        }
    }
    __syncthreads();
    return normed;
}

template <int PIECES> struct partial_sums {
    float of[WARPS_MAX][PIECES * 8][TILE_ROWS + 4]; /* so that a warp's 32 sums go to 32 banks */

    /* One value of a product, over the warps that made it. */
    __device__ inline float total(int first_warp, int warps, int row, int within, const struct matrix &w, int out) const
    {
        float sum = 0.0f;
        for (int k = first_warp; k < first_warp + warps; k++)
            sum += of[k][row][within];
        return sum * w.tensor_scale + (w.bias ? w.bias[out] : 0.0f);
    }
};

__device__ inline float rounded(float value)
{
    return __bfloat162float(__float2bfloat16_rn(value));
}

/* The sums of a block's warps, [16 rows of W][rows of x] each, to y. */
template <int PIECES>
__device__ inline void finish(float (&sum)[PIECES][4], const struct few_rows_group &group, const struct warp_place &at,
                              int rows, bool add)
{
    __shared__ struct partial_sums<PIECES> partial;
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int part = group.swiglu ? 0 : at.part;
    const int first_row = rows_grown(group.part[part].grown);
#pragma unroll
    for (int j = 0; j < PIECES; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            partial.of[warp][8 * j + lane % 4 * 2 + i % 2][lane / 4 + i / 2 * 8] = sum[j][i];
    __syncthreads();
    const struct matrix &w = group.part[part].w;
    for (int i = (int)threadIdx.x; i < TILE_ROWS * rows; i += (int)blockDim.x) {
        int row = i / TILE_ROWS, within = i % TILE_ROWS, out = at.row_tile * TILE_ROWS + within;
        if (out >= w.out_features)
            continue;
        bf16 *to = group.part[part].y + (size_t)(first_row + row) * (size_t)w.out_features + out;
        float value = partial.total(0, at.warps, row, within, w, out);
        if (group.swiglu) {
            float up = partial.total(at.warps, at.warps, row, within, group.part[1].w, out);
            value = silu(rounded(value)) * rounded(up);
        }
        store_act(to, add ? value + load_act(to) : value);
    }
}

/* The groups of a lane's row in a tile lie beside each other: one load. */
__device__ inline void load_groups(uint32_t (&pairs)[1], const uint32_t *from)
{
    pairs[0] = *from;
}
__device__ inline void load_groups(uint32_t (&pairs)[2], const uint32_t *from)
{
    uint2 two = *(const uint2 *)from;
    pairs[0] = two.x, pairs[1] = two.y;
}
__device__ inline void load_groups(uint32_t (&pairs)[4], const uint32_t *from)
{
    uint4 four = *(const uint4 *)from;
    pairs[0] = four.x, pairs[1] = four.y, pairs[2] = four.z, pairs[3] = four.w;
}

/* What a lane reads of a 4-bit matrix, tile after tile of its warp: running pointers, so that the addresses of several
 * tiles are constants away from them. */
template <int GROUPS> struct weight_reader {
    const uint4 *codes;              /* of the warp's next tile; its tiles are `stride` tiles apart */
    const uint32_t *scales, *seconds; /* of the lane's rows, at the row tile's first span */
    int stride;
    uint32_t span_of_tile; /* span_factor */

    __device__ inline weight_reader(const struct matrix &w, uint32_t span_of_tile_, int row_tile, int lane, int warp,
                                    int warps)
        : stride(warps), span_of_tile(span_of_tile_)
    {
        codes = w.codes + ((size_t)row_tile * (size_t)(w.columns / TILE_COLUMNS) + (size_t)warp) * 32 + lane;
        size_t first_pair = pair_index(w, row_tile, 0, lane / 4, 0);
        scales = w.scales + first_pair;
        seconds = w.seconds + first_pair;
    }
};

/* A lane's part of a tile of weights. */
template <int GROUPS> struct weight_tile {
    uint4 codes;
    uint32_t scale[GROUPS], second[GROUPS];
};

/* The tile `ahead` of the reader's next one, which is the matrix's column tile `tile`. */
template <enum matrix_layout LAYOUT, int GROUPS>
__device__ inline void load_tile(struct weight_tile<GROUPS> &to, const struct weight_reader<GROUPS> &from, int ahead,
                                 int tile)
{
    to.codes = load_once(from.codes + (size_t)ahead * (size_t)from.stride * 32);
    int span = GROUPS > 1 ? tile : span_by(from.span_of_tile, tile);
    load_groups(to.scale, from.scales + span * 8 * GROUPS);
    if (LAYOUT != MATRIX_NVFP4)
        load_groups(to.second, from.seconds + span * 8 * GROUPS);
}

/* The rows of x that a lane reads, one of each 8. WHOLE: all of a tile's columns are there, and rows begin at multiples
 * of 8 bytes. */
template <int PIECES, bool WHOLE> struct row_reader {
    const bf16 *x; /* [rows, width] */
    int rows, width;
    const bf16 *from[PIECES]; /* WHOLE: at the lane's first column of the warp's next tile; */
    bool has[PIECES];         /* a row that is not there reads as the first, and is 0 */

    __device__ inline row_reader(const bf16 *x_, int rows_, int width_, int stride, int lane, int warp)
        : x(x_), rows(rows_), width(width_)
    {
#pragma unroll
        for (int j = 0; j < PIECES; j++) {
            int row = 8 * j + lane / 4;
            has[j] = row < rows;
            from[j] = x + (size_t)(has[j] ? row : 0) * (size_t)stride + warp * TILE_COLUMNS + lane % 4 * 4;
        }
    }
};

/* The right fragment of a step of 16 columns: of piece j, in the column tile `tile`, `ahead` columns after the reader's
 * next ones. */
template <int PIECES, bool WHOLE>
__device__ inline void load_step(uint32_t (&b)[2], const struct row_reader<PIECES, WHOLE> &r, int j, int ahead,
                                 int tile, int step)
{
    int lane = (int)threadIdx.x % 32;
    if (WHOLE) {
        uint2 four = r.has[j] ? *(const uint2 *)(r.from[j] + ahead + 16 * step) : make_uint2(0, 0);
        b[0] = four.x;
        b[1] = four.y;
    } else {
        load_four(b, r.x, 8 * j + lane / 4, r.rows, tile * TILE_COLUMNS + 16 * step + lane % 4 * 4, r.width, r.width,
                  false);
    }
}

/* sum += a tile of weights times the rows' part that goes with it. */
template <enum matrix_layout LAYOUT, int GROUPS, int PIECES, bool WHOLE>
__device__ inline void multiply_tile(float (&sum)[PIECES][4], const struct weight_tile<GROUPS> &w,
                                     const struct row_reader<PIECES, WHOLE> &x, int ahead, int tile)
{
    const uint32_t word[4] = {w.codes.x, w.codes.y, w.codes.z, w.codes.w};
    float partial[PIECES][4] = {};
#pragma unroll
    for (int step = 0; step < 4; step++) {
        int group = step * GROUPS / 4;
        uint32_t a[4];
        decode_step<LAYOUT>(a, word[step], w.scale[group], LAYOUT == MATRIX_NVFP4 ? 0 : w.second[group]);
#pragma unroll
        for (int j = 0; j < PIECES; j++) {
            uint32_t b[2];
            load_step(b, x, j, ahead, tile, step);
            mma_16x8x16(LAYOUT == MATRIX_MLX ? sum[j] : partial[j], a, b);
        }
        if (LAYOUT == MATRIX_MLX || (step + 1) * GROUPS % 4 != 0)
            continue;
        float low = low_float(w.scale[group]), high = high_float(w.scale[group]);
#pragma unroll
        for (int j = 0; j < PIECES; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sum[j][i] = fmaf(i < 2 ? low : high, partial[j][i], sum[j][i]);
                partial[j][i] = 0.0f;
            }
    }
}

/* COUNT tiles of a warp, from the column tile `tile` on: all loads of weights, then the products; the readers move
 * on. */
template <enum matrix_layout LAYOUT, int GROUPS, int COUNT, int PIECES, bool WHOLE>
__device__ inline void multiply_tiles(float (&sum)[PIECES][4], struct weight_reader<GROUPS> &weights,
                                      struct row_reader<PIECES, WHOLE> &x, int tile)
{
    int stride = weights.stride;
    struct weight_tile<GROUPS> loaded[COUNT];
#pragma unroll
    for (int u = 0; u < COUNT; u++)
        load_tile<LAYOUT>(loaded[u], weights, u, tile + u * stride);
#pragma unroll
    for (int u = 0; u < COUNT; u++)
        multiply_tile<LAYOUT>(sum, loaded[u], x, u * stride * TILE_COLUMNS, tile + u * stride);
    weights.codes += (size_t)COUNT * (size_t)stride * 32;
#pragma unroll
    for (int j = 0; j < PIECES; j++)
        x.from[j] += COUNT * stride * TILE_COLUMNS;
}

/* Tiles whose loads a warp starts together: fewer than AHEAD where a card would keep registers in memory otherwise, as
 * tools/cuda_model.py tells; AWQ has two of each group. (With AWQ's 4 groups and 16 rows no number leaves registers for
 * two blocks on every card. With AHEAD / 2 the compiler would have them, and puts the rest into memory.) */
template <enum matrix_layout LAYOUT, int GROUPS, int PIECES> __host__ __device__ constexpr int tiles_at_once()
{
    if (LAYOUT == MATRIX_AWQ && GROUPS == 4 && PIECES == 1)
        return AHEAD / 2;
    bool fewer = LAYOUT == MATRIX_AWQ ? GROUPS == 2 * PIECES : LAYOUT == MATRIX_MLX && GROUPS == 1 && PIECES == 2;
    return fewer ? AHEAD - 1 : AHEAD;
}

/* PIECES: groups of 8 rows of x. GROUPS: groups in a column tile. WHOLE: see row_reader; only then rows are normed. */
template <enum matrix_layout LAYOUT, int GROUPS, int PIECES, bool WHOLE>
__global__ void __launch_bounds__(WARPS_MAX * 32)
    four_bit_kernel(const __grid_constant__ struct few_rows_group group, const bf16 *x, int rows, bool add)
{
    constexpr int at_once = tiles_at_once<LAYOUT, GROUPS, PIECES>();
    const struct warp_place at = place_of_warp(group);
    const struct matrix &w = group.part[at.part].w;
    int lane = (int)threadIdx.x % 32, tiles = w.columns / TILE_COLUMNS, tile = at.warp, stride = w.in_features;
    struct weight_reader<GROUPS> weights(w, group.span_of_tile, at.row_tile, lane, at.warp, at.warps);
    if (WHOLE && PIECES == 1 && group.norm_weight) {
#pragma unroll
        for (int u = 0; u < AHEAD; u++)
            if (tile + u * at.warps < tiles) /* registers for them would leave room for half as many blocks */
                prefetch(weights.codes + (size_t)u * (size_t)at.warps * 32);
        stride += FOUR_BIT_PADDING;
        x = norm_rows(group, x, rows, w.in_features, stride);
    }
    struct row_reader<PIECES, WHOLE> read(x, rows, w.in_features, stride, lane, at.warp);
    float sum[PIECES][4] = {};
    if (WHOLE)
        for (; tile + (at_once - 1) * at.warps < tiles; tile += at_once * at.warps)
            multiply_tiles<LAYOUT, GROUPS, at_once>(sum, weights, read, tile);
    for (; tile < tiles; tile += at.warps)
        multiply_tiles<LAYOUT, GROUPS, 1>(sum, weights, read, tile);
    finish<PIECES>(sum, group, at, rows, add);
}

/* Eight elements of a row of x, the pairs of two steps: columns +0..+3 are the first, +4..+7 the second. */
__device__ inline void load_eight(uint32_t (&b)[2][2], const bf16 *x, int row, int rows, int column, int width,
                                  int stride, bool aligned)
{
    if (aligned && row < rows && column + 8 <= width) {
        uint4 eight = *(const uint4 *)(x + (size_t)row * (size_t)stride + column);
        b[0][0] = eight.x, b[0][1] = eight.y, b[1][0] = eight.z, b[1][1] = eight.w;
        return;
    }
    load_four(b[0], x, row, rows, column, width, stride, false);
    load_four(b[1], x, row, rows, column + 4, width, stride, false);
}

/* A lane reads 8 neighbouring weights of rows g and g + 8: 32 columns, two steps, to a warp. */
template <int PIECES>
__global__ void __launch_bounds__(WARPS_MAX * 32)
    bf16_kernel(const __grid_constant__ struct few_rows_group group, const bf16 *x, int rows, bool add, bool aligned)
{
    const struct warp_place at = place_of_warp(group);
    const struct matrix &w = group.part[at.part].w;
    int lane = (int)threadIdx.x % 32, warp = at.warp, warps = at.warps, row_tile = at.row_tile;
    int tiles = w.columns / 32, stride = w.in_features;
    if (PIECES == 1 && group.norm_weight) {
        stride += BF16_PADDING;
        x = norm_rows(group, x, rows, w.in_features, stride);
    }
    const bf16 *low_row =
        w.values + ((size_t)row_tile * TILE_ROWS + (size_t)(lane / 4)) * (size_t)w.columns + lane % 4 * 8;
    const bf16 *high_row = low_row + 8 * (size_t)w.columns;
    float sum[PIECES][4] = {};
    for (int first = warp; first < tiles; first += warps * AHEAD) {
        uint4 low[AHEAD], high[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            int tile = first + u * warps;
            if (tile >= tiles)
                break;
            low[u] = load_once((const uint4 *)(low_row + (size_t)tile * 32));
            high[u] = load_once((const uint4 *)(high_row + (size_t)tile * 32));
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            int tile = first + u * warps;
            if (tile >= tiles)
                break;
            const uint32_t a[2][4] = {{low[u].x, high[u].x, low[u].y, high[u].y},
                                      {low[u].z, high[u].z, low[u].w, high[u].w}};
#pragma unroll
            for (int j = 0; j < PIECES; j++) {
                uint32_t b[2][2];
                load_eight(b, x, 8 * j + lane / 4, rows, tile * 32 + lane % 4 * 8, w.in_features, stride, aligned);
                mma_16x8x16(sum[j], a[0], b[0]);
                mma_16x8x16(sum[j], a[1], b[1]);
            }
        }
    }
    finish<PIECES>(sum, group, at, rows, add);
}

/* A lane reads 16 neighbouring codes of rows g and g + 8: 64 columns, four steps, to a warp. */
template <int PIECES>
__global__ void __launch_bounds__(WARPS_MAX * 32)
    bytes_kernel(const __grid_constant__ struct few_rows_group group, const bf16 *x, int rows, bool add, bool aligned)
{
    const struct warp_place at = place_of_warp(group);
    const struct matrix &w = group.part[at.part].w;
    int lane = (int)threadIdx.x % 32, warp = at.warp, warps = at.warps, row_tile = at.row_tile, stride = w.in_features;
    if (PIECES == 1 && group.norm_weight) {
        stride += FOUR_BIT_PADDING;
        x = norm_rows(group, x, rows, w.in_features, stride);
    }
    int tiles = w.columns / TILE_COLUMNS, low = row_tile * TILE_ROWS + lane / 4, loads = w.columns / BYTES_GROUP;
    const uint4 *codes = w.codes + (size_t)low * (size_t)loads + lane % 4;
    float sum[PIECES][4] = {};
    for (int tile = warp; tile < tiles; tile += warps) {
        int column = tile * TILE_COLUMNS + lane % 4 * BYTES_GROUP;
        uint4 low_codes = load_once(codes + (size_t)tile * 4);
        uint4 high_codes = load_once(codes + (size_t)tile * 4 + 8 * (size_t)loads);
        float2 low_pair = byte_pair(w, low, column), high_pair = byte_pair(w, low + 8, column);
        const uint32_t word[2][4] = {{low_codes.x, low_codes.y, low_codes.z, low_codes.w},
                                     {high_codes.x, high_codes.y, high_codes.z, high_codes.w}};
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint32_t a[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t two = word[i % 2][step] >> (16 * (i / 2));
                a[i] = two_bytes(two, i % 2 ? high_pair : low_pair);
            }
#pragma unroll
            for (int j = 0; j < PIECES; j++) {
                uint32_t b[2];
                load_four(b, x, 8 * j + lane / 4, rows, column + 4 * step, w.in_features, stride, aligned);
                mma_16x8x16(sum[j], a, b);
            }
        }
    }
    finish<PIECES>(sum, group, at, rows, add);
}

/* Enough warps for each to have a few column tiles. */
int warps_for(int tiles)
{
    int warps = 1;
    while (warps < WARPS_MAX && warps * COLUMN_TILES_PER_WARP < tiles)
        warps *= 2;
    return warps;
}

struct call {
    struct cuda_state *state;
    const struct few_rows_group *group;
    const struct matrix *w; /* the first of them, for what they have in common */
    const bf16 *x;
    int rows, blocks;
    bool add;
};

/* Threads of a block whose warps take column tiles of `columns` columns. */
dim3 threads_of(const struct call &c, int columns)
{
    return dim3(32 * (unsigned)warps_for(c.w->columns / columns) * (c.group->swiglu ? 2 : 1));
}

size_t normed_bytes(int rows, int width)
{
    return (size_t)rows * (size_t)(width + BF16_PADDING) * sizeof(bf16);
}

size_t shared_bytes(const struct call &c)
{
    return c.group->norm_weight ? normed_bytes(c.rows, c.w->in_features) : 0;
}

template <enum matrix_layout LAYOUT, int GROUPS, int PIECES, bool WHOLE> void launch(const struct call &c)
{
    LAUNCH((four_bit_kernel<LAYOUT, GROUPS, PIECES, WHOLE>), dim3((unsigned)c.blocks), threads_of(c, TILE_COLUMNS),
           shared_bytes(c), c.state, *c.group, c.x, c.rows, c.add);
}

/* Rows that are not whole, which no real model has, share one kernel for any number of them. */
template <enum matrix_layout LAYOUT, int GROUPS, int PIECES> void launch_for(const struct call &c)
{
    if ((uintptr_t)c.x % 8 == 0 && c.w->in_features % TILE_COLUMNS == 0)
        launch<LAYOUT, GROUPS, PIECES, true>(c);
    else
        launch<LAYOUT, GROUPS, FEW_ROWS / 8, false>(c);
}

template <int PIECES> void launch_bf16(const struct call &c)
{
    bool aligned = (uintptr_t)c.x % 16 == 0 && c.w->in_features % 8 == 0;
    LAUNCH(bf16_kernel<PIECES>, dim3((unsigned)c.blocks), threads_of(c, 32), shared_bytes(c), c.state, *c.group, c.x,
           c.rows, c.add, aligned);
}

template <int PIECES> void launch_bytes(const struct call &c)
{
    bool aligned = (uintptr_t)c.x % 8 == 0 && c.w->in_features % 4 == 0;
    LAUNCH(bytes_kernel<PIECES>, dim3((unsigned)c.blocks), threads_of(c, TILE_COLUMNS), shared_bytes(c), c.state,
           *c.group, c.x, c.rows, c.add, aligned);
}

template <enum matrix_layout LAYOUT, int PIECES> void with_groups(const struct call &c)
{
    switch (groups_per_tile(*c.w)) {
    case 4:
        return launch_for<LAYOUT, 4, PIECES>(c);
    case 2:
        return launch_for<LAYOUT, 2, PIECES>(c);
    default:
        return launch_for<LAYOUT, 1, PIECES>(c);
    }
}

template <int PIECES> void with_layout(const struct call &c)
{
    switch (c.w->layout) {
    case MATRIX_BF16:
        return launch_bf16<PIECES>(c);
    case MATRIX_AWQ:
        return with_groups<MATRIX_AWQ, PIECES>(c);
    case MATRIX_MLX:
        return with_groups<MATRIX_MLX, PIECES>(c);
    case MATRIX_NVFP4:
        return launch_for<MATRIX_NVFP4, TILE_COLUMNS / NVFP4_GROUP, PIECES>(c);
    case MATRIX_BYTES:
        return launch_bytes<PIECES>(c);
    }
}

} // namespace

void linear_few_rows(struct cuda_state *state, struct few_rows_group *group, const bf16 *x, int rows, bool add)
{
    const struct matrix *w = &group->part[0].w;
    group->span_of_tile = w->layout == MATRIX_BF16 ? 0 : span_factor(*w);
    int blocks = 0;
    for (int i = 0; i < (group->swiglu ? 1 : group->count); i++) {
        group->part[i].first_block = blocks;
        blocks += (group->part[i].w.out_features + TILE_ROWS - 1) / TILE_ROWS;
    }
    struct call call = {state, group, w, x, rows, blocks, add};
    if (rows <= 8)
        with_layout<1>(call);
    else
        with_layout<2>(call);
}

bool few_rows_norm_fits(const struct matrix *w, const bf16 *x, const float *weight, int rows)
{
    return rows <= NORM_ROWS && w->in_features % TILE_COLUMNS == 0 &&
           act_aligned(act_address(x) | act_address(weight)) && normed_bytes(rows, w->in_features) <= NORM_BYTES;
}

bool few_rows_swiglu_fits(const struct matrix *w)
{
    return 2 * warps_for(w->columns / (w->layout == MATRIX_BF16 ? 32 : TILE_COLUMNS)) <= WARPS_MAX;
}
