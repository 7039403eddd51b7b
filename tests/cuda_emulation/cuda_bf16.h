/* cuda_bf16.h: bfloat16 as the kernels use it; see cuda_runtime.h. */
#ifndef LANCE_EMULATED_CUDA_BF16_H
#define LANCE_EMULATED_CUDA_BF16_H

#include "cuda_runtime.h"

struct alignas(2) __nv_bfloat16 {
    unsigned short bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

static inline float __bfloat162float(__nv_bfloat16 value)
{
    return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}

/* To nearest, ties to even; NaN stays NaN. */
static inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    const unsigned bits = __float_as_uint(value);
    if (value != value)
        return __nv_bfloat16{0x7fff};
    return __nv_bfloat16{static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

static inline __nv_bfloat16 __float2bfloat16(float value)
{
    return __float2bfloat16_rn(value);
}

static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return __nv_bfloat162{__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}

static inline float2 __bfloat1622float2(__nv_bfloat162 pair)
{
    return make_float2(__bfloat162float(pair.x), __bfloat162float(pair.y));
}

/* Each rounded once: float32 holds the products of two bf16 exactly. */
static inline __nv_bfloat162 __hsub2(__nv_bfloat162 a, __nv_bfloat162 b)
{
    return __floats2bfloat162_rn(__bfloat162float(a.x) - __bfloat162float(b.x),
                                 __bfloat162float(a.y) - __bfloat162float(b.y));
}

static inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b)
{
    return __floats2bfloat162_rn(__bfloat162float(a.x) * __bfloat162float(b.x),
                                 __bfloat162float(a.y) * __bfloat162float(b.y));
}

static inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c)
{
    return __floats2bfloat162_rn(fmaf(__bfloat162float(a.x), __bfloat162float(b.x), __bfloat162float(c.x)),
                                 fmaf(__bfloat162float(a.y), __bfloat162float(b.y), __bfloat162float(c.y)));
}

static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y)
{
    return __nv_bfloat162{x, y};
}

static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    return __nv_bfloat16{bits};
}

static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value)
{
    return value.bits;
}

#endif
