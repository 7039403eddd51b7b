/* test_jobs.c: the job table: order, positions, events, waiting, and what is kept how long. */
#include "daemon/jobs/measures.h"
#include "tests/unit/jobs_fixture.h"

static void jobs_are_done_in_the_order_they_came(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    assert_int_equal(submit(jobs, "a").position, 0);
    assert_int_equal(submit(jobs, "b").position, 1);
    assert_int_equal(submit(jobs, "c").position, 2);
    for (const char *id = "abc"; *id != '\0'; id++) {
        struct job *job = jobs_take(jobs, 0);
        assert_int_equal(job_id(job)[0], *id);
        jobs_end(jobs, job, make_blob(1), NULL);
    }
    assert_events(jobs, "a", 0, "queued0 started done");
    assert_events(jobs, "c", 0, "queued2 queued1 queued0 started done");
    assert_events(jobs, "c", 3, "started done");
    jobs_close(jobs);
}

/* So many jobs wait, the first half of them end and are forgotten: what does the last one
 * keep, and what does it tell? */
static void positions_in_a_long_queue_are_all_told_and_none_is_kept(void **state)
{
    (void)state;
    enum { WAITING = 800, ENDED = 400 };
    struct jobs_limits limits = roomy;
    limits.queue = WAITING;
    struct jobs *jobs = open_table(&limits);
    char id[16] = "";
    for (int i = 0; i < WAITING; i++) {
        snprintf(id, sizeof id, "job%d", i);
        assert_int_equal(submit(jobs, id).position, i);
    }
    for (int i = 0; i < ENDED; i++) {
        char first[16];
        snprintf(first, sizeof first, "job%d", i);
        do_next(jobs, 1);
        jobs_release(jobs, first, NULL);
    }
    enum job_state job_state;
    struct error error;
    assert_int_equal(jobs_cancel(jobs, id, NULL, &job_state, &error), 0);
    uint64_t queue_bytes, result_bytes;
    cJSON_Delete(jobs_stats(jobs, &queue_bytes, &result_bytes));
    assert_int_equal(result_bytes, 1024); /* of its one event that is no position */

    int position = WAITING;
    uint64_t sequence = 0;
    bool is_over = false;
    while (!is_over) {
        struct job_news news;
        bool parked;
        assert_int_equal(jobs_news(jobs, id, sequence, NULL, &parked, &news, &error), 0);
        const cJSON *event;
        cJSON_ArrayForEach(event, news.events)
        {
            assert_int_equal(cJSON_GetObjectItem(event, "sequence")->valueint, ++sequence);
            is_over = strcmp(json_text(event, "event"), "cancelled") == 0;
            if (!is_over)
                assert_int_equal(cJSON_GetObjectItem(event, "position")->valueint, --position);
        }
        job_news_clear(&news);
    }
    assert_int_equal(position, WAITING - 1 - ENDED);
    jobs_close(jobs);
}

static int submit_digest(struct jobs *jobs, const char *id, const char *digest, struct error *error)
{
    struct job_status status;
    struct job_order order = make_order(100);
    order.digest = digest;
    bool parked;
    return jobs_submit(jobs, id, &order, NULL, &parked, &status, error);
}

static void a_known_id_with_another_request_is_refused_waiting_running_and_done(void **state)
{
    (void)state;
    struct error error = {0};
    struct jobs *jobs = open_table(&roomy);
    struct job *job = NULL;
    submit(jobs, "a");
    for (int stage = 0; stage < 3; stage++) {
        assert_int_equal(submit_digest(jobs, "a", "0f0c", &error), 0);
        assert_int_equal(submit_digest(jobs, "a", "0f0d", &error), ERROR_BAD_REQUEST);
        assert_non_null(strstr(error.text, "job a: is known with another request"));
        if (stage == 0)
            job = jobs_take(jobs, 0);
        else if (stage == 1)
            jobs_end(jobs, job, make_blob(10), NULL);
    }
    assert_int_equal(state_of(jobs, "a"), JOB_DONE);
    jobs_close(jobs);
}

