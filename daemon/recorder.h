/* recorder.h: between the job table and the journal: what happens to jobs is written down, and jobs of a former life of
 * the daemon are taken up again.
 *
 * It observes the table (observer.h): a job is not answered before its acceptance lasts, nor its end told before that
 * does. The worker asks before it steps a job, and hands over states that the job can be gone on with from
 * (attempts.h). Clients ask for jobs that the table does not know, which ended in a former life or have left memory.
 *
 * Any thread, but recorder_recover, which comes before the others.
 */
#ifndef LANCE_RECORDER_H
#define LANCE_RECORDER_H

#include <stdbool.h>

#include "base/error.h"
#include "base/json.h"
#include "daemon/attempts.h"
#include "daemon/journal/history.h"
#include "daemon/journal/limits.h"
#include "daemon/kept_results.h"

struct jobs;
struct recorder;

enum { RECORDER_MOST_ATTEMPTS = 3 }; /* at a job that the daemon did not survive */

/* Open the state folder and write down from now on what happens in `jobs`, which must outlive the recorder and be
 * empty. Errors: those of store_open. */
int recorder_open(struct recorder **out, const char *path, const struct journal_limits *limits, struct jobs *jobs,
                  struct error *error);

/* Start to write, and put into the queue again what was accepted and has not ended; what was being stepped at
 * RECORDER_MOST_ATTEMPTS ends of a daemon fails instead. Errors: ERROR_IO, ERROR_NO_MEMORY. */
int recorder_recover(struct recorder *recorder, struct error *error);

/* Write what is to be written. Nobody may use the table or the recorder any more. NULL is allowed. */
void recorder_close(struct recorder *recorder);

/* Have the table know a job of `owner` (NULL: anybody's) that ended before, if the journal does. Reads its result.
 * false: it is another's, of which nothing is read. */
bool recorder_recall(struct recorder *recorder, const char *id, const char *owner);

/* A client lets go of a job that the table may not know, and that is `owner`'s (NULL: anybody's). */
void recorder_release(struct recorder *recorder, const char *id, const char *owner);

/* The results that the journal keeps for the same request; lives as long as the recorder. */
const struct kept_results *recorder_kept_results(const struct recorder *recorder);

/* For whoever steps jobs; lives as long as the recorder. NULL gives NULL. */
const struct attempts *recorder_attempts(const struct recorder *recorder);

/* Jobs of before and now: see history.h. */
int recorder_history(struct recorder *recorder, const struct history_query *query, cJSON **jobs, bool *more,
                     struct error *error);

/* The object "journal" of stats, which the caller frees. */
cJSON *recorder_stats(struct recorder *recorder);

#endif
