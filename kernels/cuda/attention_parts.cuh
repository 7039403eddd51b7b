/* attention_parts.cuh: attention problems as the kernels take them: by value, so that nothing has to be sent first.
 *
 * The query heads that share a key head are taken as rows beside each other: row i of a problem's `rows` is query i /
 * group in head kv_head * group + i % group, so that keys and values are read once for all of them. */
#ifndef LANCE_CUDA_ATTENTION_PARTS_CUH
#define LANCE_CUDA_ATTENTION_PARTS_CUH

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/growing.cuh"

/* struct attention of kernels.h, without its empty segments. */
struct attention_problem {
    const bf16 *q;
    bf16 *out;
    int q_stride, out_stride;
    int rows;        /* q_rows * group, for each key head */
    int group, kv_heads, head_dim;
    int keys;        /* of all segments */
    int causal_from; /* keys that query 0 sees; `keys` and more: no mask */
    float scale_log2; /* scale * log2(e): the softmax is taken to the base of 2 */
    int first_block, row_blocks; /* of attention.cu's launch */
    const int *grown; /* growing.cuh: of the last segment, which then has no end; `keys` and `causal_from` are less
                       * those */
    int segments;
    struct {
        const bf16 *keys, *values;
        int rows, stride;
    } segment[ATTENTION_MAX_SEGMENTS];
};

/* A problem's two numbers as they are when its kernel runs. */
struct key_counts {
    int keys, causal_from;
};

/* Whether the queries have a mask is told by causal_from: query i sees keys 0 .. causal_from + i - 1. */
__device__ inline int visible_keys(const struct attention_problem &p, const struct key_counts &there, int row)
{
    if (there.causal_from >= there.keys)
        return there.keys;
    int seen = there.causal_from + row / p.group;
    return seen < 0 ? 0 : seen < there.keys ? seen : there.keys;
}
__device__ inline int visible_keys(const struct attention_problem &p, int row)
{
    return visible_keys(p, {p.keys, p.causal_from}, row);
}

/* A place in the sequence of segments; goes forward only. */
struct key_cursor {
    int segment, first_key; /* that segment's first key's number */
};

__device__ inline void advance(const struct attention_problem &p, struct key_cursor *at, int key)
{
    while (key >= at->first_key + p.segment[at->segment].rows)
        at->first_key += p.segment[at->segment++].rows;
}

/* Where a row's first element lies in the queries or in the result, whose rows are `stride` apart. */
__device__ __forceinline__ size_t place_of_row(const struct attention_problem &p, int kv_head, int row, int stride)
{
    int query = row / p.group, head = kv_head * p.group + row % p.group;
    return (size_t)query * (size_t)stride + (size_t)head * (size_t)p.head_dim;
}

/* Where a key, or its value, begins; `at` goes forward to it. */
__device__ __forceinline__ const bf16 *place_of_key(const struct attention_problem &p, struct key_cursor *at,
                                                    int kv_head, int key, bool values_wanted)
{
    advance(p, at, key);
    const bf16 *base = values_wanted ? p.segment[at->segment].values : p.segment[at->segment].keys;
    return base + (size_t)(key - at->first_key) * (size_t)p.segment[at->segment].stride +
           (size_t)kv_head * (size_t)p.head_dim;
}

/* Over the four lanes that hold a row of a fragment (mma.cuh). */
__device__ __forceinline__ float max_of_four(float value)
{
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

__device__ __forceinline__ float sum_of_four(float value)
{
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

/* A problem with heads of up to 128 dimensions, by our own kernels. attention.cu */
void attention_own(struct cuda_state *state, const struct attention_problem *problem);

/* cuDNN, if it is there; attention_library.cu. attention_by_library: false when the problem is not one for the library;
 * then nothing has happened to its result, or what has is of no meaning. All rows begin at multiples of 16 bytes. */
void attention_library_open(struct cuda_state *state);
void attention_library_close(struct cuda_state *state);
bool attention_by_library(struct cuda_state *state, const struct attention_problem *problem, float scale);

/* A problem with heads of more than 128 dimensions. aligned: all rows begin at multiples of
 * 16 bytes. attention_wide.cu */
void attention_wide(struct cuda_state *state, const struct attention_problem *problem, bool aligned);

#endif
