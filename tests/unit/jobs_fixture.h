/* jobs_fixture.h: what the tests of the job table share: orders of requests of no content, and what a job has told. */
#ifndef LANCE_TESTS_JOBS_FIXTURE_H
#define LANCE_TESTS_JOBS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "daemon/jobs/jobs.h"

/* The order of a request that takes so many bytes. */
static inline struct job_order make_order(uint64_t bytes)
{
    return (struct job_order){
        .request = malloc(1), .close = free, .bytes = bytes, .is_complete = true, .digest = "0f0c", .task = "t2i",
            .prompt = "a fox"};
}

static inline int submit_order(struct jobs *jobs, const char *id, struct job_order order, struct job_status *status,
                        struct error *error)
{
    bool parked;
    return jobs_submit(jobs, id, &order, NULL, &parked, status, error);
}

static const struct jobs_limits roomy = {
    .queue = 100, .queue_bytes = 1 << 20, .results = 100, .result_bytes = 1 << 20, .result_seconds = 1000};

static inline struct jobs *open_table(const struct jobs_limits *limits)
{
    struct jobs *jobs;
    struct error error;
    assert_int_equal(jobs_open(&jobs, limits, &error), 0);
    return jobs;
}

static inline struct job_status submit(struct jobs *jobs, const char *id)
{
    struct job_status status;
    struct error error = {0};
    assert_int_equal(submit_order(jobs, id, make_order(100), &status, &error), 0);
    return status;
}

static inline struct blob *make_blob(size_t bytes)
{
    return blob_open(calloc(1, bytes), bytes);
}

/* Take the next job and end it well. */
static inline void do_next(struct jobs *jobs, size_t result_bytes)
{
    struct job *job = jobs_take(jobs, 0);
    assert_non_null(job);
    jobs_end(jobs, job, make_blob(result_bytes), NULL);
}

static inline int state_of(struct jobs *jobs, const char *id)
{
    struct job_status status;
    return jobs_find(jobs, id, &status) ? (int)status.state : -1;
}

/* The names of a job's events after `after`, with positions of queued ones, such as "queued0 started done". */
static inline void assert_events(struct jobs *jobs, const char *id, uint64_t after, const char *expected)
{
    struct job_news news;
    struct error error;
    bool parked;
    char names[400] = "";
    assert_int_equal(jobs_news(jobs, id, after, NULL, &parked, &news, &error), 0);
    assert_false(parked);
    uint64_t sequence = after;
    const cJSON *event;
    cJSON_ArrayForEach(event, news.events)
    {
        assert_int_equal(cJSON_GetObjectItem(event, "sequence")->valueint, ++sequence);
        size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, "%s%s", at > 0 ? " " : "", json_text(event, "event"));
        const cJSON *position = cJSON_GetObjectItem(event, "position");
        at = strlen(names);
        if (position)
            snprintf(names + at, sizeof names - at, "%d", position->valueint);
    }
    assert_string_equal(names, expected);
    job_news_clear(&news);
}

struct test_waiter {
    struct waiter waiter;
    int parked, woken;
};

static inline void count_park(struct waiter *waiter)
{
    ((struct test_waiter *)waiter)->parked++;
}

static inline void count_wake(struct waiter *waiter)
{
    ((struct test_waiter *)waiter)->woken++;
}

#endif
