/* failure.h: answers that say what went wrong. Plain functions; any thread. */
#ifndef LANCE_FAILURE_H
#define LANCE_FAILURE_H

#include "base/error.h"
#include "base/json.h"
#include "daemon/blob.h"

/* The envelope of a request that failed, which the caller frees. Incomplete or NULL: out of
 * memory (json_is_complete). */
cJSON *failure_json(const struct error *failure);

/* A whole answer to be kept for when there is no memory for any other. ERROR_NO_MEMORY. */
int failure_no_memory(struct blob **out, struct error *error);

#endif
