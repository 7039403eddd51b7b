/* command.h: `lancectl graph`. */
#ifndef LANCECTL_GRAPH_COMMAND_H
#define LANCECTL_GRAPH_COMMAND_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"

/* Read, check and run the graph of the command line, or only say what would be run. Prints its own errors. */
enum exit_code graph_command(const struct arguments *arguments);

#endif
