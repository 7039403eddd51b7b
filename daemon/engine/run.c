/* run.c: a job's life: start, step through its stages, results.
 *
 * A job is a list of stages, each with a known number of steps:
 *
 *   prepare  some frames of the source, or the noise of a batch item, per step (prepare.c). Afterwards the prefix
 *            cache is asked what is there, and stages that nothing needs any more are left out
 *   vit      one transformer block of the vision encoder per step
 *   encode   one latent frame of the source per step; of a large one, one block of the VAE's layers
 *   prefix   one split of the prompt per step, into KV caches; those that an earlier job left in the prefix cache are not
 *            run again, nor the stages that only feed them
 *   denoise  one Euler step of all batch items per step
 *   decode   one latent frame of one batch item per step; of a large one, one block of the VAE's layers
 *   text     a few tokens of the answer per step
 *
 * The tasks encode and decode have one stage alone beside preparing.
 *
 * A stage allocates what it needs when it begins and frees what no later stage needs when it ends;
 * plan.c sums the same sizes, so what is changed here is changed there.
 */
#include "base/clock.h"
#include "daemon/engine/internal.h"
#include "daemon/engine/model/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct stage {
    enum lance_stage id;
    int (*begin)(struct lance_job *job, struct error *error);
    int (*step)(struct lance_job *job, int step, struct error *error); /* a step of `steps`; text may end early */
    int (*end)(struct lance_job *job, struct error *error);
};

struct lance_job {
    struct lance_model *model;
    struct kernels *kernels;
    struct lance_request request; /* its pointers are not used after the first stage */
    struct job_plan plan;

    const struct stage *stages[STAGE_COUNT];
    int stage_steps[STAGE_COUNT], stage_size[STAGE_COUNT]; /* size: with a latent frame of the VAE as one step */
    double stage_seconds[STAGE_COUNT];
    int stages_done_steps[STAGE_COUNT];
    int stage_count, stage, step, total_step, total_steps;
    bool begun, failed, finished;

    /* host */
    struct prepare *prepare;
    struct prepared prepared; /* what is not needed any more is freed and NULL */
    float *encoded;        /* [encoded cells, channels], normalised latents of the source */
    float *host_x;         /* x, while the mask is put back */
    float *chunk;          /* scratch of encode and decode: 4 frames of pixels */
    float *moments;        /* scratch of encode: mean and log variance of a latent frame; of decode: a latent frame */
    float *latents;        /* [batch, target cells, channels], normalised: the outcome of denoising */
    float *raw_latents;    /* [batch, channels, target cells], the result, or what is decoded */
    float *latent_state;   /* the same, normalised, where noise is left */
    uint8_t *pixels;       /* [batch, frames, height, width, 3], the result */
    uint8_t *preview;
    char *text;

    /* device */
    act *vit_tokens, *reference_latents, *reference_positions;
    struct vit_pass *vit_pass;
    struct vae_pass *vae_pass;
    int vae_item, vae_frame; /* the batch item and latent frame that the VAE is at */
    struct prefix *prefix;
    struct decoder_workspace *workspace;
    struct denoiser *denoiser;
    param *x;        /* [batch, target cells, channels] */
    param *velocity; /* [target cells, channels] of the first batch item */
    struct answer *answer;
    const char *piece;

    atomic_bool aborted;             /* by another thread */
    uint64_t promised_bytes;         /* what admission set aside */
    uint64_t held_bytes, peak_bytes; /* device memory of this job, now and at its highest */
};

static int device_alloc(struct lance_job *job, void *out, uint64_t bytes, struct error *error)
{
    return job->kernels->memory_alloc(job->kernels, out, bytes, error);
}

static void device_free(struct lance_job *job, void *memory_pointer)
{
    void **memory = memory_pointer;
    job->kernels->memory_free(job->kernels, *memory);
    *memory = NULL;
}

static size_t channels_of(const struct lance_job *job) { return (size_t)latent_tokens_channels(job->model->latent_tokens); }
static size_t target_cells(const struct lance_job *job) { return (size_t)token_grid_cells(job->plan.target); }
static size_t frame_cells(struct token_grid grid) { return (size_t)grid.height * (size_t)grid.width; }

/* ---- admission ---- */

