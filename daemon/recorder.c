/* recorder.c: see recorder.h. */
#include "daemon/recorder.h"

#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/jobs/jobs.h"
#include "daemon/journal/journal.h"
#include "daemon/journal/store.h"
#include "daemon/log.h"
#include "daemon/model_choice.h"
#include "daemon/request_digest.h"
#include "daemon/request_record.h"

/* Events are numbered anew in each life of the daemon, from here times the number of lives on: more than any job tells.
 */
enum { EVENTS_OF_A_LIFE = 1000000000 };

struct recorder {
    struct store *store;
    struct journal *journal;
    struct jobs *jobs;
    struct job_observer observer;
    struct attempts attempts;
    struct kept_results kept;
    uint64_t cache_bytes;
    atomic_uint_fast64_t answered; /* with kept results */
};

/* --- What happens to jobs ---------------------------------------------------------------- */

static void on_written(void *context, uint64_t number)
{
    struct recorder *recorder = context;
    jobs_settle_written(recorder->jobs, number);
}

static void on_accepted(void *context, uint64_t number, const struct error *failure)
{
    struct recorder *recorder = context;
    jobs_settle_accepted(recorder->jobs, number, failure);
}

/* One that could not be written is told all the same, and written later (journal.h). */
static void on_ended(void *context, uint64_t number, const struct error *failure)
{
    struct recorder *recorder = context;
    (void)failure;
    jobs_settle_ended(recorder->jobs, number);
}

/* The receipt of a result, as text, and the digest in it unless it was kept already; NULL without one. */
static char *receipt_of(const struct blob *result, char digest[SHA256_HEX_BYTES])
{
    digest[0] = '\0';
    struct message *message;
    struct error unused;
    if (!result || message_parse(&message, result->data, result->bytes, 0, &unused) != 0)
        return NULL;
    const cJSON *receipt = cJSON_GetObjectItemCaseSensitive(message_envelope(message), "receipt");
    char *text = receipt ? json_print(receipt) : NULL;
    const bool is_kept = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(receipt, "cached"));
    if (!is_kept && sha256_is_hex(json_text(receipt, "digest")))
        snprintf(digest, SHA256_HEX_BYTES, "%s", json_text(receipt, "digest"));
    message_close(message);
    return text;
}

/* One that ends as it is accepted. */
static enum job_word note_answered(struct recorder *recorder, const struct job_change *change, struct error *why)
{
    const struct job_order *order = change->order;
    const struct journal_job job = {
        .number = change->number,
        .id = change->id,
        .digest = order->digest,
        .task = order->task,
        .owner = order->owner,
        .client = order->client,
        .prompt = order->prompt,
    };
    char digest[SHA256_HEX_BYTES], *receipt = receipt_of(order->answer, digest);
    const struct journal_end end = {.state = "done", .receipt = receipt, .result = order->answer};
    int code = journal_answer(recorder->journal, &job, &end, on_accepted, recorder, why);
    cJSON_free(receipt);
    return code == 0 ? JOB_WAITS : JOB_REFUSED;
}

static enum job_word note_accepted(struct recorder *recorder, const struct job_change *change, struct error *why)
{
    if (change->order->answer)
        return note_answered(recorder, change, why);
    const struct job_request *request = change->order->request;
    struct journal_payload payloads[MESSAGE_MAX_TENSORS];
    for (size_t i = 0; i < request->payloads.count; i++) {
        payloads[i].bytes = request->payloads.list[i].held;
        memcpy(payloads[i].sha256, payloads[i].bytes->sha256, sizeof payloads[i].sha256);
    }
    const struct journal_job job = {
        .number = change->number,
        .id = change->id,
        .digest = change->order->digest,
        .task = change->order->task,
        .owner = change->order->owner,
        .client = change->order->client,
        .prompt = change->order->prompt,
        .request = request->record,
        .payloads = payloads,
        .payload_count = request->payloads.count,
    };
    int code = journal_accept(recorder->journal, &job, on_written, on_accepted, recorder, why);
    return code == 0 ? JOB_WAITS : JOB_REFUSED;
}

