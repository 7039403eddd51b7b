/* test_journal.c: the thread that writes: what it tells whom, in which order, and what becomes of ends when the disk is
 * full. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/journal/journal.h"
#include "daemon/journal/store.h"

enum { LARGE = 300000, JOBS = 200 };

static const struct journal_limits limits = {.result_bytes = 1 << 30, .result_seconds = 1e6};
static char folder[] = "/tmp/lanced-journal-XXXXXX";
static struct store *store;
static struct journal *journal;
static struct error error;
static struct blob *large;

static void reopen(void)
{
    journal_close(journal);
    store_close(store);
    assert_int_equal(store_open(&store, folder, &limits, NULL, &error), 0);
    assert_int_equal(journal_open(&journal, store, &error), 0);
}

static int open_all(void **state)
{
    (void)state;
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    store = NULL;
    journal = NULL;
    reopen();
    large = blob_open(calloc(1, LARGE), LARGE);
    return 0;
}

static int close_all(void **state)
{
    char command[sizeof folder + 16];
    (void)state;
    journal_close(journal);
    store_close(store);
    blob_close(large);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

/* What became of a record: 1 is not known yet. */
struct outcome {
    atomic_int code;
    atomic_int place; /* among all that were told */
};
static atomic_int told;

static void note(void *context, uint64_t number, const struct error *failure)
{
    (void)number;
    struct outcome *outcome = context;
    atomic_store(&outcome->place, atomic_fetch_add(&told, 1));
    atomic_store(&outcome->code, failure->code);
}

static int wait_for(struct outcome *outcome)
{
    while (atomic_load(&outcome->code) == 1)
        usleep(100);
    return atomic_load(&outcome->code);
}

/* What the system does for SQLite and for lanced, unless it is to fail. */
static atomic_bool syncs_fail;

int fsync(int file)
{
    errno = EIO;
    return atomic_load(&syncs_fail) ? -1 : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file)
{
    return fsync(file);
}

static atomic_uint_fast64_t last_written;

static void note_written(void *context, uint64_t number)
{
    const struct outcome *outcome = context;
    assert_int_equal(atomic_load(&outcome->code), 1); /* before it is told to last */
    atomic_store(&last_written, number);
}

static void accept(uint64_t number, struct outcome *outcome, bool with_payload)
{
    char id[20];
    struct journal_payload payload = {.bytes = large};
    snprintf(id, sizeof id, "job-%llu", (unsigned long long)number);
    sha256_of(large->data, large->bytes, payload.sha256);
    const struct journal_job job = {.number = number,
                                    .id = id,
                                    .digest = "d",
                                    .task = "t2i",
                                    .request = "{}",
                                    .payloads = &payload,
                                    .payload_count = with_payload};
    *outcome = (struct outcome){1, 0};
    if (journal_accept(journal, &job, note_written, note, outcome, &error) != 0)
        fail_msg("%s", error.text);
}

static void all_that_is_handed_over_lasts_and_is_told_in_order(void **state)
{
    static struct outcome outcomes[JOBS];
    (void)state;
    atomic_store(&told, 0);
    for (uint64_t i = 0; i < JOBS; i++)
        accept(i + 1, &outcomes[i], i % 10 == 0);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(wait_for(&outcomes[i]), 0);
        assert_int_equal(outcomes[i].place, i);
    }
    struct journal_stats stats;
    journal_stats(journal, &stats);
    assert_int_equal(stats.records, JOBS);
    assert_int_equal(stats.waiting, 0);
    assert_true(stats.transactions < JOBS); /* those that waited together were written together */
    reopen();
    struct store_found found;
    assert_int_equal(store_find(store, "job-200", &found, &error), 0);
    store_found_clear(&found);
}

static void what_is_told_to_have_begun_counts_as_an_attempt(void **state)
{
    struct outcome outcome;
    struct store_attempt attempt;
    struct store_found found;
    (void)state;
    accept(1, &outcome, false);
    assert_int_equal(wait_for(&outcome), 0);
    assert_int_equal(atomic_load(&last_written), 1);
    assert_int_equal(journal_start(journal, 1, &attempt, &error), 0);
    assert_int_equal(attempt.number, 1);
    assert_false(attempt.has_state);
    assert_int_equal(store_find(store, "job-1", &found, &error), 0);
    assert_int_equal(found.attempts, 1);
    assert_string_equal(found.state, "running");
    store_found_clear(&found);
}

static void closing_writes_what_was_handed_over(void **state)
{
    struct outcome outcome;
    struct store_found found;
    const struct journal_end end = {.state = "done", .result = large, .cache_digest = NULL};
    (void)state;
    accept(1, &outcome, true);
    journal_save(journal, 1, 3, blob_share(large));
    assert_int_equal(journal_end(journal, 1, &end, NULL, NULL, &error), 0);
    reopen();
    assert_int_equal(store_find(store, "job-1", &found, &error), 0);
    assert_string_equal(found.state, "done");
    assert_int_equal(found.result_bytes, LARGE);
    store_found_clear(&found);
}

static void what_nobody_waits_for_is_synced_a_little_later(void **state)
{
    struct outcome outcome;
    struct journal_stats before, after;
    struct store_attempt attempt;
    (void)state;
    accept(1, &outcome, false);
    assert_int_equal(wait_for(&outcome), 0);
    journal_stats(journal, &before);
    assert_int_equal(journal_start(journal, 1, &attempt, &error), 0);
    do {
        usleep(1000);
        journal_stats(journal, &after);
    } while (after.syncs == before.syncs);
    assert_int_equal(after.transactions, before.transactions + 1);
}

