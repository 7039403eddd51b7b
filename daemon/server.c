/* server.c: see server.h.
 *
 * Threads: nng's own threads, and the parking's (parking.h), run everything here; none ever waits for a client.
 * The socket is one nng REP socket with CONTEXTS contexts. Each is a little state machine:
 *
 *     RECEIVING  nng has its aio. A request came: answer it (-> SENDING) or park it
 *     parked     nng has nothing of it, until the client would not wait any longer; a new event, or a model that was loaded,
 *                ends that early. Either way: answer
 *     SENDING    nng has its aio. The answer left, or its client is gone: -> RECEIVING
 *
 * No aio ever has a timeout or is cancelled: see parking.h.
 *
 * The thread that runs a context's callback owns the context, until it starts the next
 * operation; after that another thread may already be in the next callback. That is why
 * park() is called under the lock of the list the waiter is put on: whoever wants to wake it
 * has to take that lock first, and by then it is parked.
 *
 * Shared state lives in the job table (jobs.c) and the worker (worker.c), each behind its own
 * mutex; the server's own counters are atomic. Requests are parsed and answers encoded
 * without any lock. When a connection goes, its parked contexts are woken (on_pipe_gone).
 */
#include "daemon/server.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/supplemental/util/platform.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/connections.h"
#include "daemon/failure.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/parameters_json.h"
#include "daemon/parking.h"
#include "daemon/receipt.h"
#include "daemon/sampling.h"
#include "daemon/unread.h"
#include "protocol/message.h"

enum {
    CONTEXTS = 1024,
    MOST_PARKED = 960, /* the others stay free for requests that answer at once */
    LONGEST_WAIT_MS = 60000,
    LOAD_WAIT_MS = 30 * 60 * 1000,
    UNLOAD_WAIT_MS = 2000, /* it is done when a step has ended, or the job that has just begun */
    HARD_CAP_FACTOR = 2, /* what is larger than this many times the limit nng drops, with the connection */
    NNG_HEADER_BYTES = 64, /* nng counts its own headers too */
    STUCK_CHECKS = 10,   /* at which a connection of our own was ended */
    FLUSH_MS = 100       /* nng has no way to ask whether the last answers have left */
};

enum state { RECEIVING, SENDING }; /* what nng has the aio for */

struct server;
struct context;

/* A request's handler fills `answer` (an object that has "protocol" and "ok") or fails. */
typedef int handler(struct context *context, const cJSON *request, struct error *error);

/* What a context is parked for. */
enum parked_for { PARKED_FOR_EVENTS, PARKED_FOR_LOAD, PARKED_FOR_UNLOAD };

struct context {
    struct waiter waiter;
    struct parked parked;
    struct server *server;
    nng_ctx ctx;
    nng_aio *aio;
    enum state state;

    struct message *message; /* the request, while it is being handled; job_request_open may take it */
    cJSON *answer;           /* being made */
    struct job_news news;    /* events for the answer */
    struct blob *encoded;    /* or the whole answer, ready to be sent */

    enum parked_for parked_for;
    double parked_until;
    char job[JOB_ID_MAX_BYTES + 1];
    uint64_t after;
    int model;
    uint64_t ticket; /* of a load or unload */
};

struct request_name {
    const char *name;
    handler *handle;
};

struct server {
    const struct options *options;
    struct jobs *jobs;
    struct worker *worker;
    void (*on_shutdown)(void *context, bool cancel);
    void *context;
    double started_at;
    char generation[JOB_ID_MAX_BYTES + 1];
    struct blob *no_memory_answer; /* made while there is memory, */
    _Atomic(nng_msg *) no_memory_msg; /* and ready to be sent; NULL: was sent */
    nng_socket socket;
    struct listener *listener;
    struct parking *parking;
    struct context *contexts;
    int context_count;
    atomic_int parked_count;
    struct unread *unread;
    atomic_bool closing; /* callbacks do nothing any more */
    struct connections connections;
    unsigned gone_at_last_check;
    int checks_without_end; /* of any connection, though one of our own was ended, in a row */
    atomic_uint_fast64_t bad_messages;
    atomic_uint_fast64_t *counts; /* one for each of `requests` */
};

