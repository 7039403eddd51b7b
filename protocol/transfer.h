/* transfer.h: payloads in pieces: a request's large tensors on their way to the daemon, a result's on their way back.
 *
 * No message is large. A tensor goes as a blob, under the SHA-256 of its bytes, in pieces of the size that the daemon
 * asks for ("put"), and the daemon says which of them it lacks; a result comes the same way ("get"). Several pieces are
 * in flight (client.h), so a line that breaks costs those whose answers were lost.
 */
#ifndef LANCE_TRANSFER_H
#define LANCE_TRANSFER_H

#include "protocol/client.h"

enum { TRANSFER_INLINE_BYTES = 64 << 10, /* a request's tensors up to this, together, go within its message */
       JOB_RESULT_MOST_TENSORS = 8 };

/* Called with every piece that has moved, and several times a second meanwhile. Returning true ends the transfer
 * (ERROR_CANCELLED). */
typedef bool transfer_progress(void *context, uint64_t moved_bytes, uint64_t total_bytes);

struct transfer_watch {
    transfer_progress *on_progress; /* or NULL */
    void *context;
};

/* Submit a job: `fields` are the request's, and the tensors are borrowed. What of them is large is sent first, as far
 * as the daemon lacks it. Errors as of client_request, and ERROR_CANCELLED. May be repeated under the same job id,
 * which goes on where it was. */
int transfer_submit(struct client *client, const cJSON *fields, const struct tensor_view *tensors, size_t count,
                    const struct transfer_watch *watch, struct error *error);

struct job_result;

/* Fetch a job's result with all its tensors; close it with job_result_close. Errors as of
 * client_request, and ERROR_CANCELLED. */
int job_result_fetch(struct job_result **out, struct client *client, const char *job,
                     const struct transfer_watch *watch, struct error *error);
void job_result_close(struct job_result *result); /* NULL is allowed */

/* Belong to the result. */
const cJSON *job_result_fields(const struct job_result *result);
const struct tensor_view *job_result_tensor(const struct job_result *result, const char *name); /* or NULL */

#endif
