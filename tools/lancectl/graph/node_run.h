/* node_run.h: one node while a graph runs: its runs, one for each item of lists that come in, and its outputs. */
#ifndef LANCECTL_GRAPH_NODE_RUN_H
#define LANCECTL_GRAPH_NODE_RUN_H

#include "tools/lancectl/graph/work.h"

struct node_run {
    enum { NODE_WAITS, NODE_RUNS, NODE_DONE } state;
    struct work *works;
    int work_count;
    struct list output[MAX_OUTPUTS];
    int users; /* links of nodes that have not taken the outputs yet */
};

/* Make the works of a node whose sources are done. Errors: ERROR_BAD_REQUEST for a value that does not fit,
 * ERROR_NO_MEMORY. */
int node_run_open(struct node_run *run, const struct context *context, const struct graph_node *node,
                  const struct node_run *all, struct error *error);

/* All works are done: put their outputs together and let go of the rest. ERROR_NO_MEMORY. */
int node_run_finish(struct node_run *run, struct error *error);

void node_run_close(struct node_run *run);

#endif
