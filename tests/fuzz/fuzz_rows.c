/* fuzz_rows.c: a journal whose rows say anything (rows.h): what the store reads, makes requests of, sweeps and lists.
 * The store stays open.
 */
#include <stdbool.h>
#include <sys/stat.h>

#include "daemon/journal/store.h"
#include "daemon/log.h"
#include "tests/fuzz/read_journal.h"
#include "tests/fuzz/rows.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct journal_limits limits = {.result_bytes = 2, .result_seconds = 1e9, .cache_bytes = 2};
    static struct store *store;
    char folder[256];
    struct error error;
    if (!store) {
        log_set_level(LOG_LEVEL_ERROR);
        snprintf(folder, sizeof folder, "%s/state", scratch());
        rows_open(folder);
        if (store_open(&store, folder, &limits, NULL, &error) != 0)
            abort();
    }
    rows_put(data, bytes);
    read_journal(store);
    change_journal(store);
    return 0;
}
