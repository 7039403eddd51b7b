/* lance_plan.c: from a request to a plan: the prompt, the grids, and what memory each stage will hold. */
#include "daemon/lance_internal.h"
#include "daemon/model/sampler.h"

#include <stdio.h>
#include <stdlib.h>

/* The longest side that the official presets give (21:9 of image_768res). */
enum { MAX_PREPARED_SIDE = 1152 };

static int check_prepared(const struct job_plan *plan, struct picture_size size, struct error *error)
{
    if (size.height <= MAX_PREPARED_SIDE && size.width <= MAX_PREPARED_SIDE && size.height >= 28 && size.width >= 28)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "resolution %s makes the source %d x %d; accepted are sides from 28 to %d",
                     plan->resolution, size.width, size.height, MAX_PREPARED_SIDE);
}

static const char *default_resolution(enum lance_task task)
{
    return task == LANCE_IMAGE_EDIT || task == LANCE_X2T_IMAGE ? "image_768res" : "video_480p";
}

/* Which frames of the source are taken, and their sizes. */
static int plan_source(struct job_plan *plan, const struct lance_request *r, struct error *error)
{
    const struct lance_media *source = r->source;
    if (r->width > 0)
        snprintf(plan->resolution, sizeof plan->resolution, "%dx%d", r->height, r->width);
    else
        snprintf(plan->resolution, sizeof plan->resolution, "%s", r->resolution ? r->resolution : default_resolution(r->task));
    plan->source_frames = 1;
    if (task_takes_video(r->task)) {
        plan->source_frames =
            picture_sample_frames(source->frames, source->fps, plan->frame_indices, LANCE_MAX_FRAMES, error);
        if (plan->source_frames < 0)
            return plan->source_frames;
    }
    int code;
    plan->sees = task_answers(r->task) || task_edits(r->task);
    plan->encodes = !task_answers(r->task);
    if (plan->sees) {
        if ((code = picture_bucket(plan->resolution, PICTURE_FOR_VIT, source->height, source->width, &plan->vit_size, error)) ||
            (code = check_prepared(plan, plan->vit_size, error)))
            return code;
        plan->vit_grid = (struct vit_grid){(plan->source_frames + 1) / 2, plan->vit_size.height / 14, plan->vit_size.width / 14};
        plan->vit_tokens = (struct token_grid){plan->vit_grid.t, plan->vit_grid.h / 2, plan->vit_grid.w / 2};
    }
    if (plan->encodes) {
        if ((code = picture_bucket(plan->resolution, PICTURE_FOR_VAE, source->height, source->width, &plan->vae_size, error)) ||
            (code = check_prepared(plan, plan->vae_size, error)))
            return code;
        plan->encoded = (struct token_grid){vae_latent_frames(plan->source_frames), plan->vae_size.height / VAE_SPATIAL_STRIDE,
                                            plan->vae_size.width / VAE_SPATIAL_STRIDE};
    }
    return 0;
}

static void plan_target(struct job_plan *plan, const struct lance_request *r)
{
    if (task_answers(r->task))
        return;
    if (task_edits(r->task)) {
        plan->target = plan->encoded;
        return;
    }
    int height = r->height > 0 ? r->height : LANCE_DEFAULT_SIDE, width = r->width > 0 ? r->width : LANCE_DEFAULT_SIDE;
    int frames = r->task == LANCE_T2I ? 1 : r->num_frames;
    plan->target = (struct token_grid){vae_latent_frames(frames), height / VAE_SPATIAL_STRIDE, width / VAE_SPATIAL_STRIDE};
    if (r->task == LANCE_I2V) {
        plan->target.height = plan->encoded.height;
        plan->target.width = plan->encoded.width;
        plan->condition_frames = 1;
    }
}

static int plan_prompt(struct job_plan *plan, const struct lance_model *model, const struct lance_request *r,
                       struct error *error)
{
    const struct prompt_request words = {
        .system_prompt = r->system_prompt ? r->system_prompt : prompt_system(r->task, *r->prompt != 0),
        .text = r->prompt,
        .vit = plan->vit_tokens,
        .reference = task_edits(r->task) ? plan->encoded : (struct token_grid){0},
        .target = plan->target,
    };
    return prompt_pack(&plan->prompt, model->tokenizer, checkpoint_config(model->checkpoint), &words, error);
}

/* What the client sent must be as large as what it stands for. */
static int check_values(const char *name, const float *values, size_t count, size_t needed, struct error *error)
{
    if (!values || count == needed)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "%s has %zu values; this job needs %zu", name, count, needed);
}

static int check_noise(const struct job_plan *plan, const struct lance_model *model, const struct lance_request *r,
                       struct error *error)
{
    if (task_answers(r->task))
        return 0;
    const size_t channels = (size_t)latent_tokens_channels(model->latent_tokens);
    int code = check_values("source_latent_noise", r->source_latent_noise, r->source_latent_noise_values,
                            (size_t)token_grid_cells(plan->encoded) * channels, error);
    if (!code && r->noise_source == LANCE_NOISE_CLIENT)
        code = check_values("noise", r->noise, r->noise_values,
                            (size_t)r->batch_size * (size_t)token_grid_cells(plan->target) * channels, error);
    return code;
}

