/* golden.c: see golden.h. */
#include "tests/tools/check-golden/golden.h"
#include "tests/tools/check-golden/frames.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/engine/model/checkpoint/model_file.h"

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static double number(const cJSON *object, const char *name, double missing)
{
    const cJSON *value = member(object, name);
    return cJSON_IsNumber(value) ? value->valuedouble : missing;
}

static const char *string(const cJSON *object, const char *name)
{
    const cJSON *value = member(object, name);
    return cJSON_IsString(value) ? value->valuestring : "";
}

/* ---- the request that the manifest describes ---- */

/* A plain-caption example's system prompt was drawn by chance; the recorded caption begins with it. */
static void recorded_system_prompt(struct golden *g)
{
    const char *caption = string(member(g->manifest, "info"), "caption"), *end = strstr(caption, "\n\n");
    if (end)
        g->request.system_prompt = g->system_prompt = strndup(caption, (size_t)(end - caption));
}

static int read_example(struct golden *g, const char *inputs, struct error *error)
{
    const cJSON *example = member(g->manifest, "example");
    example = example ? example->child : NULL;
    if (cJSON_IsString(example)) {
        g->request.prompt = example->valuestring;
        return 0;
    }
    const cJSON *elements = member(example, "interleave_array"), *types = member(example, "element_dtype_array");
    for (int i = 0; i < cJSON_GetArraySize(elements); i++) {
        const cJSON *element = cJSON_GetArrayItem(elements, i), *type = cJSON_GetArrayItem(types, i);
        bool answered = g->task == LANCE_X2T_IMAGE || g->task == LANCE_X2T_VIDEO;
        if (cJSON_IsString(type) && strcmp(type->valuestring, "text") != 0) {
            char path[1024];
            snprintf(path, sizeof path, "%s/%s", inputs, cJSON_IsString(element) ? element->valuestring : "");
            int code = frames_read(&g->source, path, error);
            if (code)
                return code;
            g->request.source = &g->source;
        } else if (cJSON_IsArray(element)) {
            const cJSON *system = cJSON_GetArrayItem(element, 0), *question = cJSON_GetArrayItem(element, 1);
            g->request.system_prompt = cJSON_IsString(system) ? system->valuestring : NULL;
            g->request.prompt = cJSON_IsString(question) ? question->valuestring : "";
        } else if (answered) {
            recorded_system_prompt(g);
        } else if (cJSON_IsString(element)) {
            g->request.prompt = element->valuestring;
        }
    }
    return 0;
}

static int read_request(struct golden *g, const char *inputs, struct error *error)
{
    struct lance_request *r = &g->request;
    const cJSON *args = member(g->manifest, "args"), *interval = member(args, "interval");
    lance_request_init(r, g->task);
    if (g->task == LANCE_T2I || g->task == LANCE_T2V) {
        r->width = (int)number(args, "width", 0);
        r->height = (int)number(args, "height", 0);
    }
    if (g->task == LANCE_T2V || g->task == LANCE_I2V)
        r->num_frames = (int)number(args, "frames", 1);
    r->num_inference_steps = (int)number(args, "steps", r->num_inference_steps);
    r->timestep_shift = number(args, "shift", r->timestep_shift);
    r->guidance_scale = number(args, "cfg", r->guidance_scale);
    for (int i = 0; i < 2 && cJSON_GetArraySize(interval) == 2; i++)
        r->guidance_interval[i] = cJSON_GetArrayItem(interval, i)->valuedouble;
    const char *renorm = string(args, "renorm");
    r->guidance_renorm = !strcmp(renorm, "global")    ? RENORM_GLOBAL
                         : !strcmp(renorm, "channel") ? RENORM_CHANNEL
                                                      : RENORM_NONE;
    r->guidance_renorm_min = number(args, "renorm_min", 0);
    r->seed = (uint64_t)number(args, "seed", 42);
    r->resolution = *string(args, "resolution") ? string(args, "resolution") : NULL;
    r->max_new_tokens = (int)number(args, "max_new", 256);
    r->uncond_positions = cJSON_IsFalse(member(args, "kvcache")) ? LANCE_UNCOND_CONSISTENT : LANCE_UNCOND_OFFICIAL;
    return read_example(g, inputs, error);
}

/* The recorded draws: they are inputs. Only the target's rows of the noise are used. */
static void read_noise(struct golden *g)
{
    const struct tensor_view *noise = golden_find(g, "noise"), *rows = golden_find(g, "target_rows");
    const struct tensor_view *eps = golden_find(g, "vae_enc.0.eps");
    if (noise && rows) {
        const size_t channels = noise->shape[1];
        bool edit = g->task == LANCE_IMAGE_EDIT || g->task == LANCE_VIDEO_EDIT;
        size_t skipped = edit ? noise->shape[0] - rows->shape[0] : 0;
        float *all = golden_floats(noise);
        size_t n = (noise->shape[0] - skipped) * channels;
        g->noise = malloc(n * sizeof(float));
        if (!g->noise)
            abort();
        memcpy(g->noise, all + skipped * channels, n * sizeof(float));
        free(all);
        g->request.noise = g->noise;
        g->request.noise_values = n;
        g->request.noise_source = LANCE_NOISE_CLIENT;
    }
    if (eps) {
        g->request.source_latent_noise = g->encoder_noise = golden_floats(eps);
        g->request.source_latent_noise_values = (size_t)tensor_elements(eps);
    }
}

/* ---- opening ---- */

