/* worker.c: see worker.h.
 *
 * Two locks, never held together with each other or with the job table's:
 *   lock        the mailbox (what is wanted, who waits for it) and the snapshot others read
 *   model_lock  held for writing while the thread replaces `model`, for reading while another
 *               thread has the engine check a request against it
 * The thread itself reads `model` without a lock: nobody else writes it.
 */
#include "daemon/worker.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mapped_file.h"
#include "base/utf8.h"
#include "daemon/attempts.h"
#include "daemon/cache_folder.h"
#include "daemon/log.h"
#include "daemon/machine_memory.h"
#include "daemon/model_choice.h"
#include "daemon/receipt.h"
#include "daemon/request_digest.h"
#include "kernels/kernels.h"

enum { WANT_NOTHING = -1, WANT_UNLOAD = -2 }; /* otherwise the index of a model to load */

struct worker {
    const struct options *options;
    struct jobs *jobs;
    const struct attempts *at_jobs; /* NULL: no journal is kept */
    void (*on_fatal)(void *context, enum worker_end why);
    void *context;
    struct kernels *kernels;
    uint64_t weights_budget_bytes; /* what "automatic" judges models by */
    pthread_t thread;
    bool has_thread;

    double idle_since; /* the thread's own, */
    bool is_lost;      /* and so is this: the device is lost, and on_fatal was called */

    pthread_rwlock_t model_lock;
    struct lance_model *model;

    pthread_mutex_t lock; /* guards the rest */
    bool stopping;
    int wanted;
    int doing; /* what was wanted and the thread is at, or WANT_NOTHING */
    struct waiter *waiters;
    uint64_t attempts;         /* loads tried */
    int failed_model;          /* model of the last load that failed, or -1, */
    uint64_t failed_attempt;   /* its number */
    struct error load_failure; /* and why */
    struct error fatal;
    struct worker_status status;
    struct { /* learnt when a model is loaded, for the list of models */
        char kind[32];
        unsigned tasks;
    } known[OPTIONS_MAX_MODELS];
};

/* --- Models ---------------------------------------------------------------------------- */

static void unload(struct worker *worker)
{
    if (worker->model == NULL)
        return;
    struct lance_model *model = worker->model;
    pthread_rwlock_wrlock(&worker->model_lock);
    worker->model = NULL;
    pthread_rwlock_unlock(&worker->model_lock);
    lance_model_close(model);
    log_info(NULL, "model %s unloaded", worker->options->models[worker->status.loaded].name);
    pthread_mutex_lock(&worker->lock);
    worker->status.loaded = -1;
    worker->status.unloads++;
    memset(&worker->status.info, 0, sizeof worker->status.info);
    memset(&worker->status.prefixes, 0, sizeof worker->status.prefixes);
    memset(&worker->status.held, 0, sizeof worker->status.held);
    pthread_mutex_unlock(&worker->lock);
}

/* Open a model, with its memory limit: what the command line says, or what the machine has left beside the weights. */
static int open_model(struct worker *worker, int index, struct lance_model **model, uint64_t *memory_limit_bytes,
                      struct error *error)
{
    const struct options *options = worker->options;
    struct machine_memory machine;
    int status = machine_memory_read(&machine, "", error); /* before the weights are there */
    if (status != 0)
        return status;
    char cache_folder[CACHE_FOLDER_BYTES];
    cache_folder_make(cache_folder, sizeof cache_folder);
    const struct lance_model_options model_options = {
        .model_dir = options->models[index].directory,
        .vae_path = options->vae_path,
        .vit_path = options->vit_path,
        .cache_folder = cache_folder[0] != '\0' ? cache_folder : NULL,
        .prefix_cache_bytes = options->prefix_cache_bytes,
    };
    status = lance_model_open(model, worker->kernels, &model_options, error);
    if (status != 0)
        return status;
    struct lance_model_info info;
    lance_model_info(*model, &info);
    struct kernels *kernels = worker->kernels;
    *memory_limit_bytes = options->memory_limit_bytes != 0 ? options->memory_limit_bytes
                          : kernels->host_memory ? machine_memory_for_jobs(&machine, info.weight_bytes)
                                                 : device_memory_for_jobs(kernels->memory_available(kernels));
    lance_model_limit_memory(*model, *memory_limit_bytes);
    lance_model_limit_host_memory(*model, machine_memory_for_jobs(&machine, 0));
    return 0;
}

