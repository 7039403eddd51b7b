/* model_estimates.h: which tasks a model in memory can do, at the sizes that they have by default, and what memory each
 * takes. Plain functions; any thread. */
#ifndef LANCE_MODEL_ESTIMATES_H
#define LANCE_MODEL_ESTIMATES_H

#include <cjson/cJSON.h>

#include "daemon/residency.h"

/* PROTOCOL.md's object `estimates` of one entry of `models`, which the caller gives to cJSON_Delete. NULL: out of
 * memory. */
cJSON *model_estimates_json(struct residency *residency, int index);

#endif
