/* schedule.h: whose turn it is, among classes and among clients of a class.
 *
 * Classes: the first one that has something to do goes first. One behind it has a turn when it has waited while others
 * had the device SCHEDULE_PATIENCE times as long as its last step took, so that a tenth of the time is its own: nobody
 * is starved, and who had the device while nobody else wanted it owes nothing.
 *
 * An interactive job goes before everything else to its end, since a question is short. One that has had the device for
 * SCHEDULE_INTERACTIVE_SECONDS while another interactive one waits is none, and a normal one from then on.
 *
 * Clients of one class go round: in a round each has one job, in the order in which the jobs came. A client's jobs are
 * of as many rounds, one after the other, and a new client joins the round that is being served: its first job is
 * begun after the one that runs, however many others wait.
 *
 * Nothing here looks at a clock: the same jobs, and the same seconds that are noted, give the same order. A `schedule`
 * belongs to the job table, whose lock guards it; all zero is one before the first job.
 */
#ifndef LANCE_SCHEDULE_H
#define LANCE_SCHEDULE_H

#include "daemon/jobs/job.h"

enum {
    SCHEDULE_PATIENCE = 9,
    SCHEDULE_INTERACTIVE_SECONDS = 10, /* of the device, that an interactive job may have while another one waits */
    SCHEDULE_MOST_CLIENTS = 64 /* that are told apart; those beyond are one */
};

struct schedule {
    double waited[JOB_CLASSES]; /* seconds that others had the device, less SCHEDULE_PATIENCE times its own */
    double step[JOB_CLASSES];   /* what the last step of each took; before the first one, of any */

    uint64_t round[JOB_CLASSES]; /* that is being served */
    struct schedule_client {
        char name[CLIENT_MAX_BYTES + 1], owner[JOB_OWNER_MAX_BYTES + 1]; /* of several owners each has its own */
        bool is_known;
        uint64_t served[JOB_CLASSES]; /* the round of its last job that was begun */
        uint64_t next[JOB_CLASSES];   /* that its next job would be of, in the pass that last met it */
        uint64_t pass;
    } clients[SCHEDULE_MOST_CLIENTS];
    uint64_t pass;
};

/* Which class is next, of those that have something to do; JOB_CLASSES: none has. */
enum job_class schedule_class(const struct schedule *schedule, const bool wants[JOB_CLASSES]);

/* A job of this class had the device for so long, while these had something to do. */
void schedule_note(struct schedule *schedule, enum job_class class, double seconds, const bool wants[JOB_CLASSES]);

/* Give every job that waits its round (struct job's `round`); `first` begins the table's list. Of jobs of one class
 * that with the lowest round is next, and of one round that with the lowest number. */
void schedule_rounds(struct schedule *schedule, struct job *first);

/* Whether a job comes before another one, once they have their rounds; of whichever classes. */
bool schedule_is_before(const struct job *job, const struct job *other);

/* This job is begun. */
void schedule_begin(struct schedule *schedule, const struct job *job);

#endif
