/* run.c: a job's life: start, step through its stages (stages/stages.h), results; saved on the way and taken up again.
 *
 * Once the first stage has ended, what the request points to is the caller's again, the prefix cache is asked what is
 * there, and stages that nothing needs any more are left out. A job that was saved prepares again, runs what the stage
 * needs that it was in (the vision transformer, the prefix), and goes on there.
 */
#include "base/clock.h"
#include "daemon/engine/admission.h"
#include "daemon/engine/build.h"
#include "daemon/engine/preview.h"
#include "daemon/engine/request.h"
#include "daemon/engine/request_hash.h"
#include "daemon/engine/stages/denoise.h"
#include "kernels/kernels.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A stage in the list of those to be gone through. */
struct listed_stage {
    enum lance_stage id;
    int steps, size; /* size: with a latent frame of the VAE as one step */
};

struct lance_job {
    struct job job;
    struct job_memory memory;
    struct state_identity identity;

    struct listed_stage stages[STAGE_COUNT];
    int stage_count, current, total_step, total_steps;
    void *stage;             /* the current one, of its kind; NULL: not opened */
    struct stage_turn turn;  /* its step and its steps */
    bool opened, failed, finished;
    uint8_t *preview;
    char *piece;             /* of the text, made by the last step; NULL: none */

    /* By stage, earlier processes included; the peaks are this one's. */
    double seconds[STAGE_COUNT];
    int steps_done[STAGE_COUNT];
    uint64_t stage_peak_bytes[STAGE_COUNT];

    atomic_bool aborted;             /* by another thread */
    uint64_t promised_bytes, promised_host_bytes; /* what admission set aside */
    uint64_t held_bytes, peak_bytes; /* device memory of this job, now and at its highest */
};

static const struct stage_kind *current_kind(const struct lance_job *job)
{
    return stage_kind_of(job->stages[job->current].id);
}

/* ---- admission ---- */

/* Device memory of all jobs: what is kept for later is nobody's. */
static uint64_t memory_of_jobs(const struct lance_job *job)
{
    return job->job.kernels->memory_in_use(job->job.kernels) - prefix_cache_idle_bytes(job->job.model->prefix_cache);
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
    struct lance_model *model = job->job.model;
    const uint64_t limit = model->memory_limit_bytes, bytes = job_memory_need(&job->memory.peak, model);
    int code = job_memory_check_fit(&job->memory.peak, model, error);
    if (code)
        return code;
    if (limit && model->promised_bytes + bytes > limit)
        return error_set(error, ERROR_BUSY,
                         "the job needs %.1f MB of memory; other jobs hold %.1f of %.1f MB. Try again "
                         "when they are done",
                         (double)bytes / 1e6, (double)model->promised_bytes / 1e6, (double)limit / 1e6);
    /* Where the host's memory is the device's it is counted already. */
    const uint64_t host_bytes = model->kernels->host_memory ? 0 : job->memory.peak.host_bytes;
    if (model->host_limit_bytes && model->promised_host_bytes + host_bytes > model->host_limit_bytes)
        return error_set(error, ERROR_BUSY,
                         "the job needs %.1f MB of the host's memory; other jobs hold %.1f of %.1f MB. Try again "
                         "when they are done",
                         (double)host_bytes / 1e6, (double)model->promised_host_bytes / 1e6,
                         (double)model->host_limit_bytes / 1e6);
    job->promised_bytes = bytes;
    job->promised_host_bytes = host_bytes;
    model->promised_bytes += bytes;
    model->promised_host_bytes += host_bytes;
    return 0;
}

/* What was found in the prefix cache is held from now on, beside what the source's stages need. */
static void promise_found(struct lance_job *job, uint64_t found_bytes)
{
    struct lance_model *model = job->job.model;
    const uint64_t vit = job_memory_need(&job->memory.stages[STAGE_VIT], model);
    const uint64_t encode = job_memory_need(&job->memory.stages[STAGE_ENCODE], model);
    const uint64_t needed = (vit > encode ? vit : encode) + found_bytes;
    if ((job->job.left.vit_pixels || job->job.left.vae_pixels) && needed > job->promised_bytes) {
        model->promised_bytes += needed - job->promised_bytes;
        job->promised_bytes = needed;
    }
}

