/* graph.h: a graph that has been read and checked: every node of a known kind, every link to something that fits,
 * every value in its range, no circle, every file there. Nothing has been done yet.
 */
#ifndef LANCECTL_GRAPH_GRAPH_H
#define LANCECTL_GRAPH_GRAPH_H

#include "tools/lancectl/graph/graph_file.h"
#include "tools/lancectl/graph/node_kinds.h"
#include "tools/lancectl/graph/value.h"

/* Folders of files that a graph names. */
struct graph_folders {
    const char *input, *output;
};

/* What comes into a node: over a link, or a value that stands there; neither where an optional input has no default. */
struct graph_input {
    bool is_linked;
    int node, output;
    struct value *value; /* or NULL */
};

struct graph_node {
    const char *id, *title;       /* the title: its class's name where the file has none */
    const struct node_kind *kind;
    cJSON *entry;                 /* in the file */
    char *wished_model;           /* that another pack's node names, or NULL */
    struct graph_input input[MAX_INPUTS];
};

struct graph {
    struct graph_file file; /* as it is run: other packs' nodes replaced, --set done */
    struct node_kinds *kinds;
    int count;
    struct graph_node *nodes;
    int needed;
    int *order; /* the nodes that output nodes need, each after what it needs; others are not run */
};

#endif
