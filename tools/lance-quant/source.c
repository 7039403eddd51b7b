/* source.c: see source.h. */
#include "tools/lance-quant/source.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "tools/lance-quant/codes.h"

enum { SAMPLE_BYTES = 64 };

struct source {
    struct safetensors *files[CHECKPOINT_MAX_SHARDS];
    int file_count;
    const struct tensor_view **tensors; /* of all files, sorted by name */
    size_t count;
};

static const char single[] = "model.safetensors", index_name[] = "model.safetensors.index.json";

static bool path_in(char out[PATH_MAX], const char *directory, const char *name)
{
    return snprintf(out, PATH_MAX, "%s/%s", directory, name) < PATH_MAX && access(out, F_OK) == 0;
}

void source_close(struct source *source)
{
    if (!source)
        return;
    for (int i = 0; i < source->file_count; i++)
        safetensors_close(source->files[i]);
    free(source->tensors);
    free(source);
}

static int open_file(struct source *source, const char *path, struct error *error)
{
    const int code = safetensors_open(&source->files[source->file_count], path, error);
    if (code == 0)
        source->file_count++;
    return code;
}

static int open_shards(struct source *source, const char *index, struct error *error)
{
    int count = 0;
    char (*paths)[PATH_MAX] = malloc(CHECKPOINT_MAX_SHARDS * sizeof *paths);
    if (!paths)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory to read it", index);
    int code = checkpoint_shards_read(paths, &count, index, error);
    for (int i = 0; i < count && code == 0; i++)
        code = open_file(source, paths[i], error);
    free(paths);
    return code;
}

static int explain_missing(const char *directory, struct error *error)
{
    char path[PATH_MAX];
    if (path_in(path, directory, codes_weights_file(WEIGHT_AWQ_INT4)) ||
        path_in(path, directory, codes_weights_file(WEIGHT_INT8)) ||
        path_in(path, directory, "mixed_state_dict.safetensors") ||
        path_in(path, directory, codes_weights_file(WEIGHT_NVFP4)))
        return error_set(error, ERROR_BAD_FILE,
                         "%s is quantised already; take the release in bf16 or float32 that it was made from",
                         directory);
    return error_set(error, ERROR_BAD_FILE, "%s: there is no %s in it, nor %s", directory, single, index_name);
}

static int sort(struct source *source, const char *directory, struct error *error)
{
    for (int f = 0; f < source->file_count; f++)
        source->count += safetensors_count(source->files[f]);
    source->tensors = calloc(source->count + 1, sizeof *source->tensors);
    if (!source->tensors)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory for %zu tensors", directory, source->count);
    size_t at = 0;
    for (int f = 0; f < source->file_count; f++)
        for (size_t i = 0; i < safetensors_count(source->files[f]); i++)
            source->tensors[at++] = safetensors_at(source->files[f], i);
    qsort(source->tensors, source->count, sizeof *source->tensors, tensor_compare_names_at);
    for (size_t i = 1; i < source->count; i++)
        if (strcmp(source->tensors[i - 1]->name, source->tensors[i]->name) == 0)
            return error_set(error, ERROR_BAD_FILE, "%s: tensor \"%.200s\" is in two files", directory,
                             source->tensors[i]->name);
    return 0;
}

int source_open(struct source **out, const char *directory, struct error *error)
{
    *out = NULL;
    char path[PATH_MAX];
    struct source *source = calloc(1, sizeof *source);
    if (!source)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory", directory);
    int code;
    if (path_in(path, directory, single))
        code = open_file(source, path, error);
    else if (path_in(path, directory, index_name))
        code = open_shards(source, path, error);
    else
        code = explain_missing(directory, error);
    if (code == 0)
        code = sort(source, directory, error);
    if (code != 0) {
        source_close(source);
        return code;
    }
    *out = source;
    return 0;
}

size_t source_count(const struct source *source)
{
    return source->count;
}

const struct tensor_view *source_at(const struct source *source, size_t index)
{
    return source->tensors[index];
}

const struct tensor_view *source_find(const struct source *source, const char *name)
{
    const struct tensor_view wanted = {.name = name}, *key = &wanted;
    const struct tensor_view **found =
        bsearch(&key, source->tensors, source->count, sizeof *source->tensors, tensor_compare_names_at);
    return found ? *found : NULL;
}

void source_digest(const struct source *source, struct sha256 *digest)
{
    for (size_t i = 0; i < source->count; i++) {
        const struct tensor_view *tensor = source->tensors[i];
        const uint64_t sample = tensor->bytes < SAMPLE_BYTES ? tensor->bytes : SAMPLE_BYTES;
        sha256_add(digest, tensor->name, strlen(tensor->name) + 1);
        sha256_add(digest, &tensor->dtype, sizeof tensor->dtype);
        sha256_add(digest, tensor->shape, sizeof tensor->shape);
        sha256_add(digest, tensor->data, sample);
        sha256_add(digest, (const char *)tensor->data + tensor->bytes - sample, sample);
    }
}
