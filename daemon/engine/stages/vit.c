/* vit.c: the stage that runs the vision transformer on the source. */
#include "daemon/engine/model/finite.h"
#include "daemon/engine/stages/stages.h"
#include "kernels/kernels.h"

#include <stdlib.h>

struct vit_stage {
    struct job *job;
    struct vit_pass *pass;
};

static int steps_of(const struct job *job)
{
    const bool sees = job->prepared ? job->left.vit_pixels != NULL : job->plan.sees;
    return sees ? checkpoint_config(job->model->checkpoint)->vit.depth : 0;
}

static int size_of(const struct job *job) { return steps_of(job) ? 1 : 0; }

static size_t token_values(const struct job *job)
{
    return (size_t)handover_sizes_of(job).vit_tokens / job->kernels->act_bytes;
}

static void need(const struct job *job, struct stage_need *need)
{
    const struct handover_sizes sizes = handover_sizes_of(job);
    const uint64_t beginning = vit_host_bytes(job->model->vit, job->plan.vit_grid),
                   tokens = token_values(job) * sizeof(float);
    need->own = (struct stage_bytes){.device = vit_bytes(job->model->vit, job->plan.vit_grid),
                                     .host = beginning > tokens ? beginning : tokens};
    need->leaves.device = sizes.vit_tokens;
    need->frees.host = sizes.vit_pixels;
}

static int vit_open_stage(void **out, struct job *job, struct error *error)
{
    struct vit_stage *s = *out = calloc(1, sizeof *s);
    if (!s)
        return error_set(error, ERROR_NO_MEMORY, "vit: no memory");
    s->job = job;
    int code = device_alloc(job, &job->left.vit_tokens, handover_sizes_of(job).vit_tokens, error);
    return code ? code
                : vit_begin(&s->pass, job->model->vit, job->left.vit_pixels, job->plan.vit_grid, job->left.vit_tokens,
                            error);
}

static int step(void *stage, struct stage_turn *turn, struct error *error)
{
    struct vit_stage *s = stage;
    int done, blocks;
    const int more = vit_step(s->pass, &done, &blocks, error);
    turn->step++;
    return more < 0 ? more : 0;
}

static int end(void *stage, struct error *error)
{
    struct vit_stage *s = stage;
    struct job *job = s->job;
    const size_t values = token_values(job);
    int code = 0;
    float *tokens = host_alloc(values * sizeof(float), "tokens of the ViT", &code, error);
    if (!code) {
        job->kernels->download(job->kernels, tokens, job->left.vit_tokens, values);
        code = finite_check(tokens, values, "vit", error);
    }
    free(tokens);
    free(job->left.vit_pixels);
    job->left.vit_pixels = NULL;
    return code;
}

static void vit_close_stage(void *stage)
{
    struct vit_stage *s = stage;
    if (s)
        vit_pass_close(s->pass);
    free(s);
}

const struct stage_kind vit_stage = {
    .steps = steps_of, .size = size_of, .need = need, .open = vit_open_stage, .step = step, .end = end,
        .close = vit_close_stage};
