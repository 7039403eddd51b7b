/* prepare.c: the first stage of every job: frames of the source as the ViT and the VAE take them, the noise, and the
 * client's latents, each checked for numbers that are none. All of it is host memory; nothing runs on the device.
 *
 * Its steps, in this order: some frames of the source, the encoder's noise, and each item of the batch. The inputs of
 * visual splits are named on the way (a hash), so that what an earlier job computed of them is found again.
 */
#include "base/noise.h"
#include "base/sha256.h"
#include "daemon/engine/stages/stages.h"
#include "kernels/formats/numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIXELS_PER_STEP = 2 << 20 }; /* of the source: a frame of 1920 x 1080, some hundredths of a second */

struct prepare_stage {
    struct job *job;              /* what its request points to is borrowed until this stage has ended */
    const struct job_plan *plan;  /* these three are the job's */
    const struct lance_request *request;
    struct handover *out;
    int frames_per_step, frame_steps;
    struct sha256 vit, reference; /* of what the visual splits are made of */
    struct sha256 start;          /* of what sampling or decoding starts from */
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

static int steps_of(const struct job *job)
{
    const struct job_plan *plan = &job->plan;
    const struct lance_request *r = &job->request;
    const bool by_item = task_samples(r->task) || r->task == LANCE_DECODE;
    return frame_steps(plan, r) + draws_for_encoder(plan, r) + (by_item ? r->batch_size : 0);
}

/* ---- the source ---- */

static uint64_t scratch_bytes(const struct job *job)
{
    if (!task_samples(job->request.task))
        return 0;
    return ((uint64_t)token_grid_cells(job->plan.encoded) + job_target_cells(job)) * job_channels(job) * sizeof(float);
}

static void need(const struct job *job, struct stage_need *need)
{
    const struct handover_sizes sizes = handover_sizes_of(job);
    need->own.host = scratch_bytes(job);
    need->leaves.host = sizes.vit_pixels + sizes.vae_pixels + sizes.eps + sizes.x + sizes.given +
                        (job->request.task == LANCE_DECODE ? sizes.raw_latents : 0);
}

static size_t vit_frame_bytes(const struct job_plan *plan)
{
    return (size_t)plan->vit_size.height * (size_t)plan->vit_size.width * 3;
}

static size_t vae_frame_bytes(const struct job_plan *plan)
{
    return (size_t)plan->vae_size.height * (size_t)plan->vae_size.width * 3;
}

static int open_source(struct prepare_stage *p, struct error *error)
{
    const struct job_plan *plan = p->plan;
    const struct handover_sizes sizes = handover_sizes_of(p->job);
    int code = 0;
    p->frames_per_step = frames_per_step(p->request);
    p->frame_steps = frame_steps(plan, p->request);
    if (plan->sees) {
        const int shape[] = {2 * plan->vit_grid.t, plan->vit_size.height, plan->vit_size.width, 3};
        sha256_start(&p->vit);
        sha256_add(&p->vit, shape, sizeof shape);
        p->out->vit_pixels = host_alloc(sizes.vit_pixels, "source frames", &code, error);
    }
    if (plan->encodes) {
        const int shape[] = {plan->source_frames, plan->vae_size.height, plan->vae_size.width,
                             draws_for_encoder(plan, p->request)};
        sha256_start(&p->reference);
        sha256_add(&p->reference, shape, sizeof shape);
        p->out->vae_pixels = host_alloc(sizes.vae_pixels, "source frames", &code, error);
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

static int prepare_for_vit(struct prepare_stage *p, const uint8_t *from, int frame, struct error *error)
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

static int prepare_for_vae(struct prepare_stage *p, const uint8_t *from, int frame, struct error *error)
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

static int prepare_frames(struct prepare_stage *p, int first, struct error *error)
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

static int check_finite(const char *name, const float *values, size_t first, size_t count, size_t all,
                        struct error *error)
{
    for (size_t i = first; i < first + count; i++)
        if (!isfinite(values[i]))
            return error_set(error, ERROR_BAD_REQUEST, "%s: value %zu of %zu is %g; accepted are finite numbers", name,
                             i, all, (double)values[i]);
    return 0;
}

static int prepare_encoder_noise(struct prepare_stage *p, struct error *error)
{
    const struct lance_request *r = p->request;
    const uint64_t bytes = handover_sizes_of(p->job).eps;
    const size_t n = (size_t)(bytes / sizeof(float));
    int code = 0;
    p->out->eps = host_alloc(bytes, "the encoder's noise", &code, error);
    if (code)
        return code;
    if (!r->source_latent_noise)
        noise_torch_cpu(r->source_seed, p->out->eps, n);
    else if ((code = check_finite("source_latent_noise", r->source_latent_noise, 0, n, n, error)))
        return code;
    else
        memcpy(p->out->eps, r->source_latent_noise, bytes);
    sha256_add(&p->reference, p->out->eps, bytes);
    return 0;
}

/* The launch geometry of the H100 and H200; below 270,336 values every card draws the same (see noise.c). */
enum { CUDA_MULTIPROCESSORS = 132, CUDA_THREADS_PER_MULTIPROCESSOR = 2048 };

/* Noise of one batch item, [target cells, channels]. The official draw covers the reference's latents too, in
 * front of the target's. */
static void draw_noise(struct prepare_stage *p, uint64_t seed, float *out)
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
        bf16_round(out, n);
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

static int open_noise(struct prepare_stage *p, struct error *error)
{
    const struct latents_shape shape = job_latents_shape(p->job);
    int code = 0;
    p->out->x = host_alloc(handover_sizes_of(p->job).x, "noise", &code, error);
    p->scratch = host_alloc(scratch_bytes(p->job), "noise", &code, error);
    if (!code)
        code = latents_open(&p->out->given, p->job->model, &shape, p->request, error);
    if (!code && p->out->given.mask)
        sha256_add(&p->start, p->out->given.mask, p->out->given.batch * p->out->given.cells * sizeof(float));
    return code;
}

/* What sampling starts from, of one batch item: noise, alone or with the client's latents. */
static int prepare_item(struct prepare_stage *p, int item, struct error *error)
{
    const struct lance_request *r = p->request;
    const size_t n = p->cells * p->channels, first = (size_t)item * n, all = (size_t)r->batch_size * n;
    float *x = p->out->x + first;
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
    latents_start(&p->out->given, p->job->model, r, item, x);
    sha256_add(&p->start, x, n * sizeof(float));
    return 0;
}

/* The task decode: the client's latents are decoded as a job's own are. */
static int keep_item(struct prepare_stage *p, int item, struct error *error)
{
    const size_t n = p->cells * p->channels, first = (size_t)item * n, all = (size_t)p->request->batch_size * n;
    const float *values = p->request->latents->values;
    int code = check_finite("latents", values, first, n, all, error);
    if (code)
        return code;
    memcpy(p->out->raw_latents + first, values + first, n * sizeof(float));
    sha256_add(&p->start, values + first, n * sizeof(float));
    return 0;
}

/* ---- the stage ---- */

static int prepare_open(void **out, struct job *job, struct error *error)
{
    struct prepare_stage *p = *out = calloc(1, sizeof *p);
    if (!p)
        return error_set(error, ERROR_NO_MEMORY, "job: no memory");
    *p = (struct prepare_stage){.job = job, .plan = &job->plan, .request = &job->request, .out = &job->left};
    p->channels = job_channels(job);
    p->cells = job_target_cells(job);
    sha256_start(&p->start);
    int code = task_has_source(job->request.task) ? open_source(p, error) : 0;
    if (!code && task_samples(job->request.task))
        code = open_noise(p, error);
    if (!code && job->request.task == LANCE_DECODE)
        job->left.raw_latents = host_alloc(handover_sizes_of(job).raw_latents, "latents", &code, error);
    return code;
}

static int step(void *stage, struct stage_turn *turn, struct error *error)
{
    struct prepare_stage *p = stage;
    int step = turn->step++;
    if (step < p->frame_steps)
        return prepare_frames(p, step * p->frames_per_step, error);
    step -= p->frame_steps;
    if (draws_for_encoder(p->plan, p->request) && step-- == 0)
        return prepare_encoder_noise(p, error);
    return p->request->task == LANCE_DECODE ? keep_item(p, step, error) : prepare_item(p, step, error);
}

/* Name the visual inputs, for the prefix cache, and everything together, for a saved state. */
static int end(void *stage, struct error *error)
{
    (void)error;
    struct prepare_stage *p = stage;
    struct prefix_options *prefix = &p->job->plan.prefix;
    struct prefix_name vit = {""}, reference = {""};
    struct sha256 all = p->start;
    if (p->plan->sees)
        sha256_finish(&p->vit, vit.hex);
    if (p->plan->encodes)
        sha256_finish(&p->reference, reference.hex);
    prefix->vit_input = vit;
    if (task_edits(p->request->task))
        prefix->reference_input = reference;
    sha256_add(&all, vit.hex, sizeof vit.hex);
    sha256_add(&all, reference.hex, sizeof reference.hex);
    sha256_finish(&all, p->out->inputs);
    return 0;
}

static void prepare_close(void *stage)
{
    struct prepare_stage *p = stage;
    if (!p)
        return;
    free(p->scratch);
    free(p);
}

const struct stage_kind prepare_stage = {
    .steps = steps_of, .need = need, .open = prepare_open, .step = step, .end = end, .close = prepare_close};