static enum job_word note_ended(struct recorder *recorder, const struct job_change *change)
{
    struct error error;
    const struct error *failure = change->failure;
    char digest[SHA256_HEX_BYTES], *receipt = receipt_of(change->blob, digest);
    const struct journal_end end = {
        .state = !failure                    ? "done"
                 : failure->code == ERROR_CANCELLED ? "cancelled"
                                                    : "failed",
        .code = failure ? error_name(failure->code) : NULL,
        .message = failure ? failure->text : NULL,
        .receipt = receipt,
        .result = change->blob,
        .cache_digest = digest[0] != '\0' ? digest : NULL,
    };
    int status = journal_end(recorder->journal, change->number, &end, on_ended, recorder, &error);
    cJSON_free(receipt);
    if (status != 0)
        log_warning(change->id, "%s", error.text);
    return status == 0 ? JOB_WAITS : JOB_GOES_ON;
}

static enum job_word on_happened(void *context, const struct job_change *change, struct error *why)
{
    struct recorder *recorder = context;
    if (change->what == JOB_ACCEPTED)
        return note_accepted(recorder, change, why);
    if (change->what == JOB_ENDED)
        return note_ended(recorder, change);
    if (change->what == JOB_FORGOTTEN && change->is_released)
        journal_release(recorder->journal, change->number);
    return JOB_GOES_ON;
}

/* --- Taking up again --------------------------------------------------------------------- */

static int fetch_payload(void *context, const char *sha256, struct blob **blob, struct error *error)
{
    struct recorder *recorder = context;
    void *data;
    uint64_t bytes;
    int code = store_read_content(recorder->store, sha256, &data, &bytes, error);
    if (code != 0)
        return code;
    *blob = blob_open(data, bytes);
    if (!*blob)
        return error_set(error, ERROR_NO_MEMORY, "job: out of memory");
    snprintf((*blob)->sha256, sizeof(*blob)->sha256, "%s", sha256);
    return 0;
}

static void close_request(void *request)
{
    job_request_close(request);
}

static int read_request(struct recorder *recorder, uint64_t number, struct job_request **request, struct error *error)
{
    void *text;
    uint64_t bytes;
    *request = NULL;
    int code = store_read(recorder->store, number, "request", &text, &bytes, error);
    if (code == 0)
        code = request_record_read(request, text, fetch_payload, recorder, error);
    if (code != 0) {
        free(text);
        return code;
    }
    (*request)->record = text;
    job_request_hash(*request);
    return 0;
}

/* What recovery has come to. */
struct recovery {
    struct recorder *recorder;
    struct recovered_failure {
        uint64_t number;
        struct error why;
    } * failures; /* of jobs that are not taken up; written when the journal's thread runs */
    size_t failure_count;
    struct error error; /* why it cannot go on */
};

/* A job ends without having been in the table: its client hears of it when it asks. */
static int fail(struct recovery *recovery, const struct store_found *found, const struct error *why)
{
    log_warning(found->id, "failed: %s", why->text);
    void *more = realloc(recovery->failures, (recovery->failure_count + 1) * sizeof *recovery->failures);
    if (!more)
        return error_set(&recovery->error, ERROR_NO_MEMORY, "journal: out of memory");
    recovery->failures = more;
    recovery->failures[recovery->failure_count++] = (struct recovered_failure){found->number, *why};
    return 0;
}

static int take_up(void *context, const struct store_found *found)
{
    struct recovery *recovery = context;
    struct recorder *recorder = recovery->recorder;
    struct error error = {0};
    struct job_request *request;
    if (found->attempts >= RECORDER_MOST_ATTEMPTS) {
        error_set(&error, ERROR_INTERNAL,
                  "job %s: was being stepped at three ends of the daemon, and is not tried again", found->id);
        return fail(recovery, found, &error);
    }
    if (!job_id_is_valid(found->id)) {
        error_set(&error, ERROR_BAD_FILE,
                  "job number %llu: its row in the journal is damaged: what stands there in place of its id is none",
                  (unsigned long long)found->number);
        return fail(recovery, found, &error);
    }
    if (read_request(recorder, found->number, &request, &error) != 0) {
        error_prefix(&error, "job %s: cannot be taken up again", found->id);
        return fail(recovery, found, &error);
    }
    const char *const model = job_request_model(request);
    const struct job_order order = {
        .request = request,
        .close = close_request,
        .bytes = job_request_bytes(request),
        .is_complete = true,
        .digest = found->digest,
        .task = found->task,
        .owner = found->owner,
        .client = found->client,
        .model = model && strcmp(model, MODEL_AUTOMATIC) == 0 ? NULL : model, /* NULL: chosen when the job begins */
        .priority = request->priority,
        .prompt = found->prompt,
        .number = found->number,
        .events_base = found->lives * EVENTS_OF_A_LIFE,
    };
    log_info(found->id, "is in the queue again%s", found->saved_step >= 0 ? ", to go on from a saved state" : "");
    return jobs_restore(recorder->jobs, found->id, &order, &recovery->error);
}