/* For stats: what is held now. */
static void note_state(struct worker *worker)
{
    struct lance_prefixes prefixes;
    struct lance_held held;
    lance_model_prefixes(worker->model, &prefixes);
    lance_model_held(worker->model, &held);
    pthread_mutex_lock(&worker->lock);
    snprintf(worker->status.backend, sizeof worker->status.backend, "%s", worker->kernels->name);
    worker->status.prefixes = prefixes;
    worker->status.held = held;
    pthread_mutex_unlock(&worker->lock);
}

/* Whether all that was read of the model's files until now was what they held when they were opened. */
static int check_files(struct error *error)
{
    if (mapped_files_check(error) != 0)
        return error->code;
    if (mapped_files_change(error) != MAPPED_REWRITTEN)
        return 0;
    struct error why = *error;
    return error_set(error, ERROR_BAD_FILE, "%s; try again when it is whole (files that are renamed into place always are)", why.text);
}

/* Have model `index` loaded, in place of another one if need be. */
static int load(struct worker *worker, int index, struct error *error)
{
    pthread_mutex_lock(&worker->lock);
    bool loaded = worker->status.loaded == index;
    pthread_mutex_unlock(&worker->lock);
    if (loaded)
        return 0;
    unload(worker);
    const struct model_choice *choice = &worker->options->models[index];
    log_info(NULL, "loading model %s from %s", choice->name, choice->directory);
    struct lance_model *model;
    struct lance_model_info info = {0};
    uint64_t memory_limit_bytes = 0;
    int status = open_model(worker, index, &model, &memory_limit_bytes, error);
    if (status == 0 && (status = check_files(error)) != 0)
        lance_model_close(model);
    if (status == 0) {
        lance_model_info(model, &info);
        snprintf(info.name, sizeof info.name, "%s", choice->name); /* the name clients know it by */
        pthread_rwlock_wrlock(&worker->model_lock);
        worker->model = model;
        pthread_rwlock_unlock(&worker->model_lock);
        log_info(NULL, "model %s loaded in %.2f s: %s, %d layers of %d, %.1f MB of weights, hash %.12s", info.name,
                 info.load_seconds, info.kind, info.layers, info.hidden_size, (double)info.weight_bytes / 1e6, info.hash);
        if (*lance_model_warnings(model))
            log_warning(NULL, "model %s: %s", info.name, lance_model_warnings(model));
        if (memory_limit_bytes != 0)
            log_info(NULL, "jobs may take %.1f MB of memory beside the weights", (double)memory_limit_bytes / 1e6);
        worker->idle_since = clock_seconds();
    } else
        log_error(NULL, "model %s: %s", choice->name, error->text);

    pthread_mutex_lock(&worker->lock);
    worker->attempts++;
    if (status == 0) {
        worker->status.loaded = worker->status.last = index;
        worker->status.info = info;
        worker->status.memory_limit_bytes = memory_limit_bytes;
        worker->status.loads++;
        snprintf(worker->known[index].kind, sizeof worker->known[index].kind, "%s", info.kind);
        worker->known[index].tasks = info.tasks;
    } else {
        worker->failed_model = index;
        worker->failed_attempt = worker->attempts;
        worker->load_failure = *error;
    }
    waiter_wake_all(&worker->waiters);
    pthread_mutex_unlock(&worker->lock);
    if (status == 0)
        note_state(worker);
    return status;
}

/* --- Jobs ------------------------------------------------------------------------------ */

/* What is known of the stage a job is in, for the time left. */
struct pace {
    enum lance_stage stage;
    double seconds;
};

