/* noise.c: PyTorch's normal random streams (see noise.h).
 *
 * CPU stream: the Mersenne Twister of at::mt19937 and the two normal kernels of
 * PyTorch 2.x. From 16 values on, PyTorch draws float uniforms and transforms them
 * 16 at a time with the polynomial logarithm, sine and cosine of Cephes, in the
 * AVX2 build that every x86 machine of the last ten years runs. Its compiler fuses
 * multiplications into additions; the fmaf calls below stand exactly where it does,
 * so these are the same bits on any machine. Below 16 values it works in double.
 *
 * CUDA stream: Philox4x32-10 as curand's device library uses it, one subsequence for
 * each thread, in the launch geometry of PyTorch's distribution kernels. The
 * integers are exact. Of the float part the logarithm and the reduction of the angle
 * follow the CUDA math library step by step; the sine and cosine come from the card's
 * special function unit, whose tables are not published, so the low bits of a float32
 * draw may differ from a card's. docs/gpu-todo.md says how to check it on a card.
 *
 * The geometry matters only beyond multiprocessors x threads values; below, every card
 * draws the same. Cards: A100 108 x 2048, H100 SXM and H200 132 x 2048, B200 148 x 2048,
 * L4 58 x 1536, RTX 3090 82 x 1536, RTX 4090 128 x 1536, RTX 5090 170 x 1536.
 *
 * Multiplications and additions in this file must not be fused by the compiler:
 * -std=c11 forbids it to gcc, the pragma to clang.
 */
#include "base/noise.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

/* ---- Mersenne Twister (Matsumoto and Nishimura 1998), seeded as at::mt19937 ---- */

enum { TWISTER_WORDS = 624, TWISTER_MIDDLE = 397, TWISTER_LAST = TWISTER_WORDS - 1 };

struct twister {
    uint32_t state[TWISTER_WORDS];
    int next; /* TWISTER_WORDS: the state has to be renewed first */
};

static void twister_seed(struct twister *twister, uint64_t seed)
{
    twister->state[0] = (uint32_t)seed; /* PyTorch drops the upper half, too */
    for (uint32_t i = 1; i < TWISTER_WORDS; i++) {
        uint32_t previous = twister->state[i - 1];
        twister->state[i] = 1812433253u * (previous ^ (previous >> 30)) + i;
    }
    twister->next = TWISTER_WORDS;
}

static void twister_renew(struct twister *twister)
{
    uint32_t *state = twister->state;
    for (int i = 0; i < TWISTER_WORDS; i++) {
        uint32_t following = state[i == TWISTER_LAST ? 0 : i + 1];
        uint32_t mixed = (state[i] & 0x80000000u) | (following & 0x7fffffffu);
        uint32_t distant = state[(i + TWISTER_MIDDLE) % TWISTER_WORDS];
        state[i] = distant ^ (mixed >> 1) ^ (following & 1 ? 0x9908b0dfu : 0);
    }
    twister->next = 0;
}

