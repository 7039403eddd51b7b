/* node_kinds.h: the kinds of nodes that can be run: those of protocol/nodes.json, which ask a daemon, and core nodes
 * of ComfyUI, of protocol/core_nodes.json. Read once, then constant; any thread.
 */
#ifndef LANCECTL_GRAPH_NODE_KINDS_H
#define LANCECTL_GRAPH_NODE_KINDS_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "base/error.h"

enum { MAX_INPUTS = 24, MAX_OUTPUTS = 8 };

struct node_input {
    const char *name, *type; /* the type as ComfyUI writes it: several have commas between them, "*" is any */
    bool is_optional;
    const cJSON *entry; /* everything that the table says of it */
};

struct node_output {
    const char *name, *type;
    const char *is; /* what it is of a job (nodes.json), or NULL */
    bool is_list;
};

struct node_kind {
    const char *id;
    const char *does; /* nodes.json: model, job, unload, save_file; NULL: a core node */
    bool is_output;   /* a run is for it */
    bool takes_lists; /* it gets whole lists, instead of running once for each item */
    int inputs, outputs;
    struct node_input input[MAX_INPUTS];
    struct node_output output[MAX_OUTPUTS];
    const cJSON *entry;
};

struct node_kinds;

/* Read both tables. Errors as data_file_read. */
int node_kinds_open(struct node_kinds **out, struct error *error);
void node_kinds_close(struct node_kinds *kinds); /* NULL is allowed */

const struct node_kind *node_kind_find(const struct node_kinds *kinds, const char *id); /* or NULL */

int node_kind_input(const struct node_kind *kind, const char *name); /* -1: there is none */

/* Whether what has the one type can go where the other is wanted. */
bool node_types_fit(const char *given, const char *wanted);

/* Whether values of that type come over links alone: neither text nor number. */
bool node_type_is_linked(const char *type);

#endif
