/* test_server_models.c: a lanced loads its models, replaces them and gives their memory back. */
#include "tests/unit/server_fixture.h"

static void weights_are_loaded_once_and_again_only_after_unload(void **state)
{
    struct fixture *fixture = *state;
    START(fixture, "--lazy");
    struct client *client = connect_to(fixture);
    assert_int_equal(stat_of(client, "loads"), 0);
    for (int i = 0; i < 3; i++) {
        char id[8];
        snprintf(id, sizeof id, "job%d", i);
        do_it(client, "submit", t2i(id, "a fox", ""));
        assert_done(client, id);
    }
    assert_int_equal(stat_of(client, "loads"), 1);
    do_it(client, "load", NULL);
    assert_int_equal(stat_of(client, "loads"), 1);
    struct message *answer = get(client, "unload", NULL);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(message_envelope(answer), "unloaded")));
    message_close(answer);
    answer = get(client, "unload", NULL);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(message_envelope(answer), "unloaded")));
    message_close(answer);
    answer = get(client, "hello", NULL);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(message_envelope(answer), "model")));
    message_close(answer);
    do_it(client, "submit", t2i("again", "a fox", ""));
    assert_done(client, "again");
    assert_int_equal(stat_of(client, "loads"), 2);
    client_close(client);
}

/* The answer to unload. */
static void assert_unloads(struct client *client, bool unloaded, bool pending)
{
    struct message *answer = get(client, "unload", NULL);
    assert_int_equal(cJSON_IsTrue(cJSON_GetObjectItem(message_envelope(answer), "unloaded")), unloaded);
    assert_int_equal(cJSON_IsTrue(cJSON_GetObjectItem(message_envelope(answer), "pending")), pending);
    message_close(answer);
}

static void weights_stay_while_a_job_needs_them(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 100", ""));
    do_it(client, "submit", t2i("b", "sleep 100", ""));
    wait_until_running(client, "a");
    assert_unloads(client, false, true); /* after a, before b */
    assert_int_equal(stat_of(client, "unloads"), 0);
    assert_done(client, "a");
    assert_done(client, "b");
    assert_int_equal(stat_of(client, "unloads"), 1);
    assert_int_equal(stat_of(client, "loads"), 2);
    assert_unloads(client, true, false);
    assert_unloads(client, false, false);
    client_close(client);
}

static void an_idle_model_gives_its_memory_back_and_returns_with_the_next_job(void **state)
{
    struct fixture *fixture = *state;
    char other[120];
    snprintf(other, sizeof other, "other=%s", fixture->model);
    START(fixture, "--idle-unload", "1", "--model", other);
    struct client *client = connect_to(fixture);
    do_it(client, "load", json("{\"model\":\"other\"}"));
    do_it(client, "submit", t2i("a", "sleep 500", "")); /* a job is not idle time, however long */
    assert_done(client, "a");
    int unloads = stat_of(client, "unloads");
    assert_int_equal(stat_of(client, "memory.held_bytes"), 1000);
    double before = clock_seconds();
    while (stat_of(client, "unloads") == unloads && clock_seconds() - before < 5)
        nng_msleep(20);
    assert_true(clock_seconds() - before > 0.7 && clock_seconds() - before < 3);
    assert_int_equal(stat_of(client, "memory.held_bytes"), 0);
    assert_int_equal(stat_of(client, "memory.weight_bytes"), 0);
    int loads = stat_of(client, "loads");
    do_it(client, "submit", t2i("b", "a fox", ""));
    assert_done(client, "b");
    assert_int_equal(stat_of(client, "loads"), loads + 1);
    struct message *answer = get(client, "hello", NULL);
    assert_string_equal(json_text(cJSON_GetObjectItem(message_envelope(answer), "model"), "name"),
                        "other"); /* the one it was */
    message_close(answer);
    client_close(client);
}

static void models_are_offered_by_name_and_replace_each_other(void **state)
{
    struct fixture *fixture = *state;
    char slow[120], broken[120];
    snprintf(slow, sizeof slow, "big=%s", fixture->slow_model);
    snprintf(broken, sizeof broken, "bad=%s/", fixture->broken_model);
    START(fixture, "--model", slow, "--model", broken);
    struct client *client = connect_to(fixture), *other = connect_to(fixture);
    do_it(client, "load", NULL);
    struct message *answer = get(client, "models", NULL);
    const cJSON *models = cJSON_GetObjectItem(message_envelope(answer), "models");
    assert_int_equal(cJSON_GetArraySize(models), 3);
    assert_string_equal(json_text(models->child, "name"), "fake");
    assert_string_equal(json_text(models->child, "kind"), "fake");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(models->child, "loaded")));
    assert_string_equal(json_text(models->child->next, "name"), "big");
    assert_string_equal(json_text(models->child->next, "path_hint"), "slow");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(models->child->next, "kind")));
    message_close(answer);

    assert_refused(client, "load", json("{\"model\":\"big\",\"timeout_ms\":50}"), NULL, ERROR_BUSY, "not loaded yet");
    double before = clock_seconds();
    do_it(other, "hello", NULL); /* while it loads */
    assert_true(clock_seconds() - before < 0.4);
    answer = get(client, "load", json("{\"model\":\"big\"}"));
    assert_string_equal(json_text(cJSON_GetObjectItem(message_envelope(answer), "model"), "name"), "big");
    message_close(answer);
    assert_refused(client, "load", json("{\"model\":\"bad\"}"), NULL, ERROR_BAD_FILE, "model.safetensors: missing");
    assert_refused(client, "load", json("{\"model\":\"worse\"}"), NULL, ERROR_NOT_FOUND, "offered: fake, big, bad");
    do_it(client, "submit", json("{\"job\":\"a\",\"model\":\"big\",\"task\":\"t2i\",\"params\":{\"prompt\":\"\"}}"));
    assert_done(client, "a");
    answer = get(client, "result", job_named("a"));
    const cJSON *model = cJSON_GetObjectItem(cJSON_GetObjectItem(message_envelope(answer), "receipt"), "model");
    assert_string_equal(json_text(model, "name"), "big");
    message_close(answer);
    client_close(client);
    client_close(other);
}

static void a_default_model_that_does_not_load_ends_the_daemon_with_its_reason(void **state)
{
    struct fixture *fixture = *state;
    strcpy(fixture->model, fixture->broken_model);
    START(fixture);
    assert_int_equal(end_of(fixture->pid), 1);
    fixture->pid = 0;
    assert_log_has(fixture, "lanced: model.safetensors: missing in ");
}

int main(int argc, char **argv)
{
    int code;
    if (ran_as_lanced(argc, argv, &code))
        return code;
    const struct CMUnitTest tests[] = {
        SERVER_TEST(weights_are_loaded_once_and_again_only_after_unload),
        SERVER_TEST(weights_stay_while_a_job_needs_them),
        SERVER_TEST(an_idle_model_gives_its_memory_back_and_returns_with_the_next_job),
        SERVER_TEST(models_are_offered_by_name_and_replace_each_other),
        SERVER_TEST(a_default_model_that_does_not_load_ends_the_daemon_with_its_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
