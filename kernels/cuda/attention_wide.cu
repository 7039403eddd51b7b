/* attention_wide.cu: attention with heads of 129 to 1024 dimensions, as the single head of the VAE's middle block has.
 *
 * A block owns 16 rows; warp w of it has the dimensions 128 w .. 128 w + 127 of queries, keys, values and result, all
 * in registers. For 32 keys at a time every warp adds up its part of the scores; the parts are joined in shared memory
 * in the order of the warps; then every warp computes the same weights and multiplies its part of the values. Keys and
 * values come straight from device memory, 16 bytes to a lane: the order of the summed dimensions, and which dimension
 * is which column of a fragment, are free. */
#include "kernels/cuda/attention_parts.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"

#include <math.h>
#include <string.h>

namespace {

enum { ROWS = 16, KEYS = 32, SLICE = 128, WARPS_MAX = 8 };
enum { PITCH = KEYS + 8 }; /* of scores: the pairs of half a warp go to 32 banks */

/* Eight elements of a row from `column` on, zeros from `width` on. */
__device__ inline uint4 load_eight(const bf16 *row, int column, int width, bool aligned)
{
    if (aligned && column + 8 <= width)
        return *(const uint4 *)(row + column);
    uint16_t element[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        bf16 value = column + i < width ? row[column + i] : __float2bfloat16_rn(0.0f);
        memcpy(&element[i], &value, sizeof element[i]);
    }
    return make_uint4(element[0] | (uint32_t)element[1] << 16, element[2] | (uint32_t)element[3] << 16,
                      element[4] | (uint32_t)element[5] << 16, element[6] | (uint32_t)element[7] << 16);
}

__device__ inline uint32_t word_of(const uint4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Eight neighbouring results of one row. */
__device__ inline void store_eight(bf16 *row, int column, int width, bool aligned, const float (&value)[8])
{
    if (aligned && column + 8 <= width) {
        store_act8(row + column, value);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (column + i < width)
            store_act(row + column + i, value[i]);
}

/* The part of the queries, keys and values that a warp has, and of these what a lane has (mma.cuh's g and t). */
struct part_of_lane {
    int kv_head, first_row, rows; /* of the block */
    int g, t;
    int slice; /* the warp's first dimension */
};

/* Both rows (g and g + 8) of the queries. */
__device__ __forceinline__ void load_queries(uint4 (&query)[SLICE / 32][2], const struct attention_problem &p,
                                             const struct part_of_lane &l, bool aligned)
{
#pragma unroll
    for (int c = 0; c < SLICE / 32; c++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = l.g + 8 * half;
            const bf16 *from = p.q + place_of_row(p, l.kv_head, l.first_row + row, p.q_stride);
            query[c][half] = row < l.rows ? load_eight(from, l.slice + 32 * c + 8 * l.t, p.head_dim, aligned)
                                          : make_uint4(0, 0, 0, 0);
        }
}

/* The warp's part of the scores of KEYS keys; load_key(key, column) gives eight elements of one. */
template <typename Load>
__device__ __forceinline__ void store_part(float (&part)[ROWS][PITCH], const uint4 (&query)[SLICE / 32][2],
                                           const struct part_of_lane &l, Load load_key)
{
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++) {
        float dot[4] = {};
#pragma unroll
        for (int c = 0; c < SLICE / 32; c++) {
            uint4 key = load_key(8 * j + l.g, l.slice + 32 * c + 8 * l.t);
            const uint4 &low = query[c][0], &high = query[c][1];
            mma_16x8x16(dot, {low.x, high.x, low.y, high.y}, {key.x, key.y});
            mma_16x8x16(dot, {low.z, high.z, low.w, high.w}, {key.z, key.w});
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
            *(float2 *)&part[l.g + 8 * half][8 * j + 2 * l.t] = make_float2(dot[2 * half], dot[2 * half + 1]);
    }
}

/* All threads: the scores, scaled, from the warps' parts. Keys that a row does not see have -infinity; rows past the
 * end see what the last one sees. */
__device__ __forceinline__ void join_parts(float (&score)[ROWS][PITCH], const float (&part)[WARPS_MAX][ROWS][PITCH],
                                           const struct attention_problem &p, const struct part_of_lane &l,
                                           int first_key)
{
    int warps = (int)blockDim.x / 32;
    for (int i = (int)threadIdx.x; i < ROWS * KEYS; i += warps * 32) {
        int row = i / KEYS, key = i % KEYS;
        float dot = 0.0f;
        for (int w = 0; w < warps; w++)
            dot += part[w][row][key];
        int seen = visible_keys(p, l.first_row + (row < l.rows ? row : l.rows - 1));
        score[row][key] = first_key + key < seen ? dot * p.scale_log2 : -INFINITY;
    }
}

/* The softmax's step for one of a lane's rows (half: g or g + 8): weights of the keys 8 i + 2 t, 8 i + 2 t + 1 at 2 i,
 * 2 i + 1, and the sums scaled to the new maximum. */
__device__ __forceinline__ void weigh_row(float (&weight)[KEYS / 4], const float (&score)[PITCH], int half, int t,
                                          float &maximum, float &total, float (&sum)[SLICE / 8][4])
{
    float top = maximum;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        float2 two = *(const float2 *)&score[8 * i + 2 * t];
        weight[2 * i] = two.x;
        weight[2 * i + 1] = two.y;
        top = fmaxf(top, fmaxf(two.x, two.y));
    }
    top = max_of_four(top);
    float reference = top == -INFINITY ? 0.0f : top;
    float factor = exp2_fast(maximum - reference);
    maximum = top;
    total *= factor;
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++) {
        weight[i] = exp2_fast(weight[i] - reference);
        total += weight[i];
    }
#pragma unroll
    for (int n = 0; n < SLICE / 8; n++) {
        sum[n][2 * half] *= factor;
        sum[n][2 * half + 1] *= factor;
    }
}

/* sum += weights values, for the warp's dimensions; load_value(key, column) gives eight elements of a value. */
template <typename Load>
__device__ __forceinline__ void add_values(float (&sum)[SLICE / 8][4], const float (&weight)[2][KEYS / 4],
                                           const struct part_of_lane &l, Load load_value)
{
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        uint32_t a[4];
#pragma unroll
        for (int e = 0; e < 4; e++)
            a[e] = pack_act2(weight[e % 2][4 * k + e / 2 * 2], weight[e % 2][4 * k + e / 2 * 2 + 1]);
#pragma unroll
        for (int half = 0; half < 2; half++) { /* 64 dimensions each; column g of tile n is dimension 8 g + n % 8 */
            uint4 value[4];                    /* keys 2t, 2t + 1, 2t + 8, 2t + 9 */
#pragma unroll
            for (int i = 0; i < 4; i++)
                value[i] = load_value(16 * k + 2 * l.t + i % 2 + i / 2 * 8, l.slice + 64 * half + 8 * l.g);
#pragma unroll
            for (int n = 0; n < 8; n++) {
                unsigned halves = n % 2 ? 0x7632 : 0x5410;
                mma_16x8x16(sum[8 * half + n], a,
                            {__byte_perm(word_of(value[0], n / 2), word_of(value[1], n / 2), halves),
                             __byte_perm(word_of(value[2], n / 2), word_of(value[3], n / 2), halves)});
            }
        }
    }
}

