/* test_schedule.c: who is next among classes and among clients, as the job table gives out its jobs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "daemon/jobs/jobs.h"
#include "daemon/jobs/schedule.h"

static int open_table(void **state)
{
    static const struct jobs_limits roomy = {
        .queue = 1000, .queue_bytes = 1 << 20, .results = 1, .result_bytes = 1 << 20, .result_seconds = 1000};
    struct error error;
    return jobs_open((struct jobs **)state, &roomy, &error);
}

static int close_table(void **state)
{
    jobs_close(*state);
    return 0;
}

/* Ids must be told apart by their beginning. */
static void submit(struct jobs *jobs, const char *id, const char *client, enum job_class priority)
{
    struct job_status status;
    struct error error;
    bool parked;
    const struct job_order order = {.request = malloc(1), .close = free, .bytes = 1, .is_complete = true,
                                    .digest = "0", .task = "t2i", .client = client, .priority = priority};
    assert_int_equal(jobs_submit(jobs, id, &order, NULL, &parked, &status, &error), 0);
}

static void submit_many(struct jobs *jobs, int count, const char *client, enum job_class priority)
{
    for (int i = 0; i < count; i++) {
        char id[20];
        snprintf(id, sizeof id, "%s%d", client, i + 1);
        submit(jobs, id, client, priority);
    }
}

static struct job *take(struct jobs *jobs)
{
    return jobs_take(jobs, clock_seconds() - 1);
}

static void end(struct jobs *jobs, struct job *job)
{
    jobs_end(jobs, job, blob_open(calloc(1, 1), 1), NULL);
}

static void submit_for(struct jobs *jobs, const char *id, const char *client, const char *model,
                       enum job_class priority)
{
    struct job_status status;
    struct error error;
    bool parked;
    const struct job_order order = {.request = malloc(1), .close = free, .bytes = 1, .is_complete = true,
                                    .digest = "0", .task = "t2i", .client = client, .model = model,
                                    .priority = priority};
    assert_int_equal(jobs_submit(jobs, id, &order, NULL, &parked, &status, &error), 0);
}

/* A job had the device for so long. */
static void spend(struct jobs *jobs, struct job *job, double seconds)
{
    jobs_note_step(jobs, job, "denoise", seconds);
}

/* Do the next job, in one step of a second; its id goes behind `order`. False: there is none. */
static bool do_next(struct jobs *jobs, char *order, size_t bytes)
{
    struct job *job = take(jobs);
    if (!job)
        return false;
    snprintf(order + strlen(order), bytes - strlen(order), "%s%s", order[0] != '\0' ? " " : "", job_id(job));
    spend(jobs, job, 1);
    end(jobs, job);
    return true;
}

static void assert_order(struct jobs *jobs, const char *expected)
{
    char order[1000] = "";
    while (do_next(jobs, order, sizeof order))
        ;
    assert_string_equal(order, expected);
}

static void one_job_of_another_client_runs_second_behind_sixty(void **state)
{
    struct jobs *jobs = *state;
    char order[100] = "";
    submit_many(jobs, 60, "a", JOB_NORMAL);
    struct job *first = take(jobs);
    submit(jobs, "b1", "b", JOB_NORMAL);
    end(jobs, first);
    for (int i = 0; i < 3; i++)
        do_next(jobs, order, sizeof order);
    assert_string_equal(order, "b1 a2 a3");
}

static void clients_take_turns_in_the_order_in_which_they_came(void **state)
{
    struct jobs *jobs = *state;
    submit_many(jobs, 3, "a", JOB_NORMAL);
    submit_many(jobs, 2, "b", JOB_NORMAL);
    submit_many(jobs, 1, "c", JOB_NORMAL);
    assert_order(jobs, "a1 b1 c1 a2 b2 a3");
}

