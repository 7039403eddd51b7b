/* top.h: lancectl top: what the daemon does, looked at again and again. */
#ifndef LANCECTL_TOP_H
#define LANCECTL_TOP_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/session.h"

/* Once a second until Ctrl-C; once with --once, with --json, and where standard output is no terminal. Prints its own
 * errors. */
enum exit_code top_command(struct session *session, const struct arguments *arguments);

#endif
