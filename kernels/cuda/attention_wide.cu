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

enum { ROWS = 16, KEYS = 32, SLICE = 128, WARPS_MAX = 8, PITCH = KEYS + 2 };

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

__global__ void __launch_bounds__(WARPS_MAX * 32)
    attention_wide_kernel(const __grid_constant__ struct attention_problem p, bool aligned)
{
    __shared__ float part[WARPS_MAX][ROWS][PITCH];
    __shared__ __align__(8) float score[ROWS][PITCH];
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
    int g = lane / 4, t = lane % 4, slice = warp * SLICE;
    int kv_head = (int)blockIdx.y, first_row = (int)blockIdx.x * ROWS;
    int rows = p.rows - first_row < ROWS ? p.rows - first_row : ROWS;

    auto place = [&](int row, int stride) { /* of a row's first element in queries and result */
        int query = (first_row + row) / p.group, head = kv_head * p.group + (first_row + row) % p.group;
        return (size_t)query * (size_t)stride + (size_t)head * (size_t)p.head_dim;
    };
    uint4 query[SLICE / 32][2];
#pragma unroll
    for (int c = 0; c < SLICE / 32; c++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = g + 8 * half;
            query[c][half] = row < rows ? load_eight(p.q + place(row, p.q_stride), slice + 32 * c + 8 * t, p.head_dim, aligned)
                                        : make_uint4(0, 0, 0, 0);
        }

    float sum[SLICE / 8][4] = {}, maximum[2] = {-INFINITY, -INFINITY}, total[2] = {};
    int keys = visible_keys(p, first_row + rows - 1);
    struct key_cursor cursor = {0, 0};
    auto load = [&](int key, int column, bool values_wanted) {
        if (key >= keys)
            return make_uint4(0, 0, 0, 0);
        struct key_cursor at = cursor;
        advance(p, &at, key);
        const bf16 *base = values_wanted ? p.segment[at.segment].values : p.segment[at.segment].keys;
        return load_eight(base + (size_t)(key - at.first_key) * (size_t)p.segment[at.segment].stride +
                              (size_t)kv_head * (size_t)p.head_dim,
                          column, p.head_dim, aligned);
    };
    for (int first = 0; first < keys; first += KEYS) {
        advance(p, &cursor, first);
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
            float dot[4] = {};
#pragma unroll
            for (int c = 0; c < SLICE / 32; c++) {
                uint4 key = load(first + 8 * j + g, slice + 32 * c + 8 * t, false);
                const uint4 &low = query[c][0], &high = query[c][1];
                mma_16x8x16(dot, {low.x, high.x, low.y, high.y}, {key.x, key.y});
                mma_16x8x16(dot, {low.z, high.z, low.w, high.w}, {key.z, key.w});
            }
#pragma unroll
            for (int e = 0; e < 4; e++)
                part[warp][g + e / 2 * 8][8 * j + 2 * t + e % 2] = dot[e];
        }
        __syncthreads(); /* all parts are there; and all warps have read the last scores */
        for (int i = (int)threadIdx.x; i < ROWS * KEYS; i += warps * 32) {
            int row = i / KEYS, key = i % KEYS;
            float dot = 0.0f;
            for (int w = 0; w < warps; w++)
                dot += part[w][row][key];
            int seen = visible_keys(p, first_row + (row < rows ? row : rows - 1));
            score[row][key] = first + key < seen ? dot * p.scale_log2 : -INFINITY;
        }
        __syncthreads(); /* all scores are there; and the parts are no longer read */

        float weight[2][KEYS / 4]; /* rows g and g + 8; [2 i, 2 i + 1]: keys 8 i + 2 t, 8 i + 2 t + 1 */
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = maximum[half];
#pragma unroll
            for (int i = 0; i < KEYS / 8; i++) {
                float2 two = *(const float2 *)&score[g + 8 * half][8 * i + 2 * t];
                weight[half][2 * i] = two.x;
                weight[half][2 * i + 1] = two.y;
                top = fmaxf(top, fmaxf(two.x, two.y));
            }
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            float reference = top == -INFINITY ? 0.0f : top;
            float factor = exp2_fast(maximum[half] - reference);
            maximum[half] = top;
            total[half] *= factor;
#pragma unroll
            for (int i = 0; i < KEYS / 4; i++) {
                weight[half][i] = exp2_fast(weight[half][i] - reference);
                total[half] += weight[half][i];
            }
#pragma unroll
            for (int n = 0; n < SLICE / 8; n++) {
                sum[n][2 * half] *= factor;
                sum[n][2 * half + 1] *= factor;
            }
        }
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
                    value[i] = load(first + 16 * k + 2 * t + i % 2 + i / 2 * 8, slice + 64 * half + 8 * g, true);
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

#pragma unroll
    for (int half = 0; half < 2; half++) {
        float all = total[half];
        all += __shfl_xor_sync(0xffffffffu, all, 1);
        all += __shfl_xor_sync(0xffffffffu, all, 2);
        float factor = all > 0.0f ? 1.0f / all : 0.0f;
        int row = g + 8 * half;
        if (row >= rows)
            continue;
#pragma unroll
        for (int side = 0; side < 2; side++)
#pragma unroll
            for (int odd = 0; odd < 2; odd++) { /* fragment columns 2t and 2t + 1 */
                float value[8];
#pragma unroll
                for (int n = 0; n < 8; n++)
                    value[n] = sum[8 * side + n][2 * half + odd] * factor;
                store_eight(p.out + place(row, p.out_stride), slice + 64 * side + 8 * (2 * t + odd), p.head_dim, aligned, value);
            }
    }
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
    LAUNCH(attention_wide_kernel, dim3(cuda_pieces((size_t)p->rows, ROWS), (unsigned)p->kv_heads), dim3(32 * (unsigned)warps),
           0, state, *p, aligned);
}
