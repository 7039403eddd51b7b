/* attempts.h: what whoever steps jobs tells and asks, so that a job can be gone on with after an end of the daemon.
 *
 * recorder.c is behind it; without a journal nothing is. Called from the thread that steps jobs.
 */
#ifndef LANCE_ATTEMPTS_H
#define LANCE_ATTEMPTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct attempts {
    void *context;

    /* A job, by its number, is about to be stepped: returns when that is written down. *state gets what it can be gone
     * on with from, malloc'ed, or NULL (`state` NULL: it is not asked for, nor `bytes`); *attempt is 1 the first time.
     * Errors: ERROR_IO. */
    int (*start)(void *context, uint64_t job, void **state, size_t *bytes, int *attempt, struct error *error);

    /* A job's state after so many steps; owns the malloc'ed `state`. */
    void (*save)(void *context, uint64_t job, int step, void *state, size_t bytes);

    /* It is laid aside by a daemon that ends in order: the attempt does not count. */
    void (*pause)(void *context, uint64_t job);
};

#endif
