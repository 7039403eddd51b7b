/* runner.c: see runner.h. A job is opened (its model, then lance_job_start), stepped to its last step, and ended.
 *
 * Whose turn it is the table says before each step. A job that has to wait meanwhile stays open, or, where its memory
 * or its model's place is needed for the one whose turn it is, is suspended: its state is kept here, and it goes on
 * from there with the same bytes.
 */
#include "daemon/runner.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "daemon/attempts.h"
#include "daemon/calibration.h"
#include "daemon/kept_results.h"
#include "daemon/log.h"
#include "daemon/receipt.h"
#include "daemon/request.h"
#include "daemon/result_digest.h"
#include "kernels/kernels.h"

/* What is known of the stage a job is in, for the time left. */
struct pace {
    enum lance_stage stage;
    double seconds;
};

/* A job that is open. */
struct run {
    struct job *job;
    char id[JOB_ID_MAX_BYTES + 1];
    const struct job_request *request;
    int chosen;              /* index of its model; -1: not chosen yet */
    int model;               /* the same, while it is held; else -1 */
    struct lance_job *lance; /* NULL: not started, or suspended */
    void *state;             /* what it is to go on from, of an earlier attempt or since it was suspended; or NULL */
    size_t state_bytes;
    struct place {           /* where it was when it was suspended: until then nothing is told again */
        enum lance_stage stage;
        int step;
    } place, behind;
    bool is_suspended, is_behind; /* since it was suspended; now, on its way to where it was */
    double last_turn_at, paused_seconds;
    struct blob *kept;       /* the result of an earlier job that asked for the same; NULL: it is made */
    double started_at;
    double load_seconds; /* negative: the model was there */
    struct pace pace;
    int attempt; /* 0: no journal is kept */
    bool is_counted; /* among those that are begun, in the journal: not while it is paused */
    bool is_resumed;
    char no_state[sizeof((struct error *)0)->text]; /* why it began anew although it had been saved */
    double saved_at; /* when its state was kept last, or it began, and the steps that were done */
    int saved_step;
    int done_steps; /* by now */
    struct run *next;
};

struct runner {
    const struct options *options;
    struct jobs *jobs;
    struct residency *residency;
    struct kernels *kernels;
    const struct attempts *attempts; /* NULL: no journal is kept */
    const struct kept_results *kept; /* NULL: results are not kept */
    struct calibration *calibration; /* NULL: nothing is counted */
    struct run *open; /* this and the next are the thread's own */
    struct run *latest; /* the one that had the last turn; NULL: it has ended */
    atomic_bool is_stopping;
    pthread_mutex_t lock; /* guards the rest */
    struct runner_counts counts;
};

int runner_open(struct runner **out, const struct options *options, struct jobs *jobs, struct residency *residency,
                struct kernels *kernels, const struct attempts *attempts, const struct kept_results *kept,
                struct error *error)
{
    struct runner *runner = *out = calloc(1, sizeof *runner);
    if (!runner)
        return error_set(error, ERROR_NO_MEMORY, "runner: out of memory");
    runner->options = options;
    runner->jobs = jobs;
    runner->residency = residency;
    runner->kernels = kernels;
    runner->attempts = attempts;
    runner->kept = kept;
    pthread_mutex_init(&runner->lock, NULL);
    return 0;
}

void runner_calibrate(struct runner *runner, struct calibration *calibration)
{
    runner->calibration = calibration;
}

void runner_close(struct runner *runner)
{
    if (!runner)
        return;
    pthread_mutex_destroy(&runner->lock);
    free(runner);
}

/* --- What is posted --------------------------------------------------------------------- */

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

/* What clients see before the engine's own stages, when a job has its model loaded (PROTOCOL.md, "Events"). */
static const char load_stage[] = "load";

static cJSON *load_progress_json(int step, double seconds)
{
    cJSON *fields = json_object();
    json_add_text(fields, "stage", load_stage);
    json_add_number(fields, "step", step);
    json_add_number(fields, "steps", 1);
    json_add_number(fields, "total_step", 0);
    json_add_number(fields, "total_steps", 0);
    json_add_null(fields, "eta_seconds");
    json_add_number(fields, "step_seconds", seconds);
    return fields;
}