static int plan_schedule(struct job_plan *plan, const struct lance_request *r, struct error *error)
{
    if (task_answers(r->task))
        return 0;
    plan->timesteps = malloc(((size_t)r->num_inference_steps + 1) * sizeof *plan->timesteps);
    if (!plan->timesteps)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %d timesteps", r->num_inference_steps);
    sampler_timesteps(r->num_inference_steps, r->timestep_shift, plan->timesteps);
    for (int i = 0; i < r->num_inference_steps; i++)
        plan->guided |= sampler_is_guided(plan->timesteps[i], r->guidance_scale, r->guidance_interval);
    return 0;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Sum what is alive in each stage, as lance_job.c allocates and frees it, and keep the largest. */
static void plan_memory(struct job_plan *plan, const struct lance_model *model, const struct lance_request *r)
{
    const struct kernels *k = model->kernels;
    const size_t hidden = (size_t)decoder_hidden_size(model->decoder), element = k->act_bytes;
    const bool generates = plan->target.frames > 0;
    plan->prefix = (struct prefix_options){
        .prompt = plan->prompt,
        .guided = plan->guided,
        .consistent_uncond_positions = r->uncond_positions == LANCE_UNCOND_CONSISTENT,
        .extra_rows = generates ? 0 : r->max_new_tokens,
    };
    plan->denoiser = (struct denoiser_options){.prompt = plan->prompt,
                                               .grid = plan->target,
                                               .batch = r->batch_size,
                                               .guided = plan->guided,
                                               .condition_frames = plan->condition_frames};
    plan->query_rows = generates ? denoiser_pass_rows(&plan->denoiser) : 0;
    plan->workspace_rows = prefix_pass_rows(plan->prompt);
    if (plan->query_rows > plan->workspace_rows)
        plan->workspace_rows = plan->query_rows;

    plan->vit_token_bytes = (uint64_t)token_grid_cells(plan->vit_tokens) * hidden * element;
    if (task_edits(r->task)) /* latents and their positions */
        plan->reference_bytes = (uint64_t)token_grid_cells(plan->encoded) *
                                (hidden + (size_t)latent_tokens_channels(model->latent_tokens)) * element;
    if (generates) /* x of the batch, and the velocity of its first item */
        plan->latent_bytes = (uint64_t)(r->batch_size + 1) * (uint64_t)token_grid_cells(plan->target) *
                             (uint64_t)latent_tokens_channels(model->latent_tokens) * sizeof(float);
    else
        plan->logits_bytes = (uint64_t)decoder_vocab_size(model->decoder) * element;

    const uint64_t lasting = prefix_bytes(model->decoder, k, &plan->prefix) +
                             decoder_workspace_bytes(model->decoder, plan->workspace_rows, plan->query_rows);
    uint64_t peak = lasting + plan->vit_token_bytes + plan->reference_bytes;
    if (plan->sees)
        peak = larger(peak, plan->vit_token_bytes + vit_bytes(model->vit, plan->vit_grid));
    if (plan->encodes)
        peak = larger(peak, plan->vit_token_bytes + vae_encode_bytes(model->vae, plan->encoded.frames, plan->encoded.height,
                                                                     plan->encoded.width));
    if (generates) {
        peak = larger(peak, lasting + plan->latent_bytes +
                                denoiser_bytes(model->decoder, model->latent_tokens, k, &plan->denoiser));
        if (r->decode)
            peak = larger(peak, vae_decode_bytes(model->vae, plan->target.frames, plan->target.height, plan->target.width));
    } else {
        peak = larger(peak, lasting + plan->logits_bytes);
    }
    plan->peak_bytes = peak;
}

int job_plan_make(struct job_plan *plan, const struct lance_model *model, const struct lance_request *r, struct error *error)
{
    *plan = (struct job_plan){0};
    int code = lance_request_check(model, r, error);
    if (!code && task_has_source(r->task))
        code = plan_source(plan, r, error);
    if (!code) {
        plan_target(plan, r);
        code = check_noise(plan, model, r, error);
    }
    if (!code)
        code = plan_prompt(plan, model, r, error);
    if (!code)
        code = plan_schedule(plan, r, error);
    if (code) {
        job_plan_free(plan);
        return code;
    }
    plan_memory(plan, model, r);
    return 0;
}

void job_plan_free(struct job_plan *plan)
{
    prompt_free(plan->prompt);
    free(plan->timesteps);
    *plan = (struct job_plan){0};
}

int lance_estimate(const struct lance_model *model, const struct lance_request *request, uint64_t *bytes,
                   struct error *error)
{
    struct job_plan plan;
    int code = job_plan_make(&plan, model, request, error);
    if (code)
        return code;
    *bytes = plan.peak_bytes;
    job_plan_free(&plan);
    return 0;
}
