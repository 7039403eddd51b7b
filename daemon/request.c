/* request.c: see request.h.
 *
 * Reading a request and writing the receipt both walk the tables of parameters: the engine's (engine/parameters.h), and
 * the server's own, of the same kind.
 */
#include "daemon/request.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(enum job_class) == sizeof(int), "choices are stored through an int");

const struct parameter server_parameters[] = {
    {.name = "preview", .kind = PARAMETER_FLAG, .offset = offsetof(struct job_request, lance.preview),
     .tasks = TASKS_THAT_SAMPLE, .help = "send preview events"},
    {.name = "priority", .kind = PARAMETER_CHOICE, .offset = offsetof(struct job_request, priority),
     .tasks = ALL_TASKS, .choices = job_class_names, .value = {.numbers = {JOB_NORMAL}},
     .others = {{TASKS_THAT_ANSWER, {.numbers = {JOB_INTERACTIVE}}}},
     .help = "which jobs it comes before; within a class the clients take turns, and a tenth of the time goes to "
             "classes behind others"},
    {.name = NULL},
};

static const struct parameter *const tables[] = {lance_parameters, server_parameters};
enum { TABLES = sizeof tables / sizeof *tables };

static int wrong(struct error *error, const char *name, const cJSON *value, const char *wanted)
{
    char *text = json_print(value);
    int code =
        error_set(error, ERROR_BAD_REQUEST, "%s: must be %s, not %.60s", name, wanted, text ? text : "that");
    cJSON_free(text);
    return code;
}

static bool is_finite_number(const cJSON *value)
{
    return cJSON_IsNumber(value) && isfinite(value->valuedouble);
}

/* What is negative is the engine's to refuse, with the range. */
static bool read_int(int *out, const cJSON *value)
{
    uint64_t whole;
    if (cJSON_IsNumber(value) && value->valuedouble == floor(value->valuedouble) && fabs(value->valuedouble) <= INT_MAX)
        *out = (int)value->valuedouble;
    else if (json_uint64(value, &whole) && whole <= INT_MAX)
        *out = (int)whole;
    else
        return false;
    return true;
}

static int read_list(double out[2], const struct parameter *parameter, const cJSON *value, struct error *error)
{
    const cJSON *low = cJSON_GetArrayItem(value, 0), *high = cJSON_GetArrayItem(value, 1);
    if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) != 2 || !is_finite_number(low) || !is_finite_number(high))
        return wrong(error, parameter->name, value, "[low, high], two finite numbers");
    out[0] = low->valuedouble;
    out[1] = high->valuedouble;
    return 0;
}

static int read_choice(int *out, const struct parameter *parameter, const cJSON *value, struct error *error)
{
    const char *text = cJSON_GetStringValue(value);
    char wanted[120] = "one of";
    for (int i = 0; parameter->choices[i]; i++) {
        if (text && strcmp(text, parameter->choices[i]) == 0) {
            *out = i;
            return 0;
        }
        size_t at = strlen(wanted);
        snprintf(wanted + at, sizeof wanted - at, "%s \"%s\"", i > 0 ? "," : "", parameter->choices[i]);
    }
    return wrong(error, parameter->name, value, wanted);
}

static int read_parameter(void *field, const struct parameter *parameter, const cJSON *value, struct error *error)
{
    switch (parameter->kind) {
    case PARAMETER_TEXT:
        if (!cJSON_IsString(value))
            return wrong(error, parameter->name, value, "a string");
        *(const char **)field = value->valuestring;
        return 0;
    case PARAMETER_INTEGER:
        return read_int(field, value) ? 0 : wrong(error, parameter->name, value, "a whole number below 2^31");
    case PARAMETER_WHOLE:
        if (!json_uint64(value, field))
            return wrong(error, parameter->name, value,
                         "a whole number from 0 to 2^64-1, as a decimal string from 2^53 on");
        return 0;
    case PARAMETER_NUMBER:
        if (!is_finite_number(value))
            return wrong(error, parameter->name, value, "a finite number");
        *(double *)field = value->valuedouble;
        return 0;
    case PARAMETER_FLAG:
        if (!cJSON_IsBool(value))
            return wrong(error, parameter->name, value, "true or false");
        *(bool *)field = cJSON_IsTrue(value);
        return 0;
    case PARAMETER_LIST:
        return read_list(field, parameter, value, error);
    case PARAMETER_CHOICE:
        return read_choice(field, parameter, value, error);
    }
    return error_set(error, ERROR_INTERNAL, "%s: parameter of unknown kind", parameter->name);
}

