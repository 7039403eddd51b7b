/* service.c: see service.h. Which requests there are, and what every one of them goes through. */
#include "daemon/service/service.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/blobs.h"
#include "daemon/failure.h"
#include "daemon/jobs/jobs.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/service/handling.h"
#include "daemon/service/rights.h"

static const struct request_kind requests[] = {
    {"hello", RIGHT_ANY, handle_hello, NULL, NULL},
    {"models", RIGHT_ANY, handle_models, NULL, NULL},
    {"load", RIGHT_ADMIN, handle_load, resume_load, unpark_model},
    {"unload", RIGHT_ADMIN, handle_unload, resume_unload, unpark_model},
    {"submit", RIGHT_ANY, handle_submit, resume_submit, unpark_job},
    {"wait", RIGHT_ANY, handle_wait, resume_wait, unpark_job},
    {"result", RIGHT_ANY, handle_result, NULL, NULL},
    {"cancel", RIGHT_ANY, handle_cancel, NULL, NULL},
    {"release", RIGHT_ANY, handle_release, NULL, NULL},
    {"stats", RIGHT_ANY, handle_stats, NULL, NULL},
    {"metrics", RIGHT_ANY, handle_metrics, NULL, NULL},
    {"shutdown", RIGHT_ADMIN, handle_shutdown, NULL, NULL},
    {"jobs", RIGHT_ANY, handle_jobs, NULL, NULL},
    {"history", RIGHT_ANY, handle_history, NULL, NULL},
    {"parameters", RIGHT_ANY, handle_parameters, NULL, NULL},
    {"sampling", RIGHT_ANY, handle_sampling, NULL, NULL},
    {"put", RIGHT_ANY, handle_put, NULL, NULL},
    {"get", RIGHT_ANY, handle_get, NULL, NULL},
};
enum { MOST_PREVIEW_BYTES = 2 << 20 }; /* in one answer; older pictures are left out */
enum { BLOBS_KEPT_SECONDS = 600, BLOBS_LEFT_ALONE_SECONDS = 10 };
enum { REQUESTS = sizeof requests / sizeof requests[0] };

/* --- The answer --------------------------------------------------------------------------- */

/* The newest previews that fit into an answer, or the piece of a tensor. */
static size_t answer_tensors(const struct call *call, struct tensor_view tensors[JOBS_KEPT_PREVIEWS])
{
    const struct job_news *news = &call->news;
    if (call->piece.data) {
        tensors[0] = call->piece;
        return 1;
    }
    uint64_t bytes = 0;
    int first = news->preview_count;
    while (first > 0 && bytes + news->previews[first - 1].rgb->bytes <= MOST_PREVIEW_BYTES)
        bytes += news->previews[--first].rgb->bytes;
    for (int i = first; i < news->preview_count; i++) {
        const struct job_preview *preview = &news->previews[i];
        tensors[i - first] = (struct tensor_view){
            .name = preview->name,
            .dtype = DTYPE_U8,
            .dimensions = 4,
            .shape = {(uint64_t)preview->frames, (uint64_t)preview->height, (uint64_t)preview->width, 3},
            .data = preview->rgb->data,
            .bytes = preview->rgb->bytes,
        };
    }
    return (size_t)(news->preview_count - first);
}

static void encode_answer(struct call *call)
{
    struct error error;
    struct tensor_view tensors[JOBS_KEPT_PREVIEWS];
    size_t count = answer_tensors(call, tensors);
    void *data;
    uint64_t bytes;
    int status = message_encode(&data, &bytes, call->fields, tensors, count, &error);
    if (status == 0 && !(call->answer = blob_open(data, bytes)))
        status = error_set(&error, ERROR_NO_MEMORY, "out of memory");
    if (status == 0)
        return;
    log_error(NULL, "an answer cannot be written: %s", error.text);
    if (error.code == ERROR_NO_MEMORY)
        call->answer = blob_share(call->service->no_memory_answer);
}

/* What a handler made, or the error it failed with, becomes the answer. */
static void finish(struct call *call, int code, const struct error *failure)
{
    if (code != 0) {
        job_news_clear(&call->news);
        cJSON_Delete(call->fields);
        call->fields = failure_json(failure);
        call->piece.data = NULL;
        if (call->missing_blobs)
            json_add(call->fields, "missing_blobs", call->missing_blobs);
        call->missing_blobs = NULL;
    } else if (call->news.events) {
        json_add(call->fields, "events", call->news.events);
        call->news.events = NULL;
    }
    if (code != 0 || !call->answer)
        encode_answer(call);
}

void service_refuse(struct call *call, const struct error *why)
{
    finish(call, why->code, why);
}

void call_clear(struct call *call)
{
    message_close(call->message);
    call->message = NULL;
    cJSON_Delete(call->fields);
    call->fields = NULL;
    cJSON_Delete(call->missing_blobs);
    call->missing_blobs = NULL;
    job_news_clear(&call->news);
    call->piece.data = NULL;
    blob_close(call->piece_of);
    call->piece_of = NULL;
    blob_close(call->answer);
    call->answer = NULL;
}

/* --- One message ------------------------------------------------------------------------------ */

