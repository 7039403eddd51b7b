/* results.c: see results.h. */
#include "daemon/jobs/results.h"

#include "base/clock.h"

struct job *results_overdue(struct job *first, const struct jobs_limits *limits, const char **why)
{
    struct job *oldest = NULL, *newest = NULL;
    int kept = 0;
    for (struct job *job = first; job; job = job->next) {
        if (!job_has_ended(job) || job->is_refused)
            continue;
        kept++;
        if (!oldest || job->kept_since < oldest->kept_since)
            oldest = job;
        if (!newest || job->kept_since >= newest->kept_since)
            newest = job;
    }
    if (!oldest)
        return NULL;
    const bool is_expired = clock_seconds() - oldest->kept_since >= limits->result_seconds;
    /* The newest one stays even when it alone is over the limit of bytes: its client must be able to fetch it. */
    const bool is_crowded = oldest != newest && (kept > limits->results || results_bytes(first) > limits->result_bytes);
    *why = is_expired ? "expired" : "newer results need the room";
    return is_expired || is_crowded ? oldest : NULL;
}

uint64_t results_bytes(const struct job *first)
{
    uint64_t bytes = 0;
    for (const struct job *job = first; job; job = job->next)
        if (job_has_ended(job))
            bytes += job_kept_bytes(job);
    return bytes;
}

int results_check_room(const struct job *first, const struct jobs_limits *limits, const char *id, uint64_t bytes,
                       struct error *error)
{
    uint64_t held = 0;
    for (const struct job *job = first; job; job = job->next)
        if (job->is_answered && job->is_ending)
            held += job_kept_bytes(job);
    if (held == 0 || (held <= limits->result_bytes && bytes <= limits->result_bytes - held))
        return 0;
    return error_set(error, ERROR_BUSY,
                     "job %s: its kept result takes %.1f MB, and those of others that wait for the disk %.1f MB; "
                     "together %.1f MB are allowed (lanced --result-bytes); try again later",
                     id, (double)bytes / 1e6, (double)held / 1e6, (double)limits->result_bytes / 1e6);
}

int results_unfetched(const struct job *first, double since)
{
    int count = 0;
    for (const struct job *job = first; job; job = job->next)
        count += job->state == JOB_DONE && !job->fetched && job->ended_at >= since;
    return count;
}
