/* test_server.c: lanced as its clients see it, with a fake engine in place of the model.
 *
 * The test program is also the daemon: started again with "--as-lanced" first, it runs daemon_run
 * on the fake engine. Each test has a daemon process of its own, and at the end of the test the
 * daemon must end well, so that a sanitizer's findings in it fail the test.
 *
 *   ./test_server --as-lanced --model DIR ...   a lanced with the fake engine, to try clients on
 */
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

static const char *program;

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
static void start(struct fixture *fixture, const char *const *options)
{
    const char *arguments[MAX_ARGUMENTS] = {program, "--as-lanced", "--endpoint", fixture->endpoint, "--model",
                                            fixture->model};
    int count = 6;
    while (*options != NULL)
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
static int end_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void assert_log_has(const struct fixture *fixture, const char *text)
{
    static char log[200000];
    FILE *file = fopen(fixture->log, "r");
    assert_non_null(file);
    size_t length = fread(log, 1, sizeof log - 1, file);
    fclose(file);
    log[length] = '\0';
    if (strstr(log, text) == NULL)
        fail_msg("\"%s\" is not in the log:\n%s", text, log);
}

static void make_folder(char *path, size_t size, const char *parent, const char *name, const char *file)
{
    snprintf(path, size, "%s/%s", parent, name);
    assert_int_equal(mkdir(path, 0700), 0);
    if (file == NULL)
        return;
    char file_path[120];
    snprintf(file_path, sizeof file_path, "%s/%s", path, file);
    int fd = open(file_path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static int set_up(void **state)
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

static int tear_down(void **state)
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

static struct client *connect_to(const struct fixture *fixture)
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
static cJSON *json(const char *format, ...) __attribute__((format(printf, 1, 2)));
static cJSON *json(const char *format, ...)
{
    char text[2000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cJSON *object = cJSON_Parse(text);
    if (object == NULL)
        fail_msg("the test's JSON is wrong: %s", text);
    return object;
}

/* Ask; takes `fields`. Returns the status. */
static int ask(struct client *client, const char *request, cJSON *fields, const struct tensor_view *tensor,
               struct message **answer, struct error *error)
{
    memset(error, 0, sizeof *error);
    int status = client_request(client, request, fields, tensor, tensor != NULL, answer, error);
    cJSON_Delete(fields);
    return status;
}

/* Ask for something that must work. */
static struct message *get(struct client *client, const char *request, cJSON *fields)
{
    struct message *answer;
    struct error error;
    if (ask(client, request, fields, NULL, &answer, &error) != 0)
        fail_msg("%s: %s", request, error.text);
    return answer;
}

static void do_it(struct client *client, const char *request, cJSON *fields)
{
    message_close(get(client, request, fields));
}

/* Ask for something that must be refused with this code and a text that has `words`. */
static void assert_refused(struct client *client, const char *request, cJSON *fields, const struct tensor_view *tensor,
                           int code, const char *words)
{
    struct message *answer;
    struct error error;
    int status = ask(client, request, fields, tensor, &answer, &error);
    if (status == 0)
        fail_msg("%s was not refused (%s)", request, words);
    if (status != code || strstr(error.text, words) == NULL)
        fail_msg("%s: expected %s with \"%s\", got %s: %s", request, error_name(code), words, error_name(status), error.text);
}

static cJSON *t2i(const char *id, const char *prompt, const char *more)
{
    return json("{\"job\":\"%s\",\"task\":\"t2i\",\"params\":{\"prompt\":\"%s\"%s}}", id, prompt, more);
}

static cJSON *job_named(const char *id)
{
    return json("{\"job\":\"%s\"}", id);
}

static int whole(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(object, name);
    if (!cJSON_IsNumber(item))
        fail_msg("%s is missing", name);
    return item->valueint;
}

/* A number of stats, such as "loads" or "jobs.done". */
static int stat_of(struct client *client, const char *path)
{
    struct message *answer = get(client, "stats", NULL);
    const cJSON *object = message_envelope(answer);
    char first[32];
    const char *dot = strchr(path, '.');
    if (dot != NULL) {
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

static bool tell(void *context, const cJSON *event, const struct tensor_view *preview)
{
    struct story *story = context;
    if (event == NULL)
        return false;
    const char *name = json_text(event, "event");
    size_t at = strlen(story->text);
    at += (size_t)snprintf(story->text + at, sizeof story->text - at, "%s%s", at > 0 ? " " : "", name);
    if (strcmp(name, "progress") == 0)
        snprintf(story->text + at, sizeof story->text - at, ":%s/%d", json_text(event, "stage"), whole(event, "step"));
    if (strcmp(name, "text") == 0)
        snprintf(story->text + at, sizeof story->text - at, ":%s", json_text(event, "text"));
    if (preview != NULL) {
        assert_true(tensor_is(preview, DTYPE_U8, 4, (uint64_t[]){1, FAKE_PREVIEW_SIDE, FAKE_PREVIEW_SIDE, 3}));
        story->previews++;
    }
    return strcmp(name, "progress") == 0 && story->cancel_at != 0 && whole(event, "step") >= story->cancel_at;
}

static void assert_story(struct client *client, const char *job, const char *expected)
{
    struct story story = {0};
    struct error error;
    client_follow(client, job, tell, &story, &error);
    assert_string_equal(story.text, expected);
}

static void assert_done(struct client *client, const char *job)
{
    struct story story = {0};
    struct error error;
    if (client_follow(client, job, tell, &story, &error) != 0)
        fail_msg("%s: %s (%s)", job, error.text, story.text);
}

/* Wait until a job runs. */
static void wait_until_running(struct client *client, const char *job)
{
    for (int after = 0;;) {
        struct message *answer = get(client, "wait", json("{\"job\":\"%s\",\"after\":%d,\"timeout_ms\":5000}", job, after));
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

/* --- Tests ------------------------------------------------------------------------------ */

static void hello_tells_who_answers(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    const cJSON *hello = client_hello(client);
    assert_string_equal(json_text(hello, "version"), LANCED_VERSION);
    assert_int_equal(whole(hello, "protocol"), PROTOCOL_VERSION);
    assert_int_equal(whole(hello, "pid"), fixture->pid);
    assert_int_equal(strlen(json_text(hello, "generation")), 32);
    assert_int_equal(whole(cJSON_GetObjectItem(hello, "limits"), "message_bytes"), MESSAGE_LIMIT_BYTES);
    assert_string_equal(json_text(hello, "default_model"), "fake");
    client_close(client);
}

static void a_job_tells_every_step_and_gives_the_picture_of_its_seed(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "load", NULL);
    do_it(client, "submit",
          t2i("a", "a fox", ",\"seed\":\"18446744073709551615\",\"batch_size\":2,\"width\":32,\"num_inference_steps\":4"));
    assert_story(client, "a",
                 "queued started progress:denoise/1 progress:denoise/2 progress:denoise/3 progress:denoise/4 done");
    struct message *result = get(client, "result", job_named("a"));
    const cJSON *envelope = message_envelope(result), *receipt = cJSON_GetObjectItem(envelope, "receipt");
    assert_string_equal(json_text(envelope, "seed"), "18446744073709551615");
    assert_int_equal(whole(envelope, "width"), 32);
    assert_string_equal(json_text(receipt, "prompt"), "a fox");
    assert_string_equal(json_text(receipt, "version"), LANCED_VERSION);
    assert_string_equal(json_text(cJSON_GetObjectItem(receipt, "model"), "kind"), "fake");
    const cJSON *params = cJSON_GetObjectItem(receipt, "params");
    assert_int_equal(whole(params, "num_inference_steps"), 4);
    assert_string_equal(json_text(params, "seed"), "18446744073709551615");
    assert_string_equal(json_text(params, "guidance_renorm"), "global");
    assert_null(cJSON_GetObjectItem(params, "temperature"));
    assert_int_equal(whole(cJSON_GetObjectItem(receipt, "stages")->child, "steps"), 4);
    const struct tensor_view *pixels = message_tensor(result, "pixels");
    assert_non_null(pixels);
    assert_true(tensor_is(pixels, DTYPE_U8, 5, (uint64_t[]){2, 1, 32, 32, 3}));
    const uint8_t *bytes = pixels->data;
    for (size_t i = 0; i < 32 * 32 * 3; i++) {
        assert_int_equal(bytes[i], fake_pixel(UINT64_MAX, i));
        assert_int_equal(bytes[32 * 32 * 3 + i], fake_pixel(0, i));
    }
    message_close(result);
    client_close(client);
}

static void a_question_streams_its_answer(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "load", NULL);
    uint8_t pixels[4 * 4 * 3] = {0};
    const struct tensor_view source = {
        .name = "source", .dtype = DTYPE_U8, .dimensions = 4, .shape = {1, 4, 4, 3}, .data = pixels, .bytes = sizeof pixels};
    struct message *answer;
    struct error error;
    assert_int_equal(ask(client, "submit",
                         json("{\"job\":\"q\",\"task\":\"x2t_image\",\"params\":{\"prompt\":\"what?\",\"top_k\":5}}"), &source,
                         &answer, &error),
                     0);
    message_close(answer);
    assert_story(client, "q",
                 "queued started progress:text/1 text:one progress:text/2 text: two progress:text/3 text: three done");
    struct message *result = get(client, "result", job_named("q"));
    assert_string_equal(json_text(message_envelope(result), "text"), "one two three");
    const cJSON *params = cJSON_GetObjectItem(cJSON_GetObjectItem(message_envelope(result), "receipt"), "params");
    assert_int_equal(whole(params, "top_k"), 5);
    assert_null(cJSON_GetObjectItem(params, "num_inference_steps"));
    assert_true(tensor_is(message_tensor(result, "token_ids"), DTYPE_I32, 1, (uint64_t[]){3}));
    assert_null(message_tensor(result, "pixels"));
    message_close(result);
    client_close(client);
}

static void previews_come_with_their_events_and_only_when_asked_for(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 50", ",\"preview\":true"));
    struct story story = {0};
    struct error error;
    assert_int_equal(client_follow(client, "a", tell, &story, &error), 0);
    assert_int_equal(story.previews, 3);
    assert_non_null(strstr(story.text, "progress:denoise/1 preview progress:denoise/2 preview"));
    do_it(client, "submit", t2i("b", "a fox", ""));
    memset(&story, 0, sizeof story);
    assert_int_equal(client_follow(client, "b", tell, &story, &error), 0);
    assert_null(strstr(story.text, "preview"));
    client_close(client);
}

static void requests_answer_while_a_job_runs(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 2000", ""));
    wait_until_running(client, "a");
    static const char *const quick[] = {"hello", "models", "stats"};
    for (size_t i = 0; i < 3; i++) {
        double before = clock_seconds();
        do_it(client, quick[i], NULL);
        assert_true(clock_seconds() - before < 1);
    }
    double before = clock_seconds();
    do_it(client, "submit", t2i("b", "a fox", ""));
    do_it(client, "cancel", job_named("b"));
    assert_refused(client, "result", job_named("a"), NULL, ERROR_BUSY, "still running");
    assert_true(clock_seconds() - before < 1);
    do_it(client, "cancel", job_named("a"));
    client_close(client);
}

static void wait_answers_at_its_time_and_at_once_when_there_is_news(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 1500", ""));
    wait_until_running(client, "a");
    double before = clock_seconds();
    struct message *answer = get(client, "wait", json("{\"job\":\"a\",\"after\":99,\"timeout_ms\":200}"));
    double took = clock_seconds() - before;
    assert_true(took >= 0.19 && took < 1.2);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(message_envelope(answer), "events")), 0);
    message_close(answer);
    answer = get(client, "wait", json("{\"job\":\"a\",\"timeout_ms\":60000}"));
    assert_string_equal(json_text(cJSON_GetObjectItem(message_envelope(answer), "events")->child, "event"), "queued");
    message_close(answer);
    do_it(client, "cancel", job_named("a"));
    client_close(client);
}

struct follower {
    const struct fixture *fixture;
    const char *job, *prompt;
    struct story story;
    int status;
};

static void *follow(void *argument)
{
    struct follower *follower = argument;
    struct error error;
    struct client *client;
    const struct client_options options = {
        .endpoint = follower->fixture->endpoint, .name = "test", .connect_timeout_ms = START_TIMEOUT_MS};
    follower->status = client_open(&client, &options, &error);
    if (follower->status != 0)
        return NULL;
    cJSON *fields = t2i(follower->job, follower->prompt, "");
    follower->status = client_request(client, "submit", fields, NULL, 0, NULL, &error);
    cJSON_Delete(fields);
    if (follower->status == 0)
        follower->status = client_follow(client, follower->job, tell, &follower->story, &error);
    client_close(client);
    return NULL;
}

static void clients_follow_their_jobs_at_once(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    client_close(connect_to(fixture));
    struct follower followers[] = {{.fixture = fixture, .job = "one", .prompt = "sleep 30"},
                                   {.fixture = fixture, .job = "two", .prompt = "sleep 10"},
                                   {.fixture = fixture, .job = "three", .prompt = "fail 2"},
                                   {.fixture = fixture, .job = "four", .prompt = "sleep 20"}};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, follow, &followers[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(followers[i].status, i == 2 ? ERROR_INTERNAL : 0);
        assert_non_null(strstr(followers[i].story.text, i == 2 ? "progress:denoise/1 failed" : "progress:denoise/3 done"));
    }
}

static void a_repeated_submit_starts_nothing(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "a fox", ""));
    do_it(client, "submit", t2i("a", "a fox", ""));
    assert_done(client, "a");
    struct message *answer = get(client, "submit", t2i("a", "a fox", ""));
    assert_string_equal(json_text(message_envelope(answer), "state"), "done");
    message_close(answer);
    assert_int_equal(stat_of(client, "jobs.submitted"), 1);
    assert_int_equal(stat_of(client, "jobs.done"), 1);
    client_close(client);
}

