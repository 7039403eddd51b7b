/* tasks.c: see tasks.h. One thread; the model is opened once, without a prefix cache, so that
 * every run does all its work.
 *
 * Times are those of the engine's stages, each ended by waiting for the device. Memory is the backend's own count: what
 * it was asked for, without the driver's share (context, code, libraries).
 */
#include "tools/lance-bench/tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/sha256.h"
#include "daemon/engine/lance.h"
#include "tools/lance-bench/machine.h"

/* What one run came to. */
struct run {
    double seconds;
    struct lance_stage_time stages[STAGE_COUNT];
    int stage_count;
    int tokens;
    uint64_t peak_bytes, estimated_bytes;
    char hash[65]; /* SHA-256 of pixels and latents, or of the token ids */
    bool finite;
};

struct task {
    enum lance_task task;
    char what[96];
    struct lance_request request;
    struct run last;
    double first_seconds;
    int runs;
    bool same;   /* all runs had the same result */
};

struct tasks_options tasks_defaults(void)
{
    return (struct tasks_options){
        .prompt = "A red fox stands in fresh snow at the edge of a pine forest, in the soft light of the morning.",
        .question = "Describe the picture.",
        .image = {768, 768},
        .video = {848, 480, 50},
        .picture = {672, 672},
        .steps = 30,
        .tokens = 256,
        .runs = 2,
    };
}

/* --- one run --------------------------------------------------------------------------------- */

static void note_result(struct run *run, const struct lance_result *result)
{
    struct sha256 sha;
    sha256_start(&sha);
    run->finite = true;
    const size_t latents = result->latents ? (size_t)result->batch * 48 * (size_t)result->latent_frames *
                                                 (size_t)result->latent_height * (size_t)result->latent_width
                                           : 0;
    for (size_t i = 0; i < latents; i++)
        run->finite &= isfinite(result->latents[i]) != 0;
    sha256_add(&sha, result->latents, latents * sizeof(float));
    if (result->pixels)
        sha256_add(&sha, result->pixels, (size_t)result->batch * (size_t)result->frames * (size_t)result->height *
                                             (size_t)result->width * 3);
    sha256_add(&sha, result->token_ids, (size_t)result->tokens * sizeof *result->token_ids);
    sha256_finish(&sha, run->hash);
    memcpy(run->stages, result->stages, sizeof run->stages);
    run->stage_count = result->stage_count;
    run->tokens = result->tokens;
    run->peak_bytes = result->peak_bytes;
    run->estimated_bytes = result->estimated_bytes;
}

static int run_once(struct lance_model *model, const struct lance_request *request, struct run *run,
                    struct error *error)
{
    struct lance_job *job = NULL;
    struct lance_progress progress;
    struct lance_result result;
    const double start = clock_seconds();
    int code = lance_job_start(&job, model, request, error);
    if (!code)
        do
            code = lance_job_step(job, &progress, error);
        while (code == LANCE_STEP_MORE);
    if (!code)
        code = lance_job_result(job, &result, error);
    if (!code) {
        *run = (struct run){.seconds = clock_seconds() - start};
        note_result(run, &result);
    }
    lance_job_close(job);
    return code;
}

static int run_task(struct lance_model *model, struct task *task, int runs, struct error *error)
{
    char first_hash[65] = "";
    task->same = true;
    task->runs = runs;
    for (int i = 0; i < runs; i++) {
        const int code = run_once(model, &task->request, &task->last, error);
        if (code)
            return code;
        if (i == 0) {
            task->first_seconds = task->last.seconds;
            memcpy(first_hash, task->last.hash, sizeof first_hash);
        }
        task->same &= !strcmp(first_hash, task->last.hash);
    }
    return 0;
}

/* --- the tasks --------------------------------------------------------------------------------- */

