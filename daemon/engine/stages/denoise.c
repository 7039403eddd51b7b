/* denoise.c: the stage that denoises latents, one Euler step of all batch items after the other. */
#include "daemon/engine/model/finite.h"
#include "daemon/engine/model/sampler.h"
#include "daemon/engine/preview.h"
#include "daemon/engine/stages/denoise.h"
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

struct denoise_stage {
    struct job *job;
    struct denoiser *denoiser;
    param *x;        /* [batch, target cells, channels]; job->left.x is its copy on the host, where one is needed */
    param *velocity; /* [target cells, channels] of the first batch item */
    int steps_done;
};

static int steps_of(const struct job *job) { return task_samples(job->request.task) ? job->plan.steps : 0; }

static size_t batch_values(const struct job *job) { return (size_t)job->request.batch_size * job_item_values(job); }

uint64_t preview_scratch_bytes(const struct job *job)
{
    return job->request.preview ? 2 * job_item_values(job) * sizeof(float) + job_target_cells(job) * 3 : 0;
}

static void need(const struct job *job, struct stage_need *need)
{
    const struct handover_sizes sizes = handover_sizes_of(job);
    const struct lance_model *model = job->model;
    need->own.device = (batch_values(job) + job_item_values(job)) * sizeof(float) +
                       denoiser_bytes(model->decoder, model->latent_tokens, job->kernels, &job->plan.denoiser) +
                       (job->request.preview ? preview_bytes(model) : 0);
    need->own.host = preview_scratch_bytes(job);
    need->leaves.host = sizes.raw_latents + sizes.latent_state;
    need->frees = (struct stage_bytes){.device = sizes.prefix + sizes.workspace, .host = sizes.given};
}

/* The frames that the source gives, in front of every batch item. */
static void take_source(struct job *job)
{
    const size_t item = job_item_values(job), given = grid_frame_cells(job->plan.target) * job_channels(job);
    for (int i = 0; i < job->request.batch_size; i++)
        memcpy(job->left.x + (size_t)i * item, job->left.encoded, given * sizeof(float));
}

static int denoise_open(void **out, struct job *job, struct error *error)
{
    struct denoise_stage *s = *out = calloc(1, sizeof *s);
    if (!s)
        return error_set(error, ERROR_NO_MEMORY, "denoise: no memory");
    s->job = job;
    const struct lance_model *model = job->model;
    int code = job_open_workspace(job, error);
    if (!code)
        code = device_alloc(job, &s->x, batch_values(job) * sizeof(float), error);
    if (!code)
        code = device_alloc(job, &s->velocity, job_item_values(job) * sizeof(float), error);
    if (!code)
        code =
            denoiser_open(&s->denoiser, model->decoder, model->latent_tokens, job->kernels, job->left.workspace,
                          prefix_cond(job->left.prefix), prefix_uncond(job->left.prefix), &job->plan.denoiser, error);
    if (code)
        return code;
    if (job_resumes(job, STAGE_DENOISE))
        s->steps_done = job->resumed->step;
    if (s->steps_done == 0 && job->left.encoded && job->request.task == LANCE_I2V)
        take_source(job);
    job->kernels->param_upload(job->kernels, s->x, job->left.x, batch_values(job));
    return 0;
}

static void update(struct denoise_stage *s, float dt, const act *cond, const act *uncond)
{
    const struct job *job = s->job;
    const struct lance_request *r = &job->request;
    struct kernels *k = job->kernels;
    const size_t item = job_item_values(job);
    for (int i = 0; i < r->batch_size; i++) {
        const struct guided_step step = {
            .x = param_at(s->x, (size_t)i * item),
            .v_cond = act_at(k, cond, (size_t)i * item),
            .v_uncond = uncond ? act_at(k, uncond, (size_t)i * item) : NULL,
            .rows = (int)job_target_cells(job),
            .width = (int)job_channels(job),
            .first_row = job->plan.condition_frames * (int)grid_frame_cells(job->plan.target),
            .guidance_scale = (float)r->guidance_scale,
            .renorm = r->guidance_renorm,
            .renorm_min = (float)r->guidance_renorm_min,
            .dt = dt,
            .v_out = i == 0 ? s->velocity : NULL,
        };
        k->guided_step(k, &step);
    }
}

