/* kernel_fixture.h: what the tests of the CPU operators share: every way to open the
 * backend, random data, and comparison with a double-precision reference. */
#ifndef LANCE_TESTS_KERNEL_FIXTURE_H
#define LANCE_TESTS_KERNEL_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/formats/numbers.h"
#include "kernels/kernels.h"

static inline uint64_t *random_state(void)
{
    static uint64_t state = 88172645463325252ull;
    return &state;
}

static inline uint32_t random_u32(void)
{
    uint64_t *s = random_state();
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return (uint32_t)(*s >> 32);
}

/* In [-1, 1). */
static inline float random_float(void)
{
    return (float)(int32_t)random_u32() / 2147483648.0f;
}

static inline void *checked_alloc(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    assert_non_null(memory);
    return memory;
}

static inline float *random_floats(size_t n, float amplitude)
{
    float *x = checked_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = amplitude * random_float();
    return x;
}

static inline double *zero_doubles(size_t n)
{
    double *x = calloc(n ? n : 1, sizeof *x);
    assert_non_null(x);
    return x;
}

/* A copy that starts one byte after an aligned address; *block is what to free. */
static inline void *unaligned_copy(const void *from, size_t bytes, void **block)
{
    char *copy = checked_alloc(bytes + 1);
    memcpy(copy + 1, from, bytes);
    *block = copy;
    return copy + 1;
}

/* The backend in each form, one thread and several: portable, with AVX2, with AVX-512, then those in bf16,
 * each emulated and with the instructions themselves. Where the processor lacks what a form needs there is its
 * best, or the emulated one. */
enum { BACKENDS = 6, ROUNDED_BACKENDS = 14 };
static inline struct kernels *open_backend(int which)
{
    static const enum cpu_level levels[] = {CPU_PORTABLE, CPU_AVX2, CPU_AVX512, CPU_AMX_BF16_EMULATED, CPU_AMX_BF16,
                                            CPU_AVX512_BF16_EMULATED, CPU_AVX512_BF16};
    struct kernels *k = NULL;
    struct error error = {0};
    int threads = which % 2 ? 3 : 1, status = kernels_cpu_open(&k, threads, levels[which / 2], &error);
    if (status == ERROR_UNSUPPORTED)
        status = kernels_cpu_open(&k, threads, which < BACKENDS ? CPU_AUTO : levels[which / 2 - 1], &error);
    assert_int_equal(status, 0);
    assert_non_null(k);
    return k;
}

/* |got - want| / |want| over everything must not exceed `limit`. */
static inline void assert_close(const float *got, const double *want, size_t n, double limit)
{
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(got[i]));
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += want[i] * want[i];
    }
    double relative = sqrt(difference) / (sqrt(size) + 1e-30);
    if (relative > limit)
        fail_msg("relative error %.3g is over %.3g", relative, limit);
}

/* Results of all backends, or of those in float32 alone: close to the reference; equal bytes whatever the thread count,
 * with AVX2 and AVX-512, and with instructions for bf16 and their emulation. */
struct results {
    float *of[ROUNDED_BACKENDS];
    size_t n;
    double rounded_limit; /* how far they may be from the reference where factors are
                           * rounded to bf16, 8 bits; 0: 6e-3 */
};

static inline void check_results(struct results *r, const double *want, double limit)
{
    for (int i = 0; i < BACKENDS; i++)
        assert_close(r->of[i], want, r->n, limit);
    for (int i = BACKENDS; i < ROUNDED_BACKENDS && r->of[i]; i++) {
        assert_close(r->of[i], want, r->n, r->rounded_limit > 0.0 ? r->rounded_limit : 6e-3);
        assert_memory_equal(r->of[i], r->of[(i - BACKENDS) / 4 * 4 + BACKENDS], r->n * sizeof(float));
    }
    assert_memory_equal(r->of[0], r->of[1], r->n * sizeof(float));
    for (int i = 3; i < BACKENDS; i++)
        assert_memory_equal(r->of[2], r->of[i], r->n * sizeof(float));
    for (int i = 0; i < ROUNDED_BACKENDS; i++)
        free(r->of[i]);
}

static inline const act *as_act(const float *x)
{
    return (const act *)x;
}

static inline const param *as_param(const float *x)
{
    return (const param *)x;
}

/* An output buffer filled with `fill`, or with 0.25 everywhere when that is NULL. */
static inline float *output_like(const float *fill, size_t n)
{
    float *out = checked_alloc(n * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] = fill ? fill[i] : 0.25f;
    return out;
}

#endif