static void cancel_stops_a_job_within_one_step(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 300", ",\"num_inference_steps\":100"));
    struct story story = {.cancel_at = 3};
    struct error error;
    assert_int_equal(client_follow(client, "a", tell, &story, &error), ERROR_CANCELLED);
    assert_non_null(strstr(story.text, "progress:denoise/3"));
    assert_null(strstr(story.text, "progress:denoise/5"));
    assert_refused(client, "result", job_named("a"), NULL, ERROR_CANCELLED, "cancelled");
    do_it(client, "cancel", job_named("a"));
    do_it(client, "submit", t2i("b", "a fox", ""));
    assert_done(client, "b");
    client_close(client);
}

static void a_full_queue_is_busy(void **state)
{
    struct fixture *fixture = *state;
    START(fixture, "--queue", "1");
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 1000", ""));
    wait_until_running(client, "a");
    struct message *answer = get(client, "submit", t2i("b", "a fox", ""));
    assert_int_equal(whole(message_envelope(answer), "position"), 1);
    message_close(answer);
    assert_refused(client, "submit", t2i("c", "a fox", ""), NULL, ERROR_BUSY, "queue is full");
    do_it(client, "cancel", job_named("b"));
    do_it(client, "submit", t2i("c", "a fox", ""));
    do_it(client, "cancel", job_named("a"));
    assert_done(client, "c");
    client_close(client);
}

