/* store.c: see store.h.
 *
 * Two connections to one database: one for changes, and one behind a mutex for whoever looks something up.
 * A content's file is written and its name fsynced before the row that names it is committed, and unlinked after the
 * commit that took the row away is fsynced: a crash in between leaves a file too many, which store_open takes away.
 *
 * SQLite itself fsyncs its log before it copies it into the database, but not with each commit (synchronous = NORMAL):
 * store_sync does, so that a batch can be used before that, and others written beside it.
 */
#include "daemon/journal/store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/journal/contents.h"
#include "daemon/journal/database.h"
#include "daemon/journal/state_folder.h"
#include "daemon/log.h"

enum {
    IN_ROW_BYTES = 256 << 10, /* contents up to here lie in rows */
    SHORT_REQUEST_BYTES = 4 << 10, /* requests up to here lie in the rows of their jobs, which are written thrice */
    MOST_WRITTEN = 80,       /* contents of one record: the tensors of a message and the rest */
    HISTORY_JOBS = 100000,   /* ended jobs that are remembered */
    LOG_PAGES = 1000,        /* of SQLite's log, which is copied into the database then */
    ODD_SECONDS = 60         /* that a clock may be behind without a word */
};

static const int64_t MOST_NUMBER = INT64_C(1) << 53; /* of a job: JSON's numbers are exact up to here */

struct store {
    struct state_folder *folder;
    struct contents *contents;
    struct journal_limits limits;
    struct database *database;                    /* for changes */
    int log_pages;
    int64_t last_use; /* of a cached result; they are numbered */
    bool has_dropped; /* files whose rows are gone are still there */
    bool is_doubtful; /* an fsync of the log has failed: it may have lost what was written before */
    double opened_at, opened_clock;               /* the time at the start, and the clock that counts on from there */
    char written[MOST_WRITTEN][SHA256_HEX_BYTES]; /* files of the record that is being written, for when it fails */
    int written_count;

    pthread_mutex_t lock; /* guards the reader */
    struct database *reader;
};

static double wall_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double now(const struct store *store)
{
    return store->opened_at + clock_seconds() - store->opened_clock;
}

/* --- Opening ------------------------------------------------------------------------- */

