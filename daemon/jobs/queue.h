/* queue.h: who is next, and who may still join.
 *
 * The table has its jobs in one list, in the order of their submission (struct job's `next`): few enough, with those
 * that are kept, that walking it costs nothing beside a request's JSON. `first` is its beginning. Plain functions,
 * called with the table's lock held.
 */
#ifndef LANCE_QUEUE_H
#define LANCE_QUEUE_H

#include "daemon/jobs/job.h"

/* The job that is to start next, or NULL. */
struct job *queue_next(struct job *first);

/* Tell the jobs that wait where they are now. */
void queue_tell_positions(struct job *first);

int queue_length(const struct job *first); /* jobs that wait */
int queue_active(const struct job *first); /* and those that run with them */

/* What the requests of jobs that have not ended take. */
uint64_t queue_held_bytes(const struct job *first);

/* Whether a job whose request takes `bytes` may join. Errors: ERROR_BUSY, with the numbers. */
int queue_check_room(const struct job *first, const struct jobs_limits *limits, const char *id, uint64_t bytes,
                     struct error *error);

#endif
