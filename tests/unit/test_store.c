/* test_store.c: what a state folder keeps of jobs: over restarts, within its bounds, and when the disk says no. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/journal/check.h"
#include "daemon/journal/database.h"
#include "daemon/journal/history.h"
#include "daemon/journal/state_folder.h"
#include "daemon/journal/store.h"

enum { LARGE = 300000, LONG_TEXT = 100000, DAY = 86400 };

static const struct journal_limits usual = {
    .result_bytes = 10 * LARGE, .result_seconds = 7 * DAY, .cache_bytes = 10 * LARGE};
static char folder[] = "/tmp/lanced-store-XXXXXX", path[sizeof folder + 16];
static char large[LARGE];
static struct error error;

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/state", folder);
    memset(large, 'x', sizeof large);
    return 0;
}

static int remove_folder(void **state)
{
    char command[sizeof folder + 16];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static struct store *open_store_with(const struct journal_limits *limits, double (*wall_clock)(void))
{
    struct store *store = NULL;
    if (store_open(&store, path, limits, wall_clock, &error) != 0)
        fail_msg("%s", error.text);
    return store;
}

static struct store *open_store(void)
{
    return open_store_with(&usual, NULL);
}

static int count_files(void)
{
    char command[sizeof path + 40];
    int count = -1;
    snprintf(command, sizeof command, "ls %s/contents | wc -l", path);
    FILE *pipe = popen(command, "r");
    assert_int_equal(fscanf(pipe, "%d", &count), 1);
    pclose(pipe);
    return count;
}

static int accept_with(struct store *store, uint64_t number, const char *id, const void *data, uint64_t bytes)
{
    char hash[SHA256_HEX_BYTES];
    sha256_of(data, bytes, hash);
    const struct store_payload payload = {hash, data, bytes};
    const struct store_job job = {.number = number,
                                  .id = id,
                                  .digest = "d",
                                  .task = "t2i",
                                  .owner = "alice",
                                  .client = "me",
                                  .prompt = "A 50% Red fox",
                                  .request = "{\"task\":\"t2i\"}",
                                  .payloads = &payload,
                                  .payload_count = 1};
    assert_int_equal(store_begin_batch(store, &error), 0);
    int status = store_accept(store, &job, &error);
    struct error unused;
    return store_end_batch(store, status == 0 ? &error : &unused) != 0 && status == 0 ? error.code : status;
}

static void accept(struct store *store, uint64_t number, const char *id)
{
    if (accept_with(store, number, id, large, sizeof large) != 0)
        fail_msg("%s", error.text);
}

#define CHANGE(store, call)                                                                                            \
    do {                                                                                                               \
        assert_int_equal(store_begin_batch(store, &error), 0);                                                         \
        assert_int_equal(call, 0);                                                                                     \
        assert_int_equal(store_end_batch(store, &error), 0);                                                           \
        assert_int_equal(store_sync(store, &error), 0);                                                                \
        store_tidy(store);                                                                                             \
    } while (0)

static void finish(struct store *store, uint64_t number, const char *result, uint64_t bytes, const char *digest)
{
    const struct store_end end = {
        .state = "done", .receipt = "{\"seed\":1}", .result = result, .result_bytes = bytes, .cache_digest = digest};
    CHANGE(store, store_end(store, number, &end, &error));
}

static struct store_found last_found;
static char found_ids[200];

static int note(void *context, const struct store_found *found)
{
    int *count = context;
    ++*count;
    last_found = *found; /* its numbers; the texts go */
    strcat(strcat(found_ids, found->id), " ");
    return 0;
}

static int unfinished(struct store *store)
{
    int count = 0;
    found_ids[0] = '\0';
    assert_int_equal(store_unfinished(store, note, &count, &error), 0);
    return count;
}