static void nobody_is_passed_over_by_clients_that_come_again_as_soon_as_they_are_served(void **state)
{
    struct jobs *jobs = *state;
    char order[200] = "";
    submit_many(jobs, 4, "a", JOB_NORMAL);
    submit(jobs, "b1", "b", JOB_NORMAL);
    submit(jobs, "c1", "c", JOB_NORMAL);
    for (int i = 2; i < 5; i++) {
        char id[8];
        for (int client = 0; client < 3; client++) {
            do_next(jobs, order, sizeof order);
            snprintf(id, sizeof id, "%c%d", "abc"[client], i);
            if (client > 0) /* the one that was just served asks again */
                submit(jobs, id, (const char *[]){"a", "b", "c"}[client], JOB_NORMAL);
        }
    }
    assert_string_equal(order, "a1 b1 c1 a2 b2 c2 a3 b3 c3");
}

static void jobs_that_were_cancelled_cost_their_client_nothing(void **state)
{
    struct jobs *jobs = *state;
    struct error error;
    enum job_state unused;
    submit(jobs, "x1", "x", JOB_NORMAL);
    submit_many(jobs, 3, "a", JOB_NORMAL);
    submit_many(jobs, 3, "b", JOB_NORMAL);
    assert_int_equal(jobs_cancel(jobs, "a1", NULL, &unused, &error), 0);
    assert_int_equal(jobs_cancel(jobs, "a2", NULL, &unused, &error), 0);
    assert_order(jobs, "x1 a3 b1 b2 b3");
}

static void more_clients_than_are_told_apart_are_all_served(void **state)
{
    struct jobs *jobs = *state;
    char order[1000] = "";
    enum { CLIENTS = 3 * SCHEDULE_MOST_CLIENTS };
    for (int i = 0; i < CLIENTS; i++) {
        char client[12];
        snprintf(client, sizeof client, "c%d", i);
        submit(jobs, client, client, JOB_NORMAL);
    }
    int count = 0;
    while (do_next(jobs, order, sizeof order))
        count++;
    assert_int_equal(count, CLIENTS);
}

static void classes_go_before_one_another_whoever_came_first(void **state)
{
    struct jobs *jobs = *state;
    submit(jobs, "batch", "a", JOB_BATCH);
    submit(jobs, "normal", "a", JOB_NORMAL);
    submit(jobs, "question", "a", JOB_INTERACTIVE);
    assert_order(jobs, "question normal batch");
}

static void a_batch_job_goes_ahead_when_a_tenth_of_the_time_is_due_to_it(void **state)
{
    struct jobs *jobs = *state;
    submit_many(jobs, 20, "a", JOB_NORMAL);
    submit_many(jobs, 3, "b", JOB_BATCH);
    assert_order(jobs, "a1 a2 a3 a4 a5 a6 a7 a8 a9 b1 a10 a11 a12 a13 a14 a15 a16 a17 a18 b2 a19 a20 b3");
}

/* Steps of these seconds, one class after the other as it is their turn: the part of the time that the last one got. */
static double share_of_batch(const double seconds[JOB_CLASSES], const bool wants[JOB_CLASSES])
{
    struct schedule schedule = {.pass = 0};
    double time[JOB_CLASSES] = {0}, all = 0;
    for (int i = 0; i < 100000; i++) {
        const enum job_class class = schedule_class(&schedule, wants);
        schedule_note(&schedule, class, seconds[class], wants);
        time[class] += seconds[class];
        all += seconds[class];
    }
    return time[JOB_BATCH] / all;
}

static void a_class_that_always_waits_gets_a_tenth_of_the_time_however_long_its_steps_are(void **state)
{
    (void)state;
    const bool two[JOB_CLASSES] = {false, true, true}, three[JOB_CLASSES] = {true, true, true};
    const double alike[JOB_CLASSES] = {1, 1, 1}, long_ones[JOB_CLASSES] = {0.1, 1, 60};
    assert_true(share_of_batch(alike, two) > 0.0999 && share_of_batch(alike, two) < 0.1001);
    assert_true(share_of_batch(long_ones, two) > 0.099 && share_of_batch(long_ones, two) < 0.101);
    assert_true(share_of_batch(alike, three) > 0.0999 && share_of_batch(alike, three) < 0.1001);
    assert_true(share_of_batch(long_ones, three) > 0.09 && share_of_batch(long_ones, three) < 0.11);
}

