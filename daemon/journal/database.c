/* database.c: see database.h. */
#include "daemon/journal/database.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/utf8.h"

enum { APPLICATION_ID = 0x4c6e6364, BUSY_MS = 5000 }; /* "Lncd": what `file` may show, and what tells it from others' */

struct statement {
    sqlite3_stmt *query;
    struct statement *next;
};

struct database {
    sqlite3 *connection;
    struct statement *statements; /* all that were compiled */
};

/* What a job is, what it needs and what came of it. Times are seconds since 1970 as store.c counts them. Contents that
 * nothing holds any more delete themselves, and leave the names of their files in `dropped` until these are gone: the
 * count of references is a query, and stands here alone.
 *
 * Contents have a row's number, so that the index of their hashes is small: to compare keys in a table that is itself
 * the index, SQLite reads their data as well. */
#define CONTENTS "(hash TEXT PRIMARY KEY NOT NULL, bytes INTEGER NOT NULL, data BLOB);" /* no data: a file */
#define MILESTONES                                                                                                     \
    "CREATE TABLE milestones ("                                                                                        \
    "  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, at REAL NOT NULL, what TEXT NOT NULL, step INTEGER,"    \
    "  PRIMARY KEY (job, at, what)) WITHOUT ROWID;"
#define TRIGGERS                                                                                                       \
    "CREATE TRIGGER holds_gone AFTER DELETE ON holds BEGIN"                                                            \
    "  DELETE FROM contents WHERE hash = OLD.content AND NOT EXISTS (SELECT 1 FROM holds WHERE content = OLD.content)" \
    "    AND NOT EXISTS (SELECT 1 FROM cache WHERE content = OLD.content); END;"                                       \
    "CREATE TRIGGER cache_gone AFTER DELETE ON cache BEGIN"                                                            \
    "  DELETE FROM contents WHERE hash = OLD.content AND NOT EXISTS (SELECT 1 FROM holds WHERE content = OLD.content)" \
    "    AND NOT EXISTS (SELECT 1 FROM cache WHERE content = OLD.content); END;"                                       \
    "CREATE TRIGGER contents_gone AFTER DELETE ON contents WHEN OLD.data IS NULL BEGIN"                                \
    "  INSERT OR IGNORE INTO dropped VALUES (OLD.hash); END;"

static const char schema[] =
    "CREATE TABLE jobs ("
    "  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, digest TEXT NOT NULL, task TEXT NOT NULL, client "
    "TEXT,"
    "  prompt TEXT, state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),"
    "  submitted REAL NOT NULL, started REAL, ended REAL,"
    "  lives INTEGER NOT NULL DEFAULT 0,"    /* ends of the daemon that it has seen */
    "  attempts INTEGER NOT NULL DEFAULT 0," /* times that it was begun, or gone on with, and did not end */
    "  saved_step INTEGER, code TEXT, message TEXT, receipt TEXT, released INTEGER NOT NULL DEFAULT 0,"
    "  owner TEXT,"    /* the name of the token that it was submitted with */
    "  request TEXT);" /* until it ends; a long one is a content that it holds */
    "CREATE UNIQUE INDEX jobs_id ON jobs (id) WHERE released = 0;"
    "CREATE INDEX jobs_ended ON jobs (ended);"
    "CREATE TABLE contents " CONTENTS
    "CREATE TABLE holds ("
    "  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,"
    "  kind TEXT NOT NULL CHECK (kind IN ('request', 'payload', 'state', 'result')),"
    "  content TEXT NOT NULL REFERENCES contents, PRIMARY KEY (job, kind, content)) WITHOUT ROWID;"
    "CREATE INDEX holds_content ON holds (content);"
    "CREATE TABLE cache (digest TEXT PRIMARY KEY, content TEXT NOT NULL REFERENCES contents, used INTEGER NOT NULL) "
    "WITHOUT ROWID;"
    "CREATE INDEX cache_content ON cache (content);" MILESTONES
    "CREATE TABLE dropped (hash TEXT PRIMARY KEY) WITHOUT ROWID;" TRIGGERS;

/* From each schema to the next one, the first of them from 1 to 2; references are not enforced meanwhile. */
static const char *const changes[DATABASE_SCHEMA - 1] = {
    "ALTER TABLE jobs ADD COLUMN owner TEXT;",
    "ALTER TABLE jobs ADD COLUMN request TEXT; DROP INDEX jobs_unfinished; DROP INDEX cache_used;"
    "DROP TRIGGER holds_gone; DROP TRIGGER cache_gone; CREATE TABLE moved " CONTENTS
    "INSERT INTO moved SELECT hash, bytes, data FROM contents; DROP TABLE contents;"
    "ALTER TABLE moved RENAME TO contents;"
    "DROP INDEX milestones_job; ALTER TABLE milestones RENAME TO moved;" MILESTONES
    "INSERT OR IGNORE INTO milestones SELECT job, at, what, step FROM moved; DROP TABLE moved;" TRIGGERS,
};