/* ---- from the first stage to the others ---- */

static void forget_state(struct job *job)
{
    if (job->resumed)
        job_state_free(job->resumed);
    free(job->resumed);
    job->resumed = NULL;
}

static void forget_source_of_encoder(struct handover *left)
{
    free(left->vae_pixels);
    free(left->eps);
    left->vae_pixels = NULL;
    left->eps = NULL;
}

/* Take from the prefix cache what is there, and forget the source where nothing needs it any more. */
static int open_prefix(struct lance_job *job, struct error *error)
{
    struct job *j = &job->job;
    const uint64_t before = memory_of_jobs(job);
    int code = prefix_open(&j->left.prefix, j->model->decoder, j->model->latent_tokens, j->kernels,
                           j->model->prefix_cache, &j->plan.prefix, error);
    if (code)
        return code;
    const uint64_t found_bytes = memory_of_jobs(job) - before;
    if (!prefix_lacks(j->left.prefix, SPLIT_FULL)) {
        free(j->left.vit_pixels);
        j->left.vit_pixels = NULL;
    }
    if (!prefix_lacks(j->left.prefix, SPLIT_FULL_NOISE) && j->plan.condition_frames == 0)
        forget_source_of_encoder(&j->left);
    promise_found(job, found_bytes);
    make_room(j->model);
    return 0;
}

/* What an earlier process has left and stages before its own would make. */
static int take_up(struct lance_job *job, struct error *error)
{
    struct job *j = &job->job;
    const struct job_state *state = j->resumed;
    int code = 0;
    if (strcmp(job->identity.inputs, j->left.inputs) != 0)
        return error_set(error, ERROR_BAD_REQUEST, "the state is of a job with another source, noise, latents or mask");
    if (state->encoded) {
        const uint64_t bytes = handover_sizes_of(j).encoded;
        forget_source_of_encoder(&j->left);
        if ((j->left.encoded = host_alloc(bytes, "latents", &code, error)))
            memcpy(j->left.encoded, state->encoded, (size_t)bytes);
    }
    if (!code && state->x)
        memcpy(j->left.x, state->x, (size_t)handover_sizes_of(j).x);
    return code || state->stage != STAGE_DECODE || !task_samples(j->request.task) ? code : denoise_finish(j, error);
}

/* The stages of the job: all that it may need, as long as it is not prepared; then those that are left. */
static void list_stages(struct lance_job *job)
{
    const struct job_state *resumed = job->job.resumed;
    job->stage_count = job->job.prepared ? 1 : 0; /* the first one stays what it was */
    job->total_steps = job->job.prepared ? job->stages[0].steps : 0;
    for (int i = job->stage_count; i < STAGE_COUNT; i++) {
        const struct stage_kind *kind = stage_kind_of(i);
        const int steps = kind->steps(&job->job);
        if (steps == 0 || (job->job.prepared && resumed && resumed->stage == STAGE_DECODE && i < STAGE_DECODE))
            continue;
        job->stages[job->stage_count++] = (struct listed_stage){i, steps,
                                                                kind->size           ? kind->size(&job->job)
                                                                : i == STAGE_PREPARE ? 0
                                                                                     : steps};
        job->total_steps += steps;
    }
}

static int end_preparing(struct lance_job *job, struct error *error)
{
    struct lance_request *r = &job->job.request;
    r->prompt = r->negative_prompt = r->system_prompt = r->resolution = NULL;
    r->source = NULL;
    r->noise = r->source_latent_noise = NULL;
    r->latents = r->latent_state = r->latent_mask = NULL;
    job->job.prepared = true;
    int code = job->job.resumed ? take_up(job, error) : 0;
    const bool decodes_only = job->job.resumed && job->job.resumed->stage == STAGE_DECODE;
    if (!code && job->job.plan.prompt && !decodes_only)
        code = open_prefix(job, error);
    if (!code)
        list_stages(job);
    memcpy(job->identity.inputs, job->job.left.inputs, sizeof job->identity.inputs);
    if (job->job.resumed && job->job.resumed->stage < STAGE_DENOISE) /* nothing more is kept of these */
        forget_state(&job->job);
    return code;
}

