/* request.h: what can be checked of a request without a plan. */
#ifndef LANCE_ENGINE_REQUEST_H
#define LANCE_ENGINE_REQUEST_H

#include "daemon/engine/lance_model.h"

/* Ranges, multiples, NaN, lengths, and that the model offers the task; codes and messages as lance_request_check. */
int request_check(const struct lance_model *model, const struct lance_request *request, struct error *error);

#endif
