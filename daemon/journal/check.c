/* check.c: see check.h. */
#include "daemon/journal/check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/journal/database.h"
#include "daemon/journal/store.h"

/* Before anything is opened, since opening changes an older one. */
static int print_schema(const char *path, FILE *out, struct error *error)
{
    char *file;
    struct stat info;
    if (asprintf(&file, "%s/journal.db", path) < 0)
        return error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
    int code = 0;
    int64_t version = 0;
    if (stat(path, &info) != 0)
        code = error_set(error, ERROR_BAD_FILE, "state folder %s: is not there", path);
    else if (stat(file, &info) != 0)
        fprintf(out, "schema: none yet; the next start makes schema %d\n", DATABASE_SCHEMA);
    else {
        struct database *database;
        code = database_open(&database, file, true, error);
        if (code == 0) {
            code = database_number(database, "PRAGMA user_version", 0, &version, error);
            database_close(database);
        }
        if (code == 0)
            fprintf(out, "schema: %" PRId64 "; this lanced uses %d, %s\n", version, DATABASE_SCHEMA,
                    version == DATABASE_SCHEMA
                        ? "nothing is to be changed"
                        : "it is changed to that now, and no older lanced can use it any more");
    }
    free(file);
    return code;
}

/* SQLite's own check, that every reference leads somewhere, and that jobs are numbered from 1 on. */
static int check_database(struct database *reader, FILE *out, int *faults, struct error *error)
{
    static const char *const checks[] = {
        "PRAGMA integrity_check", "PRAGMA foreign_key_check",
        "SELECT 'a job has the number ' || number FROM jobs WHERE number < 1"};
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        sqlite3_stmt *query = database_query(reader, error, checks[i], "");
        int status = query ? 0 : error->code;
        while (status == 0 && (status = database_next(query, error)) == 1) {
            status = 0;
            if (i == 0 && strcmp(column_text_or_empty(query, 0), "ok") == 0)
                continue;
            fprintf(out, "damaged: the database: %s\n", column_text_or_empty(query, 0));
            ++*faults;
            if (*faults > 100)
                break;
        }
        database_done(query);
        if (status < 0)
            return status;
    }
    return 0;
}

/* Every content has the bytes of its name. */
static int check_contents(struct store *store, FILE *out, int *faults, struct error *error)
{
    struct database *reader = store_borrow_reader(store);
    sqlite3_stmt *query = database_query(reader, error, "SELECT hash FROM contents", "");
    int status = query ? database_next(query, error) : error->code, count = 0;
    char(*names)[SHA256_HEX_BYTES] = NULL;
    for (; status == 1; status = database_next(query, error)) {
        void *more = count % 1024 == 0 ? realloc(names, (size_t)(count + 1024) * sizeof *names) : names;
        if (!more) {
            status = error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
            break;
        }
        names = more;
        snprintf(names[count++], sizeof *names, "%s", column_text_or_empty(query, 0));
    }
    database_done(query);
    store_return_reader(store);
    for (int i = 0; status == 0 && i < count; i++) {
        struct error why;
        void *data = NULL;
        uint64_t bytes = 0;
        char found[SHA256_HEX_BYTES] = "";
        if (store_read_content(store, names[i], &data, &bytes, &why) != 0) {
            fprintf(out, "damaged: %s\n", why.text);
            ++*faults;
            continue;
        }
        sha256_of(data, bytes, found);
        if (strcmp(found, names[i]) != 0) {
            fprintf(out, "damaged: content %.12s has other bytes than its name says\n", names[i]);
            ++*faults;
        }
        free(data);
    }
    free(names);
    return status;
}

static void print_sizes(const struct store_sizes *sizes, const struct journal_limits *limits, FILE *out)
{
    fprintf(out, "jobs: %" PRIu64 ", of which %" PRIu64 " were accepted and have not ended\n", sizes->jobs,
            sizes->unfinished);
    fprintf(out, "contents: %" PRIu64 " with %.1f MB\n", sizes->contents, (double)sizes->content_bytes / 1e6);
    fprintf(out, "results waiting for their clients: %" PRIu64 " with %.1f MB of %.1f MB, for %.1f days at most\n",
            sizes->results, (double)sizes->result_bytes / 1e6, (double)limits->result_bytes / 1e6,
            limits->result_seconds / 86400);
    fprintf(out, "results kept for the same request: %" PRIu64 " with %.1f MB of %.1f MB\n", sizes->cached,
            (double)sizes->cached_bytes / 1e6, (double)limits->cache_bytes / 1e6);
}

int journal_check(const char *path, const struct journal_limits *limits, FILE *out, struct error *error)
{
    int faults = 0;
    struct store *store = NULL;
    struct store_sizes sizes;
    int code = print_schema(path, out, error);
    if (code == 0)
        code = store_open(&store, path, limits, NULL, error);
    if (code == 0) {
        code = check_database(store_borrow_reader(store), out, &faults, error);
        store_return_reader(store);
    }
    if (code == 0)
        code = check_contents(store, out, &faults, error);
    if (code == 0)
        code = store_sizes(store, &sizes, error);
    if (code == 0)
        print_sizes(&sizes, limits, out);
    store_close(store);
    if (code == 0 && faults > 0)
        code = error_set(error, ERROR_BAD_FILE, "state folder %s: %d faults were found", path, faults);
    if (code == 0)
        fprintf(out, "whole: nothing is missing or damaged\n");
    return code;
}