/* Copy the engine's preview into an event. Without one (or without memory) there is none. */
static void post_preview(struct runner *runner, const struct run *run)
{
    const uint8_t *rgb;
    int frames, height, width;
    struct error unused;
    if (lance_job_preview(run->lance, &rgb, &frames, &height, &width, &unused) != 0)
        return;
    size_t bytes = (size_t)frames * (size_t)height * (size_t)width * 3;
    void *copy = malloc(bytes);
    if (!copy)
        return;
    memcpy(copy, rgb, bytes);
    struct blob *blob = blob_open(copy, bytes);
    const struct job_preview preview = {.rgb = blob, .frames = frames, .height = height, .width = width};
    if (blob)
        jobs_post_preview(runner->jobs, run->job, &preview);
}

static void post_step(struct runner *runner, struct run *run, const struct lance_progress *progress)
{
    run->place = (struct place){progress->stage, progress->step};
    run->is_behind = run->is_behind && (progress->stage < run->behind.stage ||
                                        (progress->stage == run->behind.stage && progress->step <= run->behind.step));
    if (run->is_behind)
        return;
    jobs_post(runner->jobs, run->job, EVENT_PROGRESS, progress_json(progress, &run->pace));
    if (run->request->lance.preview && progress->stage == STAGE_DENOISE)
        post_preview(runner, run);
    if (progress->text && progress->text[0] != '\0') {
        cJSON *fields = json_object();
        json_add_text(fields, "text", progress->text);
        jobs_post(runner->jobs, run->job, EVENT_TEXT, fields);
    }
    log_debug(run->id, "%s %d/%d in %.4f s", lance_stage_name(progress->stage), progress->step, progress->steps,
              progress->seconds);
}

/* What the backend wants the log to say. */
static void log_notice(const struct runner *runner, const struct run *run)
{
    char *notice = runner->kernels->notice;
    if (notice[0] != '\0')
        log_warning(run->id, "%s: %s", runner->kernels->name, notice);
    notice[0] = '\0';
}

/* --- A job's beginning -------------------------------------------------------------------- */

_Static_assert((int)OFFERED_MAX_MODELS <= (int)JOBS_MOST_MODELS, "the table can know all models that are offered");

/* Tell the table which models are in memory. */
static void note_in_memory(struct runner *runner)
{
    const char *names[OFFERED_MAX_MODELS];
    int count = 0;
    for (int i = 0; i < runner->options->model_count; i++)
        if (residency_is_loaded(runner->residency, i))
            names[count++] = runner->options->models[i].name;
    jobs_note_in_memory(runner->jobs, names, count);
}

/* Which model makes a job. What its request was bound to may not be offered by a daemon that was started again. */
static int choose_model(struct runner *runner, const struct job_request *request, int *index, struct error *error)
{
    struct error gone;
    if (request->bound_model && residency_find(runner->residency, request->bound_model, index, &gone) == 0)
        return 0;
    return residency_choose(runner->residency, request->model, request->lance.task, index, error);
}

/* Have the job's model in memory, and hold it; says so in the job's events when it was not there. */
static int hold_model(struct runner *runner, struct run *run, struct lance_model **model, struct error *error)
{
    int code = run->chosen >= 0 ? 0 : choose_model(runner, run->request, &run->chosen, error);
    if (code != 0)
        return code;
    const int index = run->chosen;
    double seconds = -1;
    residency_drop_changed(runner->residency, index, run->id);
    if (!residency_is_loaded(runner->residency, index)) {
        double start = clock_seconds();
        jobs_post(runner->jobs, run->job, EVENT_PROGRESS, load_progress_json(0, 0));
        code = residency_load(runner->residency, index, error);
        if (code != 0)
            return code;
        seconds = clock_seconds() - start;
        run->load_seconds = (run->load_seconds > 0 ? run->load_seconds : 0) + seconds;
        jobs_note_step(runner->jobs, run->job, load_stage, seconds);
        jobs_post(runner->jobs, run->job, EVENT_PROGRESS, load_progress_json(1, seconds));
    }
    note_in_memory(runner);
    jobs_note_model(runner->jobs, run->job, runner->options->models[index].name, seconds);
    run->model = index;
    *model = residency_hold(runner->residency, index);
    return 0;
}

