/* job_requests.c: submit, wait, result, cancel, release, jobs. Only wait parks, until the job has news. */
#include <string.h>

#include "base/clock.h"
#include "daemon/log.h"
#include "daemon/service/handling.h"
#include "daemon/worker.h"

enum { LONGEST_WAIT_MS = 60000 };

static void add_job_status(struct call *call, const struct job_status *status)
{
    json_add_text(call->fields, "state", job_state_name(status->state));
    json_add_number(call->fields, "position", status->position);
}

static int submit(struct call *call, struct job_status *status, struct error *error)
{
    struct service *service = call->service;
    struct job_request *request;
    cJSON *unknown = job_request_unknown(call->message);
    json_add(call->fields, "ignored", unknown);
    int result = job_request_open(&request, call->message, error);
    if (result == 0) {
        call->message = NULL; /* the request has it */
        int model;
        if (jobs_find(service->jobs, call->job, status)) /* a repetition, or a mistake: the table tells */
            return jobs_submit(service->jobs, call->job, request, status, error);
        result = worker_choose_model(service->worker, request->model, request->lance.task, &model, error);
        if (result == 0)
            result = worker_check(service->worker, model, &request->lance, error);
        if (result == 0) {
            log_debug(call->job, "submitted: %s", lance_task_name(request->lance.task));
            return jobs_submit(service->jobs, call->job, request, status, error);
        }
        job_request_close(request);
    }
    jobs_count_refused(service->jobs);
    return result;
}

int handle_submit(struct call *call, const cJSON *request, struct error *error)
{
    struct service *service = call->service;
    struct job_status job;
    int status = call_read_job(call, request, error);
    if (status == 0)
        status = submit(call, &job, error);
    if (status != 0) {
        log_info(call->job[0] != '\0' ? call->job : NULL, "refused: %s", error->text);
        return status;
    }
    struct worker_status snapshot;
    worker_status(service->worker, &snapshot);
    add_job_status(call, &job);
    call_add_model(call, &snapshot);
    return 0;
}

int resume_wait(struct call *call, struct error *error)
{
    bool parked;
    int status = jobs_news(call->service->jobs, call->job, call->after, call_waiter(call), &parked, &call->news,
                           error);
    return parked ? CALL_PARKED : status;
}

int handle_wait(struct call *call, const cJSON *request, struct error *error)
{
    uint64_t timeout_ms;
    int status = call_read_job(call, request, error);
    if (status == 0)
        status = call_read_whole(&call->after, request, "after", 0, UINT64_MAX, error);
    if (status == 0)
        status = call_read_whole(&timeout_ms, request, "timeout_ms", 0, LONGEST_WAIT_MS, error);
    if (status != 0)
        return status;
    call->until = clock_seconds() + (double)timeout_ms / 1000;
    return resume_wait(call, error);
}

int handle_result(struct call *call, const cJSON *request, struct error *error)
{
    int status = call_read_job(call, request, error);
    return status != 0 ? status : jobs_result(call->service->jobs, call->job, &call->answer, error);
}

int handle_cancel(struct call *call, const cJSON *request, struct error *error)
{
    enum job_state state;
    int status = call_read_job(call, request, error);
    if (status == 0)
        status = jobs_cancel(call->service->jobs, call->job, &state, error);
    if (status == 0)
        json_add_text(call->fields, "state", job_state_name(state));
    return status;
}

int handle_release(struct call *call, const cJSON *request, struct error *error)
{
    int status = call_read_job(call, request, error);
    if (status == 0)
        jobs_release(call->service->jobs, call->job);
    return status;
}

int handle_jobs(struct call *call, const cJSON *request, struct error *error)
{
    (void)request;
    (void)error;
    json_add(call->fields, "jobs", jobs_list(call->service->jobs));
    return 0;
}

void unpark_wait(struct call *call)
{
    jobs_unpark(call->service->jobs, &call->waiter);
}