/* Write the ends of jobs that were not taken up. */
static int write_failures(struct recovery *recovery)
{
    int status = 0;
    for (size_t i = 0; status == 0 && i < recovery->failure_count; i++) {
        const struct recovered_failure *failure = &recovery->failures[i];
        const struct journal_end end = {
            .state = "failed", .code = error_name(failure->why.code), .message = failure->why.text};
        status = journal_end(recovery->recorder->journal, failure->number, &end, NULL, NULL, &recovery->error);
    }
    return status;
}

int recorder_recover(struct recorder *recorder, struct error *error)
{
    struct recovery recovery = {.recorder = recorder};
    uint64_t last = 0;
    int code = store_last_number(recorder->store, &last, &recovery.error);
    if (code == 0) {
        jobs_number_from(recorder->jobs, last);
        code = store_unfinished(recorder->store, take_up, &recovery, &recovery.error);
    }
    if (code == 0)
        code = journal_open(&recorder->journal, recorder->store, &recovery.error);
    if (code == 0)
        code = write_failures(&recovery);
    free(recovery.failures);
    if (code != 0)
        *error = recovery.error;
    return code;
}

static bool is_of(const struct store_found *found, const char *owner)
{
    return !owner || (found->owner && strcmp(found->owner, owner) == 0);
}

bool recorder_recall(struct recorder *recorder, const char *id, const char *owner)
{
    struct store_found found;
    struct error error = {.text = "out of memory"}, failure = {0};
    struct blob *result = NULL;
    void *data = NULL;
    uint64_t bytes = 0;
    if (store_find(recorder->store, id, &found, &error) != 0)
        return true;
    const bool is_gone = found.ended <= 0 || journal_releases(recorder->journal, found.number);
    const bool is_anothers = !is_gone && !is_of(&found, owner);
    if (is_gone || is_anothers) {
        store_found_clear(&found);
        return !is_anothers;
    }
    const bool is_done = strcmp(found.state, "done") == 0;
    if (is_done && store_read(recorder->store, found.number, "result", &data, &bytes, &error) == 0)
        result = blob_open(data, bytes);
    if (is_done && !result)
        error_set(&failure, ERROR_NOT_FOUND, "job %s: is done, but its result is not kept: %s", id, error.text);
    else if (!is_done)
        error_set(&failure, found.code ? error_code_of(found.code) : ERROR_INTERNAL, "%s",
                  found.message ? found.message : "the job failed");
    const struct job_order order = {
        .digest = found.digest,
        .task = found.task,
        .owner = found.owner,
        .client = found.client,
        .priority = JOB_CLASSES, /* that is not known any more */
        .prompt = found.prompt,
        .number = found.number,
        .events_base = (found.lives + 1) * EVENTS_OF_A_LIFE,
    };
    if (jobs_recall(recorder->jobs, id, &order, result, &failure, &error) != 0)
        log_warning(id, "%s", error.text);
    store_found_clear(&found);
    return true;
}

void recorder_release(struct recorder *recorder, const char *id, const char *owner)
{
    struct store_found found;
    struct error unused;
    if (store_find(recorder->store, id, &found, &unused) != 0)
        return;
    if (is_of(&found, owner))
        journal_release(recorder->journal, found.number);
    store_found_clear(&found);
}

/* --- The worker --------------------------------------------------------------------------- */

static int start(void *context, uint64_t number, void **state, size_t *bytes, int *attempt, struct error *error)
{
    struct recorder *recorder = context;
    uint64_t length = 0;
    struct store_attempt begun;
    struct error why;
    int status = journal_start(recorder->journal, number, &begun, error);
    if (status != 0)
        return status;
    *attempt = begun.number;
    if (!state)
        return 0;
    *state = NULL;
    if (begun.has_state && store_read(recorder->store, number, "state", state, &length, &why) != 0)
        log_warning(NULL, "a job is begun anew: %s", why.text);
    *bytes = length;
    return 0;
}