static void a_known_id_starts_nothing(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    submit(jobs, "a");
    assert_int_equal(submit(jobs, "a").state, JOB_QUEUED);
    assert_int_equal(jobs_active(jobs), 1);
    do_next(jobs, 1);
    assert_int_equal(submit(jobs, "a").state, JOB_DONE);
    assert_int_equal(jobs_active(jobs), 0);
    jobs_close(jobs);
}

static void a_full_queue_refuses_and_recovers(void **state)
{
    (void)state;
    struct jobs_limits limits = roomy;
    limits.queue = 2;
    struct jobs *jobs = open_table(&limits);
    struct job_status status;
    struct error error;
    submit(jobs, "a");
    submit(jobs, "b");
    assert_int_equal(submit_order(jobs, "c", make_order(100), &status, &error), ERROR_BUSY);
    assert_non_null(strstr(error.text, "queue is full (2 jobs"));
    do_next(jobs, 1);
    submit(jobs, "c");
    jobs_close(jobs);
}

static void requests_beyond_the_limit_of_bytes_are_refused_with_the_numbers_until_there_is_room(void **state)
{
    (void)state;
    struct jobs_limits limits = roomy;
    limits.queue_bytes = 5000000;
    struct jobs *jobs = open_table(&limits);
    struct job_status status;
    struct error error;
    assert_int_equal(submit_order(jobs, "a", make_order(2000000), &status, &error), 0);
    assert_int_equal(submit_order(jobs, "b", make_order(2000000), &status, &error), 0);
    struct job *running = jobs_take(jobs, 0); /* its request is still there */
    assert_int_equal(submit_order(jobs, "c", make_order(2000000), &status, &error), ERROR_BUSY);
    assert_non_null(
        strstr(error.text,
               "job c: its request takes 2.0 MB, and those of the jobs before it 4.0 MB; together 5.0 MB are allowed"));
    assert_false(jobs_find(jobs, "c", &status));
    submit(jobs, "small");
    jobs_end(jobs, running, make_blob(1), NULL);
    assert_int_equal(submit_order(jobs, "c", make_order(2000000), &status, &error), 0);
    jobs_close(jobs);
}

static void a_large_request_beside_no_other_is_taken(void **state)
{
    (void)state;
    struct jobs_limits limits = roomy;
    limits.queue_bytes = 1000;
    struct jobs *jobs = open_table(&limits);
    struct job_status status;
    struct error error;
    assert_int_equal(submit_order(jobs, "a", make_order(20000), &status, &error), 0);
    do_next(jobs, 1);
    assert_int_equal(submit_order(jobs, "b", make_order(20000), &status, &error), 0);
    jobs_close(jobs);
}

static void a_cancelled_job_leaves_the_queue_and_moves_the_others_up(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    enum job_state job_state;
    struct error error;
    submit(jobs, "a");
    submit(jobs, "b");
    submit(jobs, "c");
    assert_int_equal(jobs_cancel(jobs, "b", "somebody else", &job_state, &error), ERROR_NOT_FOUND);
    jobs_release(jobs, "b", "somebody else");
    assert_events(jobs, "b", 0, "queued1");
    assert_int_equal(jobs_cancel(jobs, "b", NULL, &job_state, &error), 0);
    assert_int_equal(job_state, JOB_CANCELLED);
    assert_events(jobs, "b", 0, "queued1 cancelled");
    assert_events(jobs, "c", 0, "queued2 queued1");
    assert_int_equal(jobs_cancel(jobs, "b", NULL, &job_state, &error), 0);
    assert_int_equal(jobs_cancel(jobs, "nobody", NULL, &job_state, &error), ERROR_NOT_FOUND);
    struct blob *blob;
    assert_int_equal(jobs_result(jobs, "b", &blob, &error), ERROR_CANCELLED);
    jobs_close(jobs);
}

static void a_running_job_learns_that_it_is_cancelled(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    enum job_state job_state;
    struct error error;
    submit(jobs, "a");
    struct job *job = jobs_take(jobs, 0);
    assert_false(jobs_cancel_wanted(jobs, job));
    assert_int_equal(jobs_cancel(jobs, "a", NULL, &job_state, &error), 0);
    assert_int_equal(job_state, JOB_RUNNING);
    assert_true(jobs_cancel_wanted(jobs, job));
    error_set(&error, ERROR_CANCELLED, "stopped");
    jobs_end(jobs, job, NULL, &error);
    assert_events(jobs, "a", 0, "queued0 started cancelled");
    jobs_close(jobs);
}