static void what_was_accepted_and_has_not_ended_is_there_after_a_restart(void **state)
{
    (void)state;
    struct store_attempt attempt;
    struct store *store = open_store();
    accept(store, 1, "ended");
    accept(store, 2, "waits");
    accept(store, 3, "began");
    CHANGE(store, store_start(store, 1, &attempt, &error));
    finish(store, 1, "result", 6, NULL);
    CHANGE(store, store_start(store, 3, &attempt, &error));
    assert_false(attempt.has_state);
    CHANGE(store, store_save(store, 3, 7, large, sizeof large, &error));
    CHANGE(store, store_pause(store, 3, &error));
    CHANGE(store, store_start(store, 3, &attempt, &error));
    assert_int_equal(attempt.number, 1);
    assert_true(attempt.has_state);
    store_close(store);

    store = open_store();
    assert_int_equal(unfinished(store), 2);
    assert_string_equal(found_ids, "waits began ");
    assert_int_equal(last_found.attempts, 1);
    assert_int_equal(last_found.lives, 1);
    assert_int_equal(last_found.saved_step, 7);
    uint64_t last;
    assert_int_equal(store_last_number(store, &last, &error), 0);
    assert_int_equal(last, 3);
    void *data;
    uint64_t bytes;
    assert_int_equal(store_read(store, 3, "request", &data, &bytes, &error), 0);
    assert_string_equal(data, "{\"task\":\"t2i\"}");
    free(data);
    assert_int_equal(store_read(store, 3, "state", &data, &bytes, &error), 0);
    assert_int_equal(bytes, sizeof large);
    assert_memory_equal(data, large, sizeof large);
    free(data);
    struct store_found found;
    assert_int_equal(store_find(store, "ended", &found, &error), 0);
    assert_string_equal(found.state, "done");
    store_found_clear(&found);
    assert_int_equal(store_read(store, 1, "result", &data, &bytes, &error), 0);
    assert_memory_equal(data, "result", 6);
    free(data);
    store_close(store);
}

static void an_attempt_counts_unless_the_daemon_ended_in_order(void **state)
{
    (void)state;
    struct store_attempt attempt;
    struct store *store = open_store();
    accept(store, 1, "a");
    for (int i = 1; i <= 3; i++) {
        CHANGE(store, store_start(store, 1, &attempt, &error));
        CHANGE(store, store_pause(store, 1, &error));
        CHANGE(store, store_start(store, 1, &attempt, &error));
        assert_int_equal(attempt.number, i);
        store_close(store);
        store = open_store();
        assert_int_equal(unfinished(store), 1);
        assert_int_equal(last_found.attempts, i);
        assert_int_equal(last_found.lives, i);
    }
    store_close(store);
}

static void a_release_takes_what_belongs_to_the_job_alone(void **state)
{
    (void)state;
    struct store *store = open_store();
    struct store_found found;
    accept(store, 1, "a");
    accept(store, 2, "b"); /* the same payload */
    assert_int_equal(count_files(), 1);
    CHANGE(store, store_release(store, 1, &error));
    assert_int_equal(count_files(), 1);
    assert_int_equal(store_find(store, "a", &found, &error), ERROR_NOT_FOUND);
    CHANGE(store, store_release(store, 2, &error));
    assert_int_equal(count_files(), 0);
    accept(store, 3, "a"); /* the id is free again */
    const struct store_end end = {.state = "done", .result = "late", .result_bytes = 4};
    CHANGE(store, store_release(store, 3, &error)); /* while it runs */
    CHANGE(store, store_end(store, 3, &end, &error));
    struct store_sizes sizes;
    assert_int_equal(store_sizes(store, &sizes, &error), 0);
    assert_int_equal(sizes.contents, 0);
    store_close(store);
}

static void results_stay_within_their_bytes_and_their_days(void **state)
{
    (void)state;
    struct journal_limits limits = usual;
    limits.result_bytes = 2 * LARGE;
    struct store *store = open_store_with(&limits, NULL);
    static char results[3][LARGE];
    static const char *const ids[] = {"a", "b", "c"};
    struct store_found found;
    for (uint64_t i = 0; i < 3; i++) {
        memset(results[i], 'a' + (int)i, LARGE);
        accept(store, i + 1, ids[i]);
        finish(store, i + 1, results[i], LARGE, NULL);
        CHANGE(store, store_sweep(store, &error));
    }
    assert_int_equal(store_find(store, "a", &found, &error), ERROR_NOT_FOUND);
    assert_int_equal(store_find(store, "b", &found, &error), 0);
    store_found_clear(&found);
    assert_int_equal(count_files(), 2);
    store_close(store);

    limits.result_seconds = 0;
    store = open_store_with(&limits, NULL);
    accept(store, 4, "waits");
    usleep(1000);
    CHANGE(store, store_sweep(store, &error));
    assert_int_equal(count_files(), 1);
    assert_int_equal(store_find(store, "waits", &found, &error), 0);
    store_found_clear(&found);
    store_close(store);
}

