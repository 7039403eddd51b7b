/* calibrate.c: see calibrate.h. */
#include "tools/lance-quant/calibrate.h"

#include <cblas.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/whole_file.h"
#include "daemon/engine/tap.h"

enum { NOTE_BYTES = 128 };

static const double seconds_between_writes = 60; /* of what is counted so far */

struct calibration {
    const struct calibrate_options *options;
    const volatile int *interrupted;
    struct kernels *kernels;
    struct lance_model *model;
    struct statistics *statistics;
    struct gather *gather;
    char partial[PATH_MAX], identity[65];
    int done, before; /* samples, by earlier runs, too */
    double started, written;
};

static void add_products(const float *values, int rows, int stride, int width, float *sums)
{
    cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, width, rows, 1, values, stride, 1, sums, STATISTICS_BLOCK);
}

/* What the counts depend on. */
static void identify(struct calibration *c)
{
    const struct sample_sizes *sizes = &c->options->jobs->sizes;
    struct lance_model_info info;
    struct sha256 digest;
    char line[256];
    lance_model_info(c->model, &info);
    const int length = snprintf(line, sizeof line, "%s %d %dx%d %d %.60s %llu %d %s\n", info.hash, sizes->steps,
                                sizes->width, sizes->height, sizes->frames, sizes->resolution ? sizes->resolution : "",
                                (unsigned long long)sizes->seed, c->options->moments, c->kernels->name);
    sha256_start(&digest);
    sha256_add(&digest, line, (size_t)length);
    samples_digest(c->options->samples, &digest);
    sha256_finish(&digest, c->identity);
}

/* What an interrupted run left, or nothing yet. */
static int take_up(struct calibration *c, struct error *error)
{
    const bool there = access(c->partial, F_OK) == 0;
    if (there && !c->options->resume)
        return error_set(error, ERROR_BAD_REQUEST,
                         "%s is there, of a run that was cut off: say --resume to go on with it, "
                         "or take it away",
                         c->partial);
    if (!there)
        return statistics_new(&c->statistics, error);
    char hex[65] = "";
    int code = statistics_open(&c->statistics, c->partial, error);
    const char *note = code == 0 ? statistics_note(c->statistics) : NULL;
    if (code == 0 && (!note || sscanf(note, "%64s %d", hex, &c->done) != 2 || strcmp(hex, c->identity) != 0 ||
                      c->done < 0 || c->done > c->options->samples->count))
        code = error_set(error, ERROR_BAD_REQUEST, "%s is of another model, other samples or sizes; take it away to "
                         "begin anew", c->partial);
    if (code == 0)
        fprintf(stderr, "going on after %d of %d samples\n", c->done, c->options->samples->count);
    return code;
}

static int write_partial(struct calibration *c, struct error *error)
{
    char note[NOTE_BYTES];
    snprintf(note, sizeof note, "%s %d", c->identity, c->done);
    c->written = clock_seconds();
    return statistics_write(c->statistics, c->partial, note, error);
}

static void report(const struct calibration *c, const char *what)
{
    const int all = c->options->samples->count, here = c->done - c->before;
    const double seconds = clock_seconds() - c->started, left = here > 0 ? seconds / here * (all - c->done) : 0;
    fprintf(stderr, "%s%d of %d samples, %llu tokens", isatty(2) ? "\r" : "", c->done, all,
            (unsigned long long)gather_tokens(c->gather));
    if (here > 0)
        fprintf(stderr, ", %d:%02d left", (int)left / 60, (int)left % 60);
    fprintf(stderr, "%s%s%s", *what ? ": " : "", what, isatty(2) ? "\033[K" : "\n");
    if (isatty(2) && c->done == all)
        fputc('\n', stderr);
}

static int run_job(struct calibration *c, const struct lance_request *request, struct error *error)
{
    struct lance_job *job;
    struct lance_progress progress;
    int code = lance_job_start(&job, c->model, request, error);
    if (code != 0)
        return code;
    while ((code = lance_job_step(job, &progress, error)) == LANCE_STEP_MORE && *c->interrupted < 2)
        ;
    lance_job_close(job);
    if (code == LANCE_STEP_MORE)
        return error_set(error, ERROR_CANCELLED, "interrupted; --resume goes on");
    return code < 0 ? code : gather_check(c->gather, error);
}

static int run_sample(struct calibration *c, int index, struct error *error)
{
    struct sample_request sample;
    const char *task = lance_task_name(c->options->samples->list[index].task);
    int code = sample_open(&sample, c->options->samples, index, &c->options->jobs->sizes, error);
    sample.request.decode = false;
    if (isatty(2))
        report(c, task);
    if (code == 0)
        code = run_job(c, &sample.request, error);
    if (code == 0)
        code = statistics_add_task(c->statistics, task, error);
    sample_close(&sample);
    if (code != 0 && code != ERROR_CANCELLED)
        error_prefix(error, "sample %d (%s)", index + 1, task);
    return code;
}

static int run_samples(struct calibration *c, struct error *error)
{
    const int all = c->options->samples->count;
    int code = 0;
    c->before = c->done;
    c->started = c->written = clock_seconds();
    while (c->done < all && code == 0 && !*c->interrupted) {
        code = run_sample(c, c->done, error);
        if (code != 0)
            return code;
        c->done++;
        report(c, "");
        if (c->done < all && clock_seconds() - c->written > seconds_between_writes)
            code = write_partial(c, error);
    }
    if (code != 0 || c->done == all)
        return code;
    code = write_partial(c, error);
    return code != 0 ? code
                     : error_set(error, ERROR_CANCELLED, "interrupted after %d of %d samples; --resume goes on",
                                 c->done, all);
}

static int open_model(struct calibration *c, struct error *error)
{
    const struct job_options *jobs = c->options->jobs;
    int code = job_model_open(&c->kernels, &c->model, jobs, jobs->model, error);
    if (code == 0 && *lance_model_warnings(c->model))
        fprintf(stderr, "lance-quant: %s\n", lance_model_warnings(c->model));
    return code;
}

int calibrate(const struct calibrate_options *options, const volatile int *interrupted, struct error *error)
{
    struct calibration c = {.options = options, .interrupted = interrupted};
    if (snprintf(c.partial, sizeof c.partial, "%s.partial.safetensors", options->output) >= (int)sizeof c.partial)
        return error_set(error, ERROR_IO, "%s: the path is too long", options->output);
    int code = whole_file_check(options->output, error); /* told before hours of work */
    if (code == 0)
        code = whole_file_check(c.partial, error);
    if (code == 0)
        code = open_model(&c, error);
    if (code == 0) {
        identify(&c);
        code = take_up(&c, error);
    }
    if (code == 0)
        code = gather_open(&c.gather, c.statistics, options->moments ? add_products : NULL, options->jobs->threads,
                           error);
    if (code == 0)
        code = lance_tap_open(c.model, gather_watch, c.gather, error);
    if (code == 0)
        code = run_samples(&c, error);
    if (code == 0)
        code = statistics_write(c.statistics, options->output, NULL, error);
    if (code == 0 && unlink(c.partial) != 0 && errno != ENOENT)
        code = error_set(error, ERROR_IO, "%s: %s", c.partial, strerror(errno));
    lance_model_close(c.model);
    gather_close(c.gather);
    statistics_close(c.statistics);
    if (c.kernels)
        c.kernels->close(c.kernels);
    return code;
}
