/* core_node.h: what ComfyUI's core nodes do, for those of protocol/core_nodes.json; and Lance Save File, which asks
 * no daemon either. */
#ifndef LANCECTL_GRAPH_CORE_NODE_H
#define LANCECTL_GRAPH_CORE_NODE_H

#include "tools/lancectl/graph/work.h"

/* Do a node's work and give its outputs. Errors: ERROR_BAD_FILE (a file cannot be read), ERROR_IO (or written),
 * ERROR_BAD_REQUEST, ERROR_NO_MEMORY. */
int core_node_run(struct work *work, struct error *error);

#endif
