/* read_number.h: numbers of the command line. */
#ifndef LANCECTL_READ_NUMBER_H
#define LANCECTL_READ_NUMBER_H

#include <stdbool.h>

#include "base/error.h"

/* Read one finite number; *end is what follows it. Returns whether there is one. */
bool read_number(const char *text, double *value, const char **end);

/* The whole text as a number, or a whole number of at most 10^9. `name` is the option's; ERROR_BAD_REQUEST. */
int parse_number(double *out, const char *name, const char *text, struct error *error);
int parse_whole(double *out, const char *name, const char *text, struct error *error);

#endif
