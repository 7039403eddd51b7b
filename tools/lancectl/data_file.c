/* data_file.c: see data_file.h. */
#include "tools/lancectl/data_file.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mapped_file.h"

static const struct json_limits limits = {4 << 20, 1 << 16, ERROR_BAD_FILE, ERROR_BAD_FILE};

/* Places to look at, relative to the program's folder. */
static const char *const places[] = {"../share/lanced", ".", "../protocol"};
enum { PLACES = sizeof places / sizeof *places };

/* The folder of this program; "." where the system does not say. */
static void own_folder(char folder[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    folder[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
    else
        strcpy(folder, ".");
}

/* malloc'ed; NULL: nowhere, or out of memory. */
static char *find(const char *name)
{
    const char *chosen = getenv("LANCED_DATA");
    char folder[PATH_MAX], *path = NULL;
    if (chosen && *chosen)
        return asprintf(&path, "%s/%s", chosen, name) < 0 ? NULL : path;
    own_folder(folder);
    for (int i = 0; i < PLACES; i++) {
        if (asprintf(&path, "%s/%s/%s", folder, places[i], name) < 0)
            return NULL;
        if (!access(path, R_OK))
            return path;
        free(path);
    }
    return NULL;
}

int data_file_read(cJSON **out, const char *name, struct error *error)
{
    *out = NULL;
    char *path = find(name);
    if (!path)
        return error_set(error, ERROR_BAD_FILE,
                         "%s, which belongs to lancectl, is not found: neither in ../share/lanced of its folder, nor "
                         "beside it, nor in the source tree; LANCED_DATA may name its folder",
                         name);
    struct mapped_file file;
    int code = mapped_file_open(&file, path, error);
    if (!code) {
        code = json_parse(out, (const char *)file.data, file.bytes, &limits, name, error);
        mapped_file_close(&file);
    }
    if (code)
        error_prefix(error, "%s", path);
    free(path);
    return code;
}
