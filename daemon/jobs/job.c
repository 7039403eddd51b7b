/* job.c: see job.h. */
#include "daemon/jobs/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"

const char *job_state_name(enum job_state state)
{
    static const char *const names[] = {"queued", "running", "done", "failed", "cancelled"};
    return names[state];
}

bool job_has_ended(const struct job *job)
{
    return job->state >= JOB_DONE;
}

static void close_request(struct job *job)
{
    if (job->request)
        job->close_request(job->request);
    job->request = NULL;
    job->request_bytes = 0;
}

void job_refuse(struct job *job, const struct error *why)
{
    job->is_refused = true;
    if (job->state == JOB_RUNNING && !job->is_ending) {
        job->failure = *why;
        job->cancel_wanted = true;
        if (job->on_cancel)
            job->on_cancel(job->on_cancel_context);
        return;
    }
    job->is_ending = false; /* cancelled meanwhile: there is no end to tell */
    job->state = JOB_FAILED;
    job->failure = *why;
    job->kept_since = clock_seconds();
    close_request(job);
}

/* The one point that everything passes: see observer.h. */
static enum job_word tell_observer(struct job *job, struct job_change change)
{
    change.id = job->id;
    change.number = job->number;
    change.sequence = events_count(&job->events);
    struct error why = {0};
    if (!job->observer)
        return JOB_GOES_ON;
    enum job_word word = job->observer->happened(job->observer->context, &change, &why);
    if (word == JOB_REFUSED)
        job_refuse(job, &why);
    return word;
}

/* The beginning of a text, whole characters of UTF-8. NULL is "". */
static void copy_beginning(char *out, size_t most, const char *text)
{
    size_t length = text ? strnlen(text, most + 1) : 0;
    if (length > most)
        for (length = most; length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80;)
            length--;
    if (length > 0)
        memcpy(out, text, length);
    out[length] = '\0';
}

struct job *job_open(const char *id, uint64_t number, const struct job_order *order,
                     const struct job_observer *observer)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    snprintf(job->id, sizeof job->id, "%s", id);
    snprintf(job->digest, sizeof job->digest, "%s", order->digest);
    snprintf(job->task, sizeof job->task, "%s", order->task);
    copy_beginning(job->owner, JOB_OWNER_MAX_BYTES, order->owner);
    copy_beginning(job->client, CLIENT_MAX_BYTES, order->client);
    copy_beginning(job->prompt, PROMPT_SHOWN_BYTES, order->prompt);
    copy_beginning(job->model, sizeof job->model - 1, order->model);
    job->priority = order->priority;
    job->number = number;
    job->observer = observer;
    job->submitted_at = job->asked_at = clock_seconds();
    job->request = order->request;
    job->close_request = order->close;
    job->request_bytes = order->bytes;
    events_open(&job->events);
    job->events.base = order->events_base;
    if (order->number == 0) /* else it has been accepted before */
        job->is_pending = tell_observer(job, (struct job_change){.what = JOB_ACCEPTED, .order = order}) == JOB_WAITS;
    return job;
}

void job_close(struct job *job)
{
    events_close(&job->events);
    close_request(job);
    blob_close(job->result);
    free(job);
}

void job_forget(struct job *job)
{
    tell_observer(job, (struct job_change){.what = JOB_FORGOTTEN, .is_released = job->released});
    waiter_wake_all(&job->waiters);
    job_close(job);
}

void job_move_to(struct job *job, int position)
{
    if (events_move_to(&job->events, position))
        waiter_wake_all(&job->waiters);
}

void job_tell(struct job *job, enum job_event event, cJSON *fields, const struct job_preview *preview)
{
    struct blob *rgb = preview ? preview->rgb : NULL;
    const cJSON *told = events_add(&job->events, event, fields, preview);
    if (told)
        tell_observer(job, (struct job_change){.what = event == EVENT_STARTED ? JOB_STARTED : JOB_TOLD, .event = told,
                                               .blob = rgb});
    else
        job->text_lost |= event == EVENT_TEXT;
    if (!job->is_over)
        waiter_wake_all(&job->waiters);
}

void job_start(struct job *job)
{
    job->state = JOB_RUNNING;
    job->started_at = clock_seconds();
    job_tell(job, EVENT_STARTED, json_object(), NULL);
}

void job_note_written(struct job *job)
{
    job->is_written = true;
}

void job_settle(struct job *job, const struct error *failure)
{
    job->is_pending = false;
    if (failure->code != 0)
        job_refuse(job, failure);
    else if (job->is_answered)
        job_tell_end(job);
    waiter_wake_all(&job->waiters);
}

void job_note_asked(struct job *job)
{
    job->asked_at = clock_seconds();
}