/* ---- start ---- */

static struct lance_job *job_new(struct lance_model *model, const struct lance_request *request,
                                 const struct job_plan *plan)
{
    struct lance_job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    job->job = (struct job){.model = model, .kernels = model->kernels, .request = *request, .plan = *plan};
    job->identity = (struct state_identity){.build = lance_build(), .backend = model->kernels->name};
    snprintf(job->identity.model, sizeof job->identity.model, "%s%s", model->hash,
             model->round_tables ? " bf16 tables" : "");
    request_hash(request, job->identity.request);
    job_memory_plan(&job->job, &job->memory);
    return job;
}

int lance_job_start(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                    struct error *error)
{
    *out = NULL;
    struct job_plan plan;
    int code = request_check(model, request, error);
    if (!code)
        code = job_plan_make(&plan, model, request, error);
    if (code)
        return code;
    struct lance_job *job = job_new(model, request, &plan);
    if (!job) {
        job_plan_free(&plan);
        return error_set(error, ERROR_NO_MEMORY, "job: no memory");
    }
    code = admit(job, error);
    if (!code)
        list_stages(job);
    if (code)
        lance_job_close(job);
    else
        *out = job;
    return code;
}

/* ---- saved and taken up ---- */

static struct state_sizes state_sizes_of(const struct lance_job *job)
{
    const struct job *j = &job->job;
    const struct handover_sizes sizes = handover_sizes_of(j);
    const int known = tokenizer_size(j->model->tokenizer), vocabulary = decoder_vocab_size(j->model->decoder);
    struct state_sizes s = {.latents = (size_t)sizes.x / sizeof(float),
                            .encoded = (size_t)sizes.encoded / sizeof(float)};
    if (task_answers(j->request.task)) {
        s.tokens = j->request.max_new_tokens;
        s.token_ids = known < vocabulary ? known : vocabulary;
        s.token_values = kv_cache_row_values(j->model->decoder);
    }
    if (j->plan.decodes) {
        s.items = j->request.batch_size;
        s.item_bytes = (size_t)sizes.pixels / (size_t)s.items;
        s.item_steps = j->plan.decoding.steps;
    }
    for (int i = 0; i < job->stage_count; i++)
        s.steps[job->stages[i].id] = job->stages[i].steps;
    return s;
}

/* What the stage leaves aside: latents of the source, and of the outcome of denoising where that has ended. */
static int save_handover(const struct lance_job *job, struct job_state *state, struct error *error)
{
    const struct job *j = &job->job;
    const struct handover_sizes sizes = handover_sizes_of(j);
    int code = 0;
    if (j->left.encoded && state->stage > STAGE_ENCODE) { /* all of it */
        state->encoded = host_alloc(sizes.encoded, "the job's state", &code, error);
        if (!code)
            memcpy(state->encoded, j->left.encoded, (size_t)sizes.encoded);
    }
    if (state->stage == STAGE_DECODE && task_samples(j->request.task)) {
        state->x = host_alloc(sizes.x, "the job's state", &code, error);
        if (!code)
            memcpy(state->x, j->left.x, (size_t)sizes.x);
    }
    return code;
}

static int collect_state(const struct lance_job *job, struct job_state *state, struct error *error)
{
    const struct stage_kind *kind = current_kind(job);
    state->stage = job->stages[job->current].id;
    memcpy(state->seconds, job->seconds, sizeof state->seconds);
    memcpy(state->steps_done, job->steps_done, sizeof state->steps_done);
    int code = job->job.prepared ? save_handover(job, state, error) : 0;
    if (!code && job->stage && kind->save) {
        state->step = job->turn.step;
        code = kind->save(job->stage, state, error);
    }
    return code ? code : job->job.kernels->sync(job->job.kernels, error);
}