static void a_failed_job_says_why_and_the_next_one_works(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    struct story story = {0};
    struct error error;
    do_it(client, "submit", t2i("a", "fail 2", ""));
    assert_int_equal(client_follow(client, "a", tell, &story, &error), ERROR_INTERNAL);
    assert_string_equal(error.text, "step 2 failed as it was told");
    assert_refused(client, "result", job_named("a"), NULL, ERROR_INTERNAL, "step 2 failed");
    do_it(client, "submit", t2i("b", "a fox", ""));
    assert_done(client, "b");
    client_close(client);
}

static void wrong_parameters_are_refused_by_name(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "load", NULL);
    static const struct {
        const char *more, *words;
        int code;
    } wrong[] = {
        {",\"width\":\"wide\"", "width: must be a whole number below 2^31, not \"wide\"", ERROR_BAD_REQUEST},
        {",\"width\":1.5", "width: must be a whole number", ERROR_BAD_REQUEST},
        {",\"height\":1e30", "height: must be a whole number", ERROR_BAD_REQUEST},
        {",\"seed\":-1", "seed: must be a whole number from 0", ERROR_BAD_REQUEST},
        {",\"seed\":18446744073709551615", "as a decimal string", ERROR_BAD_REQUEST},
        {",\"seed\":\"18446744073709551616\"", "seed:", ERROR_BAD_REQUEST},
        {",\"guidance_scale\":null", "guidance_scale: must be a finite number, not null", ERROR_BAD_REQUEST},
        {",\"guidance_scale\":1e999", "guidance_scale: must be a finite number", ERROR_BAD_REQUEST},
        {",\"guidance_interval\":[0.4]", "guidance_interval: must be [low, high]", ERROR_BAD_REQUEST},
        {",\"guidance_renorm\":\"max\"", "one of \"global\", \"channel\", \"none\"", ERROR_BAD_REQUEST},
        {",\"decode\":1", "decode: must be true or false", ERROR_BAD_REQUEST},
        {",\"preview\":\"yes\"", "preview: must be true or false", ERROR_BAD_REQUEST},
        {",\"fps\":-3", "fps:", ERROR_BAD_REQUEST},
        {",\"num_inference_steps\":0", "num_inference_steps: must be at least 1", ERROR_BAD_REQUEST},
        {",\"noise_source\":\"client\"", "needs the tensor \"noise\"", ERROR_BAD_REQUEST},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_refused(client, "submit", t2i("a", "a fox", wrong[i].more), NULL, wrong[i].code, wrong[i].words);
    assert_refused(client, "submit", t2i("a", "refuse", ""), NULL, ERROR_BAD_REQUEST, "asks to be refused");
    assert_refused(client, "submit", t2i("no spaces", "a fox", ""), NULL, ERROR_BAD_REQUEST, "job: must be");
    assert_refused(client, "submit", json("{\"job\":\"a\",\"task\":\"paint\",\"params\":{}}"), NULL, ERROR_BAD_REQUEST,
                   "\"paint\" is unknown to lanced " LANCED_VERSION "; known: t2i");
    assert_refused(client, "submit", json("{\"job\":\"a\",\"task\":\"t2v\",\"params\":{\"prompt\":\"\"}}"), NULL,
                   ERROR_UNSUPPORTED, "t2v");
    assert_refused(client, "submit", json("{\"job\":\"a\",\"task\":\"t2i\",\"params\":{}}"), NULL, ERROR_BAD_REQUEST,
                   "prompt: is missing");
    assert_refused(client, "submit", json("{\"job\":\"a\",\"task\":\"t2i\"}"), NULL, ERROR_BAD_REQUEST, "params:");
    assert_refused(client, "submit", json("{\"job\":\"a\",\"task\":\"t2i\",\"model\":\"big\",\"params\":{\"prompt\":\"\"}}"),
                   NULL, ERROR_NOT_FOUND, "\"big\" is not offered here; offered: fake");
    assert_refused(client, "wait", job_named("a"), NULL, ERROR_NOT_FOUND, "not known");
    assert_refused(client, "dance", NULL, NULL, ERROR_UNSUPPORTED, "\"dance\" is not known");
    struct message *answer = get(client, "submit", t2i("a", "a fox", ",\"guidance_scael\":7"));
    const cJSON *ignored = cJSON_GetObjectItem(message_envelope(answer), "ignored");
    assert_int_equal(cJSON_GetArraySize(ignored), 1);
    assert_string_equal(ignored->child->valuestring, "guidance_scael");
    message_close(answer);
    assert_done(client, "a");
    client_close(client);
}

