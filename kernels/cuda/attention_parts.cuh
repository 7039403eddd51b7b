/* attention_parts.cuh: attention problems as the kernels take them: by value, so that nothing has to be sent first.
 *
 * The query heads that share a key head are taken as rows beside each other: row i of a problem's `rows` is query i /
 * group in head kv_head * group + i % group, so that keys and values are read once for all of them. */
#ifndef LANCE_CUDA_ATTENTION_PARTS_CUH
#define LANCE_CUDA_ATTENTION_PARTS_CUH

#include "kernels/cuda/act.cuh"

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
    int segments;
    struct {
        const bf16 *keys, *values;
        int rows, stride;
    } segment[ATTENTION_MAX_SEGMENTS];
};

/* Whether the queries have a mask is told by causal_from: query i sees keys 0 .. causal_from + i - 1. */
__device__ inline int visible_keys(const struct attention_problem &p, int row)
{
    if (p.causal_from >= p.keys)
        return p.keys;
    int seen = p.causal_from + row / p.group;
    return seen < 0 ? 0 : seen < p.keys ? seen : p.keys;
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
