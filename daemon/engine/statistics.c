/* statistics.c: see statistics.h. */
#include "daemon/engine/statistics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/whole_file.h"
#include "daemon/engine/model/checkpoint/pth.h"
#include "protocol/safetensors.h"

enum { MOST_LAYERS = 1 << 14, MOST_TASKS = 256, NAME_BYTES = 512, MOST_WIDTH = 1 << 20, FIRST_CAPACITY = 64 };

struct statistics {
    struct layer_sums **layers; /* in the order of the file */
    int count, capacity;
    char *tasks[MOST_TASKS];
    int task_count;
    char *note;
};

static const char version_key[] = "lance_statistics", version[] = "2", older_version[] = "1", tasks_key[] = "tasks",
                  note_key[] = "note";

static int no_memory(struct error *error)
{
    return error_set(error, ERROR_NO_MEMORY, "statistics: no memory");
}

static size_t values_of(const struct layer_sums *layer)
{
    return (size_t)layer->parts * (size_t)layer->width;
}

static size_t moments_of(int width)
{
    return (size_t)statistics_blocks(width) * STATISTICS_BLOCK * STATISTICS_BLOCK;
}

static uint64_t tokens_of(const struct layer_sums *layer)
{
    uint64_t tokens = 0;
    for (int p = 0; p < layer->parts; p++)
        tokens += layer->tokens[p];
    return tokens;
}

static void free_layer(struct layer_sums *layer)
{
    if (!layer)
        return;
    free(layer->name);
    free(layer->sum_abs);
    free(layer->sum_squares);
    free(layer->largest);
    free(layer->moments);
    free(layer);
}

int statistics_new(struct statistics **out, struct error *error)
{
    *out = calloc(1, sizeof **out);
    return !*out ? no_memory(error) : 0;
}

void statistics_close(struct statistics *statistics)
{
    if (!statistics)
        return;
    for (int i = 0; i < statistics->count; i++)
        free_layer(statistics->layers[i]);
    for (int i = 0; i < statistics->task_count; i++)
        free(statistics->tasks[i]);
    free(statistics->layers);
    free(statistics->note);
    free(statistics);
}

static struct layer_sums *find(const struct statistics *statistics, const char *name)
{
    for (int i = 0; i < statistics->count; i++)
        if (strcmp(statistics->layers[i]->name, name) == 0)
            return statistics->layers[i];
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
    if (!copy)
        return no_memory(error);
    statistics->tasks[statistics->task_count++] = copy;
    return 0;
}

int statistics_add_task(struct statistics *statistics, const char *name, struct error *error)
{
    return add_task(statistics, name, strlen(name), error);
}

/* An empty layer behind the others; `squares`: with everything that is not moments. */
static int add_layer(struct statistics *statistics, const char *name, int width, int parts, bool squares,
                     bool moments, struct layer_sums **out, struct error *error)
{
    if (statistics->count == MOST_LAYERS)
        return error_set(error, ERROR_BAD_FILE, "statistics of more than %d layers", MOST_LAYERS);
    if (statistics->count == statistics->capacity) {
        const int capacity = statistics->capacity ? 2 * statistics->capacity : FIRST_CAPACITY;
        struct layer_sums **larger = realloc(statistics->layers, sizeof *larger * (size_t)capacity);
        if (!larger)
            return no_memory(error);
        statistics->layers = larger;
        statistics->capacity = capacity;
    }
    struct layer_sums *layer = calloc(1, sizeof *layer);
    if (!layer)
        return no_memory(error);
    *layer = (struct layer_sums){.name = strdup(name), .width = width, .parts = parts};
    layer->sum_abs = calloc(values_of(layer), sizeof(float));
    layer->sum_squares = squares ? calloc(values_of(layer), sizeof(float)) : NULL;
    layer->largest = squares ? calloc(values_of(layer), sizeof(float)) : NULL;
    layer->moments = moments ? calloc(moments_of(width), sizeof(float)) : NULL;
    if (!layer->name || !layer->sum_abs || (squares && (!layer->sum_squares || !layer->largest)) ||
        (moments && !layer->moments)) {
        free_layer(layer);
        return no_memory(error);
    }
    *out = statistics->layers[statistics->count++] = layer;
    return 0;
}

int statistics_layer(struct statistics *statistics, const char *name, int width, int parts, bool moments,
                     struct layer_sums **out, struct error *error)
{
    struct layer_sums *found = *out = find(statistics, name);
    if (!found)
        return add_layer(statistics, name, width, parts, true, moments, out, error);
    if (found->width != width || found->parts != parts || !found->sum_squares || moments != (found->moments != NULL))
        return error_set(error, ERROR_BAD_FILE, "%s: was counted in another way", name);
    return 0;
}

