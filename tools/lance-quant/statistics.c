/* statistics.c: see statistics.h. */
#include "tools/lance-quant/statistics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/whole_file.h"
#include "daemon/engine/model/checkpoint/pth.h"
#include "protocol/safetensors.h"

enum { MOST_LAYERS = 1 << 14, MOST_TASKS = 256, NAME_BYTES = 512, MOST_WIDTH = 1 << 20, FIRST_CAPACITY = 64 };

struct layer {
    char *name;
    float *sum_abs; /* [width] */
    int width;
    uint64_t tokens;
};

struct statistics {
    struct layer *layers; /* in the order of the file */
    int count, capacity;
    char *tasks[MOST_TASKS];
    int task_count;
};

static const char version_key[] = "lance_statistics", version[] = "1", tasks_key[] = "tasks";

static int no_memory(struct error *error)
{
    return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for statistics");
}

void statistics_close(struct statistics *statistics)
{
    if (statistics == NULL)
        return;
    for (int i = 0; i < statistics->count; i++) {
        free(statistics->layers[i].name);
        free(statistics->layers[i].sum_abs);
    }
    for (int i = 0; i < statistics->task_count; i++)
        free(statistics->tasks[i]);
    free(statistics->layers);
    free(statistics);
}

static struct layer *find(const struct statistics *statistics, const char *name)
{
    for (int i = 0; i < statistics->count; i++)
        if (strcmp(statistics->layers[i].name, name) == 0)
            return &statistics->layers[i];
    return NULL;
}

static int add_task(struct statistics *statistics, const char *name, size_t bytes, struct error *error)
{
    for (int i = 0; i < statistics->task_count; i++)
        if (strlen(statistics->tasks[i]) == bytes && memcmp(statistics->tasks[i], name, bytes) == 0)
            return 0;
    if (statistics->task_count == MOST_TASKS)
        return error_set(error, ERROR_BAD_FILE, "statistics of more than %d tasks", MOST_TASKS);
    char *copy = strndup(name, bytes);
    if (copy == NULL)
        return no_memory(error);
    statistics->tasks[statistics->task_count++] = copy;
    return 0;
}

/* An empty layer behind the others. */
static int add_layer(struct statistics *statistics, const char *name, int width, struct layer **out,
                     struct error *error)
{
    if (statistics->count == MOST_LAYERS)
        return error_set(error, ERROR_BAD_FILE, "statistics of more than %d layers", MOST_LAYERS);
    if (statistics->count == statistics->capacity) {
        const int capacity = statistics->capacity ? 2 * statistics->capacity : FIRST_CAPACITY;
        struct layer *larger = realloc(statistics->layers, sizeof *larger * (size_t)capacity);
        if (larger == NULL)
            return no_memory(error);
        statistics->layers = larger;
        statistics->capacity = capacity;
    }
    struct layer layer = {strdup(name), calloc((size_t)width, sizeof(float)), width, 0};
    if (layer.name == NULL || layer.sum_abs == NULL) {
        free(layer.name);
        free(layer.sum_abs);
        return no_memory(error);
    }
    *out = &statistics->layers[statistics->count++];
    **out = layer;
    return 0;
}

/* A layer as a file has it; `tokens` is a scalar of I64, or of one element. */
static int read_layer(struct statistics *statistics, const char *name, const struct tensor_view *sum_abs,
                      const struct tensor_view *tokens, struct error *error)
{
    int64_t count = -1;
    struct layer *layer;
    if (tokens != NULL && tokens->dtype == DTYPE_I64 && tokens->bytes == sizeof count)
        memcpy(&count, tokens->data, sizeof count);
    if (count < 0)
        return error_set(error, ERROR_BAD_FILE, "%s: how many tokens it saw is not said", name);
    if (sum_abs->dimensions != 1 || sum_abs->shape[0] == 0 || sum_abs->shape[0] > MOST_WIDTH)
        return error_set(error, ERROR_BAD_FILE, "%s: sum_abs must be a row of numbers, one for each input", name);
    if (find(statistics, name) != NULL)
        return error_set(error, ERROR_BAD_FILE, "%s: is there twice", name);
    int status = add_layer(statistics, name, (int)sum_abs->shape[0], &layer, error);
    if (status == 0)
        status = tensor_to_float(sum_abs, layer->sum_abs, error);
    if (status != 0)
        return status;
    layer->tokens = (uint64_t)count;
    for (int i = 0; i < layer->width; i++)
        if (!isfinite(layer->sum_abs[i]) || layer->sum_abs[i] < 0)
            return error_set(error, ERROR_BAD_FILE, "%s: the sum of |x| of input %d is %g, which no sum of sizes is",
                             name, i, (double)layer->sum_abs[i]);
    return 0;
}

