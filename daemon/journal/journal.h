/* journal.h: the thread that writes down what happens to jobs, so that it lasts, and tells when it does.
 *
 * Whoever reports something does not wait: it hands over a record and a function to be called once the record is on the
 * disk, or cannot be. Records are written in the order in which they were handed over, all that have come meanwhile in
 * one transaction. What nobody asks for is not counted in memory: payloads and results are shared (blob.h).
 *
 * A record is written first, from when on it outlives the process, and then fsynced, from when on it outlives the
 * machine: it lasts. Acceptances and ends are fsynced at once; the rest with these, or JOURNAL_SYNC_MS later. What
 * nobody waits for at all, as a release, is written with what comes next, or JOURNAL_SYNC_MS later.
 *
 * Any thread may call anything here, and under any lock what does not say that it waits. Functions given are called
 * from the journal's thread, and must not wait for the journal; where a function returns an error they are not called.
 */
#ifndef LANCE_JOURNAL_H
#define LANCE_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sha256.h"
#include "daemon/blob.h"

struct journal;
struct store;
struct store_attempt;

enum {
    JOURNAL_MOST_WAITING = 4096, /* jobs to be accepted that are not written yet; a further one is refused */
    JOURNAL_SYNC_MS = 100
};

/* failure->code is 0: it lasts. */
typedef void journal_done(void *context, uint64_t number, const struct error *failure);

/* It outlives the process. */
typedef void journal_written(void *context, uint64_t number);

/* Start the thread on a store (store.h), which must outlive the journal and is changed by nobody else from now on. */
int journal_open(struct journal **out, struct store *store, struct error *error);

/* Write what was handed over, and end the thread. NULL is allowed. */
void journal_close(struct journal *journal);

struct journal_payload {
    char sha256[SHA256_HEX_BYTES];
    struct blob *bytes;
};

/* A job as it is accepted; texts are copied, blobs shared. */
struct journal_job {
    uint64_t number; /* never given before: store_last_number */
    const char *id, *digest, *task;
    const char *owner, *client, *prompt; /* or NULL */
    const char *request;         /* JSON: what it can be made of again, with the payloads */
    const struct journal_payload *payloads;
    size_t payload_count;
};

struct journal_end {
    const char *state;          /* "done", "failed", "cancelled" */
    const char *code, *message; /* of a failure, or NULL */
    const char *receipt;        /* JSON, or NULL */
    struct blob *result;        /* shared; or NULL */
    const char *cache_digest;   /* the name under which the result is kept for the same request, or NULL */
};

/* `written` (or NULL) is called first, unless it cannot be written, then `done`. ERROR_BUSY with the numbers: too many
 * wait for the disk already. */
int journal_accept(struct journal *journal, const struct journal_job *job, journal_written *written, journal_done *done,
                   void *context, struct error *error);

/* A job that has ended as it is accepted, with `end`: it lasts as a whole or not at all. Its request and payloads are
 * not needed any more. Otherwise as journal_accept. */
int journal_answer(struct journal *journal, const struct journal_job *job, const struct journal_end *end,
                   journal_done *done, void *context, struct error *error);

/* It is about to be stepped: returns when that is written, since an attempt counts before anything can go wrong in it.
 * Waits while others write, but for no fsync. After its `written`, one thread's with journal_pause. *attempt: see
 * store.h. */
int journal_start(struct journal *journal, uint64_t number, struct store_attempt *attempt, struct error *error);

/* A state that it can be gone on with from; takes one reference. One that is not written yet is replaced. */
void journal_save(struct journal *journal, uint64_t number, int step, struct blob *state);

/* It is laid aside: the attempt does not count. Waits as journal_start; what cannot be written is tried again later. */
void journal_pause(struct journal *journal, uint64_t number);

/* It has ended. Where its result cannot be kept, its end is, and a line of the log says so. An end that cannot be
 * written is told to `done` (or NULL) and tried again later. */
int journal_end(struct journal *journal, uint64_t number, const struct journal_end *end, journal_done *done,
                void *context, struct error *error);

/* Nobody wants it any more. */
void journal_release(struct journal *journal, uint64_t number);

/* Whether a release of it has been handed over that may not have been written yet. */
bool journal_releases(struct journal *journal, uint64_t number);

/* A cached result was used. */
void journal_touch_cached(struct journal *journal, const char *digest);

struct journal_stats {
    uint64_t records, transactions, syncs, failures, bytes, waiting; /* `waiting` now, the others since the start */
    double write_seconds, longest_write_seconds; /* of transactions, and the fsyncs that were waited for */
    double wait_seconds, longest_wait_seconds;                /* of records, until they lasted */
};
void journal_stats(struct journal *journal, struct journal_stats *out);

#endif