/* --- Reading ------------------------------------------------------------------------------------------- */

/* NAME's sums of one kind: [parts, width], or without the first axis. */
static int read_sums(const struct layer_sums *layer, const char *kind, const struct tensor_view *tensor, float *out,
                     struct error *error)
{
    if (tensor_elements(tensor) != values_of(layer))
        return error_set(error, ERROR_BAD_FILE, "%s: %s must have a number for each input, and part", layer->name,
                         kind);
    const int code = tensor_to_float(tensor, out, error);
    for (size_t i = 0; code == 0 && i < values_of(layer); i++)
        if (!isfinite(out[i]) || out[i] < 0)
            return error_set(error, ERROR_BAD_FILE,
                             "%s: the %s of |x| of input %zu is %g, which no sum of sizes is", layer->name,
                             strcmp(kind, "largest") == 0 ? "largest" : "sum", i % (size_t)layer->width,
                             (double)out[i]);
    return code;
}

static int read_moments(struct layer_sums *layer, const struct tensor_view *tensor, struct error *error)
{
    const uint64_t side = STATISTICS_BLOCK, shape[] = {(uint64_t)statistics_blocks(layer->width), side, side};
    if (!tensor_is(tensor, DTYPE_F32, 3, shape))
        return error_set(error, ERROR_BAD_FILE, "%s: the moments are not F32 [%d, %d, %d]", layer->name, (int)shape[0],
                         STATISTICS_BLOCK, STATISTICS_BLOCK);
    const int code = tensor_to_float(tensor, layer->moments, error);
    for (size_t i = 0; code == 0 && i < moments_of(layer->width); i++)
        if (!isfinite(layer->moments[i]))
            return error_set(error, ERROR_BAD_FILE, "%s: a moment is no number", layer->name);
    return code;
}

/* A layer as a file has it, which has `tokens` and `sum_abs`, and may have the others. */
struct layer_tensors {
    const struct tensor_view *tokens, *sum_abs, *sum_squares, *largest, *moments;
};

static int read_tokens(const char *name, const struct tensor_view *tokens, uint64_t *counts, int *parts,
                       struct error *error)
{
    int64_t found[STATISTICS_MOST_PARTS];
    const uint64_t n = tokens && tokens->dtype == DTYPE_I64 ? tokens->bytes / sizeof *found : 0;
    bool good = n == 1 || n == STATISTICS_MOST_PARTS;
    if (good)
        memcpy(found, tokens->data, n * sizeof *found);
    for (uint64_t p = 0; good && p < n; p++) {
        good = found[p] >= 0;
        counts[p] = (uint64_t)found[p];
    }
    *parts = (int)n;
    return good ? 0 : error_set(error, ERROR_BAD_FILE, "%s: how many tokens it saw is not said", name);
}

static int read_layer(struct statistics *statistics, const char *name, const struct layer_tensors *from,
                      struct error *error)
{
    uint64_t counts[STATISTICS_MOST_PARTS] = {0};
    struct layer_sums *layer;
    int parts;
    const struct tensor_view *sum_abs = from->sum_abs;
    int code = read_tokens(name, from->tokens, counts, &parts, error);
    if (code != 0)
        return code;
    const bool row = sum_abs->dimensions == 1 && parts == 1,
               rows = sum_abs->dimensions == 2 && sum_abs->shape[0] == (uint64_t)parts;
    const uint64_t width = row || rows ? sum_abs->shape[rows] : 0;
    const bool squares = from->sum_squares && from->largest;
    if (width == 0 || width > MOST_WIDTH)
        return error_set(error, ERROR_BAD_FILE, "%s: sum_abs must be a row of numbers, one for each input", name);
    if (find(statistics, name))
        return error_set(error, ERROR_BAD_FILE, "%s: is there twice", name);
    code = add_layer(statistics, name, (int)width, parts, squares, from->moments != NULL, &layer, error);
    if (code != 0)
        return code;
    memcpy(layer->tokens, counts, sizeof counts);
    code = read_sums(layer, "sum_abs", sum_abs, layer->sum_abs, error);
    if (code == 0 && squares)
        code = read_sums(layer, "sum_squares", from->sum_squares, layer->sum_squares, error);
    if (code == 0 && squares)
        code = read_sums(layer, "largest", from->largest, layer->largest, error);
    return code == 0 && from->moments ? read_moments(layer, from->moments, error) : code;
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
    int code = 0;
    char name[NAME_BYTES], other[NAME_BYTES + 32];
    for (size_t i = 0; i < pth_count(file) && code == 0; i++) {
        const struct tensor_view *tensor = pth_at(file, i);
        if (strncmp(tensor->name, "tasks/", 6) == 0 || strcmp(tensor->name, "task") == 0)
            code = add_task(statistics, tensor->data, (size_t)tensor->bytes, error);
        if (!layer_name(name, tensor->name, "stats/", "/sum_abs"))
            continue;
        snprintf(other, sizeof other, "stats/%s/n_tokens", name);
        const struct layer_tensors of_layer = {.tokens = pth_find(file, other), .sum_abs = tensor};
        code = read_layer(statistics, name, &of_layer, error);
    }
    return code;
}

