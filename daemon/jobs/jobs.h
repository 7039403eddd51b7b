/* jobs.h: the face of daemon/jobs/: the table of jobs (table.c), which has the queue (queue.h), every job's state and
 * events (job.h, events.h), and the results that are kept (results.h).
 *
 * A job is submitted by a client under an id of its choice, taken by the worker, which posts
 * its events and ends it, and forgotten when it is released, expires, or newer results need
 * the room. All functions may be called from any thread; one mutex guards the whole table.
 * A `struct job *` that jobs_take returned stays valid until the worker ends the job.
 */
#ifndef LANCE_JOBS_H
#define LANCE_JOBS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/blob.h"
#include "daemon/jobs/events.h"
#include "daemon/jobs/job_class.h"
#include "daemon/jobs/limits.h"
#include "daemon/jobs/observer.h"
#include "daemon/waiter.h"

enum job_state { JOB_QUEUED, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED };

/* "queued", "running", "done", "failed", "cancelled". */
const char *job_state_name(enum job_state state);

struct jobs;
struct job;

int jobs_open(struct jobs **out, const struct jobs_limits *limits, struct error *error);

/* Nobody may use the table any more; parked waiters are dropped, not woken. */
void jobs_close(struct jobs *jobs);

/* Have everything told to `observer` that happens to a job, before the first one is submitted. It must outlive the
 * table. Without one nobody is told. */
void jobs_observe(struct jobs *jobs, const struct job_observer *observer);

/* --- For clients ------------------------------------------------------------------- */

struct job_status {
    enum job_state state;
    int position; /* jobs ahead of it */
};

/* Whether the id is known; fills `status` then. */
bool jobs_find(struct jobs *jobs, const char *id, struct job_status *status);

/* Whose job the id is, if it is known. */
enum { JOB_OWNER_MAX_BYTES = 40 };
bool jobs_owner(struct jobs *jobs, const char *id, char owner[JOB_OWNER_MAX_BYTES + 1]);

/* ERROR_NOT_FOUND, in the words for every job that is not known. */
int jobs_not_known(const char *id, struct error *error);

/* What a job is to do. The table does not look into the request: it keeps it until the job ends, then closes it. */
struct job_order {
    void *request;
    void (*close)(void *request);
    uint64_t bytes;     /* that it takes in memory */
    bool is_complete;   /* all its bytes are here; else it can only be compared */
    const char *digest; /* of what it asks for, as request_digest.h says; equal requests have equal ones */
    const char *owner;  /* whose it is, by their token's name; NULL is "": nobody's in particular */
    const char *task, *client, *prompt; /* for the list of jobs; the last two may be NULL. All texts are copied. */
    struct blob *answer;  /* its result, if that is known already: it is ended at once, and never queued; else NULL. One
                           * reference, owned by the table from here on, whatever happens */
    const char *answer_text; /* what is told of it, or NULL */
    const char *model;       /* that it will take, as far as is known; or NULL. Copied. */
    enum job_class priority; /* JOB_CLASSES: not known, of one that has ended */
    uint64_t number;      /* of a job that a former daemon accepted (jobs_restore); else 0 */
    uint64_t events_base; /* what its events may have been numbered to */
};

/* Queue a job. A known id starts nothing and reports where that job is, if it was submitted with the same request. The
 * order's request is owned by the table from here on, whatever happens. Errors: ERROR_BUSY (queue full, in jobs or in
 * bytes; shutting down; or the id's former job is still being stopped), ERROR_NOT_FOUND (it is no repetition, and blobs
 * are missing), ERROR_BAD_REQUEST (the id is known with another request), ERROR_NO_MEMORY.
 * Where an observer has the job wait, `waiter` is parked until the job's acceptance lasts, and *parked says so: go on
 * with jobs_submitted then. `waiter` NULL: there is no time to wait, ERROR_BUSY. */
