/* results.h: which ended jobs are kept, and for how long. Plain functions over the table's list of jobs, as those of
 * queue.h. */
#ifndef LANCE_RESULTS_H
#define LANCE_RESULTS_H

#include "daemon/jobs/job.h"

/* The ended job that is to be forgotten next, or NULL; `why` gets the reason. */
struct job *results_overdue(struct job *first, const struct jobs_limits *limits, const char **why);

/* What ended jobs take. */
uint64_t results_bytes(const struct job *first);

/* Results made since that time (of clock.h) that no client has fetched. */
int results_unfetched(const struct job *first, double since);

#endif
