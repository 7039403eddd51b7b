/* message.c: see message.h. */
#include "protocol/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static const char envelope_key[] = "lance";

struct message {
    uint64_t bytes;
    struct safetensors *tensors;
    cJSON *envelope;
    void *owner;
    void (*release)(void *owner);
};

static const struct json_limits envelope_limits = {.bytes = MESSAGE_MAX_ENVELOPE_BYTES,
                                                   .values = MESSAGE_MAX_ENVELOPE_VALUES,
                                                   .over = ERROR_TOO_LARGE,
                                                   .bad = ERROR_BAD_REQUEST};

static int parse_envelope(struct message *message, struct error *error)
{
    const char *text = safetensors_metadata(message->tensors, envelope_key);
    if (!text)
        return error_set(error, ERROR_BAD_REQUEST,
                         "message: the safetensors metadata has no entry \"%s\" holding the JSON envelope",
                         envelope_key);
    int code = json_parse(&message->envelope, text, strlen(text), &envelope_limits, "message: the envelope", error);
    if (code != 0)
        return code;
    if (!cJSON_IsObject(message->envelope))
        return error_set(error, ERROR_BAD_REQUEST, "message: the envelope must be a JSON object");
    return 0;
}

int message_parse(struct message **out, const void *data, uint64_t bytes, uint64_t limit_bytes, struct error *error)
{
    *out = NULL;
    if (limit_bytes != 0 && bytes > limit_bytes)
        return error_set(error, ERROR_TOO_LARGE,
                         "message: %llu bytes are over the limit of %llu",
                         (unsigned long long)bytes, (unsigned long long)limit_bytes);
    struct message *message = calloc(1, sizeof *message);
    if (!message)
        return error_set(error, ERROR_NO_MEMORY, "message: out of memory");
    message->bytes = bytes;
    int status = safetensors_parse(&message->tensors, data, bytes, "message", error);
    if (status == ERROR_BAD_FILE) { /* for a message that is the request's fault, not a file's */
        status = ERROR_BAD_REQUEST;
        if (error)
            error->code = status;
    }
    if (status == 0 && safetensors_count(message->tensors) > MESSAGE_MAX_TENSORS)
        status = error_set(error, ERROR_TOO_LARGE, "message: %zu tensors; at most %d are accepted",
                           safetensors_count(message->tensors), MESSAGE_MAX_TENSORS);
    if (status == 0)
        status = parse_envelope(message, error);
    if (status != 0) {
        message_close(message);
        return status;
    }
    *out = message;
    return 0;
}

void message_adopt(struct message *message, void *owner, void (*release)(void *owner))
{
    message->owner = owner;
    message->release = release;
}

void message_close(struct message *message)
{
    if (!message)
        return;
    cJSON_Delete(message->envelope);
    safetensors_close(message->tensors);
    if (message->release)
        message->release(message->owner);
    free(message);
}

const cJSON *message_envelope(const struct message *message)
{
    return message->envelope;
}

uint64_t message_bytes(const struct message *message)
{
    return message->bytes;
}

size_t message_tensor_count(const struct message *message)
{
    return safetensors_count(message->tensors);
}

const struct tensor_view *message_tensor_at(const struct message *message, size_t index)
{
    return safetensors_at(message->tensors, index);
}

const struct tensor_view *message_tensor(const struct message *message, const char *name)
{
    return safetensors_find(message->tensors, name);
}

int message_encode(void **out, uint64_t *out_bytes, const cJSON *envelope, const struct tensor_view *tensors,
                   size_t tensor_count, struct error *error)
{
    char *text = json_print(envelope);
    if (!text)
        return error_set(error, ERROR_NO_MEMORY, "message: out of memory for the envelope");
    const char *keys[] = {envelope_key};
    const char *values[] = {text};
    int code = safetensors_write(out, out_bytes, tensors, tensor_count, keys, values, 1, error);
    cJSON_free(text);
    return code;
}

bool job_id_is_valid(const char *id)
{
    if (!id)
        return false;
    size_t length = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    return length >= 1 && length <= JOB_ID_MAX_BYTES && id[length] == '\0';
}

void job_id_make(char id[JOB_ID_MAX_BYTES + 1])
{
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        /* Never seen after boot for 16 bytes; the clock keeps ids apart all the same. */
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        memset(bytes, 0, sizeof bytes);
        memcpy(bytes, &now, sizeof now < sizeof bytes ? sizeof now : sizeof bytes);
    }
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(id + 2 * i, 3, "%02x", bytes[i]);
}