int lance_job_save(const struct lance_job *job, void **state, size_t *bytes, struct error *error)
{
    *state = NULL;
    *bytes = 0;
    if (job->failed)
        return error_set(error, ERROR_INTERNAL, "the job has failed and can only be closed");
    if (job->finished)
        return error_set(error, ERROR_BAD_REQUEST, "the job is done: what is to be kept is its result");
    const struct state_sizes sizes = state_sizes_of(job);
    if (job->job.resumed) /* it has not come to where it was */
        return job_state_write(job->job.resumed, &job->identity, &sizes, state, bytes, error);
    struct job_state now = {0};
    int code = collect_state(job, &now, error);
    if (!code)
        code = job_state_write(&now, &job->identity, &sizes, state, bytes, error);
    job_state_free(&now);
    return code;
}

int lance_job_resume(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                     const void *state, size_t bytes, struct error *error)
{
    int code = lance_job_start(out, model, request, error);
    if (code)
        return code;
    struct lance_job *job = *out;
    const struct state_sizes sizes = state_sizes_of(job);
    job->job.resumed = calloc(1, sizeof *job->job.resumed);
    code = job->job.resumed ? job_state_read(job->job.resumed, &job->identity, &sizes, state, bytes, error)
                            : error_set(error, ERROR_NO_MEMORY, "job: no memory");
    if (code) {
        lance_job_close(job);
        *out = NULL;
        return code;
    }
    memcpy(job->seconds, job->job.resumed->seconds, sizeof job->seconds);
    memcpy(job->steps_done, job->job.resumed->steps_done, sizeof job->steps_done);
    if (job->job.resumed->stage == STAGE_PREPARE)
        forget_state(&job->job);
    return 0;
}

/* ---- stepping ---- */

/* Note what the job holds; `others` is what is not its own. */
static void account_memory(struct lance_job *job, uint64_t others)
{
    const uint64_t used = memory_of_jobs(job);
    uint64_t *stage_peak = &job->stage_peak_bytes[job->stages[job->current].id];
    job->job.model->held_bytes -= job->held_bytes;
    job->held_bytes = used > others ? used - others : 0; /* a shared prefix may have been counted as another job's */
    job->job.model->held_bytes += job->held_bytes;
    if (job->held_bytes > *stage_peak)
        *stage_peak = job->held_bytes;
    if (job->held_bytes > job->peak_bytes)
        job->peak_bytes = job->held_bytes;
}

/* Where a step has held more than at its ends, and more than anything before, the backend knows. */
static void account_new_peak(struct lance_job *job, uint64_t peak_before, uint64_t others)
{
    const uint64_t peak = job->job.kernels->memory_peak(job->job.kernels);
    if (peak <= peak_before)
        return;
    uint64_t *stage_peak = &job->stage_peak_bytes[job->stages[job->current].id];
    if (peak - others > *stage_peak)
        *stage_peak = peak - others;
    if (peak - others > job->peak_bytes)
        job->peak_bytes = peak - others;
}

/* The current stage's memory; where it is the one that a state was saved in, that is taken up and forgotten. */
static int open_stage(struct lance_job *job, struct error *error)
{
    const enum lance_stage id = job->stages[job->current].id;
    job->turn = (struct stage_turn){.steps = job->stages[job->current].steps};
    int code = current_kind(job)->open(&job->stage, &job->job, error);
    if (code || !job_resumes(&job->job, id))
        return code;
    job->turn.step = job->job.resumed->step;
    job->total_step += job->turn.step;
    forget_state(&job->job);
    return 0;
}

/* The text of a step outlives its stage. */
static int keep_piece(struct lance_job *job, struct error *error)
{
    const char *text = job->turn.text;
    free(job->piece);
    job->piece = text && *text ? strdup(text) : NULL;
    return text && *text && !job->piece ? error_set(error, ERROR_NO_MEMORY, "job: no memory") : 0;
}

/* The stage has done its last step. */
static int end_stage(struct lance_job *job, struct error *error)
{
    const struct stage_kind *kind = current_kind(job);
    int code = kind->end(job->stage, error);
    kind->close(job->stage);
    job->stage = NULL;
    make_room(job->job.model);
    return code || job->stages[job->current].id != STAGE_PREPARE ? code : end_preparing(job, error);
}