static void a_job_refused_by_a_model_that_was_not_loaded_yet_fails_with_the_same_words(void **state)
{
    struct fixture *fixture = *state;
    START(fixture, "--lazy");
    struct client *client = connect_to(fixture);
    struct story story = {0};
    struct error error;
    do_it(client, "submit", t2i("a", "refuse", ""));
    assert_int_equal(client_follow(client, "a", tell, &story, &error), ERROR_BAD_REQUEST);
    assert_string_equal(error.text, "prompt: asks to be refused");
    assert_string_equal(story.text, "queued started progress:load/0 progress:load/1 failed");
    client_close(client);
}

static void noise_must_have_its_shape(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    float noise[8 * 48] = {0}; /* 64x32 pixels: 8 cells */
    struct tensor_view tensor = {.name = "noise", .dtype = DTYPE_F32, .dimensions = 3, .shape = {1, 8, 48}, .data = noise, .bytes = sizeof noise};
    const char *client_noise = ",\"noise_source\":\"client\"";
    struct message *answer;
    struct error error;
    assert_int_equal(ask(client, "submit", t2i("a", "a fox", client_noise), &tensor, &answer, &error), 0);
    message_close(answer);
    assert_done(client, "a");
    assert_refused(client, "submit", t2i("b", "a fox", ""), &tensor, ERROR_BAD_REQUEST, "needs noise_source \"client\"");
    assert_refused(client, "submit", t2i("b", "a fox", ",\"noise_source\":\"client\",\"width\":80"), &tensor,
                   ERROR_BAD_REQUEST, "must be F32 [batch_size 1, tokens 10, 48], not F32 [1,8,48]");
    assert_refused(client, "submit", t2i("b", "a fox", ",\"noise_source\":\"client\",\"width\":2147483647,\"height\":2147483647,\"num_frames\":2147483647"),
                   &tensor, ERROR_BAD_REQUEST, "tensor \"noise\"");
    tensor.name = "nose";
    assert_refused(client, "submit", t2i("b", "a fox", ""), &tensor, ERROR_BAD_REQUEST, "tensor \"nose\": is unknown");
    tensor.name = "source";
    assert_refused(client, "submit", t2i("b", "a fox", ""), &tensor, ERROR_BAD_REQUEST,
                   "tensor \"source\": must be U8 [frames,height,width,3], not F32 [1,8,48]");
    client_close(client);
}