static int read_table(struct job_request *request, const struct parameter *table, const cJSON *params,
                      struct error *error)
{
    for (const struct parameter *p = table; p->name; p++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(params, p->name);
        void *base = table == server_parameters ? (void *)request
                     : p->of_source             ? (void *)&request->source
                                                : (void *)&request->lance;
        void *field = (char *)base + p->offset;
        int code = !value ? 0 : read_parameter(field, p, value, error);
        if (code != 0)
            return code;
        if (!value && p->is_required && parameter_is_for(p, request->lance.task))
            return error_set(error, ERROR_BAD_REQUEST, "%s: is missing", p->name);
    }
    return 0;
}

static int read_params(struct job_request *request, const cJSON *params, struct error *error)
{
    int code = 0;
    for (int i = 0; code == 0 && i < TABLES; i++)
        code = read_table(request, tables[i], params, error);
    if (code == 0 && request->source.fps < 0) /* whatever the task */
        code = wrong(error, "fps", cJSON_GetObjectItemCaseSensitive(params, "fps"), "a number of frames per second");
    return code;
}

static int bad_tensor(struct error *error, const struct tensor_view *tensor, const char *wanted)
{
    char shape[160] = "";
    for (int i = 0; i < tensor->dimensions; i++) {
        size_t at = strlen(shape);
        snprintf(shape + at, sizeof shape - at, "%s%llu", i > 0 ? "," : "", (unsigned long long)tensor->shape[i]);
    }
    return error_set(error, ERROR_BAD_REQUEST, "tensor \"%.40s\": must be %s, not %s [%s]", tensor->name, wanted,
                     dtype_name(tensor->dtype), shape);
}

static int read_source(struct job_request *request, const struct tensor_view *tensor, struct error *error)
{
    bool fits = tensor->dtype == DTYPE_U8 && tensor->dimensions == 4 && tensor->shape[3] == 3;
    for (int i = 0; fits && i < 3; i++)
        fits = tensor->shape[i] >= 1 && tensor->shape[i] <= INT_MAX;
    if (!fits)
        return bad_tensor(error, tensor, "U8 [frames,height,width,3]");
    request->source.pixels = tensor->data;
    request->source.frames = (int)tensor->shape[0];
    request->source.height = (int)tensor->shape[1];
    request->source.width = (int)tensor->shape[2];
    request->lance.source = &request->source;
    return 0;
}

static int read_noise(struct job_request *request, const struct tensor_view *tensor, struct error *error)
{
    const struct lance_request *lance = &request->lance;
    /* A source has its size from the preset: the engine finds it, and checks how many values there are. */
    const bool from_source = lance->width == 0 && !task_is_of(lance->task, TASKS_FROM_WORDS);
    if (!from_source && (lance->width < VAE_SPATIAL_STRIDE || lance->height < VAE_SPATIAL_STRIDE ||
                         lance->num_frames < 1 || lance->batch_size < 1))
        return error_set(error, ERROR_BAD_REQUEST,
                         "tensor \"noise\": needs width, height, num_frames and batch_size, which say its shape");
    uint64_t latent_frames = (uint64_t)vae_latent_frames(lance->num_frames);
    uint64_t cells = (uint64_t)(lance->height / VAE_SPATIAL_STRIDE) * (uint64_t)(lance->width / VAE_SPATIAL_STRIDE);
    uint64_t shape[3] = {(uint64_t)lance->batch_size, 0, LATENT_CHANNELS};
    /* A product that overflows is no shape any message could have. */
    bool known = !__builtin_mul_overflow(latent_frames, cells, &shape[1]);
    if (from_source && tensor->dimensions == 3)
        shape[1] = tensor->shape[1];
    bool fits = known && tensor_is(tensor, DTYPE_F32, 3, shape);
    if (!fits) {
        char wanted[120];
        snprintf(wanted, sizeof wanted, "F32 [batch_size %llu, tokens %llu, %d]", (unsigned long long)shape[0],
                 (unsigned long long)shape[1], LATENT_CHANNELS);
        return bad_tensor(error, tensor, wanted);
    }
    request->lance.noise_values = tensor_elements(tensor);
    request->lance.noise = tensor->data;
    return 0;
}