/* Device memory of all jobs: what is kept for later is nobody's. */
static uint64_t memory_of_jobs(const struct lance_job *job)
{
    return job->kernels->memory_in_use(job->kernels) - prefix_cache_idle_bytes(job->model->prefix_cache);
}

/* Have kept prefixes give way to what jobs were promised. */
static void make_room(struct lance_model *model)
{
    const uint64_t limit = model->memory_limit_bytes;
    if (limit)
        prefix_cache_trim(model->prefix_cache, limit > model->promised_bytes ? limit - model->promised_bytes : 0);
}

static int admit(struct lance_job *job, struct error *error)
{
    struct lance_model *model = job->model;
    const uint64_t limit = model->memory_limit_bytes, bytes = job_plan_need(&job->plan, model);
    int code = job_plan_check_fit(&job->plan, model, error);
    if (code)
        return code;
    if (limit && model->promised_bytes + bytes > limit)
        return error_set(error, ERROR_BUSY, "the job needs %.1f MB of memory; other jobs hold %.1f of %.1f MB. Try again "
                         "when they are done", (double)bytes / 1e6, (double)model->promised_bytes / 1e6, (double)limit / 1e6);
    job->promised_bytes = bytes;
    model->promised_bytes += bytes;
    return 0;
}

/* ---- what earlier jobs left ---- */

/* The first split that is still to be run. */
static int missing_split(const struct lance_job *job)
{
    int split = 0;
    while (split < prefix_splits(job->prefix) && prefix_has(job->prefix, split))
        split++;
    return split;
}

/* Take from the prefix cache what is there, and forget the source where nothing needs it any more. */
static int open_prefix(struct lance_job *job, struct error *error)
{
    struct lance_model *model = job->model;
    const uint64_t before = memory_of_jobs(job);
    int code = prefix_open(&job->prefix, model->decoder, model->latent_tokens, job->kernels, model->prefix_cache,
                           &job->plan.prefix, error);
    if (code)
        return code;
    const uint64_t found_bytes = memory_of_jobs(job) - before;
    if (!prefix_lacks(job->prefix, SPLIT_FULL)) {
        free(job->prepared.vit_pixels);
        job->prepared.vit_pixels = NULL;
    }
    if (!prefix_lacks(job->prefix, SPLIT_FULL_NOISE) && job->plan.condition_frames == 0) {
        free(job->prepared.vae_pixels);
        free(job->prepared.eps);
        job->prepared.vae_pixels = NULL;
        job->prepared.eps = NULL;
    }
    /* What was found is held from now on, beside what the source's stages need. */
    const uint64_t source_need = model->kernels->host_memory ? job->plan.source_memory.total_bytes
                                                             : job->plan.source_memory.device_bytes;
    if ((job->prepared.vit_pixels || job->prepared.vae_pixels) && source_need + found_bytes > job->promised_bytes) {
        model->promised_bytes += source_need + found_bytes - job->promised_bytes;
        job->promised_bytes = source_need + found_bytes;
    }
    make_room(model);
    return 0;
}

/* The job is done with its prefix; others may want it. */
static void close_prefix(struct lance_job *job)
{
    prefix_close(job->prefix);
    job->prefix = NULL;
    make_room(job->model);
}

/* ---- prepare ---- */

static int prepare_stage_begin(struct lance_job *job, struct error *error)
{
    return prepare_open(&job->prepare, job->model, &job->plan, &job->request, &job->prepared, error);
}

static int prepare_stage_step(struct lance_job *job, int step, struct error *error)
{
    return prepare_step(job->prepare, step, error);
}

static int list_stages(struct lance_job *job, struct error *error);

/* What was borrowed is the caller's again, and what has to be done is known. */
static int prepare_stage_end(struct lance_job *job, struct error *error)
{
    struct lance_request *r = &job->request;
    prepare_name_inputs(job->prepare, &job->plan.prefix);
    prepare_close(job->prepare);
    job->prepare = NULL;
    job->raw_latents = job->prepared.raw_latents;
    job->prepared.raw_latents = NULL;
    r->prompt = r->negative_prompt = r->system_prompt = r->resolution = NULL;
    r->source = NULL;
    r->noise = r->source_latent_noise = NULL;
    r->latents = r->latent_state = r->latent_mask = NULL;
    int code = job->plan.prompt ? open_prefix(job, error) : 0;
    return code ? code : list_stages(job, error);
}

/* ---- vit ---- */

