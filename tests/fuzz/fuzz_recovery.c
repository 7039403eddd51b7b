/* fuzz_recovery.c: a daemon that starts with a journal whose rows say anything (rows.h): jobs are taken up or have
 * failed, and clients ask for those that are over.
 */
#include <stdbool.h>
#include <sys/stat.h>

#include "base/json.h"
#include "daemon/jobs/jobs.h"
#include "daemon/log.h"
#include "daemon/recorder.h"
#include "tests/fuzz/rows.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What a client is told it can read. */
static void check_json(const cJSON *told)
{
    static const struct json_limits limits = {8 << 20, 1 << 20, ERROR_BAD_FILE, ERROR_BAD_FILE};
    cJSON *again = NULL;
    struct error error;
    char *text = json_print(told);
    if (!text || json_parse(&again, text, strlen(text), &limits, "answer", &error) != 0)
        abort();
    cJSON_free(text);
    cJSON_Delete(again);
}

static void ask(struct jobs *jobs, struct recorder *recorder)
{
    static const char *const ids[] = {"a", "b"};
    struct error error;
    bool more, parked;
    recorder_recall(recorder, ids[0], NULL);
    recorder_recall(recorder, ids[1], "a");
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        struct blob *result;
        struct job_news news = {0};
        if (jobs_result(jobs, ids[i], &result, &error) == 0)
            blob_close(result);
        if (jobs_news(jobs, ids[i], 0, NULL, &parked, &news, &error) == 0 && news.events)
            check_json(news.events);
        job_news_clear(&news);
    }
    cJSON *list = jobs_list(jobs, 0, NULL, &more);
    check_json(list);
    cJSON_Delete(list);
    list = recorder_stats(recorder);
    check_json(list);
    cJSON_Delete(list);
}

/* As the worker does with the first job, and with its result. */
static void work(struct recorder *recorder)
{
    const struct attempts *attempts = recorder_attempts(recorder);
    const struct kept_results *kept = recorder_kept_results(recorder);
    struct error error = {0};
    void *state = NULL;
    size_t bytes;
    int attempt;
    if (attempts->start(attempts->context, 1, &state, &bytes, &attempt, &error) == 0)
        free(state);
    else if (error.text[0] == '\0')
        abort();
    blob_close(kept->find(kept->context, "a"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct journal_limits limits = {.result_bytes = 2, .result_seconds = 1e9, .cache_bytes = 2};
    static const struct jobs_limits few = {
        .queue = 4, .queue_bytes = 1 << 16, .results = 2, .result_bytes = 1 << 16, .result_seconds = 1000};
    static char folder[256];
    struct recorder *recorder;
    struct jobs *jobs;
    struct error error = {0};
    if (folder[0] == '\0') {
        log_set_level(LOG_LEVEL_ERROR);
        memory_files_unwatched();
        snprintf(folder, sizeof folder, "%s/state", scratch());
        rows_open(folder);
    }
    rows_put(data, bytes);
    if (jobs_open(&jobs, &few, &error) != 0)
        abort();
    if (recorder_open(&recorder, folder, &limits, jobs, &error) == 0) {
        if (recorder_recover(recorder, &error) == 0) {
            ask(jobs, recorder);
            work(recorder);
            recorder_release(recorder, "a", "a");
        } else if (error.text[0] == '\0') {
            abort();
        }
        recorder_close(recorder);
    } else if (error.text[0] == '\0') {
        abort();
    }
    jobs_close(jobs);
    return 0;
}
