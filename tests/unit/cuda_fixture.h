/* cuda_fixture.h: what the tests of the CUDA operators share: the backend beside the CPU's, and comparison.
 *
 * The backend is the emulated one (tests/cuda_emulation), or, with LANCED_CUDA_PLUGIN set, a card's: the same tests,
 * with larger shapes where a test asks on_card(). Inputs are rounded to bf16 for both, so that what differs is the
 * order of sums and the rounding of outputs: half a unit in the last of 8 significant bits, 2^-8 of each value at most
 * (on average over many values, 0.42 of that), and what an intermediate in bf16 adds where an operator has one.
 */
#ifndef LANCE_TESTS_CUDA_FIXTURE_H
#define LANCE_TESTS_CUDA_FIXTURE_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "kernel_fixture.h"
#include "kernels/plugin.h"

#define BF16_ROUNDING (1.0 / 256.0)

struct pair {
    struct kernels *cpu, *cuda;
};

/* Whether the tests run on a card rather than emulated, and may take large shapes (LANCED_TESTS_SMALL forbids it: a
 * checker that makes everything slow is at work). */
static inline bool on_card(const struct pair *p)
{
    return !getenv("LANCED_TESTS_SMALL") && !strstr(p->cuda->name, "emulated");
}

/* The emulated plugin is found from the test's own place, BUILD/tests/unit. */
static inline void choose_emulated_plugin(void)
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    assert_true(length > 0);
    path[length] = '\0';
    *strrchr(path, '/') = '\0';
    strcat(path, "/../liblanced_cuda_emulated.so");
    assert_int_equal(setenv("LANCED_CUDA_PLUGIN", path, 0), 0); /* not over the caller's wish */
}

/* Have the backend load one of the emulated libraries, BUILD/tests/NAME, by the environment variable that says where it
 * is. Returns its path. */
static inline const char *choose_emulated_library(const char *variable, const char *name)
{
    static char path[4200];
    choose_emulated_plugin();
    snprintf(path, sizeof path, "%s", getenv("LANCED_CUDA_PLUGIN"));
    snprintf(strrchr(path, '/'), 100, "/%s", name);
    assert_int_equal(setenv(variable, path, 1), 0);
    return path;
}

/* What an emulated library counts, since the program began; `function` says it. */
static inline int emulated_count(const char *library_path, const char *function)
{
    void *library = dlopen(library_path, RTLD_NOW);
    int (*count)(void);
    assert_non_null(library);
    *(void **)&count = dlsym(library, function);
    assert_non_null(count);
    int result = count();
    dlclose(library);
    return result;
}

/* Group setup and teardown; *state is a struct pair. */
static inline int open_pair(void **state)
{
    static struct pair pair;
    struct error error = {0};
    choose_emulated_plugin();
    if (kernels_cpu_open(&pair.cpu, 0, CPU_AUTO, &error) || kernels_cuda_load(&pair.cuda, 0, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return -1;
    }
    *state = &pair;
    return 0;
}

static inline int close_pair(void **state)
{
    struct pair *p = *state;
    p->cuda->close(p->cuda);
    p->cpu->close(p->cpu);
    return 0;
}

/* Random values in [-amplitude, amplitude), each one a bf16. */
static inline float *random_bf16(size_t n, float amplitude)
{
    float *x = random_floats(n, amplitude);
    for (size_t i = 0; i < n; i++)
        x[i] = bf16_to_float(float_to_bf16(x[i]));
    return x;
}

/* Activations and parameters on a backend, holding these values. Free with k->memory_free. */
static inline act *act_with(struct kernels *k, const float *values, size_t n)
{
    void *memory = NULL;
    struct error error = {0};
    assert_int_equal(k->memory_alloc(k, &memory, n * k->act_bytes, &error), 0);
    k->upload(k, memory, values, n);
    return memory;
}

static inline param *param_with(struct kernels *k, const float *values, size_t n)
{
    void *memory = NULL;
    struct error error = {0};
    assert_int_equal(k->memory_alloc(k, &memory, n * sizeof(float), &error), 0);
    k->param_upload(k, memory, values, n);
    return memory;
}

/* The values on a backend, after everything enqueued before; free() them. */
static inline float *values_of_act(struct kernels *k, const act *x, size_t n)
{
    struct error error = {0};
    float *values = checked_alloc(n * sizeof *values);
    k->download(k, values, x, n);
    if (k->sync(k, &error))
        fail_msg("%s", error.text);
    return values;
}

static inline float *values_of_param(struct kernels *k, const param *x, size_t n)
{
    struct error error = {0};
    float *values = checked_alloc(n * sizeof *values);
    k->param_download(k, values, x, n);
    if (k->sync(k, &error))
        fail_msg("%s", error.text);
    return values;
}

/* |got - want| over everything, of |want|, must not exceed `relative`; and no single value may be off by more than
 * `each` of itself plus `each` of the root mean square. */
static inline void assert_near(const float *got, const float *want, size_t n, double relative, double each)
{
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i]))
            fail_msg("value %zu of %zu is %g, not %g", i, n, (double)got[i], (double)want[i]);
        difference += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        size += (double)want[i] * (double)want[i];
    }
    const double mean = sqrt(size / (double)(n ? n : 1));
    for (size_t i = 0; i < n; i++)
        if (fabs((double)got[i] - (double)want[i]) > each * (fabs((double)want[i]) + mean))
            fail_msg("value %zu of %zu is %g, not %g", i, n, (double)got[i], (double)want[i]);
    if (sqrt(difference) > relative * sqrt(size))
        fail_msg("relative error %.3g is over %.3g", sqrt(difference) / (sqrt(size) + 1e-30), relative);
}

/* The same bytes, and something in them. */
static inline void assert_same_bytes_of_act(struct kernels *k, const act *one, const act *other, size_t n)
{
    float *left = values_of_act(k, one, n), *right = values_of_act(k, other, n);
    assert_true(isfinite(left[n - 1]) && fabsf(left[n - 1]) > 0.0f);
    assert_memory_equal(left, right, n * sizeof *left);
    free(left);
    free(right);
}

/* Compare n activations that both backends hold, and free them. */
static inline void assert_same_act(struct pair *p, act *cuda, act *cpu, size_t n, double relative, double each)
{
    float *got = values_of_act(p->cuda, cuda, n), *want = values_of_act(p->cpu, cpu, n);
    assert_near(got, want, n, relative, each);
    free(got);
    free(want);
    p->cuda->memory_free(p->cuda, cuda);
    p->cpu->memory_free(p->cpu, cpu);
}

#endif
