/* request_hash.h: one name for the parameters and texts of a request; payloads are not in it. */
#ifndef LANCE_REQUEST_HASH_H
#define LANCE_REQUEST_HASH_H

#include "daemon/engine/lance.h"

/* SHA-256 in hex over the parameters of a request (parameters_hash) and the shapes of its payloads. */
void request_hash(const struct lance_request *request, char hex[65]);

#endif
