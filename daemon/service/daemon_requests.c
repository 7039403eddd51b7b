/* daemon_requests.c: hello, stats, shutdown, and what the daemon knows without a model: parameters, sampling. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/blobs.h"
#include "daemon/device.h"
#include "daemon/jobs/jobs.h"
#include "daemon/kept_results.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/parameters_json.h"
#include "daemon/recorder.h"
#include "daemon/residency.h"
#include "daemon/runner.h"
#include "daemon/sampling.h"
#include "daemon/service/handling.h"

int handle_hello(struct call *call, const cJSON *request, struct error *error)
{
    (void)error;
    struct service *service = call->service;
    const struct options *options = service->options;
    struct residency_status status;
    residency_status(service->rooms.residency, &status);
    const char *client = json_text(request, "client");
    log_debug(NULL, "hello from %.80s", client ? client : "a client without a name");

    json_add_text(call->fields, "version", LANCED_VERSION);
    json_add_text(call->fields, "generation", service->generation);
    json_add_text(call->fields, "backend", status.backend);
    json_add_text(call->fields, "build", lance_build());
    json_add_number(call->fields, "pid", getpid());
    cJSON *limits = json_add_object(call->fields, "limits");
    json_add_number(limits, "message_bytes", MESSAGE_LIMIT_BYTES);
    json_add_number(limits, "piece_bytes", BLOBS_PIECE_BYTES);
    json_add_number(limits, "blob_bytes", (double)options->blob_bytes);
    json_add_number(limits, "queue", options->jobs.queue);
    json_add_number(limits, "queue_bytes", (double)options->jobs.queue_bytes);
    json_add_number(limits, "results", options->jobs.results);
    json_add_number(limits, "result_bytes", (double)options->jobs.result_bytes);
    json_add_number(limits, "result_seconds", options->jobs.result_seconds);
    add_model(call->fields, &status);
    json_add_text(call->fields, "default_model", options->models[0].name);
    json_add_bool(call->fields, "shutting_down", jobs_is_shut(service->rooms.jobs));
    return 0;
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (fscanf(file, "%*u %llu", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void add_kept_results(cJSON *fields, const struct kept_results *kept)
{
    struct kept_counts counts;
    kept->count(kept->context, &counts);
    cJSON *cache = json_add_object(fields, "result_cache");
    json_add_number(cache, "answered", (double)counts.answered);
    json_add_number(cache, "results", (double)counts.results);
    json_add_number(cache, "bytes", (double)counts.bytes);
    json_add_number(cache, "limit_bytes", (double)counts.limit_bytes);
}

void service_add_stats(struct service *service, cJSON *fields)
{
    struct residency_status status;
    residency_status(service->rooms.residency, &status);
    struct runner_counts counts;
    runner_counts(service->rooms.runner, &counts);
    uint64_t queue_bytes, result_bytes;
    cJSON *jobs = jobs_stats(service->rooms.jobs, &queue_bytes, &result_bytes);
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);

    json_add_text(fields, "version", LANCED_VERSION);
    json_add_text(fields, "generation", service->generation);
    json_add_text(fields, "backend", status.backend);
    if (service->rooms.device->advice[0])
        json_add_text(fields, "advice", service->rooms.device->advice);
    json_add_number(fields, "uptime_seconds", clock_seconds() - service->started_at);
    json_add_number(fields, "loads", (double)status.loads);
    json_add_number(fields, "unloads", (double)status.unloads);
    add_model(fields, &status);
    json_add_number(fields, "idle_unload_seconds", service->options->idle_unload_seconds);
    json_add(fields, "jobs", jobs);
    json_add(fields, "requests", service_counts(service));
    json_add_number(fields, "bad_messages", (double)atomic_load(&service->bad_messages));
    json_add_number(fields, "waiting", atomic_load(&service->parked));
    json_add_number(fields, "steps", (double)counts.steps);
    json_add_number(fields, "busy_seconds", counts.busy_seconds);
    json_add_number(fields, "last_step_seconds", counts.last_step_seconds);
    if (service->rooms.recorder)
        json_add(fields, "journal", recorder_stats(service->rooms.recorder));
    if (service->rooms.kept)
        add_kept_results(fields, service->rooms.kept);
    cJSON *memory = json_add_object(fields, "memory");
    json_add_number(memory, "resident_bytes", (double)resident_bytes());
    json_add_number(memory, "peak_resident_bytes", (double)usage.ru_maxrss * 1024);
    const struct lance_held *held = &status.all_held;
    json_add_number(memory, "weight_bytes", (double)held->weight_bytes);
    json_add_number(memory, "prefix_bytes", (double)held->prefix_bytes);
    json_add_number(memory, "job_bytes", (double)held->job_bytes);
    json_add_number(memory, "held_bytes", (double)(held->weight_bytes + held->prefix_bytes + held->job_bytes));
    json_add_number(memory, "queue_bytes", (double)queue_bytes);
    json_add_number(memory, "result_bytes", (double)result_bytes);
    json_add_number(memory, "blob_bytes", (double)blobs_bytes(service->blobs));
    json_add_number(memory, "job_peak_bytes", (double)counts.job_peak_bytes);
    json_add_number(memory, "job_limit_bytes", (double)status.memory_limit_bytes);
    cJSON *prefixes = json_add_object(fields, "prefix_cache");
    json_add_number(prefixes, "hits", (double)status.prefixes.hits);
    json_add_number(prefixes, "misses", (double)status.prefixes.misses);
    json_add_number(prefixes, "evictions", (double)status.prefixes.evictions);
    json_add_number(prefixes, "blocks", (double)status.prefixes.blocks);
    json_add_number(prefixes, "bytes", (double)status.prefixes.bytes);
    json_add_number(prefixes, "limit_bytes", (double)status.prefixes.limit_bytes);
}

int handle_stats(struct call *call, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    service_add_stats(call->service, call->fields);
    return 0;
}

int handle_shutdown(struct call *call, const cJSON *request, struct error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(request, "mode");
    const char *mode = !item ? "finish" : cJSON_GetStringValue(item);
    if (!mode || (strcmp(mode, "finish") != 0 && strcmp(mode, "cancel") != 0))
        return error_set(error, ERROR_BAD_REQUEST, "mode: must be \"finish\" or \"cancel\"");
    log_info(NULL, "a client asked to shut down (%s)", mode);
    call->service->on_shutdown(call->service->context, strcmp(mode, "cancel") == 0);
    return 0;
}

int handle_parameters(struct call *call, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    parameters_add_json(call->fields);
    return 0;
}

int handle_sampling(struct call *call, const cJSON *request, struct error *error)
{
    return sampling_answer(call->fields, request, call->service->options->blob_bytes, error);
}
