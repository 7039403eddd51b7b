/* numbers.h: the small floating-point numbers of checkpoints, as float32 and back. C, C++ and CUDA.
 *
 * Each function is the definition of its number; faster decoders (of whole vectors, or of numbers where they lie) stand
 * in the kernels that need them and are tested against these.
 */
#ifndef LANCE_FORMATS_NUMBERS_H
#define LANCE_FORMATS_NUMBERS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What a kernel on a card may call, too. */
#ifdef __CUDACC__
#define NUMBERS_FUNCTION static inline __host__ __device__
#else
#define NUMBERS_FUNCTION static inline
#endif

/* --- bf16: the upper half of a float32 ------------------------------------------------------------- */

NUMBERS_FUNCTION float bf16_to_float(uint16_t code)
{
    uint32_t bits = (uint32_t)code << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The nearest one, the even one of two that are as near. Not for NaN. */
static inline uint16_t float_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Each value the nearest bf16 one, in place: as PyTorch's numbers are when they become bfloat16. Not for NaN. */
static inline void bf16_round(float *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        values[i] = bf16_to_float(float_to_bf16(values[i]));
}

/* --- FP8 (E4M3): a sign, 4 bits of exponent with bias 7, 3 bits of mantissa; no infinities ------------ */

/* 0x7f and 0xff, which stand for no number, read as 480 and -480. */
NUMBERS_FUNCTION float e4m3_to_float(uint8_t code)
{
    uint32_t bits = (uint32_t)(code & 0x7f) << 20 | (uint32_t)(code & 0x80) << 24;
    float value; /* moved into a float as it is, the exponent is 120 too small */
    memcpy(&value, &bits, sizeof value);
    return value * 0x1p120f;
}

/* The nearest one, at most 448 in size. Not for NaN. */
static inline uint8_t float_to_e4m3(float value)
{
    const uint8_t sign = signbit(value) ? 0x80 : 0;
    const float size = fminf(fabsf(value), 448.0f);
    int exponent;
    frexpf(size, &exponent);         /* size = f * 2^exponent, f in [0.5, 1) */
    if (exponent < -5 || size == 0)  /* subnormal: multiples of 2^-9 */
        return (uint8_t)(sign | (int)lrintf(ldexpf(size, 9)));
    const int significand = (int)lrintf(ldexpf(size, 4 - exponent)); /* 8 to 16 */
    return (uint8_t)(sign | (((exponent + 6) << 3) + significand - 8));
}

/* --- FP4 (E2M1): a sign, 2 bits of exponent, 1 bit of mantissa ------------------------------------------ */

enum { FP4_CODES = 16 };

/* The value of every code. */
static inline const float *fp4_levels(void)
{
    static const float levels[FP4_CODES] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                            -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    return levels;
}

static inline float fp4_to_float(unsigned code)
{
    return fp4_levels()[code % FP4_CODES];
}

/* The code of the nearest level, the even one of two that are as near. Not for NaN. */
static inline unsigned float_to_fp4(float value)
{
    const float size = fabsf(value);
    unsigned nearest = 0;
    for (unsigned code = 1; code < FP4_CODES / 2; code++) {
        const float half_way = 0.5f * (fp4_to_float(code - 1) + fp4_to_float(code));
        if (size > half_way || (size == half_way && code % 2 == 0))
            nearest = code;
    }
    return nearest | (signbit(value) ? 8u : 0u);
}

/* --- numbers in a file, whose addresses need not be aligned ------------------------------------------------ */

static inline float bf16_at(const void *base, size_t i)
{
    uint16_t code;
    memcpy(&code, (const char *)base + i * sizeof code, sizeof code);
    return bf16_to_float(code);
}

static inline float f32_at(const void *base, size_t i)
{
    float value;
    memcpy(&value, (const char *)base + i * sizeof value, sizeof value);
    return value;
}

#endif
