/* other_packs.h: nodes of other Lance packs, and of this one before, become this one's, by
 * protocol/other_packs.json. The same as lanced_client/other_packs.py does for ComfyUI. */
#ifndef LANCECTL_GRAPH_OTHER_PACKS_H
#define LANCECTL_GRAPH_OTHER_PACKS_H

#include <cjson/cJSON.h>

#include "base/error.h"
#include "tools/lancectl/graph/problems.h"

/* The model that a node of another pack names, for which there may be one of that name here; in the node, beside its
 * inputs. */
#define WISHED_MODEL "wished_model"

/* Replace them in a graph's nodes, in place. What cannot be replaced is a problem. Errors: as data_file_read. */
int other_packs_convert(cJSON *nodes, struct problems *problems, struct error *error);

#endif
