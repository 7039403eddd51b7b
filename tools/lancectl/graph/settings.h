/* settings.h: --set NODE.INPUT=VALUE, done to a graph's JSON. */
#ifndef LANCECTL_GRAPH_SETTINGS_H
#define LANCECTL_GRAPH_SETTINGS_H

#include <cjson/cJSON.h>

#include "tools/lancectl/graph/node_kinds.h"
#include "tools/lancectl/graph/problems.h"

/* Whether a setting's input stands in the file: of a node that is named by its id, or by its title where only one
 * has it. Such settings are done before other packs' nodes are replaced, the others after it; `is_last` then tells
 * what is wrong with those that fit nowhere. Each that was done is set to NULL in `settings`. */
void settings_apply(cJSON *nodes, const char **settings, int count, const struct node_kinds *kinds, bool is_last,
                    struct problems *problems);

#endif