static cJSON *progress_json(const struct lance_progress *progress, struct pace *pace)
{
    if (pace->stage != progress->stage)
        *pace = (struct pace){.stage = progress->stage};
    pace->seconds += progress->seconds;
    /* Preparing says nothing of the stages after it. */
    const bool tells = progress->steps > 0 && progress->step > 0 && progress->stage != STAGE_PREPARE;
    cJSON *fields = json_object();
    json_add_text(fields, "stage", lance_stage_name(progress->stage));
    json_add_number(fields, "step", progress->step);
    json_add_number(fields, "steps", progress->steps);
    json_add_number(fields, "total_step", progress->total_step);
    json_add_number(fields, "total_steps", progress->total_steps);
    if (tells)
        json_add_number(fields, "eta_seconds", pace->seconds / progress->step *
                                                   (progress->steps - progress->step + progress->later_steps));
    else
        json_add_null(fields, "eta_seconds");
    json_add_number(fields, "step_seconds", progress->seconds);
    return fields;
}

static cJSON *load_progress_json(int step, double seconds)
{
    cJSON *fields = json_object();
    json_add_text(fields, "stage", "load");
    json_add_number(fields, "step", step);
    json_add_number(fields, "steps", 1);
    json_add_number(fields, "total_step", 0);
    json_add_number(fields, "total_steps", 0);
    json_add_null(fields, "eta_seconds");
    json_add_number(fields, "step_seconds", seconds);
    return fields;
}

/* Copy the engine's preview into an event. Without one (or without memory) there is none. */
static void post_preview(struct worker *worker, struct job *job, struct lance_job *running)
{
    const uint8_t *rgb;
    int frames, height, width;
    struct error unused;
    if (lance_job_preview(running, &rgb, &frames, &height, &width, &unused) != 0)
        return;
    size_t bytes = (size_t)frames * (size_t)height * (size_t)width * 3;
    void *copy = malloc(bytes);
    if (copy == NULL)
        return;
    memcpy(copy, rgb, bytes);
    struct blob *blob = blob_open(copy, bytes);
    const struct job_preview preview = {.rgb = blob, .frames = frames, .height = height, .width = width};
    if (blob != NULL)
        jobs_post_preview(worker->jobs, job, &preview);
}

static const struct job_request *request_of(const struct job *job)
{
    return job_request(job);
}

static void post_step(struct worker *worker, struct job *job, struct lance_job *running,
                      const struct lance_progress *progress, struct pace *pace)
{
    jobs_post(worker->jobs, job, EVENT_PROGRESS, progress_json(progress, pace));
    if (request_of(job)->lance.preview && progress->stage == STAGE_DENOISE)
        post_preview(worker, job, running);
    if (progress->text != NULL && progress->text[0] != '\0') {
        cJSON *fields = json_object();
        json_add_text(fields, "text", progress->text);
        jobs_post(worker->jobs, job, EVENT_TEXT, fields);
    }
    log_debug(job_id(job), "%s %d/%d in %.4f s", lance_stage_name(progress->stage), progress->step, progress->steps,
              progress->seconds);
}

/* From any thread. */
static void abort_running(void *running)
{
    lance_job_abort(running);
}

static void count_step(struct worker *worker, double seconds)
{
    pthread_mutex_lock(&worker->lock);
    worker->status.steps++;
    worker->status.busy_seconds += seconds;
    worker->status.last_step_seconds = seconds;
    pthread_mutex_unlock(&worker->lock);
}

static bool is_stopping(struct worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    bool stopping = worker->stopping;
    pthread_mutex_unlock(&worker->lock);
    return stopping;
}

/* What the backend wants the log to say. */
static void log_notice(struct worker *worker, struct job *job)
{
    char *notice = worker->kernels->notice;
    if (notice[0] != '\0')
        log_warning(job_id(job), "%s: %s", worker->kernels->name, notice);
    notice[0] = '\0';
}

/* How a job came to be at this attempt. */
struct beginning {
    double started_at, load_seconds;
    int attempt; /* 0: no journal is kept */
    bool is_resumed;
    char no_state[sizeof((struct error *)0)->text];
};

