/* model_file.c: see model_file.h. */
#include "daemon/engine/model/checkpoint/model_file.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* Whether the file begins with `words`, in upper or lower case. */
static bool begins_with(const struct mapped_file *file, const char *words)
{
    const size_t length = strlen(words);
    return file->bytes >= length && !strncasecmp((const char *)file->data, words, length);
}

int model_file_open(struct mapped_file *mapped, const char *path, struct error *error)
{
    int code = mapped_file_open(mapped, path, error);
    if (code)
        return code;
    if (begins_with(mapped, "version https://git-lfs"))
        code = error_set(error, ERROR_BAD_FILE, "%s: a Git LFS pointer, not the file itself; run git lfs pull", path);
    else if (begins_with(mapped, "<!doctype html") || begins_with(mapped, "<html"))
        code = error_set(error, ERROR_BAD_FILE, "%s: an HTML page, not the file itself; download it again", path);
    if (code)
        mapped_file_close(mapped);
    return code;
}

/* Far above the largest file there is, a vocabulary of 151,643 entries in 2.8 MB. */
static const struct json_limits file_limits = {
    .bytes = 64 << 20, .values = 1 << 19, .over = ERROR_BAD_FILE, .bad = ERROR_BAD_FILE};

int model_file_json(cJSON **out, const char *path, struct error *error)
{
    *out = NULL;
    struct mapped_file file;
    int result = model_file_open(&file, path, error);
    if (result)
        return result;
    result = json_parse(out, (const char *)file.data, (size_t)file.bytes, &file_limits, path, error);
    mapped_file_close(&file);
    if (!result && !cJSON_IsObject(*out)) {
        cJSON_Delete(*out);
        *out = NULL;
        result = error_set(error, ERROR_BAD_FILE, "%s: not a JSON object", path);
    }
    return result;
}
