/* fake_engine.h: an engine for tests of the server, linked in place of the real one.
 *
 * It answers any folder as a model, and makes pixels from the seed. What a job does is said by words
 * in its prompt:
 *   "sleep N"   every step takes N milliseconds
 *   "fail N"    step N fails
 *   "refuse"    lance_request_check refuses it
 *   "stubborn"  there is no memory for its state
 *   "large"     it has the memory for itself: two such jobs cannot be open at once
 * A model folder that holds a file "slow" takes half a second to load; one that holds a file "broken"
 * does not load, nor one that holds a file "rotten", which nobody sees before; of one that holds a file "huge" the
 * weights take more than any machine has. A file "weights" is kept mapped as long as the model is open.
 */
#ifndef TESTS_FAKE_ENGINE_H
#define TESTS_FAKE_ENGINE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mapped_file.h"
#include "daemon/engine/lance.h"

enum { FAKE_PREVIEW_SIDE = 4 };

struct lance_model {
    struct lance_model_info info;
    struct mapped_file weights;
    bool is_full; /* a large job is open */
    uint64_t limit_bytes, promised_bytes; /* that its jobs may take, and what a test says that they were promised */
};

struct lance_job {
    struct lance_request request;
    struct lance_model *model;
    bool is_large, is_stubborn;
    int step, sleep_ms, fail_at;
    uint8_t preview[FAKE_PREVIEW_SIDE * FAKE_PREVIEW_SIDE * 3];
    uint8_t *pixels;
    char piece[32];
    char answer[512];
};

/* The pixel at `index` of the picture of `seed`. */
static inline uint8_t fake_pixel(uint64_t seed, size_t index)
{
    return (uint8_t)((seed + 1) * 2654435761u + index * 40503u);
}

