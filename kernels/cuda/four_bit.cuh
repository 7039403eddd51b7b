/* four_bit.cuh: from 4-bit codes to numbers, two at a time and without a conversion from integers: a code's bits are
 * put where they make a bf16 of known value. Used by the products that read codes and by dequantise.cu.
 *
 * A word of a matrix's codes (matrix.cuh) holds eight; those of fragment register i are (word >> 4 i) & 0x000f000f. */
#ifndef LANCE_CUDA_FOUR_BIT_CUH
#define LANCE_CUDA_FOUR_BIT_CUH

#include <string.h>

#include "kernels/cuda/matrix.cuh"

__device__ inline __nv_bfloat162 as_pair(uint32_t bits)
{
    __nv_bfloat162 pair;
    memcpy(&pair, &bits, sizeof pair);
    return pair;
}

__device__ inline uint32_t as_bits(__nv_bfloat162 pair)
{
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

/* The low and the high half of a pair, twice. */
__device__ inline uint32_t both_low(uint32_t pair)
{
    return __byte_perm(pair, pair, 0x1010);
}
__device__ inline uint32_t both_high(uint32_t pair)
{
    return __byte_perm(pair, pair, 0x3232);
}

/* The numbers that two codes stand for before their scale, exactly, as a pair of bf16: NVFP4's levels, MLX's codes,
 * AWQ's codes less their zero. codes: those at bits 0 and 16. zeros: of AWQ zero + AWQ_BIAS of the row, twice. */
template <enum matrix_layout LAYOUT> __device__ inline __nv_bfloat162 numbers_of(uint32_t codes, uint32_t zeros)
{
    if (LAYOUT == MATRIX_NVFP4) {
        /* exponent and mantissa at their places in a bf16, 126 binary places too low */
        uint32_t low = (codes << 6 & 0x01c001c0) | (codes << 12 & 0x80008000);
        return __hmul2(as_pair(low), as_pair(0x7e807e80));
    }
    uint32_t biased = (codes & 0x000f000f) | 0x43004300; /* 128 + code: the last place of a bf16 there is 1 */
    /* 128 + zero is exact in bf16, too, as a zero is at most 15 */
    return __hsub2(as_pair(biased), as_pair(LAYOUT == MATRIX_AWQ ? zeros : 0x43004300));
}

/* The left fragment of one step of 16 columns. scale and second: of the step's group, rows g and g + 8. */
template <enum matrix_layout LAYOUT>
__device__ inline void decode_step(uint32_t (&a)[4], uint32_t word, uint32_t scale, uint32_t second)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t of_row = i % 2 ? both_high(second) : both_low(second);
        __nv_bfloat162 numbers = numbers_of<LAYOUT>(word >> (4 * i), of_row);
        if (LAYOUT == MATRIX_MLX)
            numbers = __hfma2(numbers, as_pair(i % 2 ? both_high(scale) : both_low(scale)), as_pair(of_row));
        a[i] = as_bits(numbers);
    }
}

#endif
