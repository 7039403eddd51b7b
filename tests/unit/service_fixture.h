/* service_fixture.h: a service without a socket, for the tests of its requests: messages in, answers out, at once or
 * when there is news.
 *
 * The door of these tests is one thread and a condition: a call that parks is continued by whoever waits for it.
 */
#ifndef LANCE_TESTS_SERVICE_FIXTURE_H
#define LANCE_TESTS_SERVICE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/blobs.h"
#include "daemon/jobs/jobs.h"
#include "daemon/options.h"
#include "daemon/service/service.h"
#include "daemon/worker.h"
#include "tests/unit/fake_engine.h"

struct house {
    struct options options;
    struct jobs *jobs;
    struct worker *worker;
    struct service *service;
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t woken;
    int shutdowns;
};

/* A request on its way. */
struct visit {
    struct call call; /* first: it is its visit */
    struct house *house;
    bool is_woken;
};

/* --- The house -------------------------------------------------------------------------- */

static inline void on_shutdown(void *context, bool cancel)
{
    struct house *house = context;
    (void)cancel;
    house->shutdowns++;
}

static inline void on_fatal(void *context, enum worker_end why)
{
    (void)context;
    fail_msg("the worker gave up (%d)", (int)why);
}

/* `token` is the only one, or `tokens_path` a file of them; NULL: none. */
static inline int set_up_with(void **state, const char *token, const char *tokens_path)
{
    struct house *house = calloc(1, sizeof *house);
    struct options *options = &house->options;
    struct error error;
    snprintf(options->models[0].name, sizeof options->models[0].name, "fake");
    options->models[0].directory = "/nonexistent/fake"; /* any folder is a model for the fake engine */
    options->model_count = 1;
    snprintf(options->token, sizeof options->token, "%s", token ? token : "");
    options->tokens_path = tokens_path;
    options->blob_bytes = 8 << 20;
    options->lazy = true;
    options->backend.backend = BACKEND_CPU;
    options->jobs = (struct jobs_limits){
        .queue = 2000, .queue_bytes = 64 << 20, .results = 10, .result_bytes = 64 << 20, .result_seconds = 1000};
    pthread_mutex_init(&house->lock, NULL);
    pthread_cond_init(&house->woken, NULL);
    assert_int_equal(jobs_open(&house->jobs, &options->jobs, &error), 0);
    assert_int_equal(worker_open(&house->worker, options, house->jobs, NULL, on_fatal, house, &error), 0);
    assert_int_equal(service_open(&house->service, options, worker_rooms(house->worker), on_shutdown, house, &error),
                     0);
    *state = house;
    return 0;
}

static inline int set_up(void **state)
{
    return set_up_with(state, NULL, NULL);
}

static inline int tear_down(void **state)
{
    struct house *house = *state;
    jobs_shut(house->jobs, true);
    service_close(house->service);
    worker_close(house->worker);
    jobs_close(house->jobs);
    pthread_cond_destroy(&house->woken);
    pthread_mutex_destroy(&house->lock);
    free(house);
    return 0;
}

/* From here on jobs are done; until then they wait. */
static inline void start_worker(struct house *house)
{
    struct error error;
    assert_int_equal(worker_start(house->worker, &error), 0);
}

/* --- Visits ------------------------------------------------------------------------------ */

static inline void park(struct call *call)
{
    (void)call; /* the test itself goes on with it */
}

static inline void wake(struct call *call)
{
    struct visit *visit = (struct visit *)call;
    pthread_mutex_lock(&visit->house->lock);
    visit->is_woken = true;
    pthread_cond_signal(&visit->house->woken);
    pthread_mutex_unlock(&visit->house->lock);
}

/* Begin a request of somebody; returns whether it is finished. `envelope` is JSON without the protocol; `token` may be
 * NULL. */
static inline bool begin_as(struct house *house, struct visit *visit, const char *envelope,
                            const struct tensor_view *tensor, const char *token, bool is_of_owner)
{
    void *data;
    uint64_t bytes;
    struct error error;
    cJSON *json = cJSON_Parse(envelope);
    assert_non_null(json);
    cJSON_AddNumberToObject(json, "protocol", PROTOCOL_VERSION);
    if (token)
        cJSON_AddStringToObject(json, "token", token);
    assert_int_equal(message_encode(&data, &bytes, json, tensor, tensor != NULL, &error), 0);
    cJSON_Delete(json);
    *visit = (struct visit){.call = {.park = park, .wake = wake, .waiter.client = 1}, .house = house};
    visit->call.is_of_owner = is_of_owner;
    call_open(&visit->call, house->service);
    return service_handle(&visit->call, data, bytes, data, free);
}

