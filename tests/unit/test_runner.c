/* test_runner.c: jobs stepped one turn at a time: what is kept of them on the way, and how they go on from it; several
 * that are open at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "daemon/attempts.h"
#include "daemon/device.h"
#include "daemon/request.h"
#include "daemon/runner.h"
#include "protocol/message.h"
#include "tests/unit/fake_engine.h"

struct fixture {
    struct options options;
    struct device device;
    struct jobs *jobs;
    struct residency *residency;
    struct runner *runner;
    struct attempts attempts; /* a journal in memory: */
    const char *left;         /* the state that a former daemon has left, or NULL */
    const char *refusal;      /* why it cannot count an attempt, or NULL */
    char saved[400];          /* every state that it was given, with its step, and a pause */
};

static int count_attempt(void *context, uint64_t job, void **state, size_t *bytes, int *attempt, struct error *error)
{
    const struct fixture *fixture = context;
    assert_int_equal(job, 1);
    if (fixture->refusal)
        return error_set(error, ERROR_IO, "%s", fixture->refusal);
    *state = fixture->left ? strdup(fixture->left) : NULL;
    *bytes = fixture->left ? strlen(fixture->left) : 0;
    *attempt = fixture->left ? 2 : 1;
    return 0;
}

static void keep(void *context, uint64_t job, int step, void *state, size_t bytes)
{
    struct fixture *fixture = context;
    size_t at = strlen(fixture->saved);
    assert_int_equal(job, 1);
    snprintf(fixture->saved + at, sizeof fixture->saved - at, "%d:%.*s ", step, (int)bytes, (const char *)state);
    free(state);
}

static void note_pause(void *context, uint64_t job)
{
    struct fixture *fixture = context;
    assert_int_equal(job, 1);
    strncat(fixture->saved, "paused", sizeof fixture->saved - strlen(fixture->saved) - 1);
}

static int set_up(void **state)
{
    struct fixture *fixture = *state = calloc(1, sizeof *fixture);
    struct options *options = &fixture->options;
    struct error error;
    strcpy(options->models[0].name, "fake");
    options->models[0].directory = "/nonexistent/fake"; /* any folder is a model for the fake engine */
    options->model_count = 1;
    options->backend.backend = BACKEND_CPU;
    options->jobs = (struct jobs_limits){
        .queue = 10, .queue_bytes = 1 << 20, .results = 10, .result_bytes = 1 << 20, .result_seconds = 1000};
    fixture->attempts = (struct attempts){fixture, count_attempt, keep, note_pause};
    assert_int_equal(device_open(&fixture->device, options, &error), 0);
    assert_int_equal(jobs_open(&fixture->jobs, &options->jobs, &error), 0);
    assert_int_equal(residency_open(&fixture->residency, options, fixture->device.kernels, &error), 0);
    assert_int_equal(runner_open(&fixture->runner, options, fixture->jobs, fixture->residency, fixture->device.kernels,
                                 &fixture->attempts, NULL, &error), 0);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    runner_close(fixture->runner);
    residency_close(fixture->residency);
    jobs_close(fixture->jobs);
    device_close(&fixture->device);
    free(fixture);
    return 0;
}

/* A picture in five steps, or a question in three. */
static void submit_as(struct fixture *fixture, const char *id, enum job_class priority, const char *prompt)
{
    struct job_request *request = calloc(1, sizeof *request);
    lance_request_init(&request->lance, priority == JOB_INTERACTIVE ? LANCE_X2T_IMAGE : LANCE_T2I);
    request->lance.prompt = prompt;
    request->lance.num_inference_steps = 5;
    request->priority = priority;
    const struct job_order order = {.request = request, .close = free, .bytes = 1, .is_complete = true, .digest = "0",
                                    .task = lance_task_name(request->lance.task), .priority = priority};
    struct job_status status;
    struct error error;
    bool parked;
    assert_int_equal(jobs_submit(fixture->jobs, id, &order, NULL, &parked, &status, &error), 0);
}

static void submit(struct fixture *fixture)
{
    submit_as(fixture, "a", JOB_NORMAL, "sleep 2");
}

/* Turn by turn to the job's end. */
static void run(struct fixture *fixture)
{
    do
        runner_turn(fixture->runner, 0);
    while (runner_has_open(fixture->runner));
}

/* The steps that the job's clients were told, such as "1 2 3". */
static void assert_steps(struct fixture *fixture, const char *expected)
{
    struct job_news news;
    struct error error;
    bool parked;
    char told[100] = "";
    const cJSON *event;
    assert_int_equal(jobs_news(fixture->jobs, "a", 0, NULL, &parked, &news, &error), 0);
    cJSON_ArrayForEach(event, news.events)
    {
        const char *stage = json_text(event, "stage");
        if (stage && strcmp(stage, lance_stage_name(STAGE_DENOISE)) == 0)
            snprintf(told + strlen(told), sizeof told - strlen(told), "%s%d", told[0] != '\0' ? " " : "",
                     cJSON_GetObjectItem(event, "step")->valueint);
    }
    job_news_clear(&news);
    assert_string_equal(told, expected);
}

