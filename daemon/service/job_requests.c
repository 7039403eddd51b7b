/* job_requests.c: submit, wait, cancel, release, jobs. Wait parks until the job has news, and submit, where a
 * journal is kept, until the job is in it. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/blobs.h"
#include "daemon/jobs/jobs.h"
#include "daemon/kept_results.h"
#include "daemon/log.h"
#include "daemon/model_choice.h"
#include "daemon/receipt.h"
#include "daemon/recorder.h"
#include "daemon/request.h"
#include "daemon/request_digest.h"
#include "daemon/request_record.h"
#include "daemon/residency.h"
#include "daemon/result_digest.h"
#include "daemon/service/handling.h"
#include "daemon/service/rights.h"

enum { LONGEST_WAIT_MS = 60000, LONGEST_SUBMIT_SECONDS = 60 };

static void add_job_status(struct call *call, const struct job_status *status)
{
    json_add_text(call->fields, "state", job_state_name(status->state));
    json_add_number(call->fields, "position", status->position);
}

static struct blob_name name_of(const struct payload *payload)
{
    struct blob_name name = {.bytes = payload->tensor.bytes};
    memcpy(name.text, payload->blob, sizeof name.text);
    return name;
}

/* Get hold of the blobs that a request names. */
static void hold_blobs(struct payloads *payloads, struct blobs *blobs)
{
    for (size_t i = 0; i < payloads->count; i++) {
        const struct blob_name name = name_of(&payloads->list[i]);
        if (name.text[0] != '\0')
            payload_give(&payloads->list[i], blobs_hold(blobs, &name));
    }
}

/* What a request holds: for when it is refused, and perhaps closed already. */
struct held {
    struct blob_name names[MESSAGE_MAX_TENSORS];
    size_t count;
};

static void note_held(struct held *held, const struct payloads *payloads)
{
    held->count = 0;
    for (size_t i = 0; i < payloads->count; i++)
        if (payloads->list[i].held)
            held->names[held->count++] = name_of(&payloads->list[i]);
}

static void drop_held(const struct held *held, struct blobs *blobs)
{
    for (size_t i = 0; i < held->count; i++)
        blobs_drop(blobs, &held->names[i]);
}

/* Make a request of the call's message, which has it then, and of the blobs that it names. */
static int open_request(struct call *call, struct job_request **request, struct held *held, struct error *error)
{
    struct payloads payloads;
    int code = payloads_open(&payloads, call->message, error);
    if (code != 0)
        return code;
    hold_blobs(&payloads, call->service->blobs);
    note_held(held, &payloads);
    if (call->service->rooms.recorder)
        code = payloads_name(&payloads, error);
    if (code == 0)
        code = job_request_open(request, call->message, &payloads, error);
    payloads_close(&payloads);
    if (code == 0)
        call->message = NULL;
    return code;
}

/* The model that a request will take, as far as that is known: a job of the VAE alone takes whichever is there. */
static const char *model_of(const struct service *service, const struct job_request *request)
{
    int model;
    struct error unused;
    const enum lance_task task = request->lance.task;
    const char *const name = job_request_model(request);
    const bool is_named = name && strcmp(name, MODEL_AUTOMATIC) != 0;
    if ((task_is_of_vae(task) && !is_named) ||
        residency_choose(service->rooms.residency, name, task, &model, &unused) != 0)
        return NULL;
    return service->options->models[model].name;
}

/* Give a request its hash, and its record where there is a journal. Reads the tensors: not before it is worth it. */
static int name_request(struct call *call, struct job_request *request, struct error *error)
{
    for (size_t i = 0; i < request->payloads.count; i++) {
        const struct payload *payload = &request->payloads.list[i];
        const struct blob_name name = name_of(payload);
        if (payload->held)
            blobs_hash(call->service->blobs, &name, payload->held);
    }
    job_request_hash(request);
    if (!request->model) /* whatever others have loaded by the time it begins */
        request->bound_model = model_of(call->service, request);
    if (!call->service->rooms.recorder || (request->record = request_record_write(request)))
        return 0;
    return error_set(error, ERROR_NO_MEMORY, "job %s: out of memory", call->job);
}

static int refuse_missing(struct call *call, const struct job_request *request, struct error *error)
{
    call->missing_blobs = payloads_missing(&request->payloads);
    return error_set(error, ERROR_NOT_FOUND,
                     "job %s: %zu of the blobs that its tensors name are not here; put them and submit "
                     "it again",
                     call->job, payloads_missing_count(&request->payloads));
}