static void on_aio(void *argument);
static struct context *context_of(struct waiter *waiter)
{
    return (struct context *)((char *)waiter - offsetof(struct context, waiter));
}

/* --- Sending and receiving --------------------------------------------------------------- */

static void receive(struct context *context)
{
    context->state = RECEIVING;
    nng_ctx_recv(context->ctx, context->aio);
}

static void clear(struct context *context)
{
    message_close(context->message);
    context->message = NULL;
    cJSON_Delete(context->answer);
    context->answer = NULL;
    job_news_clear(&context->news);
    blob_close(context->encoded);
    context->encoded = NULL;
}

static nng_msg *copy_to_msg(const void *data, uint64_t bytes)
{
    nng_msg *msg;
    if (nng_msg_alloc(&msg, bytes) != 0)
        return NULL;
    memcpy(nng_msg_body(msg), data, bytes);
    return msg;
}

/* Have the answer for want of memory ready, unless it is. */
static void ready_no_memory_msg(struct server *server)
{
    if (atomic_load(&server->no_memory_msg) != NULL)
        return;
    nng_msg *none = NULL, *msg = copy_to_msg(server->no_memory_answer->data, server->no_memory_answer->bytes);
    if (msg != NULL && !atomic_compare_exchange_strong(&server->no_memory_msg, &none, msg))
        nng_msg_free(msg);
}

static int slot_of(const struct context *context)
{
    return (int)(context - context->server->contexts);
}

static void end_sending(struct context *context);

/* Copy and send an answer that unread.h has noted. */
static void send_noted(struct context *context, const void *data, uint64_t bytes)
{
    nng_msg *msg = copy_to_msg(data, bytes);
    clear(context);
    if (msg == NULL) {
        log_error(NULL, "no memory for an answer of %llu bytes", (unsigned long long)bytes);
        msg = atomic_exchange(&context->server->no_memory_msg, NULL);
    } else
        ready_no_memory_msg(context->server);
    if (msg == NULL) { /* the client asks again, or gives up */
        end_sending(context);
        return;
    }
    context->state = SENDING;
    nng_aio_set_msg(context->aio, msg);
    nng_ctx_send(context->ctx, context->aio);
}

/* The answer was read, or is not to be had: one that waited for that is sent, and the next request received. */
static void end_sending(struct context *context)
{
    struct server *server = context->server;
    int next = unread_end(server->unread, slot_of(context));
    receive(context);
    if (next >= 0)
        send_noted(&server->contexts[next], server->contexts[next].encoded->data, server->contexts[next].encoded->bytes);
}

/* Send `encoded`, which the context holds, or leave it there until end_sending comes for it. */
static void send_encoded(struct context *context)
{
    const struct blob *encoded = context->encoded;
    switch (unread_begin(context->server->unread, slot_of(context), context->waiter.client, encoded->bytes)) {
    case UNREAD_SEND: send_noted(context, encoded->data, encoded->bytes); break;
    case UNREAD_WAIT: break; /* another thread may be at it already */
    case UNREAD_DROP:
        clear(context);
        receive(context);
        break;
    }
}

static size_t preview_tensors(const struct job_news *news, struct tensor_view *tensors)
{
    for (int i = 0; i < news->preview_count; i++) {
        const struct job_preview *preview = &news->previews[i];
        tensors[i] = (struct tensor_view){
            .name = preview->name,
            .dtype = DTYPE_U8,
            .dimensions = 4,
            .shape = {(uint64_t)preview->frames, (uint64_t)preview->height, (uint64_t)preview->width, 3},
            .data = preview->rgb->data,
            .bytes = preview->rgb->bytes,
        };
    }
    return (size_t)news->preview_count;
}

