/* core_save.h: nodes that write files; Lance Save File is one of them. Errors as core_node_run. */
#ifndef LANCECTL_GRAPH_CORE_SAVE_H
#define LANCECTL_GRAPH_CORE_SAVE_H

#include "tools/lancectl/graph/work.h"

int save_image(struct work *work, struct error *error);
int preview_image(struct work *work, struct error *error);
int save_video(struct work *work, struct error *error);
int save_latent(struct work *work, struct error *error);
int save_file(struct work *work, struct error *error);

#endif
