/* model_requests.c: models, load, unload. The last two may park: the worker turns to them between two jobs. */
#include "base/clock.h"
#include "daemon/options.h"
#include "daemon/receipt.h"
#include "daemon/request.h"
#include "daemon/service/handling.h"
#include "daemon/worker.h"

enum {
    LOAD_WAIT_MS = 30 * 60 * 1000,
    UNLOAD_WAIT_MS = 2000 /* it is done when a step has ended, or the job that has just begun */
};

void call_add_model(struct call *call, const struct worker_status *status)
{
    json_add(call->fields, "model", status->loaded >= 0 ? model_info_json(&status->info) : json_null());
}

int handle_models(struct call *call, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    struct worker_status status;
    worker_status(call->service->worker, &status);
    json_add_text(call->fields, "backend", status.backend);
    json_add(call->fields, "models", worker_models(call->service->worker));
    json_add(call->fields, "automatic", worker_automatic(call->service->worker));
    return 0;
}

/* First when asked, again whenever woken. */
int resume_load(struct call *call, struct error *error)
{
    struct service *service = call->service;
    bool parked;
    int status = worker_load(service->worker, call->model, &call->ticket, call_waiter(call), &parked, error);
    if (parked)
        return CALL_PARKED;
    if (status != 0)
        return status;
    struct worker_status snapshot;
    worker_status(service->worker, &snapshot);
    call_add_model(call, &snapshot);
    return 0;
}

int handle_load(struct call *call, const cJSON *request, struct error *error)
{
    struct service *service = call->service;
    const char *name = NULL;
    uint64_t timeout_ms;
    int status = request_read_model(&name, request, error);
    if (status == 0)
        status = call_read_whole(&timeout_ms, request, "timeout_ms", LOAD_WAIT_MS, LOAD_WAIT_MS, error);
    if (status == 0)
        status = worker_choose_model(service->worker, name != NULL ? name : service->options->models[0].name, LANCE_T2I,
                                     &call->model, error);
    if (status != 0)
        return status;
    call->until = clock_seconds() + (double)timeout_ms / 1000;
    call->ticket = 0;
    return resume_load(call, error);
}

static int add_unloaded(struct call *call, enum worker_unload state)
{
    if (state == UNLOAD_PARKED)
        return CALL_PARKED;
    json_add_bool(call->fields, "unloaded", state == UNLOAD_DONE);
    json_add_bool(call->fields, "pending", state == UNLOAD_PENDING);
    return 0;
}

int handle_unload(struct call *call, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    call->until = clock_seconds() + UNLOAD_WAIT_MS / 1000.0;
    return add_unloaded(call, worker_unload(call->service->worker, &call->ticket, call_waiter(call)));
}

int resume_unload(struct call *call, struct error *error)
{
    (void)error;
    return add_unloaded(call, worker_unload_again(call->service->worker, call->ticket, call_waiter(call)));
}

void unpark_model(struct call *call)
{
    worker_unpark(call->service->worker, &call->waiter);
}
