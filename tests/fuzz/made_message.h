/* made_message.h: a message made of a line of JSON, for targets that are given envelopes: the protocol's number is
 * added, and a member "tensor_here" of it, [name, dtype, shape], is taken out and becomes a tensor of the message. */
#ifndef TESTS_FUZZ_MADE_MESSAGE_H
#define TESTS_FUZZ_MADE_MESSAGE_H

#include <stdbool.h>
#include <string.h>

#include "protocol/message.h"

enum { MADE_TENSOR_BYTES = 64 << 10 }; /* the largest tensor: what is more costs time alone */

/* [name, dtype, shape] as a tensor full of zeros; false: it is no such thing, or too large. */
static inline bool made_tensor(struct tensor_view *tensor, const cJSON *json)
{
    static const _Alignas(8) char zeros[MADE_TENSOR_BYTES];
    const cJSON *name = cJSON_GetArrayItem(json, 0), *dtype = cJSON_GetArrayItem(json, 1);
    const cJSON *shape = cJSON_GetArrayItem(json, 2);
    *tensor = (struct tensor_view){.data = zeros};
    if (!cJSON_IsString(name) || strlen(name->valuestring) > 64 || !cJSON_IsString(dtype) ||
        cJSON_GetArraySize(shape) > (int)(sizeof tensor->shape / sizeof *tensor->shape))
        return false;
    tensor->name = name->valuestring;
    if (!dtype_of_name(dtype->valuestring, &tensor->dtype))
        return false;
    tensor->bytes = dtype_bytes(tensor->dtype);
    const cJSON *size;
    cJSON_ArrayForEach(size, shape)
    {
        if (!cJSON_IsNumber(size) || size->valuedouble < 0 || size->valuedouble > MADE_TENSOR_BYTES)
            return false;
        tensor->shape[tensor->dimensions++] = (uint64_t)size->valuedouble;
        tensor->bytes *= (uint64_t)size->valuedouble;
        if (tensor->bytes > MADE_TENSOR_BYTES)
            return false;
    }
    return true;
}

/* The message of a line, malloc'ed; false: the line is no object of JSON, or too much. */
static inline bool made_message(void **data, uint64_t *bytes, const char *line)
{
    static const struct json_limits limits = {MESSAGE_MAX_ENVELOPE_BYTES, MESSAGE_MAX_ENVELOPE_VALUES,
                                              ERROR_BAD_REQUEST, ERROR_BAD_REQUEST};
    cJSON *envelope = NULL;
    struct error unread;
    if (json_parse(&envelope, line, strlen(line), &limits, "line", &unread) != 0 || !cJSON_IsObject(envelope)) {
        cJSON_Delete(envelope);
        return false;
    }
    if (!cJSON_HasObjectItem(envelope, "protocol"))
        json_add_number(envelope, "protocol", PROTOCOL_VERSION);
    cJSON *tensor_json = cJSON_DetachItemFromObject(envelope, "tensor_here");
    struct tensor_view tensor;
    const bool has_tensor = tensor_json && made_tensor(&tensor, tensor_json);
    const bool is_made = message_encode(data, bytes, envelope, &tensor, has_tensor, &unread) == 0;
    cJSON_Delete(tensor_json);
    cJSON_Delete(envelope);
    return is_made;
}

#endif