static int read_tasks(struct statistics *statistics, const char *text, struct error *error)
{
    const struct json_limits limits = {1 << 16, 1 << 10, ERROR_BAD_FILE, ERROR_BAD_FILE};
    cJSON *list;
    int code = !text ? 0 : json_parse(&list, text, strlen(text), &limits, tasks_key, error);
    if (!text || code != 0)
        return code;
    for (const cJSON *item = list->child; item && code == 0; item = item->next)
        code = cJSON_IsString(item) ? add_task(statistics, item->valuestring, strlen(item->valuestring), error)
                                    : error_set(error, ERROR_BAD_FILE, "tasks: must be a list of names");
    cJSON_Delete(list);
    return code;
}

static const struct tensor_view *part_of(const struct safetensors *file, const char *layer, const char *part)
{
    char name[NAME_BYTES + 32];
    snprintf(name, sizeof name, "%s.%s", layer, part);
    return safetensors_find(file, name);
}

static int read_safetensors(struct statistics *statistics, const struct safetensors *file, struct error *error)
{
    const char *found = safetensors_metadata(file, version_key), *note = safetensors_metadata(file, note_key);
    if (!found || (strcmp(found, version) != 0 && strcmp(found, older_version) != 0))
        return error_set(error, ERROR_BAD_FILE, "no statistics of lance-quant, or of another version of it");
    int code = read_tasks(statistics, safetensors_metadata(file, tasks_key), error);
    char name[NAME_BYTES];
    if (note && !(statistics->note = strdup(note)))
        return no_memory(error);
    for (size_t i = 0; i < safetensors_count(file) && code == 0; i++) {
        const struct tensor_view *tensor = safetensors_at(file, i);
        if (!layer_name(name, tensor->name, "", ".sum_abs"))
            continue;
        const struct layer_tensors of_layer = {
            part_of(file, name, "tokens"), tensor, part_of(file, name, "sum_squares"), part_of(file, name, "largest"),
            part_of(file, name, "moments")};
        code = read_layer(statistics, name, &of_layer, error);
    }
    return code;
}

static int read_file(struct statistics *statistics, const char *path, struct error *error)
{
    const size_t length = strlen(path);
    int code;
    if (length > 12 && strcmp(path + length - 12, ".safetensors") == 0) {
        struct safetensors *file;
        code = safetensors_open(&file, path, error);
        if (code != 0)
            return code; /* names the file */
        code = read_safetensors(statistics, file, error);
        safetensors_close(file);
    } else {
        struct pth *file;
        code = pth_open_nested(&file, path, error);
        if (code != 0)
            return code;
        code = read_pth(statistics, file, error);
        pth_close(file);
    }
    if (code == 0 && statistics->count == 0)
        code = error_set(error, ERROR_BAD_FILE, "no statistics of any layer");
    return code != 0 ? error_prefix(error, "%s", path) : 0;
}

int statistics_open(struct statistics **out, const char *path, struct error *error)
{
    *out = NULL;
    struct statistics *statistics = calloc(1, sizeof *statistics);
    const int code = !statistics ? no_memory(error) : read_file(statistics, path, error);
    if (code != 0) {
        statistics_close(statistics);
        return code;
    }
    *out = statistics;
    return 0;
}

/* --- Adding -------------------------------------------------------------------------------------------- */

/* One part instead of several. */
static void join_parts(struct layer_sums *layer)
{
    const size_t width = (size_t)layer->width;
    for (int p = 1; p < layer->parts; p++) {
        layer->tokens[0] += layer->tokens[p];
        for (size_t i = 0; i < width; i++) {
            layer->sum_abs[i] += layer->sum_abs[(size_t)p * width + i];
            if (!layer->sum_squares)
                continue;
            layer->sum_squares[i] += layer->sum_squares[(size_t)p * width + i];
            layer->largest[i] = fmaxf(layer->largest[i], layer->largest[(size_t)p * width + i]);
        }
    }
    layer->parts = 1;
}