/* When a job's state was kept last, or it began. */
struct saved {
    double at;
    int step;
};

/* Keep the job's state where it is time for it. Of the stages that begin again in any case, and of texts, whose pieces
 * are told once, nothing is kept. */
static void save(struct worker *worker, struct job *job, struct lance_job *running, const struct lance_progress *progress,
                 struct saved *saved)
{
    const struct options *options = worker->options;
    const bool is_due =
        (options->save_seconds > 0 && clock_seconds() - saved->at >= options->save_seconds) ||
        (options->save_steps > 0 && progress->total_step - saved->step >= options->save_steps);
    if (worker->at_jobs == NULL || !is_due || (progress->stage != STAGE_DENOISE && progress->stage != STAGE_DECODE))
        return;
    void *state;
    size_t bytes;
    struct error error;
    if (lance_job_save(running, &state, &bytes, &error) == 0)
        worker->at_jobs->save(worker->at_jobs->context, job_number(job), progress->total_step, state, bytes);
    else
        log_warning(job_id(job), "its state cannot be kept: %s", error.text);
    *saved = (struct saved){clock_seconds(), progress->total_step};
}

/* Step a started job to its end. */
static int step_to_end(struct worker *worker, struct job *job, struct lance_job *running, struct error *error)
{
    struct pace pace = {0};
    struct saved saved = {clock_seconds(), 0};
    for (;;) {
        if (jobs_cancel_wanted(worker->jobs, job) || is_stopping(worker))
            return error_set(error, ERROR_CANCELLED, "job %s: was cancelled", job_id(job));
        struct lance_progress progress = {0};
        double before = clock_seconds();
        int status = lance_job_step(running, &progress, error);
        count_step(worker, clock_seconds() - before);
        note_state(worker);
        log_notice(worker, job);
        if (status >= 0 && mapped_files_check(error) != 0)
            status = error->code;
        if (status < 0)
            return status;
        post_step(worker, job, running, &progress, &pace);
        if (status == LANCE_STEP_DONE)
            return 0;
        save(worker, job, running, &progress, &saved);
    }
}

/* Start a job, from the state that an earlier attempt has left if it can be used. */
static int start_job(struct worker *worker, struct job *job, void *state, size_t state_bytes, struct lance_job **running,
                     struct beginning *beginning, struct error *error)
{
    const struct lance_request *request = &request_of(job)->lance;
    struct error why;
    if (state != NULL && lance_job_resume(running, worker->model, request, state, state_bytes, &why) == 0) {
        beginning->is_resumed = true;
        log_info(job_id(job), "goes on from a saved state");
        return 0;
    }
    if (state != NULL) {
        snprintf(beginning->no_state, sizeof beginning->no_state, "%s", why.text);
        log_warning(job_id(job), "begins anew: %s", why.text);
    }
    return lance_job_start(running, worker->model, request, error);
}

/* Have the job's model loaded; says so in the job's events when it was not. */
static int prepare_model(struct worker *worker, struct job *job, double *load_seconds, struct error *error)
{
    int index;
    const struct job_request *request = request_of(job);
    int status = worker_choose_model(worker, request->model, request->lance.task, &index, error);
    if (status != 0)
        return status;
    struct worker_status before;
    worker_status(worker, &before);
    *load_seconds = -1;
    struct error why;
    if (before.loaded == index && mapped_files_change(&why) != MAPPED_SAME) {
        log_warning(job_id(job), "%s: the model is loaded again", why.text);
        unload(worker);
    } else if (before.loaded == index)
        return 0;
    double start = clock_seconds();
    jobs_post(worker->jobs, job, EVENT_PROGRESS, load_progress_json(0, 0));
    status = load(worker, index, error);
    if (status != 0)
        return status;
    *load_seconds = clock_seconds() - start;
    jobs_post(worker->jobs, job, EVENT_PROGRESS, load_progress_json(1, *load_seconds));
    return 0;
}

