/* payload.c: see payload.h. */
#include "daemon/payload.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct payload *)a)->tensor.name, ((const struct payload *)b)->tensor.name);
}

/* --- Tensors in the message ---------------------------------------------------------------- */

static int read_inline(struct payload *payload, const struct tensor_view *tensor, struct error *error)
{
    payload->tensor = *tensor;
    if ((uintptr_t)tensor->data % dtype_bytes(tensor->dtype) == 0)
        return 0;
    payload->aligned = malloc(tensor->bytes);
    if (!payload->aligned)
        return error_set(error, ERROR_NO_MEMORY, "tensor \"%.40s\": out of memory", tensor->name);
    memcpy(payload->aligned, tensor->data, tensor->bytes);
    payload->tensor.data = payload->aligned;
    return 0;
}

/* --- Tensors in blobs ---------------------------------------------------------------------- */

static int read_dtype(enum dtype *out, const char *name, const cJSON *item, struct error *error)
{
    if (dtype_of_name(json_text(item, "dtype"), out))
        return 0;
    return error_set(error, ERROR_BAD_REQUEST,
                     "tensors: \"%.40s\": dtype must be a type of safetensors, such as \"U8\" or \"F32\"", name);
}

static int read_shape(struct tensor_view *tensor, const cJSON *item, struct error *error)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    const int dimensions = cJSON_IsArray(shape) ? cJSON_GetArraySize(shape) : INT_MAX;
    bool is_right = dimensions <= TENSOR_MAX_DIMENSIONS;
    tensor->bytes = dtype_bytes(tensor->dtype);
    for (int i = 0; is_right && i < dimensions; i++) {
        is_right = json_uint64(cJSON_GetArrayItem(shape, i), &tensor->shape[i]) && tensor->shape[i] > 0 &&
                   !__builtin_mul_overflow(tensor->bytes, tensor->shape[i], &tensor->bytes);
        tensor->dimensions++;
    }
    if (!is_right)
        return error_set(error, ERROR_BAD_REQUEST,
                         "tensors: \"%.40s\": shape must be at most %d whole numbers from 1 on, for fewer "
                         "than 2^64 bytes",
                         tensor->name, TENSOR_MAX_DIMENSIONS);
    return 0;
}

static int read_named(struct payload *payload, const cJSON *item, struct error *error)
{
    const char *blob = json_text(item, "blob"), *name = item->string;
    if (!cJSON_IsObject(item))
        return error_set(error, ERROR_BAD_REQUEST, "tensors: \"%.40s\" must be {\"blob\", \"dtype\", \"shape\"}", name);
    if (!blob_name_is_right(blob))
        return error_set(error, ERROR_BAD_REQUEST, "tensors: \"%.40s\": blob must be " BLOB_NAME_RULE, name);
    memcpy(payload->blob, blob, strlen(blob) + 1);
    payload->tensor.name = name;
    int code = read_dtype(&payload->tensor.dtype, name, item, error);
    return code != 0 ? code : read_shape(&payload->tensor, item, error);
}

/* --- All ------------------------------------------------------------------------------------ */

static int read_all(struct payloads *payloads, const struct message *message, const cJSON *named, struct error *error)
{
    for (size_t i = 0; i < message_tensor_count(message); i++) {
        int code = read_inline(&payloads->list[payloads->count++], message_tensor_at(message, i), error);
        if (code != 0)
            return code;
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, named)
    {
        int code = read_named(&payloads->list[payloads->count++], item, error);
        if (code != 0)
            return code;
    }
    qsort(payloads->list, payloads->count, sizeof *payloads->list, by_name);
    for (size_t i = 1; i < payloads->count; i++)
        if (by_name(&payloads->list[i - 1], &payloads->list[i]) == 0)
            return error_set(error, ERROR_BAD_REQUEST, "tensor \"%.40s\": is there twice",
                             payloads->list[i].tensor.name);
    return 0;
}