static void a_released_job_is_not_known_any_more(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct job_status status;
    struct error error;
    submit(jobs, "a");
    submit(jobs, "b");
    struct job *job = jobs_take(jobs, 0);
    jobs_release(jobs, "a", NULL);
    assert_int_equal(state_of(jobs, "a"), -1);
    assert_true(jobs_cancel_wanted(jobs, job));
    assert_int_equal(submit_order(jobs, "a", make_order(100), &status, &error), ERROR_BUSY);
    error_set(&error, ERROR_CANCELLED, "stopped");
    jobs_end(jobs, job, NULL, &error);
    assert_int_equal(submit(jobs, "a").state, JOB_QUEUED);
    jobs_release(jobs, "b", NULL);
    assert_int_equal(state_of(jobs, "b"), -1);
    jobs_release(jobs, "nobody", NULL);
    jobs_close(jobs);
}

static void a_failure_is_told_to_whoever_asks(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct error error, failure;
    struct blob *blob;
    struct job_news news;
    bool parked;
    submit(jobs, "a");
    struct job *job = jobs_take(jobs, 0);
    assert_int_equal(jobs_result(jobs, "a", &blob, &error), ERROR_BUSY);
    error_set(&failure, ERROR_TOO_LARGE, "needs 9 GB");
    jobs_end(jobs, job, NULL, &failure);
    assert_int_equal(jobs_result(jobs, "a", &blob, &error), ERROR_TOO_LARGE);
    assert_string_equal(error.text, "needs 9 GB");
    assert_int_equal(jobs_news(jobs, "a", 2, NULL, &parked, &news, &error), 0);
    assert_string_equal(json_text(news.events->child, "code"), "too_large");
    assert_string_equal(json_text(news.events->child, "message"), "needs 9 GB");
    job_news_clear(&news);
    jobs_close(jobs);
}

static void *no_memory(size_t bytes)
{
    (void)bytes;
    return NULL;
}

static cJSON *piece(const char *text)
{
    cJSON *fields = json_object();
    json_add_text(fields, "text", text);
    return fields;
}

static void a_job_whose_last_event_had_no_memory_tells_it_all_the_same(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    submit(jobs, "a");
    struct job *job = jobs_take(jobs, 0);
    cJSON_InitHooks(&(cJSON_Hooks){no_memory, free});
    jobs_post(jobs, job, EVENT_PROGRESS, json_object());
    jobs_end(jobs, job, make_blob(1), NULL);
    cJSON_InitHooks(NULL);
    assert_events(jobs, "a", 0, "queued0 started done");
    assert_events(jobs, "a", 2, "done");
    assert_events(jobs, "a", 3, "");
    jobs_close(jobs);
}

static void a_job_that_lost_a_piece_of_its_answer_fails_for_want_of_memory(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    submit(jobs, "a");
    struct job *job = jobs_take(jobs, 0);
    jobs_post(jobs, job, EVENT_TEXT, piece("one"));
    cJSON_InitHooks(&(cJSON_Hooks){no_memory, free});
    jobs_post(jobs, job, EVENT_TEXT, piece(" two"));
    cJSON_InitHooks(NULL);
    jobs_post(jobs, job, EVENT_TEXT, piece(" three"));
    jobs_end(jobs, job, make_blob(1), NULL);
    assert_events(jobs, "a", 0, "queued0 started text text failed");
    struct blob *result;
    struct error error;
    assert_int_equal(jobs_result(jobs, "a", &result, &error), ERROR_NO_MEMORY);
    jobs_close(jobs);
}

