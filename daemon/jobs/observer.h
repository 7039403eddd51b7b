/* observer.h: the one point that everything passes that happens to a job, for whoever keeps a journal of it.
 *
 * job.c calls the table's observer (jobs_observe) with the table's lock held, from the thread that makes it happen and
 * in the order in which it happens. It must be quick and not call back into the table: it notes what it needs, and a
 * thread of its own writes. What it is given is borrowed until it returns; a blob may be shared.
 */
#ifndef LANCE_JOB_OBSERVER_H
#define LANCE_JOB_OBSERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct blob;
struct cJSON;
struct job_order;

enum job_happening {
    JOB_ACCEPTED,   /* .order; its request stays until the job ends */
    JOB_STARTED,    /* the worker has taken it up, and is about to begin */
    JOB_TOLD,       /* .event: progress, a preview (.blob), a piece of text */
    JOB_CANCELLING, /* its end is wanted, by who cancels or releases it (.is_released) */
    JOB_ENDED,      /* .blob is its result, or NULL and .failure says why; its request is closed right
                     * after, and its end told to clients when the observer's word allows it */
    JOB_FETCHED,    /* all of its result went to a client */
    JOB_FORGOTTEN   /* nobody can ask for it any more: .is_released by a client, or else expired */
};

struct job_change {
    enum job_happening what;
    const char *id;
    uint64_t number;   /* of the job, among all */
    uint64_t sequence; /* of the last event that its clients can ask for */
    const struct job_order *order;
    const struct cJSON *event; /* as PROTOCOL.md has it, "sequence" and "event" included */
    struct blob *blob;
    const struct error *failure; /* ERROR_CANCELLED: it was cancelled */
    bool is_released;
};

/* What the observer says to a job's acceptance and to its end; nobody asks what it says to the rest. */
enum job_word {
    JOB_GOES_ON,
    JOB_WAITS,  /* until jobs_settle_accepted or jobs_settle_ended: it is not answered, nor begun before
                 * jobs_settle_written, or not told */
    JOB_REFUSED /* it cannot be accepted; *why says why */
};

struct job_observer {
    enum job_word (*happened)(void *context, const struct job_change *change, struct error *why);
    void *context;
};

#endif