static int vit_stage_begin(struct lance_job *job, struct error *error)
{
    int code = device_alloc(job, &job->vit_tokens, job->plan.vit_token_bytes, error);
    return code ? code : vit_begin(&job->vit_pass, job->model->vit, job->prepared.vit_pixels, job->plan.vit_grid, job->vit_tokens, error);
}

static int vit_stage_step(struct lance_job *job, int step, struct error *error)
{
    (void)step;
    int done, blocks;
    int code = vit_step(job->vit_pass, &done, &blocks, error);
    return code < 0 ? code : 0;
}

static int vit_stage_end(struct lance_job *job, struct error *error)
{
    const size_t values = job->plan.vit_token_bytes / job->kernels->act_bytes;
    int code = 0;
    float *tokens = host_alloc(values, sizeof(float), "tokens of the ViT", &code, error);
    if (!code) {
        job->kernels->download(job->kernels, tokens, job->vit_tokens, values);
        code = finite_check(tokens, values, "vit", error);
    }
    free(tokens);
    vit_pass_close(job->vit_pass);
    job->vit_pass = NULL;
    free(job->prepared.vit_pixels);
    job->prepared.vit_pixels = NULL;
    return code;
}

/* ---- encode ---- */

static int encode_stage_begin(struct lance_job *job, struct error *error)
{
    const struct job_plan *plan = &job->plan;
    const size_t channels = channels_of(job), pixels = (size_t)plan->vae_size.height * (size_t)plan->vae_size.width * 3;
    int code = 0;
    job->chunk = host_alloc(VAE_TEMPORAL_STRIDE * pixels, sizeof(float), "source frames", &code, error);
    job->moments = host_alloc(2 * frame_cells(plan->encoded) * channels, sizeof(float), "latents", &code, error);
    job->encoded = host_alloc((size_t)token_grid_cells(plan->encoded) * channels, sizeof(float), "latents", &code, error);
    return code ? code : vae_encode_begin(&job->vae_pass, job->model->vae, plan->encoded.frames, plan->encoded.height,
                                          plan->encoded.width, error);
}

/* latent = mean + eps * exp(log_variance / 2), as the official code samples it. */
static int encode_stage_step(struct lance_job *job, int step, struct error *error)
{
    (void)step;
    const struct job_plan *plan = &job->plan;
    const size_t pixels = (size_t)plan->vae_size.height * (size_t)plan->vae_size.width * 3;
    const int frame = job->vae_frame;
    const int first = frame == 0 ? 0 : 1 + (frame - 1) * VAE_TEMPORAL_STRIDE, frames = frame == 0 ? 1 : VAE_TEMPORAL_STRIDE;
    const uint8_t *from = job->prepared.vae_pixels + (size_t)first * pixels;
    for (size_t i = 0; i < (size_t)frames * pixels; i++)
        job->chunk[i] = ((float)from[i] / 255.0f - 0.5f) / 0.5f;
    const size_t cells = frame_cells(plan->encoded), channels = channels_of(job), all = cells * (size_t)plan->encoded.frames;
    float *mean = job->moments, *log_variance = mean + cells * channels;
    int more = vae_encode_step(job->vae_pass, job->chunk, frames, mean, log_variance, error);
    if (more)
        return more < 0 ? more : 0;
    job->vae_frame++;
    float *to = job->encoded + (size_t)frame * cells * channels;
    for (size_t cell = 0; cell < cells; cell++)
        for (size_t c = 0; c < channels; c++) {
            size_t i = cell * channels + c;
            float eps = job->prepared.eps ? job->prepared.eps[c * all + (size_t)frame * cells + cell] : 0;
            to[i] = mean[i] + eps * expf(0.5f * log_variance[i]);
        }
    return finite_check(to, cells * channels, "encode", error);
}

/* The result of the task encode: channels first, in the VAE's raw scale. */
static int keep_encoded(struct lance_job *job, struct error *error)
{
    const size_t cells = target_cells(job), channels = channels_of(job);
    int code = 0;
    job->raw_latents = host_alloc(cells * channels, sizeof(float), "latents", &code, error);
    if (code)
        return code;
    vae_latent_to_raw(job->model->vae, job->encoded, cells);
    for (size_t i = 0; i < cells * channels; i++)
        job->raw_latents[i % channels * cells + i / channels] = job->encoded[i];
    free(job->encoded);
    job->encoded = NULL;
    return 0;
}

