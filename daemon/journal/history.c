/* history.c: see history.h. */
#include "daemon/journal/history.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/journal/database.h"
#include "daemon/journal/store.h"

static const char history_sql[] =
    "SELECT number, id, task, state, client, prompt, submitted, started, ended, attempts, code, message, released,"
    " EXISTS (SELECT 1 FROM holds WHERE job = number AND kind = 'result'), receipt, owner FROM jobs"
    " WHERE (? = 0 OR number < ?) AND (? IS NULL OR owner = ?) AND (? < 0 OR submitted >= ?)"
    " AND (? IS NULL OR task = ?) AND (? IS NULL OR prompt LIKE ? ESCAPE '\\')"
    " AND (? = 0 OR state = 'failed') ORDER BY number DESC LIMIT ?";

static const char milestones_sql[] =
    "SELECT at, what, step FROM (SELECT * FROM milestones WHERE job = ? ORDER BY at DESC, what LIMIT ?)"
    " ORDER BY at, what DESC";

static void add_text(cJSON *entry, const char *name, sqlite3_stmt *query, int column)
{
    char *text = column_copy(query, column);
    const bool is_copied = text || sqlite3_column_type(query, column) == SQLITE_NULL;
    json_add(entry, name, is_copied ? json_from_text(text) : NULL);
    free(text);
}

static void add_number(cJSON *entry, const char *name, sqlite3_stmt *query, int column)
{
    if (sqlite3_column_type(query, column) == SQLITE_NULL)
        json_add_null(entry, name);
    else
        json_add_number(entry, name, sqlite3_column_double(query, column));
}

/* Receipts were written by a daemon; the bound is for a file that something else has changed. */
static void add_receipt(cJSON *entry, const char *text)
{
    static const struct json_limits limits = {1 << 22, 1 << 16, ERROR_BAD_FILE, ERROR_BAD_FILE};
    cJSON *receipt = NULL;
    struct error unused;
    if (text && json_parse(&receipt, text, strlen(text), &limits, "receipt", &unused) == 0)
        json_add(entry, "receipt", receipt);
    else
        json_add_null(entry, "receipt");
}

static void add_owner(cJSON *entry, sqlite3_stmt *query, int column)
{
    if (column_text_or_empty(query, column)[0] != '\0')
        add_text(entry, "owner", query, column);
    else
        json_add_null(entry, "owner");
}

/* The last ones, the oldest first: when it was begun or gone on with, put aside, and saved last, with the step. */
static int add_milestones(cJSON *entry, struct database *reader, int64_t number, struct error *error)
{
    int status = 1;
    cJSON *all = json_array();
    sqlite3_stmt *query =
        database_query(reader, error, milestones_sql, "ii", number, (int64_t)HISTORY_MOST_MILESTONES);
    if (!query)
        status = error->code;
    while (status == 1 && (status = database_next(query, error)) == 1) {
        cJSON *milestone = json_object();
        add_number(milestone, "at", query, 0);
        add_text(milestone, "what", query, 1);
        if (sqlite3_column_int(query, 2) > 0)
            add_number(milestone, "step", query, 2);
        json_append(all, milestone);
    }
    database_done(query);
    json_add(entry, "milestones", all);
    return status;
}

static cJSON *read_job(sqlite3_stmt *query)
{
    cJSON *entry = json_object();
    add_number(entry, "number", query, 0);
    add_text(entry, "job", query, 1);
    add_text(entry, "task", query, 2);
    add_text(entry, "state", query, 3);
    add_owner(entry, query, 15);
    add_text(entry, "client", query, 4);
    add_text(entry, "prompt", query, 5);
    add_number(entry, "submitted", query, 6);
    add_number(entry, "started", query, 7);
    add_number(entry, "ended", query, 8);
    add_number(entry, "attempts", query, 9);
    add_text(entry, "code", query, 10);
    add_text(entry, "message", query, 11);
    json_add_bool(entry, "result", sqlite3_column_int(query, 13) != 0);
    return entry;
}

/* A part of a text as LIKE wants it: %TEXT% with what means something there escaped. NULL: out of memory. */
static char *pattern_of(const char *part)
{
    char *pattern = malloc(2 * strlen(part) + 3), *out = pattern;
    if (!pattern)
        return NULL;
    *out++ = '%';
    for (; *part != '\0'; part++) {
        if (strchr("%_\\", *part))
            *out++ = '\\';
        *out++ = *part;
    }
    strcpy(out, "%");
    return pattern;
}

/* What of a job may be long. */
static uint64_t text_bytes(sqlite3_stmt *query, bool receipts)
{
    return (uint64_t)sqlite3_column_bytes(query, 5) + (uint64_t)sqlite3_column_bytes(query, 11) +
           (receipts ? (uint64_t)sqlite3_column_bytes(query, 14) : 0);
}

static int read_all(struct database *reader, sqlite3_stmt *query, bool receipts, cJSON *jobs, bool *more,
                    struct error *error)
{
    const int most = receipts ? HISTORY_MOST_RECEIPTS : HISTORY_MOST;
    uint64_t bytes = 0;
    int code;
    for (int count = 0; (code = database_next(query, error)) == 1; count++) {
        bytes += text_bytes(query, receipts);
        *more = count == most || (count > 0 && bytes > HISTORY_TEXT_BYTES);
        if (*more)
            return 0;
        cJSON *entry = read_job(query);
        if (receipts) {
            add_receipt(entry, column_text(query, 14));
            code = add_milestones(entry, reader, sqlite3_column_int64(query, 0), error);
        }
        json_append(jobs, entry);
        if (receipts && code != 0)
            return code;
    }
    return code;
}

int history_read(struct store *store, const struct history_query *query, cJSON **jobs, bool *more, struct error *error)
{
    const char *task = query->task;
    char *pattern = query->prompt ? pattern_of(query->prompt) : NULL;
    *more = false;
    *jobs = NULL;
    if (query->prompt && !pattern)
        return error_set(error, ERROR_NO_MEMORY, "history: out of memory");
    const int64_t before = query->before < INT64_MAX ? (int64_t)query->before : INT64_MAX;
    struct database *reader = store_borrow_reader(store);
    sqlite3_stmt *statement =
        database_query(reader, error, history_sql, "iittrrttttii", before, before, query->owner, query->owner,
                       query->since, query->since, task, task,
                       pattern, pattern, (int64_t)query->failed, (int64_t)(HISTORY_MOST + 1));
    int status = statement ? 0 : error->code;
    *jobs = json_array();
    if (status == 0)
        status = read_all(reader, statement, query->receipts, *jobs, more, error);
    database_done(statement);
    store_return_reader(store);
    free(pattern);
    if (status == 0 && !json_is_complete(*jobs))
        status = error_set(error, ERROR_NO_MEMORY, "history: out of memory");
    if (status != 0) {
        cJSON_Delete(*jobs);
        *jobs = NULL;
    }
    return status;
}