static int handle_envelope(struct call *call, const cJSON *envelope, struct error *error)
{
    struct service *service = call->service;
    const cJSON *protocol = cJSON_GetObjectItemCaseSensitive(envelope, "protocol");
    const char *name = json_text(envelope, "request"), *token = json_text(envelope, "token");
    if (!cJSON_IsNumber(protocol))
        return error_set(error, ERROR_BAD_REQUEST, "protocol: must be a number; this is lanced %s, protocol %d",
                         LANCED_VERSION, PROTOCOL_VERSION);
    if (protocol->valuedouble != PROTOCOL_VERSION)
        return error_set(error, ERROR_UNSUPPORTED,
                         "the client speaks protocol %g, lanced %s speaks %d; install both from the same release",
                         protocol->valuedouble, LANCED_VERSION, PROTOCOL_VERSION);
    int code = rights_identify(&call->who, service->tokens, token, call->is_of_owner, error);
    if (code != 0)
        return code;
    if (!name)
        return error_set(error, ERROR_BAD_REQUEST, "request: must be a string");
    for (int i = 0; i < REQUESTS; i++)
        if (strcmp(name, requests[i].name) == 0) {
            atomic_fetch_add(&service->counts[i], 1);
            call->kind = &requests[i];
            code = requests[i].right == RIGHT_ADMIN ? rights_check_admin(&call->who, error) : 0;
            return code != 0 ? code : requests[i].handle(call, envelope, error);
        }
    return error_set(error, ERROR_UNSUPPORTED, "request: \"%.40s\" is not known to lanced %s", name, LANCED_VERSION);
}

bool service_handle(struct call *call, const void *data, uint64_t bytes, void *owner, void (*release)(void *owner))
{
    struct service *service = call->service;
    struct error error = {0};
    call->job[0] = '\0';
    call->kind = NULL;
    int status = message_parse(&call->message, data, bytes, MESSAGE_LIMIT_BYTES, &error);
    if (status != 0) {
        release(owner);
        /* Not what is wrong, which may quote a token, and less and less often, since strangers can send them. */
        const unsigned long long count = atomic_fetch_add(&service->bad_messages, 1) + 1;
        if ((count & (count - 1)) == 0)
            log_warning(NULL, "bad message (%s, number %llu); its sender was told why", error_name(error.code), count);
    } else {
        message_adopt(call->message, owner, release);
        call->fields = json_object();
        json_add_number(call->fields, "protocol", PROTOCOL_VERSION);
        json_add_bool(call->fields, "ok", true);
        status = handle_envelope(call, message_envelope(call->message), &error);
    }
    if (status == CALL_PARKED)
        return false;
    finish(call, status, &error);
    return true;
}

bool service_continue(struct call *call)
{
    struct error error = {0};
    atomic_fetch_sub(&call->service->parked, 1);
    call->kind->unpark(call);
    if (call->waiter.client_gone) /* nobody wants to know */
        return true;
    int code = call->kind->resume(call, &error);
    if (code == CALL_PARKED)
        return false;
    finish(call, code, &error);
    return true;
}

/* --- Life ------------------------------------------------------------------------------------- */

static struct call *call_of(struct waiter *waiter)
{
    return (struct call *)((char *)waiter - offsetof(struct call, waiter));
}

static void on_park(struct waiter *waiter)
{
    struct call *call = call_of(waiter);
    atomic_fetch_add(&call->service->parked, 1);
    call->park(call);
}

static void on_wake(struct waiter *waiter)
{
    struct call *call = call_of(waiter);
    call->wake(call);
}

void call_open(struct call *call, struct service *service)
{
    call->service = service;
    call->waiter.park = on_park;
    call->waiter.wake = on_wake;
}

void service_forget(struct call *call)
{
    if (call->kind && call->kind->unpark)
        call->kind->unpark(call);
}

void service_client_gone(struct service *service, uint32_t client)
{
    jobs_client_gone(service->rooms.jobs, client);
    models_client_gone(service, client);
}

void service_sweep(struct service *service)
{
    blobs_sweep(service->blobs);
}

void service_reread_tokens(struct service *service)
{
    struct error error;
    if (!tokens_are_named(service->tokens))
        return;
    if (tokens_reread(service->tokens, &error) == 0)
        log_info(NULL, "the tokens were read anew");
    else
        log_error(NULL, "%s; the tokens of before stay", error.text);
}

const struct blob *service_no_memory_answer(const struct service *service)
{
    return service->no_memory_answer;
}

int service_open(struct service **out, const struct options *options, const struct rooms *rooms,
                 void (*on_shutdown)(void *context, bool cancel), void *context, struct error *error)
{
    *out = NULL;
    struct service *service = calloc(1, sizeof *service);
    if (!service)
        return error_set(error, ERROR_NO_MEMORY, "service: out of memory");
    service->options = options;
    service->rooms = *rooms;
    service->on_shutdown = on_shutdown;
    service->context = context;
    service->started_at = clock_seconds();
    job_id_make(service->generation);
    const struct blobs_limits limits = {options->blob_bytes, BLOBS_KEPT_SECONDS, BLOBS_LEFT_ALONE_SECONDS};
    service->kinds = requests;
    service->kind_count = REQUESTS;
    service->counts = calloc(REQUESTS, sizeof *service->counts);
    int code = service->counts ? failure_no_memory(&service->no_memory_answer, error)
                               : error_set(error, ERROR_NO_MEMORY, "service: out of memory");
    if (code == 0)
        code = blobs_open(&service->blobs, &limits, error);
    if (code == 0)
        code = tokens_open(&service->tokens, options->tokens_path, options->token[0] != '\0' ? options->token : NULL,
                           error);
    if (code != 0) {
        service_close(service);
        return code;
    }
    *out = service;
    return 0;
}

void service_close(struct service *service)
{
    if (!service)
        return;
    blobs_close(service->blobs);
    tokens_close(service->tokens);
    free(service->counts);
    blob_close(service->no_memory_answer);
    free(service);
}