static int encode_stage_end(struct lance_job *job, struct error *error)
{
    vae_pass_close(job->vae_pass);
    job->vae_pass = NULL;
    free(job->chunk);
    free(job->moments);
    free(job->prepared.vae_pixels);
    free(job->prepared.eps);
    job->chunk = job->moments = job->prepared.eps = NULL;
    job->prepared.vae_pixels = NULL;
    job->vae_frame = 0;
    return job->request.task == LANCE_ENCODE ? keep_encoded(job, error) : 0;
}

/* ---- prefix ---- */

/* The workspace of the decoder, when it is first needed. */
static int open_workspace(struct lance_job *job, struct error *error)
{
    if (job->workspace)
        return 0;
    return decoder_workspace_open(&job->workspace, job->model->decoder, job->plan.workspace_rows, job->plan.query_rows, error);
}

static int prefix_stage_begin(struct lance_job *job, struct error *error)
{
    const struct job_plan *plan = &job->plan;
    const struct lance_model *model = job->model;
    int code = 0;
    if (prefix_lacks(job->prefix, SPLIT_FULL_NOISE)) {
        const size_t n = (size_t)token_grid_cells(plan->encoded), channels = channels_of(job);
        const size_t latent_bytes = n * channels * job->kernels->act_bytes;
        if ((code = device_alloc(job, &job->reference_latents, latent_bytes, error)) ||
            (code = device_alloc(job, &job->reference_positions, plan->reference_bytes - latent_bytes, error)) ||
            (code = latent_tokens_positions(model->latent_tokens, plan->encoded, job->reference_positions, error)))
            return code;
        job->kernels->upload(job->kernels, job->reference_latents, job->encoded, n * channels);
    }
    return open_workspace(job, error);
}

static int prefix_stage_step(struct lance_job *job, int step, struct error *error)
{
    (void)step;
    const struct prefix_inputs inputs = {job->vit_tokens, job->reference_latents, job->reference_positions};
    return prefix_run(job->prefix, missing_split(job), job->workspace, &inputs, NULL, error);
}

static int prefix_stage_end(struct lance_job *job, struct error *error)
{
    (void)error;
    device_free(job, &job->vit_tokens);
    device_free(job, &job->reference_latents);
    device_free(job, &job->reference_positions);
    return 0;
}

/* ---- denoise ---- */

static int denoise_stage_begin(struct lance_job *job, struct error *error)
{
    const struct job_plan *plan = &job->plan;
    const struct lance_model *model = job->model;
    const size_t item = target_cells(job) * channels_of(job), batch = (size_t)job->request.batch_size;
    const size_t given = job->encoded && job->request.task == LANCE_I2V ? frame_cells(plan->target) * channels_of(job) : 0;
    int code;
    if ((code = open_workspace(job, error)) || (code = device_alloc(job, &job->x, batch * item * sizeof(float), error)) ||
        (code = device_alloc(job, &job->velocity, item * sizeof(float), error)) ||
        (code = denoiser_open(&job->denoiser, model->decoder, model->latent_tokens, job->kernels, job->workspace, job->prefix,
                              &plan->denoiser, error)))
        return code;
    for (size_t i = 0; i < batch && given; i++)
        memcpy(job->prepared.initial + i * item, job->encoded, given * sizeof(float));
    job->kernels->param_upload(job->kernels, job->x, job->prepared.initial, batch * item);
    free(job->prepared.initial);
    job->prepared.initial = NULL;
    code = 0;
    if (job->prepared.given.mask)
        job->host_x = host_alloc(batch * item, sizeof(float), "masked latents", &code, error);
    return code;
}

/* The first step shows whether the weights are numbers; denoise_stage_end looks at what the last one left. */
static int check_first_step(struct lance_job *job, struct error *error)
{
    const size_t n = (size_t)job->request.batch_size * target_cells(job) * channels_of(job);
    int code = 0;
    float *x = host_alloc(n, sizeof(float), "latents", &code, error);
    if (!code) {
        job->kernels->param_download(job->kernels, x, job->x, n);
        code = finite_check(x, n, "denoise, step 1,", error);
    }
    free(x);
    return code;
}

