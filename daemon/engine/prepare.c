/* prepare.c: the first stage of a job: frames of the source as the ViT and the VAE take them, the noise, and the client's
 * latents, each checked for numbers that are none. All of it is host memory; nothing runs on the device.
 *
 * Its steps, in this order: some frames of the source, the encoder's noise, and each item of the batch. The inputs of
 * visual splits are named on the way (a hash), so that what an earlier job computed of them is found again.
 */
#include "base/sha256.h"
#include "daemon/engine/internal.h"
#include "base/noise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIXELS_PER_STEP = 2 << 20 }; /* of the source: a frame of 1920 x 1080, some hundredths of a second */

struct prepare {
    const struct lance_model *model;
    const struct job_plan *plan;
    const struct lance_request *request; /* its pointers are borrowed until prepare_close */
    struct prepared *out;
    int frames_per_step, frame_steps;
    struct sha256 vit, reference; /* of what the visual splits are made of */
    float *scratch;               /* one draw of noise */
    size_t channels, cells;       /* of the target */
};

static int frames_per_step(const struct lance_request *r)
{
    const long long pixels = (long long)r->source->height * r->source->width;
    return pixels < PIXELS_PER_STEP ? (int)(PIXELS_PER_STEP / pixels) : 1;
}

static int frame_steps(const struct job_plan *plan, const struct lance_request *r)
{
    if (!task_has_source(r->task))
        return 0;
    const int each = frames_per_step(r);
    return (plan->source_frames + each - 1) / each;
}

static bool draws_for_encoder(const struct job_plan *plan, const struct lance_request *r)
{
    return plan->encodes && !r->source_latent_mean;
}

int prepare_steps(const struct job_plan *plan, const struct lance_request *r)
{
    const bool by_item = task_samples(r->task) || r->task == LANCE_DECODE;
    return frame_steps(plan, r) + draws_for_encoder(plan, r) + (by_item ? r->batch_size : 0);
}

/* ---- the source ---- */

static size_t vit_frame_bytes(const struct job_plan *plan)
{
    return (size_t)plan->vit_size.height * (size_t)plan->vit_size.width * 3;
}

static size_t vae_frame_bytes(const struct job_plan *plan)
{
    return (size_t)plan->vae_size.height * (size_t)plan->vae_size.width * 3;
}

static int open_source(struct prepare *p, struct error *error)
{
    const struct job_plan *plan = p->plan;
    int code = 0;
    p->frames_per_step = frames_per_step(p->request);
    p->frame_steps = frame_steps(plan, p->request);
    if (plan->sees) {
        const int shape[] = {2 * plan->vit_grid.t, plan->vit_size.height, plan->vit_size.width, 3};
        sha256_start(&p->vit);
        sha256_add(&p->vit, shape, sizeof shape);
        p->out->vit_pixels = host_alloc(2 * (size_t)plan->vit_grid.t * vit_frame_bytes(plan), 1, "source frames", &code, error);
    }
    if (plan->encodes) {
        const int shape[] = {plan->source_frames, plan->vae_size.height, plan->vae_size.width,
                             draws_for_encoder(plan, p->request)};
        sha256_start(&p->reference);
        sha256_add(&p->reference, shape, sizeof shape);
        p->out->vae_pixels = host_alloc((size_t)plan->source_frames * vae_frame_bytes(plan), 1, "source frames", &code, error);
    }
    return code;
}

/* The middle of a frame, of a size that it has. */
static void crop_centre(const uint8_t *from, int height, int width, struct picture_size size, uint8_t *to)
{
    const size_t top = (size_t)(height - size.height) / 2, left = (size_t)(width - size.width) / 2;
    for (size_t y = 0; y < (size_t)size.height; y++)
        memcpy(to + y * (size_t)size.width * 3, from + ((top + y) * (size_t)width + left) * 3, (size_t)size.width * 3);
}

