/* receipt.c: see receipt.h. */
#include "daemon/receipt.h"

#include <math.h>
#include <string.h>

#include "daemon/request.h"
#include "daemon/result_digest.h"
#include "protocol/message.h"

cJSON *task_names_json(unsigned tasks)
{
    cJSON *names = json_array();
    for (int task = 0; task < LANCE_TASK_COUNT; task++)
        if (tasks & (1u << task))
            json_append_text(names, lance_task_name((enum lance_task)task));
    return names;
}

cJSON *model_info_json(const struct lance_model_info *info)
{
    cJSON *json = json_object();
    json_add_text(json, "name", info->name);
    json_add_text(json, "kind", info->kind);
    json_add_text(json, "hash", info->hash);
    json_add(json, "tasks", task_names_json(info->tasks));
    json_add_number(json, "weight_bytes", (double)info->weight_bytes);
    json_add_number(json, "hidden_size", info->hidden_size);
    json_add_number(json, "layers", info->layers);
    json_add_number(json, "latent_channels", info->latent_channels);
    json_add_number(json, "spatial_stride", info->spatial_stride);
    json_add_number(json, "load_seconds", info->load_seconds);
    return json;
}

/* To the microsecond: what a clock says beyond that is noise that people would have to read. */
static void add_seconds(cJSON *object, const char *name, double seconds)
{
    json_add_number(object, name, round(seconds * 1e6) / 1e6);
}

static cJSON *receipt_json(const struct lance_request *request, const struct lance_result *result,
                           const struct receipt_facts *facts)
{
    struct lance_request used = *request;
    if (result->width != 0) { /* taken from the source or the task */
        used.width = result->width;
        used.height = result->height;
    }
    cJSON *receipt = json_object();
    json_add_text(receipt, "job", facts->job);
    json_add_text(receipt, "task", lance_task_name(request->task));
    if (request->prompt) /* the VAE's tasks have none */
        json_add_text(receipt, "prompt", request->prompt);
    json_add(receipt, "params", job_request_params(&used));
    if (result->frames > 0) /* a video has 4n+1, whatever params.num_frames asks for */
        json_add_number(receipt, "frames", result->frames);
    cJSON *model = json_add_object(receipt, "model");
    json_add_text(model, "name", facts->model.name);
    json_add_text(model, "kind", facts->model.kind);
    json_add_text(model, "hash", facts->model.hash);
    json_add_text(receipt, "version", LANCED_VERSION);
    json_add_text(receipt, "backend", facts->backend);
    json_add_text(receipt, "build", lance_build());
    char digest[SHA256_HEX_BYTES];
    result_digest(facts->request, facts->model.hash, facts->backend, lance_build(), digest);
    json_add_text(receipt, "request", facts->request);
    json_add_text(receipt, "digest", digest);
    cJSON *stages = json_add_array(receipt, "stages");
    for (int i = 0; i < result->stage_count; i++) {
        cJSON *stage = json_object();
        json_add_text(stage, "stage", lance_stage_name(result->stages[i].stage));
        add_seconds(stage, "seconds", result->stages[i].seconds);
        json_add_number(stage, "steps", result->stages[i].steps);
        json_append(stages, stage);
    }
    add_seconds(receipt, "queue_seconds", facts->queue_seconds);
    if (facts->load_seconds < 0)
        json_add_null(receipt, "load_seconds");
    else
        add_seconds(receipt, "load_seconds", facts->load_seconds);
    add_seconds(receipt, "total_seconds", facts->total_seconds);
    if (facts->paused_seconds > 0)
        add_seconds(receipt, "paused_seconds", facts->paused_seconds);
    if (facts->attempt > 0) {
        json_add_number(receipt, "attempt", facts->attempt);
        json_add_bool(receipt, "resumed", facts->is_resumed);
        if (facts->no_state && facts->no_state[0] != '\0')
            json_add_text(receipt, "state_not_used", facts->no_state);
    }
    json_add_number(receipt, "peak_bytes", (double)result->peak_bytes);
    json_add_number(receipt, "estimated_bytes", (double)result->estimated_bytes);
    return receipt;
}

static cJSON *envelope_json(const struct lance_request *request, const struct lance_result *result,
                            const struct receipt_facts *facts)
{
    cJSON *envelope = json_object();
    json_add_number(envelope, "protocol", PROTOCOL_VERSION);
    json_add_bool(envelope, "ok", true);
    json_add_text(envelope, "task", lance_task_name(request->task));
    json_add(envelope, "seed", json_from_uint64(request->seed));
    json_add_number(envelope, "width", result->width);
    json_add_number(envelope, "height", result->height);
    json_add_number(envelope, "frames", result->frames);
    json_add_number(envelope, "fps", result->fps);
    json_add_text(envelope, "text", result->text);
    json_add(envelope, "receipt", receipt_json(request, result, facts));
    return envelope;
}

