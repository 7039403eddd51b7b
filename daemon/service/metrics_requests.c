/* metrics_requests.c: the request `metrics`: what `stats` counts and the histograms of jobs, each with a name, a kind
 * and a sentence, for whoever keeps such numbers over time (lancectl metrics prints them as Prometheus reads them). */
#include <string.h>

#include "base/json.h"
#include "daemon/jobs/jobs.h"
#include "daemon/service/handling.h"

/* One metric: where in the answer to `stats` it stands, names joined by dots. With a label, that is an object, whose
 * every number is a sample. */
struct metric {
    const char *name, *kind, *help, *path, *label;
};

static const struct metric metrics[] = {
    {"lanced_uptime_seconds", "gauge", "Since the daemon's start.", "uptime_seconds", NULL},
    {"lanced_jobs_submitted_total", "counter", "Jobs taken in.", "jobs.submitted", NULL},
    {"lanced_jobs_done_total", "counter", "Jobs that ended with a result.", "jobs.done", NULL},
    {"lanced_jobs_failed_total", "counter", "Jobs that ended with an error.", "jobs.failed", NULL},
    {"lanced_jobs_cancelled_total", "counter", "Jobs that were cancelled.", "jobs.cancelled", NULL},
    {"lanced_jobs_refused_total", "counter", "Requests that became no job.", "jobs.refused", NULL},
    {"lanced_jobs_expired_total", "counter", "Results forgotten before a client released them.", "jobs.expired", NULL},
    {"lanced_jobs_queued", "gauge", "Jobs that wait.", "jobs.queued", NULL},
    {"lanced_jobs_running", "gauge", "Jobs that are worked on.", "jobs.running", NULL},
    {"lanced_requests_total", "counter", "Requests of the protocol, by name.", "requests", "request"},
    {"lanced_bad_messages_total", "counter", "Messages that were no request.", "bad_messages", NULL},
    {"lanced_requests_waiting", "gauge", "Requests that are parked until something happens.", "waiting", NULL},
    {"lanced_steps_total", "counter", "Steps of jobs.", "steps", NULL},
    {"lanced_busy_seconds_total", "counter", "Time spent in steps.", "busy_seconds", NULL},
    {"lanced_model_loads_total", "counter", "Models loaded.", "loads", NULL},
    {"lanced_model_unloads_total", "counter", "Models taken out of memory.", "unloads", NULL},
    {"lanced_memory_bytes", "gauge", "Memory, by what it is for (PROTOCOL.md, stats).", "memory", "what"},
    {"lanced_prefix_cache", "gauge", "The cache of prompts since the model was loaded (PROTOCOL.md, stats).",
     "prefix_cache", "what"},
    {"lanced_result_cache", "gauge", "Results kept for the same request (PROTOCOL.md, stats).", "result_cache", "what"},
    {"lanced_journal", "gauge", "The journal, with --state (PROTOCOL.md, stats).", "journal", "what"},
    {"lanced_job_queue_seconds", "histogram", "From a job's submission to its start, by task.", "queue_seconds",
     "task"},
    {"lanced_job_run_seconds", "histogram", "From a job's start to its end, by task.", "job_seconds", "task"},
    {"lanced_job_step_seconds", "histogram", "One step, by stage.", "step_seconds", "stage"},
};

/* The value at a path, or NULL. */
static const cJSON *value_at(const cJSON *object, const char *path)
{
    char name[64];
    const size_t length = strcspn(path, ".");
    if (length >= sizeof name)
        return NULL;
    memcpy(name, path, length);
    name[length] = '\0';
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    return path[length] == '.' ? value_at(value, path + length + 1) : value;
}

static cJSON *sample_of(const cJSON *value, const char *label, const char *label_value)
{
    cJSON *sample = json_object(), *labels = json_add_object(sample, "labels");
    if (label)
        json_add_text(labels, label, label_value);
    if (cJSON_IsNumber(value))
        json_add_number(sample, "value", value->valuedouble);
    else
        json_add(sample, "histogram", cJSON_Duplicate(value, true));
    return sample;
}

static void add_metric(cJSON *list, const struct metric *metric, const cJSON *values)
{
    const cJSON *value = value_at(values, metric->path);
    if (!value) /* the daemon has no such part */
        return;
    cJSON *entry = json_object(), *samples = json_array();
    json_add_text(entry, "name", metric->name);
    json_add_text(entry, "kind", metric->kind);
    json_add_text(entry, "help", metric->help);
    if (!metric->label) {
        json_append(samples, sample_of(value, NULL, NULL));
    } else {
        const cJSON *item;
        cJSON_ArrayForEach(item, value)
            if (cJSON_IsNumber(item) || cJSON_IsObject(item))
                json_append(samples, sample_of(item, metric->label, item->string));
    }
    json_add(entry, "samples", samples);
    json_append(list, entry);
}

int handle_metrics(struct call *call, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    cJSON *values = json_object();
    service_add_stats(call->service, values);
    cJSON *measured = jobs_measured(call->service->rooms.jobs);
    for (cJSON *item; measured && (item = cJSON_DetachItemFromArray(measured, 0));)
        json_add(values, item->string, item);
    cJSON_Delete(measured);
    cJSON *list = json_add_array(call->fields, "metrics");
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++)
        add_metric(list, &metrics[i], values);
    cJSON_Delete(values);
    return 0;
}
