/* arguments.h: lancectl's command line, parsed and checked.
 *
 * What a number may be is the daemon's business (it knows the model); here only its form
 * is checked. Options that were not given are not sent, so the daemon's defaults apply.
 */
#ifndef LANCECTL_ARGUMENTS_H
#define LANCECTL_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/error.h"

enum command {
    COMMAND_T2I, COMMAND_FETCH, COMMAND_CANCEL, COMMAND_STATUS, COMMAND_MODELS, COMMAND_LOAD, COMMAND_UNLOAD,
    COMMAND_SHUTDOWN, COMMAND_SHOW, COMMAND_HELP, COMMAND_VERSION, COMMAND_COUNT
};

/* A number that may be absent. */
struct optional_number {
    bool given;
    double value;
};

struct arguments {
    enum command command;
    const char *operand; /* prompt, job, model or file, as the command has it; NULL where it has none */

    const char *endpoint;  /* NULL: environment or default */
    const char *model_dir; /* NULL: none */
    bool json, quiet;

    const char *output;  /* t2i, fetch: a .png */
    const char *preview; /* t2i: a .png that is rewritten while the job runs, or NULL */
    const char *job;     /* t2i: the job's id, or NULL */
    bool seed_given;
    uint64_t seed;
    struct optional_number steps, guidance, shift, width, height, count, interval_low, interval_high;
    const char *renorm, *noise; /* or NULL */

    bool cancel_jobs; /* shutdown */
};

/* Parse the command line (argv[0] is the program's name). Strings are borrowed from argv. ERROR_BAD_REQUEST says what
 * is wrong with it. Not for several threads: it uses getopt. */
int arguments_parse(struct arguments *out, int argc, char **argv, struct error *error);

#endif
