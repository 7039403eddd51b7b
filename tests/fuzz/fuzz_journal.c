/* fuzz_journal.c: the database of a state folder (daemon/journal/), damaged: it opens or is refused with words, and so
 * is whatever is read from it. The input is the whole file; an empty one is a new folder. Most of what reads it is
 * SQLite; for rows with anything in them see fuzz_rows.c.
 */
#include <stdbool.h>
#include <sys/stat.h>

#include "daemon/journal/check.h"
#include "daemon/journal/store.h"
#include "daemon/log.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/read_journal.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const struct journal_limits limits = {.result_bytes = 1 << 20, .result_seconds = 60.0, .cache_bytes = 1 << 20};

/* The folder, made once: what the daemon makes in it is there already, and empty. */
static void open_folder(char folder[256], char file[PATH_MAX], FILE **nowhere)
{
    struct store *store;
    struct error error;
    snprintf(folder, 256, "%s/state", scratch());
    snprintf(file, PATH_MAX, "%s/journal.db", folder);
    *nowhere = fopen("/dev/null", "w");
    log_set_level(LOG_LEVEL_ERROR);
    memory_files_unwatched();
    memory_files_begin();
    if (!*nowhere || store_open(&store, folder, &limits, NULL, &error) != 0)
        abort();
    store_close(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static FILE *nowhere;
    static char folder[256], file[PATH_MAX];
    struct store *store = NULL;
    struct error error = {0};
    if (!nowhere)
        open_folder(folder, file, &nowhere);
    memory_files_forget();
    if (bytes > 0)
        memory_files_put(file, data, bytes);
    if (store_open(&store, folder, &limits, NULL, &error) != 0) {
        if (error.text[0] == '\0')
            abort();
        return 0;
    }
    read_journal(store);
    change_journal(store);
    store_close(store);
    journal_check(folder, &limits, nowhere, &error);
    return 0;
}
