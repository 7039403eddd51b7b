/* store.h: what is kept of jobs in a state folder: rows of a database, and contents beside it.
 *
 * It knows jobs by their number, which the job table gives and never gives again, and nothing of what a request, a
 * state or a result means. Small contents lie in rows, so that a small job costs one fsync.
 *
 * Functions that change something are called by one thread at a time (journal.c has a lock for that), between
 * store_begin_batch and store_end_batch. When that has returned 0 they outlive the process, whatever becomes of it, and
 * when store_sync has, the machine. Those that look something up are for any thread; they see what outlives the
 * process.
 *
 * Times are seconds since 1970 that never run backwards and do not jump while the store is open.
 */
#ifndef LANCE_STORE_H
#define LANCE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sha256.h"
#include "daemon/journal/limits.h"

struct store;
struct database;

/* Open the state folder and what is in it. `wall_clock` is for tests; NULL: the machine's. Errors: those of
 * state_folder_open and database_open. */
int store_open(struct store **out, const char *path, const struct journal_limits *limits, double (*wall_clock)(void),
               struct error *error);
void store_close(struct store *store); /* NULL is allowed */

/* --- Changes ------------------------------------------------------------------------- */

int store_begin_batch(struct store *store, struct error *error);

/* All since store_begin_batch outlives the process, or nothing of it (then with the reason). */
int store_end_batch(struct store *store, struct error *error);

/* All batches that were ended before this was called outlive the machine, or may not (then with the reason). One thread
 * at a time, beside which another may be at a batch: this is what takes long. */
int store_sync(struct store *store, struct error *error);

/* After store_sync has failed with *error: have it last all the same, by a copy of all of the log. A change, outside a
 * batch. ERROR_IO, with both reasons; store_sync fails until this has been done. */
int store_rescue(struct store *store, struct error *error);

/* What can be done behind everything else: files of contents that are gone are unlinked, and what was written goes into
 * its place. A change, after store_sync and outside a batch. */
void store_tidy(struct store *store);

struct store_payload {
    const char *sha256; /* of its bytes */
    const void *data;
    uint64_t bytes;
};

/* A job as it is accepted. Everything is borrowed. */
struct store_job {
    uint64_t number;
    const char *id, *digest, *task;
    const char *owner, *client, *prompt; /* or NULL */
    const char *request;         /* JSON: what it is to be made of again, beside the payloads */
    const struct store_payload *payloads;
    size_t payload_count;
};

struct store_end {
    const char *state;          /* "done", "failed", "cancelled" */
    const char *code, *message; /* of a failure, or NULL */
    const char *receipt;        /* JSON, or NULL */
    const void *result;         /* or NULL: none, or it is not to be kept */
    uint64_t result_bytes;
    const char *cache_digest; /* the name under which the result also goes into the cache, or NULL */
};

/* Each of these does all of what it says, or nothing and says why: ERROR_IO with the numbers where the disk is full,
 * read-only or gone. */
int store_accept(struct store *store, const struct store_job *job, struct error *error);

/* A job that has ended as it is accepted; of its request and payloads nothing is kept. */
int store_answer(struct store *store, const struct store_job *job, const struct store_end *end, struct error *error);

struct store_attempt {
    int number;     /* 1 the first time */
    bool has_state; /* that it can be gone on with from */
};

/* It is about to be stepped: one attempt more, counted before anything of it can go wrong. ERROR_NOT_FOUND. */
int store_start(struct store *store, uint64_t number, struct store_attempt *attempt, struct error *error);

/* It is laid aside between two steps, by a daemon that ends in order: the attempt does not count. */
int store_pause(struct store *store, uint64_t number, struct error *error);

/* The state it can be gone on with from, in place of an older one. */
int store_save(struct store *store, uint64_t number, int step, const void *state, uint64_t bytes, struct error *error);

/* It has ended: what it needed goes, its result stays within the limits. */
int store_end(struct store *store, uint64_t number, const struct store_end *end, struct error *error);

/* Nobody wants it any more: what belongs to it alone goes, a line of history stays. */
int store_release(struct store *store, uint64_t number, struct error *error);

/* Let go of results that are too old or too many, of cached ones that are too many, and of old history. */
int store_sweep(struct store *store, struct error *error);

/* --- Looking up ---------------------------------------------------------------------- */

struct store_found {
    uint64_t number, lives, attempts;
    int saved_step; /* -1: no state is saved */
    double submitted, ended;
    uint64_t result_bytes; /* 0: no result is kept */
    char result[SHA256_HEX_BYTES];
    char *id, *digest, *task, *state; /* all texts are UTF-8, and nothing more is sure of a damaged database's */
    char *owner, *client, *prompt, *code, *message; /* or NULL */
};
void store_found_clear(struct store_found *found);

/* The job of that id that is not released. ERROR_NOT_FOUND, ERROR_IO, ERROR_NO_MEMORY. */
int store_find(struct store *store, const char *id, struct store_found *found, struct error *error);

/* Call each(context, found) for every job that was accepted and has not ended, oldest first; stop when that is not 0.
 * The numbers of lives are counted up by one each before: to be called once, before anything else changes. */
int store_unfinished(struct store *store, int (*each)(void *context, const struct store_found *found), void *context,
                     struct error *error);

/* The highest number that was ever given to a job. ERROR_BAD_FILE: it is none that a job can have. */
int store_last_number(struct store *store, uint64_t *number, struct error *error);

/* What a job holds, malloc'ed: "request" (with a zero behind it), "state", "result". ERROR_NOT_FOUND: nothing of that
 * kind. ERROR_BAD_FILE, ERROR_IO, ERROR_NO_MEMORY. */
int store_read(struct store *store, uint64_t number, const char *kind, void **data, uint64_t *bytes,
               struct error *error);

/* A payload of a job by its hash, malloc'ed. Likewise. */
int store_read_content(struct store *store, const char *sha256, void **data, uint64_t *bytes, struct error *error);

/* A cached result, malloc'ed, and the job it was made by is no matter. ERROR_NOT_FOUND. */
int store_cached(struct store *store, const char *digest, void **data, uint64_t *bytes, struct error *error);

/* It was used just now: the last one to go. A change. */
int store_touch_cached(struct store *store, const char *digest, struct error *error);

/* The connection for looking things up, locked until it is given back: for history.c. */
struct database *store_borrow_reader(struct store *store);
void store_return_reader(struct store *store);

/* What is kept, for stats and --check. */
struct store_sizes {
    uint64_t jobs, unfinished, contents, content_bytes, results, result_bytes, cached, cached_bytes;
};
int store_sizes(struct store *store, struct store_sizes *sizes, struct error *error);

#endif