static int read_latents(struct lance_latents *given, const struct lance_latents **out, const struct tensor_view *tensor,
                        int channels, struct error *error)
{
    bool fits = tensor->dtype == DTYPE_F32 && tensor->dimensions == 5 && tensor->shape[1] == (uint64_t)channels;
    for (int i = 0; fits && i < 5; i++)
        fits = tensor->shape[i] >= 1 && tensor->shape[i] <= INT_MAX;
    if (!fits) {
        char wanted[80];
        snprintf(wanted, sizeof wanted, "F32 [batch,%d,latent frames,height/%d,width/%d]", channels, VAE_SPATIAL_STRIDE,
                 VAE_SPATIAL_STRIDE);
        return bad_tensor(error, tensor, wanted);
    }
    *given = (struct lance_latents){tensor->data, (int)tensor->shape[0], (int)tensor->shape[1], (int)tensor->shape[2],
                                    (int)tensor->shape[3], (int)tensor->shape[4]};
    *out = given;
    return 0;
}

static bool is_given(const cJSON *params, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(params, name) != NULL;
}

/* Sizes that are not given are those of the latents. */
static void size_from_latents(struct job_request *request, const cJSON *params)
{
    struct lance_request *lance = &request->lance;
    const struct lance_latents *latents = lance->latents;
    const bool has_width = is_given(params, "width"), has_height = is_given(params, "height");
    if (!is_given(params, "batch_size"))
        lance->batch_size = latents->batch;
    if (!is_given(params, "num_frames") && latents->frames <= INT_MAX / VAE_TEMPORAL_STRIDE)
        lance->num_frames = vae_frames(latents->frames);
    if (task_is_of(lance->task, TASKS_FROM_WORDS) && !has_width && !has_height &&
        latents->width <= INT_MAX / VAE_SPATIAL_STRIDE && latents->height <= INT_MAX / VAE_SPATIAL_STRIDE) {
        lance->width = latents->width * VAE_SPATIAL_STRIDE;
        lance->height = latents->height * VAE_SPATIAL_STRIDE;
    }
}

static int read_tensor(struct job_request *request, const struct tensor_view *tensor, struct error *error)
{
    struct lance_request *lance = &request->lance;
    if (strcmp(tensor->name, "source") == 0)
        return read_source(request, tensor, error);
    if (strcmp(tensor->name, "latents") == 0)
        return read_latents(&request->latents, &lance->latents, tensor, LATENT_CHANNELS, error);
    if (strcmp(tensor->name, "latent_state") == 0)
        return read_latents(&request->state, &lance->latent_state, tensor, LATENT_CHANNELS, error);
    if (strcmp(tensor->name, "latent_mask") == 0)
        return read_latents(&request->mask, &lance->latent_mask, tensor, 1, error);
    if (strcmp(tensor->name, "noise") != 0)
        return error_set(error, ERROR_BAD_REQUEST,
                         "tensor \"%.40s\": is unknown to lanced " LANCED_VERSION "; submit takes "
                         "\"source\", \"noise\", \"latents\", \"latent_state\" and \"latent_mask\"",
                         tensor->name);
    if (lance->noise_source != LANCE_NOISE_CLIENT)
        return error_set(error, ERROR_BAD_REQUEST, "tensor \"noise\": needs noise_source \"client\"");
    return 0;
}

static int read_tensors(struct job_request *request, const cJSON *params, struct error *error)
{
    const struct tensor_view *noise = payloads_find(&request->payloads, "noise");
    for (size_t i = 0; i < request->payloads.count; i++) {
        int code = read_tensor(request, &request->payloads.list[i].tensor, error);
        if (code != 0)
            return code;
    }
    if (request->lance.latents)
        size_from_latents(request, params);
    if (noise)
        return read_noise(request, noise, error);
    if (request->lance.noise_source == LANCE_NOISE_CLIENT)
        return error_set(error, ERROR_BAD_REQUEST, "noise_source: \"client\" needs the tensor \"noise\"");
    return 0;
}

static int read_task(enum lance_task *out, const cJSON *envelope, struct error *error)
{
    const char *name = json_text(envelope, "task");
    int task = name ? lance_task_of(name) : -1;
    if (task < 0) {
        char known[200] = "";
        for (int i = 0; i < LANCE_TASK_COUNT; i++) {
            size_t at = strlen(known);
            snprintf(known + at, sizeof known - at, "%s%s", i > 0 ? ", " : "", lance_task_name((enum lance_task)i));
        }
        return error_set(error, ERROR_BAD_REQUEST, "task: %s%.40s%s; known: %s", name ? "\"" : "is missing",
                         name ? name : "", name ? "\" is unknown to lanced " LANCED_VERSION : "",
                         known);
    }
    *out = (enum lance_task)task;
    return 0;
}

int request_read_model(const char **name, const cJSON *envelope, struct error *error)
{
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(envelope, "model");
    if (model && !cJSON_IsNull(model) && !cJSON_IsString(model))
        return wrong(error, "model", model, "a name");
    *name = cJSON_GetStringValue(model);
    return 0;
}

