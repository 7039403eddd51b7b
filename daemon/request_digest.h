/* request_digest.h: one name for what a request asks for, so that a repetition can be told from another request.
 *
 * Plain functions; any thread.
 */
#ifndef LANCE_REQUEST_DIGEST_H
#define LANCE_REQUEST_DIGEST_H

#include "daemon/request.h"

enum { REQUEST_DIGEST_BYTES = 65 };

/* SHA-256 (hex) over task, model asked for, the parameters as they are used, and every tensor. What does not change the
 * result (the client, previews) is left out. Reads every byte of the tensors: some milliseconds for each megabyte.
 * ERROR_NO_MEMORY. */
int request_digest(const struct job_request *request, char hex[REQUEST_DIGEST_BYTES], struct error *error);

#endif
