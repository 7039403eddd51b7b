/* jobs.c: see jobs.h.
 *
 * Jobs are in one list in the order of their submission: few enough (queue + kept results)
 * that walking it costs nothing beside a request's JSON. The first job in state JOB_QUEUED
 * is the next one.
 */
#include "daemon/jobs/jobs.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/sha256.h"
#include "daemon/log.h"
#include "protocol/message.h"

enum { TASK_MAX_BYTES = 30, CLIENT_MAX_BYTES = 80, PROMPT_SHOWN_BYTES = 120 };
enum { EVENT_COST_BYTES = 1024 }; /* what an event's JSON takes, roughly; for the limit on kept results */

struct event {
    cJSON *fields; /* "sequence" and "event" included */
    struct blob *preview;
    int frames, height, width;
};

struct job {
    char id[JOB_ID_MAX_BYTES + 1];
    enum job_state state;
    void *request; /* of its order, until it ends, with what closes it, */
    void (*close_request)(void *request);
    uint64_t request_bytes; /* and what it takes */
    char digest[SHA256_HEX_BYTES];
    bool cancel_wanted;
    void (*on_cancel)(void *context);
    void *on_cancel_context;
    bool released; /* to be forgotten when the worker lets go of it; clients see it no more */
    uint64_t fetched_bytes; /* of its result, that clients have been given; */
    bool fetched;           /* all of it */
    bool text_lost;      /* a piece of its answer had no memory: it fails at its end */
    bool has_last_event; /* among `events`; else there was no memory for it */
    int first_position, position; /* while it is queued, from the first to the present one; -1: none yet */
    struct event *events; /* all but those that tell a position: they are made when somebody asks, see queued_events */
    size_t event_count, event_capacity;
    struct blob *result;
    struct error failure;
    double submitted_at, started_at, ended_at;
    double kept_since; /* its end, or when a client was last given a piece of its result */
    double asked_at; /* when a client last showed that it wants the job */
    char task[TASK_MAX_BYTES + 1];
    char client[CLIENT_MAX_BYTES + 1]; /* its name, by its own word; "": not said */
    char prompt[PROMPT_SHOWN_BYTES + 1]; /* the beginning */
    uint64_t number; /* among all that were ever submitted, from 1 on */
    struct waiter *waiters;
    struct job *next;
};

struct jobs {
    struct jobs_limits limits;
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t work;  /* a job was queued, or a poke */
    struct job *first;
    bool poked;
    bool shut;
    double shut_at;
    uint64_t submitted, done, failed, cancelled, refused, expired;
};

const char *job_state_name(enum job_state state)
{
    static const char *const names[] = {"queued", "running", "done", "failed", "cancelled"};
    return names[state];
}

static bool has_ended(const struct job *job)
{
    return job->state >= JOB_DONE;
}

int jobs_open(struct jobs **out, const struct jobs_limits *limits, struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL)
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

static void close_request(struct job *job)
{
    if (job->request != NULL)
        job->close_request(job->request);
    job->request = NULL;
    job->request_bytes = 0;
}

static void job_free(struct job *job)
{
    for (size_t i = 0; i < job->event_count; i++) {
        cJSON_Delete(job->events[i].fields);
        blob_close(job->events[i].preview);
    }
    free(job->events);
    close_request(job);
    blob_close(job->result);
    free(job);
}

void jobs_close(struct jobs *jobs)
{
    if (jobs == NULL)
        return;
    while (jobs->first != NULL) {
        struct job *job = jobs->first;
        jobs->first = job->next;
        job_free(job);
    }
    pthread_cond_destroy(&jobs->work);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs);
}

/* --- Everything up to the next line of dashes is called with the lock held. ---------------- */

static struct job *find(struct jobs *jobs, const char *id)
{
    for (struct job *job = jobs->first; job != NULL; job = job->next)
        if (strcmp(job->id, id) == 0)
            return job;
    return NULL;
}

/* As a client sees it: a released job does not exist. */
static struct job *find_for_client(struct jobs *jobs, const char *id, struct error *error)
{
    struct job *job = find(jobs, id);
    if (job != NULL && !job->released)
        return job;
    error_set(error, ERROR_NOT_FOUND, "job %.64s: is not known; it was never submitted here, was released, or has expired",
              id);
    return NULL;
}

