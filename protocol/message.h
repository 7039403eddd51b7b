/* message.h: one message of the lanced protocol (PROTOCOL.md).
 *
 * A message is one safetensors buffer: __metadata__["lance"] is a JSON object, the
 * envelope, and the tensors travel as they are. This file turns a received buffer into
 * an envelope and tensor views, and an envelope and tensors into a buffer; it knows no
 * request by name. The input is hostile: sizes are checked before anything is parsed.
 *
 * A parsed message is immutable and may be read by any thread.
 */
#ifndef LANCE_MESSAGE_H
#define LANCE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/json.h"
#include "protocol/safetensors.h"
#include "protocol/version.h"

enum {
    MESSAGE_MAX_ENVELOPE_BYTES = 4 << 20, /* a prompt of 100,000 characters fits, escaped twice */
    MESSAGE_MAX_ENVELOPE_VALUES = 1 << 16,
    MESSAGE_MAX_TENSORS = 64,
    MESSAGE_LIMIT_BYTES = 4 << 20, /* of a whole message, either way */
    JOB_ID_MAX_BYTES = 64
};

struct message;

/* Check and parse `bytes` bytes at `data`, which must outlive the message (or be handed to
 * it, see message_adopt). `limit_bytes` is the largest message accepted, 0 for no limit.
 * Errors: ERROR_TOO_LARGE, ERROR_BAD_REQUEST (no safetensors, no envelope, an envelope
 * that is no JSON object), ERROR_NO_MEMORY. The fields of the envelope are
 * not looked at. */
int message_parse(struct message **out, const void *data, uint64_t bytes, uint64_t limit_bytes,
                  struct error *error);

/* Make the message the owner of what its data lies in: message_close calls release(owner). */
void message_adopt(struct message *message, void *owner, void (*release)(void *owner));

void message_close(struct message *message); /* NULL is allowed */

const cJSON *message_envelope(const struct message *message);
uint64_t message_bytes(const struct message *message); /* as received */
size_t message_tensor_count(const struct message *message);
const struct tensor_view *message_tensor_at(const struct message *message, size_t index);
const struct tensor_view *message_tensor(const struct message *message, const char *name); /* or NULL */

/* Serialise into one malloc'ed buffer, which the caller frees. Everything given is borrowed.
 * ERROR_NO_MEMORY also when memory ran out while the envelope was made (json_is_complete). */
int message_encode(void **out, uint64_t *out_bytes, const cJSON *envelope,
                   const struct tensor_view *tensors, size_t tensor_count, struct error *error);

/* Whether `id` is [A-Za-z0-9._-]{1,64}. NULL is not. */
bool job_id_is_valid(const char *id);

/* A new random job id, for clients: 32 hexadecimal digits. */
void job_id_make(char id[JOB_ID_MAX_BYTES + 1]);

#endif