static int denoise_stage_step(struct lance_job *job, int step, struct error *error)
{
    const struct lance_request *r = &job->request;
    struct kernels *k = job->kernels;
    const float t = job->plan.timesteps[step], dt = t - job->plan.timesteps[step + 1];
    const bool guided = sampler_is_guided(t, r->guidance_scale, r->guidance_interval);
    const size_t item = target_cells(job) * channels_of(job);
    const act *cond, *uncond;
    int code = denoiser_velocity(job->denoiser, job->x, t, guided, NULL, &cond, &uncond, error);
    if (code)
        return code;
    for (int i = 0; i < r->batch_size; i++) {
        const struct guided_step update = {
            .x = param_at(job->x, (size_t)i * item),
            .v_cond = act_at(k, cond, (size_t)i * item),
            .v_uncond = uncond ? act_at(k, uncond, (size_t)i * item) : NULL,
            .rows = (int)target_cells(job),
            .width = (int)channels_of(job),
            .first_row = job->plan.condition_frames * (int)frame_cells(job->plan.target),
            .guidance_scale = (float)r->guidance_scale,
            .renorm = r->guidance_renorm,
            .renorm_min = (float)r->guidance_renorm_min,
            .dt = dt,
            .v_out = i == 0 ? job->velocity : NULL,
        };
        k->guided_step(k, &update);
    }
    code = k->sync(k, error);
    if (!code && step == 0)
        code = check_first_step(job, error);
    if (code || !job->prepared.given.mask)
        return code;
    const size_t n = (size_t)r->batch_size * item;
    k->param_download(k, job->host_x, job->x, n);
    latents_keep(&job->prepared.given, t - dt, job->host_x);
    k->param_upload(k, job->x, job->host_x, n);
    return 0;
}

static int denoise_stage_end(struct lance_job *job, struct error *error)
{
    const size_t n = (size_t)job->request.batch_size * target_cells(job) * channels_of(job);
    int code = 0;
    job->latents = host_alloc(n, sizeof(float), "latents", &code, error);
    job->raw_latents = host_alloc(n, sizeof(float), "latents", &code, error);
    if (job->plan.timesteps[job->plan.steps] > 0)
        job->latent_state = host_alloc(n, sizeof(float), "latents", &code, error);
    if (code)
        return code;
    job->kernels->param_download(job->kernels, job->latents, job->x, n);
    if ((code = finite_check(job->latents, n, "denoise", error)))
        return code;
    latents_finish(&job->prepared.given, job->model, job->latents, job->raw_latents, job->latent_state);
    latents_free(&job->prepared.given);
    free(job->host_x);
    job->host_x = NULL;
    denoiser_close(job->denoiser);
    decoder_workspace_close(job->workspace);
    job->denoiser = NULL;
    job->workspace = NULL;
    close_prefix(job);
    device_free(job, &job->x);
    device_free(job, &job->velocity);
    return 0;
}

/* ---- decode ---- */

static size_t picture_bytes(const struct lance_job *job)
{
    return frame_cells(job->plan.target) * VAE_SPATIAL_STRIDE * VAE_SPATIAL_STRIDE * 3;
}

static int decode_stage_begin(struct lance_job *job, struct error *error)
{
    const size_t frames = (size_t)vae_frames(job->plan.target.frames);
    int code = 0;
    job->moments = host_alloc(frame_cells(job->plan.target) * channels_of(job), sizeof(float), "latents", &code, error);
    job->chunk = host_alloc(VAE_TEMPORAL_STRIDE * picture_bytes(job), sizeof(float), "decoded frames", &code, error);
    job->pixels = host_alloc((size_t)job->request.batch_size * frames * picture_bytes(job), 1, "decoded frames", &code, error);
    return code;
}

static int decode_stage_step(struct lance_job *job, int step, struct error *error)
{
    (void)step;
    const struct token_grid target = job->plan.target;
    const size_t cells = target_cells(job), channels = channels_of(job), rows = frame_cells(target);
    int code = 0, frames = 0;
    if (job->vae_frame == target.frames) { /* of the batch item before */
        vae_pass_close(job->vae_pass);
        job->vae_pass = NULL;
        job->vae_frame = 0;
        job->vae_item++;
    }
    const int frame = job->vae_frame;
    if (!job->vae_pass)
        code = vae_decode_begin(&job->vae_pass, job->model->vae, target.frames, target.height, target.width, error);
    if (code)
        return code;
    latents_frame_rows(job->raw_latents + (size_t)job->vae_item * cells * channels, cells, channels, (size_t)frame * rows, rows,
                       job->moments);
    int more = vae_decode_step(job->vae_pass, job->moments, job->chunk, &frames, error);
    if (more)
        return more < 0 ? more : 0;
    size_t first = (size_t)job->vae_item * (size_t)vae_frames(target.frames) + (size_t)(frame == 0 ? 0 : vae_frames(frame));
    vae_pixels_to_u8(job->chunk, job->pixels + first * picture_bytes(job), (size_t)frames * picture_bytes(job));
    job->vae_frame++;
    return 0;
}