__device__ __forceinline__ void store_result(const struct attention_problem &p, const struct part_of_lane &l,
                                             const float (&sum)[SLICE / 8][4], const float (&total)[2], bool aligned)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float all = sum_of_four(total[half]), factor = all > 0.0f ? 1.0f / all : 0.0f;
        int row = l.g + 8 * half;
        if (row >= l.rows)
            continue;
        bf16 *out = p.out + place_of_row(p, l.kv_head, l.first_row + row, p.out_stride);
#pragma unroll
        for (int side = 0; side < 2; side++)
#pragma unroll
            for (int odd = 0; odd < 2; odd++) { /* fragment columns 2t and 2t + 1 */
                float value[8];
#pragma unroll
                for (int n = 0; n < 8; n++)
                    value[n] = sum[8 * side + n][2 * half + odd] * factor;
                store_eight(out, l.slice + 64 * side + 8 * (2 * l.t + odd), p.head_dim, aligned, value);
            }
    }
}

__global__ void __launch_bounds__(WARPS_MAX * 32)
    attention_wide_kernel(const __grid_constant__ struct attention_problem p, bool aligned)
{
    __shared__ __align__(8) float part[WARPS_MAX][ROWS][PITCH];
    __shared__ __align__(8) float score[ROWS][PITCH];
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, first_row = (int)blockIdx.x * ROWS;
    const struct part_of_lane l = {(int)blockIdx.y, first_row, p.rows - first_row < ROWS ? p.rows - first_row : ROWS,
                                   lane / 4, lane % 4, warp * SLICE};

    uint4 query[SLICE / 32][2];
    load_queries(query, p, l, aligned);
    float sum[SLICE / 8][4] = {}, maximum[2] = {-INFINITY, -INFINITY}, total[2] = {};
    int keys = visible_keys(p, first_row + l.rows - 1);
    struct key_cursor cursor = {0, 0};
    auto load = [&](int key, int column, bool values_wanted) {
        if (key >= keys)
            return make_uint4(0, 0, 0, 0);
        struct key_cursor at = cursor;
        return load_eight(place_of_key(p, &at, l.kv_head, key, values_wanted), column, p.head_dim, aligned);
    };
    for (int first = 0; first < keys; first += KEYS) {
        advance(p, &cursor, first);
        store_part(part[warp], query, l, [&](int key, int column) { return load(first + key, column, false); });
        __syncthreads(); /* all parts are there; and all warps have read the last scores */
        join_parts(score, part, p, l, first);
        __syncthreads(); /* all scores are there; and the parts are no longer read */
        float weight[2][KEYS / 4];
#pragma unroll
        for (int half = 0; half < 2; half++)
            weigh_row(weight[half], score[l.g + 8 * half], half, l.t, maximum[half], total[half], sum);
        add_values(sum, weight, l, [&](int key, int column) { return load(first + key, column, true); });
    }
    store_result(p, l, sum, total, aligned);
}

} // namespace

void attention_wide(struct cuda_state *state, const struct attention_problem *p, bool aligned)
{
    int warps = (p->head_dim + SLICE - 1) / SLICE;
    if (warps > WARPS_MAX) {
        cuda_fail(state, ERROR_UNSUPPORTED, "attention: heads of %d dimensions; at most %d are supported on a card",
                  p->head_dim, WARPS_MAX * SLICE);
        return;
    }
    LAUNCH(attention_wide_kernel, dim3(cuda_pieces((size_t)p->rows, ROWS), (unsigned)p->kv_heads),
           dim3(32 * (unsigned)warps), 0, state, *p, aligned);
}
