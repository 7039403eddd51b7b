/* test_server_process.c: how a lanced starts and ends, and what it leaves behind. */
#include "tests/unit/server_fixture.h"

static void a_second_daemon_on_a_socket_is_refused_and_harms_nothing(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    pid_t first = fixture->pid;
    START(fixture);
    pid_t second = fixture->pid;
    fixture->pid = first;
    assert_int_equal(end_of(second), 1);
    assert_log_has(fixture, "another lanced (process ");
    do_it(client, "hello", NULL);
    struct client *newcomer = connect_to(fixture);
    assert_int_equal(whole(client_hello(newcomer), "pid"), first);
    client_close(newcomer);
    client_close(client);
}

static void a_socket_left_by_a_crash_is_taken_over(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 200", ",\"num_inference_steps\":1000"));
    wait_until_running(client, "a");
    kill(fixture->pid, SIGKILL);
    assert_int_equal(end_of(fixture->pid), 128 + SIGKILL);
    struct stat info;
    char path[120];
    snprintf(path, sizeof path, "%s/socket", fixture->folder);
    assert_int_equal(stat(path, &info), 0);
    START(fixture);
    struct story story = {0};
    struct error error;
    assert_int_equal(client_follow(client, "a", tell, &story, &error), ERROR_NOT_FOUND);
    assert_non_null(strstr(error.text, "was restarted and the job is lost"));
    do_it(client, "submit", t2i("a", "a fox", ""));
    assert_done(client, "a");
    client_close(client);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
}

static void a_daemon_that_went_away_is_noticed(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    kill(fixture->pid, SIGKILL);
    end_of(fixture->pid);
    fixture->pid = 0;
    assert_refused(client, "hello", NULL, NULL, ERROR_IO, "the daemon went away");
    client_close(client);
    struct error error;
    const struct client_options options = {.endpoint = fixture->endpoint, .name = "test"};
    assert_int_equal(client_open(&client, &options, &error), ERROR_IO);
    assert_non_null(strstr(error.text, "no lanced answers at"));
}

static void a_file_that_is_no_socket_is_left_alone(void **state)
{
    struct fixture *fixture = *state;
    char path[120];
    snprintf(path, sizeof path, "%s/socket", fixture->folder);
    FILE *file = fopen(path, "w");
    fputs("precious", file);
    fclose(file);
    START(fixture);
    assert_int_equal(end_of(fixture->pid), 1);
    fixture->pid = 0;
    assert_log_has(fixture, "exists and is no socket");
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, 8);
}

/* Follow a job in a thread while the daemon ends; says how the job ended, and fetches its result. */
static void *follow_and_fetch(void *argument)
{
    struct follower *follower = argument;
    struct error error;
    struct client *client = connect_to(follower->fixture);
    follower->status = client_follow(client, follower->job, tell, &follower->story, &error);
    if (follower->status == 0)
        follower->status = client_job_request(client, "result", follower->job, NULL, &error);
    client_close(client);
    return NULL;
}

/* A signal, and a wish to end, take a moment. */
static void wait_until_shutting_down(struct client *client)
{
    for (bool shutting_down = false; !shutting_down; nng_msleep(5)) {
        struct message *answer = get(client, "hello", NULL);
        shutting_down = cJSON_IsTrue(cJSON_GetObjectItem(message_envelope(answer), "shutting_down"));
        message_close(answer);
    }
}

static void assert_end(struct fixture *fixture, int expected, const char *words, bool by_request, const char *mode)
{
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 200", ",\"num_inference_steps\":6"));
    do_it(client, "submit", t2i("b", "sleep 10", ""));
    wait_until_running(client, "a");
    struct follower followers[] = {{.fixture = fixture, .job = "a"}, {.fixture = fixture, .job = "b"}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, follow_and_fetch, &followers[i]), 0);
    nng_msleep(300); /* both follow now */
    if (by_request)
        do_it(client, "shutdown", json("{\"mode\":\"%s\"}", mode));
    else
        kill(fixture->pid, SIGTERM);
    if (expected == 0) {
        wait_until_shutting_down(client);
        struct error error;
        assert_int_equal(ask(client, "submit", t2i("late", "a fox", ""), NULL, &(struct message *){NULL}, &error),
                         ERROR_BUSY);
        assert_non_null(strstr(error.text, "shutting down"));
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    client_close(client);
    assert_int_equal(end_of(fixture->pid), 0);
    fixture->pid = 0;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(followers[i].status, expected);
        assert_non_null(strstr(followers[i].story.text, words));
    }
    struct stat info;
    char path[120];
    snprintf(path, sizeof path, "%s/socket", fixture->folder);
    assert_int_equal(stat(path, &info), -1);
}

