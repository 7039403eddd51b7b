/* act.cuh: activations as float: loads and stores of 1, 2 and 8 neighbouring bf16 values, rounded to nearest even.
 *
 * Two values need an address that is a multiple of 4, eight one of 16 (act_aligned tells). */
#ifndef LANCE_CUDA_ACT_CUH
#define LANCE_CUDA_ACT_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "kernels/cuda/state.cuh"

__device__ inline float load_act(const bf16 *from)
{
    return __bfloat162float(*from);
}

__device__ inline void store_act(bf16 *to, float value)
{
    *to = __float2bfloat16_rn(value);
}

/* Two bf16 in one word, the first in the low half, and back. */
__device__ inline uint32_t pack_act2(float first, float second)
{
    union {
        __nv_bfloat162 pair;
        uint32_t word;
    } both;
    both.pair = __floats2bfloat162_rn(first, second);
    return both.word;
}

__device__ inline float2 unpack_act2(uint32_t word)
{
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u));
}

__device__ inline float2 load_act2(const bf16 *from)
{
    return unpack_act2(*reinterpret_cast<const uint32_t *>(from));
}

__device__ inline void store_act2(bf16 *to, float first, float second)
{
    *reinterpret_cast<uint32_t *>(to) = pack_act2(first, second);
}

__device__ inline void load_act8(const bf16 *from, float (&values)[8])
{
    const uint4 words = *reinterpret_cast<const uint4 *>(from);
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 pair = unpack_act2(word[i]);
        values[2 * i] = pair.x;
        values[2 * i + 1] = pair.y;
    }
}

__device__ inline void store_act8(bf16 *to, const float (&values)[8])
{
    uint4 words;
    words.x = pack_act2(values[0], values[1]);
    words.y = pack_act2(values[2], values[3]);
    words.z = pack_act2(values[4], values[5]);
    words.w = pack_act2(values[6], values[7]);
    *reinterpret_cast<uint4 *>(to) = words;
}

/* Whether eight values can be loaded at once from here; all of several addresses when these are or-ed together. */
static inline bool act_aligned(uintptr_t address)
{
    return address % 16 == 0;
}
static inline uintptr_t act_address(const void *memory)
{
    return reinterpret_cast<uintptr_t>(memory);
}

/* x / (1 + e^-x), with a division that is right to 2 of float32's last places: a bf16 has 16 bits less. */
__device__ inline float silu(float x)
{
    return __fdividef(x, 1.0f + expf(-x));
}

#endif