/* Coloured waves: a picture that is the same everywhere and nowhere flat. NULL without memory. */
static uint8_t *draw(int width, int height)
{
    uint8_t *pixels = malloc((size_t)width * (size_t)height * 3);
    for (int y = 0; pixels && y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                pixels[((size_t)y * (size_t)width + (size_t)x) * 3 + (size_t)c] =
                    (uint8_t)((x * (c + 1) + y * (3 - c)) % 509 / 2);
    return pixels;
}

/* Fill in a task's request; `source` and `resolution` live as long as it does. */
static void describe(struct task *task, const struct tasks_options *o, const struct lance_media *source,
                     const char *resolution)
{
    struct lance_request *r = &task->request;
    lance_request_init(r, task->task);
    if (task->task == LANCE_X2T_IMAGE) {
        r->prompt = o->question;
        r->source = source;
        r->resolution = resolution;
        r->max_new_tokens = o->tokens;
        snprintf(task->what, sizeof task->what, "picture of %d x %d, at most %d tokens", o->picture[0], o->picture[1],
                 o->tokens);
        return;
    }
    const bool video = task->task == LANCE_T2V;
    r->prompt = o->prompt;
    r->num_inference_steps = o->steps;
    r->width = video ? o->video[0] : o->image[0];
    r->height = video ? o->video[1] : o->image[1];
    r->num_frames = video ? o->video[2] : 1;
    snprintf(task->what, sizeof task->what, "%d x %d, %d frame%s, %d steps", r->width, r->height, r->num_frames,
             video ? "s" : "", o->steps);
}

static bool wanted(const struct tasks_options *o, enum lance_task task)
{
    const char *name = lance_task_name(task);
    const size_t length = strlen(name);
    for (const char *at = o->only; at && *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ','))
        if (strcspn(at, ",") == length && !strncmp(at, name, length))
            return true;
    return !o->only;
}

/* --- printing ------------------------------------------------------------------------------------ */

static double stage_seconds(const struct run *run, enum lance_stage stage, int *steps)
{
    *steps = 0;
    for (int i = 0; i < run->stage_count; i++)
        if (run->stages[i].stage == stage) {
            *steps = run->stages[i].steps;
            return run->stages[i].seconds;
        }
    return 0;
}

static double denoising_rate(const struct run *run)
{
    int steps;
    const double seconds = stage_seconds(run, STAGE_DENOISE, &steps);
    return seconds > 0 ? steps / seconds : 0;
}

static double writing_rate(const struct run *run)
{
    int steps;
    const double seconds = stage_seconds(run, STAGE_TEXT, &steps);
    return seconds > 0 ? run->tokens / seconds : 0;
}

static void print_task(const struct task *task, uint64_t weight_bytes)
{
    const struct run *run = &task->last;
    printf("\n%s, %s: %.2f s (first run %.2f s)\n", lance_task_name(task->task), task->what, run->seconds,
           task->first_seconds);
    for (int i = 0; i < run->stage_count; i++)
        printf("  %-10s %10.3f s in %d steps, %.1f ms each\n", lance_stage_name(run->stages[i].stage),
               run->stages[i].seconds, run->stages[i].steps,
               1e3 * run->stages[i].seconds / (run->stages[i].steps ? run->stages[i].steps : 1));
    if (run->tokens)
        printf("  %d tokens, %.1f a second\n", run->tokens, writing_rate(run));
    else
        printf("  %.3f denoising steps a second\n", denoising_rate(run));
    printf("  memory: %.1f MB beside the weights, promised %.1f MB; with the weights %.1f MB\n",
           (double)run->peak_bytes / 1e6, (double)run->estimated_bytes / 1e6,
           (double)(run->peak_bytes + weight_bytes) / 1e6);
    printf("  result %.16s, %s%s\n", run->hash,
           task->runs == 1 ? "of a single run" : task->same ? "the same in every run" : "DIFFERENT FROM RUN TO RUN",
           run->finite ? "" : ", NOT FINITE");
}

static cJSON *task_json(const struct task *task, uint64_t weight_bytes)
{
    const struct run *run = &task->last;
    cJSON *json = json_object();
    json_add_text(json, "task", lance_task_name(task->task));
    json_add_text(json, "what", task->what);
    json_add_number(json, "seconds", run->seconds);
    json_add_number(json, "first_run_seconds", task->first_seconds);
    cJSON *stages = json_add_array(json, "stages");
    for (int i = 0; i < run->stage_count; i++) {
        cJSON *stage = json_object();
        json_add_text(stage, "stage", lance_stage_name(run->stages[i].stage));
        json_add_number(stage, "seconds", run->stages[i].seconds);
        json_add_number(stage, "steps", run->stages[i].steps);
        json_append(stages, stage);
    }
    if (run->tokens) {
        json_add_number(json, "tokens", run->tokens);
        json_add_number(json, "tokens_per_second", writing_rate(run));
    } else {
        json_add_number(json, "steps_per_second", denoising_rate(run));
    }
    json_add_number(json, "peak_bytes", (double)run->peak_bytes);
    json_add_number(json, "estimated_bytes", (double)run->estimated_bytes);
    json_add_number(json, "peak_with_weights_bytes", (double)(run->peak_bytes + weight_bytes));
    json_add_text(json, "hash", run->hash);
    json_add_bool(json, "same", task->same);
    json_add_bool(json, "finite", run->finite);
    return json;
}

