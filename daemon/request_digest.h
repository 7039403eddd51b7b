/* request_digest.h: names for what a request asks for, and for what comes of it (PROTOCOL.md, "The digest of a job").
 *
 * Plain functions; any thread.
 */
#ifndef LANCE_REQUEST_DIGEST_H
#define LANCE_REQUEST_DIGEST_H

#include "daemon/request.h"

enum { REQUEST_DIGEST_BYTES = 65 };

/* What is asked, of whichever model: SHA-256 (hex) over task, the parameters as they are used, and every tensor. What does not
 * change the result (the client, previews) is left out. Reads every byte of the tensors. */
void job_request_hash(const struct job_request *request, char hex[REQUEST_DIGEST_BYTES]);

/* The same with the model asked for by name, which tells a repetition of a request from another one. */
void request_digest(const struct job_request *request, char hex[REQUEST_DIGEST_BYTES]);

/* What was asked of what: job_request_hash with the model's hash, the backend's name and the engine's (lance_build). */
void result_digest(const char *request, const char *model, const char *backend, const char *build, char hex[REQUEST_DIGEST_BYTES]);

#endif
