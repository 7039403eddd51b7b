/* check_nodes.h: the inputs of a graph's nodes, read and checked. */
#ifndef LANCECTL_GRAPH_CHECK_NODES_H
#define LANCECTL_GRAPH_CHECK_NODES_H

#include "tools/lancectl/graph/graph.h"
#include "tools/lancectl/graph/problems.h"

/* Fill in the inputs of all nodes, whose kinds are known. Every problem is told. ERROR_NO_MEMORY. */
int check_nodes(struct graph *graph, const struct graph_folders *folders, struct problems *problems,
                struct error *error);

#endif
