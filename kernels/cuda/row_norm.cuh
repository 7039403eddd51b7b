/* row_norm.cuh: the RMS norm of a row, in pieces that norm.cu and the product of few rows (which norms its rows itself)
 * share, so that both give the same bytes: a row's squares are added by one warp, or, of a wide row, by NORM_WARPS. */
#ifndef LANCE_CUDA_ROW_NORM_CUH
#define LANCE_CUDA_ROW_NORM_CUH

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/warp.cuh"

enum { NORM_WARPS = 8, NORM_WIDE = 8, NORM_NARROW_WIDTH = 1024 };

/* What a thread adds of a row whose address and width are multiples of NORM_WIDE values: those from `first` on, in
 * steps of `step`. */
__device__ inline float squares_of_thread(const bf16 *row, int first, int step, int width)
{
    float sum = 0.0f;
    for (int i = first; i < width; i += step) {
        float v[NORM_WIDE];
        load_act8(row + i, v);
#pragma unroll
        for (int j = 0; j < NORM_WIDE; j++)
            sum = fmaf(v[j], v[j], sum);
    }
    return sum;
}

__device__ inline float rms_factor(float sum, int width, float eps)
{
    return 1.0f / sqrtf(sum / static_cast<float>(width) + eps);
}

__device__ inline void load_weights8(const float *weight, float (&w)[NORM_WIDE])
{
    const float4 first = *reinterpret_cast<const float4 *>(weight);
    const float4 second = *reinterpret_cast<const float4 *>(weight + 4);
    w[0] = first.x, w[1] = first.y, w[2] = first.z, w[3] = first.w;
    w[4] = second.x, w[5] = second.y, w[6] = second.z, w[7] = second.w;
}

#endif
