/* worker.h: the one thread that uses the device: between two jobs it loads and unloads models for clients (loading.h),
 * else it has the runner do one piece of work after another (runner.h).
 *
 * It owns the device, the models in memory, what clients ask of them, and the runner; others find them in its rooms.
 */
#ifndef LANCE_WORKER_H
#define LANCE_WORKER_H

#include "daemon/options.h"
#include "daemon/rooms.h"

struct jobs;
struct recorder;
struct worker;

/* Why the daemon is of no use. */
enum worker_end {
    WORKER_NO_MODEL,   /* the default model cannot be loaded at start */
    WORKER_DEVICE_LOST /* the device failed and needs a new process; jobs fail at once from now on, or, where a journal
                        * is kept, wait for the next daemon */
};

/* Open the backend. Everything given must outlive the worker; `recorder` is NULL where no journal is kept. on_fatal(
 * context, why) will be called from the thread, once, when the daemon is of no use. */
int worker_open(struct worker **out, const struct options *options, struct jobs *jobs, struct recorder *recorder,
                void (*on_fatal)(void *context, enum worker_end why), void *context, struct error *error);

/* Start the thread, which loads the default model first unless the options say otherwise. Once; until then whatever is
 * asked for waits. */
int worker_start(struct worker *worker, struct error *error);

/* Stop after the step that runs, free the models. An open job is left to the next daemon where a journal is kept; else
 * cancel the jobs first. NULL is allowed. */
void worker_close(struct worker *worker);

/* What on_fatal was called for. */
void worker_fatal_error(struct worker *worker, struct error *out);

/* What it owns, with what it was given; they live as long as it does. */
const struct rooms *worker_rooms(const struct worker *worker);

#endif
