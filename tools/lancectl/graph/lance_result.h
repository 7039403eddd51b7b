/* lance_result.h: what jobs of a node made, as the node's outputs. */
#ifndef LANCECTL_GRAPH_LANCE_RESULT_H
#define LANCECTL_GRAPH_LANCE_RESULT_H

#include "tools/lancectl/graph/work.h"

/* Give the outputs of a node whose jobs have ended, as protocol/nodes.json says what each is. Errors: ERROR_INTERNAL
 * for answers of an unknown form, ERROR_BAD_REQUEST for results that do not go together, ERROR_NO_MEMORY. */
int lance_result_give(struct work *work, struct error *error);

#endif