int payloads_open(struct payloads *out, const struct message *message, struct error *error)
{
    *out = (struct payloads){0};
    const cJSON *named = cJSON_GetObjectItemCaseSensitive(message_envelope(message), "tensors");
    if (named && !cJSON_IsObject(named))
        return error_set(error, ERROR_BAD_REQUEST,
                         "tensors: must be an object, {NAME: {\"blob\", \"dtype\", \"shape\"}}");
    const size_t count = message_tensor_count(message) + (size_t)cJSON_GetArraySize(named);
    if (count > MESSAGE_MAX_TENSORS)
        return error_set(error, ERROR_BAD_REQUEST, "tensors: %zu are too many, at most %d are taken", count,
                         MESSAGE_MAX_TENSORS);
    if (count == 0)
        return 0;
    out->list = calloc(count, sizeof *out->list);
    if (!out->list)
        return error_set(error, ERROR_NO_MEMORY, "submit: out of memory");
    int code = read_all(out, message, named, error);
    if (code != 0)
        payloads_close(out);
    return code;
}

void payloads_close(struct payloads *payloads)
{
    for (size_t i = 0; i < payloads->count; i++) {
        blob_close(payloads->list[i].held);
        free(payloads->list[i].aligned);
    }
    free(payloads->list);
    *payloads = (struct payloads){0};
}

void payload_give(struct payload *payload, struct blob *blob)
{
    payload->held = blob;
    payload->tensor.data = blob ? blob->data : NULL;
}

static int name_payload(struct payload *payload, struct error *error)
{
    void *copy = malloc(payload->tensor.bytes + 1);
    if (copy)
        memcpy(copy, payload->tensor.data, payload->tensor.bytes);
    struct blob *blob = copy ? blob_open(copy, payload->tensor.bytes) : NULL;
    if (!blob)
        return error_set(error, ERROR_NO_MEMORY, "tensor \"%.40s\": out of memory", payload->tensor.name);
    sha256_of(blob->data, blob->bytes, blob->sha256);
    memcpy(payload->blob, blob->sha256, sizeof blob->sha256);
    free(payload->aligned);
    payload->aligned = NULL;
    payload_give(payload, blob);
    return 0;
}

int payloads_name(struct payloads *payloads, struct error *error)
{
    int code = 0;
    for (size_t i = 0; code == 0 && i < payloads->count; i++)
        if (payloads->list[i].blob[0] == '\0')
            code = name_payload(&payloads->list[i], error);
    return code;
}

size_t payloads_missing_count(const struct payloads *payloads)
{
    size_t missing = 0;
    for (size_t i = 0; i < payloads->count; i++)
        missing += !payloads->list[i].tensor.data;
    return missing;
}

size_t payloads_unknown_count(const struct payloads *payloads)
{
    size_t unknown = 0;
    for (size_t i = 0; i < payloads->count; i++)
        unknown += !payloads->list[i].tensor.data && !sha256_is_hex(payloads->list[i].blob);
    return unknown;
}

const struct tensor_view *payloads_find(const struct payloads *payloads, const char *name)
{
    for (size_t i = 0; i < payloads->count; i++)
        if (strcmp(payloads->list[i].tensor.name, name) == 0)
            return &payloads->list[i].tensor;
    return NULL;
}

cJSON *payloads_missing(const struct payloads *payloads)
{
    cJSON *names = json_array();
    for (size_t i = 0; i < payloads->count; i++)
        if (!payloads->list[i].tensor.data)
            json_append_text(names, payloads->list[i].blob);
    return names;
}

uint64_t payloads_missing_bytes(const struct payloads *payloads)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < payloads->count; i++) {
        const struct payload *payload = &payloads->list[i];
        size_t first = 0;
        while (strcmp(payloads->list[first].blob, payload->blob) != 0)
            first++;
        if (!payload->tensor.data && first == i && __builtin_add_overflow(bytes, payload->tensor.bytes, &bytes))
            return UINT64_MAX;
    }
    return bytes;
}

uint64_t payloads_bytes(const struct payloads *payloads)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < payloads->count; i++)
        bytes +=
            payloads->list[i].held || payloads->list[i].aligned ? payloads->list[i].tensor.bytes : 0;
    return bytes;
}