static void a_release_is_written_with_what_comes_next_or_a_little_later(void **state)
{
    enum { PAIRS = 20 };
    struct outcome outcome;
    struct journal_stats before, after;
    struct store_found found;
    (void)state;
    accept(1, &outcome, false);
    assert_int_equal(wait_for(&outcome), 0);
    journal_stats(journal, &before);
    for (uint64_t i = 1; i <= PAIRS; i++) {
        journal_release(journal, i);
        assert_true(journal_releases(journal, i));
        usleep(5000);
        accept(i + 1, &outcome, false);
        assert_int_equal(wait_for(&outcome), 0);
    }
    journal_stats(journal, &after);
    assert_int_equal(after.records, before.records + 2 * PAIRS);
    assert_true(after.transactions < before.transactions + PAIRS * 3 / 2); /* all, were the machine never busy */
    journal_release(journal, PAIRS + 1);
    while (journal_releases(journal, PAIRS + 1))
        usleep(1000);
    assert_int_equal(store_find(store, "job-21", &found, &error), ERROR_NOT_FOUND);
}

static void a_job_that_may_not_last_is_told_so_and_its_id_may_be_taken_again(void **state)
{
    struct outcome outcome;
    struct store_found found;
    (void)state;
    atomic_store(&syncs_fail, true);
    accept(1, &outcome, false);
    assert_int_equal(wait_for(&outcome), ERROR_IO);
    assert_int_equal(atomic_load(&last_written), 1);
    assert_int_equal(store_find(store, "job-1", &found, &error), ERROR_NOT_FOUND);
    atomic_store(&syncs_fail, false);
    accept(2, &outcome, false);
    assert_int_equal(wait_for(&outcome), 0);
    reopen();
    assert_int_equal(store_find(store, "job-1", &found, &error), ERROR_NOT_FOUND);
    assert_int_equal(store_find(store, "job-2", &found, &error), 0);
    store_found_clear(&found);
}

static void an_end_that_may_not_last_is_told_so_and_lasts_when_the_disk_is_well(void **state)
{
    struct outcome outcome, ended = {1, 0};
    struct store_found found;
    const struct journal_end end = {.state = "done", .result = large};
    (void)state;
    accept(1, &outcome, true); /* the result has the bytes of the payload: no file is written for it */
    assert_int_equal(wait_for(&outcome), 0);
    atomic_store(&syncs_fail, true);
    assert_int_equal(journal_end(journal, 1, &end, note, &ended, &error), 0);
    assert_int_equal(wait_for(&ended), ERROR_IO);
    atomic_store(&syncs_fail, false);
    reopen();
    assert_int_equal(store_find(store, "job-1", &found, &error), 0);
    assert_string_equal(found.state, "done");
    assert_int_equal(found.result_bytes, LARGE);
    store_found_clear(&found);
}

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void a_result_that_has_no_room_leaves_the_end_of_its_job(void **state)
{
    struct outcome outcome;
    struct store_found found;
    struct blob *result = blob_open(malloc(10 * LARGE), 10 * LARGE);
    const struct journal_end end = {.state = "done", .result = result};
    (void)state;
    memset(result->data, 7, result->bytes);
    accept(1, &outcome, false);
    assert_int_equal(wait_for(&outcome), 0);
    limit_files(8 * LARGE); /* the log of the database has room, the result has not */
    outcome.code = 1;
    assert_int_equal(journal_end(journal, 1, &end, note, &outcome, &error), 0);
    assert_int_equal(wait_for(&outcome), 0);
    limit_files(RLIM_INFINITY);
    assert_int_equal(store_find(store, "job-1", &found, &error), 0);
    assert_string_equal(found.state, "done");
    assert_int_equal(found.result_bytes, 0);
    store_found_clear(&found);
    blob_close(result);
}

static void an_end_that_a_full_disk_refused_is_written_when_there_is_room_again(void **state)
{
    struct outcome outcome, ended = {1, 0};
    struct store_found found;
    const struct journal_end end = {.state = "done", .result = large};
    (void)state;
    accept(1, &outcome, false);
    assert_int_equal(wait_for(&outcome), 0);
    limit_files(1);
    assert_int_equal(journal_end(journal, 1, &end, note, &ended, &error), 0);
    assert_int_equal(wait_for(&ended), ERROR_IO);
    accept(2, &outcome, false);
    assert_int_equal(wait_for(&outcome), ERROR_IO);
    limit_files(RLIM_INFINITY);
    reopen();
    assert_int_equal(store_find(store, "job-1", &found, &error), 0);
    assert_string_equal(found.state, "done");
    store_found_clear(&found);
    assert_int_equal(store_find(store, "job-2", &found, &error), ERROR_NOT_FOUND);
}

int main(void)
{
    signal(SIGXFSZ, SIG_IGN);
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)
    const struct CMUnitTest tests[] = {
        TEST(all_that_is_handed_over_lasts_and_is_told_in_order),
        TEST(what_is_told_to_have_begun_counts_as_an_attempt),
        TEST(closing_writes_what_was_handed_over),
        TEST(what_nobody_waits_for_is_synced_a_little_later),
        TEST(a_release_is_written_with_what_comes_next_or_a_little_later),
        TEST(a_job_that_may_not_last_is_told_so_and_its_id_may_be_taken_again),
        TEST(an_end_that_may_not_last_is_told_so_and_lasts_when_the_disk_is_well),
        TEST(a_result_that_has_no_room_leaves_the_end_of_its_job),
        TEST(an_end_that_a_full_disk_refused_is_written_when_there_is_room_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
