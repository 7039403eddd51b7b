/* check.h: `lance-quant check`: what a folder of quantised weights holds, and whether it holds together.
 */
#ifndef LANCE_QUANT_CHECK_H
#define LANCE_QUANT_CHECK_H

#include "base/error.h"

/* Prints a report to stdout; *problems is how many it names. Every value of every scale, offset and zero point is
 * looked at. Errors: ERROR_BAD_FILE when the folder cannot be read as a checkpoint at all, with the reader's words;
 * ERROR_IO, ERROR_NO_MEMORY. */
int check(const char *directory, int *problems, struct error *error);

#endif