static void add_tensor(struct tensor_view *tensors, size_t *count, const char *name, enum dtype dtype, const void *data,
                       int dimensions, const uint64_t *shape)
{
    struct tensor_view *tensor = &tensors[(*count)++];
    *tensor = (struct tensor_view){.name = name, .dtype = dtype, .dimensions = dimensions, .data = data};
    memcpy(tensor->shape, shape, (size_t)dimensions * sizeof *shape);
    tensor->bytes = tensor_elements(tensor) * dtype_bytes(dtype);
}

/* What tensors there are, for clients that fetch them piece by piece. */
static cJSON *tensors_json(const struct tensor_view *tensors, size_t count)
{
    cJSON *json = json_object();
    for (size_t i = 0; i < count; i++) {
        cJSON *entry = json_add_object(json, tensors[i].name);
        json_add_text(entry, "dtype", dtype_name(tensors[i].dtype));
        cJSON *shape = json_add_array(entry, "shape");
        for (int side = 0; side < tensors[i].dimensions; side++)
            json_append_number(shape, (double)tensors[i].shape[side]);
        json_add_number(entry, "bytes", (double)tensors[i].bytes);
    }
    return json;
}

/* What stands in a receipt of the job that made the result, and not of the request. */
static const char *const of_its_maker[] = {"attempt", "resumed", "state_not_used", "paused_seconds"};

int receipt_encode_again(struct blob **out, const struct blob *kept, const struct receipt_facts *facts,
                         struct error *error)
{
    struct message *message;
    struct tensor_view tensors[4];
    size_t count = 0;
    void *data = NULL;
    uint64_t bytes = 0;
    *out = NULL;
    int code = message_parse(&message, kept->data, kept->bytes, 0, error);
    if (code != 0)
        return code;
    for (; count < message_tensor_count(message) && count < sizeof tensors / sizeof tensors[0]; count++)
        tensors[count] = *message_tensor_at(message, count);
    cJSON *envelope = cJSON_Duplicate(message_envelope(message), true);
    cJSON *receipt = cJSON_GetObjectItemCaseSensitive(envelope, "receipt");
    if (receipt) {
        json_replace(receipt, "job", json_from_text(facts->job));
        json_replace(receipt, "queue_seconds", json_from_number(round(facts->queue_seconds * 1e6) / 1e6));
        json_replace(receipt, "total_seconds", json_from_number(round(facts->total_seconds * 1e6) / 1e6));
        for (size_t i = 0; i < sizeof of_its_maker / sizeof of_its_maker[0]; i++)
            cJSON_DeleteItemFromObjectCaseSensitive(receipt, of_its_maker[i]);
        if (facts->attempt > 0) {
            json_add_number(receipt, "attempt", facts->attempt);
            json_add_bool(receipt, "resumed", false);
        }
        json_replace(receipt, "cached", json_from_bool(true));
        code = message_encode(&data, &bytes, envelope, tensors, count, error);
    } else
        code = error_set(error, envelope ? ERROR_BAD_FILE : ERROR_NO_MEMORY, "a kept result has no receipt");
    cJSON_Delete(envelope);
    message_close(message);
    if (code == 0 && !(*out = blob_open(data, bytes)))
        code = error_set(error, ERROR_NO_MEMORY, "result: out of memory");
    return code;
}

char *receipt_result_text(const struct blob *result)
{
    struct message *message;
    struct error unused;
    if (message_parse(&message, result->data, result->bytes, 0, &unused) != 0)
        return NULL;
    const char *text = json_text(message_envelope(message), "text");
    char *copy = text && text[0] != '\0' ? strdup(text) : NULL;
    message_close(message);
    return copy;
}

int receipt_encode(struct blob **out, const struct lance_request *request, const struct lance_result *result,
                   const struct receipt_facts *facts, struct error *error)
{
    *out = NULL;
    struct tensor_view tensors[4];
    size_t count = 0;
    if (result->pixels)
        add_tensor(tensors, &count, "pixels", DTYPE_U8, result->pixels, 5,
                   (uint64_t[]){(uint64_t)result->batch, (uint64_t)result->frames, (uint64_t)result->height,
                                (uint64_t)result->width, 3});
    const uint64_t latents_shape[] = {(uint64_t)result->batch, (uint64_t)facts->model.latent_channels,
                                      (uint64_t)result->latent_frames, (uint64_t)result->latent_height,
                                      (uint64_t)result->latent_width};
    if (result->latents)
        add_tensor(tensors, &count, "latents", DTYPE_F32, result->latents, 5, latents_shape);
    if (result->latent_state)
        add_tensor(tensors, &count, "latent_state", DTYPE_F32, result->latent_state, 5, latents_shape);
    if (result->token_ids)
        add_tensor(tensors, &count, "token_ids", DTYPE_I32, result->token_ids, 1,
                   (uint64_t[]){(uint64_t)result->tokens});

    cJSON *envelope = envelope_json(request, result, facts);
    json_add(envelope, "tensors", tensors_json(tensors, count));
    void *data;
    uint64_t bytes;
    int code = message_encode(&data, &bytes, envelope, tensors, count, error);
    cJSON_Delete(envelope);
    if (code != 0)
        return code;
    *out = blob_open(data, bytes);
    return *out != NULL ? 0 : error_set(error, ERROR_NO_MEMORY, "result: out of memory");
}
