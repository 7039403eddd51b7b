/* table.c: see jobs.h.
 *
 * One mutex, and the jobs in one list in the order of their submission, of which queue.h and results.h say who is next
 * and who is to be forgotten.
 */
#include "daemon/jobs/jobs.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "daemon/jobs/job.h"
#include "daemon/jobs/measures.h"
#include "daemon/jobs/queue.h"
#include "daemon/jobs/results.h"
#include "daemon/jobs/schedule.h"
#include "daemon/log.h"

struct jobs {
    struct jobs_limits limits;
    const struct job_observer *observer; /* NULL: none */
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t work;  /* a job was queued, or a poke */
    struct job *first;
    struct schedule schedule;
    struct job_models in_memory;
    bool is_held_back;
    double model_stays_until, model_idle_seconds;
    double device_used_at;
    struct job *current; /* that has the device, or had it last; NULL: it has ended */
    bool poked;
    bool shut;
    double shut_at;
    uint64_t last_number; /* given to a job */
    uint64_t submitted, done, failed, cancelled, refused, expired;
    struct measures measures;
};

enum { REFUSED_SECONDS = 10 }; /* that a job which could not be written down is known to those who submitted it */

int jobs_open(struct jobs **out, const struct jobs_limits *limits, struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return error_set(error, ERROR_NO_MEMORY, "jobs: out of memory");
    (*out)->limits = *limits;
    pthread_mutex_init(&(*out)->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&(*out)->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return 0;
}

void jobs_close(struct jobs *jobs)
{
    if (!jobs)
        return;
    while (jobs->first) {
        struct job *job = jobs->first;
        jobs->first = job->next;
        job_close(job);
    }
    pthread_cond_destroy(&jobs->work);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs);
}

void jobs_observe(struct jobs *jobs, const struct job_observer *observer)
{
    jobs->observer = observer;
}

/* --- Everything up to the next line of dashes is called with the lock held. ---------------- */

static struct job *find(struct jobs *jobs, const char *id)
{
    for (struct job *job = jobs->first; job; job = job->next)
        if (strcmp(job->id, id) == 0)
            return job;
    return NULL;
}

/* As a client sees it: a released job does not exist. */
static struct job *find_for_client(struct jobs *jobs, const char *id, struct error *error)
{
    struct job *job = find(jobs, id);
    if (job && !job->released && !job->is_refused)
        return job;
    jobs_not_known(id, error);
    return NULL;
}

static void forget(struct jobs *jobs, struct job *job)
{
    struct job **link = &jobs->first;
    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    if (jobs->current == job)
        jobs->current = NULL;
    job_forget(job);
}

/* A job's place is by its number: at the end, but for one that ended before (jobs_recall). */
static void insert(struct jobs *jobs, struct job *job)
{
    struct job **link = &jobs->first;
    while (*link && (*link)->number < job->number)
        link = &(*link)->next;
    job->next = *link;
    *link = job;
}

/* Forget ended jobs that are too old, or too many, and those that never came to be. */
static void sweep(struct jobs *jobs)
{
    const char *why;
    const double before = clock_seconds() - REFUSED_SECONDS;
    for (struct job *job = jobs->first, *next; job; job = next) {
        next = job->next;
        if (job->is_refused && job_has_ended(job) && job->kept_since < before)
            forget(jobs, job);
    }
    for (struct job *job; (job = results_overdue(jobs->first, &jobs->limits, &why)); forget(jobs, job)) {
        jobs->expired++;
        log_debug(job->id, "forgotten: %s", why);
    }
}

/* What follows from an end that is told now. The job may be gone afterwards. */
static void note_end(struct jobs *jobs, struct job *job)
{
    jobs->done += job->state == JOB_DONE;
    jobs->cancelled += job->state == JOB_CANCELLED;
    jobs->failed += job->state == JOB_FAILED;
    if (job->started_at > 0)
        measures_note(&jobs->measures, MEASURE_JOB, job->task, job->ended_at - job->started_at);
    if (job->released)
        forget(jobs, job);
    queue_tell_positions(&jobs->schedule, jobs->first);
    sweep(jobs);
}

/* Give an active job its end. The job may be gone afterwards. */
static void end(struct jobs *jobs, struct job *job, struct blob *result, const struct error *failure)
{
    job_end(job, result, failure);
    if (job_has_ended(job) && !job->is_refused)
        note_end(jobs, job);
    else
        queue_tell_positions(&jobs->schedule, jobs->first);
}