/* Leave out of the sum what the other has not. */
static void keep_common(struct layer_sums *to, const struct layer_sums *from)
{
    if (!from->sum_squares) {
        free(to->sum_squares);
        free(to->largest);
        to->sum_squares = to->largest = NULL;
    }
    if (!from->moments) {
        free(to->moments);
        to->moments = NULL;
    }
}

/* A sum that cannot be written, or read again, is told here. */
static int add_to(struct layer_sums *to, struct layer_sums *from, struct error *error)
{
    if (to->width != from->width)
        return error_set(error, ERROR_BAD_FILE,
                         "%s has %d inputs in one file and %d in another: they are of different models", from->name,
                         to->width, from->width);
    if (to->parts != from->parts) {
        join_parts(to);
        join_parts(from);
    }
    keep_common(to, from);
    bool fits = true;
    for (int p = 0; p < to->parts; p++) {
        fits = fits && from->tokens[p] <= INT64_MAX - to->tokens[p];
        to->tokens[p] += from->tokens[p];
    }
    for (size_t i = 0; i < values_of(to); i++) {
        to->sum_abs[i] += from->sum_abs[i];
        fits = fits && isfinite(to->sum_abs[i]);
        if (!to->sum_squares)
            continue;
        to->sum_squares[i] += from->sum_squares[i];
        to->largest[i] = fmaxf(to->largest[i], from->largest[i]);
        fits = fits && isfinite(to->sum_squares[i]);
    }
    for (size_t i = 0; to->moments && i < moments_of(to->width); i++) {
        to->moments[i] += from->moments[i];
        fits = fits && isfinite(to->moments[i]);
    }
    return fits ? 0 : error_set(error, ERROR_BAD_FILE, "%s: its sums are too large to be added up", from->name);
}

