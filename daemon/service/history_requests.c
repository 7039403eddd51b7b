/* history_requests.c: history, which is answered from the journal. */
#include <math.h>
#include <string.h>

#include "daemon/recorder.h"
#include "daemon/service/handling.h"
#include "daemon/service/rights.h"

static int read_text(const char **out, const cJSON *request, const char *name, struct error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(request, name);
    *out = cJSON_GetStringValue(item);
    if (item == NULL || *out != NULL)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "%s: must be a text", name);
}

static int read_query(struct history_query *query, const cJSON *request, struct error *error)
{
    const cJSON *since = cJSON_GetObjectItemCaseSensitive(request, "since");
    *query = (struct history_query){.since = -1,
                                    .failed = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "failed")),
                                    .receipts = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "receipts"))};
    if (since != NULL && (!cJSON_IsNumber(since) || !isfinite(since->valuedouble)))
        return error_set(error, ERROR_BAD_REQUEST, "since: must be a number, seconds since 1970");
    if (since != NULL)
        query->since = since->valuedouble;
    int status = call_read_whole(&query->before, request, "before", 0, UINT64_MAX, error);
    if (status == 0)
        status = read_text(&query->task, request, "task", error);
    if (status == 0)
        status = read_text(&query->prompt, request, "prompt", error);
    if (status == 0 && query->prompt != NULL && strlen(query->prompt) > HISTORY_MOST_PROMPT_BYTES)
        return error_set(error, ERROR_BAD_REQUEST, "prompt: may have at most %d bytes", HISTORY_MOST_PROMPT_BYTES);
    return status;
}

int handle_history(struct call *call, const cJSON *request, struct error *error)
{
    struct history_query query;
    cJSON *jobs;
    bool more;
    if (call->service->rooms.recorder == NULL)
        return error_set(error, ERROR_UNSUPPORTED, "history: this lanced keeps none; start it with --state DIR");
    int status = read_query(&query, request, error);
    query.owner = rights_owner(&call->who);
    if (status == 0)
        status = recorder_history(call->service->rooms.recorder, &query, &jobs, &more, error);
    if (status != 0)
        return status;
    json_add(call->fields, "jobs", jobs);
    json_add_bool(call->fields, "more", more);
    return 0;
}
