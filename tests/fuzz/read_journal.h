/* read_journal.h: all that a daemon reads from a state folder that somebody else may have written, for targets: jobs
 * that have not ended with what they need, results, the cache, the history; and what it changes there by itself. */
#ifndef TESTS_FUZZ_READ_JOURNAL_H
#define TESTS_FUZZ_READ_JOURNAL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/journal/history.h"
#include "daemon/journal/store.h"
#include "daemon/request_record.h"

/* A failure has words; of a code that means a fault of lanced itself there is none. */
static inline void check_words(int code, const struct error *error)
{
    if (code > 0 || error->text[0] == '\0')
        abort();
}

static inline void read_and_free(int code, void *bytes, const struct error *error)
{
    if (code == 0)
        free(bytes);
    else
        check_words(code, error);
}

static inline int fetch_payload(void *context, const char *sha256, struct blob **blob, struct error *error)
{
    void *data;
    uint64_t bytes;
    const int code = store_read_content(context, sha256, &data, &bytes, error);
    if (code != 0)
        return code;
    *blob = blob_open(data, bytes);
    snprintf((*blob)->sha256, sizeof(*blob)->sha256, "%s", sha256);
    return 0;
}

/* What is done with a job that has not ended: its request is made again, its state is looked for. */
static inline int read_unfinished(void *context, const struct store_found *found)
{
    struct store *store = context;
    struct job_request *request = NULL;
    struct error error = {0};
    void *data = NULL;
    uint64_t bytes;
    if (!found->id || !found->digest || !found->task || !found->state)
        abort(); /* whoever reads a job relies on these */
    int code = store_read(store, found->number, "request", &data, &bytes, &error);
    if (code == 0) {
        code = request_record_read(&request, data, fetch_payload, store, &error);
        free(data);
    }
    if (code != 0)
        check_words(code, &error);
    job_request_close(request);
    error = (struct error){0};
    code = store_read(store, found->number, "state", &data, &bytes, &error);
    read_and_free(code, data, &error);
    return 0;
}

static inline void read_history(struct store *store, const struct history_query *query)
{
    static const struct json_limits limits = {8 << 20, 1 << 20, ERROR_BAD_FILE, ERROR_BAD_FILE};
    cJSON *jobs, *again = NULL;
    bool more;
    struct error error = {0};
    const int code = history_read(store, query, &jobs, &more, &error);
    if (code != 0) {
        check_words(code, &error);
        return;
    }
    char *text = json_print(jobs);
    if (!text || json_parse(&again, text, strlen(text), &limits, "history", &error) != 0)
        abort(); /* no client could read the answer */
    cJSON_free(text);
    cJSON_Delete(again);
    cJSON_Delete(jobs);
}

static inline void read_journal(struct store *store)
{
    static const char name[] = "a"; /* of a job and of a digest */
    uint64_t number, bytes;
    struct store_sizes sizes;
    struct store_found found;
    struct error error = {0};
    void *data = NULL;
    int code = store_last_number(store, &number, &error);
    if (code == 0)
        code = store_sizes(store, &sizes, &error);
    if (code == 0)
        code = store_unfinished(store, read_unfinished, store, &error);
    if (code != 0)
        check_words(code, &error);
    error = (struct error){0};
    code = store_find(store, name, &found, &error);
    if (code == 0) {
        if (!found.state || strcmp(found.id, name) != 0)
            abort();
        code = store_read(store, found.number, "result", &data, &bytes, &error);
        read_and_free(code, data, &error);
        store_found_clear(&found);
    } else {
        check_words(code, &error);
    }
    error = (struct error){0};
    code = store_cached(store, name, &data, &bytes, &error);
    read_and_free(code, data, &error);
    read_history(store, &(struct history_query){.since = -1, .receipts = true});
    read_history(store, &(struct history_query){.since = 1, .owner = "a", .task = "t2i", .prompt = "a"});
}

/* What a daemon that runs does without being asked. */
static inline void change_journal(struct store *store)
{
    struct error error = {0};
    int code = store_begin_batch(store, &error);
    if (code == 0) {
        code = store_sweep(store, &error);
        struct error end = {0};
        const int ended = store_end_batch(store, &end);
        if (ended != 0)
            check_words(ended, &end);
    }
    if (code != 0)
        check_words(code, &error);
    store_tidy(store);
}

#endif