/* Send what a handler made, or the error it failed with. */
static void send_answer(struct context *context, int status, const struct error *failure)
{
    struct error error;
    if (status == 0 && context->encoded != NULL) {
        send_encoded(context);
        return;
    }
    if (status != 0) {
        job_news_clear(&context->news);
        cJSON_Delete(context->answer);
        context->answer = failure_json(failure);
    } else if (context->news.events != NULL) {
        json_add(context->answer, "events", context->news.events);
        context->news.events = NULL;
    }
    struct tensor_view tensors[JOBS_KEPT_PREVIEWS];
    size_t count = preview_tensors(&context->news, tensors);
    void *data;
    uint64_t bytes;
    if (message_encode(&data, &bytes, context->answer, tensors, count, &error) != 0) {
        log_error(NULL, "an answer cannot be written: %s", error.text);
        if (error.code == ERROR_NO_MEMORY)
            context->encoded = blob_share(context->server->no_memory_answer);
    } else {
        context->encoded = blob_open(data, bytes);
    }
    if (context->encoded != NULL) {
        send_encoded(context);
        return;
    }
    clear(context);
    receive(context);
}

/* --- Parking ----------------------------------------------------------------------------- */

/* A connection may end before its request is parked: on_pipe_gone remembers it first, then looks through the parked ones. */
static void park(struct waiter *waiter)
{
    struct context *context = context_of(waiter);
    atomic_fetch_add(&context->server->parked_count, 1);
    if (connections_is_gone(&context->server->connections, waiter->client))
        waiter->client_gone = true;
    parking_add(context->server->parking, &context->parked, waiter->client_gone ? 0 : context->parked_until);
}

static void wake(struct waiter *waiter)
{
    struct context *context = context_of(waiter);
    parking_end(context->server->parking, &context->parked);
}

/* The waiter to park with, or NULL when the answer must be given at once. */
static struct waiter *waiter_of(struct context *context)
{
    bool may_wait = context->parked_until > clock_seconds() && !context->waiter.client_gone &&
                    atomic_load(&context->server->parked_count) < MOST_PARKED;
    return may_wait ? &context->waiter : NULL;
}

/* --- Requests ------------------------------------------------------------------------------ */
/* A handler may park the context; nobody may touch it after that. */

enum { HANDLER_PARKED = 1 };

static int read_job(struct context *context, const cJSON *request, struct error *error)
{
    const char *id = json_text(request, "job");
    if (!job_id_is_valid(id))
        return error_set(error, ERROR_BAD_REQUEST, "job: must be 1 to %d characters of A-Z a-z 0-9 . _ -", JOB_ID_MAX_BYTES);
    snprintf(context->job, sizeof context->job, "%s", id);
    return 0;
}

/* An optional whole number. */
static int read_whole(uint64_t *out, const cJSON *request, const char *name, uint64_t missing, uint64_t highest,
                      struct error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(request, name);
    *out = missing;
    if (item != NULL && !json_uint64(item, out))
        return error_set(error, ERROR_BAD_REQUEST, "%s: must be a whole number", name);
    if (*out > highest)
        *out = highest;
    return 0;
}

static void add_model(struct context *context, const struct worker_status *status)
{
    json_add(context->answer, "model",
                          status->loaded >= 0 ? model_info_json(&status->info) : cJSON_CreateNull());
}

static int handle_hello(struct context *context, const cJSON *request, struct error *error)
{
    (void)error;
    struct server *server = context->server;
    const struct options *options = server->options;
    struct worker_status status;
    worker_status(server->worker, &status);
    const char *client = json_text(request, "client");
    log_debug(NULL, "hello from %.80s", client != NULL ? client : "a client without a name");

    json_add_text(context->answer, "version", LANCED_VERSION);
    json_add_text(context->answer, "generation", server->generation);
    json_add_text(context->answer, "backend", status.backend);
    json_add_number(context->answer, "pid", getpid());
    cJSON *limits = json_add_object(context->answer, "limits");
    json_add_number(limits, "message_bytes", (double)options->max_message_bytes);
    json_add_number(limits, "queue", options->jobs.queue);
    json_add_number(limits, "queue_bytes", (double)options->jobs.queue_bytes);
    json_add_number(limits, "results", options->jobs.results);
    json_add_number(limits, "result_bytes", (double)options->jobs.result_bytes);
    json_add_number(limits, "result_seconds", options->jobs.result_seconds);
    add_model(context, &status);
    json_add_text(context->answer, "default_model", options->models[0].name);
    json_add_bool(context->answer, "shutting_down", jobs_is_shut(server->jobs));
    return 0;
}

