/* handling.h: what the files of daemon/service/ share: the service itself, the handlers, and what these have in common.
 */
#ifndef LANCE_HANDLING_H
#define LANCE_HANDLING_H

#include <stdatomic.h>

#include "daemon/rooms.h"
#include "daemon/service/call.h"

struct options;
struct residency_status;

enum { CALL_PARKED = 1 }; /* a handler's result beside 0 and error codes; nobody may touch the call after that */

struct service {
    const struct options *options;
    struct rooms rooms;
    struct blobs *blobs;   /* the service's own, */
    struct tokens *tokens; /* and these */
    void (*on_shutdown)(void *context, bool cancel);
    void *context;
    double started_at;
    char generation[JOB_ID_MAX_BYTES + 1];
    struct blob *no_memory_answer; /* made while there is memory */
    atomic_int parked;
    atomic_uint_fast64_t bad_messages;
    const struct request_kind *kinds; /* of requests, `kind_count` of them, */
    int kind_count;
    atomic_uint_fast64_t *counts;     /* and how many came of each */
};

/* A handler adds to call->fields (which has "protocol" and "ok") or sets call->answer, or parks the call, or fails. */
typedef int request_handler(struct call *call, const cJSON *request, struct error *error);

/* What a request takes (rights.h). */
enum right {
    RIGHT_ANY,  /* anybody who is let in; what they are told of jobs is of their own */
    RIGHT_ADMIN /* who may change what others have */
};

struct request_kind {
    const char *name;
    enum right right; /* that it takes */
    request_handler *handle;
    int (*resume)(struct call *call, struct error *error); /* NULL for a request that never parks */
    void (*unpark)(struct call *call);
};

/* The waiter to park with, or NULL when the answer must be given at once. */
struct waiter *call_waiter(struct call *call);

/* The field `job`, into call->job. */
int call_read_job(struct call *call, const cJSON *request, struct error *error);

/* An optional whole number; one over `highest` is taken as that. */
int call_read_whole(uint64_t *out, const cJSON *request, const char *name, uint64_t missing, uint64_t highest,
                    struct error *error);

/* The object `requests` of stats, which the caller frees. */
cJSON *service_counts(const struct service *service);

/* daemon_requests.c */
request_handler handle_hello, handle_stats, handle_shutdown, handle_parameters, handle_sampling;

/* The fields of `stats`, into `fields` (daemon_requests.c). */
void service_add_stats(struct service *service, cJSON *fields);

/* metrics_requests.c */
request_handler handle_metrics;

/* model_requests.c */
/* The field `model` of an answer. */
void add_model(cJSON *fields, const struct residency_status *status);
request_handler handle_models, handle_load, handle_unload;
int resume_load(struct call *call, struct error *error);
int resume_unload(struct call *call, struct error *error);
void unpark_model(struct call *call);
void models_client_gone(struct service *service, uint32_t client); /* wakes its parked calls */

/* job_requests.c */
request_handler handle_submit, handle_wait, handle_cancel, handle_release, handle_jobs;
int resume_submit(struct call *call, struct error *error);
int resume_wait(struct call *call, struct error *error);
void unpark_job(struct call *call);
/* The field `job`, into call->job, of a job that the table may know, or the journal: and if it does, of one that is the
 * caller's business. */
int call_find_job(struct call *call, const cJSON *request, struct error *error);

/* history_requests.c */
request_handler handle_history;

/* payload_requests.c */
request_handler handle_put, handle_result, handle_get;

#endif