/* The system's reason where SQLite has one, else its own. */
static int failed(sqlite3 *database, int result, struct error *error)
{
    const int code = result & 0xff;
    const int ours =
        code == SQLITE_NOMEM                              ? ERROR_NO_MEMORY
        : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? ERROR_BAD_FILE
        : code == SQLITE_BUSY || code == SQLITE_LOCKED    ? ERROR_BUSY
        : code == SQLITE_ERROR || code == SQLITE_MISUSE || code == SQLITE_CONSTRAINT || code == SQLITE_RANGE
            ? ERROR_INTERNAL
            : ERROR_IO;
    const char *path = database ? sqlite3_db_filename(database, "main") : NULL;
    const int reason = database ? sqlite3_system_errno(database) : 0;
    const bool of_the_system = reason != 0 && (code == SQLITE_IOERR || code == SQLITE_CANTOPEN);
    return error_set(error, ours, "journal %s: %s%s%s", path ? path : "",
                     database ? sqlite3_errmsg(database) : sqlite3_errstr(result), of_the_system ? ": " : "",
                     of_the_system ? strerror(reason) : "");
}

/* --- Statements --------------------------------------------------------------------------- */

/* A compiled one that is not in use. NULL: it cannot be compiled, or there is no memory. */
static sqlite3_stmt *take_statement(struct database *database, const char *sql, struct error *error)
{
    for (struct statement *kept = database->statements; kept; kept = kept->next)
        if (!sqlite3_stmt_busy(kept->query) && strcmp(sqlite3_sql(kept->query), sql) == 0)
            return kept->query;
    struct statement *statement = calloc(1, sizeof *statement);
    if (!statement) {
        error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
        return NULL;
    }
    int result =
        sqlite3_prepare_v3(database->connection, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement->query, NULL);
    if (result != SQLITE_OK) {
        failed(database->connection, result, error);
        free(statement);
        return NULL;
    }
    statement->next = database->statements;
    database->statements = statement;
    return statement->query;
}

static sqlite3_stmt *query_with(struct database *database, struct error *error, const char *sql, const char *kinds,
                                va_list values)
{
    sqlite3_stmt *query = take_statement(database, sql, error);
    if (!query)
        return NULL;
    int result = SQLITE_OK;
    for (int i = 0; result == SQLITE_OK && kinds[i] != '\0'; i++) {
        if (kinds[i] == 'i')
            result = sqlite3_bind_int64(query, i + 1, va_arg(values, int64_t));
        else if (kinds[i] == 'r')
            result = sqlite3_bind_double(query, i + 1, va_arg(values, double));
        else if (kinds[i] == 't')
            result = sqlite3_bind_text(query, i + 1, va_arg(values, const char *), -1, SQLITE_STATIC);
        else {
            const void *data = va_arg(values, const void *);
            result = sqlite3_bind_blob64(query, i + 1, data, va_arg(values, uint64_t), SQLITE_STATIC);
        }
    }
    if (result == SQLITE_OK)
        return query;
    failed(database->connection, result, error);
    database_done(query);
    return NULL;
}

sqlite3_stmt *database_query(struct database *database, struct error *error, const char *sql, const char *kinds, ...)
{
    va_list values;
    va_start(values, kinds);
    sqlite3_stmt *query = query_with(database, error, sql, kinds, values);
    va_end(values);
    return query;
}

int database_next(sqlite3_stmt *query, struct error *error)
{
    int result = sqlite3_step(query);
    if (result == SQLITE_ROW)
        return 1;
    return result == SQLITE_DONE ? 0 : failed(sqlite3_db_handle(query), result, error);
}

void database_done(sqlite3_stmt *query)
{
    sqlite3_reset(query);
    if (query)
        sqlite3_clear_bindings(query);
}

int database_run(struct database *database, struct error *error, const char *sql, const char *kinds, ...)
{
    va_list values;
    va_start(values, kinds);
    sqlite3_stmt *query = query_with(database, error, sql, kinds, values);
    va_end(values);
    if (!query)
        return error->code;
    int status = database_next(query, error);
    database_done(query);
    return status < 0 ? status : 0;
}

int database_number(struct database *database, const char *sql, int64_t missing, int64_t *number, struct error *error)
{
    *number = missing;
    sqlite3_stmt *query = database_query(database, error, sql, "");
    if (!query)
        return error->code;
    int status = database_next(query, error);
    if (status == 1 && sqlite3_column_type(query, 0) != SQLITE_NULL)
        *number = sqlite3_column_int64(query, 0);
    database_done(query);
    return status < 0 ? status : 0;
}

int database_script(struct database *database, const char *sql, struct error *error)
{
    int result = sqlite3_exec(database->connection, sql, NULL, NULL, NULL);
    return result == SQLITE_OK ? 0 : failed(database->connection, result, error);
}