/* The receipt of the job, which is done; the caller frees. */
static cJSON *receipt_of(struct fixture *fixture)
{
    struct blob *blob;
    struct message *message;
    struct error error;
    if (jobs_result(fixture->jobs, "a", &blob, &error) != 0)
        fail_msg("%s", error.text);
    assert_int_equal(message_parse(&message, blob->data, blob->bytes, 0, &error), 0);
    cJSON *receipt = cJSON_Duplicate(cJSON_GetObjectItem(message_envelope(message), "receipt"), true);
    assert_non_null(receipt);
    message_close(message);
    blob_close(blob);
    return receipt;
}

static void a_jobs_state_is_kept_after_every_so_many_steps(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.save_steps = 2;
    submit(fixture);
    run(fixture);
    assert_string_equal(fixture->saved, "2:step 2 4:step 4 ");
    assert_steps(fixture, "1 2 3 4 5");
}

static void or_when_so_many_seconds_have_passed(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.save_seconds = 0.001; /* each step takes two milliseconds */
    submit(fixture);
    run(fixture);
    assert_string_equal(fixture->saved, "1:step 1 2:step 2 3:step 3 4:step 4 ");
}

static void and_not_at_all_unless_that_is_asked_for(void **state)
{
    struct fixture *fixture = *state;
    submit(fixture);
    run(fixture);
    assert_string_equal(fixture->saved, "");
}

static void a_job_goes_on_from_the_state_that_was_left_and_its_receipt_says_so(void **state)
{
    struct fixture *fixture = *state;
    fixture->left = "step 3";
    submit(fixture);
    run(fixture);
    assert_steps(fixture, "4 5");
    cJSON *receipt = receipt_of(fixture);
    assert_int_equal(cJSON_GetObjectItem(receipt, "attempt")->valueint, 2);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(receipt, "resumed")));
    assert_null(json_text(receipt, "state_not_used"));
    cJSON_Delete(receipt);
}

static void a_state_that_cannot_be_used_has_the_job_begin_anew_and_its_receipt_says_why(void **state)
{
    struct fixture *fixture = *state;
    fixture->left = "of last year";
    submit(fixture);
    run(fixture);
    assert_steps(fixture, "1 2 3 4 5");
    cJSON *receipt = receipt_of(fixture);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(receipt, "resumed")));
    assert_string_equal(json_text(receipt, "state_not_used"), "the state is of another build");
    cJSON_Delete(receipt);
}

static void a_job_whose_attempt_cannot_be_counted_fails_before_its_first_step(void **state)
{
    struct fixture *fixture = *state;
    struct blob *blob;
    struct error error;
    fixture->refusal = "the disk is gone";
    submit(fixture);
    run(fixture);
    assert_int_equal(jobs_result(fixture->jobs, "a", &blob, &error), ERROR_IO);
    assert_string_equal(error.text, "the disk is gone");
    assert_false(residency_is_loaded(fixture->residency, 0));
}

/* A turn of a runner that is to stop, with a job open that has done a step. */
static void stop_after_a_step(struct fixture *fixture)
{
    runner_turn(fixture->runner, 0);
    runner_turn(fixture->runner, 0);
    assert_true(runner_has_open(fixture->runner));
    runner_stop(fixture->runner);
    runner_turn(fixture->runner, 0);
    assert_false(runner_has_open(fixture->runner));
    assert_steps(fixture, "1");
}

static void a_runner_that_is_to_stop_leaves_what_is_open_to_the_next_daemon(void **state)
{
    struct fixture *fixture = *state;
    struct blob *blob;
    struct error error;
    submit(fixture);
    stop_after_a_step(fixture);
    assert_string_equal(fixture->saved, "1:step 1 paused");
    assert_int_equal(jobs_result(fixture->jobs, "a", &blob, &error), ERROR_BUSY);
}

static void but_not_a_job_that_was_cancelled(void **state)
{
    struct fixture *fixture = *state;
    struct blob *blob;
    struct error error;
    enum job_state after;
    submit(fixture);
    runner_turn(fixture->runner, 0);
    assert_int_equal(jobs_cancel(fixture->jobs, "a", NULL, &after, &error), 0);
    runner_stop(fixture->runner);
    runner_turn(fixture->runner, 0);
    assert_string_equal(fixture->saved, "");
    assert_int_equal(jobs_result(fixture->jobs, "a", &blob, &error), ERROR_CANCELLED);
}

