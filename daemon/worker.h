/* worker.h: the one thread that owns the device: it loads and unloads models and steps jobs.
 *
 * Everyone else asks: jobs through the job table (jobs.h), models through worker_load and
 * worker_unload, whose requests are parked until the worker has done them between two jobs.
 */
#ifndef LANCE_WORKER_H
#define LANCE_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/engine/lance.h"
#include "daemon/jobs/jobs.h"
#include "daemon/options.h"
#include "daemon/waiter.h"

struct attempts;
struct worker;

/* Why the daemon is of no use. */
enum worker_end {
    WORKER_NO_MODEL,   /* the default model cannot be loaded at start */
    WORKER_DEVICE_LOST /* the device failed and needs a new process; jobs that are taken from now on fail at once */
};

/* Open the backend. `options`, `jobs` and `attempts` (NULL: no journal is kept) must outlive the worker. on_fatal(context, why) will be called from the thread, once,
 * when the daemon is of no use. */
int worker_open(struct worker **out, const struct options *options, struct jobs *jobs, const struct attempts *attempts,
                void (*on_fatal)(void *context, enum worker_end why), void *context, struct error *error);

/* Start the thread, which loads the default model first unless the options say otherwise. Once; until then whatever is
 * asked for waits. */
int worker_start(struct worker *worker, struct error *error);

/* Stop after the step that runs (cancel the jobs first), free the model. NULL is allowed. */
void worker_close(struct worker *worker);

/* A snapshot for hello, submit and stats. */
struct worker_status {
    int loaded; /* index of the loaded model, or -1 */
    int last;   /* of the one loaded last, or the default one */
    struct lance_model_info info;
    char backend[400]; /* all that a result's bytes depend on; it may change in a job, as kernels.h says */
    char advice[160]; /* what would make it faster, a line; or empty */
    uint64_t loads, unloads, steps;
    double busy_seconds, last_step_seconds;
    uint64_t job_peak_bytes;
    uint64_t memory_limit_bytes; /* of jobs, beside the weights; 0: none */
    struct lance_prefixes prefixes;
    struct lance_held held;
};
void worker_status(struct worker *worker, struct worker_status *out);

/* Index of the model of that name; NULL: the loaded one, else the one loaded last, else the default. Errors: ERROR_NOT_FOUND naming those that
 * are offered. */
int worker_find_model(struct worker *worker, const char *name, int *index, struct error *error);

/* The same for a job of this task: MODEL_AUTOMATIC (model_choice.h) is the model that suits it best. */
int worker_choose_model(struct worker *worker, const char *name, enum lance_task task, int *index, struct error *error);

/* The object `automatic` of PROTOCOL.md, which the caller frees. */
cJSON *worker_automatic(struct worker *worker);

/* The array `models` of PROTOCOL.md, which the caller frees. */
cJSON *worker_models(struct worker *worker);

/* Have the engine check a request if that model is loaded; 0 if it is not. */
int worker_check(struct worker *worker, int index, const struct lance_request *request, struct error *error);

/* Have a model loaded. Returns 0 with *parked false when it is; else parks `waiter` and sets *parked. Call again when
 * the waiter was woken (after worker_unpark), with the same ticket, and with waiter NULL when there is no time left to wait.
 * *ticket is 0 at first. Errors: what the load failed of; ERROR_BUSY without a waiter. */
int worker_load(struct worker *worker, int index, uint64_t *ticket, struct waiter *waiter, bool *parked,
                struct error *error);

/* Have the model unloaded: now, or when the job that runs has ended, before those that wait. */
enum worker_unload { UNLOAD_NOTHING, UNLOAD_DONE, UNLOAD_PENDING, UNLOAD_PARKED };

/* UNLOAD_NOTHING when there is nothing to unload; UNLOAD_PENDING while a job runs, or with `waiter` NULL; else UNLOAD_PARKED: call worker_unload_again when
 * the waiter was woken (after worker_unpark), with the same ticket. */
enum worker_unload worker_unload(struct worker *worker, uint64_t *ticket, struct waiter *waiter);

/* UNLOAD_DONE; UNLOAD_PARKED when it was woken for something else; UNLOAD_PENDING when there is no time left (`waiter` NULL);
 * UNLOAD_NOTHING when a client that asked for a model later has got it. */
enum worker_unload worker_unload_again(struct worker *worker, uint64_t ticket, struct waiter *waiter);

/* After this the worker does not know the waiter. */
void worker_unpark(struct worker *worker, struct waiter *waiter);

/* Wake the waiters of a client whose connection is gone. */
void worker_client_gone(struct worker *worker, uint32_t client);

/* What on_fatal was called for. */
void worker_fatal_error(struct worker *worker, struct error *out);

#endif
