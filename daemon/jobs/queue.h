/* queue.h: who is next, and who may still join.
 *
 * The table has its jobs in one list, in the order of their submission (struct job's `next`): few enough, with those
 * that are kept, that walking it costs nothing beside a request's JSON. `first` is its beginning. Plain functions,
 * called with the table's lock held.
 */
#ifndef LANCE_QUEUE_H
#define LANCE_QUEUE_H

#include "daemon/jobs/schedule.h"

/* The names of models in memory. */
struct job_models {
    char names[JOBS_MOST_MODELS][MODEL_NAME_BYTES];
    int count;
};

/* The job whose turn it is, as schedule.h says: one that runs, or one that is to start; NULL: there is none. Of a class
 * the one that runs comes first, and an interactive one that runs before all. */
struct queue_heads {
    struct job *any, *at_hand; /* of all jobs; of those that are not known to take a model that is not in memory */
};

/* `is_held_back`: of those that are to start only interactive ones may. */
struct queue_heads queue_next(struct schedule *schedule, struct job *first, const struct job_models *in_memory,
                              bool is_held_back);

/* Whether a job of that class runs, or could. */
bool queue_wants(const struct job *first, enum job_class class);

/* A job had the device for so long. */
void queue_note(struct schedule *schedule, const struct job *first, const struct job *job, double seconds);

/* The same: whether it has had the device for too long to be interactive, and is a normal one from now on. */
bool queue_overstays(const struct job *first, struct job *job, double seconds);

/* Tell the jobs that wait where they are now: how many of their class and those before it run, or will run before. */
void queue_tell_positions(struct schedule *schedule, struct job *first);

int queue_length(const struct job *first); /* jobs that wait */
int queue_active(const struct job *first); /* and those that run with them */

/* What the requests of jobs that have not ended take. */
uint64_t queue_held_bytes(const struct job *first);

/* Whether a job whose request takes `bytes` may join. Errors: ERROR_BUSY, with the numbers. */
int queue_check_room(const struct job *first, const struct jobs_limits *limits, const char *id, uint64_t bytes,
                     struct error *error);

#endif
