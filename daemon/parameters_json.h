/* parameters_json.h: the tables of parameters as JSON: the answer to `parameters`, and protocol/parameters.json. */
#ifndef LANCE_PARAMETERS_JSON_H
#define LANCE_PARAMETERS_JSON_H

#include "base/json.h"
#include "daemon/engine/parameters.h"

/* Add `parameters` and `server_parameters`, as PROTOCOL.md has them, to an object. Out of memory: json_is_complete. */
void parameters_add_json(cJSON *object);

/* One kind's name: "text", "integer", "whole", "number", "flag", "choice" or "list". */
const char *parameter_kind_name(enum parameter_kind kind);

/* The default for a task in the parameter's kind, null where there is none; the caller's. NULL: out of memory. */
cJSON *parameter_default_json(const struct parameter *parameter, enum lance_task task);

#endif