/* SQLite would make it with the usual mode. */
static int make_file(const struct store *store, struct error *error)
{
    const int file =
        openat(state_folder_descriptor(store->folder), "journal.db", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return error_set(error, ERROR_IO, "journal %s/journal.db: %s", state_folder_path(store->folder),
                         strerror(errno));
    close(file);
    return 0;
}

static int open_databases(struct store *store, struct error *error)
{
    char *path;
    if (asprintf(&path, "%s/journal.db", state_folder_path(store->folder)) < 0)
        return error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
    int code = make_file(store, error);
    if (code == 0)
        code = database_open(&store->database, path, false, error);
    if (code == 0)
        code = database_open(&store->reader, path, true, error);
    free(path);
    return code;
}

/* Times go on from the last one that was written, whatever the machine's clock says now. */
static int set_time(struct store *store, double (*wall_clock)(void), struct error *error)
{
    int64_t last;
    int code = database_number(
        store->database,
        "SELECT CAST(max(max(submitted), coalesce(max(started), 0), coalesce(max(ended), 0)) AS INTEGER) + 1 "
        "FROM jobs",
        0, &last, error);
    store->opened_at = wall_clock ? wall_clock() : wall_seconds();
    store->opened_clock = clock_seconds();
    const double behind = (double)last - store->opened_at;
    if (code != 0 || behind <= 0)
        return code;
    if (behind > ODD_SECONDS)
        log_warning(NULL, "journal: the machine's clock is %.0f s behind the last entry; its times go on from there",
                    behind);
    store->opened_at = (double)last;
    return 0;
}

/* Files whose rows are gone. */
static int remove_dropped(struct store *store, struct error *error)
{
    sqlite3_stmt *query = database_query(store->database, error, "SELECT hash FROM dropped", "");
    if (!query)
        return error->code;
    int status, count = 0;
    while ((status = database_next(query, error)) == 1) {
        contents_remove(store->contents, column_text(query, 0));
        count++;
    }
    database_done(query);
    if (status == 0 && count > 0)
        status = database_run(store->database, error, "DELETE FROM dropped", "");
    store->has_dropped = status != 0;
    return status;
}

static int remove_if_unknown(void *context, const char *hash, uint64_t bytes)
{
    struct store *store = context;
    struct error error;
    (void)bytes;
    sqlite3_stmt *query =
        database_query(store->database, &error, "SELECT 1 FROM contents WHERE hash = ? AND data IS NULL", "t", hash);
    if (!query)
        return 0;
    if (database_next(query, &error) == 0)
        contents_remove(store->contents, hash);
    database_done(query);
    return 0;
}

static int note_log(void *context, sqlite3 *database, const char *name, int pages)
{
    struct store *store = context;
    (void)database;
    (void)name;
    store->log_pages = pages;
    return SQLITE_OK;
}

int store_open(struct store **out, const char *path, const struct journal_limits *limits, double (*wall_clock)(void),
               struct error *error)
{
    *out = NULL;
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
    store->limits = *limits;
    pthread_mutex_init(&store->lock, NULL);
    int code = state_folder_open(&store->folder, path, error);
    if (code == 0)
        code = open_databases(store, error);
    if (code == 0)
        code = contents_open(&store->contents, state_folder_descriptor(store->folder), error);
    if (code == 0)
        code = set_time(store, wall_clock, error);
    if (code == 0)
        code = database_number(store->database, "SELECT max(used) FROM cache", 0, &store->last_use, error);
    if (code == 0)
        code = remove_dropped(store, error);
    if (code == 0)
        code = contents_each(store->contents, remove_if_unknown, store, error);
    if (code != 0) {
        store_close(store);
        return code;
    }
    /* In place of SQLite's own, which copies within a commit. */
    sqlite3_wal_hook(database_connection(store->database), note_log, store);
    *out = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    database_close(store->reader);
    database_close(store->database);
    contents_close(store->contents);
    state_folder_close(store->folder);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

/* --- Batches and records --------------------------------------------------------------- */

static bool is_in_batch(const struct store *store)
{
    return sqlite3_get_autocommit(database_connection(store->database)) == 0;
}

int store_begin_batch(struct store *store, struct error *error)
{
    return database_run(store->database, error, "BEGIN IMMEDIATE", "");
}

/* Looked up within the batch, where that takes no lock of its own. */
static int note_dropped(struct store *store, struct error *error)
{
    int64_t count;
    int code = database_number(store->database, "SELECT EXISTS (SELECT 1 FROM dropped)", 0, &count, error);
    store->has_dropped = store->has_dropped || count != 0;
    return code;
}

int store_end_batch(struct store *store, struct error *error)
{
    struct error unused;
    int code = contents_sync(store->contents, error);
    if (code == 0)
        code = note_dropped(store, error);
    if (code == 0)
        code = database_run(store->database, error, "COMMIT", "");
    if (code != 0 && is_in_batch(store))
        database_script(store->database, "ROLLBACK", &unused);
    if (code != 0) /* what was written takes room that may be what was missing */
        contents_each(store->contents, remove_if_unknown, store, &unused);
    return code;
}

int store_sync(struct store *store, struct error *error)
{
    if (store->is_doubtful)
        return error_set(error, ERROR_IO, "journal: an fsync of its log has failed");
    const int code = database_sync(store->database, error);
    store->is_doubtful = code != 0;
    return code;
}

int store_rescue(struct store *store, struct error *error)
{
    struct error why;
    store->is_doubtful = database_copy_log(store->database, true, &why) != 0;
    if (!store->is_doubtful)
        return 0;
    error_prefix(&why, "%s; nor can the log be copied", error->text);
    *error = why;
    return error->code = ERROR_IO; /* whatever SQLite calls it */
}

void store_tidy(struct store *store)
{
    struct error error;
    /* What fails here the next one, or the next start, does. */
    int code = store->has_dropped ? remove_dropped(store, &error) : 0;
    if (code == 0 && store->log_pages >= LOG_PAGES)
        code = database_copy_log(store->database, false, &error);
    if (code != 0)
        log_warning(NULL, "%s", error.text);
}

/* A record is all there or not at all: a savepoint around what makes it. Where SQLite has rolled back the batch, as it
 * may when the disk is full, the others of it are not written either: all of the batch is told to have failed. */
static int begin_record(struct store *store, struct error *error)
{
    store->written_count = 0;
    if (!is_in_batch(store))
        return error_set(error, ERROR_IO, "journal: the database has undone what was being written with this");
    return database_run(store->database, error, "SAVEPOINT record", "");
}

static int end_record(struct store *store, int code, struct error *error)
{
    struct error unused;
    if (code == 0)
        return database_run(store->database, error, "RELEASE record", "");
    for (int i = 0; i < store->written_count; i++)
        contents_remove(store->contents, store->written[i]);
    if (is_in_batch(store)) /* else SQLite has rolled back all there was */
        database_script(store->database, "ROLLBACK TO record; RELEASE record", &unused);
    return code;
}

static int is_known(struct store *store, const char *hash, bool *known, struct error *error)
{
    sqlite3_stmt *query = database_query(store->database, error, "SELECT 1 FROM contents WHERE hash = ?", "t", hash);
    if (!query)
        return error->code;
    int status = database_next(query, error);
    database_done(query);
    *known = status == 1;
    return status < 0 ? status : 0;
}

static int write_content(struct store *store, const char *hash, const void *data, uint64_t bytes, struct error *error)
{
    if (bytes <= IN_ROW_BYTES)
        return database_run(store->database, error, "INSERT INTO contents (hash, bytes, data) VALUES (?, ?, ?)", "tib",
                            hash, (int64_t)bytes, bytes > 0 ? data : "", bytes);
    if (store->written_count == MOST_WRITTEN)
        return error_set(error, ERROR_TOO_LARGE, "journal: a job has more than %d payloads", MOST_WRITTEN);
    int code = contents_write(store->contents, hash, data, bytes, error);
    if (code != 0)
        return code;
    memcpy(store->written[store->written_count++], hash, SHA256_HEX_BYTES);
    code = database_run(store->database, error, "DELETE FROM dropped WHERE hash = ?", "t", hash);
    return code != 0 ? code
                     : database_run(store->database, error, "INSERT INTO contents (hash, bytes) VALUES (?, ?)", "ti",
                                    hash, (int64_t)bytes);
}

/* Have a job hold a content, which is written if it is not there. `hash` NULL: it is not known yet; `out` gets it. */
static int hold(struct store *store, uint64_t number, const char *kind, const char *hash, const void *data,
                uint64_t bytes, char out[SHA256_HEX_BYTES], struct error *error)
{
    char found[SHA256_HEX_BYTES];
    bool known = false;
    if (!hash)
        sha256_of(data, bytes, found);
    else
        snprintf(found, sizeof found, "%s", hash);
    if (out)
        memcpy(out, found, sizeof found);
    int code = is_known(store, found, &known, error);
    if (code == 0 && !known)
        code = write_content(store, found, data, bytes, error);
    return code != 0 ? code
                     : database_run(store->database, error, "INSERT OR IGNORE INTO holds VALUES (?, ?, ?)", "itt",
                                    (int64_t)number, kind, found);
}

static int let_go(struct store *store, uint64_t number, const char *kinds, struct error *error)
{
    char sql[120];
    snprintf(sql, sizeof sql, "DELETE FROM holds WHERE job = ? AND kind IN (%s)", kinds);
    return database_run(store->database, error, sql, "i", (int64_t)number);
}

/* --- Changes ------------------------------------------------------------------------- */

/* `request`: where it is short; NULL otherwise. */
static int add_job(struct store *store, const struct store_job *job, const char *request, struct error *error)
{
    return database_run(store->database, error,
                        "INSERT INTO jobs (number, id, digest, task, owner, client, prompt, state, submitted, request) "
                        "VALUES (?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
                        "ittttttrt", (int64_t)job->number, job->id, job->digest, job->task, job->owner, job->client,
                        job->prompt, now(store), request);
}

static int accept(struct store *store, const struct store_job *job, struct error *error)
{
    const uint64_t request_bytes = strlen(job->request);
    const bool is_short = request_bytes <= SHORT_REQUEST_BYTES;
    uint64_t bytes = request_bytes;
    for (size_t i = 0; i < job->payload_count; i++)
        bytes += job->payloads[i].bytes;
    int code = state_folder_check(store->folder, bytes, error);
    if (code == 0)
        code = add_job(store, job, is_short ? job->request : NULL, error);
    if (code == 0 && !is_short)
        code = hold(store, job->number, "request", NULL, job->request, request_bytes, NULL, error);
    for (size_t i = 0; code == 0 && i < job->payload_count; i++)
        code = hold(store, job->number, "payload", job->payloads[i].sha256, job->payloads[i].data,
                    job->payloads[i].bytes, NULL, error);
    return code;
}

int store_accept(struct store *store, const struct store_job *job, struct error *error)
{
    int code = begin_record(store, error);
    return code != 0 ? code : end_record(store, accept(store, job, error), error);
}

static int add_milestone(struct store *store, uint64_t number, const char *what, int step, struct error *error)
{
    return database_run(store->database, error, "INSERT INTO milestones VALUES (?, ?, ?, ?)", "irti", (int64_t)number,
                        now(store), what, (int64_t)step);
}

/* As it is written by now, in this batch too. */
static int read_attempt(struct store *store, uint64_t number, struct store_attempt *attempt, struct error *error)
{
    sqlite3_stmt *query = database_query(
        store->database, error, "SELECT attempts, saved_step IS NOT NULL FROM jobs WHERE number = ?", "i",
        (int64_t)number);
    int status = query ? database_next(query, error) : error->code;
    if (status == 1)
        *attempt = (struct store_attempt){sqlite3_column_int(query, 0), sqlite3_column_int(query, 1) != 0};
    else if (status == 0)
        status = error_set(error, ERROR_NOT_FOUND, "journal: job number %llu is not known", (unsigned long long)number);
    database_done(query);
    return status < 0 ? status : 0;
}

static int start(struct store *store, uint64_t number, struct store_attempt *attempt, struct error *error)
{
    int code = database_run(
        store->database, error,
        "UPDATE jobs SET state = 'running', attempts = attempts + 1, started = coalesce(started, ?) WHERE number = ?",
        "ri", now(store), (int64_t)number);
    if (code == 0)
        code = read_attempt(store, number, attempt, error);
    return code != 0 ? code : add_milestone(store, number, "started", 0, error);
}

int store_start(struct store *store, uint64_t number, struct store_attempt *attempt, struct error *error)
{
    int code = begin_record(store, error);
    return code != 0 ? code : end_record(store, start(store, number, attempt, error), error);
}

int store_pause(struct store *store, uint64_t number, struct error *error)
{
    int code = begin_record(store, error);
    if (code != 0)
        return code;
    code =
        database_run(store->database, error,
                     "UPDATE jobs SET state = 'queued', attempts = attempts - 1 WHERE number = ? AND state = 'running'",
                     "i", (int64_t)number);
    if (code == 0 && sqlite3_changes(database_connection(store->database)) > 0) /* else it has ended meanwhile */
        code = add_milestone(store, number, "paused", 0, error);
    return end_record(store, code, error);
}

static int save(struct store *store, uint64_t number, int step, const void *state, uint64_t bytes, struct error *error)
{
    int code = state_folder_check(store->folder, bytes, error);
    if (code == 0)
        code = let_go(store, number, "'state'", error);
    if (code == 0)
        code = hold(store, number, "state", NULL, state, bytes, NULL, error);
    if (code == 0)
        code = database_run(store->database, error, "UPDATE jobs SET saved_step = ? WHERE number = ?", "ii",
                            (int64_t)step, (int64_t)number);
    if (code == 0)
        code = database_run(store->database, error, "DELETE FROM milestones WHERE job = ? AND what = 'saved'", "i",
                            (int64_t)number);
    return code != 0 ? code : add_milestone(store, number, "saved", step, error);
}

int store_save(struct store *store, uint64_t number, int step, const void *state, uint64_t bytes, struct error *error)
{
    int code = begin_record(store, error);
    return code != 0 ? code : end_record(store, save(store, number, step, state, bytes, error), error);
}

static int put_into_cache(struct store *store, const char *digest, const char *content, struct error *error)
{
    int code = database_run(store->database, error, "DELETE FROM cache WHERE digest = ?", "t", digest);
    return code != 0 ? code
                     : database_run(store->database, error, "INSERT INTO cache VALUES (?, ?, ?)", "tti", digest,
                                    content, ++store->last_use);
}

static int end(struct store *store, uint64_t number, const struct store_end *end, struct error *error)
{
    char hash[SHA256_HEX_BYTES];
    int status =
        database_run(store->database, error,
                     "UPDATE jobs SET state = ?, ended = ?, code = ?, message = ?, receipt = ?, saved_step = NULL, "
                     "request = NULL WHERE number = ?",
                     "trttti", end->state, now(store), end->code, end->message, end->receipt, (int64_t)number);
    if (status == 0 && end->result)
        status = hold(store, number, "result", NULL, end->result, end->result_bytes, hash, error);
    if (status == 0 && end->result && end->cache_digest &&
        store->limits.cache_bytes >= end->result_bytes)
        status = put_into_cache(store, end->cache_digest, hash, error);
    if (status == 0)
        status = let_go(store, number, "'request', 'payload', 'state'", error);
    return status != 0
               ? status
               : database_run(
                     store->database, error, /* nobody waits for the result of one that was released */
                     "DELETE FROM holds WHERE job = (SELECT number FROM jobs WHERE number = ? AND released = 1)", "i",
                     (int64_t)number);
}

int store_end(struct store *store, uint64_t number, const struct store_end *what, struct error *error)
{
    int code = begin_record(store, error);
    return code != 0 ? code : end_record(store, end(store, number, what, error), error);
}

int store_answer(struct store *store, const struct store_job *job, const struct store_end *what, struct error *error)
{
    int code = begin_record(store, error);
    if (code != 0)
        return code;
    code = state_folder_check(store->folder, what->result_bytes, error);
    if (code == 0)
        code = add_job(store, job, NULL, error);
    return end_record(store, code != 0 ? code : end(store, job->number, what, error), error);
}

static int release(struct store *store, uint64_t number, struct error *error)
{
    int code = database_run(store->database, error,
                            "UPDATE jobs SET released = 1, request = NULL, ended = coalesce(ended, ?), "
                            "state = CASE WHEN ended IS NULL THEN 'cancelled' ELSE state END WHERE number = ?",
                            "ri", now(store), (int64_t)number);
    return code != 0 ? code : let_go(store, number, "'request', 'payload', 'state', 'result'", error);
}

int store_release(struct store *store, uint64_t number, struct error *error)
{
    int code = begin_record(store, error);
    return code != 0 ? code : end_record(store, release(store, number, error), error);
}

int store_touch_cached(struct store *store, const char *digest, struct error *error)
{
    return database_run(store->database, error, "UPDATE cache SET used = ? WHERE digest = ?", "it", ++store->last_use,
                        digest);
}

/* The job whose result has waited for longest, when results are over their bytes; or one whose time is over. 0: none.
 */
static int next_to_expire(struct store *store, int64_t *number, struct error *error)
{
    sqlite3_stmt *query = database_query(
        store->database, error,
        "SELECT number FROM jobs WHERE number > 0 AND released = 0 AND ended IS NOT NULL AND (ended < ? OR (number IN "
        "  (SELECT job FROM holds WHERE kind = 'result') AND ? < (SELECT sum(bytes) FROM contents WHERE hash IN "
        "  (SELECT content FROM holds WHERE kind = 'result')))) ORDER BY ended LIMIT 1",
        "ri", now(store) - store->limits.result_seconds, (int64_t)store->limits.result_bytes);
    if (!query)
        return error->code;
    int status = database_next(query, error);
    *number = status == 1 ? sqlite3_column_int64(query, 0) : 0;
    database_done(query);
    return status < 0 ? status : 0;
}

/* Those that were used last stay, as long as their contents, each counted where it was used last, are within the bytes.
 */
static int trim_cache(struct store *store, struct error *error)
{
    return database_run(
        store->database, error,
        "DELETE FROM cache WHERE digest IN (SELECT digest FROM "
        "  (SELECT digest, sum(counted) OVER (ORDER BY used DESC, digest ROWS UNBOUNDED PRECEDING) AS total FROM "
        "    (SELECT digest, used, CASE WHEN row_number() OVER (PARTITION BY content ORDER BY used DESC, digest) = 1 "
        "      THEN (SELECT bytes FROM contents WHERE hash = content) ELSE 0 END AS counted FROM cache)) "
        "  WHERE total > ?)",
        "i", (int64_t)store->limits.cache_bytes);
}

int store_sweep(struct store *store, struct error *error)
{
    int64_t number = 0, before = 0;
    int code;
    while ((code = next_to_expire(store, &number, error)) == 0 && number != 0) {
        if (number == before) /* a damaged table can be read in order, and not searched */
            return error_set(error, ERROR_BAD_FILE,
                             "journal: job number %lld stays when it is forgotten: journal.db is damaged; see lanced "
                             "--state DIR --check",
                             (long long)number);
        before = number;
        log_info(NULL,
                 "journal: job number %lld has waited for its client for too long, or its result is in the way of "
                 "newer ones: "
                 "forgotten",
                 (long long)number);
        code = release(store, (uint64_t)number, error);
        if (code != 0)
            return code;
    }
    if (code == 0)
        code = trim_cache(store, error);
    if (code == 0)
        code = database_run(store->database, error,
                            "DELETE FROM jobs WHERE released = 1 AND ended IS NOT NULL AND number <= "
                            "(SELECT number FROM jobs ORDER BY number DESC LIMIT 1 OFFSET ?)",
                            "i", (int64_t)HISTORY_JOBS);
    return code;
}

/* --- Looking up ---------------------------------------------------------------------- */

/* Where a damaged database has a number below 1, that is no job: numbers begin with 1. */
static const char found_columns[] = "SELECT number, lives, attempts, saved_step, submitted, ended, id, digest, task, "
                                    "state, client, prompt, code, message,"
                                    " (SELECT content FROM holds WHERE job = number AND kind = 'result'),"
                                    " (SELECT bytes FROM contents WHERE hash = (SELECT content FROM holds WHERE job = "
                                    "number AND kind = 'result')), owner FROM jobs ";

static char *copy(sqlite3_stmt *query, int column, bool *complete)
{
    char *copied = column_copy(query, column);
    *complete &= copied || sqlite3_column_type(query, column) == SQLITE_NULL;
    return copied;
}

/* What every job has: empty where a damaged database has null all the same. */
static char *copy_or_empty(sqlite3_stmt *query, int column, bool *complete)
{
    char *copied = copy(query, column, complete);
    if (!copied && *complete)
        *complete = (copied = strdup("")) != NULL;
    return copied;
}

static int read_found(sqlite3_stmt *query, struct store_found *found, struct error *error)
{
    bool complete = true;
    *found = (struct store_found){
        .number = (uint64_t)sqlite3_column_int64(query, 0),
        .lives = (uint64_t)sqlite3_column_int64(query, 1),
        .attempts = (uint64_t)sqlite3_column_int64(query, 2),
        .saved_step = sqlite3_column_type(query, 3) == SQLITE_NULL ? -1 : sqlite3_column_int(query, 3),
        .submitted = sqlite3_column_double(query, 4),
        .ended = sqlite3_column_double(query, 5),
        .id = copy_or_empty(query, 6, &complete),
        .digest = copy_or_empty(query, 7, &complete),
        .task = copy_or_empty(query, 8, &complete),
        .state = copy_or_empty(query, 9, &complete),
        .owner = copy(query, 16, &complete),
        .client = copy(query, 10, &complete),
        .prompt = copy(query, 11, &complete),
        .code = copy(query, 12, &complete),
        .message = copy(query, 13, &complete),
        .result_bytes = (uint64_t)sqlite3_column_int64(query, 15),
    };
    if (column_text(query, 14))
        snprintf(found->result, sizeof found->result, "%s", column_text(query, 14));
    if (complete)
        return 0;
    store_found_clear(found);
    return error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
}

void store_found_clear(struct store_found *found)
{
    char *const texts[] = {found->id,     found->digest, found->task, found->state,  found->owner,
                           found->client, found->prompt, found->code, found->message};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    *found = (struct store_found){.saved_step = -1};
}

int store_find(struct store *store, const char *id, struct store_found *found, struct error *error)
{
    char sql[sizeof found_columns + 60];
    *found = (struct store_found){.saved_step = -1};
    snprintf(sql, sizeof sql, "%s WHERE id = ? AND number > 0 AND released = 0", found_columns);
    pthread_mutex_lock(&store->lock);
    sqlite3_stmt *query = database_query(store->reader, error, sql, "t", id);
    int status = query ? database_next(query, error) : error->code;
    if (status == 0)
        status = error_set(error, ERROR_NOT_FOUND, "job %.64s: is not in the journal", id);
    else if (status == 1)
        status = read_found(query, found, error);
    database_done(query);
    pthread_mutex_unlock(&store->lock);
    return status;
}

int store_unfinished(struct store *store, int (*each)(void *context, const struct store_found *found), void *context,
                     struct error *error)
{
    char sql[sizeof found_columns + 80];
    snprintf(sql, sizeof sql, "%s WHERE number > 0 AND ended IS NULL AND released = 0 ORDER BY number",
             found_columns);
    int status = database_script(store->database,
                                 "UPDATE jobs SET lives = lives + 1 WHERE ended IS NULL", error);
    sqlite3_stmt *query = status == 0 ? database_query(store->database, error, sql, "") : NULL;
    if (!query)
        return error->code;
    while ((status = database_next(query, error)) == 1) {
        struct store_found found;
        status = read_found(query, &found, error);
        if (status == 0)
            status = each(context, &found);
        store_found_clear(&found);
        if (status != 0)
            break;
    }
    database_done(query);
    return status;
}

int store_last_number(struct store *store, uint64_t *number, struct error *error)
{
    int64_t last = 0;
    int code =
        database_number(store->database, "SELECT seq FROM sqlite_sequence WHERE name = 'jobs'", 0, &last, error);
    *number = (uint64_t)last;
    if (code == 0 && (last < 0 || last > MOST_NUMBER))
        return error_set(error, ERROR_BAD_FILE,
                         "journal: is damaged: its last job has the number %lld; numbers go from 1 to %lld",
                         (long long)last, (long long)MOST_NUMBER);
    return code;
}

/* The content of the row that a query gives: hash, bytes, data. *data stays NULL where it lies in a file. */
static int read_row(sqlite3_stmt *query, const char *what, char hash[SHA256_HEX_BYTES], void **data, uint64_t *bytes,
                    struct error *error)
{
    int status = query ? database_next(query, error) : error->code;
    *data = NULL;
    if (status == 0)
        return error_set(error, ERROR_NOT_FOUND, "journal: %s is not kept", what);
    if (status < 0)
        return status;
    snprintf(hash, SHA256_HEX_BYTES, "%s", column_text_or_empty(query, 0));
    *bytes = (uint64_t)sqlite3_column_int64(query, 1);
    if (sqlite3_column_type(query, 2) == SQLITE_NULL)
        return 0;
    if (*bytes != (uint64_t)sqlite3_column_bytes(query, 2))
        return error_set(error, ERROR_BAD_FILE, "journal: content %.12s has another size than its row says", hash);
    *data = calloc(1, *bytes + 1); /* a zero behind a text */
    if (!*data)
        return error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
    if (*bytes > 0)
        memcpy(*data, sqlite3_column_blob(query, 2), *bytes);
    return 0;
}

static int read_by(struct store *store, const char *sql, const char *kinds, const char *name, const char *what,
                   uint64_t number, void **data, uint64_t *bytes, struct error *error)
{
    pthread_mutex_lock(&store->lock);
    sqlite3_stmt *query = database_query(store->reader, error, sql, kinds, name, (int64_t)number);
    char hash[SHA256_HEX_BYTES];
    int code = read_row(query, what, hash, data, bytes, error);
    database_done(query);
    pthread_mutex_unlock(&store->lock);
    return code == 0 && !*data ? contents_read(store->contents, hash, *bytes, data, error) : code;
}

int store_read(struct store *store, uint64_t number, const char *kind, void **data, uint64_t *bytes,
               struct error *error)
{
    int code = read_by(
        store,
        "SELECT '', length(CAST(request AS BLOB)), CAST(request AS BLOB) FROM jobs"
        " WHERE ?1 = 'request' AND number = ?2 AND request IS NOT NULL UNION ALL "
        "SELECT hash, bytes, data FROM contents WHERE hash = (SELECT content FROM holds WHERE kind = ?1 AND job = ?2)",
        "ti", kind, kind, number, data, bytes, error);
    if (code != 0 || strcmp(kind, "request") != 0)
        return code;
    char *text = realloc(*data, *bytes + 1);
    if (!text) {
        free(*data);
        *data = NULL;
        return error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
    }
    text[*bytes] = '\0';
    *data = text;
    return 0;
}

int store_read_content(struct store *store, const char *sha256, void **data, uint64_t *bytes, struct error *error)
{
    return read_by(store, "SELECT hash, bytes, data FROM contents WHERE hash = ?", "t", sha256, sha256, 0, data, bytes,
                   error);
}

int store_cached(struct store *store, const char *digest, void **data, uint64_t *bytes, struct error *error)
{
    return read_by(store,
                   "SELECT hash, bytes, data FROM contents WHERE hash = (SELECT content FROM cache WHERE digest = ?)",
                   "t", digest, "the result", 0, data, bytes, error);
}

struct database *store_borrow_reader(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    return store->reader;
}

void store_return_reader(struct store *store)
{
    pthread_mutex_unlock(&store->lock);
}

int store_sizes(struct store *store, struct store_sizes *sizes, struct error *error)
{
    const struct {
        const char *sql;
        uint64_t *out;
    } numbers[] = {
        {"SELECT count(*) FROM jobs", &sizes->jobs},
        {"SELECT count(*) FROM jobs WHERE ended IS NULL AND released = 0", &sizes->unfinished},
        {"SELECT count(*) FROM contents", &sizes->contents},
        {"SELECT sum(bytes) FROM contents", &sizes->content_bytes},
        {"SELECT count(*) FROM holds WHERE kind = 'result'", &sizes->results},
        {"SELECT sum(bytes) FROM contents WHERE hash IN (SELECT content FROM holds WHERE kind = 'result')",
         &sizes->result_bytes},
        {"SELECT count(*) FROM cache", &sizes->cached},
        {"SELECT sum(bytes) FROM contents WHERE hash IN (SELECT content FROM cache)", &sizes->cached_bytes},
    };
    int code = 0;
    *sizes = (struct store_sizes){0};
    pthread_mutex_lock(&store->lock);
    for (size_t i = 0; code == 0 && i < sizeof numbers / sizeof numbers[0]; i++) {
        int64_t number = 0;
        code = database_number(store->reader, numbers[i].sql, 0, &number, error);
        *numbers[i].out = (uint64_t)number;
    }
    pthread_mutex_unlock(&store->lock);
    return code;
}