static void forget(struct jobs *jobs, struct job *job)
{
    struct job **link = &jobs->first;
    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    waiter_wake_all(&job->waiters);
    job_free(job);
}

static uint64_t kept_bytes(const struct job *job)
{
    uint64_t bytes = job->event_count * EVENT_COST_BYTES + (job->result != NULL ? job->result->bytes : 0);
    for (size_t i = 0; i < job->event_count; i++)
        if (job->events[i].preview != NULL)
            bytes += job->events[i].preview->bytes;
    return bytes;
}

/* A job's first events tell its positions, each one less than the one before: they need not be kept, however long the queue is. */
static uint64_t queued_events(const struct job *job)
{
    return job->position < 0 ? 0 : (uint64_t)(job->first_position - job->position) + 1;
}

static uint64_t events_so_far(const struct job *job)
{
    return queued_events(job) + job->event_count;
}

/* Owns `fields`. NULL: out of memory. */
static cJSON *make_event(uint64_t sequence, const char *name, cJSON *fields)
{
    cJSON *event = json_object();
    /* Sequence and name first, for whoever reads a captured message. */
    json_add_number(event, "sequence", (double)sequence);
    json_add_text(event, "event", name);
    bool is_made = event != NULL && json_is_complete(fields);
    for (cJSON *field; is_made && (field = fields->child) != NULL;)
        json_add(event, field->string, cJSON_DetachItemViaPointer(fields, field));
    cJSON_Delete(fields);
    if (is_made && json_is_complete(event))
        return event;
    cJSON_Delete(event);
    return NULL;
}

static bool reserve_event(struct job *job)
{
    if (job->event_count < job->event_capacity)
        return true;
    size_t capacity = job->event_capacity != 0 ? 2 * job->event_capacity : 16;
    struct event *events = realloc(job->events, capacity * sizeof *events);
    if (events == NULL)
        return false;
    job->events = events;
    job->event_capacity = capacity;
    return true;
}

/* Append an event and wake who waits for it. Owns `fields` and `preview`. Out of memory: there is one event less; what
 * tells of progress may be missing, a piece of the answer may not. */
static void post(struct job *job, const char *name, cJSON *fields, struct blob *preview, int frames, int height,
                 int width)
{
    cJSON *event = make_event(events_so_far(job) + 1, name, fields);
    if (event == NULL || !reserve_event(job)) {
        job->text_lost |= strcmp(name, "text") == 0;
        cJSON_Delete(event);
        blob_close(preview);
        waiter_wake_all(&job->waiters);
        return;
    }
    if (preview != NULL) { /* drop the picture of the oldest one that still has one, if there are enough */
        int kept = 0;
        for (size_t i = job->event_count; i-- > 0;) {
            if (job->events[i].preview == NULL || ++kept < JOBS_KEPT_PREVIEWS)
                continue;
            blob_close(job->events[i].preview);
            job->events[i].preview = NULL;
        }
    }
    job->events[job->event_count++] = (struct event){event, preview, frames, height, width};
    waiter_wake_all(&job->waiters);
}

/* Tell queued jobs where they are now. */
static void refresh_positions(struct jobs *jobs)
{
    int ahead = 0;
    for (struct job *job = jobs->first; job != NULL; job = job->next) {
        if (has_ended(job))
            continue;
        if (job->state == JOB_QUEUED && job->position != ahead) {
            if (job->position < 0)
                job->first_position = ahead;
            job->position = ahead;
            waiter_wake_all(&job->waiters);
        }
        ahead++;
    }
}

/* Forget ended jobs that are too old, or too many. */
static void sweep(struct jobs *jobs)
{
    double now = clock_seconds();
    int kept = 0;
    uint64_t bytes = 0;
    for (struct job *job = jobs->first; job != NULL; job = job->next)
        if (has_ended(job)) {
            kept++;
            bytes += kept_bytes(job);
        }
    for (;;) {
        struct job *oldest = NULL, *newest = NULL;
        for (struct job *job = jobs->first; job != NULL; job = job->next)
            if (has_ended(job)) {
                if (oldest == NULL || job->kept_since < oldest->kept_since)
                    oldest = job;
                if (newest == NULL || job->kept_since >= newest->kept_since)
                    newest = job;
            }
        if (oldest == NULL)
            return;
        bool expired = now - oldest->kept_since >= jobs->limits.result_seconds;
        /* The newest one stays even when it alone is over the limit of bytes: its client must be able to fetch it. */
        bool crowded = oldest != newest && (kept > jobs->limits.results || bytes > jobs->limits.result_bytes);
        if (!expired && !crowded)
            return;
        kept--;
        bytes -= kept_bytes(oldest);
        jobs->expired++;
        log_debug(oldest->id, "forgotten: %s", expired ? "expired" : "newer results need the room");
        forget(jobs, oldest);
    }
}

