/* decode.c: the stage that turns latents into frames, one latent frame of one batch item after the other. */
#include "daemon/engine/stages/denoise.h"

#include <stdlib.h>
#include <string.h>

struct decode_stage {
    struct job *job;
    struct vae_pass *pass;
    float *rows;     /* of a latent frame, [cells, channels] */
    float *pixels;   /* [4 frames, height, width, 3], from -1 to 1 */
    int item, frame; /* the batch item, and its latent frames done */
};

static int steps_of(const struct job *job)
{
    return job->plan.decodes ? job->request.batch_size * job->plan.decoding.steps : 0;
}
static int size_of(const struct job *job)
{
    return job->plan.decodes ? job->request.batch_size * job->plan.target.frames : 0;
}

static uint64_t rows_bytes(const struct job *job)
{
    return grid_frame_cells(job->plan.target) * job_channels(job) * sizeof(float);
}

static uint64_t pixels_bytes(const struct job *job)
{
    return VAE_TEMPORAL_STRIDE * job_picture_bytes(job) * sizeof(float);
}

static size_t item_bytes(const struct job *job)
{
    return (size_t)vae_frames(job->plan.target.frames) * job_picture_bytes(job);
}

static void need(const struct job *job, struct stage_need *need)
{
    const struct vae_cost *pass = &job->plan.decoding;
    need->own = (struct stage_bytes){.device = pass->device_bytes,
                                     .host = pass->host_bytes + rows_bytes(job) + pixels_bytes(job) +
                                             preview_scratch_bytes(job)};
    need->leaves.host = handover_sizes_of(job).pixels;
}

static int decode_open(void **out, struct job *job, struct error *error)
{
    struct decode_stage *s = *out = calloc(1, sizeof *s);
    if (!s)
        return error_set(error, ERROR_NO_MEMORY, "decode: no memory");
    s->job = job;
    int code = 0;
    s->rows = host_alloc(rows_bytes(job), "latents", &code, error);
    s->pixels = host_alloc(pixels_bytes(job), "decoded frames", &code, error);
    job->left.pixels = host_alloc(handover_sizes_of(job).pixels, "decoded frames", &code, error);
    if (!code && job_resumes(job, STAGE_DECODE)) {
        s->item = job->resumed->items;
        if (s->item > 0)
            memcpy(job->left.pixels, job->resumed->pixels, (size_t)s->item * item_bytes(job));
    }
    return code;
}

static int step(void *stage, struct stage_turn *turn, struct error *error)
{
    struct decode_stage *s = stage;
    const struct job *job = s->job;
    const struct token_grid target = job->plan.target;
    const size_t cells = job_target_cells(job), channels = job_channels(job), rows = grid_frame_cells(target);
    int code = 0, frames = 0;
    if (s->frame == target.frames) { /* of the batch item before */
        vae_pass_close(s->pass);
        s->pass = NULL;
        s->frame = 0;
        s->item++;
    }
    if (!s->pass)
        code = vae_decode_begin(&s->pass, job->model->vae, target.frames, target.height, target.width, error);
    if (code)
        return code;
    latents_frame_rows(job->left.raw_latents + (size_t)s->item * cells * channels, cells, channels,
                       (size_t)s->frame * rows, rows, s->rows);
    const int more = vae_decode_step(s->pass, s->rows, s->pixels, &frames, error);
    turn->step++;
    if (more)
        return more < 0 ? more : 0;
    const size_t first = s->frame == 0 ? 0 : (size_t)vae_frames(s->frame), picture = job_picture_bytes(job);
    vae_pixels_to_u8(s->pixels, job->left.pixels + (size_t)s->item * item_bytes(job) + first * picture,
                     (size_t)frames * picture);
    s->frame++;
    return 0;
}

static int end(void *stage, struct error *error)
{
    (void)stage;
    (void)error;
    return 0;
}

static void decode_close(void *stage)
{
    struct decode_stage *s = stage;
    if (!s)
        return;
    vae_pass_close(s->pass);
    free(s->rows);
    free(s->pixels);
    free(s);
}

/* Batch items that are done. The one that is being decoded begins again: what the VAE's convolutions keep between its
 * frames is larger than all that it has decoded. */
static int save(const void *stage, struct job_state *state, struct error *error)
{
    const struct decode_stage *s = stage;
    const struct job *job = s->job;
    const int items = s->item + (s->frame == job->plan.target.frames);
    int code = 0;
    state->items = items;
    state->step = items * job->plan.decoding.steps;
    state->pixels = host_alloc((uint64_t)items * item_bytes(job), "the job's state", &code, error);
    if (!code)
        memcpy(state->pixels, job->left.pixels, (size_t)items * item_bytes(job));
    return code;
}

const struct stage_kind decode_stage = {.steps = steps_of, .size = size_of, .need = need, .open = decode_open,
    .step = step,
                                        .end = end, .close = decode_close, .save = save};
