/* plan.c: see plan.h. */
#include "daemon/engine/plan.h"
#include "daemon/engine/latents.h"
#include "daemon/engine/model/sampler.h"
#include "daemon/engine/parameters.h"
#include "daemon/engine/system_prompt.h"
#include "protocol/clip_sampling.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int check_prepared(const struct job_plan *plan, struct picture_size size, struct error *error)
{
    if (size.height <= LANCE_MAX_PREPARED_SIDE && size.width <= LANCE_MAX_PREPARED_SIDE &&
        size.height >= LEAST_SOURCE_SIDE && size.width >= LEAST_SOURCE_SIDE)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST,
                     "resolution %s makes the source %d x %d; accepted are sides from %d to %d", plan->resolution,
                     size.width, size.height, LEAST_SOURCE_SIDE, LANCE_MAX_PREPARED_SIDE);
}

/* "": as it is. */
static const char *resolution_of(const struct lance_request *r)
{
    const char *usual = parameter_default(parameter_find(lance_parameters, "resolution"), r->task)->text;
    return r->resolution ? r->resolution : usual ? usual : "";
}

/* Which frames of the source are taken, and their sizes. */
static int plan_source(struct job_plan *plan, const struct lance_request *r, struct error *error)
{
    const struct lance_media *source = r->source;
    if (r->width > 0)
        snprintf(plan->resolution, sizeof plan->resolution, "%dx%d", r->height, r->width);
    else
        snprintf(plan->resolution, sizeof plan->resolution, "%s", resolution_of(r));
    plan->source_frames = 1;
    if (r->task == LANCE_ENCODE) {
        plan->source_frames = vae_frames(vae_latent_frames(source->frames));
        for (int i = 0; i < plan->source_frames; i++)
            plan->frame_indices[i] = i;
    } else if (task_takes_video(r->task)) {
        plan->source_frames =
            sampling_frames(source->frames, source->fps, plan->frame_indices, LANCE_MAX_FRAMES, error);
        if (plan->source_frames < 0)
            return plan->source_frames;
    }
    int code;
    plan->sees = task_answers(r->task) || task_edits(r->task);
    plan->encodes = !task_answers(r->task);
    if (plan->sees) {
        if ((code = picture_bucket(plan->resolution, PICTURE_FOR_VIT, source->height, source->width, &plan->vit_size,
                                   error)) ||
            (code = check_prepared(plan, plan->vit_size, error)))
            return code;
        plan->vit_grid = (struct vit_grid){(plan->source_frames + 1) / 2, plan->vit_size.height / PICTURE_VIT_PATCH,
                                           plan->vit_size.width / PICTURE_VIT_PATCH};
        plan->vit_tokens = (struct token_grid){plan->vit_grid.t, plan->vit_grid.h / 2, plan->vit_grid.w / 2};
    }
    if (plan->encodes) {
        if (!*plan->resolution)
            plan->vae_size = (struct picture_size){source->height - source->height % VAE_SPATIAL_STRIDE,
                                                   source->width - source->width % VAE_SPATIAL_STRIDE};
        else if ((code = picture_bucket(plan->resolution, PICTURE_FOR_VAE, source->height, source->width,
                                        &plan->vae_size, error)) ||
                 (code = check_prepared(plan, plan->vae_size, error)))
            return code;
        plan->encoded =
            (struct token_grid){vae_latent_frames(plan->source_frames), plan->vae_size.height / VAE_SPATIAL_STRIDE,
                                plan->vae_size.width / VAE_SPATIAL_STRIDE};
    }
    return 0;
}

static void plan_target(struct job_plan *plan, const struct lance_request *r)
{
    if (task_answers(r->task))
        return;
    if (task_edits(r->task) || r->task == LANCE_ENCODE) {
        plan->target = plan->encoded;
        return;
    }
    if (r->task == LANCE_DECODE) {
        plan->target = (struct token_grid){r->latents->frames, r->latents->height, r->latents->width};
        return;
    }
    int height = r->height > 0 ? r->height : LANCE_DEFAULT_SIDE, width = r->width > 0 ? r->width : LANCE_DEFAULT_SIDE;
    int frames = r->task == LANCE_T2I ? 1 : r->num_frames;
    plan->target =
        (struct token_grid){vae_latent_frames(frames), height / VAE_SPATIAL_STRIDE, width / VAE_SPATIAL_STRIDE};
    if (r->task == LANCE_I2V) {
        plan->target.height = plan->encoded.height;
        plan->target.width = plan->encoded.width;
        plan->condition_frames = 1;
    }
}

/* Frames at the front that a mask keeps are to a video what the picture is to i2v. */
static void plan_kept(struct job_plan *plan, const struct lance_request *r)
{
    if (!r->latent_mask || (r->task != LANCE_T2V && r->task != LANCE_I2V))
        return;
    const int kept = latents_kept_frames(r->latent_mask);
    if (kept > plan->condition_frames)
        plan->condition_frames = kept;
}

