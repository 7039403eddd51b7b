/* result.h: a job's result, fetched from the daemon and put into files. */
#ifndef LANCECTL_RESULT_H
#define LANCECTL_RESULT_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/session.h"

/* What is to become of a result. */
struct saving {
    const char *job;
    const char *output;   /* where pictures and videos go; see output.h. NULL: the result has to be a text */
    bool text_is_shown;   /* an answer was printed as it came */
    char **answer;        /* takes a text, malloc'ed, instead of stdout; or NULL */
};

/* Fetch a job's result; write its pictures or videos and print their names, or print its text (or, with --json, one
 * object with "job", "files" or "text", and "receipt") to stdout; and have the daemon forget the job. When a file
 * cannot be written, the job is kept, and a message says how to fetch it again; a private daemon is then left
 * running. Prints its own errors. */
enum exit_code result_save(struct session *session, const struct saving *saving, const struct arguments *arguments);

#endif
