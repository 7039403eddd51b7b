/* test_recorder.c: what a daemon takes up again from a state folder that is damaged. */
#include "tests/unit/jobs_fixture.h"

#include <sqlite3.h>
#include <unistd.h>

#include "daemon/journal/store.h"
#include "daemon/recorder.h"

static const struct journal_limits limits = {.result_bytes = 1 << 20, .result_seconds = 1000, .cache_bytes = 1 << 20};
static struct error error;

/* Two jobs that have not ended, of a folder `path`. */
static void accept_two(const char *path)
{
    struct store *store;
    assert_int_equal(store_open(&store, path, &limits, NULL, &error), 0);
    assert_int_equal(store_begin_batch(store, &error), 0);
    for (uint64_t number = 1; number <= 2; number++) {
        const struct store_job job = {.number = number,
                                      .id = number == 1 ? "a" : "b",
                                      .digest = "d",
                                      .task = "t2i",
                                      .request = "{\"task\":\"t2i\",\"params\":{\"prompt\":\"a fox\"}}"};
        assert_int_equal(store_accept(store, &job, &error), 0);
    }
    assert_int_equal(store_end_batch(store, &error), 0);
    store_close(store);
}

static void change_database(const char *path, const char *sql)
{
    sqlite3 *database;
    char file[100];
    snprintf(file, sizeof file, "%s/journal.db", path);
    assert_int_equal(sqlite3_open(file, &database), SQLITE_OK);
    assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(database);
}

/* No client could ask for it, and its name in a list of jobs may be nothing that a client can read. */
static void a_job_whose_id_is_damaged_has_failed_and_the_others_go_on(void **state)
{
    char folder[] = "/tmp/lanced-recorder-XXXXXX", path[sizeof folder + 16], command[sizeof folder + 16];
    const struct history_query failed = {.since = -1, .failed = true};
    struct recorder *recorder;
    struct job_status status;
    cJSON *list;
    bool more;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/state", folder);
    accept_two(path);
    change_database(path, "UPDATE jobs SET id = CAST(x'ff' AS TEXT) WHERE number = 1");
    struct jobs *jobs = open_table(&roomy);
    assert_int_equal(recorder_open(&recorder, path, &limits, jobs, &error), 0);
    assert_int_equal(recorder_recover(recorder, &error), 0);
    assert_true(jobs_find(jobs, "b", &status));
    list = jobs_list(jobs, 0, NULL, &more);
    assert_int_equal(cJSON_GetArraySize(list), 1);
    cJSON_Delete(list);
    recorder_close(recorder);
    jobs_close(jobs);
    jobs = open_table(&roomy);
    assert_int_equal(recorder_open(&recorder, path, &limits, jobs, &error), 0);
    assert_int_equal(recorder_history(recorder, &failed, &list, &more, &error), 0);
    assert_int_equal(cJSON_GetArraySize(list), 1);
    assert_non_null(strstr(json_text(cJSON_GetArrayItem(list, 0), "message"), "damaged"));
    cJSON_Delete(list);
    recorder_close(recorder);
    jobs_close(jobs);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_whose_id_is_damaged_has_failed_and_the_others_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
