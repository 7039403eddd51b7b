/* literal.h: a value that stands in a graph's file, taken as ComfyUI takes it: numbers written as texts are numbers. */
#ifndef LANCECTL_GRAPH_LITERAL_H
#define LANCECTL_GRAPH_LITERAL_H

#include <cjson/cJSON.h>

#include "tools/lancectl/graph/node_kinds.h"
#include "tools/lancectl/graph/value.h"

/* The value of `item` for an input: of its type, in its range, one of its choices. Errors: ERROR_BAD_REQUEST saying
 * what it is and what is accepted, without the names of node and input; ERROR_NO_MEMORY. */
int literal_read(struct value **out, const cJSON *item, const struct node_input *input, struct error *error);

/* What a value from elsewhere, over a link, is for an input: converted and checked in the same way. *out is held by
 * the caller. */
int literal_convert(struct value **out, struct value *value, const struct node_input *input, struct error *error);

#endif