/* One step of the current stage, its beginning and its end where they fall. A stage holds most after its steps
 * and before its end; where a new peak of the backend shows more, that counts. */
static int advance(struct lance_job *job, struct error *error)
{
    struct kernels *k = job->job.kernels;
    const uint64_t others = memory_of_jobs(job) - job->held_bytes, peak_before = k->memory_peak(k);
    const uint64_t kept = prefix_cache_idle_bytes(job->job.model->prefix_cache);
    struct listed_stage *listed = &job->stages[job->current];
    int code = job->opened ? 0 : open_stage(job, error);
    job->opened = true;
    const int before = job->turn.step;
    job->turn.text = NULL;
    if (!code && before < job->turn.steps)
        code = current_kind(job)->step(job->stage, &job->turn, error);
    account_memory(job, others);
    if (!code) {
        job->total_step += job->turn.step - before;
        job->total_steps -= listed->steps - job->turn.steps;
        listed->steps = job->turn.steps;
        code = keep_piece(job, error);
    }
    if (!code && job->turn.step >= job->turn.steps)
        code = end_stage(job, error);
    account_memory(job, others);
    account_new_peak(job, peak_before, kept + others);
    return code;
}

static int later_steps(const struct lance_job *job)
{
    int steps = 0;
    for (int i = job->current + 1; i < job->stage_count; i++)
        steps += job->stages[i].size;
    return steps;
}

/* On to the next stage where this one has ended. */
static void move_on(struct lance_job *job)
{
    if (job->turn.step < job->turn.steps)
        return;
    job->current++;
    job->opened = false;
    job->turn = (struct stage_turn){0};
    job->finished = job->current == job->stage_count;
}

int lance_job_step(struct lance_job *job, struct lance_progress *progress, struct error *error)
{
    if (job->failed || job->finished)
        return job->finished ? LANCE_STEP_DONE
                             : error_set(error, ERROR_INTERNAL, "the job has failed and can only be closed");
    struct kernels *k = job->job.kernels;
    const double start = clock_seconds();
    k->watch(k, &job->aborted);
    decoder_watch_until(job->job.model->decoder, &job->aborted);
    int code = atomic_load(&job->aborted) ? ERROR_CANCELLED : advance(job, error);
    decoder_watch_until(job->job.model->decoder, NULL);
    k->watch(k, NULL);
    if (code) {
        job->failed = true;
        return code == ERROR_CANCELLED ? error_set(error, code, "the job was cancelled") : code;
    }
    const enum lance_stage id = job->stages[job->current].id;
    const double seconds = clock_seconds() - start;
    job->seconds[id] += seconds;
    job->steps_done[id] = job->turn.step;
    *progress = (struct lance_progress){
        .stage = id,
        .step = job->turn.step,
        .steps = job->turn.steps,
        .total_step = job->total_step,
        .total_steps = job->total_steps,
        .later_steps = later_steps(job),
        .text = job->piece,
        .seconds = seconds,
    };
    move_on(job);
    return job->finished ? LANCE_STEP_DONE : LANCE_STEP_MORE;
}

int lance_job_say(struct lance_job *job, const int32_t *ids, int count, lance_reading_watch *watch, void *context,
                  struct error *error)
{
    if (!task_answers(job->job.request.task) || count != job->job.request.max_new_tokens)
        return error_set(error, ERROR_BAD_REQUEST, "a job of %s, for %d tokens, was to say %d",
                         lance_task_name(job->job.request.task), job->job.request.max_new_tokens, count);
    const int vocabulary = decoder_vocab_size(job->job.model->decoder);
    for (int i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocabulary)
            return error_set(error, ERROR_BAD_REQUEST, "token %d of the answer is %d, and this model has only %d: it "
                             "is an answer of a model with another vocabulary", i + 1, ids[i], vocabulary);
    job->job.given_answer = (struct given_answer){ids, watch, context};
    return 0;
}

void lance_job_abort(struct lance_job *job)
{
    atomic_store(&job->aborted, true);
}

/* ---- results ---- */

static bool is_denoising(const struct lance_job *job)
{
    return !job->finished && job->stage && job->stages[job->current].id == STAGE_DENOISE;
}