static int encode_result(struct worker *worker, struct job *job, struct lance_job *running, const struct beginning *beginning,
                         struct blob **out, struct error *error)
{
    struct lance_result result = {0};
    int status = lance_job_result(running, &result, error);
    if (status != 0)
        return status;
    struct worker_status snapshot;
    worker_status(worker, &snapshot);
    const struct receipt_facts facts = {
        .job = job_id(job),
        .backend = snapshot.backend,
        .request = request_of(job)->hash,
        .model = snapshot.info,
        .queue_seconds = job_queue_seconds(job),
        .load_seconds = beginning->load_seconds,
        .total_seconds = clock_seconds() - beginning->started_at,
        .attempt = beginning->attempt,
        .is_resumed = beginning->is_resumed,
        .no_state = beginning->no_state,
    };
    pthread_mutex_lock(&worker->lock);
    if (result.peak_bytes > worker->status.job_peak_bytes)
        worker->status.job_peak_bytes = result.peak_bytes;
    pthread_mutex_unlock(&worker->lock);
    return receipt_encode(out, &request_of(job)->lance, &result, &facts, error);
}

/* Everything of a job up to its result. */
static int do_job(struct worker *worker, struct job *job, struct beginning *beginning, struct blob **result,
                  struct error *error)
{
    struct lance_job *running = NULL;
    void *state = NULL;
    size_t state_bytes = 0;
    int status = 0;
    if (worker->is_lost)
        return error_set(error, ERROR_INTERNAL, "%s has failed in an earlier job, and lanced ends because of that; send the "
                         "job to a new one", worker->kernels->name);
    if (worker->at_jobs != NULL)
        status = worker->at_jobs->start(worker->at_jobs->context, job_number(job), &state, &state_bytes, &beginning->attempt, error);
    if (status == 0)
        status = prepare_model(worker, job, &beginning->load_seconds, error);
    if (status == 0)
        status = start_job(worker, job, state, state_bytes, &running, beginning, error);
    free(state);
    if (status == 0) {
        jobs_on_cancel(worker->jobs, job, abort_running, running);
        status = step_to_end(worker, job, running, error);
        jobs_on_cancel(worker->jobs, job, NULL, NULL);
    }
    if (status == 0)
        status = check_files(error);
    if (status == 0)
        status = encode_result(worker, job, running, beginning, result, error);
    lance_job_close(running); /* frees the device's memory before the client hears of the end */
    return status;
}

static void run_job(struct worker *worker, struct job *job)
{
    struct beginning beginning = {.started_at = clock_seconds(), .load_seconds = -1};
    struct error error = {0};
    struct blob *result = NULL;
    char id[JOB_ID_MAX_BYTES + 1];
    snprintf(id, sizeof id, "%s", job_id(job));

    log_info(id, "started: %s, after %.2f s in the queue", lance_task_name(request_of(job)->lance.task), job_queue_seconds(job));
    int status = do_job(worker, job, &beginning, &result, &error);
    if (mapped_files_check(NULL) != 0) /* the next job reads the files anew */
        unload(worker);
    if (worker->model != NULL)
        note_state(worker);
    worker->idle_since = clock_seconds();
    jobs_end(worker->jobs, job, result, &error);

    double seconds = clock_seconds() - beginning.started_at;
    if (status == 0)
        log_info(id, "done in %.2f s", seconds);
    else if (status == ERROR_CANCELLED)
        log_info(id, "cancelled after %.2f s", seconds);
    else
        log_warning(id, "failed after %.2f s: %s: %s", seconds, error_name(error.code), error.text);
}

/* --- The thread ------------------------------------------------------------------------ */

/* Do what the mailbox asks for. Returns false when the thread is to end. */
static bool serve_mailbox(struct worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    bool stopping = worker->stopping;
    int wanted = worker->wanted;
    worker->doing = wanted;
    worker->wanted = WANT_NOTHING;
    pthread_mutex_unlock(&worker->lock);
    if (stopping)
        return false;
    struct error unused; /* load() keeps it for whoever asked */
    if (wanted >= 0)
        load(worker, wanted, &unused);
    else if (wanted == WANT_UNLOAD)
        unload(worker);
    if (wanted != WANT_NOTHING) { /* also those who asked for what was there already */
        pthread_mutex_lock(&worker->lock);
        worker->doing = WANT_NOTHING;
        waiter_wake_all(&worker->waiters);
        pthread_mutex_unlock(&worker->lock);
    }
    return true;
}

