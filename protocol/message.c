/* message.c: see message.h. */
#include "protocol/message.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* From here on a double may stand for a neighbour that was written: 2^53 + 1 reads as 2^53. */
static const double first_ambiguous = 0x1p53;

/* cJSON prints 15 digits and takes a neighbouring double for the same number. */
static const uint64_t first_misprinted = UINT64_C(1000000000000000);

static const char envelope_key[] = "lance";

struct message {
    uint64_t bytes;
    struct safetensors *tensors;
    cJSON *envelope;
    void *owner;
    void (*release)(void *owner);
};

/* Bound what the JSON parser may allocate, and refuse what it would misread: cJSON ends a
 * string at an escaped NUL without a word, so that the daemon would see a shorter prompt
 * than the client sent. (That the text is UTF-8 the safetensors reader has checked.) */
static int scan_envelope(const char *text, struct error *error)
{
    bool in_string = false;
    size_t values = 0;
    for (const char *at = text; *at != '\0'; at++) {
        if (in_string && *at == '\\') {
            if (strncmp(at + 1, "u0000", 5) == 0)
                return error_set(error, ERROR_BAD_REQUEST, "message: a string of the envelope contains a NUL character");
            if (at[1] != '\0')
                at++;
        } else if (*at == '"') {
            in_string = !in_string;
        } else if (!in_string && (*at == ',' || *at == '{' || *at == '[')) {
            values++;
        }
    }
    if (values > MESSAGE_MAX_ENVELOPE_VALUES)
        return error_set(error, ERROR_TOO_LARGE, "message: the envelope has more than %d JSON values",
                         MESSAGE_MAX_ENVELOPE_VALUES);
    return 0;
}

static int parse_envelope(struct message *message, struct error *error)
{
    const char *text = safetensors_metadata(message->tensors, envelope_key);
    if (text == NULL)
        return error_set(error, ERROR_BAD_REQUEST,
                         "message: the safetensors metadata has no entry \"%s\" holding the JSON envelope", envelope_key);
    size_t bytes = strlen(text);
    if (bytes > MESSAGE_MAX_ENVELOPE_BYTES)
        return error_set(error, ERROR_TOO_LARGE, "message: the envelope has %zu bytes; at most %d are accepted", bytes,
                         MESSAGE_MAX_ENVELOPE_BYTES);
    int status = scan_envelope(text, error);
    if (status != 0)
        return status;

    const char *end = text;
    message->envelope = cJSON_ParseWithOpts(text, &end, true);
    if (message->envelope == NULL)
        return error_set(error, ERROR_BAD_REQUEST, "message: the envelope is not valid JSON at byte %zu (\"%.24s\")",
                         (size_t)(end - text), end);
    if (!cJSON_IsObject(message->envelope))
        return error_set(error, ERROR_BAD_REQUEST, "message: the envelope must be a JSON object");
    return 0;
}

int message_parse(struct message **out, const void *data, uint64_t bytes, uint64_t limit_bytes, struct error *error)
{
    *out = NULL;
    if (limit_bytes != 0 && bytes > limit_bytes)
        return error_set(error, ERROR_TOO_LARGE,
                         "message: %llu bytes are over the limit of %llu (lanced --max-message)",
                         (unsigned long long)bytes, (unsigned long long)limit_bytes);
    struct message *message = calloc(1, sizeof *message);
    if (message == NULL)
        return error_set(error, ERROR_NO_MEMORY, "message: out of memory");
    message->bytes = bytes;
    int status = safetensors_parse(&message->tensors, data, bytes, "message", error);
    if (status == ERROR_BAD_FILE) { /* for a message that is the request's fault, not a file's */
        status = ERROR_BAD_REQUEST;
        if (error != NULL)
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
    if (message == NULL)
        return;
    cJSON_Delete(message->envelope);
    safetensors_close(message->tensors);
    if (message->release != NULL)
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
    char *text = cJSON_PrintUnformatted(envelope);
    if (text == NULL)
        return error_set(error, ERROR_NO_MEMORY, "message: out of memory for the envelope");
    const char *keys[] = {envelope_key};
    const char *values[] = {text};
    int status = safetensors_write(out, out_bytes, tensors, tensor_count, keys, values, 1, error);
    cJSON_free(text);
    return status;
}

const char *json_text(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

bool json_uint64(const cJSON *item, uint64_t *value)
{
    if (cJSON_IsNumber(item)) {
        double number = item->valuedouble;
        if (!(number >= 0 && number < first_ambiguous) || number != (double)(uint64_t)number)
            return false;
        *value = (uint64_t)number;
        return true;
    }
    const char *digits = cJSON_GetStringValue(item);
    if (digits == NULL || digits[0] == '\0')
        return false;
    uint64_t sum = 0;
    for (; *digits != '\0'; digits++) {
        if (!isdigit((unsigned char)*digits))
            return false;
        unsigned digit = (unsigned)(*digits - '0');
        if (sum > (UINT64_MAX - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *value = sum;
    return true;
}

cJSON *json_from_uint64(uint64_t value)
{
    if (value < first_misprinted)
        return cJSON_CreateNumber((double)value);
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    return cJSON_CreateString(digits);
}

bool job_id_is_valid(const char *id)
{
    if (id == NULL)
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