static void cancel(struct jobs *jobs, struct job *job)
{
    if (job_has_ended(job) || job->is_ending || job->cancel_wanted)
        return;
    job_want_cancel(job);
    if (job->state == JOB_QUEUED) {
        struct error failure;
        error_set(&failure, ERROR_CANCELLED, "job %s: was cancelled", job->id);
        log_info(job->id, "cancelled before it started");
        end(jobs, job, NULL, &failure);
    }
}

/* --- For clients ------------------------------------------------------------------- */

bool jobs_find(struct jobs *jobs, const char *id, struct job_status *status)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_for_client(jobs, id, NULL);
    if (job)
        *status = (struct job_status){job->state, job->events.position};
    pthread_mutex_unlock(&jobs->lock);
    return job != NULL;
}

int jobs_not_known(const char *id, struct error *error)
{
    return error_set(error, ERROR_NOT_FOUND,
                     "job %.64s: is not known; it was never submitted here, was released, or has expired", id);
}

bool jobs_owner(struct jobs *jobs, const char *id, char owner[JOB_OWNER_MAX_BYTES + 1])
{
    pthread_mutex_lock(&jobs->lock);
    const struct job *job = find(jobs, id);
    if (job)
        memcpy(owner, job->owner, sizeof job->owner);
    pthread_mutex_unlock(&jobs->lock);
    return job != NULL;
}

/* A repetition must ask for what the job of that id was submitted with. */
static int repeat(struct job *job, const struct job_order *order, struct job_status *status, struct error *error)
{
    if (strcmp(job->digest, order->digest) != 0)
        return error_set(error, ERROR_BAD_REQUEST,
                         "job %s: is known with another request; a repetition must be the same request, and "
                         "another request needs an id of its own",
                         job->id);
    job_note_asked(job);
    *status = (struct job_status){job->state, job->events.position};
    return 0;
}

/* Whether a job's acceptance lasts; else its submitter waits, if there is time. */
static int settle_or_park(struct job *job, struct waiter *waiter, bool *parked, struct error *error)
{
    if (!job->is_pending)
        return 0;
    if (!waiter)
        return error_set(error, ERROR_BUSY, "job %s: is being written down, which takes its time; submit it again",
                         job->id);
    *parked = true;
    waiter_park(&job->waiters, waiter);
    return 0;
}

/* Tell the end of a job that was answered when it was submitted; it may be gone afterwards. */
static void end_answered(struct jobs *jobs, struct job *job)
{
    job_tell_end(job);
    note_end(jobs, job);
}

/* Sets *taken when the table has the order's request and answer. *out: the job, or NULL where there is nothing to wait
 * for. */
static int submit(struct jobs *jobs, const char *id, const struct job_order *order, struct job **out, bool *taken,
                  struct job_status *status, struct error *error)
{
    struct job *job = find(jobs, id);
    if (job && job->is_refused && job_has_ended(job)) {
        forget(jobs, job); /* another try */
        job = NULL;
    }
    *out = job;
    if (job && (job->released || job->is_refused))
        return error_set(error, ERROR_BUSY,
                         "job %s: its former run is still being stopped; use another id or try again", id);
    if (job)
        return repeat(job, order, status, error);
    if (!order->is_complete)
        return error_set(error, ERROR_NOT_FOUND, "job %s: was forgotten a moment ago; submit it again", id);
    if (jobs->shut)
        return error_set(error, ERROR_BUSY, "job %s: lanced is shutting down and takes no more jobs", id);
    int room = order->answer
                   ? results_check_room(jobs->first, &jobs->limits, id, order->answer->bytes, error)
                   : queue_check_room(jobs->first, &jobs->limits, id, order->bytes, error);
    if (room != 0)
        return room;
    job = job_open(id, jobs->last_number + 1, order, jobs->observer);
    if (!job)
        return error_set(error, ERROR_NO_MEMORY, "job %s: out of memory", id);
    *taken = true;
    if (order->answer)
        job_answer(job, order);
    if (job->is_refused) {
        *error = job->failure;
        job_close(job);
        return error->code;
    }
    *out = job;
    insert(jobs, job);
    jobs->last_number++;
    jobs->submitted += !job->is_pending; /* else it is counted when that is settled */
    queue_tell_positions(&jobs->schedule, jobs->first);
    *status = (struct job_status){job->state, job->events.position};
    if (job->is_answered && !job->is_pending) {
        status->state = JOB_DONE;
        *out = NULL;
        end_answered(jobs, job);
    }
    pthread_cond_signal(&jobs->work);
    return 0;
}

