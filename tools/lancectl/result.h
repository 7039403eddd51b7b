/* result.h: a job's result, fetched from the daemon and put into files. */
#ifndef LANCECTL_RESULT_H
#define LANCECTL_RESULT_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/session.h"

/* Fetch the result of `job`, write its pictures to arguments->output, print their names (or, with --json, one object with
 * "job", "files" and "receipt") to stdout, and have the daemon forget the job. When a file cannot be written, the job is
 * kept, and a message says how to fetch it again; a private daemon is then left running. Prints its own errors. */
enum exit_code result_save(struct session *session, const char *job, const struct arguments *arguments);

#endif