/* When the model has been idle for long enough; 0: never. */
static double idle_end(const struct worker *worker)
{
    const double seconds = worker->options->idle_unload_seconds;
    return worker->model != NULL && seconds > 0 ? worker->idle_since + seconds : 0;
}

static void end_daemon(struct worker *worker, enum worker_end why, const struct error *error)
{
    pthread_mutex_lock(&worker->lock);
    worker->fatal = *error;
    pthread_mutex_unlock(&worker->lock);
    worker->on_fatal(worker->context, why);
}

/* A device that has failed for good needs a new process, and so a new daemon. */
static void check_device(struct worker *worker)
{
    if (!worker->kernels->lost || worker->is_lost)
        return;
    struct error error;
    error_set(&error, ERROR_INTERNAL, "%s has failed and cannot be used by this process any more: lanced has to be started again",
              worker->kernels->name);
    log_error(NULL, "%s", error.text);
    worker->is_lost = true;
    end_daemon(worker, WORKER_DEVICE_LOST, &error);
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    struct error error;
    if (!worker->options->lazy && load(worker, 0, &error) != 0 && !worker->kernels->lost)
        end_daemon(worker, WORKER_NO_MODEL, &error);
    while (serve_mailbox(worker)) {
        check_device(worker);
        struct job *job = jobs_take(worker->jobs, idle_end(worker));
        if (job != NULL)
            run_job(worker, job);
        else if (idle_end(worker) > 0 && clock_seconds() >= idle_end(worker)) {
            log_info(NULL, "no job for %.0f s", worker->options->idle_unload_seconds);
            unload(worker);
        }
    }
    unload(worker);
    return NULL;
}

int worker_open(struct worker **out, const struct options *options, struct jobs *jobs, const struct attempts *attempts,
                void (*on_fatal)(void *context, enum worker_end why), void *context, struct error *error)
{
    *out = NULL;
    struct worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return error_set(error, ERROR_NO_MEMORY, "worker: out of memory");
    worker->options = options;
    worker->jobs = jobs;
    worker->at_jobs = attempts;
    worker->on_fatal = on_fatal;
    worker->context = context;
    worker->wanted = worker->doing = WANT_NOTHING;
    worker->failed_model = -1;
    worker->status.loaded = -1;
    pthread_mutex_init(&worker->lock, NULL);
    pthread_rwlock_init(&worker->model_lock, NULL);
    struct error why_not_cuda;
    int status = backend_open(&worker->kernels, &options->backend, &why_not_cuda, error);
    if (status != 0) {
        worker_close(worker);
        return status;
    }
    if (why_not_cuda.code == 0)
        log_info(NULL, "backend %s", worker->kernels->name);
    else
        log_info(NULL, "backend %s (%s)", worker->kernels->name, why_not_cuda.text);
    snprintf(worker->status.backend, sizeof worker->status.backend, "%s", worker->kernels->name);
    struct kernels *kernels = worker->kernels;
    status = model_choice_budget(&worker->weights_budget_bytes, options, kernels->host_memory ? 0 : kernels->memory_available(kernels),
                                 error);
    if (status != 0) {
        worker_close(worker);
        return status;
    }
    const double gain = backend_bf16_gain(worker->kernels, &options->backend);
    if (gain > 0.0) {
        snprintf(worker->status.advice, sizeof worker->status.advice,
                 "products in bf16, the official code's precision, are %.1f times as fast on this processor: --precision auto", gain);
        log_info(NULL, "%s", worker->status.advice);
    }
    *out = worker;
    return 0;
}