/* --- Bad messages: a bare REQ socket, and a bare unix socket ------------------------------- */

/* Send bytes as one nng message; returns the answer's error code (0: it was no error), or 1 when nothing comes
 * back in time. */
static int send_raw(const struct fixture *fixture, const void *data, size_t bytes, int timeout_ms, struct error *error)
{
    nng_socket socket;
    nng_msg *msg;
    int status = 1;
    assert_int_equal(nng_req0_open(&socket), 0);
    nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, timeout_ms);
    nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, timeout_ms);
    assert_int_equal(nng_dial(socket, fixture->endpoint, NULL, 0), 0);
    assert_int_equal(nng_msg_alloc(&msg, 0), 0);
    assert_int_equal(nng_msg_append(msg, data, bytes), 0);
    if (nng_sendmsg(socket, msg, 0) != 0)
        nng_msg_free(msg);
    else if (nng_recvmsg(socket, &msg, 0) == 0) {
        struct message *answer;
        assert_int_equal(message_parse(&answer, nng_msg_body(msg), nng_msg_len(msg), 0, error), 0);
        const cJSON *failure = cJSON_GetObjectItem(message_envelope(answer), "error");
        status = failure == NULL ? 0 : error_set(error, error_code_of(json_text(failure, "code")), "%s", json_text(failure, "message"));
        message_close(answer);
        nng_msg_free(msg);
    }
    nng_close(socket);
    return status;
}