static int handle_models(struct context *context, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    struct worker_status status;
    worker_status(context->server->worker, &status);
    json_add_text(context->answer, "backend", status.backend);
    json_add(context->answer, "models", worker_models(context->server->worker));
    json_add(context->answer, "automatic", worker_automatic(context->server->worker));
    return 0;
}

/* First when asked, again whenever woken. */
static int continue_load(struct context *context, struct error *error)
{
    struct server *server = context->server;
    bool parked;
    int status = worker_load(server->worker, context->model, &context->ticket, waiter_of(context), &parked, error);
    if (parked)
        return HANDLER_PARKED;
    if (status != 0)
        return status;
    struct worker_status snapshot;
    worker_status(server->worker, &snapshot);
    add_model(context, &snapshot);
    return 0;
}

static int handle_load(struct context *context, const cJSON *request, struct error *error)
{
    struct server *server = context->server;
    const char *name = NULL;
    uint64_t timeout_ms;
    int status = request_read_model(&name, request, error);
    if (status == 0)
        status = read_whole(&timeout_ms, request, "timeout_ms", LOAD_WAIT_MS, LOAD_WAIT_MS, error);
    if (status == 0)
        status = worker_choose_model(server->worker, name != NULL ? name : server->options->models[0].name, LANCE_T2I,
                                     &context->model, error);
    if (status != 0)
        return status;
    context->parked_for = PARKED_FOR_LOAD;
    context->parked_until = clock_seconds() + (double)timeout_ms / 1000;
    context->ticket = 0;
    return continue_load(context, error);
}

static int add_unloaded(struct context *context, enum worker_unload state)
{
    if (state == UNLOAD_PARKED)
        return HANDLER_PARKED;
    json_add_bool(context->answer, "unloaded", state == UNLOAD_DONE);
    json_add_bool(context->answer, "pending", state == UNLOAD_PENDING);
    return 0;
}

static int handle_unload(struct context *context, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    context->parked_for = PARKED_FOR_UNLOAD;
    context->parked_until = clock_seconds() + UNLOAD_WAIT_MS / 1000.0;
    return add_unloaded(context, worker_unload(context->server->worker, &context->ticket, waiter_of(context)));
}

static int continue_unload(struct context *context)
{
    return add_unloaded(context, worker_unload_again(context->server->worker, context->ticket, waiter_of(context)));
}

static void add_job_status(struct context *context, const struct job_status *status)
{
    json_add_text(context->answer, "state", job_state_name(status->state));
    json_add_number(context->answer, "position", status->position);
}

static int submit(struct context *context, struct job_status *status, struct error *error)
{
    struct server *server = context->server;
    struct job_request *request;
    cJSON *unknown = job_request_unknown(context->message);
    json_add(context->answer, "ignored", unknown);
    int result = job_request_open(&request, context->message, error);
    if (result == 0) {
        context->message = NULL; /* the request has it */
        int model;
        if (jobs_find(server->jobs, context->job, status)) /* a repetition, or a mistake: the table tells */
            return jobs_submit(server->jobs, context->job, request, status, error);
        result = worker_choose_model(server->worker, request->model, request->lance.task, &model, error);
        if (result == 0)
            result = worker_check(server->worker, model, &request->lance, error);
        if (result == 0) {
            log_debug(context->job, "submitted: %s", lance_task_name(request->lance.task));
            return jobs_submit(server->jobs, context->job, request, status, error);
        }
        job_request_close(request);
    }
    jobs_count_refused(server->jobs);
    return result;
}

static int handle_submit(struct context *context, const cJSON *request, struct error *error)
{
    struct server *server = context->server;
    struct job_status job;
    int status = read_job(context, request, error);
    if (status == 0)
        status = submit(context, &job, error);
    if (status != 0) {
        log_info(context->job[0] != '\0' ? context->job : NULL, "refused: %s", error->text);
        return status;
    }
    struct worker_status snapshot;
    worker_status(server->worker, &snapshot);
    add_job_status(context, &job);
    add_model(context, &snapshot);
    return 0;
}

