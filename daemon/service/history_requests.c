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
    if (!item || *out)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "%s: must be a text", name);
}

static int read_query(struct history_query *query, const cJSON *request, struct error *error)
{
    const cJSON *since = cJSON_GetObjectItemCaseSensitive(request, "since");
    *query = (struct history_query){.since = -1,
                                    .failed = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "failed")),
                                    .receipts = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "receipts"))};
    if (since && (!cJSON_IsNumber(since) || !isfinite(since->valuedouble)))
        return error_set(error, ERROR_BAD_REQUEST, "since: must be a number, seconds since 1970");
    if (since)
        query->since = since->valuedouble;
    int code = call_read_whole(&query->before, request, "before", 0, UINT64_MAX, error);
    if (code == 0)
        code = read_text(&query->task, request, "task", error);
    if (code == 0)
        code = read_text(&query->prompt, request, "prompt", error);
    if (code == 0 && query->prompt && strlen(query->prompt) > HISTORY_MOST_PROMPT_BYTES)
        return error_set(error, ERROR_BAD_REQUEST, "prompt: may have at most %d bytes", HISTORY_MOST_PROMPT_BYTES);
    return code;
}

int handle_history(struct call *call, const cJSON *request, struct error *error)
{
    struct history_query query;
    cJSON *jobs;
    bool more;
    if (!call->service->rooms.recorder)
        return error_set(error, ERROR_UNSUPPORTED, "history: this lanced keeps none; start it with --state DIR");
    int code = read_query(&query, request, error);
    query.owner = rights_owner(&call->who);
    if (code == 0)
        code = recorder_history(call->service->rooms.recorder, &query, &jobs, &more, error);
    if (code != 0)
        return code;
    json_add(call->fields, "jobs", jobs);
    json_add_bool(call->fields, "more", more);
    return 0;
}
