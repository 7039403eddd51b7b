/* command_line.h: getopt_long for both programs, with whole option names only. */
#ifndef LANCE_COMMAND_LINE_H
#define LANCE_COMMAND_LINE_H

#include <getopt.h>

#include "base/error.h"

/* The next option of argv, as getopt_long's return value and `optarg`; -1 at the end, where `optind` is the first
 * operand. '?' when it is wrong: `error` (ERROR_BAD_REQUEST) then says why, and which `program` explains its options.
 * An abbreviation is wrong: getopt's would take --source for --source-seed. short_options begins with ':'. The caller
 * sets optind before the first call, and opterr to 0. Not for several threads. */
int command_line_next(int argc, char **argv, const char *short_options, const struct option *long_options,
                      const char *program, struct error *error);

#endif
