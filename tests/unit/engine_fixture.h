/* engine_fixture.h: what the tests of the engine share: the tiny checkpoint of tests/golden, open, and jobs on it. */
#ifndef LANCE_TESTS_ENGINE_FIXTURE_H
#define LANCE_TESTS_ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/engine/lance.h"
#include "kernels/kernels.h"
#include "tests/golden/assemble.h"

static char folder[] = "/tmp/lance-engine-XXXXXX"; /* of the checkpoint */
static struct kernels *kernels;
static struct lance_model *model;

/* Make the checkpoint's folder. Returns 0, as a cmocka set-up function does; so do the next three. */
static inline int make_checkpoint(void)
{
    struct error error = {0};
    if (mkdtemp(folder) && !assemble_checkpoint("tests/golden/data", NULL, folder, &error))
        return 0;
    print_error("%s\n", error.text);
    return -1;
}

/* The same with the CPU's backend open. */
static inline int open_checkpoint(void)
{
    struct error error = {0};
    if (make_checkpoint())
        return -1;
    if (!kernels_cpu_open(&kernels, 2, CPU_AUTO, &error))
        return 0;
    print_error("%s\n", error.text);
    return -1;
}

/* Load the model, once there are a checkpoint and a backend. */
static inline int load_model(void)
{
    struct error error = {0};
    if (!lance_model_open(&model, kernels, &(struct lance_model_options){.model_dir = folder}, &error))
        return 0;
    print_error("%s\n", error.text);
    return -1;
}

static inline int open_engine(void)
{
    return open_checkpoint() || load_model() ? -1 : 0;
}

static inline int close_engine(void **state)
{
    (void)state;
    char command[64];
    lance_model_close(model);
    const uint64_t left = kernels->memory_in_use(kernels);
    kernels->close(kernels);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) || left;
}

/* Pixels with some structure; as many for every test that wants the same source. */
static inline void fill_source(uint8_t *pixels, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        pixels[i] = (uint8_t)(i / 80 * 7 + i % 80 * 3);
}

/* Values are looked at when the job runs, not when it is admitted: the first stage says what is wrong. */
static inline void assert_refused_while_preparing(const struct lance_request *request, const char *words)
{
    struct lance_job *job;
    struct lance_progress progress;
    struct error error = {0};
    const uint64_t before = kernels->memory_in_use(kernels);
    int code = lance_job_start(&job, model, request, &error);
    if (code)
        fail_msg("%s", error.text);
    while ((code = lance_job_step(job, &progress, &error)) >= 0)
        assert_int_equal(progress.stage, STAGE_PREPARE);
    assert_int_equal(code, ERROR_BAD_REQUEST);
    if (!strstr(error.text, words))
        fail_msg("\"%s\" does not say \"%s\"", error.text, words);
    lance_job_close(job);
    assert_int_equal(kernels->memory_in_use(kernels), before);
}

static inline struct lance_job *start(const struct lance_request *request)
{
    struct lance_job *job;
    struct error error;
    if (lance_job_start(&job, model, request, &error))
        fail_msg("%s", error.text);
    return job;
}

static inline int step(struct lance_job *job, struct lance_progress *progress)
{
    struct error error;
    int code = lance_job_step(job, progress, &error);
    if (code < 0)
        fail_msg("%s", error.text);
    return code;
}

static inline struct lance_result finish(struct lance_job *job)
{
    struct lance_progress progress;
    struct lance_result result;
    struct error error;
    while (step(job, &progress) == LANCE_STEP_MORE)
        ;
    assert_int_equal(progress.total_step, progress.total_steps);
    if (lance_job_result(job, &result, &error))
        fail_msg("%s", error.text);
    return result;
}

#endif
