/* fuzz_journal.c: the database of a state folder (daemon/journal/), damaged: it opens or is refused with words, and so
 * is whatever is read from it. The input is the whole file; an empty one is a new folder. */
#include <stdbool.h>
#include <sys/stat.h>

#include "daemon/journal/check.h"
#include "daemon/journal/store.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int read_all(void *context, const struct store_found *found)
{
    static const char *const kinds[] = {"request", "state", "result"};
    struct store *store = context;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        void *bytes = NULL;
        uint64_t count;
        struct error error = {0};
        if (store_read(store, found->number, kinds[i], &bytes, &count, &error) == 0)
            free(bytes);
        else if (error.text[0] == '\0')
            abort();
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static FILE *nowhere;
    const struct journal_limits limits = {.result_bytes = 1 << 20, .result_seconds = 60.0, .cache_bytes = 1 << 20};
    char folder[256], path[PATH_MAX];
    struct store *store = NULL;
    struct error error = {0};
    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    snprintf(folder, sizeof folder, "%s/state", scratch());
    scratch_remove_folder(folder);
    if (mkdir(folder, 0700) != 0)
        abort();
    if (bytes > 0)
        scratch_write(path, "state/journal.db", data, bytes);
    if (store_open(&store, folder, &limits, NULL, &error) != 0) {
        if (error.text[0] == '\0')
            abort();
        return 0;
    }
    uint64_t number;
    struct store_sizes sizes;
    struct error ignored;
    if (store_last_number(store, &number, &ignored) == 0 && store_sizes(store, &sizes, &ignored) == 0)
        store_unfinished(store, read_all, store, &ignored);
    if (store_begin_batch(store, &ignored) == 0) {
        store_sweep(store, &ignored);
        store_end_batch(store, &ignored);
    }
    store_close(store);
    journal_check(folder, &limits, nowhere, &ignored);
    return 0;
}