static void nonsense_is_answered_and_the_daemon_lives(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    struct error error;
    assert_int_equal(send_raw(fixture, "", 0, 5000, &error), ERROR_BAD_REQUEST);
    assert_int_equal(send_raw(fixture, "hello?", 6, 5000, &error), ERROR_BAD_REQUEST);
    assert_int_equal(send_raw(fixture, "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10, 5000, &error), ERROR_BAD_REQUEST);
    assert_int_equal(send_raw(fixture, "\x02\0\0\0\0\0\0\0{}", 10, 5000, &error), ERROR_BAD_REQUEST);
    assert_non_null(strstr(error.text, "no entry \"lance\""));
    /* Every prefix of a good message. */
    void *data;
    uint64_t bytes;
    cJSON *envelope = json("{\"protocol\":2,\"request\":\"shutdown\"}");
    assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
    cJSON_Delete(envelope);
    for (uint64_t length = 0; length + 1 < bytes; length += 3)
        assert_int_equal(send_raw(fixture, data, length, 5000, &error), ERROR_BAD_REQUEST);
    free(data);
    assert_true(stat_of(client, "bad_messages") >= 5);
    do_it(client, "submit", t2i("a", "a fox", ""));
    assert_done(client, "a");
    client_close(client);
}

static void other_protocols_are_told_so(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    client_close(connect_to(fixture));
    struct error error;
    void *data;
    uint64_t bytes;
    static const struct {
        const char *envelope, *words;
        int code;
    } wrong[] = {
        {"{\"protocol\":1,\"request\":\"hello\"}", "the client speaks protocol 1, lanced " LANCED_VERSION " speaks 2", ERROR_UNSUPPORTED},
        {"{\"request\":\"hello\"}", "protocol: must be a number", ERROR_BAD_REQUEST},
        {"{\"protocol\":\"1\",\"request\":\"hello\"}", "protocol: must be a number", ERROR_BAD_REQUEST},
        {"{\"protocol\":2}", "request: must be a string", ERROR_BAD_REQUEST},
        {"{\"protocol\":2,\"request\":7}", "request: must be a string", ERROR_BAD_REQUEST},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cJSON *envelope = json("%s", wrong[i].envelope);
        assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
        cJSON_Delete(envelope);
        assert_int_equal(send_raw(fixture, data, bytes, 5000, &error), wrong[i].code);
        assert_non_null(strstr(error.text, wrong[i].words));
        free(data);
    }
}

static int connect_raw(const struct fixture *fixture)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", fixture->folder);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Greet as nng does, then announce a message of `bytes` bytes, and see the connection closed. (A REQ socket
 * would not do: it connects again and sends the message again, without end.) */
static void assert_connection_is_closed_on(const struct fixture *fixture, uint64_t bytes)
{
    int fd = connect_raw(fixture);
    unsigned char greeting[8], header[9] = {1};
    for (int i = 0; i < 8; i++)
        header[1 + i] = (unsigned char)(bytes >> 8 * (7 - i));
    assert_int_equal(send(fd, "\0SP\0\0\x30\0\0", 8, MSG_NOSIGNAL), 8);
    assert_int_equal(recv(fd, greeting, 8, MSG_WAITALL), 8);
    assert_int_equal(send(fd, header, sizeof header, MSG_NOSIGNAL), sizeof header);
    assert_true(recv(fd, greeting, 1, 0) <= 0);
    close(fd);
}

static void a_message_over_the_limit_is_told_so_and_one_far_over_loses_its_connection(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    struct error error;
    char *large = calloc(1, 2 * MESSAGE_LIMIT_BYTES);
    assert_non_null(large);
    assert_int_equal(send_raw(fixture, large, MESSAGE_LIMIT_BYTES + 1, 5000, &error), ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "4194305 bytes are over the limit of 4194304"));
    assert_int_equal(send_raw(fixture, large, 2 * MESSAGE_LIMIT_BYTES, 5000, &error), ERROR_TOO_LARGE);
    assert_connection_is_closed_on(fixture, 4 * MESSAGE_LIMIT_BYTES);
    assert_connection_is_closed_on(fixture, UINT64_MAX);
    const struct tensor_view source = {
        .name = "source", .dtype = DTYPE_U8, .dimensions = 4, .shape = {1, 1024, 2048, 3}, .data = large, .bytes = 1024 * 2048 * 3};
    assert_refused(client, "submit", t2i("a", "a fox", ""), &source, ERROR_TOO_LARGE, "accepts 4194304");
    free(large);
    do_it(client, "submit", t2i("b", "a fox", ""));
    assert_done(client, "b");
    client_close(client);
}