static void who_had_the_device_while_nobody_else_wanted_it_owes_nothing(void **state)
{
    (void)state;
    struct schedule schedule = {.pass = 0};
    const bool alone[JOB_CLASSES] = {false, false, true}, both[JOB_CLASSES] = {false, true, true};
    for (int i = 0; i < 1000; i++)
        schedule_note(&schedule, JOB_BATCH, 1, alone);
    assert_int_equal(schedule_class(&schedule, both), JOB_NORMAL);
    for (int i = 0; i < 9; i++)
        schedule_note(&schedule, JOB_NORMAL, 1, both);
    assert_int_equal(schedule_class(&schedule, both), JOB_BATCH);
}

/* The positions that a job was told, such as "1 2 1". */
static void assert_positions(struct jobs *jobs, const char *id, const char *expected)
{
    struct job_news news;
    struct error error;
    bool parked;
    char told[200] = "";
    uint64_t sequence = 0;
    const cJSON *event;
    assert_int_equal(jobs_news(jobs, id, 0, NULL, &parked, &news, &error), 0);
    cJSON_ArrayForEach(event, news.events)
    {
        assert_int_equal(cJSON_GetObjectItem(event, "sequence")->valueint, ++sequence);
        const cJSON *position = cJSON_GetObjectItem(event, "position");
        if (position)
            snprintf(told + strlen(told), sizeof told - strlen(told), "%s%d", told[0] != '\0' ? " " : "",
                     position->valueint);
    }
    job_news_clear(&news);
    assert_string_equal(told, expected);
}

static void a_job_that_is_overtaken_is_told_so(void **state)
{
    struct jobs *jobs = *state;
    submit_many(jobs, 3, "a", JOB_NORMAL);
    struct job *first = take(jobs);
    submit(jobs, "b1", "b", JOB_NORMAL);
    submit(jobs, "question", "b", JOB_INTERACTIVE);
    assert_positions(jobs, "b1", "1 2");
    assert_positions(jobs, "a2", "1 2 3");
    assert_positions(jobs, "question", "0");
    end(jobs, first);
    char order[100] = "";
    while (do_next(jobs, order, sizeof order))
        if (strcmp(order, "question b1") == 0)
            assert_positions(jobs, "a3", "2 3 4 3 2 1");
    assert_string_equal(order, "question b1 a2 a3");
}

/* Two clients with jobs for two models, of which the first has been loaded for the first client in so many seconds;
 * `count` 2: the other one was there already. */
static void submit_for_two_models(struct jobs *jobs, double load_seconds, int count)
{
    static const char *const in_memory[] = {"one", "two"};
    submit_for(jobs, "a1", "a", "one", JOB_NORMAL);
    struct job *first = take(jobs);
    jobs_note_in_memory(jobs, in_memory, count);
    jobs_note_model(jobs, first, "one", load_seconds);
    submit_for(jobs, "a2", "a", "one", JOB_NORMAL);
    submit_for(jobs, "a3", "a", "one", JOB_NORMAL);
    submit_for(jobs, "b1", "b", "two", JOB_NORMAL);
    submit_for(jobs, "b2", "b", "two", JOB_NORMAL);
    end(jobs, first);
}

static void a_model_that_was_long_to_load_stays_while_there_are_jobs_for_it(void **state)
{
    struct jobs *jobs = *state;
    char order[100] = "";
    submit_for_two_models(jobs, 100, 1);
    while (do_next(jobs, order, sizeof order))
        ;
    assert_string_equal(order, "a2 a3");
    struct job *job = jobs_take(jobs, clock_seconds() + 10); /* after a second without any */
    assert_non_null(job);
    assert_string_equal(job_id(job), "b1");
    end(jobs, job);
}

