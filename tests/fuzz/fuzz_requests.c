/* fuzz_requests.c: requests as a client sends them, to the service of a daemon with a made-up engine (fake_engine.h).
 *
 * The input is a message as it would come from a socket; or, when it begins with '{', lines: each one is made a message
 * (made_message.h). Every request is answered, with "ok" or with an error in words, at the latest when its time is
 * over.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/jobs/jobs.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/service/service.h"
#include "daemon/worker.h"
#include "tests/fuzz/made_message.h"
#include "tests/unit/fake_engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* The table of parameters alone is a long answer: what makes several of them is no better for it. */
enum { CLIENT = 1, MOST_REQUESTS = 12, MOST_ANSWER_BYTES = 16 << 10 };

static struct {
    struct options options;
    struct jobs *jobs;
    struct worker *worker;
    struct service *service;
    uint64_t answer_bytes; /* to this input so far */
} house;

static void on_shutdown(void *context, bool cancel)
{
    (void)context;
    (void)cancel;
}

static void on_fatal(void *context, enum worker_end why)
{
    (void)context;
    (void)why;
    abort();
}

/* The worker is not started: jobs wait, so that the same input takes the same way each time. */
static void open_house(void)
{
    struct options *options = &house.options;
    struct error error;
    log_set_level(LOG_LEVEL_ERROR);
    snprintf(options->models[0].name, sizeof options->models[0].name, "fake");
    options->models[0].directory = "/nonexistent/fake";
    options->model_count = 1;
    options->blob_bytes = 2 * MADE_TENSOR_BYTES;
    options->lazy = true;
    options->backend.backend = BACKEND_CPU;
    options->backend.threads = 1;
    options->jobs = (struct jobs_limits){.queue = 4,
                                         .queue_bytes = 2 * MADE_TENSOR_BYTES,
                                         .results = 4,
                                         .result_bytes = 1 << 20,
                                         .result_seconds = 1000};
    if (jobs_open(&house.jobs, &options->jobs, &error) ||
        worker_open(&house.worker, options, house.jobs, NULL, on_fatal, NULL, &error) ||
        service_open(&house.service, options, worker_rooms(house.worker), on_shutdown, NULL, &error))
        abort();
}

static void park(struct call *call)
{
    (void)call;
}

static void wake(struct call *call)
{
    (void)call;
}

static void check_answer(const struct call *call)
{
    struct message *answer;
    struct error error;
    if (!call->answer || message_parse(&answer, call->answer->data, call->answer->bytes, 0, &error) != 0)
        abort();
    const cJSON *envelope = message_envelope(answer), *ok = cJSON_GetObjectItem(envelope, "ok");
    const cJSON *words = cJSON_GetObjectItem(cJSON_GetObjectItem(envelope, "error"), "message");
    if (!cJSON_IsBool(ok) || (cJSON_IsFalse(ok) && (!cJSON_IsString(words) || words->valuestring[0] == '\0')))
        abort();
    message_close(answer);
    house.answer_bytes += call->answer->bytes;
}

/* One request; when it is parked, its time is over at once. */
static void handle(const void *data, uint64_t bytes, void *owner)
{
    struct call call = {.park = park, .wake = wake, .waiter.client = CLIENT};
    call_open(&call, house.service);
    if (!service_handle(&call, data, bytes, owner, free)) {
        call.until = 0.0;
        if (!service_continue(&call))
            abort();
    }
    check_answer(&call);
    call_clear(&call);
}

static void handle_line(const char *line)
{
    void *data;
    uint64_t bytes;
    if (made_message(&data, &bytes, line))
        handle(data, bytes, data);
}

/* So that an input finds none of another one's. */
static void forget_jobs(void)
{
    bool more = true;
    while (more) {
        cJSON *list = jobs_list(house.jobs, 0, NULL, &more);
        for (const cJSON *job = list->child; job; job = job->next)
            jobs_release(house.jobs, json_text(job, "job"), NULL);
        cJSON_Delete(list);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (!house.service)
        open_house();
    char *copy = malloc(bytes + 1);
    memcpy(copy, data, bytes);
    copy[bytes] = '\0';
    house.answer_bytes = 0;
    if (bytes == 0 || data[0] != '{') {
        handle(copy, bytes, copy);
    } else {
        char *rest = copy;
        for (int i = 0; i < MOST_REQUESTS && rest && house.answer_bytes < MOST_ANSWER_BYTES; i++)
            handle_line(strsep(&rest, "\n"));
        free(copy);
    }
    forget_jobs();
    return 0;
}