/* The layer's name out of "PREFIX + NAME + SUFFIX"; false for another kind of name. */
static bool layer_name(char out[NAME_BYTES], const char *name, const char *prefix, const char *suffix)
{
    const size_t length = strlen(name), before = strlen(prefix), after = strlen(suffix);
    if (length <= before + after || length - before - after >= NAME_BYTES || strncmp(name, prefix, before) != 0 ||
        strcmp(name + length - after, suffix) != 0)
        return false;
    memcpy(out, name + before, length - before - after);
    out[length - before - after] = '\0';
    return true;
}

/* {"format": 1, "tasks": [..], "stats": {layer: {"sum_abs", "n_tokens", "n_calls"}}} */
static int read_pth(struct statistics *statistics, const struct pth *file, struct error *error)
{
    int status = 0;
    char name[NAME_BYTES], other[NAME_BYTES + 32];
    for (size_t i = 0; i < pth_count(file) && status == 0; i++) {
        const struct tensor_view *tensor = pth_at(file, i);
        if (strncmp(tensor->name, "tasks/", 6) == 0 || strcmp(tensor->name, "task") == 0)
            status = add_task(statistics, tensor->data, (size_t)tensor->bytes, error);
        if (!layer_name(name, tensor->name, "stats/", "/sum_abs"))
            continue;
        snprintf(other, sizeof other, "stats/%s/n_tokens", name);
        status = read_layer(statistics, name, tensor, pth_find(file, other), error);
    }
    return status;
}

static int read_tasks(struct statistics *statistics, const char *text, struct error *error)
{
    const struct json_limits limits = {1 << 16, 1 << 10, ERROR_BAD_FILE, ERROR_BAD_FILE};
    cJSON *list;
    int status = text == NULL ? 0 : json_parse(&list, text, strlen(text), &limits, tasks_key, error);
    if (text == NULL || status != 0)
        return status;
    for (const cJSON *item = list->child; item != NULL && status == 0; item = item->next)
        status = cJSON_IsString(item) ? add_task(statistics, item->valuestring, strlen(item->valuestring), error)
                                      : error_set(error, ERROR_BAD_FILE, "tasks: must be a list of names");
    cJSON_Delete(list);
    return status;
}

static int read_safetensors(struct statistics *statistics, const struct safetensors *file, struct error *error)
{
    const char *found = safetensors_metadata(file, version_key);
    if (found == NULL || strcmp(found, version) != 0)
        return error_set(error, ERROR_BAD_FILE, "no statistics of lance-quant, or of another version of it");
    int status = read_tasks(statistics, safetensors_metadata(file, tasks_key), error);
    char name[NAME_BYTES], other[NAME_BYTES + 32];
    for (size_t i = 0; i < safetensors_count(file) && status == 0; i++) {
        const struct tensor_view *tensor = safetensors_at(file, i);
        if (!layer_name(name, tensor->name, "", ".sum_abs"))
            continue;
        snprintf(other, sizeof other, "%s.tokens", name);
        status = read_layer(statistics, name, tensor, safetensors_find(file, other), error);
    }
    return status;
}

static int read_file(struct statistics *statistics, const char *path, struct error *error)
{
    const size_t length = strlen(path);
    int status;
    if (length > 12 && strcmp(path + length - 12, ".safetensors") == 0) {
        struct safetensors *file;
        status = safetensors_open(&file, path, error);
        if (status != 0)
            return status; /* names the file */
        status = read_safetensors(statistics, file, error);
        safetensors_close(file);
    } else {
        struct pth *file;
        status = pth_open_nested(&file, path, error);
        if (status != 0)
            return status;
        status = read_pth(statistics, file, error);
        pth_close(file);
    }
    if (status == 0 && statistics->count == 0)
        status = error_set(error, ERROR_BAD_FILE, "no statistics of any layer");
    return status != 0 ? error_prefix(error, "%s", path) : 0;
}

int statistics_open(struct statistics **out, const char *path, struct error *error)
{
    *out = NULL;
    struct statistics *statistics = calloc(1, sizeof *statistics);
    const int status = statistics == NULL ? no_memory(error) : read_file(statistics, path, error);
    if (status != 0) {
        statistics_close(statistics);
        return status;
    }
    *out = statistics;
    return 0;
}

/* A sum that cannot be written, or read again, is told here. */
static int add_to(struct layer *to, const struct layer *from, struct error *error)
{
    if (to->width != from->width)
        return error_set(error, ERROR_BAD_FILE,
                         "%s has %d inputs in one file and %d in another: they are of different models", from->name,
                         to->width, from->width);
    bool fits = from->tokens <= INT64_MAX - to->tokens;
    to->tokens += from->tokens;
    for (int i = 0; i < to->width; i++) {
        to->sum_abs[i] += from->sum_abs[i];
        fits = fits && isfinite(to->sum_abs[i]);
    }
    return fits ? 0 : error_set(error, ERROR_BAD_FILE, "%s: its sums are too large to be added up", from->name);
}

