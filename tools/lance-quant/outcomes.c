/* outcomes.c: see outcomes.h. */
#include "tools/lance-quant/outcomes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/latent_shape.h"

static void *copy_of(const void *data, size_t bytes)
{
    void *copy = data ? malloc(bytes + 1) : NULL;
    return copy ? memcpy(copy, data, bytes) : NULL;
}

static int take(struct outcome *out, const struct lance_result *r, struct error *error)
{
    out->latent_count = r->latents ? (size_t)r->batch * LATENT_CHANNELS * (size_t)r->latent_frames *
                                                 (size_t)r->latent_height * (size_t)r->latent_width
                                   : 0;
    out->frames = r->frames;
    out->height = r->height;
    out->width = r->width;
    out->tokens = r->tokens;
    out->latents = copy_of(r->latents, out->latent_count * sizeof(float));
    out->pixels = copy_of(r->pixels, 3 * (size_t)r->frames * (size_t)r->height * (size_t)r->width);
    out->text = r->text ? strdup(r->text) : NULL;
    out->token_ids = copy_of(r->token_ids, (size_t)r->tokens * sizeof(int32_t));
    if ((r->latents && !out->latents) || (r->pixels && !out->pixels) || (r->text && !out->text) ||
        (r->token_ids && !out->token_ids))
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for what came out");
    return 0;
}

static int run_job(struct lance_job *job, const volatile int *interrupted, struct error *error)
{
    struct lance_progress progress;
    int code = 0;
    while (code == 0 && (code = lance_job_step(job, &progress, error)) == LANCE_STEP_MORE)
        code = *interrupted ? error_set(error, ERROR_CANCELLED, "interrupted") : 0;
    return code;
}

/* How well the model expects an answer to the request. */
static int read_answer(double *lost, struct lance_model *model, struct lance_request *request,
                       const struct outcome *answer, const volatile int *interrupted, struct error *error)
{
    struct expectation expectation = {answer->token_ids, answer->tokens, 0};
    struct lance_job *job;
    request->max_new_tokens = answer->tokens;
    int code = lance_job_start(&job, model, request, error);
    if (code != 0)
        return code;
    code = lance_job_say(job, answer->token_ids, answer->tokens, expectation_watch, &expectation, error);
    if (code == 0)
        code = run_job(job, interrupted, error);
    *lost = expectation.lost;
    lance_job_close(job);
    return code;
}

static int run_one(struct outcome *out, struct lance_model *model, const struct outcomes_options *options, int index,
                   const volatile int *interrupted, struct error *error)
{
    struct sample_request sample;
    struct lance_job *job = NULL;
    struct lance_result result;
    int code = sample_open(&sample, options->samples, index, &options->jobs->sizes, error);
    if (code == 0)
        code = lance_job_start(&job, model, &sample.request, error);
    if (code == 0)
        code = run_job(job, interrupted, error);
    if (code == 0)
        code = lance_job_result(job, &result, error);
    if (code == 0)
        code = take(out, &result, error);
    lance_job_close(job);
    const struct outcome *answer = options->expected ? &options->expected[index] : out;
    if (code == 0 && out->text && answer->tokens > 0)
        code = read_answer(&out->lost, model, &sample.request, answer, interrupted, error);
    sample_close(&sample);
    return code;
}

int outcomes_run(struct outcome *outcomes, struct text_loss *loss, const struct outcomes_options *options,
                 const volatile int *interrupted, struct error *error)
{
    struct kernels *kernels;
    struct lance_model *model;
    int code = job_model_open(&kernels, &model, options->jobs, options->model, error);
    for (int i = 0; i < options->samples->count && code == 0; i++) {
        code = run_one(&outcomes[i], model, options, i, interrupted, error);
        if (code != 0 && code != ERROR_CANCELLED)
            error_prefix(error, "sample %d", i + 1);
        if (code == 0)
            fprintf(stderr, "%s%s: %d of %d samples%s", isatty(2) ? "\r" : "", options->model, i + 1,
                    options->samples->count, isatty(2) && i + 1 < options->samples->count ? "\033[K" : "\n");
    }
    if (code == 0 && options->text)
        code = perplexity_of_file(loss, model, options->text, interrupted, error);
    lance_model_close(model);
    if (kernels)
        kernels->close(kernels);
    return code;
}

void outcomes_free(struct outcome *outcomes, int count)
{
    for (int i = 0; outcomes && i < count; i++) {
        free(outcomes[i].latents);
        free(outcomes[i].pixels);
        free(outcomes[i].text);
        free(outcomes[i].token_ids);
    }
    free(outcomes);
}