/* Have a request that is no repetition checked by those who know what the table does not. */
static int check(struct call *call, const struct job_request *request, struct error *error)
{
    struct service *service = call->service;
    int model;
    int code = residency_choose(service->rooms.residency, request->model, request->lance.task, &model, error);
    const uint64_t missing_bytes = payloads_missing_bytes(&request->payloads),
                   most_bytes = service->options->blob_bytes;
    if (code == 0 && missing_bytes > most_bytes)
        return error_set(error, ERROR_TOO_LARGE,
                         "job %s: the blobs that its tensors name and that are not here have %llu bytes, and can "
                         "never be here together: %llu are allowed (lanced --blob-bytes)",
                         call->job, (unsigned long long)missing_bytes, (unsigned long long)most_bytes);
    if (code == 0 && payloads_missing_count(&request->payloads) > 0)
        code = refuse_missing(call, request, error);
    if (code == 0)
        code = residency_check(service->rooms.residency, model, &request->lance, error);
    return code != 0 ? code : job_request_check_numbers(request, error);
}

static void close_request(void *request)
{
    job_request_close(request);
}

/* The jobs table knows the job, or the journal what became of it; false: the journal knows it as another's. */
static bool recall(struct call *call)
{
    struct job_status unused;
    const struct rooms *rooms = &call->service->rooms;
    return !rooms->recorder || jobs_find(rooms->jobs, call->job, &unused) ||
           recorder_recall(rooms->recorder, call->job, rights_owner(&call->who));
}

/* Whether the call may touch its job. */
static int check_own(const struct call *call, struct error *error)
{
    return rights_check_job(&call->who, call->service->rooms.jobs, call->job, error);
}

int call_find_job(struct call *call, const cJSON *request, struct error *error)
{
    int code = call_read_job(call, request, error);
    if (code != 0)
        return code;
    return recall(call) ? check_own(call, error) : jobs_not_known(call->job, error);
}

/* The kept result of the same request, with a receipt of its own: one reference; NULL: none is kept, or only the job
 * itself can tell, because its model is not in memory or has changed. *text gets what it says, in words, malloc'ed. */
static struct blob *find_answer(struct call *call, const struct job_request *request, char **text)
{
    const struct rooms *rooms = &call->service->rooms;
    char model[SHA256_HEX_BYTES], backend[400], digest[SHA256_HEX_BYTES];
    struct error error;
    struct blob *answer = NULL;
    const double began_at = clock_seconds();
    int index;
    if (!rooms->kept || request->no_cache || payloads_missing_count(&request->payloads) > 0 ||
        residency_choose(rooms->residency, job_request_model(request), request->lance.task, &index, &error) != 0 ||
        !residency_identify(rooms->residency, index, model, backend))
        return NULL;
    result_digest(request->hash, model, backend, lance_build(), digest);
    struct blob *kept = rooms->kept->find(rooms->kept->context, digest);
    const struct receipt_facts facts = {.job = call->job, .total_seconds = clock_seconds() - began_at};
    if (kept && receipt_encode_again(&answer, kept, &facts, &error) != 0)
        log_warning(call->job, "is made, though its result is kept: %s", error.text);
    if (answer) {
        log_info(call->job, "is answered with a kept result");
        *text = receipt_result_text(kept);
    }
    blob_close(kept);
    return answer;
}

/* Give a request to the table. *parked: nobody may touch the call any more. */
static int enter(struct call *call, struct job_request *request, bool is_new, struct job_status *status, bool *parked,
                 struct error *error)
{
    char digest[REQUEST_DIGEST_BYTES], *text = NULL;
    log_debug(call->job, "submitted: %s", lance_task_name(request->lance.task));
    request_digest(request, digest);
    const struct job_order order = {
        .request = request,
        .close = close_request,
        .bytes = job_request_bytes(request),
        .is_complete = payloads_missing_count(&request->payloads) == 0,
        .digest = digest,
        .task = lance_task_name(request->lance.task),
        .owner = call->who.name,
        .client = json_text(message_envelope(request->message), "client"),
        .model = model_of(call->service, request),
        .priority = request->priority,
        .prompt = request->lance.prompt,
        .answer = is_new ? find_answer(call, request, &text) : NULL,
        .answer_text = text,
    };
    int result = jobs_submit(call->service->rooms.jobs, call->job, &order, call_waiter(call), parked, status, error);
    free(text);
    return result;
}