int statistics_add(struct statistics *statistics, struct statistics *other, struct error *error)
{
    int code = 0;
    for (int i = 0; i < other->task_count && code == 0; i++)
        code = statistics_add_task(statistics, other->tasks[i], error);
    for (int l = 0; l < other->count && code == 0; l++) {
        struct layer_sums *from = other->layers[l], *to = find(statistics, from->name);
        if (!to)
            code = add_layer(statistics, from->name, from->width, from->parts, from->sum_squares != NULL,
                             from->moments != NULL, &to, error);
        if (code == 0)
            code = add_to(to, from, error);
    }
    return code;
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

enum { TENSORS_PER_LAYER = 5 };

/* The tensors of the file, and how many; `names` are NAME_BYTES + 32 each. */
static size_t list_tensors(const struct statistics *statistics, struct tensor_view *tensors,
                           char (*names)[NAME_BYTES + 32])
{
    size_t n = 0;
    for (int l = 0; l < statistics->count; l++) {
        const struct layer_sums *layer = statistics->layers[l];
        const uint64_t parts = (uint64_t)layer->parts, width = (uint64_t)layer->width;
        const uint64_t blocks = (uint64_t)statistics_blocks(layer->width), side = STATISTICS_BLOCK;
        const struct tensor_view of_layer[TENSORS_PER_LAYER] = {
            {.name = "tokens", .dtype = DTYPE_I64, .dimensions = 1, .shape = {parts}, .data = layer->tokens},
            {.name = "sum_abs", .dtype = DTYPE_F32, .dimensions = 2, .shape = {parts, width}, .data = layer->sum_abs},
            {.name = "sum_squares", .dtype = DTYPE_F32, .dimensions = 2, .shape = {parts, width},
             .data = layer->sum_squares},
            {.name = "largest", .dtype = DTYPE_F32, .dimensions = 2, .shape = {parts, width}, .data = layer->largest},
            {.name = "moments", .dtype = DTYPE_F32, .dimensions = 3, .shape = {blocks, side, side},
             .data = layer->moments},
        };
        for (int t = 0; t < TENSORS_PER_LAYER; t++) {
            if (!of_layer[t].data)
                continue;
            snprintf(names[n], sizeof names[n], "%s.%s", layer->name, of_layer[t].name);
            tensors[n] = of_layer[t];
            tensors[n].name = names[n];
            tensors[n].bytes = tensor_elements(&tensors[n]) * dtype_bytes(tensors[n].dtype);
            n++;
        }
    }
    return n;
}

int statistics_write(const struct statistics *statistics, const char *path, const char *note, struct error *error)
{
    const size_t most = TENSORS_PER_LAYER * (size_t)statistics->count + 1;
    struct tensor_view *tensors = calloc(most, sizeof *tensors);
    char(*names)[NAME_BYTES + 32] = calloc(most, sizeof *names), *tasks = tasks_text(statistics);
    const char *const keys[] = {version_key, tasks_key, note_key}, *const values[] = {version, tasks, note};
    void *data = NULL;
    uint64_t bytes = 0;
    int code = !tensors || !names || !tasks ? no_memory(error) : 0;
    if (code == 0)
        code = safetensors_write(&data, &bytes, tensors, list_tensors(statistics, tensors, names), keys, values,
                                 note ? 3 : 2, error);
    if (code == 0)
        code = whole_file_write(path, data, bytes, error);
    free(data);
    cJSON_free(tasks);
    free(names);
    free(tensors);
    return code;
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
        seen += tokens_of(statistics->layers[i]) > 0;
    return seen;
}

bool statistics_saw(const struct statistics *statistics, const char *layer)
{
    const struct layer_sums *found = find(statistics, layer);
    return found && tokens_of(found) > 0;
}

bool statistics_have_moments(const struct statistics *statistics)
{
    bool have = false;
    for (int i = 0; i < statistics->count; i++)
        have |= statistics->layers[i]->moments != NULL;
    return have;
}

int statistics_tasks(const struct statistics *statistics)
{
    return statistics->task_count;
}

const char *statistics_task(const struct statistics *statistics, int index)
{
    return statistics->tasks[index];
}

const char *statistics_note(const struct statistics *statistics)
{
    return statistics->note;
}

/* The layer, or NULL where it saw no token. */
static int seen_layer(const struct statistics *statistics, const char *name, int in_features,
                      const struct layer_sums **out, struct error *error)
{
    const struct layer_sums *found = find(statistics, name);
    *out = NULL;
    if (found && found->width != in_features)
        return error_set(error, ERROR_BAD_FILE, "%s has %d inputs, but %d in the statistics: they are of another model",
                         name, in_features, found->width);
    bool any = false;
    for (size_t i = 0; found && i < values_of(found); i++)
        any |= found->sum_abs[i] > 0;
    if (any && tokens_of(found) > 0)
        *out = found;
    return 0;
}

/* The mean over all parts of sums [parts, width]. */
static void mean_of(const struct layer_sums *layer, const float *sums, float *mean)
{
    const size_t width = (size_t)layer->width;
    for (size_t i = 0; i < width; i++) {
        float sum = sums[i];
        for (size_t p = 1; p < (size_t)layer->parts; p++)
            sum += sums[p * width + i];
        mean[i] = sum / (float)tokens_of(layer);
    }
}

int statistics_mean_abs(const struct statistics *statistics, const char *layer, int in_features, float *mean,
                        bool *seen, struct error *error)
{
    const struct layer_sums *found;
    const int code = seen_layer(statistics, layer, in_features, &found, error);
    *seen = found != NULL;
    if (*seen)
        mean_of(found, found->sum_abs, mean);
    return code;
}

int statistics_mean_squares(const struct statistics *statistics, const char *layer, int in_features, float *mean,
                            bool *seen, struct error *error)
{
    const struct layer_sums *found;
    const int code = seen_layer(statistics, layer, in_features, &found, error);
    *seen = found && found->sum_squares;
    if (*seen)
        mean_of(found, found->sum_squares, mean);
    return code;
}

int statistics_mean_moments(const struct statistics *statistics, const char *layer, int in_features, float *mean,
                            bool *seen, struct error *error)
{
    const struct layer_sums *found;
    const int code = seen_layer(statistics, layer, in_features, &found, error);
    *seen = found && found->moments;
    for (int b = 0; *seen && b < statistics_blocks(in_features); b++) {
        const size_t at = (size_t)b * STATISTICS_BLOCK * STATISTICS_BLOCK;
        for (size_t i = 0; i < STATISTICS_BLOCK; i++)
            for (size_t j = i; j < STATISTICS_BLOCK; j++)
                mean[at + i * STATISTICS_BLOCK + j] = mean[at + j * STATISTICS_BLOCK + i] =
                    found->moments[at + i * STATISTICS_BLOCK + j] / (float)tokens_of(found);
    }
    return code;
}

void statistics_digest(const struct statistics *statistics, const char *layer, struct sha256 *digest)
{
    const struct layer_sums *found = find(statistics, layer);
    if (!found)
        return;
    sha256_add(digest, found->tokens, sizeof found->tokens);
    sha256_add(digest, found->sum_abs, sizeof *found->sum_abs * values_of(found));
    if (found->sum_squares)
        sha256_add(digest, found->sum_squares, sizeof *found->sum_squares * values_of(found));
    if (found->moments)
        sha256_add(digest, found->moments, sizeof *found->moments * moments_of(found->width));
}
