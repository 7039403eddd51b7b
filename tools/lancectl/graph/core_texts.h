/* core_texts.h: nodes of texts and numbers. Errors as core_node_run. */
#ifndef LANCECTL_GRAPH_CORE_TEXTS_H
#define LANCECTL_GRAPH_CORE_TEXTS_H

#include "tools/lancectl/graph/work.h"

int pass_on(struct work *work, struct error *error);
int string_replace(struct work *work, struct error *error);
int preview_any(struct work *work, struct error *error);

#endif