static inline bool begin(struct house *house, struct visit *visit, const char *envelope,
                         const struct tensor_view *tensor)
{
    return begin_as(house, visit, envelope, tensor, NULL, false);
}

static inline void wait_until_woken(struct visit *visit)
{
    struct house *house = visit->house;
    pthread_mutex_lock(&house->lock);
    while (!visit->is_woken)
        pthread_cond_wait(&house->woken, &house->lock);
    visit->is_woken = false;
    pthread_mutex_unlock(&house->lock);
}

/* The answer of a finished call, which is ready for nothing else afterwards. */
static inline struct message *end(struct visit *visit)
{
    struct message *message;
    struct error error;
    assert_non_null(visit->call.answer);
    void *copy = malloc(visit->call.answer->bytes);
    memcpy(copy, visit->call.answer->data, visit->call.answer->bytes);
    assert_int_equal(message_parse(&message, copy, visit->call.answer->bytes, 0, &error), 0);
    message_adopt(message, copy, free);
    call_clear(&visit->call);
    return message;
}

/* Ask for something that is answered at once, or when it is woken. */
static inline struct message *ask_as(struct house *house, const char *envelope, const struct tensor_view *tensor,
                                     const char *token, bool is_of_owner)
{
    struct visit visit;
    bool is_finished = begin_as(house, &visit, envelope, tensor, token, is_of_owner);
    while (!is_finished) {
        wait_until_woken(&visit);
        is_finished = service_continue(&visit.call);
    }
    return end(&visit);
}

static inline struct message *ask(struct house *house, const char *envelope, const struct tensor_view *tensor)
{
    return ask_as(house, envelope, tensor, NULL, false);
}

static inline const char *code_in(const struct message *answer)
{
    const char *code = json_text(cJSON_GetObjectItem(message_envelope(answer), "error"), "code");
    return code ? code : "ok";
}

static inline struct message *get(struct house *house, const char *envelope)
{
    struct message *answer = ask(house, envelope, NULL);
    if (!cJSON_IsTrue(cJSON_GetObjectItem(message_envelope(answer), "ok")))
        fail_msg("%s: %s", envelope, code_in(answer));
    return answer;
}

static inline void do_it(struct house *house, const char *envelope)
{
    message_close(get(house, envelope));
}

static inline void assert_error(struct house *house, const char *envelope, const char *code)
{
    struct message *answer = ask(house, envelope, NULL);
    if (strcmp(code_in(answer), code) != 0)
        fail_msg("%s: expected %s, got %s", envelope, code, code_in(answer));
    message_close(answer);
}

/* The number of the last event of an answer to `wait`; its name into `name`. 0: there was none. */
static inline int last_event(const struct message *answer, char name[32])
{
    const cJSON *events = cJSON_GetObjectItem(message_envelope(answer), "events");
    const cJSON *last = cJSON_GetArrayItem(events, cJSON_GetArraySize(events) - 1);
    snprintf(name, 32, "%s", last ? json_text(last, "event") : "");
    return last ? cJSON_GetObjectItem(last, "sequence")->valueint : 0;
}

#define SUBMIT(id, more)                                                                                               \
    "{\"request\":\"submit\",\"job\":\"" id "\",\"task\":\"t2i\",\"params\":{\"prompt\":\"a fox\"" more "}}"

static inline void follow_to_the_end(struct house *house, const char *job)
{
    char envelope[200], name[32] = "";
    for (int after = 0; strcmp(name, "done") != 0;) {
        snprintf(envelope, sizeof envelope, "{\"request\":\"wait\",\"job\":\"%s\",\"after\":%d,\"timeout_ms\":60000}",
                 job, after);
        struct message *answer = get(house, envelope);
        after = last_event(answer, name);
        message_close(answer);
    }
}

/* How many calls are parked. */
static inline int waiting(struct house *house)
{
    struct message *stats = get(house, "{\"request\":\"stats\"}");
    int count = cJSON_GetObjectItem(message_envelope(stats), "waiting")->valueint;
    message_close(stats);
    return count;
}

#endif
