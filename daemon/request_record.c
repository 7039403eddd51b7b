/* request_record.c: see request_record.h. */
#include "daemon/request_record.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static const char *const kept_fields[] = {"job", "task", "params", "model", "client", "cache"};

static cJSON *payload_json(const struct payload *payload)
{
    cJSON *json = json_object(), *shape = json_array();
    json_add_text(json, "blob", payload->held ? payload->held->sha256 : payload->blob);
    json_add_text(json, "dtype", dtype_name(payload->tensor.dtype));
    for (int side = 0; side < payload->tensor.dimensions; side++)
        json_append(shape, json_from_uint64(payload->tensor.shape[side]));
    json_add(json, "shape", shape);
    return json;
}

char *request_record_write(const struct job_request *request)
{
    const cJSON *envelope = message_envelope(request->message);
    cJSON *kept = json_object(), *tensors = json_object();
    for (size_t i = 0; i < sizeof kept_fields / sizeof kept_fields[0]; i++) {
        const cJSON *field = cJSON_GetObjectItemCaseSensitive(envelope, kept_fields[i]);
        if (field)
            json_add(kept, kept_fields[i], cJSON_Duplicate(field, true));
    }
    for (size_t i = 0; i < request->payloads.count; i++)
        json_add(tensors, request->payloads.list[i].tensor.name, payload_json(&request->payloads.list[i]));
    json_add(kept, "tensors", tensors);
    if (request->bound_model)
        json_add_text(kept, "bound_model", request->bound_model);
    char *text = json_print(kept);
    cJSON_Delete(kept);
    return text;
}

/* The text as a message, which owns its bytes. */
static int read_message(struct message **out, const char *text, struct error *error)
{
    static const struct json_limits limits = {MESSAGE_MAX_ENVELOPE_BYTES, MESSAGE_MAX_ENVELOPE_VALUES, ERROR_BAD_FILE,
                                              ERROR_BAD_FILE};
    cJSON *envelope;
    void *data;
    uint64_t bytes;
    *out = NULL;
    int code = json_parse(&envelope, text, strlen(text), &limits, "a kept request", error);
    if (code != 0)
        return code;
    code = message_encode(&data, &bytes, envelope, NULL, 0, error);
    cJSON_Delete(envelope);
    if (code != 0)
        return code;
    code = message_parse(out, data, bytes, 0, error);
    if (code == 0)
        message_adopt(*out, data, free);
    else
        free(data);
    return code;
}

int request_record_read(struct job_request **out, const char *text,
                        int (*fetch)(void *context, const char *sha256, struct blob **blob, struct error *error),
                        void *context, struct error *error)
{
    struct message *message;
    struct payloads payloads = {0};
    *out = NULL;
    int code = read_message(&message, text, error);
    if (code != 0)
        return code;
    code = payloads_open(&payloads, message, error);
    for (size_t i = 0; code == 0 && i < payloads.count; i++) {
        struct blob *blob = NULL;
        code = fetch(context, payloads.list[i].blob, &blob, error);
        if (code == 0 && blob->bytes != payloads.list[i].tensor.bytes) {
            blob_close(blob);
            code = error_set(error, ERROR_BAD_FILE, "a kept payload has another size than its request says");
        } else if (code == 0)
            payload_give(&payloads.list[i], blob);
    }
    if (code == 0)
        code = job_request_open(out, message, &payloads, error);
    payloads_close(&payloads);
    if (code != 0)
        message_close(message);
    else
        (*out)->bound_model = json_text(message_envelope(message), "bound_model");
    return code;
}
