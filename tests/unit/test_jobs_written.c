/* test_jobs_written.c: the job table with a journal that takes its time: when a job is begun, answered and told to have
 * ended, and what becomes of one that cannot be written down. */
#include "tests/unit/jobs_fixture.h"

/* A journal that has written nothing yet. */
static enum job_word have_it_wait(void *context, const struct job_change *change, struct error *why)
{
    (void)context;
    (void)why;
    return change->what == JOB_ACCEPTED || change->what == JOB_ENDED ? JOB_WAITS : JOB_GOES_ON;
}

static const struct job_observer slow_journal = {.happened = have_it_wait};
static const struct error no_error;

/* What jobs_take gives now. */
static struct job *take_now(struct jobs *jobs)
{
    jobs_poke(jobs);
    assert_null(jobs_take(jobs, 0));
    return jobs_take(jobs, clock_seconds() - 1);
}

static void a_job_is_not_begun_nor_its_end_told_before_that_lasts(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct test_waiter one = {.waiter = {.park = count_park, .wake = count_wake}};
    const struct job_order order = make_order(100);
    struct job_status status;
    struct error error;
    struct blob *blob;
    bool parked;
    jobs_observe(jobs, &slow_journal);
    assert_int_equal(jobs_submit(jobs, "a", &order, &one.waiter, &parked, &status, &error), 0);
    assert_true(parked);
    assert_null(take_now(jobs));
    jobs_settle_accepted(jobs, 1, &no_error);
    assert_int_equal(one.woken, 1);
    assert_int_equal(jobs_submitted(jobs, "a", NULL, &parked, &status, &error), 0);
    struct job *job = take_now(jobs);
    assert_non_null(job);
    jobs_end(jobs, job, make_blob(10), NULL);
    assert_int_equal(jobs_result(jobs, "a", &blob, &error), ERROR_BUSY);
    assert_events(jobs, "a", 0, "queued0 started");
    jobs_settle_ended(jobs, 1);
    assert_events(jobs, "a", 2, "done");
    jobs_close(jobs);
}

static void a_job_begins_when_it_would_outlive_the_process_and_is_answered_when_it_lasts(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct test_waiter one = {.waiter = {.park = count_park, .wake = count_wake}};
    const struct job_order order = make_order(100);
    struct job_status status;
    struct error error;
    bool parked;
    jobs_observe(jobs, &slow_journal);
    assert_int_equal(jobs_submit(jobs, "a", &order, &one.waiter, &parked, &status, &error), 0);
    jobs_settle_written(jobs, 1);
    struct job *job = take_now(jobs);
    assert_non_null(job);
    assert_int_equal(jobs_submitted(jobs, "a", NULL, &parked, &status, &error), ERROR_BUSY);
    jobs_end(jobs, job, make_blob(10), NULL);
    jobs_settle_accepted(jobs, 1, &no_error);
    assert_int_equal(jobs_submitted(jobs, "a", NULL, &parked, &status, &error), 0);
    assert_int_equal(status.state, JOB_RUNNING);
    jobs_settle_ended(jobs, 1);
    assert_int_equal(state_of(jobs, "a"), JOB_DONE);
    jobs_close(jobs);
}

static void stop_it(void *context)
{
    *(bool *)context = true;
}

static void a_job_that_has_begun_and_does_not_last_is_stopped_and_is_none(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct test_waiter one = {.waiter = {.park = count_park, .wake = count_wake}};
    const struct job_order order = make_order(100), again = make_order(100), another = make_order(100);
    struct job_status status;
    struct error error, full;
    bool parked, is_stopped = false;
    jobs_observe(jobs, &slow_journal);
    assert_int_equal(jobs_submit(jobs, "a", &order, &one.waiter, &parked, &status, &error), 0);
    jobs_settle_written(jobs, 1);
    struct job *job = take_now(jobs);
    jobs_on_cancel(jobs, job, stop_it, &is_stopped);
    error_set(&full, ERROR_IO, "the disk is broken");
    jobs_settle_accepted(jobs, 1, &full);
    assert_true(is_stopped && jobs_cancel_wanted(jobs, job));
    assert_int_equal(jobs_submitted(jobs, "a", NULL, &parked, &status, &error), ERROR_IO);
    assert_string_equal(error.text, "the disk is broken");
    assert_int_equal(state_of(jobs, "a"), -1);
    assert_int_equal(jobs_submit(jobs, "a", &again, NULL, &parked, &status, &error), ERROR_BUSY); /* it runs */
    jobs_sweep(jobs);
    jobs_end(jobs, job, make_blob(10), NULL);
    assert_int_equal(state_of(jobs, "a"), -1);
    assert_int_equal(jobs_active(jobs), 0);
    assert_int_equal(jobs_submit(jobs, "a", &another, &one.waiter, &parked, &status, &error), 0);
    uint64_t unused;
    cJSON *stats = jobs_stats(jobs, &unused, &unused);
    assert_int_equal(cJSON_GetObjectItem(stats, "done")->valueint, 0);
    assert_int_equal(cJSON_GetObjectItem(stats, "failed")->valueint, 0);
    assert_int_equal(cJSON_GetObjectItem(stats, "refused")->valueint, 2);
    cJSON_Delete(stats);
    jobs_close(jobs);
}