int jobs_submit(struct jobs *jobs, const char *id, const struct job_order *order, struct waiter *waiter, bool *parked,
                struct job_status *status, struct error *error)
{
    bool taken = false;
    struct job *job = NULL;
    *parked = false;
    pthread_mutex_lock(&jobs->lock);
    int result = submit(jobs, id, order, &job, &taken, status, error);
    if (result == 0 && job)
        result = settle_or_park(job, waiter, parked, error);
    if (result != 0)
        jobs->refused++;
    pthread_mutex_unlock(&jobs->lock);
    if (!taken) {
        order->close(order->request);
        blob_close(order->answer);
    }
    return result;
}

int jobs_submitted(struct jobs *jobs, const char *id, struct waiter *waiter, bool *parked, struct job_status *status,
                   struct error *error)
{
    int result = 0;
    *parked = false;
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find(jobs, id);
    if (!job || job->released)
        result = error_set(error, ERROR_NOT_FOUND, "job %s: was released before it was accepted", id);
    else if (job->is_refused) {
        *error = job->failure;
        result = job->failure.code;
    } else {
        *status = (struct job_status){job->state, job->events.position};
        result = settle_or_park(job, waiter, parked, error);
    }
    pthread_mutex_unlock(&jobs->lock);
    return result;
}

int jobs_news(struct jobs *jobs, const char *id, uint64_t after, struct waiter *waiter, bool *parked,
              struct job_news *news, struct error *error)
{
    memset(news, 0, sizeof *news);
    *parked = false;
    int code = 0;
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_for_client(jobs, id, error);
    if (job)
        job_note_asked(job);
    if (!job)
        code = ERROR_NOT_FOUND;
    else if (waiter && after >= events_count(&job->events) && !job_has_ended(job)) {
        *parked = true;
        waiter_park(&job->waiters, waiter);
    } else
        code = job_copy_news(job, after, news, error);
    pthread_mutex_unlock(&jobs->lock);
    return code;
}

void jobs_unpark(struct jobs *jobs, struct waiter *waiter)
{
    pthread_mutex_lock(&jobs->lock);
    waiter_leave(waiter);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_client_gone(struct jobs *jobs, uint32_t client)
{
    pthread_mutex_lock(&jobs->lock);
    for (struct job *job = jobs->first; job; job = job->next)
        waiter_wake_client(&job->waiters, client);
    pthread_mutex_unlock(&jobs->lock);
}

int jobs_result(struct jobs *jobs, const char *id, struct blob **out, struct error *error)
{
    *out = NULL;
    int status = 0;
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_for_client(jobs, id, error);
    if (!job)
        status = ERROR_NOT_FOUND;
    else if (!job_has_ended(job))
        status = error_set(error, ERROR_BUSY, "job %s: is still %s; wait for its end", id, job_state_name(job->state));
    else if (!job->result) {
        *error = job->failure;
        status = job->failure.code;
    } else {
        *out = blob_share(job->result);
    }
    pthread_mutex_unlock(&jobs->lock);
    return status;
}

void jobs_count_fetched(struct jobs *jobs, const char *id, uint64_t bytes, uint64_t all)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find(jobs, id);
    if (job)
        job_note_fetched(job, bytes, all);
    pthread_mutex_unlock(&jobs->lock);
}

static bool is_of(const struct job *job, const char *owner)
{
    return !owner || strcmp(job->owner, owner) == 0;
}

int jobs_cancel(struct jobs *jobs, const char *id, const char *owner, enum job_state *state, struct error *error)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_for_client(jobs, id, error);
    if (job && !is_of(job, owner)) {
        jobs_not_known(id, error);
        job = NULL;
    }
    if (job) {
        /* Ending a queued job may sweep it away. */
        *state = job->state == JOB_QUEUED ? JOB_CANCELLED : job->state;
        cancel(jobs, job);
    }
    pthread_mutex_unlock(&jobs->lock);
    return job ? 0 : ERROR_NOT_FOUND;
}