static void bytes_that_are_no_nng_are_no_trouble(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    for (int i = 0; i < 20; i++) {
        int fd = connect_raw(fixture);
        assert_true(send(fd, "GET / HTTP/1.1\r\n\r\n", (size_t)i, MSG_NOSIGNAL) == i);
        close(fd);
    }
    do_it(client, "hello", NULL);
    client_close(client);
}

/* Several requests at once on one connection, which is closed before all are answered: nng 1.5 may lose its reaper over it. */
static void clients_that_hang_up_while_asking_keep_the_daemon_neither_from_serving_nor_from_ending(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    void *data;
    uint64_t bytes;
    struct error error;
    cJSON *envelope = json("{\"protocol\":2,\"request\":\"stats\"}");
    assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
    cJSON_Delete(envelope);
    unsigned char message[13 + 400] = {[0] = 1, [9] = 0x80, [12] = 1}, greeting[8];
    assert_true(bytes < 400);
    message[7] = (unsigned char)((bytes + 4) >> 8);
    message[8] = (unsigned char)(bytes + 4);
    memcpy(message + 13, data, bytes);
    free(data);
    for (int i = 0; i < 1500; i++) {
        int fd = connect_raw(fixture);
        assert_int_equal(send(fd, "\0SP\0\0\x30\0\0", 8, MSG_NOSIGNAL), 8);
        assert_int_equal(recv(fd, greeting, 8, MSG_WAITALL), 8);
        for (int request = 0; request < 3; request++)
            send(fd, message, 13 + bytes, MSG_NOSIGNAL);
        recv(fd, greeting, 8, 0);
        close(fd);
    }
    do_it(client, "submit", t2i("a", "a fox", ""));
    assert_done(client, "a");
    client_close(client);
    client_close(connect_to(fixture));
    double before = clock_seconds();
    kill(fixture->pid, SIGTERM);
    assert_int_equal(end_of(fixture->pid), 0);
    fixture->pid = 0;
    assert_true(clock_seconds() - before < 20);
}

static void clients_that_disappear_cost_nothing(void **state)
{
    struct fixture *fixture = *state;
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "sleep 100", ",\"num_inference_steps\":1000"));
    wait_until_running(client, "a");
    void *data;
    uint64_t bytes;
    struct error error;
    cJSON *envelope = json("{\"protocol\":2,\"request\":\"wait\",\"job\":\"a\",\"after\":1000,\"timeout_ms\":60000}");
    assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
    cJSON_Delete(envelope);
    for (int i = 0; i < 300; i++) /* more than there are contexts */
        assert_int_equal(send_raw(fixture, data, bytes, 2, &error), 1);
    free(data);
    for (int i = 0; i < 200 && stat_of(client, "waiting") > 0; i++)
        nng_msleep(10);
    assert_int_equal(stat_of(client, "waiting"), 0);
    do_it(client, "cancel", job_named("a"));
    client_close(client);
}

static void a_token_is_asked_for(void **state)
{
    struct fixture *fixture = *state;
    char path[120];
    snprintf(path, sizeof path, "%s/token", fixture->folder);
    FILE *file = fopen(path, "w");
    fputs("0123456789abcdefXYZ\n", file);
    fclose(file);
    assert_int_equal(chmod(path, 0600), 0);
    START(fixture, "--token-file", path);
    struct client *client;
    struct error error;
    struct client_options options = {
        .endpoint = fixture->endpoint, .token = "0123456789abcdefXYZ", .name = "test", .connect_timeout_ms = START_TIMEOUT_MS};
    assert_int_equal(client_open(&client, &options, &error), 0);
    client_close(client);
    static const char *const wrong[] = {"0123456789abcdefXY", "0123456789abcdefXYZ0123456789abcdefXYZ", "x", ""};
    for (size_t i = 0; i < 4; i++) {
        options.token = wrong[i];
        assert_int_equal(client_open(&client, &options, &error), ERROR_BAD_REQUEST);
        assert_non_null(strstr(error.text, "token: is missing or wrong"));
    }
}

