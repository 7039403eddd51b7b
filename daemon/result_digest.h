/* result_digest.h: one name for what comes of a request (PROTOCOL.md, "The digest of a job"). Any thread. */
#ifndef LANCE_RESULT_DIGEST_H
#define LANCE_RESULT_DIGEST_H

#include "base/sha256.h"

/* What was asked of what: job_request_hash (request_digest.h) with the model's hash, the backend's name and the
 * engine's (lance_build). */
void result_digest(const char *request, const char *model, const char *backend, const char *build,
                   char hex[SHA256_HEX_BYTES]);

#endif