static void the_cache_outlives_a_release_and_lets_go_of_what_was_used_least(void **state)
{
    (void)state;
    struct journal_limits limits = usual;
    limits.cache_bytes = 2 * LARGE;
    struct store *store = open_store_with(&limits, NULL);
    static char results[3][LARGE];
    static const char *const digests[] = {"da", "db", "dc"};
    void *data;
    uint64_t bytes;
    for (uint64_t i = 0; i < 3; i++) {
        memset(results[i], 'a' + (int)i, LARGE);
        accept(store, i + 1, digests[i]);
        finish(store, i + 1, results[i], LARGE, digests[i]);
        CHANGE(store, store_release(store, i + 1, &error));
        if (i == 1)
            CHANGE(store, store_touch_cached(store, "da", &error));
        CHANGE(store, store_sweep(store, &error));
    }
    assert_int_equal(store_cached(store, "db", &data, &bytes, &error), ERROR_NOT_FOUND);
    assert_int_equal(store_cached(store, "da", &data, &bytes, &error), 0);
    assert_int_equal(bytes, LARGE);
    assert_memory_equal(data, results[0], LARGE);
    free(data);
    assert_int_equal(count_files(), 2);
    store_close(store);
}

static void nothing_is_written_outside_a_batch_as_after_one_that_the_database_has_undone(void **state)
{
    (void)state;
    struct store *store = open_store();
    struct store_found found;
    accept(store, 1, "a");
    assert_int_equal(store_release(store, 1, &error), ERROR_IO);
    assert_int_equal(store_find(store, "a", &found, &error), 0);
    store_found_clear(&found);
    store_close(store);
}

static double in_2037(void)
{
    return 2130000000;
}

static void a_clock_that_goes_back_ten_years_changes_no_order(void **state)
{
    (void)state;
    struct store *store = open_store_with(&usual, in_2037);
    accept(store, 1, "a");
    finish(store, 1, "result", 6, NULL);
    store_close(store);
    store = open_store(); /* and today's is earlier */
    accept(store, 2, "b");
    finish(store, 2, "result", 6, NULL);
    CHANGE(store, store_sweep(store, &error));
    struct store_found a, b;
    assert_int_equal(store_find(store, "a", &a, &error), 0);
    assert_int_equal(store_find(store, "b", &b, &error), 0);
    assert_true(a.ended > 2129999999 && b.submitted >= a.ended);
    store_found_clear(&a);
    store_found_clear(&b);
    store_close(store);
}

static void a_clock_that_starts_years_ahead_takes_results_that_are_too_old_by_it_and_no_job_that_waits(void **state)
{
    (void)state;
    struct store *store = open_store();
    accept(store, 1, "done");
    finish(store, 1, "result", 6, NULL);
    accept(store, 2, "waits");
    store_close(store);
    store = open_store_with(&usual, in_2037);
    CHANGE(store, store_sweep(store, &error));
    struct store_found found;
    assert_int_equal(store_find(store, "done", &found, &error), ERROR_NOT_FOUND);
    assert_int_equal(unfinished(store), 1);
    assert_int_equal(last_found.number, 2);
    finish(store, 2, "result", 6, NULL);
    store_close(store);
    store = open_store(); /* the clock is right again: what ended meanwhile does not wait for 2037 */
    CHANGE(store, store_sweep(store, &error));
    assert_int_equal(store_find(store, "waits", &found, &error), 0);
    store_found_clear(&found);
    store_close(store);
}