static cJSON *make_queued_event(const struct job *job, uint64_t sequence)
{
    cJSON *fields = json_object();
    json_add_number(fields, "position", (double)job->first_position - (double)(sequence - 1));
    return make_event(sequence, "queued", fields);
}

/* The last event of a job that has ended, when there is no memory to keep it: made anew for everybody who asks. */
static cJSON *make_last_event(const struct job *job)
{
    cJSON *fields = json_object();
    if (job->state == JOB_FAILED) {
        json_add_text(fields, "code", error_name(job->failure.code));
        json_add_text(fields, "message", job->failure.text);
    }
    return make_event(events_so_far(job) + 1, job_state_name(job->state), fields);
}

static void set_end(struct jobs *jobs, struct job *job, struct blob *result, const struct error *failure)
{
    job->state = result != NULL ? JOB_DONE : failure->code == ERROR_CANCELLED ? JOB_CANCELLED : JOB_FAILED;
    job->result = result;
    if (result == NULL)
        job->failure = *failure;
    jobs->done += job->state == JOB_DONE;
    jobs->cancelled += job->state == JOB_CANCELLED;
    jobs->failed += job->state == JOB_FAILED;
}

/* Give an active job its end. The job may be gone afterwards. */
static void end(struct jobs *jobs, struct job *job, struct blob *result, const struct error *failure)
{
    struct error lost;
    job->ended_at = job->kept_since = clock_seconds();
    close_request(job);
    if (result != NULL && job->text_lost) {
        error_set(&lost, ERROR_NO_MEMORY, "job %s: out of memory for a piece of its answer", job->id);
        blob_close(result);
        result = NULL;
        failure = &lost;
    }
    set_end(jobs, job, result, failure);
    cJSON *event = make_last_event(job);
    job->has_last_event = event != NULL && reserve_event(job);
    if (job->has_last_event)
        job->events[job->event_count++] = (struct event){.fields = event};
    else
        cJSON_Delete(event);
    waiter_wake_all(&job->waiters);
    if (job->released)
        forget(jobs, job);
    refresh_positions(jobs);
    sweep(jobs);
}

static void cancel(struct jobs *jobs, struct job *job)
{
    if (has_ended(job) || job->cancel_wanted)
        return;
    job->cancel_wanted = true;
    if (job->on_cancel != NULL)
        job->on_cancel(job->on_cancel_context);
    if (job->state == JOB_QUEUED) {
        struct error failure;
        error_set(&failure, ERROR_CANCELLED, "job %s: was cancelled", job->id);
        log_info(job->id, "cancelled before it started");
        end(jobs, job, NULL, &failure);
    }
}

static int queue_length(const struct jobs *jobs)
{
    int length = 0;
    for (const struct job *job = jobs->first; job != NULL; job = job->next)
        length += job->state == JOB_QUEUED;
    return length;
}

/* What the requests of jobs that have not ended take. */
static uint64_t requested_bytes(const struct jobs *jobs)
{
    uint64_t bytes = 0;
    for (const struct job *job = jobs->first; job != NULL; job = job->next)
        bytes += job->request_bytes;
    return bytes;
}

/* A request beside no other is always taken: it cannot be larger than a message, and would never be taken otherwise. */
static int check_room(const struct jobs *jobs, const char *id, uint64_t bytes, struct error *error)
{
    if (queue_length(jobs) >= jobs->limits.queue)
        return error_set(error, ERROR_BUSY, "job %s: the queue is full (%d jobs wait); try again later", id,
                         jobs->limits.queue);
    const uint64_t held = requested_bytes(jobs);
    if (held == 0 || (held <= jobs->limits.queue_bytes && bytes <= jobs->limits.queue_bytes - held))
        return 0;
    return error_set(error, ERROR_BUSY,
                     "job %s: its request takes %.1f MB, and those of the jobs before it %.1f MB; together %.1f MB are allowed "
                     "(lanced --queue-bytes); try again later", id, (double)bytes / 1e6, (double)held / 1e6,
                     (double)jobs->limits.queue_bytes / 1e6);
}