static int decode_stage_end(struct lance_job *job, struct error *error)
{
    (void)error;
    vae_pass_close(job->vae_pass);
    job->vae_pass = NULL;
    free(job->chunk);
    free(job->moments);
    job->chunk = job->moments = NULL;
    return 0;
}

/* ---- text ---- */

static int text_stage_begin(struct lance_job *job, struct error *error)
{
    int code = open_workspace(job, error);
    return code ? code : answer_open(&job->answer, job->model, &job->plan, &job->request, job->prefix, job->workspace, error);
}

static int text_stage_step(struct lance_job *job, int step, struct error *error)
{
    (void)step;
    int status = answer_step(job->answer, &job->piece, error);
    if (status < 0)
        return status;
    const int32_t *ids;
    job->step = answer_tokens(job->answer, &ids) - 1; /* the caller adds one */
    if (status == LANCE_STEP_DONE) { /* shorter than it might have been */
        job->total_steps -= job->stage_steps[job->stage] - (job->step + 1);
        job->stage_steps[job->stage] = job->step + 1;
    }
    return 0;
}

static int text_stage_end(struct lance_job *job, struct error *error)
{
    int code = answer_text(job->answer, &job->text, error);
    decoder_workspace_close(job->workspace);
    job->workspace = NULL;
    close_prefix(job);
    return code;
}

/* ---- start ---- */

static const struct stage prepare_stage = {STAGE_PREPARE, prepare_stage_begin, prepare_stage_step, prepare_stage_end};
static const struct stage vit_stage = {STAGE_VIT, vit_stage_begin, vit_stage_step, vit_stage_end};
static const struct stage encode_stage = {STAGE_ENCODE, encode_stage_begin, encode_stage_step, encode_stage_end};
static const struct stage prefix_stage = {STAGE_PREFIX, prefix_stage_begin, prefix_stage_step, prefix_stage_end};
static const struct stage denoise_stage = {STAGE_DENOISE, denoise_stage_begin, denoise_stage_step, denoise_stage_end};
static const struct stage decode_stage = {STAGE_DECODE, decode_stage_begin, decode_stage_step, decode_stage_end};
static const struct stage text_stage = {STAGE_TEXT, text_stage_begin, text_stage_step, text_stage_end};

static void add_stage(struct lance_job *job, const struct stage *stage, int steps, int size)
{
    job->stages[job->stage_count] = stage;
    job->stage_size[job->stage_count] = size;
    job->stage_steps[job->stage_count++] = steps;
    job->total_steps += steps;
}

/* The stages of the job: all that it may need, as long as it is not known what earlier jobs have left (no prefix is open). */
static int list_stages(struct lance_job *job, struct error *error)
{
    const struct job_plan *plan = &job->plan;
    const struct lance_request *r = &job->request;
    const struct token_grid grid = plan->target;
    const bool begins = job->stage_count == 0;
    int missing = plan->prompt && begins ? prompt_prefix_splits(plan->prompt) : 0, steps;
    for (int i = 0; job->prefix && i < prefix_splits(job->prefix); i++)
        missing += !prefix_has(job->prefix, i);
    if (begins)
        add_stage(job, &prepare_stage, prepare_steps(plan, r), 0);
    job->stage_count = 1;
    job->total_steps = job->stage_steps[0];
    if (begins ? plan->sees : job->prepared.vit_pixels != NULL)
        add_stage(job, &vit_stage, checkpoint_config(job->model->checkpoint)->vit.depth, 1);
    if (begins ? plan->encodes : job->prepared.vae_pixels != NULL) {
        steps = vae_encode_steps(job->model->vae, plan->encoded.frames, plan->encoded.height, plan->encoded.width, error);
        if (steps < 0)
            return steps;
        add_stage(job, &encode_stage, steps, plan->encoded.frames);
    }
    if (missing > 0)
        add_stage(job, &prefix_stage, missing, missing);
    if (task_answers(r->task)) {
        add_stage(job, &text_stage, r->max_new_tokens, r->max_new_tokens);
        return 0;
    }
    if (task_samples(r->task))
        add_stage(job, &denoise_stage, plan->steps, plan->steps);
    if (r->task == LANCE_DECODE || (task_samples(r->task) && r->decode)) {
        steps = vae_decode_steps(job->model->vae, grid.frames, grid.height, grid.width, error);
        if (steps < 0)
            return steps;
        add_stage(job, &decode_stage, r->batch_size * steps, r->batch_size * grid.frames);
    }
    return 0;
}

