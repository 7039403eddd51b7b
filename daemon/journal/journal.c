/* journal.c: see journal.h.
 *
 * One thread takes all records that wait, writes them in one transaction of the store, has that synced, and calls who
 * waits for them. A record that fails alone does not take the others with it; where the transaction fails all have
 * failed. Ends and releases must not be lost to a disk that is full for a while: they are kept, without results, and
 * tried again. Where the sync fails nobody knows what lasts: a job that was to be accepted is taken back.
 *
 * Who starts or pauses a job writes that itself, while the thread waits for the disk: the device does not.
 */
#include "daemon/journal/journal.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "daemon/journal/store.h"
#include "daemon/log.h"

enum { SWEEP_SECONDS = 10, MOST_KEPT = 4096 };

enum kind { KIND_ACCEPT, KIND_ANSWER, KIND_START, KIND_SAVE, KIND_PAUSE, KIND_END, KIND_RELEASE, KIND_TOUCH };

enum text {
    TEXT_ID,
    TEXT_DIGEST,
    TEXT_TASK,
    TEXT_OWNER,
    TEXT_CLIENT,
    TEXT_PROMPT,
    TEXT_REQUEST,
    TEXT_STATE,
    TEXT_CODE,
    TEXT_MESSAGE,
    TEXT_RECEIPT,
    TEXT_COUNT
};

struct record {
    enum kind kind;
    uint64_t number;
    int step;
    char *text[TEXT_COUNT]; /* its own copies */
    struct journal_payload *payloads;
    size_t payload_count;
    struct blob *bytes; /* a state or a result */
    struct store_attempt *attempt; /* where a start tells of it, or NULL */
    journal_written *written;
    journal_done *done;
    void *context;
    double handed_over_at;
    struct error failure;
    struct record *next;
};

struct list {
    struct record *first, **end;
};

struct journal {
    struct store *store;
    pthread_t thread;
    bool has_thread;
    struct list kept; /* the thread's: ends and releases to be tried again */
    int kept_count;
    double swept_at;
    pthread_mutex_t pen; /* held by who changes the store; `lock` may be taken under it */

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    struct list waiting;
    double write_at;              /* when what waits is to be written */
    const struct record *written; /* the first of those that are being written */
    double sync_at;               /* when what was written and nobody waits for is to be synced; 0: all is */
    bool stopping;
    struct journal_stats stats;
};

/* --- Records --------------------------------------------------------------------------- */

