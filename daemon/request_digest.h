/* request_digest.h: names for what a request asks for (PROTOCOL.md, "The digest of a job").
 *
 * Plain functions; any thread.
 */
#ifndef LANCE_REQUEST_DIGEST_H
#define LANCE_REQUEST_DIGEST_H

#include "daemon/request.h"

enum { REQUEST_DIGEST_BYTES = SHA256_HEX_BYTES };

/* What is asked, of whichever model, into request->hash: SHA-256 (hex) over task, the parameters as they are used, and
 * every tensor. What does not change the result (the client, previews) is left out. Reads every byte of the tensors
 * that came in the message; those in blobs are called by their hash. */
void job_request_hash(struct job_request *request);

/* The same, of a request that has its hash, with the model asked for by name, which tells a repetition of a request
 * from another one. */
void request_digest(const struct job_request *request, char hex[REQUEST_DIGEST_BYTES]);

#endif
