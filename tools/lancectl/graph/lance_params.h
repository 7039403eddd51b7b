/* lance_params.h: the parameters of a node's requests, as protocol/nodes.json says. */
#ifndef LANCECTL_GRAPH_LANCE_PARAMS_H
#define LANCECTL_GRAPH_LANCE_PARAMS_H

#include "tools/lancectl/graph/work.h"

/* Add to `params` what the node's inputs become. ERROR_BAD_REQUEST for a size that is none. */
int lance_params_add(cJSON *params, const struct work *work, struct error *error);

/* The parameter resolution alone, for a request that takes no other. */
int lance_params_add_resolution(cJSON *params, const struct work *work, struct error *error);

#endif
