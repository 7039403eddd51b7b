/* micro_avx2.h: what micro_avx2.c and micro_avx512.c share beside digits.h. */
#ifndef LANCE_CPU_MICRO_AVX2_H
#define LANCE_CPU_MICRO_AVX2_H

#include <immintrin.h>

#include "kernels/cpu/digits.h"

/* What each code of NVFP4 is to the byte multiplier: 2*level + 12. */
static inline __m128i nvfp4_bytes(void)
{
    return _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
}

#endif