static int open_tensors(struct safetensors **out, const char *cases, const char *name, struct error *error)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.safetensors", cases, name);
    return safetensors_open(out, path, error);
}

static int open_parts(struct golden *g, const char *cases, const char *inputs, struct error *error)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.json", cases, g->name);
    int result = model_file_json(&g->manifest, path, error);
    if (result)
        return result;
    snprintf(g->base, sizeof g->base, "%s", string(g->manifest, "case"));
    snprintf(g->quant, sizeof g->quant, "%s", string(g->manifest, "quant"));
    snprintf(g->mode, sizeof g->mode, "%s", string(g->manifest, "mode"));
    int task = lance_task_of(string(g->manifest, "task"));
    if (task < 0)
        return error_set(error, ERROR_UNSUPPORTED, "task \"%s\" is unknown", string(g->manifest, "task"));
    g->task = task;
    int code = open_tensors(&g->own, cases, g->name, error);
    if (code)
        return code;
    char plain[256], twin[300];
    snprintf(plain, sizeof plain, "%s.f32", g->base);
    snprintf(twin, sizeof twin, "%s%s%s.f32", g->base, *g->quant ? "." : "", g->quant);
    if (strcmp(plain, g->name) != 0)
        open_tensors(&g->plain, cases, plain, NULL);
    if (!strcmp(g->mode, "bf16"))
        open_tensors(&g->twin, cases, twin, NULL);
    if ((code = read_request(g, inputs, error)))
        return code;
    read_noise(g);
    return 0;
}

int golden_open(struct golden **out, const char *cases, const char *name, const char *inputs, struct error *error)
{
    *out = NULL;
    struct golden *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    snprintf(g->name, sizeof g->name, "%s", name);
    int code = open_parts(g, cases, inputs, error);
    if (code)
        golden_close(g);
    else
        *out = g;
    return code;
}

void golden_close(struct golden *g)
{
    if (!g)
        return;
    cJSON_Delete(g->manifest);
    safetensors_close(g->own);
    safetensors_close(g->plain);
    safetensors_close(g->twin);
    frames_free(&g->source);
    free(g->system_prompt);
    free(g->noise);
    free(g->encoder_noise);
    free(g);
}

/* ---- tensors ---- */

static const struct tensor_view *find(const struct safetensors *file, const char *format, va_list arguments)
{
    char name[200];
    vsnprintf(name, sizeof name, format, arguments);
    return file ? safetensors_find(file, name) : NULL;
}

const struct tensor_view *golden_own(const struct golden *g, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const struct tensor_view *tensor = find(g->own, format, arguments);
    va_end(arguments);
    return tensor;
}

const struct tensor_view *golden_find(const struct golden *g, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const struct tensor_view *tensor = find(g->own, format, arguments);
    va_end(arguments);
    va_start(arguments, format);
    if (!tensor)
        tensor = find(g->plain, format, arguments);
    va_end(arguments);
    return tensor;
}

float *golden_floats(const struct tensor_view *tensor)
{
    struct error error;
    float *values = malloc((size_t)tensor_elements(tensor) * sizeof *values + 1);
    if (!values)
        abort();
    if (tensor_to_float(tensor, values, &error)) {
        fprintf(stderr, "%s: %s\n", tensor->name, error.text);
        abort();
    }
    return values;
}

int32_t *golden_integers(const struct tensor_view *tensor)
{
    int32_t *values = malloc((size_t)tensor->bytes + 1);
    if (!values || tensor->dtype != DTYPE_I32)
        abort();
    memcpy(values, tensor->data, (size_t)tensor->bytes);
    return values;
}

bool golden_rounds_tables(const struct golden *g) { return strcmp(g->mode, "f32") != 0; }

bool golden_is_rounded(const struct golden *g) { return g->distances || !strcmp(g->mode, "bf16"); }

int golden_read_distances(cJSON **out, const char *dir, struct error *error)
{
    char path[600];
    snprintf(path, sizeof path, "%s/distances.json", dir);
    return model_file_json(out, path, error);
}

double golden_distance(const struct golden *g, const char *name)
{
    char here[256];
    snprintf(here, sizeof here, "%s%s%s", g->base, *g->quant ? "." : "", g->quant);
    const double own = number(member(g->distances, here), name, NAN);
    if (!isnan(own))
        return own;
    const size_t length = strlen(name);
    const bool psnr = length >= 2 && !strcmp(name + length - 2, "u8");
    double worst = NAN;
    const cJSON *other;
    cJSON_ArrayForEach(other, g->distances)
    {
        const double value = number(other, name, NAN);
        if (!isnan(value) && (isnan(worst) || (psnr ? value < worst : value > worst)))
            worst = value;
    }
    return worst;
}

double golden_bound(const struct golden *g, const char *name, double bound)
{
    if (g->distances) {
        const double known = 1.5 * golden_distance(g, name);
        return known > bound ? known : bound; /* what bf16 left as it was has no distance */
    }
    if (strcmp(g->mode, "bf16") != 0)
        return bound;
    const struct tensor_view *here = safetensors_find(g->own, name);
    const struct tensor_view *there = g->twin ? safetensors_find(g->twin, name) : NULL;
    if (!here || !there || tensor_elements(here) != tensor_elements(there))
        return 5e-2;
    float *a = golden_floats(here), *b = golden_floats(there);
    double distance = 1.5 * relative_error(a, b, (size_t)tensor_elements(here));
    free(a);
    free(b);
    return distance > bound ? distance : bound;
}

double relative_error(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference) / (sqrt(norm) + 1e-30);
}
