/* model_requests.c: models, load, unload. The last two may park: see loading.h. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "daemon/loading.h"
#include "daemon/machine_report.h"
#include "daemon/model_estimates.h"
#include "daemon/options.h"
#include "daemon/receipt.h"
#include "daemon/request.h"
#include "daemon/residency.h"
#include "daemon/service/handling.h"

enum {
    LOAD_WAIT_MS = 30 * 60 * 1000,
    UNLOAD_WAIT_MS = 2000 /* it is done when a step has ended, or the job that has just begun */
};

void add_model(cJSON *fields, const struct residency_status *status)
{
    json_add(fields, "model", status->loaded >= 0 ? model_info_json(&status->info) : json_null());
}

/* What is said of one offered model, which the caller frees; of one in memory also what tasks take, if `estimates`. */
static cJSON *model_json(const struct options *options, struct residency *residency, int index, bool estimates)
{
    const struct model_choice *choice = &options->models[index];
    const char *slash = strrchr(choice->directory, '/');
    struct model_facts facts;
    char hint[NAME_MAX + 1], kind[32]; /* folders may have any bytes in their names */
    unsigned tasks;
    model_facts_read(&facts, options, index, residency_budget_bytes(residency));
    const bool is_known = residency_knows(residency, index, kind, &tasks);
    snprintf(hint, sizeof hint, "%s", slash && slash[1] != '\0' ? slash + 1 : choice->directory);
    utf8_make_line(hint);
    cJSON *model = json_object();
    json_add_text(model, "name", choice->name);
    json_add_text(model, "kind", is_known ? kind : NULL);
    json_add(model, "tasks", is_known ? task_names_json(tasks) : json_null());
    json_add_text(model, "path_hint", hint);
    json_add_bool(model, "loaded", residency_is_loaded(residency, index));
    model_facts_add(model, &facts);
    if (estimates)
        json_add(model, "estimates",
                 residency_is_loaded(residency, index) ? model_estimates_json(residency, index) : json_null());
    return model;
}

static cJSON *models_json(const struct options *options, struct residency *residency, bool estimates)
{
    cJSON *models = json_array();
    for (int i = 0; i < options->model_count; i++)
        json_append(models, model_json(options, residency, i, estimates));
    return models;
}

int handle_models(struct call *call, const cJSON *request, struct error *error)
{
    (void)error;
    const struct options *options = call->service->options;
    struct residency *residency = call->service->rooms.residency;
    struct residency_status status;
    const bool estimates = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "estimates"));
    residency_status(residency, &status);
    json_add_text(call->fields, "backend", status.backend);
    json_add(call->fields, "models", models_json(options, residency, estimates));
    json_add(call->fields, "automatic", model_choice_json(options, residency_budget_bytes(residency)));
    if (estimates)
        json_add(call->fields, "machine", machine_report_json(call->service->rooms.device));
    return 0;
}

/* First when asked, again whenever woken. */
int resume_load(struct call *call, struct error *error)
{
    struct service *service = call->service;
    bool parked;
    int code = loading_load(service->rooms.loading, call->model, &call->ticket, call_waiter(call), &parked, error);
    if (parked)
        return CALL_PARKED;
    if (code != 0)
        return code;
    struct residency_status snapshot;
    residency_status(service->rooms.residency, &snapshot);
    add_model(call->fields, &snapshot);
    return 0;
}

int handle_load(struct call *call, const cJSON *request, struct error *error)
{
    struct service *service = call->service;
    const char *name = NULL;
    uint64_t timeout_ms;
    int code = request_read_model(&name, request, error);
    if (code == 0)
        code = call_read_whole(&timeout_ms, request, "timeout_ms", LOAD_WAIT_MS, LOAD_WAIT_MS, error);
    if (code == 0)
        code = residency_choose(service->rooms.residency, name ? name : service->options->models[0].name,
                                LANCE_T2I, &call->model, error);
    if (code != 0)
        return code;
    call->until = clock_seconds() + (double)timeout_ms / 1000;
    call->ticket = 0;
    return resume_load(call, error);
}

static int add_unloaded(struct call *call, enum unloading state)
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
    return add_unloaded(call, loading_unload(call->service->rooms.loading, &call->ticket, call_waiter(call)));
}

int resume_unload(struct call *call, struct error *error)
{
    (void)error;
    return add_unloaded(call, loading_unload_again(call->service->rooms.loading, call->ticket, call_waiter(call)));
}

void unpark_model(struct call *call)
{
    loading_unpark(call->service->rooms.loading, &call->waiter);
}

void models_client_gone(struct service *service, uint32_t client)
{
    loading_client_gone(service->rooms.loading, client);
}
