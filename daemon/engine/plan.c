/* plan.c: from a request to a plan: the prompt, the grids, and what memory each stage will hold. */
#include "daemon/engine/internal.h"
#include "daemon/engine/model/sampler.h"
#include "daemon/engine/parameters.h"
#include "daemon/engine/system_prompt.h"
#include "protocol/clip_sampling.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int check_prepared(const struct job_plan *plan, struct picture_size size, struct error *error)
{
    if (size.height <= LANCE_MAX_PREPARED_SIDE && size.width <= LANCE_MAX_PREPARED_SIDE && size.height >= 28 && size.width >= 28)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "resolution %s makes the source %d x %d; accepted are sides from 28 to %d",
                     plan->resolution, size.width, size.height, LANCE_MAX_PREPARED_SIDE);
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
        if ((code = picture_bucket(plan->resolution, PICTURE_FOR_VIT, source->height, source->width, &plan->vit_size, error)) ||
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
        else if ((code = picture_bucket(plan->resolution, PICTURE_FOR_VAE, source->height, source->width, &plan->vae_size,
                                        error)) ||
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
    plan->target = (struct token_grid){vae_latent_frames(frames), height / VAE_SPATIAL_STRIDE, width / VAE_SPATIAL_STRIDE};
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

/* The times of the steps asked for: of a schedule that denoise makes longer, the last num_inference_steps steps, and of those the
 * ones from start_step to end_step. */
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
        return error_set(error, ERROR_BAD_REQUEST, "add_noise is false at start_step 0, where latents are all noise; accepted are a "
                         "start_step from 1 on or denoise below 1, or add_noise");
    return 0;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* A sum of bytes; UINT64_MAX, which a part that could not be planned has, stays what it is. */
static uint64_t plus(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

/* A stage holds so much. */
static void add_stage(struct lance_memory *memory, uint64_t device, uint64_t host)
{
    memory->device_bytes = larger(memory->device_bytes, device);
    memory->host_bytes = larger(memory->host_bytes, host);
    memory->total_bytes = larger(memory->total_bytes, plus(device, host));
}

/* Host buffers of a job, as run.c allocates them. */
struct host_sizes {
    uint64_t source; /* frames prepared for the ViT and the VAE, and the encoder's noise */
    uint64_t encoded, encoding; /* latents of the source, and the scratch of encoding them */
    uint64_t noise, drawing;
    uint64_t mask;    /* with what it keeps */
    uint64_t latents; /* of the whole batch, once */
    uint64_t state;
    uint64_t preview;
    uint64_t pixels, decoding; /* the frames, and the scratch of decoding them */
};

static struct host_sizes host_sizes_of(const struct job_plan *plan, const struct lance_model *model,
                                       const struct lance_request *r)
{
    struct host_sizes sizes = {0};
    const uint64_t number = sizeof(float), encoded_cells = (uint64_t)token_grid_cells(plan->encoded);
    const uint64_t channels = model->latent_tokens ? (uint64_t)latent_tokens_channels(model->latent_tokens) : 0;
    const uint64_t vit_frame = (uint64_t)plan->vit_size.height * (uint64_t)plan->vit_size.width * 3;
    const uint64_t vae_frame = (uint64_t)plan->vae_size.height * (uint64_t)plan->vae_size.width * 3;
    if (plan->sees)
        sizes.source += 2 * (uint64_t)plan->vit_grid.t * vit_frame;
    if (plan->encodes) {
        sizes.encoded = encoded_cells * channels * number;
        sizes.source += (uint64_t)plan->source_frames * vae_frame + (r->source_latent_mean ? 0 : sizes.encoded);
        sizes.encoding = VAE_TEMPORAL_STRIDE * vae_frame * number + 2 * sizes.encoded / (uint64_t)plan->encoded.frames;
    }
    if (plan->target.frames == 0)
        return sizes;
    const uint64_t cells = (uint64_t)token_grid_cells(plan->target), batch = (uint64_t)r->batch_size;
    const uint64_t frame = (uint64_t)(plan->target.height * plan->target.width) * VAE_SPATIAL_STRIDE * VAE_SPATIAL_STRIDE * 3;
    sizes.latents = batch * cells * channels * number;
    if (task_samples(r->task)) {
        sizes.noise = sizes.latents;
        sizes.drawing = sizes.encoded + cells * channels * number;
        sizes.mask = r->latent_mask ? 2 * sizes.latents + batch * cells * number : 0;
        sizes.state = plan->timesteps[plan->steps] > 0 ? sizes.latents : 0;
    }
    if (r->preview)
        sizes.preview = 2 * cells * channels * number + cells * 3;
    if (r->decode && r->task != LANCE_ENCODE) {
        sizes.pixels = batch * (uint64_t)vae_frames(plan->target.frames) * frame;
        sizes.decoding = VAE_TEMPORAL_STRIDE * frame * number + cells / (uint64_t)plan->target.frames * channels * number;
    }
    return sizes;
}

/* The VAE alone. */
static void plan_vae_memory(struct job_plan *plan, const struct lance_model *model, const struct lance_request *r)
{
    const struct host_sizes host = host_sizes_of(plan, model, r);
    const struct token_grid grid = plan->target;
    struct lance_memory *memory = &plan->memory;
    if (r->task == LANCE_ENCODE) {
        add_stage(memory, vae_encode_bytes(model->vae, grid.frames, grid.height, grid.width),
                  host.source + host.encoded + host.encoding);
        add_stage(memory, 0, host.encoded + 2 * host.latents); /* raw, and encoded for the client */
    } else {
        add_stage(memory, vae_decode_bytes(model->vae, grid.frames, grid.height, grid.width),
                  host.latents + host.pixels + host.decoding);
        add_stage(memory, 0, host.latents + 2 * host.pixels);
    }
}

/* Sum what is alive in each stage, as run.c allocates and frees it, and keep the largest. */
static void plan_memory(struct job_plan *plan, const struct lance_model *model, const struct lance_request *r)
{
    const struct kernels *k = model->kernels;
    const size_t hidden = (size_t)decoder_hidden_size(model->decoder), element = k->act_bytes;
    const bool generates = plan->target.frames > 0;
    const struct host_sizes host = host_sizes_of(plan, model, r);
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
    struct lance_memory *memory = &plan->source_memory;
    const uint64_t start = host.noise + host.mask; /* what sampling starts from */
    add_stage(memory, 0, host.source + start + host.drawing);
    if (plan->sees)
        add_stage(memory, plan->vit_token_bytes + vit_bytes(model->vit, plan->vit_grid), host.source + start);
    if (plan->encodes)
        add_stage(memory,
                  plus(plan->vit_token_bytes,
                       vae_encode_bytes(model->vae, plan->encoded.frames, plan->encoded.height, plan->encoded.width)),
                  host.source + start + host.encoded + host.encoding);
    memory = &plan->memory;
    *memory = plan->source_memory;
    add_stage(memory, lasting + plan->vit_token_bytes + plan->reference_bytes, host.encoded + start);
    if (!generates) {
        add_stage(memory, lasting + plan->logits_bytes, 0);
        return;
    }
    add_stage(memory,
              plus(lasting + plan->latent_bytes + denoiser_bytes(model->decoder, model->latent_tokens, k, &plan->denoiser),
                   r->preview ? preview_bytes(model) : 0),
              host.encoded + host.mask + larger(host.noise, host.preview + (host.mask ? host.latents : 0)));
    const uint64_t result = 2 * host.latents + host.state + host.pixels;
    if (r->decode)
        add_stage(memory, vae_decode_bytes(model->vae, plan->target.frames, plan->target.height, plan->target.width),
                  host.encoded + host.preview + result + host.decoding);
    add_stage(memory, 0, host.encoded + host.preview + result + host.latents + host.state + host.pixels); /* and encoded for the client */
}

uint64_t job_plan_need(const struct job_plan *plan, const struct lance_model *model)
{
    return model->kernels->host_memory ? plan->memory.total_bytes : plan->memory.device_bytes;
}

int job_plan_check_fit(const struct job_plan *plan, const struct lance_model *model, struct error *error)
{
    const uint64_t limit = model->memory_limit_bytes, need = job_plan_need(plan, model);
    const uint64_t host_limit = model->host_limit_bytes, host_need = plan->memory.host_bytes;
    if (!model->kernels->host_memory && host_limit && host_need > host_limit)
        return error_set(error, ERROR_TOO_LARGE, "the job needs %.1f MB of the host's memory beside the GPU's; the limit is %.1f MB. "
                         "Ask for a smaller size, fewer frames or a smaller batch", (double)host_need / 1e6, (double)host_limit / 1e6);
    if (!limit || need <= limit)
        return 0;
    return error_set(error, ERROR_TOO_LARGE, "the job needs %.1f MB of memory beside the weights; the limit is %.1f MB. Ask for a "
                     "smaller size, fewer frames or a smaller batch", (double)need / 1e6, (double)limit / 1e6);
}

int job_plan_make(struct job_plan *plan, const struct lance_model *model, const struct lance_request *r, struct error *error)
{
    *plan = (struct job_plan){0};
    int code = request_check(model, r, error);
    if (!code && task_has_source(r->task))
        code = plan_source(plan, r, error);
    if (!code) {
        plan_target(plan, r);
        code = check_noise(plan, model, r, error);
    }
    if (!code)
        code = latents_check(plan, model, r, error);
    if (!code && (task_samples(r->task) || task_answers(r->task)))
        code = plan_prompt(plan, model, r, error);
    if (!code && task_samples(r->task)) {
        plan_kept(plan, r);
        code = plan_schedule(plan, r, error);
    }
    if (code) {
        job_plan_free(plan);
        return code;
    }
    if (plan->prompt)
        plan_memory(plan, model, r);
    else
        plan_vae_memory(plan, model, r);
    if (plan->memory.total_bytes < UINT64_MAX)
        return 0;
    job_plan_free(plan);
    return error_set(error, ERROR_NO_MEMORY, "no memory to plan the job");
}

void job_plan_free(struct job_plan *plan)
{
    prompt_free(plan->prompt);
    free(plan->timesteps);
    *plan = (struct job_plan){0};
}

int lance_request_check(const struct lance_model *model, const struct lance_request *request, struct error *error)
{
    struct job_plan plan;
    int code = job_plan_make(&plan, model, request, error);
    if (code)
        return code;
    code = job_plan_check_fit(&plan, model, error);
    job_plan_free(&plan);
    return code;
}

int lance_estimate(const struct lance_model *model, const struct lance_request *request, struct lance_memory *memory,
                   struct error *error)
{
    struct job_plan plan;
    int code = job_plan_make(&plan, model, request, error);
    if (code)
        return code;
    *memory = plan.memory;
    job_plan_free(&plan);
    return 0;
}