int worker_start(struct worker *worker, struct error *error)
{
    worker->has_thread = pthread_create(&worker->thread, NULL, run, worker) == 0;
    return worker->has_thread ? 0 : error_set(error, ERROR_NO_MEMORY, "worker: cannot start its thread");
}

void worker_close(struct worker *worker)
{
    if (worker == NULL)
        return;
    if (worker->has_thread) {
        pthread_mutex_lock(&worker->lock);
        worker->stopping = true;
        pthread_mutex_unlock(&worker->lock);
        jobs_poke(worker->jobs);
        pthread_join(worker->thread, NULL);
    }
    if (worker->kernels != NULL)
        worker->kernels->close(worker->kernels);
    pthread_rwlock_destroy(&worker->model_lock);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
}

/* --- For other threads ----------------------------------------------------------------- */

void worker_status(struct worker *worker, struct worker_status *out)
{
    pthread_mutex_lock(&worker->lock);
    *out = worker->status;
    pthread_mutex_unlock(&worker->lock);
}

int worker_find_model(struct worker *worker, const char *name, int *index, struct error *error)
{
    const struct options *options = worker->options;
    if (name == NULL) {
        struct worker_status status;
        worker_status(worker, &status);
        *index = status.last;
        return 0;
    }
    for (*index = 0; *index < options->model_count; ++*index)
        if (strcmp(options->models[*index].name, name) == 0)
            return 0;
    char offered[400] = "";
    for (int i = 0; i < options->model_count; i++) {
        size_t at = strlen(offered);
        snprintf(offered + at, sizeof offered - at, "%s%s", i > 0 ? ", " : "", options->models[i].name);
    }
    return error_set(error, ERROR_NOT_FOUND, "model: \"%.64s\" is not offered here; offered: %s", name, offered);
}

int worker_choose_model(struct worker *worker, const char *name, enum lance_task task, int *index, struct error *error)
{
    if (name == NULL || strcmp(name, MODEL_AUTOMATIC) != 0)
        return worker_find_model(worker, name, index, error);
    struct worker_status status;
    worker_status(worker, &status);
    if (status.loaded >= 0 && task_is_of_vae(task)) {
        *index = status.loaded; /* all have the same VAE: no reason to load another */
        return 0;
    }
    *index = model_choose_offered(worker->options, worker->weights_budget_bytes, task);
    return 0;
}

cJSON *worker_automatic(struct worker *worker)
{
    return model_choice_json(worker->options, worker->weights_budget_bytes);
}

cJSON *worker_models(struct worker *worker)
{
    struct model_facts facts[OPTIONS_MAX_MODELS];
    for (int i = 0; i < worker->options->model_count; i++)
        model_facts_read(&facts[i], worker->options, i, worker->weights_budget_bytes);
    cJSON *models = json_array();
    pthread_mutex_lock(&worker->lock);
    for (int i = 0; i < worker->options->model_count; i++) {
        const struct model_choice *choice = &worker->options->models[i];
        bool is_known = worker->known[i].kind[0] != '\0';
        const char *slash = strrchr(choice->directory, '/');
        char hint[NAME_MAX + 1]; /* folders may have any bytes in their names */
        snprintf(hint, sizeof hint, "%s", slash != NULL && slash[1] != '\0' ? slash + 1 : choice->directory);
        utf8_make_line(hint);
        cJSON *model = json_object();
        json_add_text(model, "name", choice->name);
        json_add(model, "kind", is_known ? json_from_text(worker->known[i].kind) : json_null());
        json_add(model, "tasks", is_known ? task_names_json(worker->known[i].tasks) : json_null());
        json_add_text(model, "path_hint", hint);
        json_add_bool(model, "loaded", worker->status.loaded == i);
        model_facts_add(model, &facts[i]);
        json_append(models, model);
    }
    pthread_mutex_unlock(&worker->lock);
    return models;
}

