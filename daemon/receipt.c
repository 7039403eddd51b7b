/* receipt.c: see receipt.h. */
#include "daemon/receipt.h"

#include <math.h>
#include <string.h>

#include "daemon/request.h"
#include "protocol/message.h"

cJSON *task_names_json(unsigned tasks)
{
    cJSON *names = cJSON_CreateArray();
    for (int task = 0; task < LANCE_TASK_COUNT; task++)
        if (tasks & (1u << task))
            cJSON_AddItemToArray(names, cJSON_CreateString(lance_task_name((enum lance_task)task)));
    return names;
}

cJSON *model_info_json(const struct lance_model_info *info)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "name", info->name);
    cJSON_AddStringToObject(json, "kind", info->kind);
    cJSON_AddStringToObject(json, "hash", info->hash);
    cJSON_AddItemToObject(json, "tasks", task_names_json(info->tasks));
    cJSON_AddNumberToObject(json, "weight_bytes", (double)info->weight_bytes);
    cJSON_AddNumberToObject(json, "hidden_size", info->hidden_size);
    cJSON_AddNumberToObject(json, "layers", info->layers);
    cJSON_AddNumberToObject(json, "latent_channels", info->latent_channels);
    cJSON_AddNumberToObject(json, "spatial_stride", info->spatial_stride);
    cJSON_AddNumberToObject(json, "load_seconds", info->load_seconds);
    return json;
}

/* To the microsecond: what a clock says beyond that is noise that people would have to read. */
static void add_seconds(cJSON *object, const char *name, double seconds)
{
    cJSON_AddNumberToObject(object, name, round(seconds * 1e6) / 1e6);
}

static cJSON *receipt_json(const struct lance_request *request, const struct lance_result *result,
                           const struct receipt_facts *facts)
{
    struct lance_request used = *request;
    if (result->width != 0) { /* taken from the source or the task */
        used.width = result->width;
        used.height = result->height;
    }
    cJSON *receipt = cJSON_CreateObject();
    cJSON_AddStringToObject(receipt, "job", facts->job);
    cJSON_AddStringToObject(receipt, "task", lance_task_name(request->task));
    cJSON_AddStringToObject(receipt, "prompt", request->prompt);
    cJSON_AddItemToObject(receipt, "params", job_request_params(&used));
    cJSON *model = cJSON_AddObjectToObject(receipt, "model");
    cJSON_AddStringToObject(model, "name", facts->model.name);
    cJSON_AddStringToObject(model, "kind", facts->model.kind);
    cJSON_AddStringToObject(model, "hash", facts->model.hash);
    cJSON_AddStringToObject(receipt, "version", LANCED_VERSION);
    cJSON_AddStringToObject(receipt, "backend", facts->backend);
    cJSON *stages = cJSON_AddArrayToObject(receipt, "stages");
    for (int i = 0; i < result->stage_count; i++) {
        cJSON *stage = cJSON_CreateObject();
        cJSON_AddStringToObject(stage, "stage", result->stages[i].stage);
        add_seconds(stage, "seconds", result->stages[i].seconds);
        cJSON_AddNumberToObject(stage, "steps", result->stages[i].steps);
        cJSON_AddItemToArray(stages, stage);
    }
    add_seconds(receipt, "queue_seconds", facts->queue_seconds);
    if (facts->load_seconds < 0)
        cJSON_AddNullToObject(receipt, "load_seconds");
    else
        add_seconds(receipt, "load_seconds", facts->load_seconds);
    add_seconds(receipt, "total_seconds", facts->total_seconds);
    cJSON_AddNumberToObject(receipt, "peak_bytes", (double)result->peak_bytes);
    cJSON_AddNumberToObject(receipt, "estimated_bytes", (double)result->estimated_bytes);
    return receipt;
}

static cJSON *envelope_json(const struct lance_request *request, const struct lance_result *result,
                            const struct receipt_facts *facts)
{
    cJSON *envelope = cJSON_CreateObject();
    cJSON_AddNumberToObject(envelope, "protocol", PROTOCOL_VERSION);
    cJSON_AddTrueToObject(envelope, "ok");
    cJSON_AddStringToObject(envelope, "task", lance_task_name(request->task));
    cJSON_AddItemToObject(envelope, "seed", json_from_uint64(request->seed));
    cJSON_AddNumberToObject(envelope, "width", result->width);
    cJSON_AddNumberToObject(envelope, "height", result->height);
    cJSON_AddNumberToObject(envelope, "frames", result->frames);
    cJSON_AddNumberToObject(envelope, "fps", result->fps);
    if (result->text != NULL)
        cJSON_AddStringToObject(envelope, "text", result->text);
    else
        cJSON_AddNullToObject(envelope, "text");
    cJSON_AddItemToObject(envelope, "receipt", receipt_json(request, result, facts));
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

int receipt_encode(struct blob **out, const struct lance_request *request, const struct lance_result *result,
                   const struct receipt_facts *facts, struct error *error)
{
    *out = NULL;
    struct tensor_view tensors[4];
    size_t count = 0;
    if (result->pixels != NULL)
        add_tensor(tensors, &count, "pixels", DTYPE_U8, result->pixels, 5,
                   (uint64_t[]){(uint64_t)result->batch, (uint64_t)result->frames, (uint64_t)result->height,
                                (uint64_t)result->width, 3});
    const uint64_t latents_shape[] = {(uint64_t)result->batch, (uint64_t)facts->model.latent_channels,
                                      (uint64_t)result->latent_frames, (uint64_t)result->latent_height,
                                      (uint64_t)result->latent_width};
    if (result->latents != NULL)
        add_tensor(tensors, &count, "latents", DTYPE_F32, result->latents, 5, latents_shape);
    if (result->latent_state != NULL)
        add_tensor(tensors, &count, "latent_state", DTYPE_F32, result->latent_state, 5, latents_shape);
    if (result->token_ids != NULL)
        add_tensor(tensors, &count, "token_ids", DTYPE_I32, result->token_ids, 1, (uint64_t[]){(uint64_t)result->tokens});

    cJSON *envelope = envelope_json(request, result, facts);
    void *data;
    uint64_t bytes;
    int status = message_encode(&data, &bytes, envelope, tensors, count, error);
    cJSON_Delete(envelope);
    if (status != 0)
        return status;
    *out = blob_open(data, bytes);
    return *out != NULL ? 0 : error_set(error, ERROR_NO_MEMORY, "result: out of memory");
}