static int active(const struct jobs *jobs)
{
    int count = 0;
    for (const struct job *job = jobs->first; job != NULL; job = job->next)
        count += !has_ended(job);
    return count;
}

/* --- For clients ------------------------------------------------------------------- */

bool jobs_find(struct jobs *jobs, const char *id, struct job_status *status)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_for_client(jobs, id, NULL);
    if (job != NULL)
        *status = (struct job_status){job->state, job->position};
    pthread_mutex_unlock(&jobs->lock);
    return job != NULL;
}

/* The beginning of a text, whole characters of UTF-8. NULL is "". */
static void copy_beginning(char *out, size_t most, const char *text)
{
    size_t length = text != NULL ? strnlen(text, most + 1) : 0;
    if (length > most)
        for (length = most; length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80;)
            length--;
    if (length > 0)
        memcpy(out, text, length);
    out[length] = '\0';
}

static struct job *create(const char *id, const struct job_order *order)
{
    struct job *job = calloc(1, sizeof *job);
    if (job == NULL)
        return NULL;
    snprintf(job->id, sizeof job->id, "%s", id);
    snprintf(job->digest, sizeof job->digest, "%s", order->digest);
    snprintf(job->task, sizeof job->task, "%s", order->task);
    copy_beginning(job->client, CLIENT_MAX_BYTES, order->client);
    copy_beginning(job->prompt, PROMPT_SHOWN_BYTES, order->prompt);
    job->submitted_at = job->asked_at = clock_seconds();
    job->request = order->request;
    job->close_request = order->close;
    job->request_bytes = order->bytes;
    job->position = -1;
    return job;
}

/* A repetition must ask for what the job of that id was submitted with. */
static int repeat(struct job *job, const struct job_order *order, struct job_status *status, struct error *error)
{
    if (strcmp(job->digest, order->digest) != 0)
        return error_set(error, ERROR_BAD_REQUEST, "job %s: is known with another request; a repetition must be the same request, and "
                         "another request needs an id of its own", job->id);
    job->asked_at = clock_seconds();
    *status = (struct job_status){job->state, job->position};
    return 0;
}

/* Sets *taken when the table has the order's request. */
static int submit(struct jobs *jobs, const char *id, const struct job_order *order, struct job_status *status, bool *taken,
                  struct error *error)
{
    struct job *job = find(jobs, id);
    if (job != NULL && job->released)
        return error_set(error, ERROR_BUSY, "job %s: its former run is still being stopped; use another id or try again", id);
    if (job != NULL)
        return repeat(job, order, status, error);
    if (!order->is_complete)
        return error_set(error, ERROR_NOT_FOUND, "job %s: was forgotten a moment ago; submit it again", id);
    if (jobs->shut)
        return error_set(error, ERROR_BUSY, "job %s: lanced is shutting down and takes no more jobs", id);
    int room = check_room(jobs, id, order->bytes, error);
    if (room != 0)
        return room;
    job = create(id, order);
    if (job == NULL)
        return error_set(error, ERROR_NO_MEMORY, "job %s: out of memory", id);
    *taken = true;
    struct job **link = &jobs->first;
    while (*link != NULL)
        link = &(*link)->next;
    *link = job;
    refresh_positions(jobs);
    job->number = ++jobs->submitted;
    *status = (struct job_status){job->state, job->position};
    pthread_cond_signal(&jobs->work);
    return 0;
}

int jobs_submit(struct jobs *jobs, const char *id, const struct job_order *order, struct job_status *status,
                struct error *error)
{
    bool taken = false;
    pthread_mutex_lock(&jobs->lock);
    int result = submit(jobs, id, order, status, &taken, error);
    if (result != 0)
        jobs->refused++;
    pthread_mutex_unlock(&jobs->lock);
    if (!taken)
        order->close(order->request);
    return result;
}

void job_news_clear(struct job_news *news)
{
    cJSON_Delete(news->events);
    for (int i = 0; i < news->preview_count; i++)
        blob_close(news->previews[i].rgb);
    memset(news, 0, sizeof *news);
}

