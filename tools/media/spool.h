/* spool.h: what comes through a pipe, kept in memory under a path, so that it can be read as a file is: more than once,
 * and from the middle. */
#ifndef LANCE_MEDIA_SPOOL_H
#define LANCE_MEDIA_SPOOL_H

#include <stdbool.h>

#include "base/error.h"

enum { SPOOL_MAX_MB = 1024, SPOOL_PATH_BYTES = 32 };

struct spool {
    int descriptor;
    char path[SPOOL_PATH_BYTES]; /* good until spool_close */
};

/* Read "-" (the standard input) or a pipe to its end. The message does not name it. Errors: ERROR_IO, ERROR_TOO_LARGE
 * for more than SPOOL_MAX_MB, ERROR_BAD_FILE for a terminal or nothing at all. */
int spool_open(struct spool *spool, const char *path, struct error *error);

void spool_close(struct spool *spool);

/* Whether `path` is such a thing. */
bool spool_is_needed(const char *path);

#endif