/* Latents to the host: of the first step, which shows whether the weights are numbers, and where a mask keeps some. */
static int look_at_latents(struct denoise_stage *s, float t, struct error *error)
{
    struct job *job = s->job;
    struct kernels *k = job->kernels;
    const size_t n = batch_values(job);
    if (s->steps_done > 0 && !job->left.given.mask)
        return 0;
    k->param_download(k, job->left.x, s->x, n);
    const int code = s->steps_done == 0 ? finite_check(job->left.x, n, "denoise, step 1,", error) : 0;
    if (code || !job->left.given.mask)
        return code;
    latents_keep(&job->left.given, t, job->left.x);
    k->param_upload(k, s->x, job->left.x, n);
    return 0;
}

static int step(void *stage, struct stage_turn *turn, struct error *error)
{
    struct denoise_stage *s = stage;
    const struct job *job = s->job;
    const struct lance_request *r = &job->request;
    const float t = job->plan.timesteps[turn->step], dt = t - job->plan.timesteps[turn->step + 1];
    const bool guided = sampler_is_guided(t, r->guidance_scale, r->guidance_interval);
    const act *cond, *uncond;
    int code = denoiser_velocity(s->denoiser, s->x, t, guided, NULL, &cond, &uncond, error);
    if (code)
        return code;
    update(s, dt, cond, uncond);
    code = job->kernels->sync(job->kernels, error);
    if (!code)
        code = look_at_latents(s, t - dt, error);
    s->steps_done = ++turn->step;
    return code;
}

int denoise_finish(struct job *job, struct error *error)
{
    const struct handover_sizes sizes = handover_sizes_of(job);
    struct handover *left = &job->left;
    int code = 0;
    left->raw_latents = host_alloc(sizes.raw_latents, "latents", &code, error);
    if (sizes.latent_state)
        left->latent_state = host_alloc(sizes.latent_state, "latents", &code, error);
    if (!code)
        code = finite_check(left->x, batch_values(job), "denoise", error);
    if (code)
        return code;
    latents_finish(&left->given, job->model, left->x, left->raw_latents, left->latent_state);
    latents_free(&left->given);
    return 0;
}

static int end(void *stage, struct error *error)
{
    struct denoise_stage *s = stage;
    struct job *job = s->job;
    job->kernels->param_download(job->kernels, job->left.x, s->x, batch_values(job));
    denoiser_close(s->denoiser);
    s->denoiser = NULL;
    job_close_workspace(job);
    job_close_prefix(job);
    return denoise_finish(job, error);
}

static void denoise_close(void *stage)
{
    struct denoise_stage *s = stage;
    if (!s)
        return;
    denoiser_close(s->denoiser);
    device_free(s->job, &s->x);
    device_free(s->job, &s->velocity);
    free(s);
}

/* Where the last step's velocity leads from here: x - t * v. */
int denoise_stage_clean(const void *stage, float *clean, struct error *error)
{
    const struct denoise_stage *s = stage;
    const struct job *job = s->job;
    const size_t n = job_item_values(job),
                 first = (size_t)job->plan.condition_frames * grid_frame_cells(job->plan.target);
    int code = 0;
    float *velocity = host_alloc(n * sizeof(float), "a preview", &code, error);
    if (code)
        return code;
    const float t = job->plan.timesteps[s->steps_done];
    job->kernels->param_download(job->kernels, clean, s->x, n);
    job->kernels->param_download(job->kernels, velocity, s->velocity, n);
    for (size_t i = first * job_channels(job); i < n; i++)
        clean[i] -= t * velocity[i];
    free(velocity);
    return 0;
}

static int save(const void *stage, struct job_state *state, struct error *error)
{
    const struct denoise_stage *s = stage;
    const struct job *job = s->job;
    int code = 0;
    state->x = host_alloc(batch_values(job) * sizeof(float), "the job's state", &code, error);
    if (!code)
        job->kernels->param_download(job->kernels, state->x, s->x, batch_values(job));
    return code;
}

const struct stage_kind denoise_stage = {.steps = steps_of, .need = need, .open = denoise_open, .step = step,
    .end = end,
                                         .close = denoise_close, .save = save};