static int copy_news(const struct job *job, uint64_t after, struct job_news *news, struct error *error)
{
    const uint64_t queued = queued_events(job), count = events_so_far(job);
    news->events = json_array();
    for (uint64_t i = after; i < count && i - after < JOBS_NEWS_MAX_EVENTS; i++) {
        if (i < queued) {
            json_append(news->events, make_queued_event(job, i + 1));
            continue;
        }
        const struct event *event = &job->events[i - queued];
        json_append(news->events, cJSON_Duplicate(event->fields, true));
        if (event->preview == NULL)
            continue;
        struct job_preview *preview = &news->previews[news->preview_count++];
        snprintf(preview->name, sizeof preview->name, "preview.%llu", (unsigned long long)(i + 1));
        preview->rgb = blob_share(event->preview);
        preview->frames = event->frames;
        preview->height = event->height;
        preview->width = event->width;
    }
    if (has_ended(job) && !job->has_last_event && after <= count && count - after < JOBS_NEWS_MAX_EVENTS)
        json_append(news->events, make_last_event(job));
    if (json_is_complete(news->events))
        return 0;
    job_news_clear(news);
    return error_set(error, ERROR_NO_MEMORY, "job %s: out of memory for its events", job->id);
}

int jobs_news(struct jobs *jobs, const char *id, uint64_t after, struct waiter *waiter, bool *parked,
              struct job_news *news, struct error *error)
{
    memset(news, 0, sizeof *news);
    *parked = false;
    int status = 0;
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_for_client(jobs, id, error);
    if (job != NULL)
        job->asked_at = clock_seconds();
    if (job == NULL)
        status = ERROR_NOT_FOUND;
    else if (waiter != NULL && after >= events_so_far(job) && !has_ended(job)) {
        *parked = true;
        waiter_park(&job->waiters, waiter);
    } else
        status = copy_news(job, after, news, error);
    pthread_mutex_unlock(&jobs->lock);
    return status;
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
    for (struct job *job = jobs->first; job != NULL; job = job->next)
        waiter_wake_client(&job->waiters, client);
    pthread_mutex_unlock(&jobs->lock);
}

int jobs_result(struct jobs *jobs, const char *id, struct blob **out, struct error *error)
{
    *out = NULL;
    int status = 0;
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_for_client(jobs, id, error);
    if (job == NULL)
        status = ERROR_NOT_FOUND;
    else if (!has_ended(job))
        status = error_set(error, ERROR_BUSY, "job %s: is still %s; wait for its end", id, job_state_name(job->state));
    else if (job->result == NULL) {
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
    if (job != NULL) {
        job->fetched_bytes += bytes;
        job->fetched |= job->fetched_bytes >= all;
        if (!job->fetched) /* it is under way */
            job->kept_since = clock_seconds();
    }
    pthread_mutex_unlock(&jobs->lock);
}

int jobs_cancel(struct jobs *jobs, const char *id, enum job_state *state, struct error *error)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find_for_client(jobs, id, error);
    if (job != NULL) {
        /* Ending a queued job may sweep it away. */
        *state = job->state == JOB_QUEUED ? JOB_CANCELLED : job->state;
        cancel(jobs, job);
    }
    pthread_mutex_unlock(&jobs->lock);
    return job != NULL ? 0 : ERROR_NOT_FOUND;
}

void jobs_release(struct jobs *jobs, const char *id)
{
    pthread_mutex_lock(&jobs->lock);
    struct job *job = find(jobs, id);
    if (job != NULL && has_ended(job))
        forget(jobs, job);
    else if (job != NULL) {
        job->released = true;
        waiter_wake_all(&job->waiters);
        cancel(jobs, job);
    }
    pthread_mutex_unlock(&jobs->lock);
}

/* --- For the worker ------------------------------------------------------------------ */

