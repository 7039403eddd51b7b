/* request_record.h: a request as it is kept for another life of the daemon: a text, and payloads named by their hash.
 *
 * What of the envelope makes the job is kept, and nothing else: no token, whatever else a client sent. Plain functions;
 * any thread.
 */
#ifndef LANCE_REQUEST_RECORD_H
#define LANCE_REQUEST_RECORD_H

#include "daemon/blob.h"
#include "daemon/request.h"

/* The text, JSON, which the caller gives to cJSON_free. Its payloads have names (payloads_name). NULL: out of memory.
 */
char *request_record_write(const struct job_request *request);

/* Make the request anew, without its hash (request_digest.h). fetch(context, sha256, &blob, error) gets the bytes of a
 * payload, one reference. Errors: those of `fetch`; ERROR_BAD_REQUEST, ERROR_BAD_FILE (this lanced reads the text
 * otherwise), ERROR_NO_MEMORY. */
int request_record_read(struct job_request **out, const char *text,
                        int (*fetch)(void *context, const char *sha256, struct blob **blob, struct error *error),
                        void *context, struct error *error);

#endif
