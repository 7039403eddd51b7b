/* lance_node.h: nodes that ask the daemon, run as protocol/nodes.json says. */
#ifndef LANCECTL_GRAPH_LANCE_NODE_H
#define LANCECTL_GRAPH_LANCE_NODE_H

#include "tools/lancectl/graph/work.h"

/* Put what the node asks into work->asks, or give its outputs at once where nothing is to be asked. Errors:
 * ERROR_BAD_FILE for a video that cannot be read, ERROR_BAD_REQUEST, ERROR_NO_MEMORY, those of session_request. */
int lance_node_begin(struct work *work, struct error *error);

/* All jobs so far have ended, with results: ask for more, or give the outputs (work->is_done). */
int lance_node_continue(struct work *work, struct error *error);

#endif