/* Start a job, from the state that is there if it can be used. A text of which pieces were told is not begun anew. */
static int start_or_resume(struct run *run, struct lance_model *model, struct error *error)
{
    struct error why = {0};
    if (!run->state)
        return lance_job_start(&run->lance, model, &run->request->lance, error);
    const int code =
        lance_job_resume(&run->lance, model, &run->request->lance, run->state, run->state_bytes, &why);
    if (code == ERROR_BUSY || (code != 0 && run->is_suspended && run->place.stage == STAGE_TEXT)) {
        *error = why;
        return code;
    }
    free(run->state);
    run->state = NULL;
    if (code == 0) {
        run->is_resumed = run->is_resumed || !run->is_suspended;
        log_info(run->id, "goes on from a saved state");
        return 0;
    }
    snprintf(run->no_state, sizeof run->no_state, "%s", why.text);
    log_warning(run->id, "begins anew: %s", why.text);
    run->is_behind = false; /* where it was may be far: others have turns meanwhile, and its steps are told again */
    return lance_job_start(&run->lance, model, &run->request->lance, error);
}

/* A kept answer is told as one piece. */
static void post_kept_text(struct runner *runner, const struct run *run)
{
    char *text = receipt_result_text(run->kept);
    if (text) {
        cJSON *fields = json_object();
        json_add_text(fields, "text", text);
        jobs_post(runner->jobs, run->job, EVENT_TEXT, fields);
    }
    free(text);
}

static void digest_of(struct runner *runner, const struct run *run, char digest[SHA256_HEX_BYTES])
{
    struct lance_model_info info;
    residency_info(runner->residency, run->model, &info);
    result_digest(run->request->hash, info.hash, runner->kernels->name, lance_build(), digest);
}

/* Whether the same was made before and is kept. */
static bool find_kept(struct runner *runner, struct run *run)
{
    char digest[SHA256_HEX_BYTES];
    if (!runner->kept || run->request->no_cache)
        return false;
    digest_of(runner, run, digest);
    run->kept = runner->kept->find(runner->kept->context, digest);
    if (!run->kept)
        return false;
    log_info(run->id, "is answered with a kept result");
    post_kept_text(runner, run);
    return true;
}

/* From any thread. */
static void abort_running(void *running)
{
    lance_job_abort(running);
}

/* Have a job that is not open opened on its model. ERROR_BUSY: others have the memory, or the model's place. */
static int open_on_model(struct runner *runner, struct run *run, struct error *error)
{
    struct lance_model *model;
    int code = hold_model(runner, run, &model, error);
    if (code == 0 && (run->is_suspended || !find_kept(runner, run))) {
        code = start_or_resume(run, model, error);
        if (code == 0 && !run->is_suspended)
            calibration_note_task(runner->calibration, run->request->lance.task);
    }
    if (code == 0)
        residency_note(runner->residency, run->model); /* what it was promised */
    if (code == ERROR_TOO_LARGE && !residency_is_alone(runner->residency)) /* other models or their jobs have it */
        code = ERROR_BUSY;
    if (code == ERROR_BUSY && run->model >= 0) {
        residency_let_go(runner->residency, run->model);
        run->model = -1;
    }
    return code;
}

/* The job that is to give way to another: of those that hold memory the one of the last class. */
static struct run *find_giving_way(const struct runner *runner, const struct run *to)
{
    struct run *found = NULL;
    for (struct run *run = runner->open; run; run = run->next)
        if (run != to && run->lance && (!found || run->request->priority > found->request->priority))
            found = run;
    return found;
}

/* Keep a job's state here, and give back what it has of the device. */
static int suspend(struct runner *runner, struct run *run, struct error *error)
{
    int code = lance_job_save(run->lance, &run->state, &run->state_bytes, error);
    if (code != 0)
        return code;
    log_info(run->id, "suspended with %.1f MB of state: its memory or its model's place is needed",
             (double)run->state_bytes / 1e6);
    jobs_on_cancel(runner->jobs, run->job, NULL, NULL);
    lance_job_close(run->lance);
    run->lance = NULL;
    residency_let_go(runner->residency, run->model);
    run->model = -1;
    if (!run->is_behind)
        run->behind = run->place;
    run->is_suspended = run->is_behind = true;
    return 0;
}

/* Open a job whose turn it is, whoever has to give way. ERROR_BUSY with *in_the_way: that one cannot be put aside now,
 * for want of memory for its state, and goes on first. */
