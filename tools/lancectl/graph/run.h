/* run.h: runs a graph: every node once what it needs is there, so that independent branches overlap. Jobs of all
 * nodes that are ready are submitted together and then followed, one after the other; the daemon does them in turn,
 * and fetching, saving and what needs no daemon goes on meanwhile.
 */
#ifndef LANCECTL_GRAPH_RUN_H
#define LANCECTL_GRAPH_RUN_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/graph/graph.h"

/* Run it; prints its own errors. Ctrl-C cancels what the daemon has of it. What was saved by then stays. */
enum exit_code graph_run(const struct graph *graph, const struct graph_folders *folders,
                         const struct arguments *arguments);

#endif
