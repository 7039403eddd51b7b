/* encode.c: the stage that turns frames of the source into latents, one latent frame after the other. */
#include "daemon/engine/model/finite.h"
#include "daemon/engine/stages/stages.h"

#include <math.h>
#include <stdlib.h>

struct encode_stage {
    struct job *job;
    struct vae_pass *pass;
    float *pixels;  /* [4 frames, height, width, 3], from -1 to 1 */
    float *moments; /* of a latent frame: mean and log variance, [2, cells, channels] */
    int frame;      /* latent frames done */
};

static int steps_of(const struct job *job)
{
    const bool encodes = job->prepared ? job->left.vae_pixels != NULL : job->plan.encodes;
    return encodes ? job->plan.encoding.steps : 0;
}

static int size_of(const struct job *job) { return steps_of(job) ? job->plan.encoded.frames : 0; }

static size_t frame_pixels(const struct job *job)
{
    return (size_t)job->plan.vae_size.height * (size_t)job->plan.vae_size.width * 3;
}

static uint64_t pixels_bytes(const struct job *job) { return VAE_TEMPORAL_STRIDE * frame_pixels(job) * sizeof(float); }

static uint64_t moments_bytes(const struct job *job)
{
    return 2 * grid_frame_cells(job->plan.encoded) * job_channels(job) * sizeof(float);
}

static void need(const struct job *job, struct stage_need *need)
{
    const struct handover_sizes sizes = handover_sizes_of(job);
    need->own = (struct stage_bytes){.device = job->plan.encoding.device_bytes,
                                     .host = job->plan.encoding.host_bytes + pixels_bytes(job) + moments_bytes(job)};
    need->leaves.host = sizes.encoded;
    need->frees.host = sizes.vae_pixels + sizes.eps;
    if (job->request.task == LANCE_ENCODE) { /* in another order */
        need->leaves.host += sizes.raw_latents;
        need->frees.host += sizes.encoded;
    }
}

static int encode_open(void **out, struct job *job, struct error *error)
{
    struct encode_stage *s = *out = calloc(1, sizeof *s);
    if (!s)
        return error_set(error, ERROR_NO_MEMORY, "encode: no memory");
    s->job = job;
    int code = 0;
    s->pixels = host_alloc(pixels_bytes(job), "source frames", &code, error);
    s->moments = host_alloc(moments_bytes(job), "latents", &code, error);
    job->left.encoded = host_alloc(handover_sizes_of(job).encoded, "latents", &code, error);
    return code ? code : vae_encode_begin(&s->pass, job->model->vae, job->plan.encoded.frames, job->plan.encoded.height,
                                          job->plan.encoded.width, error);
}

/* latent = mean + eps * exp(log_variance / 2), as the official code samples it. */
static int keep_frame(struct encode_stage *s, const float *mean, const float *log_variance, struct error *error)
{
    const struct job *job = s->job;
    const size_t cells = grid_frame_cells(job->plan.encoded), channels = job_channels(job);
    const size_t all = cells * (size_t)job->plan.encoded.frames, frame = (size_t)s->frame;
    float *to = job->left.encoded + frame * cells * channels;
    for (size_t cell = 0; cell < cells; cell++)
        for (size_t c = 0; c < channels; c++) {
            const size_t i = cell * channels + c;
            const float eps = job->left.eps ? job->left.eps[c * all + frame * cells + cell] : 0;
            to[i] = mean[i] + eps * expf(0.5f * log_variance[i]);
        }
    return finite_check(to, cells * channels, "encode", error);
}

static int step(void *stage, struct stage_turn *turn, struct error *error)
{
    struct encode_stage *s = stage;
    const struct job *job = s->job;
    const size_t pixels = frame_pixels(job);
    const int first = s->frame == 0 ? 0 : vae_frames(s->frame), frames = s->frame == 0 ? 1 : VAE_TEMPORAL_STRIDE;
    const uint8_t *from = job->left.vae_pixels + (size_t)first * pixels;
    for (size_t i = 0; i < (size_t)frames * pixels; i++)
        s->pixels[i] = ((float)from[i] / 255.0f - 0.5f) / 0.5f;
    float *mean = s->moments, *log_variance = mean + grid_frame_cells(job->plan.encoded) * job_channels(job);
    const int more = vae_encode_step(s->pass, s->pixels, frames, mean, log_variance, error);
    turn->step++;
    if (more)
        return more < 0 ? more : 0;
    const int code = keep_frame(s, mean, log_variance, error);
    s->frame++;
    return code;
}

/* The result of the task encode: channels first, in the VAE's raw scale. */
static int keep_encoded(struct job *job, struct error *error)
{
    const size_t cells = job_target_cells(job), channels = job_channels(job);
    int code = 0;
    float *raw = job->left.raw_latents = host_alloc(handover_sizes_of(job).raw_latents, "latents", &code, error);
    if (code)
        return code;
    vae_latent_to_raw(job->model->vae, job->left.encoded, cells);
    for (size_t i = 0; i < cells * channels; i++)
        raw[i % channels * cells + i / channels] = job->left.encoded[i];
    free(job->left.encoded);
    job->left.encoded = NULL;
    return 0;
}

static int end(void *stage, struct error *error)
{
    struct job *job = ((struct encode_stage *)stage)->job;
    free(job->left.vae_pixels);
    free(job->left.eps);
    job->left.vae_pixels = NULL;
    job->left.eps = NULL;
    return job->request.task == LANCE_ENCODE ? keep_encoded(job, error) : 0;
}

static void encode_close(void *stage)
{
    struct encode_stage *s = stage;
    if (!s)
        return;
    vae_pass_close(s->pass);
    free(s->pixels);
    free(s->moments);
    free(s);
}

const struct stage_kind encode_stage = {
    .steps = steps_of, .size = size_of, .need = need, .open = encode_open, .step = step, .end = end,
        .close = encode_close};