void jobs_release(struct jobs *jobs, const char *id, const char *owner)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find(jobs, id);
    if (job && !is_of(job, owner))
        job = NULL;
    if (job)
        job_release(job);
    if (job && job_has_ended(job))
        forget(jobs, job);
    else if (job)
        cancel(jobs, job);
    pthread_mutex_unlock(&jobs->lock);
}

/* --- For the worker ------------------------------------------------------------------ */

/* With the lock held. */
static void give_turn(struct jobs *jobs, struct job *job)
{
    struct job *before = jobs->current;
    if (before && before != job && before->state == JOB_RUNNING && !before->is_ending)
        job_pause(before);
    jobs->current = job;
    if (job->state == JOB_RUNNING) {
        job_go_on(job);
        return;
    }
    schedule_begin(&jobs->schedule, job);
    job_start(job);
    measures_note(&jobs->measures, MEASURE_QUEUE, job->task, job_queue_seconds(job));
}

/* The job whose turn it is; NULL: none, or not before *until, which may be earlier then. With the lock held. */
static struct job *next(struct jobs *jobs, double *until)
{
    const double now = clock_seconds(), patience = jobs->device_used_at + jobs->model_idle_seconds;
    const bool stays = now < jobs->model_stays_until;
    const struct queue_heads heads = queue_next(&jobs->schedule, jobs->first, &jobs->in_memory, jobs->is_held_back);
    if (!heads.any || !stays || heads.any->priority == JOB_INTERACTIVE) /* a question waits for no window */
        return heads.any;
    if (heads.at_hand)
        return heads.at_hand;
    if (now >= patience)
        return heads.any;
    *until = *until > 0 && *until < patience ? *until : patience;
    return NULL;
}

struct job *jobs_take(struct jobs *jobs, double until)
{
    struct job *job = NULL;
    pthread_mutex_lock(&jobs->lock);
    while (!jobs->poked) {
        double wake = until;
        job = next(jobs, &wake);
        if (job || (until > 0 && clock_seconds() >= until))
            break;
        const struct timespec deadline = {(time_t)wake, (long)((wake - floor(wake)) * 1e9)};
        if (wake > 0)
            pthread_cond_timedwait(&jobs->work, &jobs->lock, &deadline);
        else
            pthread_cond_wait(&jobs->work, &jobs->lock);
    }
    jobs->poked = false;
    if (job)
        give_turn(jobs, job);
    pthread_mutex_unlock(&jobs->lock);
    return job;
}