static void old_results_make_room_for_new_ones(void **state)
{
    (void)state;
    struct jobs_limits limits = roomy;
    limits.results = 2;
    struct jobs *jobs = open_table(&limits);
    const char *ids[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        submit(jobs, ids[i]);
        do_next(jobs, 1);
    }
    assert_int_equal(state_of(jobs, "a"), -1);
    assert_int_equal(state_of(jobs, "b"), JOB_DONE);
    assert_int_equal(state_of(jobs, "c"), JOB_DONE);
    jobs_close(jobs);

    limits = roomy;
    limits.result_bytes = 100000;
    jobs = open_table(&limits);
    for (int i = 0; i < 3; i++) {
        submit(jobs, ids[i]);
        do_next(jobs, 40000);
    }
    assert_int_equal(state_of(jobs, "a"), -1);
    assert_int_equal(state_of(jobs, "b"), JOB_DONE);
    submit(jobs, "large"); /* larger than everything allowed: kept until the next one, for its client */
    do_next(jobs, 200000);
    assert_int_equal(state_of(jobs, "large"), JOB_DONE);
    assert_int_equal(state_of(jobs, "c"), -1);
    uint64_t bytes;
    uint64_t queue_bytes;
    cJSON *stats = jobs_stats(jobs, &queue_bytes, &bytes);
    assert_int_equal(queue_bytes, 0);
    assert_in_range(bytes, 200000, 210000);
    assert_int_equal(cJSON_GetObjectItem(stats, "expired")->valueint, 3);
    cJSON_Delete(stats);
    jobs_close(jobs);
}

static void results_expire(void **state)
{
    (void)state;
    struct jobs_limits limits = roomy;
    limits.result_seconds = 0.05;
    struct jobs *jobs = open_table(&limits);
    submit(jobs, "a");
    do_next(jobs, 1);
    jobs_sweep(jobs);
    assert_int_equal(state_of(jobs, "a"), JOB_DONE);
    nanosleep(&(struct timespec){0, 80 * 1000000L}, NULL);
    jobs_sweep(jobs);
    assert_int_equal(state_of(jobs, "a"), -1);
    jobs_close(jobs);
}

static void a_result_outlives_its_job_for_who_holds_it(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct blob *blob;
    struct error error;
    submit(jobs, "a");
    do_next(jobs, 1000);
    assert_int_equal(jobs_result(jobs, "a", &blob, &error), 0);
    jobs_release(jobs, "a", NULL);
    assert_int_equal(blob->bytes, 1000);
    assert_int_equal(((unsigned char *)blob->data)[999], 0);
    blob_close(blob);
    jobs_close(jobs);
}

static void at_most_256_events_come_at_once_and_four_pictures_are_kept(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct job_news news;
    struct error error;
    bool parked;
    submit(jobs, "a");
    struct job *job = jobs_take(jobs, 0);
    for (int i = 0; i < 10; i++)
        jobs_post_preview(jobs, job, &(struct job_preview){.rgb = make_blob(12), .frames = 1, .height = 2, .width = 2});
    assert_int_equal(jobs_news(jobs, "a", 2, NULL, &parked, &news, &error), 0);
    assert_int_equal(cJSON_GetArraySize(news.events), 10);
    assert_int_equal(news.preview_count, JOBS_KEPT_PREVIEWS);
    assert_string_equal(news.previews[0].name, "preview.9");
    assert_string_equal(news.previews[3].name, "preview.12");
    job_news_clear(&news);
    for (int i = 0; i < 300; i++)
        jobs_post(jobs, job, EVENT_PROGRESS, cJSON_CreateObject());
    assert_int_equal(jobs_news(jobs, "a", 0, NULL, &parked, &news, &error), 0);
    assert_int_equal(cJSON_GetArraySize(news.events), JOBS_NEWS_MAX_EVENTS);
    job_news_clear(&news);
    assert_int_equal(jobs_news(jobs, "a", 256, NULL, &parked, &news, &error), 0);
    assert_int_equal(cJSON_GetArraySize(news.events), 312 - 256);
    job_news_clear(&news);
    assert_int_equal(jobs_news(jobs, "a", UINT64_MAX, NULL, &parked, &news, &error), 0);
    assert_int_equal(cJSON_GetArraySize(news.events), 0);
    job_news_clear(&news);
    jobs_end(jobs, job, make_blob(1), NULL);
    jobs_close(jobs);
}