void job_note_model(struct job *job, const char *name)
{
    snprintf(job->model, sizeof job->model, "%s", name);
}

void job_note_over(struct job *job)
{
    job->is_over = true;
}

void job_answer(struct job *job, const struct job_order *order)
{
    job->is_answered = job->is_ending = true;
    job->result = order->answer;
    close_request(job);
    job_move_to(job, 0);
    if (!order->answer_text || order->answer_text[0] == '\0')
        return;
    cJSON *fields = json_object();
    json_add_text(fields, "text", order->answer_text);
    job_tell(job, EVENT_TEXT, fields, NULL);
}

void job_pause(struct job *job)
{
    job->is_paused = true;
    job_tell(job, EVENT_PAUSED, json_object(), NULL);
}

void job_go_on(struct job *job)
{
    job->is_paused = false;
}

void job_want_cancel(struct job *job)
{
    job->cancel_wanted = true;
    tell_observer(job, (struct job_change){.what = JOB_CANCELLING, .is_released = job->released});
    if (job->on_cancel)
        job->on_cancel(job->on_cancel_context);
}

void job_on_cancel(struct job *job, void (*on_cancel)(void *context), void *context)
{
    job->on_cancel = on_cancel;
    job->on_cancel_context = context;
    if (job->cancel_wanted && on_cancel)
        on_cancel(context);
}

void job_release(struct job *job)
{
    job->released = true;
    waiter_wake_all(&job->waiters);
}

static enum job_event last_event(const struct job *job)
{
    return job->state == JOB_DONE ? EVENT_DONE : job->state == JOB_FAILED ? EVENT_FAILED : EVENT_CANCELLED;
}

/* Fields of the last event of a job that has ended. */
static cJSON *last_fields(const struct job *job)
{
    cJSON *fields = json_object();
    if (job->state == JOB_FAILED) {
        json_add_text(fields, "code", error_name(job->failure.code));
        json_add_text(fields, "message", job->failure.text);
    }
    return fields;
}

void job_end(struct job *job, struct blob *result, const struct error *failure)
{
    struct error lost;
    if (job->is_refused) {
        const struct error why = job->failure;
        blob_close(result);
        job->is_ending = true;
        job_refuse(job, &why);
        return;
    }
    if (result && job->text_lost) {
        error_set(&lost, ERROR_NO_MEMORY, "job %s: out of memory for a piece of its answer", job->id);
        blob_close(result);
        result = NULL;
        failure = &lost;
    }
    job->result = result;
    if (!result)
        job->failure = *failure;
    job->is_ending = true;
    const struct job_change change = {
        .what = JOB_ENDED, .blob = result, .failure = !result ? &job->failure : NULL};
    const enum job_word word = tell_observer(job, change);
    close_request(job);
    if (word == JOB_GOES_ON)
        job_tell_end(job);
}

void job_tell_end(struct job *job)
{
    job->is_ending = false;
    job->ended_at = job->kept_since = clock_seconds();
    job->state = job->result                    ? JOB_DONE
                 : job->failure.code == ERROR_CANCELLED ? JOB_CANCELLED
                                                        : JOB_FAILED;
    job->has_last_event = events_add(&job->events, last_event(job), last_fields(job), NULL) != NULL;
    waiter_wake_all(&job->waiters);
}

void job_recall(struct job *job, struct blob *result, const struct error *failure)
{
    job->result = result;
    if (!result)
        job->failure = *failure;
    job_tell_end(job);
}

void job_note_fetched(struct job *job, uint64_t bytes, uint64_t all)
{
    const bool was_fetched = job->fetched;
    job->fetched_bytes += bytes;
    job->fetched |= job->fetched_bytes >= all;
    if (!job->fetched) /* it is under way */
        job->kept_since = clock_seconds();
    else if (!was_fetched)
        tell_observer(job, (struct job_change){.what = JOB_FETCHED});
}

int job_copy_news(const struct job *job, uint64_t after, struct job_news *news, struct error *error)
{
    const uint64_t count = events_count(&job->events);
    events_copy(&job->events, after, news);
    /* One that there is no memory to keep is made anew for everybody who asks. */
    if (job_has_ended(job) && !job->has_last_event && after <= count && count - after < JOBS_NEWS_MAX_EVENTS)
        json_append(news->events, event_make(count + 1, last_event(job), last_fields(job)));
    if (json_is_complete(news->events))
        return 0;
    job_news_clear(news);
    return error_set(error, ERROR_NO_MEMORY, "job %s: out of memory for its events", job->id);
}

uint64_t job_kept_bytes(const struct job *job)
{
    return events_bytes(&job->events) + (job->result ? job->result->bytes : 0);
}
