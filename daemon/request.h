/* request.h: the parameters of a `submit` message, as the engine wants them.
 *
 * Only form is checked here: names, kinds of values, shapes of tensors. What the values may be, the engine decides
 * (lance_request_check, and the stage that prepares a job), but for numbers that are none. No tensor is copied.
 */
#ifndef LANCE_REQUEST_H
#define LANCE_REQUEST_H

#include "daemon/engine/lance.h"
#include "daemon/engine/parameters.h"
#include "daemon/jobs/job_class.h"
#include "daemon/payload.h"
#include "protocol/message.h"

/* Parameters that are the server's alone: they change nothing of the result. Their offsets count in struct job_request.
 */
extern const struct parameter server_parameters[];

/* One job's request. Immutable once opened, bound to a model and hashed. */
struct job_request {
    struct message *message;  /* owns the strings that `lance` points to, */
    struct payloads payloads; /* and these the pixels and numbers */
    struct lance_request lance;
    struct lance_media source;
    struct lance_latents latents, state, mask;
    const char *model;       /* name asked for, or NULL */
    const char *bound_model; /* of a request that names none: what it stood for when it was submitted, or NULL */
    enum job_class priority;
    char hash[SHA256_HEX_BYTES]; /* job_request_hash, before the request is shared (request_digest.h) */
    bool no_cache;     /* it is to be made, whatever is kept */
    char *record;      /* request_record_write's text, where a journal is kept; else NULL */
};

/* The name of the model that makes it, as far as there is one: asked for (MODEL_AUTOMATIC too) or bound; else NULL. */
static inline const char *job_request_model(const struct job_request *request)
{
    return request->model ? request->model : request->bound_model;
}

/* The name of a model that a message may carry, NULL without one. ERROR_BAD_REQUEST when it is no text. */
int request_read_model(const char **name, const cJSON *envelope, struct error *error);

/* Read a submit message and its payloads (payload.h); on success the request owns both, on failure the caller still
 * does. With bytes missing it can be compared with others, but not run. Errors: ERROR_BAD_REQUEST naming the parameter
 * or tensor; ERROR_NO_MEMORY. */
int job_request_open(struct job_request **out, struct message *message, struct payloads *payloads, struct error *error);
void job_request_close(struct job_request *request); /* NULL is allowed */

/* Look through all numbers of the tensors that are here: ERROR_BAD_REQUEST names the first one that is NaN or infinite.
 */
int job_request_check_numbers(const struct job_request *request, struct error *error);

/* What it keeps in memory: the message and its tensors. */
uint64_t job_request_bytes(const struct job_request *request);

/* Names of parameters in the message that nobody knows: a JSON array, which the caller frees. Incomplete, or
 * NULL: out of memory (json_is_complete). */
cJSON *job_request_unknown(const struct message *message);

/* The parameters that mean something for the request's task, as they are used: a JSON object,
 * which the caller frees; likewise. */
cJSON *job_request_params(const struct lance_request *request);

#endif
