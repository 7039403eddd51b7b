/* command.h: `lancectl graph` and `lancectl graphs`. */
#ifndef LANCECTL_GRAPH_COMMAND_H
#define LANCECTL_GRAPH_COMMAND_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"

/* Read, check and run the graph of the command line, or only say what would be run. Prints its own errors. */
enum exit_code graph_command(const struct arguments *arguments);

/* The same for as many graphs as come on standard input, one after the other, so that a farm's task does not wait for
 * a program's start. A line is {"workflow": FILE, "output": FOLDER, "input_dir": FOLDER, "dry_run": FLAG}, the last two
 * optional. The answer on stdout is what `graph --json` prints, if it worked, and then a line {"exit_code": N}; what
 * is to be said about it has gone to stderr before. Ends with the input, or after an interrupt. */
enum exit_code graphs_command(const struct arguments *arguments);

#endif