int jobs_submit(struct jobs *jobs, const char *id, const struct job_order *order, struct waiter *waiter, bool *parked,
                struct job_status *status, struct error *error);

/* What became of a submission whose waiter was woken (after jobs_unpark). Errors: those of jobs_submit, and what kept
 * the job from being written down. */
int jobs_submitted(struct jobs *jobs, const char *id, struct waiter *waiter, bool *parked, struct job_status *status,
                   struct error *error);

/* The events after `after`. When there are none and the job has not ended, `waiter`, if not NULL, is parked until
 * there is one; *parked says so, and `news` is empty. The caller must then not touch the waiter before it is woken
 * or jobs_unpark has returned. Errors: ERROR_NOT_FOUND. */
int jobs_news(struct jobs *jobs, const char *id, uint64_t after, struct waiter *waiter, bool *parked,
              struct job_news *news, struct error *error);

/* After this the table does not know the waiter. */
void jobs_unpark(struct jobs *jobs, struct waiter *waiter);

/* Wake the waiters of a client whose connection is gone. */
void jobs_client_gone(struct jobs *jobs, uint32_t client);

/* The encoded result message, one reference for the caller. Errors: ERROR_NOT_FOUND, ERROR_BUSY, ERROR_CANCELLED, or
 * what the job failed with. */
int jobs_result(struct jobs *jobs, const char *id, struct blob **out, struct error *error);

/* So many bytes of a result went to a client; `all` is what it has. A result that is fetched piece by piece is kept for
 * longer, and at its end the daemon waits for clients until nothing is left to be fetched. */
void jobs_count_fetched(struct jobs *jobs, const char *id, uint64_t bytes, uint64_t all);

/* Cancel a job of `owner`; NULL: anybody's. Errors: ERROR_NOT_FOUND. */
int jobs_cancel(struct jobs *jobs, const char *id, const char *owner, enum job_state *state, struct error *error);

/* Forget a job of `owner` (NULL: anybody's), cancelling it first if need be. */
void jobs_release(struct jobs *jobs, const char *id, const char *owner);

/* --- For the worker ------------------------------------------------------------------ */

/* The job whose turn it is (queue.h): one that was taken before and runs, or the next one, which is running now. Where
 * there is none, wait for one, for jobs_poke, or until a time (of clock.h; 0: for ever), which return NULL. A job that
 * runs and whose turn it is no more is told to be paused. */
struct job *jobs_take(struct jobs *jobs, double until);

/* Have the next or current jobs_take return NULL. */
void jobs_poke(struct jobs *jobs);

/* A job is about to be stepped on the model of this name, which was loaded for it in so many seconds, or was there
 * (negative). So that clients with different models do not have one loaded after the other, a model that was loaded
 * stays JOBS_MODEL_STAYS times as long as that took, while there are jobs for it; and without any for as long as its
 * load, JOBS_MODEL_IDLE_SECONDS at most. An interactive job does not wait for that. */
enum { JOBS_MODEL_STAYS = 10, JOBS_MODEL_IDLE_SECONDS = 1, JOBS_MOST_MODELS = 32 };
void jobs_note_model(struct jobs *jobs, struct job *job, const char *name, double load_seconds);

/* These models are in memory: their jobs need no load. Before jobs_note_model; JOBS_MOST_MODELS at most. */
void jobs_note_in_memory(struct jobs *jobs, const char *const *names, int count);

/* Begin no job but interactive ones, or begin them again: who has asked for a model waits until none is open. */
void jobs_hold_back(struct jobs *jobs, bool is_held_back);

/* A job had the device for so long, in a step of this stage: to be said after each, for turns and measures. */
void jobs_note_step(struct jobs *jobs, struct job *job, const char *stage, double seconds);

const char *job_id(const struct job *job);
uint64_t job_number(const struct job *job);
const void *job_request(const struct job *job); /* of its order */
double job_queue_seconds(const struct job *job); /* between submit and start */
bool jobs_cancel_wanted(struct jobs *jobs, const struct job *job);