static void clients_take_turns_where_the_models_of_both_are_in_memory(void **state)
{
    struct jobs *jobs = *state;
    submit_for_two_models(jobs, 100, 2);
    assert_order(jobs, "b1 a2 b2 a3");
}

static void an_interactive_film_gives_way_to_the_questions_of_others(void **state)
{
    struct jobs *jobs = *state;
    submit(jobs, "film", "a", JOB_INTERACTIVE);
    struct job *film = take(jobs);
    jobs_note_step(jobs, film, "denoise", 100); /* nobody waited */
    submit(jobs, "q1", "b", JOB_INTERACTIVE);
    assert_ptr_equal(take(jobs), film);
    jobs_note_step(jobs, film, "denoise", 1);
    for (int i = 1; i <= 2; i++) {
        struct job *question = take(jobs);
        assert_string_equal(job_id(question), i == 1 ? "q1" : "q2");
        end(jobs, question);
        if (i == 1)
            submit(jobs, "q2", "b", JOB_INTERACTIVE);
    }
    assert_ptr_equal(take(jobs), film);
    end(jobs, film);
}

static void who_has_asked_for_a_model_waits_for_no_job_that_has_not_begun(void **state)
{
    struct jobs *jobs = *state;
    submit_many(jobs, 2, "a", JOB_NORMAL);
    struct job *first = take(jobs);
    jobs_hold_back(jobs, true);
    submit(jobs, "question", "b", JOB_INTERACTIVE);
    struct job *question = take(jobs);
    assert_string_equal(job_id(question), "question");
    end(jobs, question);
    assert_ptr_equal(take(jobs), first);
    end(jobs, first);
    assert_null(jobs_take(jobs, clock_seconds() - 1));
    jobs_hold_back(jobs, false);
    assert_order(jobs, "a2");
}

static void and_when_it_has_been_there_for_long_clients_take_turns_again(void **state)
{
    struct jobs *jobs = *state;
    submit_for_two_models(jobs, 0, 1);
    assert_order(jobs, "b1 a2 b2 a3");
}

static void a_question_waits_for_no_model_that_stays(void **state)
{
    struct jobs *jobs = *state;
    char order[100] = "";
    submit_for_two_models(jobs, 100, 1);
    submit_for(jobs, "c1", "c", "two", JOB_INTERACTIVE);
    assert_true(do_next(jobs, order, sizeof order));
    assert_string_equal(order, "c1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_table, close_table)
        TEST(one_job_of_another_client_runs_second_behind_sixty),
        TEST(clients_take_turns_in_the_order_in_which_they_came),
        TEST(nobody_is_passed_over_by_clients_that_come_again_as_soon_as_they_are_served),
        TEST(jobs_that_were_cancelled_cost_their_client_nothing),
        TEST(more_clients_than_are_told_apart_are_all_served),
        TEST(classes_go_before_one_another_whoever_came_first),
        TEST(a_batch_job_goes_ahead_when_a_tenth_of_the_time_is_due_to_it),
        TEST(a_class_that_always_waits_gets_a_tenth_of_the_time_however_long_its_steps_are),
        TEST(who_had_the_device_while_nobody_else_wanted_it_owes_nothing),
        TEST(a_job_that_is_overtaken_is_told_so),
        TEST(a_model_that_was_long_to_load_stays_while_there_are_jobs_for_it),
        TEST(a_question_waits_for_no_model_that_stays),
        TEST(and_when_it_has_been_there_for_long_clients_take_turns_again),
        TEST(clients_take_turns_where_the_models_of_both_are_in_memory),
        TEST(who_has_asked_for_a_model_waits_for_no_job_that_has_not_begun),
        TEST(an_interactive_film_gives_way_to_the_questions_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
