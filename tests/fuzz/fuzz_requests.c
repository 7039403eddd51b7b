/* fuzz_requests.c: requests as a client sends them, to the service of a daemon with a made-up engine (fake_engine.h).
 *
 * The input is a message as it would come from a socket; or, when it begins with '{', lines: each one is an envelope in
 * JSON, to which the protocol's number is added. A member "tensor_here" of it, [name, dtype, shape], is taken out and
 * becomes a tensor of the message. Every request is answered, with "ok" or with an error in words, at the latest when
 * its time is over.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/jobs/jobs.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/service/service.h"
#include "daemon/worker.h"
#include "tests/unit/fake_engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { CLIENT = 1, MOST_REQUESTS = 32, MOST_TENSOR_BYTES = 1 << 20 };

static struct {
    struct options options;
    struct jobs *jobs;
    struct worker *worker;
    struct service *service;
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
    options->blob_bytes = 4 << 20;
    options->lazy = true;
    options->backend.backend = BACKEND_CPU;
    options->backend.threads = 1;
    options->jobs = (struct jobs_limits){
        .queue = 8, .queue_bytes = 1 << 20, .results = 4, .result_bytes = 1 << 20, .result_seconds = 1000};
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

/* [name, dtype, shape] as a tensor full of a pattern; false: it is no such thing, or too large. */
static bool read_tensor(struct tensor_view *tensor, const cJSON *json)
{
    static char pattern[MOST_TENSOR_BYTES];
    const cJSON *name = cJSON_GetArrayItem(json, 0), *dtype = cJSON_GetArrayItem(json, 1);
    const cJSON *shape = cJSON_GetArrayItem(json, 2);
    *tensor = (struct tensor_view){.data = pattern};
    if (!cJSON_IsString(name) || strlen(name->valuestring) > 64 || !cJSON_IsString(dtype) ||
        cJSON_GetArraySize(shape) > (int)(sizeof tensor->shape / sizeof *tensor->shape))
        return false;
    tensor->name = name->valuestring;
    if (!dtype_of_name(dtype->valuestring, &tensor->dtype))
        return false;
    uint64_t bytes = dtype_bytes(tensor->dtype);
    for (int i = 0; i < cJSON_GetArraySize(shape); i++) {
        const cJSON *size = cJSON_GetArrayItem(shape, i);
        if (!cJSON_IsNumber(size) || size->valuedouble < 0 || size->valuedouble > MOST_TENSOR_BYTES)
            return false;
        tensor->shape[tensor->dimensions++] = (uint64_t)size->valuedouble;
        bytes *= (uint64_t)size->valuedouble;
        if (bytes > MOST_TENSOR_BYTES)
            return false;
    }
    tensor->bytes = bytes;
    return true;
}

static void handle_line(const char *line)
{
    static const struct json_limits limits = {MESSAGE_MAX_ENVELOPE_BYTES, MESSAGE_MAX_ENVELOPE_VALUES,
                                              ERROR_BAD_REQUEST, ERROR_BAD_REQUEST};
    cJSON *envelope = NULL;
    struct error unread;
    if (json_parse(&envelope, line, strlen(line), &limits, "line", &unread) != 0 || !cJSON_IsObject(envelope)) {
        cJSON_Delete(envelope);
        return;
    }
    if (!cJSON_HasObjectItem(envelope, "protocol"))
        json_add_number(envelope, "protocol", PROTOCOL_VERSION);
    cJSON *tensor_json = cJSON_DetachItemFromObject(envelope, "tensor_here");
    struct tensor_view tensor;
    void *data;
    uint64_t bytes;
    struct error error;
    const bool has_tensor = tensor_json && read_tensor(&tensor, tensor_json);
    if (message_encode(&data, &bytes, envelope, &tensor, has_tensor, &error) == 0)
        handle(data, bytes, data);
    cJSON_Delete(tensor_json);
    cJSON_Delete(envelope);
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
    if (bytes == 0 || data[0] != '{') {
        handle(copy, bytes, copy);
    } else {
        char *rest = copy;
        for (int i = 0; i < MOST_REQUESTS && rest; i++)
            handle_line(strsep(&rest, "\n"));
        free(copy);
    }
    forget_jobs();
    return 0;
}