/* Have on_cancel(context) called when the running job is cancelled, at once if it already is: from the thread that
 * cancels, which holds the table, so it must be quick and not call back. NULL: no more; then it is not running
 * either. */
void jobs_on_cancel(struct jobs *jobs, struct job *job, void (*on_cancel)(void *context), void *context);

/* A job's last step is done: what is posted from here on need not be told before its end, which follows, so that who
 * waits is answered once. */
void jobs_note_over(struct jobs *jobs, struct job *job);

/* Post EVENT_PROGRESS or EVENT_TEXT: `fields` (owned from here on) without "sequence" and "event". */
void jobs_post(struct jobs *jobs, struct job *job, enum job_event event, cJSON *fields);

/* Post a preview; takes one reference of its `rgb`. Its name is made here. */
void jobs_post_preview(struct jobs *jobs, struct job *job, const struct job_preview *preview);

/* End a running job with its encoded result (ownership passes), or with the error it failed of
 * (ERROR_CANCELLED: it was cancelled). The job may be gone when this returns. */
void jobs_end(struct jobs *jobs, struct job *job, struct blob *result, const struct error *failure);

/* --- For who keeps a journal ----------------------------------------------------------- */

/* Jobs get numbers above this one. */
void jobs_number_from(struct jobs *jobs, uint64_t last);

/* Queue a job that a former daemon accepted, in the place of order->number. Its request is owned by the table from
 * here on. Errors: ERROR_NO_MEMORY. */
int jobs_restore(struct jobs *jobs, const char *id, const struct job_order *order, struct error *error);

/* Know of a job that ended before, unless its id is known: with its result (one reference, owned from here on, whatever
 * happens), or what it failed of. The order has no request. Errors: ERROR_NO_MEMORY. */
int jobs_recall(struct jobs *jobs, const char *id, const struct job_order *order, struct blob *result,
                const struct error *failure, struct error *error);

/* The acceptance of a job outlives this process: it may begin, though its submitters are not answered yet. */
void jobs_settle_written(struct jobs *jobs, uint64_t number);

/* The acceptance of a job lasts, or cannot be made to: then the job is no more, and its submitters are told why. */
void jobs_settle_accepted(struct jobs *jobs, uint64_t number, const struct error *failure);

/* The end of a job lasts, or has to be told without. */
void jobs_settle_ended(struct jobs *jobs, uint64_t number);

/* --- For the daemon ------------------------------------------------------------------ */

/* Take no more jobs; with `cancel`, stop those that are there. */
void jobs_shut(struct jobs *jobs, bool cancel);

bool jobs_is_shut(struct jobs *jobs);

/* Jobs queued or running. */
int jobs_active(struct jobs *jobs);

bool jobs_is_running(struct jobs *jobs);

/* Results made since jobs_shut that no client has fetched. */
int jobs_unfetched(struct jobs *jobs);

/* Forget what has expired, and cancel what nobody waits for. Call now and then. */
void jobs_sweep(struct jobs *jobs);

/* The "jobs" object of stats, which the caller frees; and the bytes that requests and results take. */
cJSON *jobs_stats(struct jobs *jobs, uint64_t *queue_bytes, uint64_t *result_bytes);

/* How long jobs waited, ran and stepped: see measures_json. The caller frees it. */
cJSON *jobs_measured(struct jobs *jobs);

enum { JOBS_LIST_MOST = 1024 };

/* The jobs that clients may ask for, in the order of their submission: an array for the request "jobs", which the
 * caller frees. Those after the number `after`, JOBS_LIST_MOST at most: *more says that there are others behind
 * them. */
cJSON *jobs_list(struct jobs *jobs, uint64_t after, const char *owner, bool *more);

/* Count a submit that was refused before it reached the table. */
void jobs_count_refused(struct jobs *jobs);

#endif