static void a_waiter_is_parked_until_something_happens_to_its_job(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct test_waiter one = {.waiter = {.park = count_park, .wake = count_wake}}, two = one, three = one;
    struct job_news news;
    struct error error;
    bool parked;
    submit(jobs, "a");
    assert_int_equal(jobs_news(jobs, "a", 0, &one.waiter, &parked, &news, &error), 0);
    assert_false(parked); /* there was an event */
    job_news_clear(&news);
    struct test_waiter *all[] = {&one, &two, &three};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(jobs_news(jobs, "a", 1, &all[i]->waiter, &parked, &news, &error), 0);
        assert_true(parked);
    }
    jobs_unpark(jobs, &two.waiter); /* its time was over */
    struct job *job = jobs_take(jobs, 0);
    assert_int_equal(one.parked, 1);
    assert_int_equal(one.woken, 1);
    assert_int_equal(two.woken, 0);
    assert_int_equal(three.woken, 1);
    assert_int_equal(jobs_news(jobs, "a", 2, &two.waiter, &parked, &news, &error), 0);
    assert_true(parked);
    jobs_end(jobs, job, make_blob(1), NULL);
    assert_int_equal(two.woken, 1);
    assert_int_equal(jobs_news(jobs, "a", 3, &two.waiter, &parked, &news, &error), 0);
    assert_false(parked); /* an ended job has no more news to wait for */
    job_news_clear(&news);
    jobs_close(jobs);
}

static void the_last_step_of_a_job_is_told_with_its_end(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct test_waiter one = {.waiter = {.park = count_park, .wake = count_wake}};
    struct job_news news;
    struct error error;
    bool parked;
    submit(jobs, "a");
    struct job *job = jobs_take(jobs, 0);
    assert_int_equal(jobs_news(jobs, "a", 2, &one.waiter, &parked, &news, &error), 0);
    assert_true(parked);
    jobs_note_over(jobs, job);
    jobs_post(jobs, job, EVENT_PROGRESS, json_object());
    assert_int_equal(one.woken, 0);
    assert_int_equal(jobs_news(jobs, "a", 2, NULL, &parked, &news, &error), 0); /* who asks hears of it */
    assert_int_equal(cJSON_GetArraySize(news.events), 1);
    job_news_clear(&news);
    jobs_end(jobs, job, make_blob(1), NULL);
    assert_int_equal(one.woken, 1);
    assert_int_equal(jobs_news(jobs, "a", 2, &one.waiter, &parked, &news, &error), 0);
    assert_int_equal(cJSON_GetArraySize(news.events), 2);
    job_news_clear(&news);
    jobs_close(jobs);
}

static void releasing_a_job_wakes_who_waits_for_it(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct test_waiter one = {.waiter = {.park = count_park, .wake = count_wake}};
    struct job_news news;
    struct error error;
    bool parked;
    submit(jobs, "a");
    assert_int_equal(jobs_news(jobs, "a", 1, &one.waiter, &parked, &news, &error), 0);
    jobs_release(jobs, "a", NULL);
    assert_int_equal(one.woken, 1);
    assert_int_equal(jobs_news(jobs, "a", 1, &one.waiter, &parked, &news, &error), ERROR_NOT_FOUND);
    jobs_close(jobs);
}

static void a_shut_table_takes_nothing_and_cancels_when_told(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct job_status status;
    struct error error;
    struct blob *blob;
    submit(jobs, "a");
    submit(jobs, "b");
    jobs_shut(jobs, false);
    assert_int_equal(submit_order(jobs, "c", make_order(100), &status, &error), ERROR_BUSY);
    assert_int_equal(submit(jobs, "a").state, JOB_QUEUED); /* asking again is no new job */
    do_next(jobs, 1);
    assert_int_equal(jobs_unfetched(jobs), 1);
    assert_int_equal(jobs_result(jobs, "a", &blob, &error), 0);
    blob_close(blob);
    jobs_count_fetched(jobs, "a", 40, 100);
    assert_int_equal(jobs_unfetched(jobs), 1);
    jobs_count_fetched(jobs, "a", 60, 100);
    assert_int_equal(jobs_unfetched(jobs), 0);
    jobs_shut(jobs, true);
    assert_int_equal(state_of(jobs, "b"), JOB_CANCELLED);
    assert_int_equal(jobs_active(jobs), 0);
    jobs_close(jobs);
}

