/* kept_results.h: results that were made before, by the digest of what they came of (result_digest.h), for whoever asks
 * for the same again. They are kept apart from their jobs, so that a release does not take them away.
 *
 * Two are behind it: recorder.c, where a journal is kept, and result_cache.c, in memory. Any thread.
 */
#ifndef LANCE_KEPT_RESULTS_H
#define LANCE_KEPT_RESULTS_H

#include <stdint.h>

struct blob;

struct kept_counts {
    uint64_t answered, results, bytes, limit_bytes; /* `answered` since the start, the others now */
};

struct kept_results {
    void *context;

    /* The result of that digest, one reference; NULL: none is kept. It is the last one to go now. */
    struct blob *(*find)(void *context, const char *digest);

    /* A job has come to a result that was not kept before; it is shared. */
    void (*keep)(void *context, const char *digest, struct blob *result);

    void (*count)(void *context, struct kept_counts *counts);
};

#endif
