/* core_load.h: nodes that read files. Errors as core_node_run. */
#ifndef LANCECTL_GRAPH_CORE_LOAD_H
#define LANCECTL_GRAPH_CORE_LOAD_H

#include "tools/lancectl/graph/work.h"

int load_image(struct work *work, struct error *error);
int load_video(struct work *work, struct error *error);
int load_latent(struct work *work, struct error *error);

#endif