int worker_check(struct worker *worker, int index, const struct lance_request *request, struct error *error)
{
    struct worker_status status;
    worker_status(worker, &status);
    if (status.loaded != index)
        return 0;
    /* A model that is replaced right now is no reason to wait: the job itself is checked again. */
    if (pthread_rwlock_tryrdlock(&worker->model_lock) != 0)
        return 0;
    int result = worker->model != NULL ? lance_request_check(worker->model, request, error) : 0;
    pthread_rwlock_unlock(&worker->model_lock);
    return result;
}

/* What the thread is at or will turn to next. The caller holds the lock. */
static int outlook(const struct worker *worker)
{
    return worker->wanted != WANT_NOTHING ? worker->wanted : worker->doing;
}

int worker_load(struct worker *worker, int index, uint64_t *ticket, struct waiter *waiter, bool *parked,
                struct error *error)
{
    int status = 0;
    bool wanted = false;
    *parked = false;
    pthread_mutex_lock(&worker->lock);
    /* Who has just begun to ask does not get a model that is about to go; who has waited for it does: else two clients
     * that want different models could keep each other waiting. */
    bool stays = outlook(worker) == WANT_NOTHING || outlook(worker) == index;
    bool is_loaded = worker->status.loaded == index && (stays || *ticket != 0);
    bool has_failed = *ticket != 0 && worker->failed_model == index && worker->failed_attempt >= *ticket;
    if (is_loaded) {
        status = 0;
    } else if (has_failed) {
        *error = worker->load_failure;
        status = error->code;
    } else {
        if (*ticket == 0)
            *ticket = worker->attempts + 1;
        worker->wanted = index;
        wanted = true;
        if (waiter != NULL) {
            *parked = true;
            waiter_park(&worker->waiters, waiter);
        } else
            status = error_set(error, ERROR_BUSY, "model %s: is not loaded yet; ask again",
                               worker->options->models[index].name);
    }
    pthread_mutex_unlock(&worker->lock);
    if (wanted)
        jobs_poke(worker->jobs);
    return status;
}

enum worker_unload worker_unload(struct worker *worker, uint64_t *ticket, struct waiter *waiter)
{
    const bool is_running = jobs_is_running(worker->jobs);
    enum worker_unload state = UNLOAD_NOTHING;
    pthread_mutex_lock(&worker->lock);
    *ticket = worker->status.unloads;
    if (worker->status.loaded >= 0 || outlook(worker) >= 0 || is_running) {
        worker->wanted = WANT_UNLOAD;
        state = is_running || waiter == NULL ? UNLOAD_PENDING : UNLOAD_PARKED;
        if (state == UNLOAD_PARKED)
            waiter_park(&worker->waiters, waiter);
    }
    pthread_mutex_unlock(&worker->lock);
    if (state != UNLOAD_NOTHING)
        jobs_poke(worker->jobs);
    return state;
}

enum worker_unload worker_unload_again(struct worker *worker, uint64_t ticket, struct waiter *waiter)
{
    enum worker_unload state = UNLOAD_NOTHING;
    pthread_mutex_lock(&worker->lock);
    if (worker->status.unloads > ticket || (worker->status.loaded < 0 && outlook(worker) == WANT_NOTHING))
        state = UNLOAD_DONE;
    else if (outlook(worker) == WANT_UNLOAD)
        state = waiter != NULL ? UNLOAD_PARKED : UNLOAD_PENDING;
    if (state == UNLOAD_PARKED)
        waiter_park(&worker->waiters, waiter);
    pthread_mutex_unlock(&worker->lock);
    return state;
}

void worker_unpark(struct worker *worker, struct waiter *waiter)
{
    pthread_mutex_lock(&worker->lock);
    waiter_leave(waiter);
    pthread_mutex_unlock(&worker->lock);
}

void worker_client_gone(struct worker *worker, uint32_t client)
{
    pthread_mutex_lock(&worker->lock);
    waiter_wake_client(&worker->waiters, client);
    pthread_mutex_unlock(&worker->lock);
}

void worker_fatal_error(struct worker *worker, struct error *out)
{
    pthread_mutex_lock(&worker->lock);
    *out = worker->fatal;
    pthread_mutex_unlock(&worker->lock);
}