static int prepare_for_vit(struct prepare *p, const uint8_t *from, int frame, struct error *error)
{
    const struct job_plan *plan = p->plan;
    const struct lance_media *source = p->request->source;
    const size_t bytes = vit_frame_bytes(plan);
    uint8_t *to = p->out->vit_pixels + (size_t)frame * bytes;
    int code = picture_prepare(from, source->height, source->width, plan->resolution, PICTURE_FOR_VIT, to, error);
    if (code)
        return code;
    sha256_add(&p->vit, to, bytes);
    /* The ViT takes frames in pairs: an odd clip repeats its last one. */
    for (int i = frame + 1; frame == plan->source_frames - 1 && i < 2 * plan->vit_grid.t; i++) {
        memcpy(p->out->vit_pixels + (size_t)i * bytes, to, bytes);
        sha256_add(&p->vit, to, bytes);
    }
    return 0;
}

static int prepare_for_vae(struct prepare *p, const uint8_t *from, int frame, struct error *error)
{
    const struct job_plan *plan = p->plan;
    const struct lance_media *source = p->request->source;
    const size_t bytes = vae_frame_bytes(plan);
    uint8_t *to = p->out->vae_pixels + (size_t)frame * bytes;
    int code = 0;
    if (!*plan->resolution)
        crop_centre(from, source->height, source->width, plan->vae_size, to);
    else
        code = picture_prepare(from, source->height, source->width, plan->resolution, PICTURE_FOR_VAE, to, error);
    if (!code)
        sha256_add(&p->reference, to, bytes);
    return code;
}

static int prepare_frames(struct prepare *p, int first, struct error *error)
{
    const struct job_plan *plan = p->plan;
    const struct lance_media *source = p->request->source;
    const size_t source_bytes = (size_t)source->height * (size_t)source->width * 3;
    int code = 0;
    for (int i = first; !code && i < first + p->frames_per_step && i < plan->source_frames; i++) {
        const uint8_t *from = source->pixels + (size_t)plan->frame_indices[i] * source_bytes;
        if (plan->sees)
            code = prepare_for_vit(p, from, i, error);
        if (!code && plan->encodes)
            code = prepare_for_vae(p, from, i, error);
    }
    return code;
}

/* ---- noise and latents ---- */

static int check_finite(const char *name, const float *values, size_t first, size_t count, size_t all, struct error *error)
{
    for (size_t i = first; i < first + count; i++)
        if (!isfinite(values[i]))
            return error_set(error, ERROR_BAD_REQUEST, "%s: value %zu of %zu is %g; accepted are finite numbers", name, i, all,
                             (double)values[i]);
    return 0;
}

static int prepare_encoder_noise(struct prepare *p, struct error *error)
{
    const struct lance_request *r = p->request;
    const size_t n = (size_t)token_grid_cells(p->plan->encoded) * p->channels;
    int code = 0;
    p->out->eps = host_alloc(n, sizeof(float), "the encoder's noise", &code, error);
    if (code)
        return code;
    if (!r->source_latent_noise)
        noise_torch_cpu(r->source_seed, p->out->eps, n);
    else if ((code = check_finite("source_latent_noise", r->source_latent_noise, 0, n, n, error)))
        return code;
    else
        memcpy(p->out->eps, r->source_latent_noise, n * sizeof(float));
    sha256_add(&p->reference, p->out->eps, n * sizeof(float));
    return 0;
}

/* The launch geometry of the H100 and H200; below 270,336 values every card draws the same (see noise.c). */
enum { CUDA_MULTIPROCESSORS = 132, CUDA_THREADS_PER_MULTIPROCESSOR = 2048 };

/* Noise of one batch item, [target cells, channels]. The official draw covers the reference's latents too, in
 * front of the target's. */
static void draw_noise(struct prepare *p, uint64_t seed, float *out)
{
    const size_t channels = p->channels, cells = p->cells, n = cells * channels;
    const size_t before = task_edits(p->request->task) ? (size_t)token_grid_cells(p->plan->encoded) * channels : 0;
    switch (p->request->noise_source) {
    case LANCE_NOISE_TORCH_CPU:
        noise_torch_cpu(seed, p->scratch, before + n);
        memcpy(out, p->scratch + before, n * sizeof *out);
        break;
    case LANCE_NOISE_TORCH_CUDA:
        noise_torch_cuda(seed, CUDA_MULTIPROCESSORS, CUDA_THREADS_PER_MULTIPROCESSOR, p->scratch, before + n);
        memcpy(out, p->scratch + before, n * sizeof *out);
        noise_round_bf16(out, n);
        break;
    case LANCE_NOISE_COMFYUI:
        noise_torch_cpu(seed, p->scratch, n);
        for (size_t i = 0; i < n; i++)
            out[i] = p->scratch[i % channels * cells + i / channels];
        break;
    case LANCE_NOISE_CLIENT:
        break;
    }
}