static int continue_wait(struct context *context, struct error *error)
{
    bool parked;
    int status = jobs_news(context->server->jobs, context->job, context->after, waiter_of(context), &parked, &context->news,
                           error);
    return parked ? HANDLER_PARKED : status;
}

static int handle_wait(struct context *context, const cJSON *request, struct error *error)
{
    uint64_t timeout_ms;
    int status = read_job(context, request, error);
    if (status == 0)
        status = read_whole(&context->after, request, "after", 0, UINT64_MAX, error);
    if (status == 0)
        status = read_whole(&timeout_ms, request, "timeout_ms", 0, LONGEST_WAIT_MS, error);
    if (status != 0)
        return status;
    context->parked_for = PARKED_FOR_EVENTS;
    context->parked_until = clock_seconds() + (double)timeout_ms / 1000;
    return continue_wait(context, error);
}

static int handle_result(struct context *context, const cJSON *request, struct error *error)
{
    int status = read_job(context, request, error);
    return status != 0 ? status : jobs_result(context->server->jobs, context->job, &context->encoded, error);
}

static int handle_cancel(struct context *context, const cJSON *request, struct error *error)
{
    enum job_state state;
    int status = read_job(context, request, error);
    if (status == 0)
        status = jobs_cancel(context->server->jobs, context->job, &state, error);
    if (status == 0)
        json_add_text(context->answer, "state", job_state_name(state));
    return status;
}

static int handle_release(struct context *context, const cJSON *request, struct error *error)
{
    int status = read_job(context, request, error);
    if (status == 0)
        jobs_release(context->server->jobs, context->job);
    return status;
}