/* What the first batch item is on its way to, or has come to, [cells, channels]. */
static int clean_latents(const struct lance_job *job, float *clean, struct error *error)
{
    if (is_denoising(job))
        return denoise_stage_clean(job->stage, clean, error);
    memcpy(clean, job->job.left.x, job_item_values(&job->job) * sizeof *clean);
    return 0;
}

int lance_job_preview(struct lance_job *job, const uint8_t **rgb, int *frames, int *height, int *width,
                      struct error *error)
{
    struct job *j = &job->job;
    const size_t cells = job_target_cells(j);
    if (!j->request.preview)
        return error_set(error, ERROR_BAD_REQUEST, "the job was started without previews");
    if (!is_denoising(job) && !(j->left.raw_latents && j->left.x))
        return error_set(error, ERROR_NOT_FOUND, "there is no preview before the first denoising step");
    int code = 0;
    float *clean = host_alloc(job_item_values(j) * sizeof *clean, "a preview", &code, error);
    if (!code && !job->preview)
        job->preview = host_alloc(cells * 3, "a preview", &code, error);
    if (!code)
        code = clean_latents(job, clean, error);
    const uint64_t others = memory_of_jobs(job) - job->held_bytes + prefix_cache_idle_bytes(j->model->prefix_cache);
    const uint64_t peak_before = j->kernels->memory_peak(j->kernels);
    j->kernels->watch(j->kernels, &job->aborted);
    if (!code)
        code = preview_make(j->model, clean, cells, job->preview, error);
    j->kernels->watch(j->kernels, NULL);
    if (!job->finished)
        account_new_peak(job, peak_before, others);
    free(clean);
    *rgb = job->preview;
    *frames = j->plan.target.frames;
    *height = j->plan.target.height;
    *width = j->plan.target.width;
    return code;
}

static void tell_stages(const struct lance_job *job, struct lance_result *result)
{
    for (int i = 0; i < STAGE_COUNT; i++)
        if (job->steps_done[i] > 0)
            result->stages[result->stage_count++] = (struct lance_stage_time){
                .stage = i,
                .seconds = job->seconds[i],
                .steps = job->steps_done[i],
                .peak_bytes = job->stage_peak_bytes[i],
                .estimated_bytes = job->memory.stages[i].device_bytes,
            };
}

int lance_job_result(const struct lance_job *job, struct lance_result *result, struct error *error)
{
    *result = (struct lance_result){0};
    if (!job->finished)
        return error_set(error, ERROR_BUSY, "the job is not done");
    const struct job *j = &job->job;
    const struct token_grid target = j->plan.target;
    result->batch = j->request.batch_size;
    result->peak_bytes = job->peak_bytes;
    result->estimated_bytes = job->memory.peak.device_bytes;
    tell_stages(job, result);
    if (target.frames > 0) {
        result->pixels = j->left.pixels;
        result->frames = vae_frames(target.frames);
        result->height = target.height * VAE_SPATIAL_STRIDE;
        result->width = target.width * VAE_SPATIAL_STRIDE;
        result->fps = task_makes_video(j->request.task) || target.frames > 1 ? LANCE_VIDEO_FPS : 0;
        result->latents = j->request.task == LANCE_DECODE ? NULL : j->left.raw_latents;
        result->latent_state = j->left.latent_state;
        result->latent_frames = target.frames;
        result->latent_height = target.height;
        result->latent_width = target.width;
    } else {
        result->batch = 1;
        result->text = j->left.text;
        result->tokens = j->left.tokens;
        result->token_ids = j->left.token_ids;
    }
    return 0;
}

void lance_job_close(struct lance_job *job)
{
    if (!job)
        return;
    job->job.model->promised_bytes -= job->promised_bytes;
    job->job.model->promised_host_bytes -= job->promised_host_bytes;
    job->job.model->held_bytes -= job->held_bytes;
    if (job->stage)
        current_kind(job)->close(job->stage);
    handover_free(&job->job.left, job->job.kernels);
    forget_state(&job->job);
    free(job->preview);
    free(job->piece);
    job_plan_free(&job->job.plan);
    free(job);
}
