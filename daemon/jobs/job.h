/* job.h: one job: what it is to do, where it is, what it has told, and what came of it.
 *
 * For the files of daemon/jobs/ alone: everyone else has jobs.h. The table's lock is held wherever a job is looked at
 * or changed. Every change goes through a function of job.c, which tells it to the table's observer (observer.h), but
 * for whose turn it is: `next`, `round`, `priority` and `device_seconds` are the table's, the schedule's and the
 * queue's.
 */
#ifndef LANCE_JOB_H
#define LANCE_JOB_H

#include "base/sha256.h"
#include "daemon/jobs/events.h"
#include "daemon/jobs/jobs.h"
#include "daemon/jobs/observer.h"
#include "protocol/message.h"

enum { TASK_MAX_BYTES = 30, CLIENT_MAX_BYTES = 80, PROMPT_SHOWN_BYTES = 120, MODEL_NAME_BYTES = 256 };

struct job {
    char id[JOB_ID_MAX_BYTES + 1];
    uint64_t number; /* among all that were ever submitted, from 1 on */
    enum job_state state;
    struct job *next; /* in the order of their submission */
    const struct job_observer *observer;

    void *request; /* of its order, until it ends, with what closes it, */
    void (*close_request)(void *request);
    uint64_t request_bytes; /* and what it takes */
    char digest[SHA256_HEX_BYTES];
    char task[TASK_MAX_BYTES + 1];
    char owner[JOB_OWNER_MAX_BYTES + 1]; /* the name of its token; "": none */
    char client[CLIENT_MAX_BYTES + 1];   /* its name, by its own word; "": not said */
    char model[MODEL_NAME_BYTES]; /* that it will take or has; "": not known */
    enum job_class priority;
    uint64_t round; /* among the jobs of its client, while it waits (schedule.h) */
    char prompt[PROMPT_SHOWN_BYTES + 1]; /* the beginning */

    bool is_pending;        /* accepted, but that does not last yet: its submission is not answered, */
    bool is_written;        /* but it would survive the process: it may begin */
    bool is_answered;       /* its result was known when it was submitted: it ends when its acceptance lasts */
    bool is_refused;        /* that it was accepted could not be written down (`failure`): for its submitters alone, and
                             * for the worker, if it has begun */
    bool is_paused;         /* it runs, but another one has the device */
    bool is_ending;         /* its end is known, but does not last yet: it is not told */
    bool cancel_wanted;
    void (*on_cancel)(void *context);
    void *on_cancel_context;
    bool released; /* to be forgotten when the worker lets go of it; clients see it no more */

    struct events events;
    bool text_lost;      /* a piece of its answer had no memory: it fails at its end */
    bool is_over;        /* its last step is done: waiters are woken by its end, and by nothing before */
    bool has_last_event; /* among `events`; else there was no memory for it */
    struct waiter *waiters;

    struct blob *result;
    struct error failure;
    uint64_t fetched_bytes; /* of its result, that clients have been given; */
    bool fetched;           /* all of it */

    double submitted_at, started_at, ended_at;
    double device_seconds; /* that it has had in its class */
    double kept_since; /* its end, or when a client was last given a piece of its result */
    double asked_at;   /* when a client last showed that it wants the job */
};

/* A job that waits; it has the order's request from now on. NULL: out of memory. */
struct job *job_open(const char *id, uint64_t number, const struct job_order *order,
                     const struct job_observer *observer);

/* Forget it; who waits for it is woken. */
void job_forget(struct job *job);

/* Free it without a word. */
void job_close(struct job *job);

bool job_has_ended(const struct job *job);

/* Its place in the queue, 0 being the next one; tells it when it is another one. */
void job_move_to(struct job *job, int position);

void job_start(struct job *job);

/* That it was accepted lasts: it may begin. Or it was found out whether that is so (`failure` has code 0, or why not):
 * who waits for this is woken. */
void job_note_written(struct job *job);
void job_settle(struct job *job, const struct error *failure);

/* A client has shown just now that it wants the job. */
void job_note_asked(struct job *job);

/* The model that it has. */
void job_note_model(struct job *job, const char *name);

/* Its last step is done. */
void job_note_over(struct job *job);

/* Give a job that was just opened the answer of its order, which owns it from now on: it is_ending then. */
void job_answer(struct job *job, const struct job_order *order);

/* It runs, and has the device no more, or again. */
void job_pause(struct job *job);
void job_go_on(struct job *job);

/* Tell an event and wake who waits for it; as events_add. Out of memory: what tells of progress may be missing, a piece
 * of the answer may not. */
void job_tell(struct job *job, enum job_event event, cJSON *fields, const struct job_preview *preview);

/* Note that its end is wanted, and tell whoever runs it. */
void job_want_cancel(struct job *job);

/* Whoever runs it is told by on_cancel(context) that its end is wanted, at once if it is already; NULL: no more. */
void job_on_cancel(struct job *job, void (*on_cancel)(void *context), void *context);

/* A client lets go of it, and nobody sees it any more; who waits for it is woken. */
void job_release(struct job *job);

/* It could not be written down: it is no job any more, and those who submitted it can ask why. One that runs is
 * stopped, and its end (job_end) is told to nobody. */
void job_refuse(struct job *job, const struct error *why);

/* Give it its end: its result (owned from here on), or what it failed of. Its request is closed. Where the observer has
 * it wait, it is_ending then, until job_tell_end. */
void job_end(struct job *job, struct blob *result, const struct error *failure);

/* Tell the end that it was given. */
void job_tell_end(struct job *job);

/* Give a job that was just opened the end that it had in a former life: its result (owned from here on), or what it
 * failed of. */
void job_recall(struct job *job, struct blob *result, const struct error *failure);

/* So many bytes of its result, which has `all`, went to a client. */
void job_note_fetched(struct job *job, uint64_t bytes, uint64_t all);

/* The events after `after`. Errors: ERROR_NO_MEMORY. */
int job_copy_news(const struct job *job, uint64_t after, struct job_news *news, struct error *error);

/* What it takes in memory beside its request. */
uint64_t job_kept_bytes(const struct job *job);

#endif