static int open_job(struct runner *runner, struct run *run, struct run **in_the_way, struct error *error)
{
    *in_the_way = NULL;
    if (runner->kernels->lost)
        return error_set(error, ERROR_INTERNAL,
                         "%s has failed in an earlier job, and lanced ends because of that; send the job to a new one",
                         runner->kernels->name);
    int code = open_on_model(runner, run, error);
    while (code == ERROR_BUSY) {
        struct run *other = find_giving_way(runner, run);
        if (!other && !residency_give_way(runner->residency, run->chosen))
            break;
        code = other ? suspend(runner, other, error) : 0;
        if (code == ERROR_NO_MEMORY) {
            *in_the_way = other;
            return ERROR_BUSY;
        }
        if (code == 0)
            code = open_on_model(runner, run, error);
    }
    if (code == 0 && run->lance)
        jobs_on_cancel(runner->jobs, run->job, abort_running, run->lance);
    return code;
}

/* It is a job's turn: the attempt at another one that is open does not count while that is paused, so that it is not
 * blamed for an end of the daemon. */
static void give_turn(struct runner *runner, struct run *run)
{
    const struct attempts *attempts = runner->attempts;
    struct run *before = runner->latest;
    runner->latest = run;
    if (!attempts || !before || before == run || !before->is_counted)
        return;
    attempts->pause(attempts->context, job_number(before->job));
    before->is_counted = false;
}

/* A job that was paused has its turn again. */
static void count_again(struct runner *runner, struct run *run)
{
    const struct attempts *attempts = runner->attempts;
    struct error error;
    int attempt;
    if (!attempts || run->is_counted)
        return;
    if (attempts->start(attempts->context, job_number(run->job), NULL, NULL, &attempt, &error) != 0)
        log_warning(run->id, "%s", error.text); /* it has begun, and goes on */
    run->is_counted = true;
}

/* A job's first turn. */
static int start(struct runner *runner, struct run *run, struct run **in_the_way, struct error *error)
{
    const struct attempts *attempts = runner->attempts;
    int code = 0;
    if (attempts && !runner->kernels->lost)
        code = attempts->start(attempts->context, job_number(run->job), &run->state, &run->state_bytes,
                               &run->attempt, error);
    run->is_counted = code == 0;
    if (code == 0)
        code = open_job(runner, run, in_the_way, error);
    run->saved_at = clock_seconds();
    return code;
}

/* --- Its end --------------------------------------------------------------------------------- */

static int encode_result(struct runner *runner, const struct run *run, struct blob **out, struct error *error)
{
    struct lance_result result = {0};
    int code = run->lance ? lance_job_result(run->lance, &result, error) : 0;
    if (code != 0)
        return code;
    struct receipt_facts facts = {
        .job = run->id,
        .backend = runner->kernels->name,
        .request = run->request->hash,
        .queue_seconds = job_queue_seconds(run->job),
        .load_seconds = run->load_seconds,
        .total_seconds = clock_seconds() - run->started_at,
        .attempt = run->attempt,
        .is_resumed = run->is_resumed,
        .no_state = run->no_state,
        .paused_seconds = run->paused_seconds,
    };
    if (run->kept)
        return receipt_encode_again(out, run->kept, &facts, error);
    residency_info(runner->residency, run->model, &facts.model);
    pthread_mutex_lock(&runner->lock);
    if (result.peak_bytes > runner->counts.job_peak_bytes)
        runner->counts.job_peak_bytes = result.peak_bytes;
    pthread_mutex_unlock(&runner->lock);
    return receipt_encode(out, &run->request->lance, &result, &facts, error);
}

static void say_end(const struct run *run, int status, const struct error *error)
{
    const double seconds = clock_seconds() - run->started_at;
    if (status == 0)
        log_info(run->id, "done in %.2f s", seconds);
    else if (status == ERROR_CANCELLED)
        log_info(run->id, "cancelled after %.2f s", seconds);
    else
        log_warning(run->id, "failed after %.2f s: %s: %s", seconds, error_name(error->code), error->text);
}

/* Free what a job has of the device. */
static void stop(struct runner *runner, struct run *run)
{
    blob_close(run->kept);
    free(run->state);
    lance_job_close(run->lance);
    if (run->model >= 0)
        residency_let_go(runner->residency, run->model);
}

