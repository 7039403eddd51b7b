/* graph_open.h: reads a graph and checks it. */
#ifndef LANCECTL_GRAPH_GRAPH_OPEN_H
#define LANCECTL_GRAPH_GRAPH_OPEN_H

#include "tools/lancectl/graph/graph.h"
#include "tools/lancectl/graph/problems.h"

/* What is asked of a graph beside the file. */
struct graph_wish {
    const char *path;
    const char *const *set; /* NODE.INPUT=VALUE */
    int set_count;
    struct graph_folders folders;
};

/* Read and check; every problem is told. When there are any, *out is NULL and 0 is returned. Errors: of files that
 * are no graph or cannot be read at all, ERROR_NO_MEMORY. */
int graph_open(struct graph **out, const struct graph_wish *wish, struct problems *problems, struct error *error);
void graph_close(struct graph *graph); /* NULL is allowed */

#endif
