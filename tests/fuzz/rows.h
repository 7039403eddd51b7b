/* rows.h: rows of anything in a journal's database, for targets: the input is a series of them: which table (a byte),
 * then a value for each of its columns. A value is one byte of a kind, and what that kind needs: the column's own right
 * value, null, a number, a word that has a meaning somewhere, or any text or bytes. The tables have no NOT NULL and no
 * checks, since a damaged file may hold what the schema forbids. A connection of its own puts the rows in place of
 * those of the last input.
 */
#ifndef TESTS_FUZZ_ROWS_H
#define TESTS_FUZZ_ROWS_H

#include <stdint.h>
#include <string.h>

#include "daemon/journal/store.h"
#include "tests/fuzz/memory_files.h"

enum { MOST_COLUMNS = 19, MOST_ROWS = 12, TABLES = 6 };

static const char request[] =
    "{\"job\":\"a\",\"task\":\"t2i\",\"params\":{\"prompt\":\"a\"},\"client\":\"a\",\"tensors\":{}}";
#define OF_NOTHING "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" /* SHA-256 of no bytes */
#define OF_ONE "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"     /* and of "a" */

/* What columns hold when all is well; a number as its digits, which SQLite makes a number of. NULL: null. */
static const struct {
    const char *name;
    const char *right[MOST_COLUMNS];
    int columns;
} tables[TABLES] = {
    {"jobs",
     {"1", "a", "a", "t2i", "a", "a", "queued", "1", NULL, NULL, "0", "0", NULL, NULL, NULL, "{}", "0", "a", request},
     19},
    {"holds", {"1", "result", OF_ONE}, 3},
    {"contents", {OF_ONE, "1", "a"}, 3},
    {"cache", {"a", OF_ONE, "1"}, 3},
    {"milestones", {"1", "2", "saved", "3"}, 4},
    {"dropped", {OF_NOTHING}, 1},
};

/* Words that mean something in one column or another. */
static const char *const words[] = {
    "a", "b", "1", "0", "-1", "queued", "running", "done", "failed", "cancelled", "request", "payload", "state",
    "result", OF_NOTHING, OF_ONE, "../journal.db", "lock", "9223372036854775807", "1e300", "t2i", "x2t_image", request,
    "{\"task\":\"x2t_image\",\"params\":{\"prompt\":\"a\"},"
    "\"tensors\":{\"source\":{\"blob\":\"" OF_ONE "\",\"dtype\":\"U8\",\"shape\":[1,1,1,3]}}}",
    "{\"steps\":2}", "bad_file", "\xff", "started", "saved", ""};
enum { WORDS = sizeof words / sizeof *words };

static struct {
    sqlite3 *database;
    sqlite3_stmt *begin, *commit, *clear[TABLES], *add[TABLES];
} rows;

static inline void rows_run(const char *sql)
{
    if (sqlite3_exec(rows.database, sql, NULL, NULL, NULL) != SQLITE_OK) {
        fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(rows.database));
        exit(1);
    }
}

static inline sqlite3_stmt *rows_compile(const char *sql)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(rows.database, sql, -1, &statement, NULL) != SQLITE_OK)
        rows_run(sql);
    return statement;
}

/* Make a journal in a folder, once, and have its tables take anything. Nobody else has it open. */
static inline void rows_open(const char *folder)
{
    static const struct journal_limits limits;
    char file[300], sql[200];
    struct store *store;
    struct error error;
    memory_files_begin();
    snprintf(file, sizeof file, "%s/journal.db", folder);
    memory_files_make_small(file);
    if (store_open(&store, folder, &limits, NULL, &error) != 0)
        abort();
    store_close(store);
    if (sqlite3_open(file, &rows.database) != SQLITE_OK)
        abort();
    sqlite3_db_config(rows.database, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    rows_run("PRAGMA temp_store = MEMORY; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
             "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '');"
             "DELETE FROM sqlite_master WHERE name = 'jobs_id'; PRAGMA writable_schema = RESET;"
             "PRAGMA ignore_check_constraints = ON;");
    rows.begin = rows_compile("BEGIN IMMEDIATE");
    rows.commit = rows_compile("COMMIT");
    for (int i = 0; i < TABLES; i++) {
        snprintf(sql, sizeof sql, "DELETE FROM %s", tables[i].name);
        rows.clear[i] = rows_compile(sql);
        snprintf(sql, sizeof sql, "INSERT OR REPLACE INTO %s VALUES (%.*s?)", tables[i].name,
                 2 * (tables[i].columns - 1), "?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,");
        rows.add[i] = rows_compile(sql);
    }
}

/* --- Rows ------------------------------------------------------------------------------- */

struct rows_input {
    const uint8_t *data;
    size_t bytes;
};

static inline uint8_t rows_byte(struct rows_input *input)
{
    if (input->bytes == 0)
        return 0;
    input->bytes--;
    return *input->data++;
}

static inline const void *rows_bytes(struct rows_input *input, size_t *bytes)
{
    const void *data = input->data;
    *bytes = rows_byte(input);
    data = input->data;
    *bytes = *bytes < input->bytes ? *bytes : input->bytes;
    input->data += *bytes;
    input->bytes -= *bytes;
    return data;
}

static inline int rows_bind_text(sqlite3_stmt *statement, int column, const char *text)
{
    return text ? sqlite3_bind_text(statement, column, text, -1, SQLITE_STATIC) : sqlite3_bind_null(statement, column);
}

static inline void rows_bind(struct rows_input *input, sqlite3_stmt *statement, int column, const char *right)
{
    size_t bytes;
    const void *data;
    double real;
    int64_t whole = 0;
    switch (rows_byte(input) % 8) {
    case 1: sqlite3_bind_null(statement, column); break;
    case 2: rows_bind_text(statement, column, words[rows_byte(input) % WORDS]); break;
    case 3: sqlite3_bind_int64(statement, column, (int8_t)rows_byte(input)); break;
    case 4:
        for (int i = 0; i < 8; i++)
            whole = (int64_t)((uint64_t)whole << 8 | rows_byte(input));
        memcpy(&real, &whole, sizeof real);
        if (whole & 1)
            sqlite3_bind_double(statement, column, real);
        else
            sqlite3_bind_int64(statement, column, whole);
        break;
    case 5:
        data = rows_bytes(input, &bytes);
        sqlite3_bind_text(statement, column, data, (int)bytes, SQLITE_TRANSIENT);
        break;
    case 6:
        data = rows_bytes(input, &bytes);
        sqlite3_bind_blob(statement, column, data, (int)bytes, SQLITE_TRANSIENT);
        break;
    default: rows_bind_text(statement, column, right); break;
    }
}

/* What cannot be a row even so is none. */
static inline void rows_step(sqlite3_stmt *statement)
{
    sqlite3_step(statement);
    sqlite3_reset(statement);
}

/* The rows of an input, and no others. */
static inline void rows_put(const uint8_t *data, size_t bytes)
{
    struct rows_input input = {data, bytes};
    rows_step(rows.begin);
    for (int i = 0; i < TABLES; i++)
        rows_step(rows.clear[i]);
    for (int row = 0; row < MOST_ROWS && input.bytes > 0; row++) {
        const int table = rows_byte(&input) % TABLES;
        for (int i = 0; i < tables[table].columns; i++)
            rows_bind(&input, rows.add[table], i + 1, tables[table].right[i]);
        rows_step(rows.add[table]);
    }
    rows_step(rows.commit);
    if (!sqlite3_get_autocommit(rows.database))
        abort();
}

#endif
