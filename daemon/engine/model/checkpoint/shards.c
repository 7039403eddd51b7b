/* shards.c: which files a model's weights are in when they are in several (checkpoint_shards_read in checkpoint.h). */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/model/checkpoint/model_file.h"

static int compare_paths(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* `folder` is the path of the index up to its name. */
static int add(char (*paths)[PATH_MAX], int *count, const char *index, int folder, const char *name,
               struct error *error)
{
    struct stat status;
    for (int i = 0; i < *count; i++)
        if (strcmp(paths[i] + folder, name) == 0)
            return 0;
    if (*count == CHECKPOINT_MAX_SHARDS)
        return error_set(error, ERROR_BAD_FILE, "%s: names more than %d files", index, CHECKPOINT_MAX_SHARDS);
    const int length = snprintf(paths[*count], PATH_MAX, "%.*s%s", folder, index, name);
    if (length >= PATH_MAX || stat(paths[*count], &status) != 0 || S_ISDIR(status.st_mode))
        return error_set(error, ERROR_BAD_FILE, "%s: names \"%.100s\", which is not in the folder", index, name);
    (*count)++;
    return 0;
}

int checkpoint_shards_read(char (*paths)[PATH_MAX], int *count, const char *index, struct error *error)
{
    const char *slash = strrchr(index, '/');
    const int folder = slash ? (int)(slash - index) + 1 : 0;
    cJSON *json;
    *count = 0;
    int code = model_file_json(&json, index, error);
    if (code != 0)
        return code;
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(json, "weight_map");
    for (const cJSON *item = map ? map->child : NULL; item && code == 0; item = item->next)
        if (!cJSON_IsObject(map) || !cJSON_IsString(item) || strchr(item->valuestring, '/'))
            code = error_set(error, ERROR_BAD_FILE, "%s: \"weight_map\" must name files of its own folder", index);
        else
            code = add(paths, count, index, folder, item->valuestring, error);
    if (code == 0 && *count == 0)
        code = error_set(error, ERROR_BAD_FILE, "%s: \"weight_map\" names no file", index);
    qsort(paths, (size_t)*count, sizeof *paths, compare_paths);
    cJSON_Delete(json);
    return code;
}
