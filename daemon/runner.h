/* runner.h: takes jobs from the table, steps them, and posts what comes of it.
 *
 * All on the worker's thread but what is said to be for others. It may hold several open jobs, one of each class at
 * most, and steps the one whose turn it is.
 */
#ifndef LANCE_RUNNER_H
#define LANCE_RUNNER_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/jobs/jobs.h"
#include "daemon/residency.h"

struct attempts;
struct kept_results;
struct runner;

/* Everything given must outlive it. `attempts` gets the jobs' states, as often as the options say, and has those that a
 * former daemon has left; NULL: no journal is kept. `kept`: results that were made before, or NULL. ERROR_NO_MEMORY. */
int runner_open(struct runner **out, const struct options *options, struct jobs *jobs, struct residency *residency,
                struct kernels *kernels, const struct attempts *attempts, const struct kept_results *kept,
                struct error *error);

/* Have this calibration, which must outlive it, told of each job's task. Before the worker's thread starts. */
void runner_calibrate(struct runner *runner, struct calibration *calibration);

void runner_close(struct runner *runner); /* when no job is open; NULL is allowed */

/* One bounded piece of work: a step of an open job, or the beginning of the next job, for which it waits until a
 * time (of clock.h; 0: for ever) or until jobs_poke. */
void runner_turn(struct runner *runner, double until);

bool runner_has_open(const struct runner *runner);

/* Any thread: open jobs end as cancelled at their next step, or, where a journal is kept and nobody has cancelled them,
 * are left to the next daemon. */
void runner_stop(struct runner *runner);

/* What was done so far; any thread. */
struct runner_counts {
    uint64_t steps;
    double busy_seconds, last_step_seconds;
    uint64_t job_peak_bytes; /* the most device memory that a job took */
};
void runner_counts(struct runner *runner, struct runner_counts *out);

#endif