/* Likewise. */
static int submit(struct call *call, struct job_status *status, struct held *held, bool *parked, struct error *error)
{
    struct jobs *jobs = call->service->rooms.jobs;
    struct job_request *request;
    json_add(call->fields, "ignored", job_request_unknown(call->message));
    int result = open_request(call, &request, held, error);
    if (result == 0) {
        const bool is_new = !jobs_find(jobs, call->job, status);
        if (is_new)
            result = check(call, request, error);
        else if (payloads_unknown_count(&request->payloads) > 0) /* else the table tells a repetition from a mistake */
            result = refuse_missing(call, request, error);
        if (result == 0)
            result = name_request(call, request, error);
        if (result == 0)
            return enter(call, request, is_new, status, parked, error);
        job_request_close(request);
    }
    if (!call->missing_blobs)
        jobs_count_refused(jobs);
    return result;
}

static int answer_submit(struct call *call, int code, const struct job_status *job, const struct error *error)
{
    if (code != 0) {
        if (!call->missing_blobs)
            log_info(call->job[0] != '\0' ? call->job : NULL, "refused: %s", error->text);
        return code;
    }
    struct residency_status snapshot;
    residency_status(call->service->rooms.residency, &snapshot);
    add_job_status(call, job);
    add_model(call->fields, &snapshot);
    return 0;
}

int handle_submit(struct call *call, const cJSON *request, struct error *error)
{
    struct job_status job;
    struct held held = {.count = 0};
    bool parked = false;
    int code = call_read_job(call, request, error);
    if (code == 0)
        code = recall(call) ? rights_check_id(&call->who, call->service->rooms.jobs, call->job, error)
                            : rights_refuse_id(call->job, error);
    if (code == 0) {
        call->until = clock_seconds() + LONGEST_SUBMIT_SECONDS;
        code = submit(call, &job, &held, &parked, error);
    }
    if (parked)
        return CALL_PARKED;
    if (code != 0 && !call->missing_blobs)
        drop_held(&held, call->service->blobs);
    return answer_submit(call, code, &job, error);
}

int resume_submit(struct call *call, struct error *error)
{
    struct job_status job;
    bool parked = false;
    /* its id may have become another's */
    int code = rights_check_id(&call->who, call->service->rooms.jobs, call->job, error);
    if (code == 0)
        code = jobs_submitted(call->service->rooms.jobs, call->job, call_waiter(call), &parked, &job, error);
    return parked ? CALL_PARKED : answer_submit(call, code, &job, error);
}

int resume_wait(struct call *call, struct error *error)
{
    bool parked = false;
    int code = check_own(call, error); /* its id may have become another's */
    if (code == 0)
        code = jobs_news(call->service->rooms.jobs, call->job, call->after, call_waiter(call), &parked, &call->news,
                         error);
    return parked ? CALL_PARKED : code;
}

int handle_wait(struct call *call, const cJSON *request, struct error *error)
{
    uint64_t timeout_ms;
    int code = call_find_job(call, request, error);
    if (code == 0)
        code = call_read_whole(&call->after, request, "after", 0, UINT64_MAX, error);
    if (code == 0)
        code = call_read_whole(&timeout_ms, request, "timeout_ms", 0, LONGEST_WAIT_MS, error);
    if (code != 0)
        return code;
    call->until = clock_seconds() + (double)timeout_ms / 1000;
    return resume_wait(call, error);
}

int handle_cancel(struct call *call, const cJSON *request, struct error *error)
{
    enum job_state state;
    int code = call_find_job(call, request, error);
    if (code == 0)
        code = jobs_cancel(call->service->rooms.jobs, call->job, rights_owner(&call->who), &state, error);
    if (code == 0)
        json_add_text(call->fields, "state", job_state_name(state));
    return code;
}

int handle_release(struct call *call, const cJSON *request, struct error *error)
{
    struct service *service = call->service;
    struct job_status known;
    int code = call_read_job(call, request, error);
    if (code != 0)
        return code;
    if (service->rooms.recorder && !jobs_find(service->rooms.jobs, call->job, &known))
        recorder_release(service->rooms.recorder, call->job, rights_owner(&call->who));
    /* another's is as good as unknown, which is no error */
    jobs_release(service->rooms.jobs, call->job, rights_owner(&call->who));
    return 0;
}

int handle_jobs(struct call *call, const cJSON *request, struct error *error)
{
    uint64_t after;
    bool more = false;
    int code = call_read_whole(&after, request, "after", 0, UINT64_MAX, error);
    if (code != 0)
        return code;
    json_add(call->fields, "jobs", jobs_list(call->service->rooms.jobs, after, rights_owner(&call->who), &more));
    json_add_bool(call->fields, "more", more);
    return 0;
}

void unpark_job(struct call *call)
{
    jobs_unpark(call->service->rooms.jobs, &call->waiter);
}