static void keep_no_journal(struct fixture *fixture)
{
    struct error error;
    runner_close(fixture->runner);
    assert_int_equal(runner_open(&fixture->runner, &fixture->options, fixture->jobs, fixture->residency,
                                 fixture->device.kernels, NULL, NULL, &error), 0);
}

static void and_without_a_journal_it_cancels_what_is_open(void **state)
{
    struct fixture *fixture = *state;
    struct blob *blob;
    struct error error;
    keep_no_journal(fixture);
    submit(fixture);
    stop_after_a_step(fixture);
    assert_int_equal(jobs_result(fixture->jobs, "a", &blob, &error), ERROR_CANCELLED);
}

/* ---- Several at once ---- */

/* What a job's clients were told, by the first letters of the events and, of progress, the step: " q s 1 2 p 3 d". */
static void assert_told(struct fixture *fixture, const char *id, const char *expected)
{
    struct job_news news;
    struct error error;
    bool parked;
    char told[200] = "";
    const cJSON *event;
    assert_int_equal(jobs_news(fixture->jobs, id, 0, NULL, &parked, &news, &error), 0);
    cJSON_ArrayForEach(event, news.events)
    {
        const char *name = json_text(event, "event"), *stage = json_text(event, "stage");
        char *end = told + strlen(told);
        const size_t room = sizeof told - strlen(told);
        if (stage && strcmp(stage, "load") != 0)
            snprintf(end, room, " %d", cJSON_GetObjectItem(event, "step")->valueint);
        else if (!stage)
            snprintf(end, room, " %c", name[0]);
    }
    job_news_clear(&news);
    assert_string_equal(told, expected);
}

/* The bytes of a picture that was never interrupted. */
static void assert_pixels(struct fixture *fixture, const char *id)
{
    struct blob *blob;
    struct message *message;
    struct error error;
    assert_int_equal(jobs_result(fixture->jobs, id, &blob, &error), 0);
    assert_int_equal(message_parse(&message, blob->data, blob->bytes, 0, &error), 0);
    const struct tensor_view *pixels = message_tensor(message, "pixels");
    assert_non_null(pixels);
    for (size_t i = 0; i < pixels->bytes; i++)
        assert_int_equal(((const uint8_t *)pixels->data)[i], fake_pixel(42, i));
    message_close(message);
    blob_close(blob);
}

static bool is_done(struct fixture *fixture, const char *id)
{
    struct job_status status;
    return jobs_find(fixture->jobs, id, &status) && status.state == JOB_DONE;
}

static void turns(struct fixture *fixture, int count)
{
    for (int i = 0; i < count; i++)
        runner_turn(fixture->runner, 0);
}

static void a_question_is_answered_between_two_steps_of_a_picture(void **state)
{
    struct fixture *fixture = *state;
    keep_no_journal(fixture);
    submit(fixture);
    turns(fixture, 3); /* begun, and two steps */
    submit_as(fixture, "q", JOB_INTERACTIVE, "what is it?");
    turns(fixture, 4); /* begun, and three steps */
    assert_true(is_done(fixture, "q"));
    assert_told(fixture, "q", " q s 1 t 2 t 3 t d");
    run(fixture);
    assert_told(fixture, "a", " q s 1 2 p 3 4 5 d");
    assert_pixels(fixture, "a");
    cJSON *receipt = receipt_of(fixture);
    assert_true(cJSON_GetObjectItem(receipt, "paused_seconds")->valuedouble > 0);
    cJSON_Delete(receipt);
}

static void where_the_memory_is_short_the_picture_is_suspended_and_goes_on_with_the_same_bytes(void **state)
{
    struct fixture *fixture = *state;
    keep_no_journal(fixture);
    submit_as(fixture, "a", JOB_NORMAL, "large");
    turns(fixture, 3);
    submit_as(fixture, "q", JOB_INTERACTIVE, "large: what is it?");
    turns(fixture, 4);
    assert_true(is_done(fixture, "q"));
    run(fixture);
    assert_told(fixture, "a", " q s 1 2 p 3 4 5 d");
    assert_pixels(fixture, "a");
    cJSON *receipt = receipt_of(fixture);
    assert_null(json_text(receipt, "state_not_used"));
    cJSON_Delete(receipt);
}

static void one_that_has_no_memory_when_it_is_its_turn_again_fails_in_words(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    struct blob *unused;
    keep_no_journal(fixture);
    submit_as(fixture, "a", JOB_NORMAL, "large");
    turns(fixture, 3);
    submit_as(fixture, "q", JOB_INTERACTIVE, "large: what is it?");
    turns(fixture, 3);
    fixture->options.memory_limit_bytes = 1; /* the machine has other things to do by now */
    residency_unload(fixture->residency);
    turns(fixture, 1);
    assert_true(is_done(fixture, "q"));
    residency_unload(fixture->residency);
    run(fixture);
    assert_int_equal(jobs_result(fixture->jobs, "a", &unused, &error), ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "was suspended for others, and cannot go on: the job needs"));
}

