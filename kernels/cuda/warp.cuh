/* warp.cuh: sums and maxima over the lanes of a warp and the threads of a block.
 *
 * Every lane gets the result, added in an order that depends on nothing but the lanes'
 * numbers: same bytes every run. */
#ifndef LANCE_CUDA_WARP_CUH
#define LANCE_CUDA_WARP_CUH

#include <cuda_runtime.h>

enum { WARP = 32 };
#define ALL_LANES 0xffffffffu

/* Over groups of `lanes` neighbouring lanes (a power of two up to 32). All 32 lanes take part. */
template <int lanes = WARP, typename T> __device__ inline T warp_sum(T value)
{
#pragma unroll
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

template <int lanes = WARP> __device__ inline float warp_max(float value)
{
#pragma unroll
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, distance));
    return value;
}

/* Over a one-dimensional block of whole warps, at most 32. `shared` holds 32 values of the caller; it may be used again
 * right after. All threads take part. */
template <typename T> __device__ inline T block_sum(T value, T *shared)
{
    const unsigned warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    value = warp_sum(value);
    if (warps == 1)
        return value;
    if (lane == 0)
        shared[warp] = value;
    __syncthreads();
    value = warp_sum(lane < warps ? shared[lane] : T(0));
    __syncthreads();
    return value;
}

#endif
