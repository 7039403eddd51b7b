/* stages.c: see stages.h. */
#include "daemon/engine/stages/stages.h"
#include "kernels/kernels.h"

#include <stdlib.h>

size_t job_channels(const struct job *job)
{
    return job->model->latent_tokens ? (size_t)latent_tokens_channels(job->model->latent_tokens) : 0;
}

size_t job_target_cells(const struct job *job) { return (size_t)token_grid_cells(job->plan.target); }
size_t job_item_values(const struct job *job) { return job_target_cells(job) * job_channels(job); }
size_t grid_frame_cells(struct token_grid grid) { return (size_t)grid.height * (size_t)grid.width; }

size_t job_picture_bytes(const struct job *job)
{
    return grid_frame_cells(job->plan.target) * VAE_SPATIAL_STRIDE * VAE_SPATIAL_STRIDE * 3;
}

struct latents_shape job_latents_shape(const struct job *job)
{
    const struct job_plan *plan = &job->plan;
    return (struct latents_shape){.batch = job->request.batch_size,
                                  .grid = plan->target,
                                  .condition_frames = plan->condition_frames,
                                  .first_t = plan->timesteps[0],
                                  .last_t = plan->timesteps[plan->steps]};
}

static uint64_t frame_bytes(struct picture_size size) { return (uint64_t)size.height * (uint64_t)size.width * 3; }

struct handover_sizes handover_sizes_of(const struct job *job)
{
    const struct job_plan *plan = &job->plan;
    const struct lance_request *r = &job->request;
    const struct lance_model *model = job->model;
    const uint64_t batch = (uint64_t)r->batch_size, channels = job_channels(job);
    struct handover_sizes sizes = {0};
    if (plan->sees) {
        sizes.vit_pixels = 2 * (uint64_t)plan->vit_grid.t * frame_bytes(plan->vit_size);
        sizes.vit_tokens = (uint64_t)token_grid_cells(plan->vit_tokens) *
                           (uint64_t)decoder_hidden_size(model->decoder) * job->kernels->act_bytes;
    }
    if (plan->encodes) {
        sizes.vae_pixels = (uint64_t)plan->source_frames * frame_bytes(plan->vae_size);
        sizes.encoded = (uint64_t)token_grid_cells(plan->encoded) * channels * sizeof(float);
        sizes.eps = r->source_latent_mean ? 0 : sizes.encoded;
    }
    if (plan->prompt) {
        sizes.prefix = prefix_bytes(model->decoder, job->kernels, &plan->prefix);
        sizes.workspace = decoder_workspace_bytes(model->decoder, plan->workspace_rows, plan->query_rows);
    }
    if (plan->target.frames == 0)
        return sizes;
    sizes.raw_latents = batch * job_item_values(job) * sizeof(float);
    if (task_samples(r->task)) {
        const struct latents_shape shape = job_latents_shape(job);
        sizes.x = sizes.raw_latents;
        sizes.given = latents_bytes(&shape, (int)channels, r->latent_mask != NULL);
        sizes.latent_state = shape.last_t > 0 ? sizes.raw_latents : 0;
    }
    if (plan->decodes)
        sizes.pixels = batch * (uint64_t)vae_frames(plan->target.frames) * job_picture_bytes(job);
    return sizes;
}

void handover_free(struct handover *left, struct kernels *kernels)
{
    void *const host[] = {left->vit_pixels,  left->vae_pixels,   left->eps,    left->x,    left->encoded,
                          left->raw_latents, left->latent_state, left->pixels, left->text, left->token_ids};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        free(host[i]);
    latents_free(&left->given);
    kernels->memory_free(kernels, left->vit_tokens);
    decoder_workspace_close(left->workspace);
    prefix_close(left->prefix);
    *left = (struct handover){0};
}

bool job_resumes(const struct job *job, enum lance_stage stage)
{
    return job->resumed && job->resumed->stage == stage;
}

int device_alloc(const struct job *job, void *out, uint64_t bytes, struct error *error)
{
    return job->kernels->memory_alloc(job->kernels, out, bytes, error);
}

void device_free(const struct job *job, void *memory_pointer)
{
    void **memory = memory_pointer;
    job->kernels->memory_free(job->kernels, *memory);
    *memory = NULL;
}

int job_open_workspace(struct job *job, struct error *error)
{
    if (job->left.workspace)
        return 0;
    return decoder_workspace_open(&job->left.workspace, job->model->decoder, job->plan.workspace_rows,
                                  job->plan.query_rows, error);
}

void job_close_workspace(struct job *job)
{
    decoder_workspace_close(job->left.workspace);
    job->left.workspace = NULL;
}

void job_close_prefix(struct job *job)
{
    prefix_close(job->left.prefix);
    job->left.prefix = NULL;
}