static void save(void *context, uint64_t number, int step, void *state, size_t bytes)
{
    struct recorder *recorder = context;
    struct blob *blob = blob_open(state, bytes);
    if (blob)
        journal_save(recorder->journal, number, step, blob);
}

static void lay_aside(void *context, uint64_t number)
{
    struct recorder *recorder = context;
    journal_pause(recorder->journal, number);
}

static struct blob *find_result(void *context, const char *digest)
{
    struct recorder *recorder = context;
    struct error unused;
    void *data;
    uint64_t bytes;
    if (store_cached(recorder->store, digest, &data, &bytes, &unused) != 0)
        return NULL;
    journal_touch_cached(recorder->journal, digest);
    atomic_fetch_add(&recorder->answered, 1);
    return blob_open(data, bytes);
}

/* The end of its job brings it into the journal (note_ended). */
static void keep_result(void *context, const char *digest, struct blob *result)
{
    (void)context;
    (void)digest;
    (void)result;
}

static void count_results(void *context, struct kept_counts *counts)
{
    struct recorder *recorder = context;
    struct store_sizes sizes = {0};
    struct error unused;
    store_sizes(recorder->store, &sizes, &unused);
    *counts = (struct kept_counts){atomic_load(&recorder->answered), sizes.cached, sizes.cached_bytes,
                                   recorder->cache_bytes};
}

const struct kept_results *recorder_kept_results(const struct recorder *recorder)
{
    return &recorder->kept;
}

const struct attempts *recorder_attempts(const struct recorder *recorder)
{
    return recorder ? &recorder->attempts : NULL;
}

/* --- Asking ------------------------------------------------------------------------------- */

int recorder_history(struct recorder *recorder, const struct history_query *query, cJSON **jobs, bool *more,
                     struct error *error)
{
    return history_read(recorder->store, query, jobs, more, error);
}

cJSON *recorder_stats(struct recorder *recorder)
{
    struct journal_stats stats;
    struct store_sizes sizes = {0};
    struct error unused;
    cJSON *json = json_object();
    journal_stats(recorder->journal, &stats);
    store_sizes(recorder->store, &sizes, &unused);
    const struct {
        const char *name;
        double value;
    } values[] = {
        {"records", (double)stats.records},
        {"transactions", (double)stats.transactions},
        {"syncs", (double)stats.syncs},
        {"failures", (double)stats.failures},
        {"bytes", (double)stats.bytes},
        {"waiting", (double)stats.waiting},
        {"write_seconds", stats.write_seconds},
        {"longest_write_seconds", stats.longest_write_seconds},
        {"wait_seconds", stats.wait_seconds},
        {"longest_wait_seconds", stats.longest_wait_seconds},
        {"jobs", (double)sizes.jobs},
        {"unfinished", (double)sizes.unfinished},
        {"results", (double)sizes.results},
        {"result_bytes", (double)sizes.result_bytes},
        {"cached", (double)sizes.cached},
        {"cached_bytes", (double)sizes.cached_bytes},
        {"content_bytes", (double)sizes.content_bytes},
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        json_add_number(json, values[i].name, values[i].value);
    return json;
}

/* --- Life ---------------------------------------------------------------------------------- */

int recorder_open(struct recorder **out, const char *path, const struct journal_limits *limits, struct jobs *jobs,
                  struct error *error)
{
    *out = NULL;
    struct recorder *recorder = calloc(1, sizeof *recorder);
    if (!recorder)
        return error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
    recorder->jobs = jobs;
    recorder->observer = (struct job_observer){on_happened, recorder};
    recorder->attempts = (struct attempts){recorder, start, save, lay_aside};
    recorder->kept = (struct kept_results){recorder, find_result, keep_result, count_results};
    recorder->cache_bytes = limits->cache_bytes;
    int code = store_open(&recorder->store, path, limits, NULL, error);
    if (code != 0) {
        recorder_close(recorder);
        return code;
    }
    jobs_observe(jobs, &recorder->observer);
    *out = recorder;
    return 0;
}

void recorder_close(struct recorder *recorder)
{
    if (!recorder)
        return;
    journal_close(recorder->journal);
    store_close(recorder->store);
    free(recorder);
}