/* What an observer hears: the change's kind and job, with what comes with it. */
static enum job_word write_down(void *context, const struct job_change *change, struct error *why)
{
    (void)why;
    static const char *const names[] = {"accepted", "started", "told", "cancelling", "ended", "fetched", "forgotten"};
    char *heard = context;
    const char *with = change->order   ? change->order->task
                       : change->event ? json_text(change->event, "event")
                       : change->is_released   ? "released"
                                               : "-";
    snprintf(heard + strlen(heard), 500 - strlen(heard), "%s %s%d %s%s; ", names[change->what], change->id,
             (int)change->sequence, with, change->blob ? "+" : "");
    return JOB_GOES_ON;
}

static void everything_that_happens_to_a_job_passes_the_observer_in_order(void **state)
{
    (void)state;
    char heard[500] = "";
    const struct job_observer observer = {write_down, heard};
    struct jobs *jobs = open_table(&roomy);
    struct error error;
    jobs_observe(jobs, &observer);
    submit(jobs, "a");
    submit(jobs, "a"); /* nothing happens to it */
    struct job *job = jobs_take(jobs, 0);
    jobs_post(jobs, job, EVENT_TEXT, piece("one"));
    jobs_post_preview(jobs, job, &(struct job_preview){.rgb = make_blob(12), .frames = 1, .height = 2, .width = 2});
    jobs_end(jobs, job, make_blob(100), NULL);
    jobs_count_fetched(jobs, "a", 60, 100);
    jobs_count_fetched(jobs, "a", 40, 100);
    jobs_release(jobs, "a", NULL);
    assert_string_equal(
        heard, "accepted a0 t2i; started a2 started; told a3 text; told a4 preview+; ended a4 -+; fetched a5 -; "
               "forgotten a5 released; ");
    heard[0] = '\0';
    submit(jobs, "b");
    job = jobs_take(jobs, 0);
    jobs_release(jobs, "b", NULL);
    error_set(&error, ERROR_CANCELLED, "stopped");
    jobs_end(jobs, job, NULL, &error);
    assert_string_equal(heard, "accepted b0 t2i; started b2 started; cancelling b2 released; ended b2 -; "
                               "forgotten b3 released; ");
    jobs_close(jobs);
}

static double within(const cJSON *histogram, int bucket)
{
    return cJSON_GetArrayItem(cJSON_GetArrayItem(cJSON_GetObjectItem(histogram, "buckets"), bucket), 1)->valuedouble;
}

static void a_histogram_counts_what_lies_within_each_bound_by_label(void **state)
{
    (void)state;
    struct measures measures = {0};
    static const double seconds[] = {0.01, 0.02, 0.1, 1e6};
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++)
        measures_note(&measures, MEASURE_STEP, "denoise", seconds[i]);
    measures_note(&measures, MEASURE_STEP, "decode", 5);
    cJSON *json = measures_json(&measures);
    const cJSON *steps = cJSON_GetObjectItem(json, "step_seconds"), *denoise = cJSON_GetObjectItem(steps, "denoise");
    static const double expected[] = {1, 2, 3, 3};
    for (int i = 0; i < 4; i++)
        assert_true(within(denoise, i) == expected[i]);
    assert_true(within(denoise, MEASURE_BUCKETS - 1) == 3); /* a million seconds are beyond all bounds, */
    assert_int_equal(cJSON_GetObjectItem(denoise, "count")->valueint, 4); /* and counted */
    assert_true(cJSON_GetObjectItem(denoise, "sum")->valuedouble == 0.01 + 0.02 + 0.1 + 1e6);
    assert_int_equal(cJSON_GetObjectItem(cJSON_GetObjectItem(steps, "decode"), "count")->valueint, 1);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "job_seconds")), 0);
    cJSON_Delete(json);
}

