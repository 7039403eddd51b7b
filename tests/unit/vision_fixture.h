/* vision_fixture.h: what the tests of the VAE and the ViT share: the tiny checkpoint on the CPU backend, recorded
 * tensors, and a comparison. */
#ifndef LANCE_TESTS_VISION_FIXTURE_H
#define LANCE_TESTS_VISION_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "kernels/kernels.h"
#include "tests/golden/assemble.h"

struct fixture {
    char folder[32];
    struct kernels *kernels;
    struct checkpoint *checkpoint;
};

#define ASSERT_OK(call, error)                                                                                         \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            fail_msg("%s", (error).text);                                                                              \
    } while (0)

static inline int fixture_open(struct fixture *fixture)
{
    struct error error = {0};
    strcpy(fixture->folder, "/tmp/lance-vision-XXXXXX");
    if (!mkdtemp(fixture->folder) || assemble_checkpoint("tests/golden/data", NULL, fixture->folder, &error) < 0 ||
        kernels_cpu_open(&fixture->kernels, 2, CPU_AUTO, &error) < 0 ||
        checkpoint_open(&fixture->checkpoint, &(struct checkpoint_options){.model_dir = fixture->folder}, &error) < 0) {
        print_error("fixture: %s\n", error.text);
        return -1;
    }
    return 0;
}

static inline int fixture_close(struct fixture *fixture)
{
    char command[64];
    checkpoint_close(fixture->checkpoint);
    fixture->kernels->close(fixture->kernels);
    snprintf(command, sizeof command, "rm -r %s", fixture->folder);
    return system(command);
}

static inline struct safetensors *open_recorded(const char *path)
{
    struct error error = {0};
    struct safetensors *file;
    ASSERT_OK(safetensors_open(&file, path, &error), error);
    return file;
}

/* A recorded float tensor, in fresh memory. */
static inline float *recorded(const struct safetensors *file, const char *name, size_t elements)
{
    struct error error = {0};
    const struct tensor_view *tensor = safetensors_find(file, name);
    assert_non_null(tensor);
    assert_int_equal(tensor_elements(tensor), elements);
    float *values = malloc(elements * sizeof *values);
    assert_non_null(values);
    ASSERT_OK(tensor_to_float(tensor, values, &error), error);
    return values;
}

/* |got - want| / |want| over all elements, NaN if there is one. */
static inline double relative_error(const float *got, const float *want, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    return sqrt(difference / norm);
}

/* Call `attempt` again and again, letting the first, then the second, then the third allocation of device memory fail,
 * and so on, until it succeeds. Whenever it fails it must say so and leave nothing behind. `attempt` undoes what it did
 * when it succeeds. Returns how often it failed. */
static int allocations_left;
static int (*real_memory_alloc)(struct kernels *k, void **out, size_t bytes, struct error *error);
static int failing_memory_alloc(struct kernels *k, void **out, size_t bytes, struct error *error)
{
    *out = NULL;
    if (allocations_left-- == 0)
        return error_set(error, ERROR_NO_MEMORY, "no device memory");
    return real_memory_alloc(k, out, bytes, error);
}

static inline int count_failures(struct kernels *kernels, int (*attempt)(struct error *error))
{
    real_memory_alloc = kernels->memory_alloc;
    kernels->memory_alloc = failing_memory_alloc;
    uint64_t before = kernels->memory_in_use(kernels);
    int failures = 0, status;
    do {
        struct error error = {0};
        allocations_left = failures;
        status = attempt(&error);
        assert_int_equal(kernels->memory_in_use(kernels), before);
        if (status < 0) {
            assert_int_equal(status, ERROR_NO_MEMORY);
            assert_int_equal(error.code, ERROR_NO_MEMORY);
            failures++;
        }
    } while (status < 0);
    kernels->memory_alloc = real_memory_alloc;
    return failures;
}

#define ASSERT_CLOSE(got, want, n, bound)                                                                              \
    do {                                                                                                               \
        double error_ = relative_error((got), (want), (n));                                                            \
        if (!(error_ <= (bound)))                                                                                      \
            fail_msg("relative error %.2e of %s against %s, at most %.0e is right", error_, #got, #want, (bound));     \
    } while (0)

/* The same numbers as synthetic() in make_vision_vectors.py. */
static inline float *synthetic(size_t n)
{
    float *values = malloc(n * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(i * 7919 % 2000) / 1000.0f - 1.0f;
    return values;
}

#endif