int lance_job_start(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                    struct error *error)
{
    *out = NULL;
    struct job_plan plan;
    int code = job_plan_make(&plan, model, request, error);
    if (code)
        return code;
    struct lance_job *job = calloc(1, sizeof *job);
    if (!job) {
        job_plan_free(&plan);
        return error_set(error, ERROR_NO_MEMORY, "job: no memory");
    }
    job->model = model;
    job->kernels = model->kernels;
    job->request = *request;
    job->plan = plan;
    code = admit(job, error);
    if (!code)
        code = list_stages(job, error);
    if (code)
        lance_job_close(job);
    else
        *out = job;
    return code;
}

/* ---- stepping ---- */

/* Note what the job holds; `others` is what is not its own. */
static void account_memory(struct lance_job *job, uint64_t others)
{
    const uint64_t used = memory_of_jobs(job);
    job->held_bytes = used > others ? used - others : 0; /* a shared prefix may have been counted as another job's */
    if (job->held_bytes > job->peak_bytes)
        job->peak_bytes = job->held_bytes;
}

/* One step of the current stage, its beginning and its end where they fall. A stage holds most after its steps
 * and before its end; where a new peak of the backend shows more, that counts. */
static int advance(struct lance_job *job, struct error *error)
{
    const struct stage *stage = job->stages[job->stage];
    struct kernels *k = job->kernels;
    const uint64_t others = memory_of_jobs(job) - job->held_bytes, peak_before = k->memory_peak(k);
    const uint64_t kept = prefix_cache_idle_bytes(job->model->prefix_cache);
    int code = 0, before = job->step;
    job->piece = NULL;
    if (!job->begun)
        code = stage->begin(job, error);
    job->begun = true;
    if (!code)
        code = stage->step(job, job->step, error);
    account_memory(job, others);
    if (!code) {
        job->step++;
        job->total_step += job->step - before;
        if (job->step >= job->stage_steps[job->stage])
            code = stage->end(job, error);
    }
    account_memory(job, others);
    const uint64_t peak = k->memory_peak(k);
    if (peak > peak_before && peak - kept - others > job->peak_bytes)
        job->peak_bytes = peak - kept - others;
    return code;
}

static int later_steps(const struct lance_job *job)
{
    int steps = 0;
    for (int i = job->stage + 1; i < job->stage_count; i++)
        steps += job->stage_size[i];
    return steps;
}

int lance_job_step(struct lance_job *job, struct lance_progress *progress, struct error *error)
{
    if (job->failed || job->finished)
        return job->finished ? LANCE_STEP_DONE : error_set(error, ERROR_INTERNAL, "the job has failed and can only be closed");
    const double start = clock_seconds();
    job->kernels->watch(job->kernels, &job->aborted);
    int code = atomic_load(&job->aborted) ? ERROR_CANCELLED : advance(job, error);
    job->kernels->watch(job->kernels, NULL);
    if (code) {
        job->failed = true;
        return code == ERROR_CANCELLED ? error_set(error, code, "the job was cancelled") : code;
    }
    const int stage = job->stage;
    const double seconds = clock_seconds() - start;
    job->stage_seconds[stage] += seconds;
    job->stages_done_steps[stage] = job->step;
    *progress = (struct lance_progress){
        .stage = job->stages[stage]->id,
        .step = job->step,
        .steps = job->stage_steps[stage],
        .total_step = job->total_step,
        .total_steps = job->total_steps,
        .later_steps = later_steps(job),
        .text = job->piece && *job->piece ? job->piece : NULL,
        .seconds = seconds,
    };
    if (job->step >= job->stage_steps[stage]) {
        job->stage++;
        job->step = 0;
        job->begun = false;
        job->finished = job->stage == job->stage_count;
    }
    return job->finished ? LANCE_STEP_DONE : LANCE_STEP_MORE;
}