static void fake_sleep(int milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static bool fake_has_file(const char *folder, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

int lance_model_check(const struct lance_model_options *options, struct error *error)
{
    if (fake_has_file(options->model_dir, "broken"))
        return error_set(error, ERROR_BAD_FILE, "model.safetensors: missing in %s", options->model_dir);
    return 0;
}

int lance_model_open(struct lance_model **out, struct kernels *kernels, const struct lance_model_options *options,
                     struct error *error)
{
    (void)kernels;
    if (fake_has_file(options->model_dir, "slow"))
        fake_sleep(500);
    if (lance_model_check(options, error) != 0)
        return error->code;
    if (fake_has_file(options->model_dir, "rotten"))
        return error_set(error, ERROR_BAD_FILE, "model.safetensors: cannot be read in %s", options->model_dir);
    *out = calloc(1, sizeof **out);
    if (!*out)
        return error_set(error, ERROR_NO_MEMORY, "fake model");
    char weights[512];
    snprintf(weights, sizeof weights, "%s/weights", options->model_dir);
    if (fake_has_file(options->model_dir, "weights") && mapped_file_open(&(*out)->weights, weights, error) != 0)
        return error->code;
    struct lance_model_info *info = &(*out)->info;
    snprintf(info->kind, sizeof info->kind, "fake");
    snprintf(info->hash, sizeof info->hash, "%064d", 7);
    info->tasks = 1u << LANCE_T2I | 1u << LANCE_X2T_IMAGE;
    info->weight_bytes = fake_has_file(options->model_dir, "huge") ? UINT64_C(1) << 60 : 1000;
    info->hidden_size = 8;
    info->layers = 2;
    info->latent_channels = 48;
    info->spatial_stride = 16;
    return 0;
}

void lance_model_close(struct lance_model *model)
{
    mapped_file_close(&model->weights);
    free(model);
}

void lance_model_info(const struct lance_model *model, struct lance_model_info *info)
{
    *info = model->info;
}

const char *lance_model_warnings(const struct lance_model *model)
{
    (void)model;
    return "";
}

void lance_request_init(struct lance_request *request, enum lance_task task)
{
    *request = (struct lance_request){.task = task,
                                      .width = 64,
                                      .height = 32,
                                      .num_frames = 1,
                                      .num_inference_steps = 3,
                                      .guidance_scale = 4,
                                      .guidance_interval = {0.4, 1},
                                      .timestep_shift = 3.5,
                                      .seed = 42,
                                      .batch_size = 1,
                                      .source_seed = 2025,
                                      .max_new_tokens = 3,
                                      .top_p = 1,
                                      .repetition_penalty = 1,
                                      .decode = true};
}

int lance_request_check(const struct lance_model *model, const struct lance_request *request, struct error *error)
{
    if ((model->info.tasks & (1u << request->task)) == 0)
        return error_set(error, ERROR_UNSUPPORTED, "task: %s is nothing the fake can do",
                         lance_task_name(request->task));
    if (strstr(request->prompt, "refuse"))
        return error_set(error, ERROR_BAD_REQUEST, "prompt: asks to be refused");
    if (request->num_inference_steps < 1)
        return error_set(error, ERROR_BAD_REQUEST, "num_inference_steps: must be at least 1");
    return 0;
}

int lance_estimate(const struct lance_model *model, const struct lance_request *request, struct lance_memory *memory,
                   struct error *error)
{
    const int code = lance_request_check(model, request, error);
    *memory = code == 0 ? (struct lance_memory){1, 1, 2} : (struct lance_memory){0};
    return code;
}

static int fake_word(const char *prompt, const char *word)
{
    const char *at = strstr(prompt, word);
    return at ? atoi(at + strlen(word)) : 0;
}

int lance_job_start(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                    struct error *error)
{
    int code = lance_request_check(model, request, error);
    if (code != 0)
        return code;
    const bool is_large = strstr(request->prompt, "large") != NULL;
    if (model->limit_bytes == 1) /* what is said where nothing is left */
        return error_set(error, ERROR_TOO_LARGE, "the job needs more memory than the limit of 1 byte");
    if (is_large && model->is_full)
        return error_set(error, ERROR_BUSY, "another large job holds the memory");
    *out = calloc(1, sizeof **out);
    if (!*out)
        return error_set(error, ERROR_NO_MEMORY, "fake job");
    (*out)->request = *request;
    (*out)->model = model;
    (*out)->is_large = is_large;
    (*out)->is_stubborn = strstr(request->prompt, "stubborn") != NULL;
    model->is_full = model->is_full || is_large;
    (*out)->sleep_ms = fake_word(request->prompt, "sleep ");
    (*out)->fail_at = fake_word(request->prompt, "fail ");
    snprintf((*out)->answer, sizeof (*out)->answer, "one two three");
    (*out)->request.prompt = NULL; /* borrowed only here */
    return 0;
}

/* A state is "step N", without an end. */
int lance_job_save(const struct lance_job *job, void **state, size_t *bytes, struct error *error)
{
    *state = job->is_stubborn ? NULL : malloc(32);
    if (!*state)
        return error_set(error, ERROR_NO_MEMORY, "fake state");
    *bytes = (size_t)snprintf(*state, 32, "step %d", job->step);
    return 0;
}

int lance_job_resume(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                     const void *state, size_t bytes, struct error *error)
{
    char text[32];
    int step;
    snprintf(text, sizeof text, "%.*s", (int)bytes, (const char *)state);
    if (sscanf(text, "step %d", &step) != 1)
        return error_set(error, ERROR_UNSUPPORTED, "the state is of another build");
    int code = lance_job_start(out, model, request, error);
    if (code == 0)
        (*out)->step = step;
    return code;
}

static bool fake_is_text(const struct lance_job *job)
{
    return job->request.task == LANCE_X2T_IMAGE;
}

static size_t fake_picture_bytes(const struct lance_request *request)
{
    return (size_t)request->width * (size_t)request->height * 3;
}

int lance_job_step(struct lance_job *job, struct lance_progress *progress, struct error *error)
{
    static const char *const pieces[] = {"one", " two", " three"};
    fake_sleep(job->sleep_ms);
    job->step++;
    if (job->step == job->fail_at)
        return error_set(error, ERROR_INTERNAL, "step %d failed as it was told", job->step);
    int steps = fake_is_text(job) ? 3 : job->request.num_inference_steps;
    memset(job->preview, job->step, sizeof job->preview);
    *progress = (struct lance_progress){.stage = fake_is_text(job) ? STAGE_TEXT : STAGE_DENOISE,
                                        .step = job->step,
                                        .steps = steps,
                                        .total_step = job->step,
                                        .total_steps = steps,
                                        .text = fake_is_text(job) ? pieces[job->step - 1] : NULL,
                                        .seconds = job->sleep_ms / 1000.0};
    if (job->step < steps)
        return LANCE_STEP_MORE;
    if (!fake_is_text(job) && job->request.decode) {
        size_t bytes = fake_picture_bytes(&job->request);
        job->pixels = malloc(bytes * (size_t)job->request.batch_size);
        if (!job->pixels)
            return error_set(error, ERROR_NO_MEMORY, "fake pixels");
        for (int item = 0; item < job->request.batch_size; item++)
            for (size_t i = 0; i < bytes; i++)
                job->pixels[(size_t)item * bytes + i] = fake_pixel(job->request.seed + (uint64_t)item, i);
    }
    return LANCE_STEP_DONE;
}

int lance_job_preview(struct lance_job *job, const uint8_t **rgb, int *frames, int *height, int *width,
                      struct error *error)
{
    if (job->step == 0)
        return error_set(error, ERROR_NOT_FOUND, "no preview yet");
    *rgb = job->preview;
    *frames = 1;
    *height = *width = FAKE_PREVIEW_SIDE;
    return 0;
}

int lance_job_result(const struct lance_job *job, struct lance_result *result, struct error *error)
{
    (void)error;
    static const int32_t token_ids[] = {5, 6, 7};
    *result = (struct lance_result){.batch = job->request.batch_size, .peak_bytes = 2000, .estimated_bytes = 2000};
    if (fake_is_text(job)) {
        result->text = job->answer;
        result->token_ids = token_ids;
        result->tokens = 3;
    } else {
        result->pixels = job->pixels;
        result->frames = 1;
        result->height = job->request.height;
        result->width = job->request.width;
    }
    result->stages[0] = (struct lance_stage_time){
        .stage = fake_is_text(job) ? STAGE_TEXT : STAGE_DENOISE, .seconds = 0.5, .steps = job->step};
    result->stage_count = 1;
    return 0;
}

void lance_model_limit_memory(struct lance_model *model, uint64_t bytes)
{
    model->limit_bytes = bytes;
}

void lance_model_limit_host_memory(struct lance_model *model, uint64_t bytes)
{
    (void)model;
    (void)bytes;
}

void lance_model_prefixes(const struct lance_model *model, struct lance_prefixes *out)
{
    (void)model;
    *out = (struct lance_prefixes){0};
}

void lance_model_held(const struct lance_model *model, struct lance_held *out)
{
    *out = (struct lance_held){.weight_bytes = model->info.weight_bytes, .promised_bytes = model->promised_bytes};
}

/* Its steps are short. */
void lance_job_abort(struct lance_job *job)
{
    (void)job;
}

void lance_job_close(struct lance_job *job)
{
    if (!job)
        return;
    if (job->is_large)
        job->model->is_full = false;
    free(job->pixels);
    free(job);
}

#endif