struct job *jobs_take(struct jobs *jobs, double until)
{
    struct job *job = NULL;
    const struct timespec deadline = {(time_t)until, (long)((until - floor(until)) * 1e9)};
    int waited = 0;
    pthread_mutex_lock(&jobs->lock);
    while (!jobs->poked) {
        for (job = jobs->first; job != NULL && job->state != JOB_QUEUED; job = job->next)
            ;
        if (job != NULL || waited == ETIMEDOUT)
            break;
        waited = until > 0 ? pthread_cond_timedwait(&jobs->work, &jobs->lock, &deadline)
                           : pthread_cond_wait(&jobs->work, &jobs->lock);
    }
    jobs->poked = false;
    if (job != NULL) {
        job->state = JOB_RUNNING;
        job->started_at = clock_seconds();
        post(job, "started", json_object(), NULL, 0, 0, 0);
    }
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

/* What these three read does not change while the worker has the job. */
const char *job_id(const struct job *job)
{
    return job->id;
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
    job->on_cancel = on_cancel;
    job->on_cancel_context = context;
    if (job->cancel_wanted && on_cancel != NULL)
        on_cancel(context);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_post(struct jobs *jobs, struct job *job, const char *event, cJSON *fields)
{
    pthread_mutex_lock(&jobs->lock);
    post(job, event, fields, NULL, 0, 0, 0);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_post_preview(struct jobs *jobs, struct job *job, struct blob *rgb, int frames, int height, int width)
{
    pthread_mutex_lock(&jobs->lock);
    post(job, "preview", json_object(), rgb, frames, height, width);
    pthread_mutex_unlock(&jobs->lock);
}

void jobs_end(struct jobs *jobs, struct job *job, struct blob *result, const struct error *failure)
{
    pthread_mutex_lock(&jobs->lock);
    end(jobs, job, result, failure);
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
    while (cancel_all && job != NULL) {
        if (has_ended(job) || job->cancel_wanted) {
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
    int count = active(jobs);
    pthread_mutex_unlock(&jobs->lock);
    return count;
}

bool jobs_is_running(struct jobs *jobs)
{
    bool is_running = false;
    pthread_mutex_lock(&jobs->lock);
    for (struct job *job = jobs->first; job != NULL; job = job->next)
        is_running |= job->state == JOB_RUNNING;
    pthread_mutex_unlock(&jobs->lock);
    return is_running;
}

int jobs_unfetched(struct jobs *jobs)
{
    int count = 0;
    pthread_mutex_lock(&jobs->lock);
    for (struct job *job = jobs->first; job != NULL; job = job->next)
        count += job->state == JOB_DONE && !job->fetched && jobs->shut && job->ended_at >= jobs->shut_at;
    pthread_mutex_unlock(&jobs->lock);
    return count;
}

/* Cancel the jobs that nobody waits for, if that is wanted. */
static void cancel_orphans(struct jobs *jobs)
{
    const double before = clock_seconds() - jobs->limits.orphan_seconds;
    struct job *job = jobs->limits.orphan_seconds > 0 ? jobs->first : NULL;
    while (job != NULL) {
        if (has_ended(job) || job->cancel_wanted || job->waiters != NULL || job->asked_at > before) {
            job = job->next;
            continue;
        }
        log_warning(job->id, "nobody has asked about it for %.0f seconds (--orphans): cancelled", jobs->limits.orphan_seconds);
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
    *result_bytes = 0;
    pthread_mutex_lock(&jobs->lock);
    for (struct job *job = jobs->first; job != NULL; job = job->next)
        if (has_ended(job))
            *result_bytes += kept_bytes(job);
    *queue_bytes = requested_bytes(jobs);
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"submitted", jobs->submitted}, {"queued", (uint64_t)queue_length(jobs)},
        {"running", (uint64_t)(active(jobs) - queue_length(jobs))}, {"done", jobs->done},
        {"failed", jobs->failed}, {"cancelled", jobs->cancelled},
        {"refused", jobs->refused}, {"expired", jobs->expired},
    };
    pthread_mutex_unlock(&jobs->lock);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        json_add_number(stats, counts[i].name, (double)counts[i].value);
    return stats;
}

cJSON *jobs_list(struct jobs *jobs, uint64_t after, bool *more)
{
    cJSON *list = json_array();
    int count = 0;
    *more = false;
    pthread_mutex_lock(&jobs->lock);
    const double now = clock_seconds();
    for (const struct job *job = jobs->first; job != NULL; job = job->next) {
        if (job->released || job->number <= after)
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
        json_add_number(entry, "age_seconds", now - job->submitted_at);
        json_add_number(entry, "asked_seconds", job->waiters != NULL ? 0 : now - job->asked_at);
        json_add_text(entry, "client", job->client[0] != '\0' ? job->client : NULL);
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
