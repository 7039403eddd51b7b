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