static int plan_prompt(struct job_plan *plan, const struct lance_model *model, const struct lance_request *r,
                       struct error *error)
{
    const struct prompt_request words = {
        .system_prompt = r->system_prompt ? r->system_prompt : system_prompt(r->task, *r->prompt != 0),
        .text = r->prompt,
        .negative_text = r->negative_prompt,
        .vit = plan->vit_tokens,
        .reference = task_edits(r->task) ? plan->encoded : (struct token_grid){0},
        .target = plan->target,
    };
    return prompt_pack(&plan->prompt, model->tokenizer, checkpoint_config(model->checkpoint), &words, error);
}

/* What the client sent must be as large as what it stands for. (That it is made of numbers, prepare.c looks at.) */
static int check_count(const char *name, const float *values, size_t count, size_t needed, struct error *error)
{
    if (!values || count == needed)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "%s has %zu values; this job needs %zu", name, count, needed);
}

static int check_noise(const struct job_plan *plan, const struct lance_model *model, const struct lance_request *r,
                       struct error *error)
{
    if (task_answers(r->task) || r->task == LANCE_DECODE)
        return 0;
    const size_t channels = (size_t)latent_tokens_channels(model->latent_tokens);
    int code = check_count("source_latent_noise", r->source_latent_noise, r->source_latent_noise_values,
                           (size_t)token_grid_cells(plan->encoded) * channels, error);
    if (!code && task_samples(r->task) && r->noise_source == LANCE_NOISE_CLIENT)
        code = check_count("noise", r->noise, r->noise_values,
                           (size_t)r->batch_size * (size_t)token_grid_cells(plan->target) * channels, error);
    return code;
}

/* The times of the steps asked for: of a schedule that denoise makes longer, the last num_inference_steps steps, and of
 * those the ones from start_step to end_step. */
static int plan_schedule(struct job_plan *plan, const struct lance_request *r, struct error *error)
{
    const int steps = r->num_inference_steps, end = r->end_step < steps ? r->end_step : steps;
    const int schedule = sampler_schedule_steps(steps, r->denoise), before = schedule - steps + r->start_step;
    plan->steps = end - r->start_step;
    plan->timesteps = malloc(((size_t)plan->steps + 1) * sizeof *plan->timesteps);
    if (!plan->timesteps)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %d timesteps", plan->steps);
    for (int i = 0; i <= plan->steps; i++)
        plan->timesteps[i] = sampler_timestep(before + i, schedule, r->timestep_shift);
    if (!r->leftover_noise)
        plan->timesteps[plan->steps] = 0;
    for (int i = 0; i < plan->steps; i++)
        plan->guided |= sampler_is_guided(plan->timesteps[i], r->guidance_scale, r->guidance_interval);
    if (!r->add_noise && plan->timesteps[0] == 1.0f)
        return error_set(error, ERROR_BAD_REQUEST,
                         "add_noise is false at start_step 0, where latents are all noise; accepted are a "
                         "start_step from 1 on or denoise below 1, or add_noise");
    return 0;
}

/* The passes of the decoder: rows of the longest one, and what prefix and denoiser are opened with. */
static void plan_passes(struct job_plan *plan, const struct lance_model *model, const struct lance_request *r)
{
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
    plan->workspace_rows = prefix_pass_rows(model->kernels, &plan->prefix);
    if (plan->query_rows > plan->workspace_rows)
        plan->workspace_rows = plan->query_rows;
}

/* The passes of the VAE, rehearsed once. */
static int plan_vae(struct job_plan *plan, const struct lance_model *model, const struct lance_request *r,
                    struct error *error)
{
    const struct token_grid from = plan->encoded, to = plan->target;
    plan->decodes = r->task == LANCE_DECODE || (task_samples(r->task) && r->decode);
    int code =
        plan->encodes ? vae_encode_cost(model->vae, from.frames, from.height, from.width, &plan->encoding, error) : 0;
    return code || !plan->decodes ? code
                                  : vae_decode_cost(model->vae, to.frames, to.height, to.width, &plan->decoding, error);
}

int job_plan_make(struct job_plan *plan, const struct lance_model *model, const struct lance_request *r,
                  struct error *error)
{
    *plan = (struct job_plan){0};
    int code = task_has_source(r->task) ? plan_source(plan, r, error) : 0;
    if (!code) {
        plan_target(plan, r);
        code = check_noise(plan, model, r, error);
    }
    if (!code)
        code = latents_check(plan->target, model, r, error);
    if (!code && (task_samples(r->task) || task_answers(r->task)))
        code = plan_prompt(plan, model, r, error);
    if (!code && task_samples(r->task)) {
        plan_kept(plan, r);
        code = plan_schedule(plan, r, error);
    }
    if (!code && plan->prompt)
        plan_passes(plan, model, r);
    if (!code)
        code = plan_vae(plan, model, r, error);
    if (code)
        job_plan_free(plan);
    return code;
}

void job_plan_free(struct job_plan *plan)
{
    prompt_free(plan->prompt);
    free(plan->timesteps);
    *plan = (struct job_plan){0};
}
