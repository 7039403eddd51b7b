/* prefix.c: the stage that runs what comes before the block to be generated into KV caches, split by split. */
#include "daemon/engine/stages/stages.h"
#include "kernels/kernels.h"

#include <stdlib.h>

struct prefix_stage {
    struct job *job;
    act *reference_latents;   /* [encoded cells, channels]; these two NULL unless a split of references is to be run */
    act *reference_positions; /* [encoded cells, hidden_size] */
};

/* Passes that are still to be run. */
static int steps_of(const struct job *job)
{
    if (!job->plan.prompt)
        return 0;
    if (!job->prepared)
        return prompt_prefix_splits(job->plan.prompt);
    return job->left.prefix ? prefix_runs_left(job->left.prefix) : 0;
}

static uint64_t latents_size(const struct job *job)
{
    return (uint64_t)token_grid_cells(job->plan.encoded) * job_channels(job) * job->kernels->act_bytes;
}

static uint64_t positions_size(const struct job *job)
{
    return (uint64_t)token_grid_cells(job->plan.encoded) * (uint64_t)decoder_hidden_size(job->model->decoder) *
           job->kernels->act_bytes;
}

/* Keys and values that were found are there already; the estimate takes none to be found. */
static void need(const struct job *job, struct stage_need *need)
{
    const struct handover_sizes sizes = handover_sizes_of(job);
    if (task_edits(job->request.task))
        need->own.device = latents_size(job) + positions_size(job);
    need->leaves.device = sizes.prefix + sizes.workspace;
    need->frees.device = sizes.vit_tokens;
}

static int prefix_open_stage(void **out, struct job *job, struct error *error)
{
    struct prefix_stage *s = *out = calloc(1, sizeof *s);
    if (!s)
        return error_set(error, ERROR_NO_MEMORY, "prefix: no memory");
    s->job = job;
    if (prefix_lacks(job->left.prefix, SPLIT_FULL_NOISE)) {
        const size_t values = (size_t)token_grid_cells(job->plan.encoded) * job_channels(job);
        int code = device_alloc(job, &s->reference_latents, latents_size(job), error);
        if (!code)
            code = device_alloc(job, &s->reference_positions, positions_size(job), error);
        if (!code)
            code = latent_tokens_positions(job->model->latent_tokens, job->plan.encoded, s->reference_positions, error);
        if (code)
            return code;
        job->kernels->upload(job->kernels, s->reference_latents, job->left.encoded, values);
    }
    return job_open_workspace(job, error);
}

/* The first split that is still to be run. */
static int missing_split(const struct prefix *prefix)
{
    int split = 0;
    while (split < prefix_splits(prefix) && prefix_has(prefix, split))
        split++;
    return split;
}

static int step(void *stage, struct stage_turn *turn, struct error *error)
{
    struct prefix_stage *s = stage;
    struct handover *left = &s->job->left;
    const struct prefix_inputs inputs = {left->vit_tokens, s->reference_latents, s->reference_positions};
    turn->step++;
    return prefix_run(left->prefix, missing_split(left->prefix), left->workspace, &inputs, NULL, error);
}

static int end(void *stage, struct error *error)
{
    (void)error;
    struct job *job = ((struct prefix_stage *)stage)->job;
    device_free(job, &job->left.vit_tokens);
    return 0;
}

static void prefix_close_stage(void *stage)
{
    struct prefix_stage *s = stage;
    if (!s)
        return;
    device_free(s->job, &s->reference_latents);
    device_free(s->job, &s->reference_positions);
    free(s);
}

const struct stage_kind prefix_stage = {
    .steps = steps_of, .need = need, .open = prefix_open_stage, .step = step, .end = end, .close = prefix_close_stage};