static void history_finds_jobs_that_were_released_by_task_prompt_and_failure(void **state)
{
    (void)state;
    struct store *store = open_store();
    accept(store, 1, "a");
    accept(store, 2, "b");
    const struct store_end end = {.state = "failed", .code = "too_large", .message = "does not fit"};
    CHANGE(store, store_end(store, 2, &end, &error));
    CHANGE(store, store_release(store, 2, &error));
    const struct {
        struct history_query query;
        int count;
    } cases[] = {
        {{.since = -1}, 2},
        {{.since = -1, .failed = true}, 1},
        {{.since = -1, .prompt = "50% red"}, 2},
        {{.since = -1, .prompt = "5_% red"}, 0},
        {{.since = -1, .task = "t2v"}, 0},
        {{.since = -1, .before = 2}, 1},
        {{.since = 1e12}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cJSON *jobs;
        bool more;
        assert_int_equal(history_read(store, &cases[i].query, &jobs, &more, &error), 0);
        assert_int_equal(cJSON_GetArraySize(jobs), cases[i].count);
        assert_false(more);
        cJSON_Delete(jobs);
    }
    store_close(store);
}

/* When a job was begun, put aside, saved last and gone on with, such as "started paused started saved@9". */
static void assert_milestones(struct store *store, const char *expected)
{
    const struct history_query query = {.since = -1, .receipts = true};
    char told[200] = "";
    bool more;
    cJSON *jobs, *milestone;
    double before = 0;
    assert_int_equal(history_read(store, &query, &jobs, &more, &error), 0);
    const cJSON *job = cJSON_GetArrayItem(jobs, 0), *submitted = cJSON_GetObjectItem(job, "submitted");
    before = submitted->valuedouble;
    cJSON_ArrayForEach(milestone, cJSON_GetObjectItem(job, "milestones"))
    {
        const cJSON *step = cJSON_GetObjectItem(milestone, "step"), *at = cJSON_GetObjectItem(milestone, "at");
        const size_t length = strlen(told);
        assert_true(at->valuedouble >= before);
        before = at->valuedouble;
        snprintf(told + length, sizeof told - length, "%s%s", length > 0 ? " " : "",
                 cJSON_GetObjectItem(milestone, "what")->valuestring);
        if (step)
            snprintf(told + strlen(told), sizeof told - strlen(told), "@%d", step->valueint);
    }
    assert_string_equal(told, expected);
    cJSON_Delete(jobs);
}

static void history_knows_when_a_job_was_begun_put_aside_and_saved_last(void **state)
{
    (void)state;
    struct store *store = open_store();
    struct store_attempt attempt;
    accept(store, 1, "a");
    assert_milestones(store, "");
    CHANGE(store, store_start(store, 1, &attempt, &error));
    CHANGE(store, store_save(store, 1, 4, "state", 5, &error));
    CHANGE(store, store_pause(store, 1, &error));
    assert_milestones(store, "started saved@4 paused");
    CHANGE(store, store_start(store, 1, &attempt, &error));
    CHANGE(store, store_save(store, 1, 9, "state", 5, &error));
    assert_milestones(store, "started paused started saved@9");
    for (int i = 0; i < 20; i++) {
        CHANGE(store, store_pause(store, 1, &error));
        CHANGE(store, store_start(store, 1, &attempt, &error));
    }
    assert_milestones(store, "paused started paused started paused started paused started");
    store_close(store);
}

/* Every job is in one of the pages, the newest first; returns how many pages there are. */
static int read_pages(struct store *store, bool receipts, int count)
{
    struct history_query query = {.since = -1, .receipts = receipts};
    int pages = 0, next = count;
    for (bool more = true; more; pages++) {
        cJSON *jobs, *job;
        assert_int_equal(history_read(store, &query, &jobs, &more, &error), 0);
        assert_true(cJSON_GetArraySize(jobs) > 0);
        cJSON_ArrayForEach(job, jobs) assert_int_equal(cJSON_GetObjectItem(job, "number")->valueint, next--);
        char *text = json_print(jobs);
        assert_true(strlen(text) < 1 << 20);
        cJSON_free(text);
        cJSON_Delete(jobs);
        query.before = (uint64_t)next + 1;
    }
    assert_int_equal(next, 0);
    return pages;
}

static void a_page_of_history_fits_into_a_message_whatever_the_jobs_say(void **state)
{
    (void)state;
    enum { LONG = 12, ALL = LONG + HISTORY_MOST_RECEIPTS };
    struct store *store = open_store();
    char *words = calloc(1, LONG_TEXT + 1);
    memset(words, 'x', LONG_TEXT);
    const struct store_end failed = {.state = "failed", .code = "internal", .message = words};
    const struct store_end done = {.state = "done", .receipt = "{\"seed\":1}"};
    assert_int_equal(store_begin_batch(store, &error), 0);
    for (uint64_t number = 1; number <= ALL; number++) {
        char id[24];
        snprintf(id, sizeof id, "job%llu", (unsigned long long)number);
        const struct store_job job = {
            .number = number, .id = id, .digest = "d", .task = "t2i", .prompt = "a fox", .request = "{}"};
        assert_int_equal(store_accept(store, &job, &error), 0);
        assert_int_equal(store_end(store, number, number <= LONG ? &failed : &done, &error), 0);
    }
    assert_int_equal(store_end_batch(store, &error), 0);
    assert_int_equal(read_pages(store, false, ALL), 3); /* five long ones in each */
    assert_int_equal(read_pages(store, true, ALL), 4);
    free(words);
    store_close(store);
}

/* What a write beyond so many bytes of a file gives is an error, as a full disk gives one. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void what_has_gone_through_the_journal_does_not_stay_in_memory(void **state)
{
    enum { JOBS = 40, IN_THE_DATABASE = 200000, MOST_KEPT = 1000000 };
    char id[24];
    (void)state;
    struct store *store = open_store();
    for (uint64_t number = 1; number <= JOBS; number++) {
        void *bytes;
        uint64_t count;
        memcpy(large, &number, sizeof number);
        snprintf(id, sizeof id, "job-%d", (int)number);
        assert_int_equal(accept_with(store, number, id, large, IN_THE_DATABASE), 0);
        assert_int_equal(store_read(store, number, "request", &bytes, &count, &error), 0);
        free(bytes);
    }
    assert_int_equal(count_files(), 0);
    assert_in_range(sqlite3_memory_used(), 1, MOST_KEPT);
    store_close(store);
}

static void a_disk_that_takes_no_more_refuses_the_job_and_keeps_the_others(void **state)
{
    (void)state;
    struct store *store = open_store();
    static char other[LARGE];
    memset(other, 'y', sizeof other);
    accept(store, 1, "a");
    limit_files(LARGE / 2);
    assert_int_equal(accept_with(store, 2, "b", other, sizeof other), ERROR_IO);
    limit_files(RLIM_INFINITY);
    assert_int_equal(count_files(), 1);
    accept(store, 3, "c");
    assert_int_equal(unfinished(store), 2);
    assert_string_equal(found_ids, "a c ");
    store_close(store);
}

static void a_folder_that_is_gone_is_told(void **state)
{
    (void)state;
    struct store *store = open_store();
    char away[sizeof path + 8];
    snprintf(away, sizeof away, "%s.away", path);
    assert_int_equal(rename(path, away), 0);
    assert_int_equal(accept_with(store, 1, "a", large, sizeof large), ERROR_IO);
    assert_non_null(strstr(error.text, "is gone"));
    assert_int_equal(rename(away, path), 0);
    accept(store, 2, "b");
    store_close(store);
}

static void a_job_that_does_not_fit_is_refused_with_the_numbers(void **state)
{
    (void)state;
    struct state_folder *opened;
    assert_int_equal(state_folder_open(&opened, path, &error), 0);
    assert_int_equal(state_folder_check(opened, 1, &error), 0);
    assert_int_equal(state_folder_check(opened, UINT64_MAX / 2, &error), ERROR_IO);
    assert_non_null(strstr(error.text, "MB free"));
    state_folder_close(opened);
}

static void a_folder_is_one_daemons_and_its_owners_alone(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path, 0755), 0);
    struct store *store = open_store(), *second;
    assert_int_equal(store_open(&second, path, &usual, NULL, &error), ERROR_BUSY);
    struct stat info;
    char file[sizeof path + 16];
    static const char *const names[] = {"journal.db", "journal.db-wal", "lock"};
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    accept(store, 1, "a");
    for (int i = 0; i < 3; i++) {
        snprintf(file, sizeof file, "%s/%s", path, names[i]);
        assert_int_equal(stat(file, &info), 0);
        assert_int_equal(info.st_mode & 0777, 0600);
    }
    store_close(store);
}

static void set_version(int version)
{
    sqlite3 *database;
    char file[sizeof path + 16], sql[60];
    snprintf(file, sizeof file, "%s/journal.db", path);
    snprintf(sql, sizeof sql, "PRAGMA user_version = %d", version);
    assert_int_equal(sqlite3_open(file, &database), SQLITE_OK);
    assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(database);
}

static void a_journal_of_a_newer_lanced_is_left_alone(void **state)
{
    (void)state;
    struct store *store = open_store();
    store_close(store);
    set_version(DATABASE_SCHEMA + 1);
    assert_int_equal(store_open(&store, path, &usual, NULL, &error), ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "newer lanced"));
}

/* What lanced made before schema 3, but for `owner`, which schema 1 had not. */
static const char older_schema[] =
    "CREATE TABLE jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, digest TEXT NOT NULL,"
    "  task TEXT NOT NULL, client TEXT, prompt TEXT, state TEXT NOT NULL, submitted REAL NOT NULL, started REAL,"
    "  ended REAL, lives INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, saved_step INTEGER,"
    "  code TEXT, message TEXT, receipt TEXT, released INTEGER NOT NULL DEFAULT 0);"
    "CREATE UNIQUE INDEX jobs_id ON jobs (id) WHERE released = 0;"
    "CREATE INDEX jobs_unfinished ON jobs (state) WHERE state IN ('queued', 'running');"
    "CREATE INDEX jobs_ended ON jobs (ended);"
    "CREATE TABLE contents (hash TEXT PRIMARY KEY, bytes INTEGER NOT NULL, data BLOB) WITHOUT ROWID;"
    "CREATE TABLE holds (job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, kind TEXT NOT NULL,"
    "  content TEXT NOT NULL REFERENCES contents, PRIMARY KEY (job, kind, content)) WITHOUT ROWID;"
    "CREATE INDEX holds_content ON holds (content);"
    "CREATE TABLE cache (digest TEXT PRIMARY KEY, content TEXT NOT NULL REFERENCES contents, used INTEGER NOT NULL)"
    "  WITHOUT ROWID;"
    "CREATE INDEX cache_content ON cache (content); CREATE INDEX cache_used ON cache (used);"
    "CREATE TABLE milestones (job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, at REAL NOT NULL,"
    "  what TEXT NOT NULL, step INTEGER); CREATE INDEX milestones_job ON milestones (job);"
    "CREATE TABLE dropped (hash TEXT PRIMARY KEY) WITHOUT ROWID;"
    "CREATE TRIGGER holds_gone AFTER DELETE ON holds BEGIN"
    "  DELETE FROM contents WHERE hash = OLD.content AND NOT EXISTS (SELECT 1 FROM holds WHERE content = OLD.content)"
    "    AND NOT EXISTS (SELECT 1 FROM cache WHERE content = OLD.content); END;"
    "CREATE TRIGGER cache_gone AFTER DELETE ON cache BEGIN"
    "  DELETE FROM contents WHERE hash = OLD.content AND NOT EXISTS (SELECT 1 FROM holds WHERE content = OLD.content)"
    "    AND NOT EXISTS (SELECT 1 FROM cache WHERE content = OLD.content); END;"
    "CREATE TRIGGER contents_gone AFTER DELETE ON contents WHEN OLD.data IS NULL BEGIN"
    "  INSERT OR IGNORE INTO dropped VALUES (OLD.hash); END; PRAGMA application_id = 1282302820;";

/* A job that waits, and one whose result is kept in both ways. Hashes are of "{}" and of "result". */
static const char older_jobs[] =
    "INSERT INTO jobs (number, id, digest, task, state, submitted) VALUES (1, 'a', 'd', 't2i', 'queued', 1);"
    "INSERT INTO jobs (number, id, digest, task, state, submitted, ended)"
    "  VALUES (2, 'b', 'd', 't2i', 'done', 2000000000, 2000000000);"
    "INSERT INTO contents VALUES ('44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a', 2, x'7b7d'),"
    "  ('f6a214f7a5fcda0c2cee9660b7fc29f5649e3c68aad48e20e950137c98913a68', 6, x'726573756c74');"
    "INSERT INTO holds SELECT 1, 'request', hash FROM contents WHERE bytes = 2;"
    "INSERT INTO holds SELECT 2, 'result', hash FROM contents WHERE bytes = 6;"
    "INSERT INTO cache SELECT 'the digest', hash, 7 FROM contents WHERE bytes = 6;"
    "INSERT INTO milestones VALUES (1, 3.0, 'started', 0), (1, 3.0, 'started', 0), (1, 4.0, 'paused', 0);";

static void make_older_journal(int version)
{
    sqlite3 *database;
    char file[sizeof path + 16];
    store_close(open_store());
    snprintf(file, sizeof file, "%s/journal.db", path);
    unlink(file);
    assert_int_equal(sqlite3_open(file, &database), SQLITE_OK);
    assert_int_equal(sqlite3_exec(database, older_schema, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(database, older_jobs, NULL, NULL, NULL), SQLITE_OK);
    if (version == 2)
        assert_int_equal(
            sqlite3_exec(database, "ALTER TABLE jobs ADD COLUMN owner TEXT; UPDATE jobs SET owner = 'bob'", NULL, NULL,
                         NULL),
            SQLITE_OK);
    sqlite3_close(database);
    set_version(version);
}

static void assert_kept(struct store *store, uint64_t number, const char *kind, const char *wanted)
{
    void *data;
    uint64_t bytes;
    if (store_read(store, number, kind, &data, &bytes, &error) != 0)
        fail_msg("%s", error.text);
    assert_int_equal(bytes, strlen(wanted));
    assert_memory_equal(data, wanted, bytes);
    free(data);
}

static void go_on_with_a_journal_of(int version)
{
    struct store_found found;
    void *data;
    uint64_t bytes;
    make_older_journal(version);
    struct store *store = open_store();
    assert_int_equal(store_find(store, "a", &found, &error), 0);
    if (version == 1)
        assert_null(found.owner);
    else
        assert_string_equal(found.owner, "bob");
    store_found_clear(&found);
    assert_int_equal(unfinished(store), 1);
    assert_kept(store, 1, "request", "{}");
    assert_kept(store, 2, "result", "result");
    accept(store, 3, "c");
    assert_int_equal(store_find(store, "c", &found, &error), 0);
    assert_string_equal(found.owner, "alice");
    store_found_clear(&found);
    finish(store, 1, "other", 5, "another digest");
    assert_kept(store, 1, "result", "other");
    CHANGE(store, store_release(store, 2, &error));
    assert_int_equal(store_cached(store, "the digest", &data, &bytes, &error), 0);
    assert_memory_equal(data, "result", 6);
    free(data);
    store_close(store);
    FILE *out = fopen("/dev/null", "w");
    if (journal_check(path, &usual, out, &error) != 0)
        fail_msg("%s", error.text);
    fclose(out);
}

static void a_journal_of_an_older_lanced_is_gone_on_with(void **state)
{
    (void)state;
    go_on_with_a_journal_of(1);
    assert_int_equal(remove_folder(state), 0);
    make_folder(state);
    go_on_with_a_journal_of(2);
}

static void requests_are_kept_whole_whether_short_or_long(void **state)
{
    (void)state;
    struct store *store = open_store();
    char *longer = calloc(1, LONG_TEXT + 1);
    memset(longer, 'r', LONG_TEXT);
    const char *const requests[] = {"{}", "{\"prompt\": \"Füchse\"}", longer};
    for (uint64_t i = 0; i < 3; i++) {
        const char id[2] = {(char)('a' + i), '\0'};
        const struct store_job job = {
            .number = i + 1, .id = id, .digest = "d", .task = "t2i", .request = requests[i]};
        CHANGE(store, store_accept(store, &job, &error));
    }
    for (uint64_t i = 0; i < 3; i++) {
        void *data;
        uint64_t bytes;
        assert_kept(store, i + 1, "request", requests[i]);
        finish(store, i + 1, "result", 6, NULL);
        assert_int_equal(store_read(store, i + 1, "request", &data, &bytes, &error), ERROR_NOT_FOUND);
    }
    free(longer);
    store_close(store);
}

static void change_database(const char *sql)
{
    sqlite3 *database;
    char file[sizeof path + 16];
    snprintf(file, sizeof file, "%s/journal.db", path);
    assert_int_equal(sqlite3_open(file, &database), SQLITE_OK);
    assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(database);
}

static void a_damaged_journal_names_no_file_but_contents(void **state)
{
    char beside[sizeof path + 16];
    void *data = NULL;
    uint64_t bytes;
    (void)state;
    store_close(open_store());
    snprintf(beside, sizeof beside, "%s/beside", path);
    FILE *file = fopen(beside, "w");
    assert_non_null(file);
    fputs("12345", file);
    fclose(file);
    change_database("INSERT INTO dropped VALUES ('../beside'), ('');"
                    "INSERT INTO contents VALUES ('../beside', 5, NULL);");
    struct store *store = open_store();
    assert_int_equal(access(beside, F_OK), 0);
    assert_int_equal(store_read_content(store, "../beside", &data, &bytes, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "no SHA-256"));
    store_close(store);
}

/* The schema forbids null, but a damaged file may hold it. */
static void texts_of_a_damaged_journal_are_there_and_are_text(void **state)
{
    struct store_found found;
    const struct history_query query = {.since = -1};
    cJSON *jobs;
    bool more;
    (void)state;
    struct store *store = open_store();
    accept(store, 1, "a");
    finish(store, 1, "result", 6, NULL);
    store_close(store);
    change_database("PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '');"
                    "PRAGMA writable_schema = RESET; PRAGMA ignore_check_constraints = ON;"
                    "UPDATE jobs SET state = NULL, task = NULL, digest = NULL, client = CAST(x'61ff62' AS TEXT);");
    store = open_store();
    assert_int_equal(store_find(store, "a", &found, &error), 0);
    assert_string_equal(found.state, "");
    assert_string_equal(found.task, "");
    assert_string_equal(found.digest, "");
    assert_string_equal(found.client, "a?b");
    store_found_clear(&found);
    assert_int_equal(history_read(store, &query, &jobs, &more, &error), 0);
    assert_string_equal(json_text(cJSON_GetArrayItem(jobs, 0), "client"), "a?b");
    cJSON_Delete(jobs);
    store_close(store);
}

static void a_number_that_no_job_can_have_is_none_and_is_told(void **state)
{
    struct store_found found;
    uint64_t last;
    (void)state;
    FILE *out = fopen("/dev/null", "w");
    struct store *store = open_store();
    accept(store, 1, "a");
    store_close(store);
    change_database("UPDATE jobs SET number = 0");
    store = open_store();
    assert_int_equal(unfinished(store), 0);
    assert_int_equal(store_find(store, "a", &found, &error), ERROR_NOT_FOUND);
    store_close(store);
    assert_int_equal(journal_check(path, &usual, out, &error), ERROR_BAD_FILE);
    fclose(out);
    change_database("UPDATE sqlite_sequence SET seq = 9223372036854775807");
    store = open_store();
    assert_int_equal(store_last_number(store, &last, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "damaged"));
    store_close(store);
}

static void the_check_finds_a_file_that_is_missing_and_one_that_is_damaged(void **state)
{
    (void)state;
    FILE *out = fopen("/dev/null", "w");
    struct store *store = open_store();
    accept(store, 1, "a");
    store_close(store);
    assert_int_equal(journal_check(path, &usual, out, &error), 0);
    char hash[SHA256_HEX_BYTES], file[sizeof path + 80];
    sha256_of(large, sizeof large, hash);
    snprintf(file, sizeof file, "%s/contents/%s", path, hash);
    int written = open(file, O_WRONLY);
    assert_int_equal(pwrite(written, "y", 1, 5), 1);
    close(written);
    assert_int_equal(journal_check(path, &usual, out, &error), ERROR_BAD_FILE);
    unlink(file);
    assert_int_equal(journal_check(path, &usual, out, &error), ERROR_BAD_FILE);
    fclose(out);
}

int main(void)
{
    signal(SIGXFSZ, SIG_IGN);
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(what_was_accepted_and_has_not_ended_is_there_after_a_restart),
        TEST(an_attempt_counts_unless_the_daemon_ended_in_order),
        TEST(a_release_takes_what_belongs_to_the_job_alone),
        TEST(results_stay_within_their_bytes_and_their_days),
        TEST(the_cache_outlives_a_release_and_lets_go_of_what_was_used_least),
        TEST(nothing_is_written_outside_a_batch_as_after_one_that_the_database_has_undone),
        TEST(a_clock_that_goes_back_ten_years_changes_no_order),
        TEST(a_clock_that_starts_years_ahead_takes_results_that_are_too_old_by_it_and_no_job_that_waits),
        TEST(history_finds_jobs_that_were_released_by_task_prompt_and_failure),
        TEST(history_knows_when_a_job_was_begun_put_aside_and_saved_last),
        TEST(a_page_of_history_fits_into_a_message_whatever_the_jobs_say),
        TEST(what_has_gone_through_the_journal_does_not_stay_in_memory),
        TEST(a_disk_that_takes_no_more_refuses_the_job_and_keeps_the_others),
        TEST(a_folder_that_is_gone_is_told),
        TEST(a_job_that_does_not_fit_is_refused_with_the_numbers),
        TEST(a_folder_is_one_daemons_and_its_owners_alone),
        TEST(a_journal_of_a_newer_lanced_is_left_alone),
        TEST(a_journal_of_an_older_lanced_is_gone_on_with),
        TEST(requests_are_kept_whole_whether_short_or_long),
        TEST(a_damaged_journal_names_no_file_but_contents),
        TEST(texts_of_a_damaged_journal_are_there_and_are_text),
        TEST(a_number_that_no_job_can_have_is_none_and_is_told),
        TEST(the_check_finds_a_file_that_is_missing_and_one_that_is_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
