/* growing.cuh: memory that repeated work adds rows to, as every token adds its keys and values (kernels.h,
 * graph_grows). How many rows there are stands on the card, too: kernels are given places as they would be with none,
 * and count from there, so that their arguments, and the graphs with them, stay the same from token to token. Each
 * launch is right whatever memory was said to grow: it has been given the place less the number that it reads. */
#ifndef LANCE_CUDA_GROWING_CUH
#define LANCE_CUDA_GROWING_CUH

#include "kernels/cuda/state.cuh"

/* Whether what lies there is in memory that grows, by state->growing.rows rows. */
static inline bool cuda_grows(const struct cuda_state *state, const void *at)
{
    const char *place = static_cast<const char *>(at);
    return place >= state->growing.begin && place < state->growing.end;
}

/* Of a matrix whose rows are `stride` values apart: where the card has the number of rows that it has grown by, and
 * *at is moved to where it would be without them; or NULL: it does not grow. */
static inline const int *cuda_growing(const struct cuda_state *state, bf16 **at, int stride)
{
    if (!cuda_grows(state, *at))
        return NULL;
    *at -= static_cast<ptrdiff_t>(state->growing.rows) * stride;
    return state->growing.rows_on_card;
}

/* In a kernel: how many rows that is. */
__device__ inline int rows_grown(const int *grown)
{
    return grown ? *grown : 0;
}

#endif