/* It is open no more. */
static void forget(struct runner *runner, struct run *run)
{
    struct run **link = &runner->open;
    while (*link != run)
        link = &(*link)->next;
    *link = run->next;
    if (runner->latest == run)
        runner->latest = NULL;
    free(run);
}

/* Keep a result for who asks for the same. */
static void keep(struct runner *runner, const struct run *run, struct blob *result)
{
    char digest[SHA256_HEX_BYTES];
    if (!runner->kept)
        return;
    digest_of(runner, run, digest); /* a backend may have changed its name on the way */
    runner->kept->keep(runner->kept->context, digest, result);
}

/* End an open job: with its result when its last step is done (`status` 0), or else with the error. */
static void end(struct runner *runner, struct run *run, int code, struct error *error)
{
    struct blob *result = NULL;
    if (run->lance)
        jobs_on_cancel(runner->jobs, run->job, NULL, NULL);
    if (code == 0)
        code = residency_check_files(runner->residency, run->model, error);
    if (code == 0)
        code = encode_result(runner, run, &result, error);
    if (code == 0 && !run->kept)
        keep(runner, run, result);
    stop(runner, run); /* before the client hears of the end */
    jobs_end(runner->jobs, run->job, result, error);
    say_end(run, code, error);
    forget(runner, run);
}

/* --- Turns ------------------------------------------------------------------------------------ */

static struct run *find(const struct runner *runner, const struct job *job)
{
    struct run *run = runner->open;
    while (run && run->job != job)
        run = run->next;
    return run;
}

/* Begin with a job, which is a turn of its own. */
static void begin(struct runner *runner, struct job *job)
{
    struct error error = {0};
    struct run *run = calloc(1, sizeof *run);
    if (!run) {
        error_set(&error, ERROR_NO_MEMORY, "job %s: out of memory", job_id(job));
        jobs_end(runner->jobs, job, NULL, &error);
        return;
    }
    *run = (struct run){.job = job,
                        .request = job_request(job),
                        .chosen = -1,
                        .model = -1,
                        .started_at = clock_seconds(),
                        .last_turn_at = clock_seconds(),
                        .load_seconds = -1,
                        .next = runner->open};
    snprintf(run->id, sizeof run->id, "%s", job_id(job));
    runner->open = run;
    give_turn(runner, run);
    log_info(run->id, "started: %s, after %.2f s in the queue", lance_task_name(run->request->lance.task),
             job_queue_seconds(job));
    struct run *in_the_way = NULL;
    int code = start(runner, run, &in_the_way, &error);
    run->last_turn_at = clock_seconds();
    if (in_the_way)
        log_warning(run->id, "waits for job %s, which cannot be put aside: %s", in_the_way->id, error.text);
    else if (code != 0 || run->kept)
        end(runner, run, code, &error);
}

static void count_step(struct runner *runner, double seconds)
{
    pthread_mutex_lock(&runner->lock);
    runner->counts.steps++;
    runner->counts.busy_seconds += seconds;
    runner->counts.last_step_seconds = seconds;
    pthread_mutex_unlock(&runner->lock);
}

static bool is_save_due(const struct runner *runner, const struct run *run)
{
    const struct options *options = runner->options;
    return runner->attempts &&
           ((options->save_seconds > 0 && clock_seconds() - run->saved_at >= options->save_seconds) ||
            (options->save_steps > 0 && run->done_steps - run->saved_step >= options->save_steps));
}

/* Keep the job's state. Of the stages that begin again in any case, and of texts, whose pieces are told once, nothing
 * is kept. */
static void save(const struct runner *runner, struct run *run)
{
    if (run->pace.stage != STAGE_DENOISE && run->pace.stage != STAGE_DECODE)
        return;
    if (runner->kernels->lost && run->lance) /* what was kept before stays */
        return;
    struct error error;
    if (!run->lance || lance_job_save(run->lance, &run->state, &run->state_bytes, &error) == 0) {
        runner->attempts->save(runner->attempts->context, job_number(run->job), run->done_steps, run->state,
                               run->state_bytes);
        run->state = NULL;
    } else
        log_warning(run->id, "its state cannot be kept: %s", error.text);
    run->saved_at = clock_seconds();
    run->saved_step = run->done_steps;
}

