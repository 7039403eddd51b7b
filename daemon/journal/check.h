/* check.h: lanced --state DIR --check: whether what is kept in a state folder is whole, and how much it is. */
#ifndef LANCE_JOURNAL_CHECK_H
#define LANCE_JOURNAL_CHECK_H

#include <stdio.h>

#include "base/error.h"
#include "daemon/journal/limits.h"

/* Look through a state folder that no daemon has open, and print what is found to `out`, a line each. Nothing is
 * changed but what every start does. Returns 0 when all is whole. Errors: those of store_open; ERROR_BAD_FILE when
 * something is missing or damaged. Reads every byte. */
int journal_check(const char *path, const struct journal_limits *limits, FILE *out, struct error *error);

#endif