static void jobs_that_ended_before_are_listed_in_their_place(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct error error;
    bool more;
    jobs_number_from(jobs, 7);
    submit(jobs, "new");
    const uint64_t numbers[] = {5, 3};
    for (int i = 0; i < 2; i++) {
        const struct job_order order = {.digest = "0f0c", .task = "t2i", .number = numbers[i]};
        assert_int_equal(jobs_recall(jobs, i == 0 ? "later" : "first", &order, make_blob(10), NULL, &error), 0);
    }
    submit(jobs, "newest");
    cJSON *all = jobs_list(jobs, 0, NULL, &more), *behind = jobs_list(jobs, 3, NULL, &more);
    static const char *const expected[] = {"first", "later", "new", "newest"};
    assert_int_equal(cJSON_GetArraySize(all), 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(json_text(cJSON_GetArrayItem(all, i), "job"), expected[i]);
    assert_int_equal(cJSON_GetArraySize(behind), 3);
    cJSON_Delete(all);
    cJSON_Delete(behind);
    jobs_close(jobs);
}

static void *take_until_poked(void *argument)
{
    struct jobs *jobs = argument;
    uintptr_t done = 0;
    struct job *job;
    while ((job = jobs_take(jobs, 0))) {
        for (int i = 0; i < 5; i++)
            jobs_post(jobs, job, EVENT_PROGRESS, cJSON_CreateObject());
        jobs_end(jobs, job, make_blob(10), NULL);
        done++;
    }
    return (void *)done;
}

static void a_worker_and_clients_can_use_the_table_at_once(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    pthread_t worker;
    assert_int_equal(pthread_create(&worker, NULL, take_until_poked, jobs), 0);
    char id[16];
    for (int i = 0; i < 200; i++) {
        snprintf(id, sizeof id, "job%d", i);
        submit(jobs, id);
        while (state_of(jobs, id) != JOB_DONE)
            ;
        assert_events(jobs, id, 0, "queued0 started progress progress progress progress progress done");
        jobs_release(jobs, id, NULL);
    }
    jobs_poke(jobs);
    void *done;
    pthread_join(worker, &done);
    assert_int_equal((uintptr_t)done, 200);
    jobs_close(jobs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_done_in_the_order_they_came),
        cmocka_unit_test(positions_in_a_long_queue_are_all_told_and_none_is_kept),
        cmocka_unit_test(a_known_id_with_another_request_is_refused_waiting_running_and_done),
        cmocka_unit_test(a_known_id_starts_nothing),
        cmocka_unit_test(a_full_queue_refuses_and_recovers),
        cmocka_unit_test(requests_beyond_the_limit_of_bytes_are_refused_with_the_numbers_until_there_is_room),
        cmocka_unit_test(a_large_request_beside_no_other_is_taken),
        cmocka_unit_test(a_cancelled_job_leaves_the_queue_and_moves_the_others_up),
        cmocka_unit_test(a_running_job_learns_that_it_is_cancelled),
        cmocka_unit_test(a_released_job_is_not_known_any_more),
        cmocka_unit_test(a_failure_is_told_to_whoever_asks),
        cmocka_unit_test(a_job_whose_last_event_had_no_memory_tells_it_all_the_same),
        cmocka_unit_test(a_job_that_lost_a_piece_of_its_answer_fails_for_want_of_memory),
        cmocka_unit_test(old_results_make_room_for_new_ones),
        cmocka_unit_test(results_expire),
        cmocka_unit_test(a_result_outlives_its_job_for_who_holds_it),
        cmocka_unit_test(at_most_256_events_come_at_once_and_four_pictures_are_kept),
        cmocka_unit_test(a_waiter_is_parked_until_something_happens_to_its_job),
        cmocka_unit_test(the_last_step_of_a_job_is_told_with_its_end),
        cmocka_unit_test(releasing_a_job_wakes_who_waits_for_it),
        cmocka_unit_test(a_shut_table_takes_nothing_and_cancels_when_told),
        cmocka_unit_test(everything_that_happens_to_a_job_passes_the_observer_in_order),
        cmocka_unit_test(a_histogram_counts_what_lies_within_each_bound_by_label),
        cmocka_unit_test(jobs_that_ended_before_are_listed_in_their_place),
        cmocka_unit_test(a_worker_and_clients_can_use_the_table_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