static void a_question_waits_for_one_whose_state_there_is_no_memory_for(void **state)
{
    struct fixture *fixture = *state;
    keep_no_journal(fixture);
    submit_as(fixture, "a", JOB_NORMAL, "large and stubborn");
    turns(fixture, 3);
    submit_as(fixture, "q", JOB_INTERACTIVE, "large: what is it?");
    turns(fixture, 2);
    assert_false(is_done(fixture, "q"));
    run(fixture);
    assert_true(is_done(fixture, "a"));
    assert_true(is_done(fixture, "q"));
    assert_pixels(fixture, "a");
}

static void a_batch_job_has_a_tenth_of_the_time_beside_others(void **state)
{
    struct fixture *fixture = *state;
    keep_no_journal(fixture);
    submit_as(fixture, "b", JOB_BATCH, "sleep 5");
    turns(fixture, 2);
    for (int i = 0; i < 9; i++) {
        char id[8];
        snprintf(id, sizeof id, "n%d", i);
        submit_as(fixture, id, JOB_NORMAL, "sleep 5");
    }
    while (!is_done(fixture, "n8"))
        turns(fixture, 1);
    struct job_news news;
    struct error error;
    bool parked;
    int steps = 0;
    const cJSON *event;
    assert_int_equal(jobs_news(fixture->jobs, "b", 0, NULL, &parked, &news, &error), 0);
    cJSON_ArrayForEach(event, news.events)
        if (json_text(event, "stage") && strcmp(json_text(event, "stage"), "denoise") == 0)
            steps++;
    job_news_clear(&news);
    assert_in_range(steps, 4, 5); /* one before, and one for every nine of the 45 */
    while (runner_has_open(fixture->runner))
        turns(fixture, 1);
}

static void a_paused_job_that_is_cancelled_ends_before_the_next_step(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    enum job_state unused;
    keep_no_journal(fixture);
    submit(fixture);
    turns(fixture, 2);
    submit_as(fixture, "q", JOB_INTERACTIVE, "what is it?");
    turns(fixture, 2);
    assert_int_equal(jobs_cancel(fixture->jobs, "a", NULL, &unused, &error), 0);
    turns(fixture, 1);
    assert_told(fixture, "a", " q s 1 p c");
    run(fixture);
    assert_true(is_done(fixture, "q"));
}

static int count_any(void *context, uint64_t job, void **state, size_t *bytes, int *attempt, struct error *error)
{
    struct fixture *fixture = context;
    (void)error;
    snprintf(fixture->saved + strlen(fixture->saved), 10, "%s%d ", state ? "+" : "~", (int)job);
    if (state) { /* its state is read when it begins, and not when it only counts again */
        *state = NULL;
        *bytes = 0;
    }
    *attempt = 1;
    return 0;
}

static void note_any_pause(void *context, uint64_t job)
{
    struct fixture *fixture = context;
    snprintf(fixture->saved + strlen(fixture->saved), 10, "-%d ", (int)job);
}

static void the_attempt_at_a_job_does_not_count_while_it_is_paused(void **state)
{
    struct fixture *fixture = *state;
    fixture->attempts.start = count_any;
    fixture->attempts.pause = note_any_pause;
    submit(fixture);
    turns(fixture, 2);
    submit_as(fixture, "q", JOB_INTERACTIVE, "what is it?");
    run(fixture);
    assert_string_equal(fixture->saved, "+1 -1 +2 ~1 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_jobs_state_is_kept_after_every_so_many_steps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(or_when_so_many_seconds_have_passed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(and_not_at_all_unless_that_is_asked_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_job_goes_on_from_the_state_that_was_left_and_its_receipt_says_so, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_state_that_cannot_be_used_has_the_job_begin_anew_and_its_receipt_says_why,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_job_whose_attempt_cannot_be_counted_fails_before_its_first_step, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_runner_that_is_to_stop_leaves_what_is_open_to_the_next_daemon, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(but_not_a_job_that_was_cancelled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(and_without_a_journal_it_cancels_what_is_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_question_is_answered_between_two_steps_of_a_picture, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            where_the_memory_is_short_the_picture_is_suspended_and_goes_on_with_the_same_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_has_no_memory_when_it_is_its_turn_again_fails_in_words, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_question_waits_for_one_whose_state_there_is_no_memory_for, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_batch_job_has_a_tenth_of_the_time_beside_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_paused_job_that_is_cancelled_ends_before_the_next_step, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_attempt_at_a_job_does_not_count_while_it_is_paused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
