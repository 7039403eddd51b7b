/* core_pictures.h: nodes that put pictures together and take them apart. Errors as core_node_run. */
#ifndef LANCECTL_GRAPH_CORE_PICTURES_H
#define LANCECTL_GRAPH_CORE_PICTURES_H

#include "tools/lancectl/graph/work.h"

int image_from_batch(struct work *work, struct error *error);
int image_batch(struct work *work, struct error *error);
int rebatch_images(struct work *work, struct error *error);
int image_grid(struct work *work, struct error *error);
int create_video(struct work *work, struct error *error);
int get_video_components(struct work *work, struct error *error);

#endif
