/* results.h: which ended jobs are kept, and for how long. Plain functions over the table's list of jobs, as those of
 * queue.h. */
#ifndef LANCE_RESULTS_H
#define LANCE_RESULTS_H

#include "daemon/jobs/job.h"

/* The ended job that is to be forgotten next, or NULL; `why` gets the reason. */
struct job *results_overdue(struct job *first, const struct jobs_limits *limits, const char **why);

/* What ended jobs take. */
uint64_t results_bytes(const struct job *first);

/* Whether a job that is answered as it is submitted may join, with a result of so many bytes: those of others whose end
 * does not last yet are in memory too. One beside no other always may. Errors: ERROR_BUSY, with the numbers. */
int results_check_room(const struct job *first, const struct jobs_limits *limits, const char *id, uint64_t bytes,
                       struct error *error);

/* Results made since that time (of clock.h) that no client has fetched. */
int results_unfetched(const struct job *first, double since);

#endif