static void sigterm_finishes_the_jobs_and_lets_their_results_be_fetched(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    assert_end(fixture, 0, "done", false, NULL);
}

static void sigterm_cancels_the_jobs_when_told_so_at_start(void **state)
{
    struct fixture *fixture = *state;
    START(fixture, "--on-term", "cancel");
    assert_end(fixture, ERROR_CANCELLED, "cancelled", false, NULL);
}

static void a_client_can_have_the_daemon_finish(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    assert_end(fixture, 0, "done", true, "finish");
}

static void a_client_can_have_the_daemon_cancel(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    assert_end(fixture, ERROR_CANCELLED, "cancelled", true, "cancel");
}

static void a_daemon_ends_while_it_loads(void **state)
{
    struct fixture *fixture = *state;
    strcpy(fixture->model, fixture->slow_model);
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "shutdown", json("{\"mode\":\"cancel\"}"));
    client_close(client);
    assert_int_equal(end_of(fixture->pid), 0);
    fixture->pid = 0;
}

static void wrong_command_lines_are_explained(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *option, *value, *words;
    } wrong[] = {
        {"--threads", "many", "--threads: must be a whole number from 1"},
        {"--queue", "0", "--queue: must be a whole number from 1"},
        {"--blob-bytes", "12X", "--blob-bytes: must be a number of bytes"},
        {"--on-term", "explode", "--on-term: must be finish or cancel"},
        {"--model", "/nowhere/at/all", "--model /nowhere/at/all: No such file"},
        {"--endpoint", "tcp://0.0.0.0:8471", "is not a loopback address"},
        {"--endpoint", "tcp://127.example.org:8471", "is not a loopback address"},
        {"--endpoint", "tcp://127.0.0.1:1@0.0.0.0:8471", "is not a loopback address"},
        {"--endpoint", "http://x", "must begin with ipc://, tcp:// or tls+tcp://"},
        {"--endpoint", "ipc://relative", "needs an absolute path"},
        {"--token-file", "/dev/null", "the token must have 16 to"},
        {"--colour", "red", "--colour: is no option of lanced"},
        {"--log-level", "loud", "--log-level: must be"},
        {"DIR", NULL, "takes options only"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        START(fixture, wrong[i].option, wrong[i].value);
        assert_int_equal(end_of(fixture->pid), 2);
        fixture->pid = 0;
        assert_log_has(fixture, wrong[i].words);
    }
}

static void the_default_endpoint_is_in_a_folder_of_the_user_alone(void **state)
{
    struct fixture *fixture = *state;
    char runtime[120], folder[140];
    snprintf(runtime, sizeof runtime, "%s/run", fixture->folder);
    assert_int_equal(mkdir(runtime, 0700), 0);
    snprintf(folder, sizeof folder, "%s/lanced", runtime);
    setenv("XDG_RUNTIME_DIR", runtime, 1);
    unsetenv("LANCED_ENDPOINT");
    struct endpoint endpoint;
    struct error error;
    assert_int_equal(endpoint_resolve(&endpoint, NULL, &error), 0);
    assert_string_equal(endpoint.path + strlen(folder), "/lanced.ipc");
    snprintf(fixture->endpoint, sizeof fixture->endpoint, "%s", endpoint.url);
    START(fixture);
    client_close(connect_to(fixture));
    struct stat info;
    assert_int_equal(stat(folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    kill(fixture->pid, SIGTERM);
    assert_int_equal(end_of(fixture->pid), 0);
    assert_int_equal(chmod(folder, 0755), 0);
    START(fixture);
    assert_int_equal(end_of(fixture->pid), 1);
    fixture->pid = 0;
    assert_log_has(fixture, "nobody else can enter");
    unsetenv("XDG_RUNTIME_DIR");
}

int main(int argc, char **argv)
{
    int code;
    if (ran_as_lanced(argc, argv, &code))
        return code;
    const struct CMUnitTest tests[] = {
        SERVER_TEST(a_second_daemon_on_a_socket_is_refused_and_harms_nothing),
        SERVER_TEST(a_socket_left_by_a_crash_is_taken_over),
        SERVER_TEST(a_daemon_that_went_away_is_noticed),
        SERVER_TEST(a_file_that_is_no_socket_is_left_alone),
        SERVER_TEST(sigterm_finishes_the_jobs_and_lets_their_results_be_fetched),
        SERVER_TEST(sigterm_cancels_the_jobs_when_told_so_at_start),
        SERVER_TEST(a_client_can_have_the_daemon_finish),
        SERVER_TEST(a_client_can_have_the_daemon_cancel),
        SERVER_TEST(a_daemon_ends_while_it_loads),
        SERVER_TEST(wrong_command_lines_are_explained),
        SERVER_TEST(the_default_endpoint_is_in_a_folder_of_the_user_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
