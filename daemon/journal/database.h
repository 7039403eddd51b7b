/* database.h: the journal's SQLite database: opened, its schema made or judged, and statements run with their errors as
 * ours.
 *
 * Write-ahead log, synchronous=NORMAL: what was committed outlives the process, and the machine once database_sync has
 * returned. A database belongs to one thread at a time, but for database_sync; two may be open on one file, and readers
 * never wait for the writer. Statements stay compiled: compiling them was half of what a job cost.
 */
#ifndef LANCE_DATABASE_H
#define LANCE_DATABASE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct database;

enum { DATABASE_SCHEMA = 3 }; /* the version this lanced writes; PRAGMA user_version has the file's */

/* Open `path`. A new file gets the schema, unless `read_only`. Errors: ERROR_UNSUPPORTED (of a newer lanced),
 * ERROR_BAD_FILE (no database, damaged, another program's), ERROR_IO, ERROR_NO_MEMORY. */
int database_open(struct database **out, const char *path, bool read_only, struct error *error);
void database_close(struct database *database); /* NULL is allowed */

/* SQLite's own, for what has no function here. */
sqlite3 *database_connection(const struct database *database);

/* A statement with its parameters: one letter of `kinds` for each: 'i' int64_t, 'r' double, 't' const char * (NULL
 * allowed), 'b' const void * and uint64_t. Texts and bytes are borrowed until database_done. NULL on failure, which
 * `error` tells. `sql` is one of few texts: each is kept, compiled, until the database is closed. */
sqlite3_stmt *database_query(struct database *database, struct error *error, const char *sql, const char *kinds, ...);

/* No more rows are wanted. NULL is allowed. */
void database_done(sqlite3_stmt *query);

/* The next row: 1, or 0 when there is none; or an error code, negative. */
int database_next(sqlite3_stmt *query, struct error *error);

/* A statement without rows, from database_query to database_done. */
int database_run(struct database *database, struct error *error, const char *sql, const char *kinds, ...);

/* The first column of the first row; `missing` without one. ERROR_IO and so on as above. */
int database_number(struct database *database, const char *sql, int64_t missing, int64_t *number, struct error *error);

/* Statements without parameters, several in a row; none is kept. */
int database_script(struct database *database, const char *sql, struct error *error);

/* All that was committed before this was called is on the disk. One thread at a time, beside one that uses the
 * database. ERROR_IO: who knows what the log has lost; only a copy of all of it tells. */
int database_sync(struct database *database, struct error *error);

/* Copy what the log has into the database, and have it begin anew: `all` of it, or what no reader is at. Syncs both. */
int database_copy_log(struct database *database, bool all, struct error *error);

/* A column as text, NULL for null; until the next row. */
static inline const char *column_text(sqlite3_stmt *query, int column)
{
    return (const char *)sqlite3_column_text(query, column);
}

/* A copy of it, malloc'ed: where a damaged database has bytes that are no UTF-8, one line with '?' for them. NULL for
 * null, and when memory ran out. */
char *column_copy(sqlite3_stmt *query, int column);

/* The text, empty for null: a damaged database has that also where its schema forbids it. */
static inline const char *column_text_or_empty(sqlite3_stmt *query, int column)
{
    const char *text = column_text(query, column);
    return text ? text : "";
}

#endif
