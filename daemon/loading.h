/* loading.h: what clients ask of the models: to load one, to unload what is there.
 *
 * Clients' requests are parked until the worker's thread has turned to them, between two jobs. What is asked last is
 * what is done.
 */
#ifndef LANCE_LOADING_H
#define LANCE_LOADING_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/jobs/jobs.h"
#include "daemon/residency.h"
#include "daemon/waiter.h"

struct loading;

/* `residency`, `jobs` (whose jobs_take is ended when there is something to do) and `options` must outlive it.
 * ERROR_NO_MEMORY. */
int loading_open(struct loading **out, const struct options *options, struct residency *residency, struct jobs *jobs,
                 struct error *error);
void loading_close(struct loading *loading); /* NULL is allowed */

/* --- For the worker's thread: do what is asked for, if anything is. */
void loading_serve(struct loading *loading);

/* Whether anything is, and whether it is a load for which there is room beside what is in memory, and so no reason to
 * wait until no job is open. */
bool loading_is_wanted(struct loading *loading);
bool loading_is_quick(struct loading *loading);

/* --- For clients, any thread -------------------------------------------------------------- */

/* Have a model loaded. Returns 0 with *parked false when it is; else parks `waiter` and sets *parked. Call again when
 * the waiter was woken (after loading_unpark), with the same ticket, and with waiter NULL when there is no time left to
 * wait. *ticket is 0 at first. Errors: what the load failed of; ERROR_BUSY without a waiter. */
int loading_load(struct loading *loading, int index, uint64_t *ticket, struct waiter *waiter, bool *parked,
                 struct error *error);

/* Have the models unloaded: now, or when the job that runs has ended, before those that wait. */
enum unloading { UNLOAD_NOTHING, UNLOAD_DONE, UNLOAD_PENDING, UNLOAD_PARKED };

/* UNLOAD_NOTHING when there is nothing to unload; UNLOAD_PENDING while a job runs, or with `waiter` NULL; else
 * UNLOAD_PARKED: call loading_unload_again when the waiter was woken (after loading_unpark), with the same ticket. */
enum unloading loading_unload(struct loading *loading, uint64_t *ticket, struct waiter *waiter);

/* UNLOAD_DONE; UNLOAD_PARKED when it was woken for something else; UNLOAD_PENDING when there is no time left (`waiter`
 * NULL); UNLOAD_NOTHING when a client that asked for a model later has got it. */
enum unloading loading_unload_again(struct loading *loading, uint64_t ticket, struct waiter *waiter);

/* After this the waiter is not known any more. */
void loading_unpark(struct loading *loading, struct waiter *waiter);

/* Wake the waiters of a client whose connection is gone. */
void loading_client_gone(struct loading *loading, uint32_t client);

#endif
