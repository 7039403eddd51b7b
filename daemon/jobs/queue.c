/* queue.c: see queue.h. First come, first served. */
#include "daemon/jobs/queue.h"

struct job *queue_next(struct job *first)
{
    struct job *job = first;
    while (job != NULL && (job->state != JOB_QUEUED || job->is_pending || job->is_ending))
        job = job->next;
    return job;
}

void queue_tell_positions(struct job *first)
{
    int ahead = 0;
    for (struct job *job = first; job != NULL; job = job->next) {
        if (job_has_ended(job) || job->is_ending)
            continue;
        if (job->state == JOB_QUEUED)
            job_move_to(job, ahead);
        ahead++;
    }
}

int queue_length(const struct job *first)
{
    int length = 0;
    for (const struct job *job = first; job != NULL; job = job->next)
        length += job->state == JOB_QUEUED;
    return length;
}

int queue_active(const struct job *first)
{
    int count = 0;
    for (const struct job *job = first; job != NULL; job = job->next)
        count += !job_has_ended(job);
    return count;
}

uint64_t queue_held_bytes(const struct job *first)
{
    uint64_t bytes = 0;
    for (const struct job *job = first; job != NULL; job = job->next)
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
