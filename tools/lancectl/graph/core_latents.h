/* core_latents.h: nodes that make and repeat latents. Errors as core_node_run. */
#ifndef LANCECTL_GRAPH_CORE_LATENTS_H
#define LANCECTL_GRAPH_CORE_LATENTS_H

#include "tools/lancectl/graph/work.h"

int empty_latent(struct work *work, struct error *error);
int repeat_latent_batch(struct work *work, struct error *error);

#endif