static int handle_jobs(struct context *context, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    json_add(context->answer, "jobs", jobs_list(context->server->jobs));
    return 0;
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file != NULL) {
        if (fscanf(file, "%*u %llu", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void add_request_counts(struct context *context);

static int handle_stats(struct context *context, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    struct server *server = context->server;
    struct worker_status status;
    worker_status(server->worker, &status);
    uint64_t queue_bytes, result_bytes;
    cJSON *jobs = jobs_stats(server->jobs, &queue_bytes, &result_bytes), *answer = context->answer;
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);

    json_add_text(answer, "version", LANCED_VERSION);
    json_add_text(answer, "generation", server->generation);
    json_add_text(answer, "backend", status.backend);
    if (status.advice[0])
        json_add_text(answer, "advice", status.advice);
    json_add_number(answer, "uptime_seconds", clock_seconds() - server->started_at);
    json_add_number(answer, "loads", (double)status.loads);
    json_add_number(answer, "unloads", (double)status.unloads);
    add_model(context, &status);
    json_add_number(answer, "idle_unload_seconds", server->options->idle_unload_seconds);
    json_add(answer, "jobs", jobs);
    add_request_counts(context);
    json_add_number(answer, "bad_messages", (double)atomic_load(&server->bad_messages));
    json_add_number(answer, "waiting", atomic_load(&server->parked_count));
    json_add_number(answer, "steps", (double)status.steps);
    json_add_number(answer, "busy_seconds", status.busy_seconds);
    json_add_number(answer, "last_step_seconds", status.last_step_seconds);
    cJSON *memory = json_add_object(answer, "memory");
    json_add_number(memory, "resident_bytes", (double)resident_bytes());
    json_add_number(memory, "peak_resident_bytes", (double)usage.ru_maxrss * 1024);
    json_add_number(memory, "weight_bytes", (double)status.info.weight_bytes);
    json_add_number(memory, "prefix_bytes", (double)status.held.prefix_bytes);
    json_add_number(memory, "job_bytes", (double)status.held.job_bytes);
    json_add_number(memory, "held_bytes",
                            (double)(status.held.weight_bytes + status.held.prefix_bytes + status.held.job_bytes));
    json_add_number(memory, "queue_bytes", (double)queue_bytes);
    json_add_number(memory, "result_bytes", (double)result_bytes);
    json_add_number(memory, "job_peak_bytes", (double)status.job_peak_bytes);
    json_add_number(memory, "job_limit_bytes", (double)status.memory_limit_bytes);
    cJSON *prefixes = json_add_object(answer, "prefix_cache");
    json_add_number(prefixes, "hits", (double)status.prefixes.hits);
    json_add_number(prefixes, "misses", (double)status.prefixes.misses);
    json_add_number(prefixes, "evictions", (double)status.prefixes.evictions);
    json_add_number(prefixes, "blocks", (double)status.prefixes.blocks);
    json_add_number(prefixes, "bytes", (double)status.prefixes.bytes);
    json_add_number(prefixes, "limit_bytes", (double)status.prefixes.limit_bytes);
    return 0;
}

static int handle_shutdown(struct context *context, const cJSON *request, struct error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(request, "mode");
    const char *mode = item == NULL ? "finish" : cJSON_GetStringValue(item);
    if (mode == NULL || (strcmp(mode, "finish") != 0 && strcmp(mode, "cancel") != 0))
        return error_set(error, ERROR_BAD_REQUEST, "mode: must be \"finish\" or \"cancel\"");
    log_info(NULL, "a client asked to shut down (%s)", mode);
    context->server->on_shutdown(context->server->context, strcmp(mode, "cancel") == 0);
    return 0;
}

static int handle_parameters(struct context *context, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    parameters_add_json(context->answer);
    return 0;
}

static int handle_sampling(struct context *context, const cJSON *request, struct error *error)
{
    return sampling_answer(context->answer, request, context->server->options->max_message_bytes, error);
}

static const struct request_name requests[] = {
    {"hello", handle_hello},   {"models", handle_models},   {"load", handle_load},     {"unload", handle_unload},
    {"submit", handle_submit}, {"wait", handle_wait},       {"result", handle_result}, {"cancel", handle_cancel},
    {"release", handle_release}, {"stats", handle_stats},   {"shutdown", handle_shutdown},
    {"jobs", handle_jobs},     {"parameters", handle_parameters},
    {"sampling", handle_sampling},
};
enum { REQUESTS = sizeof requests / sizeof requests[0] };

static void add_request_counts(struct context *context)
{
    cJSON *counts = json_add_object(context->answer, "requests");
    for (int i = 0; i < REQUESTS; i++)
        json_add_number(counts, requests[i].name, (double)atomic_load(&context->server->counts[i]));
}

/* --- One message ------------------------------------------------------------------------------ */

/* Whether the token is right, in a time that does not tell how much of it is. */
static bool token_is_right(const char *wanted, const char *given)
{
    if (given == NULL)
        given = "";
    size_t length = strlen(given);
    unsigned difference = length != strlen(wanted);
    for (size_t i = 0; wanted[i] != '\0'; i++)
        difference |= (unsigned char)wanted[i] ^ (unsigned char)(length != 0 ? given[i % length] : 0);
    return difference == 0;
}

static int handle_message(struct context *context, struct error *error)
{
    struct server *server = context->server;
    const cJSON *envelope = message_envelope(context->message);
    const cJSON *protocol = cJSON_GetObjectItemCaseSensitive(envelope, "protocol");
    const char *name = json_text(envelope, "request");
    if (!cJSON_IsNumber(protocol))
        return error_set(error, ERROR_BAD_REQUEST, "protocol: must be a number; this is lanced %s, protocol %d", LANCED_VERSION,
                         PROTOCOL_VERSION);
    if (protocol->valuedouble != PROTOCOL_VERSION)
        return error_set(error, ERROR_UNSUPPORTED,
                         "the client speaks protocol %g, lanced %s speaks %d; install both from the same release",
                         protocol->valuedouble, LANCED_VERSION, PROTOCOL_VERSION);
    if (server->options->token[0] != '\0' && !token_is_right(server->options->token, json_text(envelope, "token")))
        return error_set(error, ERROR_BAD_REQUEST,
                         "token: is missing or wrong; set LANCED_TOKEN to the token this lanced was started with");
    if (name == NULL)
        return error_set(error, ERROR_BAD_REQUEST, "request: must be a string");
    for (int i = 0; i < REQUESTS; i++)
        if (strcmp(name, requests[i].name) == 0) {
            atomic_fetch_add(&server->counts[i], 1);
            return requests[i].handle(context, envelope, error);
        }
    return error_set(error, ERROR_UNSUPPORTED, "request: \"%.40s\" is not known to lanced %s", name, LANCED_VERSION);
}

static void start_answer(struct context *context)
{
    context->answer = json_object();
    json_add_number(context->answer, "protocol", PROTOCOL_VERSION);
    json_add_bool(context->answer, "ok", true);
}

static void free_msg(void *msg)
{
    nng_msg_free(msg);
}

static void on_request(struct context *context, nng_msg *msg)
{
    struct server *server = context->server;
    struct error error = {0};
    context->job[0] = '\0';
    context->waiter.client = (uint32_t)nng_pipe_id(nng_msg_get_pipe(msg));
    context->waiter.client_gone = false;
    int status = message_parse(&context->message, nng_msg_body(msg), nng_msg_len(msg), server->options->max_message_bytes,
                               &error);
    if (status != 0) {
        nng_msg_free(msg);
        atomic_fetch_add(&server->bad_messages, 1);
        log_warning(NULL, "bad message: %s", error.text);
    } else {
        message_adopt(context->message, msg, free_msg);
        start_answer(context);
        status = connections_admit(&server->connections, context->waiter.client, &error);
        if (status == 0)
            status = handle_message(context, &error);
    }
    if (status != HANDLER_PARKED)
        send_answer(context, status, &error);
}

static void on_new_pipe(nng_pipe pipe, nng_pipe_ev event, void *argument)
{
    (void)event;
    struct server *server = argument;
    if (!connections_add(&server->connections, (uint32_t)nng_pipe_id(pipe)))
        nng_pipe_close(pipe);
}

static void on_pipe_gone(nng_pipe pipe, nng_pipe_ev event, void *argument)
{
    (void)event;
    struct server *server = argument;
    uint32_t client = (uint32_t)nng_pipe_id(pipe);
    connections_remove(&server->connections, client);
    jobs_client_gone(server->jobs, client);
    worker_client_gone(server->worker, client);
}

static void unpark(struct context *context)
{
    if (context->parked_for == PARKED_FOR_EVENTS)
        jobs_unpark(context->server->jobs, &context->waiter);
    else
        worker_unpark(context->server->worker, &context->waiter);
}

/* The parked time is over, or there is news. */
static void answer_parked(struct parked *parked)
{
    struct context *context = (struct context *)((char *)parked - offsetof(struct context, parked));
    struct server *server = context->server;
    struct error error = {0};
    int status = 0;
    atomic_fetch_sub(&server->parked_count, 1);
    unpark(context);
    if (context->waiter.client_gone) { /* nobody wants to know */
        clear(context);
        receive(context);
        return;
    }
    switch (context->parked_for) {
    case PARKED_FOR_EVENTS:
        status = continue_wait(context, &error);
        break;
    case PARKED_FOR_LOAD:
        status = continue_load(context, &error);
        break;
    case PARKED_FOR_UNLOAD:
        status = continue_unload(context);
        break;
    }
    if (status != HANDLER_PARKED)
        send_answer(context, status, &error);
}

static void on_aio(void *argument)
{
    struct context *context = argument;
    int result = nng_aio_result(context->aio);
    if (atomic_load(&context->server->closing)) {
        nng_msg_free(nng_aio_get_msg(context->aio)); /* NULL, received, or not sent */
        nng_aio_set_msg(context->aio, NULL);
        return;
    }
    switch (context->state) {
    case RECEIVING:
        if (result == NNG_ECLOSED)
            break;
        nng_msg *msg = result == 0 ? nng_aio_get_msg(context->aio) : NULL;
        nng_aio_set_msg(context->aio, NULL);
        if (msg != NULL)
            on_request(context, msg);
        else /* with a result of 0, too: see parking.h */
            receive(context);
        break;
    case SENDING:
        if (result != 0)
            nng_msg_free(nng_aio_get_msg(context->aio));
        nng_aio_set_msg(context->aio, NULL);
        end_sending(context);
        break;
    }
}

/* --- Life ------------------------------------------------------------------------------------ */

static int open_contexts(struct server *server)
{
    for (int i = 0; i < CONTEXTS; i++) {
        struct context *context = &server->contexts[i];
        context->server = server;
        context->waiter.park = park;
        context->waiter.wake = wake;
        int result = nng_aio_alloc(&context->aio, on_aio, context);
        if (result != 0)
            return result;
        server->context_count++;
        result = nng_ctx_open(&context->ctx, server->socket);
        if (result != 0)
            return result;
    }
    return 0;
}

int server_open(struct server **out, const struct options *options, struct jobs *jobs, struct worker *worker,
                void (*on_shutdown)(void *context, bool cancel), void *context, struct error *error)
{
    *out = NULL;
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return error_set(error, ERROR_NO_MEMORY, "server: out of memory");
    server->options = options;
    server->jobs = jobs;
    server->worker = worker;
    server->on_shutdown = on_shutdown;
    server->context = context;
    server->started_at = clock_seconds();
    job_id_make(server->generation);
    server->contexts = calloc(CONTEXTS, sizeof *server->contexts);
    server->counts = calloc(REQUESTS, sizeof *server->counts);
    server->unread = unread_open(CONTEXTS);
    if (server->contexts == NULL || server->counts == NULL || server->unread == NULL || failure_no_memory(&server->no_memory_answer, error) != 0) {
        free(server->contexts);
        free(server->counts);
        unread_close(server->unread);
        free(server);
        return error_set(error, ERROR_NO_MEMORY, "server: out of memory");
    }
    int status = parking_open(&server->parking, answer_parked, error);
    if (status != 0) {
        server_close(server);
        return status;
    }
    int result = nng_rep0_open(&server->socket);
    if (result == 0)
        result = nng_pipe_notify(server->socket, NNG_PIPE_EV_ADD_PRE, on_new_pipe, server);
    if (result == 0)
        result = nng_pipe_notify(server->socket, NNG_PIPE_EV_REM_POST, on_pipe_gone, server);
    if (result == 0)
        result = open_contexts(server);
    status = result == 0 ? listener_open(&server->listener, server->socket, &options->endpoint,
                                         options->max_message_bytes * HARD_CAP_FACTOR + NNG_HEADER_BYTES, error)
                         : error_set(error, ERROR_IO, "server: cannot open its socket: %s", nng_strerror(result));
    if (status != 0) {
        server_close(server);
        return status;
    }
    for (int i = 0; i < CONTEXTS; i++)
        receive(&server->contexts[i]);
    *out = server;
    return 0;
}

void server_check(struct server *server)
{
    bool ended_one = listener_check(server->listener);
    /* nng 1.5 never finishes an ended connection, nor any after it, when it was closed between two reads of one message: it
     * takes a client that sends several requests at once and hangs up without reading. Service goes on, but every connection that
     * ends keeps its file descriptor. */
    unsigned gone = connections_ended(&server->connections);
    server->checks_without_end = gone != server->gone_at_last_check ? 0 : server->checks_without_end + ended_one;
    server->gone_at_last_check = gone;
    if (ended_one && server->checks_without_end == STUCK_CHECKS)
        log_warning(NULL, "ended connections are not cleaned up any more (a fault of nng 1.5 that a client set off by hanging up "
                          "in the middle of a request); restart lanced when convenient");
}

void server_close(struct server *server)
{
    if (server == NULL)
        return;
    for (int i = 0; i < 100 && unread_count(server->unread) > 0; i++)
        nng_msleep(10);
    if (server->context_count > 0)
        nng_msleep(FLUSH_MS);
    atomic_store(&server->closing, true);
    listener_close(server->listener);
    nng_close(server->socket);
    if (server->parking != NULL)
        parking_stop(server->parking);
    for (int i = 0; i < server->context_count; i++)
        nng_aio_stop(server->contexts[i].aio); /* its callback has ended when this returns */
    for (int i = 0; i < server->context_count; i++) {
        struct context *context = &server->contexts[i];
        unpark(context);
        nng_aio_free(context->aio);
        clear(context);
    }
    parking_close(server->parking);
    free(server->contexts);
    free(server->counts);
    unread_close(server->unread);
    nng_msg_free(atomic_load(&server->no_memory_msg));
    blob_close(server->no_memory_answer);
    free(server);
}
