/* last_part.cuh: blocks that share a piece of work leave their parts of it in memory; the one that ends last joins
 * them. That is the one place where blocks of a launch hand each other something. */
#ifndef LANCE_CUDA_LAST_PART_CUH
#define LANCE_CUDA_LAST_PART_CUH

#include <cuda_runtime.h>

/* Whether all other `parts` of the block's piece are done, so that this block joins them, by loads past the first cache
 * (__ldcg). `arrived` is the piece's counter, one of state->arrived. All threads of the block take part. */
__device__ inline bool is_last_part(unsigned *arrived, int parts)
{
    __shared__ bool is_last;
    __threadfence();
    __syncthreads(); /* what all threads of the block stored is there for all blocks */
    if (threadIdx.x == 0) {
        is_last = atomicAdd(arrived, 1u) + 1 == (unsigned)parts;
        if (is_last)
            *arrived = 0; /* for the next launch: no other block comes */
    }
    __syncthreads();
    __threadfence();
    return is_last;
}

#endif
