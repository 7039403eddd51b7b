/* handling.c: see handling.h. */
#include "daemon/service/handling.h"

#include <stdio.h>

#include "base/clock.h"

struct waiter *call_waiter(struct call *call)
{
    bool may_wait = call->until > clock_seconds() && !call->waiter.client_gone &&
                    atomic_load(&call->service->parked) < CALLS_MOST_PARKED;
    return may_wait ? &call->waiter : NULL;
}

int call_read_job(struct call *call, const cJSON *request, struct error *error)
{
    const char *id = json_text(request, "job");
    if (!job_id_is_valid(id))
        return error_set(error, ERROR_BAD_REQUEST, "job: must be 1 to %d characters of A-Z a-z 0-9 . _ -",
                         JOB_ID_MAX_BYTES);
    snprintf(call->job, sizeof call->job, "%s", id);
    return 0;
}

int call_read_whole(uint64_t *out, const cJSON *request, const char *name, uint64_t missing, uint64_t highest,
                    struct error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(request, name);
    *out = missing;
    if (item && !json_uint64(item, out))
        return error_set(error, ERROR_BAD_REQUEST, "%s: must be a whole number", name);
    if (*out > highest)
        *out = highest;
    return 0;
}

cJSON *service_counts(const struct service *service)
{
    cJSON *counts = json_object();
    for (int i = 0; i < service->kind_count; i++)
        json_add_number(counts, service->kinds[i].name, (double)atomic_load(&service->counts[i]));
    return counts;
}