static int open_noise(struct prepare *p, struct error *error)
{
    const size_t n = p->cells * p->channels, before = (size_t)token_grid_cells(p->plan->encoded) * p->channels;
    int code = 0;
    p->out->initial = host_alloc((size_t)p->request->batch_size * n, sizeof(float), "noise", &code, error);
    p->scratch = host_alloc(before + n, sizeof(float), "noise", &code, error);
    return code ? code : latents_open(&p->out->given, p->model, p->plan, p->request, error);
}

/* What sampling starts from, of one batch item: noise, alone or with the client's latents. */
static int prepare_item(struct prepare *p, int item, struct error *error)
{
    const struct lance_request *r = p->request;
    const size_t n = p->cells * p->channels, first = (size_t)item * n, all = (size_t)r->batch_size * n;
    float *x = p->out->initial + first;
    int code = 0;
    if (r->noise_source == LANCE_NOISE_CLIENT) {
        if ((code = check_finite("noise", r->noise, first, n, all, error)))
            return code;
        memcpy(x, r->noise + first, n * sizeof(float));
    } else {
        draw_noise(p, r->seed + (uint64_t)item, x);
    }
    if ((r->latents && (code = check_finite("latents", r->latents->values, first, n, all, error))) ||
        (r->latent_state && (code = check_finite("latent_state", r->latent_state->values, first, n, all, error))))
        return code;
    latents_start(&p->out->given, p->model, r, item, x);
    return 0;
}

/* The task decode: the client's latents are decoded as a job's own are. */
static int keep_item(struct prepare *p, int item, struct error *error)
{
    const size_t n = p->cells * p->channels, first = (size_t)item * n, all = (size_t)p->request->batch_size * n;
    const float *values = p->request->latents->values;
    int code = check_finite("latents", values, first, n, all, error);
    if (!code)
        memcpy(p->out->raw_latents + first, values + first, n * sizeof(float));
    return code;
}

/* ---- the stage ---- */

int prepare_open(struct prepare **out, const struct lance_model *model, const struct job_plan *plan,
                 const struct lance_request *request, struct prepared *prepared, struct error *error)
{
    *out = NULL;
    struct prepare *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(error, ERROR_NO_MEMORY, "job: no memory");
    *p = (struct prepare){.model = model, .plan = plan, .request = request, .out = prepared};
    p->channels = model->latent_tokens ? (size_t)latent_tokens_channels(model->latent_tokens) : 0;
    p->cells = (size_t)token_grid_cells(plan->target);
    int code = task_has_source(request->task) ? open_source(p, error) : 0;
    if (!code && task_samples(request->task))
        code = open_noise(p, error);
    if (!code && request->task == LANCE_DECODE)
        prepared->raw_latents = host_alloc((size_t)request->batch_size * p->cells * p->channels, sizeof(float), "latents", &code, error);
    if (code)
        prepare_close(p);
    else
        *out = p;
    return code;
}

int prepare_step(struct prepare *p, int step, struct error *error)
{
    if (step < p->frame_steps)
        return prepare_frames(p, step * p->frames_per_step, error);
    step -= p->frame_steps;
    if (draws_for_encoder(p->plan, p->request) && step-- == 0)
        return prepare_encoder_noise(p, error);
    return p->request->task == LANCE_DECODE ? keep_item(p, step, error) : prepare_item(p, step, error);
}

void prepare_name_inputs(struct prepare *p, struct prefix_options *prefix)
{
    if (p->plan->sees)
        sha256_finish(&p->vit, prefix->vit_input.hex);
    if (p->plan->reference_bytes)
        sha256_finish(&p->reference, prefix->reference_input.hex);
}

void prepare_close(struct prepare *p)
{
    if (!p)
        return;
    free(p->scratch);
    free(p);
}

void prepared_free(struct prepared *prepared)
{
    free(prepared->vit_pixels);
    free(prepared->vae_pixels);
    free(prepared->eps);
    free(prepared->initial);
    free(prepared->raw_latents);
    latents_free(&prepared->given);
    *prepared = (struct prepared){0};
}
