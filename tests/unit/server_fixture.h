/* server_fixture.h: what the tests of lanced as its clients see it share.
 *
 * A test program that includes this is also the daemon: started again with "--as-lanced" first, it runs daemon_run on
 * the fake engine. Each test has a daemon process of its own, and at the end of the test the daemon must end well, so
 * that a sanitizer's findings in it fail the test.
 *
 *   ./test_server --as-lanced --model DIR ...   a lanced with the fake engine, to try clients on
 */
#ifndef LANCE_TESTS_SERVER_FIXTURE_H
#define LANCE_TESTS_SERVER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "daemon/daemon.h"
#include "protocol/client.h"
#include "protocol/endpoint.h"
#include "tests/unit/fake_engine.h"

enum { START_TIMEOUT_MS = 20000, MAX_ARGUMENTS = 24 };

static const char *program; /* this one */

struct fixture {
    char folder[64];     /* holds everything below; removed at the end */
    char model[80];      /* an empty folder is a model for the fake engine */
    char slow_model[80];
    char broken_model[80];
    char endpoint[ENDPOINT_MAX_BYTES];
    char log[80];
    pid_t pid;           /* 0: none runs */
};

/* --- The daemon process ---------------------------------------------------------------- */

/* Start a daemon on the fixture's endpoint; `options` ends with NULL. */
static inline void start(struct fixture *fixture, const char *const *options)
{
    const char *arguments[MAX_ARGUMENTS] = {program, "--as-lanced", "--endpoint", fixture->endpoint, "--model",
                                            fixture->model};
    int count = 6;
    while (*options)
        arguments[count++] = *options++;
    fixture->pid = fork();
    assert_true(fixture->pid >= 0);
    if (fixture->pid == 0) {
        int log = open(fixture->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(log, STDERR_FILENO);
        dup2(log, STDOUT_FILENO);
        execv(program, (char *const *)arguments);
        _exit(127);
    }
}

#define START(fixture, ...) start(fixture, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

/* Wait for the daemon's end; returns its exit status, or 128 + the signal that killed it. */
static inline int end_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline void assert_log_has(const struct fixture *fixture, const char *text)
{
    static char log[200000];
    FILE *file = fopen(fixture->log, "r");
    assert_non_null(file);
    size_t length = fread(log, 1, sizeof log - 1, file);
    fclose(file);
    log[length] = '\0';
    if (!strstr(log, text))
        fail_msg("\"%s\" is not in the log:\n%s", text, log);
}

static inline void make_folder(char *path, size_t size, const char *parent, const char *name, const char *file)
{
    snprintf(path, size, "%s/%s", parent, name);
    assert_int_equal(mkdir(path, 0700), 0);
    if (!file)
        return;
    char file_path[120];
    snprintf(file_path, sizeof file_path, "%s/%s", path, file);
    int fd = open(file_path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static inline int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    strcpy(fixture->folder, "/tmp/lanced-test-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    make_folder(fixture->model, sizeof fixture->model, fixture->folder, "fake", NULL);
    make_folder(fixture->slow_model, sizeof fixture->slow_model, fixture->folder, "slow", "slow");
    make_folder(fixture->broken_model, sizeof fixture->broken_model, fixture->folder, "broken", "broken");
    snprintf(fixture->endpoint, sizeof fixture->endpoint, "ipc://%s/socket", fixture->folder);
    snprintf(fixture->log, sizeof fixture->log, "%s/log", fixture->folder);
    *state = fixture;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *fixture = *state;
    int status = 0;
    if (fixture->pid != 0) {
        kill(fixture->pid, SIGTERM);
        kill(fixture->pid, SIGTERM); /* twice cancels; one signal may swallow the other */
        nng_msleep(20);
        kill(fixture->pid, SIGTERM);
        status = end_of(fixture->pid);
    }
    if (status != 0) {
        char command[160];
        fprintf(stderr, "the daemon ended with status %d; its log:\n", status);
        snprintf(command, sizeof command, "tail -n 60 %s >&2", fixture->log);
        if (system(command) != 0)
            fprintf(stderr, "(no log)\n");
    }
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", fixture->folder);
    int removed = system(command);
    free(fixture);
    return status != 0 || removed != 0 ? -1 : 0;
}

/* --- Clients --------------------------------------------------------------------------- */

static inline struct client *connect_to(const struct fixture *fixture)
{
    struct client *client;
    struct error error = {0};
    const struct client_options options = {
        .endpoint = fixture->endpoint, .name = "test", .connect_timeout_ms = START_TIMEOUT_MS};
    if (client_open(&client, &options, &error) != 0)
        fail_msg("%s", error.text);
    return client;
}

/* printf for JSON. */
static inline cJSON *json(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline cJSON *json(const char *format, ...)
{
    char text[2000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cJSON *object = cJSON_Parse(text);
    if (!object)
        fail_msg("the test's JSON is wrong: %s", text);
    return object;
}

/* Ask; takes `fields`. Returns the status. */
static inline int ask(struct client *client, const char *request, cJSON *fields, const struct tensor_view *tensor,
               struct message **answer, struct error *error)
{
    memset(error, 0, sizeof *error);
    int code = client_request(client, request, fields, tensor, tensor != NULL, answer, error);
    cJSON_Delete(fields);
    return code;
}

/* Ask for something that must work. */
static inline struct message *get(struct client *client, const char *request, cJSON *fields)
{
    struct message *answer;
    struct error error;
    if (ask(client, request, fields, NULL, &answer, &error) != 0)
        fail_msg("%s: %s", request, error.text);
    return answer;
}

static inline void do_it(struct client *client, const char *request, cJSON *fields)
{
    message_close(get(client, request, fields));
}

/* Ask for something that must be refused with this code and a text that has `words`. */
static inline void assert_refused(struct client *client, const char *request, cJSON *fields,
                                  const struct tensor_view *tensor, int code, const char *words)
{
    struct message *answer;
    struct error error;
    int status = ask(client, request, fields, tensor, &answer, &error);
    if (status == 0)
        fail_msg("%s was not refused (%s)", request, words);
    if (status != code || !strstr(error.text, words))
        fail_msg("%s: expected %s with \"%s\", got %s: %s", request, error_name(code), words, error_name(status),
                 error.text);
}

static inline cJSON *t2i(const char *id, const char *prompt, const char *more)
{
    return json("{\"job\":\"%s\",\"task\":\"t2i\",\"params\":{\"prompt\":\"%s\"%s}}", id, prompt, more);
}

static inline cJSON *job_named(const char *id)
{
    return json("{\"job\":\"%s\"}", id);
}

static inline int whole(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(object, name);
    if (!cJSON_IsNumber(item))
        fail_msg("%s is missing", name);
    return item->valueint;
}

/* A number of stats, such as "loads" or "jobs.done". */
static inline int stat_of(struct client *client, const char *path)
{
    struct message *answer = get(client, "stats", NULL);
    const cJSON *object = message_envelope(answer);
    char first[32];
    const char *dot = strchr(path, '.');
    if (dot) {
        snprintf(first, sizeof first, "%.*s", (int)(dot - path), path);
        object = cJSON_GetObjectItem(object, first);
        path = dot + 1;
    }
    int value = whole(object, path);
    message_close(answer);
    return value;
}

/* Everything that happened to a job, as names: "queued started progress:denoise/1 ... done". */
struct story {
    char text[4000];
    int previews;
    int cancel_at; /* cancel when the progress has come to this step */
};

static inline bool tell(void *context, const cJSON *event, const struct tensor_view *preview)
{
    struct story *story = context;
    if (!event)
        return false;
    const char *name = json_text(event, "event");
    size_t at = strlen(story->text);
    at += (size_t)snprintf(story->text + at, sizeof story->text - at, "%s%s", at > 0 ? " " : "", name);
    if (strcmp(name, "progress") == 0)
        snprintf(story->text + at, sizeof story->text - at, ":%s/%d", json_text(event, "stage"), whole(event, "step"));
    if (strcmp(name, "text") == 0)
        snprintf(story->text + at, sizeof story->text - at, ":%s", json_text(event, "text"));
    if (preview) {
        assert_true(tensor_is(preview, DTYPE_U8, 4, (uint64_t[]){1, FAKE_PREVIEW_SIDE, FAKE_PREVIEW_SIDE, 3}));
        story->previews++;
    }
    return strcmp(name, "progress") == 0 && story->cancel_at != 0 && whole(event, "step") >= story->cancel_at;
}

static inline void assert_story(struct client *client, const char *job, const char *expected)
{
    struct story story = {0};
    struct error error;
    client_follow(client, job, tell, &story, &error);
    assert_string_equal(story.text, expected);
}

static inline void assert_done(struct client *client, const char *job)
{
    struct story story = {0};
    struct error error;
    if (client_follow(client, job, tell, &story, &error) != 0)
        fail_msg("%s: %s (%s)", job, error.text, story.text);
}

/* Wait until a job runs. */
static inline void wait_until_running(struct client *client, const char *job)
{
    for (int after = 0;;) {
        struct message *answer =
            get(client, "wait", json("{\"job\":\"%s\",\"after\":%d,\"timeout_ms\":5000}", job, after));
        const cJSON *event, *events = cJSON_GetObjectItem(message_envelope(answer), "events");
        bool started = false;
        cJSON_ArrayForEach(event, events)
        {
            after = whole(event, "sequence");
            started = started || strcmp(json_text(event, "event"), "started") == 0;
        }
        message_close(answer);
        if (started)
            return;
    }
}

/* A client that follows a job from a thread of its own. */
struct follower {
    const struct fixture *fixture;
    const char *job, *prompt;
    struct story story;
    int status;
};

/* --- main ------------------------------------------------------------------------------- */

/* What main begins with. True: this was the daemon, and *code is how it ended; false: the tests are to be run. */
static inline bool ran_as_lanced(int argc, char **argv, int *code)
{
    if (argc > 1 && strcmp(argv[1], "--as-lanced") == 0) {
        argv[1] = argv[0];
        *code = daemon_run(argc - 1, argv + 1);
        return true;
    }
    program = argv[0];
    unsetenv("LANCED_TOKEN");
    unsetenv("LANCED_ENDPOINT");
    return false;
}

#define SERVER_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