/* Leave an open job to the next daemon, between two steps. */
static void lay_aside(struct runner *runner, struct run *run)
{
    jobs_on_cancel(runner->jobs, run->job, NULL, NULL);
    save(runner, run);
    if (run->is_counted)
        runner->attempts->pause(runner->attempts->context, job_number(run->job));
    log_info(run->id, "laid aside after %.2f s; the next lanced with this state folder goes on with it",
             clock_seconds() - run->started_at);
    stop(runner, run);
    forget(runner, run);
}

/* Do one step of a job. As lance_job_step. */
static int step(struct runner *runner, struct run *run, struct error *error)
{
    struct lance_progress progress = {0};
    double before = clock_seconds();
    int status = lance_job_step(run->lance, &progress, error);
    const double seconds = clock_seconds() - before;
    count_step(runner, seconds);
    residency_note(runner->residency, run->model);
    log_notice(runner, run);
    if (status >= 0 && residency_check_lost(runner->residency, run->model, error) != 0)
        status = error->code;
    if (status == LANCE_STEP_DONE)
        jobs_note_over(runner->jobs, run->job);
    if (status >= 0) {
        jobs_note_step(runner->jobs, run->job, lance_stage_name(progress.stage), seconds);
        post_step(runner, run, &progress);
    }
    run->done_steps = progress.total_step;
    if (status == LANCE_STEP_MORE && is_save_due(runner, run))
        save(runner, run);
    return status;
}

/* End an open job that is to be no more, or leave it to the next daemon; false: there is none. */
static bool end_unwanted(struct runner *runner)
{
    const bool is_stopping = atomic_load(&runner->is_stopping);
    for (struct run *run = runner->open; run; run = run->next) {
        const bool is_cancelled = jobs_cancel_wanted(runner->jobs, run->job);
        struct error error;
        if (is_stopping && runner->attempts && !is_cancelled) {
            lay_aside(runner, run);
            return true;
        }
        if (is_stopping || is_cancelled) {
            error_set(&error, ERROR_CANCELLED, "job %s: was cancelled", run->id);
            end(runner, run, ERROR_CANCELLED, &error);
            return true;
        }
    }
    return false;
}

static void take_turn(struct runner *runner, struct run *run)
{
    if (run != runner->latest)
        run->paused_seconds += clock_seconds() - run->last_turn_at;
    give_turn(runner, run);
    count_again(runner, run);
}

/* The open job whose turn it is; NULL: it was begun just now, or has ended, or there is none. One that was suspended is
 * left alone until it is where it was: else it might never get further. */
static struct run *next_run(struct runner *runner, double until)
{
    struct error error = {0};
    struct run *run = runner->open;
    while (run && (!run->is_behind || !run->lance))
        run = run->next;
    if (run) {
        take_turn(runner, run);
        return run;
    }
    struct job *job = jobs_take(runner->jobs, until);
    if (!job)
        return NULL;
    run = find(runner, job);
    if (!run) {
        begin(runner, job);
        return NULL;
    }
    take_turn(runner, run); /* before its model is loaded: an end of the daemon there is its own */
    struct run *in_the_way = NULL;
    int code = !run->lance ? open_job(runner, run, &in_the_way, &error) : 0;
    if (in_the_way) {
        take_turn(runner, in_the_way);
        return in_the_way;
    }
    if (code == 0 && !run->kept)
        return run;
    if (code != 0 && run->is_suspended)
        error_prefix(&error, "was suspended for others, and cannot go on");
    end(runner, run, code, &error);
    return NULL;
}

void runner_turn(struct runner *runner, double until)
{
    struct error error = {0};
    if (end_unwanted(runner))
        return;
    struct run *run = next_run(runner, until);
    if (!run)
        return;
    int code = step(runner, run, &error);
    run->last_turn_at = clock_seconds();
    if (code != LANCE_STEP_MORE)
        end(runner, run, code, &error);
}

bool runner_has_open(const struct runner *runner)
{
    return runner->open != NULL;
}

void runner_stop(struct runner *runner)
{
    atomic_store(&runner->is_stopping, true);
}

void runner_counts(struct runner *runner, struct runner_counts *out)
{
    pthread_mutex_lock(&runner->lock);
    *out = runner->counts;
    pthread_mutex_unlock(&runner->lock);
}