void jobs_poke(struct jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->poked = true;
    pthread_cond_signal(&jobs->work);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_note_model(struct jobs *jobs, struct job *job, const char *name, double load_seconds)
{
    pthread_mutex_lock(&jobs->lock);
    job_note_model(job, name);
    if (load_seconds >= 0) {
        jobs->device_used_at = clock_seconds();
        jobs->model_stays_until = jobs->device_used_at + JOBS_MODEL_STAYS * load_seconds;
        jobs->model_idle_seconds = fmin(load_seconds, JOBS_MODEL_IDLE_SECONDS);
    }
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_note_in_memory(struct jobs *jobs, const char *const *names, int count)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->in_memory.count = count < JOBS_MOST_MODELS ? count : JOBS_MOST_MODELS;
    for (int i = 0; i < jobs->in_memory.count; i++)
        snprintf(jobs->in_memory.names[i], sizeof jobs->in_memory.names[i], "%s", names[i]);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_hold_back(struct jobs *jobs, bool is_held_back)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->is_held_back = is_held_back;
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_note_step(struct jobs *jobs, struct job *job, const char *stage, double seconds)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->device_used_at = clock_seconds();
    measures_note(&jobs->measures, MEASURE_STEP, stage, seconds);
    queue_note(&jobs->schedule, jobs->first, job, seconds);
    if (queue_overstays(jobs->first, job, seconds)) {
        log_info(job->id, "is interactive no more: it has had the device for long, and others wait");
        queue_tell_positions(&jobs->schedule, jobs->first);
    }
    pthread_mutex_unlock(&jobs->lock);
}

/* What these four read does not change while the worker has the job. */
const char *job_id(const struct job *job)
{
    return job->id;
}

uint64_t job_number(const struct job *job)
{
    return job->number;
}

const void *job_request(const struct job *job)
{
    return job->request;
}

double job_queue_seconds(const struct job *job)
{
    return job->started_at - job->submitted_at;
}

bool jobs_cancel_wanted(struct jobs *jobs, const struct job *job)
{
    pthread_mutex_lock(&jobs->lock);
    bool wanted = job->cancel_wanted;
    pthread_mutex_unlock(&jobs->lock);
    return wanted;
}

void jobs_on_cancel(struct jobs *jobs, struct job *job, void (*on_cancel)(void *context), void *context)
{
    pthread_mutex_lock(&jobs->lock);
    job_on_cancel(job, on_cancel, context);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_note_over(struct jobs *jobs, struct job *job)
{
    pthread_mutex_lock(&jobs->lock);
    job_note_over(job);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_post(struct jobs *jobs, struct job *job, enum job_event event, cJSON *fields)
{
    pthread_mutex_lock(&jobs->lock);
    job_tell(job, event, fields, NULL);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_post_preview(struct jobs *jobs, struct job *job, const struct job_preview *preview)
{
    pthread_mutex_lock(&jobs->lock);
    job_tell(job, EVENT_PREVIEW, json_object(), preview);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_end(struct jobs *jobs, struct job *job, struct blob *result, const struct error *failure)
{
    pthread_mutex_lock(&jobs->lock);
    end(jobs, job, result, failure);
    pthread_mutex_unlock(&jobs->lock);
}

/* --- For who keeps a journal ----------------------------------------------------------- */

void jobs_number_from(struct jobs *jobs, uint64_t last)
{
    jobs->last_number = last;
}

int jobs_restore(struct jobs *jobs, const char *id, const struct job_order *order, struct error *error)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = job_open(id, order->number, order, jobs->observer);
    if (job) {
        insert(jobs, job);
        queue_tell_positions(&jobs->schedule, jobs->first);
        pthread_cond_signal(&jobs->work);
    }
    pthread_mutex_unlock(&jobs->lock);
    if (job)
        return 0;
    order->close(order->request);
    return error_set(error, ERROR_NO_MEMORY, "job %s: out of memory", id);
}

int jobs_recall(struct jobs *jobs, const char *id, const struct job_order *order, struct blob *result,
                const struct error *failure, struct error *error)
{
    int code = 0;
    pthread_mutex_lock(&jobs->lock);
    struct job *job = !find(jobs, id) ? job_open(id, order->number, order, jobs->observer) : NULL;
    if (job) {
        insert(jobs, job);
        job_recall(job, result, failure);
        sweep(jobs);
    } else {
        blob_close(result);
        if (!find(jobs, id))
            code = error_set(error, ERROR_NO_MEMORY, "job %s: out of memory", id);
    }
    pthread_mutex_unlock(&jobs->lock);
    return code;
}

/* With the lock held. */
static struct job *find_number(struct jobs *jobs, uint64_t number)
{
    for (struct job *job = jobs->first; job; job = job->next)
        if (job->number == number)
            return job;
    return NULL;
}

void jobs_settle_written(struct jobs *jobs, uint64_t number)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_number(jobs, number);
    if (job && job->is_pending) {
        job_note_written(job);
        pthread_cond_signal(&jobs->work);
    }
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_settle_accepted(struct jobs *jobs, uint64_t number, const struct error *failure)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_number(jobs, number);
    if (job && job->is_pending) {
        jobs->submitted += failure->code == 0;
        jobs->refused += failure->code != 0;
        job_settle(job, failure);
        queue_tell_positions(&jobs->schedule, jobs->first);
        pthread_cond_signal(&jobs->work);
        if (job->is_answered && !job->is_refused)
            note_end(jobs, job);
    }
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_settle_ended(struct jobs *jobs, uint64_t number)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_number(jobs, number);
    if (job && job->is_ending) {
        job_tell_end(job);
        note_end(jobs, job);
    }
    pthread_mutex_unlock(&jobs->lock);
}

/* --- For the daemon ------------------------------------------------------------------ */

void jobs_shut(struct jobs *jobs, bool cancel_all)
{
    pthread_mutex_lock(&jobs->lock);
    if (!jobs->shut) {
        jobs->shut = true;
        jobs->shut_at = clock_seconds();
    }
    struct job *job = jobs->first;
    while (cancel_all && job) {
        if (job_has_ended(job) || job->is_ending || job->cancel_wanted) {
            job = job->next;
        } else {
            cancel(jobs, job); /* may rearrange the list */
            job = jobs->first;
        }
    }
    pthread_mutex_unlock(&jobs->lock);
}

bool jobs_is_shut(struct jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    bool shut = jobs->shut;
    pthread_mutex_unlock(&jobs->lock);
    return shut;
}

int jobs_active(struct jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    int count = queue_active(jobs->first);
    pthread_mutex_unlock(&jobs->lock);
    return count;
}

bool jobs_is_running(struct jobs *jobs)
{
    bool is_running = false;
    pthread_mutex_lock(&jobs->lock);
    for (struct job *job = jobs->first; job; job = job->next)
        is_running |= job->state == JOB_RUNNING;
    pthread_mutex_unlock(&jobs->lock);
    return is_running;
}

int jobs_unfetched(struct jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    int count = jobs->shut ? results_unfetched(jobs->first, jobs->shut_at) : 0;
    pthread_mutex_unlock(&jobs->lock);
    return count;
}

/* Cancel the jobs that nobody waits for, if that is wanted. */
static void cancel_orphans(struct jobs *jobs)
{
    const double before = clock_seconds() - jobs->limits.orphan_seconds;
    struct job *job = jobs->limits.orphan_seconds > 0 ? jobs->first : NULL;
    while (job) {
        if (job_has_ended(job) || job->is_ending || job->cancel_wanted || job->waiters ||
            job->asked_at > before) {
            job = job->next;
            continue;
        }
        log_warning(job->id, "nobody has asked about it for %.0f seconds (--orphans): cancelled",
                    jobs->limits.orphan_seconds);
        cancel(jobs, job); /* may rearrange the list */
        job = jobs->first;
    }
}

void jobs_sweep(struct jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    cancel_orphans(jobs);
    sweep(jobs);
    pthread_mutex_unlock(&jobs->lock);
}

cJSON *jobs_stats(struct jobs *jobs, uint64_t *queue_bytes, uint64_t *result_bytes)
{
    cJSON *stats = json_object();
    pthread_mutex_lock(&jobs->lock);
    *result_bytes = results_bytes(jobs->first);
    *queue_bytes = queue_held_bytes(jobs->first);
    const int waiting = queue_length(jobs->first), running = queue_active(jobs->first) - waiting;
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"submitted", jobs->submitted}, {"queued", (uint64_t)waiting},
        {"running", (uint64_t)running}, {"done", jobs->done},
        {"failed", jobs->failed}, {"cancelled", jobs->cancelled},
        {"refused", jobs->refused}, {"expired", jobs->expired},
    };
    pthread_mutex_unlock(&jobs->lock);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        json_add_number(stats, counts[i].name, (double)counts[i].value);
    return stats;
}

cJSON *jobs_measured(struct jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    const struct measures measures = jobs->measures;
    pthread_mutex_unlock(&jobs->lock);
    return measures_json(&measures);
}

cJSON *jobs_list(struct jobs *jobs, uint64_t after, const char *owner, bool *more)
{
    cJSON *list = json_array();
    int count = 0;
    *more = false;
    pthread_mutex_lock(&jobs->lock);
    const double now = clock_seconds();
    for (const struct job *job = jobs->first; job; job = job->next) {
        if (job->released || job->is_refused || job->number <= after ||
            (owner && strcmp(job->owner, owner) != 0))
            continue;
        *more = count == JOBS_LIST_MOST;
        if (*more)
            break;
        count++;
        cJSON *entry = json_object();
        json_add_text(entry, "job", job->id);
        json_add_number(entry, "number", (double)job->number);
        json_add_text(entry, "task", job->task);
        json_add_text(entry, "state", job_state_name(job->state));
        json_add_bool(entry, "paused", job->is_paused && job->state == JOB_RUNNING);
        json_add_number(entry, "age_seconds", now - job->submitted_at);
        json_add_number(entry, "asked_seconds", job->waiters ? 0 : now - job->asked_at);
        json_add_text(entry, "owner", job->owner[0] != '\0' ? job->owner : NULL);
        json_add_text(entry, "client", job->client[0] != '\0' ? job->client : NULL);
        json_add_text(entry, "priority", job_class_names[job->priority]);
        json_add_text(entry, "prompt", job->prompt);
        json_append(list, entry);
    }
    pthread_mutex_unlock(&jobs->lock);
    return list;
}

void jobs_count_refused(struct jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->refused++;
    pthread_mutex_unlock(&jobs->lock);
}