/* --- Models ------------------------------------------------------------------------------ */

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
    assert_string_equal(json_text(cJSON_GetObjectItem(message_envelope(answer), "model"), "name"), "other"); /* the one it was */
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

/* --- Results ------------------------------------------------------------------------------ */

static void results_can_be_fetched_again_until_released(void **state)
{
    struct fixture *fixture = *state;
    START(fixture, "--result-seconds", "1");
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "a fox", ""));
    do_it(client, "submit", t2i("b", "a fox", ""));
    assert_done(client, "b");
    do_it(client, "result", job_named("a"));
    do_it(client, "result", job_named("a"));
    do_it(client, "release", job_named("a"));
    do_it(client, "release", job_named("a"));
    assert_refused(client, "result", job_named("a"), NULL, ERROR_NOT_FOUND, "released, or has expired");
    do_it(client, "result", job_named("b"));
    for (int i = 0; i < 50 && stat_of(client, "jobs.expired") == 0; i++)
        nng_msleep(100);
    assert_refused(client, "result", job_named("b"), NULL, ERROR_NOT_FOUND, "expired");
    client_close(client);
}

/* --- Ends ----------------------------------------------------------------------------------- */

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
        assert_int_equal(ask(client, "submit", t2i("late", "a fox", ""), NULL, &(struct message *){NULL}, &error), ERROR_BUSY);
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

/* --- Command line and tcp -------------------------------------------------------------------- */

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
        {"--endpoint", "http://x", "must begin with ipc:// or tcp://"},
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

static void tcp_works_on_the_loopback_address(void **state)
{
    struct fixture *fixture = *state;
    snprintf(fixture->endpoint, sizeof fixture->endpoint, "tcp://127.0.0.1:%d", 20000 + getpid() % 20000);
    START(fixture);
    struct client *client = connect_to(fixture);
    do_it(client, "submit", t2i("a", "a fox", ""));
    assert_done(client, "a");
    do_it(client, "result", job_named("a"));
    client_close(client);
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
    if (argc > 1 && strcmp(argv[1], "--as-lanced") == 0) {
        argv[1] = argv[0];
        return daemon_run(argc - 1, argv + 1);
    }
    program = argv[0];
    unsetenv("LANCED_TOKEN");
    unsetenv("LANCED_ENDPOINT");
#define SERVER_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SERVER_TEST(hello_tells_who_answers),
        SERVER_TEST(a_job_tells_every_step_and_gives_the_picture_of_its_seed),
        SERVER_TEST(a_question_streams_its_answer),
        SERVER_TEST(previews_come_with_their_events_and_only_when_asked_for),
        SERVER_TEST(requests_answer_while_a_job_runs),
        SERVER_TEST(wait_answers_at_its_time_and_at_once_when_there_is_news),
        SERVER_TEST(clients_follow_their_jobs_at_once),
        SERVER_TEST(a_repeated_submit_starts_nothing),
        SERVER_TEST(cancel_stops_a_job_within_one_step),
        SERVER_TEST(a_full_queue_is_busy),
        SERVER_TEST(a_failed_job_says_why_and_the_next_one_works),
        SERVER_TEST(wrong_parameters_are_refused_by_name),
        SERVER_TEST(a_job_refused_by_a_model_that_was_not_loaded_yet_fails_with_the_same_words),
        SERVER_TEST(noise_must_have_its_shape),
        SERVER_TEST(nonsense_is_answered_and_the_daemon_lives),
        SERVER_TEST(other_protocols_are_told_so),
        SERVER_TEST(a_message_over_the_limit_is_told_so_and_one_far_over_loses_its_connection),
        SERVER_TEST(bytes_that_are_no_nng_are_no_trouble),
        SERVER_TEST(clients_that_hang_up_while_asking_keep_the_daemon_neither_from_serving_nor_from_ending),
        SERVER_TEST(clients_that_disappear_cost_nothing),
        SERVER_TEST(a_token_is_asked_for),
        SERVER_TEST(weights_are_loaded_once_and_again_only_after_unload),
        SERVER_TEST(weights_stay_while_a_job_needs_them),
        SERVER_TEST(an_idle_model_gives_its_memory_back_and_returns_with_the_next_job),
        SERVER_TEST(models_are_offered_by_name_and_replace_each_other),
        SERVER_TEST(a_default_model_that_does_not_load_ends_the_daemon_with_its_reason),
        SERVER_TEST(results_can_be_fetched_again_until_released),
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
        SERVER_TEST(tcp_works_on_the_loopback_address),
        SERVER_TEST(the_default_endpoint_is_in_a_folder_of_the_user_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