int job_request_open(struct job_request **out, struct message *message, struct payloads *payloads, struct error *error)
{
    *out = NULL;
    const cJSON *envelope = message_envelope(message);
    enum lance_task task = LANCE_T2I;
    int code = read_task(&task, envelope, error);
    if (code != 0)
        return code;
    const cJSON *params = cJSON_GetObjectItemCaseSensitive(envelope, "params");
    if (!cJSON_IsObject(params))
        return error_set(error, ERROR_BAD_REQUEST, "params: must be an object");
    const char *model;
    code = request_read_model(&model, envelope, error);
    if (code != 0)
        return code;

    struct job_request *request = calloc(1, sizeof *request);
    if (!request)
        return error_set(error, ERROR_NO_MEMORY, "submit: out of memory");
    lance_request_init(&request->lance, task);
    request->priority =
        (enum job_class)parameter_default(parameter_find(server_parameters, "priority"), task)->numbers[0];
    request->message = message;
    request->payloads = *payloads;
    request->model = model;
    request->no_cache = cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(envelope, "cache"));
    code = read_params(request, params, error);
    if (code == 0)
        code = read_tensors(request, params, error);
    if (code != 0) {
        free(request);
        return code;
    }
    *payloads = (struct payloads){0};
    *out = request;
    return 0;
}

void job_request_close(struct job_request *request)
{
    if (!request)
        return;
    payloads_close(&request->payloads);
    message_close(request->message);
    cJSON_free(request->record);
    free(request);
}

int job_request_check_numbers(const struct job_request *request, struct error *error)
{
    for (size_t i = 0; i < request->payloads.count; i++) {
        const struct tensor_view *tensor = &request->payloads.list[i].tensor;
        const float *values = tensor->dtype == DTYPE_F32 ? tensor->data : NULL;
        const uint64_t count = values ? tensor_elements(tensor) : 0;
        for (uint64_t at = 0; at < count; at++)
            if (!isfinite(values[at]))
                return error_set(error, ERROR_BAD_REQUEST,
                                 "%.40s: value %llu of %llu is %g; accepted are finite numbers", tensor->name,
                                 (unsigned long long)at, (unsigned long long)count, (double)values[at]);
    }
    return 0;
}

uint64_t job_request_bytes(const struct job_request *request)
{
    return sizeof *request + (request->message ? message_bytes(request->message) : 0) +
           payloads_bytes(&request->payloads);
}

static bool is_known(const char *name)
{
    for (int i = 0; i < TABLES; i++)
        if (parameter_find(tables[i], name))
            return true;
    return false;
}

cJSON *job_request_unknown(const struct message *message)
{
    cJSON *names = json_array();
    const cJSON *params = cJSON_GetObjectItemCaseSensitive(message_envelope(message), "params"), *param;
    if (!cJSON_IsObject(params)) /* members of an array have no names; job_request_open refuses it */
        return names;
    cJSON_ArrayForEach(param, params)
    {
        if (!is_known(param->string))
            json_append_text(names, param->string);
    }
    return names;
}

static cJSON *parameter_json(const struct parameter *parameter, const void *field)
{
    switch (parameter->kind) {
    case PARAMETER_TEXT: {
        const char *text = *(const char *const *)field;
        return json_from_text(text);
    }
    case PARAMETER_INTEGER:
        return json_from_number(*(const int *)field);
    case PARAMETER_WHOLE:
        return json_from_uint64(*(const uint64_t *)field);
    case PARAMETER_NUMBER:
        return json_from_number(*(const double *)field);
    case PARAMETER_FLAG:
        return json_from_bool(*(const bool *)field);
    case PARAMETER_LIST:
        return json_from_numbers(field, 2);
    case PARAMETER_CHOICE:
        return json_from_text(parameter->choices[*(const int *)field]);
    }
    return NULL;
}

/* Whether some steps of the schedule are left out. */
static bool samples_a_part(const struct lance_request *request)
{
    return request->denoise < 1 || request->start_step > 0 || request->end_step < request->num_inference_steps;
}

cJSON *job_request_params(const struct lance_request *request)
{
    const bool is_of_parts = request->latents || samples_a_part(request);
    cJSON *params = json_object();
    for (const struct parameter *p = lance_parameters; p->name; p++)
        if (parameter_is_for(p, request->task) && (is_of_parts || !p->is_of_parts) &&
            (request->source || !p->of_source))
            json_add(params, p->name, parameter_json(p, parameter_field(p, request, request->source)));
    return params;
}