int statistics_add(struct statistics *statistics, const struct statistics *other, struct error *error)
{
    int status = 0;
    for (int i = 0; i < other->task_count && status == 0; i++)
        status = add_task(statistics, other->tasks[i], strlen(other->tasks[i]), error);
    for (int l = 0; l < other->count && status == 0; l++) {
        const struct layer *from = &other->layers[l];
        struct layer *to = find(statistics, from->name);
        if (to == NULL)
            status = add_layer(statistics, from->name, from->width, &to, error);
        if (status == 0)
            status = add_to(to, from, error);
    }
    return status;
}

/* --- Writing ------------------------------------------------------------------------------------------- */

static char *tasks_text(const struct statistics *statistics)
{
    cJSON *list = json_array();
    for (int i = 0; i < statistics->task_count; i++)
        json_append_text(list, statistics->tasks[i]);
    char *text = json_print(list);
    cJSON_Delete(list);
    return text;
}

/* Two tensors for each layer; `names` are NAME_BYTES + 32 each. */
static void list_tensors(const struct statistics *statistics, struct tensor_view *tensors,
                         char (*names)[NAME_BYTES + 32])
{
    for (int l = 0; l < statistics->count; l++) {
        const struct layer *layer = &statistics->layers[l];
        snprintf(names[2 * l], sizeof names[2 * l], "%s.sum_abs", layer->name);
        snprintf(names[2 * l + 1], sizeof names[2 * l + 1], "%s.tokens", layer->name);
        tensors[2 * l] = (struct tensor_view){.name = names[2 * l],
                                              .dtype = DTYPE_F32,
                                              .dimensions = 1,
                                              .shape = {(uint64_t)layer->width},
                                              .data = layer->sum_abs,
                                              .bytes = sizeof(float) * (uint64_t)layer->width};
        tensors[2 * l + 1] = (struct tensor_view){
            .name = names[2 * l + 1], .dtype = DTYPE_I64, .data = &layer->tokens, .bytes = sizeof layer->tokens};
    }
}

int statistics_write(const struct statistics *statistics, const char *path, struct error *error)
{
    const size_t count = 2 * (size_t)statistics->count;
    struct tensor_view *tensors = calloc(count + 1, sizeof *tensors);
    char(*names)[NAME_BYTES + 32] = calloc(count + 1, sizeof *names), *tasks = tasks_text(statistics);
    const char *const keys[] = {version_key, tasks_key}, *const values[] = {version, tasks};
    void *data = NULL;
    uint64_t bytes = 0;
    int status = tensors == NULL || names == NULL || tasks == NULL ? no_memory(error) : 0;
    if (status == 0) {
        list_tensors(statistics, tensors, names);
        status = safetensors_write(&data, &bytes, tensors, count, keys, values, 2, error);
    }
    if (status == 0)
        status = whole_file_write(path, data, bytes, error);
    free(data);
    cJSON_free(tasks);
    free(names);
    free(tensors);
    return status;
}

/* --- Looking ------------------------------------------------------------------------------------------- */

int statistics_layers(const struct statistics *statistics)
{
    return statistics->count;
}

int statistics_layers_seen(const struct statistics *statistics)
{
    int seen = 0;
    for (int i = 0; i < statistics->count; i++)
        seen += statistics->layers[i].tokens > 0;
    return seen;
}

int statistics_tasks(const struct statistics *statistics)
{
    return statistics->task_count;
}

const char *statistics_task(const struct statistics *statistics, int index)
{
    return statistics->tasks[index];
}

int statistics_mean_abs(const struct statistics *statistics, const char *layer, int in_features, float *mean,
                        bool *seen, struct error *error)
{
    const struct layer *found = find(statistics, layer);
    if (found != NULL && found->width != in_features)
        return error_set(error, ERROR_BAD_FILE, "%s has %d inputs, but %d in the statistics: they are of another model",
                         layer, in_features, found->width);
    bool any = false;
    for (int i = 0; found != NULL && i < found->width; i++)
        any |= found->sum_abs[i] > 0;
    *seen = any && found->tokens > 0;
    for (int i = 0; *seen && i < found->width; i++)
        mean[i] = found->sum_abs[i] / (float)found->tokens;
    return 0;
}

void statistics_digest(const struct statistics *statistics, const char *layer, struct sha256 *digest)
{
    const struct layer *found = find(statistics, layer);
    if (found == NULL)
        return;
    sha256_add(digest, &found->tokens, sizeof found->tokens);
    sha256_add(digest, found->sum_abs, sizeof *found->sum_abs * (size_t)found->width);
}