void lance_job_abort(struct lance_job *job)
{
    atomic_store(&job->aborted, true);
}

/* ---- results ---- */

int lance_job_preview(struct lance_job *job, const uint8_t **rgb, int *frames, int *height, int *width, struct error *error)
{
    if (!job->request.preview)
        return error_set(error, ERROR_BAD_REQUEST, "the job was started without previews");
    const bool denoising = job->denoiser && job->stages[job->stage] == &denoise_stage && job->step > 0;
    if (!denoising && !job->latents)
        return error_set(error, ERROR_NOT_FOUND, "there is no preview before the first denoising step");
    const size_t cells = target_cells(job), n = cells * channels_of(job);
    int code = 0;
    float *clean = host_alloc(2 * n, sizeof(float), "a preview", &code, error);
    if (!code && !job->preview)
        job->preview = host_alloc(cells, 3, "a preview", &code, error);
    if (!code && denoising) {
        /* Where the last step's velocity leads from here: x - t * v. */
        float *velocity = clean + n;
        const float t = job->plan.timesteps[job->step];
        job->kernels->param_download(job->kernels, clean, job->x, n);
        job->kernels->param_download(job->kernels, velocity, job->velocity, n);
        for (size_t i = (size_t)job->plan.condition_frames * frame_cells(job->plan.target) * channels_of(job); i < n; i++)
            clean[i] -= t * velocity[i];
    } else if (!code) {
        memcpy(clean, job->latents, n * sizeof *clean);
    }
    job->kernels->watch(job->kernels, &job->aborted);
    if (!code)
        code = preview_make(job->model, clean, cells, job->preview, error);
    job->kernels->watch(job->kernels, NULL);
    free(clean);
    *rgb = job->preview;
    *frames = job->plan.target.frames;
    *height = job->plan.target.height;
    *width = job->plan.target.width;
    return code;
}

int lance_job_result(const struct lance_job *job, struct lance_result *result, struct error *error)
{
    *result = (struct lance_result){0};
    if (!job->finished)
        return error_set(error, ERROR_BUSY, "the job is not done");
    const struct token_grid target = job->plan.target;
    result->batch = job->request.batch_size;
    result->peak_bytes = job->peak_bytes;
    result->estimated_bytes = job->plan.memory.device_bytes;
    for (int i = 0; i < job->stage_count; i++)
        result->stages[result->stage_count++] =
            (struct lance_stage_time){job->stages[i]->id, job->stage_seconds[i], job->stages_done_steps[i]};
    if (target.frames > 0) {
        result->pixels = job->pixels;
        result->frames = vae_frames(target.frames);
        result->height = target.height * VAE_SPATIAL_STRIDE;
        result->width = target.width * VAE_SPATIAL_STRIDE;
        result->fps = task_makes_video(job->request.task) || target.frames > 1 ? LANCE_VIDEO_FPS : 0;
        result->latents = job->request.task == LANCE_DECODE ? NULL : job->raw_latents;
        result->latent_state = job->latent_state;
        result->latent_frames = target.frames;
        result->latent_height = target.height;
        result->latent_width = target.width;
    } else {
        result->batch = 1;
        result->text = job->text;
        result->tokens = answer_tokens(job->answer, &result->token_ids);
    }
    return 0;
}

void lance_job_close(struct lance_job *job)
{
    if (!job)
        return;
    job->model->promised_bytes -= job->promised_bytes;
    vit_pass_close(job->vit_pass);
    vae_pass_close(job->vae_pass);
    answer_close(job->answer);
    denoiser_close(job->denoiser);
    decoder_workspace_close(job->workspace);
    prefix_close(job->prefix);
    prepare_close(job->prepare);
    prepared_free(&job->prepared);
    device_free(job, &job->vit_tokens);
    device_free(job, &job->reference_latents);
    device_free(job, &job->reference_positions);
    device_free(job, &job->x);
    device_free(job, &job->velocity);
    void *const host[] = {job->encoded, job->chunk, job->moments, job->latents, job->raw_latents, job->latent_state,
                          job->host_x, job->pixels, job->preview, job->text};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        free(host[i]);
    job_plan_free(&job->plan);
    free(job);
}
