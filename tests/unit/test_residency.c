/* test_residency.c: which models are in memory when there is room for two, and whose files have changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/device.h"
#include "daemon/residency.h"
#include "tests/unit/fake_engine.h"

enum { A, B, C, BROKEN, MODELS };

struct fixture {
    struct options options;
    struct device device;
    struct residency *residency;
    char folder[64], folders[MODELS][80];
    int loads; /* that on_load was called for */
};

static void write_file(struct fixture *fixture, int index, const char *name, const char *text)
{
    char path[120];
    snprintf(path, sizeof path, "%s/%s", fixture->folders[index], name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void write_weights(struct fixture *fixture, int index, const char *text)
{
    write_file(fixture, index, "weights", text);
}

static void on_load(void *context)
{
    ((struct fixture *)context)->loads++;
}

static int set_up(void **state)
{
    static const char *const names[MODELS] = {"a", "b", "c", "broken"};
    struct fixture *fixture = *state = calloc(1, sizeof *fixture);
    struct error error;
    strcpy(fixture->folder, "/tmp/lanced-residency-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    for (int i = 0; i < MODELS; i++) {
        snprintf(fixture->folders[i], sizeof fixture->folders[i], "%s/%s", fixture->folder, names[i]);
        assert_int_equal(mkdir(fixture->folders[i], 0700), 0);
        write_weights(fixture, i, "what was there first");
        snprintf(fixture->options.models[i].name, sizeof fixture->options.models[i].name, "%s", names[i]);
        fixture->options.models[i].directory = fixture->folders[i];
    }
    char broken[120];
    snprintf(broken, sizeof broken, "%s/broken", fixture->folders[BROKEN]);
    assert_int_equal(mkdir(broken, 0700), 0);
    fixture->options.model_count = MODELS;
    fixture->options.models_resident = 2;
    fixture->options.backend.backend = BACKEND_CPU;
    assert_int_equal(device_open(&fixture->device, &fixture->options, &error), 0);
    assert_int_equal(residency_open(&fixture->residency, &fixture->options, fixture->device.kernels, &error), 0);
    residency_on_load(fixture->residency, on_load, fixture);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    char command[100];
    residency_close(fixture->residency);
    device_close(&fixture->device);
    snprintf(command, sizeof command, "rm -rf %s", fixture->folder);
    int removed = system(command);
    free(fixture);
    return removed;
}

static void load(struct fixture *fixture, int index)
{
    struct error error;
    if (residency_load(fixture->residency, index, &error) != 0)
        fail_msg("%s", error.text);
}

/* The names of the models in memory, such as "ac". */
static void assert_in_memory(struct fixture *fixture, const char *expected)
{
    char found[MODELS + 1] = "";
    for (int i = 0; i < MODELS; i++)
        if (residency_is_loaded(fixture->residency, i))
            strncat(found, fixture->options.models[i].name, 1);
    assert_string_equal(found, expected);
}

static int latest_of(struct fixture *fixture)
{
    struct residency_status status;
    residency_status(fixture->residency, &status);
    return status.loaded;
}

static void the_model_that_was_not_used_for_longest_makes_room(void **state)
{
    struct fixture *fixture = *state;
    load(fixture, A);
    load(fixture, B);
    assert_in_memory(fixture, "ab");
    residency_hold(fixture->residency, A);
    residency_let_go(fixture->residency, A);
    assert_int_equal(latest_of(fixture), A);
    load(fixture, C);
    assert_in_memory(fixture, "ac");
    assert_int_equal(fixture->loads, 3);
    residency_unload(fixture->residency);
    assert_in_memory(fixture, "");
    assert_int_equal(latest_of(fixture), -1);
}

static void a_model_that_is_held_stays(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    load(fixture, A);
    load(fixture, B);
    residency_hold(fixture->residency, A);
    load(fixture, C);
    assert_in_memory(fixture, "ac");
    residency_hold(fixture->residency, C);
    assert_int_equal(residency_load(fixture->residency, B, &error), ERROR_BUSY);
    assert_non_null(strstr(error.text, "the 2 that are in memory are in use"));
    residency_unload(fixture->residency);
    assert_in_memory(fixture, "ac");
    residency_let_go(fixture->residency, A);
    load(fixture, B);
    assert_in_memory(fixture, "bc");
    residency_let_go(fixture->residency, C);
}

static void there_is_one_where_memory_lacks_for_two(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    load(fixture, A);
    assert_true(residency_has_room(fixture->residency, B));
    fixture->options.memory_limit_bytes = UINT64_C(1) << 60; /* what jobs are to have beside the weights */
    assert_false(residency_has_room(fixture->residency, B));
    assert_true(residency_has_room(fixture->residency, A));
    residency_hold(fixture->residency, A);
    assert_int_equal(residency_load(fixture->residency, B, &error), ERROR_BUSY);
    residency_let_go(fixture->residency, A);
    load(fixture, B);
    assert_in_memory(fixture, "b");
    assert_true(residency_has_room(fixture->residency, B));
}

static void jobs_of_a_model_may_take_what_those_of_others_have_left(void **state)
{
    struct fixture *fixture = *state;
    struct residency_status status;
    fixture->options.memory_limit_bytes = 5000;
    load(fixture, A);
    load(fixture, B);
    residency_status(fixture->residency, &status);
    assert_int_equal(status.memory_limit_bytes, 5000);
    assert_int_equal(status.all_held.weight_bytes, 2000);
    struct lance_model *a = residency_hold(fixture->residency, A), *b = residency_hold(fixture->residency, B);
    assert_int_equal(a->limit_bytes, 5000);
    assert_false(residency_is_alone(fixture->residency));
    residency_let_go(fixture->residency, B);
    a->promised_bytes = 3000; /* its job is promised that, and B is asked for again */
    residency_note(fixture->residency, A);
    residency_hold(fixture->residency, B);
    assert_int_equal(b->limit_bytes, 2000);
    assert_int_equal(a->limit_bytes, 5000);
    a->promised_bytes = 0;
    residency_let_go(fixture->residency, A);
    residency_let_go(fixture->residency, B);
    residency_hold(fixture->residency, B);
    assert_int_equal(b->limit_bytes, 5000);
    assert_true(residency_give_way(fixture->residency, B));
    assert_true(residency_is_alone(fixture->residency));
    assert_false(residency_give_way(fixture->residency, B));
    assert_in_memory(fixture, "b");
    residency_let_go(fixture->residency, B);
}

static void a_failed_load_is_remembered_for_who_asked_and_leaves_a_model_serving(void **state)
{
    struct fixture *fixture = *state;
    struct error error, why;
    load(fixture, A);
    const uint64_t before = residency_attempts(fixture->residency);
    assert_int_equal(residency_load(fixture->residency, BROKEN, &error), ERROR_BAD_FILE);
    assert_true(residency_has_failed(fixture->residency, BROKEN, before, &why));
    assert_string_equal(why.text, error.text);
    assert_false(residency_has_failed(fixture->residency, A, 0, &why));
    assert_false(residency_has_failed(fixture->residency, BROKEN, before + 1, &why)); /* it may be whole by now */
    assert_in_memory(fixture, "a");
}

static void a_load_that_fails_leaves_the_one_model_that_may_be_in_memory(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    fixture->options.models_resident = 1;
    load(fixture, A);
    assert_int_equal(residency_load(fixture->residency, BROKEN, &error), ERROR_BAD_FILE);
    assert_null(strstr(error.text, "made room"));
    assert_in_memory(fixture, "a");
    assert_int_equal(latest_of(fixture), A);
    load(fixture, B);
    assert_in_memory(fixture, "b");
}

/* One model has room at a time: jobs are to have more than there is beside the weights. */
static void have_room_for_one(struct fixture *fixture)
{
    fixture->options.models_resident = 1;
    fixture->options.memory_limit_bytes = UINT64_C(1) << 60;
}

static uint64_t count_unloads(struct fixture *fixture)
{
    struct residency_status status;
    residency_status(fixture->residency, &status);
    return status.unloads;
}

static void a_model_that_can_be_seen_to_be_broken_takes_nobodys_place(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    have_room_for_one(fixture);
    load(fixture, A);
    assert_int_equal(residency_load(fixture->residency, BROKEN, &error), ERROR_BAD_FILE);
    assert_null(strstr(error.text, "made room"));
    assert_in_memory(fixture, "a");
    assert_int_equal(count_unloads(fixture), 0);
    assert_true(residency_has_failed(fixture->residency, BROKEN, 0, &error));
}

static void a_model_that_is_known_to_be_too_large_takes_nobodys_place(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    write_file(fixture, B, "huge", "");
    load(fixture, B);
    residency_unload(fixture->residency);
    load(fixture, A);
    assert_int_equal(residency_load(fixture->residency, B, &error), ERROR_NO_MEMORY);
    assert_non_null(strstr(error.text, "its weights take 1152921504606.8 MB, and with no other model in memory"));
    assert_in_memory(fixture, "a");
    assert_int_equal(count_unloads(fixture), 1);
}

static void what_made_room_for_a_load_that_fails_is_loaded_again(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    have_room_for_one(fixture);
    write_file(fixture, B, "rotten", "");
    load(fixture, A);
    assert_int_equal(residency_load(fixture->residency, B, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "cannot be read in"));
    assert_non_null(strstr(error.text, "; model a, which had made room for it, is loaded again"));
    assert_in_memory(fixture, "a");
    assert_int_equal(latest_of(fixture), A);
    assert_int_equal(count_unloads(fixture), 1);
    assert_true(residency_has_failed(fixture->residency, B, 0, &error));
}

static void what_cannot_be_loaded_again_after_a_load_that_failed_is_named(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    int next;
    have_room_for_one(fixture);
    write_file(fixture, B, "rotten", "");
    load(fixture, A);
    write_file(fixture, A, "rotten", "");
    assert_int_equal(residency_load(fixture->residency, B, &error), ERROR_BAD_FILE);
    assert_non_null(
        strstr(error.text, "; model a had made room for it, and cannot be loaded again: model.safetensors"));
    assert_in_memory(fixture, "");
    assert_int_equal(residency_find(fixture->residency, NULL, &next, &error), 0);
    assert_int_equal(next, A);
}

static void files_that_change_concern_their_model_alone(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    load(fixture, A);
    load(fixture, B);
    write_weights(fixture, A, "something else");
    assert_int_equal(residency_check_files(fixture->residency, B, &error), 0);
    assert_int_equal(residency_check_files(fixture->residency, A, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "a/weights: was rewritten while it was in use"));
    residency_drop_changed(fixture->residency, B, "job");
    assert_in_memory(fixture, "ab");
    residency_drop_changed(fixture->residency, A, "job");
    assert_in_memory(fixture, "b");
    load(fixture, A);
    assert_int_equal(residency_check_files(fixture->residency, A, &error), 0);
}

static void each_model_is_unloaded_when_it_has_been_idle_for_long_enough(void **state)
{
    struct fixture *fixture = *state;
    assert_true(residency_idle_end(fixture->residency) <= 0);
    load(fixture, A);
    assert_true(residency_idle_end(fixture->residency) <= 0); /* the options say so */
    fixture->options.idle_unload_seconds = 0.05;
    residency_hold(fixture->residency, A);
    load(fixture, B);
    fake_sleep(60);
    residency_unload_idle(fixture->residency);
    assert_in_memory(fixture, "a");
    residency_let_go(fixture->residency, A);
    assert_true(residency_idle_end(fixture->residency) > 0);
    residency_unload_idle(fixture->residency);
    assert_in_memory(fixture, "a"); /* its job has just ended */
    fake_sleep(60);
    residency_unload_idle(fixture->residency);
    assert_in_memory(fixture, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_model_that_was_not_used_for_longest_makes_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_model_that_is_held_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(there_is_one_where_memory_lacks_for_two, set_up, tear_down),
        cmocka_unit_test_setup_teardown(jobs_of_a_model_may_take_what_those_of_others_have_left, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_load_is_remembered_for_who_asked_and_leaves_a_model_serving, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_load_that_fails_leaves_the_one_model_that_may_be_in_memory, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_model_that_can_be_seen_to_be_broken_takes_nobodys_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_model_that_is_known_to_be_too_large_takes_nobodys_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_made_room_for_a_load_that_fails_is_loaded_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_loaded_again_after_a_load_that_failed_is_named, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(files_that_change_concern_their_model_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(each_model_is_unloaded_when_it_has_been_idle_for_long_enough, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