char *column_copy(sqlite3_stmt *query, int column)
{
    const char *text = column_text(query, column);
    char *copy = text ? strdup(text) : NULL;
    if (copy && !utf8_is_valid(copy, strlen(copy)))
        utf8_make_line(copy);
    return copy;
}

/* --- The log ------------------------------------------------------------------------------ */

int database_sync(struct database *database, struct error *error)
{
    sqlite3_file *log = NULL;
    int result = sqlite3_file_control(database->connection, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (result == SQLITE_OK && log && log->pMethods)
        result = log->pMethods->xSync(log, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY);
    if (result == SQLITE_OK)
        return 0;
    return error_set(error, ERROR_IO, "journal %s: its log cannot be synced: %s",
                     sqlite3_db_filename(database->connection, "main"), sqlite3_errstr(result));
}

int database_copy_log(struct database *database, bool all, struct error *error)
{
    const int mode = all ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE;
    int result = sqlite3_wal_checkpoint_v2(database->connection, "main", mode, NULL, NULL);
    return result == SQLITE_OK || (result == SQLITE_BUSY && !all) ? 0 : failed(database->connection, result, error);
}

/* --- Opening ------------------------------------------------------------------------------ */

/* All that has changed since `version`, or nothing of it. */
static int change_schema(struct database *database, int version, struct error *error)
{
    char mark[60];
    int code = database_script(database, "BEGIN IMMEDIATE;", error);
    for (int i = version - 1; code == 0 && i < DATABASE_SCHEMA - 1; i++)
        code = database_script(database, changes[i], error);
    snprintf(mark, sizeof mark, "PRAGMA user_version = %d; COMMIT;", DATABASE_SCHEMA);
    return code != 0 ? code : database_script(database, mark, error);
}

/* A new file gets its schema, an older one what it lacks. */
static int judge_schema(struct database *database, const char *path, bool read_only, struct error *error)
{
    int64_t version, application, tables;
    int code = database_number(database, "PRAGMA user_version", 0, &version, error);
    if (code == 0)
        code = database_number(database, "PRAGMA application_id", 0, &application, error);
    if (code == 0)
        code = database_number(database, "SELECT count(*) FROM sqlite_master", 0, &tables, error);
    if (code != 0)
        return code;
    if (tables != 0 && application != APPLICATION_ID)
        return error_set(error, ERROR_BAD_FILE, "journal %s: is another program's database", path);
    if (version > DATABASE_SCHEMA)
        return error_set(error, ERROR_UNSUPPORTED,
                         "journal %s: was written by a newer lanced (schema %d; this one knows %d); use that "
                         "one, or another --state",
                         path, (int)version, DATABASE_SCHEMA);
    if (version == DATABASE_SCHEMA || read_only)
        return 0;
    if (version > 0)
        return change_schema(database, (int)version, error);
    char script[sizeof schema + 200];
    snprintf(script, sizeof script, "BEGIN; %s PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT;", schema,
             APPLICATION_ID, DATABASE_SCHEMA);
    return database_script(database, script, error);
}

static int open_connection(struct database *database, const char *path, bool read_only, struct error *error)
{
    const int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_READWRITE | (read_only ? 0 : SQLITE_OPEN_CREATE);
    int result = sqlite3_open_v2(path, &database->connection, flags, NULL);
    if (result != SQLITE_OK)
        return failed(database->connection, result, error);
    sqlite3_busy_timeout(database->connection, BUSY_MS);
    /* What would undo a record stays in memory, and no prompt in /var/tmp. Of pages SQLite would keep 2 MB for each
     * connection, most of them of contents that are read once; what a transaction has changed stays until its end all
     * the same: it is then that a disk may say no. */
    int code = database_script(database,
                               "PRAGMA temp_store = MEMORY; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; "
                               "PRAGMA cache_size = -256; PRAGMA cache_spill = OFF;",
                               error);
    if (code == 0 && read_only)
        code = database_script(database, "PRAGMA query_only = ON;", error);
    if (code == 0)
        code = judge_schema(database, path, read_only, error);
    return code != 0 ? code : database_script(database, "PRAGMA foreign_keys = ON;", error);
}

int database_open(struct database **out, const char *path, bool read_only, struct error *error)
{
    *out = NULL;
    struct database *database = calloc(1, sizeof *database);
    if (!database)
        return error_set(error, ERROR_NO_MEMORY, "journal: out of memory");
    int code = open_connection(database, path, read_only, error);
    if (code != 0) {
        database_close(database);
        return code;
    }
    *out = database;
    return 0;
}

void database_close(struct database *database)
{
    if (!database)
        return;
    for (struct statement *statement = database->statements, *next; statement; statement = next) {
        next = statement->next;
        sqlite3_finalize(statement->query);
        free(statement);
    }
    sqlite3_close(database->connection);
    free(database);
}

sqlite3 *database_connection(const struct database *database)
{
    return database->connection;
}