static uint32_t twister_next(struct twister *twister)
{
    if (twister->next == TWISTER_WORDS)
        twister_renew(twister);
    uint32_t y = twister->state[twister->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    y ^= y >> 18;
    return y;
}

/* A float in [0, 1) with 24 bits. */
static float twister_float(struct twister *twister)
{
    return (float)(twister_next(twister) & 0xffffffu) * 0x1p-24f;
}

/* A double in [0, 1) with 53 bits. */
static double twister_double(struct twister *twister)
{
    uint64_t high = twister_next(twister);
    uint64_t low = twister_next(twister);
    return (double)(((high << 32) | low) & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* ---- Cephes' float functions, as PyTorch's AVX2 build evaluates them ---- */

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Natural logarithm of a normal x in (0, 1]. */
static float cephes_logf(float x)
{
    uint32_t bits = bits_of(x);
    float exponent = (float)((int)(bits >> 23) - 126);
    float mantissa = float_of((bits & 0x807fffffu) | 0x3f000000u); /* in [0.5, 1) */
    bool low = mantissa < 0.707106781186547524f;
    float f = mantissa - 1.0f;
    if (low) {
        exponent -= 1.0f;
        f += mantissa;
    }
    float square = f * f;
    float y = 7.0376836292E-2f;
    y = fmaf(y, f, -1.1514610310E-1f);
    y = fmaf(y, f, 1.1676998740E-1f);
    y = fmaf(y, f, -1.2420140846E-1f);
    y = fmaf(y, f, 1.4249322787E-1f);
    y = fmaf(y, f, -1.6668057665E-1f);
    y = fmaf(y, f, 2.0000714765E-1f);
    y = fmaf(y, f, -2.4999993993E-1f);
    y = fmaf(y, f, 3.3333331174E-1f);
    y = y * f;
    y = fmaf(y, square, exponent * -2.12194440e-4f);
    y = fmaf(square, -0.5f, y);
    return fmaf(exponent, 0.693359375f, f + y);
}

/* Sine and cosine of an x in [0, 2 pi]. */
static void cephes_sincosf(float x, float *sine, float *cosine)
{
    int octant = ((int)(x * 1.27323954473516f) + 1) & ~1;
    float k = (float)octant;
    x = fmaf(k, -0.78515625f, x);
    x = fmaf(k, -2.4187564849853515625e-4f, x);
    x = fmaf(k, -3.77489497744594108e-8f, x);
    float z = x * x;

    float even = 2.443315711809948E-005f;
    even = fmaf(even, z, -1.388731625493765E-003f);
    even = fmaf(even, z, 4.166664568298827E-002f);
    even = even * z;
    even = fmaf(even, z, -(z * 0.5f));
    even = even + 1.0f;

    float odd = -1.9515295891E-4f;
    odd = fmaf(odd, z, 8.3321608736E-3f);
    odd = fmaf(odd, z, -1.6666654611E-1f);
    odd = odd * z;
    odd = fmaf(odd, x, x);

    bool swapped = octant & 2;
    float s = (swapped ? even : odd) + 0.0f;
    float c = (swapped ? odd : even) + 0.0f;
    *sine = octant & 4 ? -s : s;
    *cosine = (octant - 2) & 4 ? c : -c;
}

/* Box-Muller on 16 uniforms in place: the first 8 give the radii, the last 8 the angles. */
static void normal_of_16_uniforms(float *values)
{
    for (int i = 0; i < 8; i++) {
        float radius = sqrtf(-2.0f * cephes_logf(1.0f - values[i]));
        float sine, cosine;
        cephes_sincosf(6.283185307179586f * values[i + 8], &sine, &cosine);
        values[i] = radius * cosine + 0.0f;
        values[i + 8] = radius * sine + 0.0f;
    }
}

static void normal_few(struct twister *twister, float *out, size_t n)
{
    const double pi = 3.14159265358979323846;
    for (size_t i = 0; i < n; i += 2) {
        double u1 = twister_double(twister);
        double u2 = twister_double(twister);
        double radius = sqrt(-2.0 * log1p(-u2));
        double angle = 2.0 * pi * u1;
        out[i] = (float)(radius * cos(angle));
        if (i + 1 < n)
            out[i + 1] = (float)(radius * sin(angle));
    }
}

void noise_torch_cpu(uint64_t seed, float *out, size_t n)
{
    struct twister twister;
    twister_seed(&twister, seed);
    if (n < 16) {
        normal_few(&twister, out, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = twister_float(&twister);
    for (size_t i = 0; i + 16 <= n; i += 16)
        normal_of_16_uniforms(out + i);
    if (n % 16) { /* PyTorch draws the last 16 anew */
        float *last = out + n - 16;
        for (int i = 0; i < 16; i++)
            last[i] = twister_float(&twister);
        normal_of_16_uniforms(last);
    }
}

/* ---- CUDA ---- */

void noise_philox4x32_10(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = (uint64_t)0xd2511f53u * c0;
        uint64_t product1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The CUDA math library's logf for a normal x in (0, 1], operation by operation. */
static float cuda_logf(float x)
{
    uint32_t bits = bits_of(x);
    uint32_t scale = (bits - 0x3f2aaaabu) & 0xff800000u;
    float f = float_of(bits - scale) - 1.0f;
    float exponent = (float)(int32_t)scale * 0x1p-23f;
    float r = -0x1.0aa04ep-3f;
    r = fmaf(r, f, 0x1.2073ecp-3f);
    r = fmaf(r, f, -0x1.f19b98p-4f);
    r = fmaf(r, f, 0x1.1e52aap-3f);
    r = fmaf(r, f, -0x1.55b172p-3f);
    r = fmaf(r, f, 0x1.99da16p-3f);
    r = fmaf(r, f, -0x1.fffe44p-3f);
    r = fmaf(r, f, 0x1.5554fp-2f);
    r = fmaf(r, f, -0.5f);
    r = r * f;
    r = fmaf(r, f, f);
    return fmaf(exponent, 0x1.62e43p-1f, r);
}

/* a * b of two positive floats, rounded towards zero. */
static float multiply_towards_zero(float a, float b)
{
    double exact = (double)a * (double)b;
    float nearest = (float)exact;
    return (double)nearest > exact ? float_of(bits_of(nearest) - 1) : nearest;
}

/* curand's Box-Muller. The special function unit takes the angle in turns, reduced
 * with rounding towards zero; its answer is modelled as the exact value, rounded. */
static void cuda_box_muller(uint32_t x, uint32_t y, float out[2])
{
    const double two_pi = 6.28318530717958647692;
    float u = fmaf((float)x, 0x1p-32f, 0x1p-33f);
    float angle = fmaf((float)y, 0x1p-32f * 6.2831855f, 0x1p-33f * 6.2831855f);
    float radius = sqrtf(-2.0f * cuda_logf(u));
    double turns = (double)multiply_towards_zero(angle, 0.15915494f);
    out[0] = (float)sin(two_pi * turns) * radius;
    out[1] = (float)cos(two_pi * turns) * radius;
}

void noise_torch_cuda(uint64_t seed, int multiprocessors, int threads_per_multiprocessor, float *out, size_t n)
{
    enum { BLOCK_THREADS = 256 };
    if (!n)
        return;
    size_t blocks = (n + BLOCK_THREADS - 1) / BLOCK_THREADS;
    size_t resident = (size_t)multiprocessors * (size_t)(threads_per_multiprocessor / BLOCK_THREADS);
    size_t threads = BLOCK_THREADS * (blocks < resident ? blocks : resident);
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};

    /* Each thread makes four values a turn and puts them `threads` elements apart. */
    uint64_t turn = 0;
    for (size_t base = 0; base < n; base += 4 * threads, turn++) {
        for (size_t thread = 0; thread < threads && base + thread < n; thread++) {
            const uint32_t counter[4] = {(uint32_t)turn, (uint32_t)(turn >> 32), (uint32_t)thread,
                                         (uint32_t)((uint64_t)thread >> 32)};
            uint32_t words[4];
            float values[4];
            noise_philox4x32_10(counter, key, words);
            cuda_box_muller(words[0], words[1], values);
            cuda_box_muller(words[2], words[3], values + 2);
            for (size_t i = 0; i < 4; i++)
                if (base + i * threads + thread < n)
                    out[base + i * threads + thread] = values[i];
        }
    }
}
