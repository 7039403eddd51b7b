/* payload.h: the tensors of a `submit`, wherever their bytes are: in the message, or in blobs that were put before.
 *
 * Nothing is copied but tensors of numbers that lie askew in a message. Plain functions; payloads that were opened may
 * be read by any thread.
 */
#ifndef LANCE_PAYLOAD_H
#define LANCE_PAYLOAD_H

#include "base/sha256.h"
#include "daemon/blob.h"
#include "protocol/message.h"

struct payload {
    struct tensor_view tensor; /* .data is NULL as long as its blob is not here; else aligned for its numbers */
    char blob[BLOB_NAME_BYTES]; /* what it is called; "": the tensor came in the message */
    struct blob *held;         /* its bytes */
    void *aligned;             /* a copy of what lay askew */
};

struct payloads {
    struct payload *list; /* by name; a name is there once */
    size_t count;
};

/* Read the tensors of a message and its field `tensors`. The message is borrowed, and must outlive the payloads; no
 * blob is asked for. Errors: ERROR_BAD_REQUEST, ERROR_NO_MEMORY; then there is nothing to close. */
int payloads_open(struct payloads *out, const struct message *message, struct error *error);
void payloads_close(struct payloads *payloads);

/* Give a payload the bytes of its blob, one reference of which it takes over. NULL: they are not here. */
void payload_give(struct payload *payload, struct blob *blob);

/* Give those that came in the message names and bytes of their own, as if they had been put before. Before anybody
 * looks at their bytes. Errors: ERROR_NO_MEMORY. */
int payloads_name(struct payloads *payloads, struct error *error);

/* The tensor of that name, or NULL. */
const struct tensor_view *payloads_find(const struct payloads *payloads, const char *name);

/* How many payloads are without bytes, and of how many not even the hash is known. */
size_t payloads_missing_count(const struct payloads *payloads);
size_t payloads_unknown_count(const struct payloads *payloads);

/* The names of their blobs: a JSON array, which the caller frees; incomplete or NULL: out of memory. */
cJSON *payloads_missing(const struct payloads *payloads);

/* What the missing ones have together, one that is named twice once; 2^64 - 1 for more. */
uint64_t payloads_missing_bytes(const struct payloads *payloads);

/* What they keep in memory beside the message. */
uint64_t payloads_bytes(const struct payloads *payloads);

#endif