/* The report as JSON, in three parts, so that each task is there from the moment it has ended, whatever becomes of the
 * next. Each takes its JSON; 1 when there was no memory for its text. */
static int print_text(char *text, size_t length)
{
    if (text)
        printf("%.*s", (int)length, text);
    else
        fprintf(stderr, "lance-bench: no memory for the result as JSON\n");
    cJSON_free(text);
    return text ? 0 : 1;
}

static int begin_json(struct kernels *k, const struct lance_model_info *info, const struct tasks_options *o)
{
    cJSON *json = json_object();
    json_add_text(json, "backend", k->name);
    json_add_text(json, "model", info->name);
    json_add_text(json, "kind", info->kind);
    json_add_number(json, "load_seconds", info->load_seconds);
    json_add_number(json, "weight_bytes", (double)info->weight_bytes);
    json_add_number(json, "runs", o->runs);
    char *text = json_print(json);
    cJSON_Delete(json);
    const int code = print_text(text, text ? strlen(text) - 1 : 0); /* it goes on before its last bracket */
    printf(", \"tasks\": [");
    return code;
}

static int print_task_json(const struct task *task, uint64_t weight_bytes, bool is_first)
{
    cJSON *json = task_json(task, weight_bytes);
    char *text = json_print_indented(json);
    cJSON_Delete(json);
    printf("%s\n", is_first ? "" : ",");
    return print_text(text, text ? strlen(text) : 0);
}

static void end_json(struct kernels *k)
{
    printf("\n], \"memory_peak_bytes\": %llu}\n", (unsigned long long)k->memory_peak(k));
}

/* --- all of it ------------------------------------------------------------------------------------ */

/* 0, 1 when a result is not as it should be, or an error < 0. */
static int run_tasks(struct kernels *k, struct lance_model *model, const struct tasks_options *o, const uint8_t *pixels,
                     struct error *error)
{
    static const enum lance_task all[] = {LANCE_T2I, LANCE_T2V, LANCE_X2T_IMAGE};
    const struct lance_media source = {.pixels = pixels, .frames = 1, .width = o->picture[0], .height = o->picture[1]};
    struct lance_model_info info;
    char resolution[32];
    bool good = true;
    int done = 0;
    snprintf(resolution, sizeof resolution, "%dx%d", o->picture[1], o->picture[0]);
    lance_model_info(model, &info);
    if (o->json)
        good &= begin_json(k, &info, o) == 0;
    else
        printf("%s: %s, %.1f MB of weights on %s, loaded in %.2f s\n", info.name, info.kind,
               (double)info.weight_bytes / 1e6, k->name, info.load_seconds);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct task task = {.task = all[i]};
        if (!wanted(o, all[i]))
            continue;
        describe(&task, o, &source, resolution);
        const int code = run_task(model, &task, o->runs, error);
        if (code)
            return error_prefix(error, "%s", lance_task_name(all[i]));
        good &= task.same && task.last.finite;
        if (o->json)
            good &= print_task_json(&task, info.weight_bytes, done == 0) == 0;
        else
            print_task(&task, info.weight_bytes);
        fflush(stdout);
        done++;
    }
    if (!done)
        fprintf(stderr, "lance-bench: \"%s\" names none of t2i, t2v, x2t_image\n", o->only);
    if (o->json)
        end_json(k);
    return good && done ? 0 : 1;
}

int tasks_run(struct kernels *k, const struct tasks_options *o)
{
    const struct lance_model_options options = {.model_dir = o->model,
                                                .vae_path = o->vae,
                                                .vit_path = o->vit,
                                                .byte_head = o->byte_head};
    struct lance_model *model = NULL;
    struct error error;
    uint8_t *pixels = draw(o->picture[0], o->picture[1]);
    int code =
        pixels ? lance_model_open(&model, k, &options, &error)
               : error_set(&error, ERROR_NO_MEMORY, "no memory for a picture of %d x %d", o->picture[0], o->picture[1]);
    if (!code)
        code = run_tasks(k, model, o, pixels, &error);
    lance_model_close(model);
    free(pixels);
    if (code < 0)
        fprintf(stderr, "lance-bench: %s\n", error.text);
    return code ? 1 : 0;
}