static void list_clear(struct list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

static void list_add(struct list *list, struct record *record)
{
    record->next = NULL;
    *list->end = record;
    list->end = &record->next;
}

static struct record *list_take(struct list *list)
{
    struct record *record = list->first;
    if (!record)
        return NULL;
    list->first = record->next;
    if (!list->first)
        list->end = &list->first;
    return record;
}

static void record_free(struct record *record)
{
    for (int i = 0; i < TEXT_COUNT; i++)
        free(record->text[i]);
    for (size_t i = 0; i < record->payload_count; i++)
        blob_close(record->payloads[i].bytes);
    free(record->payloads);
    blob_close(record->bytes);
    free(record);
}

/* NULL: out of memory. */
static struct record *record_make(enum kind kind, uint64_t number, journal_done *done, void *context)
{
    struct record *record = calloc(1, sizeof *record);
    if (!record)
        return NULL;
    record->kind = kind;
    record->number = number;
    record->done = done;
    record->context = context;
    record->handed_over_at = clock_seconds();
    return record;
}

static bool set_text(struct record *record, enum text which, const char *text)
{
    record->text[which] = text ? strdup(text) : NULL;
    return !text || record->text[which];
}

static uint64_t record_bytes(const struct record *record)
{
    uint64_t bytes = record->bytes ? record->bytes->bytes : 0;
    for (size_t i = 0; i < record->payload_count; i++)
        bytes += record->payloads[i].bytes->bytes;
    return bytes + (record->text[TEXT_REQUEST] ? strlen(record->text[TEXT_REQUEST]) : 0);
}

static int out_of_memory(struct error *error)
{
    return error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
}

/* --- Writing --------------------------------------------------------------------------- */

/* Without a request and payloads, which a job that is answered at once needs no more. */
static struct store_job job_of(const struct record *record)
{
    return (struct store_job){
        .number = record->number,
        .id = record->text[TEXT_ID],
        .digest = record->text[TEXT_DIGEST],
        .task = record->text[TEXT_TASK],
        .owner = record->text[TEXT_OWNER],
        .client = record->text[TEXT_CLIENT],
        .prompt = record->text[TEXT_PROMPT],
    };
}

static int write_accept(struct journal *journal, const struct record *record, struct error *error)
{
    struct store_payload *payloads = calloc(record->payload_count + 1, sizeof *payloads);
    if (!payloads)
        return out_of_memory(error);
    for (size_t i = 0; i < record->payload_count; i++)
        payloads[i] = (struct store_payload){record->payloads[i].sha256, record->payloads[i].bytes->data,
                                             record->payloads[i].bytes->bytes};
    struct store_job job = job_of(record);
    job.request = record->text[TEXT_REQUEST];
    job.payloads = payloads;
    job.payload_count = record->payload_count;
    int code = store_accept(journal->store, &job, error);
    free(payloads);
    return code;
}

static struct store_end end_of(const struct record *record)
{
    return (struct store_end){
        .state = record->text[TEXT_STATE],
        .code = record->text[TEXT_CODE],
        .message = record->text[TEXT_MESSAGE],
        .receipt = record->text[TEXT_RECEIPT],
        .cache_digest = record->kind == KIND_END ? record->text[TEXT_DIGEST] : NULL,
        .result = record->bytes ? record->bytes->data : NULL,
        .result_bytes = record->bytes ? record->bytes->bytes : 0,
    };
}

static int write_answer(struct journal *journal, const struct record *record, struct error *error)
{
    const struct store_job job = job_of(record);
    const struct store_end end = end_of(record);
    return store_answer(journal->store, &job, &end, error);
}

static int write_end(struct journal *journal, struct record *record, struct error *error)
{
    struct store_end end = end_of(record);
    int code = store_end(journal->store, record->number, &end, error);
    if (code == 0 || !end.result)
        return code;
    log_warning(NULL, "journal: the result of job number %llu cannot be kept for a restart: %s",
                (unsigned long long)record->number, error->text);
    end.result = NULL;
    return store_end(journal->store, record->number, &end, error);
}

/* Whether somebody waits until it lasts. */
static bool is_urgent(const struct record *record)
{
    return record->kind == KIND_ACCEPT || record->kind == KIND_ANSWER || record->kind == KIND_END;
}

static int write_record(struct journal *journal, struct record *record)
{
    struct error *error = &record->failure;
    switch (record->kind) {
    case KIND_ACCEPT: return write_accept(journal, record, error);
    case KIND_ANSWER: return write_answer(journal, record, error);
    case KIND_START: return store_start(journal->store, record->number, record->attempt, error);
    case KIND_SAVE:
        return store_save(journal->store, record->number, record->step, record->bytes->data, record->bytes->bytes,
                          error);
    case KIND_PAUSE: return store_pause(journal->store, record->number, error);
    case KIND_END: return write_end(journal, record, error);
    case KIND_RELEASE: return store_release(journal->store, record->number, error);
    case KIND_TOUCH: return store_touch_cached(journal->store, record->text[TEXT_DIGEST], error);
    }
    return 0;
}

/* All of a list in one transaction; each record knows then what became of it. */
static void write_all(struct journal *journal, struct list *list)
{
    struct error error = {0};
    pthread_mutex_lock(&journal->pen);
    int status = store_begin_batch(journal->store, &error);
    for (struct record *record = list->first; status == 0 && record; record = record->next) {
        record->failure = (struct error){0};
        if (write_record(journal, record) == 0)
            record->failure.code = 0;
    }
    if (status == 0)
        status = store_end_batch(journal->store, &error);
    for (struct record *record = list->first; status != 0 && record; record = record->next)
        if (record->failure.code == 0)
            record->failure = error;
    pthread_mutex_lock(&journal->lock);
    if (status == 0 && journal->sync_at <= 0)
        journal->sync_at = clock_seconds() + JOURNAL_SYNC_MS / 1e3;
    pthread_mutex_unlock(&journal->lock);
    pthread_mutex_unlock(&journal->pen);
}

/* What was written before this lasts. */
static int sync_store(struct journal *journal, struct error *error)
{
    pthread_mutex_lock(&journal->lock);
    journal->sync_at = 0; /* what is written from here on may be too late for this one */
    journal->stats.syncs++;
    pthread_mutex_unlock(&journal->lock);
    int code = store_sync(journal->store, error);
    if (code != 0) {
        pthread_mutex_lock(&journal->pen);
        code = store_rescue(journal->store, error);
        pthread_mutex_unlock(&journal->pen);
    }
    pthread_mutex_lock(&journal->lock);
    if (code != 0)
        journal->sync_at = clock_seconds() + SWEEP_SECONDS;
    pthread_mutex_unlock(&journal->lock);
    return code;
}

/* End a batch whose records went as `code` and *error say. Returns what became of all of it. */
static int end_batch(struct journal *journal, int code, struct error *error)
{
    struct error unused;
    const int ended = store_end_batch(journal->store, code == 0 ? error : &unused);
    return code != 0 ? code : ended;
}

static void tidy(struct journal *journal)
{
    pthread_mutex_lock(&journal->pen);
    store_tidy(journal->store);
    pthread_mutex_unlock(&journal->pen);
}

/* Have all that was written last, and tidy behind it; the log says when that cannot be. */
static void sync_and_tidy(struct journal *journal)
{
    struct error error;
    if (sync_store(journal, &error) == 0)
        tidy(journal);
    else
        log_warning(NULL, "%s", error.text);
}

/* Jobs that were written, and of which nobody knows whether they last, are none: their clients are told so. */
static void take_back(struct journal *journal, struct list *list)
{
    struct error error = {0};
    pthread_mutex_lock(&journal->pen);
    int code = store_begin_batch(journal->store, &error);
    for (struct record *record = list->first; code == 0 && record; record = record->next)
        if (record->kind == KIND_ACCEPT || record->kind == KIND_ANSWER)
            code = store_release(journal->store, record->number, &error);
    code = end_batch(journal, code, &error);
    pthread_mutex_unlock(&journal->pen);
    if (code == 0)
        return;
    log_warning(NULL, "%s", error.text);
    for (struct record *record = list->first; record; record = record->next)
        if (record->kind == KIND_ACCEPT || record->kind == KIND_ANSWER)
            record->kind = KIND_RELEASE; /* to be tried again */
}

/* Have what was written of a list last, if somebody waits for that: returns whether it does. */
static bool sync_list(struct journal *journal, struct list *list)
{
    bool is_waited_for = false;
    struct error error = {0};
    for (const struct record *record = list->first; record; record = record->next)
        is_waited_for = is_waited_for || (is_urgent(record) && record->failure.code == 0);
    if (!is_waited_for)
        return false;
    if (sync_store(journal, &error) == 0)
        return true;
    for (struct record *record = list->first; record; record = record->next)
        if (record->failure.code == 0)
            record->failure = error;
    take_back(journal, list);
    return false;
}

static bool must_not_be_lost(const struct record *record)
{
    return record->kind == KIND_END || record->kind == KIND_RELEASE || record->kind == KIND_PAUSE;
}

/* Keep a record that failed for another try, or let it go. */
static void put_away(struct journal *journal, struct record *record)
{
    if (record->failure.code == 0 || !must_not_be_lost(record) || journal->kept_count == MOST_KEPT) {
        record_free(record);
        return;
    }
    blob_close(record->bytes);
    record->bytes = NULL;
    record->done = NULL;
    journal->kept_count++;
    list_add(&journal->kept, record);
}

/* What became of records that do not wait any more. */
static void count(struct journal *journal, const struct list *list, double seconds)
{
    const double now = clock_seconds();
    pthread_mutex_lock(&journal->lock);
    struct journal_stats *stats = &journal->stats;
    stats->transactions++;
    stats->write_seconds += seconds;
    if (seconds > stats->longest_write_seconds)
        stats->longest_write_seconds = seconds;
    for (const struct record *record = list->first; record; record = record->next) {
        const double waited = now - record->handed_over_at;
        stats->records++;
        stats->failures += record->failure.code != 0;
        stats->bytes += record_bytes(record);
        stats->wait_seconds += waited;
        if (waited > stats->longest_wait_seconds)
            stats->longest_wait_seconds = waited;
    }
    pthread_mutex_unlock(&journal->lock);
}

static void forget_written(struct journal *journal, const struct list *list)
{
    pthread_mutex_lock(&journal->lock);
    for (const struct record *record = list->first; record; record = record->next)
        journal->stats.waiting--;
    journal->written = NULL;
    pthread_mutex_unlock(&journal->lock);
}

static void write_list(struct journal *journal, struct list *list)
{
    const double before = clock_seconds();
    write_all(journal, list);
    for (struct record *record = list->first; record; record = record->next)
        if (record->written && record->failure.code == 0)
            record->written(record->context, record->number);
    const bool lasts = sync_list(journal, list);
    count(journal, list, clock_seconds() - before);
    forget_written(journal, list);
    for (struct record *record; (record = list_take(list));) {
        if (record->failure.code != 0)
            log_warning(record->text[TEXT_ID], "%s", record->failure.text);
        if (record->done)
            record->done(record->context, record->number, &record->failure);
        put_away(journal, record);
    }
    if (lasts)
        tidy(journal);
}

static void try_again(struct journal *journal)
{
    struct list list;
    if (!journal->kept.first)
        return;
    list = journal->kept;
    list_clear(&journal->kept);
    journal->kept_count = 0;
    write_all(journal, &list);
    for (struct record *record = list.first, *next; record; record = next) {
        next = record->next;
        put_away(journal, record);
    }
}

static void sweep(struct journal *journal)
{
    struct error error;
    if (clock_seconds() - journal->swept_at < SWEEP_SECONDS)
        return;
    journal->swept_at = clock_seconds();
    try_again(journal);
    pthread_mutex_lock(&journal->pen);
    int code = store_begin_batch(journal->store, &error);
    if (code == 0)
        code = store_sweep(journal->store, &error);
    code = end_batch(journal, code, &error);
    pthread_mutex_unlock(&journal->pen);
    if (code == 0)
        sync_and_tidy(journal);
    else
        log_warning(NULL, "%s", error.text);
}

/* When there is something to write, or to sync. With the lock held. */
static double next_work(const struct journal *journal)
{
    const double write_at = journal->waiting.first ? journal->write_at : INFINITY;
    return journal->sync_at > 0 ? fmin(write_at, journal->sync_at) : write_at;
}

/* Until there is something to write, or to sync, or to sweep. With the lock held. */
static void wait_for_work(struct journal *journal)
{
    const double now = clock_seconds(), until = fmin(next_work(journal), now + SWEEP_SECONDS);
    const struct timespec deadline = {(time_t)until, (long)((until - floor(until)) * 1e9)};
    if (until > now && !journal->stopping)
        pthread_cond_timedwait(&journal->changed, &journal->lock, &deadline);
}

/* Take what is to be written now: all that waits, with what could wait longer, or nothing. With the lock held. */
static struct list take_waiting(struct journal *journal)
{
    struct list list;
    list_clear(&list);
    if (next_work(journal) > clock_seconds() && !journal->stopping)
        return list;
    list = journal->waiting;
    journal->written = list.first;
    list_clear(&journal->waiting);
    return list;
}

/* Have last what nobody waits for, when it is time. */
static void settle(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    const double sync_at = journal->sync_at;
    pthread_mutex_unlock(&journal->lock);
    if (sync_at <= 0 || sync_at > clock_seconds())
        return;
    sync_and_tidy(journal);
}

static void *run(void *argument)
{
    struct journal *journal = argument;
    pthread_mutex_lock(&journal->lock);
    for (;;) {
        wait_for_work(journal);
        struct list list = take_waiting(journal);
        const bool is_last = journal->stopping && !list.first;
        pthread_mutex_unlock(&journal->lock);
        if (is_last)
            break;
        if (list.first)
            write_list(journal, &list);
        settle(journal);
        sweep(journal);
        pthread_mutex_lock(&journal->lock);
    }
    try_again(journal);
    sync_and_tidy(journal);
    return NULL;
}

int journal_open(struct journal **out, struct store *store, struct error *error)
{
    *out = NULL;
    struct journal *journal = calloc(1, sizeof *journal);
    if (!journal)
        return out_of_memory(error);
    journal->store = store;
    journal->swept_at = clock_seconds();
    list_clear(&journal->kept);
    list_clear(&journal->waiting);
    pthread_mutex_init(&journal->lock, NULL);
    pthread_mutex_init(&journal->pen, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&journal->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    journal->has_thread = pthread_create(&journal->thread, NULL, run, journal) == 0;
    if (!journal->has_thread) {
        journal_close(journal);
        return error_set(error, ERROR_NO_MEMORY, "journal: cannot start its thread");
    }
    *out = journal;
    return 0;
}

void journal_close(struct journal *journal)
{
    if (!journal)
        return;
    pthread_mutex_lock(&journal->lock);
    journal->stopping = true;
    pthread_cond_signal(&journal->changed);
    pthread_mutex_unlock(&journal->lock);
    if (journal->has_thread)
        pthread_join(journal->thread, NULL);
    for (struct record *record; (record = list_take(&journal->kept));)
        record_free(record);
    pthread_cond_destroy(&journal->changed);
    pthread_mutex_destroy(&journal->pen);
    pthread_mutex_destroy(&journal->lock);
    free(journal);
}

/* --- Handing over ------------------------------------------------------------------------ */

/* Nobody waits for it, and no job needs it to go on. */
static bool may_wait(const struct record *record)
{
    return record->kind == KIND_RELEASE || record->kind == KIND_TOUCH;
}

/* With the lock held. */
static void add(struct journal *journal, struct record *record)
{
    const double at = record->handed_over_at + (may_wait(record) ? JOURNAL_SYNC_MS / 1e3 : 0);
    if (!journal->waiting.first || at < journal->write_at)
        journal->write_at = at;
    list_add(&journal->waiting, record);
    journal->stats.waiting++;
    pthread_cond_signal(&journal->changed);
}

/* `record` is complete, or there was no memory for it: then it is let go. */
static int hand_over(struct journal *journal, struct record *record, bool is_complete, struct error *error)
{
    if (!record || !is_complete) {
        if (record)
            record_free(record);
        return out_of_memory(error);
    }
    pthread_mutex_lock(&journal->lock);
    add(journal, record);
    pthread_mutex_unlock(&journal->lock);
    return 0;
}

/* Of what nobody waits for. */
static void hand_over_quietly(struct journal *journal, struct record *record, bool is_complete)
{
    struct error error;
    if (hand_over(journal, record, is_complete, &error) != 0)
        log_warning(NULL, "%s", error.text);
}

static bool copy_job(struct record *record, const struct journal_job *job)
{
    record->payloads = calloc(job->payload_count + 1, sizeof *record->payloads);
    if (!record->payloads)
        return false;
    for (size_t i = 0; i < job->payload_count; i++) {
        record->payloads[i] = job->payloads[i];
        blob_share(record->payloads[i].bytes);
    }
    record->payload_count = job->payload_count;
    return set_text(record, TEXT_ID, job->id) && set_text(record, TEXT_DIGEST, job->digest) &&
           set_text(record, TEXT_TASK, job->task) && set_text(record, TEXT_OWNER, job->owner) &&
           set_text(record, TEXT_CLIENT, job->client) && set_text(record, TEXT_PROMPT, job->prompt) &&
           set_text(record, TEXT_REQUEST, job->request);
}

/* Hand over a job unless too many wait; `record` NULL: there was no memory for it. */
static int hand_over_job(struct journal *journal, struct record *record, bool is_complete, struct error *error)
{
    if (!record || !is_complete)
        return hand_over(journal, record, is_complete, error);
    pthread_mutex_lock(&journal->lock);
    const uint64_t waiting = journal->stats.waiting;
    if (waiting < JOURNAL_MOST_WAITING)
        add(journal, record);
    const double longest = journal->stats.longest_wait_seconds;
    pthread_mutex_unlock(&journal->lock);
    if (waiting < JOURNAL_MOST_WAITING)
        return 0;
    record_free(record);
    return error_set(error, ERROR_BUSY,
                     "journal: %llu entries wait for the disk, the longest took %.1f s; try again later",
                     (unsigned long long)waiting, longest);
}

int journal_accept(struct journal *journal, const struct journal_job *job, journal_written *written, journal_done *done,
                   void *context, struct error *error)
{
    struct record *record = record_make(KIND_ACCEPT, job->number, done, context);
    if (record)
        record->written = written;
    return hand_over_job(journal, record, record && copy_job(record, job), error);
}

/* What an end says, but for its digest. */
static bool copy_end(struct record *record, const struct journal_end *end)
{
    if (end->result)
        record->bytes = blob_share(end->result);
    return set_text(record, TEXT_STATE, end->state) && set_text(record, TEXT_CODE, end->code) &&
           set_text(record, TEXT_MESSAGE, end->message) && set_text(record, TEXT_RECEIPT, end->receipt);
}

int journal_answer(struct journal *journal, const struct journal_job *job, const struct journal_end *end,
                   journal_done *done, void *context, struct error *error)
{
    struct record *record = record_make(KIND_ANSWER, job->number, done, context);
    return hand_over_job(journal, record, record && copy_job(record, job) && copy_end(record, end), error);
}

/* Write a record of no texts here and now. Returns what became of it. */
static int write_now(struct journal *journal, enum kind kind, uint64_t number, struct store_attempt *attempt,
                     struct error *error)
{
    struct record record = {.kind = kind, .number = number, .attempt = attempt, .handed_over_at = clock_seconds()};
    struct list list;
    list_clear(&list);
    list_add(&list, &record);
    write_all(journal, &list);
    count(journal, &list, clock_seconds() - record.handed_over_at);
    pthread_mutex_lock(&journal->lock);
    pthread_cond_signal(&journal->changed); /* it is to be synced */
    pthread_mutex_unlock(&journal->lock);
    if (record.failure.code != 0)
        *error = record.failure;
    return record.failure.code;
}

int journal_start(struct journal *journal, uint64_t number, struct store_attempt *attempt, struct error *error)
{
    return write_now(journal, KIND_START, number, attempt, error);
}

void journal_save(struct journal *journal, uint64_t number, int step, struct blob *state)
{
    struct record *older;
    struct blob *replaced = NULL;
    pthread_mutex_lock(&journal->lock);
    for (older = journal->waiting.first; older; older = older->next)
        if (older->kind == KIND_SAVE && older->number == number)
            break;
    if (older) {
        replaced = older->bytes;
        older->bytes = state;
        older->step = step;
    }
    pthread_mutex_unlock(&journal->lock);
    blob_close(replaced);
    if (older)
        return;
    struct record *record = record_make(KIND_SAVE, number, NULL, NULL);
    if (!record)
        blob_close(state);
    else
        record->bytes = state;
    hand_over_quietly(journal, record, true);
}

void journal_pause(struct journal *journal, uint64_t number)
{
    struct error error;
    if (write_now(journal, KIND_PAUSE, number, NULL, &error) != 0)
        hand_over_quietly(journal, record_make(KIND_PAUSE, number, NULL, NULL), true);
}

int journal_end(struct journal *journal, uint64_t number, const struct journal_end *end, journal_done *done,
                void *context, struct error *error)
{
    struct record *record = record_make(KIND_END, number, done, context);
    const bool is_complete =
        record && copy_end(record, end) && set_text(record, TEXT_DIGEST, end->cache_digest);
    return hand_over(journal, record, is_complete, error);
}

void journal_release(struct journal *journal, uint64_t number)
{
    hand_over_quietly(journal, record_make(KIND_RELEASE, number, NULL, NULL), true);
}

static bool has_release(const struct record *record, uint64_t number)
{
    while (record && (record->kind != KIND_RELEASE || record->number != number))
        record = record->next;
    return record != NULL;
}

bool journal_releases(struct journal *journal, uint64_t number)
{
    pthread_mutex_lock(&journal->lock);
    bool releases = has_release(journal->waiting.first, number) || has_release(journal->written, number);
    pthread_mutex_unlock(&journal->lock);
    return releases;
}

void journal_touch_cached(struct journal *journal, const char *digest)
{
    struct record *record = record_make(KIND_TOUCH, 0, NULL, NULL);
    hand_over_quietly(journal, record, record && set_text(record, TEXT_DIGEST, digest));
}

void journal_stats(struct journal *journal, struct journal_stats *out)
{
    pthread_mutex_lock(&journal->lock);
    *out = journal->stats;
    pthread_mutex_unlock(&journal->lock);
}