static void a_job_that_cannot_be_written_down_is_none_and_may_be_submitted_anew(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct test_waiter one = {.waiter = {.park = count_park, .wake = count_wake}};
    const struct job_order order = make_order(100), another = make_order(100);
    struct job_status status;
    struct error error, full;
    bool parked;
    jobs_observe(jobs, &slow_journal);
    assert_int_equal(jobs_submit(jobs, "a", &order, &one.waiter, &parked, &status, &error), 0);
    error_set(&full, ERROR_IO, "3 bytes are left");
    jobs_settle_accepted(jobs, 1, &full);
    assert_int_equal(jobs_submitted(jobs, "a", NULL, &parked, &status, &error), ERROR_IO);
    assert_string_equal(error.text, "3 bytes are left");
    assert_int_equal(state_of(jobs, "a"), -1);
    assert_int_equal(jobs_active(jobs), 0);
    assert_int_equal(jobs_submit(jobs, "a", &another, &one.waiter, &parked, &status, &error), 0);
    assert_true(parked);
    jobs_settle_accepted(jobs, 2, &no_error);
    assert_int_equal(state_of(jobs, "a"), JOB_QUEUED);
    uint64_t unused;
    cJSON *stats = jobs_stats(jobs, &unused, &unused);
    assert_int_equal(cJSON_GetObjectItem(stats, "submitted")->valueint, 1);
    assert_int_equal(cJSON_GetObjectItem(stats, "refused")->valueint, 1);
    cJSON_Delete(stats);
    jobs_close(jobs);
}

static void a_job_that_is_cancelled_while_it_is_written_down_and_then_cannot_be_has_no_end(void **state)
{
    (void)state;
    struct jobs *jobs = open_table(&roomy);
    struct test_waiter one = {.waiter = {.park = count_park, .wake = count_wake}};
    const struct job_order order = make_order(100);
    struct job_status status;
    enum job_state after;
    struct error error, full;
    uint64_t unused;
    bool parked;
    jobs_observe(jobs, &slow_journal);
    assert_int_equal(jobs_submit(jobs, "a", &order, &one.waiter, &parked, &status, &error), 0);
    assert_int_equal(jobs_cancel(jobs, "a", NULL, &after, &error), 0);
    error_set(&full, ERROR_IO, "3 bytes are left");
    jobs_settle_accepted(jobs, 1, &full);
    jobs_settle_ended(jobs, 1);
    assert_int_equal(jobs_submitted(jobs, "a", NULL, &parked, &status, &error), ERROR_IO);
    assert_string_equal(error.text, "3 bytes are left");
    assert_int_equal(state_of(jobs, "a"), -1);
    cJSON *stats = jobs_stats(jobs, &unused, &unused);
    assert_int_equal(cJSON_GetObjectItem(stats, "failed")->valueint, 0);
    assert_int_equal(cJSON_GetObjectItem(stats, "cancelled")->valueint, 0);
    assert_int_equal(cJSON_GetObjectItem(stats, "submitted")->valueint, 0);
    assert_int_equal(cJSON_GetObjectItem(stats, "refused")->valueint, 1);
    cJSON_Delete(stats);
    jobs_close(jobs);
}

/* A submission of a job whose result of so many bytes is kept. */
static int submit_answered(struct jobs *jobs, const char *id, size_t bytes, struct waiter *waiter, struct error *error)
{
    struct job_order order = make_order(100);
    struct job_status status;
    bool parked;
    order.answer = make_blob(bytes);
    return jobs_submit(jobs, id, &order, waiter, &parked, &status, error);
}

static void answers_that_wait_for_the_disk_are_bounded_in_bytes(void **state)
{
    (void)state;
    struct jobs_limits limits = roomy;
    limits.result_bytes = 1000;
    struct jobs *jobs = open_table(&limits);
    struct test_waiter waiters[4];
    struct error error;
    for (int i = 0; i < 4; i++)
        waiters[i] = (struct test_waiter){.waiter = {.park = count_park, .wake = count_wake}};
    jobs_observe(jobs, &slow_journal);
    assert_int_equal(submit_answered(jobs, "a", 2000, &waiters[0].waiter, &error), 0); /* beside no other */
    assert_int_equal(submit_answered(jobs, "b", 10, &waiters[1].waiter, &error), ERROR_BUSY);
    assert_non_null(strstr(error.text, "--result-bytes"));
    jobs_settle_accepted(jobs, 1, &no_error);
    assert_int_equal(submit_answered(jobs, "b", 400, &waiters[2].waiter, &error), 0);
    assert_int_equal(submit_answered(jobs, "c", 400, &waiters[3].waiter, &error), 0);
    jobs_close(jobs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_is_not_begun_nor_its_end_told_before_that_lasts),
        cmocka_unit_test(a_job_begins_when_it_would_outlive_the_process_and_is_answered_when_it_lasts),
        cmocka_unit_test(a_job_that_has_begun_and_does_not_last_is_stopped_and_is_none),
        cmocka_unit_test(a_job_that_cannot_be_written_down_is_none_and_may_be_submitted_anew),
        cmocka_unit_test(a_job_that_is_cancelled_while_it_is_written_down_and_then_cannot_be_has_no_end),
        cmocka_unit_test(answers_that_wait_for_the_disk_are_bounded_in_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
