/* queue.c: see queue.h. */
#include "daemon/jobs/queue.h"

#include <stdlib.h>
#include <string.h>

static bool waits(const struct job *job)
{
    return job->state == JOB_QUEUED && !job->is_ending;
}

static bool runs(const struct job *job)
{
    return job->state == JOB_RUNNING && !job->is_ending;
}

/* It waits, and may begin. */
static bool is_ready(const struct job *job)
{
    return waits(job) && (!job->is_pending || job->is_written);
}

static bool is_at_hand(const struct job *job, const struct job_models *in_memory)
{
    bool is_there = job->model[0] == '\0';
    for (int i = 0; i < in_memory->count && !is_there; i++)
        is_there = strcmp(job->model, in_memory->names[i]) == 0;
    return is_there;
}

/* What has something to do, by class. */
struct candidates {
    bool wants[JOB_CLASSES];
    struct job *next[JOB_CLASSES];
};

static void consider(struct candidates *candidates, struct job *job)
{
    struct job **best = &candidates->next[job->priority];
    candidates->wants[job->priority] = true;
    if (!*best || (runs(job) && !runs(*best)) || (runs(job) == runs(*best) && schedule_is_before(job, *best)))
        *best = job;
}

static struct job *choose(const struct schedule *schedule, const struct candidates *candidates)
{
    if (candidates->wants[JOB_INTERACTIVE] && runs(candidates->next[JOB_INTERACTIVE]))
        return candidates->next[JOB_INTERACTIVE];
    const enum job_class class = schedule_class(schedule, candidates->wants);
    return class < JOB_CLASSES ? candidates->next[class] : NULL;
}

struct queue_heads queue_next(struct schedule *schedule, struct job *first, const struct job_models *in_memory,
                              bool is_held_back)
{
    struct candidates all = {0}, at_hand = {0};
    schedule_rounds(schedule, first);
    for (struct job *job = first; job; job = job->next) {
        if (!runs(job) && (!is_ready(job) || (is_held_back && job->priority != JOB_INTERACTIVE)))
            continue;
        consider(&all, job);
        if (is_at_hand(job, in_memory))
            consider(&at_hand, job);
    }
    return (struct queue_heads){choose(schedule, &all), choose(schedule, &at_hand)};
}

bool queue_wants(const struct job *first, enum job_class class)
{
    const struct job *job = first;
    while (job && (job->priority != class || (!is_ready(job) && !runs(job))))
        job = job->next;
    return job != NULL;
}

/* Whether another job of the class of this one is to begin. */
static bool is_waited_for(const struct job *first, const struct job *job)
{
    const struct job *other = first;
    while (other && (other == job || other->priority != job->priority || !is_ready(other)))
        other = other->next;
    return other != NULL;
}

bool queue_overstays(const struct job *first, struct job *job, double seconds)
{
    const bool is_interactive = job->priority == JOB_INTERACTIVE;
    job->device_seconds += seconds;
    if (!is_interactive || job->device_seconds < SCHEDULE_INTERACTIVE_SECONDS || !is_waited_for(first, job))
        return false;
    job->priority = JOB_NORMAL;
    job->device_seconds = 0;
    return true;
}

void queue_note(struct schedule *schedule, const struct job *first, const struct job *job, double seconds)
{
    bool wants[JOB_CLASSES];
    for (enum job_class class = JOB_INTERACTIVE; class < JOB_CLASSES; class++)
        wants[class] = queue_wants(first, class);
    schedule_note(schedule, job->priority, seconds, wants);
}

static int compare(const void *a, const void *b)
{
    return schedule_is_before(*(struct job *const *)a, *(struct job *const *)b) ? -1 : 1;
}

void queue_tell_positions(struct schedule *schedule, struct job *first)
{
    const size_t length = (size_t)queue_length(first);
    struct job **waiting = length > 0 ? malloc(length * sizeof(struct job *)) : NULL;
    int open[JOB_CLASSES] = {0};
    size_t count = 0;
    if (!waiting) /* without memory nobody is told for once */
        return;
    schedule_rounds(schedule, first);
    for (struct job *job = first; job; job = job->next) {
        if (waits(job))
            waiting[count++] = job;
        else if (runs(job))
            for (int class = job->priority; class < JOB_CLASSES; class++)
                open[class]++;
    }
    qsort(waiting, count, sizeof waiting[0], compare);
    for (size_t i = 0; i < count; i++)
        job_move_to(waiting[i], open[waiting[i]->priority] + (int)i);
    free(waiting);
}

int queue_length(const struct job *first)
{
    int length = 0;
    for (const struct job *job = first; job; job = job->next)
        length += job->state == JOB_QUEUED;
    return length;
}

int queue_active(const struct job *first)
{
    int count = 0;
    for (const struct job *job = first; job; job = job->next)
        count += !job_has_ended(job);
    return count;
}

uint64_t queue_held_bytes(const struct job *first)
{
    uint64_t bytes = 0;
    for (const struct job *job = first; job; job = job->next)
        bytes += job->request_bytes;
    return bytes;
}

/* A request beside no other is always taken: it cannot be larger than a message, and would never be taken otherwise. */
int queue_check_room(const struct job *first, const struct jobs_limits *limits, const char *id, uint64_t bytes,
                     struct error *error)
{
    if (queue_length(first) >= limits->queue)
        return error_set(error, ERROR_BUSY, "job %s: the queue is full (%d jobs wait); try again later", id,
                         limits->queue);
    const uint64_t held = queue_held_bytes(first);
    if (held == 0 || (held <= limits->queue_bytes && bytes <= limits->queue_bytes - held))
        return 0;
    return error_set(
        error, ERROR_BUSY,
        "job %s: its request takes %.1f MB, and those of the jobs before it %.1f MB; together %.1f MB are allowed "
        "(lanced --queue-bytes); try again later",
        id, (double)bytes / 1e6, (double)held / 1e6, (double)limits->queue_bytes / 1e6);
}
